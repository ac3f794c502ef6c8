# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The target was broken under load: what clients saw is in the evidence, and nothing of the faults is left on any host."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest
import testinfra

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
from tests.evidence import problems  # noqa: E402  (lives in tests/)

EVIDENCE = json.loads((ROOT / "artifacts" / "freight" / "failover.json").read_text(encoding="utf-8"))
SCENARIOS = ["switchover", "haproxy_killed"]
ROWS = {row["name"]: row for row in EVIDENCE["scenarios"]}


def test_the_evidence_is_whole():
    assert problems(EVIDENCE) == []
    assert EVIDENCE["outcome"] == "done" and EVIDENCE["serves"] == "target" and list(ROWS) == SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_clients_lost_nothing_and_were_served_in_time(name):
    row = ROWS[name]
    assert row["passed"] and (row["rpo_lost"], row["duplicated"], row["two_writers"], row["reasons"]) == (0, 0, [], [])
    assert row["route"] == "pooler" and row["acknowledged"] > 100 and row["layers_ms"]["client"] == row["rto_ms"] <= row["budget_ms"]


def test_a_planned_switchover_shows_no_error_and_is_a_new_timeline():
    assert ROWS["switchover"]["client_errors"] == 0 and len(ROWS["switchover"]["timelines"]) == 2


def test_what_was_not_hit_was_not_away():
    assert ROWS["haproxy_killed"]["layers_ms"]["server"] is None


def machine(name):
    """A host of the lab."""
    return testinfra.get_host(f"docker://pg-ha-lab-{name}")


def test_everybody_reads_the_health_of_the_target():
    leading = ROWS["haproxy_killed"]["writers"][-1]
    statement = "SET ROLE freight_app; SELECT takes_writes, streaming_standbys, synchronous_standbys FROM ha_migration.health"
    answer = machine(leading).run("su postgres -c %s", f'psql -X -q -A -t -d freight -c "{statement}"')
    assert answer.rc == 0 and answer.stdout.strip() == "t|2|1", answer.stdout + answer.stderr
    rows = machine(leading).run("su postgres -c %s", 'psql -X -q -A -t -d freight -c "SELECT count(*) FROM ha_migration.health_checks"')
    assert rows.stdout.strip() == "0"
