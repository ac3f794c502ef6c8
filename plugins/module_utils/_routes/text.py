# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""How a name or a password is written where some characters mean something."""

from __future__ import annotations

import re
from urllib.parse import quote


def encode(part: str) -> str:
    """A user, password or database as a URI wants it."""
    return quote(part, safe="")


def encode_path(path: str) -> str:
    """A path as the value of a URI's parameter."""
    return quote(path, safe="/")


def escape(field: str) -> str:
    """A field of libpq's passfile."""
    return re.sub(r"([:\\])", r"\\\1", field)


def folder_name(role: str) -> str:
    """A role's name as the name of a folder: no separator, no ``..``."""
    return encode(role).replace(".", "%2E")
