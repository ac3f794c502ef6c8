# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a client does about errors, against a server that plays a script."""

from __future__ import annotations

import pathlib
import typing as t

import psycopg2
import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._ledger import driver, plan
from ansible_collections.freight.pg_ha.plugins.module_utils._ledger.model import Kind
from ansible_collections.freight.pg_ha.plugins.module_utils._ledger.record import RunFolder


class ServerError(psycopg2.OperationalError):
    """psycopg2's own pgcode cannot be set."""

    def __init__(self, code: str | None) -> None:
        super().__init__(f"error {code}")
        self._code = code

    @property
    def pgcode(self) -> str | None:  # type: ignore[override]
        return self._code


class Server:
    """Rows, and what to do at the next commits: ``ok``, ``rollback``, ``(sqlstate, row is there)``; a None sqlstate drops the connection.

    ``followers`` are the rows of standbys that answer the next looks in its place.
    """

    def __init__(self, *script: t.Any) -> None:
        self.script = list(script)
        self.rows: set[int] = set()
        self.refuse_connections = 0
        self.followers: list[set[int]] = []
        self.notes: list[str] = []

    def connect(self) -> Connection:
        if self.refuse_connections:
            self.refuse_connections -= 1
            raise psycopg2.OperationalError("connection refused")
        return Connection(self)


class Connection:
    """As much of psycopg2 as a client uses."""

    def __init__(self, server: Server) -> None:
        self.server, self.closed = server, 0
        self.description: t.Any = None
        self.statusmessage = ""
        self._answer = (0, False)

    def cursor(self) -> Connection:
        return self

    def close(self) -> None:
        self.closed = 1

    def fetchone(self) -> tuple[int, bool]:
        return self._answer

    def execute(self, statement: str) -> None:
        if self.closed:
            raise psycopg2.InterfaceError("connection already closed")
        self.server.notes.append(statement)
        word, _space, number = statement.partition(" ")
        if word == "look":
            follows = bool(self.server.followers)
            self._answer = (int(int(number) in (self.server.followers.pop(0) if follows else self.server.rows)), follows)
        elif word == "commit":
            self._commit(int(number))

    def _commit(self, number: int) -> None:
        step = self.server.script.pop(0) if self.server.script else "ok"
        if step == "rollback":
            self.statusmessage = "ROLLBACK"
            return
        code, there = ("", True) if step == "ok" else step
        if there:
            self.server.rows.add(number)
        if step != "ok":
            self.closed = int(code is None)
            raise ServerError(code)
        self.statusmessage = "COMMIT"


class Workload:
    commit_answer = "COMMIT"

    def steps(self, client: int, seq: int) -> tuple[str, ...]:
        return (f"work {seq}", f"commit {seq}")

    def look(self, client: int, seq: int) -> str:
        return f"look {seq}"


def play(tmp_path: pathlib.Path, server: Server, writes: int = 2, **options: float) -> tuple[list[tuple[str, str]], dict[str, t.Any]]:
    """What the client wrote down, as (kind, class), and the verdict."""
    folder = RunFolder(tmp_path / "run")
    folder.create(driver.new_header("r", "probe", 1, 1000.0))
    writer = folder.writer(0)

    def should_stop() -> bool:
        return len(server.rows) >= writes or (bool(options) and writer.errors > 0)

    driver.Client(writer, Workload(), t.cast(t.Any, server.connect), should_stop, interval_seconds=0.0001, **options).run()
    record = folder.read_record()
    verdict = plan.judge(record, [(0, seq) for seq in server.rows])
    return [(Kind(entry.kind).name, entry.error_class) for entry in record.clients[0].entries], verdict


def test_a_plain_run(tmp_path: pathlib.Path) -> None:
    entries, verdict = play(tmp_path, Server())
    assert entries == [("INTENT", ""), ("ACK", ""), ("INTENT", ""), ("ACK", ""), ("END", "")]
    assert verdict["ok"]


def test_committed_without_an_answer_is_found_and_not_written_again(tmp_path: pathlib.Path) -> None:
    server = Server((None, True))
    entries, verdict = play(tmp_path, server, writes=1)
    assert entries == [("INTENT", ""), ("UNKNOWN", "lost"), ("INTENT", ""), ("FOUND", ""), ("END", "")]
    assert server.notes.count("commit 0") == 1
    assert verdict["unknown"] == {"total": 1, "committed": 1, "not_committed": 0} and verdict["errors"] == 1


def test_a_server_that_does_not_lead_is_not_believed(tmp_path: pathlib.Path) -> None:
    """A leader that was cut off has the row when it comes back as a standby, and loses it when it follows its successor."""
    server = Server((None, False))
    server.followers = [{0}]
    entries, verdict = play(tmp_path, server, writes=1)
    assert entries[2:] == [("INTENT", ""), ("FAIL", "25006"), ("INTENT", ""), ("ABSENT", ""), ("ACK", ""), ("END", "")]
    assert (verdict["acknowledged"], verdict["lost"]) == (1, 0)


def test_not_committed_without_an_answer_is_written_again(tmp_path: pathlib.Path) -> None:
    entries, verdict = play(tmp_path, Server((None, False)), writes=1)
    assert [entry[0] for entry in entries] == ["INTENT", "UNKNOWN", "INTENT", "ABSENT", "ACK", "END"]
    assert verdict["unknown"] == {"total": 1, "committed": 0, "not_committed": 1}


def test_a_commit_answered_with_rollback_is_no_acknowledgement(tmp_path: pathlib.Path) -> None:
    entries, verdict = play(tmp_path, Server("rollback"), writes=1)
    assert entries[1] == ("FAIL", "rollback") and verdict["acknowledged"] == 1 and verdict["lost"] == 0


@pytest.mark.parametrize("code", ["57P01", "08006", "XX000", "40003", "58030", "53100"])
def test_errors_at_commit_that_say_nothing_leave_it_unknown(tmp_path: pathlib.Path, code: str) -> None:
    entries = play(tmp_path, Server((code, True)), writes=1)[0]
    assert entries[1] == ("UNKNOWN", code) and entries[-2][0] == "FOUND"


@pytest.mark.parametrize(("code", "errors"), [("40001", 0), ("40P01", 0), ("25006", 1)])
def test_refusals_that_pass_are_tried_again(tmp_path: pathlib.Path, code: str, errors: int) -> None:
    entries, verdict = play(tmp_path, Server((code, False)), writes=1)
    assert [entry[0] for entry in entries] == ["INTENT", "FAIL", "INTENT", "ACK", "END"]
    assert (verdict["errors"], verdict["retries"]) == (errors, 1 - errors)


@pytest.mark.parametrize("code", ["42501", "P0001", "23514", "22003"])
def test_refusals_that_stay_are_shown_to_the_user(tmp_path: pathlib.Path, code: str) -> None:
    entries, verdict = play(tmp_path, Server((code, False)), writes=1)
    assert entries[1:3] == [("FAIL", code), ("SURFACED", code)]
    assert (verdict["surfaced"], verdict["errors"], verdict["lost"], verdict["acknowledged"]) == (1, 1, 0, 1)


def test_a_second_attempt_that_meets_its_own_row_has_written_it(tmp_path: pathlib.Path) -> None:
    """The first attempt was still committing when the client looked."""
    server = Server((None, False), ("23505", True))
    entries, verdict = play(tmp_path, server, writes=1)
    assert [entry[0] for entry in entries] == ["INTENT", "UNKNOWN", "INTENT", "ABSENT", "FAIL", "INTENT", "FOUND", "END"]
    assert verdict["errors"] == 1 and verdict["duplicated"] == 0


def test_connections_that_are_refused_are_errors_and_tried_again(tmp_path: pathlib.Path) -> None:
    server = Server()
    server.refuse_connections = 2
    entries, verdict = play(tmp_path, server, writes=1)
    assert entries[:4] == [("INTENT", ""), ("FAIL", "connect"), ("INTENT", ""), ("FAIL", "connect")]
    assert verdict["errors_by_class"] == {"connect": 2} and verdict["acknowledged"] == 1


def test_a_stop_ends_a_write_that_cannot_be_done(tmp_path: pathlib.Path) -> None:
    server = Server()
    server.refuse_connections = 1000
    entries, verdict = play(tmp_path, server, writes=1, grace_seconds=0.1)
    assert entries[-2:] == [("SURFACED", "connect"), ("END", "")] and verdict["complete"]
