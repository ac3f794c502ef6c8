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


def plan_commit(before: LinkState, name: str, state: str, synchronous_commit: str | None) -> list[Action]:
    """What makes each applied transaction wait for the subscriber's synchronous standby, or no longer; only a link that follows is asked to.

    :param synchronous_commit: ``on`` or ``off``; None leaves it as it is
    """
    if state != "following" or synchronous_commit in (None, before.synchronous_commit):
        return []
    return [Action(f"ALTER SUBSCRIPTION {identifier(name)} SET (synchronous_commit = '{synchronous_commit}')")]


def summary(state: LinkState) -> dict[str, bool | str | None]:
    """What of the state is declared, for a diff."""
    return {"exists": state.exists, "enabled": state.enabled, "slot_exists": state.slot_exists, "synchronous_commit": state.synchronous_commit}


def wanted(before: LinkState, state: str, synchronous_commit: str | None = None) -> dict[str, bool | str | None]:
    """The same as it shall be."""
    if state == "absent":
        return {"exists": False, "enabled": False, "slot_exists": False, "synchronous_commit": None}
    kept = before.synchronous_commit
    return {**summary(before), "enabled": state == "following", "synchronous_commit": (synchronous_commit or kept) if state == "following" else kept}
