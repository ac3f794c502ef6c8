# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the collection importable and offers a real PostgreSQL on loopback."""

from __future__ import annotations

import os
import pathlib
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import typing as t
from dataclasses import dataclass

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LINK = ROOT / ".build" / "collections" / "ansible_collections" / "freight" / "pg_ha"


def _lay_link() -> None:
    LINK.parent.mkdir(parents=True, exist_ok=True)
    if not LINK.is_symlink():
        LINK.symlink_to(ROOT)
    sys.path.insert(0, str(ROOT / ".build" / "collections"))


_lay_link()


@dataclass(frozen=True)
class Server:
    """A throw-away server: trust authentication, wal_level=logical.

    :param port: TCP port on 127.0.0.1
    :param service_file: libpq service file with the services ``source`` and ``target``, both this server
    :param bin: folder of the server's programs
    """

    port: int
    service_file: str
    bin: pathlib.Path

    def create_database(self, name: str) -> None:
        """Create an empty database."""
        subprocess.run([str(self.bin / "createdb"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", name], check=True)

    def services(self, path: pathlib.Path, **databases: str) -> str:
        """Write a service file that maps each service name to a database of this server; returns its path."""
        path.write_text("".join(f"[{name}]\nhost=127.0.0.1\nport={self.port}\nuser=postgres\ndbname={dbname}\n" for name, dbname in databases.items()))
        return str(path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _newest_bin() -> pathlib.Path | None:
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@pytest.fixture(scope="session")
def postgresql_server() -> t.Iterator[Server]:
    """A real server by initdb on loopback; skipped where no server binary is installed."""
    binaries = _newest_bin()
    if binaries is None:
        pytest.skip("no PostgreSQL server binary under /usr/lib/postgresql")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pg_ha_unit_", dir="/var/tmp"))
    demote: dict[str, t.Any] = {}
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        demote = {"user": "postgres", "cwd": str(folder)}
    data, port = folder / "data", _free_port()
    run: t.Callable[..., t.Any] = lambda *argv: subprocess.run([str(part) for part in argv], check=True, stdout=subprocess.DEVNULL, **demote)
    run(binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
    # Who is in this role proves a password; everybody else is trusted.
    rules = data / "pg_hba.conf"
    rules.write_text("host all +with_password 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
    options = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        " -c wal_level=logical -c fsync=off -c max_connections=60 -c max_prepared_transactions=5 "
    )
    # A new apply worker starts at once instead of after five seconds.
    options += "-c wal_retrieve_retry_interval=100ms -c max_replication_slots=40 -c max_wal_senders=40"
    run(binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
    server = Server(port, str(folder / "pg_service.conf"), binaries)
    server.services(pathlib.Path(server.service_file), source="postgres", target="postgres")
    try:
        yield server
    finally:
        run(binaries / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)
