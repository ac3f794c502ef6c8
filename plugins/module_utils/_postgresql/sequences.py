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
    :param last_value: None when it was never used; values handed to a session's CACHE count as used
    """

    name: str
    last_value: int | None
    start: int
    increment: int
    minimum: int
    maximum: int
    cycle: bool


def read_sequences(connection: Connection, except_schema: str) -> dict[str, Sequence]:
    """All sequences, owned by a column or not, by quoted name; without those of sessions (temporary ones).

    :param except_schema: the migration's own schema
    :raises ClientError: a sequence's value may not be read
    """
    # By its catalogs: view pg_sequences hides the value of a sequence that the role may not read, which would look like one never used.
    rows = client.query(
        connection,
        "SELECT format('%%I.%%I', n.nspname, c.relname) AS name, readable, CASE WHEN readable THEN pg_sequence_last_value(c.oid) END AS last_value, "
        "seqstart, seqincrement, seqmin, seqmax, seqcycle FROM pg_sequence JOIN pg_class c ON c.oid = seqrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN LATERAL has_sequence_privilege(c.oid, 'SELECT,USAGE') AS readable "
        "WHERE n.nspname <> %s AND c.relpersistence <> 't' ORDER BY 1",
        (except_schema,),
    )
    hidden = [row["name"] for row in rows if not row["readable"]]
    if hidden:
        raise ClientError(f"The administrator may not read the sequences {', '.join(hidden[:5])}: grant SELECT on them.", sequences=hidden)
    columns = ("last_value", "seqstart", "seqincrement", "seqmin", "seqmax", "seqcycle")
    return {row["name"]: Sequence(row["name"], *(row[column] for column in columns)) for row in rows}


def is_behind(here: Sequence, there: Sequence) -> bool:
    """Whether the other side could hand out a value that this side has handed out already (pure).

    A cycling sequence has no order: it must be equal.
    """
    if here.last_value is None:
        return False
    if there.last_value is None:
        return True
    if here.cycle:
        return here.last_value != there.last_value
    return there.last_value < here.last_value if here.increment > 0 else there.last_value > here.last_value


def sequences_behind(here: dict[str, Sequence], there: dict[str, Sequence]) -> list[str]:
    """Names of this side's sequences that the other side has not reached, or not at all (pure)."""
    return [name for name in sorted(here) if name not in there or is_behind(here[name], there[name])]
