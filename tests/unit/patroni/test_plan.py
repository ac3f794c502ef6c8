# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans around a Patroni cluster, as tables."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, PlanError
from ansible_collections.freight.pg_ha.plugins.module_utils._patroni import plan
from ansible_collections.freight.pg_ha.plugins.module_utils._patroni.model import Cluster, cluster_of


def member(name: str, role: str = "replica", **facts: t.Any) -> dict[str, t.Any]:
    state = "running" if role == "leader" else "streaming"
    return {"name": name, "role": role, "state": state, "host": name, "port": 5432, "timeline": 4, "lag": 0, "api_url": f"https://{name}:8008/patroni", **facts}


def cluster(*members: dict[str, t.Any], **facts: t.Any) -> Cluster:
    return cluster_of({"members": list(members), "scope": "main", **facts}, "http://fake/cluster")


THREE = (member("pg1", "leader"), member("pg2", "sync_standby"), member("pg3"))


@pytest.mark.parametrize("role", ["leader", "master", "primary", "standby_leader"])
def test_every_word_for_the_leader_is_understood(role: str) -> None:
    leader = cluster(member("pg1", role)).leader
    assert leader is not None and leader.name == "pg1"


@pytest.mark.parametrize(("lag", "seen"), [(0, 0), (17, 17), ("unknown", None), (None, None), (True, None)])
def test_an_unknown_lag_is_never_zero(lag: t.Any, seen: int | None) -> None:
    found = cluster(*THREE[:1], member("pg2", lag=lag)).member("pg2")
    assert found is not None and found.lag_bytes == seen


@pytest.mark.parametrize(
    "document", [{}, {"members": {}}, {"members": ["pg1"]}, {"members": [{"name": "pg1"}]}, {"members": [{"name": 1, "role": "r", "state": "s"}]}]
)
def test_what_is_not_patroni_is_refused(document: dict[str, t.Any]) -> None:
    with pytest.raises(ClientError, match="did not answer like Patroni"):
        cluster_of(document, "http://fake/cluster")


def test_who_waits_in_vain_reads_words() -> None:
    seen = cluster(THREE[0], member("pg3", state="stopped", timeline=None), pause=True)
    assert repr(seen) == "automatic failover is paused; pg1 is leader, running, timeline 4; pg3 is replica, stopped, timeline unknown"
    assert repr(cluster()) == "no member"


@pytest.mark.parametrize(
    ("name", "actions"), [("any", []), ("pg1", []), ("pg2", ["switchover from pg1 to pg2"])], ids=["anybody", "leads already", "synchronous standby"]
)
def test_leader_plan(name: str, actions: list[str]) -> None:
    assert [action.public for action in plan.plan_leader(cluster(*THREE), name, 1000)] == actions


@pytest.mark.parametrize(
    ("seen", "name", "message"),
    [
        (cluster(*THREE), "pg9", "has no member 'pg9'; its members are: pg1, pg2, pg3"),
        (cluster(*THREE, pause=True), "pg2", "is paused"),
        (cluster(*THREE[1:]), "pg2", "has no leader"),
        (cluster(*THREE), "pg3", "not a synchronous standby"),
        (cluster(THREE[0], member("pg2", "sync_standby", lag=1001)), "pg2", "1001 bytes behind"),
        (cluster(THREE[0], member("pg2", "sync_standby", lag="unknown")), "pg2", "lag of member pg2 is unknown"),
        (cluster(THREE[0], member("pg2", "sync_standby", timeline=3)), "pg2", "does not follow the leader"),
        (cluster(THREE[0], member("pg2", "sync_standby", state="starting")), "pg2", "does not follow the leader"),
        (cluster(THREE[0], member("pg2", tags={"nofailover": True})), "pg2", "nofailover"),
    ],
)
def test_leader_plan_refuses(seen: Cluster, name: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan.plan_leader(seen, name, 1000)


def test_an_asynchronous_cluster_may_switch_to_any_follower() -> None:
    assert plan.plan_leader(cluster(member("pg1", "leader"), member("pg2"), member("pg3")), "pg3", 0)


@pytest.mark.parametrize(
    ("seen", "name", "former", "synchronous", "running", "settled"),
    [
        (cluster(*THREE), "any", None, False, 1, True),
        (cluster(*THREE), "any", None, True, 3, True),
        (cluster(*THREE), "any", None, True, 4, False),
        (cluster(*THREE[1:]), "any", None, False, 1, False),
        (cluster(member("pg1", "leader", state="starting")), "any", None, False, 1, False),
        (cluster(THREE[0], THREE[2]), "any", None, True, 1, False),
        (cluster(*THREE), "pg2", None, False, 1, False),
        (cluster(*THREE), "pg1", "pg2", False, 1, True),
        (cluster(THREE[0], member("pg2", timeline=3)), "pg1", "pg2", False, 1, False),
        (cluster(THREE[0]), "pg1", "pg2", False, 1, False),
    ],
)
def test_settled(seen: Cluster, name: str, former: str | None, synchronous: bool, running: int, settled: bool) -> None:
    assert plan.leader_has_settled(seen, name, former, synchronous, running) is settled


PENDING = (member("pg1", "leader", pending_restart=True), member("pg2", "sync_standby", pending_restart=True), member("pg3", state="stopped"))


@pytest.mark.parametrize(
    ("name", "state", "leader_allowed", "actions"),
    [
        ("pg2", "restarted", False, ["restart pg2"]),
        ("pg3", "restarted", False, []),
        ("pg1", "restarted", True, ["restart pg1"]),
        ("pg3", "reinitialized", False, ["reinitialize pg3"]),
        ("pg2", "reinitialized", False, []),
        ("pg1", "reinitialized", False, []),
    ],
)
def test_member_plan(name: str, state: str, leader_allowed: bool, actions: list[str]) -> None:
    assert [action.public for action in plan.plan_member(cluster(*PENDING), name, state, leader_allowed)] == actions


def waiting(name: str, role: str, old: t.Any, new: t.Any) -> dict[str, t.Any]:
    return member(name, role, pending_restart=True, pending_restart_reason={"max_connections": {"old_value": old, "new_value": new}, "shared_buffers": None})


def test_a_raised_value_is_taken_by_the_replica_first() -> None:
    assert plan.plan_member(cluster(waiting("pg1", "leader", "100", "200"), waiting("pg2", "replica", "100", "200")), "pg2", "restarted", False)


def test_a_lowered_value_is_taken_once_the_leader_has_it() -> None:
    assert plan.plan_member(cluster(member("pg1", "leader"), waiting("pg2", "replica", "200", "100")), "pg2", "restarted", False)


def test_a_lowered_value_waits_for_the_leader() -> None:
    with pytest.raises(PlanError, match="takes a lower max_connections only after its leader pg1"):
        plan.plan_member(cluster(waiting("pg1", "leader", "200", "100"), waiting("pg2", "replica", "200", "100")), "pg2", "restarted", False)


@pytest.mark.parametrize(
    ("seen", "name", "state", "message"),
    [
        (cluster(*PENDING), "pg1", "restarted", "switch over to another member"),
        (cluster(*PENDING), "pg9", "restarted", "has no member 'pg9'"),
        (cluster(*PENDING[1:]), "pg3", "reinitialized", "no leader to copy from"),
        (cluster(member("pg1", "leader", state="stopped")), "pg1", "reinitialized", "cannot be made anew"),
    ],
)
def test_member_plan_refuses(seen: Cluster, name: str, state: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        plan.plan_member(seen, name, state, False)


@pytest.mark.parametrize(
    ("current", "wanted", "patch"),
    [
        ({}, {}, {}),
        ({"ttl": 30}, {"ttl": 30}, {}),
        ({"ttl": 30}, {"ttl": "30"}, {}),
        ({"ttl": 30}, {"ttl": 20}, {"ttl": 20}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3, "d": 4}}, {"a": {"c": 3, "d": 4}}),
        ({"a": {"b": 1}}, {"a": {"b": None, "x": None}}, {"a": {"b": None}}),
        ({}, {"a": {"b": 1, "c": None}}, {"a": {"b": 1}}),
        ({"l": [1, 2]}, {"l": [2]}, {"l": [2]}),
        ({"on": True}, {"on": True}, {}),
        ({"on": "true"}, {"on": True}, {"on": True}),
        ({"on": 1}, {"on": True}, {"on": True}),
        ({"slots": {"keep": {}}}, {"slots": {"keep": {}}}, {}),
    ],
)
def test_patch(current: dict[str, t.Any], wanted: dict[str, t.Any], patch: dict[str, t.Any]) -> None:
    found = plan.plan_patch(current, wanted)
    assert found == patch
    assert plan.plan_patch(plan.project_patch(current, found), wanted) == {}


def test_patch_names_every_setting() -> None:
    assert [action.public for action in plan.patch_actions({"postgresql": {"parameters": {"wal_level": "logical", "old": None}}, "ttl": 20})] == [
        "remove postgresql.parameters.old",
        "set postgresql.parameters.wal_level to 'logical'",
        "set ttl to 20",
    ]
