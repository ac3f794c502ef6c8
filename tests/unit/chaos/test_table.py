# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page that a run writes."""

from __future__ import annotations

from chaos import judge, matrix, table

ROW = {
    "direction": "cut over",
    "moment": "after fence",
    "actor": "mover",
    "by": "section",
    "code": "0a1",
    "commit": "abc",
    "state": "exit 4; epoch 3 open: source, decided by lb1",
    "served_by": "source",
    "served_s": 5.12,
    "waits_for": None,
    "errors": 0,
    "lost": 0,
    "duplicated": 0,
    "two_writers": [],
    "problems": [],
}


OF = {"section": "0a1", "playbook": "0b2"}


def lines(*rows):
    return table.render(rows, judge.summary(list(rows)), OF).splitlines()


def test_a_row_says_where_what_who_when_and_how_many():
    (line,) = [line for line in lines(ROW) if line.startswith("| after fence")]
    assert line == "| after fence | mover | section | exit 4; epoch 3 open: source, decided by lb1 | source | 5.1 s | 0 | 0 | 0 | never | done | abc |"


def test_rows_of_another_code_are_owned_to():
    assert "2 cases, all with the code as it is:" in "\n".join(lines(ROW, {**ROW, "by": "playbook", "code": "0b2", "commit": "abd"}))
    text = "\n".join(lines(ROW, {**ROW, "actor": "section", "code": "0a0", "commit": "0123456789ab"}))
    assert "2 cases, 1 of them with earlier code" in text and "| done | 0123456 |" in text


def test_what_was_not_measured_is_not_shown_as_nothing():
    row = {**ROW, "lost": None, "two_writers": None, "served_s": None, "served_by": None, "problems": ["Bad | worse."]}
    (line,) = [line for line in lines(row) if "| mover | section | exit" in line]
    assert line.count("not measured") == 3 and "unknown" in line and r"**Bad \| worse.**" in line


def test_a_row_says_what_had_to_come_back():
    assert any("5.1 s (the source server is started again)" in line for line in lines({**ROW, "waits_for": "the source server is started again"}))


def test_rows_stand_in_the_order_of_the_moments():
    text = "\n".join(lines({**ROW, "moment": "after decide"}, {**ROW, "moment": "copy"}, ROW))
    assert text.index("| during copy") < text.index("| after fence") < text.index("| after decide")


def test_every_reason_for_what_is_left_out_is_there_and_what_is_missing_is_counted():
    text = "\n".join(lines(ROW))
    for reason in {matrix.left_out(case) for case in matrix.cells()} - {None}:
        assert reason in text
    assert f"Not tried yet: {len(matrix.select()) - 1} cells" in text


def test_a_whole_table_has_nothing_missing():
    rows = [{**ROW, "direction": case.direction, "moment": case.moment, "actor": case.actor, "by": case.by} for case in matrix.select()]
    assert "Not tried" not in "\n".join(lines(*rows))
