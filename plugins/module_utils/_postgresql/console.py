# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""PgBouncer's console as every package reads it."""

from __future__ import annotations

import typing as t

from .._core.errors import ClientError
from .client import query_console

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
