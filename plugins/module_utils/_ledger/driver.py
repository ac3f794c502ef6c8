# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The clients: paced writes, a record of every attempt, and what a sane driver does about errors.

Each client has its own schedule (open loop): what was held up is written afterwards, so a stall costs latency and not load.
"""

from __future__ import annotations

import os
import random
import threading
import time
import typing as t

try:
    import psycopg2

    HAS_PSYCOPG2 = True
except ImportError:
    HAS_PSYCOPG2 = False

from .._core.errors import ClientError, UsageError
from .model import CONNECTION_LOST, NO_CONNECTION, NOT_COMMITTED, PROBE_TABLE, RETRY_CLASSES, UNEXPECTED_ANSWER, Header, Kind
from .record import ClientWriter, RunFolder, Syncer

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# Answers to the statement that commits which mean that it has not committed. Whatever is not here leaves the outcome unknown:
# the server may have committed and been stopped while it waited for its standby.
_REFUSALS = ("22", "23", "25", "40", "42", "55", "57014", "P0")
_COMPLETION_UNKNOWN = "40003"
# What an application's driver tries again; everything else is shown to its user.
_TRANSIENT = (NO_CONNECTION, CONNECTION_LOST, NOT_COMMITTED, "08", "25006", "40", "53", "57P", "58")
UNIQUE_VIOLATION = "23505"
READ_ONLY = "25006"

_BACKOFF_SECONDS = (0.02, 0.5)
_LATEST_START_SECONDS = 1.0


class Workload(t.Protocol):
    """What a write is. Pure: text follows from (client, seq)."""

    @property
    def commit_answer(self) -> str:
        """The server's answer to the last step that means committed."""

    def steps(self, client: int, seq: int) -> tuple[str, ...]:
        """Messages to the server; the last one commits."""

    def look(self, client: int, seq: int) -> str:
        """A query whose one row says how often the write is there, and whether the server that answers follows another one."""


class ProbeWorkload:
    """One row of its table per write: safe in production, needs INSERT, SELECT and DELETE on that table only.

    :param run: the run's name; must be plain (checked by the module)
    :param table: one of ours with columns run, client and seq
    """

    commit_answer = "INSERT 0 1"

    def __init__(self, run: str, table: str = PROBE_TABLE) -> None:
        self._run = run
        self._table = table

    def steps(self, client: int, seq: int) -> tuple[str, ...]:
        """One statement that commits itself."""
        return (f"INSERT INTO {self._table} (run, client, seq) VALUES ('{self._run}', {client}, {seq})",)

    def look(self, client: int, seq: int) -> str:
        """By the primary key."""
        return f"SELECT count(*), pg_is_in_recovery() FROM {self._table} WHERE run = '{self._run}' AND client = {client} AND seq = {seq}"

    def rows(self) -> str:
        """Every row of the run."""
        return f"SELECT client, seq FROM {self._table} WHERE run = '{self._run}'"

    def count(self) -> str:
        """How many rows the run has."""
        return f"SELECT count(*) FROM {self._table} WHERE run = '{self._run}'"

    def extent(self) -> str:
        """Clients of the run and the last row of each."""
        return f"SELECT client, max(seq) FROM {self._table} WHERE run = '{self._run}' GROUP BY client"

    def deletion(self, client: int, first: int, last: int) -> str:
        """Deletes some rows of a client."""
        return f"DELETE FROM {self._table} WHERE run = '{self._run}' AND client = {client} AND seq BETWEEN {first} AND {last}"


def connector(application_name: str, *, service: str | None = None, dsn: str | None = None, connect_timeout_seconds: int = 5) -> t.Callable[[], Connection]:
    """Opens sessions as an application does: nothing is set in the session, for behind a transaction pooler it would reach others.

    :param service: name in the file that PGSERVICEFILE names, or
    :param dsn: a whole connection string
    """
    parameters: dict[str, t.Any] = {"dsn": dsn} if dsn is not None else {"service": service}

    def connect() -> Connection:
        connection = psycopg2.connect(
            **parameters,
            application_name=application_name,
            connect_timeout=connect_timeout_seconds,
            keepalives_idle=3,
            keepalives_interval=2,
            keepalives_count=3,
            tcp_user_timeout=10000,
        )
        connection.autocommit = True
        return connection

    return connect


def use_service_file(path: str) -> None:
    """libpq reads the file's name from the environment only (before version 18)."""
    os.environ["PGSERVICEFILE"] = path


def fetch(connect: t.Callable[[], Connection], *statements: str) -> list[list[tuple[t.Any, ...]]]:
    """The rows of each statement, all in one snapshot.

    :raises ClientError: no connection, or the server refuses
    """
    try:
        connection = connect()
    except psycopg2.Error as error:
        raise ClientError(f"Cannot connect to the pooler to read the rows: {_words(error)}") from error
    try:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            found = []
            for statement in statements:
                cursor.execute(statement)
                found.append(cursor.fetchall())
            cursor.execute("COMMIT")
            return found
    except psycopg2.Error as error:
        raise ClientError(f"Cannot read the rows: {_words(error)}") from error
    finally:
        connection.close()


def delete(connect: t.Callable[[], Connection], workload: ProbeWorkload, rows_at_once: int = 10000) -> None:
    """Delete the rows of a run, some at a time, so that nobody waits for one long transaction.

    :raises ClientError: no connection, or the server refuses
    """
    extents = fetch(connect, workload.extent())[0]
    try:
        connection = connect()
        try:
            with connection.cursor() as cursor:
                for client, last in extents:
                    for first in range(0, last + 1, rows_at_once):
                        cursor.execute(workload.deletion(client, first, first + rows_at_once - 1))
        finally:
            connection.close()
    except psycopg2.Error as error:
        raise ClientError(f"Cannot delete the probe's rows: {_words(error)}") from error


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())


def classify(error: BaseException, connection_closed: bool) -> str:
    """SQLSTATE, or that the connection was lost."""
    code = getattr(error, "pgcode", None)
    if code:
        return str(code)
    return CONNECTION_LOST if connection_closed else "none"


def is_refusal(error_class: str) -> bool:
    """Whether this answer to a commit says that nothing was committed."""
    return error_class == NOT_COMMITTED or (error_class != _COMPLETION_UNKNOWN and error_class.startswith(_REFUSALS))


class Client:
    """One client: writes in its own order, number after number.

    :param should_stop: asked between two writes and between two attempts
    :param give_up_seconds: how long a write is tried before it is shown to the user
    :param grace_seconds: how long a write that is under way may still take after the stop
    """

    def __init__(
        self,
        writer: ClientWriter,
        workload: Workload,
        connect: t.Callable[[], Connection],
        should_stop: t.Callable[[], bool],
        *,
        first_seq: int = 0,
        interval_seconds: float = 0.02,
        offset_seconds: float = 0.0,
        give_up_seconds: float = 30.0,
        grace_seconds: float = 5.0,
    ) -> None:
        self._writer = writer
        self._workload = workload
        self._connect = connect
        self._should_stop = should_stop
        self._first_seq = first_seq
        self._interval = interval_seconds
        self._offset = offset_seconds
        self._give_up = give_up_seconds
        self._grace = grace_seconds
        self._connection: Connection | None = None
        self._cursor: t.Any = None

    def run(self) -> None:
        """Write until told to stop, then say so in the record."""
        due = time.monotonic() + self._offset
        seq = 0
        try:
            while self._wait_until(due):
                self._write(seq)
                seq += 1
                # What is very late is dropped from the schedule: after an outage of a minute nobody wants a minute's load at once.
                due = max(due + self._interval, time.monotonic() - _LATEST_START_SECONDS)
        finally:
            self._close()
        self._writer.write(Kind.END, 0, 0)

    def _wait_until(self, due: float) -> bool:
        """Sleep until then; False when told to stop."""
        while not self._should_stop():
            left = due - time.monotonic()
            if left <= 0:
                return True
            time.sleep(min(left, 0.1))
        return False

    def _write(self, seq: int) -> None:
        """One write, with as many attempts as a driver makes."""
        attempt, unknown, backoff = 0, False, _BACKOFF_SECONDS[0]
        deadline = time.monotonic() + self._give_up
        while True:
            attempt += 1
            self._writer.write(Kind.INTENT, seq, attempt)
            error_class, unknown = self._attempt(seq, attempt, unknown)
            if error_class is None:
                return
            now = time.monotonic()
            if self._should_stop():
                deadline = min(deadline, now + self._grace)
            if now >= deadline or not (unknown or error_class.startswith(_TRANSIENT)):
                self._writer.write(Kind.SURFACED, seq, attempt, error_class)
                return
            time.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(backoff * 2, _BACKOFF_SECONDS[1])

    def _attempt(self, seq: int, attempt: int, unknown: bool) -> tuple[str | None, bool]:
        """One attempt and its outcome in the record.

        :param unknown: an earlier attempt of this write may have been committed
        :returns: (None, False) when it is committed, else (class of the error, whether the outcome of the write is unknown)
        """
        stage, last_step_sent = "connect", False
        try:
            if self._connection is None:
                self._connection = self._connect()
                self._cursor = self._connection.cursor()
            if unknown:
                stage = "look"
                self._cursor.execute(self._workload.look(self._writer.client, seq + self._first_seq))
                found, follows = self._cursor.fetchone()
                # A leader that was cut off comes back as a standby with commits that nobody else has, and the route may lead to it for a moment.
                if follows:
                    return self._failed(seq, attempt, stage, READ_ONLY, "a server that does not lead has answered", True)
                if found:
                    self._writer.write(Kind.FOUND, seq, attempt)
                    return None, False
                self._writer.write(Kind.ABSENT, seq, attempt)
                unknown = False
            stage = "write"
            *before, last = self._workload.steps(self._writer.client, seq + self._first_seq)
            for step in before:
                self._cursor.execute(step)
                if self._cursor.description is not None and self._cursor.fetchone() is None:
                    return self._failed(seq, attempt, stage, UNEXPECTED_ANSWER, "the read returned no row", unknown)
            stage, last_step_sent = "commit", True
            self._cursor.execute(last)
            answer = self._cursor.statusmessage
        except psycopg2.Error as error:
            closed = self._connection is None or bool(self._connection.closed)
            error_class = NO_CONNECTION if stage == "connect" else classify(error, closed)
            if last_step_sent and not is_refusal(error_class):
                return self._failed(seq, attempt, stage, error_class, _words(error), True, Kind.UNKNOWN)
            # Somebody of our own was there first: an earlier attempt that was still committing when we looked.
            return self._failed(seq, attempt, stage, error_class, _words(error), unknown or (attempt > 1 and error_class == UNIQUE_VIOLATION))
        if answer == self._workload.commit_answer:
            self._writer.write(Kind.ACK, seq, attempt)
            return None, False
        if answer == "ROLLBACK":
            return self._failed(seq, attempt, stage, NOT_COMMITTED, "COMMIT was answered with ROLLBACK", False)
        return self._failed(seq, attempt, stage, UNEXPECTED_ANSWER, f"answer {answer!r}", True, Kind.UNKNOWN)

    def _failed(self, seq: int, attempt: int, stage: str, error_class: str, message: str, unknown: bool, kind: Kind = Kind.FAIL) -> tuple[str, bool]:
        """Write the outcome down, keep its words, and leave the connection usable or closed."""
        is_error = error_class not in RETRY_CLASSES and not (attempt > 1 and error_class == UNIQUE_VIOLATION)
        self._writer.write(kind, seq, attempt, error_class, is_error=is_error)
        self._writer.explain(seq + self._first_seq, stage, error_class, message)
        if stage != "connect":
            self._reset()
        return error_class, unknown

    def _reset(self) -> None:
        """End what is open in the session; a session that cannot even do that is closed."""
        if self._connection is not None and not self._connection.closed:
            try:
                self._cursor.execute("ROLLBACK")
                return
            except psycopg2.Error:
                pass
        self._close()

    def _close(self) -> None:
        connection, self._connection, self._cursor = self._connection, None, None
        if connection is not None:
            try:
                connection.close()
            except psycopg2.Error:
                pass


def new_header(run: str, workload: str, clients: int, rate: float, first_seq: int = 0, table: str = PROBE_TABLE) -> Header:
    """A header that begins now."""
    return Header(run, workload, clients, rate, first_seq, time.monotonic_ns(), time.time_ns(), table)


def drive(
    folder: RunFolder,
    workload: Workload,
    connect: t.Callable[[], Connection],
    should_stop: t.Callable[[], bool],
    *,
    clients: t.Sequence[int] | None = None,
    poll_seconds: float = 0.2,
    grace_seconds: float = 5.0,
    give_up_seconds: float = 30.0,
) -> bool:
    """Run clients in threads of this process until ``should_stop`` (asked every ``poll_seconds``) says so.

    :param clients: numbers of the clients that this process runs; None is all of them
    :returns: whether all ended in good order
    :raises UsageError: a client's record exists already
    """
    header = folder.read_header()
    numbers = range(header.clients) if clients is None else clients
    interval = header.clients / header.rate
    try:
        writers = [folder.writer(number) for number in numbers]
    except FileExistsError as error:
        raise UsageError(f"{error.filename} exists: a run is recorded once only; choose another name.") from None
    stop = threading.Event()
    threads = [
        threading.Thread(
            target=Client(
                writer,
                workload,
                connect,
                stop.is_set,
                first_seq=header.first_seq,
                interval_seconds=interval,
                offset_seconds=interval * writer.client / header.clients,
                grace_seconds=grace_seconds,
                give_up_seconds=give_up_seconds,
            ).run,
            name=f"client-{writer.client}",
            daemon=True,
        )
        for writer in writers
    ]
    with Syncer(writers):
        for thread in threads:
            thread.start()
        while not should_stop() and any(thread.is_alive() for thread in threads):
            time.sleep(poll_seconds)
        ended_early = not all(thread.is_alive() for thread in threads)
        stop.set()
        deadline = time.monotonic() + 2 * grace_seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not ended_early and not any(thread.is_alive() for thread in threads)
