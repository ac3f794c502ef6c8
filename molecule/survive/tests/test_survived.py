# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every actor has died once in the midst of a move, and the clients lost nothing by it."""

from __future__ import annotations

import json
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests"))
from chaos import matrix  # noqa: E402  (lives in tests/)

NAMES = [case.name for case in matrix.select(short=True)]
# The file has what is kept of the whole matrix, too.
ROWS = {matrix.name_of(row): row for row in json.loads((ROOT / "artifacts" / "chaos.json").read_text(encoding="utf-8"))["rows"]}


def test_every_actor_dies_in_it():
    assert {name.split("/")[2] for name in NAMES} == set(matrix.ACTOR)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_was_lost_and_the_same_once_more_finished(name):
    row = ROWS[name]
    assert row["problems"] == []
    assert (row["lost"], row["duplicated"], row["two_writers"], row["exit_again"]) == (0, 0, [], 0)
