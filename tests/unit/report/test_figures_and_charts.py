# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures and charts: what they show is what was measured."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import pytest
from ansible_collections.freight.pg_ha.plugins.plugin_utils._report import charts, figures, junit, page
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.report.sample import EVIDENCE, document, evidence, forced_failover, nothing


@pytest.mark.parametrize(("value", "ceiling"), [(0, 1), (-3, 1), (1, 1), (1.1, 2), (2, 2), (3, 5), (7, 10), (10, 10), (0.03, 0.05), (123456, 200000)])
def test_an_axis_ends_at_a_round_number_above(value: float, ceiling: float) -> None:
    assert charts.nice_ceiling(value) == pytest.approx(ceiling)


@given(st.floats(min_value=1e-6, max_value=1e12))
def test_an_axis_is_never_too_short_and_never_much_too_long(value: float) -> None:
    assert value * (1 - 1e-6) <= charts.nice_ceiling(value) <= value * 2.5 * (1 + 1e-6)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_lie_within_the_chart(begin: float, length: float) -> None:
    ticks = charts.columns([1.0], "writes", span=(begin, begin + length), unit_x=" s", label="x").ticks_x
    assert len(ticks) <= 6 and all(-0.01 <= tick.at <= 100.01 for tick in ticks)


def rectangles(svg: str) -> list[dict[str, str]]:
    """The columns of a chart."""
    return [dict(element.attrib) for element in ElementTree.fromstring(svg).iter("rect")]


def test_a_column_is_as_high_as_its_value() -> None:
    chart = charts.columns([0, 5, 10], "writes", span=(0, 3), unit_x=" s", label="Writes", titles=["a", "<b>", "c"], band=(1, 2))
    band, *drawn = rectangles(chart.svg)
    assert (band["x"], band["width"]) == ("1", "1")
    assert [(one["x"], one["height"]) for one in drawn] == [("1.08", "50"), ("2.08", "100")], "nothing is drawn for nothing"
    assert [tick.label for tick in chart.ticks_y] == ["0", "5", "10"]
    assert "&lt;b&gt;" in chart.svg and 'aria-label="Writes"' in chart.svg


def test_a_line_begins_and_ends_at_the_edges() -> None:
    chart = charts.line([(0.0, 100.0), (2.0, 0.0)], "latency", unit_x=" s", label="Lag", unit_y="B")
    polyline = next(ElementTree.fromstring(chart.svg).iter("polyline"))
    assert polyline.attrib["points"] == "0,0 1000,100"
    assert [tick.label for tick in chart.ticks_x][-1] == "2 s"


def test_scenarios_are_summed_up_by_name() -> None:
    rows = figures.scenarios(EVIDENCE["failover"]["scenarios"])
    assert [(row["name"], row["runs"], row["passed"], row["worst_ms"], row["median_ms"], row["best_ms"]) for row in rows] == [
        ("switchover", 1, 1, 2510, 2510, 2510), ("postmaster_killed", 3, 3, 1400, 1028, 990), ("leader_off", 1, 1, 20746, 20746, 20746),
        ("store_lost", 1, 1, 77, 77, 77),
    ]  # fmt: skip
    assert rows[1]["worst"]["repeat"] == 3
    assert rows[3]["layers_ms"] == {"server": None, "route": None, "pooler": None, "client": 77}


def test_the_move_of_a_name_is_the_median_of_the_runs_in_which_it_moved() -> None:
    assert [row["name_moved_ms"] for row in figures.scenarios(EVIDENCE["failover"]["scenarios"])] == [None] * 4
    (row,) = figures.scenarios([forced_failover(1, 13_800.0), forced_failover(2, 15_200.0, 11_400.0), forced_failover(3, 9_000.0, None)])
    assert row["name_moved_ms"] == 10_700 and row["worst"]["name_moved_ms"] == 11_400.0


def test_what_a_layer_costs_is_its_distance_to_the_one_before() -> None:
    found = figures.shares({"server": 800, "route": 900, "pooler": None, "client": 1000})
    assert [(layer, round(share, 3)) for layer, share in found] == [("server", 0.8), ("route", 0.1), ("client", 0.1)]
    assert figures.shares({"server": 900, "route": 700, "pooler": None, "client": 1000}) == [("server", 0.9), ("client", 0.1)]
    assert figures.shares({"server": None, "route": None, "pooler": None, "client": 60}) == []
    assert figures.shares({"server": None, "route": None, "pooler": None, "client": 0}) == []


# replication.json has its times in seconds, to a thousandth.
MOMENTS = st.integers(0, 100_000).map(lambda milliseconds: milliseconds / 1000)


@given(st.lists(st.tuples(st.integers(0, 10**9), MOMENTS, MOMENTS), max_size=20))
def test_the_pace_of_a_copy_loses_no_byte(tables: list[tuple[int, float, float]]) -> None:
    rows = [{"bytes": size, "from_s": min(a, b), "to_s": max(a, b)} for size, a, b in tables]
    length, parts = figures.pace(rows)
    if parts:
        assert sum(parts) * length == pytest.approx(sum(row["bytes"] for row in rows), rel=1e-6, abs=1e-3)
    else:
        assert all(row["to_s"] <= 0 for row in rows)


def test_charts_are_made_only_of_what_was_measured() -> None:
    assert set(page.cutover_charts(EVIDENCE["cutover"])) == {"acknowledged", "latency"}
    for changed in ({"paused_at": None}, {"client": {**EVIDENCE["cutover"]["client"], "timeline": None}}):
        assert page.cutover_charts(document("cutover", **changed)) == {}
    assert page.cutover_charts({}) == {} and page.copy_charts({}) == {}
    assert set(page.copy_charts(document("replication", lag=[]))) == {"pace"}


def test_a_tenth_of_a_second_without_an_acknowledgement_is_a_hole() -> None:
    drawn = rectangles(page.cutover_charts(EVIDENCE["cutover"])["acknowledged"].svg)[1:]
    missing = [later - earlier for earlier, later in itertools.pairwise(float(one["x"]) for one in drawn) if later - earlier > 1.5]
    assert missing == [2.0]


def test_latency_is_shown_in_seconds_where_it_is_long() -> None:
    rows = EVIDENCE["failover"]["scenarios"]
    assert page.scenario_chart(rows[0])["latency"].ticks_y[-1].label.endswith(" s")
    assert page.scenario_chart(rows[-1])["latency"].ticks_y[-1].label.endswith(" ms")


def test_the_time_of_a_service_is_a_band_and_never_longer_than_the_chart() -> None:
    row = forced_failover(1, 13_800.0)
    assert [(one["class"], one["x"], one["width"]) for one in rectangles(page.scenario_chart(row)["acknowledged"].svg)][0] == ("band", "8.2", "12.2")
    early = {**row["service"], "started_at": "2027-01-01T01:00:00+00:00"}
    assert rectangles(page.scenario_chart({**row, "service": early})["acknowledged"].svg)[0]["x"] == "0"
    for said in (None, {**row["service"], "completed_at": None}, {**early, "completed_at": early["started_at"]}):
        assert 'class="band"' not in page.scenario_chart({**row, "service": said})["acknowledged"].svg


def cases(text: str) -> dict[str, str | None]:
    """Test cases by name, and how they ended."""
    return {case.attrib["name"]: (case[0].tag if len(case) else None) for case in ElementTree.fromstring(text.split("\n", 1)[1]).iter("testcase")}


def test_junit_passes_what_is_proved() -> None:
    found = cases(junit.render("move", evidence()))
    assert set(found.values()) == {None} and len(found) == 6 + 4 + 6
    assert "postmaster_killed #3" in found


def test_junit_skips_what_is_not_done_and_never_passes_what_is_unknown() -> None:
    assert set(cases(junit.render("move", nothing())).values()) == {"skipped"}
    found = cases(junit.render("move", evidence(cutover=document("cutover", client=None), parity={})))
    assert [found[name] for name in ("no client errors", "no acknowledged writes lost", "no writes that took effect twice", "no parity mismatches")] == [
        "error"
    ] * 4


def test_junit_fails_what_failed() -> None:
    failover = document("failover", outcome="failed", trouble="The store\x00 did not come back.")
    failover["scenarios"][0].update(passed=False, reasons=["1 acknowledged rows are lost."])
    client = {**EVIDENCE["cutover"]["client"], "lost": 1}
    text = junit.render("move", evidence(failover=failover, cutover=document("cutover", outcome="failed", client=client)))
    found = cases(text)
    bad = {name: ended for name, ended in found.items() if ended}
    assert bad == {
        "Test failover": "failure", "Cut over": "failure", "no acknowledged writes lost": "failure", "switchover #1": "failure",
        "the test came to its end": "error",
    }  # fmt: skip
    suite = next(one for one in ElementTree.fromstring(text.split("\n", 1)[1]) if one.attrib["name"] == "failover")
    assert (suite.attrib["failures"], suite.attrib["errors"], suite.attrib["tests"]) == ("1", "1", "7")
