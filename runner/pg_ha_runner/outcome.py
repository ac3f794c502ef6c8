# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How ``pg-ha`` ends, and how an ending is told from what a playbook did (pure)."""

from __future__ import annotations

import enum
import typing as t
from dataclasses import dataclass, field

if t.TYPE_CHECKING:
    from .tracker import Failure, Tracker


class Exit(enum.IntEnum):
    """Exit codes; docs/runner.md explains each."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNKNOWN = 4
    INTERRUPTED = 130


class Stop(Exception):
    """The command ends here, with one sentence.

    :param code: how it ends
    """

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Ending:
    """What ansible-runner says of a playbook that has ended.

    :param code: exit code of ansible-playbook; None when it had none
    :param problem: why the code is not to be trusted, in words; "" when it is
    """

    code: int | None
    problem: str = ""


@dataclass(frozen=True)
class Verdict:
    """How a command ended.

    :param sentences: what to tell, one sentence or more each
    """

    code: Exit
    sentences: list[str] = field(default_factory=list)


# Errors of our modules (plugins/module_utils/_core/errors.py; Undone is the critical section's).
REFUSALS = frozenset({"PlanError", "GateError", "Undone"})
# A check in one of these parts of a role stands before every change of the phase.
GATE_PARTS = ("Preflight |", "Gates |", "Verdict |")
# Exit codes of ansible-playbook.
BAD_OPTIONS, UNEXPECTED = 5, 250


def code_of(failure: Failure) -> Exit:
    """The exit code that one failed task stands for."""
    if failure.error == "UnknownState" or (failure.action == "cutover" and failure.broke_off):
        return Exit.UNKNOWN
    if failure.error == "UsageError" or failure.action == "validate_argument_spec":
        return Exit.USAGE
    if failure.error in REFUSALS or (failure.action == "assert" and failure.task.startswith(GATE_PARTS)):
        return Exit.REFUSED
    return Exit.FAILED


# What wins where several tasks have failed: the worse news.
RANK = (Exit.UNKNOWN, Exit.FAILED, Exit.REFUSED, Exit.USAGE)


def judge(tracker: Tracker, ending: Ending, check: bool) -> Verdict:
    """How a playbook ended. Only what it said itself, completely, counts as done.

    :param check: whether it only predicted
    """
    if ending.code == 0 and not ending.problem:
        return _judge_success(tracker, check)
    failures = [failure for failure in tracker.failures if not failure.repeats]
    sentences = list(dict.fromkeys(failure.sentence for failure in failures))
    if failures:
        codes = {code_of(failure) for failure in failures}
        return Verdict(next(code for code in RANK if code in codes), sentences)
    if tracker.action == "cutover":
        return Verdict(Exit.UNKNOWN, [_broken(ending) + " It ended in the middle of the cutover."])
    if ending.code == BAD_OPTIONS:
        return Verdict(Exit.USAGE, [_broken(ending), *tracker.last_words])
    if ending.problem or ending.code is None or ending.code < 0 or ending.code == UNEXPECTED:
        return Verdict(Exit.UNKNOWN if tracker.tasks else Exit.FAILED, [_broken(ending), *tracker.last_words])
    return Verdict(Exit.FAILED, [_broken(ending), *tracker.last_words])


def _judge_success(tracker: Tracker, check: bool) -> Verdict:
    """Exit code 0 of ansible-playbook: the recap must be there, something must have run, and gates must hold."""
    if tracker.internal_error:
        return Verdict(Exit.UNKNOWN, [f"The playbook ended without an error, but its events could not all be read: {tracker.internal_error}."])
    if not tracker.recap:
        return Verdict(Exit.UNKNOWN, ["The playbook ended without an error and without a recap: it is unknown what it did."])
    if not tracker.tasks:
        return Verdict(Exit.USAGE, ["No task ran: the inventory has no host in the groups of this playbook."])
    if tracker.failed_gates:
        lines = [_gate(gate) for gate in tracker.failed_gates]
        # What was only predicted before cannot make a gate hold: a prediction refuses nothing.
        return Verdict(Exit.DONE if check else Exit.REFUSED, [f"The cutover would be refused now, {len(lines)} gate(s) do not hold.", *lines])
    if tracker.serves == "source" and not check:
        return Verdict(Exit.DONE, ["Every gate holds, and the source still serves: `pg-ha cut-over --approve` moves the clients."])
    return Verdict(Exit.DONE)


def _gate(gate: dict[str, t.Any]) -> str:
    """One sentence about a gate that does not hold: of what, what is wrong, what to do."""
    parts = [gate.get("gate", ""), gate.get("object", ""), gate.get("message", "")]
    return f"{': '.join(part for part in parts if part)}; {gate.get('remedy', '')}."


def _broken(ending: Ending) -> str:
    """One sentence about a playbook that said nothing of a failed task."""
    if ending.problem:
        return ending.problem
    if ending.code is None or ending.code < 0:
        return "ansible-playbook was ended from outside."
    return f"ansible-playbook ended with exit code {ending.code}."
