# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a migration stands, as playbook ``status`` has read it, and what an interrupted command leaves (pure)."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .outcome import Exit, Verdict
from .verbs import words


@dataclass(frozen=True)
class Found:
    """What was read.

    :param status: result of module ``migration_status_info``; None when it could not be asked at all
    :param problems: what could not be read and why, one sentence each
    """

    status: dict[str, t.Any] | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def code(self) -> Exit:
        """Unknown as soon as something could not be read."""
        return Exit.UNKNOWN if self.status is None or self.problems else Exit.DONE

    @property
    def lines(self) -> list[str]:
        """The state for people."""
        return [*(self.status or {}).get("lines", []), *(f"Unknown: {problem}" for problem in self.problems)]

    @property
    def open_attempt_seconds(self) -> float | None:
        """The budget of a cutover that is under way; None when none is, or when that is unknown."""
        attempt = (self.status or {}).get("attempt") or {}
        return attempt.get("budget_ms", 0) / 1000 if attempt.get("state") == "open" else None


def found_of(status: dict[str, t.Any] | None, verdict: Verdict) -> Found:
    """What the playbook has found: its module's result, or why there is none."""
    if status is not None:
        return Found(status, list(status.get("unknown") or []))
    return Found(None, verdict.sentences or ["The playbook status ended without a result."])


# What a phase that was stopped leaves.
LEFT = {
    "assess": "Nothing was changed: the assessment only reads.",
    "provision": "The target's hosts are left as far as they were brought; nothing of it serves the application.",
    "replicate": "The application stays on the source; a copy that has begun goes on on the mover, and the same command waits for it.",
    "test_failover": "What was broken on a host is mended by itself within five minutes; the same command begins with a target that is whole.",
    "verify": "Neither side was changed; a comparison that has begun ends by itself on the mover.",
    "cut_over": "A cutover that has begun decides by itself within its budget, and each pooler goes where it was decided.",
    "roll_back": "A way back that has begun decides by itself within its budget, and each pooler goes where it was decided.",
    "switch_over": "Whoever leads leads: run the same command again. Poolers let their clients go on within the budget.",
    "maintain": "Members that were not reached run as before; one that was under way starts by itself. Poolers let their clients go on within the budget.",
    "retire_source": "What was taken away is gone; the target serves, and the source stays fenced.",
    "report": "The report is as it was, or new; nothing else was touched.",
}


def sentences(phase: str, step: str, found: Found | None) -> list[str]:
    """What an interrupted command tells: where it was, what is left running, what stands, and how to go on."""
    where = f"It was in phase {words(phase)}{f' at {step!r}' if step else ''}." if phase else "No phase had begun."
    told = [where, *([LEFT[phase]] if phase in LEFT else [])]
    if found is not None:
        told += found.lines
    return [*told, "The same command goes on from here, and finishes or undoes what was begun."]
