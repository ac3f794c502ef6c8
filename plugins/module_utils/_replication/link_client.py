# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""One direction of the link: publication and slot on the publisher, subscription on the subscriber."""

from __future__ import annotations

import contextlib
import typing as t

from .._core.errors import ClientError, GivenUp
from .._core.outcome import Action
from .._core.waiting import SYSTEM_CLOCK, Clock, wait_until
from .._postgresql import client
from .._postgresql.applying import Failures, read_apply_errors
from .._postgresql.slots import MIB, given_up, read_given_up, read_slot_wal
from .model import LinkState
from .names import identifier

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def read_link(publisher: Connection, subscriber: Connection, name: str, slot_wal_limit_mib: int | None = None) -> LinkState:
    """Ask both sides; publication, slot and subscription have the same name.

    :param slot_wal_limit_mib: the declared limit of the WAL that the slot may hold back
    """
    slots = client.query(
        publisher,
        "SELECT s.active, s.wal_status::text AS wal_status, pg_wal_lsn_diff(pg_current_wal_flush_lsn(), s.confirmed_flush_lsn)::bigint AS lag_bytes, "
        "extract(epoch FROM r.replay_lag)::float8 AS lag_seconds, (SELECT count(*)::int FROM pg_publication_tables WHERE pubname = s.slot_name) AS published "
        "FROM pg_replication_slots s LEFT JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_name = %s AND s.database = current_database()",
        (name,),
    )
    subscriptions = client.query(
        subscriber,
        "SELECT s.oid, s.subenabled AS enabled, s.subsynccommit AS synchronous_commit, EXISTS (SELECT FROM pg_stat_subscription w "
        "WHERE w.subid = s.oid AND w.relid IS NULL AND w.pid IS NOT NULL) AS running "
        "FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE s.subname = %s AND d.datname = current_database()",
        (name,),
    )
    tables: dict[str, int] = {}
    if subscriptions:
        oid = subscriptions[0]["oid"]
        statement = "SELECT srsubstate::text AS state, count(*)::int AS number FROM pg_subscription_rel WHERE srsubid = %s GROUP BY 1"
        for row in client.query(subscriber, statement, (oid,)):
            tables[row["state"]] = row["number"]
    slot = slots[0] if slots else None
    wal = read_slot_wal(publisher, name, slot_wal_limit_mib)
    return LinkState(
        exists=bool(subscriptions),
        enabled=bool(subscriptions) and bool(subscriptions[0]["enabled"]),
        worker_running=bool(subscriptions) and bool(subscriptions[0]["running"]),
        synchronous_commit=subscriptions[0]["synchronous_commit"] if subscriptions else None,
        slot_exists=slot is not None,
        slot_active=slot is not None and bool(slot["active"]),
        slot_wal_status=slot["wal_status"] if slot else None,
        tables=tables,
        published=slot["published"] if slot else 0,
        lag_bytes=int(slot["lag_bytes"]) if slot and slot["lag_bytes"] is not None else None,
        lag_seconds=slot["lag_seconds"] if slot else None,
        errors=read_apply_errors(subscriber, name),
        slot_held_bytes=wal.held_bytes if wal else None,
        slot_limit_bytes=wal.limit_bytes if wal else None,
        alarm=wal.alarm if wal else "",
        given_up=read_given_up(publisher, subscriber, wal),
    )


def drop_link(publisher: Connection, subscriber: Connection, name: str) -> list[str]:
    """Drop subscription and slot; the publication stays. Each is dropped on its own, so that a lost half is no obstacle.

    :returns: what was dropped
    :raises ClientError: somebody else still uses the slot
    """
    done = []
    state = read_link(publisher, subscriber, name)
    quoted = identifier(name)
    if state.exists:
        client.query(subscriber, f"ALTER SUBSCRIPTION {quoted} DISABLE")
        client.query(subscriber, f"ALTER SUBSCRIPTION {quoted} SET (slot_name = NONE)")
        client.query(subscriber, f"DROP SUBSCRIPTION {quoted}")
        done.append(f"DROP SUBSCRIPTION {quoted}")
    if state.slot_exists:
        drop_slot(publisher, name)
        done.append(f"drop slot {name}")
    return done


def set_commit(subscriber: Connection, actions: list[Action]) -> None:
    """Change for whom applied transactions wait; the commit of the change waits itself, so that all that was applied before it is where it is.

    :raises ClientError: the subscriber refuses
    """
    client.query(subscriber, "SET synchronous_commit = on")
    for action in actions:
        client.query(subscriber, action.statement)


def end_slot(publisher: Connection, name: str) -> None:
    """End whoever uses a slot, and drop it.

    :raises WaitTimeout: it stayed in use
    """
    client.query(publisher, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %s AND active_pid IS NOT NULL", (name,))
    drop_slot(publisher, name)


def give_up(publisher: Connection, subscriber: Connection, name: str, limit_mib: int) -> str:
    """Put the publisher's disk first: disable the subscription and drop the slot. Returns the sentence for it.

    A subscriber that does not answer, or refuses, is no reason to keep the slot.
    """
    left = "its subscription"
    with contextlib.suppress(ClientError):
        client.query(subscriber, f"ALTER SUBSCRIPTION {identifier(name)} DISABLE")
        left = "its subscription, disabled"
    end_slot(publisher, name)
    return given_up(name, f"slot {name} held back more than the declared {limit_mib} MiB of WAL and was dropped", ["its publication", left])


def drop_slot(publisher: Connection, name: str, timeout_seconds: float = 15, clock: Clock = SYSTEM_CLOCK) -> None:
    """Drop a slot once its sender has noticed that the other end is gone.

    :raises WaitTimeout: it stayed in use
    """

    def active() -> bool:
        rows = client.query(publisher, "SELECT active FROM pg_replication_slots WHERE slot_name = %s", (name,))
        return bool(rows) and bool(rows[0]["active"])

    wait_until(active, lambda value: not value, f"The end of the sender that uses slot {name} on the publisher", timeout_seconds, 0.1, clock)
    client.query(publisher, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", (name,))


class LagOverTime:
    """Lags in the order in which they were seen, thinned out so that hours need no more room than seconds.

    :param most: how many are kept at most
    """

    def __init__(self, most: int = 240) -> None:
        self._most = most
        self._every = 1
        self._looks = 0
        self._began: float | None = None
        self.seen: list[dict[str, float | int]] = []

    def see(self, moment_seconds: float, lag_bytes: int | None) -> None:
        """Take one; an unknown lag leaves a hole."""
        if self._began is None:
            self._began = moment_seconds
        self._looks += 1
        if lag_bytes is None or (self._looks - 1) % self._every:
            return
        self.seen.append({"seconds": round(moment_seconds - self._began, 1), "bytes": lag_bytes})
        if len(self.seen) >= self._most:
            self.seen = self.seen[::2]
            self._every *= 2


def wait_until_caught_up(
    publisher: Connection,
    subscriber: Connection,
    name: str,
    timeout_seconds: float,
    clock: Clock = SYSTEM_CLOCK,
    slot_wal_limit_mib: int | None = None,
    lag: LagOverTime | None = None,
) -> LinkState:
    """Wait until everything that was written on the publisher before the call is confirmed by the subscriber.

    :param slot_wal_limit_mib: at that much WAL held back the link is given up
    :param lag: gets every lag that is seen meanwhile
    :raises GivenUp: the publisher has given the link up, or we have
    :raises ClientError: a position could not be read, or the subscriber fails to apply again and again
    :raises WaitTimeout: it did not come in time, with what is wrong
    """
    goal = client.query_value(publisher, "SELECT pg_current_wal_flush_lsn()::text")
    if not goal:
        raise ClientError("The publisher does not say where its WAL ends.")
    failures = Failures(name)

    def behind() -> tuple[int | None, list[str]]:
        rows = client.query(
            publisher, "SELECT pg_wal_lsn_diff(%s::pg_lsn, confirmed_flush_lsn)::bigint AS bytes FROM pg_replication_slots WHERE slot_name = %s", (goal, name)
        )
        missing = int(rows[0]["bytes"]) if rows and rows[0]["bytes"] is not None else None
        state = read_link(publisher, subscriber, name, slot_wal_limit_mib)
        if lag is not None:
            lag.see(clock.monotonic(), state.lag_bytes)
        if state.given_up:
            raise GivenUp(state.given_up)
        late = missing is None or missing > 0 or state.obstacles
        if late and slot_wal_limit_mib is not None and state.slot_held_bytes is not None and state.slot_held_bytes > slot_wal_limit_mib * MIB:
            raise GivenUp(give_up(publisher, subscriber, name, slot_wal_limit_mib))
        if late:
            failures.look(state.errors)
        return missing, state.obstacles

    wait_until(
        behind,
        lambda value: value[0] is not None and value[0] <= 0 and not value[1],
        f"The end of what link {name} has to catch up with (bytes, problems)",
        timeout_seconds,
        0.2,
        clock,
    )
    return read_link(publisher, subscriber, name, slot_wal_limit_mib)
