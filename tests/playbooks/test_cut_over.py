# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role cutover between two servers with a real PgBouncer and its dead man: what it refuses, of two controllers one, and what a second run does."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import typing as t

import pytest

from tests.evidence import problems
from tests.playbooks.conftest import POOLER, Play, World, free_port
from tests.shipped import ship

PGBOUNCER = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
# The playbooks without the hosts that this machine shall not become.
PLAY = """
- hosts: pg_ha_mover
  gather_facts: false
  any_errors_fatal: true
  roles: {roles}
"""
MOVER = {"role": "freight.pg_ha.mover", "mover_poolers": [POOLER]}
PLAYS = {
    "replicate_and_verify": [MOVER, {"role": "freight.pg_ha.replication"}, {"role": "freight.pg_ha.verification"}],
    "cut_over": [MOVER, {"role": "freight.pg_ha.cutover", "cutover_poolers": [POOLER]}],
    "roll_back": [
        MOVER,
        {"role": "freight.pg_ha.verification", "verification_serves": "target", "verification_method": "logical"},
        {"role": "freight.pg_ha.cutover", "cutover_serves": "source", "cutover_method": "logical", "cutover_poolers": [POOLER]},
    ],
}
APPROVED = ("-e", "pg_ha_cutover_approved=true")


class Pair(World):
    """A source, a target beside it, a pooler in front of them, and the dead man beside that."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self.ahead, self.pooler_port = free_port(), free_port()
        self.processes: list[subprocess.Popen[t.Any]] = []

    def variables(self) -> dict[str, t.Any]:
        """With a pooler that its operator gets into, and without a second member of the target."""
        return {
            **super().variables(),
            "fake_target_link": {"passfile": str(self.folder / "link_pgpass"), "ca_file": str(self.folder / "server.crt")},
            "fake_target_port": self.ahead,
            "mover_pooler_port": self.pooler_port,
            "pg_ha_pooler_operator_password": "right",
            "cutover_needs_sync_standby": False,
            "cutover_probe_lead_seconds": 1,
        }

    def in_passfile(self, name: str) -> str:
        """A password of the inventory as a passfile spells it."""
        return re.sub(r"([\\:])", r"\\\1", self.variables()[f"pg_ha_{name}_password"])

    def start(self) -> None:
        """All of them; nothing is replicated yet."""
        super().start()
        (self.folder / "pki").mkdir()
        for copy in ("target.crt", "pki/ca.crt"):
            shutil.copy(self.folder / "server.crt", self.folder / copy)
        self.start_server("ahead", self.ahead)
        self.as_postgres("sh", "-c", "umask 077; cat > link_pgpass", input=f"localhost:*:*:ha_migration_link:{self.in_passfile('link')}\n")
        self.write_inventory()
        for name, roles in PLAYS.items():
            (self.folder / f"{name}.yml").write_text(PLAY.format(roles=json.dumps(roles)))
        self.start_pooler()
        self.start_dead_man()

    def start_pooler(self) -> None:
        """PgBouncer with the routes to both sides."""
        for side, port in (("source", self.port), ("target", self.ahead)):
            (self.folder / f"route.{side}.ini").write_text(f"[databases]\nfreight = host=localhost port={port} dbname=freight\n")
        (self.folder / "route.ini").symlink_to(self.folder / "route.source.ini")
        secrets = {"operator": "pooler_operator", "ha_migration_probe": "probe"}
        quoted = {role: self.variables()[f"pg_ha_{name}_password"].replace('"', '""') for role, name in secrets.items()}
        (self.folder / "userlist.txt").write_text("".join(f'"{role}" "{password}"\n' for role, password in quoted.items()))
        (self.folder / "pgbouncer.ini").write_text(
            f"[pgbouncer]\nlisten_addr = {POOLER}\nlisten_port = {self.pooler_port}\npool_mode = transaction\nauth_type = scram-sha-256\n"
            f"auth_file = {self.folder}/userlist.txt\nadmin_users = operator\nunix_socket_dir =\nlogfile = {self.folder}/pgbouncer.log\n"
            f"client_tls_sslmode = require\nclient_tls_cert_file = {self.folder}/server.crt\nclient_tls_key_file = {self.folder}/server.key\n"
            f"server_tls_sslmode = require\nserver_login_retry = 0.2\n%include {self.folder}/route.ini\n"
        )
        assert PGBOUNCER is not None
        argv = [PGBOUNCER, "-q", str(self.folder / "pgbouncer.ini")]
        self.processes.append(subprocess.Popen(argv, user="postgres", cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def start_dead_man(self) -> None:
        """Its program as the role ships it. Until the cutover has made its role it cannot log in, and tries again."""
        passfile = self.folder / "dead_man_pgpass"
        passfile.write_text(f"*:*:*:ha_migration_dead_man:{self.in_passfile('dead_man')}\n{POOLER}:*:*:operator:{self.in_passfile('pooler_operator')}\n")
        passfile.chmod(0o600)
        services = {
            "source": ("localhost", self.port, "freight", "ha_migration_dead_man"),
            "target": ("localhost", self.ahead, "freight", "ha_migration_dead_man"),
        }
        services["pooler"] = (POOLER, self.pooler_port, "pgbouncer", "operator")
        text = "".join(
            f"[{name}]\nhost={host}\nport={port}\ndbname={dbname}\nuser={user}\npassfile={passfile}\nsslmode=require\n"
            for name, (host, port, dbname, user) in services.items()
        )
        (self.folder / "dead_man.conf").write_text(text)
        routes = {side: str(self.folder / f"route.{side}.ini") for side in ("source", "target")}
        config = {"name": POOLER, "database": "freight", "service_file": str(self.folder / "dead_man.conf"), "route_link": str(self.folder / "route.ini")}
        config.update(routes=routes, endpoints={"source": ["localhost", self.port], "target": ["localhost", self.ahead]})
        (self.folder / "dead_man.json").write_text(json.dumps(config))
        argv = [sys.executable, "-m", "freight_pg_ha._migration.dead_man", "--config", str(self.folder / "dead_man.json")]
        with open(self.folder / "dead_man.log", "w", encoding="utf-8") as log:
            self.processes.append(subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ship(self.folder / "lib"))}, stderr=log))

    def run(self, name: str, *arguments: str) -> Play:
        """One of the plays."""
        return self.play(str(self.folder / f"{name}.yml"), *arguments, result_format="json")

    @contextlib.contextmanager
    def session(self, statement: str, pooled: bool = False) -> t.Iterator[None]:
        """A session on the source, or through the pooler, that has run a statement, and holds what it holds until it ends."""
        host, port, user = (POOLER, self.pooler_port, "ha_migration_probe") if pooled else (self.folder, self.port, "postgres")
        argv = [str(part) for part in (self.bin / "psql", "-X", "-At", "-d", "freight", "-h", host, "-p", port, "-U", user)]
        environment = {**os.environ, "PGPASSWORD": "x", "PGSSLMODE": "require", "HOME": str(self.folder)}
        process = subprocess.Popen(argv, user="postgres", cwd=self.folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(f"{statement};\n\\echo held\n")
            process.stdin.flush()
            assert any(line.strip() == "held" for line in process.stdout)
            yield
        finally:
            process.kill()
            process.wait()

    def journal(self) -> dict[str, t.Any]:
        """State and run of phase cut over; {} where there is no row."""
        found = self.sql(
            "SELECT json_build_object('state', state, 'run', run, 'evidence', evidence) FROM ha_migration.phase WHERE phase = 'cut_over'", port=self.ahead
        )
        return t.cast("dict[str, t.Any]", json.loads(found or "{}"))

    def held(self) -> list[str]:
        """What both sides hold of ours: relations, functions, roles."""
        statement = (
            "SELECT relname FROM pg_class WHERE relnamespace::regnamespace::text = 'ha_migration' UNION ALL "
            "SELECT proname FROM pg_proc WHERE pronamespace::regnamespace::text = 'ha_migration' UNION ALL "
            "SELECT rolname FROM pg_roles WHERE rolname LIKE 'ha\\_migration%' ORDER BY 1"
        )
        return [self.sql(statement, database, port) for database, port in (("freight", self.port), ("postgres", self.ahead))]

    def stop(self) -> None:
        """Leave nothing behind."""
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        super().stop()


@pytest.fixture(scope="module")
def world() -> t.Iterator[Pair]:
    """The world of this file; each test goes on where the one before has ended."""
    if PGBOUNCER is None:
        pytest.skip("no pgbouncer is installed")
    made = Pair(pathlib.Path(tempfile.mkdtemp(prefix="pg_ha_cut_over_", dir="/var/tmp")))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_1_what_was_never_replicated_is_refused_and_nothing_is_changed(world: Pair) -> None:
    before = world.held()
    done = world.run("cut_over", *APPROVED)
    assert done.code == 2 and done.failure["msg"].startswith(f"Migration {world.migration} was never replicated"), done.output
    done = world.run("cut_over", "--check")
    assert (done.code, done.changed) == (0, 0) and "was never replicated" in done.output, done.output
    assert world.held() == before


def test_2_without_consent_the_gates_are_told(world: Pair) -> None:
    done = world.run("replicate_and_verify")
    assert done.code == 0, done.output
    world.sql("CREATE ROLE late LOGIN PASSWORD 'late'")
    done = world.run("cut_over")
    assert done.code == 0 and "passwords: late: the target has no such role; run playbooks/replicate.yml." in done.output, done.output
    world.sql("DROP ROLE late")
    done = world.run("cut_over")
    assert done.code == 0 and "Every gate holds. Nothing was changed" in done.output, done.output
    assert world.journal() == {}


def test_3_who_comes_while_another_controller_is_at_it_is_refused_and_the_journal_names_the_other(world: Pair) -> None:
    row = "SELECT xmin, run, state FROM ha_migration.phase WHERE phase = 'cut_over'"
    world.sql(
        "INSERT INTO ha_migration.phase (migration, phase, state, inputs, run, started_at) "
        f"VALUES ('{world.migration}', 'cut_over', 'running', 'x', 'first', now())",
        port=world.ahead,
    )
    before = world.sql(row, port=world.ahead)
    # As module cutover of the other controller holds it.
    with world.session("SELECT pg_advisory_lock(4718001, 2)"):
        done = world.run("cut_over", *APPROVED)
    assert done.code == 2 and done.failure["msg"].startswith("Another cutover or roll back of this migration runs just now"), done.output
    # Not written in between either.
    assert world.sql(row, port=world.ahead) == before
    world.sql("DELETE FROM ha_migration.phase WHERE phase = 'cut_over'", port=world.ahead)


def test_4_what_is_undone_is_told_recorded_and_exported_and_clients_go_on(world: Pair) -> None:
    """A client's transaction does not end, so that the poolers cannot hold everybody."""
    with world.session("BEGIN; SELECT 1", pooled=True):
        done = world.run("cut_over", *APPROVED, "-e", "cutover_long_transaction_seconds=600")
    assert done.code == 2 and done.failure["msg"].startswith("The cutover was undone and clients go on at the source: "), done.output
    assert "holds a transaction open" in done.failure["msg"] and "run the same playbook again" in done.failure["msg"]
    row = world.journal()
    exported = json.loads((world.artifacts / "cutover.json").read_text())
    assert row["state"] == "refused" and row["evidence"]["reason"] == done.failure["msg"] and exported == row["evidence"] and problems(exported) == []
    assert os.readlink(world.folder / "route.ini").endswith("route.source.ini")
    world.sql("INSERT INTO t VALUES (4711)")
    decided = "SELECT state, (SELECT string_agg(serves, ' ') FROM ha_migration.decision) FROM ha_migration.epoch"
    assert world.sql(decided) == "closed|source\n"


def test_5_clients_move_and_the_journal_says_who_did_it(world: Pair) -> None:
    done = world.run("cut_over", *APPROVED)
    assert done.code == 0, done.failure.get("msg", done.output)
    row = world.journal()
    assert row["state"] == "done" and row["run"] == row["evidence"]["started_at"] and problems(row["evidence"]) == []
    assert row["evidence"]["way_back"]["follows"] and row["evidence"]["client"]["lost"] == 0, row["evidence"]
    assert os.readlink(world.folder / "route.ini").endswith("route.target.ini")


def test_6_a_finished_migration_is_left_as_it_is(world: Pair) -> None:
    before, row = world.held(), world.journal()
    done = world.run("cut_over", *APPROVED)
    assert (done.code, done.changed) == (0, 0), done.output
    assert world.held() == before and world.journal() == row
