# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every bad input gets one sentence before anything changes, seen as an operator sees it: through ansible-playbook.

A scenario is one run with several things wrong at once, because all problems of a phase are reported together. docs/problems.md is made of
what the runs have said (make problems) and compared with it in every other run.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import typing as t
from dataclasses import dataclass

import pytest
import yaml

from .conftest import POOLER, ROOT, SECRETS, Play, World, free_port

PAGE = ROOT / "docs" / "problems.md"
PGBOUNCER = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")


@dataclass(frozen=True)
class Case:
    """A bad input.

    :param kind: what is wrong, as in the table
    :param scenario: method of Scenarios that runs it
    :param says: the sentence's beginning, after what is volatile was replaced
    """

    kind: str
    scenario: str
    says: str


CASES = (
    Case("Unknown inventory key", "inventory", "pg_ha_comment is no key of this collection"),
    Case("Misspelt inventory key", "inventory", "pg_ha_sorce_port is no key of this collection: write pg_ha_source_port"),
    Case("Key that is not given", "inventory", "pg_ha_target_admin_user is not given"),
    Case("Secret that is not given", "inventory", "pg_ha_pooler_auth_password is not given"),
    Case("Secret that is empty", "inventory", "pg_ha_link_password is empty"),
    Case("Secret with a line break", "inventory", "pg_ha_probe_password holds a line break"),
    Case("Name that PgBouncer cannot say", "inventory", "pg_ha_pooler_operator is"),
    Case("Database that PgBouncer cannot say", "inventory", "pg_ha_database is"),
    Case("Name with a line break", "inventory", "pg_ha_dead_man_user is"),
    Case("Value that cannot work", "inventory", "pg_ha_method is 'physical'"),
    Case("Template that fails", "inventory", "pg_ha_cluster has a template that fails"),
    Case("Network that lets everybody in", "inventory", "pg_ha_allowed_networks holds '0.0.0.0/0'"),
    Case("CA file that is not there", "inventory", "pg_ha_source_ca_file"),
    Case("Impossible budget", "inventory", "pg_ha_cutover_budget_seconds is 0.5"),
    Case("Impossible window", "inventory", "pg_ha_dump_window_seconds is 5"),
    Case("Impossible limit of WAL", "inventory", "pg_ha_slot_wal_limit_mib is 1"),
    Case("One role for two purposes", "inventory", "pg_ha_source_admin_user and pg_ha_link_user name the same role"),
    Case("Unknown target", "inventory", "Group pg_ha_kubernetes is no part and no target"),
    Case("Two targets", "inventory", "Groups pg_ha_patroni and pg_ha_rds are two targets"),
    Case("No target", "groups", "There is no target"),
    Case("No mover", "groups", "Group pg_ha_mover holds 0 hosts"),
    Case("Fewer than three etcd members", "inventory", "Group pg_ha_etcd holds 2 hosts"),
    Case("Even number of etcd members", "groups", "Group pg_ha_etcd holds 4 hosts"),
    Case("Group that is not declared", "groups", "Group pg_ha_pgbouncer is not declared"),
    Case("Duplicate addresses", "inventory", "etcd1 and etcd2 have the same pg_ha_address"),
    Case("Duplicate names", "inventory", "pg2 and pg3 are the same host"),
    Case("Host without an address", "groups", "pg_ha_address is not given for etcd4"),
    Case("Source equal to a host of the target", "inventory", "pg_ha_source_host is 127.0.1.21, which is pg1"),
    Case("Unreachable source", "unreachable", "The source localhost:<port> refuses the connection"),
    Case("Host whose name nobody knows", "database", "The target nowhere.invalid:<port> has a name that the mover cannot resolve"),
    Case("Wrong password of the source", "connections", "The source localhost:<port> refuses the password of role postgres"),
    Case("Target whose TLS does not verify", "connections", "The target localhost:<port> shows a certificate that"),
    Case("Pooler whose console refuses", "connections", "The console of the pooler 127.0.0.2:<port> refuses the password"),
    Case("Patroni not reachable", "connections", "Patroni's REST API answers on none of"),
    Case("Source whose TLS does not verify", "untrusted", "The source localhost:<port> shows a certificate that pg_ha_source_ca_file does not verify"),
    Case("PgBouncer in session mode", "untrusted", "The pooler 127.0.0.2 runs freight in session mode"),
    Case("Certificate for another name", "untrusted", "The target 127.0.0.1:<port> shows a certificate for another name"),
    Case("Missing database", "database", "The source localhost:<port> has no database freigth"),
    Case("Source and target are one server", "same_server", "Source and target are the same server"),
    Case("Clock skew", "same_server", "The clock of the source is"),
    Case("Clock skew of the target", "same_server", "The clock of the target is"),
    Case("Pooler that does not know the database", "database", "The pooler 127.0.0.2 knows no database"),
    Case("Target that already holds tables", "occupied", "public.t exists on the target"),
    Case("Inventory of another migration", "journaled", "The target holds the journal of migration another"),
    Case("Inventory with another source", "copied", "The target was copied from database elsewhere"),
    Case("Source and target exchanged", "exchanged", "Source and target are exchanged"),
    Case("wal_level not logical", "server", "BLOCKER wal_level"),
    Case("Too few replication slots", "server", "BLOCKER max_replication_slots"),
    Case("Too few WAL senders", "server", "BLOCKER max_wal_senders"),
    Case("Disk too small", "server", "BLOCKER target_disk"),
    Case("Version out of support", "server", "BLOCKER target_version"),
)


@dataclass(frozen=True)
class Said:
    """What a scenario has said.

    :param playbook: playbook that was run
    :param task: error name of the failed task, "" for a verdict
    :param lines: the sentences, volatile parts replaced
    """

    playbook: str
    error: str
    lines: tuple[str, ...]


class Scenarios:
    """Runs each scenario once, and checks that it changed nothing."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.said: dict[str, Said] = {}
        self.target_port, self.pooler_port = free_port(), free_port()
        self.pooler: subprocess.Popen[bytes] | None = None

    def saying(self, scenario: str) -> Said:
        """What a scenario has said; it runs when it is asked for the first time."""
        if scenario not in self.said:
            self.said[scenario] = getattr(self, scenario)()
        return self.said[scenario]

    # --- the inventory ---

    def inventory(self) -> Said:
        """Many things wrong in one inventory."""
        variables, groups = self.world.variables(), self.world.groups()
        del variables["pg_ha_pooler_auth_password"], variables["pg_ha_target_admin_user"]
        variables.update(
            pg_ha_comment="moved in spring",
            pg_ha_sorce_port=5432,
            pg_ha_link_password="",
            pg_ha_probe_password="a\nb",
            pg_ha_pooler_operator="the operator's",
            pg_ha_database="freight; DROP",
            pg_ha_dead_man_user="dead\nman",
            pg_ha_method="physical",
            pg_ha_cluster="{{ not_defined_anywhere }}",
            pg_ha_allowed_networks=["0.0.0.0/0"],
            pg_ha_source_ca_file=str(self.world.folder / "absent.crt"),
            pg_ha_cutover_budget_seconds=0.5,
            pg_ha_dump_window_seconds=5,
            pg_ha_slot_wal_limit_mib=1,
            pg_ha_link_user="postgres",
            pg_ha_source_host="127.0.1.21",
        )
        groups["pg_ha_kubernetes"] = {"k1": {"pg_ha_address": "127.0.1.61"}}
        groups["pg_ha_rds"] = {"freight-rds": {}}
        del groups["pg_ha_etcd"]["etcd3"]
        groups["pg_ha_etcd"]["etcd2"]["pg_ha_address"] = "127.0.1.31"
        for name in ("pg2", "pg3"):
            groups["pg_ha_patroni"][name]["ansible_host"] = "127.0.1.22"
        return self.refused_by_inventory("provision.yml", variables, groups)

    def groups(self) -> Said:
        """Groups that are empty, too large or not declared."""
        groups = self.world.groups()
        groups["pg_ha_etcd"]["etcd4"] = {}
        groups["pg_ha_mover"], groups["pg_ha_patroni"] = {}, {}
        del groups["pg_ha_pgbouncer"]
        return self.refused_by_inventory("migrate.yml", self.world.variables(), groups)

    def refused_by_inventory(self, playbook: str, variables: dict[str, t.Any], groups: dict[str, t.Any]) -> Said:
        """Refused on the controller: no task has run on a host."""
        shutil.rmtree(self.world.run_directory, ignore_errors=True)
        said = self.play(playbook, variables, groups)
        assert said.error == "UsageError" and not self.world.run_directory.exists()
        return said

    # --- connections ---

    def reachable(self, **changes: t.Any) -> dict[str, t.Any]:
        """Variables of a migration in which everything can be reached, and what is changed of them."""
        self.start()
        return {
            **self.world.variables(),
            "mover_pooler_port": self.pooler_port,
            "fake_target_port": self.target_port,
            "pg_ha_pooler_operator_password": "right",
            **changes,
        }

    def pooled(self) -> dict[str, t.Any]:
        """The pooler by the address that it listens on."""
        groups = self.world.groups()
        groups["pg_ha_haproxy"] = groups["pg_ha_pgbouncer"] = {POOLER: {"pg_ha_address": POOLER}}
        return groups

    def unreachable(self) -> Said:
        """Nothing listens at the source's port."""
        return self.play("assess.yml", {**self.world.variables(), "pg_ha_source_port": free_port()})

    def database(self) -> Said:
        """A database that neither source nor pooler have, and a target whose name nobody knows."""
        return self.play("replicate.yml", self.reachable(pg_ha_database="freigth", fake_target_host="nowhere.invalid"), self.pooled())

    def connections(self) -> Said:
        """Wrong passwords, a target whose certificate is another authority's, and a silent Patroni, together."""
        variables = self.reachable(
            pg_ha_source_admin_password="wrong",
            fake_target_ca_file=str(self.world.folder / "other.crt"),
            pg_ha_pooler_operator_password="wrong",
            fake_target_urls=[f"https://localhost:{free_port()}"],
        )
        return self.play("replicate.yml", variables, self.pooled())

    def untrusted(self) -> Said:
        """A source whose certificate is another authority's, a target's for another name; PgBouncer in session mode."""
        variables = self.reachable(pg_ha_source_ca_file=str(self.world.folder / "other.crt"), fake_target_host="127.0.0.1")
        self.configure_pooler("session")
        try:
            return self.play("cut_over.yml", variables, self.pooled())
        finally:
            self.configure_pooler("transaction")

    def same_server(self) -> Said:
        """Source and target are one server, whose clock is not the mover's."""
        late = self.world.folder / "late"
        late.mkdir()
        (late / "sitecustomize.py").write_text("import time\n_time = time.time\ntime.time = lambda: _time() + 90\n")
        (late / "python").write_text(f'#!/bin/sh\nPYTHONPATH={late} exec {sys.executable} "$@"\n')
        (late / "python").chmod(0o755)
        groups = self.pooled()
        groups["pg_ha_mover"]["mover"]["ansible_python_interpreter"] = str(late / "python")
        variables = self.reachable(fake_target_port=self.world.port)
        return self.play("verify.yml", variables, groups)

    # --- the servers ---

    def occupied(self) -> Said:
        """A target with a table of somebody else."""
        variables = self.reachable()
        self.world.sql("CREATE DATABASE freight", "postgres", self.target_port)
        self.world.sql("CREATE TABLE t (id int)", "freight", self.target_port)
        said = self.play("replicate.yml", variables, self.pooled())
        assert said.error == "GateError"
        assert self.world.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ha_migration%'", "postgres", self.target_port) == "0\n"
        return said

    def belonging(self, port: int, statements: str) -> Said:
        """A side whose part of schema ha_migration says something else than the inventory."""
        variables = self.reachable()
        self.saying("occupied")  # has made the database there
        self.world.sql(f"CREATE SCHEMA ha_migration; {statements}", port=port)
        held = "SELECT string_agg(c.relname || ':' || c.relfilenode, ' ' ORDER BY 1) FROM pg_class c WHERE c.relnamespace = 'ha_migration'::regnamespace"
        before = self.world.sql(held, port=port)
        self.world.write_inventory(variables, self.pooled())
        done = self.world.play("cut_over.yml", "-e", "pg_ha_cutover_approved=true", result_format="json")
        assert done.code != 0 and done.failure.get("error") == "GateError", done.output
        assert self.world.sql(held, port=port) == before
        self.world.sql("DROP SCHEMA ha_migration CASCADE", port=port)
        shutil.rmtree(self.world.artifacts, ignore_errors=True)
        return Said("cut_over.yml", "GateError", self.lines(done))

    def journaled(self) -> Said:
        """The target's journal is another migration's."""
        return self.belonging(
            self.target_port,
            "CREATE TABLE ha_migration.phase (migration text, phase text, state text, inputs text, run text, started_at timestamptz, finished_at timestamptz, "
            "evidence jsonb); INSERT INTO ha_migration.phase VALUES ('another', 'replicate', 'done', '', '', now(), now(), NULL)",
        )

    COPIED = "CREATE TABLE ha_migration.copy (relation text, detail jsonb); INSERT INTO ha_migration.copy VALUES ('*', '{\"source\": %s}')"

    def copied(self) -> Said:
        """The target was copied from another source."""
        return self.belonging(self.target_port, self.COPIED % json.dumps({"database": "elsewhere", "system_identifier": "4711"}))

    def exchanged(self) -> Said:
        """What is called the source was copied from what is called the target."""
        self.reachable()
        identifier = self.world.sql("SELECT system_identifier FROM pg_control_system()", "postgres", self.target_port).strip()
        return self.belonging(self.world.port, self.COPIED % json.dumps({"database": "freight", "system_identifier": identifier}))

    def server(self) -> Said:
        """A source that is not prepared, and a target that cannot take it."""
        (self.world.folder / "target.crt").unlink(missing_ok=True)
        self.world.stop_server("data")
        self.world.start_server("data", self.world.port, "wal_level=replica", "max_replication_slots=1", "max_wal_senders=1")
        try:
            bad = {"assessment_target_free_bytes": 1024, "assessment_target_major_version": 12}
            return self.play("assess.yml", self.world.variables(), None, "-e", json.dumps(bad))
        finally:
            self.world.stop_server("data")
            self.world.start_server("data", self.world.port)

    # --- around them ---

    def play(self, playbook: str, variables: dict[str, t.Any], groups: dict[str, t.Any] | None = None, *arguments: str) -> Said:
        """Run a playbook that must be refused and change nothing that lasts."""
        self.world.write_inventory(variables, groups)
        done = self.world.play(playbook, *arguments, result_format="json")
        assert done.code != 0 and done.failure, done.output
        assert self.world.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'ha_migration'") == "0\n"
        assert self.world.sql("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ha_migration%'") == "0\n"
        shutil.rmtree(self.world.artifacts, ignore_errors=True)
        return Said(playbook, done.failure.get("error", ""), self.lines(done))

    def lines(self, done: Play) -> tuple[str, ...]:
        """The sentences of a failure, as they are printed in the docs."""
        lines = [" ".join(line.removeprefix("- ").split()) for line in done.failure["msg"].splitlines() if line.startswith("- ")]
        volatile = {
            rf"\b({self.world.port}|{self.target_port}|{self.pooler_port}|(?<=localhost:)\d+)\b": "<port>",
            r"\d+\.\d s (ahead|behind)": r"<seconds> s \1",
            r"identifier \d+": "identifier <number>",
            r"needs \d+ MB": "needs <size>",
            r"(the server|database freight of) \d+": r"\1 <number>",
            re.escape(str(self.world.folder)): "<folder>",
            rf"\b{self.world.migration}\b": "<migration>",
        }
        for pattern, word in volatile.items():
            lines = [re.sub(pattern, word, line) for line in lines]
        return tuple(lines)

    def start(self) -> None:
        """The target's server and the pooler, once."""
        if self.pooler is not None:
            return
        world = self.world
        world.start_server("target", self.target_port)
        world.make_certificate("other")
        (world.folder / "pki").mkdir()
        for copy in ("target.crt", "pki/ca.crt"):
            shutil.copy(world.folder / "server.crt", world.folder / copy)
        (world.folder / "userlist.txt").write_text('"operator" "right"\n')
        self.configure_pooler("transaction")
        argv = [str(PGBOUNCER), str(world.folder / "pgbouncer.ini")]
        self.pooler = subprocess.Popen(argv, user="postgres", cwd=world.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        assert self.pooler.poll() is None, "PgBouncer did not start"

    def configure_pooler(self, mode: str) -> None:
        """Write the pooler's configuration and have it read."""
        world = self.world
        lines = (
            "[databases]", f"freight = host=localhost port={world.port}", "[pgbouncer]", f"listen_addr = {POOLER}", f"listen_port = {self.pooler_port}",
            f"pool_mode = {mode}", "auth_type = scram-sha-256", f"auth_file = {world.folder}/userlist.txt", "admin_users = operator", "unix_socket_dir =",
            "client_tls_sslmode = require", f"client_tls_cert_file = {world.folder}/server.crt", f"client_tls_key_file = {world.folder}/server.key",
            f"logfile = {world.folder}/pgbouncer.log",
        )  # fmt: skip
        (world.folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        if self.pooler is not None:
            self.pooler.send_signal(1)
            time.sleep(0.3)

    def stop(self) -> None:
        """End the pooler."""
        if self.pooler is not None:
            self.pooler.kill()
            self.pooler.wait()


@pytest.fixture(scope="module")
def scenarios(world: World) -> t.Iterator[Scenarios]:
    """The scenarios of this file."""
    if PGBOUNCER is None:
        pytest.skip("no pgbouncer is installed")
    made = Scenarios(world)
    try:
        yield made
    finally:
        made.stop()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_a_bad_input_gets_one_sentence_before_anything_changes(scenarios: Scenarios, case: Case) -> None:
    said = scenarios.saying(case.scenario)
    found = [line for line in said.lines if line.startswith(case.says)]
    assert len(found) == 1, "\n".join(said.lines)


def test_nothing_else_is_said(scenarios: Scenarios) -> None:
    """A sentence without a row in the table would be one that nobody asked for: a false alarm."""
    for name in sorted({case.scenario for case in CASES}):
        for line in scenarios.saying(name).lines:
            assert [case for case in CASES if case.scenario == name and line.startswith(case.says)], f"{name}: {line}"


def test_the_page_of_problems_says_what_is_said(scenarios: Scenarios) -> None:
    rows = []
    for case in CASES:
        said = scenarios.saying(case.scenario)
        line = next(line for line in said.lines if line.startswith(case.says))
        rows.append(f"| {case.kind} | {'every playbook' if said.error == 'UsageError' else f'`{said.playbook}`'} | {line.replace('|', chr(92) + '|')} |")
    head = PAGE.read_text(encoding="utf-8").split("| what is wrong |")[0]
    page = head + "\n".join(["| what is wrong | shown here by | sentence |", "|---|---|---|", *rows, ""])
    if os.environ.get("PG_HA_WRITE_PROBLEMS"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page, "docs/problems.md is old: run make problems"


@pytest.mark.parametrize("inventory", ["inventories/lab", "inventories/lab_rds", "inventories/examples/patroni", "inventories/prod"])
def test_the_inventories_of_this_project_pass(world: World, inventory: str) -> None:
    # Of the lab too: its own secrets exist only between lab/up and lab/down.
    lab = yaml.safe_load((ROOT / "lab" / "vars.yml").read_text(encoding="utf-8"))
    given = dict.fromkeys([*lab["lab_secret_names"], *(f"pg_ha_{name}_password" for name in (*SECRETS, "source_admin", "target_admin"))], "x")
    given["vault_application_passwords"] = {}
    given["pg_ha_source_ca_file"] = str(world.folder / "server.crt")
    program = pathlib.Path(sys.executable).with_name("ansible")
    argv = [str(program), "localhost", "-i", str(ROOT / inventory), "-m", "freight.pg_ha.inventory_info", "-e", json.dumps(given)]
    done = subprocess.run(argv, cwd=ROOT, text=True, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr
