# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server with TLS and a password that quotes badly, a complete inventory whose hosts are all this machine, and the playbooks."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
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
# The pooler's name in the inventory: an address of this machine, because a name would have to resolve.
POOLER = "127.0.0.2"
SECRETS = (
    "link", "dead_man", "probe", "pooler_operator", "pooler_auth", "etcd_root", "etcd_patroni", "patroni_replication", "patroni_rewind", "patroni_restapi",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what uses the world, where it cannot be."""
    reasons = {
        "no PostgreSQL server binary under /usr/lib/postgresql": not BINARIES,
        "role mover writes /run as root": os.geteuid() != 0,
        "role mover installs packages by apt": shutil.which("apt-get") is None,
    }
    for item in items:
        for reason, holds in reasons.items():
            if holds and "world" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.skip(reason=reason))


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclasses.dataclass(frozen=True)
class Play:
    """What a run of ansible-playbook has shown.

    :param code: exit code
    :param changed: number of changed tasks of all hosts
    :param output: what it printed, long messages unfolded
    :param failure: the last failed task's result, {} where results are not printed as JSON
    """

    code: int
    changed: int
    output: str
    failure: dict[str, t.Any] = dataclasses.field(default_factory=dict)


class World:
    """A server that is source and target, an inventory for it, and the playbooks."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.migration = f"test_{os.getpid()}"
        self.artifacts = folder / "artifacts" / self.migration
        self.run_directory = pathlib.Path("/run/pg_ha") / self.migration
        self.bin = BINARIES[-1].parent
        self.port = free_port()
        self.servers: set[pathlib.Path] = set()
        self.major = int(self.bin.parts[-2])

    def as_postgres(self, *argv: t.Any, **options: t.Any) -> subprocess.CompletedProcess[str]:
        """Run a program of the server's as its owner."""
        argv_text = [str(part) for part in argv]
        return subprocess.run(argv_text, check=True, user="postgres", cwd=self.folder, text=True, capture_output=True, **options)

    def sql(self, statements: str, database: str = "freight", port: int | None = None) -> str:
        """Run statements over the local socket; the rows that they return."""
        argv = [self.bin / "psql", "-h", self.folder, "-p", port or self.port, "-U", "postgres", "-d", database, "-X", "-At", "-v", "ON_ERROR_STOP=1"]
        return self.as_postgres(*argv, input=statements).stdout

    def start(self) -> None:
        """The source: it speaks TLS with a certificate for localhost and takes passwords over TCP only."""
        owner = pwd.getpwnam("postgres")
        os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        self.folder.chmod(0o755)
        self.make_certificate("server")
        self.start_server("data", self.port)
        self.sql("CREATE DATABASE freight", "postgres")
        self.sql(
            "CREATE SCHEMA pgbouncer; CREATE FUNCTION pgbouncer.get_auth(name) RETURNS text LANGUAGE sql AS 'SELECT NULL::text'; "
            "CREATE TABLE t (id int PRIMARY KEY);"
        )
        self.write_inventory()

    def make_certificate(self, name: str) -> None:
        """A certificate that is its own authority, for localhost and for the address of the pooler."""
        key, certificate = self.folder / f"{name}.key", self.folder / f"{name}.crt"
        subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:localhost,IP:{POOLER}"]
        self.as_postgres("openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key, "-out", certificate, *subject)

    def start_server(self, name: str, port: int, *settings: str) -> None:
        """A server in a folder of that name; its administrator has the password that quotes badly."""
        data = self.folder / name
        if not data.exists():
            self.as_postgres(self.bin / "initdb", "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-A", "trust")
            (data / "pg_hba.conf").write_text("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\nhostssl all all ::1/128 scram-sha-256\n")
        wanted = {
            "port": port, "listen_addresses": "localhost", "unix_socket_directories": self.folder, "wal_level": "logical", "fsync": "on",
            "ssl": "on", "ssl_cert_file": self.folder / "server.crt", "ssl_key_file": self.folder / "server.key",
        }  # fmt: skip
        options = " ".join(f"-c {setting}" for setting in (*(f"{key}={value}" for key, value in wanted.items()), *settings))
        self.servers.add(data)
        subprocess.run(
            [str(self.bin / "pg_ctl"), "-D", str(data), "-w", "-l", str(self.folder / f"{name}.log"), "-o", options, "start"],
            check=True,
            user="postgres",
            cwd=self.folder,
            env={**os.environ, "HOME": str(self.folder)},  # where a link would look for a certificate of its own
            stdout=subprocess.DEVNULL,
        )
        quoted = PASSWORD.replace("'", "''")
        self.sql(f"SET standard_conforming_strings = on; ALTER ROLE postgres PASSWORD '{quoted}'", "postgres", port)

    def stop_server(self, name: str) -> None:
        """Stop the server in that folder."""
        argv = [str(self.bin / "pg_ctl"), "-D", str(self.folder / name), "-m", "immediate", "-w", "stop"]
        subprocess.run(argv, user="postgres", cwd="/", check=False, stdout=subprocess.DEVNULL)

    def variables(self) -> dict[str, t.Any]:
        """What the inventory says for all hosts."""
        return {
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
            "pg_ha_allowed_networks": ["127.0.0.0/8"],
            **{f"pg_ha_{name}_password": "x" for name in SECRETS},
            # Opening apt's cache would cost every run some seconds.
            "mover_packages": [],
            "mover_python_packages": [],
            "target_role": "fake_target",
            "fake_target_port": self.port,
            "fake_target_ca_file": str(self.folder / "target.crt"),
        }

    @staticmethod
    def groups() -> dict[str, dict[str, dict[str, t.Any]]]:
        """The hosts of each group with their own variables. All of them are this machine."""
        balancer = {"lb1": {"pg_ha_address": "127.0.1.41"}}
        return {
            "pg_ha_mover": {"mover": {"pg_ha_address": "127.0.1.51"}},
            "pg_ha_etcd": {f"etcd{number}": {"pg_ha_address": f"127.0.1.3{number}"} for number in (1, 2, 3)},
            "pg_ha_patroni": {f"pg{number}": {"pg_ha_address": f"127.0.1.2{number}"} for number in (1, 2, 3)},
            "pg_ha_haproxy": dict(balancer),
            "pg_ha_pgbouncer": dict(balancer),
            "pg_ha_rds": {},
        }

    def write_inventory(self, variables: dict[str, t.Any] | None = None, groups: dict[str, dict[str, dict[str, t.Any]]] | None = None) -> None:
        """A complete inventory, or another one."""
        # What a password holds is not a template: yaml's !unsafe says so, as in any inventory with such a password.
        lines = [
            f"    {name}: {'!unsafe ' if name.endswith('password') else ''}{json.dumps(value)}"
            for name, value in (self.variables() if variables is None else variables).items()
        ]
        children = {name: {"hosts": hosts} for name, hosts in (self.groups() if groups is None else groups).items()}
        inventory = "\n".join(["all:", "  vars:", *lines, f"  children: {json.dumps(children)}", ""])
        (self.folder / "inventory.yml").write_text(inventory)

    def play(self, playbook: str, *arguments: str, result_format: str = "yaml") -> Play:
        """Run a playbook as an operator does.

        :param result_format: with json the last failure's message can be read
        """
        program = pathlib.Path(sys.executable).with_name("ansible-playbook")
        done = subprocess.run(
            [str(program), str(ROOT / "playbooks" / playbook), "-i", str(self.folder / "inventory.yml"), *arguments],
            cwd=ROOT,
            env={
                **os.environ,
                "ANSIBLE_ROLES_PATH": str(ROOT / "tests" / "playbooks" / "roles"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_CALLBACK_RESULT_FORMAT": result_format,
            },
            text=True,
            capture_output=True,
            check=False,
            timeout=240,
        )
        output = done.stdout + done.stderr
        assert PASSWORD not in output and r"a\:b" not in output
        assert "[WARNING]" not in output and "[DEPRECATION" not in output, output
        changed = re.findall(r"changed=(\d+)", done.stdout)
        assert changed, output
        failures = list(re.finditer(r"^fatal: .*? => (?=\{)", done.stdout, re.MULTILINE)) if result_format == "json" else []
        failure = json.JSONDecoder().raw_decode(done.stdout, failures[-1].end())[0] if failures else {}
        return Play(done.returncode, sum(int(number) for number in changed), " ".join(output.split()), failure)

    def evidence(self) -> dict[str, t.Any]:
        """assessment.json, which is what its schema says."""
        document = json.loads((self.artifacts / "assessment.json").read_text())
        assert problems(document) == []
        return document

    def stop(self) -> None:
        """Leave nothing behind."""
        for data in self.servers:
            self.stop_server(data.name)
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.run_directory, ignore_errors=True)


@pytest.fixture(scope="module")
def world() -> t.Iterator[World]:
    """The world of one file."""
    made = World(pathlib.Path(tempfile.mkdtemp(prefix="pg_ha_playbooks_", dir="/var/tmp")))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(autouse=True)
def _signals_as_at_a_terminal() -> t.Iterator[None]:
    """Who starts tests in the background may have SIGINT and SIGHUP ignored; processes that tests start would inherit that."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
