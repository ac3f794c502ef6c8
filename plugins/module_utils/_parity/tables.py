# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Reads of the row comparison: tables, ranges, sums, large objects."""

from __future__ import annotations

import typing as t

from .._core.errors import ClientError
from .._postgresql import client, large_objects
from .._postgresql.quoting import identifier, literal
from . import plan
from .model import Chunk, Key, Sum, Table
from .names import PROBE_TABLE, SCHEMA, SYSTEM_SCHEMAS

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# What every worker sets over and above the client's settings: the same text of every type on both sides, and no more processes
# than were asked for.
WORKER_SETTINGS = {"lc_monetary": "C", "xmlbinary": "base64", "jit": "off", "max_parallel_workers_per_gather": "0"}

_USERS = (
    "n.nspname !~ '^pg_(temp|toast_temp)_' AND n.nspname NOT IN ("
    + ", ".join(f"'{name}'" for name in SYSTEM_SCHEMAS)
    + f") AND (n.nspname <> '{SCHEMA}' OR c.relname = '{PROBE_TABLE}')"
)

_TABLES = f"""
    WITH RECURSIVE published(oid) AS (
        SELECT c.oid FROM pg_publication_tables p JOIN pg_namespace n ON n.nspname = p.schemaname
             JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
        WHERE p.pubname = %s
        UNION SELECT i.inhrelid FROM published JOIN pg_inherits i ON i.inhparent = published.oid)
    SELECT format('%%I.%%I', n.nspname, c.relname) AS name, c.oid::bigint AS oid, pg_relation_filenode(c.oid)::bigint AS filenode,
           pg_relation_size(c.oid) AS bytes, c.relpersistence::text AS persistence, c.oid IN (SELECT oid FROM published) AS published,
           ARRAY(SELECT quote_ident(a.attname) FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum)::text[] AS columns,
           coalesce((SELECT e.extname::text FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
                     WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'), '') AS extension,
           (SELECT jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, NULL), 'not_null', a.attnotnull) ORDER BY k.place)
            FROM (SELECT i.* FROM pg_index i WHERE i.indrelid = c.oid AND (i.indisprimary OR i.indisreplident) AND i.indisvalid
                  ORDER BY i.indisprimary DESC LIMIT 1) i
                 CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place) JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
            WHERE k.place <= i.indnkeyatts) AS key
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND {_USERS} ORDER BY 1"""

_UNCOMPARED = f"""
    SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relkind::text AS kind
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('m', 'f') AND {_USERS} ORDER BY 1"""

_PARTITIONED = f"""
    SELECT format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'p' AND {_USERS} ORDER BY 1"""

_LARGE_OBJECTS = f"""
    SELECT m.oid::bigint AS oid,
           md5(concat_ws(' ', pg_get_userbyid(m.lomowner), (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(m.lomacl) a))) AS rights,
           {large_objects.CONTENT} AS content
    FROM pg_largeobject_metadata m"""


def read_tables(connection: Connection, link: str) -> dict[str, Table]:
    """All ordinary tables and leaf partitions of users, and the probe's, by quoted name.

    :param link: name of the publication that says which are published
    :raises ClientError: the catalogs could not be read
    """
    found = {}
    for row in client.query(connection, _TABLES, (link,)):
        key = tuple(Key(**part) for part in row["key"] or [])
        found[row["name"]] = Table(
            row["name"], row["oid"], row["filenode"], row["bytes"], tuple(row["columns"]), key, row["published"], row["persistence"], row["extension"]
        )
    return found


def read_partitioned(connection: Connection) -> list[str]:
    """Quoted names of the partitioned tables."""
    return [row["name"] for row in client.query(connection, _PARTITIONED)]


def read_uncompared(connection: Connection) -> list[dict[str, str]]:
    """What holds rows and is not compared: ``[{"object", "reason"}]``."""
    words = {
        "m": ("materialized view", "is filled by REFRESH on the target"),
        "f": ("foreign table", "its rows are elsewhere"),
    }
    return [{"object": f"{words[row['kind']][0]} {row['name']}", "reason": words[row["kind"]][1]} for row in client.query(connection, _UNCOMPARED)]


def read_boundaries(connection: Connection, table: Table, key: Key, chunks: int) -> list[str]:
    """Inner boundaries of the first key column: out of statistics where there are some, else cut evenly; [] to read it in one piece."""
    if chunks < 2:
        return []
    statistics = client.query(
        connection,
        "SELECT s.correlation::float AS correlation, s.histogram_bounds::text::text[] AS bounds FROM pg_stats s "
        "JOIN pg_namespace n ON n.nspname = s.schemaname "
        "JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = s.tablename WHERE c.oid = %s AND s.attname = %s AND NOT s.inherited",
        (table.oid, key.name),
    )
    if statistics:
        correlation, bounds = statistics[0]["correlation"], statistics[0]["bounds"]
        if correlation is not None and abs(correlation) < plan.LEAST_CORRELATION:
            return []
        if bounds:
            return plan.quantiles(bounds, chunks)
    if key.type in plan.INTEGER_TYPES:
        column = identifier(key.name)
        low, high = client.query(connection, f"SELECT min({column}) AS low, max({column}) AS high FROM ONLY {table.name}")[0].values()
        return [] if low is None else plan.even_integers(low, high, chunks)
    return []


def import_snapshot(connection: Connection, snapshot: str) -> None:
    """Open a transaction at an exported snapshot.

    :raises ClientError: the exporting session has ended
    """
    client.query(connection, f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {literal(snapshot)}")


def read_sum(connection: Connection, snapshot: str, chunk: Chunk, table: Table) -> Sum:
    """Sum of one chunk in a transaction of its own, so that no lock on a table outlives its chunk.

    :param table: as this side sees it, with the columns in the order to use
    """
    import_snapshot(connection, snapshot)
    try:
        row = client.query(connection, plan.sum_statement(chunk, table.oid, table.columns))[0]
    except ClientError as error:
        raise ClientError(f"Table {chunk.table} ({chunk.describe()}) could not be read: {error.message}", **error.details) from error
    client.query(connection, "COMMIT")
    return Sum(row["rows"], row["total"], row["filenode"])


def read_at(connection: Connection, snapshot: str, statement: str) -> list[dict[str, t.Any]]:
    """Rows of one statement at the snapshot, in a transaction of its own."""
    import_snapshot(connection, snapshot)
    rows = client.query(connection, statement)
    client.query(connection, "COMMIT")
    return rows


def read_large_objects(connection: Connection, snapshot: str) -> dict[int, tuple[str, str]]:
    """Hash of the content and of owner and rights, by oid.

    :raises ClientError: the administrator may not read them
    """
    if not client.query(connection, "SELECT FROM pg_largeobject_metadata LIMIT 1"):
        return {}
    return {row["oid"]: (row["content"], row["rights"]) for row in read_at(connection, snapshot, _LARGE_OBJECTS)}
