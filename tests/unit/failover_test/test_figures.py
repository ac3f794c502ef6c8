# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of a failover test, and the scenarios that ship."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
import yaml

from tests.failover import figures

SCENARIOS = sorted((pathlib.Path(__file__).resolve().parents[3] / "roles" / "failover_test" / "files" / "scenarios").glob("*.yml"))
KINDS = {"switchover", "host_off", "process_killed", "unit_stopped", "process_frozen", "network_cut", "disk_full"}
HITS = {"leader", "synchronous_standby", "standbys", "store_leader", "store_follower", "store_quorum", "proxies", "poolers"}


def row(name: str, rto_ms: float, server: float | None, **more: t.Any) -> dict[str, t.Any]:
    layers = {"server": server, "route": rto_ms, "pooler": None, "client": rto_ms}
    return {
        "name": name,
        "rto_ms": rto_ms,
        "layers_ms": layers,
        "passed": True,
        "client_errors": 1,
        "rpo_lost": 0,
        "duplicated": 0,
        "two_writers": [],
        "redundancy_restored_s": 10.0,
        **more,
    }


def test_worst_and_median_of_each_scenario() -> None:
    rows = [row("a", 3000, 1000), row("a", 1000, None), row("a", 2000, 500, passed=False, rpo_lost=2, redundancy_restored_s=20.5), row("b", 10, None)]
    first, second = figures.summarize(rows)
    assert (first["runs"], first["passed"], first["worst_ms"], first["median_ms"], first["best_ms"]) == (3, 2, 3000, 2000, 1000)
    assert first["layers_ms"] == {"server": 750, "route": 2000, "pooler": None, "client": 2000} and (first["lost"], first["whole_s"]) == (2, 20.5)
    assert second["name"] == "b" and second["layers_ms"]["server"] is None
    text = figures.render([first, second]).splitlines()
    assert len({len(line) for line in text}) == 1 and text[1].split()[:4] == ["a", "3", "2", "3000"]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_says_what_the_role_can_do(path: pathlib.Path) -> None:
    scenario = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(scenario) - {"errors_allowed", "hits_hosts"} == {"title", "budget_ms", "stands_seconds", "faults"}
    assert 0 < scenario["budget_ms"] <= 30000 and 0 < scenario["stands_seconds"] < 300
    for fault in scenario["faults"]:
        assert fault["kind"] in KINDS and (fault["kind"] == "switchover" or fault["hits"] in HITS)
        assert set(fault.get("from", [])) <= {"everybody", "members", "store"}
    assert ("host_off" in {fault["kind"] for fault in scenario["faults"]}) == scenario.get("hits_hosts", False)
