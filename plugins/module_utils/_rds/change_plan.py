# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What of an instance is not as wanted, and what clients notice of it. Pure: no I/O, no clock."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from . import storage_plan
from .model import SETTINGS, Described, Offer, Setting, version_key, waits_for_reboot

NOW = "now"
Wanted = t.Mapping[str, t.Any]


def say(value: t.Any) -> str:
    """A value in words."""
    return "nothing" if value is None or value == [] else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


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
            return f"{self.setting.option}: {say(self.pending)}, which waits for the window, is taken back, {say(self.before)} stays"
        return f"{self.setting.option}: {say(self.before)} -> {say(self.after)}"


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
