# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients of two real PgBouncers wait while something happens, and go on whatever has become of it; beside each stands the guard of role pause_guard."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import multiprocessing
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
import threading
import time

import psycopg2
import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, GateError
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import dead_man
from ansible_collections.freight.pg_ha.plugins.module_utils._switchover import hold as hold_module
from ansible_collections.freight.pg_ha.plugins.module_utils._switchover.hold import GUARD, NOT_SERVED, SERVED, Hold

from tests.unit.conftest import _free_port

ROOT = pathlib.Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "roles" / "pause_guard" / "files" / "pause_guard.py"
PGBOUNCER = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
BUDGET_SECONDS = 1.0
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="no pgbouncer is installed")


def program():
    """The guard's code."""
    spec = importlib.util.spec_from_file_location("pause_guard", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Pooler:
    """A PgBouncer of its own, as user postgres where we are root, and its guard when it is wanted."""

    def __init__(self, name, server_port, mode="transaction"):
        self.name = name
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"pg_ha_{name}_", dir="/var/tmp"))
        self.folder.chmod(0o755)
        self.port = _free_port()
        (self.folder / "pgbouncer.ini").write_text(
            f"[databases]\napp = host=127.0.0.1 port={server_port} dbname=postgres user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {self.port}\nunix_socket_dir = {self.folder}\nauth_type = any\nadmin_users = operator\npool_mode = {mode}\n"
            f"server_tls_sslmode = disable\nserver_login_retry = 0.2\nlogfile = {self.folder}/log\n"
        )
        config = {"database": "app", "budget_seconds": BUDGET_SECONDS, "socket_directory": str(self.folder), "port": self.port}
        (self.folder / "guard.json").write_text(json.dumps(config))
        self.user = {}
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self.user = {"user": "postgres", "group": owner.pw_gid}
        self.process = subprocess.Popen([PGBOUNCER, "-q", self.folder / "pgbouncer.ini"], **self.user)
        self.guard = None
        deadline = time.monotonic() + 10
        while True:
            try:
                self.console("operator").close()
                return
            except psycopg2.Error:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.05)

    def console(self, user="operator", database="pgbouncer"):
        console = psycopg2.connect(host="127.0.0.1", port=self.port, dbname=database, user=user, sslmode="disable", gssencmode="disable", connect_timeout=5)
        console.autocommit = True
        return console

    def ask(self, statement):
        with contextlib.closing(self.console()) as console, console.cursor() as cursor:
            cursor.execute(statement)
            if cursor.description is None:
                return []
            return [dict(zip([column.name for column in cursor.description], row, strict=True)) for row in cursor.fetchall()]

    def paused(self):
        return [row["paused"] for row in self.ask("SHOW DATABASES") if row["name"] == "app"] == [1]

    def arm(self):
        self.guard = self.run_guard()
        deadline = time.monotonic() + 10
        while not any(row["application_name"] == GUARD for row in self.ask("SHOW CLIENTS")):
            assert self.guard.is_alive() and time.monotonic() < deadline, self.ask("SHOW CLIENTS")
            time.sleep(0.05)

    def run_guard(self, *more):
        """The program as the user that PgBouncer runs as, who need not be able to read this checkout: forked, not started."""
        main = program().main

        def work():
            if self.user:
                os.setgid(self.user["group"])
                os.setuid(pwd.getpwnam(self.user["user"]).pw_uid)
            main([str(self.folder / "guard.json"), *more])

        process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
        process.start()
        return process

    def stop(self):
        if self.guard is not None:
            self.guard.kill()
            self.guard.join()
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Route:
    """Where a pooler leads: a primary of a timeline, or nobody."""

    def __init__(self):
        self.now = 1

    def read_timeline(self):
        return self.now

    def has_passed(self, timeline):
        return (self.now or 0) > timeline


class World:
    """Two poolers, one route behind both."""

    def __init__(self, server_port):
        self.poolers = {name: Pooler(name, server_port) for name in ("lb1", "lb2")}
        self.route = Route()

    def hold(self, **changes):
        def open_console(name):
            try:
                return self.poolers[name].console()
            except psycopg2.Error as error:
                raise ClientError(str(error)) from error

        given = {"names": tuple(self.poolers), "database": "app", "pause_seconds": 0.5, "budget_seconds": BUDGET_SECONDS, **changes}
        return Hold(open_console=open_console, open_route=lambda host, port: self.route, **given)

    def paused(self):
        return [pooler.paused() for pooler in self.poolers.values()]


@pytest.fixture(scope="module")
def shared(postgresql_server):
    found = World(postgresql_server.port)
    try:
        for pooler in found.poolers.values():
            pooler.arm()
        yield found
    finally:
        for pooler in found.poolers.values():
            pooler.stop()


@pytest.fixture
def world(shared):
    shared.route.now = 1
    yield shared
    assert shared.paused() == [False, False]


def test_the_guard_is_known_by_its_name():
    assert program().APPLICATION_NAME == GUARD == dead_man.PAUSE_GUARD


def test_the_dead_man_of_a_migration_leaves_the_pause_to_the_guard(world, tmp_path):
    """A cutover may have just ended, and its dead man takes back a PAUSE that comes late."""
    pooler = world.poolers["lb1"]
    service_file = tmp_path / "pg_service.conf"
    service_file.write_text(f"[pooler]\nhost=127.0.0.1\nport={pooler.port}\ndbname=pgbouncer\nuser=operator\nsslmode=disable\ngssencmode=disable\n")
    fields = dict.fromkeys([field.name for field in dataclasses.fields(dead_man.Config)], None)
    man = dead_man.Pooler(dead_man.Config(**{**fields, "database": "app", "service_file": str(service_file)}))
    pooler.ask("PAUSE app")
    assert not man.resume(beside_guard=False) and pooler.paused()
    assert man.resume() and not pooler.paused()


def test_clients_wait_until_a_new_leader_is_behind_every_pooler_and_see_no_error(world):
    answers = []

    def write():
        with contextlib.closing(session), session.cursor() as cursor:
            for _number in range(20):
                cursor.execute("SELECT 1")
                answers.append(cursor.fetchone())
                time.sleep(0.01)

    session = world.poolers["lb1"].console("app", "app")
    hold = world.hold()
    hold.check()
    client = threading.Thread(target=write)
    with hold.held():
        assert world.paused() == [True, True]
        client.start()
        time.sleep(0.3)
        assert answers == []
        world.route.now = 2
        hold.wait_until_served(lambda: False)
    client.join(10)
    assert answers == [(1,)] * 20 and hold.resumed_because == SERVED and 300 <= hold.held_ms < 1000 * BUDGET_SECONDS


def test_at_the_end_of_the_budget_clients_go_on(world):
    hold = world.hold()
    hold.check()
    world.route.now = None
    with hold.held():
        hold.wait_until_served(lambda: False)
    assert hold.resumed_because == NOT_SERVED and hold.held_ms >= 1000 * BUDGET_SECONDS


def test_nobody_waits_for_what_was_refused(world):
    hold = world.hold(budget_seconds=30)
    hold.check()
    with hold.held():
        hold.wait_until_served(lambda: True)
    assert hold.resumed_because == NOT_SERVED and hold.held_ms < 1000


def test_an_open_transaction_makes_it_fail_and_everybody_goes_on(world):
    hold = world.hold()
    hold.check()
    session = world.poolers["lb2"].console("app", "app")
    session.autocommit = False
    with contextlib.closing(session), session.cursor() as cursor:
        cursor.execute("SELECT 1")
        with pytest.raises(GateError, match=r"PAUSE on lb2 did not end within 0.5 s: a client holds a transaction open"), hold.held():
            raise AssertionError("nothing may be done")
        assert world.paused() == [False, False]
        session.commit()


def test_an_error_inside_lets_everybody_go_on(world):
    hold = world.hold()
    hold.check()
    with pytest.raises(RuntimeError), hold.held():
        raise RuntimeError


@pytest.mark.parametrize("how", ["it sends nothing any more", "its sessions are gone"])
def test_when_we_die_the_guard_ends_the_pause(world, how):
    hold = world.hold()
    hold.check()
    hold._pause()
    if how == "its sessions are gone":
        for console in hold._consoles.values():
            console.close()
    began = time.monotonic()
    # A machine that stood still for longer than the budget finds nobody paused any more.
    assert world.paused() == [True, True] or time.monotonic() - began > BUDGET_SECONDS
    while any(world.paused()):
        assert time.monotonic() - began < 30 * BUDGET_SECONDS
        time.sleep(0.05)


def test_what_systemd_runs_after_a_guard_ends_a_pause_at_once(world):
    pooler = world.poolers["lb1"]
    pooler.ask("PAUSE app")
    once = pooler.run_guard("--once")
    once.join(10)
    assert once.exitcode == 0 and not pooler.paused()


def test_every_reason_is_told_before_anybody_is_held(postgresql_server, world, monkeypatch):
    bare, session_mode = Pooler("lb3", postgresql_server.port), Pooler("lb4", postgresql_server.port, mode="session")
    try:
        session_mode.ask("PAUSE app")
        monkeypatch.setattr(world, "poolers", {"lb3": bare, "lb4": session_mode})
        world.route.now = None
        with pytest.raises(GateError) as caught:
            world.hold().check()
        told = caught.value.message
        for words in (
            "Pooler lb3 has no guard",
            "Pooler lb4 runs it in session mode",
            "Pooler lb4 is paused already",
            "Pooler lb4 has no guard",
            "where a standby answers",
        ):
            assert words in told, told
        with pytest.raises(GateError, match="Pooler lb3 knows no database other"):
            world.hold(database="other").check()
        session_mode.ask("RESUME app")
    finally:
        monkeypatch.undo()
        for pooler in (bare, session_mode):
            pooler.stop()


def test_a_primary_says_its_timeline_and_who_does_not_answer_is_not_it(postgresql_server):
    service_file = postgresql_server.service_file
    there, nowhere = (hold_module.Route(service_file, "target", "127.0.0.1", port) for port in (postgresql_server.port, 1))
    assert there.read_timeline() == 1
    assert (there.has_passed(0), there.has_passed(1), nowhere.has_passed(0)) == (True, False, False)
    with pytest.raises(ClientError, match="Cannot connect to the target"):
        nowhere.read_timeline()
