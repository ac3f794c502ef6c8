# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to nothing that stands, whether clients can return, and which of two records is believed."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import leftovers, schema
from ansible_collections.freight.pg_ha.plugins.module_utils._migration.leftovers import Stands
from ansible_collections.freight.pg_ha.plugins.module_utils._migration.ours import Ours, Slot

FORWARD, REVERSE = schema.FORWARD_LINK, schema.REVERSE_LINK
FOLLOWING = {"following": True, "lag_bytes": 7, "problems": [], "alarm": ""}


def slot(name: str, active: bool = True, held: int | None = 4096, safe: int | None = None, failover: bool | None = None) -> Slot:
    return Slot(name, active, "reserved", held, safe, failover)


def stands(serves: str, busy: bool | None = False, retired: bool = False, **phases: str) -> Stands:
    return Stands(serves, {"replicate": "done", **phases}, busy, retired)


def side(subscription: str = "", **more: t.Any) -> Ours:
    return Ours(has_schema=True, subscriptions={subscription: True} if subscription else {}, **more)


def objects(state: Stands, source: Ours, target: Ours, poolers: t.Any = (), hosts: t.Sequence[str] = ()) -> list[tuple[str, str]]:
    found = leftovers.plan_leftovers(state, {"source": source, "target": target}, list(poolers), hosts)
    assert all(leftovers.sentence(row).startswith("Leftover: ") and row["removed_by"] for row in found)
    return [(row["object"], row["side"]) for row in found]


CUT = {"cut_over": "done"}
LB1 = schema.dead_man_name("lb1")


@pytest.mark.parametrize(
    ("state", "source", "target", "wanted"),
    [
        # The link that stands is none, whichever side serves.
        (stands("source"), side(slots=(slot(FORWARD),)), side(FORWARD), []),
        (stands("target", **CUT), side(REVERSE), side(slots=(slot(REVERSE),)), []),
        # A slot that nobody reads.
        (stands("source"), side(slots=(slot(FORWARD, active=False),)), side(), [(f"slot {FORWARD}", "source")]),
        # A worker that is away for a moment has its subscription still.
        (stands("source"), side(slots=(slot(FORWARD, active=False),)), side(FORWARD), []),
        # The other direction's halves.
        (stands("source"), side(REVERSE, slots=(slot(FORWARD),)), side(FORWARD), [(f"subscription {REVERSE}", "source")]),
        (stands("target", **CUT), side(REVERSE, slots=(slot(FORWARD),)), side(slots=(slot(REVERSE),)), [(f"slot {FORWARD}", "source")]),
        (stands("source"), side(), side(FORWARD, slots=(slot(REVERSE),)), [(f"slot {REVERSE}", "target")]),
        # Before anything was replicated there is no link to belong to.
        (stands("source", replicate="absent"), side(slots=(slot(FORWARD),)), side(), [(f"slot {FORWARD}", "source")]),
        # Somebody works, or nobody knows.
        (stands("source", busy=True), side(REVERSE), side(slots=(slot(REVERSE),)), []),
        (stands("unknown"), side(REVERSE), side(slots=(slot(REVERSE),)), []),
        (stands("source", busy=None), side(REVERSE), side(), []),
        # After the end only the fence of the source stays.
        (stands("target", retired=True), side(guards=("public.t",)), Ours(), []),
        (
            stands("target", retired=True),
            side(REVERSE, roles=("link",)),
            side(guards=("public.t",), publications=(REVERSE,), slots=(slot(REVERSE),)),
            [
                (f"subscription {REVERSE}", "source"),
                (f"slot {REVERSE}", "target"),
                ("role link", "source"),
                (f"publication {REVERSE}", "target"),
                ("guard on public.t", "target"),
                ("schema ha_migration", "target"),
            ],
        ),
    ],
)
def test_what_belongs_to_nothing_that_stands_is_a_leftover(state: Stands, source: Ours, target: Ours, wanted: list[tuple[str, str]]) -> None:
    assert objects(state, source, target) == wanted


def test_dead_men_are_expected_once_a_cutover_was_begun() -> None:
    linked = {"source": side(slots=(slot(FORWARD),), dead_men=(LB1, "ha_migration dead man gone")), "target": side(FORWARD)}
    assert objects(stands("source"), **linked, hosts=["lb1", "lb2"]) == []
    assert objects(stands("source", cut_over="refused"), **linked, hosts=["lb1", "lb2"]) == [
        ("ha_migration dead man gone", "source"),
        ("pooler lb2 without its dead man", "source"),
    ]


def test_a_pooler_that_nobody_works_on_and_that_holds_its_clients_is_told() -> None:
    poolers = [{"name": "lb1", "paused": True}, {"name": "lb2", "paused": False}]
    assert objects(stands("source"), side(slots=(slot(FORWARD),)), side(FORWARD), poolers) == [("pause of pooler lb1", "lb1")]
    assert objects(stands("source", busy=True), side(), side(), poolers) == []


def test_a_leftover_says_what_it_holds_back_and_what_removes_it() -> None:
    row = leftovers.plan_leftovers(stands("source"), {"source": side(slots=(slot(FORWARD, active=False),)), "target": side()}, [], [])[0]
    assert leftovers.sentence(row) == f"Leftover: slot {FORWARD} on the source holds back 4096 bytes of WAL; it is removed by `pg-ha replicate` again."
    lost = leftovers.plan_leftovers(stands("target", **CUT), {"source": side(slots=(slot(FORWARD, held=None),)), "target": side()}, [], [])[0]
    assert lost["holds"] == "an unknown amount of WAL" and "`pg-ha cut-over` again" in lost["removed_by"]


@pytest.mark.parametrize(
    ("state", "link", "have", "possible", "words"),
    [
        (stands("target", **CUT), FOLLOWING, slot(REVERSE), True, "Roll back is possible: the source follows, lag 7 bytes. Its slot holds 4096 bytes"),
        (stands("target", **CUT), FOLLOWING, slot(REVERSE, safe=99), True, "after 99 more the server gives it up"),
        (stands("target", **CUT), FOLLOWING, slot(REVERSE, failover=True), True, "whether a standby has it already is unknown"),
        (stands("target", **CUT), FOLLOWING, slot(REVERSE, failover=False), True, "It is unknown whether the slot outlives a failover"),
        (stands("target", **CUT), {**FOLLOWING, "alarm": "ALARM: it holds much"}, slot(REVERSE), True, " ALARM: it holds much."),
        (stands("target", **CUT), None, None, False, f"There is no way back: the source has no subscription {REVERSE}."),
        (stands("target", **CUT), {"following": False, "problems": ["nobody is connected to the slot"]}, slot(REVERSE), False, "nobody is connected"),
        (stands("source", roll_back="done"), FOLLOWING, slot(FORWARD), True, "Another cutover is possible: the target follows"),
    ],
)  # fmt: skip
def test_whether_clients_can_return_is_said_with_the_reason(state: Stands, link: t.Any, have: Slot | None, possible: bool, words: str) -> None:
    found = leftovers.plan_way_back(state, link, have, known=True)
    assert found is not None and found["possible"] is possible and words in found["sentence"], found
    unknown = leftovers.plan_way_back(state, link, have, known=False)
    assert unknown is not None and unknown["possible"] is None


def test_before_clients_moved_and_after_the_end_there_is_no_question() -> None:
    assert leftovers.plan_way_back(stands("source"), FOLLOWING, slot(FORWARD), known=True) is None
    assert leftovers.plan_way_back(stands("target", retired=True), None, None, known=True) is None


def test_where_the_journal_says_something_else_the_decision_is_believed() -> None:
    assert leftovers.plan_disagreements(stands("source")) == [] == leftovers.plan_disagreements(stands("target", **CUT))
    assert "the source serves: the decision is believed" in leftovers.plan_disagreements(stands("source", **CUT))[0]
    assert (
        "cut over is running, and the decision says that the target serves: the decision is believed"
        in leftovers.plan_disagreements(stands("target", cut_over="running"))[0]
    )
    assert leftovers.plan_disagreements(stands("target", cut_over="unknown")) == []
