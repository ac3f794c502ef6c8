# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the records of a cutover's probes prove: that of the run that moved the clients, and that of a later run that finished it."""

from __future__ import annotations

import typing as t

import pytest

from tests.evidence import made_by

WHOLE = {"acknowledged": 9, "complete": True, "lost": 0, "duplicated": 0, "unexpected": 0}
CUT_SHORT = {**WHOLE, "acknowledged": 5, "complete": False}
NOTHING: dict[str, t.Any] = {"skipped": True}


def told(name: str, seen: dict[str, t.Any] | None, witnessed: dict[str, t.Any] | None, own: dict[str, t.Any] | None) -> t.Any:
    """A variable of role cutover, with what was found of the probe that saw the clients move, its verdict, and this run's where that is another."""
    registered = {"__cutover_witnessed": witnessed, "__cutover_own": own}
    return made_by(
        "cutover",
        name,
        {
            "__cutover_seen": {"probe": seen},
            "__cutover_section": {"evidence": {"paused_at": 1.5}},
            **{variable: NOTHING if verdict is None else {"verdict": verdict} for variable, verdict in registered.items()},
        },
    )


ENDED, ENDED_EARLY = {"clients": 4, "clients_ended": 4}, {"clients": 4, "clients_ended": 3}


@pytest.mark.parametrize(
    ("seen", "witnessed", "own", "proved", "watched"),
    [
        pytest.param(ENDED, WHOLE, None, True, True, id="one run"),
        pytest.param(ENDED, {**WHOLE, "acknowledged": 0}, None, False, True, id="nobody wrote"),
        pytest.param(ENDED_EARLY, CUT_SHORT, None, False, False, id="one run with a full disk"),
        pytest.param(ENDED_EARLY, CUT_SHORT, WHOLE, True, False, id="and the same playbook again"),
        pytest.param(ENDED_EARLY, CUT_SHORT, CUT_SHORT, False, False, id="on a disk that is full still"),
        pytest.param(ENDED_EARLY, {**CUT_SHORT, "lost": 1}, WHOLE, False, False, id="a lost row in what was recorded stays one"),
        pytest.param(ENDED, WHOLE, WHOLE, True, True, id="another run moved the clients"),
        pytest.param(ENDED, {**WHOLE, "duplicated": 1}, WHOLE, False, True, id="and doubled a row"),
        pytest.param(ENDED, WHOLE, {**WHOLE, "unexpected": 1}, False, True, id="a row of this run that nobody wrote"),
        pytest.param(None, None, WHOLE, True, False, id="the mover was switched off"),
    ],
)
def test_what_the_records_prove(seen, witnessed, own, proved, watched):
    assert told("__cutover_proved", seen, witnessed, own) is proved
    assert told("__cutover_watched", seen, witnessed, own) is watched


def test_a_cutover_whose_records_are_gone_is_not_proved():
    with pytest.raises(Exception, match="sequence was empty"):
        told("__cutover_proved", None, None, None)
