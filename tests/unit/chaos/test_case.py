# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One case from its load to its row, with a playbook, a mover and clients that are stood in for; the observer is the real one."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import types

import pytest
from chaos import case, clients, faults, lab_state, matrix

ROOT = pathlib.Path(__file__).resolve().parents[3]
# Two steps between two lines; what it does is seen in its output. The second run has nothing to do.
PLAYBOOK = """
import os, pathlib, sys, time
import pg_ha_observer as observer
done = pathlib.Path(sys.argv[1])
print("TASK [verification : Rows | Wait until the comparison has started]", flush=True)
if not done.exists():
    for moment in ("before warm", "after warm", "after arm"):
        print(moment, flush=True)
        observer.observe(moment)
    done.touch()
time.sleep(float(sys.argv[2]))
"""
LEDGER = {
    **dict.fromkeys(("errors", "lost", "duplicated", "unexpected"), 0),
    "errors_by_class": {},
    "write_pause_ms": 5100.0,
    "longest_client_stall_ms": 5200.0,
    "write_pause_whole_run_ms": 5100.0,
    "complete": True,
}


@pytest.fixture
def world(monkeypatch, tmp_path):
    """A lab of which nothing is real but processes and the observer; what is done to it is in ``world.done``."""

    class World:
        done: list[str] = []
        ledger = dict(LEDGER)
        tries = [{"server": "source", "answer": "accepted", "begin": 1.0, "end": 1.1}]
        serves = ["source", "target"]
        sleeps = 0.1
        hit = staticmethod(lambda scene: None)
        goes_on = True

        def trial(self, moment):
            """A trial of the actor ``mover``, whose fault is ``hit``."""
            made = case.Trial(matrix.Case(matrix.CUT_OVER, moment, "mover"), {"code": "abc", "commit": "def"})
            return made, made.run(1, 1)

    world = World()
    world.done, world.serves = [], list(world.serves)
    text = (ROOT / "tests" / "chaos" / "observer.py").read_text(encoding="utf-8")
    (tmp_path / "pg_ha_observer.py").write_text(text.replace("/dev/shm/pg_ha_chaos", str(tmp_path / "armed")), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def run_on(_name, *command):
        subprocess.run([sys.executable, *command[1:]], check=True)

    def fault(scene):
        return faults.Fault(
            prepare=lambda: world.done.append("prepare"),
            hit=lambda: (world.done.append("hit"), world.hit(scene)),
            cure=lambda: world.done.append("cure"),
            goes_on=world.goes_on,
        )

    playbook = [sys.executable, "-c", PLAYBOOK, str(tmp_path / "finished")]
    monkeypatch.setattr(case, "run_on", run_on)
    monkeypatch.setattr(case, "on_mover", lambda *command: [sys.executable, *command[1:]])
    monkeypatch.setattr(case, "STANDS_SECONDS", 0.3)
    monkeypatch.setattr(case, "CALM_SECONDS", 0.1)
    monkeypatch.setattr(case, "MOVE_SECONDS", 3)
    monkeypatch.setitem(case.FAULTS, "mover", fault)
    monkeypatch.setattr(case._run, "playbook", lambda path: [*playbook, str(world.sleeps)])
    monkeypatch.setattr(case._run, "environment", lambda: dict(os.environ))
    monkeypatch.setattr(lab_state, "LOGS", tmp_path)
    for name, value in {"members": ("pg1", "pg2"), "decided": "epoch 3 closed: source, decided by lb1", "following": []}.items():
        monkeypatch.setattr(lab_state, name, lambda *_side, value=value: value)
    monkeypatch.setattr(lab_state, "serves", lambda: world.serves.pop(0))
    monkeypatch.setattr(lab_state, "heal", lambda: world.done.append("heal"))
    for name in ("start", "stop"):
        monkeypatch.setattr(clients, name, lambda *_arguments, name=name: world.done.append(name))
    monkeypatch.setattr(clients, "wait_until_served", lambda seconds: 1e10)
    monkeypatch.setattr(clients, "tries", lambda: world.tries)
    monkeypatch.setattr(clients, "verdict", lambda since, to: world.ledger)
    return world


def test_a_case_goes_its_way(world, tmp_path):
    trial, row = world.trial("after warm")
    assert row["problems"] == [] and trial.whole and trial.ready
    assert (row["code"], row["commit"]) == ("abc", "def")
    assert (row["exit"], row["exit_again"], row["served_by"], row["serves_after"]) == (0, 0, "source", "target")
    assert (row["served_s"], row["client_stall_s"], row["two_writers"], row["lost"]) == (5.1, 5.2, [], 0)
    assert 0 <= row["hit_after_ms"] < 2000
    assert [what for what in world.done if what in ("start", "prepare", "hit", "heal")] == ["start", "prepare", "hit", "heal"]
    assert world.done.index("hit") < world.done.index("cure") < world.done.index("heal")


def test_the_fault_hits_while_the_section_stands_at_the_moment(world, tmp_path):
    log = tmp_path / "cut_over-after_warm-mover-playbook.log"
    seen = []
    world.hit = lambda scene: seen.append((log.read_text().split("\n")[-2], scene.section is not None, (tmp_path / "finished").exists()))
    world.trial("after warm")
    assert seen == [("after warm", True, False)]


def test_a_section_that_was_killed_is_not_told_to_go_on_and_the_second_run_finishes(world, tmp_path):
    world.hit, world.goes_on = lambda scene: os.kill(scene.section, signal.SIGKILL), False
    _trial, row = world.trial("after arm")
    assert (row["exit"], row["exit_again"], row["problems"]) == (-9, 0, [])
    assert row["state"] == "exit -9; nothing was begun"
    assert not (tmp_path / "armed" / "go").exists()


def test_the_second_run_begins_when_the_target_is_whole(world, monkeypatch):
    looks = [False, False, True]
    monkeypatch.setattr(lab_state, "has_synchronous_standby", lambda: looks.pop(0))
    _trial, row = world.trial("after arm")
    assert looks == [] and row["problems"] == [] and row["exit_again"] == 0


def test_a_moment_outside_the_section_is_seen_in_the_output(world):
    _trial, row = world.trial("follow")
    assert row["problems"] == [] and "hit" in world.done


def test_a_moment_that_never_comes_is_a_row_that_is_wrong(world):
    trial, row = world.trial("after decide")
    assert "hit" not in world.done and "The moment never came: exit 0." in row["problems"][0]
    assert {"cure", "stop", "heal"} <= set(world.done) and trial.whole


def test_a_fault_that_came_late_proves_nothing(world, monkeypatch):
    monkeypatch.setattr(case, "HOLD_SECONDS", 0.0)
    assert "came late" in world.trial("after warm")[1]["problems"][0]


def test_a_fault_that_did_not_happen_is_said_and_the_rest_is_tidied_up(world):
    def fail(scene):
        raise faults.Broken("kill: no such process")

    world.hit = fail
    _trial, row = world.trial("after warm")
    assert "kill: no such process" in row["problems"] and world.done[-1] == "heal"


def test_a_playbook_that_does_not_end_is_killed(world, monkeypatch):
    world.sleeps = 60
    monkeypatch.setattr(case, "MOVE_SECONDS", 0.2)
    _trial, row = world.trial("after warm")
    assert row["exit"] is None and any("did not end within" in problem for problem in row["problems"])


def test_a_lab_that_stays_broken_is_told(world, monkeypatch):
    def fail():
        raise faults.Broken("pg1 is off")

    monkeypatch.setattr(lab_state, "heal", fail)
    trial, row = world.trial("after warm")
    assert not trial.whole and "pg1 is off" in row["problems"]


def test_a_link_that_stands_still_afterwards_is_wrong(world, monkeypatch):
    monkeypatch.setattr(lab_state, "following", lambda: ["nobody reads the slot x on pg1"])
    assert "nobody reads the slot x on pg1" in world.trial("after warm")[1]["problems"]


def test_clients_that_are_not_served_again_are_told(world, monkeypatch):
    monkeypatch.setattr(clients, "wait_until_served", lambda seconds: None)
    problems = world.trial("after warm")[1]["problems"]
    assert any("not served again" in problem for problem in problems)


@pytest.mark.parametrize(
    ("ended", "served", "stands"),
    [(0, True, 2), (0, False, 8), (137, True, 8), (None, False, 8)],
    ids=["nobody waits", "clients wait", "the move failed", "the move goes on"],
)
def test_a_fault_stands_as_long_as_somebody_could_wait_for_its_end(monkeypatch, ended, served, stands):
    now = [100.0]
    monkeypatch.setattr(case.time, "time", lambda: now[0])
    monkeypatch.setattr(case.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    monkeypatch.setattr(clients, "wait_until_served", lambda seconds: now[0] if served else None)

    def wait(seconds):
        if ended is None:
            now[0] += seconds
            raise subprocess.TimeoutExpired("move", seconds)
        return ended

    case._let_stand(types.SimpleNamespace(process=types.SimpleNamespace(wait=wait)), 100.0)
    assert now[0] == 100.0 + stands


def test_after_a_link_that_nobody_follows_the_next_case_looks_itself(world, monkeypatch):
    monkeypatch.setattr(lab_state, "following", lambda: ["nobody reads the slot"])
    trial, row = world.trial("after warm")
    assert trial.whole and not trial.ready and row["problems"] == ["nobody reads the slot"]
