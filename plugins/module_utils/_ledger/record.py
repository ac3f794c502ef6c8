# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""A run's folder: the record on disk, who is running it, and the request to stop.

``run.json`` is the header, ``client-<n>.rec`` the entries of each client, ``errors.jsonl`` the first messages of errors,
``lock`` is held (flock) by the process that runs, ``stop`` asks it to end. An entry is one write() to a file opened with
O_APPEND: it survives the death of the process at once, and the death of the machine from the next fdatasync() on.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pathlib
import threading
import time
import typing as t

from .._core.errors import ClientError, UsageError
from .model import ENTRY_BYTES, NANOSECONDS, ClientRecord, Entry, Header, Kind, Record, pack, unpack

ERRORS_KEPT_PER_CLIENT = 50
_SCHEMA = "freight.pg_ha/ledger/1"
# Enough entries for the last seconds of one client at a few hundred writes per second.
_TAIL_BYTES = ENTRY_BYTES * 2048


class ClientWriter:
    """Appends a client's entries. Used by one thread; ``sync`` may be called by another."""

    def __init__(self, path: pathlib.Path, errors_path: pathlib.Path, client: int) -> None:
        self.client = client
        self.acknowledged = 0
        self.errors = 0
        self._errors_path = errors_path
        self._messages = 0
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def write(self, kind: Kind, seq: int, attempt: int, error_class: str = "", *, is_error: bool = False) -> int:
        """Append one entry; returns its monotonic ns.

        :raises OSError: the entry could not be written whole (disk full): the client must stop, for it can promise nothing more
        """
        if kind in (Kind.ACK, Kind.FOUND):
            self.acknowledged += 1
        if is_error:
            self.errors += 1
        now = time.monotonic_ns()
        entry = pack(kind, attempt, seq, now, time.time_ns(), self.acknowledged, self.errors, error_class)
        if os.write(self._descriptor, entry) != ENTRY_BYTES:
            raise OSError(f"The record of client {self.client} could not be written: the disk is full.")
        return now

    def explain(self, seq: int, stage: str, error_class: str, message: str) -> None:
        """Keep the text of an error for people; the first ones of each client only."""
        if self._messages >= ERRORS_KEPT_PER_CLIENT:
            return
        self._messages += 1
        line = json.dumps({"wall": time.time_ns(), "client": self.client, "seq": seq, "stage": stage, "class": error_class, "message": message[:500]})
        with self._errors_path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def sync(self) -> None:
        """Bring the entries to the disk."""
        os.fdatasync(self._descriptor)


class Lock:
    """Held by the process that runs the clients; released by the kernel when it dies."""

    def __init__(self, path: pathlib.Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def acquire(self) -> bool:
        """Take it; False when somebody else has it. Tried for 0.2 s, because is_taken() of others holds it for a moment."""
        for _attempt in range(10):
            if self._flock(fcntl.LOCK_EX):
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)  # for people
                return True
            time.sleep(0.02)
        return False

    def is_taken(self) -> bool:
        """Whether somebody holds it."""
        return not self._flock(fcntl.LOCK_SH)

    def _flock(self, operation: int) -> bool:
        try:
            fcntl.flock(self._descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Give it back."""
        os.close(self._descriptor)


class RunFolder:
    """One run's folder.

    :param path: of the folder
    """

    def __init__(self, path: str | pathlib.Path) -> None:
        self.path = pathlib.Path(path)
        self.errors_path = self.path / "errors.jsonl"

    def exists(self) -> bool:
        """Whether a run was ever begun here."""
        return (self.path / "run.json").exists()

    def create(self, header: Header) -> None:
        """Make the folder (0700) and write the header durably.

        :raises UsageError: there is a run in it already
        """
        if self.exists():
            raise UsageError(f"{self.path} already holds the record of a run; choose another name for the new run.")
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = json.dumps({"schema": _SCHEMA, **dataclasses.asdict(header)}, indent=1)
        temporary = self.path / "run.json.new"
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.path / "run.json")

    def writer(self, client: int) -> ClientWriter:
        """A new record for a client."""
        return ClientWriter(self._client_path(client), self.errors_path, client)

    def lock(self) -> Lock:
        """The lock of who runs it, not yet taken."""
        return Lock(self.path / "lock")

    def is_running(self) -> bool:
        """Whether a process runs it right now."""
        if not (self.path / "lock").exists():
            return False
        lock = self.lock()
        try:
            return lock.is_taken()
        finally:
            lock.release()

    def request_stop(self) -> None:
        """Ask the process that runs it to end in good order."""
        (self.path / "stop").touch(mode=0o600)

    def stop_requested(self) -> bool:
        """Whether somebody asked."""
        return (self.path / "stop").exists()

    def read_header(self) -> Header:
        """The run's header.

        :raises ClientError: there is none, or it is not ours
        """
        try:
            values = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
            if values.pop("schema") != _SCHEMA:
                raise KeyError("schema")
            return Header(**values)
        except FileNotFoundError:
            raise ClientError(f"There is no run in {self.path}.") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ClientError(f"{self.path / 'run.json'} is not the header of a run: {error}.") from error

    def read_record(self) -> Record:
        """Everything that the clients wrote down; a torn end is left out and counted.

        :raises ClientError: the header is missing, or a client's file is
        """
        header = self.read_header()
        clients = []
        for client in range(header.clients):
            try:
                entries, torn = unpack(self._client_path(client).read_bytes())
            except FileNotFoundError:
                raise ClientError(f"The record of client {client} is missing in {self.path}, so the run cannot be judged.") from None
            clients.append(ClientRecord(client, entries, torn))
        return Record(header, clients)

    def read_errors(self, limit: int = 20) -> list[dict[str, t.Any]]:
        """The first errors in words."""
        try:
            lines = self.errors_path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:
                continue  # torn
        return sorted(found, key=lambda one: one["wall"])[:limit]

    def read_live(self) -> dict[str, t.Any]:
        """Figures of this moment, from the ends of the files: cheap, also while it runs.

        :returns: run, running, clients and how many of them have begun and have ended in good order, acknowledged, errors, transactions_per_second (over
            the last second), last_acknowledgement_ms (ago; None without one), seconds since the start
        """
        header = self.read_header()
        tails = [self._tail(client) for client in range(header.clients)]
        now = time.monotonic_ns()
        acknowledged = errors = recent = begun = ended = 0
        latest: int | None = None
        for entries in tails:
            if not entries:
                continue
            begun += 1
            ended += entries[-1].kind == Kind.END
            acknowledged += entries[-1].acknowledged
            errors += entries[-1].errors
            moments = [entry.monotonic for entry in entries if entry.kind in (Kind.ACK, Kind.FOUND)]
            recent += sum(1 for moment in moments if moment > now - NANOSECONDS)
            if moments:
                latest = max(latest or 0, moments[-1])
        return {
            "run": header.run,
            "running": self.is_running(),
            "clients": header.clients,
            "clients_begun": begun,
            "clients_ended": ended,
            "acknowledged": acknowledged,
            "errors": errors,
            "transactions_per_second": recent,
            "last_acknowledgement_ms": None if latest is None else round((now - latest) / 1e6, 1),
            "seconds": round((now - header.started_monotonic) / NANOSECONDS, 1),
        }

    def _tail(self, client: int) -> list[Entry]:
        try:
            with self._client_path(client).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                whole = size - size % ENTRY_BYTES
                file.seek(max(0, whole - _TAIL_BYTES))
                return unpack(file.read(min(whole, _TAIL_BYTES)))[0]
        except FileNotFoundError:
            return []

    def _client_path(self, client: int) -> pathlib.Path:
        return self.path / f"client-{client}.rec"


class Syncer:
    """Calls fdatasync on the writers at an interval, from a thread that is not a client's."""

    def __init__(self, writers: list[ClientWriter], interval_seconds: float = 1.0) -> None:
        self._writers = writers
        self._interval = interval_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> t.Self:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._stop.set()
        self._thread.join(5)
        for writer in self._writers:
            writer.sync()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            for writer in self._writers:
                writer.sync()
