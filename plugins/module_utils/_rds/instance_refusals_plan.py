# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What an instance cannot be, by what the service offers: all of it together, before anything is asked of it. Pure: no I/O, no clock."""

from __future__ import annotations

import re
import typing as t

from .._core.problems import Problem
from .instance_plan import GP3_FIXED_GIB, NOW, Change, Wanted, interruption, is_reboot_due
from .model import OUTAGE, RESTART, SETTING, Described, Offer, choose_version, version_key

# CreateDBInstance, DBInstanceIdentifier: 1 to 63 letters, digits and hyphens, a letter first, no hyphen at the end and no two in a row.
_IDENTIFIER = re.compile(r"[A-Za-z](?!.*--)[A-Za-z0-9-]{0,62}(?<!-)")
_NEEDED = ("instance_class", "engine_version", "allocated_storage_gib", "admin_user")
NO_ROLE = Problem("missing", "monitoring_role_arn", "monitoring_interval_seconds needs a role that may write the metrics", "give monitoring_role_arn")
STORAGE_NEEDS = {"io1", "io2"}


def refuse_identifier(identifier: str) -> list[Problem]:
    """A name that the service does not take."""
    if _IDENTIFIER.fullmatch(identifier):
        return []
    remedy = "use at most 63 letters, digits and single hyphens, with a letter first and no hyphen at the end"
    return [Problem("value", "identifier", f"{identifier!r} is no name for an instance", remedy)]


def refuse_create(wanted: Wanted, identifier: str, offer: Offer) -> list[Problem]:
    """What keeps an instance from being made."""
    missing = [option for option in _NEEDED if not wanted.get(option)]
    found = [Problem("missing", option, f"{option} is not given, and {identifier} does not exist yet", "give it") for option in missing]
    found += refuse_identifier(identifier)
    return (
        found
        if missing
        else [*found, *_version(wanted, offer), *_class(wanted, offer), *_storage(wanted, offer), *_zones(wanted, offer), *_together(wanted, offer)]
    )


def refuse_modify(wanted: Wanted, current: Described, changes: t.Sequence[Change], offer: Offer, apply: str) -> list[Problem]:
    """What keeps an instance from being changed.

    :param changes: what is not as wanted
    """
    options = {change.setting.option for change in changes}
    found = [_unchangeable(change) for change in changes if change.setting.modified is None]
    if {"instance_class", "engine_version", "multi_az"} & options:
        found += [*_class(_whole(wanted, current), offer), *_zones(_whole(wanted, current), offer)]
    for change in changes:
        found += _REFUSES.get(change.setting.option, lambda *_arguments: [])(change, current, wanted, offer)
    return found + _consent(wanted, changes, apply, is_reboot_due(wanted, current))


def _whole(wanted: Wanted, current: Described) -> dict[str, t.Any]:
    """What will stand, as far as class and zones are concerned."""
    standing = {"instance_class": current.get("DBInstanceClass"), "multi_az": current.get("MultiAZ"), "storage_type": current.get("StorageType")}
    return {**standing, **{key: value for key, value in wanted.items() if value is not None}}


def _unchangeable(change: Change) -> Problem:
    remedy = f"set {change.setting.option} to what stands, or make another instance and move to it"
    return Problem("immutable", change.setting.option, f"{change.words} is not possible, the service keeps it for an instance's life", remedy)


def _consent(wanted: Wanted, changes: t.Sequence[Change], apply: str, reboot_due: bool) -> list[Problem]:
    """Clients are interrupted only by those who say so."""
    if wanted.get("allow_interruption"):
        return []
    remedy = "give allow_interruption: true, which is asked for each time, or leave the setting as it is"
    reboot = [Problem("consent", "reboot_when_due", f"parameters wait for a reboot, which interrupts clients now: {OUTAGE}", remedy)] if reboot_due else []
    return reboot + [
        Problem(
            "consent",
            change.setting.option,
            f"{change.words} interrupts clients {'now' if apply == NOW or words == RESTART else 'when its window comes'}: {words}",
            remedy,
        )
        for change in changes
        if (words := interruption(change))
    ]


def _version(wanted: Wanted, offer: Offer) -> list[Problem]:
    asked = str(wanted["engine_version"])
    if choose_version(offer.versions, asked) is not None:
        return []
    offered = sorted((one["EngineVersion"] for one in offer.versions), key=version_key)
    say = f"choose one of: {', '.join(offered)}" if offered else "ask the service with aws rds describe-db-engine-versions --engine postgres"
    return [Problem("value", "engine_version", f"the service does not offer PostgreSQL {asked} here", say)]


def _class(wanted: Wanted, offer: Offer) -> list[Problem]:
    name = wanted.get("instance_class")
    if not offer.options:
        return [Problem("value", "instance_class", f"the service does not offer {name} for this version in this region", "choose another class or region")]
    if wanted.get("multi_az") and not any(option.get("MultiAZCapable") for option in offer.options):
        return [
            Problem(
                "value", "instance_class", f"{name} cannot be Multi-AZ in this region", "choose another class, or multi_az: false and live without failover"
            )
        ]
    kind = wanted.get("storage_type")
    kinds = sorted({option["StorageType"] for option in offer.options if option.get("StorageType")})
    if kind and kinds and kind not in kinds:
        return [Problem("value", "storage_type", f"{name} has no storage of type {kind}", f"choose one of: {', '.join(kinds)}")]
    return []


def _storage(wanted: Wanted, offer: Offer) -> list[Problem]:
    """Size and IOPS against the bounds that the class has for that kind of storage."""
    kind = wanted.get("storage_type")
    option = next((one for one in offer.options if kind in (None, one.get("StorageType"))), None)
    if option is None:
        return []
    bounds = (
        ("allocated_storage_gib", "MinStorageSize", "MaxStorageSize"),
        ("max_allocated_storage_gib", "MinStorageSize", "MaxStorageSize"),
        ("iops", "MinIopsPerDbInstance", "MaxIopsPerDbInstance"),
        ("storage_throughput_mibps", "MinStorageThroughputPerDbInstance", "MaxStorageThroughputPerDbInstance"),
    )
    found = []
    for name, least, most in bounds:
        value, low, high = wanted.get(name), option.get(least), option.get(most)
        if value is not None and ((low is not None and value < low) or (high is not None and value > high)):
            message = f"{name} {value} is not within {low} and {high}, what {wanted.get('instance_class')} takes with {option.get('StorageType')}"
            found.append(Problem("value", name, message, "choose a value within"))
    return found


def _zones(wanted: Wanted, offer: Offer) -> list[Problem]:
    if not wanted.get("multi_az") or not wanted.get("subnet_group") or len(set(offer.zones)) > 1:
        return []
    there = ", ".join(sorted(set(offer.zones))) or "no zone"
    message = f"subnet group {wanted['subnet_group']} has subnets in {there} only, and Multi-AZ needs two zones"
    return [Problem("value", "subnet_group", message, "add a subnet in another zone")]


def _together(wanted: Wanted, offer: Offer) -> list[Problem]:
    """Options that only go together."""
    found = []
    if wanted.get("monitoring_interval_seconds") and not wanted.get("monitoring_role_arn"):
        found.append(NO_ROLE)
    if wanted.get("storage_type") in STORAGE_NEEDS and not wanted.get("iops"):
        found.append(Problem("missing", "iops", f"storage of type {wanted['storage_type']} needs iops", "give it"))
    found += _fixed(wanted, wanted["allocated_storage_gib"])
    if wanted.get("max_allocated_storage_gib") and wanted["max_allocated_storage_gib"] <= wanted["allocated_storage_gib"]:
        found.append(
            Problem(
                "value", "max_allocated_storage_gib", "max_allocated_storage_gib is not above allocated_storage_gib", "raise it by a tenth at least, or omit it"
            )
        )
    if str(wanted.get("kms_key_id", "")).startswith("alias/"):
        found.append(Problem("value", "kms_key_id", "kms_key_id is an alias, which may lead elsewhere tomorrow", "give the key's ARN or id"))
    return found + _family(str(choose_version(offer.versions, str(wanted["engine_version"])) or ""), wanted.get("parameter_group"), offer)


def _fixed(wanted: Wanted, size_gib: int) -> list[Problem]:
    """Small gp3 storage has one performance."""
    if wanted.get("storage_type") != "gp3" or size_gib >= GP3_FIXED_GIB:
        return []
    words = f"gp3 storage below {GP3_FIXED_GIB} GiB has 3000 IOPS and 125 MiB/s, and the service takes no numbers for it"
    return [Problem("value", name, words, f"omit {name}") for name in ("iops", "storage_throughput_mibps") if wanted.get(name) is not None]


def _family(version: str, group: str | None, offer: Offer) -> list[Problem]:
    """A parameter group is for one major version."""
    if not version or not group or offer.families is None:
        return []
    wanted = next((one["DBParameterGroupFamily"] for one in offer.versions if one["EngineVersion"] == version), None)
    has = offer.families.get(group)
    if has is None:
        return [Problem("missing", "parameter_group", f"there is no parameter group {group}", "make it first, with rds_parameter_group")]
    if wanted not in (None, has):
        return [
            Problem(
                "value", "parameter_group", f"parameter group {group} is of family {has}, and PostgreSQL {version} needs {wanted}", "make one of that family"
            )
        ]
    return []


def _refuse_shrink(change: Change, _current: Described, _wanted: Wanted, _offer: Offer) -> list[Problem]:
    if change.before is None or change.after >= change.before:
        return []
    message = f"storage cannot shrink from {change.before} to {change.after} GiB"
    return [Problem("value", "allocated_storage_gib", message, f"give {change.before}, or make a smaller instance and move to it")]


def _refuse_version(change: Change, current: Described, wanted: Wanted, offer: Offer) -> list[Problem]:
    target = choose_version(offer.versions, str(change.after))
    if target is None:
        return _version(wanted, offer)
    before, after = version_key(change.before), version_key(target)
    if after < before:
        return [Problem("value", "engine_version", f"PostgreSQL cannot go back from {change.before} to {target}", f"give {change.before}")]
    found = []
    valid = next((one.get("ValidUpgradeTarget") or [] for one in offer.versions if one["EngineVersion"] == change.before), None)
    if valid is not None and target not in [one["EngineVersion"] for one in valid]:
        ways = ", ".join(one["EngineVersion"] for one in valid) or "none"
        found.append(Problem("value", "engine_version", f"the service does not upgrade PostgreSQL {change.before} to {target}", f"it offers: {ways}"))
    if after[0] != before[0] and not wanted.get("allow_major_upgrade"):
        message = f"from {change.before} to {target} is a major upgrade, which cannot be undone"
        found.append(Problem("consent", "engine_version", message, "give allow_major_upgrade: true, or keep the major version"))
    group = wanted.get("parameter_group") or SETTING["parameter_group"].read(current)
    # The engine's own group becomes that of the next version by itself.
    return found + _family(target, None if str(group).startswith("default.") else group, offer)


def _refuse_role(change: Change, current: Described, wanted: Wanted, _offer: Offer) -> list[Problem]:
    if not change.after or wanted.get("monitoring_role_arn") or current.get("MonitoringRoleArn"):
        return []
    return [NO_ROLE]


_REFUSES: dict[str, t.Callable[[Change, Described, Wanted, Offer], list[Problem]]] = {
    "allocated_storage_gib": _refuse_shrink,
    "engine_version": _refuse_version,
    "monitoring_interval_seconds": _refuse_role,
}


def refuse_delete(current: Described, final_snapshot: str | None, skip_final_snapshot: bool) -> list[Problem]:
    """What keeps an instance from being deleted."""
    name = current["DBInstanceIdentifier"]
    found = []
    if current.get("DeletionProtection"):
        found.append(Problem("state", "deletion_protection", f"{name} is protected from deletion", "set deletion_protection: false in a run of its own first"))
    if not current.get("ReadReplicaSourceDBInstanceIdentifier") and not final_snapshot and not skip_final_snapshot:
        message = f"{name} would be deleted with all its data and no snapshot is named"
        found.append(Problem("missing", "final_snapshot", message, "give final_snapshot, or skip_final_snapshot: true"))
    if current.get("ReadReplicaDBInstanceIdentifiers"):
        replicas = ", ".join(sorted(current["ReadReplicaDBInstanceIdentifiers"]))
        found.append(Problem("state", "identifier", f"{name} has the read replicas {replicas}", "promote or delete them first"))
    return found
