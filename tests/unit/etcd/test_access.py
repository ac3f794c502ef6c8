# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""etcd's authentication against a stateful fake client."""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass, field

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core import http
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._etcd import client as client_module
from ansible_collections.freight.pg_ha.plugins.module_utils._etcd.client import EtcdClient, encode, range_end_of
from ansible_collections.freight.pg_ha.plugins.modules import etcd_access

PARAMS = {"user": "patroni", "password": "pw", "root_password": "rootpw", "prefix": "/service/main/"}


@dataclass
class FakeEtcd:
    """etcd as its JSON gateway shows it."""

    enabled: bool = False
    users: dict[str, str] = field(default_factory=dict)
    grants: dict[str, list[str]] = field(default_factory=dict)
    roles: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)

    def request(self, url: str, method: str, *, body: dict[str, t.Any], headers: dict[str, str], **options: t.Any) -> http.Answer:
        path = url.split("/v3/auth/")[1]
        status, data = self.answer(path, body, headers.get("Authorization"))
        return http.Answer(status, json.dumps(data), url)

    def answer(self, path: str, body: dict[str, t.Any], token: str | None) -> tuple[int, dict[str, t.Any]]:
        if path == "authenticate":
            if not self.enabled:
                return 400, {"error": "etcdserver: authentication is not enabled"}
            if self.users.get(body["name"]) != body["password"]:
                return 400, {"error": "etcdserver: authentication failed, invalid user ID or password"}
            return 200, {"token": body["name"]}
        if self.enabled and token != "root":
            return 403, {"error": "etcdserver: permission denied"}
        if path == "user/list":
            return 200, {"users": sorted(self.users)} if self.users else {}
        if path == "role/list":
            return 200, {"roles": sorted(self.roles)} if self.roles else {}
        if path == "user/get":
            return 200, {"roles": self.grants.get(body["name"], [])}
        if path == "role/get":
            return 200, {"perm": self.roles[body["role"]]}
        self.writes.append(path)
        if path in ("user/add", "user/changepw"):
            self.users[body["name"]] = body["password"]
        elif path == "role/add":
            self.roles[body["name"]] = []
        elif path == "user/grant":
            self.grants.setdefault(body["user"], []).append(body["role"])
        elif path == "role/grant":
            self.roles[body["name"]].append(body["perm"])
        elif path == "enable":
            if "root" not in self.grants.get("root", []):
                return 400, {"error": "etcdserver: root user does not have root role"}
            self.enabled = True
        return 200, {}


@pytest.fixture
def etcd(monkeypatch: pytest.MonkeyPatch) -> FakeEtcd:
    fake = FakeEtcd()
    monkeypatch.setattr(client_module, "request", fake.request)
    return fake


def run(check_mode: bool = False, **options: str) -> t.Any:
    return etcd_access.run(EtcdClient(["https://etcd1:2379"], read_only=check_mode), {**PARAMS, **options}, check_mode)


def test_range_end_is_the_key_after_the_prefix() -> None:
    assert range_end_of("/service/main/") == "/service/main0"


def test_from_nothing_and_again(etcd: FakeEtcd) -> None:
    outcome = run()
    assert outcome.changed
    assert outcome.result["actions"][-1] == "enable authentication"
    assert etcd.enabled
    assert etcd.users == {"root": "rootpw", "patroni": "pw"}
    assert etcd.roles["patroni"] == [{"permType": "READWRITE", "key": encode("/service/main/"), "range_end": encode("/service/main0")}]
    assert not any("pw" in action for action in outcome.result["actions"])
    written = len(etcd.writes)
    assert not run().changed
    assert len(etcd.writes) == written


def test_check_mode_predicts_without_writing(etcd: FakeEtcd) -> None:
    assert "add user patroni" in run(check_mode=True).result["actions"]
    assert etcd.writes == []


def test_half_done_is_finished(etcd: FakeEtcd) -> None:
    etcd.users, etcd.roles = {"root": "old", "patroni": "old"}, {"root": [], "patroni": []}
    assert run().changed
    assert etcd.users == {"root": "rootpw", "patroni": "pw"}
    assert not run().changed


def test_a_changed_password_is_set(etcd: FakeEtcd) -> None:
    run()
    assert run(password="new").result["actions"] == ["set password of user patroni"]
    assert etcd.users["patroni"] == "new"


def test_a_wrong_root_password_is_refused(etcd: FakeEtcd) -> None:
    run()
    with pytest.raises(UsageError, match="does not accept the password of its user root"):
        run(root_password="wrong")


def test_a_refusal_is_told(etcd: FakeEtcd) -> None:
    etcd.answer = lambda path, body, token: (500, {"error": "no leader"})  # type: ignore[method-assign]
    with pytest.raises(ClientError, match="etcd refused auth/authenticate with 500.*no leader"):
        run()
