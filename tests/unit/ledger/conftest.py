# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database with the probe's table and small application tables, and ways to run clients against it."""

from __future__ import annotations

import itertools
import os
import pathlib
import pwd
import subprocess
import sys
import threading
import time
import typing as t
from dataclasses import dataclass

import psycopg2
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
_names = itertools.count()


@dataclass
class Database:
    """A database of the shared server.

    :param dsn: how to reach it
    :param service_file: with the service ``client_lb1``
    """

    server: t.Any
    name: str
    dsn: str
    service_file: str

    def execute(self, statement: str) -> list[t.Any]:
        """One statement as superuser, committed."""
        connection = psycopg2.connect(self.dsn)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def restart(self) -> None:
        """Restart the server as an operator in a hurry does."""
        data = self.execute("SHOW data_directory")[0][0]
        demote: dict[str, t.Any] = {"user": pwd.getpwnam("postgres").pw_uid, "cwd": data} if os.geteuid() == 0 else {}
        subprocess.run([str(self.server.bin / "pg_ctl"), "-D", data, "-m", "fast", "-w", "restart"], check=True, stdout=subprocess.DEVNULL, **demote)


@pytest.fixture
def database(postgresql_server: t.Any, tmp_path: pathlib.Path) -> Database:
    """Tables as the collection and the lab make them."""
    name = f"ledger_{os.getpid()}_{next(_names)}"
    postgresql_server.create_database(name)
    service_file = tmp_path / "pg_service.conf"
    postgresql_server.services(service_file, client_lb1=name)
    service_file.chmod(0o600)
    made = Database(postgresql_server, name, f"host=127.0.0.1 port={postgresql_server.port} user=postgres dbname={name}", str(service_file))
    made.execute(
        "CREATE SCHEMA ha_migration; "
        "CREATE TABLE ha_migration.probe (run text NOT NULL, client int NOT NULL, seq bigint NOT NULL, at timestamptz NOT NULL DEFAULT now(), "
        "PRIMARY KEY (run, client, seq)); "
        "CREATE SCHEMA app; CREATE TABLE app.accounts (id bigint PRIMARY KEY, balance bigint NOT NULL DEFAULT 0); "
        "CREATE TABLE app.ledger (client int NOT NULL, seq bigint NOT NULL, account_id bigint NOT NULL REFERENCES app.accounts, amount bigint NOT NULL, "
        "note text, PRIMARY KEY (client, seq)); INSERT INTO app.accounts SELECT g, 100 * g FROM generate_series(1, 200) g"
    )
    return made


class BackgroundProbe:
    """The module's own code in a thread, as ``async`` runs it in a process."""

    def __init__(self, probe: t.Any, run: t.Callable[..., t.Any]) -> None:
        self.probe = probe
        self.outcome: t.Any = None
        self._thread = threading.Thread(target=self._run, args=(run,))
        self._thread.start()
        deadline = time.monotonic() + 10
        while not (probe.folder.exists() and probe.folder.read_live()["acknowledged"] > 20):
            if time.monotonic() > deadline:
                raise AssertionError("the probe did not begin")
            time.sleep(0.02)

    def _run(self, run: t.Callable[..., t.Any]) -> None:
        self.outcome = run(self.probe, False)

    def stop(self) -> None:
        """Stop in good order."""
        if self.probe.folder.exists():
            self.probe.stop()
        self._thread.join(20)


@pytest.fixture
def load(tmp_path: pathlib.Path, database: Database) -> t.Iterator[t.Callable[..., subprocess.CompletedProcess[str]]]:
    """``load("start", ...)``: the load's command line in a process of its own, with the folder laid out as on the mover."""
    place = tmp_path / "freight_load"
    (place / "module_utils").mkdir(parents=True)
    for package in ("_core", "_ledger"):
        (place / "module_utils" / package).symlink_to(ROOT / "plugins" / "module_utils" / package)
    (place / "load").symlink_to(ROOT / "lab" / "load")
    runs = tmp_path / "runs"

    def call(*arguments: str, dsn: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "FREIGHT_LOAD_DSN": dsn or database.dsn}
        argv = [sys.executable, "-m", "load", "--dir", str(runs), *arguments]
        return subprocess.run(argv, cwd=place, env=environment, check=check, capture_output=True, text=True)

    try:
        yield call
    finally:
        call("stop", check=False)
