# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is due for an update or a restart, why, and in which order, as role maintenance says it."""

from __future__ import annotations

import pathlib
import sys
import typing as t

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3]))
from tests.evidence import made_by  # noqa: E402  (lives in tests/)

STARTED = 1000.0


def variables(installed: float = STARTED - 1, newer: bool = False, pending: bool = False, everybody: bool = False, **more: t.Any) -> dict[str, t.Any]:
    """What was read of pg2."""
    members = [{"name": name, "pending_restart": pending and name == "pg2", "running": {"started_at": STARTED}} for name in ("pg1", "pg2", "pg3")]
    return {
        "__maintenance_member": "pg2",
        "__maintenance_read": {"cluster": {"leader": "pg1", "synchronous_standbys": ["pg2"], "members": members}},
        "__maintenance_installed": {
            "results": [
                {"__maintenance_member": "pg1", "files": [{"mtime": STARTED + 100}]},
                {"__maintenance_member": "pg2", "files": [{"mtime": 1.0}, {"mtime": installed}]},
            ]
        },
        "__maintenance_newer": {"results": [{"__maintenance_member": "pg2", "changed": newer}, {"__maintenance_member": "pg3", "changed": True}]},
        "maintenance_restart_all": everybody,
        **more,
    }


@pytest.mark.parametrize(
    ("seen", "reasons"),
    [
        ({}, []),
        ({"newer": True}, ["packages have a newer version"]),
        ({"installed": STARTED + 0.5}, ["packages were installed after its server had started"]),
        ({"pending": True}, ["settings wait for a restart"]),
        ({"everybody": True}, ["everybody is restarted"]),
        ({"newer": True, "pending": True}, ["packages have a newer version", "settings wait for a restart"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_who_is_due_and_why(seen: dict[str, t.Any], reasons: list[str]) -> None:
    assert made_by("maintenance", "__maintenance_reasons", variables(**seen)) == reasons


def test_without_updates_nothing_newer_is_due() -> None:
    assert made_by("maintenance", "__maintenance_reasons", variables(__maintenance_newer={"results": []})) == []


@pytest.mark.parametrize(
    ("due", "order"),
    [
        (["pg1", "pg2", "pg3"], ["pg3", "pg2"]),  # the one that commits wait for last; the leader has a turn of its own
        (["pg2"], ["pg2"]),
        (["pg1"], []),
        ([], []),
    ],
)
def test_standbys_come_first_and_the_synchronous_one_last(due: list[str], order: list[str]) -> None:
    assert made_by("maintenance", "__maintenance_order", variables(__maintenance_due=dict.fromkeys(due, "why"))) == order


def test_it_is_said_in_words() -> None:
    told = made_by("maintenance", "__maintenance_announced", variables(__maintenance_due={"pg2": "settings wait for a restart"}))
    assert told == ["pg2: settings wait for a restart"]
    assert "Nothing is due" in made_by("maintenance", "__maintenance_announced", variables(__maintenance_due={}))
