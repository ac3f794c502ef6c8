# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Who serves: attempts (epochs), the write-once decision, announcements and acknowledgements.

The decision of an epoch stands on the side that the epoch leaves; its announcement on the side that it opens. So each side alone
knows every change of hands that concerns it.
"""

from __future__ import annotations

import json
import typing as t

from .._core.errors import ClientError
from .._postgresql import client
from . import schema

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

SIDES = ("source", "target")
# State of a keeper that reaches the next side.
REACHES = "reaches"


def other(side: str) -> str:
    """The opposite side."""
    return "target" if side == "source" else "source"


def compete(connection: Connection, epoch: int, serves: str, by: str) -> str:
    """Insert our wish for an epoch's decision unless there is one, and read what stands.

    Waits behind an uncommitted insert of somebody else: the answer is final, whoever gave it.

    :returns: the side that serves, by the row that stands
    """
    client.query(
        connection,
        f"INSERT INTO {schema.SCHEMA}.decision (epoch, serves, decided_by) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        (epoch, serves, by),
    )
    return str(client.query_value(connection, f"SELECT serves FROM {schema.SCHEMA}.decision WHERE epoch = %s", (epoch,)))


def read_decision(connection: Connection, epoch: int) -> str | None:
    """The side that serves by the decision of an epoch; None while nobody has decided."""
    rows = client.query(connection, f"SELECT serves FROM {schema.SCHEMA}.decision WHERE epoch = %s", (epoch,))
    return str(rows[0]["serves"]) if rows else None


def read_open_epoch(connection: Connection) -> dict[str, t.Any] | None:
    """The open attempt on this side: ``{"epoch", "run", "leaves", "budget_ms", "age_ms"}``, or None. How old it is says the clock of its server alone."""
    age = "greatest(0, extract(epoch FROM clock_timestamp() - opened_at) * 1000)::bigint AS age_ms"
    rows = client.query(connection, f"SELECT epoch, run, leaves, budget_ms, {age} FROM {schema.SCHEMA}.epoch WHERE state = 'open'")
    return rows[0] if rows else None


def read_ahead_lsn(connection: Connection, epoch: int) -> str | None:
    """Position on the side that serves by the decision of an epoch, after all that came from the side left; None where nobody noted it."""
    rows = client.query(connection, f"SELECT ahead_lsn::text AS lsn FROM {schema.SCHEMA}.decision WHERE epoch = %s", (epoch,))
    return rows[0]["lsn"] if rows else None


def has_left(side: Connection, name: str) -> bool:
    """Whether clients have ever left a side: its own decisions say so.

    :param side: session on it
    :param name: source or target
    """
    return schema.has_table(side, "decision") and bool(
        client.query_value(side, f"SELECT EXISTS (SELECT FROM {schema.SCHEMA}.decision WHERE serves <> %s)", (name,))
    )


def has_moved_since(left: Connection, serves: str, lsn: str) -> bool:
    """Whether clients came to a side after a position in its own WAL.

    :param left: session on the other side, which they left
    """
    if not schema.has_table(left, "decision"):
        return False
    statement = f"SELECT EXISTS (SELECT FROM {schema.SCHEMA}.decision WHERE serves = %s AND ahead_lsn > %s::pg_lsn)"
    return bool(client.query_value(left, statement, (serves, lsn)))


def is_announced(connection: Connection, epoch: int, serves: str) -> bool:
    """Whether side ``serves`` has the announcement that this epoch opens it."""
    statement = f"SELECT EXISTS (SELECT FROM {schema.announcement_table(serves)} WHERE epoch = %s AND serves = %s)"
    return bool(client.query_value(connection, statement, (epoch, serves)))


def announce(connection: Connection, epoch: int, serves: str) -> None:
    """Write the announcement on side ``serves`` itself: for one who has read the decision when the link does not bring it."""
    client.query(connection, f"{announcement_statement(epoch, serves)} ON CONFLICT DO NOTHING")


def announcement_statement(epoch: int, serves: str) -> str:
    """INSERT of the announcement row (pure)."""
    return f"INSERT INTO {schema.announcement_table(serves)} (id, epoch, serves) VALUES ('epoch-{epoch}', {epoch}, '{serves}')"


def acknowledge(connection: Connection, keeper: str, epoch: int, state: str) -> None:
    """A synchronous commit of our own: what was read before it, on this server, is as durable as the server can make it."""
    client.query(
        connection,
        f"INSERT INTO {schema.SCHEMA}.keeper (keeper, epoch, state) VALUES (%s, %s, %s) ON CONFLICT (keeper, epoch, state) DO UPDATE SET at = now()",
        (keeper, epoch, state),
    )


def confirm(connection: Connection, keeper: str, epoch: int, state: str) -> None:
    """As :func:`acknowledge`, of one who acts on what was read before: a decision may be visible that no standby has, and the next leader would not know it.

    :raises ClientError: a warning came: the wait for a standby was broken off
    """
    del connection.notices[:]
    acknowledge(connection, keeper, epoch, state)
    if connection.notices:
        raise ClientError(f"What was decided in epoch {epoch} is not known to be on a standby: {' '.join(connection.notices[0].split())}")


def beat(connection: Connection, keeper: str, epoch: int) -> None:
    """Say on the next side that a keeper reaches it. Nothing rests on its durability, so it waits for no standby."""
    client.query(
        connection,
        "BEGIN; SET LOCAL synchronous_commit = off; "
        f"INSERT INTO {schema.SCHEMA}.keeper (keeper, epoch, state, at) VALUES (%s, %s, '{REACHES}', clock_timestamp()) "
        "ON CONFLICT (keeper, epoch, state) DO UPDATE SET at = excluded.at; COMMIT",
        (keeper, epoch),
    )


def call_keepers(here: Connection, epoch: int) -> None:
    """Wake the dead men on the side that is left: each tells the next side that it reaches it."""
    client.query(here, "SELECT pg_notify(%s, %s)", (schema.CHANNEL, f"look {epoch}"))


def read_reaching(connection: Connection, epoch: int, since: str) -> set[str]:
    """Keepers that have reached this side after a moment of its own clock."""
    rows = client.query(
        connection, f"SELECT keeper FROM {schema.SCHEMA}.keeper WHERE epoch = %s AND state = '{REACHES}' AND at > %s::timestamptz", (epoch, since)
    )
    return {row["keeper"] for row in rows}


def read_acknowledged(connection: Connection, epoch: int, state: str) -> set[str]:
    """Keepers that have acknowledged a state of an epoch on this side."""
    rows = client.query(connection, f"SELECT keeper FROM {schema.SCHEMA}.keeper WHERE epoch = %s AND state = %s", (epoch, state))
    return {row["keeper"] for row in rows}


def read_history(connection: Connection, side: str) -> list[tuple[int, str]]:
    """Every (epoch, serving side) that this side knows: decisions that it took and announcements that it got; [] without our schema."""
    if not schema.has_table(connection, "decision"):
        return []
    rows = client.query(
        connection,
        f"SELECT epoch, serves FROM {schema.SCHEMA}.decision UNION SELECT epoch, serves FROM {schema.announcement_table(side)} WHERE serves IS NOT NULL",
    )
    return [(row["epoch"], row["serves"]) for row in rows]


def plan_serving(*histories: list[tuple[int, str]]) -> str:
    """The side that serves, by the newest epoch of what could be read; the source while nothing was ever decided (pure).

    Where both sides claim one epoch, the target was left in it and has forgotten that in a failover (the source is one server and forgets nothing): what it
    has decided since is believed, as every pooler does that reaches it.
    """
    known = [entry for history in histories for entry in history]
    return max(known, key=lambda entry: (entry[0], entry[1] == "target"))[1] if known else "source"


def next_epoch(connection: Connection) -> int:
    """A number above every epoch that this side has seen."""
    statement = f"""
        SELECT 1 + greatest(
            coalesce((SELECT max(epoch) FROM {schema.SCHEMA}.epoch), 0), coalesce((SELECT max(epoch) FROM {schema.SCHEMA}.decision), 0),
            coalesce((SELECT max(epoch) FROM {schema.SCHEMA}.marker), 0), coalesce((SELECT max(epoch) FROM {schema.SCHEMA}.marker_back), 0))"""
    return int(client.query_value(connection, statement))


def open_epoch(connection: Connection, epoch: int, run: str, leaves: str, budget_ms: int) -> None:
    """Open an attempt on the side that serves and wake the dead men.

    :raises ClientError: one is open already (unique index), sqlstate 23505
    """
    client.query(
        connection,
        f"INSERT INTO {schema.SCHEMA}.epoch (epoch, run, leaves, state, budget_ms) VALUES (%s, %s, %s, 'open', %s); SELECT pg_notify(%s, %s)",
        (epoch, run, leaves, budget_ms, schema.CHANNEL, f"open {epoch}"),
    )


def close_epoch(connection: Connection, epoch: int, evidence: dict[str, t.Any]) -> None:
    """Close an attempt with what was measured of it; only then may the next one open. Closed again, it keeps its first evidence."""
    client.query(
        connection,
        f"UPDATE {schema.SCHEMA}.epoch SET state = 'closed', closed_at = now(), evidence = coalesce(evidence, %s) WHERE epoch = %s",
        (json.dumps(evidence), epoch),
    )


def note_evidence(connection: Connection, epoch: int, evidence: dict[str, t.Any]) -> None:
    """Keep what was measured of a decided attempt at once: whoever finishes it may be another process."""
    client.query(connection, f"UPDATE {schema.SCHEMA}.epoch SET evidence = %s WHERE epoch = %s AND evidence IS NULL", (json.dumps(evidence), epoch))


def read_last_epoch(connection: Connection) -> dict[str, t.Any] | None:
    """The newest attempt that left this side: ``{"epoch", "run", "leaves", "state", "evidence", "decided"}``, or None."""
    rows = client.query(
        connection,
        f"SELECT e.epoch, e.run, e.leaves, e.state, e.evidence, d.serves AS decided FROM {schema.SCHEMA}.epoch e "
        f"LEFT JOIN {schema.SCHEMA}.decision d USING (epoch) ORDER BY e.epoch DESC LIMIT 1",
    )
    return rows[0] if rows else None
