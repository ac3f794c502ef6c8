# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cutover that was killed twice, rolled back and made again: nothing was lost, one side writes, the rest was finished."""

from __future__ import annotations

import json
import pathlib
import time

import pytest
import testinfra

ARTIFACTS = pathlib.Path(__file__).resolve().parents[3] / "artifacts" / "freight"
DECISIONS = "SELECT epoch, serves, decided_by FROM ha_migration.decision ORDER BY epoch"
LOAD = "cd /opt/freight_load && python3 -m load"


def machine(name):
    """A host of the lab."""
    return testinfra.get_host(f"docker://pg-ha-lab-{name}")


def ask(name, statement):
    """Rows of a statement by the superuser on a database host, as lines."""
    result = machine(name).run("su postgres -c %s", f"psql -X -q -A -t -d freight <<'SQL'\n{statement}\nSQL")
    assert result.rc == 0, result.stderr
    return result.stdout.split("\n")[:-1]


def leader():
    """The host that leads the target."""
    for name in ("pg1", "pg2", "pg3"):
        if ask(name, "SELECT pg_is_in_recovery()") == ["f"]:
            return name
    pytest.fail("no host of the target leads")


@pytest.fixture(scope="module")
def ledger():
    """The load's account after it was stopped."""
    mover = machine("mover")
    if mover.run(f"{LOAD} status").rc == 0:
        assert mover.run(f"{LOAD} stop").rc == 0
    result = mover.run(f"{LOAD} verdict --json")
    assert result.rc in (0, 1), result.stderr
    return json.loads(result.stdout)


def test_clients_saw_no_error_and_nothing_was_lost(ledger):
    assert ledger["acknowledged"] > 1000
    assert (ledger["errors"], ledger["lost"], ledger["duplicated"], ledger["unexpected"]) == (0, 0, 0, 0), ledger["problems"]


def test_clients_were_held_for_less_than_the_budget_and_two_seconds(ledger):
    assert ledger["write_pause_ms"] < 7000


def test_the_first_attempt_was_decided_for_the_source_by_the_dead_man_and_the_second_for_the_target():
    assert ask("source", DECISIONS) == ["1|source|lb1", "2|target|mover", "4|target|mover"]


def test_the_clients_returned_between_by_a_decision_of_the_target():
    assert ask(leader(), DECISIONS) == ["3|source|mover"]


def test_the_leadership_was_moved_by_the_switchover_and_by_the_update():
    assert int(ask(leader(), "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int")[0]) >= 3


def test_every_member_was_restarted_and_follows():
    decided = ask("source", "SELECT extract(epoch FROM max(at)) FROM ha_migration.decision")
    for name in ("pg1", "pg2", "pg3"):
        assert ask(name, f"SELECT extract(epoch FROM pg_postmaster_start_time()) > {decided[0]}") == ["t"], name
    assert ask(leader(), "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND application_name LIKE 'pg%'") == ["2"]


def test_no_guard_of_a_pause_is_left_standing():
    assert not machine("lb1").service("pg-ha-pause-guard").is_running


def test_every_attempt_is_closed():
    for name in ("source", leader()):
        assert ask(name, "SELECT count(*) FROM ha_migration.epoch WHERE state = 'open'") == ["0"]


def test_the_old_primary_refuses():
    result = machine("source").run("su postgres -c %s", "psql -X -d freight -c 'DELETE FROM app.ledger WHERE false'")
    assert result.rc != 0 and "takes no writes" in result.stderr


def test_the_source_follows_and_nothing_else_is_left_of_links():
    assert ask("source", "SELECT count(*) FROM pg_replication_slots") == ["0"]
    assert ask("source", "SELECT subname, subenabled FROM pg_subscription") == ["ha_migration_reverse|t"]
    assert ask(leader(), "SELECT count(*) FROM pg_subscription") == ["0"]
    assert ask(leader(), "SELECT slot_name, active FROM pg_replication_slots WHERE slot_type = 'logical'") == ["ha_migration_reverse|t"]


def test_what_was_written_on_the_target_is_on_the_source(ledger):
    """The load has stopped: the source catches up."""
    for _look in range(50):
        numbers = [ask(name, "SELECT count(*), sum(amount) FROM app.ledger") for name in ("source", leader())]
        if numbers[0] == numbers[1]:
            return
        time.sleep(0.2)
    pytest.fail(f"source {numbers[0]}, target {numbers[1]}")


def test_the_evidence_is_that_of_the_finished_cutover():
    cutover = json.loads((ARTIFACTS / "cutover.json").read_text(encoding="utf-8"))
    assert (cutover["outcome"], cutover["serves"], cutover["epoch"]) == ("done", "target", 4)
