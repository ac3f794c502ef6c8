# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The way back: from the flip on the side that was left follows the one that serves, so that clients can return and lose nothing.

Publication and slot stand on the next side before clients are held, and the side left has its subscription, disabled and without a slot:
that it reaches the next side is known before, not after. What the next side applies between the making of its slot and the decision is the
stream of the side left and must not return there. A publisher before 16 cannot tell it apart, so the side left begins past it: at the position
that the decision names, behind the last row that came over and before the first that an application writes. It remembers that position
itself, for the slot may be that of a standby that was promoted, and stand further behind.
"""

from __future__ import annotations

import typing as t

from .._core.errors import ClientError, GateError, PgHaError
from .._core.waiting import wait_until
from .._postgresql import client, private
from .._postgresql.quoting import identifier, literal
from .._postgresql.subscription import Link, subscription_statement
from . import decision, guards, schema, settle, standbys

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# How long the worker of the side that was left may take to begin.
FOLLOW_SECONDS = 10
# From this version on a slot is kept on the standbys too, where they are told so (sync_replication_slots).
FAILOVER_SLOTS_SINCE = 170000
QUERY_CANCELED = "57014"
# How long a slot may wait for the transactions that write while it is made; clients are not held meanwhile.
SLOT_SECONDS = 30.0
# How many of them are told, the oldest first.
TOLD = 3
WRITERS = """
    SELECT format('session %s of %s', pid, usename) AS who, datname::text AS database, extract(epoch FROM now() - xact_start)::int AS seconds
    FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
    UNION ALL SELECT format('prepared transaction %s', gid), database::text, extract(epoch FROM now() - prepared)::int FROM pg_prepared_xacts
    ORDER BY seconds DESC NULLS LAST"""


class WayBack:
    """The link from the side that shall serve to the side that is left.

    :param link: how the side that is left reaches the side that shall serve
    :param serves: the side that shall serve
    :param service_file: where the hosts of that side are named
    """

    def __init__(self, link: Link, serves: str, service_file: str) -> None:
        self._link = link
        self._service_file = service_file
        self._serves = serves
        self._leaves = decision.other(serves)
        self._name = schema.link_towards(self._leaves)
        self._evidence: dict[str, t.Any] = {"link": self._name, "follows": False, "problem": "it was not attached", "standbys_without": None}

    def prepare(self, here: Connection, ahead: Connection) -> None:
        """Publication and slot on the next side, and the subscription on the side that is left, disabled and without a slot.

        :param here: session on the side that is left
        :param ahead: session on the next side
        :raises GateError: the side that is left cannot reach the next one, or another database's migration has the slot; nothing of it stays
        """
        self.undo(here, ahead)
        if elsewhere := client.query(ahead, "SELECT database FROM pg_replication_slots WHERE slot_name = %s", (self._name,)):
            raise GateError(
                f"There would be no way back: slot {self._name} on the {self._serves} is that of database {elsewhere[0]['database']}. "
                "Retire that migration first, or decide to go without (pg_ha_way_back: false)."
            )
        statement = subscription_statement(self._name, self._link.conninfo(self._name), here.server_version, slot=None)
        try:
            _publish(ahead, self._name, self._leaves)
            _make_slot(ahead, self._name)
            if self._link.password:
                private.refuse_to_tell(here, "the link's password")
            client.query(here, statement)
        except ClientError as error:
            self.undo(here, ahead)
            raise GateError(
                f"There would be no way back: the {self._leaves} cannot follow the {self._serves} as role {self._link.user} at "
                f"{self._link.host}:{self._link.port}. {error.message.rstrip('.')}. Let it through there, or decide to go without (pg_ha_way_back: false)."
            ) from error
        finally:
            private.speak(here)

    def spread(self, ahead: Connection) -> None:
        """Bring the slot to every standby of the next side, before clients are held: a standby takes some seconds for it.

        :raises ClientError: the leader cannot be reached
        """
        if ahead.server_version >= FAILOVER_SLOTS_SINCE:
            self._evidence["standbys_without"] = standbys.spread(self._service_file, self._serves, self._name)

    def undo(self, here: Connection, ahead: Connection) -> None:
        """Take away what :meth:`prepare` has made; idempotent. The publication stays: it holds nothing back."""
        settle.retire_link(here, ahead, self._name)

    def attach(self, here: Connection, ahead: Connection, epoch: int) -> None:
        """After the decision, and after the link that brought the rows is gone: the side that was left follows. Idempotent.

        Clients are served without it, so a failure is told in the evidence and hinders nothing.
        """
        try:
            self._attach(here, ahead, decision.read_ahead_lsn(here, epoch))
            self._evidence.update(follows=True, problem=None)
        except PgHaError as error:
            self._evidence["problem"] = error.message

    def evidence(self) -> dict[str, t.Any]:
        """``{"link", "follows", "problem", "standbys_without"}``: the last one are hosts that would not have the slot after a failover, None where none has."""
        return {"way_back": self._evidence}

    def _attach(self, here: Connection, ahead: Connection, lsn: str | None) -> None:
        found = client.query(
            here,
            "SELECT subenabled AS enabled, subslotname IS NOT NULL AS attached FROM pg_subscription "
            "WHERE subname = %s AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
            (self._name,),
        )
        if not found:
            raise GateError(f"The {self._leaves} has no subscription {self._name}.")
        if found[0]["attached"] and found[0]["enabled"]:
            return
        if not found[0]["attached"]:
            self._begin_at(here, ahead, lsn)
            client.query(here, f"ALTER SUBSCRIPTION {identifier(self._name)} SET (slot_name = {literal(self._name)})")
        client.query(here, f"ALTER SUBSCRIPTION {identifier(self._name)} ENABLE")
        wait_until(
            lambda: client.query(ahead, "SELECT FROM pg_replication_slots WHERE slot_name = %s AND active", (self._name,)),
            bool,
            f"The {self._leaves} as a follower of slot {self._name} on the {self._serves} (look at its log)",
            FOLLOW_SECONDS,
            0.05,
        )

    def _begin_at(self, here: Connection, ahead: Connection, lsn: str | None) -> None:
        """Past everything that came from the side that was left.

        Who may not set the subscription's origin (superusers may) moves the slot, which waits for standbys that are away, and which a failover sets back.

        :raises GateError: the position or the slot is not there
        """
        if lsn is None:
            raise GateError(f"The decision does not say where the way back begins: {self._name} cannot be followed without a gap.")
        slots = client.query(ahead, "SELECT confirmed_flush_lsn < %s::pg_lsn AS behind FROM pg_replication_slots WHERE slot_name = %s", (lsn, self._name))
        if not slots:
            raise GateError(f"The {self._serves} has lost slot {self._name} (a failover in the midst of it?): it cannot be followed without a gap.")
        if client.query_value(here, "SELECT has_function_privilege('pg_replication_origin_advance(text, pg_lsn)', 'EXECUTE')"):
            client.query(
                here,
                "SELECT pg_replication_origin_advance('pg_' || oid, %s::pg_lsn) FROM pg_subscription "
                "WHERE subname = %s AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
                (lsn, self._name),
            )
        elif slots[0]["behind"]:
            client.query(ahead, "SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", (self._name, lsn))


def _publish(publisher: Connection, name: str, towards: str) -> None:
    """The publication holds the very tables that a link carries, and what goes that way of ours."""
    own = schema.FORWARD_TABLES if towards == "target" else schema.REVERSE_TABLES
    tables = ", ".join(dict.fromkeys([*guards.read_followed_tables(publisher), *(f"{schema.SCHEMA}.{table}" for table in own)]))
    exists = client.query_value(publisher, "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = %s)", (name,))
    if exists:
        client.query(publisher, f"ALTER PUBLICATION {identifier(name)} SET TABLE {tables}")
    else:
        client.query(publisher, f"CREATE PUBLICATION {identifier(name)} FOR TABLE {tables}")


def _make_slot(publisher: Connection, name: str) -> None:
    """Where the server can keep it through a failover, it is told to."""
    more = ", failover => true" if publisher.server_version >= FAILOVER_SLOTS_SINCE else ""
    before = client.query_value(publisher, "SHOW statement_timeout")
    # Under the fence of a dump the session has a bound of its own, and clients wait.
    bound = f"{round(SLOT_SECONDS * 1000)}ms" if before == "0" else before
    client.query(publisher, "SELECT set_config('statement_timeout', %s, false)", (bound,))
    try:
        client.query(publisher, f"SELECT pg_create_logical_replication_slot(%s, 'pgoutput'{more})", (name,))
    except ClientError as error:
        if error.details.get("sqlstate") != QUERY_CANCELED:
            raise
        rows = client.query(publisher, WRITERS)
        told = ", ".join(f"{row['who']} in database {row['database']}, for {row['seconds']} s" for row in rows[:TOLD]) or "it is not known which"
        raise ClientError(
            f"Slot {name} waits for every transaction on that server that has written, also those of other databases, and after {bound} some were still "
            f"open ({told}): wait for their end, or end them, and run again"
        ) from error
    finally:
        client.query(publisher, "SELECT set_config('statement_timeout', %s, false)", (before,))


class NoWayBack:
    """Decided by who declares it: the side that was left stays as it was at the cutover."""

    def prepare(self, here: Connection, ahead: Connection) -> None:
        """Nothing."""

    def spread(self, ahead: Connection) -> None:
        """Nothing."""

    def undo(self, here: Connection, ahead: Connection) -> None:
        """Nothing."""

    def attach(self, here: Connection, ahead: Connection, epoch: int) -> None:
        """Nothing."""

    def evidence(self) -> dict[str, t.Any]:
        """``{"way_back": None}``."""
        return {"way_back": None}
