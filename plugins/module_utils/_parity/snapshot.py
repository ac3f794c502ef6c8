# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Two snapshots, one on each side, that show exactly the same rows while the application goes on writing.

The fence session locks all published tables against writers, a second session commits a marker row, and once the link has brought
the marker to the target, everything committed before it is there and nothing after it can be. At that moment a snapshot is exported
on each side, and the locks go. Writers wait for a few milliseconds; every bound is the server's too: statement_timeout on the
locks, idle_in_transaction_session_timeout for a process that stops with its socket open.
"""

from __future__ import annotations

import typing as t
import uuid
from dataclasses import dataclass, field, replace

from .._core.errors import ClientError, GateError, WaitTimeout
from .._core.waiting import Clock, wait_until
from .._postgresql import client
from .._postgresql.applying import Failures, read_apply_errors
from .._postgresql.slots import read_given_up, read_slot_wal
from .._postgresql.timeline import TIMELINE
from .names import FORWARD_LINK, MARKER_TABLE, REVERSE_LINK, REVERSE_MARKER_TABLE

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

POLL_SECONDS = 0.001
# How often it is looked whether the link fails while a marker is awaited.
LOOK_SECONDS = 1.0
FIRST_LOCK_TIMEOUT_MS = 25
FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 5.0


@dataclass(frozen=True)
class Bounds:
    """How long writers may be held, and how often it is tried.

    :param hold_ms: longest hold of one attempt
    :param lock_timeout_ms: longest wait for one table; below the server's deadlock_timeout, so that no client is a deadlock's victim.
      The first attempt waits 25 ms, each one twice as long as the one before
    :param attempts: how many times
    :param catch_up_seconds: how long to wait until the link has caught up, before anything is locked
    """

    hold_ms: int = 500
    lock_timeout_ms: int = 400
    attempts: int = 20
    catch_up_seconds: int = 600


@dataclass(frozen=True)
class Position:
    """Where a server stands: the same data on the same history.

    :param system_identifier: of the cluster (text, it does not fit into JSON's numbers)
    :param timeline: changes at every failover
    :param lsn: current write position
    """

    system_identifier: str
    timeline: int
    lsn: str

    def as_dict(self) -> dict[str, t.Any]:
        """For evidence."""
        return {"system_identifier": self.system_identifier, "timeline": self.timeline, "lsn": self.lsn}


@dataclass(frozen=True)
class Snapshots:
    """Snapshots that other sessions can import as long as the exporting ones live.

    :param names: snapshot's name by side
    :param positions: of the servers at that moment
    :param hold_ms: how long writers were held (all attempts' longest)
    :param attempts: how many were needed
    """

    names: dict[str, str]
    positions: dict[str, Position]
    hold_ms: float = 0.0
    attempts: int = 0
    failures: list[str] = field(default_factory=list)


# Like LOCK TABLE with all of them, in one message too, but the error names the table that could not be had.
LOCK_TABLES = """
BEGIN;
DO $lock$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY %s::text[] LOOP
        EXECUTE 'LOCK TABLE ONLY ' || wanted || ' IN SHARE ROW EXCLUSIVE MODE';
    END LOOP;
EXCEPTION WHEN lock_not_available OR query_canceled OR deadlock_detected THEN
    RAISE EXCEPTION USING ERRCODE = SQLSTATE, MESSAGE = SQLERRM, TABLE = wanted;
END $lock$
"""


@dataclass(frozen=True)
class Way:
    """The link that carries the application's writes to the side that is compared with the serving one.

    :param here: side that serves
    :param ahead: side that follows
    :param link: name of publication and subscription
    :param marker_table: our table that goes that way
    """

    here: str
    ahead: str
    link: str
    marker_table: str


FORWARD = Way("source", "target", FORWARD_LINK, MARKER_TABLE)
REVERSE = Way("target", "source", REVERSE_LINK, REVERSE_MARKER_TABLE)


class HoldBroken(Exception):
    """An attempt came to its bound; the locks are gone. Says why.

    :param table: that could not be had
    """

    def __init__(self, why: str, table: str | None = None) -> None:
        super().__init__(why)
        self.table = table


def read_position(connection: Connection) -> Position:
    """System identifier, timeline and position of a primary.

    :raises ClientError: the server is in recovery or its control data may not be read
    """
    row = client.query(
        connection,
        f"SELECT system_identifier::text, {TIMELINE} AS timeline, pg_current_wal_lsn()::text AS lsn FROM pg_control_system()",
    )[0]
    return Position(**row)


def export_snapshot(connection: Connection) -> str:
    """Open a transaction on an autocommit session, export its snapshot and leave it open.

    :returns: the snapshot's name
    """
    client.query(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    return str(client.query_value(connection, "SELECT pg_export_snapshot()"))


_NO_SLOT = {
    "target": "what it has missed cannot be followed, copy anew with `pg-ha replicate --repeat replicate` (pg_ha_repeat: [replicate])",
    "source": "the source has missed what was written since, and there is no way back to it; the target serves on and has everything",
}


def check_link(way: Way, here: Connection, ahead: Connection) -> None:
    """Refuse while the link cannot bring the marker: it is off, copies tables, or misses one.

    :raises GateError: says what and what to do
    """
    if given_up := read_given_up(here, ahead, read_slot_wal(here, way.link)):
        raise GateError(given_up)
    repair = "run the phase replicate first" if way.ahead == "target" else "there is no way back (cutover.json says why)"
    subscription = client.query(
        ahead,
        "SELECT oid, subenabled, subslotname::text AS slot FROM pg_subscription "
        "WHERE subname = %s AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        (way.link,),
    )
    if not subscription:
        raise GateError(f"The {way.ahead} has no subscription {way.link}: {repair}.")
    slot = subscription[0]["slot"]
    if slot is None:
        move = "roll_back.yml" if way.ahead == "target" else "cut_over.yml"
        raise GateError(f"The subscription {way.link} on the {way.ahead} was laid and is not attached: the last move is unfinished, run {move} again first.")
    if not client.query_value(here, "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %s)", (slot,)):
        raise GateError(f"The {way.here} has no slot {slot} (a failover before its standbys had it?): {_NO_SLOT[way.ahead]}.")
    if not subscription[0]["subenabled"]:
        raise GateError(f"The subscription {way.link} on the {way.ahead} is disabled: look at that server's log, enable it, run again.")
    copying = client.query(
        ahead, "SELECT srrelid::regclass::text AS name FROM pg_subscription_rel WHERE srsubid = %s AND srsubstate <> 'r' ORDER BY 1", (subscription[0]["oid"],)
    )
    if copying:
        names = ", ".join(row["name"] for row in copying[:5])
        raise GateError(f"{len(copying)} tables are still being copied ({names}): wait until replicate is done.")
    if not client.query_value(here, "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = %s)", (way.link,)):
        raise GateError(f"The {way.here} has no publication {way.link}: {repair}.")


def take_paired_snapshots(
    way: Way,
    open_session: t.Callable[..., Connection],
    exporters: dict[str, Connection],
    tables: list[str],
    run: str,
    bounds: Bounds,
    clock: Clock,
    report: t.Callable[[str], None] = lambda _text: None,
) -> Snapshots:
    """Take the two snapshots; the exporting transactions are left open on ``exporters``.

    :param way: which side serves, and the link to the other
    :param open_session: opens a session on a side, ``open_session("source", settings={...})``
    :param exporters: idle autocommit sessions by side
    :param tables: quoted names to lock, roots of partitions before their leaves; one that could not be had goes first in the next attempt
    :param run: names the marker rows
    :param report: told what is going on
    :raises WaitTimeout: the link did not catch up
    :raises ClientError: it fails to apply again and again
    :raises GateError: no attempt came through; names who held the tables
    """
    # A marker that an earlier run of this name has sent must not be taken for ours.
    run = f"{run} {uuid.uuid4().hex[:12]}"
    marker = open_session(way.here, settings={"synchronous_commit": "on", "statement_timeout": "10000"})
    try:
        report("waiting until the link has caught up")
        _catch_up(way, marker, exporters[way.ahead], run, bounds, clock)
        longest = 0.0
        failures: list[str] = []
        backoff = FIRST_BACKOFF_SECONDS
        for attempt in range(1, bounds.attempts + 1):
            began = clock.monotonic()
            report(f"taking the snapshots, attempt {attempt} of {bounds.attempts}")
            try:
                waits = replace(bounds, lock_timeout_ms=min(bounds.lock_timeout_ms, FIRST_LOCK_TIMEOUT_MS << attempt - 1))
                names, positions, held = _attempt(way, open_session, marker, exporters, tables, f"{run} {attempt}", waits, clock)
                return Snapshots(names, positions, round(max(longest, held), 1), attempt, failures)
            except HoldBroken as broken:
                for exporter in exporters.values():
                    client.query(exporter, "ROLLBACK")
                longest = max(longest, (clock.monotonic() - began) * 1000)
                failures.append(str(broken))
                # Whoever held it may wait for a table that we had by then: taken first, it stands in our order as in theirs.
                tables = sorted(tables, key=lambda table, wanted=broken.table: table != wanted)  # type: ignore[misc]
            if attempt < bounds.attempts:
                clock.sleep(backoff)
                backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)
    finally:
        marker.close()
    raise GateError(
        f"The published tables could not be held for {bounds.hold_ms} ms in {bounds.attempts} attempts: {failures[-1]} "
        "End these sessions or run again at a quieter time; no client was held longer than the bound.",
        failures=failures,
        hold_ms=round(longest, 1),
    )


def _catch_up(way: Way, marker: Connection, ahead: Connection, run: str, bounds: Bounds, clock: Clock) -> None:
    """Send markers without any lock until one arrives in half of the hold: then the locked one will, too.

    :raises ClientError: the link fails to apply again and again
    """
    deadline = clock.monotonic() + bounds.catch_up_seconds
    failures, looked = Failures(way.link), float("-inf")

    def arrived(name: str) -> bool:
        nonlocal looked
        if clock.monotonic() - looked >= LOOK_SECONDS:
            looked = clock.monotonic()
            failures.look(read_apply_errors(ahead, way.link))
        return _arrived(way, ahead, name)

    number = 0
    while True:
        number += 1
        name = f"{run} ahead {number}"
        began = clock.monotonic()
        _send(way, marker, name)
        wait_until(
            lambda name=name: arrived(name),  # type: ignore[misc]
            bool,
            f"A marker row over {way.link} (it lags or has stopped: look at pg_stat_subscription and the log on the {way.ahead})",
            max(0.0, deadline - clock.monotonic()),
            POLL_SECONDS,
            clock,
        )
        if (clock.monotonic() - began) * 1000 <= bounds.hold_ms / 2:
            return
        if clock.monotonic() >= deadline:
            raise WaitTimeout(f"{way.link} did not come closer than {bounds.hold_ms / 2:g} ms within {bounds.catch_up_seconds} s.")


def _attempt(
    way: Way,
    open_session: t.Callable[..., Connection],
    marker: Connection,
    exporters: dict[str, Connection],
    tables: list[str],
    name: str,
    bounds: Bounds,
    clock: Clock,
) -> tuple[dict[str, str], dict[str, Position], float]:
    """One hold. Returns snapshot names, positions and the hold in ms.

    :raises HoldBroken: at a bound; the locks are gone
    """
    fence = open_session(
        way.here,
        settings={
            "lock_timeout": f"{bounds.lock_timeout_ms}ms",
            "statement_timeout": f"{bounds.hold_ms}ms",
            "idle_in_transaction_session_timeout": f"{bounds.hold_ms}ms",
        },
    )
    try:
        pid = fence.get_backend_pid()
        began = clock.monotonic()
        deadline = began + bounds.hold_ms / 1000
        try:
            client.query(fence, LOCK_TABLES, (tables,))
        except ClientError as error:
            if error.details.get("sqlstate") not in ("55P03", "57014", "40P01"):
                raise
            waited = (clock.monotonic() - began) * 1000
            holders = describe_holders(read_holders(marker, tables, pid, waited))
            raise HoldBroken(f"after {waited:.0f} ms some tables were still held by {holders}.", error.details.get("table")) from error
        _send(way, marker, name)
        while not _arrived(way, exporters[way.ahead], name):
            if clock.monotonic() > deadline:
                raise HoldBroken(f"the marker row did not reach the {way.ahead} within {bounds.hold_ms} ms.")
            clock.sleep(POLL_SECONDS)
        names = {side: export_snapshot(exporters[side]) for side in ("source", "target")}
        # The locks must have stood until both snapshots were taken: a fence that the server has ended is noticed here.
        try:
            client.query(fence, "COMMIT")
        except ClientError as error:
            raise HoldBroken(f"the server ended the hold at {bounds.hold_ms} ms.") from error
        held = (clock.monotonic() - began) * 1000
    finally:
        fence.close()
    return names, {side: read_position(exporters[side]) for side in ("source", "target")}, held


def _send(way: Way, marker: Connection, name: str) -> None:
    client.query(marker, f"INSERT INTO {way.marker_table} (id) VALUES (%s)", (name,))


def _arrived(way: Way, ahead: Connection, name: str) -> bool:
    return bool(client.query(ahead, f"SELECT FROM {way.marker_table} WHERE id = %s", (name,)))


def read_holders(connection: Connection, tables: list[str], fence_pid: int, waited_ms: float) -> list[dict[str, t.Any]]:
    """Who holds a lock that the fence waits for, since before the attempt began: sessions and prepared transactions.

    :returns: ``{"pid" (None: prepared), "user", "application", "state", "seconds", "relation", "transaction"}``; statements are not
      shown, since they may hold data
    """
    return client.query(
        connection,
        "SELECT DISTINCT ON (coalesce(l.pid, 0), l.virtualtransaction) l.pid, a.usename::text AS user, a.application_name AS application, a.state, "
        "extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, p.prepared))::float AS seconds, "
        "l.relation::regclass::text AS relation, p.gid AS transaction "
        "FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid LEFT JOIN pg_prepared_xacts p ON l.virtualtransaction = '-1/' || p.transaction::text "
        "WHERE l.granted AND l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') "
        "AND l.relation = ANY (SELECT to_regclass(name)::oid FROM unnest(%s::text[]) AS name) AND coalesce(l.pid, 0) NOT IN (%s, pg_backend_pid()) "
        "AND (l.pid IS NULL OR a.xact_start IS NULL OR a.xact_start <= clock_timestamp() - make_interval(secs => %s)) "
        "ORDER BY coalesce(l.pid, 0), l.virtualtransaction, l.relation LIMIT 10",
        (tables, fence_pid, waited_ms / 1000 * 0.9),
    )


def describe_holders(holders: list[dict[str, t.Any]]) -> str:
    """Holders in words (pure)."""
    if not holders:
        return "sessions that have ended since"
    words = []
    for holder in holders:
        if holder["pid"] is None:
            words.append(f"prepared transaction {holder['transaction']!r} on {holder['relation']}")
        else:
            since = "" if holder["seconds"] is None else f" for {holder['seconds']:.1f} s"
            words.append(f"pid {holder['pid']} (user {holder['user']}, {holder['application'] or 'no name'}, {holder['state']}{since}) on {holder['relation']}")
    return "; ".join(words)
