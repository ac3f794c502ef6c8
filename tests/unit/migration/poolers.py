# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of real PgBouncers, each with the dead man that role dead_man ships, a network between them that can be cut, and clients that keep count."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import pwd
import selectors
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import psycopg2
import pytest
import yaml
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import decision
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client

from tests.shipped import ROOT, ship
from tests.unit.conftest import _free_port

from .migrations import APPLICATION
from .test_way_back import There

PGBOUNCER = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
PLAIN = "sslmode=disable\ngssencmode=disable\n"
BUDGET_SECONDS = 2.0
LEDGER = "CREATE TABLE public.ledger (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text NOT NULL, number int NOT NULL)"
WRITE = "INSERT INTO public.ledger (who, number) VALUES (%s, %s) RETURNING current_database()"


class Wire:
    """A listener whose connections lead to another port, for each host its own cable: a cut one loses nothing and passes nothing on, as a network does
    whose ends go on sending. A host is known by the user with which its connections log in."""

    def __init__(self, port):
        self.port_behind = port
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.passes = {}
        threading.Thread(target=self._accept, daemon=True).start()

    def cable(self, host):
        if host not in self.passes:
            self.passes[host] = threading.Event()
            self.passes[host].set()
        return self.passes[host]

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _address = self.listener.accept()
                threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near):
        with contextlib.suppress(OSError, struct.error):
            (length,) = struct.unpack("!I", near.recv(4, socket.MSG_WAITALL))
            body = near.recv(length - 4, socket.MSG_WAITALL)
            words = body[4:].split(b"\0")
            passes = self.cable(words[words.index(b"user") + 1].decode() if b"user" in words else "")
            passes.wait()
            try:
                far = socket.create_connection(("127.0.0.1", self.port_behind))
            except OSError:
                near.close()
                return
            far.sendall(struct.pack("!I", length) + body)
            threading.Thread(target=self._pump, args=(far, near, passes), daemon=True).start()
            self._pump(near, far, passes)

    @staticmethod
    def _pump(one, other, passes):
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                passes.wait()
                other.sendall(data)
        passes.wait()
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def stop(self):
        self.listener.close()
        for passes in self.passes.values():
            passes.set()


class Host:
    """One pooler host: PgBouncer, its routes, its dead man, and its cables to both sides and to the mover."""

    def __init__(self, name, sides, names):
        self.name, self.sides = name, sides
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"pg_ha_{name}_", dir="/var/tmp"))
        self.folder.chmod(0o755)
        self.port = _free_port()
        self.console_wire = Wire(self.port)
        for side, wire in sides.items():
            route = f"[databases]\napp = host=127.0.0.1 port={wire.port} dbname={names[side]} user={name}\n"
            (self.folder / f"route.{side}.ini").write_text(route)
        (self.folder / "route.ini").symlink_to(self.folder / "route.source.ini")
        (self.folder / "pgbouncer.ini").write_text(
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\nauth_type = any\nadmin_users = operator\n"
            f"pool_mode = transaction\nserver_tls_sslmode = disable\nlogfile = {self.folder}/log\n{timing()}%include {self.folder}/route.ini\n"
        )
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        self.pooler = self.start_pooler()
        self.dead_man = self.start_dead_man(names)
        self.console = self._until_it_answers()

    def start_pooler(self):
        assert PGBOUNCER is not None
        user = {"user": "postgres"} if os.geteuid() == 0 else {}
        return subprocess.Popen([PGBOUNCER, "-q", str(self.folder / "pgbouncer.ini")], cwd=self.folder, stderr=subprocess.DEVNULL, **user)

    def start_dead_man(self, names):
        services = "".join(
            f"[{side}]\nhost=127.0.0.1\nport={wire.port}\ndbname={names[side]}\nuser={self.name}\n{PLAIN}"
            + ("target_session_attrs=read-write\n" if side == "target" else "")
            for side, wire in self.sides.items()
        )
        services += f"[pooler]\nhost=127.0.0.1\nport={self.port}\ndbname=pgbouncer\nuser=operator\n{PLAIN}"
        (self.folder / "pg_service.conf").write_text(services)
        config = {
            "name": self.name,
            "database": "app",
            "service_file": str(self.folder / "pg_service.conf"),
            "route_link": str(self.folder / "route.ini"),
            "routes": {side: str(self.folder / f"route.{side}.ini") for side in self.sides},
            "endpoints": {side: ["127.0.0.1", wire.port] for side, wire in self.sides.items()},
        }
        (self.folder / "config.json").write_text(json.dumps(config))
        argv = [sys.executable, "-m", "freight_pg_ha._migration.dead_man", "--config", str(self.folder / "config.json")]
        with open(self.folder / "dead_man.log", "w", encoding="utf-8") as log:
            return subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ship(self.folder / "lib"))}, stderr=log)

    def _until_it_answers(self):
        bound = time.monotonic() + 10
        while True:
            try:
                console = psycopg2.connect(host="127.0.0.1", port=self.port, dbname="pgbouncer", user="operator", connect_timeout=3)
                console.autocommit = True
                return console
            except psycopg2.Error:
                assert time.monotonic() < bound, (self.folder / "log").read_text()
                time.sleep(0.05)

    def shown(self):
        """``(side, paused)``, by the pooler's own word."""
        (row,) = [row for row in client.query(self.console, "SHOW DATABASES") if row["name"] == "app"]
        (side,) = [side for side, wire in self.sides.items() if wire.port == int(row["port"])]
        return side, bool(row["paused"])

    def cut(self, *ends):
        """Cut the cables to ``source``, ``target`` or ``mover``."""
        for end in ends:
            self._cable(end).clear()

    def mend(self):
        self.console_wire.port_behind = self.port
        for end in ("source", "target", "mover"):
            self._cable(end).set()

    def _cable(self, end):
        return self.console_wire.cable("operator") if end == "mover" else self.sides[end].cable(self.name)

    def said(self):
        return (self.folder / "dead_man.log").read_text()

    def stop(self):
        self.mend()
        self.console.close()
        for process in (self.dead_man, self.pooler):
            process.kill()
            process.wait()
        self.console_wire.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def timing():
    """How long PgBouncer waits, as role pgbouncer says."""
    defaults = yaml.safe_load((ROOT / "roles" / "pgbouncer" / "defaults" / "main.yml").read_text(encoding="utf-8"))
    names = ("server_connect_timeout", "server_login_retry", "query_wait_timeout", "client_login_timeout", "server_lifetime", "server_idle_timeout")
    return "".join(f"{name} = {defaults[f'pgbouncer_{name}_seconds']}\n" for name in names)


class Client:
    """Writes rows with numbers and knows which were acknowledged, when, and by which side. After an error it connects again; a number is used once."""

    def __init__(self, name, sides, pause_seconds=0.005, **where):
        self.name, self.sides, self.where, self.pause_seconds = name, sides, where, pause_seconds
        # (number, side, begun, acknowledged)
        self.written, self.errors = [], []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        number, session = 0, None
        while not self.ended.is_set():
            number += 1
            begun = time.monotonic()
            try:
                if session is None:
                    session = psycopg2.connect(host="127.0.0.1", connect_timeout=3, sslmode="disable", gssencmode="disable", **self.where)
                    session.autocommit = True
                with session.cursor() as cursor:
                    cursor.execute(WRITE, (self.name, number))
                    side = self.sides[cursor.fetchone()[0]]
                self.written.append((number, side, begun, time.monotonic()))
            except psycopg2.Error as error:
                self.errors.append((begun, " ".join(str(error).split())))
                if session is not None and error.pgcode is None:
                    session.close()
                    session = None
            time.sleep(self.pause_seconds)

    def last(self, side, since):
        """When a side acknowledged the first write after a moment; None: never."""
        return next((acknowledged for _number, found, begun, acknowledged in list(self.written) if found == side and acknowledged > since), None)


class Poolers(There):
    """A migration whose clients come through two poolers."""

    NAMES = ("lb1", "lb2")
    application = f"{APPLICATION}; {LEDGER}"

    def make_poolers(self, monkeypatch):
        for name in self.NAMES:
            # Superusers, whom only the guards stop.
            client.query(self.here, f"CREATE ROLE {name} SUPERUSER LOGIN")
        self.wires = {side: Wire(self.server.port) for side in ("source", "target")}
        self.hosts = {name: Host(name, self.wires, self.names) for name in self.NAMES}
        with open(self.service_file, "a", encoding="utf-8") as file:
            for name, host in self.hosts.items():
                file.write(f"[pooler_{name}]\nhost=127.0.0.1\nport={host.console_wire.port}\ndbname=pgbouncer\nuser=operator\n{PLAIN}")
        self.clients = []

    def serving(self):
        return decision.plan_serving(decision.read_history(self.here, "source"), decision.read_history(self.ahead, "target"))

    def start_clients(self):
        """Two clients of each pooler, and a prober that writes past them on each side."""
        sides = {name: side for side, name in self.names.items()}
        behind = [(f"{name}/{number}", {"port": host.port, "dbname": "app", "user": "app"}) for name, host in self.hosts.items() for number in (1, 2)]
        direct = [(f"past/{side}", {"port": self.server.port, "dbname": self.names[side], "user": "postgres"}) for side in self.names]
        stamp = time.monotonic_ns()
        self.clients = [Client(f"{name}/{stamp}", sides, **where) for name, where in (*behind, *direct)]

    def of(self, host):
        return [found for found in self.clients if found.name.startswith(host)]

    def stop_clients(self):
        for found in self.clients:
            found.ended.set()
        for found in self.clients:
            found.thread.join(10)
            assert not found.thread.is_alive(), f"{found.name} hangs"

    def params(self, serves, parity, **changes):
        endpoints = {f"{side}_endpoint": {"host": "127.0.0.1", "port": wire.port} for side, wire in self.wires.items()}
        return {
            "service_file": self.service_file, "serves": serves, "database": "app", "run": f"run-{time.monotonic_ns()}", "poolers": list(self.NAMES),
            "needs_sync_standby": False, "budget_seconds": BUDGET_SECONDS, "pause_seconds": 0.5, "parity": parity, "way_back": self.way_back(), **endpoints,
            "moment": None, **changes,
        }  # fmt: skip

    def start_mover(self, serves, **changes):
        # What was decided already is finished without a comparison.
        parity = None if self.serving() == serves else self.compare()
        return Mover(self.params(serves, parity, **changes))

    def wait_until(self, host, side, seconds):
        """Until a pooler shows a side, unpaused; returns when."""
        bound = time.monotonic() + seconds
        while (shown := self.hosts[host].shown()) != (side, False):
            assert time.monotonic() < bound, f"{host} shows {shown}, not {side} unpaused\n{self.hosts[host].said()}"
            time.sleep(0.01)
        return time.monotonic()

    def wait_for_writes(self, host, side, since, seconds):
        """Until every client of a pooler has had a write acknowledged by a side after a moment; returns the longest wait in seconds."""
        bound = since + seconds
        while not all(found.last(side, since) for found in self.of(host)):
            told = [(found.written[-1:], found.errors[-1:]) for found in self.of(host)]
            assert time.monotonic() < bound, f"clients of {host} do not write on the {side} within {seconds} s: {told}\n{self.hosts[host].said()}"
            time.sleep(0.01)
        return max(found.last(side, since) for found in self.of(host)) - since

    def judge(self, left, opened):
        """Stop the clients: nothing acknowledged is lost or doubled, and no side took a write after the other one had."""
        self.stop_clients()
        serving = self.side(self.serving())
        found = client.query(serving, "SELECT who, number, count(*) AS n FROM public.ledger GROUP BY 1, 2")
        counts = {(row["who"], row["number"]): row["n"] for row in found}
        lost = [(one.name, number) for one in self.clients for number, *_rest in one.written if not counts.get((one.name, number))]
        doubled = [key for key, count in counts.items() if count > 1]
        assert not lost and not doubled and all(one.written for one in self.clients if one.name.startswith("lb"))
        accepted = [(side, begun, acknowledged) for one in self.clients for _number, side, begun, acknowledged in one.written]
        first = min((acknowledged for side, _begun, acknowledged in accepted if side == opened), default=float("inf"))
        late = [begun for side, begun, _acknowledged in accepted if side == left and begun > first]
        assert not late, f"the {left} took a write after the {opened} had taken one"
        return len(accepted)

    def end_poolers(self):
        for host in self.hosts.values():
            host.stop()
        for wire in self.wires.values():
            wire.stop()

    def end(self):
        self.end_poolers()
        self.end_poolers = lambda: None
        super().end()
        admin = client.connect(self.server.service_file, "source", application_name="test")
        for name in self.NAMES:
            client.query(admin, f"DROP ROLE {name}")
        admin.close()


class Mover:
    """Module cutover in a process of its own."""

    def __init__(self, params):
        paths = os.pathsep.join(path for path in sys.path if path)
        self.process = subprocess.Popen(
            [sys.executable, str(pathlib.Path(__file__).with_name("mover.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths},
        )  # fmt: skip
        self._say(json.dumps(params))

    def _say(self, line=""):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def wait_for(self, moment, seconds=20):
        line = self._line(seconds)
        assert line == f"at {moment}", line

    def go_on(self):
        self._say()

    def _line(self, seconds):
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            assert ready.select(seconds), "the mover says nothing"
        return self.process.stdout.readline().strip()

    def end(self, seconds=30):
        """What the module returned, or its error."""
        found = json.loads(self._line(seconds))
        self.process.wait(10)
        return found

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def poolers(postgresql_server):
    """Clients that come through two poolers; each test begins where the one before has ended."""
    if PGBOUNCER is None:
        pytest.skip("no pgbouncer is installed")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pg_ha_poolers_", dir="/var/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        made = Poolers(postgresql_server, folder, patch, "logical")
        yield made
        made.end()
    shutil.rmtree(folder, ignore_errors=True)
