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
from .change_plan import NOW, Change, Wanted, interruption, is_reboot_due, say
from .model import ENGINE, OUTAGE, SETTING, SETTINGS, Described, Offer, choose_version, tag_changes, tag_list, tags_of, version_key

REBOOT = "reboot, because parameters wait for it"


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

    :param differs: of :func:`change_plan.changes`
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
            *(Action(f"tag {key}: {say(standing.get(key))} -> {value}") for key, value in add.items()),
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
