# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the secrets of an inventory come to while playbooks run at -vvvv with diffs, on a server that logs and counts every statement."""

from __future__ import annotations

import os
import pathlib
import re
import tempfile
import typing as t

import pytest

from tests.playbooks.conftest import PASSWORD, SECRETS
from tests.playbooks.test_routes import PLAY, ROLE, SECRET, Routes
from tests.secret_search import Sampler, Search

# Every printable ASCII character is in one of them; none is like another.
VALUES = {
    f"pg_ha_{name}_password": f"{name}-{chr(33 + 10 * number)}{''.join(chr(code) for code in range(33 + 10 * number, min(127, 44 + 10 * number)))}"
    for number, name in enumerate(SECRETS)
}

# A server that keeps every statement, in its log and in its statistics.
LOUD = (
    "log_statement=all", "log_min_duration_statement=0", "log_min_error_statement=debug5", "log_connections=on",
    "shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track=all", "pg_stat_statements.track_utility=on",
)  # fmt: skip

MORE = """
  tasks:
    - name: Make our schema and roles, in whose passwords every character is
      freight.pg_ha.migration_schema:
        service_file: "{{ pg_ha_mover.service_file }}"
        service: source
    - name: Make the roles without hiding the task
      freight.pg_ha.migration_role:
        service_file: "{{ pg_ha_mover.service_file }}"
        service: source
        name: "ha_migration_{{ item }}"
        password: "{{ lookup('ansible.builtin.vars', 'pg_ha_' ~ item ~ '_password') }}"
        purpose: "{{ item }}"
      loop: [link, dead_man, probe]
    - name: Let something run for longer, as copy and comparison do
      freight.pg_ha.assessment_info:
        service_file: "{{ pg_ha_mover.service_file }}"
      async: 60
      poll: 0
    - name: Fail in a statement that holds a verifier
      freight.pg_ha.migration_role:
        service_file: "{{ pg_ha_mover.service_file }}"
        service: source
        name: pg_not_allowed
        password: "{{ pg_ha_link_password }}"
        purpose: link
      register: failed
      failed_when: failed.msg is not defined
"""


class Loud(Routes):
    """The world of the routes, whose secrets are long, and whose server tells everything that it is told."""

    def variables(self) -> dict[str, t.Any]:
        """With secrets that can be searched for."""
        return {**super().variables(), **VALUES}

    def start(self) -> None:
        """What the fixture itself has said to the servers is no matter of the playbooks."""
        super().start()
        self.stop_server("data")
        self.log = self.folder / "data.log"
        self.log.write_text("")
        self.start_server("data", self.port, *LOUD)
        self.log.write_text("")
        self.sql("CREATE EXTENSION pg_stat_statements; SELECT pg_stat_statements_reset()")
        (self.folder / "routes.yml").write_text(PLAY + MORE)


@pytest.fixture(scope="module")
def world() -> t.Iterator[Loud]:
    """The world of this file."""
    made = Loud(pathlib.Path(tempfile.mkdtemp(prefix="pg_ha_secrets_", dir="/var/tmp")))
    if not list((made.bin.parent / "lib").glob("pg_stat_statements.so")):
        pytest.skip("pg_stat_statements is not installed")
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def ran(world: Loud) -> t.Iterator[tuple[Loud, dict[str, str], Sampler, pathlib.Path]]:
    """Everything that these tests can run: the output by playbook, the processes meanwhile, and the home of whoever ran it."""
    home = world.folder / "home"
    home.mkdir(mode=0o755)
    before = os.environ["HOME"]
    os.environ["HOME"] = str(home)
    outputs = {}
    try:
        world.journal("target")
        with Sampler() as sampler:
            for playbook in ("assess.yml", str(world.folder / "routes.yml"), "status.yml", "report.yml"):
                done = world.play(playbook, "-vvvv", "--diff")
                outputs[playbook] = done.output
                # There is no pooler here, which status calls unknown: what a failure shows is searched too.
                assert done.code == (2 if playbook == "status.yml" else 0), done.output[-3000:]
        yield world, outputs, sampler, home
    finally:
        os.environ["HOME"] = before


def search() -> Search:
    """For all secrets of this world."""
    return Search({**VALUES, "administrator": PASSWORD, "application": SECRET})


# With a verifier an attacker can guess, and some can be passed on.
VERIFIER = re.compile(r"SCRAM-SHA-256\$\d+:\S{0,20}")


def look_into_server(found: Search, log: str, counted: str) -> None:
    """Neither a loud server's log nor its statistics have a secret, or what stands for one."""
    assert "statement: " in log and "ha_migration" in counted
    found.text("log", log)
    found.text("pg_stat_statements", counted)
    assert found.hits == []
    assert VERIFIER.findall(log) == [] and VERIFIER.findall(counted) == []


def look_into_processes(found: Search, sampler: Sampler) -> None:
    """No process that ran meanwhile had a secret in its arguments."""
    seen = b"\n".join(sampler.seen)
    assert sampler.looks > 100 and b"ansible-playbook" in seen
    found.text("process list", seen)
    assert found.hits == []


def look_into_what_is_left(found: Search, home: pathlib.Path, artifacts: pathlib.Path) -> None:
    """Neither the home of who ran Ansible nor the evidence holds a secret."""
    assert found.tree(str(home / ".ansible_async")) > 0, "long tasks have left no trace: this looks at the wrong place"
    found.tree(str(home))
    assert found.tree(str(artifacts)) > 1
    assert found.hits + found.kept == []


def look_into_temporary_folders(found: Search) -> None:
    """No secret of the inventory is left there, but in the worlds of these tests, which may run side by side, and in folders of who runs them."""
    but = [str(path) for pattern in ("/var/tmp/pg_ha_*", "/tmp/pytest-*", "/tmp/bash_jobs*") for path in pathlib.Path("/").glob(pattern.lstrip("/"))]
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        found.tree(folder, but=but)
    assert [hit for hit in found.hits + found.kept if hit["secret"] in VALUES] == []


def test_every_character_is_in_a_secret() -> None:
    assert {chr(code) for code in range(33, 127)} <= set("".join(VALUES.values()))


def test_the_output_at_vvvv_has_none(ran: tuple[Loud, dict[str, str], Sampler, pathlib.Path]) -> None:
    _world, outputs, sampler, _home = ran
    found = search()
    for playbook, output in outputs.items():
        assert "EXEC" in output or "Loaded" in output, "this was not -vvvv"
        found.text(playbook, output)
    assert found.searched["bytes"] > 50_000 and found.hits == []
    assert re.search(r"\*{8}|VALUE_SPECIFIED_IN_NO_LOG_PARAMETER|output has been hidden", " ".join(outputs.values()))


def test_no_process_has_one_in_its_arguments(ran: tuple[Loud, dict[str, str], Sampler, pathlib.Path]) -> None:
    _world, _outputs, sampler, _home = ran
    look_into_processes(search(), sampler)


def test_what_ansible_leaves_at_home_and_the_evidence_have_none(ran: tuple[Loud, dict[str, str], Sampler, pathlib.Path]) -> None:
    world, _outputs, _sampler, home = ran
    look_into_what_is_left(search(), home, world.folder / "artifacts")


def test_the_servers_log_and_statistics_have_none(ran: tuple[Loud, dict[str, str], Sampler, pathlib.Path]) -> None:
    world, *_rest = ran
    look_into_server(search(), world.log.read_text(errors="replace"), world.sql("SELECT query FROM pg_stat_statements"))


def test_they_are_in_the_files_that_hold_them_and_those_are_their_owners_alone(ran: tuple[Loud, dict[str, str], Sampler, pathlib.Path]) -> None:
    world, *_rest = ran
    found = search()
    assert found.tree(str(world.run_directory)) > 2 and found.tree(str(world.directory)) > 4
    assert found.hits == []
    places = {hit["place"] for hit in found.kept}
    told = {str(world.directory / side / ROLE.replace(" ", "%20") / name) for side in ("source", "target") for name in ("pgpass", "database.env", "secret.yml")}
    assert places == {str(world.run_directory / "pgpass"), str(world.run_directory / "link_password"), *told}


def test_nothing_is_left_in_temporary_folders(ran: tuple[Loud, dict[str, str], Sampler, pathlib.Path]) -> None:
    look_into_temporary_folders(search())
