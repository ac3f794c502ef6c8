"""What RDS refuses and moto takes, as functions from a request and what stands to an error code and a message. Pure: no I/O, no clock.

Codes are those of botocore's model of each operation; the sentences are ours, for nobody may rely on the service's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from . import catalogue

Refusal = tuple[str, str] | None
Request = Mapping[str, Any]
VALUE, COMBINATION, STATE, MISSING = "InvalidParameterValue", "InvalidParameterCombination", "InvalidDBInstanceState", "MissingParameter"


def create_instance(request: Request, zones: Sequence[str], family: str | None) -> Refusal:
    """Before an instance is made.

    :param zones: of its subnet group
    :param family: of its parameter group
    """
    version, name = request.get("EngineVersion") or catalogue.DEFAULT_VERSION, request.get("DBInstanceClass")
    if version not in catalogue.VERSIONS:
        return VALUE, f"Cannot find version {version} for postgres"
    if name not in catalogue.CLASSES:
        return VALUE, f"Invalid DB Instance class: {name}"
    if request.get("MultiAZ") and not catalogue.CLASSES[name][1]:
        return COMBINATION, f"{name} cannot be created as Multi-AZ"
    if request.get("MultiAZ") and request.get("DBSubnetGroupName") and len(set(zones)) < 2:
        return "DBSubnetGroupDoesNotCoverEnoughAZs", "DB Subnet Group doesn't meet availability zone coverage requirement."
    if not request.get("MasterUsername"):
        return MISSING, "The request must contain the parameter MasterUsername"
    if not request.get("ManageMasterUserPassword") and len(request.get("MasterUserPassword") or "") < 8:
        return VALUE, "The parameter MasterUserPassword is not a valid password because it is shorter than 8 characters."
    if family is not None and family != f"postgres{catalogue.major(version)}":
        return COMBINATION, f"The parameter group has the family {family}, and PostgreSQL {version} another"
    return _storage(request.get("StorageType") or "gp2", request) or _version_only_for_engine(request)


def _version_only_for_engine(request: Request) -> Refusal:
    return None if request.get("Engine") == "postgres" else (VALUE, "This stand-in makes PostgreSQL only")


def _storage(kind: str, request: Request) -> Refusal:
    bounds, size = catalogue.STORAGE.get(kind), request.get("AllocatedStorage")
    if bounds is None:
        return VALUE, f"Invalid storage type: {kind}"
    if size is not None and not bounds["MinStorageSize"] <= size <= bounds["MaxStorageSize"]:
        return VALUE, f"Invalid storage size for engine name postgres and storage type {kind}: {size}"
    if kind == "gp3" and (size or 0) < catalogue.GP3_FIXED_GIB and (request.get("Iops") or request.get("StorageThroughput")):
        return COMBINATION, f"You can't specify IOPS or storage throughput for engine postgres and a storage size less than {catalogue.GP3_FIXED_GIB}."
    return None


def modify_instance(request: Request, instance: Any, families: Mapping[str, str]) -> Refusal:
    """Before an instance is changed.

    :param request: moto's form of it, whose names are in snake case when it is iterated
    :param instance: moto's
    :param families: of the parameter groups that there are, by their names
    """
    if instance.status not in ("available", "storage-optimization") and not _grows_full_storage(request, instance):
        return STATE, f"Instance {instance.db_instance_identifier} is {instance.status}"
    if request.get("ManageMasterUserPassword") and instance.is_replica:
        return COMBINATION, "The master user password of a read replica is that of its source."
    if request.get("AllocatedStorage") is not None and request["AllocatedStorage"] < instance.allocated_storage:
        return COMBINATION, "Allocated storage cannot be reduced"
    size = request.get("AllocatedStorage") or instance.allocated_storage
    kind = request.get("StorageType") or instance.storage_type
    if kind == "gp3" and size < catalogue.GP3_FIXED_GIB and (request.get("Iops") or request.get("StorageThroughput")):
        return COMBINATION, f"You can't specify IOPS or storage throughput for engine postgres and a storage size less than {catalogue.GP3_FIXED_GIB}."
    if request.get("DBInstanceClass") is not None and request["DBInstanceClass"] not in catalogue.CLASSES:
        return VALUE, f"Invalid DB Instance class: {request['DBInstanceClass']}"
    if request.get("MonitoringInterval") and not (request.get("MonitoringRoleArn") or instance.monitoring_role_arn):
        return COMBINATION, "A MonitoringRoleARN value is required if you specify a MonitoringInterval value other than 0."
    group = request.get("DBParameterGroupName") or instance.db_parameter_group_name
    return _upgrade(request, instance.engine_version, families.get(group or ""))


def _grows_full_storage(request: Request, instance: Any) -> bool:
    """Storage that is full can be enlarged, and nothing else of the instance be changed."""
    others = set(request) - {"db_instance_identifier", "apply_immediately", "allocated_storage", "max_allocated_storage", "iops"}
    return instance.status == "storage-full" and not others and (request.get("AllocatedStorage") or 0) > instance.allocated_storage


def grown(asked: int, stands: int) -> int:
    """Storage grows by a tenth at least."""
    return max(asked, -(-stands * 11 // 10)) if asked > stands else asked


def _upgrade(request: Request, stands: str, family: str | None) -> Refusal:
    wanted = request.get("EngineVersion")
    if wanted is None or wanted == stands:
        return None
    if wanted not in catalogue.VERSIONS:
        return VALUE, f"Cannot find version {wanted} for postgres"
    offered = next((one["ValidUpgradeTarget"] for one in catalogue.engine_versions() if one["EngineVersion"] == stands), [])
    if wanted not in [one["EngineVersion"] for one in offered]:
        return COMBINATION, f"Cannot upgrade postgres from {stands} to {wanted}"
    if catalogue.major(wanted) != catalogue.major(stands) and not request.get("AllowMajorVersionUpgrade"):
        return COMBINATION, "The AllowMajorVersionUpgrade flag must be present when upgrading to a new major version."
    if family is not None and family != f"postgres{catalogue.major(wanted)}":
        return COMBINATION, f"The parameter group has the family {family}, and PostgreSQL {wanted} another"
    return None


def reboot_instance(force_failover: bool, instance: Any) -> Refusal:
    """Before an instance restarts."""
    if instance.status != "available":
        return STATE, f"Instance {instance.db_instance_identifier} is {instance.status}"
    if force_failover and not instance.multi_az:
        return COMBINATION, "A failover can be forced on a Multi-AZ instance only"
    return None


def delete_instance(request: Request, instance: Any) -> Refusal:
    """Before an instance is deleted."""
    if instance.status == "deleting":
        return STATE, f"Instance {instance.db_instance_identifier} is already being deleted."
    if instance.deletion_protection:
        return COMBINATION, "Cannot delete protected DB Instance, please disable deletion protection and try again."
    if request.get("SkipFinalSnapshot"):
        return None if not request.get("FinalDBSnapshotIdentifier") else (COMBINATION, "FinalDBSnapshotIdentifier cannot be given with SkipFinalSnapshot")
    if instance.is_replica:
        return COMBINATION, "A read replica is deleted with SkipFinalSnapshot only"
    return None if request.get("FinalDBSnapshotIdentifier") else (COMBINATION, "FinalDBSnapshotIdentifier is required unless SkipFinalSnapshot is specified.")


def make_replica(source: Any) -> Refusal:
    """Before a read replica is made."""
    if not source.backup_retention_period:
        return STATE, "Automated backups are not enabled for this database instance. To enable automated backups, use ModifyDBInstance."
    if source.manage_master_user_password:
        return VALUE, "Read replicas of a source of engine postgres with ManageMasterUserPassword are not supported."
    return None


def modify_parameters(parameters: Sequence[Request], known: Mapping[str, Request]) -> Refusal:
    """Before parameters of a group are changed."""
    if not 0 < len(parameters) <= 20:
        return VALUE, "One to 20 parameters can be changed in one request"
    for one in parameters:
        found = _parameter(one, known.get(one["ParameterName"]))
        if found:
            return found
    return None


def _parameter(wanted: Request, stands: Request | None) -> Refusal:
    name, value = wanted["ParameterName"], wanted.get("ParameterValue")
    if stands is None:
        return VALUE, f"Could not find parameter with name: {name}"
    if not stands["IsModifiable"]:
        return VALUE, f"The parameter {name} cannot be modified."
    if stands["ApplyType"] == "static" and wanted.get("ApplyMethod") == "immediate":
        return COMBINATION, f"cannot use immediate apply method for static parameter {name}"
    if value is None or "{" in value or value.split("(")[0] in ("GREATEST", "LEAST", "SUM"):
        return None
    return None if _is_allowed(value, stands) else (VALUE, f"Invalid parameter value: {value} for: {name} allowed values are: {stands['AllowedValues']}")


def _is_allowed(value: str, stands: Request) -> bool:
    allowed = stands.get("AllowedValues")
    if not allowed:
        return True
    bounds = re.fullmatch(r"(-?[\d.e+]+)-(-?[\d.e+]+)", allowed)
    if not bounds:
        return all(one.strip() in allowed.split(",") for one in value.split(","))
    try:
        return float(bounds[1]) <= float(value) <= float(bounds[2])
    except ValueError:
        return False
