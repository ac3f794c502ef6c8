# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's load, as processes against a real server."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import threading
import time
import typing as t

import pytest

if t.TYPE_CHECKING:
    import subprocess

from .conftest import Database

START = ("start", "--clients", "8", "--rate", "200", "--processes", "2", "--statements", "/dev/null")
Load = t.Callable[..., "subprocess.CompletedProcess[str]"]


def verdict(load: Load, *arguments: str) -> tuple[int, dict[str, t.Any]]:
    done = load("verdict", "--json", *arguments, check=False)
    if done.returncode not in (0, 1):
        raise AssertionError(done.stderr)
    return done.returncode, json.loads(done.stdout)


class Cutter:
    """A way to the server that, when told to, passes the next COMMIT on and then breaks the connection without the answer."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cuts = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server))
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            threading.Thread(target=self._back, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        try:
            while data := client.recv(65536):
                if b"COMMIT" in data and self._take():
                    client.shutdown(socket.SHUT_RDWR)
                    server.sendall(data)
                    time.sleep(0.1)
                    break
                server.sendall(data)
        except OSError:
            pass
        server.close()

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        try:
            while data := server.recv(65536):
                client.sendall(data)
        except OSError:
            pass
        client.close()

    def _take(self) -> bool:
        with self._lock:
            self.cuts -= 1
            return self.cuts >= 0

    def close(self) -> None:
        self._listener.close()


def test_a_quiet_run_is_ok_and_the_next_one_is_apart(database: Database, load: Load) -> None:
    for number in range(2):
        begun = json.loads(load(*START, "--run", f"r{number}").stdout)
        assert begun["running"] and begun["clients_begun"] == 8
        assert load(*START, check=False).returncode == 2
        assert load("verdict", check=False).returncode == 2
        assert verdict(load, "--live")[0] == 0
        time.sleep(1)
        assert load("status").returncode == 0
        assert not json.loads(load("stop").stdout)["running"]
        assert load("status", check=False).returncode == 3
        code, found = verdict(load)
        assert (code, found["ok"], found["problems"]) == (0, True, [])
        assert found["acknowledged"] == found["rows"] > 100
        assert found["balances"]["expected"] == found["balances"]["found"]


@pytest.mark.parametrize(
    ("behind_its_back", "expected"),
    [
        ("DELETE FROM app.ledger WHERE client = 3 AND seq = 2", {"lost": 1, "lost_keys": [[3, 2]], "duplicated": 0}),
        (
            "ALTER TABLE app.ledger DROP CONSTRAINT ledger_pkey; INSERT INTO app.ledger SELECT * FROM app.ledger WHERE client = 3 AND seq = 2",
            {"lost": 0, "duplicated": 1, "duplicated_keys": [[3, 2]]},
        ),
        ("UPDATE app.accounts SET balance = balance + 5 WHERE id = 7", {"lost": 0, "duplicated": 1}),
        ("UPDATE app.accounts SET balance = balance - 5 WHERE id = 7", {"lost": 1, "duplicated": 0}),
    ],
)
def test_what_happened_behind_its_back_is_reported(database: Database, load: Load, behind_its_back: str, expected: dict[str, t.Any]) -> None:
    load(*START)
    load("stop")
    database.execute(behind_its_back)
    code, found = verdict(load)
    assert code == 1 and {name: found[name] for name in expected} == expected


def test_commits_without_an_answer_are_looked_for(database: Database, load: Load) -> None:
    cutter = Cutter(database.server.port)
    dsn = database.dsn.replace(f"port={database.server.port}", f"port={cutter.port}") + " sslmode=disable gssencmode=disable"
    load(*START, dsn=dsn)
    cutter.cuts = 10
    time.sleep(1)
    load("stop")
    cutter.close()
    found = verdict(load)[1]
    assert found["unknown"] == {"total": 10, "committed": 10, "not_committed": 0}
    assert (found["lost"], found["duplicated"], found["errors"], found["complete"]) == (0, 0, 10, True)


def test_backends_killed_at_commit_lose_nothing(database: Database, load: Load) -> None:
    # A deferred check makes every COMMIT take a while, so that many are met in it.
    database.execute(
        "CREATE FUNCTION app.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.02); RETURN NULL; END $$; "
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON app.ledger DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.slow()"
    )
    load(*START)
    for _round in range(8):
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'freight_load' AND query = 'COMMIT' AND state = 'active'"
        )
        time.sleep(0.1)
    load("stop")
    found = verdict(load)[1]
    assert found["unknown"]["not_committed"] > 0
    assert (found["lost"], found["duplicated"], found["unexpected"], found["surfaced"]) == (0, 0, 0, 0)


def test_a_restart_of_the_server_loses_nothing(database: Database, load: Load) -> None:
    load(*START)
    database.restart()
    time.sleep(1)
    load("stop")
    code, found = verdict(load)
    assert code == 1 and found["errors"] > 0
    assert (found["lost"], found["duplicated"], found["surfaced"], found["complete"]) == (0, 0, 0, True)


def test_the_record_outlives_sigkill(database: Database, load: Load, tmp_path: pathlib.Path) -> None:
    load(*START)
    time.sleep(0.5)
    current = tmp_path / "runs" / "current"
    supervisor = int((current / "lock").read_text(encoding="utf-8"))
    os.killpg(os.getpgid(supervisor), signal.SIGKILL)
    time.sleep(0.2)
    with next(current.glob("client-*.rec")).open("ab") as file:
        file.write(b"torn")
    assert load("status", check=False).returncode == 3
    code, found = verdict(load)
    assert (found["lost"], found["duplicated"], found["unexpected"], found["errors"], found["torn_bytes"]) == (0, 0, 0, 0, 4)
    assert found["acknowledged"] > 50 and found["balances"]["effect_missing"] == found["balances"]["effect_repeated"] == []
    assert code == 1 and "did not stop in good order" in found["problems"][0]


def test_a_file_with_a_password_must_be_private(database: Database, load: Load, tmp_path: pathlib.Path) -> None:
    dsn = tmp_path / "dsn"
    dsn.write_text(database.dsn, encoding="utf-8")
    dsn.chmod(0o644)
    refused = load(*START, "--dsn-file", str(dsn), check=False)
    assert refused.returncode == 2 and "chmod 0600" in refused.stderr
    dsn.chmod(0o600)
    assert load(*START, "--dsn-file", str(dsn)).returncode == 0


def test_a_server_that_is_not_there_is_said(database: Database, load: Load) -> None:
    refused = load(*START, dsn="host=127.0.0.1 port=1 user=nobody dbname=nothing", check=False)
    assert refused.returncode == 2 and "Cannot connect" in refused.stderr
