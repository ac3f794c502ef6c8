"""Books and reads as a worker would, by psycopg2 and the libpq services that role routes has written, until SIGTERM. Then it says what it went through.

PGSERVICEFILE=... python3 application.py <file for the account>
"""

from __future__ import annotations

import json
import pathlib
import signal
import sys
import threading
import time
import typing as t
from collections import Counter
from datetime import UTC, datetime

import psycopg2

CLIENT = 920001
WORKERS = 4
EVERY_SECONDS = 0.025
GIVE_UP_SECONDS = 60
T = t.TypeVar("T")
going = threading.Event()


PASSING = {"53300", "57P01", "57P02", "57P03", "25006", "40001", "40P01"}


def passes(error: psycopg2.Error) -> bool:
    """Whether the database is on its way: connection lost (which has no code), going down or coming up, no longer leading, conflict, deadlock."""
    if error.pgcode is None:
        return isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError))
    return error.pgcode[:2] == "08" or error.pgcode in PASSING


class Session:
    """A connection that is opened again when it is lost."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._connection: psycopg2.extensions.connection | None = None

    def run(self, statement: str, values: tuple[object, ...]) -> list[tuple[t.Any, ...]]:
        """One statement in a transaction of its own.

        :raises psycopg2.Error: of the server or of the connection, which is closed then
        """
        try:
            if self._connection is None:
                self._connection = psycopg2.connect(f"service={self._service}")
                self._connection.autocommit = True
            with self._connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []
        except psycopg2.Error:
            self.close()
            raise

    def close(self) -> None:
        """End it; nothing to do when there is none."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Account:
    """How long nothing of a kind has worked, what had to be done again, and what failed for good."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: float | None = None
        self._longest, self._from, self._done = 0.0, 0.0, 0
        self._again: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()

    def run(self, work: t.Callable[[], T]) -> T | None:
        """Do it, again while the database is on its way; None when it failed for good."""
        end, pause = time.monotonic() + GIVE_UP_SECONDS, 0.05
        while True:
            try:
                result = work()
            except psycopg2.Error as error:
                name = error.pgcode or str(error).strip().splitlines()[0][:80]
                final = not passes(error) or time.monotonic() + pause > end
                with self._lock:
                    (self._failed if final else self._again)[name] += 1
                if final:
                    return None
                time.sleep(pause)
                pause = min(1.0, pause * 2)
            else:
                self._worked()
                return result

    def _worked(self) -> None:
        with self._lock:
            now = time.time()
            if self._last is not None and now - self._last > self._longest:
                self._longest, self._from = now - self._last, self._last
            self._last = now
            self._done += 1

    def told(self) -> dict[str, t.Any]:
        """For the account."""
        moment = datetime.fromtimestamp(self._from, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"done": self._done, "longest_without_ms": round(self._longest * 1000), "from": moment, "again": dict(self._again), "failed": dict(self._failed)}


INSERT = "INSERT INTO app.ledger (client, seq, account_id, amount, note) VALUES (%s, %s, 1, 0, 'application psycopg2') ON CONFLICT (client, seq) DO NOTHING"


def book(worker: int, account: Account, acknowledged: list[int]) -> None:
    """Book until the end. The key is ours, so that the same booking twice is one."""
    session, number = Session("write"), (time.time_ns() // 1_000_000) * 1_000 * 10 + worker
    while not going.is_set():
        number += 10
        if account.run(lambda key=number: session.run(INSERT, (CLIENT, key))) is not None:
            acknowledged.append(number)
        time.sleep(EVERY_SECONDS)
    session.close()


def look(account: Account) -> None:
    """Read until the end."""
    session = Session("read")
    while not going.is_set():
        account.run(lambda: session.run("SELECT max(seq) FROM app.ledger WHERE client = %s", (CLIENT,)))
        time.sleep(EVERY_SECONDS)
    session.close()


class NotServed(psycopg2.OperationalError):
    """The server answers, and takes no writes."""


def check(account: Account) -> None:
    """Ask for the health of who serves until the end, as an endpoint for a load balancer or an orchestrator would."""
    session = Session("write")

    def ask() -> bool:
        ((takes_writes,),) = session.run("SELECT takes_writes FROM ha_migration.health", ())
        if not takes_writes:
            raise NotServed("it takes no writes")
        return True

    while not going.is_set():
        account.run(ask)
        time.sleep(EVERY_SECONDS)
    session.close()


def main() -> None:
    """Run, then write the account."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: going.set())
    writes, reads, health, acknowledged = Account(), Account(), Account(), [[] for _worker in range(WORKERS)]
    threads = [threading.Thread(target=book, args=(worker, writes, acknowledged[worker])) for worker in range(WORKERS)]
    threads += [threading.Thread(target=look, args=(reads,)), threading.Thread(target=check, args=(health,))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    session, end = Session("write"), Account()
    there = {row[0] for row in end.run(lambda: session.run("SELECT seq FROM app.ledger WHERE client = %s", (CLIENT,))) or []}
    lost = len({key for keys in acknowledged for key in keys} - there)
    end.run(lambda: session.run("DELETE FROM app.ledger WHERE client = %s", (CLIENT,)))
    told = {"application": "Python, psycopg2", "writes": writes.told(), "reads": reads.told(), "health": health.told(), "lost": lost}
    pathlib.Path(sys.argv[1]).write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
