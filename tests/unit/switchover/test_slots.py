# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The next leader has the last one's slots, or does not come to lead. With sessions that are stood in for: servers that can do it are in the lab."""

from __future__ import annotations

import types
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, WaitTimeout
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import Clock
from ansible_collections.freight.pg_ha.plugins.module_utils._switchover import slots
from ansible_collections.freight.pg_ha.plugins.modules import standby_slots


class World:
    """A leader with slots, and after how many looks each standby has which; None for one that is down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kept: list[str], **looks: int | None) -> None:
        self.kept, self.looks = kept, dict(looks)
        self.said: list[tuple[str, str]] = []
        self.open = 0
        self.now = 0.0
        monkeypatch.setattr(slots.client, "connect", self.connect)
        monkeypatch.setattr(slots.client, "query", self.query)

    def connect(self, service_file: str, service: str, *, host: str | None = None, patience_seconds: float | None = None, **_others: t.Any) -> t.Any:
        assert (service_file, service, host is None) == ("/pg_service.conf", "target", patience_seconds is None)
        if host is not None and self.looks[host] is None:
            raise ClientError("It is down.")
        self.open += 1
        return types.SimpleNamespace(info=types.SimpleNamespace(host=host or "pg1", dsn_parameters={"host": "pg1,pg2,pg3"}), close=self.close)

    def close(self) -> None:
        self.open -= 1

    def query(self, session: t.Any, statement: str) -> list[dict[str, str]]:
        host = session.info.host
        if "pg_replication_slots" not in statement:
            self.said.append((host, statement))
            return []
        if host == "pg1":
            return [{"slot_name": slot} for slot in self.kept]
        left = self.looks[host]
        assert left is not None
        self.looks[host] = left - 1
        return [{"slot_name": slot} for slot in (self.kept if left <= 0 else ["other"])]

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self, *hosts: str, check_mode: bool = False) -> t.Any:
        standbys = slots.Standbys("/pg_service.conf", "target", hosts, clock=Clock(lambda: self.now, self.sleep))
        try:
            return standby_slots.run(standbys, {"timeout_seconds": 20}, check_mode)
        finally:
            assert self.open == 0


WAKE, SNAPSHOT = "SELECT pg_reload_conf()", "SELECT pg_log_standby_snapshot()"


def test_a_standby_is_woken_until_it_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, ["back", "more"], pg2=0, pg3=3)
    found = world.run()
    assert found.changed and found.result["missing"] == {"pg3": ["back", "more"]} and found.result["actions"] == ["have pg3 take over back, more"]
    assert world.said == [("pg3", WAKE), ("pg1", SNAPSHOT)] * 2 and world.now == 2


def test_where_all_have_them_or_there_are_none_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    for world in (World(monkeypatch, ["back"], pg2=0, pg3=0), World(monkeypatch, [], pg2=None, pg3=None)):
        assert not world.run().changed and world.said == []


def test_only_the_standbys_that_are_meant_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, ["back"], pg2=0, pg3=None)
    assert not world.run("pg2").changed


def test_check_mode_says_who_lacks_what_and_wakes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, ["back"], pg2=0, pg3=9)
    assert world.run(check_mode=True).result["actions"] == ["have pg3 take over back"] and world.said == []


@pytest.mark.parametrize("looks", [None, 10**6])
def test_who_does_not_come_to_have_them_may_not_lead(monkeypatch: pytest.MonkeyPatch, looks: int | None) -> None:
    world = World(monkeypatch, ["back"], pg2=looks, pg3=0)
    with pytest.raises(WaitTimeout, match=r"^pg2 does not have replication slot back of the leader after 20 s\. If it led now, whoever follows"):
        world.run()
    assert world.now <= 20
