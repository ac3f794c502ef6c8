# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What is looked at on the way of a write, and one look at it. Nothing here reads a clock or a file."""

from __future__ import annotations

import dataclasses
import json

# Layers of the route, from the server to the client.
SERVER, ROUTE, POOLER, REPLICAS = "server", "route", "pooler", "replicas"
# Where the name of the write endpoint leads; a look's name is its addresses then.
NAME = "name"
# The looks of a run, in its folder.
LOOKS = "layers.jsonl"
LAYERS = (SERVER, ROUTE, POOLER, REPLICAS)
TAKEN, REFUSED, FAILED = "taken", "refused", "failed"


@dataclasses.dataclass(frozen=True)
class Place:
    """Somewhere that a session can be opened to.

    :param layer: one of ``LAYERS``
    :param name: whose it is, e.g. the host
    :param parameters: of libpq, over the service
    :param writes: whether a write is tried, or a read
    """

    layer: str
    name: str
    service: str
    parameters: dict[str, str] = dataclasses.field(default_factory=dict)
    writes: bool = True


@dataclasses.dataclass(frozen=True)
class Look:
    """One try.

    :param begin: nanoseconds of the host's monotonic clock, the one of the clients' records
    :param end: when its answer had come
    :param answer: ``taken`` (the write, or the read), ``refused`` (the server takes no writes) or ``failed`` (no session, or it broke)
    :param timeline: of the server that took it, None otherwise
    """

    layer: str
    name: str
    begin: int
    end: int
    answer: str
    timeline: int | None = None

    def line(self) -> str:
        """As a line of the record."""
        return json.dumps(dataclasses.asdict(self)) + "\n"


def read_looks(text: str) -> list[Look]:
    """The record's lines in order of their begin; a torn last line is left out."""
    found = []
    for line in text.splitlines():
        try:
            found.append(Look(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return sorted(found, key=lambda look: look.begin)
