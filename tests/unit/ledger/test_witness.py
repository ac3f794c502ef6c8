# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict of the lab's witness: it has to be able to see two writers."""

from __future__ import annotations

import importlib.util
import pathlib

import pytest

PATH = pathlib.Path(__file__).resolve().parents[3] / "lab" / "load" / "witness.py"


@pytest.fixture(scope="module")
def witness():
    spec = importlib.util.spec_from_file_location("lab_witness", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def line(side, answer, begin, end=None, kind="plain"):
    return {"side": side, "role": "app", "kind": kind, "answer": answer, "begin": begin, "end": begin + 0.001 if end is None else end}


def test_a_clean_change_of_hands_has_one_writer(witness):
    found = witness.judge([line("source", "accepted", 1), line("target", "refused", 1), line("source", "refused", 2), line("target", "accepted", 3)])
    assert found["one_writer"]
    assert found["answers"] == {"source app plain": ["accepted", "refused"], "target app plain": ["refused", "accepted"]}


def test_a_write_on_the_source_after_one_on_the_target_is_seen(witness):
    assert not witness.judge([line("source", "accepted", 1), line("target", "accepted", 2), line("source", "accepted", 3)])["one_writer"]


def test_without_a_write_on_either_side_nothing_is_proved(witness):
    assert not witness.judge([line("source", "accepted", 1)])["one_writer"]


def test_a_write_that_waited_for_its_lock_while_the_target_opened_is_not_held_against_it(witness):
    found = witness.judge([line("source", "accepted", 1, end=2.5), line("target", "accepted", 2)])
    assert found["one_writer"]
