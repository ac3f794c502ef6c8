# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict has to be able to see each thing that it says never happened."""

from __future__ import annotations

import pytest
from chaos import judge
from chaos.matrix import CUT_OVER, ROLL_BACK, Case


def line(server, answer, begin, end=None):
    return {"server": server, "answer": answer, "begin": begin, "end": begin + 0.001 if end is None else end}


def accepted(server, *moments):
    return [line(server, "accepted", moment) for moment in moments]


def test_a_stretch_lasts_from_the_first_to_the_last_accepted_try():
    assert judge.stretches(accepted("pg1", 1, 2, 3)) == [("pg1", 1, 3.001)]


@pytest.mark.parametrize("answer", ["refused", "no session", "ended", "57014"])
def test_a_failed_try_ends_a_stretch(answer):
    assert judge.stretches([*accepted("pg1", 1), line("pg1", answer, 2), *accepted("pg1", 3)]) == [("pg1", 1, 1.001), ("pg1", 3, 3.001)]


def test_tries_on_another_server_do_not_end_a_stretch():
    assert judge.stretches([*accepted("pg1", 1), line("pg2", "refused", 1.5), *accepted("pg1", 2)]) == [("pg1", 1, 2.001)]


def test_a_clean_change_of_hands_has_one_writer():
    tries = [*accepted("source", 1, 2), line("pg1", "refused", 2), line("source", "refused", 3), *accepted("pg1", 4, 5)]
    assert judge.two_writers(tries, "source") == []


def test_a_failover_of_the_target_has_one_writer():
    tries = [line("source", "refused", 1), *accepted("pg1", 1, 2), line("pg1", "ended", 3), *accepted("pg2", 4)]
    assert judge.two_writers(tries, "source") == []


def test_both_sides_at_once_are_two_writers():
    (found,) = judge.two_writers([*accepted("source", 1), *accepted("pg1", 1.0005)], "target")[:1]
    assert "source and pg1" in found or "pg1 and source" in found


def test_two_servers_of_the_target_at_once_are_two_writers():
    """A leader that was cut off and a new one: no single try of theirs overlaps, the times in which they accept do."""
    tries = sorted([*accepted("pg1", 1, 2, 3), *accepted("pg2", 2.5, 3.5)], key=lambda one: one["begin"])
    assert judge.two_writers(tries, "source") == ["pg1 and pg2 both accepted a write from 2.500 to 3.001"]


def test_the_side_left_after_the_other_one_is_a_second_writer_though_never_seen_at_once():
    tries = [*accepted("source", 1), *accepted("pg1", 2), line("pg1", "ended", 2.5), line("source", "refused", 2.5), *accepted("source", 3)]
    assert judge.two_writers(tries, "source") == ["source accepted a write at 3.001, after the other side had at 2.000"]


def test_the_same_order_is_right_when_the_clients_return():
    assert judge.two_writers([*accepted("pg1", 1), line("pg1", "refused", 2), *accepted("source", 3)], "target") == []


def test_a_write_that_waited_for_the_fence_of_an_undone_section_is_no_second_writer():
    tries = [line("source", "accepted", 1, end=6), line("pg1", "refused", 2), line("pg1", "refused", 5)]
    assert judge.two_writers(tries, "source") == []


@pytest.mark.parametrize(
    ("direction", "moment", "actor", "waits"),
    [
        (CUT_OVER, "follow", "source-killed", True),
        (CUT_OVER, "after decide", "source-killed", True),
        (CUT_OVER, "after announce", "source-killed", False),
        (ROLL_BACK, "after arrival", "source-killed", False),
        (ROLL_BACK, "after barrier", "source-killed", True),
        (ROLL_BACK, "after finish", "source-stopped", True),
        (CUT_OVER, "after arrival", "leader-off", False),
        (CUT_OVER, "after barrier", "leader-off", True),
        (CUT_OVER, "before finish", "standby-off", True),
        (ROLL_BACK, "after decide", "leader-killed", True),
        (ROLL_BACK, "after flip", "leader-killed", False),
        (CUT_OVER, "after pause", "net-pooler-target", False),
        (CUT_OVER, "after flip", "net-pooler-target", True),
        (CUT_OVER, "after decide", "mover", False),
        (ROLL_BACK, "after fence", "pgbouncer-killed", False),
    ],
)
def test_only_a_side_that_has_to_serve_excuses_more_than_the_budget(direction, moment, actor, waits):
    assert bool(judge.waits_for(Case(direction, moment, actor))) is waits


def test_a_server_that_was_decided_for_while_it_stopped_is_waited_for():
    case = Case(ROLL_BACK, "after arm", "source-stopped")
    assert judge.waits_for(case, "source") == "the source server is started again"
    assert judge.waits_for(case, "target") is judge.waits_for(case) is None
    assert judge.waits_for(Case(ROLL_BACK, "after arm", "mover"), "source") is None


GOOD = {
    "trouble": [],
    "lost": 0,
    "duplicated": 0,
    "unexpected": 0,
    "two_writers": [],
    "served_s": 6.9,
    "waits_for": None,
    "exit_again": 0,
    "serves": "target",
    "serves_after": "target",
}


def test_a_good_row_has_no_problem():
    assert judge.problems(GOOD) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lost": 1}, "1 acknowledged writes are lost"),
        ({"lost": None}, "lost was not measured"),
        ({"duplicated": 2}, "2 writes took effect twice"),
        ({"duplicated": None}, "duplicated was not measured"),
        ({"unexpected": 3}, "3 rows"),
        ({"two_writers": ["a and b"]}, "Two writers: a and b"),
        ({"two_writers": None}, "not measured whether two"),
        ({"served_s": None}, "not served again"),
        ({"served_s": 7.1}, "after 7.1 s"),
        ({"served_s": None, "waits_for": "the source"}, "not served again"),
        ({"exit_again": 2}, "ended with 2"),
        ({"exit_again": None}, "ended with nothing"),
        ({"serves_after": "source"}, "leads to the source"),
        ({"trouble": ["It rains."]}, "It rains."),
    ],
)
def test_each_thing_that_is_wrong_is_said(change, words):
    (problem,) = judge.problems({**GOOD, **change})
    assert words in problem


def test_a_server_that_has_to_come_back_may_take_its_time():
    assert judge.problems({**GOOD, "served_s": 14.0, "waits_for": "the source server is started again"}) == []


def test_the_summary_adds_up():
    rows = [
        {**GOOD, "problems": [], "lost": 1},
        {**GOOD, "problems": ["x"], "served_s": None, "two_writers": ["a", "b"]},
        {**GOOD, "problems": [], "served_s": 14.0, "waits_for": "the source"},
    ]
    figures = judge.summary(rows)
    assert (figures["cases"], figures["lost"], figures["duplicated"], figures["two_writers"], figures["not_served"]) == (3, 1, 0, 2, 1)
    assert (figures["worst_served_s"], figures["worst_served_waiting_s"], figures["not_ok"]) == (6.9, 14.0, 1)


def test_what_one_row_did_not_measure_is_no_zero():
    figures = judge.summary([{**GOOD, "problems": []}, {**GOOD, "problems": ["x"], "lost": None, "two_writers": None}])
    assert figures["lost"] is None and figures["two_writers"] is None


def test_nothing_tried_shows_nothing():
    assert judge.summary([])["worst_served_s"] is None
