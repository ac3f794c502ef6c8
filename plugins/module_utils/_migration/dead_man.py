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
import threading
import time
import typing as t
from dataclasses import dataclass

from .._core.errors import ClientError, PgHaError
from .._postgresql import client
from .._postgresql.quoting import identifier
from . import decision, schema

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# How long each host may take to answer a new session, and a statement to run.
CONNECT_TIMEOUT_SECONDS = 2
STATEMENT_TIMEOUT_MS = 1000
# How long the dead man waits for any answer before it looks elsewhere, and for the announcement's once clients wait for that alone. Together they
# are less than the two seconds after the budget in which clients have to go on: a network that is cut says nothing, and its end may take minutes.
ANSWER_SECONDS = 1.1
ANNOUNCEMENT_ANSWER_SECONDS = 0.5
# A next side that takes longer is not one to move clients to; a decision is not kept waiting for it.
BEAT_SECONDS = 0.2
# How long a pooler that starts waits for a side: of several hosts the first ones may be gone.
START_ANSWER_SECONDS = 8.0
IDLE_LOOK_SECONDS = 1.0
# How often one at rest asks the other side whether its clients belong there.
OTHER_LOOK_SECONDS = 10.0
# How long after an attempt its PAUSE may still come: a network delivers late what was sent into it before it was cut, until the sender gives up
# (tcp_user_timeout, 10 s). Whoever pauses the pooler by hand at another time has a reason.
LATE_PAUSE_SECONDS = 60.0
# How the guard of a switchover's pause calls itself.
PAUSE_GUARD = "ha_migration pause guard"
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


class Opening(threading.Thread):
    """A session that is being opened beside us: libpq bounds each host, and not all of them together, nor the look for their addresses."""

    def __init__(self, config: Config, side: str) -> None:
        super().__init__(daemon=True)
        self.config = config
        self.side = side
        self.outcome: Connection | PgHaError | None = None
        self.start()

    def run(self) -> None:
        """Open it."""
        settings = {"statement_timeout": str(STATEMENT_TIMEOUT_MS), "synchronous_commit": "on"}
        try:
            connection = client.connect(
                self.config.service_file,
                self.side,
                application_name=schema.dead_man_name(self.config.name),
                connect_timeout_seconds=CONNECT_TIMEOUT_SECONDS,
                settings=settings,
                patience_seconds=0,
            )
            client.query(connection, f"LISTEN {schema.CHANNEL}")
            self.outcome = connection
        except PgHaError as error:
            self.outcome = error


class Side:
    """A session to one side that is opened when needed and dropped when it fails. Nobody waits for it longer than told."""

    def __init__(self, config: Config, name: str) -> None:
        self.config = config
        self.name = name
        self._connection: Connection | None = None
        self._opening: Opening | None = None

    def connection(self, within: float) -> Connection:
        """The session, opened if there is none; what is not open in time goes on opening for the next one who asks.

        :raises ClientError: the side cannot be reached
        """
        if self._connection is None:
            opening = self._opening = self._opening or Opening(self.config, self.name)
            opening.join(within)
            if opening.is_alive():
                raise ClientError(f"The {self.name} has let nobody in within {within:g} s.", connection_lost=True)
            self._opening = None
            if opening.outcome is None or isinstance(opening.outcome, PgHaError):
                raise opening.outcome or ClientError(f"The session to the {self.name} could not be opened.")
            self._connection = opening.outcome
        return self._connection

    def drop(self) -> None:
        """Forget the session, whatever its state."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def ask(self, question: t.Callable[..., t.Any], *arguments: t.Any, within: float = ANSWER_SECONDS) -> t.Any:
        """Ask on this side's session; a failure drops the session and goes on upwards, and so does an answer that takes too long."""
        try:
            connection = self.connection(within)
            with client.bounded(connection, within):
                return question(connection, *arguments)
        except Exception:
            self.drop()
            raise

    def wait(self, seconds: float) -> bool:
        """Wait for a notification at most that long (or just that long when there is no session); returns whether one came, also before, beside an answer."""
        if self._connection is None:
            time.sleep(seconds)
            return False
        if not self._connection.notifies and not select.select([self._connection], [], [], seconds)[0]:
            return False
        try:
            client.drain_notifications(self._connection)
        except ClientError:
            self.drop()
        return True


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

    def resume(self, beside_guard: bool = True) -> bool:
        """Let clients go on, where they are held; returns whether they did.

        :param beside_guard: also where the guard of a switchover stands, which ends a pause itself (role pause_guard)
        """
        with self._console_dropped_on_failure():
            if not self._show()["paused"] or (not beside_guard and self._is_guarded()):
                return False
            client.query(self._open(), f"RESUME {identifier(self.config.database)}")
            return True

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

    def _is_guarded(self) -> bool:
        return any(row.get("application_name") == PAUSE_GUARD for row in client.query(self._open(), "SHOW CLIENTS"))

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
        self._attempt_ended_at: float | None = None
        self._other_look_at = 0.0

    def run(self) -> t.NoReturn:
        """For ever: whatever fails is logged and tried again."""
        self._catch_up()
        starts = True
        while True:
            here = self.pooler.placed_side()
            try:
                attempt = self.sides[here].ask(decision.read_open_epoch)
                if attempt is None or attempt["leaves"] != here or self._has_served(here, attempt["epoch"]):
                    self._come_over(here)
                    self._take_back_late_pause(starts)
                    starts = False
                    self.sides[here].wait(IDLE_LOOK_SECONDS)
                    continue
                try:
                    self.guard(attempt)
                finally:
                    self._attempt_ended_at = time.monotonic()
            except PgHaError as error:
                self.log(error.message)
                self._come_over(here)
                time.sleep(0.5)

    def _come_over(self, here: str) -> None:
        """Nothing is open, and the other side says itself that it serves: the pooler was built anew, on the side that was left.

        Its word is enough where this side does not answer: whoever had taken the clients from it would have decided that there.
        """
        if time.monotonic() < self._other_look_at:
            return
        self._other_look_at = time.monotonic() + OTHER_LOOK_SECONDS
        name = decision.other(here)
        with contextlib.suppress(PgHaError):
            other = self.sides[name]
            known = other.ask(decision.read_history, name)
            if not known or decision.plan_serving(known) != name or other.ask(decision.read_open_epoch) is not None:
                return
            if not self._is_left(here) and decision.plan_serving(known, self._history(here)) == name:
                other.ask(decision.acknowledge, self.config.name, max(known)[0], "read")
                self.pooler.turn(name)
                self.log(f"the pooler led to the {here} though the {name} serves: it is turned")

    def _history(self, side: str) -> list[tuple[int, str]]:
        """What a side knows; one that does not answer has told us nothing."""
        try:
            return list(self.sides[side].ask(decision.read_history, side))
        except PgHaError:
            return []

    def _take_back_late_pause(self, starts: bool = False) -> None:
        """No attempt holds clients now, but one has just ended.

        :param starts: it may have ended before we were there; none pauses clients again without having heard from us
        """
        if not starts and (self._attempt_ended_at is None or time.monotonic() - self._attempt_ended_at > LATE_PAUSE_SECONDS):
            return
        # A pooler that does not run holds nobody, and systemd says so.
        with contextlib.suppress(PgHaError):
            if self.pooler.resume(beside_guard=False):
                self.log("clients were held though no attempt is open: they go on")

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
        # Since the attempt began: one that starts again in its midst has no time of its own.
        left_ms = attempt["budget_ms"] - attempt["age_ms"]
        deadline = time.monotonic() + left_ms / 1000
        self.pooler.warm()
        self._warm(epoch, decision.other(leaves))
        self.sides[leaves].ask(decision.acknowledge, self.config.name, epoch, "armed")
        self.log(f"armed for epoch {epoch}: {max(0, left_ms)} ms until I decide for the {leaves}")
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

        Where that side does not answer, the announcement on the other one tells as much. While neither does, clients are served by the side that
        the epoch leaves: its guard decides what they may do.
        """
        opens, answers, unsure, woken = decision.other(leaves), True, False, False
        while True:
            rest = deadline - time.monotonic()
            late = rest <= 0
            try:
                within = ANNOUNCEMENT_ANSWER_SECONDS if late else min(ANNOUNCEMENT_ANSWER_SECONDS, rest)
                if (late or not answers) and not unsure and self._announced(epoch, opens, within):
                    return opens
                if late:
                    decided = self.sides[leaves].ask(decision.compete, epoch, leaves, self.config.name)
                else:
                    decided = self.sides[leaves].ask(decision.read_decision, epoch, within=min(ANSWER_SECONDS, rest))
                answers = True
                unsure = decided is not None and not self._stays(epoch, leaves, str(decided))
                if decided is not None and not unsure:
                    return str(decided)
                if unsure and late:
                    self._serve_undecided(leaves)
                if woken:
                    self._beat(epoch, opens)
                woken = self.sides[leaves].wait(min(0.05, max(0.0, deadline - time.monotonic())))
            except PgHaError as error:
                self.log(error.message)
                answers = unsure = False
                if late:
                    self._serve_undecided(leaves)
                else:
                    self._beat(epoch, opens)
                time.sleep(1.0 if late else min(0.1, max(0.0, deadline - time.monotonic())))

    def _stays(self, epoch: int, leaves: str, decided: str) -> bool:
        """Whether what was read on the side that is left may be acted on.

        A cluster shows a decision that its next leader would not have, when the wait for its standby was broken off. A commit of our own covers it.
        Without that the pooler stays where it is, and so do its clients: the leader refuses them, and no other one is open.
        """
        if decided == leaves or leaves == "source":
            return True
        side = self.sides[leaves]
        pid = side.ask(lambda connection: connection.info.backend_pid)
        try:
            side.ask(decision.confirm, self.config.name, epoch, "read")
        except PgHaError as error:
            self.log(error.message)
            with contextlib.suppress(PgHaError):
                # It would wait for the standby for ever, whatever becomes of us.
                side.ask(client.query, "SELECT pg_terminate_backend(%s)", (pid,))
            return False
        return True

    def _beat(self, epoch: int, opens: str) -> None:
        """Tell the next side that we reach it: asked to (something woke us), or because whoever may ask does not reach us."""
        try:
            self.sides[opens].ask(decision.beat, self.config.name, epoch, within=BEAT_SECONDS)
        except PgHaError as error:
            self.log(error.message)

    def _announced(self, epoch: int, opens: str, within: float) -> bool:
        """Whether the next side has the announcement; an unreachable next side has told us nothing."""
        try:
            return bool(self.sides[opens].ask(decision.is_announced, epoch, opens, within=within))
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
            histories.append(side.ask(decision.read_history, name, within=START_ANSWER_SECONDS))
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
