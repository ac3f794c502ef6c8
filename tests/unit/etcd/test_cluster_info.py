# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who leads the store, and who does not count."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core import http
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError
from ansible_collections.freight.pg_ha.plugins.module_utils._etcd import client as client_module
from ansible_collections.freight.pg_ha.plugins.modules import etcd_cluster_info

MEMBERS = {"etcd1": "https://etcd1:2379", "etcd2": "https://etcd2:2379", "etcd3": "https://etcd3:2379"}


def ask(monkeypatch: pytest.MonkeyPatch, answers: dict[str, t.Any]) -> dict[str, t.Any]:
    """:param answers: by member (own id, leader's id), any other document, or None for silence"""

    def request(url: str, method: str, **options: t.Any) -> http.Answer:
        assert method == "POST" and url.endswith("/v3/maintenance/status")
        found = answers[url.split("/")[2].split(":")[0]]
        if found is None:
            raise ClientError("no route")
        document = {"header": {"member_id": found[0]}, "leader": found[1]} if isinstance(found, tuple) else found
        return http.Answer(200, json.dumps(document), url)

    monkeypatch.setattr(client_module, "request", request)
    outcome = etcd_cluster_info.run({"members": MEMBERS, "ca_file": None, "request_timeout_seconds": 1})
    assert not outcome.changed
    return t.cast("dict[str, t.Any]", outcome.result["cluster"])


def test_a_whole_store(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask(monkeypatch, {"etcd1": ("1", "3"), "etcd2": ("2", "3"), "etcd3": ("3", "3")})
    assert found == {"leader": "etcd3", "answering": ["etcd1", "etcd2", "etcd3"], "silent": {}}


def test_a_member_that_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ask(monkeypatch, {"etcd1": ("1", "1"), "etcd2": ("2", "1"), "etcd3": None})
    assert found["leader"] == "etcd1" and list(found["silent"]) == ["etcd3"] and "no route" in found["silent"]["etcd3"]


@pytest.mark.parametrize("third", [None, ("3", "2"), ("3", "0"), {"header": {}}])
def test_nobody_leads_when_it_is_not_known(monkeypatch: pytest.MonkeyPatch, third: t.Any) -> None:
    """The leader itself does not answer, two of them are named, or the answer is not etcd's."""
    found = ask(monkeypatch, {"etcd1": ("1", "3"), "etcd2": ("2", "3"), "etcd3": third})
    assert found["leader"] is None and (("etcd3" in found["silent"]) is (third != ("3", "2")))
