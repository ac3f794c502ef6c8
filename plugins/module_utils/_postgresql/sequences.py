# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Sequences as a side has them, and which of two is behind. They are not replicated, so every phase has to look at them itself."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._core.errors import ClientError
from . import client

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


@dataclass(frozen=True)
class Sequence:
    """A sequence's definition and value.

    :param name: quoted, with its schema
    :param last_value: values handed to a session's CACHE count as used
    :param called: whether that value was handed out; False: it is the one that comes next, as after RESTART or in a sequence that was never used
    """

    name: str
    last_value: int
    start: int
    increment: int
    minimum: int
    maximum: int
    cycle: bool
    called: bool = True

    @property
    def next_value(self) -> int:
        """The number that comes next; beyond the end in one that is exhausted or begins again."""
        return self.last_value + self.increment if self.called else self.last_value


# How many sequences one statement reads.
_AT_ONCE = 100


def read_sequences(connection: Connection, except_schema: str) -> dict[str, Sequence]:
    """All sequences, owned by a column or not, by quoted name; without those of sessions (temporary ones).

    :param except_schema: the migration's own schema
    :raises ClientError: a sequence's value may not be read
    """
    # By its catalogs: view pg_sequences hides the value of a sequence that the role may not read, which would look like one never used.
    # They know the last number that was handed out. Where there is none, the sequence itself knows which one comes next.
    rows = client.query(
        connection,
        "SELECT format('%%I.%%I', n.nspname, c.relname) AS name, readable, CASE WHEN readable THEN pg_sequence_last_value(c.oid) END AS last_value, "
        "seqstart, seqincrement, seqmin, seqmax, seqcycle FROM pg_sequence JOIN pg_class c ON c.oid = seqrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN LATERAL has_sequence_privilege(c.oid, 'SELECT') AS readable "
        "WHERE n.nspname <> %s AND c.relpersistence <> 't' ORDER BY 1",
        (except_schema,),
    )
    hidden = [row["name"] for row in rows if not row["readable"]]
    if hidden:
        raise ClientError(f"The administrator may not read the sequences {', '.join(hidden[:5])}: grant SELECT on them.", sequences=hidden)
    waiting = {row["name"]: row for row in rows if row["last_value"] is None}
    for found in _read_themselves(connection, sorted(waiting)):
        waiting[found["name"]].update(found)
    columns = ("name", "last_value", "seqstart", "seqincrement", "seqmin", "seqmax", "seqcycle", "called")
    return {row["name"]: Sequence(*(row[column] for column in columns)) for row in ({"called": True, **row} for row in rows)}


def _read_themselves(connection: Connection, names: list[str]) -> t.Iterator[dict[str, t.Any]]:
    """``{"name", "last_value", "called"}`` of sequences, by quoted name."""
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        parts = (f"SELECT %s AS name, last_value, is_called AS called FROM {name.replace('%', '%%')}" for name in some)
        yield from client.query(connection, " UNION ALL ".join(parts), some)


def is_behind(here: Sequence, there: Sequence) -> bool:
    """Whether the other side's next number comes before this side's next one (pure).

    A cycling sequence has no order: it must be equal.
    """
    if here.cycle:
        return here.next_value != there.next_value
    return there.next_value < here.next_value if here.increment > 0 else there.next_value > here.next_value


def sequences_behind(here: dict[str, Sequence], there: dict[str, Sequence]) -> list[str]:
    """Names of this side's sequences that the other side has not reached, or not at all (pure)."""
    return [name for name in sorted(here) if name not in there or is_behind(here[name], there[name])]
