# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Clients wait at their poolers while the leader changes, so that none of them sees an error: paused together, bounded, and let go on whatever happens.

Three things end the pause: we do, once the route of every pooler leads to a server that takes writes, or at the end of the budget; and where we have
died, the guard beside each pooler (role pause_guard), which stands before the first PAUSE is sent.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import typing as t
from dataclasses import dataclass, field

from .._core.errors import ClientError, GateError, PgHaError
from .._postgresql import client
from .._postgresql.console import pause_all, read_pooled
from .._postgresql.quoting import identifier
from .._postgresql.timeline import TIMELINE

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# How the guard beside a pooler calls itself (role pause_guard).
GUARD = "ha_migration pause guard"
SERVED, NOT_SERVED = "served", "the budget was used up or the switchover failed"
LOOK_SECONDS = 0.02
ROUTE_CONNECT_SECONDS = 2


@dataclass(frozen=True)
class Route:
    """Where a pooler leads, and how a server there is asked.

    :param service: service of the administrator, whose host and port are replaced by the pooler's own
    """

    service_file: str
    service: str
    host: str
    port: int

    def read_timeline(self) -> int | None:
        """Timeline of the primary that answers there, None when it is a standby. A promoted one has a higher one than its predecessor.

        :raises ClientError: nobody answers, or not to the administrator
        """
        session = client.connect(
            self.service_file,
            self.service,
            application_name="ha_migration switchover",
            connect_timeout_seconds=ROUTE_CONNECT_SECONDS,
            patience_seconds=0,
            host=self.host,
            port=str(self.port),
            target_session_attrs="any",
        )
        with contextlib.closing(session):
            return t.cast("int | None", client.query_value(session, f"SELECT CASE WHEN NOT pg_is_in_recovery() THEN {TIMELINE} END"))

    def has_passed(self, timeline: int) -> bool:
        """Whether a primary of a later timeline answers there now; while roles change it may be anybody or nobody."""
        try:
            return (self.read_timeline() or 0) > timeline
        except ClientError:
            return False


@dataclass
class Hold:
    """All poolers of a cluster, whose clients wait while :meth:`held` stands.

    :param open_console: opens the console of a pooler, by its name
    :param open_route: how the server behind a pooler is asked, by the host and port to which it leads
    :param database: pooled database
    :param pause_seconds: how long PAUSE may take: a client with an open transaction makes it fail
    :param budget_seconds: how long clients wait at most
    :ivar held_ms: how long they have waited, None before
    :ivar resumed_because: ``served``, or why clients went on before anybody served them
    """

    names: tuple[str, ...]
    open_console: t.Callable[[str], Connection]
    open_route: t.Callable[[str, int], Route]
    database: str
    pause_seconds: float
    budget_seconds: float
    held_ms: float | None = None
    resumed_because: str = NOT_SERVED
    _consoles: dict[str, Connection] = field(default_factory=dict)
    _routes: dict[str, Route] = field(default_factory=dict)
    _timelines: dict[str, int] = field(default_factory=dict)
    _since: float = 0.0

    def check(self, *, guarded: bool = True) -> None:
        """Look at every pooler before anything is changed.

        :param guarded: whether the guard that ends a pause has to be there already
        :raises GateError: with every reason why clients could not be held, or not be let go on
        """
        problems: list[str] = []
        for name in self.names:
            try:
                self._consoles[name] = self.open_console(name)
                problems += self._look(name, guarded)
            except PgHaError as error:
                problems.append(f"Pooler {name}: {error.message}")
        if problems:
            raise GateError("Nobody was held and nothing was changed. " + " ".join(problems))

    def _look(self, name: str, guarded: bool) -> list[str]:
        row = read_pooled(self._consoles[name], self.database)
        if row is None:
            return [f"Pooler {name} knows no database {self.database}: run playbooks/provision.yml."]
        route = self.open_route(str(row["host"]), row["port"])
        timeline = route.read_timeline()
        found = []
        if timeline is None:
            found.append(f"Pooler {name} leads to {row['host']}:{row['port']}, where a standby answers: look at HAProxy there.")
        else:
            self._routes[name], self._timelines[name] = route, timeline
        if row["pool_mode"] != "transaction":
            found.append(f"Pooler {name} runs it in {row['pool_mode']} mode, in which PAUSE waits for every client to leave: set pool_mode = transaction.")
        if row["paused"]:
            found.append(f"Pooler {name} is paused already: RESUME {identifier(self.database)} on its console.")
        if guarded and not any(row.get("application_name") == GUARD for row in client.query_console(self._consoles[name], "SHOW CLIENTS")):
            found.append(f"Pooler {name} has no guard that would end the pause if this run died: role freight.pg_ha.pause_guard arms it.")
        return found

    @contextlib.contextmanager
    def held(self) -> t.Iterator[None]:
        """Clients wait; whatever happens inside, they go on afterwards.

        :raises GateError: a pooler could not be paused in time; all go on, nothing was changed
        """
        self._since = time.monotonic()
        try:
            self._pause()
            yield
        finally:
            self._resume()
            self.held_ms = round((time.monotonic() - self._since) * 1000, 1)

    def wait_until_served(self, given_up: t.Callable[[], bool]) -> None:
        """Until the route of every pooler leads to a primary of a later timeline, or the budget is used up, or there is nothing to wait for."""
        left = set(self.names)
        while left and not given_up() and time.monotonic() - self._since < self.budget_seconds:
            left = {name for name in left if not self._routes[name].has_passed(self._timelines[name])}
            if left:
                time.sleep(LOOK_SECONDS)
        if not left:
            self.resumed_because = SERVED

    def _pause(self) -> None:
        try:
            pause_all(self._consoles, self.database, self.pause_seconds)
        except GateError as error:
            raise GateError(f"{error.message} Clients go on, nothing was changed.") from error

    def _resume(self) -> None:
        """On consoles of their own: one that waits in PAUSE answers nobody, and goes first (a RESUME beside it would leave it waiting for ever)."""
        for name in self.names:
            # Its wire is cut: to close it would wait for the thread that waits on it.
            with contextlib.suppress(Exception), socket.socket(fileno=os.dup(self._consoles[name].fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)
            # What cannot be told to go on now is let go on by its guard.
            with contextlib.suppress(PgHaError):
                self._resume_one(name)

    def _resume_one(self, name: str) -> None:
        with contextlib.closing(self.open_console(name)) as console:
            row = read_pooled(console, self.database)
            if row is not None and row["paused"]:
                client.query_console(console, f"RESUME {identifier(self.database)}")
