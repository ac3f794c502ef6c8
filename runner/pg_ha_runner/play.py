# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one playbook. ``play`` is the only function that calls ansible-runner."""

from __future__ import annotations

import os
import shlex
import typing as t
from dataclasses import dataclass
from pathlib import Path

from .outcome import Ending
from .verbs import configured

# How often we look whether somebody wants to stop, and draw.
TICK_SECONDS = 0.25


@dataclass(frozen=True)
class Job:
    """A playbook to run.

    :param playbook: full name, ``freight.pg_ha.<name>``
    :param inventories: absolute
    :param extra: arguments of ``-e``, each ``@<file>``: no value is part of a command line
    :param verbosity: number of ``-v`` for ansible-playbook
    """

    playbook: str
    inventories: tuple[str, ...]
    extra: tuple[str, ...] = ()
    check: bool = False
    diff: bool = False
    verbosity: int = 0

    @property
    def options(self) -> str:
        """Further options of ansible-playbook in one line."""
        words = [*(word for argument in self.extra for word in ("-e", argument)), *["--check"] * self.check, *["--diff"] * self.diff]
        return shlex.join(words)


Play = t.Callable[[Job, Path, t.Callable[[dict[str, t.Any]], None], t.Callable[[], bool]], Ending]


def play(job: Job, scratch: Path, on_event: t.Callable[[dict[str, t.Any]], None], kill_now: t.Callable[[], bool]) -> Ending:
    """Run a playbook to its end.

    ansible-playbook gets a terminal and a session of its own, so that the user's Ctrl-C reaches only us.

    :param scratch: private folder for what ansible-runner writes (environment, command, output); the caller removes it
    :param on_event: called with each event
    :param kill_now: asked four times a second; when it says yes, the playbook's processes are killed
    """
    try:
        import ansible_runner
    except ImportError:
        return Ending(None, "ansible-runner is not installed beside the runner: install it, or run `make setup` in a checkout.")

    def handle(event: dict[str, t.Any]) -> bool:
        on_event(event)
        return False  # the event is not kept

    # ansible-runner switches the check of host keys off unless the environment says otherwise; what ansible.cfg says shall hold.
    environment = {"ANSIBLE_HOST_KEY_CHECKING": str(configured("HOST_KEY_CHECKING"))}
    try:
        done = ansible_runner.run(
            private_data_dir=str(scratch),
            artifact_dir=str(scratch / "artifacts"),
            project_dir=os.getcwd(),
            playbook=job.playbook,
            inventory=list(job.inventories),
            cmdline=job.options or None,
            verbosity=job.verbosity or None,
            envvars=environment,
            settings={"pexpect_timeout": TICK_SECONDS},
            suppress_env_files=True,
            fact_cache_type="",
            quiet=True,
            event_handler=handle,
            cancel_callback=kill_now,
        )
    except (ansible_runner.exceptions.AnsibleRunnerException, OSError, ValueError) as error:
        return Ending(None, f"The playbook could not be run: {' '.join(str(error).split())}.")
    return Ending(done.rc)
