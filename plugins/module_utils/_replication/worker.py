# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What one worker of the copy does: a table, a table's indexes, the large objects, statistics."""

from __future__ import annotations

import contextlib
import io
import typing as t

try:
    import psycopg2
except ImportError:  # the module has said so before it gets here
    pass

from .._core.errors import ClientError
from .._postgresql import client
from . import copy_client, resume
from .copy_plan import copy_statements
from .model import InTheWay, Settings, Table
from .pool import Job, Stream
from .programs import Programs

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# Tables below this size pass through memory: a process for each would cost more than its rows.
SMALL_BYTES = 8 * 1024 * 1024
_READ_BYTES = 256 * 1024


class Worker:
    """Sessions of one worker process, opened when they are first needed.

    :param snapshot: what all workers see of the source; None once the rows are there
    :param encoding: the source's; both ends of a COPY speak it
    :param again: each table is seen as it is when it comes back into the publication (module ``resume``), and the snapshot is for large objects only
    """

    def __init__(
        self, settings: Settings, programs: Programs, snapshot: str | None, encoding: str, archives: dict[str, str], own_schema: str, again: bool = False
    ) -> None:
        self.settings = settings
        self.programs = programs
        self.snapshot = snapshot
        self.encoding = encoding
        self.again = again
        self.archives = archives
        self.own_schema = own_schema
        self._source: Connection | None = None
        self._target: Connection | None = None

    def run(self, job: Job) -> dict[str, t.Any]:
        """Do one job."""
        if job.kind == "table":
            table, form = job.work
            return self._copy(table, form)
        if job.kind == "restore":
            self.programs.restore(self.archives["schema"], job.work, job.what)
            return {}
        if job.kind == "large_objects":
            self._large_objects(job.what)
            return {}
        if job.kind == "statement":
            client.query(self._open_target(), job.work)
            return {}
        raise ClientError(f"unknown work {job.kind}")

    def _copy(self, table: Table, form: str) -> dict[str, t.Any]:
        """Stream one table; rows that left and rows that arrived must be as many."""
        target = self._open_target()
        found = resume.read_in_the_way(target, table) if self.again else InTheWay()
        out, empty, into = copy_statements(table, form, found.referenced)
        client.query(target, "; ".join(("BEGIN", *found.silence, empty)))
        if table.bytes < SMALL_BYTES:
            buffer = io.BytesIO()
            sent = _copy_out(self._see(table, self._open_source()), out, buffer)
            buffer.seek(0)
            arrived = _copy_in(target, into, buffer)
        else:
            stream = Stream(lambda file: _copy_out(self._see(table, self._new_source()), out, file))
            try:
                arrived = _copy_in(target, into, stream)
                sent = stream.rows if stream.rows is not None else -1
            except ClientError as error:
                raise stream.error or error from error
            finally:
                stream.close()
        if sent != arrived:
            raise ClientError(f"{sent} rows left the source and {arrived} arrived")
        client.query(target, "; ".join((*found.restore, "COMMIT")))
        return {"rows": arrived, "format": form}

    def _large_objects(self, what: str) -> None:
        """Content, owners, privileges and comments of all large objects."""
        file = self.archives["large_objects"]
        self.programs.dump_large_objects(file, t.cast(str, self.snapshot), self.own_schema)
        entries = [entry for entry in self.programs.list_entries(file) if entry.is_large_object]
        self.programs.restore(file, entries, what)

    def _see(self, table: Table, reader: Connection) -> Connection:
        """The session on the source, where it sees what has to be copied of this table."""
        if self.again:
            with contextlib.closing(self._connect(self.settings.source, resume.PUBLISHER_SETTINGS)) as publisher:
                resume.publish_at(publisher, reader, table, self.settings.slot_timeout_seconds)
        return reader

    def _new_source(self) -> Connection:
        connection = self._connect(self.settings.source, {"client_encoding": self.encoding})
        if self.snapshot is not None and not self.again:
            copy_client.use_snapshot(connection, self.snapshot)
        return connection

    def _open_source(self) -> Connection:
        if self._source is None:
            self._source = self._new_source()
        return self._source

    def _open_target(self) -> Connection:
        """replica: neither triggers nor our guards act on rows that come from the source."""
        if self._target is None:
            session = {"client_encoding": self.encoding, "session_replication_role": "replica", "synchronous_commit": "off"}
            self._target = self._connect(self.settings.target, session)
        return self._target

    def _connect(self, service: str, session: dict[str, str]) -> Connection:
        return client.connect(
            self.settings.service_file,
            service,
            application_name=copy_client.WORKER_NAME,
            connect_timeout_seconds=self.settings.connect_timeout_seconds,
            settings=session,
        )


def _copy_out(connection: Connection, statement: str, file: t.Any) -> int:
    """COPY ... TO STDOUT into a file; returns the number of rows."""
    try:
        with connection.cursor() as cursor:
            cursor.copy_expert(statement, file)
            return int(cursor.rowcount)
    except psycopg2.Error as error:
        raise ClientError(f"reading from the source failed: {error.diag.message_primary or client.explain(error)}", **client.lost(connection)) from error


def _copy_in(connection: Connection, statement: str, file: t.Any) -> int:
    """COPY ... FROM STDIN; the server's context is left out of errors, since it shows a row."""
    try:
        with connection.cursor() as cursor:
            cursor.copy_expert(statement, file, _READ_BYTES)
            return int(cursor.rowcount)
    except psycopg2.Error as error:
        raise ClientError(f"writing to the target failed: {error.diag.message_primary or type(error).__name__}", **client.lost(connection)) from error
