"""What is tried: actors, moments, directions, and which cells are left out with their reasons. Data and selection only: nothing here does anything."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

CUT_OVER, ROLL_BACK = "cut over", "roll back"
DIRECTIONS = (CUT_OVER, ROLL_BACK)
# What is run, and run again after the fault.
PLAYBOOK, SECTION = "playbook", "section"
PLAYBOOKS = {CUT_OVER: "tests/bench/forward.yml", ROLL_BACK: "playbooks/roll_back.yml"}
LEAVES = {CUT_OVER: "source", ROLL_BACK: "target"}
SERVES = {CUT_OVER: "target", ROLL_BACK: "source"}

# As module cutover runs them (a unit test reads its source). Not a step of the evidence, but observed like one: finish.
STEPS = (
    "warm", "arm", "cancel autovacuum", "pause", "fence", "marker", "last look", "sequences", "arrival", "barrier", "large objects",
    "decide", "announce", "flip", "finish",
)  # fmt: skip
# Nothing happens between the end of a step and the beginning of the next one, so one moment stands for both. Finish begins a second after the flip.
BOUNDARIES = ("before warm", *(f"after {step}" for step in STEPS[:-1]), "before finish", "after finish")
# Moments outside the section, and the line of the playbook's output that shows that one has come.
OUTPUTS = {
    # The copy was looked at once and had not ended.
    "copy": r"FAILED - RETRYING: .*Copy \| Watch the copy",
    # The link brings every change while the rows of both sides are compared.
    "follow": r"TASK \[.*Rows \| Wait until the comparison has started",
}
MOMENTS = (*OUTPUTS, *BOUNDARIES)
# The last look at the next side before the decision: if that side dies after it, it is decided for all the same. And the moment from which on the next side
# knows the decision itself, and needs nothing of the side that was left.
LAST_SEEN, ANNOUNCED = MOMENTS.index("after barrier"), MOMENTS.index("after announce")


@dataclass(frozen=True)
class Actor:
    """Somebody who dies.

    :param name: on the command line and in the table
    :param words: what is done, for the table
    :param side: the side whose serving depends on it; None where clients can always be served without it
    :param waits_for: what sets the time until clients are served while that side has to serve them
    """

    name: str
    words: str
    side: str | None = None
    waits_for: str = ""


ACTORS = (
    Actor("controller", "ansible-playbook and all its children, SIGKILL"),
    Actor("mover", "the mover's host is switched off, and on again"),
    Actor("section", "the process of the critical section on the mover, SIGKILL"),
    Actor("source-killed", "the source's postmaster, SIGKILL; started again", "source", "the source server is started again"),
    Actor("source-stopped", "the source is stopped in good order; started again", "source", "the source server is started again"),
    Actor("leader-killed", "PostgreSQL and Patroni of the target's leader, SIGKILL", "target", "the target gets another leader"),
    Actor("leader-off", "the host of the target's leader is switched off, and on again", "target", "the target gets another leader"),
    Actor("standby-off", "the host of the target's synchronous standby is switched off, and on again", "target", "the target names another standby"),
    Actor("etcd-off", "the host of one etcd member is switched off, and on again"),
    Actor("haproxy-killed", "HAProxy, SIGKILL"),
    Actor("pgbouncer-killed", "PgBouncer, SIGKILL"),
    Actor("dead-man-killed", "the dead man's switch, SIGKILL"),
    Actor("net-source-mover", "no packet passes between source and mover"),
    Actor("net-target-mover", "no packet passes between the target's servers and the mover"),
    Actor("net-pooler-target", "no packet passes between the pooler's host and the target's servers", "target", "the network is mended"),
    Actor("disk-full", "the mover's file systems are full"),
)
ACTOR = {actor.name: actor for actor in ACTORS}


@dataclass(frozen=True)
class Case:
    """One actor at one moment of a move in one direction.

    :param by: what moves the clients: the whole playbook, or the program of its critical section
    """

    direction: str
    moment: str
    actor: str
    by: str = PLAYBOOK

    @property
    def name(self) -> str:
        """``cut over/after fence/mover``, with the playbook named where the section alone would have done."""
        return f"{self.direction}/{self.moment}/{self.actor}" + ("/playbook" if self.by == PLAYBOOK and self.moment in BOUNDARIES else "")

    @property
    def leaves(self) -> str:
        """The side that serves before."""
        return LEAVES[self.direction]

    @property
    def serves(self) -> str:
        """The side that shall serve in the end."""
        return SERVES[self.direction]


def name_of(row: Mapping[str, Any]) -> str:
    """The name of the case that a row of chaos.json is of."""
    return Case(row["direction"], row["moment"], row["actor"], row["by"]).name


# The moments at which a full disk is tried.
_DISK = ("copy", "follow", "before warm", "after fence", "after decide", "before finish")


def direction_to(side: str) -> str:
    """The direction that has a side serve."""
    return next(direction for direction, serving in SERVES.items() if serving == side)


def left_out(case: Case) -> str | None:
    """Why a cell of the matrix is not tried, or None."""
    if case.moment == "copy" and case.direction == ROLL_BACK:
        return "The way back copies nothing."
    if case.moment in OUTPUTS and case.actor == "section":
        return "No critical section runs then; the copy's and the comparison's processes die with the mover."
    if case.actor == "disk-full" and case.moment not in _DISK:
        return "The section writes nothing on the mover's disks between its steps: tried before it, inside it, after the decision and before its finish."
    return None


def reasons() -> dict[str, list[str]]:
    """Why cells are not tried, and which."""
    found: dict[str, list[str]] = {}
    for case in cells():
        reason = left_out(case)
        if reason is not None:
            found.setdefault(reason, []).append(case.name)
    return found


def cells() -> list[Case]:
    """The whole matrix, also what is left out."""
    return [
        Case(direction, moment, actor.name, SECTION if moment in BOUNDARIES else PLAYBOOK) for moment in MOMENTS for actor in ACTORS for direction in DIRECTIONS
    ]


# One case per actor inside the section, there and back in turn, so that no move is made for its own sake: also by the whole playbook.
SHORT = (
    Case(CUT_OVER, "before warm", "disk-full"),
    Case(ROLL_BACK, "after fence", "mover"),
    Case(CUT_OVER, "after fence", "controller"),
    Case(ROLL_BACK, "after decide", "section"),
    Case(CUT_OVER, "after pause", "source-killed"),
    Case(ROLL_BACK, "after announce", "source-stopped"),
    Case(CUT_OVER, "after arrival", "leader-killed"),
    Case(ROLL_BACK, "after arm", "leader-off"),
    Case(CUT_OVER, "after decide", "standby-off"),
    Case(ROLL_BACK, "after barrier", "etcd-off"),
    Case(CUT_OVER, "after decide", "haproxy-killed"),
    Case(ROLL_BACK, "after pause", "pgbouncer-killed"),
    Case(CUT_OVER, "after announce", "dead-man-killed"),
    Case(ROLL_BACK, "after fence", "net-source-mover"),
    Case(CUT_OVER, "after marker", "net-target-mover"),
    Case(ROLL_BACK, "after decide", "net-pooler-target"),
)


def _short() -> list[Case]:
    """The same by the section alone: a third of the time."""
    return [Case(case.direction, case.moment, case.actor, SECTION) for case in SHORT]


class UnknownName(ValueError):
    """A name on the command line that is none; the message says which there are."""


def moment_of(name: str) -> str:
    """The moment that a name means: ``before marker`` is ``after fence``.

    :raises UnknownName: there is none
    """
    if name in MOMENTS:
        return name
    step = name.removeprefix("before ")
    if name.startswith("before ") and step in STEPS:
        return f"after {STEPS[STEPS.index(step) - 1]}"
    raise UnknownName(f"There is no moment {name!r}; the moments are {', '.join(MOMENTS)}.")


def select(actors: Iterable[str] = (), moments: Iterable[str] = (), directions: Iterable[str] = (), short: bool = False, mixed: bool = False) -> list[Case]:
    """The cases asked for, in the order in which they are run; nothing asked for means all.

    :param mixed: in an order without an order, always the same one: the first of them say something of the whole
    :raises UnknownName: of an actor, a moment or a direction
    """
    wanted_actors, wanted_moments, wanted_directions = set(actors), {moment_of(name) for name in moments}, set(directions)
    for kind, unknown, known in (("actor", wanted_actors - set(ACTOR), ACTOR), ("direction", wanted_directions - set(DIRECTIONS), DIRECTIONS)):
        if unknown:
            raise UnknownName(f"There is no {kind} {', '.join(sorted(unknown))}; there is {', '.join(known)}.")
    chosen = [
        case
        for case in (_short() if short else [*cells(), *SHORT])
        if (not wanted_actors or case.actor in wanted_actors)
        and (not wanted_moments or case.moment in wanted_moments)
        and (not wanted_directions or case.direction in wanted_directions)
        and left_out(case) is None
    ]
    if mixed:
        chosen.sort(key=lambda case: zlib.crc32(f"{case.moment}/{case.actor}/{case.direction}/{case.by}".encode()))
    return alternate(chosen)


def alternate(cases: Iterable[Case]) -> list[Case]:
    """There and back in turn as far as there are cases of both directions: each leaves the lab where the next one begins."""
    by_direction: dict[str, list[Case]] = {direction: [] for direction in DIRECTIONS}
    for case in cases:
        by_direction[case.direction].append(case)
    pairs = itertools.zip_longest(*by_direction.values())
    return [case for pair in pairs for case in pair if case is not None]
