# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Plans around a Patroni cluster: pure, no I/O, no clock."""

from __future__ import annotations

import copy
import typing as t

from .._core.errors import PlanError
from .._core.outcome import Action
from .model import RUNNING, Cluster, Member

ANY = "any"


def plan_leader(cluster: Cluster, name: str, max_lag_bytes: int) -> list[Action]:
    """What makes ``name`` the leader; [] when it is, or when any leader will do.

    :param max_lag_bytes: a candidate that is further behind, or whose lag is unknown, is refused
    :raises PlanError: unknown member, no leader, paused cluster, or a candidate that cannot take over without loss
    """
    if name == ANY:
        return []
    candidate = cluster.member(name)
    if candidate is None:
        known = ", ".join(member.name for member in cluster.members) or "none"
        raise PlanError(f"Cluster {cluster.scope} has no member {name!r}; its members are: {known}.")
    if candidate.is_leader:
        return []
    leader = cluster.leader
    if leader is None:
        raise PlanError(f"Cluster {cluster.scope} has no leader, so nothing can be switched over; wait for its election or look at patronictl list.")
    if cluster.paused:
        raise PlanError(f"Cluster {cluster.scope} is paused; run patronictl resume before you ask for another leader.")
    _refuse_unfit(cluster, candidate, max_lag_bytes)
    return [Action(f"switchover from {leader.name} to {candidate.name}")]


def _refuse_unfit(cluster: Cluster, candidate: Member, max_lag_bytes: int) -> None:
    if candidate.tags.get("nofailover"):
        raise PlanError(f"Member {candidate.name} carries the tag nofailover; choose another.")
    if not cluster.is_following(candidate):
        raise PlanError(f"Member {candidate.name} does not follow the leader (state {candidate.state}, timeline {candidate.timeline}); repair it first.")
    if candidate.lag_bytes is None:
        raise PlanError(f"The lag of member {candidate.name} is unknown; wait until Patroni reports it.")
    if candidate.lag_bytes > max_lag_bytes:
        raise PlanError(f"Member {candidate.name} is {candidate.lag_bytes} bytes behind, more than the {max_lag_bytes} allowed; wait until it has caught up.")
    synchronous = [member.name for member in cluster.members if member.is_synchronous]
    if synchronous and not candidate.is_synchronous:
        raise PlanError(f"Member {candidate.name} is not a synchronous standby, Patroni would refuse it; choose one of: {', '.join(synchronous)}.")


def leader_has_settled(cluster: Cluster, name: str, former: str | None, with_synchronous_standby: bool, running_members: int = 1) -> bool:
    """Whether the wanted leader runs, the former one streams from it, enough members follow, and commits have a second node if asked for."""
    leader = cluster.leader
    if leader is None or leader.state not in RUNNING or (name not in (ANY, leader.name)):
        return False
    if former is not None:
        old = cluster.member(former)
        if old is None or not cluster.is_following(old):
            return False
    if 1 + sum(cluster.is_following(member) for member in cluster.members) < running_members:
        return False
    return bool(cluster.streaming_synchronous) or not with_synchronous_standby


def plan_member(cluster: Cluster, name: str, state: str, leader_allowed: bool) -> list[Action]:
    """What brings a member to ``state``: ``restarted`` (no restart pending) or ``reinitialized`` (follows the leader).

    :raises PlanError: unknown member, or it leads and may not be touched
    """
    member = cluster.member(name)
    if member is None:
        known = ", ".join(known.name for known in cluster.members) or "none"
        raise PlanError(f"Cluster {cluster.scope} has no member {name!r}; its members are: {known}.")
    if state == "restarted":
        if not member.pending_restart:
            return []
        if member.is_leader and not leader_allowed:
            raise PlanError(f"Member {name} leads cluster {cluster.scope}; switch over to another member before you restart it.")
        leader = cluster.leader
        stuck = sorted(set(member.lowered) & set(leader.lowered)) if leader is not None and not member.is_leader else []
        if stuck:
            raise PlanError(
                f"Member {name} takes a lower {', '.join(stuck)} only after its leader {leader.name if leader else None}: restart that one at a quiet time "
                "(patroni_member with leader_allowed, or patronictl restart), or set the value back."
            )
        return [Action(f"restart {name}")]
    if member.is_leader:
        if member.state in RUNNING:
            return []
        raise PlanError(f"Member {name} leads cluster {cluster.scope} and cannot be made anew; switch over or fail over first.")
    if cluster.is_following(member):
        return []
    if cluster.leader is None:
        raise PlanError(f"Cluster {cluster.scope} has no leader to copy from; member {name} cannot be made anew.")
    return [Action(f"reinitialize {name}")]


def member_has_settled(cluster: Cluster, name: str) -> bool:
    """Whether the member runs, follows (unless it leads) and has no restart pending."""
    member = cluster.member(name)
    if member is None or member.pending_restart:
        return False
    return member.state in RUNNING if member.is_leader else cluster.is_following(member)


def plan_patch(current: dict[str, t.Any], wanted: dict[str, t.Any]) -> dict[str, t.Any]:
    """The smallest PATCH that brings ``wanted`` into ``current``: mappings merge, lists and scalars replace, null removes."""
    patch: dict[str, t.Any] = {}
    for key, value in wanted.items():
        if value is None:
            if key in current:
                patch[key] = None
        elif isinstance(value, dict) and isinstance(current.get(key), dict):
            inner = plan_patch(current[key], value)
            if inner:
                patch[key] = inner
        elif key not in current or not _same(current[key], value):
            patch[key] = _without_nulls(value)
    return patch


def project_patch(current: dict[str, t.Any], patch: dict[str, t.Any]) -> dict[str, t.Any]:
    """The configuration after ``patch``, as Patroni merges it."""
    after = copy.deepcopy(current)
    for key, value in patch.items():
        if value is None:
            after.pop(key, None)
        elif isinstance(value, dict) and isinstance(after.get(key), dict):
            after[key] = project_patch(after[key], value)
        else:
            after[key] = copy.deepcopy(value)
    return after


def patch_actions(patch: dict[str, t.Any], prefix: str = "") -> list[Action]:
    """One line per setting that changes."""
    actions: list[Action] = []
    for key, value in sorted(patch.items()):
        if isinstance(value, dict) and value:
            actions += patch_actions(value, f"{prefix}{key}.")
        else:
            actions.append(Action(f"remove {prefix}{key}" if value is None else f"set {prefix}{key} to {value!r}"))
    return actions


def _same(current: t.Any, wanted: t.Any) -> bool:
    if isinstance(current, bool) or isinstance(wanted, bool) or current is None:
        return current is wanted
    if isinstance(current, (int, float, str)) and isinstance(wanted, (int, float, str)):
        return str(current) == str(wanted)
    return bool(current == wanted)


def _without_nulls(value: t.Any) -> t.Any:
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value
