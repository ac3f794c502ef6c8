# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict over a migration: proved, wrong or open, and what comes next."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.plugin_utils._report import verdict

from tests.unit.report.sample import document, evidence, nothing


def cutover(client: dict[str, t.Any] | None = None, **changed: t.Any) -> dict[str, t.Any]:
    """Evidence of a cutover with something changed."""
    return document("cutover", **({"client": client} if client is not None else {}), **changed)


FINE = {"acknowledged": 5, "errors": 0, "lost": 0, "duplicated": 0}


def test_what_is_proved_is_good() -> None:
    said = verdict.judge(evidence())
    assert (said.tone, said.headline, said.wrong) == ("good", "The target serves the application", [])
    assert said.detail.startswith("No acknowledged write was lost")


def test_nothing_done_is_open() -> None:
    said = verdict.judge(nothing())
    assert (said.tone, said.headline, said.detail) == ("open", "The source serves the application", "The cutover is not done yet.")


def test_clients_that_went_back_are_served_by_the_source() -> None:
    assert verdict.judge(evidence(cutover=cutover(serves="source"))).headline == "The source serves the application"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"cutover": cutover({**FINE, "lost": 1}, outcome="failed")}, "not clean: client lost: 1"),
        ({"cutover": cutover({**FINE, "errors": 2, "duplicated": 3})}, "client errors: 2; client duplicated: 3"),
        ({"cutover": {**cutover(), "client": None}}, "client errors were not measured; client lost were not measured; client duplicated were not measured"),
        ({"cutover": cutover({"errors": 0, "lost": None, "duplicated": 0})}, "client lost were not measured"),
        ({"cutover": cutover(outcome="failed")}, "the clients' own record does not show that nothing was lost"),
        ({"parity": {}}, "parity was not measured"),
        ({"parity": document("parity", mismatches=[{"sentence": "public.t differs"}])}, "parity mismatches: 1"),
    ],
)
def test_what_is_wrong_or_unknown_after_a_cutover_is_in_the_verdict(changed: dict[str, t.Any], words: str) -> None:
    said = verdict.judge(evidence(**changed))
    assert said.tone == "bad" and said.headline == "The target serves the application" and "not clean" in said.detail
    assert words in said.detail


@pytest.mark.parametrize("found", [1, [{"sentence": "public.t differs"}]])
def test_before_a_cutover_a_mismatch_makes_the_target_unfit(found: t.Any) -> None:
    said = verdict.judge(evidence(cutover={}, parity=document("parity", mismatches=found)))
    assert (said.tone, said.headline) == ("bad", "The source serves the application")
    assert said.detail == "The target is not fit to take over: parity mismatches: 1."


def test_a_failover_that_did_not_pass_or_end_is_wrong() -> None:
    failover = document("failover", trouble="The store did not come back.")
    failover["scenarios"][1]["passed"] = False
    assert verdict.wrong(evidence(failover=failover)) == [
        "failover scenarios that did not pass: postmaster_killed", "the failover test could not go on",
    ]  # fmt: skip


def test_a_cutover_that_was_refused_has_moved_nobody() -> None:
    refused = {"started_at": "2027-01-01T00:00:00Z", "finished_at": "2027-01-01T00:00:01Z", "outcome": "refused", "reason": "A gate does not hold."}
    said = verdict.judge(evidence(cutover=refused))
    assert said.headline == "The source serves the application" and "its outcome is refused" in said.detail


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"cutover": {}}, "with `-e pg_ha_cutover_approved=true` it moves the clients"),
        ({"cutover": cutover(outcome="refused")}, "Phase Cut over ended as refused"),
        ({"cutover": {}, "parity": document("parity", outcome="failed")}, "Phase Verify ended as failed"),
        ({"cutover": {}, "replication": {}}, "Run playbook `replicate.yml`"),
        ({"failover": {}}, "Test the failover with `test_failover.yml`"),
        ({}, "`retire_source.yml` ends the migration"),
        ({"cutover": {**cutover(), "client": None}}, "do not retire anything before it is explained"),
    ],
)
def test_what_to_do_next(changed: dict[str, t.Any], words: str) -> None:
    assert words in verdict.next_step(evidence(**changed))


def test_blockers_are_counted() -> None:
    findings = [{"id": "wal_level", "severity": "blocker", "object": "wal_level", "message": "m", "fix": "f"}]
    assert "1 findings block the migration" in verdict.next_step(evidence(assessment=document("assessment", outcome="refused", findings=findings), cutover={}))


def test_a_migration_that_is_retired_is_told_with_what_stays() -> None:
    times = {"started_at": "2027-01-01T00:00:00Z", "finished_at": "2027-01-01T00:00:01Z", "outcome": "done"}
    retirement = {**times, "kept": ["The source stays fenced."], "not_removed": [], "backup": "No backup was made."}
    words = "The migration is retired: nothing of it is left beside the target. The source stays fenced. No backup was made."
    assert verdict.next_step(evidence(retirement=retirement)) == words
    assert [phase.name for phase in verdict.phases(evidence(retirement=retirement))][-1] == "Retire source"
    assert "ended as running" in verdict.next_step(evidence(retirement={**retirement, "outcome": "running", "finished_at": None}))
