# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The critical section: from the arming of the dead men to the moment when every pooler serves the decided side.

One process, sessions opened beforehand, every bound also the server's. docs/safety.md states the invariant after each step and what
a crash there leaves. Steps before the decision undo themselves; after its commit there is only forward.
"""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t
from dataclasses import dataclass, field

from .._core.errors import ClientError, GateError, PgHaError, UnknownState
from .._postgresql import client, large_objects
from .._postgresql.console import pause_all
from .._postgresql.quoting import literal
from .._postgresql.timeline import TIMELINE
from . import ddl_guard, decision, guards, schema, sequences
from .large_object_fence import LargeObjectFence

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

MOVER = "mover"
# How long a fence outlives a mover that fell silent in a declared window. It says a word each second there.
LONGEST_SILENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Attempt:
    """What one attempt is about.

    :param epoch: its number
    :param run: who runs it
    :param leaves: side that serves now
    :param serves: side that shall serve
    :param database: the pooled database's name
    :param budget_seconds: how long clients may be held (D); with a window, what the quick steps are measured by
    :param pause_seconds: how long PAUSE may take at most
    :param lock_timeout_ms: how long the fence waits for a table; below deadlock_timeout, so that no client is a deadlock's victim
    :param roles: application roles that lose LOGIN on the side that is left
    :param needs_sync_standby: whether the next side has to show a synchronous standby
    :param endpoint: (host, port) that poolers show when they serve the next side
    :param window_seconds: declared maintenance window, in which the rows are copied while clients are held: D is the window then
    """

    epoch: int
    run: str
    leaves: str
    serves: str
    database: str
    budget_seconds: float
    roles: tuple[str, ...]
    needs_sync_standby: bool
    endpoint: tuple[str, int]
    pause_seconds: float = 1.0
    lock_timeout_ms: int = 400
    window_seconds: float | None = None

    @property
    def hold_seconds(self) -> float:
        """D: after it every dead man lets its clients go on."""
        return self.budget_seconds if self.window_seconds is None else self.window_seconds

    @property
    def silence_seconds(self) -> float:
        """After so long without a word from us the server ends the fence."""
        return self.budget_seconds / 2 if self.window_seconds is None else min(LONGEST_SILENCE_SECONDS, self.window_seconds / 2)


@dataclass
class Sessions:
    """Everything that the section talks over, opened before clients are held.

    :param fence: on the side left, holds the locks and decides (manual transaction)
    :param control: on the side left, autocommit, synchronous_commit on
    :param canceller: on the side left, cancels the fence at the deadline
    :param large_objects: on the side left, keeps everybody from the large objects
    :param ahead: on the next side, autocommit, synchronous_commit on
    :param pausers: a console per pooler that sends PAUSE
    :param lookers: a console per pooler that reads SHOW DATABASES
    """

    fence: Connection
    control: Connection
    canceller: Connection
    large_objects: LargeObjectFence
    ahead: Connection
    pausers: dict[str, Connection]
    lookers: dict[str, Connection]


@dataclass
class Steps:
    """What took how long.

    :param done: ``[{"name", "ms", "at_ms"}]``, at_ms since the first PAUSE was sent
    """

    observe: t.Callable[[str], None] = lambda name: None
    done: list[dict[str, t.Any]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    paused_at: float | None = None
    paused_wall: float | None = None

    def run(self, name: str, work: t.Callable[[], t.Any]) -> t.Any:
        """Run one step, timed; the observer sees it before and after (the lab injects faults there)."""
        self.observe(f"before {name}")
        begin = time.monotonic()
        try:
            return work()
        finally:
            self.done.append({"name": name, "ms": round((time.monotonic() - begin) * 1000, 1)})
            self.observe(f"after {name}")


@dataclass(frozen=True)
class Watch:
    """What must not have changed inside the section.

    :param tables: quoted names of all guarded tables of the side left, with their oids
    :param timeline: timeline of the next side when its rows were compared (those of a dump: before the section)
    :param large_objects: state of the large objects of the side left, whose content was compared; None where neither side has any and they cannot be locked
    :param ddl: how many commands the side left had recorded; None where nothing is recorded
    """

    tables: tuple[tuple[int, str], ...]
    undiverted: tuple[str, ...]
    timeline: int
    large_objects: dict[str, t.Any] | None
    ddl: int | None


class Undone(PgHaError):
    """The section was undone: clients go on at the side they were on, nothing was lost."""


# What brings the rows of the side that is left to the next one under the fence, and shows that they are there. The float is our own deadline;
# the answer is the next side's position after all of them.
Carry = t.Callable[[Attempt, Sessions, Watch, Steps, float], str]


def run_section(attempt: Attempt, sessions: Sessions, watch: Watch, steps: Steps, reconnect: t.Callable[[], Connection], carry: Carry | None = None) -> str:
    """Everything up to the decision, and what it is.

    :param reconnect: opens a fresh control session on the side left, for an outcome that was not read
    :param carry: the steps between the fence and the decision; by default those of a link
    :returns: the side that serves by the decision row
    :raises UnknownState: the decision could not be read; the dead men go on asking
    """
    try:
        _until_decided(attempt, sessions, watch, steps, carry or carry_over_link)
        return attempt.serves
    except PgHaError as error:
        decided = _settle(attempt, sessions, reconnect, isinstance(error, UnknownState))
        if decided == attempt.serves:
            return decided
        raise Undone(
            f"The cutover was undone and clients go on at the {attempt.leaves}: {error.message} Nothing was lost; run the same playbook again.",
            reason=error.message,
            steps=steps.done,
        ) from error


def warm(sessions: Sessions, attempt: Attempt, watch: Watch) -> None:
    """Have every session do once, before clients are held, what it will do while they are: the first time costs several times as much,
    because the server reads its catalogs for it. EXPLAIN plans the fence's proof without executing anything.

    :raises ClientError: a table is locked (as the fence would have found it), or a side does not answer
    :raises GateError: a table is vacuumed and cannot be taken from that, or what was watched has changed
    """
    client.query(
        sessions.fence,
        f"BEGIN; SET LOCAL lock_timeout = {attempt.lock_timeout_ms:d}; {guards.for_each_table(watch.undiverted, EXPLAIN_PROOF)}; {guards.ALL_GUARDED}; "
        # DDL, for the event triggers that look at it.
        f"{schema.guard_function(schema.GuardPermissive())}; ROLLBACK",
    )
    last_look(attempt, sessions, watch)
    if attempt.window_seconds is None:
        look_at_link(attempt, sessions)
    sequences.plan_sequences(*sequences.read_both(sessions.control, sessions.ahead))
    _write_marker(attempt, sessions, f"warm-{attempt.epoch}")
    decision.read_acknowledged(sessions.control, attempt.epoch, "armed")
    decision.is_announced(sessions.ahead, attempt.epoch, attempt.serves)
    decision.acknowledge(sessions.ahead, MOVER, attempt.epoch, "warm")
    decision.read_reaching(sessions.ahead, attempt.epoch, "now")
    read_durability(sessions.ahead)
    if watch.large_objects is not None:
        client.query(sessions.canceller, LARGE_OBJECTS_STATE)
    behind(sessions.lookers, attempt)
    await_gap(sessions.control, watch)


def _until_decided(attempt: Attempt, sessions: Sessions, watch: Watch, steps: Steps, carry: Carry) -> None:
    deadline = steps.run("arm", lambda: _arm(attempt, sessions))
    steps.run("cancel autovacuum", lambda: cancel_autovacuum(sessions.control))
    steps.paused_at, steps.paused_wall = time.monotonic(), time.time()
    steps.run("pause", lambda: pause_all(sessions.pausers, attempt.database, attempt.pause_seconds))
    steps.run("fence", lambda: _fence(attempt, sessions, watch))
    ahead_lsn = carry(attempt, sessions, watch, steps, deadline)
    steps.run("decide", lambda: _decide(attempt, sessions, watch, deadline, ahead_lsn))


def carry_over_link(attempt: Attempt, sessions: Sessions, watch: Watch, steps: Steps, deadline: float) -> str:
    """The link has brought the rows: it is shown to be drained, and what came over it to be durable."""
    large_objects = Background(lambda: client.query(sessions.canceller, LARGE_OBJECTS_STATE)[0]) if watch.large_objects is not None else None
    marker = f"fence-{attempt.epoch}"
    steps.run("marker", lambda: _write_marker(attempt, sessions, marker))
    # While the marker travels; the barrier then covers the moved sequences too.
    steps.run("last look", lambda: _last_look_at_tables_and_link(attempt, sessions, watch))
    steps.run("sequences", lambda: sequences.move_ahead(sessions.control, sessions.ahead))
    steps.run("arrival", lambda: _await_marker(attempt, sessions, marker, deadline))
    ahead_lsn = steps.run("barrier", lambda: barrier_for_all(attempt, sessions, watch, deadline))
    if large_objects is not None:
        steps.run("large objects", lambda: _compare_large_objects(large_objects.result(), watch))
    return str(ahead_lsn)


def _arm(attempt: Attempt, sessions: Sessions) -> float:
    """Open the epoch and wait until every pooler's dead man has acknowledged; returns our own deadline, before any of theirs."""
    deadline = time.monotonic() + attempt.hold_seconds
    decision.open_epoch(sessions.control, attempt.epoch, attempt.run, attempt.leaves, round(attempt.hold_seconds * 1000))
    wanted = set(sessions.pausers)
    bound = time.monotonic() + attempt.budget_seconds / 2
    while not wanted <= (armed := decision.read_acknowledged(sessions.control, attempt.epoch, "armed")):
        if time.monotonic() > bound:
            missing = ", ".join(sorted(wanted - armed))
            raise GateError(f"The dead man's switch on {missing} did not acknowledge: look at the unit pg-ha-dead-man there.")
        time.sleep(0.005)
    return deadline


def _fence(attempt: Attempt, sessions: Sessions, watch: Watch) -> None:
    """Lock every table against writers. The server itself ends the transaction when we fall silent."""
    idle_ms = round(attempt.silence_seconds * 1000)
    tables = ", ".join(name for _oid, name in watch.tables)
    statement = (
        f"BEGIN; SET LOCAL lock_timeout = {attempt.lock_timeout_ms:d}; SET LOCAL idle_in_transaction_session_timeout = {idle_ms:d}; "
        f"LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE"
    )
    for tries_left in (1, 0):
        try:
            client.query(sessions.fence, statement)
            if watch.large_objects is not None:
                sessions.large_objects.take(attempt)
            return
        except ClientError as error:
            client.query(sessions.fence, "ROLLBACK")
            if not tries_left or error.details.get("sqlstate") != guards.LOCK_NOT_AVAILABLE:
                raise
            cancel_autovacuum(sessions.control)


INSUFFICIENT_PRIVILEGE = "42501"
# How long a vacuum is waited for before clients are held.
GAP_SECONDS = 60.0
VACUUMED = """
    SELECT l.pid, format('%%I.%%I', n.nspname, c.relname) AS name FROM pg_locks l
    JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted
      AND (c.oid = ANY (%s::oid[]) OR c.relname IN ('pg_largeobject', 'pg_largeobject_metadata'))"""


def cancel_autovacuum(connection: Connection) -> int:
    """Cancel automatic vacuums of this database: PostgreSQL itself would do so for the fence only after deadlock_timeout, and never
    for one against wraparound. They start again by themselves. Returns how many were cancelled; who may not do it (no superuser, before 18) cancels none."""
    try:
        rows = client.query(
            connection,
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = current_database()",
        )
    except ClientError as error:
        if error.details.get("sqlstate") != INSUFFICIENT_PRIVILEGE:
            raise
        return 0
    return len(rows)


def await_gap(connection: Connection, watch: Watch, bound_seconds: float | None = None) -> None:
    """Nobody vacuums or analyzes a table that the fence will lock; who may not cancel it waits for its end, while nobody is held.

    :raises GateError: one goes on for too long; names table and session
    """
    bound = time.monotonic() + (GAP_SECONDS if bound_seconds is None else bound_seconds)
    while found := client.query(connection, VACUUMED, ([oid for oid, _name in watch.tables],)):
        cancel_autovacuum(connection)
        if time.monotonic() > bound:
            told = ", ".join(f"{row['name']} (session {row['pid']})" for row in found)
            raise GateError(f"The fence would wait for a vacuum or analyze that this administrator may not cancel, of {told}: wait for its end and run again.")
        time.sleep(0.1)


# How many late commands are told.
LATE_TOLD = 3


def last_look(attempt: Attempt, sessions: Sessions, watch: Watch) -> None:
    """The fence does not stop CREATE TABLE, and came after what was altered before it: a table or a column that came since would be left behind.

    What came after the gates nobody has looked at.

    :raises GateError: names what came, and who made it where that was recorded
    """
    mend = "Bring the schema in step, verify, and cut over again."
    if recorded := ddl_guard.read_recorded_since(sessions.control, watch.ddl):
        told = "; ".join(ddl_guard.sentence(row, attempt.leaves) for row in recorded[-LATE_TOLD:])
        raise GateError(f"The schema changed since the gates were read: {told}. {mend}")
    rows = guards.read_guarded_tables(sessions.control)
    strange = {(row["oid"], row["name"]) for row in rows} ^ set(watch.tables) | {(row["oid"], row["name"]) for row in rows if not row["guarded"]}
    if strange:
        names = ", ".join(sorted(name for _oid, name in strange))
        raise GateError(f"Tables changed since the gates were read: {names}. {mend}")


def _last_look_at_tables_and_link(attempt: Attempt, sessions: Sessions, watch: Watch) -> None:
    last_look(attempt, sessions, watch)
    look_at_link(attempt, sessions)


def look_at_link(attempt: Attempt, sessions: Sessions) -> None:
    """The link still carries every table. The marker travels over it alone, so it proves nothing of a table that was taken out.

    :raises GateError: names the tables that it does not carry, or says that it is not enabled
    """
    name = schema.link_towards(attempt.serves)
    carried = {row["name"] for row in client.query(sessions.ahead, CARRIED, (name,))}
    published = {row["name"] for row in client.query(sessions.control, PUBLISHED, (name,))}
    lost = sorted(set(guards.read_followed_tables(sessions.control)) - (published & carried))
    if lost:
        told = f"{', '.join(lost[:5])}{' and others' if lost[5:] else ''}"
        raise GateError(f"The link {name} is not enabled or does not carry {told} any more: run playbook replicate.yml, verify, and cut over again.")


PUBLISHED = """
    SELECT format('%%I.%%I', n.nspname, c.relname) AS name FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
    JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = %s"""

# What an enabled subscription applies: a table whose copy is not done is left out.
CARRIED = """
    SELECT format('%%I.%%I', n.nspname, c.relname) AS name FROM pg_subscription s JOIN pg_subscription_rel r ON r.srsubid = s.oid
    JOIN pg_class c ON c.oid = r.srrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE s.subname = %s AND s.subenabled AND r.srsubstate = 'r' AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"""


def _write_marker(attempt: Attempt, sessions: Sessions, marker: str) -> None:
    """A row of our own, committed: once it is seen on the next side, all that came before it was applied there."""
    table = schema.announcement_table(attempt.serves)
    client.query(sessions.control, f"INSERT INTO {table} (id, epoch) VALUES (%s, %s)", (marker, attempt.epoch))


def _await_marker(attempt: Attempt, sessions: Sessions, marker: str, deadline: float) -> None:
    table = schema.announcement_table(attempt.serves)
    while not client.query_value(sessions.ahead, f"SELECT EXISTS (SELECT FROM {table} WHERE id = %s)", (marker,)):
        if time.monotonic() > deadline - margin(attempt):
            raise GateError(f"The marker did not reach the {attempt.serves} in time: the link is behind or stands still.")
        time.sleep(0.0005)


def barrier(attempt: Attempt, ahead: Connection, timeline: int, state: str) -> str:
    """Our own synchronous commit on the next side: WAL is sequential, so it covers all that was applied before it.

    :returns: the position after it

    :raises GateError: a warning came (the wait for the standby was broken off), the timeline is another, or no synchronous standby is there
    """
    del ahead.notices[:]
    decision.acknowledge(ahead, MOVER, attempt.epoch, state)
    warnings = [" ".join(notice.split()) for notice in ahead.notices]
    now = read_durability(ahead)
    if warnings:
        raise GateError(f"The {attempt.serves} could not promise a synchronous commit: {warnings[0]}")
    if now["timeline"] != timeline:
        raise GateError(f"The {attempt.serves} changed its leader (timeline {now['timeline']}, compared at {timeline}): verify again, then cut over.")
    if attempt.needs_sync_standby and not now["sync_standbys"]:
        raise GateError(f"The {attempt.serves} has no synchronous standby: wait until its cluster is whole.")
    return str(now["lsn"])


def barrier_for_all(attempt: Attempt, sessions: Sessions, watch: Watch, deadline: float) -> str:
    """The barrier, and meanwhile the last look at every pooler's own way to the next side: decided for a side that a pooler does not reach, its clients
    would wait for the network.

    :returns: the position after it
    :raises GateError: as :func:`barrier`, or a pooler's dead man did not reach the next side in time
    """
    since = client.query_value(sessions.ahead, "SELECT clock_timestamp()::text")
    decision.call_keepers(sessions.control, attempt.epoch)
    lsn = barrier(attempt, sessions.ahead, watch.timeline, "barrier")
    # The fence ends by itself when we say nothing on its session for that long.
    bound = min(deadline - margin(attempt), time.monotonic() + 0.8 * attempt.silence_seconds)
    while missing := set(sessions.pausers) - decision.read_reaching(sessions.ahead, attempt.epoch, since):
        if time.monotonic() > bound:
            raise GateError(f"{', '.join(sorted(missing))} did not reach the {attempt.serves}: look at the network, and at the unit pg-ha-dead-man there.")
        time.sleep(0.001)
    return lsn


def read_durability(connection: Connection) -> dict[str, t.Any]:
    """``{"timeline", "lsn", "sync_standbys"}`` of a primary."""
    return client.query(
        connection,
        f"SELECT {TIMELINE} AS timeline, pg_current_wal_flush_lsn()::text AS lsn, "
        "(SELECT count(*)::int FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum') AND state = 'streaming') AS sync_standbys",
    )[0]


LARGE_OBJECTS = """
    SELECT count(*) AS pages, coalesce(sum(hashtextextended(loid::text || ' ' || pageno || ' ' || encode(data, 'hex'), 0)::numeric), 0) AS sum
    FROM pg_largeobject"""

# The same where one side shows nobody the pages.
LARGE_OBJECTS_BY_FUNCTIONS = f"""
    SELECT count(*) AS pages, coalesce(sum(hashtextextended(m.oid::text || ' ' || {large_objects.CONTENT}, 0)::numeric), 0) AS sum
    FROM pg_largeobject_metadata m"""

# Which row versions there are: whoever writes, removes or makes a large object changes them. Twenty times quicker than reading the content.
LARGE_OBJECTS_STATE = """
    SELECT (SELECT coalesce(sum(hashtextextended(ctid::text || ' ' || xmin::text, 0)::numeric), 0) FROM pg_largeobject) AS pages,
           (SELECT coalesce(sum(hashtextextended(ctid::text || ' ' || xmin::text, 0)::numeric), 0) FROM pg_largeobject_metadata) AS objects"""


def watch_large_objects(here: Connection, ahead: Connection) -> dict[str, t.Any]:
    """Compare the content of both sides' large objects, and return the state in which those of the side left were then.

    :raises GateError: they differ, or whoever writes them on the side left could not be kept from it
    """
    if not client.query_value(here, f"SELECT {large_objects.READABLE}"):
        raise GateError(LARGE_OBJECTS_UNWATCHED)
    content = LARGE_OBJECTS if client.query_value(ahead, f"SELECT {large_objects.READABLE}") else LARGE_OBJECTS_BY_FUNCTIONS
    # One statement, one snapshot: the state is that of the very content that is compared.
    row = client.query(
        here, f"SELECT content.pages, content.sum, state.pages AS state_pages, state.objects FROM ({content}) content, ({LARGE_OBJECTS_STATE}) state"
    )[0]
    if client.query(ahead, content)[0] != {"pages": row["pages"], "sum": row["sum"]}:
        raise GateError(LARGE_OBJECTS_DIFFER)
    return {"pages": row["state_pages"], "objects": row["objects"]}


LARGE_OBJECTS_UNWATCHED = (
    "There are large objects, and the administrator of the side that is left may not keep writers from them: unlink them on both sides (lo_unlink), "
    "or move their content into tables, and run this again."
)
LARGE_OBJECTS_DIFFER = "Large objects changed since the copy and are not replicated: stop their writers and replicate again, or use the method dump."


class Background:
    """One piece of work beside the steps, on a session of its own."""

    def __init__(self, work: t.Callable[[], dict[str, t.Any]]) -> None:
        self._outcome: dict[str, t.Any] | PgHaError | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: t.Callable[[], dict[str, t.Any]]) -> None:
        try:
            self._outcome = work()
        except PgHaError as error:
            self._outcome = error

    def result(self) -> dict[str, t.Any]:
        """Wait for its end (the server bounds the statement).

        :raises PgHaError: what the work raised, or that it ended without an outcome
        """
        self._thread.join()
        if isinstance(self._outcome, dict):
            return self._outcome
        raise self._outcome or ClientError("A piece of work beside the section ended without an outcome.")


def _compare_large_objects(here: dict[str, t.Any], watch: Watch) -> None:
    """Large objects are not replicated: they must be what the copy brought. The fence holds them while this side is read."""
    if here != watch.large_objects:
        raise GateError(LARGE_OBJECTS_DIFFER)


def margin(attempt: Attempt) -> float:
    """Seconds that must be left for the decision's commit."""
    return 0.2 * attempt.budget_seconds


def _decide(attempt: Attempt, sessions: Sessions, watch: Watch, deadline: float, ahead_lsn: str) -> None:
    """The guard's switch, its proof, the decision and its announcement: one transaction, one message, one commit.

    :raises ClientError: the transaction failed before its COMMIT was sent: nothing of it is there
    :raises UnknownState: no clean answer came to the COMMIT
    """
    if time.monotonic() > deadline - margin(attempt):
        raise GateError("Too little of the budget was left for the decision.")
    statements = [
        *_decision_statements(attempt, MOVER, ahead_lsn),
        guards.for_each_table(watch.undiverted, guards.proof()),
        guards.ALL_GUARDED,
        *sessions.large_objects.proof(),
        decision.announcement_statement(attempt.epoch, attempt.serves),
        f"SELECT pg_notify('{schema.CHANNEL}', 'decided {attempt.epoch}')",
    ]
    pid = sessions.fence.info.backend_pid
    canceller = threading.Timer(min(attempt.budget_seconds, max(0.0, deadline - time.monotonic())), _cancel, (sessions.canceller, pid))
    canceller.daemon = True
    del sessions.fence.notices[:]
    canceller.start()
    try:
        client.query(sessions.fence, "; ".join(statements))
        _commit(sessions.fence)
    finally:
        canceller.cancel()
    if sessions.fence.notices:
        raise UnknownState(f"The decision's commit came with a warning: {' '.join(sessions.fence.notices[0].split())}")


def _commit(fence: Connection) -> None:
    try:
        client.query(fence, "COMMIT")
    except ClientError as error:
        raise UnknownState(f"The decision's commit was not answered cleanly: {error.message}") from error


def _cancel(canceller: Connection, pid: int) -> None:
    """statement_timeout does not end a COMMIT that waits for a standby; a cancel from outside does."""
    client.query(canceller, "SELECT pg_cancel_backend(%s)", (pid,))


EXPLAIN_PROOF = "EXECUTE 'EXPLAIN DELETE FROM ' || name || ' WHERE false';"


def _settle(attempt: Attempt, sessions: Sessions, reconnect: t.Callable[[], Connection], committed: bool) -> str:
    """After a failure: end the fence and compete for the side that we leave; what stands then is the truth.

    :param committed: the decision's commit may have come to pass
    :raises UnknownState: the decision cannot be read; every dead man goes on asking, and so does a re-run
    """
    sessions.fence.close()
    try:
        return decide_again(attempt, reconnect(), sessions.ahead if committed else None, MOVER)
    except ClientError as error:
        raise UnknownState(
            f"It could not be read who serves (epoch {attempt.epoch}): {error.message} The poolers find out by themselves; run the same playbook again."
        ) from error


# How long a next side may take to say whether it has the announcement.
ANNOUNCED_SECONDS = 1.0


def decide_again(attempt: Attempt, here: Connection, ahead: Connection | None, by: str) -> str:
    """Compete for an attempt whose decision we do not know, and return what stands.

    The next side may have the announcement of a decision that the side left has forgotten: its leader died before a standby had it. It is open then,
    and the side left is closed once more.

    :param here: on the side that is left, synchronous_commit on
    :param ahead: on the next side; None where no announcement can be there
    :raises ClientError: the side that is left does not answer, or does not promise that it keeps what stands
    """
    if ahead is not None and decision.read_decision(here, attempt.epoch) is None and _has_announcement(attempt, ahead):
        # A dead man may have been quicker on that side: then its row stands, and nothing of this.
        with contextlib.suppress(ClientError):
            schema.with_transaction(here, _decision_statements(attempt, by, None))
    decided = decision.compete(here, attempt.epoch, attempt.leaves, by)
    decision.confirm(here, MOVER, attempt.epoch, "settled")
    client.query(here, f"SELECT pg_notify('{schema.CHANNEL}', 'decided {attempt.epoch}')")
    return decided


def _has_announcement(attempt: Attempt, ahead: Connection) -> bool:
    """A side that does not answer has told us nothing."""
    try:
        with client.bounded(ahead, ANNOUNCED_SECONDS):
            return decision.is_announced(ahead, attempt.epoch, attempt.serves)
    except ClientError:
        return False


def _decision_statements(attempt: Attempt, by: str, ahead_lsn: str | None) -> list[str]:
    """What closes the side that is left and says so; fails where the attempt is decided already (pure)."""
    position = "NULL" if ahead_lsn is None else literal(ahead_lsn)
    return [
        schema.guard_function(schema.GuardRefusing(attempt.epoch, attempt.serves)),
        ddl_guard.closing_statement(attempt.epoch, attempt.serves),
        *(f"ALTER ROLE {role} NOLOGIN" for role in attempt.roles),
        f"INSERT INTO {schema.SCHEMA}.decision (epoch, serves, decided_by, ahead_lsn) VALUES ({attempt.epoch}, '{attempt.serves}', {literal(by)}, {position})",
    ]


def wait_until_served(attempt: Attempt, sessions: Sessions, steps: Steps, bound_seconds: float, patience_seconds: float = 1.0) -> None:
    """The announcement arrives, is made durable, and every pooler shows the next side unpaused.

    :param patience_seconds: how long a link may take to bring the announcement before it is written on the next side; 0 where there is no link
    :raises UnknownState: a pooler did not come over within the bound (its dead man goes on by itself)
    """
    steps.run("announce", lambda: _await_announcement(attempt, sessions, patience_seconds))
    steps.run("flip", lambda: _await_poolers(attempt, sessions, bound_seconds))


def _await_announcement(attempt: Attempt, sessions: Sessions, patience_seconds: float) -> None:
    bound = time.monotonic() + patience_seconds
    while not decision.is_announced(sessions.ahead, attempt.epoch, attempt.serves):
        if time.monotonic() > bound:
            decision.announce(sessions.ahead, attempt.epoch, attempt.serves)
        time.sleep(0.0005)
    decision.acknowledge(sessions.ahead, MOVER, attempt.epoch, "opened")


def _await_poolers(attempt: Attempt, sessions: Sessions, bound_seconds: float) -> None:
    bound = time.monotonic() + bound_seconds
    while late := _behind_after_decision(sessions, attempt):
        if time.monotonic() > bound:
            raise UnknownState(
                f"Decided for the {attempt.serves}, but {', '.join(late)} did not come over within {bound_seconds:g} s: look at pg-ha-dead-man there."
            )
        # The pooler itself answers, while it opens the connections that clients wait for.
        time.sleep(0.01)


def _behind_after_decision(sessions: Sessions, attempt: Attempt) -> list[str]:
    try:
        return behind(sessions.lookers, attempt)
    except ClientError as error:
        raise UnknownState(f"Decided for the {attempt.serves}, where its dead man takes each pooler, but one cannot be seen: {error.message}") from error


def behind(consoles: dict[str, Connection], attempt: Attempt) -> list[str]:
    """Names of the poolers that do not show the next side's endpoint, unpaused.

    :raises ClientError: one does not answer; names it
    """
    found = []
    for name, console in sorted(consoles.items()):
        try:
            if not is_served(console, attempt):
                found.append(name)
        except ClientError as error:
            raise ClientError(f"{name}: {error.message}") from error
    return found


def is_served(console: Connection, attempt: Attempt) -> bool:
    """Whether a pooler shows the next side's endpoint, unpaused."""
    rows = [row for row in client.query_console(console, "SHOW DATABASES") if row["name"] == attempt.database]
    return bool(rows) and (rows[0]["host"], int(rows[0]["port"])) == attempt.endpoint and not rows[0]["paused"]
