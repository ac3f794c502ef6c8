# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An API that answers wrongly, late or for ever: one sentence, within the bound."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, PgHaError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.http import BODY_LIMIT_BYTES, GRACE_SECONDS
from ansible_collections.freight.pg_ha.plugins.module_utils._patroni import plan
from ansible_collections.freight.pg_ha.plugins.module_utils._patroni.client import PatroniClient
from ansible_collections.freight.pg_ha.plugins.module_utils._patroni.model import cluster_of
from hypothesis import given
from hypothesis import strategies as st

from .conftest import QUICK

TIMEOUT_SECONDS = 0.5
Talk = t.Callable[[socket.socket], None]


def drip(wire: socket.socket, beginning: bytes, piece: bytes, seconds: float) -> None:
    """Send a piece now and then, for ever: the other end must be the one to stop."""
    wire.sendall(beginning)
    while True:
        wire.sendall(piece)
        time.sleep(seconds)


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ANSWERS: dict[str, tuple[Talk, str]] = {
    "closes at once": (lambda wire: None, "No answer"),
    "says nothing": (lambda wire: time.sleep(60), "No answer|did not finish"),
    "is no HTTP": (lambda wire: wire.sendall(b"\x16\x03\x01\x00garbage\r\n\r\n"), "No answer"),
    "drips its head": (lambda wire: drip(wire, OK, b"X-A: b\r\n", 0.1), "did not finish"),
    "drips one header": (lambda wire: drip(wire, OK + b"X-A: ", b"b", 0.1), "did not finish"),
    "drips its body": (lambda wire: drip(wire, OK + b"\r\n", b" ", 0.1), "did not finish"),
    "sends an endless body": (lambda wire: drip(wire, OK + b"\r\n", b" " * 65536, 0), f"more than {BODY_LIMIT_BYTES} bytes|did not finish"),
    "breaks off": (lambda wire: wire.sendall(OK + b"Content-Length: 100\r\n\r\n{"), "broke off|not JSON"),
    "redirects": (lambda wire: wire.sendall(b"HTTP/1.1 307 R\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"), "redirect"),
    "redirects to itself": (lambda wire: wire.sendall(b"HTTP/1.1 301 R\r\nLocation: /cluster\r\nContent-Length: 0\r\n\r\n"), "redirect"),
    "nests deeply": (lambda wire: wire.sendall(OK + b"\r\n" + b"[" * 200000), "not JSON"),
    "answers with bytes": (lambda wire: wire.sendall(OK + b"\r\n\xff\xfe\x00{}"), "not JSON"),
    "lies about its length": (lambda wire: wire.sendall(OK + b"Content-Length: -1\r\n\r\n[]"), "mapping was expected"),
    "has an odd status": (lambda wire: wire.sendall(b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n"), "answered 999"),
}


@pytest.fixture
def answering() -> t.Iterator[t.Callable[[Talk], str]]:
    """Starts a server that talks in a given way; returns its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(talk: Talk) -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, _address = listener.accept()
                threading.Thread(target=one, args=(talk, wire), daemon=True).start()

    def one(talk: Talk, wire: socket.socket) -> None:
        with contextlib.suppress(OSError), wire:
            wire.recv(65536)
            talk(wire)

    def start(talk: Talk) -> str:
        threading.Thread(target=serve, args=(talk,), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    listener.close()


@pytest.mark.parametrize("how", ANSWERS)
def test_an_api_that_misbehaves_is_one_bounded_sentence(answering: t.Callable[[Talk], str], how: str) -> None:
    talk, words = ANSWERS[how]
    client = PatroniClient([answering(talk)], request_timeout_seconds=TIMEOUT_SECONDS)
    began = time.monotonic()
    with pytest.raises(ClientError, match=words) as caught:
        client.read_cluster()
    assert time.monotonic() - began < TIMEOUT_SECONDS + GRACE_SECONDS + 0.5
    assert "\n" not in caught.value.message and len(caught.value.message) < 400
    assert "passwd" not in caught.value.message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)
KEYS = {
    "name": st.sampled_from(["pg1", "pg2", "any", ""]) | json_values,
    "role": st.sampled_from(["leader", "primary", "replica", "sync_standby", "quorum_standby", "standby_leader"]) | json_values,
    "state": st.sampled_from(["running", "streaming", "stopped"]) | json_values,
    "timeline": st.integers(1, 3) | json_values,
    "lag": st.integers(-1, 9) | st.just("unknown") | json_values,
    "replay_lag": json_values,
    "port": json_values,
    "api_url": json_values,
    "tags": st.fixed_dictionaries({}, optional={"nofailover": json_values}) | json_values,
    "pending_restart": json_values,
    "pending_restart_reason": st.fixed_dictionaries(
        {}, optional={"max_connections": st.fixed_dictionaries({"old_value": st.text("019²٣"), "new_value": st.text("019²٣")}) | json_values}
    ),
}
members = st.fixed_dictionaries(
    {key: KEYS[key] for key in ("name", "role", "state")}, optional={key: KEYS[key] for key in KEYS if key not in ("name", "role", "state")}
)
documents = st.fixed_dictionaries({"members": st.lists(members, max_size=4) | json_values}, optional={"scope": json_values, "pause": json_values})


@QUICK
@given(documents, st.sampled_from(["pg1", "pg2", "any"]), st.sampled_from(["restarted", "reinitialized"]), st.booleans(), st.integers(0, 5))
def test_any_answer_is_a_cluster_or_one_sentence_and_no_plan_is_made_of_what_is_unknown(
    document: dict[str, t.Any], name: str, state: str, allowed: bool, lag: int
) -> None:
    try:
        cluster = cluster_of(document, "http://x")
    except ClientError as error:
        assert "did not answer like Patroni" in error.message
        return
    json.dumps(cluster.public())
    for make in (lambda: plan.plan_leader(cluster, name, lag), lambda: plan.plan_member(cluster, name, state, allowed)):
        try:
            actions = make()
        except PgHaError as error:
            assert error.message
            continue
        for action in actions:
            candidate = cluster.member(name)
            assert candidate is not None
            if action.public.startswith("switchover"):
                assert cluster.leader is not None and candidate.lag_bytes is not None and candidate.lag_bytes <= lag and cluster.is_following(candidate)
            else:
                assert allowed or not candidate.is_leader


@QUICK
@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4), st.dictionaries(st.text(max_size=5), json_values, max_size=4))
def test_a_patch_brings_what_is_wanted_once(current: dict[str, t.Any], wanted: dict[str, t.Any]) -> None:
    after = plan.project_patch(current, plan.plan_patch(current, wanted))
    again = plan.plan_patch(after, wanted)
    assert again == {} or "nan" in repr(again)


def test_a_digit_that_is_no_number_is_no_lowered_setting() -> None:
    reason = {"max_connections": {"old_value": "²", "new_value": "1"}}
    found = cluster_of({"members": [{"name": "pg1", "role": "replica", "state": "running", "pending_restart_reason": reason}]}, "http://x")
    assert found.members[0].lowered == ()
