# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One command: inventory, playbook, display, record, verdict, and what it leaves."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import tempfile
import time
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from . import inventory, verbs
from .artifacts import RunFolder
from .display import Careful, Display, Nowhere, choose, duration, now
from .interrupts import Interrupts, Stopper
from .masking import Masker
from .outcome import Ending, Exit, Stop, Verdict, judge
from .play import Job, Play, play
from .state import Found, found_of, sentences
from .tracker import Tracker, step_words

# How long after an interrupt a cutover that decides by itself is waited for, at most.
PATIENCE_SECONDS = 30.0
SCRATCH = "pg-ha-"
HEADLINES = {
    Exit.DONE: "Done",
    Exit.FAILED: "Failed",
    Exit.USAGE: "An input is wrong",
    Exit.REFUSED: "Refused",
    Exit.UNKNOWN: "It is unknown how this ended",
    Exit.INTERRUPTED: "Interrupted",
}


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    :param extra: arguments of ``-e`` as typed
    :param settings: variables that options of ours stand for (consent, repetition)
    :param verbose: 1 shows Ansible's own output, more makes Ansible say more
    :param runs_directory: where records of runs are kept
    :param keep: how many of them
    """

    inventories: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    settings: dict[str, t.Any] = field(default_factory=dict)
    check: bool = False
    diff: bool = False
    as_json: bool = False
    plain: bool = False
    verbose: int = 0
    runs_directory: Path = Path(".pg_ha") / "runs"
    keep: int = 20


@dataclass
class Run:
    """A playbook that has ended.

    :param stopped: whether a signal ended it
    """

    tracker: Tracker
    ending: Ending
    stopped: bool


class Session:
    """What the playbooks of one command share.

    :param scratch: private folder, removed by the caller: extra variables, and what ansible-runner writes
    :raises Stop: inventory or extra variables are wrong; nothing was done
    """

    def __init__(self, options: Options, scratch: Path, interrupts: Interrupts, run_play: Play) -> None:
        self.options, self._scratch, self.interrupts, self._run_play = options, scratch, interrupts, run_play
        self.inventories = tuple(inventory.choose(options.inventories, os.environ))
        texts = [*options.extra, *([json.dumps(options.settings)] if options.settings else [])]
        given = [inventory.extra_argument(text, scratch, number) for number, text in enumerate(texts)]
        self._extra = tuple(argument for argument, _variables in given)
        self.variables = {name: value for _argument, variables in given for name, value in variables.items()}
        listing = inventory.read(self.inventories)
        self.masker = Masker(inventory.secrets(listing, self.variables, os.environ))

    def run(self, verb: verbs.Verb, plays: list[tuple[str, str]], display: Display, record: RunFolder | None = None) -> Run:
        """Run the playbook of a verb to its end, or until a signal."""
        options, tracker = self.options, Tracker(plays)
        looks = verb is verbs.STATUS
        job = Job(
            f"{verbs.COLLECTION}.{verb.playbook}",
            self.inventories,
            self._extra,
            options.check and not looks,
            options.diff and not looks,
            max(0, options.verbose - 1),
        )
        stopper = Stopper(self.interrupts, display.say)

        def on_event(event: dict[str, t.Any]) -> None:
            try:
                notices = tracker.take(event, time.monotonic())
            except Exception as error:  # an event that we do not understand must neither break off a cutover nor pass for success
                tracker.internal_error, notices = f"{type(error).__name__}: {error}", []
            stopper.pid = tracker.pid
            text = str(event.get("stdout") or "")
            if record is not None:
                record.keep(text, [{"event": notice.kind, "at": now(), **notice.data} for notice in notices])
            if options.verbose and text:
                display.output(text)
            for notice in notices:
                display.notice(notice, tracker)

        def kill_now() -> bool:
            display.tick(tracker)
            return stopper.kill_now()

        folder = Path(tempfile.mkdtemp(dir=self._scratch))
        try:
            ending = self._run_play(job, folder, on_event, kill_now)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            display.end(tracker)
        finished = ending.code == 0 and tracker.recap is not None
        return Run(tracker, ending, stopper.wanted and not finished)

    def look(self, display: Display | None = None) -> Found:
        """Where the migration stands, by playbook ``status``. A signal ends it."""
        try:
            plays = verbs.plays_of(verbs.find_playbook(verbs.STATUS))
        except Stop as stop:
            return Found(None, [stop.message])
        done = self.run(verbs.STATUS, plays, display or Nowhere())
        if done.stopped:
            return Found(None, ["the state was not read, because that was interrupted too; `pg-ha status` reads it."])
        return found_of(done.tracker.status, judge(done.tracker, done.ending, check=False))

    def look_after_interrupt(self) -> Found:
        """The same; a cutover that is under way gets the time in which it decides by itself."""
        before = self.interrupts.count
        found = self.look()
        budget = found.open_attempt_seconds
        if budget is None:
            return found
        until = time.monotonic() + min(budget + 1, PATIENCE_SECONDS)
        while time.monotonic() < until and self.interrupts.count == before:
            time.sleep(0.1)
        return self.look() if self.interrupts.count == before else found


@contextlib.contextmanager
def scratch() -> t.Iterator[Path]:
    """A private folder in memory where the system has one; gone at the end. What a run that was killed has left is removed by the next one."""
    memory = os.environ.get("XDG_RUNTIME_DIR") or "/dev/shm"
    parent = Path(memory if os.access(memory, os.W_OK | os.X_OK) else tempfile.gettempdir())
    for left in parent.glob(f"{SCRATCH}*"):
        with contextlib.suppress(OSError):
            # Its owner holds the lock as long as it lives.
            if left.stat().st_uid == os.geteuid() and not left.is_symlink():
                with open(left / "lock", encoding="utf-8") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=parent))
    try:
        with open(folder / "lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_verb(verb: verbs.Verb, options: Options, run_play: Play = play) -> Exit:
    """Run a verb's playbook, show it, keep its record and say how it ended.

    :raises Stop: nothing was begun
    """
    playbook = verbs.find_playbook(verb)
    plays = verbs.plays_of(playbook)
    with Interrupts() as interrupts, scratch() as folder:
        session = Session(options, folder, interrupts, run_play)
        display = Careful(choose(session.masker, plays, options.as_json, options.plain))
        asked = {"verb": verb.name, "began_at": now(), "check": options.check, "extra_variables": sorted(session.variables)}
        if interrupts.count:
            raise Stop(Exit.INTERRUPTED, "Interrupted before anything was begun.")
        record = RunFolder(options.runs_directory, verb.name, options.keep, session.masker)
        record.result({**asked, "outcome": "running"})
        began = time.monotonic()
        done = session.run(verb, plays, display, record)
        phase, step = done.tracker.current or "", step_words(done.tracker.task)
        found: Found | None = None
        if done.stopped:
            if phase and phase != "report":
                display.say("Reading what is left ...")
                found = session.look_after_interrupt()
            failed = [failure.sentence for failure in done.tracker.failures if not failure.repeats]
            verdict = Verdict(Exit.INTERRUPTED, [*failed, *sentences(phase, step, found)])
        else:
            verdict = judge(done.tracker, done.ending, options.check)
            if verdict.code is Exit.UNKNOWN:
                found = session.look()
                verdict.sentences.extend(found.lines)
        result = {**asked, **result_of(verdict, done.tracker, time.monotonic() - began), "record": str(record.path)}
        if found is not None:
            result.update(state=found.status, state_unknown=found.problems)
        record.result(result)
        record.close()
        lines = [headline(verdict.code, verb, options.check, done.tracker, result), *verdict.sentences]
        lines += [record.problem] if record.problem else []
        display.result(result, [*lines, f"Record of this run: {record.path}"])
        return verdict.code


def run_status(options: Options, run_play: Play = play) -> Exit:
    """Read where a migration stands and show it.

    :raises Stop: nothing could be asked
    """
    plays = verbs.plays_of(verbs.find_playbook(verbs.STATUS))
    with Interrupts() as interrupts, scratch() as folder:
        session = Session(options, folder, interrupts, run_play)
        display = Careful(choose(session.masker, plays, options.as_json, plain=True))
        if sys.stderr.isatty():
            print("Asking the mover ...", file=sys.stderr, flush=True)
        found = session.look(display if options.verbose else None)
        if interrupts.count:
            raise Stop(Exit.INTERRUPTED, "Interrupted; nothing was changed.")
        result = {"verb": "status", "outcome": found.code.name.lower(), "exit_code": int(found.code), "status": found.status, "unknown": found.problems}
        display.result(result, found.lines)
        return found.code


def result_of(verdict: Verdict, tracker: Tracker, seconds: float) -> dict[str, t.Any]:
    """The final object of ``--json``, which is also kept."""
    return {
        "outcome": verdict.code.name.lower(),
        "exit_code": int(verdict.code),
        "sentences": verdict.sentences,
        "seconds": round(seconds, 1),
        "changed": tracker.changed() if tracker.recap is not None else None,
        "phase": tracker.current,
        "step": step_words(tracker.task),
        "phases": [{"phase": phase.name, "seconds": None if phase.ended is None else round(phase.ended - phase.began, 1)} for phase in tracker.phases],
        "failed_gates": tracker.failed_gates,
    }


def headline(code: Exit, verb: verbs.Verb, check: bool, tracker: Tracker, result: dict[str, t.Any]) -> str:
    """The first line of how a command ended."""
    where = f" in phase {verbs.words(tracker.current)}" if tracker.current and code not in (Exit.DONE, Exit.USAGE) else ""
    told = f"{HEADLINES[code]}{where}: {verb.name.replace('-', ' ')}, {duration(result['seconds'])}"
    if code is Exit.DONE:
        changes = "would change" if check else "changed"
        return f"{told}, {result['changed']} tasks {changes} something."
    return f"{told}, exit code {int(code)}."
