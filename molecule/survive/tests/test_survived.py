# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every actor has died once in the midst of a move, and the clients lost nothing by it."""

from __future__ import annotations

import json
import pathlib

import pytest

CHAOS = json.loads((pathlib.Path(__file__).resolve().parents[3] / "artifacts" / "chaos.json").read_text(encoding="utf-8"))
ACTORS = {
    "controller", "mover", "section", "source-killed", "source-stopped", "leader-killed", "leader-off", "standby-off", "etcd-off", "haproxy-killed",
    "pgbouncer-killed", "dead-man-killed", "net-source-mover", "net-target-mover", "net-pooler-target", "disk-full",
}  # fmt: skip


def test_every_actor_has_died():
    assert {row["actor"] for row in CHAOS["rows"]} == ACTORS


@pytest.mark.parametrize("row", CHAOS["rows"], ids=lambda row: "/".join((row["direction"], row["moment"], row["actor"])))
def test_nothing_was_lost_and_the_same_once_more_finished(row):
    assert row["problems"] == []


def test_nobody_lost_a_row_and_never_two_wrote():
    assert (CHAOS["lost"], CHAOS["duplicated"], CHAOS["two_writers"], CHAOS["not_served"]) == (0, 0, 0, 0)
