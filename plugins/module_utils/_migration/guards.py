# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Guards: one statement trigger on every table and partition, whose one function says who may write.

A statement trigger is the only fence that also stops sessions that already wait for a lock, superusers, owners and TRUNCATE; the
apply worker passes, because it runs with session_replication_role = replica (tested: docs/safety.md).
"""

from __future__ import annotations

import typing as t

from .._core.errors import ClientError
from .._core.waiting import SYSTEM_CLOCK, Clock
from .._postgresql import client
from . import schema

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# Tables that applications write: ordinary and partitioned ones (a partition's statement trigger does not come from its parent),
# and the probe's, which is guarded as one of them.
GUARDED = f"""
    SELECT c.oid::bigint AS oid, format('%I.%I', n.nspname, c.relname) AS name,
           EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND g.tgname = '{schema.GUARD_TRIGGER}' AND g.tgenabled = 'O') AS guarded,
           EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type = '4') AS diverted
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
      AND (n.nspname <> '{schema.SCHEMA}' OR c.relname = 'probe')
    ORDER BY 1"""

LOCK_NOT_AVAILABLE = "55P03"


def read_guarded_tables(connection: Connection) -> list[dict[str, t.Any]]:
    """Every table that must carry a guard: ``[{"oid", "name" (quoted), "guarded", "diverted" (a rule replaces DELETE)}]``."""
    return client.query(connection, GUARDED)


def read_followed_tables(connection: Connection) -> list[str]:
    """Quoted names of the tables whose rows a link carries: ordinary ones and leaf partitions of applications, and the probe's.

    What belongs to an extension is filled by it on either side.
    """
    rows = client.query(
        connection,
        "SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' "
        f"AND c.relpersistence = 'p' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND (n.nspname <> '{schema.SCHEMA}' OR c.relname = 'probe') "
        "AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') ORDER BY 1",
    )
    return [row["name"] for row in rows]


def install_guards(
    connection: Connection,
    guard: schema.GuardPermissive | schema.GuardRefusing | schema.GuardAwaiting | None,
    *,
    lock_timeout_ms: int = 300,
    attempts: int = 30,
    clock: Clock = SYSTEM_CLOCK,
) -> int:
    """Put the guard's function and its trigger on every table that lacks it; returns the number of triggers made.

    The function comes first, so that a new trigger never stands with another side's body. Each trigger is a transaction of its own
    with a short lock_timeout: CREATE TRIGGER waits for running writers, and writers would queue behind it.

    :param guard: the body to set, or None to leave the function as it is
    :raises ClientError: a table stayed locked through all attempts
    """
    if guard is not None:
        client.query(connection, schema.guard_function(guard))
    made = 0
    for table in read_guarded_tables(connection):
        if not table["guarded"]:
            _make_trigger(connection, table["name"], lock_timeout_ms, attempts, clock)
            made += 1
    return made


def _make_trigger(connection: Connection, table: str, lock_timeout_ms: int, attempts: int, clock: Clock) -> None:
    """Make one trigger, trying again while somebody holds the table."""
    _in_a_gap(connection, table, f"{_drop_trigger(table)}; {_create_trigger(table)}", "put the guard on it", lock_timeout_ms, attempts, clock)


def remove_guard(connection: Connection, table: str, *, lock_timeout_ms: int = 300, attempts: int = 30, clock: Clock = SYSTEM_CLOCK) -> None:
    """Take the trigger off a table whose side serves, while applications use it: a short lock, tried again.

    :param table: quoted
    :raises ClientError: the table stayed locked through all attempts
    """
    _in_a_gap(connection, table, _drop_trigger(table), "take the guard off it", lock_timeout_ms, attempts, clock)


def _in_a_gap(connection: Connection, table: str, statements: str, purpose: str, lock_timeout_ms: int, attempts: int, clock: Clock) -> None:
    """Run statements that lock a table, in one transaction, with a short wait and again while somebody holds it."""
    for attempt in range(1, attempts + 1):
        try:
            client.query(connection, f"BEGIN; SET LOCAL lock_timeout = {lock_timeout_ms:d}; {statements}; COMMIT")
            return
        except ClientError as error:
            client.query(connection, "ROLLBACK")
            if error.details.get("sqlstate") != LOCK_NOT_AVAILABLE:
                raise
            if attempt == attempts:
                raise ClientError(
                    f"Table {table} stayed locked through {attempts} attempts of {lock_timeout_ms} ms to {purpose}. "
                    "End the long transaction on it and run again; nothing else was changed.",
                    table=table,
                ) from error
            clock.sleep(0.2)


def _drop_trigger(table: str) -> str:
    return f"DROP TRIGGER IF EXISTS {schema.GUARD_TRIGGER} ON {table}"


def _create_trigger(table: str) -> str:
    return (
        f"CREATE TRIGGER {schema.GUARD_TRIGGER} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {schema.SCHEMA}.guard()"
    )


def install_statement(guard: schema.GuardAwaiting | None) -> str:
    """Statements that guard every table that has no guard yet, for the transaction that makes the tables: nobody ever sees one without (pure).

    :param guard: the body to set, or None to leave the function as it is
    """
    function = "" if guard is None else schema.guard_function(guard) + ";\n"
    create = _create_trigger("%s").replace("'", "''")
    return (
        f"{function}DO $install$ DECLARE item record; BEGIN FOR item IN SELECT name FROM ({GUARDED}) AS tables WHERE NOT guarded "
        f"LOOP EXECUTE format('{create}', item.name); END LOOP; END $install$;\n"
    )


def proof(*refusals: str) -> str:
    """A statement of PL/pgSQL that fails where a write on table ``name`` is accepted (pure).

    A DELETE without rows fires a statement trigger, and touches no data.
    An application's own trigger may be asked before ours, which is by name, and say no in words of its own: then ours stands behind it.

    :param refusals: conditions that count as refused, besides the guard's own
    """
    conditions = " OR ".join(("read_only_sql_transaction", *refusals))
    return (
        "DECLARE accepted boolean := true; BEGIN "
        f"BEGIN EXECUTE 'DELETE FROM ' || name || ' WHERE false'; EXCEPTION WHEN {conditions} THEN accepted := false; "
        "WHEN OTHERS THEN accepted := NOT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = name::pg_catalog.regclass "
        f"AND tgname = '{schema.GUARD_TRIGGER}' AND tgenabled = 'O'); IF accepted THEN RAISE; END IF; END; "
        "IF accepted THEN RAISE EXCEPTION 'the fence does not hold on %: a write is accepted', name USING ERRCODE = 'P0001'; END IF; END;"
    )


# Fails where a table has come that has no guard: what was written there would be left behind.
ALL_GUARDED = f"""DO $do$ DECLARE late text; BEGIN
    SELECT string_agg(name, ', ') INTO late FROM ({GUARDED}) AS tables WHERE NOT guarded;
    IF late IS NOT NULL THEN RAISE EXCEPTION 'tables came in the midst of it: %', late USING ERRCODE = 'P0001'; END IF; END $do$"""


def for_each_table(tables: t.Sequence[str], statement: str, before: str = "") -> str:
    """A block that runs a statement of PL/pgSQL with ``name`` set to each table (pure).

    :param before: statement that runs once
    """
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in tables)
    body = f"DECLARE name text; BEGIN {before} FOREACH name IN ARRAY ARRAY[{names}]::text[] LOOP {statement} END LOOP; END"
    quote = "$each$"
    while quote in body:  # a table may have that name, and what follows would be a statement of its own
        quote = f"${quote.strip('$')}_$"
    return f"DO {quote} {body} {quote}"
