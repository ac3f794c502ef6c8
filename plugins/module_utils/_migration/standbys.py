# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""A slot that nobody reads yet goes to the standbys now, so that a failover keeps it.

By itself that takes long (PostgreSQL 17, slotsync.c): standbys look for new slots twice a minute when nothing happens, and keep one only for the session
until the leader's has come to a place that they have all WAL of. A reload wakes them; a logged snapshot of the running transactions, and moving the
slot there, bring it to such a place.
"""

from __future__ import annotations

import contextlib
import typing as t

from .._core.errors import ClientError, WaitTimeout
from .._core.waiting import SYSTEM_CLOCK, Clock, wait_until
from .._postgresql import client

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

WAIT_SECONDS = 15.0
LOOK_SECONDS = 0.25
CONNECT_TIMEOUT_SECONDS = 2
# To move a failover slot waits for standbys, for ever where one is away.
STATEMENT_MS = 2000


def spread(service_file: str, service: str, slot: str, clock: Clock = SYSTEM_CLOCK) -> list[str]:
    """Have every other host of a service take over a slot of its leader, before the slot's position means anything.

    :returns: hosts that do not have it after some seconds
    :raises ClientError: the leader cannot be reached
    """
    leader = _open(service_file, service)
    try:
        missing = [host for host in leader.info.dsn_parameters.get("host", "").split(",") if host not in ("", leader.info.host)]

        def left() -> list[str]:
            missing[:] = [host for host in missing if not _has(service_file, service, host, slot)]
            if missing:
                _move(leader, slot)
            return missing

        with contextlib.suppress(WaitTimeout):
            wait_until(left, lambda hosts: not hosts, "The slot on every standby", WAIT_SECONDS, LOOK_SECONDS, clock)
        return missing
    finally:
        leader.close()


def _open(service_file: str, service: str, **parameters: t.Any) -> Connection:
    return client.connect(
        service_file,
        service,
        application_name="ha_migration standby",
        connect_timeout_seconds=CONNECT_TIMEOUT_SECONDS,
        settings={"statement_timeout": str(STATEMENT_MS)},
        patience_seconds=0,
        **parameters,
    )


def _move(leader: Connection, slot: str) -> None:
    """Bring the slot to where the leader is; that it was not brought there shows in who does not have it."""
    with contextlib.suppress(ClientError):
        client.query(leader, "SELECT pg_log_standby_snapshot()")
        client.query(leader, "SELECT pg_replication_slot_advance(%s, pg_current_wal_flush_lsn())", (slot,))


def _has(service_file: str, service: str, host: str, slot: str) -> bool:
    """Whether a standby has it for good; one that does not is woken, and one that cannot be asked does not."""
    try:
        session = _open(service_file, service, host=host, target_session_attrs="any")
    except ClientError:
        return False
    try:
        found = client.query_value(session, "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %s AND synced AND NOT temporary)", (slot,))
        if not found:
            client.query(session, "SELECT pg_reload_conf()")
        return bool(found)
    except ClientError:
        return False
    finally:
        session.close()
