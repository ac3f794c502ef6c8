# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks assess and report against a real server with TLS and a password that quotes badly."""

from __future__ import annotations

import json
import os
import pathlib
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import typing as t

import pytest

from tests.evidence import problems

ROOT = pathlib.Path(__file__).resolve().parents[2]
PASSWORD = r"""a:b\c'd"e%f@g{h} ü#"""
BINARIES = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))

pytestmark = [
    pytest.mark.skipif(not BINARIES, reason="no PostgreSQL server binary under /usr/lib/postgresql"),
    pytest.mark.skipif(os.geteuid() != 0, reason="role mover writes /run as root"),
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="role mover installs packages by apt"),
]


class World:
    """A server that is source and target, an inventory for it, and the playbooks."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.migration = f"test_{os.getpid()}"
        self.artifacts = folder / "artifacts" / self.migration
        self.run_directory = pathlib.Path("/run/pg_ha") / self.migration
        self.bin = BINARIES[-1].parent
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.major = int(self.bin.parts[-2])

    def as_postgres(self, *argv: t.Any, **options: t.Any) -> subprocess.CompletedProcess[str]:
        """Run a program of the server's as its owner."""
        argv_text = [str(part) for part in argv]
        return subprocess.run(argv_text, check=True, user="postgres", cwd=self.folder, text=True, capture_output=True, **options)

    def sql(self, statements: str, database: str = "freight") -> str:
        """Run statements over the local socket; the rows that they return."""
        argv = [self.bin / "psql", "-h", self.folder, "-p", self.port, "-U", "postgres", "-d", database, "-X", "-At", "-v", "ON_ERROR_STOP=1"]
        return self.as_postgres(*argv, input=statements).stdout

    def start(self) -> None:
        """A server that speaks TLS with a certificate for localhost and takes passwords over TCP only."""
        owner = pwd.getpwnam("postgres")
        os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        self.folder.chmod(0o755)
        key, certificate = self.folder / "server.key", self.folder / "server.crt"
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        self.as_postgres("openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", certificate, *subject)
        data = self.folder / "data"
        self.as_postgres(self.bin / "initdb", "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-A", "trust")
        (data / "pg_hba.conf").write_text("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\nhostssl all all ::1/128 scram-sha-256\n")
        options = f"-p {self.port} -c listen_addresses=localhost -c unix_socket_directories={self.folder} -c wal_level=logical"
        options += f" -c ssl=on -c ssl_cert_file={certificate} -c ssl_key_file={key}"
        subprocess.run(
            [str(self.bin / "pg_ctl"), "-D", str(data), "-w", "-l", str(self.folder / "log"), "-o", options, "start"],
            check=True,
            user="postgres",
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
        )
        self.sql("CREATE DATABASE freight", "postgres")
        quoted = PASSWORD.replace("'", "''")
        self.sql(
            f"SET standard_conforming_strings = on; ALTER ROLE postgres PASSWORD '{quoted}'; CREATE SCHEMA pgbouncer; "
            "CREATE FUNCTION pgbouncer.get_auth(name) RETURNS text LANGUAGE sql AS 'SELECT NULL::text'; CREATE TABLE t (id int PRIMARY KEY);"
        )
        self.write_inventory()

    def write_inventory(self) -> None:
        """One mover, which is this machine; no pooler, no target yet."""
        variables = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "pg_ha_migration": self.migration,
            "pg_ha_artifacts_dir": str(self.folder / "artifacts"),
            "pg_ha_pki_dir": str(self.folder / "pki"),
            "pg_ha_database": "freight",
            "pg_ha_source_host": "localhost",
            "pg_ha_source_port": self.port,
            "pg_ha_source_admin_user": "postgres",
            "pg_ha_source_admin_password": PASSWORD,
            "pg_ha_source_ca_file": str(self.folder / "server.crt"),
            "pg_ha_target_admin_user": "postgres",
            "pg_ha_target_admin_password": PASSWORD,
            "pg_ha_pooler_operator": "operator",
            "pg_ha_pooler_operator_password": "x",
            "pg_ha_probe_password": "x",
            "mover_packages": ["openssl"],
            "mover_python_packages": ["openssl"],
            "mover_target_role": "fake_target",
            "fake_target_port": self.port,
            "fake_target_ca_file": str(self.folder / "target.crt"),
        }
        # What a password holds is not a template: yaml's !unsafe says so, as in any inventory with such a password.
        lines = [f"    {name}: {'!unsafe ' if 'password' in name else ''}{json.dumps(value)}" for name, value in variables.items()]
        groups = "".join(f"    {name}: {{}}\n" for name in ("pg_ha_etcd", "pg_ha_patroni", "pg_ha_haproxy", "pg_ha_pgbouncer"))
        inventory = "all:\n  vars:\n" + "\n".join(lines) + "\n  children:\n    pg_ha_mover:\n      hosts:\n        mover: {}\n" + groups
        (self.folder / "inventory.yml").write_text(inventory)

    def play(self, playbook: str, *arguments: str) -> tuple[int, int, str]:
        """Run a playbook; its exit code, the number of changed tasks and its output."""
        done = subprocess.run(
            [
                str(pathlib.Path(sys.executable).with_name("ansible-playbook")),
                str(ROOT / "playbooks" / playbook),
                "-i",
                str(self.folder / "inventory.yml"),
                *arguments,
            ],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_ROLES_PATH": str(ROOT / "tests" / "playbooks" / "roles"), "ANSIBLE_NOCOLOR": "1"},
            text=True,
            capture_output=True,
            check=False,
            timeout=240,
        )
        output = done.stdout + done.stderr
        assert PASSWORD not in output and r"a\:b" not in output
        assert "[WARNING]" not in output and "[DEPRECATION" not in output, output
        changed = re.search(r"changed=(\d+)", done.stdout)
        assert changed, output
        # Long messages are folded.
        return done.returncode, int(changed[1]), " ".join(output.split())

    def evidence(self) -> dict[str, t.Any]:
        """assessment.json, which is what its schema says."""
        document = json.loads((self.artifacts / "assessment.json").read_text())
        assert problems(document) == []
        return document

    def stop(self) -> None:
        """Leave nothing behind."""
        subprocess.run(
            [str(self.bin / "pg_ctl"), "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop"],
            user="postgres",
            cwd="/",
            check=False,
            stdout=subprocess.DEVNULL,
        )
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.run_directory, ignore_errors=True)


@pytest.fixture(scope="module")
def world() -> t.Iterator[World]:
    """The world of this file."""
    made = World(pathlib.Path(tempfile.mkdtemp(prefix="pg_ha_assess_", dir="/var/tmp")))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_1_check_mode_on_a_fresh_inventory_looks_and_writes_nothing(world: World) -> None:
    code, _changed, output = world.play("assess.yml", "--check", "--diff")
    assert code == 0, output
    assert "target_unknown" in output and "There is no CA certificate yet for the target" in output
    assert not world.artifacts.exists()
    assert world.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'ha_migration'") == "0\n"


def test_2_a_clean_source_passes_and_leaves_evidence(world: World) -> None:
    code, _changed, output = world.play("assess.yml")
    assert code == 0, output
    evidence = world.evidence()
    assert (evidence["schema"], evidence["outcome"]) == ("freight.pg_ha/assessment/1", "done")
    assert evidence["facts"]["tables"] == 1 and evidence["facts"]["version_num"] // 10000 == world.major
    assert {finding["id"] for finding in evidence["findings"]} >= {"target_unknown", "target_disk"}
    for name in ("pgpass", "pg_service.conf"):
        assert (world.run_directory / name).stat().st_mode & 0o777 == 0o600
    assert world.run_directory.stat().st_mode & 0o777 == 0o700


def test_3_again_changes_nothing(world: World) -> None:
    before = world.evidence()
    code, changed, output = world.play("assess.yml")
    assert (code, changed) == (0, 0), output
    assert world.evidence() == before


def test_4_a_blocker_is_shown_with_its_fix_and_fails_after_all_findings(world: World) -> None:
    world.sql("CREATE TABLE nokey (a int); CREATE TABLE gone (a int PRIMARY KEY); ALTER TABLE gone REPLICA IDENTITY NOTHING")
    code, _changed, output = world.play("assess.yml")
    assert code == 2
    assert "ALTER TABLE public.nokey REPLICA IDENTITY FULL;" in output and "ALTER TABLE public.gone REPLICA IDENTITY DEFAULT;" in output
    assert "2 blockers stand in the way" in output
    assert world.evidence()["outcome"] == "refused"
    assert world.play("assess.yml", "-e", '{"assessment_accepted": ["replica_identity:public.nokey", "replica_identity:public.gone"]}')[0] == 0
    world.sql("DROP TABLE nokey, gone")
    assert world.play("assess.yml")[0] == 0
    assert world.evidence()["outcome"] == "done"


def test_5_the_report_comes_from_the_evidence_and_stays(world: World) -> None:
    assert world.play("report.yml", "--check")[0] == 0
    assert not (world.artifacts / "report.md").exists()
    code, _changed, output = world.play("report.yml")
    assert code == 0, output
    page = (world.artifacts / "report.md").read_text()
    assert "**The source serves the application.**" in page and "Run playbook `provision.yml`" in page
    assert world.play("report.yml")[:2] == (0, 0)


def test_6_a_target_that_is_there_is_asked_and_after_the_cutover_the_assessment_stands(world: World) -> None:
    shutil.copy(world.folder / "server.crt", world.folder / "target.crt")
    code, _changed, output = world.play("assess.yml", "-e", f"assessment_target_major_version={world.major}")
    assert code == 0, output
    assert "target_unknown" not in output
    assert world.evidence()["facts"]["target_version_num"] // 10000 == world.major
    world.sql(
        "CREATE SCHEMA ha_migration; CREATE TABLE ha_migration.phase (migration text, phase text, state text NOT NULL, inputs text NOT NULL, "
        "run text NOT NULL, started_at timestamptz NOT NULL, finished_at timestamptz, evidence jsonb, PRIMARY KEY (migration, phase)); "
        f"INSERT INTO ha_migration.phase VALUES ('{world.migration}', 'cut_over', 'done', '', '', now(), now(), '{{}}'); CREATE TABLE nokey (a int)"
    )
    code, changed, output = world.play("assess.yml")
    assert (code, changed) == (0, 0), output
    assert "The assessment before it stands" in output
    assert world.play("assess.yml", "-e", '{"pg_ha_repeat": ["assess"]}')[0] == 2
