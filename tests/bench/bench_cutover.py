"""Cutovers, and rounds of cutover and roll back, under load: what 16 clients saw, and where the time inside the section went."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import _run
import stats

LOG = _run.ROOT / ".build" / "bench" / "cutover.log"
AFTER_FLIP_SECONDS = 5


def move(playbook: str, rate: float, clients: int) -> dict[str, Any]:
    """One move of the clients at a rate: pause and stall from the load's ledger, steps from the evidence; ends the program when anything was lost.

    :param playbook: tests/bench/forward.yml or playbooks/roll_back.yml
    """
    _run.start_load(clients, rate)
    _playbook(playbook)
    time.sleep(AFTER_FLIP_SECONDS)
    evidence = _run.evidence("cutover")
    ledger = _run.verdict(evidence["paused_at"])
    if not ledger["ok"]:
        _run.stop(f"a move was not clean: {'; '.join(ledger['problems'])}")
    return {
        "write_pause_ms": ledger["write_pause_ms"],
        "longest_client_stall_ms": ledger["longest_client_stall_ms"],
        "critical_section_ms": evidence["critical_section_ms"],
        "transactions_per_second": ledger["transactions_per_second"],
        **{name: ledger[name] for name in ("acknowledged", "errors", "lost", "duplicated")},
        "steps": {step["name"]: step["ms"] for step in evidence["steps"]},
    }


def measure(rate: float, clients: int, runs: int) -> dict[str, Any]:
    """Cutovers one after the other, each from a reset lab, and their summary."""
    done: list[dict[str, Any]] = []
    for number in range(1, runs + 1):
        _playbook("tests/bench/reset.yml")
        done.append(move("tests/bench/forward.yml", rate, clients))
        _say(f"{number:2}/{runs}", done[-1])
    return _summary(rate, clients, done)


def measure_rounds(rate: float, clients: int, rounds: int) -> dict[str, Any]:
    """There and back again on one and the same migration, without a reset between, and a summary by direction."""
    _playbook("tests/bench/reset.yml")
    there: list[dict[str, Any]] = []
    back: list[dict[str, Any]] = []
    for number in range(1, rounds + 1):
        for done, playbook in ((there, "tests/bench/forward.yml"), (back, "playbooks/roll_back.yml")):
            done.append(move(playbook, rate, clients))
            _say(f"{number:2}/{rounds} {'there' if done is there else 'back '}", done[-1])
    return {"rounds": rounds, "there": _summary(rate, clients, there), "back": _summary(rate, clients, back)}


def _say(which: str, last: dict[str, Any]) -> None:
    print(
        f"   {which} at {last['transactions_per_second']:.0f}/s: write pause {last['write_pause_ms']:.0f} ms, "
        f"longest stall {last['longest_client_stall_ms']:.0f} ms, section {last['critical_section_ms']:.0f} ms",
        flush=True,
    )


def _summary(rate: float, clients: int, done: list[dict[str, Any]]) -> dict[str, Any]:
    names = list(done[0]["steps"])
    return {
        "asked_transactions_per_second": rate,
        "clients": clients,
        **{key: stats.spread(run[key] for run in done) for key in done[0] if key != "steps"},
        "steps_ms": {name: stats.spread(run["steps"][name] for run in done) for name in names},
        "runs": done,
    }


def install_load() -> None:
    """Lay the clients on the mover; nothing to do where they are."""
    _playbook("lab/load.yml")


def _playbook(path: str) -> None:
    with LOG.open("a", encoding="utf-8") as log:
        code = subprocess.run(_run.playbook(path), cwd=_run.ROOT, env=_run.environment(), stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    if code:
        sys.stderr.write("".join(LOG.read_text(encoding="utf-8").splitlines(keepends=True)[-40:]))
        _run.stop(f"{path} failed with exit code {code}: the whole output is in {LOG.relative_to(_run.ROOT)}.")
