# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure plans of the comparison, sequences, and the progress file."""

from __future__ import annotations

import datetime
import pathlib
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import PgHaError
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import schema
from ansible_collections.freight.pg_ha.plugins.module_utils._parity import names, plan, work
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.model import Chunk, Key, Table
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.progress import ProgressFile, read_progress

ID = Key("id", "bigint", True)


def table(name: str = "public.t", **values: t.Any) -> Table:
    """A published table with a bigint key."""
    return Table(**{"name": name, "oid": 1, "filenode": 1, "bytes": 0, "columns": ("id", "a"), "key": (ID,), "published": True, **values})


def test_names_are_those_of_the_schema() -> None:
    assert (names.SCHEMA, names.GUARD_TRIGGER, names.FORWARD_LINK) == (schema.SCHEMA, schema.GUARD_TRIGGER, schema.FORWARD_LINK)
    assert (names.LOCK_CLASS, names.LOCK_COPY, names.LOCK_CUTOVER) == (schema.LOCK_CLASS, schema.LOCK_COPY, schema.LOCK_CUTOVER)
    assert names.MARKER_TABLE == f"{schema.SCHEMA}.{schema.FORWARD_TABLES[0]}" and names.PROBE_TABLE in schema.FORWARD_TABLES


@pytest.mark.parametrize(
    ("here", "there", "following", "compared", "skipped", "problem"),
    [
        (table(), table(), True, 1, 0, None),
        (table(), None, True, 0, 0, "is missing on the target"),
        (table(published=False), table(), True, 0, 0, "is not in the publication"),
        (table(published=False), table(), False, 1, 0, None),
        (table(persistence="u", published=False), table(), True, 0, 1, None),
        (table(extension="postgis", published=False), None, True, 0, 1, None),
        (table(), table(columns=("id", "b")), True, 0, 0, "has other columns on the target (a, b)"),
    ],
)
def test_tables_are_chosen(here: Table, there: Table | None, following: bool, compared: int, skipped: int, problem: str | None) -> None:
    chosen, not_compared, mismatches = plan.select_tables({here.name: here}, {there.name: there} if there else {}, following)
    assert (len(chosen), len(not_compared)) == (compared, skipped)
    assert [mismatch["problem"].split(", so")[0] for mismatch in mismatches] == ([problem] if problem else [])


@pytest.mark.parametrize(
    ("here", "there", "found"),
    [
        (ID, ID, ID),
        (ID, Key("id", "integer", True), None),
        (Key("id", "text", True), Key("id", "text", True), None),
        (Key("id", "bigint", False), Key("id", "bigint", False), None),
        (None, ID, None),
    ],
)
def test_ranges_need_the_same_ordered_key(here: Key | None, there: Key | None, found: Key | None) -> None:
    assert plan.range_key(table(key=(here,) if here else ()), table(key=(there,) if there else ())) == found


@pytest.mark.parametrize(
    ("low", "high", "chunks", "boundaries"),
    [(1, 100, 4, ["26", "51", "76"]), (5, 5, 4, []), (-10, 9, 2, ["0"]), (1, 3, 10, ["2", "3"])],
)
def test_integers_are_cut_evenly(low: int, high: int, chunks: int, boundaries: list[str]) -> None:
    assert plan.even_integers(low, high, chunks) == boundaries


def test_ranges_hold_every_row_once() -> None:
    chunks = plan.plan_chunks("public.t", ID, ["10", "20"])
    assert [plan.predicate(chunk) for chunk in chunks] == [
        "\"id\" < '10'::bigint",
        "\"id\" >= '10'::bigint AND \"id\" < '20'::bigint",
        "\"id\" >= '20'::bigint",
    ]
    assert plan.plan_chunks("public.t", ID, []) == plan.plan_chunks("public.t", None, ["1"]) == [Chunk("public.t")]
    assert plan.predicate(Chunk("public.t")) == "true" and Chunk("public.t").describe() == "all rows"


def test_quantiles_of_a_histogram() -> None:
    bounds = [str(number) for number in range(101)]
    assert plan.quantiles(bounds, 4) == ["25", "50", "75"]
    assert plan.quantiles(["1", "2"], 4) == [] and plan.quantiles(["1", "2", "3"], 9) == ["2"]


def test_rows_without_a_key_are_counted_as_often_as_they_are_there() -> None:
    row = {"key": [], "identity": 7, "hash": 7}
    counts, keys, span = plan.differing_rows(table(key=()), [row, row, row], [row])
    assert counts == {"missing": 2, "extra": 0, "different": 0} and span == ""
    assert keys == [{"key": "row hash 7 (the table has no key)", "problem": "missing on the target"}]


def test_keys_are_listed_in_their_order() -> None:
    source = [{"key": [str(number)], "identity": number, "hash": number} for number in (2, 10, 1)]
    _counts, keys, span = plan.differing_rows(table(), source, [])
    assert [key["key"] for key in keys] == ["id=1", "id=2", "id=10"] and span == '"id" from 1 to 10'


def test_large_objects_that_differ_are_named() -> None:
    found = work.compare_large_objects({1: ("a", "r"), 2: ("b", "r"), 3: ("c", "r")}, {2: ("x", "r"), 3: ("c", "s"), 4: ("d", "r")})
    assert found is not None
    assert [(key["key"], key["problem"]) for key in found["keys"]] == [
        ("oid=1", "missing on the target"),
        ("oid=2", "different content"),
        ("oid=3", "other owner or privileges"),
        ("oid=4", "not on the source"),
    ]
    assert work.compare_large_objects({}, {}) is None


def test_a_writer_that_died_is_lost(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "parity.json")
    writer = ProgressFile(path)
    writer.acquire()
    writer.write({"run": "one", "state": "running"})
    assert read_progress(path, "one")["state"] == "running"
    with pytest.raises(PgHaError, match="Another comparison"):
        ProgressFile(path).acquire()
    writer.release()
    assert read_progress(path, "one")["state"] == "lost"
    assert read_progress(path, "other")["state"] == "absent" and read_progress(str(tmp_path / "none"), "one")["state"] == "absent"


POSITION = {"system_identifier": "7", "timeline": 1, "lsn": "0/1"}
EVIDENCE = {
    "outcome": "done",
    "finished_at": "2026-11-23T04:00:00.000+00:00",
    "source": POSITION,
    "target": POSITION,
    "fingerprint": {"source": {"sha256": "a"}, "target": {"sha256": "b"}},
}


def test_what_changed_on_one_side_only_is_told_though_two_majors_cannot_be_compared() -> None:
    row = {"at": "2026-11-23T05:00:00Z", "role": "shop", "command": "CREATE VIEW"}
    objects = ("view public.v", "rule r on public.t", "function public.f(integer)", "view public.other")
    recorded = {"source": [{**row, "object": name} for name in objects], "target": []}
    names = ["view public.v", "rule public.t.r", "function public.f(a integer)"]
    found = plan.uncompared_changes(EVIDENCE, {"source": "x", "target": "b"}, names, recorded)
    assert [one["object"] for one in found] == ["schema"] and "make the same change on the target and run verify again" in found[0]["problem"]
    # Whoever has changed both has brought them in step, as far as anybody can tell.
    assert plan.uncompared_changes(EVIDENCE, {"source": "x", "target": "y"}, names, recorded) == []
    assert plan.uncompared_changes(EVIDENCE, {"source": "a", "target": "b"}, names, recorded) == []
    # Nothing was ever compared well: whatever was recorded since then may stand on one side only.
    for evidence in (None, {**EVIDENCE, "outcome": "failed"}):
        found = plan.uncompared_changes(evidence, {"source": "a", "target": "b"}, names, recorded)
        assert [one["object"] for one in found] == list(objects[:3]) and "role shop ran CREATE VIEW on the source at 2026" in found[0]["problem"]
    assert plan.uncompared_changes(None, {"source": "a", "target": "b"}, [], recorded) == []


@pytest.mark.parametrize(
    ("evidence", "now", "because"),
    [
        ({}, {}, ""),
        ({"outcome": "failed"}, {}, "did not end well"),
        ({"finished_at": "2026-11-23T02:00:00+00:00"}, {}, "7260 s old"),
        ({"finished_at": None}, {}, "not complete"),
        ({"target": {}}, {}, "not complete"),
        ({}, {"target": {**POSITION, "timeline": 2}}, "the target had a failover"),
        ({}, {"source": {**POSITION, "system_identifier": "8"}}, "the source is another server"),
        ({"fingerprint": {"source": {"sha256": "a"}, "target": {"sha256": "c"}}}, {}, "the schema changed on the target"),
    ],
)
def test_evidence_becomes_void(evidence: dict[str, t.Any], now: dict[str, t.Any], because: str) -> None:
    positions = {"source": POSITION, "target": {**POSITION, "lsn": "0/99"}, **now}
    moment = datetime.datetime(2026, 11, 23, 4, 1, tzinfo=datetime.UTC)
    found = plan.why_void({**EVIDENCE, **evidence}, {"source": "a", "target": "b"}, positions, [], 3600, moment)
    assert because in found if because else found == ""
    moved = plan.why_void({**EVIDENCE, **evidence}, {"source": "a", "target": "b"}, positions, ["source"], 3600, moment)
    assert moved != "" and (because != "" or moved == "clients came to the source since the last comparison")
