"""The table of docs/chaos.md, made of the rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .judge import BOUND_SECONDS
from .matrix import ACTORS, BOUNDARIES, DIRECTIONS, MOMENTS, name_of, reasons, select

HEAD = """# What was killed, and what came of it

Made by `make chaos`; [safety.md](safety.md) says why it is so. Every row is a move of the clients (`cut over` to the target, `roll back` to the source)
under load, in which somebody dies at one moment; then the same once more. *By* says what moves them: the whole playbook, or on the mover its comparison and
its critical section alone, the same code with the same parameters. "After X" is also "before" the step that follows X.
*Served by*: who served the clients after the fault, before the second run. *Served after*: the longest time without an acknowledged write, of all
clients together, from the fault on. Lost, twice and errors are those of both runs. *Code*: the commit that the case was run with.
"""


def render(rows: Iterable[dict[str, Any]], figures: dict[str, Any], of: dict[str, str]) -> str:
    """The whole page.

    :param of: the code as it is, by what moves the clients
    """
    known = list(rows)
    parts = [HEAD, _figures(figures, known, of), _actors()]
    for direction in DIRECTIONS:
        parts.append(_direction(direction, [row for row in known if row["direction"] == direction]))
    parts += [_left_out(), _missing(known)]
    return "\n".join(part for part in parts if part)


def _line(*columns: object) -> str:
    return "| " + " | ".join(" ".join(str(column).replace("|", "\\|").split()) for column in columns) + " |"


def _figures(figures: dict[str, Any], rows: list[dict[str, Any]], of: dict[str, str]) -> str:
    older = len([row for row in rows if row["code"] != of[row["by"]]])
    return (
        f"{figures['cases']} cases, {f'{older} of them with earlier code (by column *code*)' if older else 'all with the code as it is'}: "
        f"{_number(figures['lost'])} lost, {_number(figures['duplicated'])} duplicated, "
        f"{_number(figures['two_writers'])} times two writers, {figures['not_served']} not served again; served within "
        f"{_seconds(figures['worst_served_s'])} at worst (bound {BOUND_SECONDS:g} s), and within {_seconds(figures['worst_served_waiting_s'])} "
        f"where somebody had to come back first; {figures['not_ok']} cases not as they should be.\n"
    )


def _actors() -> str:
    return "\n".join(["## Who dies\n", _line("name", "what is done"), _line("---", "---"), *(_line(actor.name, actor.words) for actor in ACTORS), ""])


def _direction(direction: str, rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    lines = [
        f"## {direction.capitalize()}\n",
        _line("when", "who", "by", "state after", "served by", "served after", "client errors", "lost", "twice", "two writers", "run again", "code"),
        _line(*["---"] * 5, *["---:"] * 5, "---", "---"),
    ]
    for row in sorted(rows, key=lambda row: (MOMENTS.index(row["moment"]), row["actor"], row["by"])):
        seconds = _seconds(row["served_s"]) + (f" ({row['waits_for']})" if row["waits_for"] else "")
        lines.append(
            _line(
                f"during {row['moment']}" if row["moment"] not in BOUNDARIES else row["moment"],
                row["actor"],
                row["by"],
                row["state"],
                row["served_by"] or "unknown",
                seconds,
                _number(row["errors"]),
                _number(row["lost"]),
                _number(row["duplicated"]),
                "not measured" if row["two_writers"] is None else "never" if not row["two_writers"] else len(row["two_writers"]),
                "done" if not row["problems"] else "**" + " ".join(row["problems"]) + "**",
                row["commit"][:7],
            )
        )
    return "\n".join([*lines, ""])


def _left_out() -> str:
    """Cells that are not tried, by reason."""
    lines = ["## Left out\n", _line("reason", "how many", "cells"), _line("---", "---:", "---")]
    return "\n".join([*lines, *(_line(reason, len(names), ", ".join(names)) for reason, names in reasons().items()), ""])


def _missing(rows: list[dict[str, Any]]) -> str:
    """How many cells of the matrix have no row yet: a table that is not whole says so."""
    done = {name_of(row) for row in rows}
    missing = [case for case in select() if case.name not in done]
    return f"Not tried yet: {len(missing)} cells.\n" if missing else ""


def _number(value: int | None) -> str:
    return "not measured" if value is None else str(value)


def _seconds(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1f} s"
