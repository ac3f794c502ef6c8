# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which cases there are, and in which order they are run."""

from __future__ import annotations

import itertools
import pathlib
import re

import pytest
from chaos import faults, matrix
from chaos.matrix import CUT_OVER, ROLL_BACK, Case

MIGRATION = pathlib.Path(__file__).resolve().parents[3] / "plugins" / "module_utils" / "_migration"


def steps_of(name, function):
    """Names of the steps that a function of the collection runs, in the order of its text."""
    text = (MIGRATION / name).read_text(encoding="utf-8").split(f"def {function}(", 1)[1].split("\ndef ", 1)[0].split("\n    def ", 1)[0]
    return re.findall(r'steps\.run\("([^"]+)"', text)


def test_the_steps_are_those_that_the_section_runs():
    until_decided = steps_of("section.py", "_until_decided")
    decide = until_decided.index("decide")
    carried = steps_of("section.py", "carry_over_link")
    served = steps_of("section.py", "wait_until_served")
    assert matrix.STEPS == (*steps_of("cutover.py", "make_ready"), *until_decided[:decide], *carried, *until_decided[decide:], *served, "finish")


def test_every_actor_has_a_fault_and_every_fault_an_actor():
    assert set(matrix.ACTOR) == set(faults.FAULTS)


def test_before_and_after_every_step_is_a_moment():
    for step in matrix.STEPS:
        assert matrix.moment_of(f"after {step}") in matrix.MOMENTS
        assert matrix.moment_of(f"before {step}") in matrix.MOMENTS


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("before marker", "after fence"),
        ("before last look", "after marker"),
        ("before warm", "before warm"),
        ("before finish", "before finish"),
        ("copy", "copy"),
    ],
)
def test_before_a_step_is_after_the_one_before_it(name, moment):
    assert matrix.moment_of(name) == moment


@pytest.mark.parametrize("asked", [{"actors": ["movr"]}, {"moments": ["after lunch"]}, {"moments": ["before "]}, {"directions": ["sideways"]}])
def test_a_name_that_is_none_is_refused(asked):
    with pytest.raises(matrix.UnknownName, match="There is no"):
        matrix.select(**asked)


def test_one_case_can_be_selected():
    assert matrix.select(["mover"], ["before marker"], [CUT_OVER]) == [Case(CUT_OVER, "after fence", "mover", matrix.SECTION)]


def test_all_is_the_matrix_without_what_is_left_out():
    every = matrix.cells()
    chosen = matrix.select()
    assert len(every) == len(matrix.MOMENTS) * len(matrix.ACTORS) * 2 == len(set(every))
    by_playbook = set(matrix.SHORT)
    assert {case for case in every if not matrix.left_out(case)} | by_playbook == set(chosen) and len(chosen) == len(set(chosen))
    assert 0 < len(every) - len(chosen) + len(by_playbook) < len(every) / 10


def test_outside_the_section_the_playbook_moves_the_clients_and_inside_each_actor_has_one_case_by_it():
    assert {case.by for case in matrix.select() if case.moment in matrix.OUTPUTS} == {matrix.PLAYBOOK}
    assert {case.actor for case in matrix.select() if case.by == matrix.PLAYBOOK} == set(matrix.ACTOR)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (Case(ROLL_BACK, "copy", "mover"), "copies nothing"),
        (Case(CUT_OVER, "follow", "section"), "No critical section"),
        (Case(CUT_OVER, "after marker", "disk-full"), "writes nothing"),
    ],
)
def test_what_is_left_out_has_its_reason(case, words):
    assert words in matrix.left_out(case)
    assert case not in matrix.select([case.actor])


def test_a_mixed_order_has_the_same_cases_and_many_actors_and_moments_early():
    mixed = matrix.select(mixed=True)
    assert set(mixed) == set(matrix.select()) and mixed == matrix.select(mixed=True)
    assert len({case.actor for case in mixed[:60]}) > 12 and len({case.moment for case in mixed[:60]}) > 12


def test_cases_go_there_and_back_in_turn():
    there, back = [Case(CUT_OVER, "follow", name) for name in "abc"], [Case(ROLL_BACK, "follow", "d")]
    assert matrix.alternate(there + back) == [there[0], back[0], there[1], there[2]]


def test_the_short_form_has_every_actor_once_and_makes_no_move_for_its_own_sake():
    short = matrix.select(short=True)
    assert sorted(case.actor for case in short) == sorted(matrix.ACTOR)
    assert all(one.serves == next_one.leaves for one, next_one in itertools.pairwise(short))
    assert {case.by for case in short} == {matrix.SECTION}
