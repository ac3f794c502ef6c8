# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What there is of the health checks on a side."""

from __future__ import annotations

import typing as t

from .._postgresql import client, scram
from .plan import BODY, FUNCTION, ORPHANS, PRIVILEGES, SCHEMA, TABLE, VIEW

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def read_health(connection: Connection, writer: str, verified: t.Callable[[], str | None] = lambda: None) -> dict[str, t.Any]:
    """What there is: ``{"database", "schema", "table", "rows", "function", "view", "orphans", "role", "login", "verifier", "connect", "granted"}``.

    ``function`` is whether it is the one of this version, ``rows`` whether the table has some, ``orphans`` whether there are sessions of a role that was
    dropped, ``granted`` the writer's privileges on the table.

    :param writer: role of the probe
    :param verified: the verifier that it has where the server shows none: who asks it has tried the password
    """
    found = client.query(
        connection,
        "SELECT current_database() AS database, to_regnamespace(%s) IS NOT NULL AS schema, to_regclass(%s) IS NOT NULL AS table, "
        "coalesce((SELECT prosrc = %s FROM pg_proc WHERE oid = to_regproc(%s)), false) AS function, to_regclass(%s) IS NOT NULL AS view, "
        f"EXISTS (SELECT {ORPHANS}) AS orphans",
        (SCHEMA, TABLE, BODY, FUNCTION, VIEW),
    )[0]
    found["rows"] = bool(found["table"] and client.query_value(connection, f"SELECT EXISTS (SELECT FROM {TABLE})"))
    shown = bool(client.query_value(connection, f"SELECT {scram.READABLE}"))
    rows = client.query(
        connection,
        f"SELECT rolcanlogin AS login, {'rolpassword' if shown else 'NULL'} AS verifier, "
        f"has_database_privilege(oid, current_database(), 'CONNECT') AS connect FROM {'pg_authid' if shown else 'pg_roles'} WHERE rolname = %s",
        (writer,),
    )
    if rows and not shown:
        rows[0]["verifier"] = verified()
    if not rows:
        return {**found, "role": False, "login": False, "verifier": None, "connect": False, "granted": []}
    granted = []
    if found["table"]:
        granted = [one for one in PRIVILEGES if client.query_value(connection, "SELECT has_table_privilege(%s, %s, %s)", (writer, TABLE, one))]
    return {**found, "role": True, **rows[0], "granted": granted}
