# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""PgBouncer's console as every package reads it."""

from __future__ import annotations

import typing as t

from .client import query

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def read_pooled(console: Connection, database: str) -> dict[str, t.Any] | None:
    """The row of SHOW DATABASES with the pool mode that holds for it; None when the pooler does not know the database.

    :raises ClientError: the console does not answer
    """
    default = next((row["value"] for row in query(console, "SHOW CONFIG") if row["key"] == "pool_mode"), None)
    row = next((row for row in query(console, "SHOW DATABASES") if row["name"] == database), None)
    return None if row is None else {**row, "pool_mode": row["pool_mode"] or default}
