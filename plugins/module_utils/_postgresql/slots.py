# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""How much WAL a link's slot holds back on its publisher, and what to say when the publisher's disk was put first.

Two limits hold. PostgreSQL's own, max_slot_wal_keep_size, works with nobody of ours alive: at a checkpoint it invalidates a slot that holds
back more. The declared one (pg_ha_slot_wal_limit_mib) is what our modules keep while they run, and what the server's has to be no higher than.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from . import client

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

MIB = 1024 * 1024
# From this part of the limit on there is an alarm.
ALARM_PART = 0.5
FORWARD_LINK = "ha_migration_forward"


@dataclass(frozen=True)
class SlotWal:
    """A slot of the current database. None means unknown, or for ``limit_bytes`` that there is no limit.

    :param wal_status: as in pg_replication_slots; ``lost`` once the server has invalidated it
    :param held_bytes: WAL from the oldest that it needs to the newest that there is
    :param server_limit_bytes: max_slot_wal_keep_size, None for -1
    :param declared_bytes: the declared limit, None where none is
    """

    name: str
    active_pid: int | None
    wal_status: str | None
    held_bytes: int | None
    server_limit_bytes: int | None
    declared_bytes: int | None

    @property
    def limit_bytes(self) -> int | None:
        """The lower one of both limits."""
        return min((limit for limit in (self.server_limit_bytes, self.declared_bytes) if limit is not None), default=None)

    @property
    def lost(self) -> bool:
        """Whether the server has given it up."""
        return self.wal_status == "lost"

    @property
    def beyond_declared(self) -> bool:
        """Whether it holds back more than was declared."""
        return self.held_bytes is not None and self.declared_bytes is not None and self.held_bytes > self.declared_bytes

    @property
    def alarm(self) -> str:
        """What is near, as the end of a sentence; empty while nothing is."""
        if self.wal_status == "unreserved":
            return f"ALARM: slot {self.name} needs more WAL than the publisher keeps, and its next checkpoint gives the link up"
        if self.lost or self.held_bytes is None or self.limit_bytes is None or self.held_bytes < self.limit_bytes * ALARM_PART:
            return ""
        return (
            f"ALARM: slot {self.name} holds back {self.held_bytes // MIB} MiB of the publisher's WAL, and at {self.limit_bytes // MIB} MiB the link is given up"
        )


def read_slot_wal(publisher: Connection, name: str, declared_mib: int | None = None) -> SlotWal | None:
    """The slot of that name, None where there is none.

    :param declared_mib: pg_ha_slot_wal_limit_mib
    """
    rows = client.query(
        publisher,
        "SELECT active_pid, wal_status::text AS wal_status, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint AS held, "
        "(SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size') AS keep_mib "
        "FROM pg_replication_slots WHERE slot_name = %s AND database = current_database()",
        (name,),
    )
    if not rows:
        return None
    row = rows[0]
    return SlotWal(
        name=name,
        active_pid=row["active_pid"],
        wal_status=row["wal_status"],
        held_bytes=None if row["held"] is None else int(row["held"]),
        server_limit_bytes=None if row["keep_mib"] < 0 else row["keep_mib"] * MIB,
        declared_bytes=None if declared_mib is None else declared_mib * MIB,
    )


def has_subscription(connection: Connection, name: str) -> bool:
    """Whether this database has a subscription; the catalog is that of all databases of the server."""
    statement = "SELECT FROM pg_subscription WHERE subname = %s AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
    return bool(client.query(connection, statement, (name,)))


def read_given_up(publisher: Connection, subscriber: Connection, slot: SlotWal | None) -> str:
    """The sentence for a link that the publisher has given up: why, what is left over, how to begin anew. Empty when it has not."""
    if slot is None or not slot.lost:
        return ""
    kept = "the publisher keeps" if slot.server_limit_bytes is None else f"max_slot_wal_keep_size ({slot.server_limit_bytes // MIB} MB) allows"
    left = [f"slot {slot.name}"]
    if client.query(publisher, "SELECT FROM pg_publication WHERE pubname = %s", (slot.name,)):
        left.append("its publication")
    if has_subscription(subscriber, slot.name):
        left.append("its subscription")
    return given_up(slot.name, f"the server has invalidated slot {slot.name}, which held back more WAL than {kept}", left)


def given_up(name: str, why: str, left: t.Sequence[str]) -> str:
    """The sentence of a link that was given up (pure).

    :param why: end of the sentence
    :param left: leftovers
    """
    what, side = ("The migration", "source") if name == FORWARD_LINK else (f"Link {name}", "publisher")
    again = " to remove them and copy anew" if left else ""
    over = f"left over are {', '.join(left)}" if left else "nothing of it is left there"
    return (
        f"{what} has been given up in favour of the {side}'s disk: {why}; {over}. Mend what held it up, or let it hold back more, then run "
        f"`pg-ha replicate --repeat replicate` (pg_ha_repeat: [replicate]){again}."
    )
