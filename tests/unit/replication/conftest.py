# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two databases of a real server, whose one is the source of a copy and whose other is the target."""

from __future__ import annotations

import io
import json
import os
import subprocess
import time

import psycopg2
import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import schema
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import link_client, worker
from ansible_collections.freight.pg_ha.plugins.modules import migrated_roles, replication_copy, replication_copy_info, replication_link

from tests.evidence import made_by

APPLICATION = r"""
CREATE SCHEMA "We""ird %s; --";
CREATE TYPE "We""ird %s; --".mood AS ENUM ('glücklich', 'sad');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE "We""ird %s; --"."tä""b %s" (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "cöl %s" text, twice bigint GENERATED ALWAYS AS (length("cöl %s") * 2) STORED,
    mood "We""ird %s; --".mood, moods "We""ird %s; --".mood[], n positive, gone int);
ALTER TABLE "We""ird %s; --"."tä""b %s" DROP COLUMN gone;
INSERT INTO "We""ird %s; --"."tä""b %s" ("cöl %s", mood, moods, n)
    SELECT E'a\tb\\N\n' || g, 'glücklich', '{sad,glücklich}', g FROM generate_series(1, 500) g;
CREATE TABLE big (id int PRIMARY KEY, body text);
INSERT INTO big SELECT g, repeat(md5(g::text), 20) FROM generate_series(1, 20000) g;
CREATE INDEX big_body ON big (md5(body));
CREATE TABLE parent (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE parent_1 PARTITION OF parent FOR VALUES FROM ('2027-01-01') TO ('2028-01-01');
CREATE TABLE parent_2 PARTITION OF parent DEFAULT;
INSERT INTO parent SELECT g, date '2027-06-01' + g FROM generate_series(1, 400) g;
CREATE TABLE child (id int PRIMARY KEY, big int REFERENCES big DEFERRABLE);
INSERT INTO child SELECT g, g FROM generate_series(1, 100) g;
CREATE TABLE heap (a int, b text); ALTER TABLE heap REPLICA IDENTITY FULL; INSERT INTO heap VALUES (1, NULL), (1, NULL);
CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES; ALTER TABLE nothing REPLICA IDENTITY FULL;
CREATE UNLOGGED TABLE fast (id int PRIMARY KEY); INSERT INTO fast VALUES (1);
CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n FROM big;
CREATE SEQUENCE down AS smallint INCREMENT -1 MINVALUE -100 MAXVALUE -1 CYCLE; SELECT nextval('down'), nextval('down');
CREATE SEQUENCE untouched START 7; CREATE SEQUENCE told; SELECT setval('told', 41, false);
CREATE FUNCTION loud() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''fired''; END';
CREATE TRIGGER loud BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION loud();
SELECT lo_from_bytea(0, convert_to('large', 'UTF8')) FROM generate_series(1, 3);
"""
CONTENT = "SELECT md5(coalesce(string_agg(x::text, E'\\n' ORDER BY x::text), '')) AS content, count(*) AS rows FROM ONLY {} x"
# Tables that a test stops in their middle, and how long it waits for anything.
WEIRD = '"We""ird %s; --"."tä""b %s"'
UNFINISHED = ('"public"."child"', '"public"."parent_2"', '"public"."heap"', WEIRD)
MOST_SECONDS = 60
TABLES = ['"We""ird %s; --"."tä""b %s"', "big", "parent_1", "parent_2", "child", "heap", "total"]


class Migration:
    """Two databases, and the modules' arguments for them."""

    def __init__(self, server, folder, number):
        self.server = server
        self.names = {"source": f"copy_{number}_source", "target": f"copy_{number}_target"}
        for name in self.names.values():
            server.create_database(name)
        self.service_file = server.services(folder / "pg_service.conf", **self.names)
        self.folder = folder / "work"
        self.folder.mkdir()
        self.log = folder / "commands"
        for side in ("source", "target"):
            schema.ensure_schema(self.open(side))

    def open(self, side):
        return client.connect(self.service_file, side, application_name="unit test")

    def value(self, side, statement):
        connection = self.open(side)
        try:
            return client.query_value(connection, statement)
        finally:
            connection.close()

    def do(self, side, statement):
        connection = self.open(side)
        try:
            return client.query(connection, statement)
        finally:
            connection.close()

    def content(self, side):
        connection = self.open(side)
        try:
            client.query(connection, "SET search_path = public")
            return [tuple(client.query(connection, CONTENT.format(name))[0].values()) for name in TABLES]
        finally:
            connection.close()

    def recorded(self, copied, following):
        """The evidence as the role puts it together; without what the link has returned that of a rehearsal."""
        variables = {
            "replication_method": "dump" if following is None else "logical",
            "__replication_begun": {"phase": {"started_at": "2027-01-01T00:00:00.000Z"}},
            "__replication_finished_at": "2027-01-01T00:01:00Z",
            "__replication_copied": copied.result,
            "__replication_following": following,
            "__replication_roles": self.roles().result,
        }
        return made_by("replication", "__replication_evidence", variables)

    def difference(self):
        found = {}
        for name in TABLES:
            rows = []
            for side in ("source", "target"):
                connection = self.open(side)
                client.query(connection, "SET search_path = public")
                rows.append({str(row["x"]) for row in client.query(connection, f"SELECT x::text AS x FROM ONLY {name} x")})
                connection.close()
            found[name] = (sorted(rows[0] - rows[1])[:5], sorted(rows[1] - rows[0])[:5])
        return found

    def run_command(self, argv, environment):
        with self.log.open("a") as log:  # workers are processes of their own
            log.write(json.dumps(argv) + "\n")
        done = subprocess.run(argv, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    @property
    def commands(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def reach(self, **changed):
        """Option ``link`` of the copy: how the target reaches the source."""
        return {"host": "127.0.0.1", "port": self.server.port, "user": "postgres", "passfile": None, "password_file": None, "ca_file": None, **changed}

    def copy(self, check_mode=False, **options):
        spec = replication_copy.argument_spec()
        params = {name: option.get("default") for name, option in spec.items()}
        params.update(service_file=self.service_file, link=self.reach(), jobs=2, programs_directory=str(self.server.bin), work_directory=str(self.folder))
        params.update(options)
        return replication_copy.run(params, check_mode, self.run_command)

    def info(self, **options):
        spec = replication_copy_info.argument_spec()
        params = {name: option.get("default") for name, option in spec.items()}
        return replication_copy_info.run({**params, "service_file": self.service_file, **options}).result

    def link(self, state, check_mode=False, timeout_seconds=20, **options):
        spec = replication_link.argument_spec()
        params = {name: option.get("default") for name, option in spec.items()}
        return replication_link.run({**params, "service_file": self.service_file, "state": state, "timeout_seconds": timeout_seconds, **options}, check_mode)

    def roles(self, check_mode=False):
        params = {name: option.get("default") for name, option in migrated_roles.argument_spec().items()}
        return migrated_roles.run({**params, "service_file": self.service_file}, check_mode)

    def end(self):
        source, target = self.open("source"), self.open("target")
        link_client.drop_link(source, target, schema.FORWARD_LINK)
        source.close()
        target.close()
        connection = client.connect(self.service_file, "source", application_name="unit test", dbname="postgres")
        for name in self.names.values():
            client.query(connection, f"DROP DATABASE {name} WITH (FORCE)")
        connection.close()


@pytest.fixture
def empty(postgresql_server, tmp_path, request):
    migration = Migration(postgresql_server, tmp_path, abs(hash(request.node.nodeid)) % 10**6)
    yield migration
    migration.end()


@pytest.fixture
def migration(empty, monkeypatch):
    connection = psycopg2.connect(host="127.0.0.1", port=empty.server.port, user="postgres", dbname=empty.names["source"])
    connection.autocommit = True
    connection.cursor().execute("SET session_replication_role = replica")
    connection.cursor().execute(APPLICATION)
    connection.close()
    # Small enough for the ways of large tables: a process of its own, and indexes beside the rows.
    monkeypatch.setattr("ansible_collections.freight.pg_ha.plugins.module_utils._replication.worker.SMALL_BYTES", 100_000)
    return empty


@pytest.fixture
def half(migration, monkeypatch):
    """Tables stop in their middle until the process is killed, those of the list."""
    stuck = list(UNFINISHED)
    real = worker._copy_out

    def copy_out(connection, statement, file):
        if not any(statement.startswith(f"COPY {table} ") for table in stuck):
            return real(connection, statement, file)
        rows = io.BytesIO()
        real(connection, statement, rows)
        file.write(rows.getvalue()[: len(rows.getvalue()) // 2])
        deadline = time.monotonic() + MOST_SECONDS
        while not (migration.folder.parent / "go").exists() and time.monotonic() < deadline:
            client.query(connection, "SELECT pg_sleep(0.1)")  # notices when it is lost
        return -1

    monkeypatch.setattr(worker, "_copy_out", copy_out)
    return stuck
