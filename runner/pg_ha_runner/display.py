# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user sees: live on a terminal, plain lines elsewhere, or one JSON object per line."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sys
import time
import typing as t

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .masking import Masker
from .tracker import Notice, Tracker, step_words
from .verbs import PHASES, words

# Progress lines where nothing is drawn.
PLAIN_SECONDS = 10.0
JSON_SECONDS = 1.0
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def amount(count: float | None) -> str:
    """Bytes in words."""
    if count is None:
        return "unknown"
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} {UNITS[unit]}" if unit == 0 or count >= 100 else f"{count:.1f} {UNITS[unit]}"


def duration(seconds: float) -> str:
    """Seconds in words."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def numbers(progress: dict[str, t.Any]) -> list[str]:
    """The numbers of a phase in words, the most telling first; nothing that was not measured."""
    found = []
    copy, parity, probe, link = (progress.get(key) for key in ("copy", "parity", "probe", "link"))
    if copy and copy.get("bytes_total"):
        found.append(f"{amount(copy['bytes_done'])} of {amount(copy['bytes_total'])}, {copy['tables_done']} of {copy['tables_total']} tables")
        if copy.get("state") == "running" and copy.get("step") != "rows":
            found.append(f"copy: {words(str(copy.get('step')))}")
        if copy.get("rows_seconds_left") is not None:
            found.append(f"rows in about {duration(copy['rows_seconds_left'])}")
    if parity and parity.get("tables_total"):
        found.append(f"{parity.get('rows') or 0:,} rows compared, {parity.get('tables_done') or 0} of {parity['tables_total']} tables")
        if parity.get("state") == "running" and parity.get("seconds_left") is not None:
            found.append(f"about {duration(parity['seconds_left'])} left")
    if probe and probe.get("running"):
        found.append(f"probe: {probe.get('acknowledged') or 0:,} writes acknowledged, {probe.get('errors') or 0} errors")
    if link and link.get("lag_bytes") is not None:
        late = link.get("lag_seconds")
        found.append(f"lag {amount(link['lag_bytes'])}" + (f" ({late:.1f} s)" if late is not None else ""))
    return found


def share(progress: dict[str, t.Any]) -> float | None:
    """How much of the phase's long work is done, 0 to 1; None where there is none, or no measure of it."""
    copy, parity = progress.get("copy"), progress.get("parity")
    if parity and parity.get("chunks_total"):
        return float(min(1.0, (parity.get("chunks_done") or 0) / parity["chunks_total"]))
    if copy and copy.get("bytes_total"):
        return float(min(1.0, copy["bytes_done"] / copy["bytes_total"]))
    return None


class Display(t.Protocol):
    """Where a run is shown."""

    def notice(self, notice: Notice, tracker: Tracker) -> None:
        """Something was seen."""

    def tick(self, tracker: Tracker) -> None:
        """Time has passed."""

    def say(self, line: str) -> None:
        """A sentence of the runner's own."""

    def output(self, text: str) -> None:
        """Ansible's own output, where it was asked for."""

    def end(self, tracker: Tracker) -> None:
        """The playbook has ended; nothing is drawn any more."""

    def result(self, result: dict[str, t.Any], lines: list[str]) -> None:
        """How the command ended."""


class JsonLines:
    """One JSON object per line on stdout, the last one with ``"event": "result"``."""

    def __init__(self, masker: Masker, clock: t.Callable[[], float] = time.monotonic, stream: t.TextIO | None = None) -> None:
        self._masker, self._clock, self._stream = masker, clock, stream or sys.stdout
        self._last = -JSON_SECONDS

    def _write(self, kind: str, data: dict[str, t.Any]) -> None:
        print(json.dumps(self._masker.data({"event": kind, "at": now(), **data})), file=self._stream, flush=True)

    def notice(self, notice: Notice, tracker: Tracker) -> None:
        if notice.kind == "progress":
            if self._clock() - self._last < JSON_SECONDS:
                return
            self._last = self._clock()
        self._write(notice.kind, notice.data)

    def tick(self, tracker: Tracker) -> None:
        pass

    def say(self, line: str) -> None:
        self._write("runner", {"message": line})

    def output(self, text: str) -> None:
        print(self._masker.text(text), file=sys.stderr, flush=True)

    def end(self, tracker: Tracker) -> None:
        pass

    def result(self, result: dict[str, t.Any], lines: list[str]) -> None:
        self._write("result", result)


class Plain:
    """A line with the time for each thing that happens; progress every ten seconds."""

    def __init__(self, masker: Masker, clock: t.Callable[[], float] = time.monotonic, stream: t.TextIO | None = None) -> None:
        self._masker, self._clock, self._stream = masker, clock, stream or sys.stdout
        self._last = -PLAIN_SECONDS

    def _line(self, text: str) -> None:
        print(f"{now()} {self._masker.text(text)}", file=self._stream, flush=True)

    def notice(self, notice: Notice, tracker: Tracker) -> None:
        phase = words(str(notice.data.get("phase") or ""))
        if notice.kind == "phase":
            self._line(f"== {phase}")
        elif notice.kind == "step":
            self._line(f"{phase}: {notice.data['step']}")
        elif notice.kind == "message":
            self._line(f"{phase}: {notice.data['message']}")
        elif notice.kind == "failure":
            self._line(f"{phase}: FAILED at {notice.data['step']} on {notice.data['host']}: {notice.data['message']}")
        elif notice.kind == "progress" and self._clock() - self._last >= PLAIN_SECONDS and (found := numbers(notice.data)):
            self._last = self._clock()
            self._line(f"{phase}: {'; '.join(found)}")

    def tick(self, tracker: Tracker) -> None:
        pass

    def say(self, line: str) -> None:
        self._line(line)

    def output(self, text: str) -> None:
        print(self._masker.text(text), file=self._stream, flush=True)

    def end(self, tracker: Tracker) -> None:
        for phase in tracker.phases:
            if phase.ended is not None:
                self._line(f"{words(phase.name)}: {duration(phase.ended - phase.began)}")

    def result(self, result: dict[str, t.Any], lines: list[str]) -> None:
        for line in lines:
            print(self._masker.text(line), file=self._stream, flush=True)


class Terminal:
    """Phases with the one that runs drawn live; what is said scrolls above them. Drawn on our ticks: no thread of its own beside a fork."""

    def __init__(self, masker: Masker, phases: t.Sequence[str], clock: t.Callable[[], float] = time.monotonic, console: Console | None = None) -> None:
        self._masker, self._clock = masker, clock
        # The main job shows the whole path, also what it leaves out.
        whole = len(phases) > 2
        self._phases = list(PHASES) if whole else list(phases)
        self._absent = {name: "not in this playbook" for name in PHASES if name not in phases} if whole else {}
        self._console = console or Console(highlight=False)
        self._began = clock()
        self._live: Live | None = None

    def notice(self, notice: Notice, tracker: Tracker) -> None:
        if notice.kind == "message":
            self._print(Text(notice.data["message"]))
        elif notice.kind == "failure":
            self._print(Text(f"{notice.data['step']} on {notice.data['host']}: {notice.data['message']}", style="red"))
        self.tick(tracker)

    def tick(self, tracker: Tracker) -> None:
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
            self._live.start()
        self._live.update(self.picture(tracker), refresh=True)

    def say(self, line: str) -> None:
        self._print(Text(line, style="bold"))

    def output(self, text: str) -> None:
        self._print(Text(text))

    def end(self, tracker: Tracker) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._console.print(self.picture(tracker, ended=True))

    def result(self, result: dict[str, t.Any], lines: list[str]) -> None:
        for number, line in enumerate(lines):
            self._print(Text(line, style=("bold green" if result.get("exit_code") == 0 else "bold red") if number == 0 else ""))

    def _print(self, text: Text) -> None:
        text.plain = self._masker.text(text.plain)
        self._console.print(text, soft_wrap=False)

    def picture(self, tracker: Tracker, ended: bool = False) -> Group:
        """The phases, one line each; the one that runs with its step and its numbers."""
        now_ = self._clock()
        times = {phase.name: phase for phase in tracker.phases}
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(width=17, no_wrap=True)
        table.add_column(width=12, no_wrap=True)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.expand = True
        for name in self._phases:
            phase, title = times.get(name), f"{PHASES.index(name) + 1}/{len(PHASES)} {words(name)}" if name in PHASES else words(name)
            if phase is None:
                table.add_row(Text("·", style="dim"), Text(title, style="dim"), "", Text(self._absent.get(name, ""), style="dim"))
                continue
            running = phase.ended is None
            took = duration((now_ if running else phase.ended or now_) - phase.began)
            broken = tracker.broken and phase is tracker.phases[-1] and (ended or not running)
            mark = Text("✗", style="red") if broken else Text("▸", style="cyan") if running else Text("✓", style="green")
            step = self._masker.text(tracker_step(tracker)) if running and not ended else ""
            table.add_row(mark, Text(title, style="bold" if running else ""), took, Text(step))
        parts: list[t.Any] = [table]
        if tracker.phase and not ended:
            progress = tracker.progress(now_)
            done = share(progress)
            if done is not None:
                meter = Table.grid(padding=(0, 1))
                meter.add_column(width=1)
                meter.add_column(width=40)
                meter.add_column()
                meter.add_row("", ProgressBar(total=1.0, completed=done, width=40), f"{done:4.0%}")
                parts.append(meter)
            parts += [Text(f"  {line}", no_wrap=True, overflow="ellipsis") for line in numbers(progress)]
        parts.append(Text(f"  elapsed {duration(now_ - self._began)}", style="dim"))
        return Group(*parts)


class Nowhere:
    """Shows nothing."""

    def notice(self, notice: Notice, tracker: Tracker) -> None: ...

    def tick(self, tracker: Tracker) -> None: ...

    def say(self, line: str) -> None: ...

    def output(self, text: str) -> None: ...

    def end(self, tracker: Tracker) -> None: ...

    def result(self, result: dict[str, t.Any], lines: list[str]) -> None: ...


class Careful:
    """Shows as long as it can: a terminal that is gone, or a defect of ours, must not break off a cutover."""

    def __init__(self, display: Display) -> None:
        self._display = display

    def _try(self, show: t.Callable[[], None]) -> None:
        try:
            show()
        except Exception as error:
            self._display = Nowhere()
            with contextlib.suppress(Exception):
                print(f"pg-ha: nothing more is shown, the work goes on ({type(error).__name__}: {error}).", file=sys.stderr, flush=True)
            with contextlib.suppress(Exception):
                # Python flushes stdout when it ends, and would turn our exit code into its own.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def notice(self, notice: Notice, tracker: Tracker) -> None:
        self._try(lambda: self._display.notice(notice, tracker))

    def tick(self, tracker: Tracker) -> None:
        self._try(lambda: self._display.tick(tracker))

    def say(self, line: str) -> None:
        self._try(lambda: self._display.say(line))

    def output(self, text: str) -> None:
        self._try(lambda: self._display.output(text))

    def end(self, tracker: Tracker) -> None:
        self._try(lambda: self._display.end(tracker))

    def result(self, result: dict[str, t.Any], lines: list[str]) -> None:
        self._try(lambda: self._display.result(result, lines))


def tracker_step(tracker: Tracker) -> str:
    """What happens now, in words."""
    return step_words(tracker.task) or tracker.play


def now() -> str:
    """The time, ISO 8601 UTC."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def choose(masker: Masker, plays: list[tuple[str, str]], as_json: bool, plain: bool) -> Display:
    """The display that fits."""
    if as_json:
        return JsonLines(masker)
    if plain or not sys.stdout.isatty():
        return Plain(masker)
    mine = {phase for phase, _name in plays}
    ordered = [phase for phase in PHASES if phase in mine]
    return Terminal(masker, [*ordered, *sorted(mine - set(PHASES))])
