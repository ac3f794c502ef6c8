# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Whether the next leader has the slots that have to outlast the last one.

A standby that has just come back, above all a former leader, takes the leader's slots over again, and until it has one for good a change of the leadership
loses it, and with it whoever follows by it (PostgreSQL 17, slotsync.c: a slot that is not there yet is temporary, and is not promoted). A standby looks
twice a minute when nothing happens; a reload wakes it. The leader's slot has to come to a place that the standby has all WAL of: a logged snapshot of the
running transactions lets it. The slot is never moved from here, because it is in use.
"""

from __future__ import annotations

import contextlib
import typing as t
from dataclasses import dataclass, field

from .._core.errors import ClientError, WaitTimeout
from .._core.waiting import SYSTEM_CLOCK, Clock, wait_until
from .._postgresql import client

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

LOOK_SECONDS = 1.0
STATEMENT_MS = 2000
# By jsonb, because a server before 17 has no such columns, and no such slots.
_KEPT = """SELECT slot_name FROM pg_replication_slots s WHERE slot_type = 'logical' AND NOT temporary AND to_jsonb(s) @> '{"failover": true}' ORDER BY 1"""
_HELD = """SELECT slot_name FROM pg_replication_slots s WHERE NOT temporary AND to_jsonb(s) @> '{"synced": true}'"""


@dataclass(frozen=True)
class Standbys:
    """Standbys and how they are asked.

    :param service: of the cluster's administrator, which names all members and finds the leader
    :param hosts: standbys that are meant; empty for every member but the leader
    """

    service_file: str
    service: str
    hosts: tuple[str, ...] = ()
    connect_timeout_seconds: int = 2
    clock: Clock = field(default=SYSTEM_CLOCK)

    def missing(self, wake: bool = False) -> dict[str, list[str]]:
        """By standby the slots of the leader that it does not have for good.

        :param wake: have both sides hasten where something is missing
        :raises ClientError: the leader cannot be asked
        """
        leader = self._open()
        try:
            kept = [row["slot_name"] for row in client.query(leader, _KEPT)]
            if not kept:
                return {}
            asked = self.hosts or tuple(leader.info.dsn_parameters.get("host", "").split(","))
            found = {host: lacking for host in asked if host not in ("", leader.info.host) and (lacking := self._lacking(host, kept, wake))}
            if found and wake:
                with contextlib.suppress(ClientError):
                    client.query(leader, "SELECT pg_log_standby_snapshot()")
            return found
        finally:
            leader.close()

    def wait(self, timeout_seconds: float) -> None:
        """Until none is missing.

        :raises WaitTimeout: which standby lacks which slot
        :raises ClientError: the leader cannot be asked
        """
        seen: dict[str, list[str]] = {}

        def look() -> dict[str, list[str]]:
            nonlocal seen
            seen = self.missing(wake=True)
            return seen

        try:
            wait_until(look, lambda found: not found, "Slots on standbys", timeout_seconds, LOOK_SECONDS, self.clock)
        except WaitTimeout as error:
            raise WaitTimeout(f"{told(seen)} after {timeout_seconds:g} s. {ADVICE}") from error

    def _open(self, **parameters: t.Any) -> Connection:
        return client.connect(
            self.service_file,
            self.service,
            application_name="ha_migration switchover",
            connect_timeout_seconds=self.connect_timeout_seconds,
            settings={"statement_timeout": str(STATEMENT_MS)},
            **parameters,
        )

    def _lacking(self, host: str, kept: list[str], wake: bool) -> list[str]:
        """What it does not have; all of it where it cannot be asked."""
        try:
            session = self._open(host=host, target_session_attrs="any", patience_seconds=0)
        except ClientError:
            return kept
        try:
            held = {row["slot_name"] for row in client.query(session, _HELD)}
            lacking = [slot for slot in kept if slot not in held]
            if lacking and wake:
                client.query(session, "SELECT pg_reload_conf()")
            return lacking
        except ClientError:
            return kept
        finally:
            session.close()


ADVICE = (
    "If it led now, whoever follows by them could not go on. Where a follower is away, start it again: its slot has to move before a standby can take it over; "
    "where nobody needs the slot any more, as the way back after the move is final, retire it (retire_source.yml)."
)


def told(missing: dict[str, list[str]]) -> str:
    """In words, without the full stop."""
    return "; ".join(f"{host} does not have replication slot {', '.join(slots)} of the leader" for host, slots in missing.items())
