"""What the lab's commands share: where the project is, and how a playbook is run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Two labs, each with its own machines: with Patroni as its target, or with a stand-in for Amazon RDS.
LAB = os.environ.get("PG_HA_LAB", "lab")
MACHINES = {"lab": "pg-ha-lab", "lab_rds": "pg-ha-rds"}[LAB]
INVENTORY = ROOT / "inventories" / LAB
VENV_BIN = ROOT / ".build" / "venv" / "bin"
ARTIFACTS = ROOT / "artifacts" / {"lab": "freight", "lab_rds": "freight_rds"}[LAB]
ACCOUNT = {"AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "lab", "AWS_EC2_METADATA_DISABLED": "true"}
LOAD = ["python3", "-m", "load"]


def stop(message: str) -> None:
    """End the program with one sentence on stderr and exit code 1."""
    sys.exit(f"lab: {message}")


def environment() -> dict[str, str]:
    """The project's environment first in PATH, when it has been made, and an account of the stand-in's that is the only one."""
    env = {**os.environ, **(ACCOUNT if LAB == "lab_rds" else {})}
    if VENV_BIN.is_dir():
        env["PATH"] = f"{VENV_BIN}{os.pathsep}{env['PATH']}"
    return env


def ansible_playbook() -> str:
    """Path of ansible-playbook; ends the program when there is none."""
    found = shutil.which("ansible-playbook", path=environment()["PATH"])
    if found is None:
        stop("no ansible-playbook in .build/venv or in PATH: run `make setup` first.")
    return str(found)


def playbook(path: str, *arguments: str) -> list[str]:
    """Command line that runs one playbook of the project on the lab."""
    return [ansible_playbook(), "-i", str(INVENTORY), str(ROOT / path), *arguments]


def run_playbook(path: str, *arguments: str) -> int:
    """Run a playbook with its output on the terminal; returns its exit code."""
    return subprocess.run(playbook(path, *arguments), cwd=ROOT, env=environment(), check=False).returncode


def machine(name: str, *command: str, folder: str = "/") -> subprocess.CompletedProcess[str]:
    """Run a command on a machine of the lab; output is captured."""
    return subprocess.run(["docker", "exec", "-w", folder, f"{MACHINES}-{name}", *command], capture_output=True, text=True, check=False)


def load(*arguments: str, on: str = "mover") -> subprocess.CompletedProcess[str]:
    """Run the load's program, on the mover unless another machine has it."""
    return machine(on, *LOAD, *arguments, folder="/opt/freight_load")


def start_load(clients: int, transactions_per_second: float, on: str = "mover") -> None:
    """Begin a load unless one runs; ends the program when it does not come up."""
    if load("status", on=on).returncode == 0:
        return
    started = load(
        "start", "--service-file", "/etc/freight_load/pg_service.conf", "--service", "freight",
        "--clients", str(clients), "--rate", str(transactions_per_second), on=on,
    )  # fmt: skip
    if started.returncode:
        stop(f"the load did not start: {started.stderr.strip()}")


def verdict(flip: float | None) -> dict[str, Any]:
    """What the load's ledger says of the whole run, with the pause around the flip (seconds since 1970); ends the program when it cannot be judged."""
    around = [] if flip is None else ["--around", str(flip), "--window", "10"]
    if load("status").returncode == 0:
        stopped = load("stop")
        if stopped.returncode:
            stop(f"the load did not stop: {stopped.stderr.strip()}")
    result = load("verdict", "--json", *around)
    if result.returncode not in (0, 1):
        stop(f"the load's ledger could not be judged: {result.stderr.strip()}")
    return dict(json.loads(result.stdout))


def evidence(name: str) -> dict[str, Any]:
    """A phase's evidence; ends the program when there is none."""
    path = ARTIFACTS / f"{name}.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        stop(f"{path.relative_to(ROOT)} cannot be read ({error}), so the result is unknown.")
        raise
