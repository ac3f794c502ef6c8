# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""How rows come from the side that is left to the next one: over a link all along, or by a copy in a declared window under the fence."""

from __future__ import annotations

import contextlib
import time
import typing as t

from .._core.errors import GateError, PgHaError
from .._postgresql import client
from . import apart, ddl_guard, gates, schema, section, sequences, settle
from .large_object_fence import LOCKABLE
from .way_back import NoWayBack, WayBack

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# How far sequences are set ahead of the source before clients are held, so that none has to move while they are.
SEQUENCE_MARGIN = 5000
# How often the fence says a word while a copy or a comparison runs beside it.
BEAT_SECONDS = 1.0
# How many differences the message of an undone attempt tells.
TOLD = 3


class Bring(t.Protocol):
    """What differs between the methods.

    :param gates: what has to hold before clients are held
    :param window_seconds: declared window, None where the budget is the bound
    :param patience_seconds: how long the announcement may take to arrive by itself
    :param way_back: how the side that is left follows afterwards
    """

    way_back: WayBack | NoWayBack

    @property
    def gates(self) -> tuple[gates.Gate, ...]: ...
    @property
    def window_seconds(self) -> float | None: ...
    @property
    def patience_seconds(self) -> float: ...

    def check(self) -> None:
        """Raise what forbids to begin."""

    def prepare(self, here: Connection, ahead: Connection) -> None:
        """What can be done before clients are held; they do not notice."""

    def large_objects(self, here: Connection, ahead: Connection) -> dict[str, t.Any] | None:
        """For the watch: not None makes the fence hold the large objects too."""

    def carry(self, attempt: section.Attempt, sessions: section.Sessions, watch: section.Watch, steps: section.Steps, deadline: float) -> str:
        """The steps between the fence and the decision; returns the next side's position after all rows."""

    def undo(self, here: Connection, ahead: Connection) -> None:
        """After an attempt that was undone: leave the next side so that the next attempt can begin."""

    def evidence(self) -> dict[str, t.Any]:
        """What the attempt's evidence holds besides its steps."""

    def retire(self, ahead: Connection, here: Connection, serves: str) -> None:
        """End what brought the rows; idempotent."""


class ByLink:
    """Method logical: the rows have followed all along."""

    def __init__(self, way_back: WayBack | NoWayBack) -> None:
        self.way_back = way_back

    gates = gates.LINK_GATES
    window_seconds: float | None = None
    patience_seconds = 1.0

    def check(self) -> None:
        """The gates say it all."""

    def prepare(self, here: Connection, ahead: Connection) -> None:
        """Views and sequences are not replicated; the way back is laid while nobody waits."""
        self.way_back.prepare(here, ahead)
        self.way_back.spread(ahead)
        settle.refresh_views(here, ahead)
        sequences.move_ahead(here, ahead, SEQUENCE_MARGIN)

    def large_objects(self, here: Connection, ahead: Connection) -> dict[str, t.Any] | None:
        """State of the large objects, whose content is the same on both sides; None where neither side has any and nobody can be kept from making one."""
        watched = _has_large_objects(here) or _has_large_objects(ahead) or client.query_value(here, f"SELECT {LOCKABLE}")
        return section.watch_large_objects(here, ahead) if watched else None

    def carry(self, attempt: section.Attempt, sessions: section.Sessions, watch: section.Watch, steps: section.Steps, deadline: float) -> str:
        """A marker, a barrier, sequences."""
        return section.carry_over_link(attempt, sessions, watch, steps, deadline)

    def undo(self, here: Connection, ahead: Connection) -> None:
        """The link goes on, and the way back is taken away."""
        self.way_back.undo(here, ahead)

    def evidence(self) -> dict[str, t.Any]:
        """Nothing: verify has shown it before."""
        return {}

    def retire(self, ahead: Connection, here: Connection, serves: str) -> None:
        """Drop subscription and slot, and let DDL alone again."""
        ddl_guard.remove(here)
        settle.retire_link(ahead, here, schema.link_towards(serves))


class Copier(t.Protocol):
    """What the module hands in for method dump; every call opens its own sessions."""

    def check(self) -> None:
        """Raise GateError with every gate of the copy that does not hold."""

    def copy(self, snapshot: str) -> dict[str, t.Any]:
        """Copy schema, rows, large objects and sequences at a snapshot that the fence has exported; what was there of ours is thrown away."""

    def large_objects(self, snapshot: str | None = None) -> dict[str, t.Any] | None:
        """Fingerprint of the source's large objects, now or at a snapshot; None where there are none."""

    def compare(self) -> dict[str, t.Any]:
        """Compare schema, all rows, sequences and large objects of two quiet sides, keep the evidence on the target and return it."""

    def undo(self) -> None:
        """End what still works, and empty the target's tables."""

    def evidence(self) -> dict[str, t.Any]:
        """What copy and comparison have left on the target: ``{"initial_copy", "parity"}``."""


class ByDump:
    """Method dump: clients are held for a declared window, in which the rows are copied and compared under the fence.

    :param window_seconds: the dead men's D: at its end clients go on at the side that was to be left, whatever has become of us
    """

    gates: tuple[gates.Gate, ...] = gates.DUMP_GATES
    patience_seconds = 0.0

    def __init__(self, window_seconds: float, copier: Copier, way_back: WayBack | NoWayBack, beat_seconds: float = BEAT_SECONDS) -> None:
        self.window_seconds: float | None = window_seconds
        self.way_back = way_back
        if not isinstance(way_back, NoWayBack):
            # Rows need no identity to be copied, and to be followed they do.
            self.gates = (*self.gates, gates.identity)
        self._copier = copier
        self._beat_seconds = beat_seconds
        self._beside: apart.Apart | None = None

    def check(self) -> None:
        """Programs, versions, what stands on the target."""
        self._copier.check()

    def prepare(self, here: Connection, ahead: Connection) -> None:
        """All of it is copied under the fence. Whether there would be a way back is tried with the rehearsed schema, and taken away again."""
        self.way_back.prepare(here, ahead)
        self.way_back.undo(here, ahead)

    def large_objects(self, here: Connection, ahead: Connection) -> dict[str, t.Any] | None:
        """None: reading them takes the very lock that would keep their writers away, so the fence takes it after copy and comparison."""
        return None

    def carry(self, attempt: section.Attempt, sessions: section.Sessions, watch: section.Watch, steps: section.Steps, deadline: float) -> str:
        """Copy at the fence's own snapshot, compare everything, and make it durable.

        That the fence stood all the while is known at the decision: it is taken in the fence's transaction, which would be gone.
        """
        fence = sessions.fence
        steps.run("last look", lambda: section.last_look(attempt, sessions, watch))
        snapshot = str(steps.run("snapshot", lambda: client.query_value(fence, "SELECT pg_export_snapshot()")))
        until = deadline - section.margin(attempt)
        copied = steps.run("copy", lambda: self._beside_the_fence("copy", lambda: self._copy(snapshot), fence, until))
        # The fence does not stop nextval: whoever does not come through a pooler may have moved a sequence meanwhile.
        steps.run("sequences", lambda: sequences.move_ahead(sessions.control, sessions.ahead))
        parity = steps.run("compare", lambda: self._beside_the_fence("comparison", self._copier.compare, fence, until))
        if parity["mismatches"]:
            told = " ".join(mismatch["sentence"] for mismatch in parity["mismatches"][:TOLD])
            raise GateError(f"After the copy {len(parity['mismatches'])} things differ: {told}")
        if copied["large_objects"] is not None or _has_large_objects(sessions.control) or client.query_value(fence, f"SELECT {LOCKABLE}"):
            sessions.large_objects.take(attempt)
            now = steps.run("large objects", lambda: self._beside_the_fence("look at large objects", self._copier.large_objects, fence, until))
            if now != copied["large_objects"]:
                raise GateError("Large objects changed while they were copied: no table's fence stops their writers. Stop them and cut over again.")
        steps.run("last sequences", lambda: sequences.move_ahead(sessions.control, sessions.ahead))
        # Only now: its publication names the tables that the copy has made. Standbys take the slot in their own time, clients wait.
        steps.run("way back", lambda: self.way_back.prepare(sessions.control, sessions.ahead))
        ahead_lsn = steps.run("barrier", lambda: section.barrier_for_all(attempt, sessions, watch, deadline))
        steps.run("look again", lambda: section.last_look(attempt, sessions, watch))
        return str(ahead_lsn)

    def _copy(self, snapshot: str) -> dict[str, t.Any]:
        """Copy, and what the large objects were at its snapshot."""
        return {"large_objects": self._copier.large_objects(snapshot), "copy": self._copier.copy(snapshot)}

    def _beside_the_fence(self, what: str, work: t.Callable[[], dict[str, t.Any] | None], fence: Connection, until: float) -> t.Any:
        """Have it done by a process of its own, while this one says a word on the fence's session each second.

        One thread speaks on that session, so no two statements meet there; when we fall silent, the server ends the fence.

        :raises GateError: it failed, or the window ends
        :raises ClientError: the fence is gone
        """
        self._beside = apart.Apart(what, work)
        try:
            while not self._beside.wait(min(self._beat_seconds, max(0.0, until - time.monotonic()))):
                if time.monotonic() >= until:
                    window = f"The window of {self.window_seconds:g} s"
                    raise GateError(f"{window} ends and the {what} is not done: declare a longer one (pg_ha_dump_window_seconds).")
                client.query(fence, "SELECT 1")
            result = self._beside.result()
        except PgHaError:
            self._beside.stop()
            raise
        self._beside.reap()
        self._beside = None
        return result

    def undo(self, here: Connection, ahead: Connection) -> None:
        """End what still works beside us, and empty the target. What cannot be emptied now is thrown away by the next attempt's copy."""
        self.way_back.undo(here, ahead)
        if self._beside is not None:
            self._beside.reap()
            self._beside = None
        with contextlib.suppress(PgHaError):
            self._copier.undo()

    def evidence(self) -> dict[str, t.Any]:
        """Reports of the copy and of the comparison."""
        return self._copier.evidence()

    def retire(self, ahead: Connection, here: Connection, serves: str) -> None:
        """There is no link."""


def _has_large_objects(connection: Connection) -> bool:
    return bool(client.query_value(connection, "SELECT EXISTS (SELECT FROM pg_largeobject_metadata)"))
