# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""A slot goes to the standbys now. They look for new ones twice a minute when nothing happens (PostgreSQL 17, slotsync.c), and a failover in between
would cost the slot. A reload wakes them."""

from __future__ import annotations

import contextlib
import time
import typing as t

from .._core.errors import ClientError, WaitTimeout
from .._core.waiting import SYSTEM_CLOCK, Clock, wait_until
from .._postgresql import client

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

WAIT_SECONDS = 5.0
CONNECT_TIMEOUT_SECONDS = 2


def hand_over(leader: Connection, service_file: str, service: str, slot: str, clock: Clock = SYSTEM_CLOCK) -> list[str]:
    """Have every other host of a service take over a slot of its leader.

    :param leader: session that was opened with that service
    :returns: hosts that do not have it after some seconds
    """
    missing = [host for host in leader.info.dsn_parameters.get("host", "").split(",") if host not in ("", leader.info.host)]

    def left() -> list[str]:
        missing[:] = [host for host in missing if not _has(service_file, service, host, slot)]
        return missing

    with contextlib.suppress(WaitTimeout):
        wait_until(left, lambda hosts: not hosts, "The slot on every standby", WAIT_SECONDS, 0.25, clock)
    return missing


def _has(service_file: str, service: str, host: str, slot: str) -> bool:
    """Whether a standby has it for good; one that does not is woken, and one that cannot be asked does not."""
    try:
        session = client.connect(
            service_file,
            service,
            application_name="ha_migration standby",
            connect_timeout_seconds=CONNECT_TIMEOUT_SECONDS,
            host=host,
            target_session_attrs="any",
        )
    except ClientError:
        return False
    try:
        found = client.query_value(
            session, "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = %s AND synced AND NOT temporary)", (slot,)
        )
        if not found:
            client.query(session, "SELECT pg_reload_conf()")
        return bool(found)
    except ClientError:
        return False
    finally:
        session.close()
