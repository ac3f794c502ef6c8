# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What a read replica needs to be as wanted. Pure: no I/O, no clock."""

from __future__ import annotations

import typing as t

from .._core.errors import PlanError, UsageError
from .model import Described, tag_list

_OPTIONS = {"instance_class": "DBInstanceClass", "zone": "AvailabilityZone", "parameter_group": "DBParameterGroupName"}


class Step(t.NamedTuple):
    """What to do: an operation of the API, its parameters, and words for the operator; no operation where nothing is to be done."""

    operation: str | None
    request: dict[str, t.Any]
    words: str


NOTHING = Step(None, {}, "")


def plan_replica(params: t.Mapping[str, t.Any], current: Described | None, source: Described | None) -> Step:
    """What to do.

    :param source: description of the instance that shall be followed, where it is in this region and its replica has to be made
    :raises PgHaError: it cannot be so
    """
    return {"present": _make, "promoted": _promote, "absent": _remove}[params["state"]](params, current, source)


def _make(params: t.Mapping[str, t.Any], current: Described | None, source: Described | None) -> Step:
    name, follows = params["identifier"], params["source"]
    if current is not None:
        _refuse_other(name, current, follows)
        return NOTHING
    if not follows:
        raise UsageError(f"source is not given, and replica {name} does not exist yet: give it.")
    if ":" not in follows:
        if source is None:
            raise PlanError(f"There is no instance {follows} for {name} to follow: see source and region, or give its ARN where it is in another region.")
        if not source.get("BackupRetentionPeriod"):
            raise PlanError(f"Instance {follows} keeps no backups, and the service makes replicas only of those that do: set backup_retention_days first.")
    request = {
        "DBInstanceIdentifier": name,
        "SourceDBInstanceIdentifier": follows,
        "MultiAZ": params["multi_az"],
        "Tags": tag_list(params["tags"]),
        **{parameter: params[option] for option, parameter in _OPTIONS.items() if params[option]},
    }
    return Step("CreateDBInstanceReadReplica", request, f"make {name}, a read replica of {follows}")


def _refuse_other(name: str, current: Described, follows: str | None) -> None:
    has = current.get("ReadReplicaSourceDBInstanceIdentifier")
    if not has:
        raise PlanError(f"Instance {name} is no replica, and nothing makes it one again: give another identifier.")
    if follows and follows.rpartition(":")[2] != has.rpartition(":")[2]:
        raise PlanError(f"Replica {name} follows {has}, not {follows}: give another identifier, or delete it first.")


def _promote(params: t.Mapping[str, t.Any], current: Described | None, source: Described | None) -> Step:
    name = params["identifier"]
    if current is None:
        raise PlanError(f"There is no replica {name} that could be promoted: see identifier and region.")
    if not current.get("ReadReplicaSourceDBInstanceIdentifier"):
        return NOTHING
    days = params["backup_retention_days"]
    request = {"DBInstanceIdentifier": name, **({} if days is None else {"BackupRetentionPeriod": days})}
    return Step("PromoteReadReplica", request, f"promote {name}, which follows {current['ReadReplicaSourceDBInstanceIdentifier']} no more")


def _remove(params: t.Mapping[str, t.Any], current: Described | None, source: Described | None) -> Step:
    name = params["identifier"]
    if current is None:
        return NOTHING
    if not current.get("ReadReplicaSourceDBInstanceIdentifier"):
        raise PlanError(f"Instance {name} is no replica, so that its data would be lost with it: delete it with rds_instance.")
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
