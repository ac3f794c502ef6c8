# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Sequences are not replicated: they are moved ahead before clients are held and checked while they are."""

from __future__ import annotations

import typing as t
from dataclasses import replace

from .._core.errors import GateError
from .._postgresql import client
from .._postgresql.sequences import Sequence, is_behind, read_sequences
from . import schema

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def plan_sequences(here: dict[str, Sequence], there: dict[str, Sequence], margin: int = 0) -> dict[str, tuple[int, bool]]:
    """What to set on the other side: ``{name: (value, whether it was handed out)}``, only ever forward in the sequence's own direction (pure).

    A sequence that cycles has no "ahead": it is set to the very value, and so is one whose next number is waiting. A margin never leaves the
    sequence's range.

    :param margin: how many steps ahead of this side to go
    :raises GateError: a sequence is missing there
    """
    missing = sorted(set(here) - set(there))
    if missing:
        raise GateError(f"Sequences are missing on the other side: {', '.join(missing)}. Replicate again.")
    moves = {}
    for name, sequence in here.items():
        exact = sequence.cycle or not sequence.called
        wanted = sequence if exact else replace(sequence, last_value=sequence.last_value + sequence.increment * _affordable(sequence, margin))
        if is_behind(wanted, there[name]):
            moves[name] = (wanted.last_value, wanted.called)
    return moves


def _affordable(sequence: Sequence, margin: int) -> int:
    """A margin in steps that takes at most a thousandth of what is left: repeated rounds must not exhaust a small sequence (pure)."""
    end = sequence.maximum if sequence.increment > 0 else sequence.minimum
    left = (end - sequence.last_value) // sequence.increment
    return int(min(margin, left // 1000))


def read_both(here: Connection, there: Connection) -> tuple[dict[str, Sequence], dict[str, Sequence]]:
    """The sequences of this side and of the other."""
    return read_sequences(here, schema.SCHEMA), read_sequences(there, schema.SCHEMA)


def move_ahead(here: Connection, there: Connection, margin: int = 0) -> int:
    """Move the other side's sequences to this side's values (plus the margin); returns how many were moved."""
    moves = plan_sequences(*read_both(here, there), margin)
    if moves:
        pairs = ", ".join("('" + name.replace("'", "''") + f"'::regclass, {value}, {called})" for name, (value, called) in moves.items())
        client.query(there, f"SELECT setval(name, value, called) FROM (VALUES {pairs}) AS moves (name, value, called)")
    return len(moves)
