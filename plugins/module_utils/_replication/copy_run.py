# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The initial copy from the first look to the link that follows.

Order: gates, publication (before the slot: pgoutput looks it up in the past), slot and its snapshot, schema with guards,
subscription (disabled), rows and indexes, the rest of the schema, sequences, statistics; then the subscription is enabled. What is finished
is not repeated, but for tables that were found to differ. What was interrupted after its first table is gone on with (module ``resume``)
where that is possible; else the next run throws it away, except what the target held before the first one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import typing as t
from dataclasses import dataclass, field

from .._core.errors import ClientError, GateError, GivenUp, PgHaError, PlanError
from .._core.outcome import Outcome
from .._postgresql import client, private
from .._postgresql.slots import given_up
from .._postgresql.subscription import Link, subscription_statement
from . import copy_client, copy_plan, link_client, own, resume, toc
from .model import Again, Left, Report, RestoreFacts, Settings, Table
from .names import identifier
from .pool import Job, run_jobs
from .programs import Programs
from .slot_watch import SlotWatch
from .worker import Worker

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


FOLDER_PREFIX = "pg_ha_copy_"
KEPT = (
    "What is finished is kept: run the same again to go on, or repeat the phase replicate (pg_ha_repeat) to begin anew. "
    f"Until then slot {own.FORWARD_LINK} holds back the source's WAL."
)


NOTHING_AGAIN = Again()
NO_FACTS = RestoreFacts(unwanted=set(), tables={}, slow_indexes=set(), names={}, identities=set())


@dataclass
class Sides:
    """Sessions of the module itself; workers have their own."""

    source: Connection
    target: Connection

    def close(self) -> None:
        """Close both; this gives the lock back."""
        self.source.close()
        self.target.close()


def run(
    settings: Settings, link: Link | None, programs: Programs, hooks: own.Hooks, check_mode: bool, repeat: bool = False, again: Again = NOTHING_AGAIN
) -> Outcome:
    """Bring the target to a finished copy.

    :param repeat: throw away what is there
    :param again: tables to copy again though they are finished
    :raises GateError: something forbids to begin; nothing was changed
    :raises PlanError: the target serves, another copy or a cutover runs, or a table that is to be copied again cannot be
    :raises ClientError: a step failed; the target is marked, the slot is dropped, and the next run begins anew. Where a connection was lost
      or a worker was killed after the first rows, slot and tables are kept, and the next run goes on
    :raises GivenUp: the slot held back more WAL than is declared; it is dropped, as after a failed step
    """
    sides = Sides(copy_client.open_session(settings, settings.source), copy_client.open_session(settings, settings.target))
    try:
        before = copy_client.read_run(sides.target)
        if not check_mode and not _has_table(sides.target, "copy"):
            raise PlanError("The target has no schema ha_migration in this database; make it first with module migration_schema on both sides.")
        asked = [] if repeat else _asked(sides, settings, before, again)
        if before is not None and before["state"] == "done" and not repeat and _is_finished(before["detail"], settings):
            problems = _problems(sides, settings)
            if problems:
                raise PlanError(f"The copy was finished, but {'; '.join(problems)}. Repeat the phase replicate (pg_ha_repeat).")
            if not asked:
                return Outcome.of(None, None, [], initial_copy=_public(before["detail"]))
            before = _once_more(sides, before)
        if check_mode:
            hooks.refuse(sides.source, sides.target)
            tables, _facts = _check(sides, settings, programs, before)
            predicted = {"step": "predicted", "method": settings.method, "tables": len(tables)}
            kept, copied = ([], tables) if repeat else _predict_kept(sides, settings, before, tables, asked)
            return Outcome(True, {"initial_copy": predicted, "actions": _predicted(settings, copied, len(kept), asked)})
        if hooks.locks and not copy_client.try_lock(sides.source):
            raise PlanError(copy_client.who_keeps_copies_away(sides.source))
        hooks.refuse(sides.source, sides.target)
        return _Copy(sides, settings, link, programs, hooks).run(before, repeat, asked, again.because)
    finally:
        sides.close()


def _is_finished(detail: dict[str, t.Any], settings: Settings) -> bool:
    """Whether what was done is what is asked for."""
    return detail.get("method") == settings.method and (detail.get("parts") == "all" or settings.parts == "schema")


def _public(detail: dict[str, t.Any]) -> dict[str, t.Any]:
    return {"step": detail.get("step"), **detail.get("report", {})}


def _asked(sides: Sides, settings: Settings, before: dict[str, t.Any] | None, again: Again) -> list[Table]:
    """Tables that are copied again though they are there.

    :raises PlanError: there is no such table, or nothing follows
    """
    if not again.tables or before is None or before["state"] == "failed":
        return []
    tables, _unlogged, _extension = copy_client.read_tables(sides.source, own.FORWARD_TABLES)
    found, unknown = copy_client.find_tables(sides.source, again.tables, tables)
    if unknown:
        raise PlanError(f"These are no tables of the source that are followed, so they cannot be copied again: {', '.join(unknown)}.")
    known = before["detail"].get("again", {})
    answered = known["tables"] if again.because and again.because == known.get("because") else []
    return [table for table in found if table.quoted not in answered]


def _once_more(sides: Sides, before: dict[str, t.Any]) -> dict[str, t.Any]:
    """A finished copy as one that was interrupted when only rows were missing.

    :raises PlanError: single tables cannot be copied again
    """
    tables, _unlogged, _extension = copy_client.read_tables(sides.source, own.FORWARD_TABLES)
    why = copy_plan.why_anew(resume.read_left(sides.source, sides.target), tables, once_finished=True)
    if why is not None:
        raise PlanError(f"Single tables cannot be copied again: {why}. Repeat the phase replicate (pg_ha_repeat), which copies everything.")
    report = before["detail"]["report"]
    base = {"schema": None, **{name: report[name] for name in ("lsn", "large_objects", "sequences")}}
    return {**before, "state": "copying", "detail": {**before["detail"], "base": base}}


def _predicted(settings: Settings, copied: list[Table], kept: int, asked: list[Table]) -> list[str]:
    if asked:
        return [f"copy {len(copied)} tables again, {sum(table.bytes for table in copied)} bytes: {', '.join(table.quoted for table in copied)}"]
    words = [f"copy {len(copied)} tables, {sum(table.bytes for table in copied)} bytes"]
    if kept:
        return [f"keep {kept} tables of an interrupted copy, unless the source's schema has changed", *words]
    return [f"restore the schema of {settings.source}", *words] + ([f"create subscription {own.FORWARD_LINK}"] if settings.method == "logical" else [])


def _base(settings: Settings, before: dict[str, t.Any] | None) -> dict[str, t.Any] | None:
    """What an interrupted copy has recorded when its rows began; None where there is none to go on with."""
    if before is None or before["state"] != "copying" or (settings.method, settings.parts) != ("logical", "all"):
        return None
    return t.cast("dict[str, t.Any] | None", before["detail"].get("base"))


def _predict_kept(
    sides: Sides, settings: Settings, before: dict[str, t.Any] | None, tables: list[Table], asked: list[Table]
) -> tuple[list[Table], list[Table]]:
    """Tables that would be kept, and those that would be copied."""
    base = _base(settings, before)
    if base is None:
        return [], tables
    left = resume.read_left(sides.source, sides.target)
    if copy_plan.why_anew(left, tables, base["schema"] is None):
        return [], tables
    kept, copied = copy_plan.split_tables(left, tables)
    return [table for table in kept if table not in asked], copied + [table for table in kept if table in asked]


def _has_table(connection: Connection, name: str) -> bool:
    return bool(client.query_value(connection, "SELECT to_regclass(%s) IS NOT NULL", (f"{own.SCHEMA}.{name}",)))


def _problems(sides: Sides, settings: Settings) -> list[str]:
    """What has changed since a finished copy; [] while its link covers every table."""
    if settings.method != "logical" or settings.parts != "all":
        return []
    problems = []
    state = link_client.read_link(sides.source, sides.target, own.FORWARD_LINK)
    if state.given_up:
        raise GivenUp(state.given_up)
    if not state.exists:
        problems.append("the subscription is gone")
    if not state.slot_exists:
        problems.append("the slot on the source is gone")
    tables, _unlogged, _extension = copy_client.read_tables(sides.source, own.FORWARD_TABLES)
    listed, there = copy_client.read_published(sides.source), copy_client.quote_names(sides.source, tables)
    if listed != there:
        names = sorted(listed ^ there)
        problems.append(f"the source's tables are no longer those that are followed: {', '.join(names[:5])}")
    return problems


def _check(sides: Sides, settings: Settings, programs: Programs, before: dict[str, t.Any] | None) -> tuple[list[Table], dict[str, t.Any]]:
    """Evaluate all gates; returns the tables and what both sides are.

    :raises GateError: with every gate that does not hold
    """
    source, target = copy_client.read_source(sides.source), copy_client.read_target(sides.target)
    tables, _unlogged, _extension = copy_client.read_tables(sides.source, own.FORWARD_TABLES)
    collisions = _collisions(source, target, before)
    gates = copy_plan.plan_gates(source, {**target, "collisions": collisions}, tables, settings.method, programs.version(), settings.slot_wal_limit_mib)
    if gates:
        lines = [f"- {gate['message']} {gate['remedy']}" for gate in gates]
        raise GateError("\n".join(["The copy cannot begin; nothing was changed.", *lines]), gates=gates)
    return tables, {"source": source, "target": target}


def read_collisions(source: Connection, target: Connection) -> list[str]:
    """What stands on the target where a copy has to go and does not come from one of ours."""
    return _collisions(copy_client.read_source(source), copy_client.read_target(target), copy_client.read_run(target))


def _collisions(source: dict[str, t.Any], target: dict[str, t.Any], before: dict[str, t.Any] | None) -> list[str]:
    if before is not None and "kept" in before["detail"]:
        return []
    found = copy_plan.collisions(source["schemas"], target["relations"], target["schemas"], own.SCHEMA)
    if target["large_objects"] and source["large_objects"]:
        found.append(f"{target['large_objects']} large objects")
    return found


@dataclass
class _Work:
    """What is left to do with rows and schema.

    :param tables: to copy
    :param snapshot: of the source, for rows and large objects
    :param restored: entries that the target has
    :param again: an earlier copy is gone on with: each table has a snapshot of its own, and entries may be there
    :param only_rows: it was finished: there is nothing to do but the rows of these tables
    """

    tables: list[Table]
    entries: list[toc.Entry]
    found: RestoreFacts
    snapshot: str
    restored: set[toc.Entry] = field(default_factory=set)
    again: bool = False
    only_rows: bool = False


class _Copy:
    """One run; holds what the steps hand on."""

    def __init__(self, sides: Sides, settings: Settings, link: Link | None, programs: Programs, hooks: own.Hooks) -> None:
        self.sides = sides
        self.settings = settings
        self.link = link
        self.programs = programs
        self.hooks = hooks
        self.report = Report(method=settings.method, jobs=settings.jobs)
        self.detail: dict[str, t.Any] = {"run": settings.run, "method": settings.method, "parts": settings.parts}
        self.detail["source"] = copy_client.read_identity(sides.source)
        self.actions: list[str] = []
        self.keeper: Connection | None = None
        self.watch: SlotWatch | None = None

    def run(self, before: dict[str, t.Any] | None, repeat: bool, asked: list[Table], because: str) -> Outcome:
        """All steps; a failure is recorded and cleaned up on the source."""
        began = time.monotonic()
        # Before anything is marked: a refused repetition leaves the finished copy and its link as they are.
        tables, facts = _check(self.sides, self.settings, self.programs, before)
        self._keep_known(before, asked, because)
        copy_client.begin_run(self.sides.target, {**(before["detail"] if before else {}), **self.detail, "step": "gates", "error": None}, asked)
        if before is not None and str(before["detail"].get("folder", "")).startswith(os.path.join(self.settings.work_directory, FOLDER_PREFIX)):
            shutil.rmtree(before["detail"]["folder"], ignore_errors=True)  # of a run that was killed
        folder = tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=self.settings.work_directory)
        self.detail["folder"] = folder
        try:
            archives = {"schema": os.path.join(folder, "schema.dump"), "large_objects": os.path.join(folder, "large_objects.dump")}
            work = self._go_on(before, repeat, facts, archives) or self._begin(tables, facts, archives)
            if self.settings.parts == "all":
                self._fill(work, facts, archives)
            self._finish(began)
        except PgHaError as failure:
            why = self._ended_by_the_watch()
            error = GivenUp(given_up(own.FORWARD_LINK, why, [])) if why else failure
            if self._give_up(error):
                error = type(error)(f"{error.message} {KEPT}", **error.details)
            if error is failure:
                raise
            raise error from failure
        finally:
            if self.watch is not None:
                self.watch.end()
            shutil.rmtree(folder, ignore_errors=True)
            self._let_go()
        return Outcome(True, {"initial_copy": _public(self.detail), "actions": self.actions})

    def _keep_known(self, before: dict[str, t.Any] | None, asked: list[Table], because: str) -> None:
        """Take along what earlier runs have recorded: what was there before ours, and which tables were asked for again."""
        known = before["detail"] if before else {}
        if "kept" in known:
            self.detail["kept"] = known["kept"]
        interrupted = before is not None and before["state"] == "copying"
        earlier = {"tables": [], "because": "", **(known.get("again", {}) if interrupted else {})}
        names = [name for name in earlier["tables"] if name not in {table.quoted for table in asked}] + [table.quoted for table in asked]
        if names:
            self.detail["again"] = {"tables": names, "because": because or earlier["because"]}

    def _begin(self, tables: list[Table], facts: dict[str, t.Any], archives: dict[str, str]) -> _Work:
        """Everything up to the rows, from nothing."""
        with self._step("reset"):
            self._reset(facts["target"])
        with self._step("snapshot"):
            snapshot = self._snapshot(tables, facts["source"]["version"])
        if self.settings.method == "logical":
            self.watch = SlotWatch(self.settings)
        with self._step("schema"):
            work = self._schema(archives["schema"], snapshot, tables, facts["target"]["superuser"])
        if self.settings.method == "logical":
            with self._step("link"):
                self._link()
                # From here on an interrupted copy can be gone on with.
                self.detail["base"] = {"schema": self.programs.fingerprint(archives["schema"], work.entries), "lsn": self.report.lsn, "large_objects": None}
        return work

    def _fill(self, work: _Work, facts: dict[str, t.Any], archives: dict[str, str]) -> None:
        """Rows, and what comes after them."""
        with self._step("rows"):
            self._rows(work, facts, archives)
        self._let_go()
        if not work.only_rows:
            with self._step("rest_of_schema"):
                rest = [entry for entry in work.entries if entry not in work.restored]
                what = "The indexes, constraints and triggers could not be restored"
                self.programs.restore(archives["schema"], rest, what, section="post-data", jobs=self.settings.jobs, clean=work.again)
            with self._step("sequences"):
                sequences = copy_client.read_sequences(self.sides.source)
                copy_client.set_sequences(self.sides.target, sequences)
                self.report.sequences = len(sequences)
        with self._step("statistics"):
            self._statistics(facts["source"]["encoding"], work)
        if self.settings.method == "logical":
            with self._step("follow"):
                client.query(self.sides.target, f"ALTER SUBSCRIPTION {identifier(own.FORWARD_LINK)} ENABLE")

    def _finish(self, began: float) -> None:
        if self._ended_by_the_watch():
            raise ClientError("The slot was dropped while the copy ended.")
        self.report.seconds = time.monotonic() - began
        self.report.by_table = copy_client.read_by_table(self.sides.target, self.report.seconds)
        self.detail["step"] = "done"
        for name in ("folder", "base"):
            self.detail.pop(name, None)
        self.detail["report"] = self.report.public()
        copy_client.write_run(self.sides.target, "done", self.detail)

    def _let_go(self) -> None:
        """Give the snapshot back."""
        if self.keeper is not None:
            self.keeper.close()
            self.keeper = None

    @contextlib.contextmanager
    def _step(self, name: str) -> t.Iterator[None]:
        """Say where we are, and how long it took."""
        self.detail["step"] = name
        copy_client.write_run(self.sides.target, "copying", self.detail)
        began = time.monotonic()
        yield
        self.report.steps.append({"name": name, "seconds": round(time.monotonic() - began, 3)})
        self.actions.append(name)

    def _ended_by_the_watch(self) -> str:
        """Why the watch has ended us; empty when it has not."""
        return self.watch.reason() if self.watch is not None else ""

    def _reset(self, target: dict[str, t.Any]) -> None:
        """Take away what an interrupted run left on both sides, and remember what was there before ours."""
        link_client.drop_link(self.sides.source, self.sides.target, own.FORWARD_LINK)
        copy_client.drop_publication(self.sides.source)
        copy_client.end_strays(self.sides.target)
        copy_client.end_strays(self.sides.source)
        if "kept" in self.detail:
            for statement in copy_plan.plan_reset(copy_client.read_containers(self.sides.target), self.detail["kept"], own.SCHEMA):
                client.query(self.sides.target, statement)
            copy_client.unlink_large_objects(self.sides.target)
        self.detail["kept"] = {key: target[key] for key in ("schemas", "extensions", "event_triggers")} if "kept" not in self.detail else self.detail["kept"]
        copy_client.write_run(self.sides.target, "copying", self.detail)

    def _snapshot(self, tables: list[Table], server_version: int) -> str:
        """A snapshot of the source: of the slot, of a session of ours, or the one that was given."""
        if self.settings.method == "logical":
            client.query(self.sides.source, copy_plan.publication_statement(own.FORWARD_LINK, tables))
            self.keeper, snapshot, self.report.lsn = copy_client.open_slot(self.settings, server_version)
            return snapshot
        if self.settings.snapshot:
            return self.settings.snapshot
        self.keeper = copy_client.open_session(self.settings, self.settings.source)
        return copy_client.open_snapshot(self.keeper)

    def _schema(self, archive: str, snapshot: str, published: list[Table], superuser: bool) -> _Work:
        """Dump at the snapshot, read the snapshot's tables, restore what comes before rows."""
        self.programs.dump_schema(archive, snapshot, own.SCHEMA)
        reader = copy_client.open_session(self.settings, self.settings.source)
        try:
            copy_client.use_snapshot(reader, snapshot)
            tables, self.report.unlogged, self.report.extension_tables = copy_client.read_tables(reader, own.FORWARD_TABLES)
            found = copy_client.read_restore_facts(reader)
        finally:
            reader.close()
        if self.settings.method == "logical" and {table.oid for table in tables} != {table.oid for table in published}:
            raise ClientError("Tables were made or dropped on the source while the copy began. Run again, and change no schema until the cutover.")
        entries = toc.without(self.programs.list_entries(archive), found.unwanted, extension_comments=superuser)
        # One transaction: on the target no table is ever seen without its guard, and roles that may log in there are there already.
        self.programs.restore_at_once(archive, entries, "The schema could not be restored on the target", section="pre-data", then=self.hooks.guards)
        copy_client.write_tables(self.sides.target, tables)
        return _Work(tables, entries, found, snapshot)

    def _go_on(self, before: dict[str, t.Any] | None, repeat: bool, facts: dict[str, t.Any], archives: dict[str, str]) -> _Work | None:
        """Take over what an interrupted copy has left; None where there is nothing, or nothing that can be gone on with."""
        work = None
        base = None if repeat else _base(self.settings, before)
        if base is not None:
            self.detail["base"] = base
            with self._step("resume"):
                work, self.report.not_resumed = self._take_over(facts, archives["schema"])
        elif before is not None and before["state"] == "copying" and self.settings.method == "logical":
            self.report.not_resumed = "a new copy was asked for" if repeat else "it had not come to the rows"
        if work is None:
            self._let_go()
            for name in ("base", "again"):  # everything is copied
                self.detail.pop(name, None)
        elif work.tables:
            with self._step("catch_up"):
                resume.catch_up(self.sides.source, self.sides.target, self.settings.slot_timeout_seconds)
        return work

    def _take_over(self, facts: dict[str, t.Any], archive: str) -> tuple[_Work | None, str | None]:
        """Compare what is there with what is wanted and make both sides ready to go on; else why not."""
        for side in (self.sides.source, self.sides.target):
            copy_client.wait_for_strays(side)
        left = resume.read_left(self.sides.source, self.sides.target)
        self.keeper = reader = copy_client.open_session(self.settings, self.settings.source)
        snapshot = copy_client.open_snapshot(reader)
        tables, self.report.unlogged, self.report.extension_tables = copy_client.read_tables(reader, own.FORWARD_TABLES)
        only_rows = self.detail["base"]["schema"] is None
        why = copy_plan.why_anew(left, tables, only_rows)
        if why is not None:
            return None, why
        kept, again = copy_plan.split_tables(left, tables)
        work = _Work(again, [], NO_FACTS, snapshot, again=True, only_rows=only_rows)
        if only_rows:
            self._let_go()  # each table has a snapshot of its own
        elif not self._read_schema(reader, work, archive, facts["target"]["superuser"]):
            return None, "the source's schema has changed"
        self.watch = SlotWatch(self.settings)
        self._keep(left, kept, work)
        self._make_ready(left, work, archive, facts["source"]["large_objects"])
        return work, None

    def _read_schema(self, reader: Connection, work: _Work, archive: str, superuser: bool) -> bool:
        """What the source's schema is now and how much of it the target has; False when it is no longer what it was."""
        self.programs.dump_schema(archive, work.snapshot, own.SCHEMA)
        work.found = copy_client.read_restore_facts(reader)
        work.entries = toc.without(self.programs.list_entries(archive), work.found.unwanted, extension_comments=superuser)
        there = copy_client.read_indexes(self.sides.target)
        work.restored = {entry for entry in work.entries if work.found.names.get((entry.catalog, entry.oid)) in there}
        return self.programs.fingerprint(archive, work.entries) == self.detail["base"]["schema"]

    def _keep(self, left: Left, kept: list[Table], work: _Work) -> None:
        """Count what stays."""
        self.report.lsn = self.detail["base"]["lsn"]
        self.report.sequences = self.detail["base"].get("sequences", 0)
        for table in kept:
            self._count(table, *left.done[table.quoted])
        again = sum(1 for table in work.tables if not table.ours)
        report = self.report
        report.resumed = {"tables_kept": report.tables, "rows_kept": report.rows, "bytes_kept": report.bytes, "tables_copied_again": again}
        report.resumed["differed"] = self.detail.get("again", {}).get("tables", [])
        self.detail["resumed"] = report.resumed

    def _make_ready(self, left: Left, work: _Work, archive: str, source_large_objects: int) -> None:
        """Withdraw what is copied again. The apply worker needs primary keys: without them it refuses updates, also of tables that are empty."""
        copy_client.write_tables_again(self.sides.target, work.tables)
        with contextlib.closing(copy_client.open_session(self.settings, self.settings.target, session_replication_role="replica")) as session:
            resume.withdraw(self.sides.source, session, work.tables, left.published)
        if source_large_objects and self.detail["base"]["large_objects"] is None:
            copy_client.unlink_large_objects(self.sides.target)
        if work.tables:
            missing = [entry for entry in work.entries if (entry.catalog, entry.oid) in work.found.identities and entry not in work.restored]
            self.programs.restore(archive, missing, "The primary keys could not be restored", jobs=self.settings.jobs)
            work.restored.update(missing)

    def _count(self, table: Table, rows: int, size: int) -> None:
        if not table.ours:
            self.report.tables += 1
            self.report.rows += rows
            self.report.bytes += size

    def _rows(self, work: _Work, facts: dict[str, t.Any], archives: dict[str, str]) -> None:
        """Copy all tables, largest first; a large table's indexes are built while others are still copied."""
        source, tables, found, restored = facts["source"], work.tables, work.found, work.restored
        same_encoding = source["encoding"] == facts["target"]["encoding"]
        early = toc.by_table([entry for entry in work.entries if entry not in restored], found.tables)
        jobs = [Job(table.bytes, "table", f"Table {table.quoted}", (table, copy_plan.copy_format(table.columns, same_encoding))) for table in tables]
        self.report.large_objects = self.detail.get("base", {}).get("large_objects") or 0
        if source["large_objects"] and not self.report.large_objects and not work.only_rows:
            # Its size is unknown to catalogs that we may read; begun first, it runs beside everything else.
            jobs.append(Job(max((table.bytes for table in tables), default=0) + 1, "large_objects", "The large objects could not be copied"))
            self.report.large_objects = source["large_objects"]

        def started(job: Job) -> None:
            if job.kind == "table":
                copy_client.write_table_started(self.sides.target, job.work[0].quoted)

        def finished(job: Job, result: dict[str, t.Any]) -> t.Iterable[Job]:
            if job.kind == "table":
                table = job.work[0]
                copy_client.write_table_done(self.sides.target, table.quoted, result["rows"], {"format": result["format"]})
                self._count(table, result["rows"], table.bytes)
                if table.bytes < self.settings.early_index_bytes or table.oid not in early:
                    return []
                constraints, indexes = early[table.oid]
                restored.update(constraints, indexes)
                if constraints:  # ALTER TABLE locks the table: its other indexes follow
                    return [Job(table.bytes, "restore", f"The constraints of {table.quoted} could not be restored", constraints)]
                return _index_jobs(table, indexes, found.slow_indexes)
            if job.kind == "large_objects" and "base" in self.detail:
                self.detail["base"]["large_objects"] = source["large_objects"]
                copy_client.write_run(self.sides.target, "copying", self.detail)
            if job.kind == "restore" and job.work[0].catalog == toc.PG_CONSTRAINT:
                table = next(item for item in tables if item.oid == found.tables[(job.work[0].catalog, job.work[0].oid)])
                return _index_jobs(table, early[table.oid][1], found.slow_indexes)
            return []

        run_jobs(jobs, self.settings.jobs, self._runner(work.snapshot, source["encoding"], archives, work.again), started, finished)

    def _runner(
        self, snapshot: str | None, encoding: str, archives: dict[str, str], again: bool = False
    ) -> t.Callable[[], t.Callable[[Job], dict[str, t.Any]]]:
        return lambda: Worker(self.settings, self.programs, snapshot, encoding, archives, own.SCHEMA, again).run

    def _statistics(self, encoding: str, work: _Work) -> None:
        """ANALYZE before anybody is served: the planner must not meet empty statistics."""
        if work.only_rows:
            chosen = [(table.quoted, table.bytes) for table in work.tables if not table.ours]
        else:
            chosen = [(row["name"], row["bytes"]) for row in copy_client.read_analyze(self.sides.target)]
        jobs = [Job(size, "statement", f"ANALYZE {name}", f"ANALYZE {name}") for name, size in chosen]
        run_jobs(jobs, self.settings.jobs, self._runner(None, encoding, {}), lambda job: None, lambda job, result: [])

    def _link(self) -> None:
        """Make the subscription, not enabled yet: that the target reaches the source is known before hours of copying, not after."""
        if self.link is None:
            raise PlanError("Method logical needs option link: how the target's servers reach the source.")
        statement = subscription_statement(own.FORWARD_LINK, self.link.conninfo(own.FORWARD_LINK), self.sides.target.server_version, slot=own.FORWARD_LINK)
        connection = copy_client.open_session(self.settings, self.settings.target)
        try:
            if self.link.password:
                private.refuse_to_tell(connection, "the link's password")
            client.query(connection, statement)
        except ClientError as error:
            raise ClientError(
                f"The target cannot follow the source as role {self.link.user} at {self.link.host}:{self.link.port}. {error.message} "
                f"Look at the source's pg_hba.conf, the role's password{self._files_of_the_link()}."
            ) from error
        finally:
            connection.close()

    def _files_of_the_link(self) -> str:
        files = [file for file in (self.link.passfile, self.link.ca_file) if file] if self.link else []
        return f" and the files on the target's servers ({', '.join(files)})" if files else ""

    def _give_up(self, error: PgHaError) -> bool:
        """Record the failure, and leave no slot behind that would keep the source's WAL; unless what is finished is kept for the next run.

        :returns: whether it is
        """
        self._let_go()
        self.detail["error"] = error.message
        if self._may_go_on(error):
            with contextlib.suppress(PgHaError):
                copy_client.write_run(self.sides.target, "copying", self.detail)
            return True
        self.detail.pop("base", None)
        with contextlib.suppress(PgHaError):
            copy_client.write_run(self.sides.target, "failed", self.detail)
        if self.settings.method == "logical":
            with contextlib.suppress(PgHaError):
                link_client.drop_link(self.sides.source, self.sides.target, own.FORWARD_LINK)
            with contextlib.suppress(PgHaError):
                copy_client.drop_publication(self.sides.source)
        return False

    def _may_go_on(self, error: PgHaError) -> bool:
        """Whether the next run may find what is finished as it has to be: a connection was lost, or it was not even looked at yet."""
        if "base" not in self.detail or isinstance(error, GivenUp):
            return False
        if self.detail["base"]["schema"] is None:  # it was finished: nothing that fails is worth another copy of everything
            return True
        if error.details.get("connection_lost") or error.details.get("resumable") or self.detail["step"] == "resume":
            return True
        try:
            return not all(client.query_value(side, "SELECT true") for side in (self.sides.source, self.sides.target))
        except PgHaError:
            return True


def _index_jobs(table: Table, indexes: list[toc.Entry], slow: set[int]) -> list[Job]:
    """One job per index: several can be built on a table at once. What takes longest begins first, so that nobody waits for it alone at the end."""
    what = f"An index of {table.quoted} could not be restored"
    return [Job(copy_plan.index_weight(table.bytes, entry.oid in slow), "restore", what, [entry]) for entry in indexes]
