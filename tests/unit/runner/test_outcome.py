# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a playbook did, and the exit code that follows: unknown is never 0."""

from __future__ import annotations

import inspect
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core import errors
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import section
from pg_ha_runner.outcome import REFUSALS, Ending, Exit, judge
from pg_ha_runner.tracker import Tracker, step_words

from .conftest import RECAP, failure, play, result, task

CUTTING = [play("Cut over"), task("Section | Have the target serve", "cutover")]


def judged(events: list[dict[str, t.Any]], ending: Ending, check: bool = False) -> t.Any:
    """The verdict over a series of events."""
    tracker = Tracker([("assess", "Assess"), ("cut_over", "Cut over")])
    for number, event in enumerate(events):
        tracker.take(event, float(number))
    return judge(tracker, ending, check)


@pytest.mark.parametrize(
    ("events", "ending", "code"),
    [
        ([task("a", "debug"), RECAP], Ending(0), Exit.DONE),
        ([task("a", "debug")], Ending(0), Exit.UNKNOWN),
        ([RECAP], Ending(0), Exit.USAGE),
        ([task("a", "debug"), RECAP], Ending(0, "The events were lost."), Exit.UNKNOWN),
        ([], Ending(None, "The playbook could not be run."), Exit.FAILED),
        ([task("a", "debug")], Ending(None, "It broke off."), Exit.UNKNOWN),
        ([task("a", "debug")], Ending(-9), Exit.UNKNOWN),
        ([task("a", "debug")], Ending(250), Exit.UNKNOWN),
        ([], Ending(5), Exit.USAGE),
        ([], Ending(4), Exit.FAILED),
        (CUTTING, Ending(-9), Exit.UNKNOWN),
        (CUTTING, Ending(1), Exit.UNKNOWN),
        ([*CUTTING, result("cutover", "runner_on_unreachable", msg="no route")], Ending(4), Exit.UNKNOWN),
        ([*CUTTING, failure("cutover", "MODULE FAILURE", module_stderr="Traceback")], Ending(2), Exit.UNKNOWN),
        ([*CUTTING, failure("cutover", "It could not be read who serves.", error="UnknownState")], Ending(2), Exit.UNKNOWN),
        ([*CUTTING, failure("cutover", "Gates.", error="GateError"), failure("fail", "Gates.")], Ending(2), Exit.REFUSED),
        ([*CUTTING, failure("cutover", "Undone.", error="Undone"), failure("migration_phase", "No target.", error="ClientError")], Ending(2), Exit.FAILED),
        ([*CUTTING, failure("cutover", "Who?", error="UnknownState"), failure("migration_phase", "Gone.", error="ClientError")], Ending(2), Exit.UNKNOWN),
        ([failure("assert", "A name is wrong.", "Preflight | Refuse inputs")], Ending(2), Exit.REFUSED),
        ([failure("assert", "A row was lost.", "Evidence | Refuse a cutover that lost a write")], Ending(2), Exit.FAILED),
        ([failure("validate_argument_spec", "missing required arguments")], Ending(2), Exit.USAGE),
        ([result("setup", "runner_on_unreachable", msg="no route")], Ending(4), Exit.FAILED),
        ([failure("apt", "No package.")], Ending(2), Exit.FAILED),
    ],
)
def test_exit_codes(events: list[dict[str, t.Any]], ending: Ending, code: Exit) -> None:
    verdict = judged(events, ending)
    assert verdict.code is code
    assert code is Exit.DONE or (verdict.sentences and all(verdict.sentences))


def test_every_error_of_our_modules_has_a_meaning() -> None:
    known = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, errors.PgHaError)} | {section.Undone.__name__}
    failed = {"PgHaError", "ClientError", "WaitTimeout", "GivenUp"}
    assert known == REFUSALS | failed | {"UsageError", "UnknownState"}


def test_a_reason_that_is_said_twice_is_told_once() -> None:
    verdict = judged([failure("replication_copy", "The disk is full.", error="ClientError"), failure("fail", "The disk is full.")], Ending(2))
    assert verdict.sentences == ["The disk is full."]


def test_a_failure_that_a_play_ignores_is_none() -> None:
    ignored = failure("command", "no")
    ignored["event_data"]["ignore_errors"] = True
    assert judged([task("a", "command"), ignored, RECAP], Ending(0)).code is Exit.DONE


def test_every_item_of_a_loop_that_failed_is_told() -> None:
    items = [{"failed": True, "msg": "One."}, {"msg": "fine"}, {"failed": True, "msg": "Two."}]
    assert judged([failure("assert", "One or more items failed", "Preflight | Check", results=items)], Ending(2)).sentences == ["One. Two."]


def test_gates_that_do_not_hold_are_a_refusal_but_not_of_a_prediction() -> None:
    gates = [
        {"gate": "quiet", "object": "", "message": "a long transaction", "remedy": "end it"},
        {"gate": "passwords", "object": "shop", "message": "it is another", "remedy": "run it"},
    ]
    events = [*CUTTING, result("cutover", serves="source", failed_gates=gates), RECAP]
    refused, predicted = judged(events, Ending(0)), judged(events, Ending(0), check=True)
    assert refused.code is Exit.REFUSED
    assert refused.sentences[1:] == ["quiet: a long transaction; end it.", "passwords: shop: it is another; run it."]
    assert predicted.code is Exit.DONE and predicted.sentences == refused.sentences


def test_gates_that_hold_without_consent_are_done_and_say_that_the_source_still_serves() -> None:
    verdict = judged([*CUTTING, result("cutover", serves="source", failed_gates=[]), RECAP], Ending(0))
    assert verdict.code is Exit.DONE and "the source still serves" in verdict.sentences[0]
    assert judged([*CUTTING, result("cutover", serves="target", failed_gates=[]), RECAP], Ending(0)).sentences == []


def test_events_that_could_not_be_read_are_no_success() -> None:
    tracker = Tracker(recap={}, tasks=1, internal_error="KeyError: 'x'")
    tracker.take(RECAP, 0.0)
    assert judge(tracker, Ending(0), False).code is Exit.UNKNOWN


def test_a_tasks_name_in_words() -> None:
    assert [step_words(name) for name in ("Copy | Watch the copy", "plain", "")] == ["Copy: watch the copy", "plain", ""]
