# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Advisory locks that keep two runs apart, also when one of them has died and its server does not know it yet."""

from __future__ import annotations

import typing as t

from .._core.errors import WaitTimeout
from .._core.waiting import SYSTEM_CLOCK, Clock, wait_until
from .client import query, query_value

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# A server notices within nine seconds that whoever held a lock is gone (client.SESSION_SETTINGS): its keepalives, or the answer to the next of them.
PATIENCE_SECONDS = 12.0
LOOK_SECONDS = 0.25


def take_lock(connection: Connection, lock: tuple[int, int], *, shared: bool = False, clock: Clock = SYSTEM_CLOCK) -> bool:
    """Take an advisory lock for as long as the session lives; False when somebody who lives has it.

    :param lock: class and object
    """
    function = "pg_try_advisory_lock_shared" if shared else "pg_try_advisory_lock"
    try:
        wait_until(lambda: bool(query_value(connection, f"SELECT {function}(%s, %s)", lock)), bool, "The lock", PATIENCE_SECONDS, LOOK_SECONDS, clock)
    except WaitTimeout:
        return False
    return True


def read_holder(connection: Connection, lock: tuple[int, int], *, shared: bool = False) -> dict[str, t.Any] | None:
    """Who has an advisory lock of this database: ``{"pid", "since", "who"}`` (who by its application_name), or None.

    :param lock: class and object
    :param shared: whoever only keeps others from taking it; not who has it alone
    """
    rows = query(
        connection,
        "SELECT l.pid, a.backend_start::text AS since, a.application_name AS who FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid "
        "WHERE l.locktype = 'advisory' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND l.classid::bigint = %s AND l.objid::bigint = %s AND l.objsubid = 2 AND l.granted AND l.mode = %s",
        (*lock, "ShareLock" if shared else "ExclusiveLock"),
    )
    return rows[0] if rows else None
