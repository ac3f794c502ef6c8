# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The table of contents of a pg_dump archive: which entries are restored when (pure).

Entries are told apart by catalog and OID, never by name: names may hold spaces, quotes and line ends.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

# OIDs of catalogs, fixed since PostgreSQL 8.
PG_CLASS = 1259
PG_CONSTRAINT = 2606

_LINE = re.compile(r"^(?P<number>\d+); (?P<catalog>\d+) (?P<oid>\d+) (?P<description>.*)$")
_LARGE_OBJECT = re.compile(r"^(BLOB|BLOBS|BLOB METADATA|BLOB COMMENTS|(ACL|COMMENT|SECURITY LABEL) - LARGE OBJECTS?) ")


@dataclass(frozen=True)
class Entry:
    """One line of ``pg_restore --list``.

    :param description: kind, schema, name and owner, as printed
    """

    number: int
    catalog: int
    oid: int
    description: str

    @property
    def line(self) -> str:
        """The line for ``pg_restore --use-list`` (what follows the number is a comment to it)."""
        return f"{self.number}; {self.catalog} {self.oid}"

    @property
    def is_large_object(self) -> bool:
        """Whether it makes, fills or describes large objects."""
        return bool(_LARGE_OBJECT.match(self.description))


def parse(listing: str) -> list[Entry]:
    """Entries of ``pg_restore --list`` in its order."""
    found = (_LINE.match(line) for line in listing.splitlines())
    return [Entry(int(item["number"]), int(item["catalog"]), int(item["oid"]), item["description"]) for item in found if item]


def without(entries: list[Entry], unwanted: t.Collection[tuple[int, int]], *, extension_comments: bool) -> list[Entry]:
    """What is restored at all.

    :param unwanted: (catalog, OID) of objects of ours, such as the source's guard triggers
    :param extension_comments: False where only the extension's owner may comment on it and the administrator is not
    """
    return [
        entry
        for entry in entries
        if (entry.catalog, entry.oid) not in unwanted and (extension_comments or not entry.description.startswith("COMMENT - EXTENSION "))
    ]


def by_table(entries: list[Entry], owners: t.Mapping[tuple[int, int], int]) -> dict[int, tuple[list[Entry], list[Entry]]]:
    """Entries that can be restored as soon as a table's rows are there: (constraints, indexes) by the table's OID.

    :param owners: (catalog, OID) of indexes, and of primary key, unique and exclusion constraints -> OID of their table
    """
    result: dict[int, tuple[list[Entry], list[Entry]]] = {}
    for entry in entries:
        table = owners.get((entry.catalog, entry.oid))
        if table is not None and entry.description.startswith(("CONSTRAINT ", "INDEX ")):
            constraints, indexes = result.setdefault(table, ([], []))
            (constraints if entry.catalog == PG_CONSTRAINT else indexes).append(entry)
    return result


def use_list(entries: t.Iterable[Entry]) -> str:
    """Text of a file for ``pg_restore --use-list``."""
    return "".join(entry.line + "\n" for entry in entries)
