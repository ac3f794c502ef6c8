# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Standbys are woken until they have the slot; who never has it is named. With sessions that are stood in for: servers that can do it are in the lab."""

from __future__ import annotations

import types

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import Clock
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import standbys


class World:
    """Hosts, and after how many looks each has the slot."""

    def __init__(self, monkeypatch, leader, hosts, **looks):
        self.leader, self.hosts, self.looks = leader, hosts, dict(looks)
        self.said = []
        self.open = 0
        self.now = 0.0
        self.refuses_to_move = False
        monkeypatch.setattr(standbys.client, "connect", self.connect)
        monkeypatch.setattr(standbys.client, "query_value", self.has)
        monkeypatch.setattr(standbys.client, "query", self.say)

    def connect(self, service_file, service, *, settings, host=None, target_session_attrs=None, **_others):
        assert (service_file, service) == ("/pg_service.conf", "target") and int(settings["statement_timeout"]) <= 2000
        assert (host is None) == (target_session_attrs is None)
        if host is not None and self.looks[host] is None:
            raise ClientError("It is down.")
        self.open += 1
        info = types.SimpleNamespace(host=host or self.leader, dsn_parameters={"host": self.hosts})
        return types.SimpleNamespace(info=info, close=self.close)

    def close(self):
        self.open -= 1

    def has(self, session, _statement, parameters):
        assert parameters == ("ha_migration_reverse",)
        self.looks[session.info.host] -= 1
        return self.looks[session.info.host] < 0

    def say(self, session, statement, _parameters=None):
        self.said.append((session.info.host, statement.split("(")[0]))
        if self.refuses_to_move and "advance" in statement:
            raise ClientError("canceling statement due to statement timeout")

    def sleep(self, seconds):
        self.now += seconds

    def spread(self):
        found = standbys.spread("/pg_service.conf", "target", "ha_migration_reverse", Clock(lambda: self.now, self.sleep))
        assert self.open == 0
        return found


MOVED = ["SELECT pg_log_standby_snapshot", "SELECT pg_replication_slot_advance"]


def test_a_standby_is_woken_and_the_slot_moved_until_it_has_it(monkeypatch):
    world = World(monkeypatch, "pg2", "pg1,pg2,pg3", pg1=0, pg3=2)
    assert world.spread() == []
    assert world.said == [("pg3", "SELECT pg_reload_conf"), *(("pg2", statement) for statement in MOVED)] * 2


def test_who_has_it_not_in_time_or_is_down_is_named(monkeypatch):
    world = World(monkeypatch, "pg3", "pg1,pg2,pg3", pg1=None, pg2=10**6)
    assert world.spread() == ["pg1", "pg2"]
    assert world.now <= standbys.WAIT_SECONDS


def test_a_slot_that_waits_for_a_standby_hinders_nobody(monkeypatch):
    world = World(monkeypatch, "pg1", "pg1,pg2", pg2=3)
    world.refuses_to_move = True
    assert world.spread() == []


@pytest.mark.parametrize("hosts", ["db1", ""])
def test_where_there_is_one_host_nobody_is_asked(monkeypatch, hosts):
    world = World(monkeypatch, "db1", hosts)
    assert world.spread() == [] and world.said == []
