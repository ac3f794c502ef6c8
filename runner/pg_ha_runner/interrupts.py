# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ctrl-C at any moment: the first signal stops the playbook in order, the next ones change nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import types
import typing as t

# How long ansible-playbook may take to end after it was asked to.
GRACE_SECONDS = 20.0
# One that came while it started may have been swallowed: it is asked again.
AGAIN_SECONDS = 3.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Notes signals while it is entered; what is running goes on until somebody asks.

    :param count: how many came
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, t.Any] = {}

    def __enter__(self) -> Interrupts:
        # SIGHUP that is ignored (nohup) stays so.
        self._before = {number: signal.getsignal(number) for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
        for number in self._before:
            signal.signal(number, self._note)
        return self

    def __exit__(self, *_details: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, _number: int, _frame: types.FrameType | None) -> None:
        self.count += 1


class Stopper:
    """Ends a playbook: SIGINT to its session first, as a terminal would, and when that does not help, the caller kills it.

    Signals that came before this playbook do not count.

    :param say: tells the user that a signal was seen
    """

    def __init__(self, interrupts: Interrupts, say: t.Callable[[str], None], clock: t.Callable[[], float] = time.monotonic) -> None:
        self._interrupts = interrupts
        self._before = interrupts.count
        self._told = interrupts.count
        self._say = say
        self._clock = clock
        self._first: float | None = None
        self._last: float | None = None
        self.pid: int | None = None

    @property
    def wanted(self) -> bool:
        """Whether a signal came since this playbook began."""
        return self._interrupts.count > self._before

    def kill_now(self) -> bool:
        """Ask the playbook to end when a signal came; whether it has to be killed."""
        if not self.wanted:
            return False
        if self._interrupts.count > self._told:
            again = self._told > self._before
            self._told = self._interrupts.count
            self._say("Stopping already: waiting for the playbook to end." if again else "Stopping: the playbook is asked to end.")
        now = self._clock()
        if self.pid is None:
            return True  # no event has come, so nothing has begun
        if self._first is None:
            self._first = now
        if self._last is None or now - self._last >= AGAIN_SECONDS:
            self._last = now
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGINT)
        return now - self._first > GRACE_SECONDS
