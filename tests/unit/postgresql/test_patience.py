# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on its way is waited for: a leader, and the end of a session whose client has died. What is wrong is told at once."""

from __future__ import annotations

import os
import threading
import time
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client, locks

LOCK = (4_718_001, 99)


@pytest.fixture
def sessions(postgresql_server: t.Any, tmp_path: t.Any) -> t.Iterator[t.Any]:
    name = f"patience_{os.getpid()}_{time.monotonic_ns()}"
    postgresql_server.create_database(name)
    service_file = str(postgresql_server.services(tmp_path / "pg_service.conf", source=name))
    opened = [client.connect(service_file, "source", application_name="test") for _number in range(2)]
    yield opened
    for session in opened:
        session.close()


def test_a_server_is_told_to_notice_dead_clients_soon(sessions: t.Any) -> None:
    values = {name: client.query_value(sessions[0], f"SHOW {name}") for name in ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count")}
    assert values == {"tcp_keepalives_idle": "3", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3"}
    assert client.query_value(sessions[0], "SHOW search_path") == "pg_catalog"


def test_a_lock_of_somebody_who_ends_is_had(sessions: t.Any) -> None:
    holder, waiter = sessions
    assert locks.take_lock(holder, LOCK)
    threading.Timer(0.5, holder.close).start()
    assert locks.take_lock(waiter, LOCK)


def test_a_lock_of_somebody_who_lives_is_not(sessions: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.3)
    holder, other = sessions
    assert locks.take_lock(holder, LOCK, shared=True) and locks.take_lock(other, LOCK, shared=True)
    assert not locks.take_lock(other, LOCK)


@pytest.mark.parametrize(
    ("message", "patience", "tries"),
    [
        ("session is read-only", 5.0, 3),
        ("FATAL: the database system is starting up", 5.0, 3),
        ("server closed the connection unexpectedly", 5.0, 3),
        ("session is read-only", 0.0, 1),
        ('FATAL: password authentication failed for user "x"', 5.0, 1),
        ("Connection refused", 5.0, 1),
    ],
)
def test_only_what_is_on_its_way_is_waited_for(monkeypatch: pytest.MonkeyPatch, message: str, patience: float, tries: int) -> None:
    asked: list[str] = []

    def connect(service_file: str, service: str, *more: t.Any) -> str:
        asked.append(service)
        if len(asked) < 3:
            raise ClientError(message)
        return "session"

    monkeypatch.setattr(client, "_connect", connect)
    monkeypatch.setattr(client, "LOOK_SECONDS", 0.01)
    if tries == 3:
        assert client.connect("file", "target", application_name="test", patience_seconds=patience) == "session"
    else:
        with pytest.raises(ClientError):
            client.connect("file", "target", application_name="test", patience_seconds=patience)
    assert len(asked) == tries
