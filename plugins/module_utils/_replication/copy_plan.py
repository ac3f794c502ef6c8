# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What the initial copy does, decided from what was read (pure)."""

from __future__ import annotations

import re
import typing as t

from . import own
from .model import Column, Left, Table
from .names import identifier, literal

# Types whose binary form is the same on every version that we know and holds no OID.
BINARY_SAFE = frozenset(
    [
        *("bool", "bytea", "char", "name", "int8", "int2", "int4", "text", "float4", "float8", "json", "jsonb", "bpchar", "varchar", "numeric", "money"),
        *("date", "time", "timetz", "timestamp", "timestamptz", "interval", "uuid", "inet", "cidr", "macaddr", "macaddr8", "bit", "varbit"),
        *("point", "lseg", "path", "box", "polygon", "line", "circle", "tsvector", "pg_lsn"),
        *("int4range", "int8range", "numrange", "tsrange", "tstzrange", "daterange"),
    ]
)


def copy_format(columns: t.Iterable[Column], same_encoding: bool) -> str:
    """``binary`` where that is known to be safe, else ``text``.

    An enum travels as its label, but an array of one holds the OID of its type.
    """
    safe = all((column.builtin and column.type_name in BINARY_SAFE) or (column.kind == "e" and not column.is_array) for column in columns)
    return "binary" if same_encoding and safe else "text"


def index_weight(table_bytes: int, slow: bool) -> int:
    """When an index is built, among tables and indexes that begin by weight (pure): a GIN took ten times as long as a primary key."""
    return table_bytes * 4 if slow else table_bytes // 2


def copy_statements(table: Table, form: str, referenced: bool = False) -> tuple[str, str, str]:
    """(COPY on the source, what empties the table on the target, COPY on the target).

    TRUNCATE in the same transaction lets COPY write frozen rows, which spares the target a first VACUUM. It also makes a table's copy
    repeatable.

    :param referenced: whether a foreign key of another table refers to it on the target
    """
    options = "FORMAT binary" if form == "binary" else "FORMAT text"
    empty = empty_statement(table, referenced)
    frozen = ", FREEZE" if empty.startswith("TRUNCATE") else ""
    rows = own.COPIED.get(table.name) if table.ours else None
    what = f"(SELECT {table.column_list.strip(' ()')} FROM {table.quoted} WHERE {rows})" if rows else f"{table.quoted}{table.column_list}"
    return f"COPY {what} TO STDOUT WITH ({options})", empty, f"COPY {table.quoted}{table.column_list} FROM STDIN WITH ({options}{frozen})"


def empty_statement(table: Table, referenced: bool) -> str:
    """What empties a table on the target. TRUNCATE refuses one to which a foreign key refers, and others may look into ours meanwhile."""
    return f"DELETE FROM ONLY {table.quoted}" if table.ours or referenced else f"TRUNCATE ONLY {table.quoted}"


def publication_statement(name: str, tables: t.Iterable[Table]) -> str:
    """CREATE PUBLICATION that names every table: one CREATE TABLE under FOR ALL TABLES would stop the link."""
    names = ", ".join(table.quoted for table in tables)
    return f"CREATE PUBLICATION {identifier(name)} FOR TABLE {names} WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = false)"


def slot_statement(name: str, server_version: int) -> str:
    """CREATE_REPLICATION_SLOT for a replication connection; the words changed with 15."""
    words = "(SNAPSHOT 'export')" if server_version >= 150000 else "EXPORT_SNAPSHOT"
    return f"CREATE_REPLICATION_SLOT {identifier(name)} LOGICAL pgoutput {words}"


def plan_gates(
    source: dict[str, t.Any],
    target: dict[str, t.Any],
    tables: list[Table],
    method: str,
    programs_version: int | None,
    slot_wal_limit_mib: int | None = None,
) -> list[dict[str, str]]:
    """Everything that forbids to begin, each with its remedy; [] when nothing does.

    :param source: ``{"version" (number), "wal_level", "slots_free", "senders_free", "in_recovery", "slot_elsewhere", "slot_wal_keep_mib"}``
    :param target: ``{"version", "in_recovery", "collisions" (names)}``
    :param programs_version: major version of pg_dump, None when there is none
    :param slot_wal_limit_mib: the declared limit of the WAL that our slot may hold back, None where none is declared
    """
    gates = []

    def fail(gate: str, thing: str, message: str, remedy: str) -> None:
        gates.append({"gate": gate, "object": thing, "message": message, "remedy": remedy})

    newest = max(source["version"], target["version"]) // 10000
    if programs_version is None:
        fail("programs", "pg_dump", "There is no pg_dump on the mover.", f"Install postgresql-client-{newest} there.")
    elif programs_version < newest:
        fail("programs", "pg_dump", f"pg_dump is of version {programs_version}, older than a server ({newest}).", f"Install postgresql-client-{newest}.")
    if target["version"] // 10000 < source["version"] // 10000:
        fail("version", "target", "The target is older than the source.", "Provision the target with the source's major version or a newer one.")
    if target["in_recovery"]:
        fail("primary", "target", "The target's server is a standby.", "Let service target lead to the primary.")
    for name in target["collisions"]:
        fail("empty", name, f"{name} exists on the target and does not come from a copy of ours.", "Drop it there or name another target database.")
    if method == "logical":
        if source["in_recovery"]:
            fail("primary", "source", "The source's server is a standby.", "Let service source lead to the primary.")
        if source["wal_level"] != "logical":
            fail("wal_level", "source", f"wal_level is {source['wal_level']}.", "ALTER SYSTEM SET wal_level = 'logical'; then restart the source.")
        if source["slots_free"] < 1:
            fail("slots", "source", "No replication slot is free.", "Raise max_replication_slots and restart, or drop a slot that nobody uses.")
        if source["senders_free"] < 1:
            fail("senders", "source", "No WAL sender is free.", "Raise max_wal_senders and restart.")
        if source["slot_elsewhere"]:
            fail(
                "slot",
                source["slot_elsewhere"],
                f"Database {source['slot_elsewhere']} of the same server is being migrated: its slot has the name that ours would have.",
                "Finish or retire that migration first.",
            )
        if refused := limit_gate(source["slot_wal_keep_mib"], slot_wal_limit_mib):
            fail("slot_wal_limit", "max_slot_wal_keep_size", *refused)
        for table in tables:
            if not table.identity:
                fail(
                    "replica_identity",
                    table.quoted,
                    f"{table.quoted} has neither a primary key (one that is not DEFERRABLE) nor a replica identity: "
                    "once it is published, UPDATE and DELETE on it fail.",
                    f"Add a primary key, or: ALTER TABLE {table.quoted} REPLICA IDENTITY FULL;",
                )
    return gates


def limit_gate(keep_mib: int, declared_mib: int | None) -> tuple[str, str] | None:
    """Why the source's own limit does not keep the declared one, and the remedy; None where it does (pure).

    :param keep_mib: max_slot_wal_keep_size, -1 for no limit
    """
    if declared_mib is None or 0 <= keep_mib <= declared_mib:
        return None
    now = "-1, no limit" if keep_mib < 0 else f"{keep_mib} MB"
    return (
        f"pg_ha_slot_wal_limit_mib is {declared_mib}, and max_slot_wal_keep_size is {now}: with nobody of ours alive our slot would fill the source's disk.",
        f"ALTER SYSTEM SET max_slot_wal_keep_size = '{declared_mib}MB'; SELECT pg_reload_conf(); it holds for every slot of that server.",
    )


def collisions(source_schemas: t.Collection[str], target_relations: t.Iterable[tuple[str, str]], target_schemas: t.Collection[str], own: str) -> list[str]:
    """What stands on the target where the source's objects have to go (names for the operator)."""
    found = sorted(f"{schema}.{name}" for schema, name in target_relations if schema in source_schemas and schema != own)
    empty = sorted(set(target_schemas) & set(source_schemas) - {own, "public"} - {item.partition(".")[0] for item in found})
    return found[:10] + [f"schema {name}" for name in empty]


def plan_reset(found: dict[str, t.Any], kept: dict[str, t.Any], own: str) -> list[str]:
    """Statements that take away what an interrupted copy has made on the target.

    :param found: what is there: ``{"schemas": [..], "extensions": {name: {schema, version}}, "event_triggers": [..]}``
    :param kept: the same of the moment before the copy began
    """
    statements = [f"DROP EVENT TRIGGER {identifier(name)}" for name in found["event_triggers"] if name not in kept["event_triggers"]]
    statements += [f"DROP EXTENSION {identifier(name)} CASCADE" for name in sorted(found["extensions"]) if name not in kept["extensions"]]
    statements += [f"DROP SCHEMA {identifier(name)} CASCADE" for name in found["schemas"] if name not in kept["schemas"] and name != own]
    if "public" in found["schemas"] and "public" in kept["schemas"]:
        statements += [
            "DROP SCHEMA public CASCADE",
            "CREATE SCHEMA public AUTHORIZATION pg_database_owner",
            "GRANT USAGE ON SCHEMA public TO PUBLIC",
            "COMMENT ON SCHEMA public IS 'standard public schema'",
        ]
        statements += [
            f"CREATE EXTENSION {identifier(name)} SCHEMA public VERSION {literal(item['version'])}"
            for name, item in sorted(kept["extensions"].items())
            if item["schema"] == "public"
        ]
    return statements


def split_tables(left: Left, tables: t.Iterable[Table]) -> tuple[list[Table], list[Table]]:
    """Tables whose rows are there and whose changes have been sent ever since, and the others (pure)."""
    kept: list[Table] = []
    again: list[Table] = []
    for table in tables:
        (kept if table.quoted in left.done and table.quoted in left.published else again).append(table)
    return kept, again


def why_anew(left: Left, tables: list[Table], once_finished: bool = False) -> str | None:
    """Why an interrupted copy cannot be gone on with; None when it can, as far as that is known without a dump of the schema (pure).

    :param tables: of the source as they are now
    :param once_finished: only some of its tables are copied again, or all of them
    """
    if left.slot is None:
        return "its slot is gone from the source"
    if left.slot not in ("reserved", "extended", "unreserved"):
        return f"the source has removed WAL that its slot needs (wal_status {left.slot})"
    if not left.subscribed:
        return "its subscription is gone from the target"
    if not left.published:
        return "its publication is gone from the source"
    # By OID: a table that was dropped and made again under the same name is another one, and its changes were not sent.
    now = {table.quoted: table.oid for table in tables}
    if now != left.tables:
        changed = sorted(name for name in {*now, *left.tables} if now.get(name) != left.tables.get(name))
        return f"the source's tables are no longer the same: {', '.join(changed[:5])}"
    if not once_finished and all(table.ours for table in split_tables(left, tables)[0]):
        return "no table was finished"
    return None


def public_error(output: str) -> str:
    """What pg_dump, pg_restore or psql said, without statements and rows that it shows (they may hold secrets): at most three lines."""
    told = (re.sub(r"^psql:[^ ]*:\d+: (?=ERROR: )", "psql: ", line) for line in output.splitlines())
    lines = [" ".join(line.split()) for line in told if line.startswith(("pg_dump: ", "pg_restore: ", "psql: ", "HINT: "))]
    lines = [line for line in lines if not line.startswith("pg_restore: while ")]
    return " / ".join(lines[:3])[:600] or "it ended without a message"


def progress(rows: list[dict[str, t.Any]], running: dict[str, int]) -> dict[str, t.Any]:
    """Bytes and tables done so far.

    :param rows: of ha_migration.copy without the run's own
    :param running: relation -> bytes that its COPY has processed; a stream is not as long as a table, hence the cap
    """
    total = sum(row["bytes_total"] for row in rows)
    done = 0
    for row in rows:
        if row["state"] == "done":
            done += row["bytes_total"]
        elif row["relation"] in running:
            done += min(running[row["relation"]], int(row["bytes_total"] * 0.99))
    tables_done = sum(1 for row in rows if row["state"] == "done")
    rows_done = sum(row["rows_done"] or 0 for row in rows)
    return {"bytes_total": total, "bytes_done": done, "tables_total": len(rows), "tables_done": tables_done, "rows_done": rows_done}


def estimate_seconds(done: int, total: int, elapsed: float) -> int | None:
    """Seconds until all bytes are copied at the pace so far; None while there is no pace."""
    if done <= 0 or elapsed <= 1:
        return None
    return int((total - done) * elapsed / done)


def describe(row: dict[str, t.Any] | None, tables: list[dict[str, t.Any]], running: dict[str, int], locked: bool, alarm: str = "") -> dict[str, t.Any]:
    """The copy's state from what was read.

    :param row: the whole's row of ha_migration.copy, None where there is none
    :param tables: the other rows
    :param running: relation -> bytes that its COPY has processed
    :param locked: whether somebody holds the copy's lock
    :param alarm: of the slot that holds back WAL meanwhile
    """
    detail = row["detail"] if row else {}
    state = "absent" if row is None else row["state"]
    if state == "copying":
        state = "running" if locked else "interrupted"
    done = progress(tables, running)
    # At the pace of this run: what it has kept of an interrupted one took it no time.
    kept = (detail.get("resumed") or {}).get("bytes_kept", 0)
    left = estimate_seconds(done["bytes_done"] - kept, done["bytes_total"] - kept, row["elapsed"]) if row and state == "running" else None
    description = {
        "state": state,
        "ended": not locked,
        "step": detail.get("step"),
        "method": detail.get("method"),
        **done,
        "seconds_left": left,
        "error": detail.get("error"),
        "resumed": detail.get("resumed"),
        "report": detail.get("report"),
    }
    return {**description, "summary": _summary(description) + (f"; {alarm}" if alarm else "")}


def _summary(copy: dict[str, t.Any]) -> str:
    """One line for the operator."""
    if copy["state"] == "absent":
        return "no copy has begun"
    words = f"{copy['state']}, step {copy['step']}: {copy['tables_done']} of {copy['tables_total']} tables, "
    words += f"{copy['bytes_done'] // 1048576} of {copy['bytes_total'] // 1048576} MiB"
    words += f", {copy['resumed']['tables_kept']} tables kept of an earlier run" if copy["resumed"] else ""
    return words + (f", about {copy['seconds_left']} s left for rows" if copy["seconds_left"] is not None else "")
