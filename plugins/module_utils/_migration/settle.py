# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What follows a decision when clients are already served: idempotent steps that any run can finish."""

from __future__ import annotations

import time
import typing as t

from .._core.errors import GateError, UnknownState
from .._core.waiting import SYSTEM_CLOCK, Clock, wait_until
from .._postgresql import client
from .._postgresql.quoting import identifier
from .._postgresql.slots import has_subscription
from . import guards, schema

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def retire_link(ahead: Connection, here: Connection, name: str) -> None:
    """Drop a subscription and its slot: from now on nothing comes over it (the fenced side takes no writes).

    :param ahead: session on the subscriber
    :param here: session on the publisher, which keeps the slot
    :raises WaitTimeout: the slot's walsender does not end
    """
    if has_subscription(ahead, name):
        drop_subscription(ahead, name)
    drop_slot(here, name)


def drop_subscription(subscriber: Connection, name: str) -> None:
    """Drop a subscription without asking its publisher, which keeps the slot."""
    client.query(subscriber, f"ALTER SUBSCRIPTION {identifier(name)} DISABLE")
    client.query(subscriber, f"ALTER SUBSCRIPTION {identifier(name)} SET (slot_name = NONE)")
    client.query(subscriber, f"DROP SUBSCRIPTION {identifier(name)}")


def drop_slot(publisher: Connection, name: str) -> None:
    """Drop a slot of this database, if it is there, once nobody uses it: a server with several databases has several migrations.

    :raises WaitTimeout: its walsender does not end
    """
    statement = "SELECT slot_name, active FROM pg_replication_slots WHERE slot_name = %s AND database = current_database()"
    rows = wait_until(
        lambda: client.query(publisher, statement, (name,)),
        lambda found: not found or not found[0]["active"],
        f"the end of the walsender on slot {name}",
        timeout_seconds=20,
        delay_seconds=0.1,
    )
    if rows:
        client.query(publisher, "SELECT pg_drop_replication_slot(%s)", (name,))


def end_sessions(fenced: Connection, roles: t.Sequence[str], *, bound_seconds: float = 10.0, clock: Clock = SYSTEM_CLOCK) -> dict[str, int]:
    """End the applications' sessions on the side that was left until none is seen twice in a row.

    A session that is still in its login shows in no view yet, so one look is not enough; the guard covers the gap.

    :param roles: quoted names
    :returns: ended sessions by role and address, ``{"role address": count}``
    :raises UnknownState: sessions keep coming up to the bound, or cannot be seen
    """
    if not client.sees_others(fenced):
        role = client.own_role(fenced)
        raise UnknownState(
            f"The sessions on the side that was left cannot be seen. They cannot write; GRANT pg_monitor TO {role} there and run again to finish."
        )
    ended: dict[str, int] = {}
    deadline, clean = clock.monotonic() + bound_seconds, 0
    while clean < 2:
        rows = client.query(
            fenced,
            "SELECT quote_ident(usename::text) AS role, coalesce(host(client_addr), 'local') AS address, pg_terminate_backend(pid) AS ended "
            "FROM pg_stat_activity "
            "WHERE datname = current_database() AND backend_type = 'client backend' AND quote_ident(usename::text) = ANY (%s)",
            (list(roles),),
        )
        for row in rows:
            key = f"{row['role']} from {row['address']}"
            ended[key] = ended.get(key, 0) + 1
        clean = 0 if rows else clean + 1
        if clock.monotonic() > deadline:
            raise UnknownState(f"Sessions keep coming on the side that was left: {', '.join(sorted(ended))}. They cannot write; run again to finish.")
        clock.sleep(0.2)
    return ended


def prove_refusal(fenced: Connection, roles: t.Sequence[str]) -> dict[str, int]:
    """On the side that was left try a write without rows on every table as each role, and as ourselves; every one must be refused.

    :param roles: quoted names of application roles
    :returns: number of refusals by role
    :raises GateError: a write was accepted; names role and table
    :raises UnknownState: nothing can be tried as a role
    """
    if closed := cannot_become(fenced, roles):
        ours = client.own_role(fenced)
        raise UnknownState(
            f"No write can be tried as {', '.join(closed)} on the side that was left, which its administrator may not become. Nobody can write there; "
            f"GRANT {', '.join(closed)} TO {ours} there and run again to finish."
        )
    tables = [row["name"] for row in guards.read_guarded_tables(fenced) if not row["diverted"]]
    ourselves = client.own_role(fenced)
    return {role: _refused_as(fenced, role, tables) for role in (*roles, ourselves)}


def cannot_become(connection: Connection, roles: t.Sequence[str]) -> list[str]:
    """Which of these roles the session may not become by SET ROLE (quoted names, as those that are given)."""
    privilege = "SET" if connection.server_version >= 160000 else "MEMBER"
    statement = "SELECT quote_ident(rolname::text) AS role FROM pg_roles WHERE quote_ident(rolname::text) = ANY (%s) AND NOT pg_has_role(oid, %s) ORDER BY 1"
    return [row["role"] for row in client.query(connection, statement, (list(roles), privilege))]


def _refused_as(fenced: Connection, role: str, tables: t.Sequence[str]) -> int:
    """Every table refuses one role; returns how many were tried."""
    try:
        client.query(fenced, guards.for_each_table(tables, guards.proof("insufficient_privilege"), before=f"SET LOCAL ROLE {role};"))
    except client.ClientError as error:
        raise GateError(f"The fence does not hold for {role}: {error.message}") from error
    return len(tables)


def application_roles(here: Connection, ahead: Connection, declared: t.Sequence[str], ours: t.Sequence[str]) -> tuple[str, ...]:
    """Quoted names of the roles that applications log in with, as the side that is left knows them.

    Which of them may log in is asked of both sides: the decision takes it from them on the side that is left.

    :param declared: plain names from the inventory; empty: every login role that is no superuser, does not replicate and is not ours
    :param ours: plain names that are never application roles, as are those of both sides' administrators, which we are logged in as
    :raises GateError: a declared role does not exist, or is an administrator's
    """
    administrators = {str(client.query_value(side, "SELECT session_user::text")) for side in (here, ahead)}
    statement = (
        "SELECT rolname::text AS name, quote_ident(rolname::text) AS quoted, rolcanlogin AND NOT rolsuper AND NOT rolreplication AS application "
        "FROM pg_roles WHERE rolname NOT LIKE 'pg\\_%' ORDER BY 1"
    )
    by_name = {row["name"]: row for row in client.query(here, statement)}
    applications = {row["name"] for side in (here, ahead) for row in client.query(side, statement) if row["application"]}
    missing = sorted(set(declared) - set(by_name))
    if missing:
        raise GateError(f"pg_ha_application_roles names roles that do not exist: {', '.join(missing)}.")
    if both := sorted(administrators & set(declared)):
        raise GateError(f"pg_ha_application_roles names {', '.join(both)}, which the migration itself logs in as: give it an administrator of its own.")
    if declared:
        return tuple(by_name[name]["quoted"] for name in declared)
    return tuple(row["quoted"] for row in by_name.values() if row["name"] in applications - administrators - set(ours))


def set_login(connection: Connection, roles: t.Sequence[str], *, may: bool) -> None:
    """Let roles log in, or keep them from it; one that this side does not know is another gate's matter.

    :param roles: quoted names
    """
    rows = client.query(
        connection,
        "SELECT quote_ident(rolname::text) AS role FROM pg_roles WHERE quote_ident(rolname::text) = ANY (%s) AND rolcanlogin <> %s",
        (list(roles), may),
    )
    for row in rows:
        client.query(connection, f"ALTER ROLE {row['role']} {'LOGIN' if may else 'NOLOGIN'}")


def open_guard(connection: Connection) -> None:
    """Let everybody write on the side that serves: the announcement has done its work."""
    client.query(connection, schema.guard_function(schema.GuardPermissive()))


# Whoever reads another view, directly or through others, needs all that the other one needs, and the other one.
_VIEWS = """
    WITH RECURSIVE reads AS (
        SELECT DISTINCT r.ev_class AS reader, c.oid AS needed FROM pg_rewrite r
        JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
        JOIN pg_class c ON c.oid = d.refobjid AND c.relkind IN ('v', 'm')
    ), needs AS (SELECT reader, needed FROM reads UNION SELECT n.reader, r.needed FROM needs n JOIN reads r ON r.reader = n.needed)
    SELECT format('%I.%I', s.nspname, m.relname) AS name, m.relispopulated AS populated FROM pg_class m JOIN pg_namespace s ON s.oid = m.relnamespace
    WHERE m.relkind = 'm' ORDER BY (SELECT count(*) FROM needs WHERE reader = m.oid), 1"""


def refresh_views(here: Connection, ahead: Connection) -> int:
    """Refresh on the next side every materialized view that is populated on either side (they are not replicated), each after those that it reads.

    One that was filled on the side that is left after the copy is empty on the next one, and nobody could read it there.

    :param here: session on the side that is left
    :param ahead: session on the next side
    :returns: how many
    """
    filled = {row["name"] for row in client.query(here, _VIEWS) if row["populated"]}
    names = [row["name"] for row in client.query(ahead, _VIEWS) if row["populated"] or row["name"] in filled]
    for name in names:
        client.query(ahead, f"REFRESH MATERIALIZED VIEW {name}")
    return len(names)


def elapsed_ms(since: float) -> float:
    """Milliseconds since a monotonic moment."""
    return round((time.monotonic() - since) * 1000, 1)
