# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a playbook has done so far, told from ansible-runner's events (no I/O; the clock is handed in)."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .estimate import Pace

# Modules of ours whose results are progress: name -> the key of the result that holds it.
COPY, PARITY, PROBE, CUTOVER, STATUS = "replication_copy_info", "parity_info", "ledger_probe_info", "cutover", "migration_status_info"
LINKS = frozenset({"replication_copy_info", "replication_link_info", "replication_link"})
RESULTS = frozenset({"runner_on_ok", "runner_retry", "runner_item_on_ok"})


@dataclass(frozen=True)
class Failure:
    """A task that failed on a host.

    :param action: module, without its collection
    :param error: class of our errors, "" where the module named none
    :param broke_off: the module gave no result of its own: it crashed, or the host was lost
    :param repeats: it only says again what an earlier failure said (a rescue that ends with the reason)
    """

    host: str
    task: str
    action: str
    message: str
    error: str = ""
    broke_off: bool = False
    repeats: bool = False

    @property
    def sentence(self) -> str:
        """What to tell."""
        return self.message if self.message.endswith((".", "!", "?")) else f"{self.message}."


@dataclass(frozen=True)
class Notice:
    """Something to show.

    :param kind: ``phase``, ``step``, ``progress``, ``message`` or ``failure``
    :param data: JSON-able
    """

    kind: str
    data: dict[str, t.Any]


@dataclass
class PhaseTime:
    """When a phase began and ended, in seconds of the clock handed in."""

    name: str
    began: float
    ended: float | None = None


@dataclass
class Tracker:
    """The state of one run.

    :param plays: (phase, name of the play) in the order of the playbook, so that a play tells its phase
    """

    plays: list[tuple[str, str]] = field(default_factory=list)
    phases: list[PhaseTime] = field(default_factory=list)
    play: str = ""
    task: str = ""
    action: str = ""
    tasks: int = 0
    pid: int | None = None
    copy: dict[str, t.Any] | None = None
    parity: dict[str, t.Any] | None = None
    probe: dict[str, t.Any] | None = None
    link: dict[str, t.Any] | None = None
    status: dict[str, t.Any] | None = None
    serves: str | None = None
    failed_gates: list[dict[str, t.Any]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    recap: dict[str, t.Any] | None = None
    last_words: list[str] = field(default_factory=list)
    internal_error: str = ""
    rows_pace: Pace = field(default_factory=Pace)
    parity_pace: Pace = field(default_factory=Pace)
    _play_index: int = -1

    @property
    def phase(self) -> str:
        """The phase that runs, "" before the first play."""
        return self.phases[-1].name if self.phases and self.phases[-1].ended is None else ""

    @property
    def current(self) -> str | None:
        """The phase that runs, or ran last."""
        return self.phases[-1].name if self.phases else None

    def take(self, event: dict[str, t.Any], now: float) -> list[Notice]:
        """Take in one event.

        :param event: of ansible-runner
        :param now: seconds of a clock that never goes back
        """
        data = event.get("event_data") or {}
        kind = event.get("event", "")
        self.pid = event.get("pid") or self.pid
        if kind == "playbook_on_play_start":
            return self._take_play(str(data.get("name") or data.get("play") or ""), now)
        if kind == "playbook_on_task_start":
            return self._take_task(data)
        if kind in RESULTS:
            return self._take_result(kind, data, now)
        if kind == "runner_on_failed" and not data.get("ignore_errors"):
            return self._take_failure(data)
        if kind == "runner_on_unreachable":
            return self._take_failure(data, lost=True)
        if kind == "playbook_on_stats":
            self.recap = {key: data.get(key) or {} for key in ("ok", "changed", "failures", "dark", "skipped", "rescued")}
            self.end_phase(now)
        elif kind in ("verbose", "error") and (event.get("stdout") or "").strip():
            self.last_words = [*self.last_words, " ".join(str(event["stdout"]).split())][-3:]
        return []

    def end_phase(self, now: float) -> None:
        """The phase that runs has ended."""
        if self.phases and self.phases[-1].ended is None:
            self.phases[-1].ended = now

    @property
    def broken(self) -> bool:
        """Whether a host failed or was lost, so far as the recap says; without one it broke off."""
        return self.recap is None or any(self.recap[key] for key in ("failures", "dark"))

    def changed(self) -> int:
        """Tasks that changed something, over all hosts."""
        return sum((self.recap or {}).get("changed", {}).values())

    def _take_play(self, name: str, now: float) -> list[Notice]:
        self.play, self.task, self.action = name, "", ""
        following = (index for index in range(self._play_index + 1, len(self.plays)) if self.plays[index][1] == name)
        self._play_index = next(following, self._play_index)
        if self._play_index < 0 or self.plays[self._play_index][0] == self.phase:
            return []
        self.end_phase(now)
        self.copy = self.parity = self.probe = self.link = None
        self.phases.append(PhaseTime(self.plays[self._play_index][0], now))
        return [Notice("phase", {"phase": self.phase})]

    def _take_task(self, data: dict[str, t.Any]) -> list[Notice]:
        # Handlers and included tasks come the same way.
        self.task = str(data.get("task") or "")
        self.action = action_of(data)
        self.tasks += 1
        return [Notice("step", {"phase": self.phase, "play": self.play, "step": step_words(self.task)})]

    def _take_result(self, kind: str, data: dict[str, t.Any], now: float) -> list[Notice]:
        result, action = data.get("res") or {}, action_of(data)
        if action == "debug" and kind != "runner_retry":
            return self._messages(result.get("msg"))
        seen = False
        if action == COPY and isinstance(result.get("initial_copy"), dict):
            self.copy, seen = result["initial_copy"], True
            if self.copy.get("state") == "running" and self.copy.get("step") == "rows":
                self.rows_pace.see(self.copy.get("bytes_done"), self.copy.get("bytes_total"), now)
        elif action == PARITY and isinstance(result.get("progress"), dict):
            self.parity, seen = {"state": result.get("state"), **result["progress"]}, True
            self.parity_pace.see(self.parity.get("chunks_done"), self.parity.get("chunks_total"), now)
        elif action == PROBE and isinstance(result.get("probe"), dict):
            self.probe, seen = result["probe"], True
        elif action == CUTOVER:
            self.serves = result.get("serves") or self.serves
            self.failed_gates = [gate for gate in result.get("failed_gates") or [] if isinstance(gate, dict)]
        elif action == STATUS:
            self.status = result.get("status")
        if action in LINKS and isinstance(result.get("link"), dict):
            self.link, seen = result["link"], True
        return [Notice("progress", self.progress(now))] if seen else []

    def _messages(self, message: t.Any) -> list[Notice]:
        lines = message if isinstance(message, list) else [message]
        return [Notice("message", {"phase": self.phase, "message": line}) for line in lines if isinstance(line, str) and line]

    def _take_failure(self, data: dict[str, t.Any], lost: bool = False) -> list[Notice]:
        result = data.get("res") or {}
        message, error = _explain(result), str(result.get("error") or "")
        broke_off = lost or "module_stderr" in result or "MODULE FAILURE" in str(result.get("msg")) or (bool(result.get("exception")) and not error)
        action, host = action_of(data), str(data.get("host") or "")
        repeats = action == "fail" and any(message == earlier.message for earlier in self.failures)
        if lost:
            message = f"Host {host} cannot be reached: {message}"
        failure = Failure(host, str(data.get("task") or ""), action, message, error, broke_off, repeats)
        self.failures.append(failure)
        if repeats:
            return []
        return [Notice("failure", {"phase": self.phase, "step": step_words(failure.task), "host": failure.host, "message": failure.sentence, "error": error})]

    def progress(self, now: float) -> dict[str, t.Any]:
        """The numbers of the phase that runs; what nobody has measured is not there."""
        found: dict[str, t.Any] = {"phase": self.phase}
        if self.copy is not None:
            keys = ("state", "step", "bytes_done", "bytes_total", "tables_done", "tables_total", "rows_done")
            found["copy"] = {key: self.copy.get(key) for key in keys}
            found["copy"]["rows_seconds_left"] = self.rows_pace.seconds_left(now) if self.copy.get("step") == "rows" else None
        if self.parity is not None:
            found["parity"] = {**self.parity, "seconds_left": self.parity_pace.seconds_left(now)}
        if self.probe is not None:
            found["probe"] = {key: self.probe.get(key) for key in ("running", "clients", "acknowledged", "errors", "transactions_per_second")}
        if self.link is not None and self.link.get("exists"):
            found["link"] = {key: self.link.get(key) for key in ("following", "lag_bytes", "lag_seconds")}
        return found


def action_of(data: dict[str, t.Any]) -> str:
    """Name of a task's module without its collection."""
    return str(data.get("resolved_action") or data.get("task_action") or "").rpartition(".")[2]


def step_words(task: str) -> str:
    """A task's name in words: ``Copy | Watch the copy`` is ``Copy: watch the copy``."""
    part, separator, rest = task.partition(" | ")
    return f"{part}: {rest[:1].lower()}{rest[1:]}" if separator else task


def _explain(result: dict[str, t.Any]) -> str:
    """Why a task failed, in one line; of a loop, every item that failed."""
    items = [item for item in result.get("results") or [] if isinstance(item, dict) and item.get("failed")]
    messages = [str(item.get("msg") or "") for item in items] or [str(result.get("msg") or "")]
    words = " ".join(" ".join(dict.fromkeys(message for message in messages if message)).split())
    return words or "The task failed and gave no reason"
