# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is let in on which side, and when: sessions past the pooler that try a write on both sides all along.

    python3 -m load.witness FILE      runs until it is ended by SIGTERM, and writes a line of JSON for every try

Each session belongs to a role that logs in and is of a kind: ``plain``, ``prepared`` (the statement was prepared when the session began) or
``repeatable read`` (its snapshot is a second old when it writes). Some roles (application, owner, grantee of PUBLIC, superuser) have a session of
every kind, the others a plain one. The write inserts no row. A line holds ``side``, ``role``, ``kind``, ``answer`` (accepted, refused, no session,
ended, or another SQLSTATE) and the moments ``begin`` and ``end`` (seconds since 1970). That nothing is accepted on the source after something was
accepted on the target is the promise of one writer.
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
SIDES = ("source", "target")
ROLES = ("freight_app", "freight_owner", "freight_guest", "ha_admin")
KINDS = ("plain", "prepared", "repeatable read")
SESSIONS = (*((role, kind) for role in ROLES for kind in KINDS), *((role, "plain") for role in ("freight_admin", "freight_batch", "freight_reader")))
# Every role may insert here, one of them through a grant to PUBLIC.
WRITE = "INSERT INTO app.settings SELECT * FROM app.settings LIMIT 0"
EVERY_SECONDS = 0.5
SNAPSHOT_AGE_SECONDS = 1.0
REFUSED = "25006"


class Session:
    """One session that tries again and again, and is opened again when it ended."""

    def __init__(self, side: str, role: str, kind: str) -> None:
        self.side, self.role, self.kind = side, role, kind
        self._connection: t.Any = None

    def attempt(self) -> dict[str, t.Any]:
        """One try, as a line of the record."""
        begin = time.time()
        try:
            answer, begin = self._write()
        except psycopg2.Error as error:
            if self._connection is None:
                answer = "no session"
            elif self._connection.closed or error.pgcode is None:
                answer, self._connection = "ended", None
            else:
                answer = "refused" if error.pgcode == REFUSED else error.pgcode
                with self._connection.cursor() as cursor:
                    cursor.execute("ROLLBACK")
        return {"side": self.side, "role": self.role, "kind": self.kind, "answer": answer, "begin": begin, "end": time.time()}

    def _write(self) -> tuple[str, float]:
        if self._connection is None:
            self._connection = self._open()
        with self._connection.cursor() as cursor:
            if self.kind == "repeatable read":
                cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                cursor.execute("SELECT count(*) FROM app.settings")
                time.sleep(SNAPSHOT_AGE_SECONDS)
            begin = time.time()
            cursor.execute("EXECUTE try" if self.kind == "prepared" else WRITE)
            if self.kind == "repeatable read":
                cursor.execute("COMMIT")
        return "accepted", begin

    def _open(self) -> t.Any:
        # A proxy keeps a connection whose server has died while it was made: without a bound of its own a session would wait for ever.
        connection = psycopg2.connect(
            service=self.side,
            user=self.role,
            application_name="freight_witness",
            # One of them is kept from writing by nothing but a setting of its own.
            options="-c statement_timeout=15000 -c default_transaction_read_only=off",
            connect_timeout=5,
        )
        connection.autocommit = True
        if self.kind == "prepared":
            with connection.cursor() as cursor:
                cursor.execute(f"PREPARE try AS {WRITE}")
        return connection


def keep(session: Session, record: t.TextIO, lock: threading.Lock) -> None:
    """Try for ever."""
    while True:
        line = json.dumps(session.attempt())
        with lock:
            record.write(line + "\n")
            record.flush()
        time.sleep(EVERY_SECONDS)


def judge(lines: t.Iterable[dict[str, t.Any]]) -> dict[str, t.Any]:
    """What the record shows.

    :returns: ``one_writer`` (nothing was accepted on the source after something had been on the target), and for each side, role and kind the
        answers in the order in which they came, repetitions left out
    """
    accepted: dict[str, list[dict[str, t.Any]]] = {side: [] for side in SIDES}
    answers: dict[str, list[str]] = {}
    for line in sorted(lines, key=lambda line: line["begin"]):
        if line["answer"] == "accepted":
            accepted[line["side"]].append(line)
        seen = answers.setdefault(f"{line['side']} {line['role']} {line['kind']}", [])
        if not seen or seen[-1] != line["answer"]:
            seen.append(line["answer"])
    both = all(accepted.values())
    overlap = both and max(line["begin"] for line in accepted["source"]) > min(line["end"] for line in accepted["target"])
    return {"one_writer": both and not overlap, "tries": {side: len(lines) for side, lines in accepted.items()}, "answers": answers}


def main() -> int:
    """Keep all sessions until the process is ended."""
    os.environ["PGSERVICEFILE"] = SERVICE_FILE
    lock = threading.Lock()
    with pathlib.Path(sys.argv[1]).open("w", encoding="utf-8") as record:
        threads = [threading.Thread(target=keep, args=(Session(side, role, kind), record, lock), daemon=True) for side in SIDES for role, kind in SESSIONS]
        for thread in threads:
            thread.start()
            time.sleep(EVERY_SECONDS / len(threads))
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    sys.exit(main())
