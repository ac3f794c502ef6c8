# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What an instance cannot be, by what the service offers: all of it together, before anything is asked of it. Pure: no I/O, no clock."""

from __future__ import annotations

import re
import typing as t

from .._core.problems import Problem
from . import storage_plan
from .change_plan import NOW, Change, Wanted, interruption, is_reboot_due, will_stand
from .model import AT_ONCE, OUTAGE, Described, Offer, choose_version, version_key

# CreateDBInstance, DBInstanceIdentifier: 1 to 63 letters, digits and hyphens, a letter first, no hyphen at the end and no two in a row.
_IDENTIFIER = re.compile(r"[A-Za-z](?!.*--)[A-Za-z0-9-]{0,62}(?<!-)")
_NEEDED = ("instance_class", "engine_version", "allocated_storage_gib", "admin_user")
NO_ROLE = Problem("missing", "monitoring_role_arn", "monitoring_interval_seconds needs a role that may write the metrics", "give monitoring_role_arn")


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
    if missing:
        return found
    version = choose_version(offer.versions, str(wanted["engine_version"]))
    return [
        *found, *_version(wanted, offer), *_class(wanted, offer), *storage_plan.refuse_type(wanted, offer), *storage_plan.refuse_bounds(wanted, offer),
        *_zones(wanted, offer), *_monitoring(wanted), *storage_plan.refuse_together(wanted), *_key(wanted), *_secret(wanted),
        *_family(version, wanted.get("parameter_group"), offer),
    ]  # fmt: skip


def refuse_modify(wanted: Wanted, current: Described, changes: t.Sequence[Change], offer: Offer, apply: str) -> list[Problem]:
    """What keeps an instance from being changed.

    :param changes: what is not as wanted
    """
    options = {change.setting.option for change in changes}
    whole = will_stand(current, changes)
    found = [_unchangeable(change) for change in changes if change.setting.modified is None]
    if {"instance_class", "engine_version", "multi_az"} & options:
        found += _class(whole, offer)
    if {"instance_class", "engine_version", "multi_az", "subnet_group"} & options:
        found += _zones(whole, offer)
    if {"instance_class", *storage_plan.OPTIONS} & options:
        asked = storage_plan.asked_of(whole, current, wanted, options)
        found += [*storage_plan.refuse_type(asked, offer), *storage_plan.refuse_bounds(asked, offer), *storage_plan.refuse_together(asked)]
    if {"monitoring_interval_seconds", "monitoring_role_arn"} & options:
        found += _monitoring(whole)
    for change in changes:
        if change.setting.option in _REFUSES and not change.taken_back:
            found += _REFUSES[change.setting.option](change, wanted, offer)
    if {"engine_version", "parameter_group"} & options:
        # The engine's own group becomes that of the next version by itself.
        own = str(whole["parameter_group"]).startswith("default.") and "parameter_group" not in options
        found += _family(choose_version(offer.versions, str(whole["engine_version"])), None if own else whole["parameter_group"], offer)
    return found + _consent(wanted, current, changes, offer, apply)


def _unchangeable(change: Change) -> Problem:
    remedy = f"set {change.setting.option} to what stands, or make another instance and move to it"
    return Problem("immutable", change.setting.option, f"{change.words} is not possible, the service keeps it for an instance's life", remedy)


def _consent(wanted: Wanted, current: Described, changes: t.Sequence[Change], offer: Offer, apply: str) -> list[Problem]:
    """Clients are interrupted only by those who say so."""
    if wanted.get("allow_interruption"):
        return []
    remedy = "give allow_interruption: true, which is asked for each time, or leave the setting as it is"
    due = is_reboot_due(wanted, current, changes, apply)
    reboot = [Problem("consent", "reboot_when_due", f"parameters wait for a reboot, which interrupts clients now: {OUTAGE}", remedy)] if due else []
    return reboot + [
        Problem(
            "consent",
            change.setting.option,
            f"{change.words} interrupts clients {'now' if apply == NOW or words in AT_ONCE else 'when its window comes'}: {words}",
            remedy,
        )
        for change in changes
        if (words := interruption(change, current, offer))
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
    return []


def _zones(wanted: Wanted, offer: Offer) -> list[Problem]:
    if not wanted.get("multi_az") or not wanted.get("subnet_group") or len(set(offer.zones)) > 1:
        return []
    there = ", ".join(sorted(set(offer.zones))) or "no zone"
    message = f"subnet group {wanted['subnet_group']} has subnets in {there} only, and Multi-AZ needs two zones"
    return [Problem("value", "subnet_group", message, "add a subnet in another zone")]


def _monitoring(wanted: Wanted) -> list[Problem]:
    return [NO_ROLE] if wanted.get("monitoring_interval_seconds") and not wanted.get("monitoring_role_arn") else []


def _key(wanted: Wanted) -> list[Problem]:
    if not str(wanted.get("kms_key_id") or "").startswith("alias/"):
        return []
    return [Problem("value", "kms_key_id", "kms_key_id is an alias, which may lead elsewhere tomorrow", "give the key's ARN or id")]


def _secret(wanted: Wanted) -> list[Problem]:
    """This module knows no password that it could give."""
    if wanted.get("admin_secret") is not False:
        return []
    message = "admin_secret is false, and the administrator of a new instance has no password but the one that the service makes"
    return [Problem("value", "admin_secret", message, "omit it, or make the instance with a tool that is given one")]


def _family(version: str | None, group: str | None, offer: Offer) -> list[Problem]:
    """A parameter group is for one major version."""
    if not version or not group or offer.families is None:
        return []
    wanted = next((one["DBParameterGroupFamily"] for one in offer.versions if one["EngineVersion"] == version), None)
    has = next((family for name, family in offer.families.items() if name.lower() == group.lower()), None)
    if has is None:
        # The engine's own appears when it is used for the first time.
        own = group.startswith("default.")
        return [] if own else [Problem("missing", "parameter_group", f"there is no parameter group {group}", "make it first, with rds_parameter_group")]
    if wanted not in (None, has):
        message = f"parameter group {group} is of family {has}, and PostgreSQL {version} needs {wanted}"
        return [Problem("value", "parameter_group", message, "make one of that family")]
    return []


def _refuse_shrink(change: Change, _wanted: Wanted, _offer: Offer) -> list[Problem]:
    if change.before is None or change.after >= change.before:
        return []
    message = f"storage cannot shrink from {change.before} to {change.after} GiB"
    return [Problem("value", "allocated_storage_gib", message, f"give {change.before}, or make a smaller instance and move to it")]


def _refuse_version(change: Change, wanted: Wanted, offer: Offer) -> list[Problem]:
    target = choose_version(offer.versions, str(change.after))
    if target is None:
        return _version({"engine_version": change.after}, offer)
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
    return found


_REFUSES: dict[str, t.Callable[[Change, Wanted, Offer], list[Problem]]] = {
    "allocated_storage_gib": _refuse_shrink,
    "engine_version": _refuse_version,
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
