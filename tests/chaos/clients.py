"""The clients under load and the prober. Both are on a machine that no case touches, as an application's host would be; its clock is that of all."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import _run

from .faults import Broken, docker, on, until

HOST = "etcd3"
UNIT = "freight-chaos-prober"
PROBER = "/opt/freight_load/chaos_prober.py"
RECORD = "/var/lib/freight_load/prober.jsonl"
# Before the fault, so that the ledger has something to compare with; the load itself returns only when every client writes.
LEAD_SECONDS = 1.0


def install() -> None:
    """Lay the programs on the machine."""
    if _run.run_playbook("lab/load.yml", "-e", f"lab_load_hosts={HOST}"):
        raise Broken("lab/load.yml failed.")
    docker("cp", "-q", str(_run.ROOT / "tests" / "chaos" / "prober.py"), f"pg-ha-lab-{HOST}:{PROBER}")


def start(clients: int, transactions_per_second: float) -> None:
    """Begin both.

    :raises Broken: another load runs, whose writes would be taken for ours
    """
    if _run.load("status").returncode == 0:
        raise Broken("A load runs on the mover: stop it first (lab/README.md).")
    stop()
    _run.start_load(clients, transactions_per_second, on=HOST)
    on(HOST, "systemd-run", "--quiet", "--collect", f"--unit={UNIT}", "python3", PROBER, RECORD)
    time.sleep(LEAD_SECONDS)


def stop() -> None:
    """End both in good order; nothing to do where they do not run."""
    if live() is not None and _run.load("stop", on=HOST).returncode:
        raise Broken("The load did not stop.")
    _run.machine(HOST, "systemctl", "stop", UNIT)


def live() -> dict[str, Any] | None:
    """Figures of this moment, None where no load runs."""
    status = _run.load("status", on=HOST)
    return dict(json.loads(status.stdout)) if status.returncode == 0 else None


def wait_until_served(seconds: float) -> float | None:
    """Wait until clients are acknowledged again; returns the moment (seconds since 1970), None when they were not in time."""

    def served() -> bool:
        figures = live()
        return bool(figures) and (figures or {})["last_acknowledgement_ms"] is not None and (figures or {})["last_acknowledgement_ms"] < 500

    try:
        until("acknowledged writes", seconds, served)
    except Broken:
        return None
    return time.time()


def verdict(since: float, to: float) -> dict[str, Any]:
    """What the stopped load's ledger says, with the longest gaps that lie in a stretch of time or reach into it.

    :param since: seconds since 1970
    :raises Broken: it cannot be judged
    """
    half = max(0.5, (to - since) / 2)
    result = _run.load("verdict", "--json", "--around", str(since + half), "--window", str(half), on=HOST)
    if result.returncode not in (0, 1):
        raise Broken(f"The load's ledger could not be judged: {result.stderr.strip()}")
    return dict(json.loads(result.stdout))


def tries() -> list[dict[str, Any]]:
    """The prober's record; a torn last line is left out.

    :raises Broken: a server was not tried at all
    """
    record = subprocess.run(["docker", "exec", f"pg-ha-lab-{HOST}", "cat", RECORD], capture_output=True, text=True, check=False)
    found = [json.loads(line) for line in record.stdout.splitlines(keepends=True) if line.endswith("\n")]
    missing = {"source", "pg1", "pg2", "pg3"} - {line["server"] for line in found}
    if missing or not any(line["answer"] == "accepted" for line in found):
        raise Broken(f"The prober did not try {', '.join(sorted(missing)) or 'with success anywhere'}: {record.stderr.strip()}")
    return found
