# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What Patroni's REST API tells, as data. https://patroni.readthedocs.io/en/latest/rest_api.html"""

from __future__ import annotations

import re
import typing as t
from dataclasses import asdict, dataclass
from datetime import datetime

from .._core.errors import ClientError

# Patroni said "master" before 4.0 and says "primary" in some places: all are the leader here.
LEADER_ROLES = ("leader", "master", "primary", "standby_leader")
RUNNING = ("running", "streaming")
# A standby never runs with less of these than its leader wrote into the log.
BOUND_BY_LEADER = ("max_connections", "max_locks_per_transaction", "max_prepared_transactions", "max_wal_senders", "max_worker_processes")


@dataclass(frozen=True)
class Member:
    """One member of a cluster.

    :param role: ``leader``, ``standby_leader``, ``sync_standby``, ``quorum_standby`` or ``replica``
    :param state: Patroni's word: ``running``, ``streaming``, ``starting``, ``stopped``, ...
    :param lag_bytes: replay lag of a standby; None when unknown (never read as 0)
    :param lowered: settings that wait for a restart, that shall become smaller, and that a standby takes only after its leader
    """

    name: str
    role: str
    state: str
    host: str
    port: int
    api_url: str
    timeline: int | None
    lag_bytes: int | None
    pending_restart: bool
    tags: dict[str, t.Any]
    lowered: tuple[str, ...] = ()

    @property
    def is_leader(self) -> bool:
        """Whether it holds the leader's role."""
        return self.role in LEADER_ROLES

    @property
    def is_synchronous(self) -> bool:
        """Whether commits wait for it."""
        return self.role in ("sync_standby", "quorum_standby")


@dataclass(frozen=True, repr=False)
class Cluster:
    """A cluster as one member sees it."""

    scope: str
    paused: bool
    members: tuple[Member, ...]

    def __repr__(self) -> str:
        """In words, for whoever waits for it in vain."""
        told = [f"{member.name} is {member.role}, {member.state}, timeline {member.timeline or 'unknown'}" for member in self.members]
        return "; ".join([*(["automatic failover is paused"] if self.paused else []), *(told or ["no member"])])

    @property
    def leader(self) -> Member | None:
        """The leader, or None when there is none at the moment."""
        return next((member for member in self.members if member.is_leader), None)

    def member(self, name: str) -> Member | None:
        """The member of that name."""
        return next((member for member in self.members if member.name == name), None)

    @property
    def streaming_synchronous(self) -> tuple[Member, ...]:
        """Synchronous standbys that stream on the leader's timeline."""
        return tuple(member for member in self.members if member.is_synchronous and self.is_following(member))

    def is_following(self, member: Member) -> bool:
        """Whether the member streams on the leader's timeline."""
        leader = self.leader
        return leader is not None and not member.is_leader and member.state in RUNNING and member.timeline == leader.timeline

    def public(self) -> dict[str, t.Any]:
        """What modules return."""
        leader = self.leader
        return {
            "scope": self.scope,
            "paused": self.paused,
            "leader": None if leader is None else leader.name,
            "synchronous_standbys": [member.name for member in self.streaming_synchronous],
            "members": [{**asdict(member), "lowered": list(member.lowered)} for member in self.members],
        }


def cluster_of(document: dict[str, t.Any], url: str) -> Cluster:
    """The answer of GET /cluster as data.

    :raises ClientError: it does not have the shape that Patroni documents
    """
    members = document.get("members")
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        raise ClientError(f"{url} did not answer like Patroni's REST API: 'members' is not a list of mappings.")
    return Cluster(
        scope=str(document.get("scope", "")),
        paused=bool(document.get("pause", False)),
        members=tuple(sorted((_member_of(member, url) for member in members), key=lambda member: member.name)),
    )


@dataclass(frozen=True)
class Running:
    """What a member says of its own processes.

    :param postgresql_version: as people write it, ``17.6``
    :param started_at: when the postmaster started, seconds since the epoch by the member's clock
    """

    postgresql_version: str
    patroni_version: str
    started_at: float


def running_of(document: dict[str, t.Any], url: str) -> Running:
    """The answer of a member's GET /patroni as data. ``server_version`` is PostgreSQL's number, 170006 for 17.6.

    :raises ClientError: it does not have the shape that Patroni documents, or PostgreSQL does not run
    """
    number, patroni, started = document.get("server_version"), document.get("patroni"), document.get("postmaster_start_time")
    try:
        moment = datetime.fromisoformat(str(started))
    except ValueError:
        moment = None
    if not isinstance(number, int) or not isinstance(patroni, dict) or moment is None or moment.tzinfo is None:
        raise ClientError(f"{url} does not say which PostgreSQL runs there and since when: is it starting, or stopped?")
    return Running(f"{number // 10000}.{number % 10000}", str(patroni.get("version", "")), moment.timestamp())


def _member_of(raw: dict[str, t.Any], url: str) -> Member:
    for key in ("name", "role", "state"):
        if not isinstance(raw.get(key), str):
            raise ClientError(f"{url} did not answer like Patroni's REST API: a member has no {key!r}.")
    # 4.1 tells replay_lag beside lag; "unknown" stays unknown.
    lag = raw.get("replay_lag", raw.get("lag"))
    timeline = raw.get("timeline")
    role = raw["role"]
    return Member(
        name=raw["name"],
        role="leader" if role in ("master", "primary") else role,
        state=raw["state"],
        host=str(raw.get("host", "")),
        port=int(raw["port"]) if isinstance(raw.get("port"), int) else 0,
        api_url=str(raw.get("api_url", "")),
        timeline=timeline if isinstance(timeline, int) else None,
        lag_bytes=lag if isinstance(lag, int) and not isinstance(lag, bool) else None,
        pending_restart=bool(raw.get("pending_restart", False)),
        tags=raw["tags"] if isinstance(raw.get("tags"), dict) else {},
        lowered=_lowered(raw.get("pending_restart_reason")),
    )


def _lowered(reasons: t.Any) -> tuple[str, ...]:
    if not isinstance(reasons, dict):
        return ()
    found = []
    for name in BOUND_BY_LEADER:
        reason = reasons.get(name)
        values = [str(reason.get(key, "")) for key in ("old_value", "new_value")] if isinstance(reason, dict) else []
        if values and all(re.fullmatch("[0-9]{1,18}", value) for value in values) and int(values[1]) < int(values[0]):
            found.append(name)
    return tuple(found)
