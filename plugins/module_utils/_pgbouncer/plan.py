# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Where a pooled database points and whether it is paused. https://www.pgbouncer.org/usage.html#admin-console"""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass

from .._core.errors import ClientError, PlanError
from .._core.outcome import Action

POOL_COLUMNS = ("user", "cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_login", "maxwait", "pool_mode")


@dataclass(frozen=True)
class PooledDatabase:
    """One row of SHOW DATABASES with its rows of SHOW POOLS."""

    name: str
    host: str
    port: int
    database: str
    paused: bool
    disabled: bool
    server_connections: int
    pools: tuple[dict[str, t.Any], ...]

    def public(self) -> dict[str, t.Any]:
        """What modules return."""
        return {**asdict(self), "pools": list(self.pools)}


def databases_of(rows: list[dict[str, t.Any]], pools: list[dict[str, t.Any]]) -> list[PooledDatabase]:
    """The console's answers as data.

    :raises ClientError: they do not have the columns that PgBouncer documents
    """
    try:
        return [
            PooledDatabase(
                name=row["name"],
                host=row["host"] or "",
                port=int(row["port"]),
                database=row["database"],
                paused=int(row["paused"]) != 0,
                disabled=int(row["disabled"]) != 0,
                server_connections=int(row["current_connections"]),
                pools=tuple({name: pool[name] for name in POOL_COLUMNS if name in pool} for pool in pools if pool["database"] == row["name"]),
            )
            for row in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ClientError(f"The console did not answer like PgBouncer's: {error!r} in SHOW DATABASES or SHOW POOLS.") from error


def find(databases: list[PooledDatabase], name: str, service: str) -> PooledDatabase:
    """The database of that name.

    :raises PlanError: the pooler does not know it
    """
    found = next((database for database in databases if database.name == name), None)
    if found is None:
        known = ", ".join(database.name for database in databases) or "none"
        raise PlanError(f"The pooler behind service {service} has no database {name!r}; it has: {known}.")
    return found


def plan_state(database: PooledDatabase, state: str) -> list[Action]:
    """What brings it to ``active`` or ``paused``; [] when it is so."""
    if database.paused == (state == "paused"):
        return []
    quoted = '"' + database.name.replace('"', '""') + '"'
    return [Action(f"{'PAUSE' if state == 'paused' else 'RESUME'} {quoted}")]
