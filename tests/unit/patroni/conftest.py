# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stateful stand-in for Patroni's REST API on loopback."""

from __future__ import annotations

import base64
import copy
import json
import threading
import time
import typing as t
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

USER, PASSWORD = "operator", "s3cret"


def member(name: str, role: str = "replica", **facts: t.Any) -> dict[str, t.Any]:
    """One entry of GET /cluster."""
    lag = {} if role == "leader" else {"lag": 0}
    state = "running" if role == "leader" else "streaming"
    return {"name": name, "role": role, "state": state, "host": name, "port": 5432, "timeline": 4, **lag, **facts}


@dataclass
class FakePatroni:
    """A cluster of three: what the API would tell, and what it was asked to change.

    :param mode: None, or how the server misbehaves: ``garbage``, ``list``, ``redirect``, ``hang``, ``drip``, ``error``
    """

    members: list[dict[str, t.Any]] = field(default_factory=lambda: [member("pg1", "leader"), member("pg2", "sync_standby"), member("pg3")])
    config: dict[str, t.Any] = field(default_factory=lambda: {"ttl": 30, "postgresql": {"parameters": {"max_connections": 100}}})
    paused: bool = False
    mode: str | None = None
    stuck: bool = False
    started: str = "2026-11-29 11:47:07.948143+00:00"
    writes: list[tuple[str, str, t.Any]] = field(default_factory=list)
    url: str = ""

    def cluster(self) -> dict[str, t.Any]:
        """GET /cluster."""
        members = [{**entry, "api_url": f"{self.url}/patroni"} for entry in copy.deepcopy(self.members)]
        return {"members": members, "scope": "main", **({"pause": True} if self.paused else {})}

    def status(self) -> dict[str, t.Any]:
        """GET /patroni of a member; one that is stuck has no PostgreSQL."""
        patroni = {"patroni": {"version": "4.0.7", "scope": "main", "name": "pg1"}}
        if self.stuck:
            return {"state": "stopped", **patroni}
        return {"state": "running", "postmaster_start_time": self.started, "server_version": 170012, **patroni}

    def find(self, name: str) -> dict[str, t.Any]:
        """The member of that name."""
        return next(entry for entry in self.members if entry["name"] == name)

    def change(self, method: str, path: str, body: dict[str, t.Any]) -> tuple[int, str]:
        """A write, as Patroni would do it."""
        self.writes.append((method, path, body))
        if path == "/config":
            _merge(self.config, body)
            return 200, json.dumps(self.config)
        if path == "/switchover":
            if self.stuck:
                return 503, "Switchover failed"
            self.find(body["leader"]).update(member(body["leader"], "sync_standby", timeline=5))
            self.find(body["candidate"]).update(member(body["candidate"], "leader", timeline=5))
            for entry in self.members:
                entry["timeline"] = 5
            return 200, "Successfully switched over"
        if path == "/restart":
            for entry in self.members:
                entry.pop("pending_restart", None)
            return 200, "restarted successfully"
        if path == "/reinitialize":
            for entry in self.members:
                if entry["role"] != "leader":
                    entry.update(state="streaming", timeline=self.find("pg1")["timeline"], lag=0)
            return 200, "reinitialize started"
        return 404, "not found"


def _merge(into: dict[str, t.Any], patch: dict[str, t.Any]) -> None:
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _handler(fake: FakePatroni) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: t.Any) -> None:
            """Quiet."""

        def answer(self, status: int, text: str, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        def do_GET(self) -> None:
            if fake.mode == "garbage":
                self.answer(200, "<html>not patroni</html>")
            elif fake.mode == "list":
                self.answer(200, "[]")
            elif fake.mode == "redirect":
                self.answer(302, "", Location="http://192.0.2.1/")
            elif fake.mode == "error":
                self.answer(500, "boom")
            elif fake.mode == "hang":
                time.sleep(3)
            elif fake.mode == "drip":
                self.send_response(200)
                self.end_headers()
                for _round in range(30):
                    self.wfile.write(b" ")
                    time.sleep(0.1)
            elif self.path == "/patroni":
                self.answer(200, json.dumps(fake.status()))
            elif self.path == "/config":
                self.answer(200, json.dumps(fake.config))
            else:
                self.answer(200, json.dumps(fake.cluster()))

        def write(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
            wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if self.headers.get("Authorization") != wanted:
                self.answer(401, "no auth header received")
                return
            self.answer(*fake.change(self.command, self.path, body))

        do_POST = do_PATCH = write

    return Handler


@pytest.fixture
def patroni() -> t.Iterator[FakePatroni]:
    """The stand-in, running."""
    fake = FakePatroni()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake))
    server.daemon_threads = True
    server.block_on_close = False
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield fake
    server.shutdown()
    server.server_close()
