# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""PgBouncer's console as every package reads it."""

from __future__ import annotations

import threading
import time
import typing as t

from .._core.errors import ClientError, GateError
from .client import query, query_console
from .quoting import identifier

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def read_pooled(console: Connection, database: str) -> dict[str, t.Any] | None:
    """The row of SHOW DATABASES with the pool mode that holds for it; None when the pooler does not know the database.

    :raises ClientError: the console does not answer in time, or not like PgBouncer's
    """
    try:
        default = next((row["value"] for row in query_console(console, "SHOW CONFIG") if row["key"] == "pool_mode"), None)
        row = next((row for row in query_console(console, "SHOW DATABASES") if row["name"] == database), None)
        return None if row is None else {**row, "port": int(row["port"]), "paused": int(row["paused"]), "pool_mode": row["pool_mode"] or default}
    except (KeyError, TypeError, ValueError) as error:
        raise ClientError(f"The console did not answer like PgBouncer's: {error!r} in SHOW CONFIG or SHOW DATABASES.") from error


def pause_all(consoles: dict[str, Connection], database: str, bound_seconds: float) -> None:
    """PAUSE a database on every pooler at the same time. Whoever calls lets clients go on, also where this fails.

    :param consoles: by the poolers' names; one that is late still waits for its answer and serves no further statement
    :raises GateError: one did not answer within the bound, since a client holds a transaction open there, or it refused
    """
    failures: dict[str, str] = {}

    def pause(name: str, console: Connection) -> None:
        try:
            query(console, f"PAUSE {identifier(database)}")
        except ClientError as error:
            failures[name] = error.message

    threads = {name: threading.Thread(target=pause, args=(name, console), daemon=True) for name, console in consoles.items()}
    for thread in threads.values():
        thread.start()
    bound = time.monotonic() + bound_seconds
    for thread in threads.values():
        thread.join(max(0.0, bound - time.monotonic()))
    late = ", ".join(sorted(name for name, thread in threads.items() if thread.is_alive()))
    if late:
        raise GateError(f"PAUSE on {late} did not end within {bound_seconds:g} s: a client holds a transaction open, or the pooler does not answer.")
    if failures:
        raise GateError("PAUSE was refused: " + "; ".join(f"{name}: {message}" for name, message in sorted(failures.items())))
