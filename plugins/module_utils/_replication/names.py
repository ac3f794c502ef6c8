# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Quoting of relations and list settings (pure)."""

from __future__ import annotations

from .._postgresql.quoting import identifier, literal

__all__ = ["LIST_SETTINGS", "identifier", "literal", "relation", "setting", "setting_name", "split_list"]

# Settings whose stored value is a list of quoted names (GUC_LIST_QUOTE in PostgreSQL's guc_tables.c): each name is one literal.
LIST_SETTINGS = frozenset(
    ["local_preload_libraries", "search_path", "session_preload_libraries", "shared_preload_libraries", "temp_tablespaces", "unix_socket_directories"]
)


def relation(schema: str, name: str) -> str:
    """A quoted relation with its schema."""
    return f"{identifier(schema)}.{identifier(name)}"


def split_list(value: str) -> list[str]:
    """The names in the stored value of a list setting.

    :raises ValueError: a quote is not closed
    """
    names, rest = [], value.strip()
    while rest:
        if rest.startswith('"'):
            name, position = "", 1
            while True:
                end = rest.index('"', position)
                name += rest[position:end]
                if rest[end + 1 : end + 2] != '"':
                    break
                name, position = name + '"', end + 2
            rest = rest[end + 1 :].lstrip()
        else:
            name, _comma, _unused = rest.partition(",")
            rest = rest[len(name) :]
            name = name.strip()
        names.append(name)
        if rest and not rest.startswith(","):
            raise ValueError(f"not a list of names: {value!r}")
        rest = rest[1:].lstrip()
    return names


def setting_name(name: str) -> str:
    """A setting's name, quoted part by part."""
    return ".".join(identifier(part) for part in name.split("."))


def setting(name: str, value: str) -> str:
    """``name TO value`` for ALTER ROLE or ALTER DATABASE ... SET."""
    if name.lower() in LIST_SETTINGS:
        values = ", ".join(literal(part) for part in split_list(value)) or "''"
    else:
        values = literal(value)
    return f"{setting_name(name)} TO {values}"
