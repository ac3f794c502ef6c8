# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Events as ansible-runner hands them in, and a playbook that is a list of them."""

from __future__ import annotations

import json
import pathlib
import signal
import typing as t

import pytest
from pg_ha_runner import inventory, verbs
from pg_ha_runner.outcome import Ending

RECAP = {"event": "playbook_on_stats", "event_data": {"ok": {"mover": 1}, "changed": {"mover": 2}}}


def play(name: str) -> dict[str, t.Any]:
    """A play begins."""
    return {"event": "playbook_on_play_start", "pid": 0, "event_data": {"play": name, "name": name}}


def task(name: str, action: str) -> dict[str, t.Any]:
    """A task begins."""
    return {"event": "playbook_on_task_start", "event_data": {"task": name, "task_action": f"freight.pg_ha.{action}"}}


def result(action: str, kind: str = "runner_on_ok", task: str = "", **values: t.Any) -> dict[str, t.Any]:
    """A task's result on the mover."""
    return {"event": kind, "event_data": {"host": "mover", "task": task, "task_action": f"freight.pg_ha.{action}", "res": values}}


def failure(action: str, message: str, task: str = "", **values: t.Any) -> dict[str, t.Any]:
    """A task's failure on the mover."""
    return result(action, "runner_on_failed", task, msg=message, **values)


class FakePlay:
    """In place of the function that calls ansible-runner: each playbook gives its events and its ending."""

    def __init__(self) -> None:
        self.events: dict[str, list[dict[str, t.Any] | t.Callable[[], None]]] = {}
        self.endings: dict[str, Ending] = {}
        self.jobs: list[t.Any] = []

    def __call__(self, job: t.Any, scratch: pathlib.Path, on_event: t.Callable[..., None], kill_now: t.Callable[[], bool]) -> Ending:
        self.jobs.append(job)
        (scratch / "command").write_text("everything that ansible-runner writes")
        name = job.playbook.rpartition(".")[2]
        for event in self.events.get(name, []):
            if callable(event):
                event()
            else:
                on_event(event)
            if kill_now():
                return Ending(254)
        return self.endings.get(name, Ending(0))


@pytest.fixture
def fake_play() -> FakePlay:
    """Playbooks without Ansible."""
    return FakePlay()


@pytest.fixture
def place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A working directory with an inventory and a collection; the inventory's listing holds a secret."""
    playbooks = tmp_path / "collection" / "playbooks"
    playbooks.mkdir(parents=True)
    for name in ("assess", "cut_over", "status"):
        (playbooks / f"{name}.yml").write_text(json.dumps([{"name": f"Play {name}", "hosts": "pg_ha_mover"}]))
    (playbooks / "migrate.yml").write_text(json.dumps([{"ansible.builtin.import_playbook": f"{name}.yml"} for name in ("assess", "cut_over")]))
    listing = {"pg_ha_mover": {"hosts": ["mover"]}, "_meta": {"hostvars": {"mover": {"pg_ha_source_admin_password": "planted-secret"}}}}
    (tmp_path / "inventory.yml").write_text("{}")
    monkeypatch.setattr(verbs, "find_collection", lambda: tmp_path / "collection")
    monkeypatch.setattr(inventory, "read", lambda inventories: listing)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _signals_as_at_a_terminal() -> t.Iterator[None]:
    """Who starts tests in the background may have SIGINT and SIGHUP ignored; processes that tests start would inherit that."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
