# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The dead man's switch of one pooler host: a small daemon that keeps its PgBouncer on the side that was decided.

It listens on the serving side for an attempt, acknowledges that it is armed, and at the decision (or, when none comes within the
budget, at the one that it then takes itself) puts its pooler on the decided side and lets clients go on. It goes to the next side
only after having read that this was decided, and it never stops asking. The mover pauses poolers and decides; it never flips them:
there is one piece of code that does, and it is here, beside the pooler.

``python3 -m freight_pg_ha._migration.dead_man --config FILE`` runs the daemon; ``--place-route`` only lays the link of the decided
side and ends (PgBouncer's ExecStartPre: a restarted pooler forgets every switch).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import sys
import time
import typing as t
from dataclasses import dataclass

from .._core.errors import ClientError, PgHaError
from .._postgresql import client
from . import decision, schema

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# How long a session may take to open, and a statement to run, before the dead man looks elsewhere.
CONNECT_TIMEOUT_SECONDS = 2
STATEMENT_TIMEOUT_MS = 1000
IDLE_LOOK_SECONDS = 1.0
# After this long without the announcement over the link the dead man writes it on the next side itself.
ANNOUNCEMENT_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True)
class Config:
    """What role cutover writes for one pooler host.

    :param name: the pooler's inventory name
    :param database: the pooled database
    :param service_file: libpq service file with ``source``, ``target`` and ``pooler``
    :param route_link: link that pgbouncer.ini includes
    :param routes: file of each side, ``{"source": path, "target": path}``
    :param endpoints: where each side's file leads, ``{"source": [host, port], ...}``, to recognise it in SHOW DATABASES
    """

    name: str
    database: str
    service_file: str
    route_link: str
    routes: dict[str, str]
    endpoints: dict[str, list[t.Any]]


class Side:
    """A session to one side that is opened when needed and dropped when it fails."""

    def __init__(self, config: Config, name: str) -> None:
        self.config = config
        self.name = name
        self._connection: Connection | None = None

    def connection(self) -> Connection:
        """The session, opened if there is none.

        :raises ClientError: the side cannot be reached
        """
        if self._connection is None:
            settings = {"statement_timeout": str(STATEMENT_TIMEOUT_MS), "synchronous_commit": "on"}
            self._connection = client.connect(
                self.config.service_file,
                self.name,
                application_name=schema.dead_man_name(self.config.name),
                connect_timeout_seconds=CONNECT_TIMEOUT_SECONDS,
                settings=settings,
            )
            client.query(self._connection, f"LISTEN {schema.CHANNEL}")
        return self._connection

    def drop(self) -> None:
        """Forget the session, whatever its state."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def ask(self, question: t.Callable[..., t.Any], *arguments: t.Any) -> t.Any:
        """Ask on this side's session; a failure drops the session and goes on upwards."""
        try:
            return question(self.connection(), *arguments)
        except Exception:
            self.drop()
            raise

    def wait(self, seconds: float) -> None:
        """Wait for a notification at most that long (or just that long when there is no session)."""
        if self._connection is None:
            time.sleep(seconds)
            return
        ready, _unused, _unused2 = select.select([self._connection], [], [], seconds)
        if ready:
            try:
                client.drain_notifications(self._connection)
            except ClientError:
                self.drop()


class Pooler:
    """The local PgBouncer: its link and its console."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._console: Connection | None = None

    def placed_side(self) -> str:
        """The side whose file the link names."""
        there = os.path.realpath(self.config.route_link)
        for side, path in self.config.routes.items():
            if os.path.realpath(path) == there:
                return side
        raise PgHaError(f"{self.config.route_link} leads to {there}, which is neither side's file.")

    def place(self, side: str) -> None:
        """Put the link on a side by rename: a pooler that starts now starts there."""
        if self.placed_side() == side:
            return
        new = self.config.route_link + ".new"
        if os.path.lexists(new):
            os.unlink(new)
        os.symlink(self.config.routes[side], new)
        os.rename(new, self.config.route_link)

    def turn(self, side: str) -> None:
        """Link, RELOAD, and look: RELOAD answers success to a file that it cannot read. Clients that are held stay held.

        :raises PgHaError: the pooler does not show the side's endpoint
        """
        self.place(side)
        with self._console_dropped_on_failure():
            if self._leads_to(self._show(), side):
                return
            client.query(self._open(), "RELOAD")
            shown = self._show()
            if not self._leads_to(shown, side):
                raise PgHaError(f"After RELOAD {self.config.database} still leads to {shown['host']}:{shown['port']}, not to the {side}.")

    def resume(self) -> None:
        """Let clients go on, where they are held."""
        with self._console_dropped_on_failure():
            if self._show()["paused"]:
                client.query(self._open(), f"RESUME {client.quote(self.config.database)}")

    @contextlib.contextmanager
    def _console_dropped_on_failure(self) -> t.Iterator[None]:
        try:
            yield
        except Exception:
            if self._console is not None:
                self._console.close()
                self._console = None
            raise

    def warm(self) -> None:
        """Open the console before it is needed."""
        self._show()

    def _leads_to(self, shown: dict[str, t.Any], side: str) -> bool:
        host, port = self.config.endpoints[side]
        return (shown["host"], str(shown["port"])) == (host, str(port))

    def _show(self) -> dict[str, t.Any]:
        for row in client.query(self._open(), "SHOW DATABASES"):
            if row["name"] == self.config.database:
                return row
        raise PgHaError(f"PgBouncer knows no database {self.config.database}.")

    def _open(self) -> Connection:
        if self._console is None or self._console.closed:
            self._console = client.connect_console(self.config.service_file, "pooler", connect_timeout_seconds=CONNECT_TIMEOUT_SECONDS)
        return self._console


class DeadMan:
    """The loop: idle until an attempt opens on the serving side, armed until it is decided, then serve the decided side."""

    def __init__(self, config: Config, log: t.Callable[[str], None]) -> None:
        self.config = config
        self.log = log
        self.pooler = Pooler(config)
        self.sides = {side: Side(config, side) for side in decision.SIDES}

    def run(self) -> t.NoReturn:
        """For ever: whatever fails is logged and tried again."""
        self._catch_up()
        while True:
            here = self.pooler.placed_side()
            try:
                attempt = self.sides[here].ask(decision.read_open_epoch)
                if attempt is None or attempt["leaves"] != here or self._has_served(here, attempt["epoch"]):
                    self.sides[here].wait(IDLE_LOOK_SECONDS)
                    continue
                self.guard(attempt)
            except PgHaError as error:
                self.log(error.message)
                time.sleep(0.5)

    def _catch_up(self) -> None:
        """Finish an attempt in whose midst an earlier process of ours died: it had laid the link, and clients may still be held.

        Only the side that the attempt leaves knows it. Where the side that the link does not name cannot be asked, the named side lets in
        whom it may, unless an attempt leaves that one: clients are held for it, and the loop guards it.
        """
        here = self.pooler.placed_side()
        leaves = decision.other(here)
        try:
            attempt = self.sides[leaves].ask(decision.read_open_epoch)
            if attempt is not None and attempt["leaves"] == leaves and not self._has_served(here, attempt["epoch"]):
                self.guard(attempt)
        except PgHaError as error:
            self.log(error.message)
            if not self._is_left(here):
                self._serve_undecided(here)

    def _is_left(self, side: str) -> bool:
        """Whether an open attempt leaves this side; a side that does not answer has told us of none."""
        try:
            attempt = self.sides[side].ask(decision.read_open_epoch)
        except PgHaError as error:
            self.log(error.message)
            return False
        return attempt is not None and attempt["leaves"] == side

    def guard(self, attempt: dict[str, t.Any]) -> None:
        """Arm for one attempt and stay until its pooler serves the decided side.

        :raises ClientError: a side could not be reached while arming (nothing was acknowledged)
        """
        epoch, leaves = int(attempt["epoch"]), attempt["leaves"]
        deadline = time.monotonic() + attempt["budget_ms"] / 1000
        self.pooler.warm()
        self._warm(epoch, decision.other(leaves))
        self.sides[leaves].ask(decision.acknowledge, self.config.name, epoch, "armed")
        self.log(f"armed for epoch {epoch}: {attempt['budget_ms']} ms until I decide for the {leaves}")
        serves = self._await_decision(epoch, leaves, deadline)
        self.log(f"epoch {epoch} is decided: the {serves} serves")
        self._serve(epoch, serves, moves=serves != leaves)
        self.log(f"epoch {epoch}: clients go on at the {serves}")

    def _warm(self, epoch: int, opens: str) -> None:
        """Ask the next side once what it will be asked while clients are held: the first time costs several times as much."""
        side = self.sides[opens]
        side.ask(decision.is_announced, epoch, opens)
        side.ask(decision.acknowledge, self.config.name, epoch, "armed")

    def _await_decision(self, epoch: int, leaves: str, deadline: float) -> str:
        """Loop until a decision was read; from the deadline on compete for the side that the epoch leaves.

        While neither side answers, clients are served by the side that the epoch leaves: its guard decides what they may do.
        """
        opens = decision.other(leaves)
        while True:
            late = time.monotonic() >= deadline
            try:
                if late:
                    if self._announced(epoch, opens):
                        return opens
                    return str(self.sides[leaves].ask(decision.compete, epoch, leaves, self.config.name))
                decided = self.sides[leaves].ask(decision.read_decision, epoch)
                if decided is not None:
                    return str(decided)
                self.sides[leaves].wait(min(0.05, max(0.0, deadline - time.monotonic())))
            except PgHaError as error:
                self.log(error.message)
                if late:
                    self._serve_undecided(leaves)
                time.sleep(1.0 if late else 0.1)

    def _announced(self, epoch: int, opens: str) -> bool:
        """Whether the next side has the announcement; an unreachable next side has told us nothing."""
        try:
            return bool(self.sides[opens].ask(decision.is_announced, epoch, opens))
        except PgHaError as error:
            self.log(error.message)
            return False

    def _serve_undecided(self, leaves: str) -> None:
        try:
            self.pooler.turn(leaves)
            self.pooler.resume()
        except PgHaError as error:
            self.log(error.message)

    def _serve(self, epoch: int, serves: str, moves: bool) -> None:
        """Put the pooler on the decided side; tries for ever, because clients are held. It is turned while the announcement is on its way."""
        waiting_since = time.monotonic()
        while True:
            try:
                self.pooler.turn(serves)
                side = self.sides[serves]
                while moves and not side.ask(decision.is_announced, epoch, serves):
                    if time.monotonic() - waiting_since > ANNOUNCEMENT_PATIENCE_SECONDS:
                        side.ask(decision.announce, epoch, serves)
                    time.sleep(0.001)
                side.ask(decision.acknowledge, self.config.name, epoch, "read")
                self.pooler.resume()
                side.ask(decision.acknowledge, self.config.name, epoch, "served")
                return
            except PgHaError as error:
                self.log(error.message)
                time.sleep(0.2)

    def _has_served(self, side: str, epoch: int) -> bool:
        return self.config.name in self.sides[side].ask(decision.read_acknowledged, epoch, "served")


def place_route(config: Config, log: t.Callable[[str], None]) -> None:
    """Lay the link of the side that was decided last, by whatever side can be asked; the last link stays where nobody answers."""
    histories = []
    for name in decision.SIDES:
        side = Side(config, name)
        try:
            histories.append(side.ask(decision.read_history, name))
        except PgHaError as error:
            log(error.message)
        finally:
            side.drop()
    pooler = Pooler(config)
    if any(histories):
        pooler.place(decision.plan_serving(*histories))
    log(f"the pooler starts on the {pooler.placed_side()}")


def _log(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="pg-ha-dead-man", description="Keeps the PgBouncer of this host on the side of a migration that was decided.")
    parser.add_argument("--config", required=True, help="file that role cutover has written")
    parser.add_argument("--place-route", action="store_true", help="only lay the link of the decided side, then end")
    arguments = parser.parse_args()
    with open(arguments.config, encoding="utf-8") as handle:
        config = Config(**json.load(handle))
    try:
        if arguments.place_route:
            place_route(config, _log)
        else:
            DeadMan(config, _log).run()
    except PgHaError as error:
        _log(error.message)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
