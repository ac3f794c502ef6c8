# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What brings a link into a wanted state (pure)."""

from __future__ import annotations

from .._core.errors import PlanError
from .._core.outcome import Action
from .model import LinkState
from .names import identifier


def plan_link(before: LinkState, name: str, state: str) -> list[Action]:
    """Statements for the subscriber; for ``absent`` what will be dropped.

    :raises PlanError: there is no subscription to enable or disable
    """
    quoted = identifier(name)
    if state == "absent":
        return [Action(f"DROP SUBSCRIPTION {quoted}")] * before.exists + [Action(f"drop slot {name}")] * before.slot_exists
    if not before.exists:
        raise PlanError(f"There is no subscription {name}. Run playbook replicate.yml, which makes it.")
    if state == "following" and not before.enabled:
        return [Action(f"ALTER SUBSCRIPTION {quoted} ENABLE")]
    if state == "disabled" and before.enabled:
        return [Action(f"ALTER SUBSCRIPTION {quoted} DISABLE")]
    return []


def summary(state: LinkState) -> dict[str, bool]:
    """What of the state is declared, for a diff."""
    return {"exists": state.exists, "enabled": state.enabled, "slot_exists": state.slot_exists}


def wanted(before: LinkState, state: str) -> dict[str, bool]:
    """The same as it shall be."""
    if state == "absent":
        return {"exists": False, "enabled": False, "slot_exists": False}
    return {**summary(before), "enabled": state == "following"}
