# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pooler that answers wrongly, late or not at all: one sentence, within the bound, and clients of a section go on."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import socket
import struct
import threading
import time
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._connections import client as connections
from ansible_collections.freight.pg_ha.plugins.module_utils._connections.model import Service
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, GateError, PgHaError, UnknownState
from ansible_collections.freight.pg_ha.plugins.module_utils._core.problems import Problem
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import gates, section
from ansible_collections.freight.pg_ha.plugins.module_utils._pgbouncer.client import PgbouncerClient
from ansible_collections.freight.pg_ha.plugins.module_utils._pgbouncer.plan import databases_of
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql.console import pause_all, read_pooled
from hypothesis import given
from hypothesis import strategies as st

from .conftest import QUICK, Pgbouncer

ATTEMPT = section.Attempt(1, "test", "source", "target", "postgres", 2.0, (), False, ("new", 5000))


def message(kind: bytes, body: bytes = b"") -> bytes:
    """One message of the protocol."""
    return kind + struct.pack("!I", len(body) + 4) + body


READY = message(b"Z", b"I")
WELCOME = (
    message(b"R", struct.pack("!I", 0))
    + b"".join(
        message(b"S", f"{key}\0{value}\0".encode())
        for key, value in {"client_encoding": "UTF8", "DateStyle": "ISO", "server_version": "1.24.1/bouncer", "standard_conforming_strings": "on"}.items()
    )
    + READY
)


def table(**row: str | None) -> bytes:
    """A result of one row, all of it text."""
    columns = b"".join(name.encode() + b"\0" + struct.pack("!IHIhiH", 0, 0, 25, -1, -1, 0) for name in row)
    values = b"".join(struct.pack("!i", -1) if value is None else struct.pack("!i", len(value.encode())) + value.encode() for value in row.values())
    count = struct.pack("!H", len(row))
    return message(b"T", count + columns) + message(b"D", count + values) + message(b"C", b"SHOW\0") + READY


GOOD = {"name": "postgres", "host": "old", "port": "5432", "database": "postgres", "pool_mode": "transaction", "paused": "0", "disabled": "0"}
Answer = t.Callable[[socket.socket, str], None]


def rows(config: dict[str, str | None], databases: dict[str, str | None]) -> Answer:
    """Answers SHOW CONFIG and everything else with these rows."""
    return lambda wire, statement: wire.sendall(table(**(config if "CONFIG" in statement else databases)))


MODE: dict[str, str | None] = {"key": "pool_mode", "value": "transaction"}
ANSWERS: dict[str, tuple[Answer, str]] = {
    "no port": (rows(MODE, {**GOOD, "port": None}), "did not answer like PgBouncer"),
    "a port that is none": (rows(MODE, {**GOOD, "port": "many"}), "did not answer like PgBouncer"),
    "no column paused": (rows(MODE, {key: value for key, value in GOOD.items() if key != "paused"}), "did not answer like PgBouncer"),
    "another table": (rows({"a": "b"}, {"c": "d"}), "did not answer like PgBouncer"),
    "an error": (lambda wire, _statement: wire.sendall(message(b"E", b"SERROR\0C08P01\0Mgo away\0\0") + READY), "go away"),
    "no protocol": (lambda wire, _statement: wire.sendall(b"\xff" * 64), "."),
    "nothing, and goes": (lambda wire, _statement: wire.close(), "."),
    "nothing": (lambda wire, _statement: time.sleep(60), "did not answer SHOW CONFIG within"),
    "drops": (lambda wire, _statement: [(wire.sendall(b"T"), time.sleep(0.1)) for _round in range(600)] and None, "did not answer SHOW CONFIG within|."),
}


class Fake:
    """A console that says what it is told to say."""

    def __init__(self, answer: Answer, welcome: bool = True) -> None:
        self.answer, self.welcome = answer, welcome
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, _address = self.listener.accept()
                threading.Thread(target=self._talk, args=(wire,), daemon=True).start()

    def _talk(self, wire: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error):
            while True:
                (length,) = struct.unpack("!I", wire.recv(4))
                body = wire.recv(length - 4)
                if length != 8 or struct.unpack("!I", body)[0] == 196608:
                    break
                wire.sendall(b"N")
            if not self.welcome:
                time.sleep(60)
            wire.sendall(WELCOME)
            while wire.recv(1) == b"Q":
                (length,) = struct.unpack("!I", wire.recv(4))
                self.answer(wire, wire.recv(length - 4).decode())


def services(path: pathlib.Path, port: int) -> str:
    """A service file with this console."""
    path.write_text(f"[pooler_lb]\nhost=127.0.0.1\nport={port}\ndbname=pgbouncer\nuser=operator\npassword=right\nsslmode=disable\ngssencmode=disable\n")
    return str(path)


def evaluate(open_console: t.Callable[[str], t.Any]) -> list[dict[str, str]]:
    """The gate of the poolers, with as much of a context as it reads."""
    values: dict[str, t.Any] = dict.fromkeys(gates.Context.__dataclass_fields__)
    values.update(database="postgres", endpoint_now=("old", 5432), poolers=("lb",), open_console=open_console)
    return gates.evaluate(gates.Context(**values), [gates.poolers])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A console has half a second."""
    monkeypatch.setattr(client.query_console, "__defaults__", (0.5,))


def test_a_good_console_of_the_fake_is_good(tmp_path: pathlib.Path) -> None:
    """Otherwise the tests below would pass with any fake."""
    file = services(tmp_path / "s", Fake(rows(MODE, t.cast("dict[str, str | None]", GOOD))).port)
    assert evaluate(lambda name: client.connect_console(file, f"pooler_{name}")) == []


@pytest.mark.parametrize("how", ANSWERS)
def test_a_console_that_misbehaves_is_one_bounded_sentence_for_gate_section_and_look(quick: None, tmp_path: pathlib.Path, how: str) -> None:
    answer, words = ANSWERS[how]
    file = services(tmp_path / "s", Fake(answer).port)
    began = time.monotonic()
    failed = evaluate(lambda name: client.connect_console(file, f"pooler_{name}"))
    assert len(failed) == 1 and failed[0]["object"] == "lb" and "could not be evaluated" in failed[0]["message"]
    with pytest.raises(ClientError, match=words) as caught:
        client_rows(file)
    assert "\n" not in caught.value.message
    with pytest.raises(PgHaError):
        PgbouncerClient(file, "pooler_lb").read_databases()
    problem = connections.try_pooler(file, Service("pooler_lb", "pooler", "lb", "6432", "operator", "pgbouncer"), "postgres", 1)
    assert isinstance(problem, Problem) and problem.sentence.count("\n") == 0
    assert time.monotonic() - began < 4 * 0.5 + 2


def client_rows(file: str) -> None:
    """What a gate reads."""
    read_pooled(client.connect_console(file, "pooler_lb"), "postgres")


def test_a_console_that_never_welcomes_is_given_up(tmp_path: pathlib.Path) -> None:
    file = services(tmp_path / "s", Fake(rows(MODE, {}), welcome=False).port)
    began = time.monotonic()
    with pytest.raises(ClientError, match="Cannot open the console of pooler_lb.*timeout"):
        client.connect_console(file, "pooler_lb", connect_timeout_seconds=2)
    assert time.monotonic() - began < 4


@contextlib.contextmanager
def stopped(pgbouncer: Pgbouncer) -> t.Iterator[None]:
    """Its process does not run; the kernel keeps its connections."""
    pgbouncer.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        pgbouncer.process.send_signal(signal.SIGCONT)


def test_a_stopped_pgbouncer_fails_its_gate_and_the_look_at_connections(quick: None, pgbouncer: Pgbouncer, tmp_path: pathlib.Path) -> None:
    file = services(tmp_path / "s", pgbouncer.port)
    console = client.connect_console(file, "pooler_lb")
    began = time.monotonic()
    with stopped(pgbouncer):
        failed = evaluate(lambda _name: console)
        assert [gate["message"] for gate in failed] == [
            "could not be evaluated: The pooler's console did not answer SHOW CONFIG within 0.5 s: look at the unit pgbouncer there"
        ]
        problem = connections.try_pooler(file, Service("pooler_lb", "pooler", "lb", "6432", "operator", "pgbouncer"), "postgres", 2)
        assert isinstance(problem, Problem) and problem.kind == "silent"
    assert time.monotonic() - began < 5


def sessions(pgbouncer: Pgbouncer, file: str) -> t.Any:
    """Consoles of a section with this pooler and one that has come over already."""
    fine = client.connect_console(services(pathlib.Path(file + "2"), Fake(rows(MODE, {**GOOD, "host": "new", "port": "5000"})).port), "pooler_lb")
    stuck = client.connect_console(file, "pooler_lb")
    return type("Sessions", (), {"pausers": {"lb2": stuck}, "lookers": {"lb1": fine, "lb2": stuck}})


def test_a_pooler_that_stops_is_not_paused_for_ever(pgbouncer: Pgbouncer, tmp_path: pathlib.Path) -> None:
    made = sessions(pgbouncer, services(tmp_path / "s", pgbouncer.port))
    began = time.monotonic()
    with stopped(pgbouncer), pytest.raises(GateError, match="PAUSE on lb2 did not end within 0.3 s: .*or the pooler does not answer"):
        pause_all(made.pausers, "postgres", 0.3)
    assert time.monotonic() - began < 2
    # The word was said before it stopped, so it comes true when it goes on; its dead man looks then, and lets clients go on.
    while not (read_pooled(pgbouncer.console, "postgres") or {})["paused"]:
        assert time.monotonic() - began < 5
    pgbouncer.say('RESUME "postgres"')


def test_a_pooler_that_stops_after_the_decision_does_not_hold_the_mover(quick: None, pgbouncer: Pgbouncer, tmp_path: pathlib.Path) -> None:
    made = sessions(pgbouncer, services(tmp_path / "s", pgbouncer.port))
    began = time.monotonic()
    with stopped(pgbouncer), pytest.raises(UnknownState, match="Decided for the target, .* but one cannot be seen: lb2: .*did not answer"):
        section._await_poolers(ATTEMPT, made, 1.0)
    assert time.monotonic() - began < 3


cells = st.none() | st.integers() | st.text(max_size=8)
columns = ["name", "host", "port", "database", "paused", "disabled", "current_connections", "user", "pool_mode"]


@QUICK
@given(st.lists(st.dictionaries(st.sampled_from(columns), cells), max_size=3), st.lists(st.dictionaries(st.sampled_from(columns), cells), max_size=3))
def test_any_rows_are_databases_or_one_sentence(shown: list[dict[str, t.Any]], pools: list[dict[str, t.Any]]) -> None:
    try:
        found = databases_of(shown, pools)
    except ClientError as error:
        assert "did not answer like PgBouncer" in error.message
        return
    assert [database.name for database in found] == [row["name"] for row in shown]
