# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Looks at every layer of the route, again and again, while something is broken: a session per place, each kept by a thread of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import typing as t

try:
    import psycopg2
except ImportError:  # the module has said so before it gets here
    pass

from .._postgresql.timeline import TIMELINE
from .model import FAILED, NAME, REFUSED, TAKEN, Look, Place

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

LOOK_SECONDS = 0.05
# Whoever lets nobody in is not hammered: clients wait for it, too.
NO_SESSION_SECONDS = 0.1
CONNECT_TIMEOUT_SECONDS = 2
# A network that is cut says nothing; this long a session waits for it.
TCP_USER_TIMEOUT_MS = 2000
READ_ONLY = "25006"
# A row that is committed when the answer comes: a server that lets writers in and cannot make their rows durable takes none.
WRITE = f"INSERT INTO {{table}} (run, client, seq) VALUES ('{{run}}', {{client}}, {{seq}}); SELECT {TIMELINE}"
READ = "SELECT NULL"


class Looker:
    """Keeps a session to one place.

    :param place: where; its service is found in the file that PGSERVICEFILE names
    :param number: which one of the run's it is
    :param run: plain name under which its rows stand
    :param table: one of ours with columns run, client and seq, that the session's role may write
    """

    def __init__(self, place: Place, number: int, run: str, table: str) -> None:
        self._place = place
        self._row = {"table": table, "run": run, "client": number}
        self._tries = 0
        self._session: Connection | None = None

    def look(self) -> Look:
        """One try, which also opens a session where there is none."""
        begin = time.monotonic_ns()
        self._tries += 1
        answer, timeline = FAILED, None
        try:
            if self._session is None:
                self._session = self._open()
            with self._session.cursor() as cursor:
                cursor.execute(WRITE.format(**self._row, seq=self._tries) if self._place.writes else READ)
                timeline = (cursor.fetchone() or (None,))[0]
            # A wait for the standby that was broken off is told as a warning.
            answer = FAILED if self._session.notices else TAKEN
            del self._session.notices[:]
        except psycopg2.Error as error:
            if error.pgcode == READ_ONLY:
                answer = REFUSED
            else:
                self.close()
        return Look(self._place.layer, self._place.name, begin, time.monotonic_ns(), answer, timeline)

    def close(self) -> None:
        """End the session."""
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(psycopg2.Error):
                session.close()

    def _open(self) -> Connection:
        # Nothing is set in the session: behind a transaction pooler it would reach others.
        parameters: dict[str, t.Any] = {
            "service": self._place.service,
            "application_name": "ha_migration layers",
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "tcp_user_timeout": TCP_USER_TIMEOUT_MS,
            "target_session_attrs": "any",
            **self._place.parameters,
        }
        session = psycopg2.connect(**parameters)
        session.autocommit = True
        return session


class Resolver:
    """Asks where a name leads, as whoever connects to it does: by this host's own resolver, with what that keeps.

    :param host: name of an endpoint
    """

    def __init__(self, host: str) -> None:
        self._host = host

    def look(self) -> Look:
        """One question."""
        begin = time.monotonic_ns()
        try:
            found = {str(entry[4][0]) for entry in socket.getaddrinfo(self._host, None, type=socket.SOCK_STREAM)}
            answer = TAKEN
        except OSError:
            found, answer = set(), FAILED
        return Look(NAME, " ".join(sorted(found)), begin, time.monotonic_ns(), answer)

    def close(self) -> None:
        """Nothing is open."""


class Watch:
    """Looks at all places until it is left.

    :param record: where every look is written to, a line each
    """

    def __init__(self, lookers: t.Sequence[Looker | Resolver], record: t.TextIO) -> None:
        self._record = record
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._keep, args=(looker,), daemon=True) for looker in lookers]

    def __enter__(self) -> t.Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._stop.set()
        # One that waits for a server that stands still is left behind, and writes no more.
        for thread in self._threads:
            thread.join(CONNECT_TIMEOUT_SECONDS)

    def _keep(self, looker: Looker | Resolver) -> None:
        while not self._stop.is_set():
            look = looker.look()
            with self._lock:
                if self._stop.is_set():
                    break
                self._record.write(look.line())
                self._record.flush()
            self._stop.wait(NO_SESSION_SECONDS if look.answer == FAILED else LOOK_SECONDS)
        looker.close()
