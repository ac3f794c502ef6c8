"""Which servers let an application write, and when: one session per server, past pooler and HAProxy, that tries a write without rows all along.

    python3 prober.py FILE      until it is ended by SIGTERM; a line of JSON for every try

Runs on a machine of the lab that no case touches. A line holds ``server``, ``answer`` (accepted, refused, no session, ended, or another SQLSTATE) and the
moments ``begin`` and ``end`` in seconds since 1970. Those of an accepted write are the server's own: one before the guard was passed, one after it.
All machines of the lab share one clock.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import threading
import time
import typing as t

import psycopg2

SERVICE_FILE = "/etc/freight_load/pg_service.conf"
# server: its service. A member of the target is asked by its own name, whoever leads.
SERVERS = {"source": "source", "pg1": "target", "pg2": "target", "pg3": "target"}
ROLE = "freight_app"
WRITE = """DO $$
    DECLARE began timestamptz := clock_timestamp();
    BEGIN
        INSERT INTO app.settings SELECT * FROM app.settings LIMIT 0;
        RAISE NOTICE '% %', extract(epoch FROM began), extract(epoch FROM clock_timestamp());
    END $$"""
EVERY_SECONDS = 0.05
# A server that lets nobody in is not hammered: the clients wait for it, too.
NO_SESSION_SECONDS = 0.25
REFUSED = "25006"


class Session:
    """One session that tries again and again, and is opened again when it ended."""

    def __init__(self, server: str) -> None:
        self.server = server
        self._connection: t.Any = None

    def attempt(self) -> dict[str, t.Any]:
        """One try, as a line of the record."""
        begin = time.time()
        try:
            begin, end = self._write()
            answer = "accepted"
        except psycopg2.Error as error:
            end = time.time()
            if self._connection is None:
                answer = "no session"
            elif self._connection.closed or error.pgcode is None:
                answer, self._connection = "ended", None
            else:
                answer = "refused" if error.pgcode == REFUSED else error.pgcode
        return {"server": self.server, "answer": answer, "begin": begin, "end": end}

    def _write(self) -> tuple[float, float]:
        if self._connection is None:
            self._connection = self._open()
        del self._connection.notices[:]
        with self._connection.cursor() as cursor:
            cursor.execute(WRITE)
        began, ended = self._connection.notices[-1].split()[-2:]
        return float(began), float(ended)

    def _open(self) -> t.Any:
        connection = psycopg2.connect(
            service=SERVERS[self.server],
            host=self.server,
            user=ROLE,
            target_session_attrs="any",
            connect_timeout=2,
            tcp_user_timeout=2000,
            application_name="freight_prober",
            options="-c statement_timeout=15000 -c client_min_messages=notice",
        )
        connection.autocommit = True
        return connection


def keep(session: Session, record: t.TextIO, lock: threading.Lock) -> None:
    """Try for ever."""
    while True:
        line = session.attempt()
        with lock:
            record.write(json.dumps(line) + "\n")
            record.flush()
        time.sleep(NO_SESSION_SECONDS if line["answer"] == "no session" else EVERY_SECONDS)


def main() -> None:
    """Keep all sessions until the process is ended."""
    os.environ["PGSERVICEFILE"] = SERVICE_FILE
    lock = threading.Lock()
    with pathlib.Path(sys.argv[1]).open("w", encoding="utf-8") as record:
        for server in SERVERS:
            threading.Thread(target=keep, args=(Session(server), record, lock), daemon=True).start()
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
