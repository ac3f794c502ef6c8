# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""A process beside the copy that puts the source's disk first: at the declared limit it drops the slot and ends the copy's workers.

A process and not a look between two jobs, because one index can take hours. The copy itself then fails, and says why.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.synchronize
import os
import signal
import time
import typing as t

from .._core.errors import PgHaError
from .._postgresql.slots import SlotWal, read_slot_wal
from . import copy_client, link_client, own
from .model import Settings
from .pool import die_with_parent

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

_FORK = multiprocessing.get_context("fork")
SECONDS = 1.0
# Exit codes of the process.
BEYOND, LOST = 3, 4


class SlotWatch:
    """Watches the slot of the copy from now on."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # Set before anything is ended: whoever that ends must not take it for a failure of its own.
        self._acts = _FORK.Event()
        self._process = _FORK.Process(target=_watch, args=(settings, self._acts), daemon=True)
        self._process.start()

    def end(self) -> None:
        """Watch no longer."""
        self._process.terminate()
        self._process.join(10)

    def reason(self) -> str:
        """Why it has ended the copy, as the end of a sentence; empty when it has not."""
        if self._acts.is_set():
            self._process.join(30)
        if self._process.exitcode == BEYOND:
            return f"during the copy slot {own.FORWARD_LINK} held back more than the declared {self._settings.slot_wal_limit_mib} MiB of WAL and was dropped"
        if self._process.exitcode == LOST:
            return f"during the copy the server invalidated slot {own.FORWARD_LINK}, which held back more WAL than max_slot_wal_keep_size allows"
        return ""


def _watch(settings: Settings, acts: multiprocessing.synchronize.Event) -> None:
    """Body of the process. A server that does not answer is asked again: the copy notices by itself that it is gone."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()
    source: Connection | None = None
    while True:
        try:
            source = source or copy_client.open_session(settings, settings.source)
            slot = read_slot_wal(source, own.FORWARD_LINK, settings.slot_wal_limit_mib)
            if slot is not None and (slot.lost or slot.beyond_declared):
                acts.set()
                _end(settings, source, slot)
        except PgHaError:
            source = None
        time.sleep(SECONDS)


def _end(settings: Settings, source: Connection, slot: SlotWal) -> None:
    """The slot first: from then on the source's disk is free of us, whatever becomes of the rest."""
    if not slot.lost:
        link_client.end_slot(source, slot.name)
    for service in (settings.source, settings.target):
        with contextlib.suppress(PgHaError):  # the copy looks at us before it says that it is done
            connection = copy_client.open_session(settings, service)
            copy_client.end_strays(connection)
            connection.close()
    os._exit(LOST if slot.lost else BEYOND)
