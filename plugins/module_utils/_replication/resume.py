# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Going on with an interrupted copy: finished tables stay, the others are copied again, and nobody's change is lost or applied twice.

In the same way tables of a finished copy are copied again that were found to differ.

The slot of the interrupted run still holds every change since its snapshot, which is what finished tables need. A table that is copied
again needs the changes since its new copy only. The publication makes that difference, because pgoutput reads it as it was at each change:

1. The link is stopped. Unfinished tables are emptied on the target and leave the publication. Transactions that were writing then are waited for.
2. The link runs until it has passed that point. What it applies to unfinished tables on the way is emptied with them later: rows that
   it inserts are as they were on the source, and rows that it misses are skipped. Then it is stopped.
3. Each unfinished table comes back into the publication while a lock of milliseconds keeps writers away, and the snapshot for its copy is
   taken under the same lock: a change is either seen by the snapshot or sent after it, never both.
4. The link runs for good.

PostgreSQL's own table synchronisation would do 2 and 3, but reads the tables as the link's role, which may read none (and would be shown
no row of a table with row level security).
"""

from __future__ import annotations

import typing as t

from .._core.errors import ClientError, WaitTimeout
from .._core.waiting import SYSTEM_CLOCK, Clock, wait_until
from .._postgresql import client
from .._postgresql.applying import Failures
from . import copy_client, link_client, own
from .copy_plan import empty_statement
from .model import InTheWay, Left, Table
from .names import identifier, relation

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# For the session that locks out writers: should we vanish under the lock, the server lets go of it.
PUBLISHER_SETTINGS = {"synchronous_commit": "on", "idle_in_transaction_session_timeout": "2s"}
LOCK_NOT_AVAILABLE = "55P03"
# Writers queue behind a waiting lock, so it waits briefly. Each tenth attempt is longer than deadlock_timeout: only then the server ends
# an autovacuum that is in the way.
_BRIEF_MS, _PATIENT_MS, _PATIENT_EACH = 300, 1500, 10
_DAY_SECONDS = 86400
# How long nobody may apply before the catching up is given up.
_IDLE_SECONDS = 60


def read_left(source: Connection, target: Connection) -> Left:
    """What an interrupted run has left."""
    name = (own.FORWARD_LINK,)
    slots = client.query(
        source, "SELECT wal_status::text AS status FROM pg_replication_slots WHERE slot_name = %s AND database = current_database() AND NOT temporary", name
    )
    published = client.query(source, "SELECT schemaname::text AS schema, tablename::text AS name FROM pg_publication_tables WHERE pubname = %s", name)
    subscribed = client.query(
        target, "SELECT FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE s.subname = %s AND d.datname = current_database()", name
    )
    rows = client.query(
        target,
        f"SELECT relation, state, bytes_total, rows_done, (detail->>'oid')::bigint AS oid FROM {own.SCHEMA}.copy WHERE relation <> %s",
        (copy_client.RUN,),
    )
    return Left(
        slot=(slots[0]["status"] or "unknown") if slots else None,
        subscribed=bool(subscribed),
        published=frozenset(relation(row["schema"], row["name"]) for row in published),
        tables={row["relation"]: row["oid"] for row in rows},
        done={row["relation"]: (int(row["rows_done"]), int(row["bytes_total"])) for row in rows if row["state"] == "done"},
    )


def withdraw(source: Connection, target: Connection, tables: t.Collection[Table], published: t.Collection[str]) -> None:
    """Take tables out of the publication and empty them on the target.

    :param target: a session with session_replication_role = replica, which the guards let through
    """
    if not tables:
        return
    stop(source, target)  # it would write to them, and take their locks in another order
    for table in tables:
        found = read_in_the_way(target, table)
        client.query(target, "; ".join(("BEGIN", *found.silence, empty_statement(table, found.referenced), *found.restore, "COMMIT")))
    names = [table.quoted for table in tables if table.quoted in published]
    if names:
        client.query(source, f"ALTER PUBLICATION {identifier(own.FORWARD_LINK)} DROP TABLE " + ", ".join(f"ONLY {name}" for name in names))


def read_in_the_way(target: Connection, table: Table) -> InTheWay:
    """What stands in the way of emptying and filling a table that has its constraints and triggers.

    Foreign keys are not checked with session_replication_role = replica, and other triggers than these do not fire.
    """
    row = client.query(
        target,
        "SELECT EXISTS (SELECT FROM pg_constraint c WHERE c.contype = 'f' AND c.confrelid = r.oid AND c.conrelid <> r.oid) AS referenced, "
        "ARRAY(SELECT tgname::text FROM pg_trigger WHERE tgrelid = r.oid AND NOT tgisinternal AND tgenabled = 'A') AS always, "
        "ARRAY(SELECT tgname::text FROM pg_trigger WHERE tgrelid = r.oid AND NOT tgisinternal AND tgenabled = 'R') AS replica "
        "FROM (SELECT %s::regclass::oid AS oid) r",
        (table.quoted,),
    )[0]
    words = dict.fromkeys(row["always"], "ALWAYS") | dict.fromkeys(row["replica"], "REPLICA")
    return InTheWay(
        referenced=row["referenced"],
        silence=tuple(f"ALTER TABLE ONLY {table.quoted} DISABLE TRIGGER {identifier(name)}" for name in words),
        restore=tuple(f"ALTER TABLE ONLY {table.quoted} ENABLE {word} TRIGGER {identifier(name)}" for name, word in words.items()),
    )


def catch_up(
    source: Connection, target: Connection, writers_timeout_seconds: float, timeout_seconds: float = _DAY_SECONDS, clock: Clock = SYSTEM_CLOCK
) -> None:
    """Let the link run until it has passed every change that was sent of withdrawn tables, then stop it.

    :raises ClientError: transactions that wrote when the tables were withdrawn did not end, or the link does not apply
    """
    goal = _pass_writers(source, writers_timeout_seconds, clock)
    name = identifier(own.FORWARD_LINK)
    client.query(target, f"ALTER SUBSCRIPTION {name} ENABLE")
    _wait_until_applied(source, target, goal, timeout_seconds, clock)
    stop(source, target, timeout_seconds, clock)


def stop(source: Connection, target: Connection, timeout_seconds: float = _DAY_SECONDS, clock: Clock = SYSTEM_CLOCK) -> None:
    """Let the link apply nothing any more.

    :raises WaitTimeout: somebody still does
    """
    client.query(target, f"ALTER SUBSCRIPTION {identifier(own.FORWARD_LINK)} DISABLE")
    wait_until(
        lambda: link_client.read_link(source, target, own.FORWARD_LINK),
        lambda state: not state.worker_running and not state.slot_active,
        "The end of the apply worker",
        timeout_seconds,
        0.1,
        clock,
    )


def _pass_writers(source: Connection, timeout_seconds: float, clock: Clock) -> str:
    """A point in the WAL behind the end of every transaction that has begun to write before the call.

    By transactions and not by the position alone: one that has written to a table while it was still published is sent when it commits.
    """
    horizon = int(client.query_value(source, "SELECT pg_current_xact_id()::text"))
    try:
        wait_until(
            lambda: int(client.query_value(source, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text")),
            lambda oldest: oldest >= horizon,
            "The end of the transactions that write on the source",
            timeout_seconds,
            0.2,
            clock,
        )
    except WaitTimeout as error:
        message = f"After {timeout_seconds:g} s writing transactions were still open: end long ones (pg_stat_activity, backend_xid) and run again."
        raise ClientError(message, resumable=True) from error
    # A transaction of its own, committed durably: what comes before it can be sent. Another session's asynchronous commit could not yet.
    client.query(source, "SET synchronous_commit = on")
    return str(client.query_value(source, "SELECT pg_logical_emit_message(true, %s, 'resume')::text", (own.SCHEMA,)))


def _wait_until_applied(source: Connection, target: Connection, goal: str, timeout_seconds: float, clock: Clock) -> None:
    """Wait until the subscriber has confirmed the position.

    :raises ClientError: nobody has applied for a minute, or applying fails again and again
    :raises WaitTimeout: it did not come in time
    """
    failures = Failures(own.FORWARD_LINK)
    idle_since: float | None = None

    def missing() -> int:
        nonlocal idle_since
        state = link_client.read_link(source, target, own.FORWARD_LINK)
        if state.worker_running:
            idle_since = None
        else:
            idle_since = clock.monotonic() if idle_since is None else idle_since
            if clock.monotonic() - idle_since > _IDLE_SECONDS:
                raise ClientError("The link does not run, so that finished tables cannot catch up: look at the target's log.")
        failures.look(state.errors)
        statement = "SELECT pg_wal_lsn_diff(%s::pg_lsn, confirmed_flush_lsn)::bigint FROM pg_replication_slots WHERE slot_name = %s"
        return int(client.query_value(source, statement, (goal, own.FORWARD_LINK)))

    wait_until(missing, lambda value: value <= 0, "The end of what finished tables have to catch up with (bytes)", timeout_seconds, 0.5, clock)


def publish_at(publisher: Connection, reader: Connection, table: Table, timeout_seconds: float, clock: Clock = SYSTEM_CLOCK) -> None:
    """Put the table back into the publication, and begin a transaction of the reader that sees exactly what was written to it before.

    :param publisher: a session with PUBLISHER_SETTINGS
    :raises ClientError: writers held the table all the time
    """
    deadline = clock.monotonic() + timeout_seconds
    attempt = 1
    while not _try_publish(publisher, reader, table, _BRIEF_MS if attempt % _PATIENT_EACH else _PATIENT_MS):
        if clock.monotonic() > deadline:
            message = f"{table.quoted} was written by long transactions on the source for {timeout_seconds:g} s: end them (pg_locks) and run again."
            raise ClientError(message, resumable=True)
        attempt += 1
        clock.sleep(0.2)


def _try_publish(publisher: Connection, reader: Connection, table: Table, lock_timeout_ms: int) -> bool:
    """One attempt; False when the lock was not to be had. SHARE waits for all who have written to the table and are not done, and keeps others away."""
    client.query(reader, "ROLLBACK")  # of the table before
    try:
        client.query(publisher, f"BEGIN; SET LOCAL lock_timeout = {lock_timeout_ms:d}; LOCK TABLE ONLY {table.quoted} IN SHARE MODE")
        client.query(reader, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1")  # the first query takes the snapshot
        client.query(publisher, f"ALTER PUBLICATION {identifier(own.FORWARD_LINK)} ADD TABLE ONLY {table.quoted}; COMMIT")
    except ClientError as error:
        if error.details.get("sqlstate") != LOCK_NOT_AVAILABLE:
            raise
        client.query(publisher, "ROLLBACK")
        return False
    return True
