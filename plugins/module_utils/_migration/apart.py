# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""One long piece of work in a process of its own: it can be ended at a moment, and this process stays free to keep the fence alive."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import typing as t

from .._core.errors import ClientError, GateError, PgHaError

_FORK = multiprocessing.get_context("fork")
_PR_SET_PDEATHSIG = 1


class Apart:
    """A process that does one thing and answers with its result. It ends with us, whatever happens to us.

    :param what: names it in messages
    :param work: opens its own sessions; those of this process are not for it
    """

    def __init__(self, what: str, work: t.Callable[[], dict[str, t.Any] | None]) -> None:
        self._what = what
        self._answers, answer = _FORK.Pipe(duplex=False)
        self._process = _FORK.Process(target=_serve, args=(answer, work))
        self._process.start()
        answer.close()

    def wait(self, seconds: float) -> bool:
        """Whether there is an answer (or an end without one), after at most so long."""
        return bool(self._answers.poll(seconds))

    def result(self) -> dict[str, t.Any] | None:
        """The answer.

        :raises GateError: the work refused or failed
        :raises ClientError: it ended without an answer
        """
        try:
            verdict, value = self._answers.recv()
        except EOFError as error:
            raise ClientError(f"The {self._what} ended without an answer; look for an out-of-memory kill on the mover.") from error
        if verdict != "done":
            raise GateError(f"The {self._what} failed: {value}")
        return t.cast("dict[str, t.Any] | None", value)

    def stop(self) -> None:
        """Ask it to end and do not wait: clients may be held."""
        self._signal(signal.SIGTERM)

    def reap(self, seconds: float = 15.0) -> None:
        """Wait for its end, and make it end."""
        self._process.join(seconds)
        if self._process.is_alive():
            self._signal(signal.SIGKILL)
            self._process.join(5)
        self._answers.close()

    def _signal(self, number: signal.Signals) -> None:
        # Its group: it may have started pg_restore. In the moment before it has one it gets the signal alone.
        pid = t.cast(int, self._process.pid)
        for send in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                send(pid, number)
                return


def _serve(answer: multiprocessing.connection.Connection, work: t.Callable[[], dict[str, t.Any] | None]) -> None:
    """Body of the process."""
    signal.signal(signal.SIGTERM, _end)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    try:
        answer.send(("done", work()))
    except PgHaError as error:
        answer.send(("failed", error.message))
    except Exception as error:  # noqa: BLE001  it has to answer whatever happened; by type only, since the text may hold anything
        answer.send(("failed", f"unexpected {type(error).__name__}"))


def _end(_number: int, _frame: t.Any) -> t.NoReturn:
    """Leave through every finally, so that archives and helpers go too."""
    raise SystemExit(1)
