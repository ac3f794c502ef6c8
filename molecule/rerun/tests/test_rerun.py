# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cutover that was killed twice: nothing was lost, one side writes, the rest was finished."""

from __future__ import annotations

import json
import pathlib

import pytest
import testinfra

ARTIFACTS = pathlib.Path(__file__).resolve().parents[3] / "artifacts" / "freight"
LOAD = "cd /opt/freight_load && python3 -m load"


def machine(name):
    """A host of the lab."""
    return testinfra.get_host(f"docker://pg-ha-lab-{name}")


def ask(name, statement):
    """Rows of a statement by the superuser on a database host, as lines."""
    result = machine(name).run("su postgres -c %s", f"psql -X -q -A -t -d freight <<'SQL'\n{statement}\nSQL")
    assert result.rc == 0, result.stderr
    return result.stdout.split("\n")[:-1]


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
    assert ask("source", "SELECT epoch, serves, decided_by FROM ha_migration.decision ORDER BY epoch") == ["1|source|lb1", "2|target|mover"]


def test_every_attempt_is_closed():
    assert ask("source", "SELECT count(*) FROM ha_migration.epoch WHERE state = 'open'") == ["0"]


def test_the_old_primary_refuses():
    result = machine("source").run("su postgres -c %s", "psql -X -d freight -c 'DELETE FROM app.ledger WHERE false'")
    assert result.rc != 0 and "takes no writes" in result.stderr


def test_no_link_is_left():
    assert ask("source", "SELECT count(*) FROM pg_replication_slots") == ["0"]


def test_the_evidence_is_that_of_the_finished_cutover():
    cutover = json.loads((ARTIFACTS / "cutover.json").read_text(encoding="utf-8"))
    assert (cutover["outcome"], cutover["serves"], cutover["epoch"]) == ("done", "target", 2)
