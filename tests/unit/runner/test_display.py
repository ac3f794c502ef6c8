# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is shown: words for numbers, nothing that was not measured, at most as wide as the terminal, and at most so often."""

from __future__ import annotations

import io
import json
import typing as t

import pytest
from pg_ha_runner import display
from pg_ha_runner.masking import Masker
from pg_ha_runner.tracker import Notice, Tracker
from pg_ha_runner.verbs import PHASES
from rich.console import Console

from .conftest import RECAP, failure, play, result, task

COPY = {"state": "running", "step": "rows", "bytes_done": 310 * 2**20, "bytes_total": 912 * 2**20, "tables_done": 12, "tables_total": 31, "rows_done": 5}
LINK = {"exists": True, "following": True, "lag_bytes": 1258291, "lag_seconds": 0.4}


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (310 * 2**20, "310 MiB"), (5 * 2**40, "5.0 TiB"), (9000 * 2**40, "9000 TiB"), (None, "unknown")],
)
def test_bytes_in_words(count: int | None, words: str) -> None:
    assert display.amount(count) == words


@pytest.mark.parametrize(("seconds", "words"), [(0, "0 s"), (59.9, "59 s"), (63, "1 min 03 s"), (3600, "1 h 00 min"), (90061, "25 h 01 min")])
def test_seconds_in_words(seconds: float, words: str) -> None:
    assert display.duration(seconds) == words


def test_numbers_say_only_what_was_measured() -> None:
    assert display.numbers({"phase": "assess"}) == []
    assert display.numbers({"copy": {**COPY, "rows_seconds_left": 42}, "link": LINK}) == [
        "310 MiB of 912 MiB, 12 of 31 tables",
        "rows in about 42 s",
        "lag 1.2 MiB (0.4 s)",
    ]
    assert display.numbers({"copy": {**COPY, "step": "rest_of_schema", "rows_seconds_left": None}}) == [
        "310 MiB of 912 MiB, 12 of 31 tables",
        "copy: rest of schema",
    ]
    assert display.numbers({"link": {"lag_bytes": None}, "copy": {"bytes_total": 0}}) == []
    assert display.share({"copy": COPY}) == pytest.approx(0.34, abs=0.01) and display.share({}) is None
    assert display.share({"parity": {"chunks_done": 1, "chunks_total": 4}}) == 0.25


def drawn(tracker: Tracker, phases: t.Sequence[str], now: float, ended: bool = False) -> list[str]:
    """The picture on a terminal of 80 columns."""
    console = Console(width=80, file=io.StringIO(), force_terminal=False)
    terminal = display.Terminal(Masker(["a-secret"]), phases, lambda: now, console)
    console.print(terminal.picture(tracker, ended))
    return [line.rstrip() for line in t.cast("io.StringIO", console.file).getvalue().splitlines()]


def test_the_picture_fits_into_80_columns_and_shows_the_whole_path() -> None:
    tracker = Tracker([("assess", "A"), ("replicate", "R")])
    tracker.take(play("A"), 0.0)
    tracker.take(play("R"), 5.0)
    tracker.take(task("Copy | " + "a very long name of a step " * 5 + "a-secret", "replication_copy_info"), 5.0)
    tracker.take(result("replication_copy_info", "runner_retry", initial_copy=COPY, link=LINK), 9.0)
    lines = drawn(tracker, [phase for phase in PHASES if phase != "test_failover"], 70.0)
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("✓ 1/7 assess") and "5 s" in lines[0]
    assert lines[2].startswith("▸ 3/7 replicate     1 min 05 s   Copy: a very long name") and lines[2].endswith("…")
    assert "· 4/7 test failover              not in this playbook" in lines
    assert any("34%" in line for line in lines) and "  lag 1.2 MiB (0.4 s)" in lines
    # One phase alone is shown alone.
    assert drawn(tracker, ["replicate"], 70.0)[0].startswith("▸ 3/7 replicate")


def test_a_phase_that_failed_is_marked_and_one_that_was_rescued_is_not() -> None:
    for failures, mark in (({"mover": 1}, "✗"), ({}, "✓")):
        tracker = Tracker([("assess", "A")])
        tracker.take(play("A"), 0.0)
        tracker.take(failure("assert", "No."), 1.0)
        tracker.take({**RECAP, "event_data": {**RECAP["event_data"], "failures": failures}}, 2.0)
        assert drawn(tracker, ["assess"], 3.0, ended=True)[0].startswith(mark)
    tracker = Tracker([("assess", "A")])
    tracker.take(play("A"), 0.0)
    assert drawn(tracker, ["assess"], 3.0, ended=True)[0].startswith("✗")


@pytest.mark.parametrize(("kind", "seconds", "expected"), [(display.Plain, 10.0, 2), (display.JsonLines, 1.0, 2)])
def test_progress_is_not_told_more_often_than_a_reader_wants(kind: t.Any, seconds: float, expected: int) -> None:
    at, stream, tracker = [0.0], io.StringIO(), Tracker([])
    shown = kind(Masker([]), lambda: at[0], stream)
    for moment in (0.0, seconds * 0.9, seconds, seconds * 1.5):
        at[0] = moment
        shown.notice(Notice("progress", {"phase": "replicate", "copy": {**COPY, "rows_seconds_left": None}}), tracker)
    assert len(stream.getvalue().splitlines()) == expected


def test_lines_are_masked_and_json_is_json() -> None:
    stream, tracker = io.StringIO(), Tracker([])
    shown = display.JsonLines(Masker(["a-secret"]), lambda: 0.0, stream)
    shown.notice(Notice("message", {"phase": "assess", "message": "it is a-secret\nwith ü"}), tracker)
    shown.result({"outcome": "done", "sentences": ["a-secret"]}, [])
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["message", "result"] and "a-secret" not in stream.getvalue()
    plain = display.Plain(Masker(["a-secret"]), lambda: 0.0, stream := io.StringIO())
    plain.notice(Notice("failure", {"phase": "cut_over", "step": "Gates: ask", "host": "mover", "message": "a-secret is wrong."}), tracker)
    assert stream.getvalue().endswith("cut over: FAILED at Gates: ask on mover: ******** is wrong.\n")
