# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is kept of a run: a folder that only its owner reads, with what we write ourselves and nothing of ansible-runner's."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import shutil
import typing as t
from pathlib import Path

from .masking import Masker
from .outcome import Exit, Stop

NAME = re.compile(r"\d{8}T\d{6}Z-[a-z-]+(?:-\d+)?")


class RunFolder:
    """``run.json`` (what was asked for and how it ended), ``events.jsonl`` (what was seen), ``output.log`` (Ansible's output), all masked.

    :param parent: where runs are kept
    :param keep: how many of them
    :raises Stop: it cannot be made
    """

    def __init__(self, parent: Path, verb: str, keep: int, masker: Masker) -> None:
        self._masker = masker
        self.problem = ""
        began = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        try:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path = _make(parent, f"{began}-{verb}")
            self._output, self._events = self._open("output.log"), self._open("events.jsonl")
        except OSError as error:
            where = f"The record of this run cannot be kept below {parent}: {error.strerror}"
            raise Stop(Exit.USAGE, f"{where}. Name another folder with --runs-dir or PG_HA_RUNS_DIR; nothing was done.") from error
        _prune(parent, max(keep, 1))

    def _open(self, name: str) -> t.TextIO:
        return open(os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8", errors="backslashreplace", buffering=1)

    def keep(self, output: str, events: list[dict[str, t.Any]]) -> None:
        """Add Ansible's output and what was seen in it. A disk that is full must not break off a cutover: it is noted in ``problem``."""
        try:
            if output:
                self._output.write(self._masker.text(output) + "\n")
            for event in events:
                self._events.write(json.dumps(self._masker.data(event)) + "\n")
        except (OSError, ValueError) as error:
            self.problem = f"The record of this run is not complete: {error}."

    def result(self, result: dict[str, t.Any]) -> None:
        """Write how it ended; a reader sees the whole file or none."""
        new = self.path / "run.json.new"
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
                json.dump(self._masker.data(result), handle, indent=2)
                handle.write("\n")
            new.replace(self.path / "run.json")
        except (OSError, ValueError) as error:
            self.problem = f"The record of this run is not complete: {error}."

    def close(self) -> None:
        """Nothing more is added."""
        with contextlib.suppress(OSError):
            self._output.close()
            self._events.close()


def _make(parent: Path, name: str) -> Path:
    """A new folder; a second run within the same second gets a number."""
    for number in range(1, 1000):
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(mode=0o700)
            return path
        except FileExistsError:
            continue
    raise FileExistsError(17, "too many runs within a second")


def _prune(parent: Path, keep: int) -> None:
    """Remove the oldest runs; what is not called like a run is somebody else's."""
    runs = sorted(path for path in parent.iterdir() if path.is_dir() and not path.is_symlink() and NAME.fullmatch(path.name))
    for old in runs[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
