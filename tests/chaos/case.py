"""One case from a whole lab to its row: load, move, fault, the clients' account, the same move again."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import _run

from . import clients, judge, lab_state, matrix, moves
from .faults import FAULTS, Broken, Fault, Scene, docker, on, run_on, until
from .observer import HOLD_SECONDS

MOMENT_SECONDS = 300
# How long a fault stands: the budget, the two seconds, and some to see that nobody waited for its end. Where the move has ended well and clients are
# served some seconds later nobody waits any more.
STANDS_SECONDS = 8
CALM_SECONDS = 2
MOVE_SECONDS = 420
SERVED_SECONDS = 90
# Until a target that has lost a server has its leader and a synchronous standby again; a move without one is refused.
WHOLE_SECONDS = 60
OBSERVER = "pg_ha_observer"
# What a row says of the two runs, and what clients and prober say. None until it is known.
SEEN = ("exit", "reason", "hit_after_ms", "served_by", "exit_again", "serves_after")
MEASURED = ("served_s", "client_stall_s", "longest_gap_s", "errors", "errors_by_class", "lost", "duplicated", "unexpected", "two_writers")


def install_observer() -> None:
    """Lay the observer among the packages of the mover's Python; without an armed moment it does nothing."""
    folder = on("mover", "python3", "-c", "import site; print(site.getsitepackages()[0])").strip()
    on("mover", "mkdir", "-p", folder)
    docker("cp", "-q", str(_run.ROOT / "tests" / "chaos" / "observer.py"), f"pg-ha-lab-mover:{folder}/{OBSERVER}.py")
    run_on("mover", "sh", "-c", f"echo 'import {OBSERVER}' > {folder}/{OBSERVER}.pth")


def observer(*arguments: str) -> tuple[str, ...]:
    """Command of the observer on the mover."""
    return ("python3", "-m", OBSERVER, *arguments)


def _let_stand(move: moves.Move, hit_at: float) -> None:
    """Leave the fault as long as somebody could wait for its end; a move that has not ended then goes on while it is cured."""
    try:
        ended = move.process.wait(STANDS_SECONDS)
    except subprocess.TimeoutExpired:
        return
    if ended == 0:
        time.sleep(CALM_SECONDS)
        if clients.wait_until_served(0) is not None:
            return
    time.sleep(max(0.0, hit_at + STANDS_SECONDS - time.time()))


def on_mover(*command: str) -> list[str]:
    """Command line that runs a command there."""
    return ["docker", "exec", "pg-ha-lab-mover", *command]


class Trial:
    """One case; its row grows as it goes, so that what went wrong midway is a row too.

    ``whole`` says whether the lab was made whole after it, ``ready`` whether it is such that the next case may begin.
    """

    def __init__(self, case: matrix.Case, of: dict[str, str]) -> None:
        self.case = case
        self.whole = self.ready = False
        self.log = lab_state.LOGS / case.name.replace("/", "-").replace(" ", "_")
        self.trouble: list[str] = []
        self.row: dict[str, Any] = {
            **dataclasses.asdict(case),
            **of,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "serves": case.serves,
            "waits_for": judge.waits_for(case),
            "state": "unknown",
            **dict.fromkeys(SEEN + MEASURED),
            "trouble": self.trouble,
        }

    def run(self, number_of_clients: int, transactions_per_second: float) -> dict[str, Any]:
        """The whole case, and the lab whole again after it.

        :raises Broken: the case could not begin
        """
        scene = Scene(*lab_state.members())
        epoch = lab_state.epoch_of(lab_state.decided(self.case.leaves))
        clients.start(number_of_clients, transactions_per_second)
        try:
            hit_at = self._first_run(scene, FAULTS[self.case.actor](scene))
            served_at = clients.wait_until_served(SERVED_SECONDS)
            self._look(epoch)
            self._second_run()
            self._account(hit_at, served_at)
        except Broken as broken:
            self.trouble.append(str(broken))
        finally:
            self._tidy(clients.stop)
            self.whole = self._tidy(lab_state.heal)
        loose = lab_state.following()
        self.trouble += loose
        self.ready = self.whole and not loose
        self.row["problems"] = judge.problems(self.row)
        return self.row

    def _tidy(self, work: Callable[[], None]) -> bool:
        """Do it; what went wrong is of the row, and does not keep the rest from being done."""
        try:
            work()
        except Broken as broken:
            self.trouble.append(str(broken))
            return False
        return True

    def _first_run(self, scene: Scene, fault: Fault) -> float:
        """The move up to the moment, the fault, its cure, the move's end; returns when it hit (seconds since 1970)."""
        inside = self.case.moment in matrix.BOUNDARIES
        run_on("mover", *(observer("arm", self.case.moment) if inside else observer("clear")))
        move = None
        try:
            fault.prepare()
            move = moves.begin(self.case, self.log.with_suffix(".log"))
            scene.controller = move.process.pid
            come = self._await_step(move, scene) if inside else self._await_output(move)
            hit_at = time.time()
            fault.hit()
            self.row["hit_after_ms"] = round((time.time() - come) * 1000)
            if inside and fault.goes_on:
                run_on("mover", *observer("go"))
            if inside and self.row["hit_after_ms"] > HOLD_SECONDS * 1000:
                self.trouble.append("The fault came late: the section had gone on by itself.")
            _let_stand(move, hit_at)
            fault.cure()
            self.row["exit"] = move.wait(MOVE_SECONDS)
            if self.row["exit"] is None:
                self.trouble.append(f"The first run did not end within {MOVE_SECONDS} s and was killed.")
            self.row["reason"] = move.reason()
            return hit_at
        finally:
            if move is not None:
                move.kill()
            fault.cure()

    def _second_run(self) -> None:
        """The same once more, without a fault: as an operator does, who reads that the target is not whole, once it is."""
        with suppress(Broken):
            until("a synchronous standby", WHOLE_SECONDS, lab_state.has_synchronous_standby)
        move = moves.begin(self.case, self.log.with_suffix(".again.log"))
        try:
            self.row["exit_again"] = move.wait(MOVE_SECONDS)
        finally:
            move.kill()
        if self.row["exit_again"] != 0:
            self.trouble.append(f"The second run says: {move.reason()}")
        self.row["serves_after"] = lab_state.serves()
        if clients.wait_until_served(SERVED_SECONDS) is None:
            self.trouble.append("After the second run clients were not served.")

    def _await_step(self, move: moves.Move, scene: Scene) -> float:
        """Wait until the section stands still at the moment; returns when (seconds since 1970)."""
        with subprocess.Popen(on_mover(*observer("wait", str(MOMENT_SECONDS))), stdout=subprocess.PIPE, text=True) as waiting:
            try:
                while waiting.poll() is None:
                    if move.process.poll() is not None:
                        raise Broken(f"The moment never came: exit {move.process.returncode}. {move.reason()}")
                    time.sleep(0.005)
                if waiting.returncode or waiting.stdout is None:
                    raise Broken(f"The moment did not come within {MOMENT_SECONDS} s.")
                reached = json.loads(waiting.stdout.read())
            finally:
                waiting.kill()
        scene.section = reached["pid"]
        return float(reached["at"])

    def _await_output(self, move: moves.Move) -> float:
        """Wait until the playbook's output shows the moment."""
        end = time.monotonic() + MOMENT_SECONDS
        while not re.search(matrix.OUTPUTS[self.case.moment], move.output()):
            if move.process.poll() is not None or time.monotonic() > end:
                raise Broken(f"The moment never came: exit {move.process.returncode}. {move.reason()}")
            time.sleep(0.05)
        return time.time()

    def _look(self, epoch_before: int) -> None:
        """Who serves, and what was decided, before anybody repairs anything."""
        self.row["served_by"] = lab_state.serves()
        decided = lab_state.decided(self.case.leaves)
        new = lab_state.epoch_of(decided) != epoch_before
        state = decided if new or decided == "unknown" else "nothing was begun"
        if new:
            self.row["waits_for"] = judge.waits_for(self.case, lab_state.side_decided(decided))
        self.row["state"] = f"exit {'none' if self.row['exit'] is None else self.row['exit']}; {state}"

    def _account(self, hit_at: float, served_at: float | None) -> None:
        """What clients and prober have seen."""
        clients.stop()
        tries = clients.tries()
        self.row["two_writers"] = judge.two_writers(tries, self.case.leaves)
        ledger = clients.verdict(hit_at, hit_at if served_at is None else served_at)
        self.row.update({name: ledger[name] for name in ("errors", "errors_by_class", "lost", "duplicated", "unexpected")})
        self.row["served_s"] = None if served_at is None else round(ledger["write_pause_ms"] / 1000, 2)
        self.row["client_stall_s"] = round(ledger["longest_client_stall_ms"] / 1000, 2)
        self.row["longest_gap_s"] = round(ledger["write_pause_whole_run_ms"] / 1000, 2)
        if not ledger["complete"]:
            self.trouble.append("Clients did not stop in good order, so what they would have seen later is not known.")
