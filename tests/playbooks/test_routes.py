# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cut_over.yml leaves for applications: a real client gets in with it, and nothing of it is shown."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import typing as t
from urllib.parse import quote

import psycopg2
import pytest

from tests.evidence import problems
from tests.playbooks.conftest import PASSWORD, World, free_port

ROLE = "Freight app"
# In the server it is an application's password, here the operator gives it.
SECRET = r"""p@ss:w\ord/'"%{x} ö"""


# The end of cut_over.yml. What comes before it there installs services, which this machine shall not get.
PLAY = """
- hosts: pg_ha_mover
  gather_facts: false
  roles:
    - role: freight.pg_ha.mover
    - role: freight.pg_ha.routes
"""

WHO = "SELECT current_user || ' ' || ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


class Routes(World):
    """The world of the assessment, with a server beside it that is the target of a cutover which the journal calls done."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self.ahead = free_port()
        self.directory = folder / "pki" / "routes" / self.migration
        self.mine = self.directory / "target" / quote(ROLE)

    def start(self) -> None:
        """The server with an application's role, and what the cutover's roles ask the inventory for."""
        super().start()
        shutil.copy(self.folder / "server.crt", self.folder / "target.crt")
        (self.folder / "pki").mkdir()
        shutil.copy(self.folder / "server.crt", self.folder / "pki" / "ca.crt")
        self.declare(pg_ha_application_passwords={ROLE: SECRET})
        self.declare(pg_ha_application_directory=str(self.mine), routes_poolers=["localhost"], routes_pooler_port=self.ahead)
        self.declare(fake_target_port=self.ahead)
        self.start_server("ahead", self.ahead)
        self.sql("CREATE DATABASE freight", "postgres", self.ahead)
        quoted = SECRET.replace("'", "''")
        for port in (self.port, self.ahead):
            self.sql(f"""SET standard_conforming_strings = on; CREATE ROLE "{ROLE}" LOGIN PASSWORD '{quoted}'""", port=port)

        (self.folder / "routes.yml").write_text(PLAY)

    def declare(self, **variables: t.Any) -> None:
        """Add to the inventory."""
        text = (self.folder / "inventory.yml").read_text()
        for name, value in variables.items():
            words = f"!unsafe {json.dumps(value)}" if isinstance(value, str) else json.dumps(value)
            if isinstance(value, dict):
                words = "{" + ", ".join(f"{json.dumps(key)}: !unsafe {json.dumps(one)}" for key, one in value.items()) + "}"
            text = re.sub(rf"^    {name}: .*\n", "", text, flags=re.MULTILINE).replace("  vars:\n", f"  vars:\n    {name}: {words}\n", 1)
        (self.folder / "inventory.yml").write_text(text)

    def journal(self, serves: str) -> None:
        """A cutover that is done."""
        evidence = json.dumps({"serves": serves, "refused_writes": {f'"{ROLE}"': 3, "postgres": 3}}).replace("'", "''")
        self.sql(
            "CREATE SCHEMA IF NOT EXISTS ha_migration; CREATE TABLE IF NOT EXISTS ha_migration.phase (migration text, phase text, state text NOT NULL, "
            "inputs text NOT NULL, run text NOT NULL, started_at timestamptz NOT NULL, finished_at timestamptz, evidence jsonb, "
            "PRIMARY KEY (migration, phase)); "
            f"INSERT INTO ha_migration.phase VALUES ('{self.migration}', 'cut_over', 'done', '', '', now(), now(), '{evidence}')",
            port=self.ahead,
        )

    def cut_over(self, *arguments: str) -> tuple[int, str]:
        """Run cut_over.yml; the changed tasks and the output, in which no form of a password is."""
        done = self.play(str(self.folder / "routes.yml"), *arguments)
        assert done.code == 0, done.output
        for form in forms(SECRET):
            assert form not in done.output, form
        return done.changed, done.output

    def open(self, url: str) -> str:
        """A client with nothing but a URL. Not as an argument of a program: those are for everybody, and watched by another test."""
        with contextlib.closing(psycopg2.connect(url)) as session, session.cursor() as cursor:
            cursor.execute(WHO)
            return str(cursor.fetchone()[0])

    def psql(self, **environment: str) -> str:
        """A client with nothing but what the files say."""
        found = {"PATH": os.environ["PATH"], **environment}
        command = [str(self.bin / "psql"), "-X", "-At", "-c", WHO]
        done = subprocess.run(command, env=found, text=True, capture_output=True, check=False, cwd="/")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def forms(password: str) -> list[str]:
    """A password in plain words, in a URL, in a passfile."""
    return [password, quote(password, safe=""), password.replace("\\", "\\\\").replace(":", "\\:")]


@pytest.fixture(scope="module")
def world() -> t.Iterator[Routes]:
    """The world of this file."""
    made = Routes(pathlib.Path(tempfile.mkdtemp(prefix="pg_ha_routes_", dir="/var/tmp")))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_1_before_the_target_exists_nothing_is_written(world: Routes) -> None:
    (world.folder / "target.crt").rename(world.folder / "later.crt")
    _changed, output = world.cut_over("--check", "--diff")
    assert "routes of applications cannot be predicted" in output
    assert not world.directory.exists()
    (world.folder / "later.crt").rename(world.folder / "target.crt")


def test_2_before_the_cutover_only_the_old_values_are_written(world: Routes) -> None:
    _changed, output = world.cut_over("--check", "--diff")
    assert "DATABASE_URL='postgresql://Freight%20app:********@localhost:" in output
    assert not world.directory.exists()
    world.cut_over()
    assert [path.name for path in world.directory.iterdir()] == ["source"]
    evidence = json.loads((world.artifacts / "routes.json").read_text())
    assert evidence["serves"] == "source" and problems(evidence) == []


def test_3_when_the_target_serves_a_client_gets_in_by_url_and_by_service(world: Routes) -> None:
    world.journal("target")
    _changed, output = world.cut_over("--diff", "-vvv")
    assert "********@localhost:" in output
    urls = dict(line.split("=", 1) for line in (world.mine / "database.env").read_text().splitlines())
    for variable in ("DATABASE_URL", "DATABASE_READ_URL"):
        assert world.open(urls[variable].strip("'")) == f"{ROLE} true"
    for service in ("write", "read"):
        assert world.psql(PGSERVICEFILE=str(world.mine / "pg_service.conf"), PGSERVICE=service) == f"{ROLE} true"
    evidence = (world.artifacts / "routes.json").read_text()
    assert problems(json.loads(evidence)) == []
    assert json.loads(evidence)["sides"]["target"]["roles"][0]["password"] == "written"
    assert not [form for form in forms(SECRET) if form in evidence]


def test_4_again_changes_nothing(world: Routes) -> None:
    before = (world.artifacts / "routes.json").read_text()
    assert world.cut_over()[0] == 0
    assert (world.artifacts / "routes.json").read_text() == before


def test_5_the_old_values_stay_when_the_inventory_changes(world: Routes) -> None:
    old = {path.name: path.read_text() for path in (world.directory / "source" / quote(ROLE)).iterdir()}
    assert f"@localhost:{world.port}/" in old["database.env"]
    changed, output = world.cut_over("--diff", "-e", "routes_source_host=elsewhere", "-e", '{"pg_ha_application_passwords": {}}')
    assert changed > 0 and "********" in output
    assert {path.name: path.read_text() for path in (world.directory / "source" / quote(ROLE)).iterdir()} == old
    sides = json.loads((world.artifacts / "routes.json").read_text())["sides"]
    assert not sides["source"]["roles"][0]["as_declared"] and sides["target"]["roles"][0]["password"] == "not_known"
    assert not (world.mine / "pgpass").exists()


def test_6_with_a_secret_store_no_password_is_written(world: Routes) -> None:
    world.cut_over("-e", '{"pg_ha_secret_store": {"name": "vault", "key": "apps/{role}"}}')
    assert f"apps/{ROLE} in ClusterSecretStore vault" in (world.mine / "database.env").read_text()
    texts = [path.read_text() for path in world.mine.iterdir()]
    assert not [form for form in forms(SECRET) if any(form in text for text in texts)]
    assert "kind: ExternalSecret" in (world.mine / "external_secret.yml").read_text()


def test_7_a_password_that_no_role_has_is_refused(world: Routes) -> None:
    done = world.play(str(world.folder / "routes.yml"), "-e", '{"pg_ha_application_passwords": {"freight_ap": "secret-9"}}')
    assert done.code == 2 and "has a password for freight_ap, and the application roles are Freight app" in done.output
    assert "secret-9" not in done.output


def test_8_the_report_names_the_files(world: Routes) -> None:
    world.cut_over()
    assert world.play("report.yml").code == 0
    page = (world.artifacts / "report.md").read_text()
    assert f"- `{ROLE}`, password written: " in page and "`Freight%20app/database.env`" in page
    assert "the old values, for the way back" in page and PASSWORD not in page
    again = world.play("report.yml")
    assert (again.code, again.changed) == (0, 0)
