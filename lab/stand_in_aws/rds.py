"""moto's RDS with what it gets wrong put right: states that take time, pending modifications, failover, events, refusals, and the engine's catalogue.

:func:`install` lays it over moto's classes in this process. What is not here is moto's.
"""

from __future__ import annotations

import datetime
import functools
import json
import secrets
import time
import uuid
from collections.abc import Callable
from typing import Any

from moto.core.responses import ActionResult
from moto.rds.exceptions import RDSClientError
from moto.rds.models import DBInstance, MasterUserSecret, RDSBackend
from moto.rds.responses import RDSResponse

from . import catalogue, rules
from .backing import Backing, beside

# What waits for the window where it is not asked for at once: its name among the pending values, and moto's attribute.
PENDABLE = {
    "DBInstanceClass": ("DBInstanceClass", "db_instance_class"),
    "AllocatedStorage": ("AllocatedStorage", "allocated_storage"),
    "StorageType": ("StorageType", "storage_type"),
    "Iops": ("Iops", "iops"),
    "StorageThroughput": ("StorageThroughput", "storage_throughput"),
    "MultiAZ": ("MultiAZ", "multi_az"),
    "EngineVersion": ("EngineVersion", "engine_version"),
    "DBPortNumber": ("Port", "port"),
    "BackupRetentionPeriod": ("BackupRetentionPeriod", "backup_retention_period"),
    "DBSubnetGroupName": ("DBSubnetGroupName", "db_subnet_group_name"),
    "CACertificateIdentifier": ("CACertificateIdentifier", "ca_certificate_identifier"),
    "EnableIAMDatabaseAuthentication": ("IAMDatabaseAuthenticationEnabled", "enable_iam_database_authentication"),
}
_ATTRIBUTES = dict(PENDABLE.values())
_KEPT = {
    "EnablePerformanceInsights": "performance_insights_enabled",
    "PerformanceInsightsRetentionPeriod": "performance_insights_retention_period",
    "DatabaseInsightsMode": "database_insights_mode",
}
# Seconds that a change takes; a test has no time, a demonstration shows it.
delay_seconds = 0.0
now = time.monotonic
# The servers behind the instances; None where an instance is an entry only.
backing: Backing | None = None


def refuse(found: rules.Refusal) -> None:
    """:raises RDSClientError: there is a refusal"""
    if found:
        raise RDSClientError(*found)


class Happening:
    """An event as the service tells it."""

    source_type = "db-instance"

    def __init__(self, instance: DBInstance, message: str, category: str) -> None:
        self.source_identifier, self.source_arn = instance.db_instance_identifier, instance.arn
        self.message, self.event_categories = message, [category]
        self.date = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def tell(instance: DBInstance, message: str, category: str = "availability") -> None:
    """Add an event of an instance."""
    instance.backend.events.append(Happening(instance, message, category))


def after_a_while(instance: DBInstance, work: Callable[[], None], share: float = 1.0) -> None:
    """Have something happen to an instance when a change has taken its time, or a share of it."""
    instance.to_come.append((now() + delay_seconds * share, work))


def happen(instance: DBInstance, work: Callable[[Backing], None], finish: Callable[[], None]) -> None:
    """Have it done to the instance's server while the service goes on answering; where there is none it takes its time only."""
    servers = backing
    if servers is None:
        after_a_while(instance, finish)
        return

    def do() -> None:
        try:
            work(servers)
        except (OSError, RuntimeError) as error:
            instance.status = "incompatible-parameters"
            tell(instance, f"The server did not come up: {error}", "failure")
        else:
            finish()

    beside(do)


def parameters_of(instance: DBInstance) -> dict[str, str]:
    """What an instance's group sets. Formulas are left to the server: the memory of the lab's hosts is not that of the class."""
    found = {name: str(one.get("ParameterValue", "")) for group in instance.db_parameter_groups() for name, one in group.parameters.items()}
    return {name: value for name, value in found.items() if value and "{" not in value}


def settle(backend: RDSBackend) -> None:
    """What has had its time has happened."""
    for instance in list(backend.databases.values()):
        prepare(instance)
        while instance.to_come and instance.to_come[0][0] <= now():
            instance.to_come.pop(0)[1]()


def prepare(instance: DBInstance) -> None:
    """Give an instance what moto's has not."""
    if not hasattr(instance, "to_come"):
        instance.to_come, instance.pending_modified_values, instance.parameters_wait = [], {}, False
        instance.secondary_availability_zone = None


def other_zone(instance: DBInstance) -> str | None:
    """The zone of a standby."""
    if not instance.multi_az:
        return None
    group = getattr(instance, "db_subnet_group", None)
    zones = sorted({one["SubnetAvailabilityZone"]["Name"] for one in group.subnets} if group else {f"{instance.region}{zone}" for zone in catalogue.ZONES})
    return next((zone for zone in zones if zone != instance.availability_zone), None)


def keep_insights(instance: DBInstance, params: Any) -> None:
    """Settings that moto forgets."""
    for parameter, attribute in _KEPT.items():
        if params.get(parameter) is not None:
            setattr(instance, attribute, params.get(parameter))


def family_of(response: RDSResponse, name: str | None) -> str | None:
    """Family of a parameter group; None where there is none, or it is the engine's own."""
    group = response.backend.db_parameter_groups.get(name or "")
    return None if group is None else group.family


def zones_of(response: RDSResponse, name: str | None) -> list[str]:
    """Zones of a subnet group."""
    group = response.backend.subnet_groups.get((name or "").lower())
    return [] if group is None else [one["SubnetAvailabilityZone"]["Name"] for one in group.subnets]


def one_of(response: RDSResponse) -> DBInstance:
    """The instance that a request names."""
    settle(response.backend)
    found = response.backend.describe_db_instances(response.params.get("DBInstanceIdentifier"))[0]
    prepare(found)
    return found


# --- instances ---------------------------------------------------------------------------------------------------------------------


def create_db_instance(original: Callable[[RDSResponse], ActionResult], response: RDSResponse) -> ActionResult:
    """Creating for a while, without an endpoint; then available."""
    params = response.params
    group, subnets = params.get("DBParameterGroupName"), params.get("DBSubnetGroupName")
    refuse(rules.create_instance(params, zones_of(response, subnets), family_of(response, group)))
    params["EngineVersion"] = params.get("EngineVersion") or catalogue.DEFAULT_VERSION
    answer = original(response)
    instance = response.backend.databases[params.get("DBInstanceIdentifier").lower()]
    prepare(instance)
    instance.dbi_resource_id = f"db-{uuid.uuid4().hex[:26].upper()}"
    instance.performance_insights_enabled = False
    keep_insights(instance, params)
    if instance.storage_type == "gp3":
        instance.iops, instance.storage_throughput = instance.iops or catalogue.GP3_IOPS, instance.storage_throughput or catalogue.GP3_THROUGHPUT
    instance.status = "creating"

    def finish() -> None:
        instance.status, instance.secondary_availability_zone = "available", other_zone(instance)
        tell(instance, "DB instance created", "creation")

    wanted = {
        "admin": params.get("MasterUsername"),
        "password": _password_of(instance, params),
        "database": instance.db_name or "postgres",
        "port": int(instance.port),
    }
    happen(
        instance,
        lambda servers: servers.make(
            instance.db_instance_identifier, instance.address, instance.availability_zone, parameters=parameters_of(instance), **wanted
        ),
        finish,
    )
    return answer


def _password_of(instance: DBInstance, params: Any) -> str:
    if not instance.manage_master_user_password:
        return str(params.get("MasterUserPassword"))
    return str(json.loads(instance.master_user_secret.secret.secret_string)["password"])


def secret_string(secret: MasterUserSecret) -> str:
    """The administrator's name and a password of its own; moto's is always the same."""
    return json.dumps({"username": secret.resource.master_username, "password": secrets.token_urlsafe(21)})


def modify_db_instance(original: Callable[[RDSResponse], ActionResult], response: RDSResponse) -> ActionResult:
    """What can wait is pending: until the window, or for a while."""
    instance, params = one_of(response), response.params
    families = {name: group.family for name, group in response.backend.db_parameter_groups.items()}
    refuse(rules.modify_instance(params, instance, families))
    group = params.get("DBParameterGroupName")
    if params.get("AllocatedStorage") is not None:
        params["AllocatedStorage"] = rules.grown(params["AllocatedStorage"], instance.allocated_storage)
    for parameter, (shown, attribute) in PENDABLE.items():
        value = params.get(parameter)
        if value is not None:
            if value != (instance._db_subnet_group_name if parameter == "DBSubnetGroupName" else getattr(instance, attribute)):
                instance.pending_modified_values[shown] = value
            else:
                instance.pending_modified_values.pop(shown, None)
            del params[parameter]
    params.pop("AllowMajorVersionUpgrade", None)
    keep_insights(instance, params)
    if group and group != instance.db_parameter_group_name:
        instance.parameters_wait = True
    answer = original(response)
    if instance.pending_modified_values and params.get("ApplyImmediately"):
        # For a moment it is as it was: whoever takes that for the end has not waited.
        after_a_while(instance, lambda: setattr(instance, "status", "modifying"), share=0.5)
        after_a_while(instance, lambda: apply_pending(instance))
    return answer


def apply_pending(instance: DBInstance) -> None:
    """What was pending is so: at once, or in the window."""
    for shown, value in instance.pending_modified_values.items():
        setattr(instance, _ATTRIBUTES[shown], value)
    if "MultiAZ" in instance.pending_modified_values:
        instance.secondary_availability_zone = other_zone(instance)
    instance.pending_modified_values, instance.status = {}, "available"
    tell(instance, "Finished applying modification", "configuration change")


def reboot_db_instance(_original: Callable[[RDSResponse], ActionResult], response: RDSResponse) -> ActionResult:
    """A restart, or a failover, with its events; afterwards static parameters are in force."""
    instance = one_of(response)
    forced = bool(response.params.get("ForceFailover"))
    refuse(rules.reboot_instance(forced, instance))
    instance.status = "rebooting"
    if forced:
        tell(instance, "Multi-AZ instance failover started.", "failover")

    def finish() -> None:
        if forced:
            instance.availability_zone, instance.secondary_availability_zone = instance.secondary_availability_zone, instance.availability_zone
            tell(instance, "Multi-AZ instance failover completed", "failover")
        else:
            tell(instance, "DB instance restarted")
        instance.parameters_wait, instance.status = False, "available"

    name, zone, other = instance.db_instance_identifier, instance.availability_zone, instance.secondary_availability_zone
    happen(
        instance,
        lambda servers: (
            servers.fail_over(name, instance.address, zone, other, parameters_of(instance)) if forced else servers.restart(name, zone, parameters_of(instance))
        ),
        finish,
    )
    return ActionResult({"DBInstance": instance})


def delete_db_instance(_original: Callable[[RDSResponse], ActionResult], response: RDSResponse) -> ActionResult:
    """Deleting for a while, then gone."""
    instance, backend = one_of(response), response.backend
    refuse(rules.delete_instance(response.params, instance))
    name, snapshot = instance.db_instance_identifier, response.params.get("FinalDBSnapshotIdentifier")
    if snapshot:
        backend.validate_db_snapshot_identifier(snapshot, parameter_name="FinalDBSnapshotIdentifier")
    instance.status = "deleting"
    happen(
        instance,
        lambda servers: servers.end(name, instance.address, instance.availability_zone),
        lambda: backend.delete_db_instance(name, snapshot, skip_final_snapshot=not snapshot) and None,
    )
    return ActionResult({"DBInstance": instance})


def create_db_instance_read_replica(original: Callable[[RDSResponse], ActionResult], response: RDSResponse) -> ActionResult:
    """moto's replica is a copy of its source and shares with it what must be its own."""
    settle(response.backend)
    source = response.backend.find_db_from_id(response.params.get("SourceDBInstanceIdentifier"))
    refuse(rules.make_replica(source))
    answer = original(response)
    replica = response.backend.databases[response.params.get("DBInstanceIdentifier")]
    replica.to_come, replica.pending_modified_values, replica.parameters_wait = [], {}, False
    replica.dbi_resource_id = f"db-{uuid.uuid4().hex[:26].upper()}"
    replica.multi_az, replica.deletion_protection = bool(response.params.get("MultiAZ")), False
    replica.status, replica.secondary_availability_zone = "creating", None

    def finish() -> None:
        replica.status, replica.secondary_availability_zone = "available", other_zone(replica)

    after_a_while(replica, finish)
    return answer


def promote_read_replica(_original: Callable[[RDSResponse], ActionResult], response: RDSResponse) -> ActionResult:
    """After a while it follows nobody, and its source knows it no more."""
    replica = one_of(response)
    if not replica.is_replica:
        refuse((rules.STATE, f"DB Instance {replica.db_instance_identifier} is not a read replica."))
    replica.status, days = "modifying", response.params.get("BackupRetentionPeriod")

    def finish() -> None:
        replica.backend.find_db_from_id(replica.source_db_instance_identifier).remove_replica(replica)
        replica.is_replica, replica.source_db_instance_identifier, replica.status = False, None, "available"
        replica.backup_retention_period = replica.backup_retention_period if days is None else days
        tell(replica, "Promoted Read Replica to a stand-alone database instance", "availability")

    after_a_while(replica, finish)
    return ActionResult({"DBInstance": replica})


def settled(original: Callable[[RDSResponse], ActionResult], response: RDSResponse) -> ActionResult:
    """A read, of what has happened by now."""
    settle(response.backend)
    return original(response)


def describe_events(_original: Callable[[RDSResponse], ActionResult], response: RDSResponse) -> ActionResult:
    """Of the last minutes only, as asked."""
    settle(response.backend)
    since = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - datetime.timedelta(minutes=response.params.get("Duration") or 60)
    found = response.backend.describe_events(response.params.get("SourceIdentifier"), response.params.get("SourceType"))
    return ActionResult({"Events": [event for event in found if event.date >= since]})


# --- what the service offers -------------------------------------------------------------------------------------------------------


def describe_db_engine_versions(response: RDSResponse) -> ActionResult:
    """All versions."""
    version = response.params.get("EngineVersion")
    return ActionResult(
        {"DBEngineVersions": [one for one in catalogue.engine_versions() if version in (None, one["EngineVersion"], one["MajorEngineVersion"])]}
    )


def describe_orderable_db_instance_options(_original: Callable[[RDSResponse], ActionResult], response: RDSResponse) -> ActionResult:
    """Classes for a version."""
    version = response.params.get("EngineVersion") or catalogue.DEFAULT_VERSION
    return ActionResult({"OrderableDBInstanceOptions": catalogue.orderable(response.region, version, response.params.get("DBInstanceClass"))})


def describe_engine_default_parameters(response: RDSResponse) -> ActionResult:
    """Parameters of a family."""
    family = response.params.get("DBParameterGroupFamily")
    refuse(_unknown_family(family))
    return ActionResult({"EngineDefaults": {"DBParameterGroupFamily": family, "Parameters": list(catalogue.parameters().values())}})


def _unknown_family(family: str) -> rules.Refusal:
    known = {f"postgres{catalogue.major(version)}" for version in catalogue.VERSIONS}
    return None if family in known else (rules.VALUE, f"ParameterGroupFamily {family} is not a valid parameter group family")


# --- parameter groups --------------------------------------------------------------------------------------------------------------


def describe_db_parameter_groups(original: Callable[[RDSResponse], ActionResult], response: RDSResponse) -> ActionResult:
    """A group that is named has to be there."""
    name = response.params.get("DBParameterGroupName")
    if name and name.lower() not in response.backend.db_parameter_groups:
        refuse(("DBParameterGroupNotFound", f"DBParameterGroup not found: {name}"))
    return original(response)


def create_db_parameter_group(original: Callable[[RDSResponse], ActionResult], response: RDSResponse) -> ActionResult:
    """Of a family that there is."""
    refuse(_unknown_family(response.params.get("DBParameterGroupFamily")))
    return original(response)


def describe_db_parameters(original: Callable[[RDSResponse], ActionResult], response: RDSResponse) -> ActionResult:
    """The family's parameters, with what the group sets."""
    original(response)
    group = response.backend.db_parameter_groups[response.params.get("DBParameterGroupName").lower()]
    return ActionResult({"Parameters": [{**one, **group.parameters.get(name, {})} for name, one in catalogue.parameters().items()]})


def modify_db_parameter_group(original: Callable[[RDSResponse], ActionResult], response: RDSResponse) -> ActionResult:
    """Values that the engine takes; a static one waits for a reboot of whoever uses the group."""
    wanted, known = [one.original_dict() for one in response.params.get("Parameters", [])], catalogue.parameters()
    refuse(rules.modify_parameters(wanted, known))
    answer = original(response)
    group = response.backend.db_parameter_groups[response.params.get("DBParameterGroupName").lower()]
    for one in wanted:
        group.parameters[one["ParameterName"]]["Source"] = "user"
    _take_up(response.backend, group.name, [one["ParameterName"] for one in wanted])
    return answer


def reset_db_parameter_group(response: RDSResponse) -> ActionResult:
    """The engine's own values come back."""
    name = response.params.get("DBParameterGroupName").lower()
    group = response.backend.describe_db_parameter_groups({"db_parameter_group_name": name})[0]
    named = [one.original_dict()["ParameterName"] for one in response.params.get("Parameters", [])]
    chosen = list(group.parameters) if response.params.get("ResetAllParameters") else named
    for one in chosen:
        group.parameters.pop(one, None)
    _take_up(response.backend, name, chosen)
    return ActionResult({"DBParameterGroupName": name})


def _take_up(backend: RDSBackend, group: str, parameters: list[str]) -> None:
    known = catalogue.parameters()
    static = any(known[name]["ApplyType"] == "static" for name in parameters)
    for instance in backend.databases.values():
        if (instance.db_parameter_group_name or "").lower() == group:
            prepare(instance)
            instance.parameters_wait |= static
            if backing is not None and instance.status == "available":
                backing.set(instance.db_instance_identifier, instance.availability_zone, parameters_of(instance))


def delete_db_parameter_group(original: Callable[[RDSResponse], ActionResult], response: RDSResponse) -> ActionResult:
    """One that nobody uses."""
    name = response.params.get("DBParameterGroupName").lower()
    if any((instance.db_parameter_group_name or "").lower() == name for instance in response.backend.databases.values()):
        refuse(
            ("InvalidDBParameterGroupState", f"One or more database instances are still members of this parameter group {name}, so the group cannot be deleted")
        )
    return original(response)


def _parameter_groups(instance: DBInstance) -> list[dict[str, str]]:
    status = "pending-reboot" if getattr(instance, "parameters_wait", False) else "in-sync"
    return [{"DBParameterGroupName": group.name, "ParameterApplyStatus": status} for group in instance.db_parameter_groups()]


_installed = False


def install() -> None:
    """Lay it over moto. Doing so again changes nothing."""
    global _installed
    if _installed:
        return
    _installed = True
    around = (
        create_db_instance, modify_db_instance, reboot_db_instance, delete_db_instance, create_db_instance_read_replica, promote_read_replica, describe_events,
        describe_orderable_db_instance_options, create_db_parameter_group, describe_db_parameter_groups, describe_db_parameters,
        modify_db_parameter_group, delete_db_parameter_group,
    )  # fmt: skip
    for function in around:
        setattr(RDSResponse, function.__name__, _around(function, getattr(RDSResponse, function.__name__)))
    for name in ("describe_db_instances", "create_db_snapshot", "describe_db_snapshots"):
        setattr(RDSResponse, name, _around(settled, getattr(RDSResponse, name)))
    for function in (describe_db_engine_versions, describe_engine_default_parameters, reset_db_parameter_group):
        setattr(RDSResponse, function.__name__, function)
    address = DBInstance.endpoint.fget
    DBInstance.endpoint = property(lambda instance: None if instance.status == "creating" else address(instance))
    DBInstance.db_parameter_group_status_list = property(_parameter_groups)
    MasterUserSecret._generate_secret_string = secret_string


def _around(function: Callable[..., ActionResult], original: Callable[[RDSResponse], ActionResult]) -> Callable[[RDSResponse], ActionResult]:
    @functools.wraps(original)
    def method(response: RDSResponse) -> ActionResult:
        return function(original, response)

    return method
