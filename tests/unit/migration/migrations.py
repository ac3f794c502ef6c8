# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A migration between two databases of a real server: real copies, a real link, a real dead man and a pooler that is made of two values."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import bring, dead_man, gates, schema
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import cutover as migration_cutover
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.modules import cutover, replication_copy

from .fakes import ENDPOINTS, Console, FakePooler, PoolerState

APPLICATION = """
CREATE TABLE public."It's %s" (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text UNIQUE);
INSERT INTO public."It's %s" (note) SELECT 'note ' || g FROM generate_series(1, 300) g;
CREATE TABLE public.child (id int PRIMARY KEY, parent bigint REFERENCES public."It's %s");
INSERT INTO public.child SELECT g, g FROM generate_series(1, 100) g;
CREATE TABLE public.parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE public.part PARTITION OF public.parted FOR VALUES FROM (0) TO (10);
INSERT INTO public.parted VALUES (1), (2);
CREATE MATERIALIZED VIEW public.total AS SELECT count(*) AS n FROM public.child;
SELECT lo_from_bytea(0, 'large');
INSERT INTO ha_migration.probe (run, client, seq) VALUES ('before', 1, 1)
"""


def run_command(argv, environment):
    done = subprocess.run(argv, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


class Ended(Exception):
    """The test is over: its dead man, which goes on for ever, ends at the next thing that it has to say."""


class Migration:
    """Two databases after phase replicate, a pooler on the source and its dead man."""

    application = APPLICATION

    def __init__(self, server, folder, monkeypatch, method):
        self.server = server
        self.method = method
        self.folder = folder
        self.names = {side: f"{method}_{side}_{os.getpid()}_{time.monotonic_ns()}" for side in ("source", "target")}
        for name in self.names.values():
            server.create_database(name)
        self.service_file = server.services(folder / "pg_service.conf", **self.names)
        self.here, self.ahead = self.connect("source"), self.connect("target")
        for side in (self.here, self.ahead):
            schema.ensure_schema(side)
        client.query(self.here, self.application)
        params = {name: option.get("default") for name, option in replication_copy.argument_spec().items()}
        params.update(service_file=self.service_file, method=method, parts="schema" if method == "dump" else "all", jobs=2, work_directory=str(folder))
        params["link"] = None if method == "dump" else {**self.reach(), "passfile": None, "password_file": None, "ca_file": None}
        replication_copy.run(params, False, run_command)
        self.make_poolers(monkeypatch)
        # The server of the tests runs without fsync.
        for brings in (bring.ByDump, bring.ByLink):
            monkeypatch.setattr(brings, "gates", tuple(gate for gate in brings.gates if gate is not gates.durability))

    def make_poolers(self, monkeypatch):
        """The pooler and its dead man."""
        self.pooler = PoolerState()
        self.dead_man = dead_man.DeadMan(dead_man.Config("lb1", "app", self.service_file, str(self.folder / "route.ini"), {}, {}), self._heard)
        self.dead_man.pooler = FakePooler(self.pooler)
        monkeypatch.setattr(migration_cutover.Cutover, "console", lambda _self, _name: Console(self.pooler))
        self.ended = False
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()
        # A session that it opens beside one of the test's would find the test's service file.
        deadline = time.monotonic() + 10
        while not all(side._connection for side in self.dead_man.sides.values()):
            assert time.monotonic() < deadline, "the dead man is not connected"
            time.sleep(0.01)

    def _keep(self):
        with contextlib.suppress(Ended):
            self.dead_man.run()

    def _heard(self, message):
        if self.ended:
            raise Ended(message)

    def connect(self, side):
        return client.connect(self.service_file, side, application_name="test", settings={"synchronous_commit": "on"})

    def reach(self):
        """How one side reaches the other: they are databases of one server."""
        return {"host": "127.0.0.1", "port": self.server.port, "user": "postgres"}

    def cut_over(self, check_mode=False, **changes):
        params = {name: option.get("default") for name, option in cutover.argument_spec().items()}
        endpoints = {f"{side}_endpoint": {"host": host, "port": port} for side, (host, port) in ENDPOINTS.items()}
        params.update(service_file=self.service_file, serves="target", database="app", run="test", poolers=["lb1"], method=self.method, jobs=2)
        params.update(window_seconds=60.0, needs_sync_standby=False, work_directory=str(self.folder), **endpoints)
        return cutover.run({**params, **changes}, check_mode, run_command)

    def wait_until_served_by(self, side, seconds):
        deadline = time.monotonic() + seconds
        while self.pooler.paused or self.pooler.side != side:
            assert time.monotonic() < deadline, f"not served by the {side}: {vars(self.pooler)}"
            time.sleep(0.01)

    def rows(self, side):
        return client.query_value(side, 'SELECT (SELECT count(*) FROM public."It\'s %s") + (SELECT count(*) FROM public.parted)')

    def write(self, side):
        client.query(side, "SET statement_timeout = 5000")
        client.query(side, 'INSERT INTO public."It\'s %s" (note) VALUES (%s)'.replace("It's %s", "It's %%s"), (str(time.monotonic_ns()),))

    def refused(self, side):
        with pytest.raises(ClientError) as caught:
            self.write(side)
        return caught.value.details["sqlstate"] == "25006"

    def end_poolers(self):
        """The dead man would go on for ever, and its next connection would turn PGSERVICEFILE of later tests into this one's."""
        self._keeper.join(10)
        assert not self._keeper.is_alive()

    def end(self):
        self.ended = True
        for connection in (self.here, self.ahead):
            connection.close()
        admin = client.connect(self.service_file, "source", application_name="test", dbname="postgres")
        for name in self.names.values():
            client.query(admin, f"DROP DATABASE {name} WITH (FORCE)")
        admin.close()
        self.end_poolers()
