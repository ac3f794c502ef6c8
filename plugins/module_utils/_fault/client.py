# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""A fault on the host that runs the module: happens, and is taken away by us, or by the host itself when we are gone."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import socket
import subprocess
import time
import typing as t

from .._core.errors import ClientError, UsageError
from .plan import FROZEN, FULL, Fault

# It outlasts a boot, as the file does that fills a disk.
ROOT = pathlib.Path("/var/lib/pg_ha_fault")
COMMAND_SECONDS = 120


def standing(root: pathlib.Path = ROOT) -> list[str]:
    """Names of the faults that stand on this host, in order."""
    return sorted(folder.name for folder in root.iterdir() if (folder / "fault.json").exists()) if root.is_dir() else []


class Host:
    """The host.

    :param name: name of the fault; its cure's timer is ``pg-ha-fault-<name>``
    """

    def __init__(self, name: str, root: pathlib.Path = ROOT, proc: pathlib.Path = pathlib.Path("/proc")) -> None:
        self._unit = f"pg-ha-fault-{name}"
        self._folder = root / name
        self._proc = proc

    def read(self) -> dict[str, t.Any] | None:
        """What stands under this name: the options that it was made with; None when nothing does.

        :raises ClientError: the file is not ours
        """
        try:
            return t.cast("dict[str, t.Any]", json.loads((self._folder / "fault.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ClientError(f"{self._folder / 'fault.json'} cannot be read: {error}.") from error

    def check_address(self, address: str) -> None:
        """Refuse on another host than the one that is meant.

        :raises UsageError: no interface of this host has the address
        """
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            # Only an address of its own can be bound.
            with socket.socket(family, socket.SOCK_DGRAM) as here:
                here.bind((address, 0))
        except OSError as error:
            raise UsageError(f"This host, {socket.gethostname()}, does not have the address {address}: it is not the one that shall be hit.") from error

    def pids(self, params: dict[str, t.Any]) -> list[int]:
        """The process that the pid file names (its first line), and its children where they are to stand still with it.

        :raises ClientError: there is none
        """
        if not params["pid_file"]:
            return []
        try:
            pid = int(pathlib.Path(params["pid_file"]).read_text(encoding="utf-8").split("\n", 1)[0])
            os.kill(pid, 0)
        except (OSError, ValueError) as error:
            raise ClientError(f"{params['pid_file']} names no process that runs: {error}.") from error
        return [pid, *self._children(pid)] if params["kind"] == FROZEN else [pid]

    def _children(self, parent: int) -> list[int]:
        found = []
        for folder in self._proc.iterdir():
            if folder.name.isdigit():
                try:
                    stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
                except OSError:
                    continue  # it has just ended
                if int(stat.rpartition(")")[2].split()[1]) == parent:
                    found.append(int(folder.name))
        return sorted(found)

    def free_bytes(self, params: dict[str, t.Any]) -> int:
        """What root can still write to the file system of the path.

        :raises ClientError: it does not answer
        """
        if params["kind"] != FULL:
            return 0
        try:
            found = os.statvfs(params["path"])
        except OSError as error:
            raise ClientError(f"The file system of {params['path']} does not answer: {error.strerror}.") from error
        return found.f_frsize * found.f_bfree

    def happen(self, fault: Fault, params: dict[str, t.Any]) -> float:
        """Arm the cure, then hit; returns the moment, in seconds since 1970 by the host's clock.

        :raises ClientError: the cure could not be armed (nothing has happened then), or the fault did not happen (its cure was run)
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        script = self._folder / "cure"
        script.write_text(fault.script(str(self._folder)), encoding="utf-8")
        (self._folder / "fault.json").write_text(json.dumps(params), encoding="utf-8")
        after = f"--on-active={params['cure_after_seconds']}s"
        self._run(("systemd-run", "--quiet", "--collect", f"--unit={self._unit}", after, "--timer-property=AccuracySec=1s", "/bin/sh", str(script)))
        try:
            moment = time.time()
            for command in fault.hit:
                self._run(command)
        except ClientError:
            self.cure(fault)
            raise
        return moment

    def cure(self, fault: Fault) -> None:
        """Take it away, and the timer with it.

        :raises ClientError: a command failed; all of them were run, and the host tries again by its timer
        """
        failures = []
        for command in fault.cure:
            try:
                self._run(command)
            except ClientError as error:
                failures.append(error.message)
        if failures:
            raise ClientError(" ".join(failures))
        if self._runs(f"{self._unit}.timer"):
            self._run(("systemctl", "stop", f"{self._unit}.timer"))
        shutil.rmtree(self._folder)

    def _runs(self, unit: str) -> bool:
        return subprocess.run(("systemctl", "is-active", "--quiet", unit), check=False).returncode == 0

    def _run(self, command: tuple[str, ...]) -> None:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ClientError(f"{command[0]} could not be run: {error}.") from error
        if done.returncode:
            raise ClientError(f"{' '.join(command)[:300]} ended with {done.returncode}: {' '.join((done.stderr or done.stdout).split())[-300:]}")
