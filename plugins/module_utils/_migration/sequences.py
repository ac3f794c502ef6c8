# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Sequences are not replicated: they are moved ahead before clients are held and checked while they are."""

from __future__ import annotations

import typing as t

from .._core.errors import GateError
from .._postgresql import client
from . import schema

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

READ = f"""
    SELECT format('%I.%I', schemaname, sequencename) AS name, last_value, min_value, max_value, increment_by, cycle
    FROM pg_sequences WHERE schemaname <> '{schema.SCHEMA}' ORDER BY 1"""


def read_sequences(connection: Connection) -> dict[str, dict[str, t.Any]]:
    """Every sequence by its quoted name; last_value is None for one that was never used (values handed to a CACHE count as used)."""
    return {row.pop("name"): row for row in client.query(connection, READ)}


def plan_sequences(here: dict[str, dict[str, t.Any]], there: dict[str, dict[str, t.Any]], margin: int = 0) -> dict[str, int]:
    """The values to set on the other side: ``{name: value}``, only ever forward in the sequence's own direction (pure).

    A sequence that cycles has no "ahead": it is set to the very value. A margin never leaves the sequence's range.

    :param margin: how many steps ahead of this side to go
    :raises GateError: a sequence is missing there
    """
    missing = sorted(set(here) - set(there))
    if missing:
        raise GateError(f"Sequences are missing on the other side: {', '.join(missing)}. Replicate again.")
    moves = {}
    for name, sequence in here.items():
        value, now, step = sequence["last_value"], there[name]["last_value"], sequence["increment_by"]
        if value is None:
            continue
        if sequence["cycle"]:
            if now != value:
                moves[name] = value
            continue
        wanted = value + step * _affordable(sequence, margin)
        behind = now is None or (now < value if step > 0 else now > value)
        ahead_enough = now is not None and not behind and (margin == 0 or (now >= wanted if step > 0 else now <= wanted))
        if not ahead_enough:
            moves[name] = wanted
    return moves


def _affordable(sequence: dict[str, t.Any], margin: int) -> int:
    """A margin in steps that takes at most a thousandth of what is left: repeated rounds must not exhaust a small sequence (pure)."""
    step = sequence["increment_by"]
    end = sequence["max_value"] if step > 0 else sequence["min_value"]
    left = (end - sequence["last_value"]) // step
    return int(min(margin, left // 1000))


def move_ahead(here: Connection, there: Connection, margin: int = 0) -> int:
    """Move the other side's sequences to this side's values (plus the margin); returns how many were moved."""
    moves = plan_sequences(read_sequences(here), read_sequences(there), margin)
    if moves:
        pairs = ", ".join("('" + name.replace("'", "''") + f"'::regclass, {value})" for name, value in moves.items())
        client.query(there, f"SELECT setval(name, value, true) FROM (VALUES {pairs}) AS moves (name, value)")
    return len(moves)
