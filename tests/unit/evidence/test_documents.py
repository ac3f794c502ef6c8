# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents that roles put together are what their schemas say, and what is broken is refused.

Those of a real copy, comparison and cutover are looked at where tests make them: replication, parity, migration, playbooks.
"""

from __future__ import annotations

import copy
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._assessment import plan as assessment_plan
from ansible_collections.freight.pg_ha.plugins.module_utils._assessment.model import Options, Source, Table, Target

from tests.evidence import made_by, problems

TIMES = {"started_at": "2027-01-01T00:00:00Z", "finished_at": "2027-01-01T00:01:00.123Z"}
SETTINGS = {
    "wal_level": "replica", "max_replication_slots": "10", "max_wal_senders": "10", "fsync": "on", "full_page_writes": "on", "max_locks_per_transaction": "64",
    "max_connections": "100", "max_prepared_transactions": "0", "max_slot_wal_keep_size": "-1", "password_encryption": "scram-sha-256", "data_checksums": "on",
    "synchronous_commit": "on", "server_version": "15.1",
}  # fmt: skip
ADMINISTRATOR = {
    "name": "a", "superuser": False, "bypassrls": False, "createrole": True, "replication": True, "reads_statistics": True, "event_triggers": True,
}  # fmt: skip
REASON = {"ansible_failed_result": {"msg": "The pause did not end.", "error": "Undone"}}


def assessment() -> dict[str, t.Any]:
    """Of a source that has what every finding's form needs."""
    source = Source(
        version="PostgreSQL 15.1", version_num=150001, in_recovery=False, database="freight", settings=SETTINGS,
        administrator=ADMINISTRATOR,
        tables=(Table("public.t", primary_key=False, bytes=10, rows=1),), extensions={"pgcrypto": "1.3"},
    )  # fmt: skip
    target = Target(problem="no answer")
    findings, facts = assessment_plan.plan_findings(source, target, Options()), assessment_plan.summarize(source, target)
    fingerprint = assessment_plan.fingerprint(findings, facts)
    result = {"findings": assessment_plan.present(findings), "facts": facts, "fingerprint": fingerprint, "blockers": len(findings), **TIMES}
    return made_by("assessment", "__assessment_evidence", {"__assessment_result": result, "assessment_method": "logical"})


def topology() -> dict[str, t.Any]:
    """Of three members."""
    facts = {
        "write_endpoint": {"host": "lb1", "port": 5000}, "read_endpoint": {"host": "lb1", "port": 5001},
        "administrator_is_superuser": True, "slots_survive_failover": True,
    }  # fmt: skip
    return made_by("target_patroni", "__target_patroni_topology", {"target_patroni_members": ["pg1", "pg2", "pg3"], "pg_ha_target": facts})


def stopped_replication() -> dict[str, t.Any]:
    """Refused by a gate."""
    variables = {"__replication_begun": {"phase": TIMES}, "__replication_outcome": "refused", "__replication_reason": "There are no slots left."}
    return made_by("replication", "copy.yml: Copy | Record why it failed", variables)


def given_up() -> dict[str, t.Any]:
    """A link that followed, and was given up in favour of the source's disk."""
    known = {"__replication_journal": {"phase": TIMES}, "ansible_failed_result": {"msg": "The migration has been given up.", "error": "GivenUp"}}
    return made_by("replication", "verify.yml: Verify | Record that the migration was given up", known)


def stopped_cutover() -> dict[str, t.Any]:
    """Undone."""
    return made_by("cutover", "section.yml: Section | Record why it did not come to pass", {"__cutover_run": TIMES["started_at"], **REASON})


def differing_schemas() -> dict[str, t.Any]:
    """Parity that was not even begun."""
    side = {"sha256": "0" * 64, "objects": 1, "major": 15}
    mismatch = {"object": "table t", "side": "target", "problem": "is missing on the target", "sentence": "Table t: is missing on the target."}
    found = {"mismatches": [mismatch], "not_compared": [], "notes": [], "fingerprints": {"source": side, "target": side}}
    return made_by("verification", "__verification_schema_evidence", {"__verification_run": TIMES["started_at"], "__verification_schemas": found})


MADE = {made.__name__: made for made in (assessment, topology, stopped_replication, given_up, stopped_cutover, differing_schemas)}


@pytest.mark.parametrize("name", MADE)
def test_what_a_role_puts_together_is_what_the_schema_says(name: str) -> None:
    assert problems(MADE[name]()) == []


def test_refused_and_failed_are_told_apart() -> None:
    assert stopped_cutover()["outcome"] == "refused" and stopped_replication()["reason"] == "There are no slots left."


SUBSCRIPTION, PROBE = {"side": "target", "kind": "subscription", "name": "s"}, {"side": "target", "kind": "role", "name": "ha_migration_probe"}


def retired(began: str, *removed: dict[str, str], outcome: str = "done") -> dict[str, t.Any]:
    """What one run says of itself."""
    return {
        "schema": "freight.pg_ha/retirement/1", "started_at": began, "finished_at": began if outcome == "done" else None, "outcome": outcome,
        "serves": "target", "source": "fenced", "removed": list(removed), "kept": [], "not_removed": [], "backup": "None was made.",
    }  # fmt: skip


FIRST, LATER = "2027-01-01T00:00:00Z", "2027-02-01T00:00:00Z"
TAKEN = retired(FIRST, SUBSCRIPTION)


@pytest.mark.parametrize(
    ("standing", "removed", "says"),
    [
        pytest.param({}, [SUBSCRIPTION], retired(LATER, SUBSCRIPTION), id="the first run"),
        pytest.param(retired(FIRST, outcome="running"), [SUBSCRIPTION], {**retired(LATER, SUBSCRIPTION), "started_at": FIRST}, id="one that finishes it"),
        pytest.param(TAKEN, [], TAKEN, id="nothing was left"),
        pytest.param(TAKEN, [PROBE], {**retired(LATER, SUBSCRIPTION, PROBE), "started_at": FIRST}, id="after a failover test"),
    ],
)
def test_a_later_retirement_adds_to_what_the_first_has_taken_away(standing: dict[str, t.Any], removed: list[dict[str, str]], says: dict[str, t.Any]) -> None:
    result = {"actions": [row["name"] for row in removed], "evidence": retired(LATER, *removed)}
    made = made_by("retirement", "__retirement_evidence", {"__retirement_standing": standing, "__retirement_result": result})
    assert made == says and problems(made) == []


def broken(document: dict[str, t.Any], path: str, value: t.Any = None) -> dict[str, t.Any]:
    """A copy with one value replaced, or, without a value, taken away."""
    made = copy.deepcopy(document)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: t.Any = made
    for part in parents:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return made


@pytest.mark.parametrize(
    ("name", "path", "value", "words"),
    [
        ("assessment", "started_at", "yesterday", "$.started_at"),
        ("assessment", "findings.0.severity", "bad", "$.findings[0].severity"),
        ("assessment", "facts.bytes", "10 MB", "$.facts.bytes"),
        ("assessment", "fingerprint", None, "'fingerprint' is a required property"),
        ("assessment", "password", "s3cret", "'password' was unexpected"),
        ("topology", "target.write_endpoint.port", 0, "$.target.write_endpoint.port"),
        ("topology", "outcome", "maybe", "$.outcome"),
        ("stopped_replication", "outcome", "done", "$.outcome"),
        ("stopped_cutover", "lost", 0, "'lost' was unexpected"),
        ("stopped_cutover", "reason", "", "$.reason"),
        ("differing_schemas", "mismatches.0.sentence", None, "'sentence' is a required property"),
        ("differing_schemas", "outcome", "done", "$.outcome"),
        ("topology", "schema", "freight.pg_ha/topology/2", "there is no schema for"),
    ],
)
def test_what_is_broken_is_refused(name: str, path: str, value: t.Any, words: str) -> None:
    found = problems(broken(MADE[name](), path, value))
    assert any(words in problem for problem in found), found
