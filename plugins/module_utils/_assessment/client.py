# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Reads the facts of an assessment. Only reads: the sessions are read-only at the server too."""

from __future__ import annotations

import typing as t

from .._core.errors import ClientError
from .._postgresql import client
from .model import Role, Sequence, Session, Source, Table, Target

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

SETTINGS = (
    "wal_level", "max_replication_slots", "max_wal_senders", "fsync", "full_page_writes", "max_locks_per_transaction", "max_connections",
    "max_prepared_transactions", "max_slot_wal_keep_size", "password_encryption", "data_checksums", "synchronous_commit", "server_version",
)  # fmt: skip

# Schemas that are not the application's, and members of extensions: CREATE EXTENSION makes those on the target.
OURS = "n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'ha_migration')"
NOT_OF_EXTENSION = "NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '{catalogue}'::regclass AND d.objid = {oid} AND d.deptype = 'e')"

SERVER = """
SELECT version() AS version, current_setting('server_version_num')::int AS version_num, pg_is_in_recovery() AS in_recovery,
       d.datname::text AS database, pg_encoding_to_char(d.encoding)::text AS encoding, d.datcollate::text AS collate, d.datctype::text AS ctype,
       coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') AS provider, to_jsonb(d) ->> 'datcollversion' AS recorded, pg_database_size(d.oid) AS bytes,
       coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') AS locale
FROM pg_database d WHERE d.datname = current_database()"""

ADMINISTRATOR = """
SELECT r.rolname::text AS name, r.rolsuper AS superuser, r.rolsuper OR r.rolbypassrls AS bypassrls, r.rolsuper OR r.rolcreaterole AS createrole,
       r.rolsuper OR r.rolreplication AS replication, pg_has_role(r.oid, 'pg_read_all_stats', 'USAGE') AS reads_statistics,
       has_table_privilege('pg_catalog.pg_authid', 'SELECT') AS reads_passwords,
       r.rolsuper OR EXISTS (SELECT FROM pg_roles s WHERE s.rolname = 'rds_superuser' AND pg_has_role(r.oid, s.oid, 'MEMBER')) AS event_triggers
FROM pg_roles r WHERE r.rolname = current_user"""

TABLES = f"""
SELECT format('%I.%I', n.nspname, c.relname) AS ident, c.relkind::text AS kind, c.relpersistence::text AS persistence, c.relreplident::text AS identity,
       c.relispartition AS is_partition, quote_ident(pg_get_userbyid(c.relowner)) AS owner, pg_has_role(c.relowner, 'USAGE') AS owned,
       has_table_privilege(c.oid, 'SELECT') AS readable, c.relrowsecurity AND row_security_active(c.oid) AS row_security,
       c.relrowsecurity AND c.relforcerowsecurity AS forces_row_security, c.relrowsecurity AS has_row_security,
       pg_total_relation_size(c.oid) AS bytes, greatest(c.reltuples, 0)::bigint AS rows, coalesce(s.spcname::text, '') AS tablespace,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indisvalid AND i.indimmediate) AS primary_key,
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident AND i.indisvalid AND i.indimmediate) AS identity_index,
       (SELECT ic.relname::text FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid
         WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
           AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey) AND NOT a.attnotnull)
         ORDER BY i.indnkeyatts, ic.relname LIMIT 1) AS candidate_index,
       EXISTS (SELECT FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_am am ON am.oid = ic.relam
                WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND i.indkey[0] <> 0 AND am.amname IN ('btree', 'hash')) AS searchable,
       ARRAY(SELECT a.attname || ' ' || format_type(a.atttypid, a.atttypmod) FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
              JOIN pg_type b ON b.oid = CASE WHEN y.typbasetype <> 0 THEN y.typbasetype ELSE y.oid END
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND b.typname IN ('json', 'xml', 'point', 'polygon', 'path', 'line', 'lseg', 'circle', 'box') ORDER BY a.attnum) AS incomparable
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace
WHERE c.relkind IN ('r', 'p', 'f', 'm') AND c.relpersistence <> 't' AND {OURS} AND {NOT_OF_EXTENSION.format(catalogue="pg_class", oid="c.oid")}
ORDER BY 1"""

SEQUENCES = f"""
SELECT format('%I.%I', n.nspname, c.relname) AS ident, format_type(q.seqtypid, NULL) AS type, q.seqcycle AS cycle,
       CASE WHEN has_sequence_privilege(c.oid, 'SELECT') OR has_sequence_privilege(c.oid, 'USAGE') THEN
         (CASE WHEN q.seqincrement > 0 THEN coalesce(pg_sequence_last_value(c.oid), q.seqmin)::numeric - q.seqmin
               ELSE q.seqmax::numeric - coalesce(pg_sequence_last_value(c.oid), q.seqmax) END
          / greatest(q.seqmax::numeric - q.seqmin, 1))::float END AS used
FROM pg_sequence q JOIN pg_class c ON c.oid = q.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't' AND {OURS} AND {NOT_OF_EXTENSION.format(catalogue="pg_class", oid="c.oid")}
ORDER BY 1"""

ROLES = f"""
SELECT r.rolname::text AS name, quote_ident(r.rolname) AS ident, r.rolsuper AS superuser, r.rolreplication AS replication,
       r.rolsuper OR r.rolbypassrls AS bypassrls,
       (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid = r.oid AND a.datname = current_database() AND a.backend_type = 'client backend'
         AND a.pid <> pg_backend_pid() AND a.application_name NOT LIKE 'pg_ha%') AS sessions,
       (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relowner = r.oid AND c.relkind IN ('r', 'p') AND {OURS}) AS owns,
       pg_has_role(r.oid, CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END) AS becomes
FROM pg_roles r WHERE r.rolcanlogin AND r.rolname !~ '^pg_' ORDER BY 1"""

PASSWORDS = """
SELECT rolname::text AS name, CASE WHEN rolpassword IS NULL THEN 'none' WHEN rolpassword LIKE 'SCRAM-SHA-256$%' THEN 'scram' ELSE 'md5' END AS password
FROM pg_authid WHERE rolcanlogin"""

SESSIONS = """
SELECT a.usename::text AS user, coalesce(host(a.client_addr), '') AS address, coalesce(a.application_name, '') AS application, count(*) AS count,
       extract(epoch FROM max(clock_timestamp() - a.xact_start))::float AS transaction_seconds,
       bool_or(a.state LIKE 'idle in transaction%' AND a.xact_start = o.oldest) IS TRUE AS idle
FROM pg_stat_activity a
LEFT JOIN LATERAL (SELECT min(b.xact_start) AS oldest FROM pg_stat_activity b
  WHERE b.usename = a.usename AND b.client_addr IS NOT DISTINCT FROM a.client_addr AND b.application_name = a.application_name
    AND b.datname = a.datname AND b.backend_type = 'client backend') o ON true
WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""

# Lists of names: one column called name.
NAMES = {
    "nondeterministic_collations": f"SELECT format('%I.%I', n.nspname, c.collname) AS name FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace "
    f"WHERE NOT c.collisdeterministic AND {OURS} ORDER BY 1",
    "standbys": "SELECT coalesce(nullif(application_name, ''), 'pid ' || pid) AS name FROM pg_stat_replication "
    "WHERE application_name NOT LIKE 'ha_migration%' AND pid NOT IN (SELECT active_pid FROM pg_replication_slots WHERE slot_type = 'logical' "
    "AND active_pid IS NOT NULL) ORDER BY 1",
    "logical_slots": "SELECT slot_name::text AS name FROM pg_replication_slots WHERE slot_type = 'logical' AND slot_name NOT LIKE 'ha_migration%' "
    "AND database = current_database() ORDER BY 1",
    "event_triggers": f"SELECT quote_ident(e.evtname) AS name FROM pg_event_trigger e WHERE e.evtenabled <> 'D' AND e.evtname NOT LIKE 'ha_migration%' "
    f"AND {NOT_OF_EXTENSION.format(catalogue='pg_event_trigger', oid='e.oid')} ORDER BY 1",
    "replica_triggers": f"SELECT format('%I ON %I.%I', g.tgname, n.nspname, c.relname) AS name FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid "
    f"JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT g.tgisinternal AND g.tgenabled IN ('A', 'R') AND g.tgname <> 'ha_migration_guard' AND {OURS} "
    "ORDER BY 1",
    "publications": "SELECT quote_ident(pubname) AS name FROM pg_publication WHERE pubname NOT LIKE 'ha_migration%' ORDER BY 1",
    "subscriptions": "SELECT quote_ident(s.subname) AS name FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid "
    "WHERE d.datname = current_database() AND s.subname NOT LIKE 'ha_migration%' ORDER BY 1",
    "untrusted_functions": "SELECT p.oid::regprocedure::text AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
    f"JOIN pg_language l ON l.oid = p.prolang WHERE NOT l.lanpltrusted AND p.prokind <> 'a' AND {OURS} "
    f"AND {NOT_OF_EXTENSION.format(catalogue='pg_proc', oid='p.oid')} "
    "AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = 'pg_proc'::regclass AND x.objid = p.oid AND x.deptype = 'i') ORDER BY 1",
    "definer_functions": "SELECT p.oid::regprocedure::text AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
    f"JOIN pg_roles r ON r.oid = p.proowner WHERE p.prosecdef AND r.rolsuper AND {OURS} "
    f"AND {NOT_OF_EXTENSION.format(catalogue='pg_proc', oid='p.oid')} ORDER BY 1",
    "prepared_transactions": "SELECT gid AS name FROM pg_prepared_xacts WHERE database = current_database() ORDER BY 1",
    "other_databases": "SELECT datname::text AS name FROM pg_database WHERE NOT datistemplate AND datallowconn AND datname <> current_database() "
    "AND datname NOT IN ('postgres', 'rdsadmin') ORDER BY 1",
}


def connect(service_file: str, service: str, connect_timeout_seconds: int, dbname: str | None = None) -> Connection:
    """A session that can only read, whatever the module asks for; in the service's own database when none is named."""
    parameters: dict[str, t.Any] = {} if dbname is None else {"dbname": dbname}
    return client.connect(
        service_file,
        service,
        application_name="pg_ha assessment_info",
        connect_timeout_seconds=connect_timeout_seconds,
        # search_path stays pg_catalog: a function of the application must not answer for one of the server.
        settings={"default_transaction_read_only": "on"},
        **parameters,
    )


def read_source(connection: Connection, pooler_auth_function: str) -> Source:
    """All facts of the source.

    :raises ClientError: a fact could not be read; nothing is guessed
    """
    server = client.query(connection, SERVER)[0]
    administrator = client.query(connection, ADMINISTRATOR)[0]
    settings = {
        row["name"]: row["setting"] for row in client.query(connection, "SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", (list(SETTINGS),))
    }
    names: dict[str, t.Any] = {key: tuple(row["name"] for row in client.query(connection, statement)) for key, statement in NAMES.items()}
    return Source(
        version=server["version"],
        version_num=server["version_num"],
        in_recovery=server["in_recovery"],
        database=server["database"],
        settings=settings,
        administrator=administrator,
        bytes=server["bytes"],
        encoding=server["encoding"],
        collate=server["collate"] if server["provider"] == "c" else server["locale"],
        ctype=server["ctype"],
        provider=server["provider"],
        collation_version=read_collation_version(connection, server),
        tables=tuple(Table(**{**row, "incomparable": tuple(row["incomparable"])}) for row in client.query(connection, TABLES)),
        sequences=tuple(Sequence(**row) for row in client.query(connection, SEQUENCES)),
        roles=read_roles(connection, administrator["reads_passwords"]),
        sessions=tuple(Session(**row) for row in client.query(connection, SESSIONS)),
        extensions={
            row["extname"]: row["extversion"]
            for row in client.query(connection, "SELECT extname::text, extversion FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1")
        },
        pooler_auth=not pooler_auth_function or has_function(connection, pooler_auth_function),
        extension_rows=read_extension_rows(connection),
        **names,
        **read_counts(connection),
        **read_cron(connection),
    )


def has_function(connection: Connection, name: str) -> bool:
    """Whether a function of that name, with schema, exists, whatever its arguments."""
    schema, _dot, function = name.rpartition(".")
    return client.query_value(
        connection,
        "SELECT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = %s AND p.proname = %s)",
        (schema, function),
    )


def read_collation_version(connection: Connection, server: dict[str, t.Any]) -> tuple[str, str] | None:
    """The recorded and the actual version of the database's collation; None where there is none (before 15, C, POSIX)."""
    if server["version_num"] < 150000 or server["recorded"] is None:
        return None
    actual = client.query_value(connection, "SELECT pg_database_collation_actual_version(oid) FROM pg_database WHERE datname = current_database()")
    return None if actual is None else (server["recorded"], actual)


def read_roles(connection: Connection, reads_passwords: bool) -> tuple[Role, ...]:
    """The login roles; where the passwords' kinds may not be read they are ``unknown``."""
    kinds = {row["name"]: row["password"] for row in client.query(connection, PASSWORDS)} if reads_passwords else {}
    return tuple(Role(**row, password=kinds.get(row["name"], "unknown")) for row in client.query(connection, ROLES))


def read_extension_rows(connection: Connection) -> tuple[tuple[str, str, bool | None], ...]:
    """(extension, quoted table, whether it has rows of users) of every table in which an extension keeps them; None where that may not be read.

    Which rows those are the extension itself has declared (pg_extension_config_dump): it is what pg_dump appends to its query, too.
    """
    tables = client.query(
        connection,
        "SELECT e.extname::text AS extension, format('%I.%I', n.nspname, c.relname) AS name, x.condition, "
        "has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AS readable "
        "FROM pg_extension e CROSS JOIN unnest(e.extconfig, e.extcondition) AS x(oid, condition) JOIN pg_class c ON c.oid = x.oid AND c.relkind IN ('r', 'p') "
        "JOIN pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2",
    )
    return tuple(
        (
            row["extension"],
            row["name"],
            client.query_value(connection, f"SELECT EXISTS (SELECT FROM {row['name']} {row['condition']})") if row["readable"] else None,
        )
        for row in tables
    )


def read_counts(connection: Connection) -> dict[str, t.Any]:
    """Slots and senders of others than us, and large objects."""
    return client.query(
        connection,
        "SELECT (SELECT count(*) FROM pg_replication_slots WHERE slot_name NOT LIKE 'ha_migration%') AS slots_used, "
        "(SELECT count(*) FROM pg_stat_replication WHERE application_name NOT LIKE 'ha_migration%') AS senders_used, "
        "(SELECT count(*) FROM pg_largeobject_metadata) AS large_objects, "
        "CASE WHEN EXISTS (SELECT FROM pg_largeobject_metadata) THEN pg_total_relation_size('pg_catalog.pg_largeobject') ELSE 0 END AS large_object_bytes",
    )[0]


def read_cron(connection: Connection) -> dict[str, t.Any]:
    """Whether pg_cron is loaded, and its jobs where this database holds them and we may read them."""
    loaded = client.query_value(connection, "SELECT current_setting('cron.database_name', true) IS NOT NULL")
    readable = client.query_value(
        connection,
        "SELECT coalesce((SELECT has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'cron' AND c.relname = 'job' AND c.relkind = 'r'), false)",
    )
    return {"cron_loaded": loaded, "cron_jobs": client.query_value(connection, "SELECT count(*) FROM cron.job") if readable else None}


def read_target(connection: Connection, database: str) -> Target:
    """What the target says of itself, from a session in any of its databases."""
    extensions: dict[str, tuple[str, ...]] = {}
    for row in client.query(connection, "SELECT name::text, version FROM pg_available_extension_versions ORDER BY 1, 2"):
        extensions[row["name"]] = (*extensions.get(row["name"], ()), row["version"])
    found = client.query(
        connection,
        "SELECT pg_encoding_to_char(encoding)::text AS encoding, datcollate::text AS collate, datctype::text AS ctype, "
        "pg_database_size(oid) AS bytes FROM pg_database WHERE datname = %s",
        (database,),
    )
    return Target(
        version_num=client.query_value(connection, "SELECT current_setting('server_version_num')::int"),
        extensions=extensions,
        database=found[0] if found else None,
    )


def try_target(service_file: str, service: str, database: str, connect_timeout_seconds: int, maintenance_database: str) -> Target:
    """The target, or why it could not be asked: assess runs before it exists, so this is a finding and no error."""
    try:
        connection = connect(service_file, service, connect_timeout_seconds, dbname=maintenance_database)
    except ClientError as error:
        return Target(problem=error.message)
    try:
        return read_target(connection, database)
    finally:
        connection.close()
