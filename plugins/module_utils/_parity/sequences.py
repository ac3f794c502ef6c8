# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Sequences: read on both sides, compared by value. Their definitions are the fingerprint's."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._core.errors import ClientError
from .._postgresql import client
from .names import SCHEMA

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


@dataclass(frozen=True)
class Sequence:
    """A sequence's definition and value.

    :param last_value: None when it was never used
    """

    name: str
    last_value: int | None
    start: int
    increment: int
    minimum: int
    maximum: int
    cycle: bool


def read_sequences(connection: Connection) -> dict[str, Sequence]:
    """All sequences of users, owned by a column or not, by quoted name.

    :raises ClientError: a sequence's value may not be read
    """
    # pg_sequences hides the value of a sequence that the role may not read, which would look like one never used.
    rows = client.query(
        connection,
        "SELECT format('%%I.%%I', schemaname, sequencename) AS name, "
        "has_sequence_privilege(format('%%I.%%I', schemaname, sequencename), 'SELECT,USAGE') AS readable, "
        "last_value, start_value, increment_by, min_value, max_value, cycle FROM pg_sequences "
        "WHERE schemaname <> %s AND schemaname !~ '^pg_temp_' ORDER BY 1",
        (SCHEMA,),
    )
    hidden = [row["name"] for row in rows if not row["readable"]]
    if hidden:
        raise ClientError(f"The administrator may not read the sequences {', '.join(hidden[:5])}: grant SELECT on them.", sequences=hidden)
    return {
        row["name"]: Sequence(row["name"], row["last_value"], row["start_value"], row["increment_by"], row["min_value"], row["max_value"], row["cycle"])
        for row in rows
    }


def is_behind(source: Sequence, target: Sequence) -> bool:
    """Whether the target could hand out a value that the source has handed out already (pure).

    The source's last_value includes what its sessions have cached. A cycling sequence has no order: it must be equal.
    """
    if source.last_value is None:
        return False
    if target.last_value is None:
        return True
    if source.cycle:
        return source.last_value != target.last_value
    return target.last_value < source.last_value if source.increment > 0 else target.last_value > source.last_value


def sequences_behind(source: dict[str, Sequence], target: dict[str, Sequence]) -> list[str]:
    """Names of the source's sequences that the target has not reached, or not at all (pure)."""
    return [name for name in sorted(source) if name not in target or is_behind(source[name], target[name])]
