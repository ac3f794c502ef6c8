"""What a case has shown. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from typing import Any

from .matrix import ACTOR, ANNOUNCED, LAST_SEEN, MOMENTS, Case

# Clients may be held for the budget; what finds that out and lets them go on may take two seconds more.
BUDGET_SECONDS = 5.0
BOUND_SECONDS = BUDGET_SECONDS + 2.0
Stretch = tuple[str, float, float]


def side_of(server: str) -> str:
    """The side that a server belongs to."""
    return "source" if server == "source" else "target"


def stretches(tries: Iterable[dict[str, Any]]) -> list[Stretch]:
    """(server, begin, end) of every time in which a server let applications write: tries that it accepted one after the other, none between them failed.

    :param tries: lines of the prober, those of one server in the order in which they were made
    """
    found: list[Stretch] = []
    last_answer: dict[str, str] = {}
    latest: dict[str, int] = {}
    for line in tries:
        server = line["server"]
        if line["answer"] == "accepted":
            if last_answer.get(server) == "accepted":
                _server, begin, _end = found[latest[server]]
                found[latest[server]] = (server, begin, line["end"])
            else:
                latest[server] = len(found)
                found.append((server, line["begin"], line["end"]))
        last_answer[server] = line["answer"]
    return found


def two_writers(tries: Iterable[dict[str, Any]], leaves: str) -> list[str]:
    """In words, every time when two servers let applications write, and every time when the side that is left did so after the other one had.

    A case moves the clients once, in one direction: whoever accepts on the side left after the other side has accepted is a second writer, though
    the prober may have missed the moment at which both would have.

    :param leaves: the side that served when the case began
    """
    found = stretches(tries)
    words = [
        f"{one[0]} and {two[0]} both accepted a write from {max(one[1], two[1]):.3f} to {min(one[2], two[2]):.3f}"
        for one, two in combinations(found, 2)
        if one[0] != two[0] and max(one[1], two[1]) <= min(one[2], two[2])
    ]
    opened = min((begin for server, begin, _end in found if side_of(server) != leaves), default=None)
    if opened is not None:
        words += [
            f"{server} accepted a write at {end:.3f}, after the other side had at {opened:.3f}"
            for server, _begin, end in found
            if side_of(server) == leaves and end > opened
        ]
    return words


def waits_for(case: Case, decided: str | None = None) -> str | None:
    """What sets the time until clients are served, where that is not the budget: the actor has to come back, because only its side may serve them.

    Before the section has looked at the next side for the last time, an actor of that side undoes the section: the side left serves. After it the next
    side will serve; until that one knows so by itself, it needs the side left too. Whatever the moment: a server that is stopped in good order may answer
    for as long as the section needs, and once it was decided for, only it may serve.

    :param decided: the side that was decided for in the end; None before it is known, or where it could not be read
    """
    actor = ACTOR[case.actor]
    if actor.side is None:
        return None
    when = MOMENTS.index(case.moment)
    needed = when < ANNOUNCED if actor.side == case.leaves else when >= LAST_SEEN
    return actor.waits_for if needed or decided == actor.side else None


def problems(row: dict[str, Any]) -> list[str]:
    """What is wrong with a case, a sentence each. What was not measured is wrong.

    :param row: of chaos.json
    """
    found = list(row["trouble"])
    for name, words in (("lost", "acknowledged writes are lost"), ("duplicated", "writes took effect twice"), ("unexpected", "rows nobody has written")):
        if row[name] is None:
            found.append(f"{name} was not measured.")
        elif row[name]:
            found.append(f"{row[name]} {words}.")
    if row["two_writers"] is None:
        found.append("It was not measured whether two servers accepted writes.")
    elif row["two_writers"]:
        found.append(f"Two writers: {row['two_writers'][0]}.")
    if row["served_s"] is None:
        found.append("Clients were not served again, or it was not measured when.")
    elif row["served_s"] > BOUND_SECONDS and not row["waits_for"]:
        found.append(f"Clients were served after {row['served_s']:.1f} s, more than {BOUND_SECONDS:g} s.")
    if row["exit_again"] != 0:
        found.append(f"The same playbook, run again, ended with {'nothing' if row['exit_again'] is None else row['exit_again']} instead of 0.")
    elif row["serves_after"] != row["serves"]:
        found.append(f"The same playbook, run again, ended well, and the pooler leads to the {row['serves_after']}.")
    return found


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of chaos.json over all rows; what one of them did not measure counts against the whole."""
    served = [row["served_s"] for row in rows if row["served_s"] is not None and not row["waits_for"]]
    return {
        "cases": len(rows),
        "lost": _sum(rows, "lost"),
        "duplicated": _sum(rows, "duplicated"),
        "two_writers": None if any(row["two_writers"] is None for row in rows) else sum(len(row["two_writers"]) for row in rows),
        "not_served": sum(row["served_s"] is None for row in rows),
        "worst_served_s": max(served, default=None),
        "worst_served_waiting_s": max((row["served_s"] for row in rows if row["served_s"] is not None and row["waits_for"]), default=None),
        "not_ok": sum(bool(row["problems"]) for row in rows),
    }


def _sum(rows: list[dict[str, Any]], name: str) -> int | None:
    values = [row[name] for row in rows]
    return None if None in values else sum(values)
