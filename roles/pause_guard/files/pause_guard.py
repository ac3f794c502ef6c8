# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard of a pause, beside a pooler: whoever pauses it for a switchover may die, and PgBouncer then holds its clients for ever.

    pause_guard.py CONFIG [--once]

It stands while a switchover is under way and looks at its pooler ten times a second. A pause that has lasted for the budget is ended. With ``--once`` it
ends one that there is and goes: what systemd runs when the guard itself has ended. CONFIG is a JSON file: ``database``, ``budget_seconds``,
``socket_directory``, ``port``. It logs in over the Unix socket as the user that PgBouncer runs as, whom PgBouncer knows as ``pgbouncer`` without a password
(https://www.pgbouncer.org/usage.html, admin console).
"""

from __future__ import annotations

import functools
import json
import pathlib
import sys
import time
import typing as t

import psycopg2

APPLICATION_NAME = "ha_migration pause guard"
LOOK_SECONDS = 0.1


def quoted(name: str) -> str:
    """A name as the console reads it."""
    return '"' + name.replace('"', '""') + '"'


class Guard:
    """Ends a pause that lasts too long.

    :param open_console: opens a session of PgBouncer's console
    :param database: whose pause is guarded
    :param budget_seconds: how long it may last
    """

    def __init__(self, open_console: t.Callable[[], t.Any], database: str, budget_seconds: float, monotonic: t.Callable[[], float] = time.monotonic) -> None:
        self._open = open_console
        self._database = database
        self._budget_seconds = budget_seconds
        self._monotonic = monotonic
        self._console: t.Any = None
        self._since: float | None = None

    def look(self) -> None:
        """Look once; a pooler that does not answer has no clients to hold, and is asked anew the next time."""
        try:
            if not self._paused():
                self._since = None
                return
            now = self._monotonic()
            self._since = now if self._since is None else self._since
            if now - self._since >= self._budget_seconds:
                self.end()
        except psycopg2.Error:
            self._console = None

    def end(self) -> None:
        """End the pause, if there is one, on a session of its own: the one that waits in PAUSE answers nobody."""
        if self._paused():
            self._query(f"RESUME {quoted(self._database)}")

    def _paused(self) -> bool:
        return any(row["name"] == self._database and int(row["paused"]) for row in self._query("SHOW DATABASES"))

    def _query(self, statement: str) -> list[dict[str, t.Any]]:
        if self._console is None:
            self._console = self._open()
        with self._console.cursor() as cursor:
            cursor.execute(statement)
            if cursor.description is None:
                return []
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def open_console(socket_directory: str, port: int) -> t.Any:
    """A session of the console of the pooler on this host."""
    console = psycopg2.connect(host=socket_directory, port=port, dbname="pgbouncer", user="pgbouncer", application_name=APPLICATION_NAME, connect_timeout=2)
    console.autocommit = True
    return console


def main(arguments: t.Sequence[str]) -> None:
    """Guard until systemd ends it."""
    path, *once = arguments
    config = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    guard = Guard(functools.partial(open_console, config["socket_directory"], config["port"]), config["database"], config["budget_seconds"])
    if once:
        guard.end()
        return
    while True:
        guard.look()
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1:])
