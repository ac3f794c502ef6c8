# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Pure part of the row comparison: which tables, which ranges, which statements, what differs."""

from __future__ import annotations

import datetime
import re
import typing as t

from .._postgresql.quoting import identifier, literal
from .model import SIDES, SOURCE, TARGET, Chunk, Key, Table

# Types whose values order the same on every server and whose text form is a literal.
RANGE_TYPES = {
    "smallint",
    "integer",
    "bigint",
    "uuid",
    "date",
    "timestamp with time zone",
    "timestamp without time zone",
}
INTEGER_TYPES = ("smallint", "integer", "bigint")
# Below this correlation a range of keys is spread over the whole table, and every chunk would read all of it.
LEAST_CORRELATION = 0.7
MOST_CHUNKS = 2000
# How many keys a mismatch names, and how many rows of a side are looked at to find them.
NAMED_KEYS = 10
ROWS_PER_BUCKET = 200
MOST_BUCKETS = 65_536
LOOKED_INTO_BUCKETS = 20


def select_tables(
    here: dict[str, Table], there: dict[str, Table], following: bool, ahead: str = TARGET
) -> tuple[list[str], list[dict[str, str]], list[dict[str, t.Any]]]:
    """Which tables are compared.

    :param here: tables of the side that serves
    :param there: tables of the other
    :param following: whether the application writes and a link carries it
    :param ahead: the other side
    :returns: names to compare, ``{"object", "reason"}`` of those that are not, and mismatches
    """
    compared: list[str] = []
    not_compared: list[dict[str, str]] = []
    mismatches: list[dict[str, t.Any]] = []
    for name in sorted(here):
        table = here[name]
        if table.persistence == "u":
            not_compared.append({"object": f"table {name}", "reason": f"unlogged: its changes are in no stream, so the {ahead} has no rows of it"})
        elif table.extension and not table.published:
            reason = f"belongs to extension {table.extension}, which fills it; rows that users have added there are not looked at"
            not_compared.append({"object": f"table {name}", "reason": reason})
        elif following and not table.published:
            problem = f"is not in the publication, so its changes do not reach the {ahead}"
            mismatches.append(_whole(name, problem))
        elif name not in there:
            mismatches.append(_whole(name, f"is missing on the {ahead}"))
        elif set(table.columns) != set(there[name].columns):
            differing = ", ".join(sorted(set(table.columns) ^ set(there[name].columns)))
            mismatches.append(_whole(name, f"has other columns on the {ahead} ({differing})"))
        else:
            compared.append(name)
    return compared, not_compared, mismatches


def _whole(name: str, problem: str) -> dict[str, t.Any]:
    return {"object": f"table {name}", "table": name, "range": "all rows", "problem": problem}


def range_key(source: Table, target: Table) -> Key | None:
    """The first key column when its ranges mean the same on both sides and hold every row (pure)."""
    if not source.key or not target.key:
        return None
    here, there = source.key[0], target.key[0]
    if here != there or not here.not_null or here.type not in RANGE_TYPES:
        return None
    return here


def wanted_chunks(bytes_total: int, chunk_bytes: int) -> int:
    """How many chunks a table of that size gets (pure)."""
    return max(1, min(MOST_CHUNKS, -(-bytes_total // chunk_bytes)))


def quantiles(bounds: list[str], chunks: int) -> list[str]:
    """At most ``chunks - 1`` inner boundaries out of a histogram's bounds, evenly spaced and each once (pure)."""
    inner = bounds[1:-1]
    if chunks < 2 or not inner:
        return []
    if len(inner) < chunks:
        return inner
    return list(dict.fromkeys(inner[len(inner) * number // chunks] for number in range(1, chunks)))


def even_integers(low: int, high: int, chunks: int) -> list[str]:
    """Inner boundaries that cut the integers low..high evenly (pure)."""
    cuts = {low + (high - low + 1) * number // chunks for number in range(1, chunks)}
    return [str(cut) for cut in sorted(cuts) if low < cut <= high]


def even_uuids(chunks: int) -> list[str]:
    """Inner boundaries that cut all UUIDs evenly (pure)."""
    cuts = [f"{(1 << 32) * number // chunks:08x}-0000-0000-0000-000000000000" for number in range(1, chunks)]
    return list(dict.fromkeys(cuts))


def plan_chunks(table: str, key: Key | None, boundaries: list[str]) -> list[Chunk]:
    """Ranges that together hold every row: the outermost ones are open (pure)."""
    if key is None or not boundaries:
        return [Chunk(table)]
    ends = [None, *boundaries, None]
    return [Chunk(table, identifier(key.name), key.type, low, high) for low, high in zip(ends, ends[1:], strict=False)]


def predicate(chunk: Chunk) -> str:
    """WHERE clause of a chunk (pure)."""
    parts = []
    if chunk.low is not None:
        parts.append(f"{chunk.column} >= {literal(chunk.low)}::{chunk.type}")
    if chunk.high is not None:
        parts.append(f"{chunk.column} < {literal(chunk.high)}::{chunk.type}")
    return " AND ".join(parts) if parts else "true"


def row_hash(columns: t.Sequence[str]) -> str:
    """Expression for a row's hash: over the text form of all columns, which both sides print under the same settings (pure)."""
    return f'hashtextextended(ROW({", ".join(columns)})::text COLLATE "C", 0)'


def sum_statement(chunk: Chunk, oid: int, columns: t.Sequence[str]) -> str:
    """Count and sum of hashes of a chunk, and which file the table had meanwhile (pure)."""
    return (
        f"SELECT count(*) AS rows, coalesce(sum({row_hash(columns)}), 0)::text AS total, pg_relation_filenode({oid:d}) AS filenode "
        f"FROM ONLY {chunk.table} WHERE {predicate(chunk)}"
    )


def identity_columns(table: Table) -> list[str]:
    """What tells rows apart: the key, or the whole row where there is none (pure)."""
    return [identifier(key.name) for key in table.key] or list(table.columns)


def buckets_for(rows: int) -> int:
    """A power of two, so that a bucket holds about ROWS_PER_BUCKET rows (pure)."""
    buckets = 16
    while buckets < MOST_BUCKETS and buckets * ROWS_PER_BUCKET < rows:
        buckets *= 2
    return buckets


def bucket_expression(identity: t.Sequence[str], buckets: int) -> str:
    """The bucket of a row (pure)."""
    return f"({row_hash(identity)} & {buckets - 1})"


def bucket_statement(chunk: Chunk, columns: t.Sequence[str], identity: t.Sequence[str], buckets: int) -> str:
    """Count and sum per bucket of a chunk (pure)."""
    return (
        f"SELECT {bucket_expression(identity, buckets)} AS bucket, count(*) AS rows, sum({row_hash(columns)})::text AS total "
        f"FROM ONLY {chunk.table} WHERE {predicate(chunk)} GROUP BY 1"
    )


def rows_statement(chunk: Chunk, table: Table, columns: t.Sequence[str], identity: t.Sequence[str], buckets: int, chosen: t.Sequence[int]) -> str:
    """Key (as a text array, empty without a key), identity and hash of each row in the chosen buckets; never a row's contents (pure)."""
    key = ", ".join(f"{identifier(part.name)}::text" for part in table.key)
    return (
        f"SELECT ARRAY[{key}]::text[] AS key, {row_hash(identity)} AS identity, {row_hash(columns)} AS hash "
        f"FROM ONLY {chunk.table} WHERE {predicate(chunk)} AND {bucket_expression(identity, buckets)} IN ({', '.join(str(int(number)) for number in chosen)})"
    )


def differing_buckets(source: list[dict[str, t.Any]], target: list[dict[str, t.Any]]) -> list[int]:
    """Buckets whose count or sum differs, in order (pure)."""
    sums = [{row["bucket"]: (row["rows"], row["total"]) for row in rows} for rows in (source, target)]
    return sorted(bucket for bucket in sums[0].keys() | sums[1].keys() if sums[0].get(bucket) != sums[1].get(bucket))


def differing_rows(table: Table, source: list[dict[str, t.Any]], target: list[dict[str, t.Any]]) -> tuple[dict[str, int], list[dict[str, str]], str]:
    """Which rows differ (pure).

    :returns: ``{"missing", "extra", "different"}`` (seen from the target), the first NAMED_KEYS as ``{"key", "problem"}``, and the
      range of the first key column that holds them all ('' without a key)
    """
    counts = {"missing": 0, "extra": 0, "different": 0}
    sides = []
    for rows in (source, target):
        side: dict[t.Any, list[int]] = {}
        shown: dict[t.Any, str] = {}
        for row in rows:
            identity = tuple(row["key"]) if table.key else row["identity"]
            side.setdefault(identity, []).append(row["hash"])
            shown[identity] = describe_key(table, row)
        sides.append((side, shown))
    (here, here_shown), (there, there_shown) = sides
    found: list[tuple[t.Any, str, str]] = []
    for identity in here.keys() | there.keys():
        ours, theirs = sorted(here.get(identity, [])), sorted(there.get(identity, []))
        if ours == theirs:
            continue
        order = key_order(table, identity)
        shown_key = here_shown.get(identity) or there_shown[identity]
        if len(ours) > len(theirs):
            counts["missing"] += len(ours) - len(theirs)
            found.append((order, shown_key, f"missing on the {TARGET}"))
        elif len(theirs) > len(ours):
            counts["extra"] += len(theirs) - len(ours)
            found.append((order, shown_key, f"not on the {SOURCE}"))
        else:
            counts["different"] += len(ours)
            found.append((order, shown_key, "different"))
    found.sort()
    span = ""
    if table.key and found:
        first, last = found[0][0][0], found[-1][0][0]
        span = f"{identifier(table.key[0].name)} = {first}" if first == last else f"{identifier(table.key[0].name)} from {first} to {last}"
    return counts, [{"key": key, "problem": problem} for _order, key, problem in found[:NAMED_KEYS]], span


def key_order(table: Table, identity: t.Any) -> t.Any:
    """What rows are listed by: numbers as numbers, the rest by its text (pure)."""
    if not table.key:
        return identity
    return tuple(int(value) if part.type in INTEGER_TYPES and value is not None else str(value) for part, value in zip(table.key, identity, strict=True))


def describe_key(table: Table, row: dict[str, t.Any]) -> str:
    """A row's key for people; a row without a key is named by its hash (pure)."""
    if not table.key:
        return f"row hash {row['hash']} (the table has no key)"
    return ", ".join(f"{part.name}={'null' if value is None else value}" for part, value in zip(table.key, row["key"], strict=True))


def mismatch_sentence(mismatch: dict[str, t.Any]) -> str:
    """One sentence for one mismatch (pure)."""
    where = mismatch["object"] + (f" ({mismatch['range']})" if mismatch.get("range") else "")
    named = "; ".join(f"{key['key']}: {key['problem']}" for key in mismatch.get("keys") or [])
    return f"{where[0].upper()}{where[1:]}: {mismatch['problem']}" + (f" [{named}]" if named else "") + "."


def uncompared_changes(
    evidence: dict[str, t.Any] | None, hashes: dict[str, str], not_compared: t.Sequence[str], recorded: dict[str, list[dict[str, t.Any]]]
) -> list[dict[str, t.Any]]:
    """Mismatches for what may have changed on one side in objects whose definitions two majors print differently (pure).

    After a comparison that ended well, one side's fingerprint alone has another hash although nothing differs. Without one, DDL on such an object was
    recorded. Either is told once: whoever has brought both sides in step compares again.

    :param evidence: of the last comparison
    :param hashes: the schemas' fingerprints by side, as they are now, between which nothing differs
    :param not_compared: such objects, as a fingerprint names them
    :param recorded: DDL by side since that comparison began, or ever: ``{"at", "role", "command", "object"}``
    """
    if not not_compared:
        return []
    if evidence is not None and evidence.get("outcome") == "done" and "fingerprint" in evidence:
        changed = [side for side in SIDES if evidence["fingerprint"][side]["sha256"] != hashes[side]]
        if len(changed) != 1:
            return []
        side, other = changed[0], SIDES[1 - SIDES.index(changed[0])]
        problem = (
            f"changed on the {side} since the last comparison and not on the {other}, in what the two majors print differently "
            f"({', '.join(not_compared[:NAMED_KEYS])}): make the same change on the {other} and run verify again"
        )
        return [{"object": "schema", "side": side, "problem": problem}]
    names = {_without_arguments(name) for name in not_compared}
    return [
        {
            "object": row["object"],
            "side": side,
            "problem": f"role {row['role']} ran {row['command']} on the {side} at {row['at']}, and the two majors print its definition differently, so that it "
            "cannot be compared: see that both sides have the same and run verify again",
        }
        for side, rows in recorded.items()
        for row in rows
        if _without_arguments(row["object"]) in names
    ]


def _without_arguments(name: str) -> str:
    """An object as fingerprint and event trigger both name it: a function without arguments, a rule with its table (pure)."""
    rule = re.fullmatch("rule (.+) on (.+)", name)
    return f"rule {rule[2]}.{rule[1]}" if rule else name.split("(", 1)[0]


def why_void(
    evidence: dict[str, t.Any],
    hashes: dict[str, str],
    positions: dict[str, dict[str, t.Any]],
    moved_to: t.Collection[str],
    max_age_seconds: float,
    now: datetime.datetime,
) -> str:
    """Why the evidence of a comparison proves nothing any more, '' when it holds (pure).

    :param hashes: the schemas' fingerprints by side, as they are now
    :param positions: system identifier and timeline by side, as they are now
    :param moved_to: sides to which clients came after the comparison
    """
    try:
        if evidence["outcome"] != "done":
            return "the last comparison did not end well"
        for side in (SOURCE, TARGET):
            for fact, words in (("system_identifier", "is another server"), ("timeline", "had a failover")):
                if evidence[side][fact] != positions[side][fact]:
                    return f"the {side} {words} since the last comparison"
            if evidence["fingerprint"][side]["sha256"] != hashes[side]:
                return f"the schema changed on the {side} since the last comparison"
        if moved_to:
            return f"clients came to the {' and the '.join(sorted(moved_to))} since the last comparison"
        age = (now - datetime.datetime.fromisoformat(evidence["finished_at"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return "the evidence of the last comparison is not complete"
    return f"the last comparison is {age:.0f} s old" if age > max_age_seconds else ""
