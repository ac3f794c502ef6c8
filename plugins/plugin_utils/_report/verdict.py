# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What the evidence says of a migration as a whole: how far it is, who serves, what is wrong, what comes next. Pure; unknown is never taken as 0."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

Document = t.Mapping[str, t.Any]
Evidence = t.Mapping[str, Document]

COUNTS = ("errors", "lost", "duplicated")
# Which way a verdict points: proved, not as it has to be, or not decided yet.
GOOD, BAD, OPEN = "good", "bad", "open"


@dataclass(frozen=True)
class Phase:
    """A phase and what it has left.

    :param needed: whether the migration is not finished without it
    """

    name: str
    playbook: str
    document: Document
    needed: bool

    @property
    def outcome(self) -> str | None:
        """How it ended, None where it has left nothing."""
        return self.document.get("outcome")

    @property
    def is_open(self) -> bool:
        """Whether it has still to be done."""
        return self.needed and self.outcome != "done"


@dataclass(frozen=True)
class Verdict:
    """The first thing to read.

    :param tone: ``good``, ``bad`` or ``open``
    :param headline: who serves
    :param detail: what that rests on, a sentence
    :param wrong: what is not as it has to be, or was not measured
    """

    tone: str
    headline: str
    detail: str
    wrong: list[str]


def count(value: t.Any) -> int | None:
    """A number, or how many there are; None where it was not measured."""
    if value is None or isinstance(value, bool):
        return None
    return value if isinstance(value, int) else len(value)


def phases(evidence: Evidence) -> list[Phase]:
    """The path in its order; the retirement is a decision of its own and only there once it was taken."""
    found = [
        Phase("Assess", "assess.yml", evidence["assessment"], needed=True),
        Phase("Provision", "provision.yml", evidence["topology"], needed=True),
        Phase("Replicate", "replicate.yml", evidence["replication"], needed=True),
        Phase("Test failover", "test_failover.yml", evidence["failover"], needed=False),
        Phase("Verify", "verify.yml", evidence["parity"], needed=True),
        Phase("Cut over", "cut_over.yml", evidence["cutover"], needed=True),
    ]
    if evidence["retirement"]:
        found.append(Phase("Retire source", "retire_source.yml", evidence["retirement"], needed=True))
    return found


def has_moved(evidence: Evidence) -> bool:
    """Whether the clients were moved, well or not: a cutover that was refused or undone has no side that serves."""
    return evidence["cutover"].get("serves") is not None


def wrong(evidence: Evidence) -> list[str]:
    """What contradicts the promises, or was not measured although it should have been."""
    cutover, parity, moved = evidence["cutover"], evidence["parity"], has_moved(evidence)
    found = []
    if moved:
        client = cutover.get("client") or {}
        for name in COUNTS:
            value = client.get(name)
            if value is None:
                found.append(f"client {name} were not measured")
            elif value != 0:
                found.append(f"client {name}: {value}")
        if cutover["outcome"] != "done" and not found:
            found.append("the clients' own record does not show that nothing was lost")
    mismatches = count(parity.get("mismatches"))
    if moved and mismatches is None:
        found.append("parity was not measured")
    elif mismatches:
        found.append(f"parity mismatches: {mismatches}")
    missed = dict.fromkeys(row["name"] for row in evidence["failover"].get("scenarios", []) if not row["passed"])
    if missed:
        found.append(f"failover scenarios that did not pass: {', '.join(missed)}")
    if evidence["failover"].get("trouble"):
        found.append("the failover test could not go on")
    return found


def judge(evidence: Evidence) -> Verdict:
    """Who serves, and whether that is proved."""
    cutover, found = evidence["cutover"], wrong(evidence)
    if has_moved(evidence):
        headline = f"The {cutover['serves']} serves the application"
        if found:
            return Verdict(BAD, headline, f"But this is not clean: {'; '.join(found)}.", found)
        proved = "No acknowledged write was lost, none took effect twice, no client saw an error, and both sides hold the same data."
        return Verdict(GOOD, headline, proved, found)
    headline = "The source serves the application"
    if found:
        return Verdict(BAD, headline, f"The target is not fit to take over: {'; '.join(found)}.", found)
    not_done = f"not done: its outcome is {cutover['outcome']}" if cutover else "not done yet"
    return Verdict(OPEN, headline, f"The cutover is {not_done}.", found)


def next_step(evidence: Evidence) -> str:
    """What the operator does now, in sentences; names in backquotes are to be typed."""
    due = [phase for phase in phases(evidence) if phase.is_open]
    if due:
        return _do(due[0])
    if wrong(evidence):
        return "Keep the source as it is, look into what the verdict names, and do not retire anything before it is explained."
    retirement = evidence["retirement"]
    if retirement:
        stays = " ".join([*retirement["kept"], *retirement["not_removed"], retirement["backup"]])
        return f"The migration is retired: nothing of it is left beside the target. {stays}"
    tested = "" if evidence["failover"] else "Test the failover with `test_failover.yml`. "
    return (
        "Keep the source as it is until you are sure: it refuses writes of applications. Watch errors and latency for a day. "
        f"{tested}When you are sure, `retire_source.yml` ends the migration."
    )


def _do(phase: Phase) -> str:
    """What to do with the first phase that is not done."""
    if phase.outcome == "refused" and phase.name == "Assess":
        blockers = sum(1 for finding in phase.document["findings"] if finding["severity"] == "blocker")
        return f"{blockers} findings block the migration: run the statements below, then playbook `assess.yml` again."
    if phase.document:
        return (
            f"Phase {phase.name} ended as {phase.outcome}: read its section below, then run playbook `{phase.playbook}` again. "
            "A run that was broken off continues or undoes itself."
        )
    if phase.name == "Cut over":
        return "Everything before the cutover is done. `cut_over.yml` says whether all gates hold; with `-e pg_ha_cutover_approved=true` it moves the clients."
    return f"Run playbook `{phase.playbook}`, or `migrate.yml` for the whole path."
