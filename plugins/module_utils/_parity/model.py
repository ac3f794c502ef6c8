# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What the row comparison knows of a table, a chunk of it, and what it found."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

SOURCE, TARGET = "source", "target"
SIDES = (SOURCE, TARGET)


@dataclass(frozen=True)
class Key:
    """One column of a table's key.

    :param name: not quoted
    :param type: as format_type prints it
    :param not_null: whether the column is NOT NULL
    """

    name: str
    type: str
    not_null: bool


@dataclass(frozen=True)
class Table:
    """An ordinary table or leaf partition as one side sees it.

    :param name: quoted, with schema
    :param oid: on this side
    :param filenode: changes when the table is truncated or rewritten
    :param bytes: size of its main data
    :param columns: quoted, in order, generated ones too
    :param key: columns of the primary key, else of the replica identity's index, else empty
    :param published: whether the link carries it
    :param persistence: ``p`` or ``u`` (unlogged)
    :param extension: the extension that owns it, or ''
    """

    name: str
    oid: int
    filenode: int | None
    bytes: int
    columns: tuple[str, ...]
    key: tuple[Key, ...]
    published: bool
    persistence: str = "p"
    extension: str = ""


@dataclass(frozen=True)
class Chunk:
    """A range of the first key column of one table; an open end is None.

    :param table: quoted name
    :param column: quoted first key column, None for the whole table
    :param type: its type, for the literals
    :param low: first value inside, as text
    :param high: first value beyond, as text
    """

    table: str
    column: str | None = None
    type: str | None = None
    low: str | None = None
    high: str | None = None

    def describe(self) -> str:
        """The range in words: ``id >= 1000 and id < 2000``."""
        parts = []
        if self.low is not None:
            parts.append(f"{self.column} >= {self.low}")
        if self.high is not None:
            parts.append(f"{self.column} < {self.high}")
        return " and ".join(parts) if parts else "all rows"


@dataclass(frozen=True)
class Sum:
    """What one side says about a chunk.

    :param rows: number of rows
    :param total: sum of the rows' 64-bit hashes, a decimal number as text
    :param filenode: of the table at that moment
    """

    rows: int
    total: str
    filenode: int | None


@dataclass
class Tally:
    """Running totals of one table."""

    rows: int = 0
    chunks: int = 0
    seconds: float = 0.0
    mismatches: list[dict[str, t.Any]] = field(default_factory=list)
