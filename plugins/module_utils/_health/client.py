# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What there is of the health checks on a side."""

from __future__ import annotations

import typing as t

from .._postgresql import client
from .plan import BODY, FUNCTION, ORPHANS, PRIVILEGES, SCHEMA, TABLE, VIEW

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def read_health(connection: Connection, writer: str) -> dict[str, t.Any]:
    """What there is: ``{"database", "schema", "table", "rows", "function", "view", "orphans", "role", "login", "verifier", "connect", "granted"}``.

    ``function`` is whether it is the one of this version, ``rows`` whether the table has some, ``orphans`` whether there are sessions of a role that was
    dropped, ``granted`` the writer's privileges on the table.

    :param writer: role of the probe
    :raises ClientError: pg_authid may not be read
    """
    found = client.query(
        connection,
        "SELECT current_database() AS database, to_regnamespace(%s) IS NOT NULL AS schema, to_regclass(%s) IS NOT NULL AS table, "
        "coalesce((SELECT prosrc = %s FROM pg_proc WHERE oid = to_regproc(%s)), false) AS function, to_regclass(%s) IS NOT NULL AS view, "
        f"EXISTS (SELECT {ORPHANS}) AS orphans",
        (SCHEMA, TABLE, BODY, FUNCTION, VIEW),
    )[0]
    found["rows"] = bool(found["table"] and client.query_value(connection, f"SELECT EXISTS (SELECT FROM {TABLE})"))
    rows = client.query(
        connection,
        "SELECT rolcanlogin AS login, rolpassword AS verifier, has_database_privilege(oid, current_database(), 'CONNECT') AS connect "
        "FROM pg_authid WHERE rolname = %s",
        (writer,),
    )
    if not rows:
        return {**found, "role": False, "login": False, "verifier": None, "connect": False, "granted": []}
    granted = []
    if found["table"]:
        granted = [one for one in PRIVILEGES if client.query_value(connection, "SELECT has_table_privilege(%s, %s, %s)", (writer, TABLE, one))]
    return {**found, "role": True, **rows[0], "granted": granted}
