"""How the clients are moved in a case: by the playbook, or by the program of its critical section alone, with what the role gives it.

The playbook spends half a minute around a section of a tenth of a second. So most cases start comparison and section on the mover as the playbook
would, and what is said of a playbook below is true of either.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _run

from . import matrix
from .faults import Broken, docker, kill_tree, on, run_on

PROGRAM = "/opt/pg_ha_chaos"
CONNECTIONS = "/run/pg_ha"
SERVICE_FILE = f"{CONNECTIONS}/freight/pg_service.conf"
# Makes the connection files, which are gone when the mover was switched off, and brings the dead man up to date.
PREPARE = "tests/chaos/prepare.yml"
SOURCE, TARGET = {"host": "source", "port": 5432}, {"host": "lb1", "port": 5000}
LINK = {"user": "ha_migration_link"}
# As roles/cutover/vars/main.yml: how the side that is left reaches the other.
WAY_BACK = {
    "target": {"host": "pg1,pg2,pg3", "port": 5432, **LINK, "password_file": f"{CONNECTIONS}/freight/link_password"},
    "source": {**SOURCE, **LINK, "passfile": "/etc/pg_ha/link/pgpass", "ca_file": "/etc/pg_ha/link/source_ca.crt"},
}
OWN_ROLES = ["pgbouncer_auth", "ha_migration_dead_man", "ha_migration_probe", "ha_migration_link", "replicator", "rewind"]
_kept: dict[str, bytes] = {}


@dataclass
class Move:
    """A run that moves the clients, in a process group of its own, with its output in a file.

    :param command: of this machine
    :param stdin: text for it
    """

    command: list[str]
    log: Path
    stdin: str = ""
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command, cwd=_run.ROOT, env=_run.environment(), stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        if self.process.stdin is not None:
            self.process.stdin.write(self.stdin.encode())
            self.process.stdin.close()

    def wait(self, seconds: float) -> int | None:
        """Exit code, None when it had to be killed because it did not end."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def kill(self) -> None:
        """End it and all its children; nothing to do when it has ended."""
        if self.process.poll() is None:
            kill_tree(self.process.pid)
            self.process.wait()

    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def reason(self) -> str:
        """The message of the last failure in the output (of Ansible's callback, YAML or JSON, or of the section's program), shortened; "" without one.

        Paths are those below the root: rows are kept, and of no machine.
        """
        output = self.output()
        _before, found, after = output.rpartition("fatal: [")
        pattern = r"""\bmsg"?: *(?:[|>]-?\n)?(.*?)(?:\n\n|\n\s*[a-z_]+: |\nTASK |\nPLAY |\Z)"""
        message = re.search(pattern, after if found else output, re.DOTALL)
        return " ".join(message[1].strip().strip("'\"}").split()).replace(f"{_run.ROOT}/", "")[:300] if message else ""


def begin(case: matrix.Case, log: Path) -> Move:
    """Move the clients in the direction of a case, in its way."""
    return move(case.direction, case.by, log)


def move(direction: str, by: str, log: Path) -> Move:
    """Move the clients in a direction, by ``playbook`` or ``section``."""
    if by == matrix.PLAYBOOK:
        return Move(_run.playbook(matrix.PLAYBOOKS[direction]), log)
    keep_connections()
    given = json.dumps(section_parameters(direction))
    return Move(["docker", "exec", "-i", "pg-ha-lab-mover", "python3", f"{PROGRAM}/section.py"], log, given)


def section_parameters(direction: str) -> dict[str, Any]:
    """What role cutover gives its module; what is not here has the default of both."""
    serves = matrix.SERVES[direction]
    return {
        "service_file": SERVICE_FILE,
        "serves": serves,
        "database": "freight",
        "run": time.strftime("chaos %Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "poolers": ["lb1"],
        "source_endpoint": SOURCE,
        "target_endpoint": TARGET,
        "own_roles": OWN_ROLES,
        "way_back": WAY_BACK[serves],
    }


def install() -> None:
    """Lay the section's program and the collection's code on the mover, and what the section counts on where it belongs.

    :raises Broken: the playbook that does so failed
    """
    _prepare()
    on("mover", "rm", "-rf", PROGRAM)
    plugins = f"{PROGRAM}/ansible_collections/freight/pg_ha/plugins"
    run_on("mover", "mkdir", "-p", plugins)
    for part in ("module_utils", "modules"):
        docker("cp", "-q", str(_run.ROOT / "plugins" / part), f"pg-ha-lab-mover:{plugins}/")
    for program in ("lab/faults/kill_cutover.py", "tests/chaos/section.py"):
        docker("cp", "-q", str(_run.ROOT / program), f"pg-ha-lab-mover:{PROGRAM}/")


def keep_connections() -> None:
    """Remember the mover's connection files, in this process only, or give them back where they are gone.

    :raises Broken: there are none, and the playbook that makes them failed
    """
    if _run.machine("mover", "test", "-e", SERVICE_FILE).returncode == 0:
        if not _kept:
            _kept["tar"] = subprocess.run(["docker", "exec", "pg-ha-lab-mover", "tar", "-C", "/run", "-c", "pg_ha"], capture_output=True, check=True).stdout
    elif _kept:
        subprocess.run(["docker", "exec", "-i", "pg-ha-lab-mover", "tar", "-C", "/run", "-xp"], input=_kept["tar"], capture_output=True, check=True)
    else:
        _prepare()


def _prepare() -> None:
    if _run.run_playbook(PREPARE):
        raise Broken(f"{PREPARE} failed.")
