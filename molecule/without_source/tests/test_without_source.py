# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source was retired, twice, and the target broken afterwards: nothing of the migration is left where clients are served, and the source refuses."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
import testinfra

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT))
from tests.evidence import problems  # noqa: E402  (lives in tests/)

ARTIFACTS = ROOT / "artifacts" / "freight"
MEMBERS = ("pg1", "pg2", "pg3")


def machine(name):
    """A host of the lab."""
    return testinfra.get_host(f"docker://pg-ha-lab-{name}")


def ask(name, statement):
    """What the server on a database host answers its superuser."""
    answer = machine(name).run("su postgres -c %s", f"psql -X -q -A -t -d freight <<'SQL'\n{statement}\nSQL")
    assert answer.rc == 0, answer.stderr
    return answer.stdout.strip()


@pytest.fixture(scope="module")
def leader():
    """The host that leads the target."""
    (found,) = [name for name in MEMBERS if ask(name, "SELECT pg_is_in_recovery()") == "f"]
    return found


def evidence(name):
    """One document, which is what its schema says."""
    found = json.loads((ARTIFACTS / f"{name}.json").read_text(encoding="utf-8"))
    assert problems(found) == []
    return found


def test_the_evidence_says_what_was_taken_away():
    found = evidence("retirement")
    assert (found["outcome"], found["serves"], found["source"], found["not_removed"]) == ("done", "target", "fenced", [])
    assert {row["kind"] for row in found["removed"]} >= {"subscription", "slot", "publication", "guard", "role", "schema"}


@pytest.mark.parametrize("host", ["source", *MEMBERS])
def test_no_link_is_left(host):
    assert ask(host, "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical'") == "0"
    assert ask(host, "SELECT count(*) FROM pg_subscription") == "0" and ask(host, "SELECT count(*) FROM pg_publication") == "0"


def test_of_our_schema_only_the_health_is_left_on_the_target_and_no_guard(leader):
    relations = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'ha_migration'::regnamespace AND relkind IN ('r', 'v')"
    assert ask(leader, relations) == "health health_checks"
    assert ask(leader, "SELECT count(*) FROM pg_trigger WHERE tgname = 'ha_migration_guard'") == "0"
    assert ask(leader, "SELECT count(*) FROM pg_event_trigger WHERE evtname LIKE 'ha\\_migration%'") == "0"


def test_the_source_refuses_for_good_and_has_no_role_of_ours():
    result = machine("source").run("su postgres -c %s", "psql -X -d freight -c 'DELETE FROM app.ledger WHERE false'")
    assert result.rc != 0 and "takes no writes" in result.stderr
    assert ask("source", "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ha\\_migration%'") == "0"


def test_nothing_of_ours_is_left_on_the_hosts():
    lb1 = machine("lb1")
    assert not lb1.file("/etc/systemd/system/pg-ha-dead-man.service").exists and not lb1.file("/etc/pg_ha/dead_man").exists
    assert lb1.run("systemctl is-active pg-ha-dead-man").stdout.strip() == "inactive"
    assert os.path.basename(lb1.file("/etc/pgbouncer/route.ini").linked_to) == "route.target.ini"
    for name in MEMBERS:
        assert not machine(name).file("/etc/pg_ha/link/pgpass").exists


def test_the_pooler_leads_to_the_target_also_when_it_starts_anew():
    lb1 = machine("lb1")
    assert lb1.run("systemctl restart pgbouncer").rc == 0
    write = "PGSERVICEFILE=/etc/freight_load/pg_service.conf psql -X -At -c %s service=freight"
    answer = machine("mover").run(write, "INSERT INTO app.settings SELECT * FROM app.settings LIMIT 0; SELECT pg_is_in_recovery()")
    assert answer.rc == 0 and answer.stdout.strip().endswith("f"), answer.stderr


def test_the_target_was_broken_with_consent_and_clients_lost_nothing():
    found = evidence("failover")
    (row,) = found["scenarios"]
    assert found["outcome"] == "done" and row["name"] == "store_member_lost" and row["passed"] and row["acknowledged"] > 100
    assert (row["rpo_lost"], row["duplicated"], row["two_writers"]) == (0, 0, [])


def test_status_says_that_it_is_over_and_names_what_the_failover_test_has_left():
    program = pathlib.Path(sys.executable).with_name("ansible-playbook")
    argv = [str(program), "-i", str(ROOT / "inventories" / "lab"), str(ROOT / "playbooks" / "status.yml")]
    done = subprocess.run(argv, cwd=ROOT, env={**os.environ, "ANSIBLE_NOCOLOR": "1"}, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    told = " ".join(done.stdout.split())
    assert "The migration is retired since" in told
    left = re.findall(r"Leftover: (.*?)\.'? ", told)
    assert left == ["role ha_migration_probe on the target holds back nothing; it is removed by `pg-ha retire-source`"], told[-3000:]
