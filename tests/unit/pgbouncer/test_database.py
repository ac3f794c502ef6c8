# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PgBouncer's console: what is read, what is sent, and that a pause is never longer than asked."""

from __future__ import annotations

import threading
import typing as t
from dataclasses import dataclass, field

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, PlanError
from ansible_collections.freight.pg_ha.plugins.module_utils._pgbouncer import client as client_module
from ansible_collections.freight.pg_ha.plugins.module_utils._pgbouncer.client import PgbouncerClient
from ansible_collections.freight.pg_ha.plugins.modules import pgbouncer_database, pgbouncer_database_info


@dataclass
class FakePgbouncer:
    """A pooler with one database.

    :param busy: a transaction is running: PAUSE waits until its console is gone
    :param deaf: PAUSE and RESUME are answered and do nothing
    """

    paused: bool = False
    busy: bool = False
    deaf: bool = False
    broken: bool = False
    sent: list[str] = field(default_factory=list)

    def connect(self, service_file: str, service: str, *, connect_timeout_seconds: int) -> Console:
        return Console(self)

    def answer(self, console: Console, statement: str) -> list[dict[str, t.Any]]:
        if statement == "SHOW DATABASES":
            row = {
                "name": "freight",
                "host": "source",
                "port": 5432,
                "database": "freight",
                "paused": int(self.paused),
                "disabled": 0,
                "current_connections": 3,
            }
            return [{"oops": 1}] if self.broken else [row]
        if statement == "SHOW POOLS":
            return [{"database": "freight", "user": "app", "cl_active": 2, "unknown_column": 1}]
        self.sent.append(statement)
        if statement.startswith("PAUSE"):
            self.paused = not self.deaf
            if self.busy:
                console.gone.wait(30)
                raise ClientError("The statement failed: server closed the connection unexpectedly")
        elif not self.deaf:
            self.paused = False
        return []


class Console:
    """A console session; its wire is a real socket, because it is shut down from another thread."""

    def __init__(self, pooler: FakePgbouncer) -> None:
        self.pooler = pooler
        self.gone = threading.Event()

    def close(self) -> None:
        self.gone.set()


@pytest.fixture
def pooler(monkeypatch: pytest.MonkeyPatch) -> FakePgbouncer:
    fake = FakePgbouncer()
    monkeypatch.setattr(client_module, "query", lambda console, statement: console.pooler.answer(console, statement))
    monkeypatch.setattr(client_module, "query_console", lambda console, statement: console.pooler.answer(console, statement))
    return fake


def client(pooler: FakePgbouncer, read_only: bool = False) -> PgbouncerClient:
    return PgbouncerClient("/nowhere", "pooler_lb1", read_only=read_only, connect=pooler.connect)


def params(**options: t.Any) -> dict[str, t.Any]:
    return {"name": "freight", "state": "paused", "timeout_seconds": 0.2, **options}


def test_info_tells_where_a_database_points(pooler: FakePgbouncer) -> None:
    (database,) = pgbouncer_database_info.run(client(pooler), {"name": None}).result["databases"]
    assert (database["host"], database["port"], database["paused"], database["pools"]) == ("source", 5432, False, [{"user": "app", "cl_active": 2}])


def test_an_unknown_database_is_refused(pooler: FakePgbouncer) -> None:
    with pytest.raises(PlanError, match="has no database 'nope'; it has: freight"):
        pgbouncer_database_info.run(client(pooler), {"name": "nope"})


def test_what_is_not_pgbouncer_is_refused(pooler: FakePgbouncer) -> None:
    pooler.broken = True
    with pytest.raises(ClientError, match="did not answer like PgBouncer's"):
        pgbouncer_database_info.run(client(pooler), {"name": None})


@pytest.mark.parametrize("check_mode", [False, True])
def test_pause_again_resume_again(pooler: FakePgbouncer, check_mode: bool) -> None:
    for state, sent in [("paused", 'PAUSE "freight"'), ("active", 'RESUME "freight"')]:
        pooler.sent.clear()
        if check_mode:
            pooler.paused = state == "active"
        outcome = pgbouncer_database.run(client(pooler, check_mode), params(state=state), check_mode)
        assert outcome.changed
        assert outcome.result["actions"] == [sent]
        assert outcome.result["database"]["paused"] is (state == "paused")
        assert pooler.sent == ([] if check_mode else [sent])
        if not check_mode:
            assert not pgbouncer_database.run(client(pooler), params(state=state), False).changed
            assert pooler.sent == [sent]


def test_a_pause_that_takes_too_long_is_taken_back(pooler: FakePgbouncer, monkeypatch: pytest.MonkeyPatch) -> None:
    pooler.busy = True
    order: list[str] = []

    def shut_down(console: Console) -> int:
        order.append("waiting console dropped")
        console.gone.set()
        raise OSError("a fake has no wire")

    monkeypatch.setattr(Console, "fileno", shut_down, raising=False)
    with pytest.raises(ClientError, match="did not finish within 0.2 s and was taken back"):
        pgbouncer_database.run(client(pooler), params(), False)
    assert order == ["waiting console dropped"]
    assert pooler.sent == ['PAUSE "freight"', 'RESUME "freight"']
    assert not pooler.paused


def test_a_pooler_that_only_says_yes_is_not_believed(pooler: FakePgbouncer) -> None:
    pooler.deaf = True
    with pytest.raises(ClientError, match="is still not paused after PAUSE"):
        pgbouncer_database.run(client(pooler), params(), False)


def test_a_read_only_client_does_not_write(pooler: FakePgbouncer) -> None:
    with pytest.raises(ClientError, match="may only read"):
        pgbouncer_database.run(client(pooler, read_only=True), params(), False)
    assert pooler.sent == []
