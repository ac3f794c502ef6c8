# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Sequences are not replicated: they are moved ahead before clients are held and checked while they are."""

from __future__ import annotations

import typing as t

from .._core.errors import GateError
from .._postgresql import client
from .._postgresql.sequences import Sequence, is_behind, read_sequences
from . import schema

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def plan_sequences(here: dict[str, Sequence], there: dict[str, Sequence], margin: int = 0) -> dict[str, int]:
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
        if sequence.last_value is None:
            continue
        wanted = sequence.last_value + (0 if sequence.cycle else sequence.increment * _affordable(sequence, margin))
        behind = is_behind(sequence, there[name])
        short = margin > 0 and not sequence.cycle and not behind and _comes_before(there[name].last_value, wanted, sequence.increment)
        if behind or short:
            moves[name] = wanted
    return moves


def _comes_before(value: int | None, wanted: int, increment: int) -> bool:
    return value is None or (value < wanted if increment > 0 else value > wanted)


def _affordable(sequence: Sequence, margin: int) -> int:
    """A margin in steps that takes at most a thousandth of what is left: repeated rounds must not exhaust a small sequence (pure)."""
    end = sequence.maximum if sequence.increment > 0 else sequence.minimum
    left = (end - (sequence.last_value or 0)) // sequence.increment
    return int(min(margin, left // 1000))


def read_both(here: Connection, there: Connection) -> tuple[dict[str, Sequence], dict[str, Sequence]]:
    """The sequences of this side and of the other."""
    return read_sequences(here, schema.SCHEMA), read_sequences(there, schema.SCHEMA)


def move_ahead(here: Connection, there: Connection, margin: int = 0) -> int:
    """Move the other side's sequences to this side's values (plus the margin); returns how many were moved."""
    moves = plan_sequences(*read_both(here, there), margin)
    if moves:
        pairs = ", ".join("('" + name.replace("'", "''") + f"'::regclass, {value})" for name, value in moves.items())
        client.query(there, f"SELECT setval(name, value, true) FROM (VALUES {pairs}) AS moves (name, value)")
    return len(moves)
