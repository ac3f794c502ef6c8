# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The migration's own login roles in the databases: the dead man, the probe and the link, each with no more than it needs."""

from __future__ import annotations

import typing as t

from .._core.outcome import Action
from .._postgresql import client, scram
from . import schema

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

GRANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "dead_man": {
        "epoch": ("SELECT",),
        "decision": ("SELECT", "INSERT"),
        "marker": ("SELECT", "INSERT"),
        "marker_back": ("SELECT", "INSERT"),
        "keeper": ("SELECT", "INSERT", "UPDATE"),
    },
    "probe": {"probe": ("SELECT", "INSERT", "DELETE")},
    "link": {},
}
# A follower that applies a long transaction answers late: the publisher must not take it for dead, however soon it gives up its standbys.
SETTINGS: dict[str, dict[str, str]] = {"dead_man": {}, "probe": {}, "link": {"wal_sender_timeout": "60s"}}
# Attributes over and above LOGIN: the link's role streams and reads no table.
ATTRIBUTES = {"dead_man": "", "probe": "", "link": " REPLICATION"}


def read_role(
    connection: Connection, name: str, purpose: str, verified: t.Callable[[], str | None] = lambda: None, replication_role: str | None = None
) -> dict[str, t.Any]:
    """``{"exists", "login", "replication", "verifier", "usage", "granted": [(table, privilege)], "barred_from", "settings"}`` of one role on one side.

    :param verified: the verifier that it has where the server shows none: who asks it has tried the password
    :param replication_role: role whose members may replicate, where no attribute can be given
    """
    shown = bool(client.query_value(connection, f"SELECT {scram.READABLE}"))
    rows = client.query(
        connection,
        "SELECT quote_ident(r.rolname::text) AS quoted, r.rolcanlogin AS login, coalesce(pg_has_role(r.oid, to_regrole(%s), 'MEMBER'), r.rolreplication) "
        f"AS replication, {'r.rolpassword' if shown else 'NULL'} AS verifier FROM {'pg_authid' if shown else 'pg_roles'} r WHERE r.rolname = %s",
        (replication_role, name),
    )
    if rows and not shown:
        rows[0]["verifier"] = verified()
    # A database that does not let everybody in has to let the role in.
    barred = client.query_value(
        connection,
        "SELECT CASE WHEN NOT has_database_privilege(%s, current_database(), 'CONNECT') THEN quote_ident(current_database()) END",
        (name if rows else "public",),
    )
    if not rows:
        quoted = client.query_value(connection, "SELECT quote_ident(%s)", (name,))
        absent: dict[str, t.Any] = {"exists": False, "login": False, "replication": False, "verifier": None, "usage": False, "granted": [], "settings": []}
        return {**absent, "quoted": quoted, "barred_from": barred}
    granted = [
        (table, privilege)
        for table, privileges in GRANTS[purpose].items()
        for privilege in privileges
        if client.query_value(connection, "SELECT has_table_privilege(%s, %s, %s)", (name, f"{schema.SCHEMA}.{table}", privilege))
    ]
    settings = client.query(
        connection,
        "SELECT unnest(setconfig) AS setting FROM pg_db_role_setting WHERE setdatabase = 0 AND setrole = (SELECT oid FROM pg_roles WHERE rolname = %s)",
        (name,),
    )
    usage = client.query_value(connection, "SELECT has_schema_privilege(%s, %s, 'USAGE')", (name, schema.SCHEMA))
    return {"exists": True, **rows[0], "usage": usage, "granted": granted, "barred_from": barred, "settings": [row["setting"] for row in settings]}


def plan_role(before: dict[str, t.Any], name: str, password: str, purpose: str, replication_role: str | None = None) -> list[Action]:
    """Statements that make the role what it has to be; [] when it is (pure).

    :param replication_role: plain name of the role whose members may replicate; None where the attribute lets them
    """
    quoted = before["quoted"]
    actions = []
    attributes = "" if replication_role else ATTRIBUTES[purpose]
    if not before["exists"]:
        actions.append(Action(f"CREATE ROLE {quoted} LOGIN{attributes}"))
    elif not before["login"] or (attributes and not before["replication"]):
        actions.append(Action(f"ALTER ROLE {quoted} LOGIN{attributes}"))
    if replication_role and ATTRIBUTES[purpose] and not before["replication"]:
        actions.append(Action(f"GRANT {replication_role} TO {quoted}"))
    verifier = scram.stable_verifier(schema.SCHEMA, name, password)
    if before["verifier"] != verifier:
        actions.append(Action(f"ALTER ROLE {quoted} PASSWORD '********'", f"ALTER ROLE {quoted} PASSWORD '{verifier}'"))
    for setting, value in SETTINGS[purpose].items():
        if f"{setting}={value}" not in before["settings"]:
            actions.append(Action(f"ALTER ROLE {quoted} SET {setting} = '{value}'"))
    if before.get("barred_from"):
        actions.append(Action(f"GRANT CONNECT ON DATABASE {before['barred_from']} TO {quoted}"))
    if not before["usage"]:
        actions.append(Action(f"GRANT USAGE ON SCHEMA {schema.SCHEMA} TO {quoted}"))
    for table, privileges in GRANTS[purpose].items():
        missing = [privilege for privilege in privileges if (table, privilege) not in before["granted"]]
        if missing:
            actions.append(Action(f"GRANT {', '.join(missing)} ON {schema.SCHEMA}.{table} TO {quoted}"))
    return actions
