# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What has to be done so that an instance is as wanted. Pure: no I/O, no clock."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .._core.outcome import Action
from .model import ENGINE, OUTAGE, SETTING, SETTINGS, Described, Setting, choose_version, tag_changes, tag_list, tags_of, version_key, waits_for_reboot

NOW = "now"
REBOOT = "reboot, because parameters wait for it"
# "gp3 storage" in the RDS User Guide: below it PostgreSQL has 3000 IOPS and 125 MiB/s, and the service takes no other numbers, nor these.
GP3_FIXED_GIB = 400
Wanted = t.Mapping[str, t.Any]


@dataclass(frozen=True)
class Change:
    """One setting that is not as wanted."""

    setting: Setting
    before: t.Any
    after: t.Any

    @property
    def words(self) -> str:
        """For the operator."""
        return f"{self.setting.option}: {_say(self.before)} -> {_say(self.after)}"


@dataclass(frozen=True)
class InstancePlan:
    """Requests to send, in the order of the fields; None or empty where nothing is to be done.

    :param before: the options as they stand; None where there is no instance
    :param after: as they are asked for
    :param interruptions: a sentence for each change that clients will notice
    :param reboot: whether it is rebooted in the end, so that its parameters are in force
    """

    before: dict[str, t.Any] | None = None
    after: dict[str, t.Any] | None = None
    create: dict[str, t.Any] | None = None
    modify: dict[str, t.Any] = field(default_factory=dict)
    add_tags: dict[str, str] = field(default_factory=dict)
    remove_tags: list[str] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    interruptions: list[str] = field(default_factory=list)
    reboot: bool = False


def _say(value: t.Any) -> str:
    return "nothing" if value is None or value == [] else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def changes(wanted: Wanted, current: Described, apply: str) -> list[Change]:
    """What is not as wanted. What the service will change in its window by itself is as wanted, unless it shall be so now.

    :param wanted: by option; what is not named or None is left alone
    """
    found = []
    for setting in SETTINGS:
        value = wanted.get(setting.option)
        if value is None:
            continue
        stands, pending = setting.read(current), setting.read_pending(current)
        expected = stands if pending is None or apply == NOW else pending
        if expected is None or not setting.same(expected, value):
            found.append(Change(setting, stands, value))
    return [change for change in found if not _has_grown(change, current) and not _is_newer_minor(change)]


def _has_grown(change: Change, current: Described) -> bool:
    """Storage that the service has enlarged by itself is not taken back."""
    limit = current.get("MaxAllocatedStorage")
    return change.setting.option == "allocated_storage_gib" and limit is not None and change.after < (change.before or 0) <= limit


def _is_newer_minor(change: Change) -> bool:
    """A minor version that the service has installed by itself is not taken back."""
    if change.setting.option != "engine_version" or change.before is None:
        return False
    before, after = version_key(change.before), version_key(change.after)
    return before[0] == after[0] and before > after


def plan_create(wanted: Wanted, identifier: str, offered: t.Sequence[Described]) -> InstancePlan:
    """A request that makes the instance. Its administrator's password is made, kept and rotated by the service, so that nobody here ever knows it.

    :param offered: versions, of which the newest fitting one is taken
    """
    version = choose_version(offered, str(wanted["engine_version"]))
    asked = {setting.option: wanted[setting.option] for setting in SETTINGS if wanted.get(setting.option) is not None}
    request = {
        "DBInstanceIdentifier": identifier,
        "Engine": ENGINE,
        "ManageMasterUserPassword": True,
        **{SETTING[option].parameter: value for option, value in asked.items()},
        "EngineVersion": version,
        "Tags": tag_list(wanted.get("tags") or {}),
    }
    if wanted.get("admin_secret_kms_key_id"):
        request["MasterUserSecretKmsKeyId"] = wanted["admin_secret_kms_key_id"]
    after = {**asked, "engine_version": version, "tags": {key: str(value) for key, value in (wanted.get("tags") or {}).items()}}
    return InstancePlan(after=after, create=request, actions=[Action(f"create {identifier}: PostgreSQL {version} on {wanted.get('instance_class')}")])


def plan_modify(wanted: Wanted, current: Described, differs: t.Sequence[Change], apply: str, offered: t.Sequence[Described]) -> InstancePlan:
    """A request with what differs, or an empty one.

    :param differs: of :func:`changes`
    :param offered: versions, of which the newest fitting one is taken where the version differs
    """
    reboot = is_reboot_due(wanted, current)
    request: dict[str, t.Any] = {}
    for change in differs:
        request.update(_parameter(change, offered))
    if request:
        request.update({"DBInstanceIdentifier": current["DBInstanceIdentifier"], "ApplyImmediately": apply == NOW})
        request.update(_companions(request, current))
    tags, standing = wanted.get("tags"), tags_of(current)
    before = {**{setting.option: setting.read(current) for setting in SETTINGS}, "tags": standing}
    asked = {change.setting.option: request.get("EngineVersion") if change.setting.option == "engine_version" else change.after for change in differs}
    add, remove = tag_changes(tags, standing)
    return InstancePlan(
        before=before,
        after={**before, **asked, **({} if tags is None else {"tags": {key: str(value) for key, value in tags.items()}})},
        modify=request,
        add_tags=add,
        remove_tags=remove,
        actions=[
            *(Action(change.words) for change in differs),
            *(Action(f"tag {key}: {_say(standing.get(key))} -> {value}") for key, value in add.items()),
            *(Action(f"tag {key}: {standing[key]} -> nothing") for key in remove),
            *([Action(REBOOT)] if reboot else []),
        ],
        interruptions=[f"{change.words}: {words}" for change in differs if (words := interruption(change))] + ([f"{REBOOT}: {OUTAGE}"] if reboot else []),
        reboot=reboot,
    )


def is_reboot_due(wanted: Wanted, current: Described) -> bool:
    """Whether parameters wait for a reboot, also those of a group that it is given now, and one is asked for."""
    group = wanted.get("parameter_group")
    other = group is not None and not SETTING["parameter_group"].same(SETTING["parameter_group"].read(current), group)
    return bool(wanted.get("reboot_when_due")) and (waits_for_reboot(current) or other)


def interruption(change: Change) -> str:
    """What a change does to clients; "" when they do not notice. Backups that begin or end suspend the disk, where the standby does not make them."""
    if change.setting.option == "backup_retention_days" and not (change.before and change.after):
        return "the disk may stand still for seconds to minutes"
    return change.setting.interrupts


def _parameter(change: Change, offered: t.Sequence[Described]) -> dict[str, t.Any]:
    """A change as ModifyDBInstance names it."""
    name = change.setting.modified or change.setting.parameter
    if change.setting.option == "log_exports":
        before, after = set(change.before or ()), set(change.after)
        return {name: {"EnableLogTypes": sorted(after - before), "DisableLogTypes": sorted(before - after)}}
    if change.setting.option == "engine_version":
        version = choose_version(offered, str(change.after))
        major = change.before is None or version_key(str(version))[0] != version_key(change.before)[0]
        return {name: version, **({"AllowMajorVersionUpgrade": True} if major else {})}
    return {name: change.after}


def _companions(request: Described, current: Described) -> dict[str, t.Any]:
    """What the service wants beside a parameter: storage of provisioned performance grows only with its IOPS named, and monitoring only with its role."""
    found = {}
    size = request.get("AllocatedStorage")
    if size and "Iops" not in request and current.get("Iops") and not (current.get("StorageType") == "gp3" and size < GP3_FIXED_GIB):
        found["Iops"] = current["Iops"]
    if "MonitoringInterval" in request and request["MonitoringInterval"] and "MonitoringRoleArn" not in request:
        found["MonitoringRoleArn"] = SETTING["monitoring_role_arn"].read(current)
    return {key: value for key, value in found.items() if value is not None}
