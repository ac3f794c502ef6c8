# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks assess and report against a real server with TLS and a password that quotes badly."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import typing as t

from tests.playbooks.conftest import PASSWORD, ROOT, World


def test_1_check_mode_on_a_fresh_inventory_looks_and_writes_nothing(world: World) -> None:
    done = world.play("assess.yml", "--check", "--diff")
    assert done.code == 0, done.output
    assert "target_unknown" in done.output and "Not there yet, or without a CA certificate on the controller: the target" in done.output
    assert not world.artifacts.exists()
    assert world.sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'ha_migration'") == "0\n"


def test_1_status_says_that_nothing_has_run(world: World) -> None:
    done = world.play("status.yml")
    assert (done.code, done.changed) == (0, 0), done.output
    assert "The source serves the application" in done.output and "Next: `pg-ha assess`" in done.output
    assert not world.artifacts.exists()


def test_2_a_clean_source_passes_and_leaves_evidence(world: World) -> None:
    done = world.play("assess.yml")
    assert done.code == 0, done.output
    evidence = world.evidence()
    assert (evidence["schema"], evidence["outcome"]) == ("freight.pg_ha/assessment/1", "done")
    assert evidence["facts"]["tables"] == 1 and evidence["facts"]["version_num"] // 10000 == world.major
    assert {finding["id"] for finding in evidence["findings"]} >= {"target_unknown"}
    for name in ("pgpass", "pg_service.conf"):
        assert (world.run_directory / name).stat().st_mode & 0o777 == 0o600
    assert world.run_directory.stat().st_mode & 0o777 == 0o700


def test_3_again_changes_nothing(world: World) -> None:
    before = world.evidence()
    done = world.play("assess.yml")
    assert (done.code, done.changed) == (0, 0), done.output
    assert world.evidence() == before


def test_4_a_blocker_is_shown_with_its_fix_and_fails_after_all_findings(world: World) -> None:
    world.sql("CREATE TABLE nokey (a int); CREATE TABLE gone (a int PRIMARY KEY); ALTER TABLE gone REPLICA IDENTITY NOTHING")
    done = world.play("assess.yml")
    assert done.code == 2
    assert "ALTER TABLE public.nokey REPLICA IDENTITY FULL;" in done.output and "ALTER TABLE public.gone REPLICA IDENTITY DEFAULT;" in done.output
    assert "2 blockers stand in the way" in done.output
    assert world.evidence()["outcome"] == "refused"
    assert world.play("assess.yml", "-e", '{"assessment_accepted": ["replica_identity:public.nokey", "replica_identity:public.gone"]}').code == 0
    world.sql("DROP TABLE nokey, gone")
    assert world.play("assess.yml").code == 0
    assert world.evidence()["outcome"] == "done"


def test_5_the_report_comes_from_the_evidence_and_stays(world: World) -> None:
    assert world.play("report.yml", "--check").code == 0
    assert not (world.artifacts / "report.md").exists()
    done = world.play("report.yml")
    assert done.code == 0, done.output
    page = (world.artifacts / "report.md").read_text()
    assert "**The source serves the application.**" in page and "Run playbook `provision.yml`" in page
    again = world.play("report.yml")
    assert (again.code, again.changed) == (0, 0)


@contextlib.contextmanager
def target_serves(world: World) -> t.Iterator[None]:
    """By a decision, which alone says so; source and target are one database here, so that the source would know it too."""
    world.sql(
        "CREATE TABLE ha_migration.decision AS SELECT 1::bigint AS epoch, 'target'::text AS serves; "
        "CREATE TABLE ha_migration.marker AS TABLE ha_migration.decision; CREATE TABLE ha_migration.marker_back AS TABLE ha_migration.decision WITH NO DATA"
    )
    try:
        yield
    finally:
        world.sql("DROP TABLE ha_migration.decision, ha_migration.marker, ha_migration.marker_back")


def test_6_a_target_that_is_there_is_asked_and_after_the_cutover_the_assessment_stands(world: World) -> None:
    shutil.copy(world.folder / "server.crt", world.folder / "target.crt")
    # Source and target are one server here, so everything of the source is in the target's way.
    accepted = ("-e", '{"assessment_accepted": ["target_occupied"]}')
    done = world.play("assess.yml", "-e", f"assessment_target_major_version={world.major}", *accepted)
    assert done.code == 0, done.output
    assert "target_unknown" not in done.output
    assert "WARNING target_occupied [public.t] public.t exists on the target and does not come from a copy of ours" in done.output
    assert world.evidence()["facts"]["target_version_num"] // 10000 == world.major
    world.sql(
        "CREATE SCHEMA ha_migration; CREATE TABLE ha_migration.phase (migration text, phase text, state text NOT NULL, inputs text NOT NULL, "
        "run text NOT NULL, started_at timestamptz NOT NULL, finished_at timestamptz, evidence jsonb, PRIMARY KEY (migration, phase)); "
        f"INSERT INTO ha_migration.phase VALUES ('{world.migration}', 'cut_over', 'done', '', '', now(), now(), '{{}}'); CREATE TABLE nokey (a int)"
    )
    with target_serves(world):
        done = world.play("assess.yml")
        assert (done.code, done.changed) == (0, 0), done.output
        assert "The assessment before the cutover stands" in done.output
        assert world.play("assess.yml", "-e", '{"pg_ha_repeat": ["assess"]}', *accepted).code == 2
    # What the journal says of a cutover is not believed over the decisions.
    assert "The assessment before the cutover stands" not in world.play("assess.yml", *accepted).output


def test_7_status_reads_journal_and_real_state_and_names_what_is_unknown(world: World) -> None:
    done = world.play("status.yml")
    assert (done.code, done.changed) == (0, 0), done.output
    assert "cut over done at" in done.output and "The source serves the application" in done.output and "assess refused at" in done.output
    world.sql("ALTER SCHEMA ha_migration RENAME TO gone; CREATE SCHEMA ha_migration; CREATE TABLE ha_migration.phase (nothing int)")
    done = world.play("status.yml")
    assert done.code == 2 and "The journal cannot be read" in done.output, done.output
    world.sql("DROP SCHEMA ha_migration CASCADE; ALTER SCHEMA gone RENAME TO ha_migration")


def test_8_pg_ha_runs_the_same_playbooks_and_keeps_no_password(world: World) -> None:
    def pg_ha(*arguments: str) -> tuple[int, str]:
        command = [str(pathlib.Path(sys.executable).with_name("pg-ha")), *arguments, "-i", str(world.folder / "inventory.yml")]
        environment = {**os.environ, "ANSIBLE_ROLES_PATH": str(ROOT / "tests" / "playbooks" / "roles"), "PG_HA_RUNS_DIR": str(world.folder / "runs")}
        done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False, timeout=240)
        return done.returncode, done.stdout + done.stderr

    with target_serves(world):
        code, output = pg_ha("assess", "-vvv")
    assert code == 0 and "The assessment before the cutover stands" in output and "Done: assess" in output, output
    refused, second = pg_ha("assess", "--repeat", "assess")
    assert refused == 3 and "blockers stand in the way" in second, second
    code, third = pg_ha("status", "--json")
    status = json.loads(third.splitlines()[-1])
    assert (code, status["outcome"], status["status"]["serves"], status["unknown"]) == (0, "done", "source", []), third
    kept = [path for path in (world.folder / "runs").rglob("*") if path.is_file()]
    assert len(kept) == 6
    for text in (output, second, third, *(path.read_text() for path in kept)):
        assert PASSWORD not in text and json.dumps(PASSWORD)[1:-1] not in text and r"a\:b" not in text
