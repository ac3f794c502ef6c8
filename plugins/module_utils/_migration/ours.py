# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What of the migration is on one side, by the names that all of it has. Reads only."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._postgresql import client
from .._postgresql.role_needs import NEEDS
from . import schema

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# LIKE pattern of our names; psycopg2 takes it as a parameter.
NAMES = r"ha\_migration%"
# pg_replication_slots says from this version on whether a slot is meant to be kept on the standbys too.
FAILOVER_SLOTS_SINCE = 170000
_HAS_SCHEMA = """
    WITH ours AS (SELECT oid, nspname FROM pg_namespace WHERE nspname = %s), held AS (SELECT format('%%I.%%I', nspname, relname) = ANY (%s) AS health
         FROM pg_class JOIN ours ON ours.oid = relnamespace WHERE relkind <> 'i')
    SELECT EXISTS (SELECT FROM ours) AND NOT coalesce((SELECT bool_and(health) FROM held), false)"""


# A role that some database needs cannot be dropped.
_ROLES = f"""
    WITH needs AS (SELECT n.role, d.datname::text AS database FROM ({NEEDS}) n JOIN pg_database d ON d.oid = n.database)
    SELECT r.rolname::text AS name, EXISTS (SELECT FROM needs WHERE role = r.oid AND database = current_database()) AS here,
           ARRAY(SELECT DISTINCT database FROM needs WHERE role = r.oid AND database <> current_database() ORDER BY 1) AS elsewhere
    FROM pg_roles r WHERE r.rolname = ANY (%s) ORDER BY 1"""


@dataclass(frozen=True)
class Slot:
    """A replication slot of ours.

    :param held_bytes: WAL that the server keeps for it; None where it keeps none any more or does not say
    :param safe_bytes: how much may still be written before it loses WAL; None where max_slot_wal_keep_size sets no limit
    :param failover: whether the server is told to keep it on standbys; None before version 17
    """

    name: str
    active: bool
    wal_status: str | None
    held_bytes: int | None
    safe_bytes: int | None
    failover: bool | None


@dataclass(frozen=True)
class Shared:
    """A role of ours that other databases of the server need too, as their migrations have roles of the same names.

    :param elsewhere: names of those databases
    :param here: whether it has privileges in this one
    """

    name: str
    elsewhere: tuple[str, ...]
    here: bool


@dataclass(frozen=True)
class Ours:
    """Everything of ours on one side, in the database of the migration.

    :param has_schema: whether there is schema ha_migration, with more in it than the health that applications ask for
    :param subscriptions: name -> whether it is enabled
    :param guards: quoted names of the application's tables that carry our trigger
    :param roles: that are needed nowhere else
    :param dead_men: application_name of each dead man that has a session here
    :param followers_elsewhere: other databases of the server that follow a source
    """

    has_schema: bool = False
    subscriptions: dict[str, bool] | None = None
    slots: tuple[Slot, ...] = ()
    publications: tuple[str, ...] = ()
    guards: tuple[str, ...] = ()
    event_triggers: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    shared: tuple[Shared, ...] = ()
    dead_men: tuple[str, ...] = ()
    followers_elsewhere: tuple[str, ...] = ()


def read_ours(connection: Connection, roles: t.Sequence[str]) -> Ours:
    """Ask one side.

    :param roles: plain names of the migration's own roles
    """
    known = client.query(connection, _ROLES, (list(roles),))
    return Ours(
        has_schema=bool(client.query_value(connection, _HAS_SCHEMA, (schema.SCHEMA, list(schema.HEALTH)))),
        subscriptions={
            row["name"]: row["enabled"]
            for row in client.query(
                connection,
                "SELECT subname::text AS name, subenabled AS enabled FROM pg_subscription WHERE subname LIKE %s "
                "AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1",
                (NAMES,),
            )
        },
        slots=read_slots(connection),
        publications=_names(connection, "SELECT pubname::text AS name FROM pg_publication WHERE pubname LIKE %s ORDER BY 1", NAMES),
        guards=_names(
            connection,
            "SELECT format('%%I.%%I', n.nspname, c.relname) AS name FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid "
            f"JOIN pg_namespace n ON n.oid = c.relnamespace WHERE g.tgname = %s AND n.nspname <> '{schema.SCHEMA}' ORDER BY 1",
            schema.GUARD_TRIGGER,
        ),
        event_triggers=_names(connection, "SELECT quote_ident(evtname::text) AS name FROM pg_event_trigger WHERE evtname LIKE %s ORDER BY 1", NAMES),
        roles=tuple(row["name"] for row in known if not row["elsewhere"]),
        shared=tuple(Shared(row["name"], tuple(row["elsewhere"]), row["here"]) for row in known if row["elsewhere"]),
        dead_men=_names(
            connection,
            "SELECT DISTINCT application_name AS name FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE %s ORDER BY 1",
            r"ha\_migration dead man %",
        ),
        followers_elsewhere=_names(
            connection,
            "SELECT DISTINCT d.datname::text AS name FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid "
            "WHERE s.subname = %s AND d.datname <> current_database() ORDER BY 1",
            schema.FORWARD_LINK,
        ),
    )


def read_slots(connection: Connection) -> tuple[Slot, ...]:
    """Our slots of this database."""
    failover = "failover" if connection.server_version >= FAILOVER_SLOTS_SINCE else "NULL::boolean"
    rows = client.query(
        connection,
        "SELECT slot_name::text AS name, active, wal_status::text AS wal_status, safe_wal_size AS safe_bytes, "
        f"pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint AS held_bytes, {failover} AS failover "
        "FROM pg_replication_slots WHERE slot_name LIKE %s AND database = current_database() ORDER BY 1",
        (NAMES,),
    )
    return tuple(Slot(**row) for row in rows)


def _names(connection: Connection, statement: str, parameter: t.Any) -> tuple[str, ...]:
    """The column ``name`` of every row."""
    return tuple(row["name"] for row in client.query(connection, statement, (parameter,)))
