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

    def __init__(self, monkeypatch, **looks):
        self.looks = dict(looks)
        self.woken = []
        self.now = 0.0
        monkeypatch.setattr(standbys.client, "connect", self.connect)
        monkeypatch.setattr(standbys.client, "query_value", self.has)
        monkeypatch.setattr(standbys.client, "query", lambda session, statement: self.woken.append((session.host, statement)))

    def connect(self, service_file, service, *, host, target_session_attrs, **_others):
        assert (service_file, service, target_session_attrs) == ("/pg_service.conf", "target", "any")
        if self.looks[host] is None:
            raise ClientError("It is down.")
        return types.SimpleNamespace(host=host, close=lambda: None)

    def has(self, session, _statement, parameters):
        assert parameters == ("ha_migration_reverse",)
        self.looks[session.host] -= 1
        return self.looks[session.host] < 0

    def sleep(self, seconds):
        self.now += seconds

    def hand_over(self, hosts, leader):
        session = types.SimpleNamespace(info=types.SimpleNamespace(host=leader, dsn_parameters={"host": hosts}))
        return standbys.hand_over(session, "/pg_service.conf", "target", "ha_migration_reverse", Clock(lambda: self.now, self.sleep))


def test_a_standby_is_woken_until_it_has_the_slot_and_the_leader_is_not_asked(monkeypatch):
    world = World(monkeypatch, pg1=0, pg3=2)
    assert world.hand_over("pg1,pg2,pg3", "pg2") == []
    assert world.woken == [("pg3", "SELECT pg_reload_conf()")] * 2


def test_who_has_it_not_in_time_or_is_down_is_named(monkeypatch):
    world = World(monkeypatch, pg1=None, pg2=10**6)
    assert world.hand_over("pg1,pg2,pg3", "pg3") == ["pg1", "pg2"]
    assert world.now <= standbys.WAIT_SECONDS


@pytest.mark.parametrize("hosts", ["db1", ""])
def test_where_there_is_one_host_nobody_is_asked(monkeypatch, hosts):
    assert World(monkeypatch).hand_over(hosts, "db1") == []
