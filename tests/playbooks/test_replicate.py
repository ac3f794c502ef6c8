# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role replication between two servers: the guard against DDL while the target follows, a link that was given up for the source's disk, and rows that
verify has found to differ."""

from __future__ import annotations

import json
import pathlib
import shutil
import tempfile
import time
import typing as t

import pytest

from tests.evidence import problems
from tests.playbooks.conftest import World, free_port

# Playbooks replicate.yml and verify.yml without the poolers, which this machine does not have.
PLAY = """
- hosts: pg_ha_mover
  gather_facts: false
  roles:
    - role: freight.pg_ha.mover
    - role: freight.pg_ha.{role}
"""


class Pair(World):
    """A source, and a server beside it that is the target."""

    def __init__(self, folder: pathlib.Path) -> None:
        super().__init__(folder)
        self.ahead = free_port()

    def start(self) -> None:
        """Both servers, and on the target's host the files by which its link reaches the source."""
        super().start()
        shutil.copy(self.folder / "server.crt", self.folder / "target.crt")
        (self.folder / "pki").mkdir()
        shutil.copy(self.folder / "server.crt", self.folder / "pki" / "ca.crt")
        self.start_server("ahead", self.ahead)
        self.as_postgres("sh", "-c", "umask 077; echo 'localhost:*:*:ha_migration_link:x' > link_pgpass")
        link = {"fake_target_link": {"passfile": str(self.folder / "link_pgpass"), "ca_file": str(self.folder / "server.crt")}}
        self.write_inventory({**self.variables(), **link, "fake_target_port": self.ahead})
        for name, role in (("replicate", "replication"), ("verify", "verification")):
            (self.folder / f"{name}.yml").write_text(PLAY.format(role=role))

    def replicate(self, *arguments: str) -> t.Any:
        """Run it."""
        return self.play(str(self.folder / "replicate.yml"), *arguments, result_format="json")

    def verify(self, *arguments: str) -> t.Any:
        """Compare."""
        return self.play(str(self.folder / "verify.yml"), *arguments, result_format="json")

    def compared(self) -> str:
        """State of the comparison in the journal, empty where it has no row."""
        return self.sql("SELECT state FROM ha_migration.phase WHERE phase = 'verify'", port=self.ahead).strip()

    def row(self) -> dict[str, t.Any]:
        """State and evidence in the journal, which the exported file is equal to."""
        found = json.loads(
            self.sql("SELECT json_build_object('state', state, 'evidence', evidence) FROM ha_migration.phase WHERE phase = 'replicate'", port=self.ahead)
        )
        exported = json.loads((self.artifacts / "replication.json").read_text())
        assert exported == found["evidence"] and problems(exported) == []
        return dict(found)


@pytest.fixture(scope="module")
def world() -> t.Iterator[Pair]:
    """The world of this file."""
    made = Pair(pathlib.Path(tempfile.mkdtemp(prefix="pg_ha_replicate_", dir="/var/tmp")))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_0_method_dump_makes_the_role_of_the_way_back_and_rehearses(world: Pair) -> None:
    done = world.replicate("-e", "pg_ha_method=dump")
    assert done.code == 0, done.output
    roles = "SELECT rolreplication FROM pg_roles WHERE rolname = 'ha_migration_link'"
    assert (world.sql(roles, port=world.ahead), world.sql(roles)) == ("t\n", "")
    done = world.replicate("-e", "pg_ha_method=dump")
    assert (done.code, done.changed) == (0, 0), done.output


def test_1_once_the_target_follows_ddl_is_recorded_and_a_second_run_changes_nothing(world: Pair) -> None:
    done = world.replicate()
    assert done.code == 0, done.failure["msg"]
    assert world.row()["state"] == "done"
    world.sql("ALTER TABLE t ADD COLUMN note text; ALTER TABLE t DROP COLUMN note")
    assert world.sql("SELECT role, command, object FROM ha_migration.ddl ORDER BY number") == "postgres|ALTER TABLE|table public.t\n" * 2
    assert world.sql("SELECT count(*) FROM pg_event_trigger", port=world.ahead) == "0\n"
    done = world.replicate()
    assert (done.code, done.changed) == (0, 0), done.output
    # Roles are in no link: what changed in them since the copy comes with the next run, and no row is copied for it.
    world.sql("CREATE ROLE late LOGIN PASSWORD 'late'")
    done = world.replicate()
    assert (done.code, done.changed) == (0, 1), done.output
    verifier = "SELECT rolpassword FROM pg_authid WHERE rolname = 'late'"
    assert world.sql(verifier, port=world.ahead) == world.sql(verifier) != ""


def test_2_the_policy_is_declared(world: Pair) -> None:
    done = world.replicate("-e", "pg_ha_ddl_policy=refuse")
    assert (done.code, done.changed) == (0, 1), done.output
    said = world.sql(
        "DO $do$ DECLARE told text; BEGIN ALTER TABLE t ADD COLUMN note text; EXCEPTION WHEN object_not_in_prerequisite_state THEN "
        "GET STACKED DIAGNOSTICS told = MESSAGE_TEXT; CREATE TEMP TABLE said AS SELECT told; END $do$; SELECT told FROM said"
    )
    assert said.splitlines()[-1] == f"DDL is refused while migration {world.migration} follows this database: ALTER TABLE (table public.t)"


def test_3_a_link_that_the_source_has_given_up_is_told_and_recorded(world: Pair) -> None:
    world.sql("ALTER SUBSCRIPTION ha_migration_forward DISABLE", port=world.ahead)
    world.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '32MB'; SELECT pg_reload_conf()")
    for _segment in range(6):
        world.sql("SELECT pg_logical_emit_message(false, 'test', 'x'), pg_switch_wal()")
    deadline = time.monotonic() + 30
    while world.sql("CHECKPOINT; SELECT wal_status FROM pg_replication_slots").strip().splitlines()[-1] != "lost":
        assert time.monotonic() < deadline
    done = world.replicate("--check")
    assert done.code == 2 and done.failure["msg"].startswith("The migration has been given up in favour of the source's disk: "), done.output
    assert world.row()["state"] == "done"
    done = world.replicate()
    assert done.code == 2 and done.failure["msg"].startswith("The migration has been given up in favour of the source's disk: "), done.output
    row = world.row()
    assert row["state"] == "failed" and row["evidence"]["reason"] == done.failure["msg"] and "`pg-ha replicate --repeat replicate`" in done.failure["msg"]
    # The application goes on as if there had been no migration, whatever the policy.
    world.sql("CREATE TABLE more (id int PRIMARY KEY); INSERT INTO more VALUES (1)")


def test_4_the_command_that_it_names_begins_anew(world: Pair) -> None:
    done = world.replicate("-e", '{"pg_ha_repeat": ["replicate"], "pg_ha_slot_wal_limit_mib": 64}')
    assert done.code == 0, done.output
    assert world.row()["state"] == "done"
    assert world.sql("SELECT * FROM more", port=world.ahead) == "1\n"


def test_5_what_verify_has_found_to_differ_is_copied_again_and_compared_again(world: Pair) -> None:
    world.sql("INSERT INTO t SELECT generate_series(1, 100)")
    done = world.verify()
    assert (done.code, world.compared()) == (0, "done"), done.output
    # As a lost leader's successor would lack them.
    world.sql("SET session_replication_role = replica; DELETE FROM t WHERE id <= 3; INSERT INTO more VALUES (9)", port=world.ahead)
    done = world.verify("-e", '{"pg_ha_repeat": ["verify"]}')
    assert (done.code, world.compared()) == (2, "failed"), done.output
    assert "Run playbook replicate.yml (or migrate.yml) again: it copies the tables whose rows differ again" in done.failure["msg"]
    said = "Verify has found that 2 tables differ: they are copied again (public.more, public.t)."
    done = world.replicate("--check")
    assert done.code == 0 and said in done.output, done.output
    assert world.sql("SELECT count(*) FROM t", port=world.ahead) == "97\n" and world.compared() == "failed"
    done = world.replicate()
    assert done.code == 0 and said in done.output, done.output
    resumed = world.row()["evidence"]["resumed"]
    assert sorted(resumed["differed"]) == ['"public"."more"', '"public"."t"'] and resumed["tables_copied_again"] == 2
    assert world.compared() == ""
    done = world.replicate()
    assert (done.code, done.changed) == (0, 0) and "Verify has found" not in done.output, done.output
    done = world.verify()
    assert (done.code, world.compared()) == (0, "done"), done.output


def test_6_a_copy_that_changes_something_makes_the_comparison_void_and_what_cannot_be_mended_is_told(world: Pair) -> None:
    done = world.replicate("-e", '{"replication_again": ["public.t"]}')
    assert (done.code, world.compared()) == (0, ""), done.output
    world.sql("SELECT lo_from_bytea(0, 'since the copy')")
    done = world.verify()
    assert (done.code, world.compared()) == (2, "failed"), done.output
    assert "large objects are copied again with everything else (pg_ha_repeat: [replicate])" in done.failure["msg"]
    done = world.replicate()
    assert (done.code, done.changed) == (0, 0), done.output
    assert "What else it has found is not mended by copying tables: Large objects: " in done.output
    assert world.compared() == "failed"
    done = world.replicate("-e", '{"pg_ha_repeat": ["replicate"]}')
    assert (done.code, world.compared()) == (0, ""), done.output
    done = world.verify()
    assert (done.code, world.compared()) == (0, "done"), done.output


def test_7_what_the_failover_test_has_cost_is_mended_in_the_same_run_and_nothing_else(world: Pair) -> None:
    def damage() -> None:
        world.sql("SET session_replication_role = replica; DELETE FROM t WHERE id > 1000", port=world.ahead)

    world.sql("INSERT INTO t SELECT generate_series(1001, 1003)")
    done = world.verify("-e", '{"pg_ha_repeat": ["verify"]}')
    assert (done.code, world.compared()) == (0, "done"), done.output
    mend = ("-e", '{"verification_mend_enabled": true, "pg_ha_repeat": ["verify"]}')
    damage()
    done = world.verify(*mend)
    assert (done.code, world.compared()) == (2, "failed"), done.output
    assert "copied again, then everything" not in done.output
    world.sql(
        "INSERT INTO ha_migration.phase (migration, phase, state, inputs, run, started_at, finished_at) "
        f"VALUES ('{world.migration}', 'test_failover', 'done', '', 'x', now(), now())",
        port=world.ahead,
    )
    done = world.verify(*mend)
    assert (done.code, world.compared()) == (0, "done"), done.output
    assert "The failover test has cost rows of public.t on the target" in done.output
    assert world.sql("SELECT count(*) FROM t WHERE id > 1000", port=world.ahead) == "3\n"
    # Mended is mended: what differs after that has another reason.
    damage()
    done = world.verify(*mend)
    assert (done.code, world.compared()) == (2, "failed"), done.output
