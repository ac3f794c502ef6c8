# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What a read replica needs to be as wanted. Pure: no I/O, no clock."""

from __future__ import annotations

import typing as t

from .._core.errors import PlanError, UsageError
from .model import DELETING, Described, tag_list

_OPTIONS = {"instance_class": "DBInstanceClass", "zone": "AvailabilityZone", "parameter_group": "DBParameterGroupName", "kms_key_id": "KmsKeyId"}


class Step(t.NamedTuple):
    """What to do: an operation of the API, its parameters, and words for the operator.

    Where it was asked for before and has to be waited for, there is no operation; where nothing is to be done, no words either.
    """

    operation: str | None
    request: dict[str, t.Any]
    words: str


NOTHING = Step(None, {}, "")


def region_of(source: str | None, region: str) -> str:
    """The region of a source.

    :param source: a name, or an ARN
    :param region: where the replica is
    """
    return source.split(":")[3] if source and source.startswith("arn:") and source.count(":") > 3 else region


def plan_replica(params: t.Mapping[str, t.Any], current: Described | None, source: Described | None, region: str) -> Step:
    """What to do.

    :param source: description of the instance that shall be followed, where it is in this region and its replica has to be made
    :param region: where the replica is
    :raises PgHaError: it cannot be so
    """
    if params["state"] == "present":
        return _make(params, current, source, region)
    return (_promote if params["state"] == "promoted" else _remove)(params, current)


def _make(params: t.Mapping[str, t.Any], current: Described | None, source: Described | None, region: str) -> Step:
    name, follows = params["identifier"], params["source"]
    if current is not None:
        _refuse_other(name, current, follows)
        return NOTHING
    if not follows:
        raise UsageError(f"source is not given, and replica {name} does not exist yet: give it.")
    there = region_of(follows, region)
    if there == region:
        _refuse_source(name, follows, source)
        if params["kms_key_id"]:
            raise UsageError(f"kms_key_id is given for {name}, which has the key of {follows} because that is in the same region: omit it.")
    request = {
        "DBInstanceIdentifier": name,
        "SourceDBInstanceIdentifier": follows,
        "MultiAZ": params["multi_az"],
        "Tags": tag_list(params["tags"]),
        **{parameter: params[option] for option, parameter in _OPTIONS.items() if params[option]},
        # With it boto3 signs the request for the other region, too, which China and GovCloud want for an encrypted source.
        **({} if there == region else {"SourceRegion": there}),
    }
    return Step("CreateDBInstanceReadReplica", request, f"make {name}, a read replica of {follows}")


def _refuse_source(name: str, follows: str, source: Described | None) -> None:
    if source is None:
        raise PlanError(f"There is no instance {follows} for {name} to follow: see source and region, or give its ARN where it is in another region.")
    if not source.get("BackupRetentionPeriod"):
        raise PlanError(f"Instance {follows} keeps no backups, and the service makes replicas only of those that do: set backup_retention_days first.")
    if source.get("MasterUserSecret"):
        raise PlanError(
            f"Instance {follows} has its administrator's password in Secrets Manager, and the service makes no read replicas of those that do: "
            "give it a password of your own with aws rds modify-db-instance --no-manage-master-user-password first, and admin_secret: false from then on."
        )


def _refuse_other(name: str, current: Described, follows: str | None) -> None:
    has = current.get("ReadReplicaSourceDBInstanceIdentifier")
    if not has:
        raise PlanError(f"Instance {name} is no replica, and nothing makes it one again: give another identifier.")
    if follows and follows.rpartition(":")[2] != has.rpartition(":")[2]:
        raise PlanError(f"Replica {name} follows {has}, not {follows}: give another identifier, or delete it first.")


def _promote(params: t.Mapping[str, t.Any], current: Described | None) -> Step:
    name = params["identifier"]
    if current is None:
        raise PlanError(f"There is no replica {name} that could be promoted: see identifier and region.")
    if not current.get("ReadReplicaSourceDBInstanceIdentifier"):
        return NOTHING
    days = params["backup_retention_days"]
    request = {"DBInstanceIdentifier": name, **({} if days is None else {"BackupRetentionPeriod": days})}
    return Step("PromoteReadReplica", request, f"promote {name}, which follows {current['ReadReplicaSourceDBInstanceIdentifier']} no more")


def _remove(params: t.Mapping[str, t.Any], current: Described | None) -> Step:
    name = params["identifier"]
    if current is None:
        return NOTHING
    if not current.get("ReadReplicaSourceDBInstanceIdentifier"):
        raise PlanError(f"Instance {name} is no replica, so that its data would be lost with it: delete it with rds_instance.")
    if current.get("DBInstanceStatus") == DELETING:
        return Step(None, {}, f"delete replica {name}")
    if current.get("DeletionProtection"):
        raise PlanError(f"Replica {name} is protected from deletion: set deletion_protection: false with rds_instance first.")
    return Step("DeleteDBInstance", {"DBInstanceIdentifier": name, "SkipFinalSnapshot": True}, f"delete replica {name}")


def predict(params: t.Mapping[str, t.Any], before: Described, source: Described | None) -> dict[str, t.Any]:
    """What a diff shows afterwards."""
    if params["state"] == "absent":
        return {}
    if params["state"] == "promoted":
        return {**before, "replica_of": None}
    return {"replica_of": params["source"], "instance_class": params["instance_class"] or (source or {}).get("DBInstanceClass")}
