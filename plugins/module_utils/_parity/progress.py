# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The progress file of a comparison: written whole and renamed into place, locked as long as its writer lives."""

from __future__ import annotations

import fcntl
import json
import os
import typing as t

from .._core.errors import PgHaError

# Most often that the file is written while work goes on, in seconds.
INTERVAL_SECONDS = 0.5


class ProgressFile:
    """Where a running comparison says how far it is, and at the end what it found.

    :param path: absolute; ``<path>.lock`` beside it is held while the writer lives
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock: t.IO[str] | None = None

    def acquire(self) -> None:
        """Become the only writer.

        :raises PgHaError: another comparison is running, or the folder is missing
        """
        try:
            handle = open(self.path + ".lock", "a", encoding="utf-8")
        except OSError as error:
            raise PgHaError(f"Cannot write {self.path}.lock: {error.strerror}. Role freight.pg_ha.mover makes the folder.") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.close()
            raise PgHaError(f"Another comparison holds {self.path}.lock: wait until it has ended.") from None
        self._lock = handle

    def release(self) -> None:
        """Let another one write."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write(self, document: dict[str, t.Any]) -> None:
        """Replace the file at once; a reader sees the old or the new one.

        :raises PgHaError: it could not be written
        """
        new = self.path + ".new"
        try:
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
                json.dump(document, handle)
            os.replace(new, self.path)
        except OSError as error:
            raise PgHaError(f"Cannot write {self.path}: {error.strerror}.") from error


def read_progress(path: str, run: str) -> dict[str, t.Any]:
    """What the file says about one run.

    :returns: the document, its ``state`` being ``absent`` (this run has not written yet), ``running``, ``finished`` or ``failed``, or
      ``lost`` when its writer has ended without a result
    """
    try:
        with open(path, encoding="utf-8") as handle:
            document = json.load(handle)
    except FileNotFoundError:
        return {"state": "absent", "run": run}
    except (OSError, ValueError) as error:
        raise PgHaError(f"Cannot read {path}: {error}.") from error
    if not isinstance(document, dict) or document.get("run") != run:
        return {"state": "absent", "run": run}
    if document.get("state") == "running" and not _is_held(path + ".lock"):
        # It may have ended between the two looks.
        with open(path, encoding="utf-8") as handle:
            document = json.load(handle)
        if document.get("state") == "running" and document.get("run") == run:
            return {**document, "state": "lost"}
    return t.cast("dict[str, t.Any]", document)


def is_running(path: str) -> bool:
    """Whether a comparison writes to this progress file now; changes nothing."""
    return os.path.exists(path + ".lock") and _is_held(path + ".lock")


def _is_held(path: str) -> bool:
    try:
        with open(path, "a", encoding="utf-8") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
