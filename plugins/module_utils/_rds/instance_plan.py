# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What has to be done so that an instance is as wanted. Pure: no I/O, no clock."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .._core.outcome import Action
from . import storage_plan
from .model import ENGINE, OUTAGE, SETTING, SETTINGS, Described, Offer, Setting, choose_version, tag_changes, tag_list, tags_of, version_key, waits_for_reboot

NOW = "now"
REBOOT = "reboot, because parameters wait for it"
Wanted = t.Mapping[str, t.Any]


@dataclass(frozen=True)
class Change:
    """One setting that is not as wanted.

    :param pending: what the service will change it to by itself in its window; None when nothing is pending
    """

    setting: Setting
    before: t.Any
    after: t.Any
    pending: t.Any = None

    @property
    def taken_back(self) -> bool:
        """Whether it stands as wanted, and only what is pending goes."""
        return self.pending is not None and self.before == self.after

    @property
    def words(self) -> str:
        """For the operator."""
        if self.taken_back:
            return f"{self.setting.option}: {_say(self.pending)}, which waits for the window, is taken back, {_say(self.before)} stays"
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
        after = _comes_to(setting, value, stands, current)
        looked_at = [stands] if pending is None else [stands, pending] if apply == NOW else [pending]
        if not all(_is_so(setting, one, value, after) for one in looked_at):
            found.append(Change(setting, stands, stands if _is_so(setting, stands, value, after) else after, pending))
    return found + (_carried(current, found) if found and apply == NOW else [])


def _carried(current: Described, named: t.Sequence[Change]) -> list[Change]:
    """What a change that is made now has be made now as well: ApplyImmediately is for everything that is pending."""
    known = {change.setting.option for change in named}
    waiting = [(setting, setting.read_pending(current)) for setting in SETTINGS if setting.option not in known]
    return [Change(setting, setting.read(current), pending, pending) for setting, pending in waiting if pending is not None]


def _is_so(setting: Setting, one: t.Any, value: t.Any, after: t.Any) -> bool:
    """Whether what stands, or is pending, is as wanted.

    :param value: the wish
    :param after: what it comes to
    """
    if one is None:
        return False
    return setting.same(one, value) or setting.same(one, after) or (setting.option == "engine_version" and _is_newer_minor(one, value))


def _is_newer_minor(version: str, wanted: str) -> bool:
    before, after = version_key(version), version_key(wanted)
    return before[0] == after[0] and before > after


def _comes_to(setting: Setting, value: t.Any, stands: t.Any, current: Described) -> t.Any:
    """What a wish comes to. What the service has done by itself and has a right to stays: a newer minor version, storage that has grown."""
    if stands is None:
        return value
    if setting.option == "allocated_storage_gib":
        return storage_plan.size_for(value, stands, current.get("MaxAllocatedStorage"))
    if setting.option == "engine_version":
        return stands if _is_newer_minor(stands, value) else value
    if setting.option == "admin_secret" and (not value or _replicates(current)):
        return stands
    return value


def _replicates(current: Described) -> bool:
    """Whether it is a replica, or has some: the service keeps no password of either in Secrets Manager."""
    return bool(current.get("ReadReplicaSourceDBInstanceIdentifier") or current.get("ReadReplicaDBInstanceIdentifiers"))


def will_stand(current: Described, differs: t.Sequence[Change]) -> dict[str, t.Any]:
    """The options as they will stand: what is there, what waits for its window, and the changes."""
    pending = {setting.option: setting.read_pending(current) for setting in SETTINGS}
    standing = {setting.option: setting.read(current) if pending[setting.option] is None else pending[setting.option] for setting in SETTINGS}
    return {**standing, **{change.setting.option: change.after for change in differs}}


def only_grows(differs: t.Sequence[Change], apply: str) -> bool:
    """Whether storage is enlarged now and nothing else is changed, which is what an instance takes whose storage is full."""
    grows = any(change.setting.option == "allocated_storage_gib" and change.after > (change.before or 0) for change in differs)
    return apply == NOW and grows and {change.setting.option for change in differs} <= storage_plan.SIZES


def plan_create(wanted: Wanted, identifier: str, offered: t.Sequence[Described]) -> InstancePlan:
    """A request that makes the instance. Its administrator's password is made, kept and rotated by the service, so that nobody here ever knows it.

    :param offered: versions, of which the newest fitting one is taken
    """
    version = choose_version(offered, str(wanted["engine_version"]))
    asked = {setting.option: wanted[setting.option] for setting in SETTINGS if wanted.get(setting.option) is not None}
    request = {
        "DBInstanceIdentifier": identifier,
        "Engine": ENGINE,
        **{SETTING[option].parameter: value for option, value in asked.items()},
        "EngineVersion": version,
        "Tags": tag_list(wanted.get("tags") or {}),
    }
    if wanted.get("admin_secret_kms_key_id"):
        request["MasterUserSecretKmsKeyId"] = wanted["admin_secret_kms_key_id"]
    after = {**asked, "engine_version": version, "tags": {key: str(value) for key, value in (wanted.get("tags") or {}).items()}}
    return InstancePlan(after=after, create=request, actions=[Action(f"create {identifier}: PostgreSQL {version} on {wanted.get('instance_class')}")])


def plan_modify(wanted: Wanted, current: Described, differs: t.Sequence[Change], apply: str, offer: Offer) -> InstancePlan:
    """A request with what differs, or an empty one.

    :param differs: of :func:`changes`
    :param offer: its versions, of which the newest fitting one is taken where the version differs, and what its storage may be
    """
    reboot = is_reboot_due(wanted, current, differs, apply)
    request: dict[str, t.Any] = {}
    for change in differs:
        request.update(_parameter(change, offer.versions))
    if request:
        request.update({"DBInstanceIdentifier": current["DBInstanceIdentifier"], "ApplyImmediately": apply == NOW})
        request.update(_companions(request, current, wanted, offer))
    tags, standing = wanted.get("tags"), tags_of(current)
    before = {**{setting.option: setting.read(current) for setting in SETTINGS}, "tags": standing}
    asked = {change.setting.option: request.get("EngineVersion") if change.setting.option == "engine_version" else change.after for change in differs}
    asked.update(_follows(request, before, offer))
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
        interruptions=[f"{change.words}: {words}" for change in differs if (words := interruption(change, current, offer))]
        + ([f"{REBOOT}: {OUTAGE}"] if reboot else []),
        reboot=reboot,
    )


def _follows(request: Described, before: t.Mapping[str, t.Any], offer: Offer) -> dict[str, t.Any]:
    """What becomes another with a request though nobody asked for it: IOPS beside storage, and the engine's own parameter group with its version."""
    found = {"iops": request["Iops"]} if "Iops" in request else {}
    family = next((one["DBParameterGroupFamily"] for one in offer.versions if one["EngineVersion"] == request.get("EngineVersion")), None)
    if family and "DBParameterGroupName" not in request and str(before["parameter_group"]).startswith("default."):
        found["parameter_group"] = f"default.{family}"
    return found


def is_reboot_due(wanted: Wanted, current: Described, differs: t.Sequence[Change], apply: str) -> bool:
    """Whether parameters wait for a reboot, also those of a group that it is given now, and one is asked for.

    A version that waits for the window restarts the instance there, and its group is for that version: nothing is rebooted before.
    """
    if apply != NOW and will_stand(current, differs)["engine_version"] != current.get("EngineVersion"):
        return False
    other = any(change.setting.option == "parameter_group" for change in differs)
    return bool(wanted.get("reboot_when_due")) and (waits_for_reboot(current) or other)


def interruption(change: Change, current: Described, offer: Offer) -> str:
    """What a change does to clients; "" when they do not notice. Backups that begin or end suspend the disk, where the standby does not make them."""
    if change.taken_back:
        return ""
    if change.setting.option == "backup_retention_days" and not (change.before and change.after):
        return "the disk may stand still for seconds to minutes"
    if change.setting.option == "ca_identifier" and _rotates_in_service(current, offer):
        return ""
    return change.setting.interrupts


def _rotates_in_service(current: Described, offer: Offer) -> bool:
    """Whether the version takes a new certificate without a restart; one that the service offers no more is not known to."""
    running = [one for one in offer.versions if one["EngineVersion"] == current.get("EngineVersion")]
    return any(one.get("SupportsCertificateRotationWithoutRestart") for one in running)


def _parameter(change: Change, offered: t.Sequence[Described]) -> dict[str, t.Any]:
    """A change as ModifyDBInstance names it."""
    name = change.setting.modified or change.setting.parameter
    if change.setting.option == "log_exports":
        before, after = set(change.before or ()), set(change.after)
        return {name: {"EnableLogTypes": sorted(after - before), "DisableLogTypes": sorted(before - after)}}
    if change.setting.option == "engine_version" and not change.taken_back:
        version = choose_version(offered, str(change.after))
        major = change.before is None or version_key(str(version))[0] != version_key(change.before)[0]
        return {name: version, **({"AllowMajorVersionUpgrade": True} if major else {})}
    return {name: change.after}


def _companions(request: Described, current: Described, wanted: Wanted, offer: Offer) -> dict[str, t.Any]:
    """What the service wants beside a parameter: size and IOPS beside storage, monitoring only with its role, and a secret with its key."""
    found = storage_plan.companions(request, current, wanted, offer)
    if "ManageMasterUserPassword" in request:
        found["MasterUserSecretKmsKeyId"] = wanted.get("admin_secret_kms_key_id")
    if "MonitoringInterval" in request and request["MonitoringInterval"] and "MonitoringRoleArn" not in request:
        found["MonitoringRoleArn"] = SETTING["monitoring_role_arn"].read(current)
    return {key: value for key, value in found.items() if value is not None}
