# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What the initial copy and its link know of both sides (data only)."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .names import identifier, relation


@dataclass(frozen=True)
class Column:
    """A column whose values are copied.

    :param type_name: name of its type, of the base type for a domain, of the element for an array
    :param builtin: whether that type belongs to pg_catalog
    :param kind: pg_type.typtype of it
    """

    name: str
    type_name: str
    builtin: bool
    kind: str
    is_array: bool = False


@dataclass(frozen=True)
class Table:
    """An ordinary table or a leaf partition of the source.

    :param bytes: size with TOAST
    :param columns: without generated ones
    :param identity: whether UPDATE and DELETE can be replicated (primary key, identity index or FULL)
    """

    schema: str
    name: str
    oid: int
    bytes: int
    columns: tuple[Column, ...]
    identity: bool = True
    ours: bool = False

    @property
    def quoted(self) -> str:
        """Quoted name with schema."""
        return relation(self.schema, self.name)

    @property
    def column_list(self) -> str:
        """`` (a, b)`` for COPY, empty for a table without columns."""
        return f" ({', '.join(identifier(column.name) for column in self.columns)})" if self.columns else ""


@dataclass(frozen=True)
class RestoreFacts:
    """What the source's catalogs say of the entries of a dump, which names them by (catalog, OID).

    :param unwanted: our guards' triggers and event triggers, which are not copied
    :param tables: of indexes, and of primary key, unique and exclusion constraints, the OID of their table
    :param slow_indexes: OIDs of indexes that take long for their table's size
    :param names: (schema, name) of the same indexes and of those constraints' indexes
    :param identities: those of them by which the apply worker finds a row
    """

    unwanted: set[tuple[int, int]]
    tables: dict[tuple[int, int], int]
    slow_indexes: set[int]
    names: dict[tuple[int, int], tuple[str, str]]
    identities: set[tuple[int, int]]


@dataclass(frozen=True)
class Left:
    """What an interrupted run has left on both sides.

    :param slot: wal_status of its slot, None where there is none
    :param published: quoted names of the tables in its publication
    :param tables: quoted name of every table that it had to copy -> OID on the source
    :param done: quoted name of every table whose rows are there -> (rows, bytes)
    """

    slot: str | None
    subscribed: bool
    published: frozenset[str]
    tables: dict[str, int | None]
    done: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Again:
    """What is asked for of a finished copy.

    :param tables: names with schema, as SQL writes them
    :param because: names what asks for it; what was copied again for the same reason is not copied once more. Empty: always
    """

    tables: tuple[str, ...] = ()
    because: str = ""


@dataclass(frozen=True)
class InTheWay:
    """What a table of the target has that forbids to empty and fill it as one that is new.

    :param referenced: whether a foreign key of another table refers to it
    :param silence: statements that disable the triggers that would fire also for the worker
    :param restore: statements that enable them as they were
    """

    referenced: bool = False
    silence: tuple[str, ...] = ()
    restore: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """How to copy.

    :param method: ``logical`` (slot, then follow) or ``dump`` (one snapshot, nothing follows)
    :param parts: ``all``, or ``schema`` for what comes before the rows
    :param jobs: workers at once
    :param snapshot: name of a snapshot that somebody else holds (method dump)
    :param programs: folder of pg_dump and pg_restore
    :param work_directory: where the archives go while it runs
    :param early_index_bytes: tables from this size get their indexes while others are still copied
    :param slot_wal_limit_mib: at that much WAL held back the copy is given up; None: only where the source's own limit ends it
    """

    service_file: str
    method: str = "logical"
    parts: str = "all"
    jobs: int = 2
    snapshot: str | None = None
    programs: str = ""
    work_directory: str = "/var/tmp"
    source: str = "source"
    target: str = "target"
    slot_timeout_seconds: int = 300
    lock_timeout_seconds: int = 60
    connect_timeout_seconds: int = 10
    maintenance_work_mem: str = "256MB"
    early_index_bytes: int = 64 * 1024 * 1024
    slot_wal_limit_mib: int | None = None
    run: str = ""


@dataclass
class Report:
    """What a finished copy says about itself; goes into the journal and the evidence.

    :param by_table: what this run has copied: ``{"table", "rows", "bytes", "from_s", "to_s"}``, the moments counted from its beginning
    :param resumed: what was kept of an earlier run: ``{"tables_kept", "rows_kept", "bytes_kept", "tables_copied_again", "differed"}``; they count above too
    :param not_resumed: why what an interrupted run had left was thrown away
    """

    method: str
    tables: int = 0
    rows: int = 0
    bytes: int = 0
    seconds: float = 0.0
    sequences: int = 0
    large_objects: int = 0
    lsn: str | None = None
    jobs: int = 0
    unlogged: list[str] = field(default_factory=list)
    extension_tables: list[str] = field(default_factory=list)
    steps: list[dict[str, t.Any]] = field(default_factory=list)
    by_table: list[dict[str, t.Any]] = field(default_factory=list)
    resumed: dict[str, t.Any] | None = None
    not_resumed: str | None = None

    def public(self) -> dict[str, t.Any]:
        """JSON-able form."""
        copied = self.bytes - (self.resumed["bytes_kept"] if self.resumed else 0)
        speed = int(copied / self.seconds) if self.seconds > 0 else None
        return {**self.__dict__, "seconds": round(self.seconds, 3), "bytes_per_second": speed}


@dataclass(frozen=True)
class LinkState:
    """What both sides say about a link. None means unknown, never zero.

    :param tables: state of pg_subscription_rel -> number of tables
    :param lag_bytes: WAL of the publisher that the subscriber has not confirmed yet
    :param lag_seconds: as the publisher's sender measured it last; None while nothing was measured
    :param errors: failed attempts to apply, since the statistics began; None where the server does not count
    :param slot_held_bytes: WAL that the slot keeps on the publisher
    :param slot_limit_bytes: how much it may keep, by the declared limit or the server's, whichever is lower; None where there is neither
    :param alarm: that this limit is near, in words; empty while it is not
    :param given_up: the sentence that says that the publisher has given the link up; empty while it has not
    :param synchronous_commit: whether applied transactions wait for the subscriber's synchronous standby; None without a subscription
    """

    exists: bool = False
    enabled: bool = False
    worker_running: bool = False
    slot_exists: bool = False
    slot_active: bool = False
    slot_wal_status: str | None = None
    tables: dict[str, int] = field(default_factory=dict)
    published: int = 0
    lag_bytes: int | None = None
    lag_seconds: float | None = None
    errors: int | None = None
    slot_held_bytes: int | None = None
    slot_limit_bytes: int | None = None
    alarm: str = ""
    given_up: str = ""
    synchronous_commit: str | None = None

    def public(self) -> dict[str, t.Any]:
        """JSON-able form."""
        return {**self.__dict__, "following": self.following, "problems": self.problems}

    @property
    def problems(self) -> list[str]:
        """Why nothing follows, in words, and an alarm, with which it may still follow; [] when all is well."""
        return [*self.obstacles, *([self.alarm] if self.alarm else [])]

    @property
    def obstacles(self) -> list[str]:
        """Why nothing follows, in words; [] when it does."""
        if self.given_up:
            return [self.given_up.rstrip(".")]
        found = []
        if not self.exists:
            found.append("there is no subscription")
        elif not self.enabled:
            found.append("the subscription is disabled")
        elif not self.worker_running:
            found.append("its apply worker does not run: look at the subscriber's log")
        if not self.slot_exists:
            found.append("there is no slot on the publisher")
        elif not self.slot_active:
            found.append("nobody is connected to the slot")
        waiting = sum(number for state, number in self.tables.items() if state != "r")
        if waiting:
            found.append(f"{waiting} tables are not ready")
        if self.exists and sum(self.tables.values()) != self.published:
            found.append(f"{sum(self.tables.values())} tables are subscribed and {self.published} published")
        if self.slot_exists and self.lag_bytes is None:
            found.append("the lag is unknown")
        return found

    @property
    def following(self) -> bool:
        """Whether changes arrive."""
        return not self.obstacles
