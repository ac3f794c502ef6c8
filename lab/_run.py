"""What the lab's commands share: where the project is, and how a playbook is run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INVENTORY = ROOT / "inventories" / "lab"
VENV_BIN = ROOT / ".build" / "venv" / "bin"


def stop(message: str) -> None:
    """End the program with one sentence on stderr and exit code 1."""
    sys.exit(f"lab: {message}")


def environment() -> dict[str, str]:
    """The project's environment first in PATH, when it has been made."""
    env = dict(os.environ)
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
