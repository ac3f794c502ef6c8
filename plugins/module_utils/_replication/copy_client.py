# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What the initial copy reads and writes in the databases."""

from __future__ import annotations

import json
import os
import threading
import typing as t

try:
    import psycopg2
    import psycopg2.extras
except ImportError:  # the module has said so before it gets here
    pass

from .._core.errors import ClientError, PlanError
from .._core.waiting import SYSTEM_CLOCK, Clock, wait_until
from .._postgresql import client
from .._postgresql.locks import read_holder, take_lock
from . import own
from .copy_plan import slot_statement
from .model import Column, RestoreFacts, Settings, Table
from .names import identifier, literal, relation

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

APPLICATION_NAME = "ha_migration copy"
WORKER_NAME = APPLICATION_NAME + " worker"
RUN = "*"
QUERY_CANCELED = "57014"

_USER_RELATIONS = """
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast' AND n.nspname !~ '^pg_temp_'"""
_OF_EXTENSION = "EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')"

# A key that is checked at the end of a transaction is no identity to the server.
TABLES = f"""
    SELECT n.nspname::text AS schema, c.relname::text AS name, c.oid::bigint AS oid, pg_table_size(c.oid) AS bytes, {_OF_EXTENSION} AS extension,
           c.relpersistence = 'u' AS unlogged,
           c.relreplident = 'f' OR EXISTS (
               SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
               AND ((c.relreplident = 'd' AND i.indisprimary) OR (c.relreplident = 'i' AND i.indisreplident))
           ) AS identity
    {_USER_RELATIONS} AND c.relkind = 'r' AND c.relpersistence <> 't'
    ORDER BY n.nspname, c.relname"""

COLUMNS = """
    WITH RECURSIVE base AS (
        SELECT t.oid AS type, t.oid, t.typtype, t.typbasetype, t.typname, t.typnamespace, t.typelem, t.typcategory FROM pg_type t
        UNION ALL
        SELECT base.type, t.oid, t.typtype, t.typbasetype, t.typname, t.typnamespace, t.typelem, t.typcategory FROM base
        JOIN pg_type t ON t.oid = base.typbasetype WHERE base.typtype = 'd'
    )
    SELECT c.oid::bigint AS relid, a.attname::text AS name, coalesce(e.typname, b.typname)::text AS type_name, e.oid IS NOT NULL AS is_array,
           coalesce(e.typnamespace, b.typnamespace) = 'pg_catalog'::regnamespace AS builtin, coalesce(e.typtype, b.typtype)::text AS kind
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
    JOIN base b ON b.type = a.atttypid AND b.typtype <> 'd' LEFT JOIN pg_type e ON b.typcategory = 'A' AND e.oid = b.typelem
    WHERE c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast' AND n.nspname !~ '^pg_temp_'
    ORDER BY c.oid, a.attnum"""


def open_session(settings: Settings, service: str, **session: str) -> Connection:
    """An autocommit session of the copy."""
    return client.connect(
        settings.service_file, service, application_name=APPLICATION_NAME, connect_timeout_seconds=settings.connect_timeout_seconds, settings=session
    )


def use_snapshot(connection: Connection, snapshot: str) -> None:
    """Begin a read only transaction on an exported snapshot."""
    client.query(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    client.query(connection, f"SET TRANSACTION SNAPSHOT {literal(snapshot)}")


def try_lock(connection: Connection) -> bool:
    """Take the copy's advisory lock for as long as the session lives."""
    return take_lock(connection, (own.LOCK_CLASS, own.LOCK_COPY))


def lock_holder(connection: Connection) -> dict[str, t.Any] | None:
    """The copy that runs: ``{"pid", "since", "who"}``, or None."""
    return read_holder(connection, (own.LOCK_CLASS, own.LOCK_COPY))


def who_keeps_copies_away(connection: Connection) -> str:
    """Why the copy's lock cannot be had, in words."""
    if holder := lock_holder(connection):
        return f"Another copy runs on this source (session {holder['pid']}). Wait until it has ended: module replication_copy_info."
    holder = read_holder(connection, (own.LOCK_CLASS, own.LOCK_COPY), shared=True)
    session = f"session {holder['pid']} of {holder['who']}, since {holder['since']}" if holder else "it has just ended"
    return f"A cutover, a roll back or a comparison of rows runs on this source ({session}): wait for its end, then run the same again."


def read_tables(connection: Connection, own_tables: t.Collection[str]) -> tuple[list[Table], list[str], list[str]]:
    """Tables to copy and publish, names of unlogged ones, names of tables that belong to an extension.

    :param own_tables: tables of our schema that travel too
    """
    columns: dict[int, list[Column]] = {}
    for row in client.query(connection, COLUMNS):
        columns.setdefault(row.pop("relid"), []).append(Column(**row))
    tables, unlogged, extension = [], [], []
    for row in client.query(connection, TABLES):
        ours = row["schema"] == own.SCHEMA
        table = Table(row["schema"], row["name"], row["oid"], row["bytes"], tuple(columns.get(row["oid"], [])), row["identity"], ours)
        if ours and row["name"] not in own_tables:
            continue
        if row["extension"]:
            extension.append(table.quoted)
        elif row["unlogged"]:
            unlogged.append(table.quoted)
        else:
            tables.append(table)
    return tables, unlogged, extension


def read_source(connection: Connection) -> dict[str, t.Any]:
    """What the gates ask of the source."""
    return client.query(
        connection,
        "SELECT current_setting('server_version_num')::int AS version, current_setting('wal_level') AS wal_level, pg_is_in_recovery() AS in_recovery, "
        "pg_encoding_to_char(encoding)::text AS encoding, "
        "current_setting('max_replication_slots')::int - (SELECT count(*)::int FROM pg_replication_slots WHERE slot_name <> %s) AS slots_free, "
        "current_setting('max_wal_senders')::int - (SELECT count(*)::int FROM pg_stat_replication WHERE application_name <> %s) AS senders_free, "
        "(SELECT count(*)::int FROM pg_largeobject_metadata) AS large_objects, "
        "(SELECT setting::int FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS slot_wal_keep_mib, "
        "(SELECT database::text FROM pg_replication_slots WHERE slot_name = %s AND database <> current_database()) AS slot_elsewhere, "
        f"ARRAY(SELECT DISTINCT n.nspname::text {_USER_RELATIONS} UNION SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_' "
        "AND nspname <> 'information_schema') AS schemas FROM pg_database WHERE datname = current_database()",
        (own.FORWARD_LINK, own.FORWARD_LINK, own.FORWARD_LINK),
    )[0]


def read_target(connection: Connection) -> dict[str, t.Any]:
    """What the gates ask of the target."""
    row = client.query(
        connection,
        "SELECT current_setting('server_version_num')::int AS version, pg_is_in_recovery() AS in_recovery, pg_encoding_to_char(encoding)::text AS encoding, "
        "current_setting('is_superuser') = 'on' AS superuser, (SELECT count(*)::int FROM pg_largeobject_metadata) AS large_objects "
        "FROM pg_database WHERE datname = current_database()",
    )[0]
    statement = f"SELECT n.nspname::text AS schema, c.relname::text AS name {_USER_RELATIONS} AND c.relkind <> 'i' AND NOT {_OF_EXTENSION}"
    relations = client.query(connection, statement)
    return {**row, "relations": [(item["schema"], item["name"]) for item in relations], **read_containers(connection)}


def read_containers(connection: Connection) -> dict[str, t.Any]:
    """Schemas, extensions and event triggers of a database, to tell ours from others' later."""
    schemas = client.query(connection, "SELECT nspname::text AS name FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1")
    extensions = client.query(
        connection,
        "SELECT e.extname::text AS name, n.nspname::text AS schema, e.extversion AS version FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace",
    )
    triggers = client.query(connection, "SELECT evtname::text AS name FROM pg_event_trigger ORDER BY 1")
    return {
        "schemas": [row["name"] for row in schemas],
        "extensions": {row["name"]: {"schema": row["schema"], "version": row["version"]} for row in extensions},
        "event_triggers": [row["name"] for row in triggers],
    }


def read_restore_facts(connection: Connection) -> RestoreFacts:
    """What has to be known of the source to restore a dump's entries in a good order. Only btree, hash and brin indexes are built quickly."""
    # Guards against writes (pg_trigger) and against DDL (pg_event_trigger, which belong to no schema that could be left out).
    guards = client.query(
        connection,
        "SELECT 2620 AS catalog, oid::bigint AS oid FROM pg_trigger WHERE tgname = %s "
        "UNION ALL SELECT 3466, oid::bigint FROM pg_event_trigger WHERE evtname LIKE %s",
        (own.GUARD_TRIGGER, f"{own.SCHEMA}%"),
    )
    indexes = client.query(
        connection,
        "WITH indexes AS (SELECT i.indexrelid, i.indrelid, a.amname NOT IN ('btree', 'hash', 'brin') AS slow, n.nspname::text AS schema, "
        "c.relname::text AS name, c.relkind = 'i' AND (i.indisprimary OR i.indisreplident) AS identity "
        "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam JOIN pg_namespace n ON n.oid = c.relnamespace) "
        "SELECT 1259 AS catalog, indexrelid::bigint AS oid, indrelid::bigint AS relid, slow, schema, name, identity FROM indexes "
        "UNION ALL SELECT 2606, c.oid::bigint, c.conrelid::bigint, false, x.schema, x.name, x.identity "
        "FROM pg_constraint c JOIN indexes x ON x.indexrelid = c.conindid WHERE c.contype IN ('p', 'u', 'x') AND c.conrelid <> 0",
    )
    keys = {(row["catalog"], row["oid"]): row for row in indexes}
    return RestoreFacts(
        unwanted={(row["catalog"], row["oid"]) for row in guards},
        tables={key: row["relid"] for key, row in keys.items()},
        slow_indexes={row["oid"] for row in indexes if row["slow"]},
        names={key: (row["schema"], row["name"]) for key, row in keys.items()},
        identities={key for key, row in keys.items() if row["identity"]},
    )


def read_indexes(connection: Connection) -> set[tuple[str, str]]:
    """(schema, name) of every index."""
    rows = client.query(connection, f"SELECT n.nspname::text AS schema, c.relname::text AS name {_USER_RELATIONS} AND c.relkind IN ('i', 'I')")
    return {(row["schema"], row["name"]) for row in rows}


def read_sequences(connection: Connection) -> list[dict[str, t.Any]]:
    """Every sequence's quoted name, last_value and is_called (pg_sequences does not tell a setval(..., false))."""
    names = [
        row["name"]
        for row in client.query(
            connection,
            f"SELECT format('%I.%I', n.nspname, c.relname) AS name {_USER_RELATIONS} AND n.nspname <> '{own.SCHEMA}' AND c.relkind = 'S' "
            f"AND c.relpersistence <> 't' AND NOT {_OF_EXTENSION} ORDER BY 1",
        )
    ]
    result: list[dict[str, t.Any]] = []
    for start in range(0, len(names), 100):
        parts = (f"SELECT {literal(name)}::text AS name, last_value, is_called FROM {name}" for name in names[start : start + 100])
        result += client.query(connection, " UNION ALL ".join(parts))
    return result


def set_sequences(connection: Connection, sequences: list[dict[str, t.Any]]) -> None:
    """Set every sequence to the very value and is_called of the source."""
    for start in range(0, len(sequences), 100):
        some = sequences[start : start + 100]
        calls = (f"setval({literal(item['name'])}::regclass, {int(item['last_value'])}, {str(bool(item['is_called'])).lower()})" for item in some)
        client.query(connection, f"SELECT {', '.join(calls)}")


def read_analyze(connection: Connection) -> list[dict[str, t.Any]]:
    """What gets statistics: roots of partition trees (they take their partitions along), ordinary tables, materialized views."""
    return client.query(
        connection,
        f"SELECT format('%I.%I', n.nspname, c.relname) AS name, pg_table_size(c.oid) AS bytes {_USER_RELATIONS} "
        f"AND c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition AND n.nspname <> '{own.SCHEMA}' AND c.relpersistence <> 't' ORDER BY 1",
    )


def open_slot(settings: Settings, server_version: int) -> tuple[Connection, str, str]:
    """Create the slot and export its snapshot, which lives as long as the returned connection.

    :returns: (replication connection, snapshot's name, consistent point)
    :raises ClientError: it could not be made in time, with the transactions that it waits for
    """
    os.environ["PGSERVICEFILE"] = settings.service_file
    try:
        connection = psycopg2.connect(
            service=settings.source,
            application_name=APPLICATION_NAME,
            connect_timeout=str(settings.connect_timeout_seconds),
            options="-c idle_in_transaction_session_timeout=0 -c statement_timeout=0",
            keepalives_idle="3",
            keepalives_interval="2",
            keepalives_count="3",
            connection_factory=psycopg2.extras.LogicalReplicationConnection,
        )
    except psycopg2.Error as error:
        raise ClientError(f"Cannot open a replication connection to the source as its administrator: {client.explain(error)}") from error
    timer = threading.Timer(settings.slot_timeout_seconds, connection.cancel)
    timer.daemon = True
    timer.start()
    try:
        with connection.cursor() as cursor:
            cursor.execute(slot_statement(own.FORWARD_LINK, server_version))
            ((_name, point, snapshot, _plugin),) = cursor.fetchall()
    except psycopg2.Error as error:
        connection.close()
        why = client.explain(error)
        if error.pgcode == QUERY_CANCELED:
            why = f"after {settings.slot_timeout_seconds} s writing transactions were still open: end long ones (pg_stat_activity, backend_xid) and run again."
        raise ClientError(f"Slot {own.FORWARD_LINK} could not be made on the source: {why}") from error
    finally:
        timer.cancel()
        timer.join()
    return connection, snapshot, point


def open_snapshot(connection: Connection) -> str:
    """Export a snapshot without a slot; it lives as long as the session's transaction."""
    client.query(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    return str(client.query_value(connection, "SELECT pg_export_snapshot()"))


def drop_publication(connection: Connection) -> bool:
    """Drop our publication on the source if it is there."""
    there = bool(client.query(connection, "SELECT FROM pg_publication WHERE pubname = %s", (own.FORWARD_LINK,)))
    if there:
        client.query(connection, f"DROP PUBLICATION {identifier(own.FORWARD_LINK)}")
    return there


def read_published(connection: Connection) -> set[str]:
    """Quoted names of the tables in our publication."""
    statement = "SELECT format('%%I.%%I', schemaname, tablename) AS name FROM pg_publication_tables WHERE pubname = %s"
    rows = client.query(connection, statement, (own.FORWARD_LINK,))
    return {row["name"] for row in rows}


def quote_names(connection: Connection, tables: t.Iterable[Table]) -> set[str]:
    """Names as the server's format('%I.%I') writes them, to compare with what it says."""
    pairs = [(table.schema, table.name) for table in tables]
    if not pairs:
        return set()
    rows = client.query(
        connection,
        "SELECT format('%%I.%%I', s, t) AS name FROM unnest(%s::text[], %s::text[]) AS x (s, t)",
        ([schema for schema, _table in pairs], [table for _schema, table in pairs]),
    )
    return {row["name"] for row in rows}


def find_tables(connection: Connection, names: t.Sequence[str], tables: t.Iterable[Table]) -> tuple[list[Table], list[str]]:
    """Those of the tables that are meant by names as SQL writes them, and the names that mean none of them.

    :raises PlanError: a name is written in a way that SQL does not know
    """
    try:
        rows = client.query(connection, "SELECT n AS name, to_regclass(n)::oid::bigint AS oid FROM unnest(%s::text[]) n", (list(names),))
    except ClientError as error:
        if error.details.get("sqlstate") is None:
            raise
        raise PlanError(f"Not all of these are names of tables as SQL writes them, with schema: {', '.join(names)}.") from error
    known = {table.oid: table for table in tables}
    found = {row["oid"]: known[row["oid"]] for row in rows if row["oid"] in known}
    return list(found.values()), [row["name"] for row in rows if row["oid"] not in known]


def end_strays(connection: Connection) -> None:
    """End sessions of an interrupted copy that still work in this database."""
    client.query(
        connection,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s AND pid <> pg_backend_pid()",
        (WORKER_NAME,),
    )


def wait_for_strays(connection: Connection, timeout_seconds: float = 30, clock: Clock = SYSTEM_CLOCK) -> None:
    """End them and wait until they are gone: what they had not committed is then undone.

    :raises WaitTimeout: one stayed
    """

    def strays() -> int:
        end_strays(connection)
        statement = "SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
        return int(client.query_value(connection, statement, (WORKER_NAME,)))

    wait_until(strays, lambda number: number == 0, "The end of the interrupted copy's sessions", timeout_seconds, 0.1, clock)


def unlink_large_objects(connection: Connection) -> None:
    """Remove all large objects, a thousand per transaction: each one takes a lock."""
    while client.query(connection, "SELECT lo_unlink(oid) FROM (SELECT oid FROM pg_largeobject_metadata LIMIT 1000) AS chunk"):
        pass


def read_identity(connection: Connection) -> dict[str, str]:
    """Which database of which server this is: ``{"system_identifier", "database"}``."""
    return client.query(connection, "SELECT system_identifier::text, current_database()::text AS database FROM pg_control_system()")[0]


def read_run(connection: Connection) -> dict[str, t.Any] | None:
    """The row of the whole copy, or None."""
    there = client.query_value(connection, "SELECT to_regclass(%s) IS NOT NULL", (f"{own.SCHEMA}.copy",))
    if not there:
        return None
    rows = client.query(
        connection,
        "SELECT state, started_at::text AS started_at, finished_at::text AS finished_at, detail, "
        f"extract(epoch FROM clock_timestamp() - started_at)::float8 AS elapsed FROM {own.SCHEMA}.copy WHERE relation = %s",
        (RUN,),
    )
    return rows[0] if rows else None


def write_run(connection: Connection, state: str, detail: dict[str, t.Any], *, begin: bool = False) -> None:
    """Write the row of the whole copy."""
    client.query(
        connection,
        f"INSERT INTO {own.SCHEMA}.copy AS c (relation, state, bytes_total, started_at, finished_at, detail) "
        "VALUES (%(run)s, %(state)s, 0, clock_timestamp(), NULL, %(detail)s) ON CONFLICT (relation) DO UPDATE SET state = excluded.state, "
        "detail = excluded.detail, started_at = CASE WHEN %(begin)s THEN clock_timestamp() ELSE c.started_at END, "
        "finished_at = CASE WHEN excluded.state IN ('done', 'failed') THEN clock_timestamp() END",
        {"run": RUN, "state": state, "detail": json.dumps(detail), "begin": begin},
    )


def begin_run(connection: Connection, detail: dict[str, t.Any], again: t.Iterable[Table]) -> None:
    """Write that a run begins, and make these finished tables waiting ones, all or nothing: half of it would look like another kind of interruption."""
    client.query(connection, "BEGIN")
    write_run(connection, "copying", detail, begin=True)
    write_tables_again(connection, again)
    client.query(connection, "COMMIT")


def write_tables(connection: Connection, tables: t.Iterable[Table]) -> None:
    """Replace the rows of the tables by waiting ones."""
    client.query(connection, f"DELETE FROM {own.SCHEMA}.copy WHERE relation <> %s", (RUN,))
    write_tables_again(connection, tables)


def write_tables_again(connection: Connection, tables: t.Iterable[Table]) -> None:
    """Make the rows of these tables waiting ones, and leave the others."""
    rows = list(tables)
    client.query(
        connection,
        f"INSERT INTO {own.SCHEMA}.copy (relation, state, bytes_total, detail) "
        "SELECT r, 'waiting', b, jsonb_build_object('oid', o) FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS x (r, b, o) "
        "ON CONFLICT (relation) DO UPDATE SET state = excluded.state, bytes_total = excluded.bytes_total, detail = excluded.detail, "
        "rows_done = NULL, started_at = NULL, finished_at = NULL",
        ([table.quoted for table in rows], [table.bytes for table in rows], [table.oid for table in rows]),
    )


def write_table_started(connection: Connection, name: str) -> None:
    """A table's copy begins."""
    client.query(connection, f"UPDATE {own.SCHEMA}.copy SET state = 'copying', started_at = clock_timestamp() WHERE relation = %s", (name,))


def write_table_done(connection: Connection, name: str, rows: int, detail: dict[str, t.Any]) -> None:
    """A table's copy has ended."""
    client.query(
        connection,
        f"UPDATE {own.SCHEMA}.copy SET state = 'done', rows_done = %s, finished_at = clock_timestamp(), detail = detail || %s WHERE relation = %s",
        (rows, json.dumps(detail), name),
    )


def read_tables_done(connection: Connection) -> list[dict[str, t.Any]]:
    """Rows of the tables."""
    return client.query(connection, f"SELECT relation, state, bytes_total, rows_done FROM {own.SCHEMA}.copy WHERE relation <> %s ORDER BY 1", (RUN,))


def read_by_table(connection: Connection, seconds: float) -> list[dict[str, t.Any]]:
    """When each table was copied by the run that began so many seconds ago, by the target's clock; without tables of our own."""
    return client.query(
        connection,
        "SELECT relation AS table, rows_done AS rows, bytes_total AS bytes, round(extract(epoch FROM started_at - begun)::numeric, 3)::float8 AS from_s, "
        "round(extract(epoch FROM finished_at - begun)::numeric, 3)::float8 AS to_s "
        f"FROM {own.SCHEMA}.copy, (SELECT clock_timestamp() - make_interval(secs => %s) AS begun) AS run "
        "WHERE state = 'done' AND relation <> %s AND started_at >= begun AND relation NOT LIKE %s ORDER BY started_at, relation",
        (seconds, RUN, f"{identifier(own.SCHEMA)}.%"),
    )


def read_running(connection: Connection) -> dict[str, int]:
    """Bytes that running COPYs into this database have processed, by our way of quoting."""
    rows = client.query(
        connection,
        "SELECT n.nspname::text AS schema, c.relname::text AS name, p.bytes_processed FROM pg_stat_progress_copy p JOIN pg_class c ON c.oid = p.relid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.datname = current_database()",
    )
    return {relation(row["schema"], row["name"]): int(row["bytes_processed"]) for row in rows}
