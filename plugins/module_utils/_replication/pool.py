# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Workers: processes that copy tables and build indexes at once, fed by one scheduler.

Processes and not threads, because psycopg2 hands over COPY's rows one by one under Python's lock.
"""

from __future__ import annotations

import bisect
import contextlib
import ctypes
import io
import multiprocessing
import multiprocessing.connection
import os
import signal
import typing as t
from dataclasses import dataclass

from .._core.errors import ClientError, PgHaError

_FORK = multiprocessing.get_context("fork")
_PIPE_BYTES = 1024 * 1024
_F_SETPIPE_SZ = 1031
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Job:
    """One piece of work.

    :param weight: the heavier begins first
    :param what: names it in messages
    :param work: for the worker, which interprets it
    """

    weight: int
    kind: str
    what: str
    work: t.Any = None


Runner = t.Callable[[Job], dict[str, t.Any]]


def run_jobs(
    jobs: t.Iterable[Job],
    workers: int,
    make_runner: t.Callable[[], Runner],
    started: t.Callable[[Job], None],
    finished: t.Callable[[Job, dict[str, t.Any]], t.Iterable[Job]],
) -> None:
    """Run every job and those that ``finished`` returns; the first failure ends all workers.

    :param make_runner: called once in each worker; opens its sessions
    :param started: called here when a worker gets a job
    :param finished: called here with a job's result; returns jobs that could now begin
    :raises ClientError: a job failed, or a worker vanished
    """
    # Sorted by weight ascending; the heaviest is popped from the end.
    waiting = sorted(jobs, key=lambda job: job.weight)
    if not waiting:
        return
    team = [_Worker(make_runner) for _number in range(max(1, min(workers, 64)))]
    try:
        idle = list(team)
        while waiting or len(idle) < len(team):
            while waiting and idle:
                job, worker = waiting.pop(), idle.pop()
                started(job)
                worker.give(job)
            busy = [worker for worker in team if worker.job is not None]
            ready = multiprocessing.connection.wait([worker.pipe for worker in busy])
            for worker in busy:
                if worker.pipe in ready:
                    job, result = worker.take()
                    idle.append(worker)
                    for follower in finished(job, result):
                        bisect.insort(waiting, follower, key=lambda item: item.weight)
    finally:
        for worker in team:
            worker.end()


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, make_runner: t.Callable[[], Runner]) -> None:
        self.pipe, far_end = _FORK.Pipe()
        self.job: Job | None = None
        self.process = _FORK.Process(target=_serve, args=(far_end, make_runner))
        self.process.start()
        far_end.close()

    def give(self, job: Job) -> None:
        self.job = job
        with contextlib.suppress(BrokenPipeError):  # take() reports it
            self.pipe.send(job)

    def take(self) -> tuple[Job, dict[str, t.Any]]:
        job = t.cast(Job, self.job)
        self.job = None
        try:
            verdict, value = self.pipe.recv()
        except EOFError as error:
            message = f"{job.what}: the worker ended without an answer; look for an out-of-memory kill on the mover."
            raise ClientError(message, connection_lost=True) from error
        if verdict != "done":
            raise ClientError(f"{job.what}: {value['message']}", **value["details"])
        return job, value

    def end(self) -> None:
        if self.job is None and self.process.is_alive():
            with contextlib.suppress(OSError):
                self.pipe.send(None)
            self.process.join(10)
        if self.process.is_alive():
            # The whole group: a worker may have started pg_restore or a reader.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(t.cast(int, self.process.pid), signal.SIGTERM)
            self.process.join(10)
        self.pipe.close()


def die_with_parent() -> None:
    """A worker must not outlive the module (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    # One that was killed before that could not tell us any more, and its lock would stay with us.
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)


def _serve(pipe: multiprocessing.connection.Connection, make_runner: t.Callable[[], Runner]) -> None:
    """Body of a worker process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    runner: Runner | None = None
    while (job := pipe.recv()) is not None:
        try:
            runner = runner or make_runner()
            pipe.send(("done", runner(job)))
        except PgHaError as error:
            pipe.send(("failed", {"message": error.message, "details": error.details}))
        except Exception as error:  # noqa: BLE001  a worker has to answer whatever happened; by type only, since the text may hold anything
            pipe.send(("failed", {"message": f"unexpected {type(error).__name__}", "details": {}}))


class Stream:
    """What a producer process writes, as a file to read from. Its end counts only when the producer has said that it is complete:
    a broken producer must never look like the end of the table.

    :param produce: runs in a process of its own, writes to the file that it gets, returns the number of rows
    """

    def __init__(self, produce: t.Callable[[t.BinaryIO], int]) -> None:
        read_end, write_end = os.pipe()
        self._file = io.FileIO(read_end)
        with contextlib.suppress(OSError, ImportError):
            import fcntl

            fcntl.fcntl(write_end, _F_SETPIPE_SZ, _PIPE_BYTES)
        self._answers, answer = _FORK.Pipe(duplex=False)
        self._process = _FORK.Process(target=_produce, args=(read_end, write_end, answer, produce))
        self._process.start()
        os.close(write_end)
        answer.close()
        self.rows: int | None = None
        # Why it broke, kept because COPY hands on no more of an exception than its text.
        self.error: ClientError | None = None

    def read(self, size: int = -1) -> bytes:
        """Bytes, b"" at the confirmed end.

        :raises ClientError: the producer failed
        """
        chunk = self._file.read(size)
        if not chunk:
            try:
                self._finish()
            except ClientError as error:
                self.error = error
                raise
        return chunk or b""

    def _finish(self) -> None:
        if self.rows is not None:
            return
        try:
            verdict, value = self._answers.recv()
        except EOFError as error:
            raise ClientError("the reading process ended without an answer", connection_lost=True) from error
        if verdict != "done":
            raise ClientError(value["message"], **value["details"])
        self.rows = int(value)

    def close(self) -> None:
        """End the producer."""
        self._file.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(5)
        self._answers.close()


def _produce(read_end: int, write_end: int, answer: multiprocessing.connection.Connection, produce: t.Callable[[t.BinaryIO], int]) -> None:
    """Body of a producer process."""
    die_with_parent()
    os.close(read_end)
    try:
        with open(write_end, "wb", buffering=256 * 1024) as file:
            rows = produce(file)
            # Said before the pipe closes, so that the reader finds it at the end.
            file.flush()
            answer.send(("done", rows))
    except PgHaError as error:
        answer.send(("failed", {"message": error.message, "details": error.details}))
    except Exception as error:  # noqa: BLE001  as above: no answer would look like a killed process
        answer.send(("failed", {"message": f"unexpected {type(error).__name__}", "details": {}}))
