# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""One comparison of all rows, from the fence to the evidence."""

from __future__ import annotations

import datetime
import queue
import threading
import typing as t
from dataclasses import dataclass, field, replace

from .._core.errors import ClientError, GateError, PgHaError
from .._core.waiting import SYSTEM_CLOCK, Clock
from .._postgresql import sequences
from .._postgresql.locks import take_lock
from . import fingerprint, plan, snapshot, tables
from .model import SIDES, SOURCE, TARGET, Chunk, Sum, Table, Tally
from .names import LOCK_CLASS, LOCK_COPY, LOCK_CUTOVER, SCHEMA
from .progress import INTERVAL_SECONDS

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

SCHEMA_ID = "freight.pg_ha/parity/1"
# A table that was truncated or rewritten while it was read is read again at new snapshots, this often.
ROUNDS = 3
# How many differing ranges are narrowed down to keys.
EXPLAINED = 20


@dataclass(frozen=True)
class Options:
    """How to compare.

    :param run: names this run
    :param following: the application writes and the link carries it; without, both sides must be quiet
    :param jobs: sessions per side that read at the same time
    :param chunk_bytes: size of a range
    :param bounds: of the hold
    :param way: which side serves
    :param compare_large_objects: whether a differing large object is a mismatch, or only noted
    """

    run: str
    following: bool = True
    jobs: int = 2
    chunk_bytes: int = 64 * 1024 * 1024
    bounds: snapshot.Bounds = snapshot.Bounds()
    way: snapshot.Way = snapshot.FORWARD
    compare_large_objects: bool = True


@dataclass
class State:
    """What is known so far; one writer at a time through ``lock``."""

    step: str = "starting"
    tables_total: int = 0
    tables_done: int = 0
    chunks_total: int = 0
    chunks_done: int = 0
    bytes_total: int = 0
    rows: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)
    sums: dict[Chunk, dict[str, Sum]] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def progress(self) -> dict[str, t.Any]:
        """For the progress file."""
        return {
            "step": self.step,
            "tables_total": self.tables_total,
            "tables_done": self.tables_done,
            "chunks_total": self.chunks_total,
            "chunks_done": self.chunks_done,
            "bytes_total": self.bytes_total,
            "rows": self.rows,
        }


class Comparison:
    """A comparison with its sessions.

    :param open_session: opens an autocommit session: ``open_session(side, settings={...})``
    :param report: told the progress, at most every INTERVAL_SECONDS
    """

    def __init__(
        self, open_session: t.Callable[..., Connection], options: Options, report: t.Callable[[dict[str, t.Any]], None], clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._open = open_session
        self.options = options
        self.state = State()
        self._report = report
        self._clock = clock
        self._reported = float("-inf")
        self._opened: list[Connection] = []

    def run(self) -> dict[str, t.Any]:
        """Compare and return the evidence, ``outcome`` being ``done`` or ``failed``.

        :raises PgHaError: the comparison could not be made
        """
        began, started_at = self._clock.monotonic(), utc_now()
        try:
            main = {side: self._session(side) for side in SIDES}
            way = self.options.way
            self._lock_out_other_work(main[SOURCE], main[way.here])
            if self.options.following:
                snapshot.check_link(way, main[way.here], main[way.ahead])
            evidence = self._compare(main)
        finally:
            for session in self._opened:
                session.close()
        evidence["mismatches"] = [{**mismatch, "sentence": plan.mismatch_sentence(mismatch)} for mismatch in evidence["mismatches"]]
        return {
            "schema": SCHEMA_ID,
            "run": self.options.run,
            "started_at": started_at,
            "finished_at": utc_now(),
            "outcome": "failed" if evidence["mismatches"] else "done",
            "following": self.options.following,
            "serves": self.options.way.here,
            "seconds": round(self._clock.monotonic() - began, 2),
            **evidence,
        }

    def _compare(self, main: dict[str, Connection]) -> dict[str, t.Any]:
        self._step("reading the schemas")
        before = {side: fingerprint.read_fingerprint(main[side]) for side in SIDES}
        schema = fingerprint.compare_fingerprints(before[SOURCE], before[TARGET])
        known = {side: tables.read_tables(main[side], self.options.way.link) for side in SIDES}
        here, ahead = self.options.way.here, self.options.way.ahead
        chosen, not_compared, mismatches = plan.select_tables(known[here], known[ahead], self.options.following, ahead)
        mismatches = schema_mismatches(schema.mismatches) + mismatches
        self.state.tables_total = len(chosen)
        self.state.bytes_total = sum(known[SOURCE][name].bytes for name in chosen)
        self.state.tallies = {name: Tally() for name in chosen}

        hold_ms, attempts, positions = 0.0, 0, {}
        large: dict[str, dict[int, tuple[str, str]]] = {}
        pending = chosen
        for number in range(1, ROUNDS + 1):
            exporters = {side: self._session(side) for side in SIDES}
            taken = self._take_snapshots(exporters, main[here], known[here], f"parity {self.options.run} {number}")
            hold_ms, attempts = max(hold_ms, taken.hold_ms), attempts + taken.attempts
            if number == 1:
                positions = taken.positions
                large = self._read_large_objects(main, taken.names)
            rewritten = self._compare_tables(pending, known, taken.names)
            for side in SIDES:
                exporters[side].close()
            if not rewritten:
                break
            if number == ROUNDS:
                names = ", ".join(rewritten)
                raise GateError(f"Tables {names} were truncated or rewritten in each of {ROUNDS} rounds while they were read: run again at a quieter time.")
            pending = rewritten
            known = {side: tables.read_tables(main[side], self.options.way.link) for side in SIDES}
            gone = [name for name in pending if name not in known[SOURCE] or name not in known[TARGET]]
            if gone:
                raise GateError(f"Tables {', '.join(gone)} were dropped while they were compared: run again.")

        self._step("reading sequences")
        values = {side: sequences.read_sequences(main[side], SCHEMA) for side in SIDES}
        behind = sequences.sequences_behind(values[here], values[ahead])
        if not self.options.following:
            mismatches += [{"object": f"sequence {name}", "problem": f"is behind the {here}'s on the {ahead}"} for name in behind]
        notes = list(schema.notes)
        differing = compare_large_objects(large[SOURCE], large[TARGET])
        if differing and self.options.compare_large_objects:
            mismatches.append(differing)
        elif differing:
            notes.append(plan.mismatch_sentence(differing))

        for side in SIDES:
            if fingerprint.read_fingerprint(main[side]).sha256 != before[side].sha256:
                mismatches.append({"object": "schema", "problem": f"changed on the {side} while rows were compared: run verify again"})
            if snapshot.read_position(main[side]).timeline != positions[side].timeline:
                mismatches.append({"object": "timeline", "problem": f"changed on the {side} while rows were compared: run verify again"})
        for name in chosen:
            mismatches += self.state.tallies[name].mismatches
        return {
            "tables": len(chosen),
            "rows": sum(tally.rows for tally in self.state.tallies.values()),
            "bytes": self.state.bytes_total,
            "chunks": sum(tally.chunks for tally in self.state.tallies.values()),
            "mismatches": mismatches,
            "not_compared": schema.not_compared + not_compared + tables.read_uncompared(main[here]),
            "notes": notes,
            "sequences": len(values[SOURCE]),
            "sequences_behind": behind,
            "large_objects": len(large[SOURCE]),
            "hold_ms": hold_ms,
            "hold_attempts": attempts,
            "fingerprint": {side: before[side].summary() for side in SIDES},
            # Those of the side that follows, for the cutover: a change of either makes this comparison void.
            "system_identifier": positions[ahead].system_identifier,
            "timeline": positions[ahead].timeline,
            "source": positions[SOURCE].as_dict(),
            "target": positions[TARGET].as_dict(),
            "by_table": [
                {"table": name, "rows": tally.rows, "chunks": tally.chunks, "seconds": round(tally.seconds, 3)} for name, tally in self.state.tallies.items()
            ],
        }

    def _lock_out_other_work(self, source: Connection, here: Connection) -> None:
        """Neither a copy nor a cutover may run beside us, for as long as these sessions live.

        :raises GateError: one does
        """
        for lock, what, session in ((LOCK_COPY, "initial copy", source), (LOCK_CUTOVER, "cutover", here)):
            if not take_lock(session, (LOCK_CLASS, lock), shared=True, clock=self._clock):
                raise GateError(f"A {what} is running (advisory lock {LOCK_CLASS}, {lock}): wait until it has ended.")

    def _take_snapshots(self, exporters: dict[str, Connection], here: Connection, known: dict[str, Table], run: str) -> snapshot.Snapshots:
        if not self.options.following:
            names = {side: snapshot.export_snapshot(exporters[side]) for side in SIDES}
            return snapshot.Snapshots(names, {side: snapshot.read_position(exporters[side]) for side in SIDES})
        locked = tables.read_partitioned(here) + [name for name in sorted(known) if known[name].published]
        return snapshot.take_paired_snapshots(self.options.way, self._session, exporters, locked, run, self.options.bounds, self._clock, self._step)

    def _compare_tables(self, names: list[str], known: dict[str, dict[str, Table]], snapshots: dict[str, str]) -> list[str]:
        """Compare at the snapshots and fill the tallies; returns the tables that were rewritten meanwhile."""
        self._step("comparing rows")
        state = self.state
        work = {side: queue.SimpleQueue[Chunk]() for side in SIDES}
        chunks: list[Chunk] = []
        planner = self._session(SOURCE)
        for name in sorted(names, key=lambda name: -known[SOURCE][name].bytes):
            table = known[SOURCE][name]
            key = plan.range_key(table, known[TARGET][name])
            wanted = plan.wanted_chunks(table.bytes, self.options.chunk_bytes)
            planned = plan.plan_chunks(name, key, tables.read_boundaries(planner, table, key, wanted) if key else [])
            state.left[name] = len(planned)
            state.tallies[name] = Tally()
            chunks += planned
        planner.close()
        state.sums = {chunk: {} for chunk in chunks}
        state.chunks_total += len(chunks)
        for chunk in chunks:
            for side in SIDES:
                work[side].put(chunk)
        sides = {side: {name: replace(known[side][name], columns=known[SOURCE][name].columns) for name in names} for side in SIDES}
        self._run_workers(work, sides, snapshots)

        rewritten, differing = set(), []
        for chunk in chunks:
            sums = state.sums[chunk]
            if any(sums[side].filenode != known[side][chunk.table].filenode for side in SIDES):
                rewritten.add(chunk.table)
            elif (sums[SOURCE].rows, sums[SOURCE].total) != (sums[TARGET].rows, sums[TARGET].total):
                differing.append(chunk)
            tally = state.tallies[chunk.table]
            tally.rows += sums[SOURCE].rows
            tally.chunks += 1
        self._explain([chunk for chunk in differing if chunk.table not in rewritten], known[SOURCE], snapshots)
        return sorted(rewritten)

    def _run_workers(self, work: dict[str, queue.SimpleQueue[Chunk]], sides: dict[str, dict[str, Table]], snapshots: dict[str, str]) -> None:
        """Read all sums, ``jobs`` sessions per side at the same time.

        :raises PgHaError: the first error of a worker; the others are cancelled
        """
        state, errors = self.state, []
        stop = threading.Event()

        def read(side: str, session: Connection) -> None:
            try:
                while not stop.is_set():
                    try:
                        chunk = work[side].get_nowait()
                    except queue.Empty:
                        return
                    began = self._clock.monotonic()
                    found = tables.read_sum(session, snapshots[side], chunk, sides[side][chunk.table])
                    with state.lock:
                        state.sums[chunk][side] = found
                        state.tallies[chunk.table].seconds += self._clock.monotonic() - began
                        if len(state.sums[chunk]) == len(SIDES):
                            self._count(chunk)
            except Exception as error:  # whatever it is, the comparison has failed and the main thread says so
                errors.append(error)
                stop.set()

        sessions = [(side, self._session(side, settings=tables.WORKER_SETTINGS)) for side in SIDES for _number in range(self.options.jobs)]
        threads = [threading.Thread(target=read, args=pair, daemon=True) for pair in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(INTERVAL_SECONDS / 2)
                self._step(state.step)
                if stop.is_set():
                    _cancel(session for _side, session in sessions)
        for _side, session in sessions:
            session.close()
        if errors:
            first = errors[0]
            raise first if isinstance(first, PgHaError) else PgHaError(f"A reader failed: {type(first).__name__}: {first}")

    def _count(self, chunk: Chunk) -> None:
        """A chunk is there from both sides."""
        state = self.state
        state.chunks_done += 1
        state.rows += state.sums[chunk][SOURCE].rows
        state.left[chunk.table] -= 1
        if state.left[chunk.table] == 0:
            state.tables_done += 1

    def _explain(self, chunks: list[Chunk], known: dict[str, Table], snapshots: dict[str, str]) -> None:
        """Narrow differing ranges down to keys."""
        if not chunks:
            return
        self._step("looking for the rows that differ")
        sessions = {side: self._session(side, settings=tables.WORKER_SETTINGS) for side in SIDES}
        for number, chunk in enumerate(chunks):
            sums = self.state.sums[chunk]
            mismatch: dict[str, t.Any] = {
                "object": f"table {chunk.table}",
                "table": chunk.table,
                "range": chunk.describe(),
                "source_rows": sums[SOURCE].rows,
                "target_rows": sums[TARGET].rows,
            }
            if number < EXPLAINED:
                mismatch.update(self._find_rows(chunk, known[chunk.table], sessions, snapshots, max(sums[SOURCE].rows, sums[TARGET].rows)))
            else:
                mismatch.update(problem=f"rows differ ({sums[SOURCE].rows} on the source, {sums[TARGET].rows} on the target)", keys=[])
            self.state.tallies[chunk.table].mismatches.append(mismatch)
        for session in sessions.values():
            session.close()

    def _find_rows(self, chunk: Chunk, table: Table, sessions: dict[str, Connection], snapshots: dict[str, str], rows: int) -> dict[str, t.Any]:
        identity = plan.identity_columns(table)
        buckets = plan.buckets_for(rows)
        statement = plan.bucket_statement(chunk, table.columns, identity, buckets)
        differing = plan.differing_buckets(*(tables.read_at(sessions[side], snapshots[side], statement) for side in SIDES))
        looked = differing[: plan.LOOKED_INTO_BUCKETS]
        if not looked:
            return {"problem": "rows differed, but the table was rewritten before they were found", "keys": []}
        statement = plan.rows_statement(chunk, table, table.columns, identity, buckets, looked)
        counts, keys, span = plan.differing_rows(table, *(tables.read_at(sessions[side], snapshots[side], statement) for side in SIDES))
        words = [f"{counts['missing']} missing on the target", f"{counts['extra']} not on the source", f"{counts['different']} different"]
        at_least = "at least " if len(differing) > len(looked) else ""
        shown = ", ".join(word for word in words if not word.startswith("0 "))
        narrowed = {"range": span} if span and not at_least else {}
        return {"problem": f"rows differ: {at_least}{shown}", "keys": keys, "counts": counts, "complete": not at_least, **narrowed}

    def _read_large_objects(self, main: dict[str, Connection], snapshots: dict[str, str]) -> dict[str, dict[int, tuple[str, str]]]:
        self._step("comparing large objects")
        try:
            return {side: tables.read_large_objects(main[side], snapshots[side]) for side in SIDES}
        except ClientError as error:
            raise ClientError(f"Large objects could not be read: {error.message}", **error.details) from error

    def _session(self, side: str, settings: dict[str, str] | None = None) -> Connection:
        session = self._open(side, settings=settings)
        self._opened.append(session)
        return session

    def _step(self, step: str) -> None:
        """Say where we are: at once when the step is new, else now and then."""
        now = self._clock.monotonic()
        if step == self.state.step and now - self._reported < INTERVAL_SECONDS:
            return
        self.state.step, self._reported = step, now
        with self.state.lock:
            progress = self.state.progress()
        self._report(progress)


def schema_mismatches(found: list[dict[str, str]]) -> list[dict[str, t.Any]]:
    """The fingerprint's mismatches among the others (pure)."""
    return [dict(mismatch) for mismatch in found]


def compare_large_objects(source: dict[int, tuple[str, str]], target: dict[int, tuple[str, str]]) -> dict[str, t.Any] | None:
    """One mismatch that names the first large objects that differ, or None (pure)."""
    problems = []
    for oid in sorted(source.keys() | target.keys()):
        if oid not in target:
            problems.append((oid, "missing on the target"))
        elif oid not in source:
            problems.append((oid, "not on the source"))
        elif source[oid][0] != target[oid][0]:
            problems.append((oid, "different content"))
        elif source[oid][1] != target[oid][1]:
            problems.append((oid, "other owner or privileges"))
    if not problems:
        return None
    return {
        "object": "large objects",
        "problem": f"{len(problems)} of {len(source)} differ (they are not replicated)",
        "keys": [{"key": f"oid={oid}", "problem": problem} for oid, problem in problems[: plan.NAMED_KEYS]],
    }


def utc_now() -> str:
    """ISO 8601 in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _cancel(sessions: t.Iterable[Connection]) -> None:
    for session in sessions:
        try:
            session.cancel()
        except Exception:  # a session that is closed already needs no cancelling
            continue
