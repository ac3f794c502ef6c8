# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of a failover test, and the scenarios that ship."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
import yaml
from ansible_collections.freight.pg_ha.plugins.plugin_utils._report.figures import scenarios

from tests.evidence import made_by, problems
from tests.failover import figures

SCENARIOS = sorted((pathlib.Path(__file__).resolve().parents[3] / "roles" / "failover_test" / "files" / "scenarios").glob("*.yml"))
KINDS = {"host_off", "host_shut_down", "process_killed", "unit_stopped", "process_frozen", "network_cut", "disk_full", "wal_written", "slots_dropped"}
# What the target itself can be asked for.
ASKED = {"switchover", "failover"}
HITS = {"leader", "synchronous_standby", "standbys", "store_leader", "store_follower", "store_quorum", "proxies", "poolers"}


def row(name: str, rto_ms: float, server: float | None, **more: t.Any) -> dict[str, t.Any]:
    layers = {"server": server, "route": rto_ms, "pooler": None, "client": rto_ms}
    return {
        "name": name,
        "title": name,
        "reasons": [],
        "budget_ms": 5000,
        "rto_ms": rto_ms,
        "layers_ms": layers,
        "name_moved_ms": None,
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
    first, second = scenarios(rows)
    assert (first["runs"], first["passed"], first["worst_ms"], first["median_ms"], first["best_ms"]) == (3, 2, 3000, 2000, 1000)
    assert first["layers_ms"] == {"server": 750, "route": 2000, "pooler": None, "client": 2000} and (first["lost"], first["whole_s"]) == (2, 20.5)
    assert second["name"] == "b" and second["layers_ms"]["server"] is None
    text = figures.render([first, second]).splitlines()
    assert len({len(line) for line in text}) == 1 and text[1].split()[:4] == ["a", "3", "2", "3000"]


def test_the_lab_is_held_to_tighter_bounds_than_a_budget() -> None:
    rows = scenarios(
        [row("switchover", 2501, 1000), row("leader_off", 26000, 1), row("leader_off", 24000, 1), row("leader_off", 24500, 1), row("store_lost", 5000, 1)]
    )
    assert figures.beyond_bounds(rows) == ["switchover: worst 2501 ms, median 2501 ms; it has to be at most 2500 and 2500 ms."]
    assert figures.beyond_bounds(rows, behind_poolers=False) == []
    assert len(figures.beyond_bounds(scenarios([row("leader_off", 26000, 1), row("store_lost", 5001, 1)]))) == 2
    assert {path.stem for path in SCENARIOS} > set(figures.BOUNDS)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_says_what_the_role_can_do(path: pathlib.Path) -> None:
    scenario = yaml.safe_load(path.read_text(encoding="utf-8"))
    asked = {fault["kind"] for fault in scenario["faults"]} & ASKED
    assert set(scenario) - {"errors_allowed", "changes_leader", "meets_failover"} == {"title", "budget_ms", "stands_seconds", "faults"}
    assert 0 < scenario["budget_ms"] <= (60000 if asked == {"failover"} else 30000) and 0 < scenario["stands_seconds"] < 300
    for fault in scenario["faults"]:
        assert fault["kind"] in KINDS | ASKED and (fault["kind"] in ASKED or fault["hits"] in HITS)
        assert set(fault.get("from", [])) <= {"everybody", "members", "store"}


PATRONI: dict[str, t.Any] = {
    "__failover_test_known": [path.stem for path in SCENARIOS],
    "failover_test_repeats": 1,
    "failover_test_hosts_approved": True,
    "failover_test_full_disk_dir": "/data",
    "failover_test_power_off_command": ["off"],
    "failover_test_power_on_command": ["on"],
    "failover_test_members": ["pg1", "pg2", "pg3"],
    "failover_test_store_members": ["etcd1"],
    "failover_test_proxies": ["lb1"],
    "failover_test_poolers": ["lb1"],
    "pg_ha_target": {"failover": {"offers": ["switchover"]}},
}


@pytest.mark.parametrize(
    ("target", "chosen", "says"),
    [
        ("patroni", ["switchover", "leader_off"], []),
        ("patroni", ["forced_failover"], ["forced_failover asks the target for what it cannot be asked for; it offers switchover."]),
        ("rds", ["forced_failover", "pgbouncer_killed"], []),
        (
            "rds",
            ["switchover", "leader_off", "second_failover", "store_lost", "haproxy_killed"],
            [
                "switchover asks the target for what it cannot be asked for; it offers failover.",
                "leader_off, second_failover, store_lost, haproxy_killed hits hosts that this target does not have in the inventory: leave it out of "
                "pg_ha_failover_scenarios.",
            ],
        ),
    ],
)
def test_what_a_target_cannot_be_asked_for_is_said_before_anything_is_broken(target: str, chosen: list[str], says: list[str]) -> None:
    none_of_ours: dict[str, t.Any] = dict.fromkeys(("failover_test_members", "failover_test_store_members", "failover_test_proxies"), [])
    service = {**none_of_ours, "pg_ha_target": {"failover": {"offers": ["failover"]}}}
    variables = {
        **PATRONI,
        "__failover_test_texts": [(SCENARIOS[0].parent / f"{name}.yml").read_text(encoding="utf-8") for name in chosen],
        "failover_test_scenarios": chosen,
        **(service if target == "rds" else {}),
    }
    assert made_by("failover_test", "__failover_test_problems", variables) == says


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, []),
        ({"failover_test_repeats": "0"}, ["failover_test_repeats is 0: run each scenario once at least."]),
        ({"failover_test_scenarios": []}, ["pg_ha_failover_scenarios is empty: name at least one."]),
        (
            {"failover_test_hosts_approved": False, "failover_test_power_off_command": []},
            [
                "leader_off, leader_shut_down hits whole hosts: that needs its own consent, -e pg_ha_failover_hosts_approved=true.",
                "data_disk_full fills a disk of /data, also for what else is on it: that needs the consent for whole hosts, "
                "-e pg_ha_failover_hosts_approved=true.",
                "pg_ha_power_off_command and pg_ha_power_on_command say how a host loses its power and has it again: leader_off, leader_shut_down needs them.",
            ],
        ),
    ],
)
def test_a_request_that_cannot_be_is_refused(given: dict[str, t.Any], says: list[str]) -> None:
    variables = {**PATRONI, "failover_test_scenarios": ["leader_off", "leader_shut_down", "data_disk_full", "switchover"], **given}
    chosen = variables["failover_test_scenarios"]
    texts = [(SCENARIOS[0].parent / f"{name}.yml").read_text(encoding="utf-8") for name in chosen]
    assert made_by("failover_test", "__failover_test_problems", {**variables, "__failover_test_texts": texts}) == says


@pytest.mark.parametrize(
    ("name", "whom"),
    [("switchover", []), ("data_disk_full", ["leader: pg1, pg2, pg3"]), ("second_failover", ["leader: pg1, pg2, pg3", "synchronous standby: pg1, pg2, pg3"])],
)
def test_whom_a_scenario_hits_is_told_before(name: str, whom: list[str]) -> None:
    scenario = yaml.safe_load((SCENARIOS[0].parent / f"{name}.yml").read_text(encoding="utf-8"))
    assert made_by("failover_test", "__failover_test_whom", {**PATRONI, "__failover_test_one": {"key": name, "value": scenario}}) == whom


UNASKED: dict[str, t.Any] = {"pg_ha_target": {"failover": {"offers": ["switchover"]}}, "pg_ha_target_failover": None}
VERDICT: dict[str, t.Any] = {
    "lost": 0,
    "duplicated": 0,
    "unexpected": 0,
    "complete": True,
    "unknown": {"total": 0, "committed": 0, "not_committed": 0},
    "acknowledged": 900,
    "errors": 3,
    "errors_by_class": {"lost": 3},
    "write_pause_ms": 1000.5,
    "timeline": [],
    "layers": {
        "split_ms": {"server": 800.0, "route": 1000.5, "pooler": None, "client": 1000.5},
        "replicas_gap_ms": 60.0,
        "name_moved_ms": None,
        "two_writers": [],
        "writers": ["pg1"],
        "timelines": [1],
    },
}


def read(serves: str, due: bool = True, replicated: str = "done") -> dict[str, t.Any]:
    """What the journal says of the test and of the replication."""
    return {"results": [{"phase": {"serves": serves, "due": due}}, {"phase": {"serves": serves, "state": replicated}}]}


@pytest.mark.parametrize(
    ("once", "serves", "due", "stands"),
    [
        (True, "source", True, False),
        (True, "source", False, True),  # passed with these scenarios
        (True, "target", True, True),  # never broken by migrate.yml
        (True, "unknown", True, True),
        (False, "source", False, False),  # its own playbook runs it again
        (False, "target", True, False),
    ],
)
def test_migrate_breaks_only_what_serves_nobody_and_has_not_passed(once: bool, serves: str, due: bool, stands: bool) -> None:
    assert made_by("failover_test", "__failover_test_stands", {"failover_test_once": once, "__failover_test_read": read(serves, due)}) is stands


@pytest.mark.parametrize(
    ("serves", "replicated", "approved", "seen", "allowed"),
    [
        ("source", "done", False, "source", True),
        ("source", "running", False, "source", True),
        ("target", "done", False, "target", False),
        ("target", "done", True, "target", True),
        ("source", "absent", False, "unknown", False),  # retired, or not replicated yet: no journal says that nobody is served
        ("source", "absent", True, "unknown", True),
    ],
)
def test_what_may_serve_is_broken_with_consent_only(serves: str, replicated: str, approved: bool, seen: str, allowed: bool) -> None:
    variables = {"__failover_test_read": read(serves, replicated=replicated), "failover_test_approved": approved}
    assert made_by("failover_test", "__failover_test_serves", variables) == seen
    assert made_by("failover_test", "__failover_test_allowed", variables) is allowed


@pytest.mark.parametrize(
    ("serves", "replicated", "follows", "caught_up_s"), [("source", "done", True, 0.7), ("source", "absent", False, None), ("target", "done", False, None)]
)
def test_following_is_looked_at_where_the_target_follows(serves: str, replicated: str, follows: bool, caught_up_s: float | None) -> None:
    variables = {
        "__failover_test_read": read(serves, replicated=replicated),
        "__failover_test_following": {"lag": [{"seconds": 0.0, "bytes": 90000}, {"seconds": 0.7, "bytes": 0}]},
        "__failover_test_ledger": {"verdict": VERDICT},
        "failover_test_budget_seconds": None,
        "__failover_test_scenario": {"title": "T", "budget_ms": 5000, "faults": [{"kind": "unit_stopped"}]},
        "__failover_test_case": ["a", 1],
        "__failover_test_hits": [["pg1"]],
        "__failover_test_struck_s": [0.4],
        **UNASKED,
        "__failover_test_hit_at": "100.0",
        "__failover_test_whole_at": "112.04",
    }
    assert made_by("failover_test", "__failover_test_follows", variables) is follows
    assert made_by("failover_test", "__failover_test_row", variables)["caught_up_s"] == caught_up_s


@pytest.mark.parametrize(("given", "budget_ms"), [(None, 5000), (12.5, 12500), ("7", 7000)])
def test_a_budget_for_all_counts_instead_of_the_scenarios_own(given: t.Any, budget_ms: int) -> None:
    variables = {"__failover_test_scenario": {"title": "T", "budget_ms": 5000}, "failover_test_budget_seconds": given}
    assert made_by("failover_test", "__failover_test_budget_ms", variables) == budget_ms


@pytest.mark.parametrize(
    ("verdict", "scenario", "reason"),
    [
        ({}, {}, None),
        ({"lost": 2}, {}, "2 acknowledged rows are lost."),
        ({"duplicated": 1}, {}, "1 rows are there twice."),
        ({"unexpected": 4}, {}, "4 rows are there that no client has written."),
        ({"complete": False}, {}, "Clients did not stop in good order, so what they would have seen later is not known."),
        ({"layers": {**VERDICT["layers"], "two_writers": ["pg1 too."]}}, {}, "pg1 too."),
        ({"write_pause_ms": 5000.1}, {}, "Clients were without service for 5000 ms, the budget is 5000 ms."),
        ({}, {"errors_allowed": False}, "Clients saw 3 errors."),
        (
            {"layers": {**VERDICT["layers"], "writers": [], "timelines": []}},
            {},
            "No server was seen to take a write, so that nobody knows whether two of them did.",
        ),
        ({}, {"changes_leader": True}, "Nobody else has come to lead: what was broken has had no effect."),
        ({"layers": {**VERDICT["layers"], "writers": ["pg1", "pg2"], "timelines": [1, 2]}}, {"changes_leader": True}, None),
        ({"write_pause_ms": 3000.0}, {"meets_failover": True, "struck_s": [0.4, 3.3]}, None),
        (
            {"write_pause_ms": 2900.0},
            {"meets_failover": True, "struck_s": [0.4, 3.4]},
            "The last fault came 3.4 s after the beginning, when clients were served again: it met no failover.",
        ),
    ],
)
def test_what_does_not_pass_says_why(verdict: dict[str, t.Any], scenario: dict[str, t.Any], reason: str | None) -> None:
    struck = scenario.pop("struck_s", [0.4])
    variables = {
        "__failover_test_ledger": {"verdict": {**VERDICT, **verdict}},
        "failover_test_budget_seconds": None,
        "__failover_test_scenario": {"title": "T", "budget_ms": 5000, "faults": [{"kind": "unit_stopped"}], **scenario},
        "__failover_test_case": ["a", 1],
        "__failover_test_hits": [["pg1"]],
        "__failover_test_struck_s": struck,
        **UNASKED,
        "__failover_test_read": read("target"),
        "__failover_test_hit_at": "100.0",
        "__failover_test_whole_at": "112.04",
    }
    made = made_by("failover_test", "__failover_test_row", variables)
    assert made["reasons"] == ([] if reason is None else [reason]) and made["passed"] is (reason is None)
    document = {"schema": "freight.pg_ha/failover/1", "started_at": "2026-11-28T10:00:00Z", "finished_at": "2026-11-28T10:01:00Z", "outcome": "done"}
    assert problems({**document, "serves": "target", "trouble": None, "scenarios": [made]}) == []
