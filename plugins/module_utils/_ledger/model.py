# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What a client writes down about its writes, and the words of a verdict. Nothing here reads a clock or a file.

A *write* is one thing that the application wanted done, named by (client, seq). It takes one or more *attempts*. Every attempt
writes INTENT before anything is sent, and one outcome afterwards. An attempt whose process was killed has no outcome.
"""

from __future__ import annotations

import enum
import struct
import typing as t
import zlib
from dataclasses import dataclass, field
from decimal import Decimal

NANOSECONDS = 1_000_000_000
# Guarded and replicated as an application's table is.
PROBE_TABLE = "ha_migration.probe"


class Kind(enum.IntEnum):
    """What an entry of the record says."""

    INTENT = 1  # an attempt begins; nothing has been sent
    ACK = 2  # the server said that it is committed
    FAIL = 3  # this attempt has certainly not taken effect; the class says why
    UNKNOWN = 4  # the connection broke, or an answer came that says nothing, while the commit was under way
    FOUND = 5  # looked after an unknown outcome: it is there, the client goes on (an acknowledgement too)
    ABSENT = 6  # looked after an unknown outcome: it is not there, the client writes again
    SURFACED = 7  # the client gave the write up: what an application would show its user
    END = 8  # the client stopped in good order; seq and attempt are 0


# kind, attempt, reserved, seq - first seq of the run, monotonic ns, wall ns, acknowledged so far, errors so far, class; then a checksum.
_BODY = struct.Struct("<BBHIqqII8s")
_CHECKSUM = struct.Struct("<I")
ENTRY_BYTES = _BODY.size + _CHECKSUM.size
_WHOLE = struct.Struct("<BBHIqqII8sI")

# Serialization failure and deadlock: the server asks to try again, every driver does, nobody calls it an error.
RETRY_CLASSES = frozenset({"40001", "40P01"})
# No SQLSTATE: libpq says that the connection is gone or was never made.
NO_CONNECTION = "connect"
CONNECTION_LOST = "lost"
NOT_COMMITTED = "rollback"  # COMMIT was answered with ROLLBACK
UNEXPECTED_ANSWER = "answer"  # the statement worked and did not do what it should have done


class Entry(t.NamedTuple):
    """One entry of a client's record.

    :param seq: number of the write within the run, from 0
    :param monotonic: nanoseconds of the monotonic clock, comparable between all processes of a host until it boots
    :param wall: nanoseconds since 1970 UTC
    :param acknowledged: acknowledged writes of this client so far, this entry included
    :param errors: errors that this client has seen so far, this entry included
    :param error_class: SQLSTATE, or one of the words above; "" where there is none
    """

    kind: int
    attempt: int
    seq: int
    monotonic: int
    wall: int
    acknowledged: int
    errors: int
    error_class: str


def pack(kind: int, attempt: int, seq: int, monotonic: int, wall: int, acknowledged: int, errors: int, error_class: str = "") -> bytes:
    """An entry as bytes; the attempt saturates at 255."""
    body = _BODY.pack(kind, min(attempt, 255), 0, seq, monotonic, wall, acknowledged, errors, error_class.encode("ascii", "replace")[:8])
    return body + _CHECKSUM.pack(zlib.crc32(body))


def unpack(data: bytes) -> tuple[list[Entry], int]:
    """The entries of a record and how many bytes at its end are torn.

    Reading stops at the first entry whose checksum is wrong: everything after it is counted as torn.
    """
    whole = len(data) - len(data) % ENTRY_BYTES
    entries: list[Entry] = []
    view = memoryview(data)
    position = 0
    for kind, attempt, _reserved, seq, monotonic, wall, acknowledged, errors, error_class, checksum in _WHOLE.iter_unpack(view[:whole]):
        if zlib.crc32(view[position : position + _BODY.size]) != checksum:
            break
        entries.append(Entry(kind, attempt, seq, monotonic, wall, acknowledged, errors, error_class.rstrip(b"\0").decode("ascii", "replace")))
        position += ENTRY_BYTES
    return entries, len(data) - position


@dataclass(frozen=True)
class Header:
    """What a run is; written before its first write.

    :param run: the run's name, ``[a-z0-9-]``
    :param workload: ``probe`` or ``load``
    :param clients: how many clients
    :param rate: writes per second of all clients together
    :param first_seq: number that write 0 has in the table
    :param started_monotonic: nanoseconds
    :param started_wall: nanoseconds since 1970 UTC
    :param table: where a probe writes
    """

    run: str
    workload: str
    clients: int
    rate: float
    first_seq: int
    started_monotonic: int
    started_wall: int
    table: str = PROBE_TABLE


@dataclass(frozen=True)
class ClientRecord:
    """A client's whole record.

    :param torn_bytes: bytes at the end that were being written when the process died
    """

    client: int
    entries: list[Entry]
    torn_bytes: int = 0


@dataclass(frozen=True)
class Record:
    """The record of a run."""

    header: Header
    clients: list[ClientRecord]


@dataclass
class Write:
    """What the record says about one write.

    :param began: monotonic ns of its first INTENT
    :param acknowledged: monotonic ns at which the client knew that it is committed, or None
    :param attempts: how many attempts
    :param unknown: unknown outcomes, one entry each: True committed, False not, None nobody has looked
    :param open: the last attempt has no outcome (the process was killed or is at it)
    """

    began: int
    acknowledged: int | None = None
    attempts: int = 0
    unknown: list[bool | None] = field(default_factory=list)
    open: bool = False
    surfaced: bool = False


@dataclass(frozen=True)
class Gap:
    """A time without an acknowledgement.

    :param nanoseconds: its length, by the monotonic clock
    :param from_wall: when it began, ns since 1970 UTC
    :param client: whose it is; None for all clients together
    :param from_monotonic: when it began, ns by the monotonic clock
    """

    nanoseconds: int
    from_wall: int
    client: int | None = None
    from_monotonic: int = 0

    @property
    def milliseconds(self) -> float:
        """Its length in milliseconds."""
        return round(self.nanoseconds / 1e6, 3)


@dataclass(frozen=True)
class Balances:
    """What the accounts should hold and what they hold.

    :param amounts: ``(client, seq) -> (account, amount)`` of a write; pure, since both follow from the write's name
    :param before: balance of each account before the run
    :param after: balance of each account now
    """

    amounts: t.Callable[[int, int], tuple[int, int]]
    before: dict[int, Decimal]
    after: dict[int, Decimal]
