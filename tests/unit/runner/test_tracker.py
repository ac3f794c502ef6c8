# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Phases, steps and numbers from events; estimates only on a basis."""

from __future__ import annotations

import pytest
from pg_ha_runner.estimate import Pace
from pg_ha_runner.tracker import Tracker

from .conftest import RECAP, play, result, task

MIB = 1048576


def copied(done: int, step: str = "rows", state: str = "running") -> dict[str, object]:
    """What replication_copy_info says."""
    return {"state": state, "step": step, "bytes_done": done * MIB, "bytes_total": 100 * MIB, "tables_done": 1, "tables_total": 4, "rows_done": 7}


def test_plays_of_the_same_phase_go_on_and_a_phase_that_was_skipped_is_not_shown() -> None:
    tracker = Tracker([("assess", "Look"), ("provision", "Etcd"), ("provision", "Prepare the mover"), ("replicate", "Replicate"), ("verify", "Verify")])
    notices = [tracker.take(play(name), at) for at, name in enumerate(("Look", "Etcd", "Prepare the mover", "Verify", "something else"))]
    assert [[notice.data["phase"] for notice in found] for found in notices] == [["assess"], ["provision"], [], ["verify"], []]
    assert [(phase.name, phase.began, phase.ended) for phase in tracker.phases] == [("assess", 0, 1), ("provision", 1, 3), ("verify", 3, None)]
    tracker.take(RECAP, 9)
    assert (tracker.phases[-1].ended, tracker.phase, tracker.current, tracker.changed()) == (9, "", "verify", 2)


def test_a_retry_carries_the_numbers() -> None:
    tracker = Tracker([("replicate", "Replicate")])
    tracker.take(play("Replicate"), 0)
    tracker.take(task("Copy | Watch the copy", "replication_copy_info"), 0)
    link = {"exists": True, "following": True, "lag_bytes": 5, "lag_seconds": None}
    [notice] = tracker.take(result("replication_copy_info", "runner_retry", initial_copy=copied(10), link=link), 1)
    assert notice.kind == "progress" and notice.data["copy"]["bytes_done"] == 10 * MIB
    assert notice.data["link"] == {"following": True, "lag_bytes": 5, "lag_seconds": None}
    assert notice.data["copy"]["rows_seconds_left"] is None


def test_the_estimate_of_the_rows_is_shown_only_while_rows_are_copied() -> None:
    tracker = Tracker([("replicate", "Replicate")])
    tracker.take(play("Replicate"), 0)
    for at in range(1, 11):
        [notice] = tracker.take(result("replication_copy_info", "runner_retry", initial_copy=copied(5 * at)), float(at))
    assert notice.data["copy"]["rows_seconds_left"] == 10
    [notice] = tracker.take(result("replication_copy_info", "runner_retry", initial_copy=copied(100, "rest_of_schema")), 12.0)
    assert notice.data["copy"]["rows_seconds_left"] is None


def test_parity_and_probe_have_numbers_of_their_own() -> None:
    tracker = Tracker([("verify", "Verify"), ("cut_over", "Cut over")])
    tracker.take(play("Verify"), 0)
    progress = {"step": "comparing rows", "tables_done": 1, "tables_total": 2, "chunks_done": 3, "chunks_total": 9, "rows": 5}
    [notice] = tracker.take(result("parity_info", "runner_retry", state="running", progress=progress), 1)
    assert notice.data["parity"]["chunks_done"] == 3 and notice.data["parity"]["seconds_left"] is None
    tracker.take(play("Cut over"), 2)
    assert tracker.parity is None
    [notice] = tracker.take(result("ledger_probe_info", probe={"running": True, "acknowledged": 12, "errors": 0, "clients": 8}), 3)
    assert notice.data["probe"]["acknowledged"] == 12
    assert tracker.take(result("ledger_probe_info", probe=None), 3) == []


def test_messages_are_told_line_by_line_and_other_results_are_not() -> None:
    tracker = Tracker([])
    assert [notice.data["message"] for notice in tracker.take(result("debug", msg=["one", "two", {"no": "text"}]), 0)] == ["one", "two"]
    assert tracker.take(result("command", stdout="a secret"), 0) == []


@pytest.mark.parametrize(
    ("samples", "now", "left"),
    [
        ([], 0, None),
        ([(0, 0)], 1, None),
        # Not long enough, then too few moves, then a basis.
        ([(0, 0), (1, 10), (2, 20), (3, 30)], 3, None),
        ([(0, 0), (10, 50)], 10, None),
        ([(0, 0), (2, 10), (4, 20), (6, 30)], 6, 14),
        # The time since the last sample counts.
        ([(0, 0), (2, 10), (4, 20), (6, 30)], 11, 9),
        # It stands still: nothing can be said.
        ([(0, 30), (5, 30), (10, 30), (15, 30)], 15, None),
        # It began anew.
        ([(0, 50), (2, 60), (4, 70), (6, 80), (7, 5), (8, 10)], 8, None),
        # A slow beginning is forgotten.
        ([(0, 0), (30, 1), (60, 2), (65, 12), (70, 22), (75, 32), (80, 42), (85, 52), (90, 62)], 90, 19),
        ([(0, 0), (2, 40), (4, 80), (6, 100)], 6, 0),
    ],
)
def test_an_estimate_has_a_basis(samples: list[tuple[float, float]], now: float, left: int | None) -> None:
    pace = Pace()
    for at, done in samples:
        pace.see(done, 100, at)
    assert pace.seconds_left(now) == left


def test_what_was_not_measured_is_no_sample() -> None:
    pace = Pace()
    pace.see(None, 100, 0)
    pace.see(1, None, 0)
    pace.see(1, 0, 0)
    assert not pace.samples
