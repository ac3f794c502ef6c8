# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules against a cluster that answers on loopback."""

from __future__ import annotations

import contextlib
import time
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, GateError, PlanError, UsageError, WaitTimeout
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import Clock
from ansible_collections.freight.pg_ha.plugins.module_utils._patroni.client import PatroniClient
from ansible_collections.freight.pg_ha.plugins.modules import patroni_cluster_info, patroni_config, patroni_leader, patroni_member

if t.TYPE_CHECKING:
    from .conftest import FakePatroni

USER, PASSWORD = "operator", "s3cret"
DEAD = "http://127.0.0.1:9"


def client(patroni: FakePatroni, read_only: bool = False, **options: t.Any) -> PatroniClient:
    return PatroniClient([patroni.url], **{"username": USER, "password": PASSWORD, "request_timeout_seconds": 2, "read_only": read_only, **options})


def clock() -> Clock:
    """Hours pass in no time."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return Clock(monotonic=lambda: now[0], sleep=sleep)


def leader_params(**options: t.Any) -> dict[str, t.Any]:
    return {"name": "any", "max_lag_bytes": 1000, "synchronous_standby": False, "running_members": 1, "timeout_seconds": 30, **options}


def member_params(**options: t.Any) -> dict[str, t.Any]:
    return {"name": "pg3", "state": "restarted", "leader_allowed": False, "timeout_seconds": 30, **options}


def test_info_tells_the_cluster(patroni: FakePatroni) -> None:
    outcome = patroni_cluster_info.run(client(patroni))
    assert not outcome.changed
    assert outcome.result["cluster"]["leader"] == "pg1"
    assert outcome.result["cluster"]["synchronous_standbys"] == ["pg2"]


def test_members_say_what_runs_and_since_when(patroni: FakePatroni) -> None:
    outcome = patroni_cluster_info.run(client(patroni), processes=True)
    assert [member["running"] for member in outcome.result["cluster"]["members"]] == [
        {"postgresql_version": "17.12", "patroni_version": "4.0.7", "started_at": 1795952827.948143}
    ] * 3


@pytest.mark.parametrize("started", ["", "yesterday", "2026-11-29 11:47:07"])
def test_a_member_that_does_not_say_since_when_is_an_error(patroni: FakePatroni, started: str) -> None:
    patroni.started = started
    with pytest.raises(ClientError, match="does not say which PostgreSQL runs there and since when"):
        patroni_cluster_info.run(client(patroni), processes=True)


def test_a_member_without_postgresql_is_an_error(patroni: FakePatroni) -> None:
    patroni.stuck = True
    with pytest.raises(ClientError, match="/patroni does not say .* is it starting, or stopped"):
        patroni_cluster_info.run(client(patroni), processes=True)


def test_a_dead_member_is_skipped(patroni: FakePatroni) -> None:
    assert PatroniClient([DEAD, patroni.url], request_timeout_seconds=2).read_cluster().scope == "main"


def test_nobody_there_names_every_address() -> None:
    with pytest.raises(ClientError, match="No member of the Patroni cluster gave /cluster.*127.0.0.1:9"):
        PatroniClient([DEAD], request_timeout_seconds=1).read_cluster()


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("garbage", "not JSON"),
        ("list", "mapping was expected"),
        ("redirect", "redirect"),
        ("error", "answered 500"),
        ("hang", "No answer"),
        ("drip", "did not finish"),
    ],
)
def test_every_misbehaviour_is_one_bounded_error(patroni: FakePatroni, mode: str, message: str) -> None:
    patroni.mode = mode
    started = time.monotonic()
    with pytest.raises(ClientError, match=message):
        client(patroni, request_timeout_seconds=0.5).read_cluster()
    assert time.monotonic() - started < 2


def test_wrong_password_is_said_and_not_shown(patroni: FakePatroni) -> None:
    with pytest.raises(ClientError, match="refused the credentials") as caught:
        client(patroni, password="wr0ng").patch_config({"ttl": 20})
    assert "wr0ng" not in caught.value.message
    assert patroni.writes == []


def test_a_read_only_client_does_not_write(patroni: FakePatroni) -> None:
    with pytest.raises(ClientError, match="may only read"):
        client(patroni, read_only=True).patch_config({"ttl": 20})
    assert patroni.writes == []


@pytest.mark.parametrize("check_mode", [False, True])
def test_config_sends_the_difference_once(patroni: FakePatroni, check_mode: bool) -> None:
    params = {"configuration": {"ttl": 20, "postgresql": {"parameters": {"max_connections": 200}}, "absent": None}}
    before = {"ttl": 30, "postgresql": {"parameters": {"max_connections": 100}}}
    after = {"ttl": 20, "postgresql": {"parameters": {"max_connections": 200}}}
    outcome = patroni_config.run(client(patroni, check_mode), params, check_mode)
    assert outcome.changed
    assert (outcome.before, outcome.after) == (before, after)
    assert outcome.result["actions"] == ["set postgresql.parameters.max_connections to 200", "set ttl to 20"]
    assert patroni.config == (before if check_mode else after)
    if not check_mode:
        again = patroni_config.run(client(patroni), params, False)
        assert not again.changed
        assert len(patroni.writes) == 1


@pytest.mark.parametrize("check_mode", [False, True])
def test_leader_switches_over_and_is_content_afterwards(patroni: FakePatroni, check_mode: bool) -> None:
    params = leader_params(name="pg2", synchronous_standby=True, running_members=3)
    outcome = patroni_leader.run(client(patroni, check_mode), params, check_mode, clock())
    assert outcome.changed
    assert (outcome.before, outcome.after) == ({"leader": "pg1"}, {"leader": "pg2"})
    assert outcome.result["cluster"]["leader"] == "pg2"
    assert patroni.find("pg2")["role"] == ("sync_standby" if check_mode else "leader")
    assert len(patroni.writes) == (0 if check_mode else 1)
    if not check_mode:
        again = patroni_leader.run(client(patroni), params, False, clock())
        assert not again.changed
        assert len(patroni.writes) == 1


@pytest.mark.parametrize("check_mode", [False, True])
def test_any_leader_will_do(patroni: FakePatroni, check_mode: bool) -> None:
    outcome = patroni_leader.run(client(patroni, check_mode), leader_params(), check_mode, clock())
    assert not outcome.changed
    assert outcome.result["cluster"]["leader"] == "pg1"
    assert patroni.writes == []


def test_a_refused_switchover_fails(patroni: FakePatroni) -> None:
    patroni.stuck = True
    with pytest.raises(ClientError, match="503: Switchover failed"):
        patroni_leader.run(client(patroni), leader_params(name="pg2"), False, clock())


def test_an_answer_that_got_lost_is_read_from_the_cluster(patroni: FakePatroni, monkeypatch: pytest.MonkeyPatch) -> None:
    real = PatroniClient.switchover

    def lossy(self: PatroniClient, *arguments: t.Any) -> None:
        real(self, *arguments)
        raise ClientError("The answer broke off.")

    monkeypatch.setattr(PatroniClient, "switchover", lossy)
    assert patroni_leader.run(client(patroni), leader_params(name="pg2"), False, clock()).after == {"leader": "pg2"}


def test_waiting_for_a_leader_is_bounded_and_says_what_was_seen(patroni: FakePatroni) -> None:
    patroni.members = patroni.members[1:]
    with pytest.raises(WaitTimeout, match="A running leader with a synchronous standby did not come within 30 s; last seen: .*pg2"):
        patroni_leader.run(client(patroni), leader_params(synchronous_standby=True), False, clock())


def test_an_unfit_candidate_is_refused_before_any_write(patroni: FakePatroni) -> None:
    with pytest.raises(PlanError):
        patroni_leader.run(client(patroni), leader_params(name="pg3"), False, clock())
    assert patroni.writes == []


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize(
    ("state", "facts", "path"),
    [("restarted", {"pending_restart": True}, "/restart"), ("reinitialized", {"state": "start failed", "timeline": 3}, "/reinitialize")],
)
def test_member_is_brought_to_its_state_once(patroni: FakePatroni, state: str, facts: dict[str, t.Any], path: str, check_mode: bool) -> None:
    patroni.find("pg3").update(facts)
    params = member_params(state=state)
    outcome = patroni_member.run(client(patroni, check_mode), params, check_mode, clock())
    assert outcome.changed
    assert [written for _method, written, _body in patroni.writes] == ([] if check_mode else [path])
    if not check_mode:
        assert not patroni_member.run(client(patroni), params, False, clock()).changed
        assert len(patroni.writes) == 1


def test_a_member_that_does_not_come_back_fails(patroni: FakePatroni, monkeypatch: pytest.MonkeyPatch) -> None:
    patroni.find("pg3")["pending_restart"] = True
    monkeypatch.setattr(PatroniClient, "restart", lambda *arguments: None)
    with pytest.raises(WaitTimeout, match="Member pg3 as restarted"):
        patroni_member.run(client(patroni), member_params(), False, clock())


def test_the_password_goes_to_no_member_without_tls(patroni: FakePatroni) -> None:
    cluster = client(patroni).read_cluster()
    secure = PatroniClient(["https://pg1:8008"], username=USER, password=PASSWORD)
    with pytest.raises(ClientError, match="cannot be used"):
        secure.restart(cluster.members[0], 1)


class FakeHold:
    """Poolers whose clients wait; what was done is in ``done``.

    :param refuses: the poolers cannot be held
    """

    def __init__(self, patroni: FakePatroni, refuses: bool = False) -> None:
        self.patroni, self.refuses = patroni, refuses
        self.done: list[str] = []
        self.held_ms: float | None = None
        self.resumed_because = "failed"

    def check(self, *, guarded: bool = True) -> None:
        self.done.append("check" if guarded else "check without a guard")
        if self.refuses:
            raise GateError("Pooler lb1 has no guard.")

    @contextlib.contextmanager
    def held(self) -> t.Iterator[None]:
        self.done.append("pause")
        assert self.patroni.writes == []
        try:
            yield
        finally:
            self.done.append("resume")
            self.held_ms = 900.0

    def wait_until_served(self, given_up: t.Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not given_up() and self.patroni.find("pg2")["role"] != "leader":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if not given_up():
            self.resumed_because = "served"


def test_clients_wait_at_their_poolers_while_the_leader_changes(patroni: FakePatroni) -> None:
    hold = FakeHold(patroni)
    outcome = patroni_leader.run(client(patroni), leader_params(name="pg2"), False, clock(), hold)
    assert hold.done == ["check", "pause", "resume"] and outcome.after == {"leader": "pg2"}
    assert outcome.result["held"] == {"ms": 900.0, "because": "served"}
    assert len(patroni.writes) == 1


def test_a_refused_switchover_lets_clients_go_on_and_fails(patroni: FakePatroni) -> None:
    patroni.stuck = True
    hold = FakeHold(patroni)
    with pytest.raises(ClientError, match="Switchover failed"):
        patroni_leader.run(client(patroni), leader_params(name="pg2"), False, clock(), hold)
    assert hold.done == ["check", "pause", "resume"]


@pytest.mark.parametrize("check_mode", [False, True])
def test_poolers_that_cannot_be_held_refuse_before_any_write(patroni: FakePatroni, check_mode: bool) -> None:
    hold = FakeHold(patroni, refuses=True)
    with pytest.raises(GateError, match="has no guard"):
        patroni_leader.run(client(patroni, check_mode), leader_params(name="pg2"), check_mode, clock(), hold)
    # Who only predicts has not armed one.
    assert hold.done == ["check without a guard" if check_mode else "check"] and patroni.writes == []


def test_where_nothing_changes_nobody_is_held(patroni: FakePatroni) -> None:
    hold = FakeHold(patroni)
    outcome = patroni_leader.run(client(patroni), leader_params(name="pg1"), False, clock(), hold)
    assert (hold.done, outcome.changed, outcome.result["held"]) == ([], False, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"names": []}, "poolers.names is empty"), ({"pause_seconds": 5.0}, "has to end before the budget"), ({"pause_seconds": 0.0}, "more than nothing")],
)
def test_poolers_that_are_declared_wrongly_are_told(changes: dict[str, t.Any], words: str) -> None:
    declared = {"service_file": "/x", "service": "target", "names": ["lb1"], "database": "freight", "pause_seconds": 1.0, "budget_seconds": 5.0}
    assert patroni_leader.open_hold({"poolers": None}) is None
    hold = patroni_leader.open_hold({"poolers": declared})
    assert hold is not None and hold.names == ("lb1",)
    with pytest.raises(UsageError, match=words):
        patroni_leader.open_hold({"poolers": {**declared, **changes}})
