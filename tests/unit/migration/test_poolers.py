# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several poolers, one of them cut off: real PgBouncers with the dead man that ships beside each, the real module, and clients that keep count.

Each test moves the clients to the side that does not serve, so that both directions are gone in turn. Clients write all the while; afterwards the same
module again finishes, and nothing is lost or doubled and no side took a write after the other one had.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import dead_man, decision, schema
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client

from .poolers import BUDGET_SECONDS, poolers

__all__ = ["poolers"]
# Until clients are served whatever happens: the budget, and two seconds.
BOUND_SECONDS = BUDGET_SECONDS + 2.0


class Case:
    """One move of the clients away from the side that serves."""

    def __init__(self, poolers):
        self.poolers = poolers
        self.left = poolers.serving()
        self.opened = decision.other(self.left)
        self.cut_off = poolers.hosts["lb2"]
        poolers.start_clients()
        for name in poolers.hosts:
            poolers.wait_for_writes(name, self.left, time.monotonic(), 10)

    def start(self, moment=None, **changes):
        self.mover = self.poolers.start_mover(self.opened, moment=moment, **changes)
        if moment is not None:
            self.mover.wait_for(moment)
        self.began = time.monotonic()

    def again(self):
        """The same module again finishes, and the clients' account is in order."""
        self.cut_off.mend()
        outcome = self.poolers.start_mover(self.opened).end()
        assert outcome.get("result", {}).get("serves") == self.opened, outcome
        since = time.monotonic()
        for name in self.poolers.hosts:
            assert self.poolers.hosts[name].shown() == (self.opened, False)
            self.poolers.wait_for_writes(name, self.opened, since, 10)
        self.poolers.judge(self.left, self.opened)


@contextlib.contextmanager
def moving(poolers):
    """A case, whose clients and cables are no next test's concern."""
    made = Case(poolers)
    try:
        yield made
    except BaseException:
        # The next test has to find a migration at rest.
        made.mover.kill()
        made.cut_off.mend()
        poolers.start_mover(made.opened).end()
        raise
    finally:
        made.cut_off.mend()
        poolers.stop_clients()


def test_clients_of_two_poolers_go_and_return(poolers):
    for _way in range(2):
        with moving(poolers) as case:
            case.start()
            assert case.mover.end()["result"]["serves"] == case.opened
            case.again()


@pytest.mark.parametrize("how", ["silent", "refuses"])
def test_a_pooler_out_of_the_movers_reach_is_a_gate_that_names_it(poolers, how):
    with moving(poolers) as case:
        if how == "silent":
            case.cut_off.cut("mover")
        else:
            case.cut_off.console_wire.port_behind = 1
        epochs = client.query(poolers.side(case.left), "SELECT * FROM ha_migration.epoch ORDER BY epoch")
        case.start(only_gates=True)
        found = case.mover.end()
        assert [(gate["gate"], gate["object"]) for gate in found.get("result", {}).get("failed_gates", [])] == [("poolers", "lb2")], found
        case.start()
        found = case.mover.end()
        assert found["error"] == "GateError" and "- poolers: lb2: could not be evaluated: Cannot open the console of pooler_lb2" in found["message"], found
        assert client.query(poolers.side(case.left), "SELECT * FROM ha_migration.epoch ORDER BY epoch") == epochs
        assert {host.shown() for host in poolers.hosts.values()} == {(case.left, False)}
        since = time.monotonic()
        for name in poolers.hosts:
            poolers.wait_for_writes(name, case.left, since, 1)
        case.again()


@pytest.mark.parametrize("moment", ["before arm", "after arm"])
def test_a_pooler_that_pause_does_not_reach_undoes_the_attempt_and_a_late_pause_holds_nobody(poolers, moment):
    with moving(poolers) as case:
        case.start(moment)
        case.cut_off.cut("mover")
        case.mover.go_on()
        found = case.mover.end()
        assert found["error"] == "Undone" and "PAUSE on lb2 did not end within 0.5 s" in found["message"], found
        for name in poolers.hosts:
            poolers.wait_for_writes(name, case.left, time.monotonic(), case.began + BOUND_SECONDS - time.monotonic())
        # The network brings now what was sent into it then.
        case.cut_off.mend()
        time.sleep(0.1)
        mended = time.monotonic()
        poolers.wait_until("lb2", case.left, 2)
        time.sleep(1)
        poolers.wait_for_writes("lb2", case.left, mended + 1, 2)
        case.again()


@pytest.mark.parametrize("moment", ["after pause", "before decide", "after decide"])
def test_a_pooler_cut_off_from_the_mover_is_flipped_by_its_own_dead_man(poolers, moment):
    with moving(poolers) as case:
        case.start(moment)
        case.cut_off.cut("mover")
        case.mover.go_on()
        for name in poolers.hosts:
            poolers.wait_for_writes(name, case.opened, case.began, BOUND_SECONDS)
        found = case.mover.end()
        assert found["error"] == "UnknownState" and "one cannot be seen: lb2: " in found["message"], found
        case.again()


@pytest.mark.parametrize("moment", ["after pause", "after marker", "before barrier"])
def test_clients_are_not_moved_to_a_side_that_a_pooler_has_lost(poolers, moment):
    with moving(poolers) as case:
        case.start(moment)
        case.cut_off.cut(case.opened)
        case.mover.go_on()
        for name in poolers.hosts:
            poolers.wait_for_writes(name, case.left, case.began, BOUND_SECONDS)
        found = case.mover.end()
        assert found["error"] == "Undone" and f"lb2 did not reach the {case.opened}" in found["message"], found
        case.again()


def test_a_pooler_cut_off_from_the_side_that_is_left_finds_the_decision_on_the_other(poolers):
    for _way in range(2):
        with moving(poolers) as case:
            case.start("before decide")
            case.cut_off.cut(case.left)
            case.mover.go_on()
            for name in poolers.hosts:
                poolers.wait_for_writes(name, case.opened, case.began, BOUND_SECONDS)
            case.cut_off.mend()
            assert case.mover.end()["result"]["serves"] == case.opened
            case.again()


@pytest.mark.parametrize("decides", [True, False], ids=["decided meanwhile", "mover killed"])
def test_a_pooler_cut_off_from_both_sides_holds_nobody_and_comes_over_when_it_reads_the_decision(poolers, decides):
    with moving(poolers) as case:
        case.start("before decide")
        case.cut_off.cut("source", "target")
        if decides:
            case.mover.go_on()
        else:
            case.mover.kill()
        serves = case.opened if decides else case.left
        poolers.wait_for_writes("lb1", serves, case.began, BOUND_SECONDS)
        # Nobody tells it who serves: it holds no one, where no write can do harm.
        released = poolers.wait_until("lb2", case.left, case.began + BOUND_SECONDS - time.monotonic())
        time.sleep(1)
        assert not [one for one in poolers.of("lb2") if one.last("source", released) or one.last("target", released)]
        mended = time.monotonic()
        case.cut_off.mend()
        poolers.wait_until("lb2", serves, 3)
        poolers.wait_for_writes("lb2", serves, mended, 5)
        if decides:
            found = case.mover.end()
            assert found.get("error") == "UnknownState" or found["result"]["serves"] == case.opened, found
        case.again()


def test_a_mover_killed_between_two_flips_leaves_the_second_to_its_dead_man(poolers):
    for _way in range(2):
        with moving(poolers) as case:
            case.start("before decide")
            case.cut_off.cut(case.left)
            case.mover.go_on()
            poolers.wait_until("lb1", case.opened, BOUND_SECONDS)
            case.mover.kill()
            assert case.cut_off.shown() == (case.left, True)
            poolers.wait_for_writes("lb2", case.opened, case.began, BOUND_SECONDS)
            assert client.query_value(poolers.side(case.left), f"SELECT state FROM {schema.SCHEMA}.epoch ORDER BY epoch DESC LIMIT 1") == "open"
            case.again()


@pytest.mark.parametrize(("since", "taken_back"), [(None, False), (5, True), (dead_man.LATE_PAUSE_SECONDS + 1, False)])
def test_a_pause_by_hand_is_left_alone_unless_an_attempt_has_just_ended(monkeypatch, since, taken_back):
    resumed = []
    monkeypatch.setattr(dead_man.Pooler, "resume", lambda pooler, beside_guard: bool(resumed.append(beside_guard)))
    config = dead_man.Config(**dict.fromkeys([field.name for field in dataclasses.fields(dead_man.Config)], None))
    man = dead_man.DeadMan(config, lambda text: None)
    if since is not None:
        man._attempt_ended_at = time.monotonic() - since
    man._take_back_late_pause()
    assert resumed == ([False] if taken_back else [])
