# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and passwords that somebody could have, templates as the roles render them, and a real PgBouncer."""

from __future__ import annotations

import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import typing as t

import jinja2
import psycopg2
import pytest
from ansible.plugins.filter.core import FilterModule
from ansible.plugins.test.core import TestModule
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.unit.conftest import ROOT, Server, _free_port

PGBOUNCER = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
# What has a meaning to somebody on the way: SQL, PL/pgSQL, psycopg2, libpq's files, PgBouncer, a shell, YAML, Jinja, URLs.
SPICE = "\"'%\\;:$@#{}[]()/=,&?*!|<>`~^+-. _\t\n\réßñ漢🐘"
SQL = (
    "'; DROP SCHEMA ha_migration CASCADE; --",
    '"; SELECT 1; --',
    "%s",
    "%(a)s",
    "$each$",
    "$$",
    "$guard$",
    "E'\\''",
    "{{ 7 * 7 }}",
    "select",
    "a\\'b",
    "tä\nb",
)
EVERY_ASCII = "".join(chr(number) for number in range(32, 127))
QUICK = settings(deadline=None, max_examples=int(os.environ.get("PG_HA_EXAMPLES", "25")), suppress_health_check=[HealthCheck.function_scoped_fixture])


def names() -> st.SearchStrategy[str]:
    """Any name that a server takes: 1 to 63 bytes, no NUL."""
    spiced = st.text(st.sampled_from(SPICE + "abcABC019") | st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
    return st.one_of(spiced, st.sampled_from(SQL)).filter(lambda name: len(name.encode()) <= 63)


def declared_names() -> st.SearchStrategy[str]:
    """Any name that the check of the inventory lets through."""
    return names().filter(lambda name: name.isprintable() and name == name.strip())


def passwords() -> st.SearchStrategy[str]:
    """Any password that the check of the inventory lets through; every printable ASCII character is in one of them."""
    spiced = st.text(st.sampled_from(EVERY_ASCII) | st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
    return spiced | st.just(EVERY_ASCII) | st.just(EVERY_ASCII[::-1])


def render(template: str, **variables: t.Any) -> str:
    """A role's template as module template renders it."""
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    environment.filters.update(FilterModule().filters())
    environment.tests.update(TestModule().tests())
    return environment.from_string((ROOT / "roles" / template).read_text(encoding="utf-8")).render(ansible_managed="Managed", **variables)


class Pgbouncer:
    """A real PgBouncer in front of the server of the tests, its files written by the templates of role pgbouncer."""

    operator = "operator"

    def __init__(self, server: Server) -> None:
        self.server = server
        self.port = _free_port()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="pg_ha_pooler_", dir="/var/tmp"))
        self.written = 1_000_000_000
        self.user = {"user": "postgres"} if os.geteuid() == 0 else {}
        self.write(["postgres"], "right", "right")
        text = f"""[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {self.folder}/userlist.txt
admin_users = {self.operator}
pool_mode = transaction
logfile = {self.folder}/log
%include {self.folder}/route.ini
"""
        (self.folder / "pgbouncer.ini").write_text(text)
        if self.user:
            owner = pwd.getpwnam("postgres")
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        assert PGBOUNCER is not None
        self.process = subprocess.Popen(
            [PGBOUNCER, "-q", str(self.folder / "pgbouncer.ini")], cwd=self.folder, stderr=subprocess.DEVNULL, **t.cast(t.Any, self.user)
        )
        self.console = self._until_it_answers()

    def _until_it_answers(self) -> t.Any:
        bound = time.monotonic() + 10
        while True:
            try:
                console = psycopg2.connect(host="127.0.0.1", port=self.port, dbname="pgbouncer", user=self.operator, password="right", connect_timeout=3)
                console.autocommit = True
                return console
            except psycopg2.Error:
                assert time.monotonic() < bound, (self.folder / "log").read_text()
                time.sleep(0.05)

    def write(self, databases: list[str], operator_password: str, password: str, user: str = "postgres") -> None:
        """What role pgbouncer writes."""
        side = {"host": "127.0.0.1", "port": self.server.port}
        (self.folder / "route.ini").write_text(render("pgbouncer/templates/route.ini.j2", pgbouncer_databases=databases, __pgbouncer_side=side))
        users = {"pgbouncer_auth_user": user, "pgbouncer_auth_password": password}
        users.update(pgbouncer_operator=self.operator, pgbouncer_operator_password=operator_password, pgbouncer_users={"one more": password})
        (self.folder / "userlist.txt").write_text(render("pgbouncer/templates/userlist.txt.j2", **users))
        # PgBouncer reads it again only when its size or its time in whole seconds has changed.
        self.written += 1
        os.utime(self.folder / "userlist.txt", (self.written, self.written))

    def say(self, statement: str) -> list[tuple[t.Any, ...]]:
        """A statement on the operator's console."""
        with self.console.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        """End it, also when it is stopped."""
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def pgbouncer(postgresql_server: Server) -> t.Iterator[Pgbouncer]:
    """A real one; skipped where none is installed."""
    if PGBOUNCER is None:
        pytest.skip("no pgbouncer is installed")
    made = Pgbouncer(postgresql_server)
    yield made
    made.stop()
