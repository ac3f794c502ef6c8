# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy that was interrupted and is run again, on a real server and while clients write."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pathlib
import random
import signal
import threading
import time

import psycopg2
import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import copy_run, resume, worker

from tests.evidence import problems
from tests.unit.replication.conftest import MOST_SECONDS, UNFINISHED, WEIRD

FORK = multiprocessing.get_context("fork")
OURS = ('"ha_migration"."marker"', '"ha_migration"."probe"')
FINISHED = ('"public"."big"', '"public"."parent_1"', '"public"."nothing"', *OURS)
# The same name and the same columns, and another table: its changes were not sent.
SWAP = "CREATE TABLE public.other (LIKE public.heap INCLUDING ALL); ALTER TABLE public.other REPLICA IDENTITY FULL; "
SWAP += "DROP TABLE public.heap; ALTER TABLE public.other RENAME TO heap"
FILES = "SELECT string_agg(pg_relation_filenode(c)::text, ',') FROM unnest(%s::regclass[]) c"


class Writers:
    """Clients of the source. One writes quickly; the others hold transactions open over the moments that matter.

    Processes, since the copy is one that is forked: from threads that connect it could inherit a lock that nobody opens again.
    """

    def __init__(self, migration, first=1):
        self.migration = migration
        self.stop = FORK.Event()
        self.counted = FORK.Value("i", 0)
        self.told = FORK.SimpleQueue()
        self.problems = []
        self.processes = [FORK.Process(target=self.work, args=(first + number, pause), daemon=True) for number, pause in enumerate((0, 0.05, 0.2))]

    def __enter__(self):
        for process in self.processes:
            process.start()
        return self

    def __exit__(self, *_problem):
        self.stop.set()
        for process in self.processes:
            process.join(MOST_SECONDS)
            if process.exitcode != 0:
                self.problems.append(f"a writer ended with {process.exitcode}")
        while not self.told.empty():
            self.problems.append(self.told.get())

    @property
    def committed(self):
        return self.counted.value

    def work(self, seed, pause):
        chance = random.Random(seed)
        connection = psycopg2.connect(host="127.0.0.1", port=self.migration.server.port, user="postgres", dbname=self.migration.names["source"])
        try:
            with connection.cursor() as cursor:
                cursor.execute("SET session_replication_role = replica; SET synchronous_commit = off")
                connection.commit()
                number = seed * 1_000_000
                while not self.stop.is_set():
                    try:
                        for _write in range(chance.randint(1, 6)):
                            number += 1
                            self.write(cursor, chance, number)
                            time.sleep(pause)
                    except psycopg2.errors.TransactionRollbackError:  # they are in each other's way, too
                        connection.rollback()
                    if chance.random() < 0.1:
                        connection.rollback()
                    else:
                        connection.commit()
                        with self.counted:
                            self.counted.value += 1
                    time.sleep(0.002)
        except psycopg2.Error as error:
            self.told.put(str(error))
        finally:
            connection.close()

    @staticmethod
    def write(cursor, chance, number):
        day = chance.choice(["2027-07-01", "2029-01-01"])  # of either partition
        old = chance.randint(1, 400)
        statements = [
            f"INSERT INTO big VALUES ({number}, 'new'); INSERT INTO child VALUES ({number}, NULL)",
            f"INSERT INTO parent VALUES ({number}, '{day}'); INSERT INTO heap VALUES ({number}, 'x')",
            f"UPDATE big SET body = '{number}' WHERE id IN ({old}, {number - 2})",
            f"UPDATE child SET big = {old} WHERE id IN ({old % 100}, {number - 1}, {number - 3})",
            f"UPDATE parent SET day = '{day}' WHERE id IN ({old}, {number - 1})",
            f"UPDATE heap SET b = '{number}' WHERE a IN ({number - 1}, {number - 4})",
            f"DELETE FROM child WHERE id IN ({old % 100}, {number - 5}); DELETE FROM big WHERE id = {number - 6}",
            f"UPDATE {WEIRD} SET n = {number} WHERE id IN ({old}, {number % 1000}); DELETE FROM {WEIRD} WHERE id = {number % 100000}",
            f"INSERT INTO {WEIRD} (mood, n) VALUES ('sad', {number}); UPDATE big SET body = 'x' WHERE id = {number % 20000}",
            f"DELETE FROM heap WHERE a = {number - 7}; DELETE FROM parent WHERE id = {number - 8}",
        ]
        cursor.execute("SET LOCAL search_path = public; " + chance.choice(statements))


@contextlib.contextmanager
def killed_when(migration, condition, **options):
    """A copy in a process of its own, killed with SIGKILL once the condition holds (or by itself)."""
    process = FORK.Process(target=_copy, args=(migration, options))
    process.start()
    deadline = time.monotonic() + MOST_SECONDS
    try:
        while process.is_alive() and not condition():
            assert time.monotonic() < deadline, migration.info()["initial_copy"]
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.join()
    # A process that ended by itself has shown nothing.
    assert process.exitcode == -signal.SIGKILL
    while not migration.info()["initial_copy"]["ended"]:  # as the role does: its workers hold the lock until they are gone
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _copy(migration, options):
    migration.copy(**options)


def kill(migration, condition, **options):
    with killed_when(migration, condition, **options):
        pass


def done(migration, *tables):
    """Whether the rows of these tables are there."""

    def look():
        there = {row["relation"] for row in migration.do("target", "SELECT relation FROM ha_migration.copy WHERE state = 'done'")}
        return set(tables) <= there

    return look


def never():
    return False


def files(migration, tables=FINISHED):
    """A table that is copied again is truncated, and has another file then."""
    connection = migration.open("target")
    try:
        return client.query_value(connection, FILES, (list(tables),))
    finally:
        connection.close()


def assert_the_same(migration):
    migration.do("source", "SELECT pg_logical_emit_message(true, 'test', 'all asynchronous commits before it are flushed')")
    following = migration.link("following", timeout_seconds=MOST_SECONDS).result
    # Without the materialized view, which shows what was there when it was refreshed.
    assert migration.content("target")[:-1] == migration.content("source")[:-1], migration.difference()
    return following


def test_finished_tables_stay_and_nobodys_change_is_lost(migration, half):
    with Writers(migration) as writers:
        kill(migration, done(migration, *FINISHED), jobs=6)
        before = files(migration)
        deadline = time.monotonic() + MOST_SECONDS
        while (info := migration.info()["initial_copy"])["state"] == "running":  # until the servers have noticed that their clients are gone
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert (info["state"], info["step"]) == ("interrupted", "rows")
        time.sleep(1)  # changes that only the slot holds
        half.clear()
        predicted = migration.copy(check_mode=True)
        assert any("keep" in action for action in predicted.result["actions"])
        outcome = migration.copy(jobs=3)
        copied = outcome.result["initial_copy"]
        assert files(migration) == before
        assert (copied["resumed"]["tables_kept"], copied["resumed"]["tables_copied_again"], copied["not_resumed"]) == (3, 4, None)
        assert copied["tables"] == 7
        assert copied["resumed"]["rows_kept"] > 20000
        assert "catch_up" in [step["name"] for step in copied["steps"]]
        time.sleep(1)  # and changes after it
    assert writers.problems == []
    assert writers.committed > 100
    assert problems(migration.recorded(outcome, assert_the_same(migration))) == []
    assert not migration.copy().changed
    assert migration.value("target", "SELECT count(*) FROM pg_largeobject_metadata") == 3
    statement = "SELECT string_agg(indexdef, ';' ORDER BY indexdef) FROM pg_indexes WHERE schemaname NOT IN ('ha_migration', 'pg_catalog')"
    assert migration.value("target", statement) == migration.value("source", statement)


@pytest.mark.parametrize("again_at", ["resume", "catch_up", "rows"])
def test_a_run_that_goes_on_may_be_killed_too(migration, half, monkeypatch, again_at):
    with Writers(migration) as writers:
        kill(migration, done(migration, *FINISHED), jobs=6)
        before = files(migration)
        if again_at == "rows":  # one more is finished, two are in their middle
            half.remove('"public"."heap"')
            kill(migration, done(migration, *FINISHED, '"public"."heap"'), jobs=6)
        else:
            with monkeypatch.context() as patch:
                kill_at(patch, again_at, end=True)
                kill(migration, never)
        half.clear()
        copied = migration.copy().result["initial_copy"]
        assert files(migration) == before
        assert copied["resumed"]["tables_copied_again"] == (3 if again_at == "rows" else 4)
        time.sleep(0.5)
    assert writers.problems == []
    assert_the_same(migration)


def kill_at(patch, name, end=False):
    """The process kills itself when it enters (or ends) that step."""
    real = copy_run._Copy._step

    @contextlib.contextmanager
    def step(self, now):
        with real(self, now):
            if now == name and not end:
                os.kill(os.getpid(), signal.SIGKILL)
            yield
        if now == name:
            os.kill(os.getpid(), signal.SIGKILL)

    patch.setattr(copy_run._Copy, "_step", step)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ("reset", "had not come to the rows"),
        ("snapshot", "had not come to the rows"),
        ("schema", "had not come to the rows"),
        ("link", "had not come to the rows"),
        ("rows", "no table was finished"),
        ("rest_of_schema", None),
        ("sequences", None),
        ("statistics", None),
        ("follow", None),
    ],
)
def test_killed_at_each_step(migration, monkeypatch, step, why):
    with Writers(migration) as writers:
        with monkeypatch.context() as patch:
            kill_at(patch, step)
            kill(migration, never)
        before = None if why else files(migration, (*FINISHED, *UNFINISHED))
        copied = migration.copy().result["initial_copy"]
        if why:
            assert why in copied["not_resumed"]
            assert copied["resumed"] is None
        else:
            assert files(migration, (*FINISHED, *UNFINISHED)) == before
            assert (copied["resumed"]["tables_kept"], copied["resumed"]["tables_copied_again"]) == (7, 0)
            assert copied["large_objects"] == 3
    assert writers.problems == []
    assert_the_same(migration)


def test_half_of_the_rest_of_the_schema_is_no_obstacle(migration, monkeypatch):
    extra = "CREATE RULE quiet AS ON DELETE TO nothing DO INSTEAD NOTHING; CREATE STATISTICS pairs ON a, b FROM heap; CREATE INDEX ON parent (day); "
    extra += "ALTER TABLE child ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON child USING (id < 5); COMMENT ON CONSTRAINT child_pkey ON child IS 'key'; "
    extra += (
        "CREATE FUNCTION noted() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER noted ON ddl_command_end EXECUTE FUNCTION noted()"
    )
    migration.do("source", "SET search_path = public; " + extra)
    with monkeypatch.context() as patch:
        kill_at(patch, "rest_of_schema", end=True)
        kill(migration, never)
    migration.do("target", "ALTER TABLE public.child DROP CONSTRAINT child_big_fkey; DROP INDEX public.big_body; DROP TRIGGER loud ON public.child")
    copied = migration.copy().result["initial_copy"]
    assert copied["resumed"]["tables_copied_again"] == 0
    for statement in (
        "SELECT string_agg(indexdef, ';' ORDER BY indexdef) FROM pg_indexes WHERE schemaname NOT IN ('ha_migration', 'pg_catalog')",
        "SELECT string_agg(conrelid::regclass || conname || pg_get_constraintdef(oid), ';' ORDER BY conrelid::regclass::text, conname) FROM pg_constraint",
        "SELECT string_agg(tgname, ';' ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal AND tgname !~ 'ha_migration'",
        "SELECT string_agg(polname, ';') FROM pg_policy",
        "SELECT string_agg(stxname, ';') FROM pg_statistic_ext",
        "SELECT string_agg(evtname, ';') FROM pg_event_trigger",
        "SELECT count(*) FROM pg_rewrite",
    ):
        assert migration.value("target", statement) == migration.value("source", statement), statement
    guarded = "SELECT count(*) FROM pg_trigger WHERE tgname = 'ha_migration_guard' AND tgenabled = 'O' AND tgrelid::regclass::text !~ 'ha_migration'"
    assert migration.value("target", guarded) == 9
    assert_the_same(migration)


def test_large_objects_that_were_not_finished_are_copied_again(migration, monkeypatch):
    stuck = FORK.Event()
    real = worker.Worker._large_objects

    def large_objects(self, what):
        real(self, what)
        stuck.set()
        time.sleep(MOST_SECONDS)

    with monkeypatch.context() as patch:
        patch.setattr(worker.Worker, "_large_objects", large_objects)
        kill(migration, lambda: stuck.is_set() and done(migration, *FINISHED, *UNFINISHED)(), jobs=4)
    assert migration.value("target", "SELECT count(*) FROM pg_largeobject_metadata") == 3
    migration.do("source", "SELECT lo_from_bytea(0, 'more')")
    before = files(migration)
    copied = migration.copy().result["initial_copy"]
    assert (copied["resumed"]["tables_copied_again"], copied["large_objects"]) == (0, 4)
    assert files(migration) == before
    assert migration.value("target", "SELECT count(*) FROM pg_largeobject_metadata WHERE octet_length(lo_get(oid)) > 3") == 4
    assert_the_same(migration)


@pytest.mark.parametrize(
    ("side", "statement", "why"),
    [
        ("source", "SELECT pg_drop_replication_slot('ha_migration_forward')", "its slot is gone"),
        ("source", "DROP PUBLICATION ha_migration_forward", "its publication is gone"),
        ("target", "ALTER SUBSCRIPTION ha_migration_forward SET (slot_name = NONE); DROP SUBSCRIPTION ha_migration_forward", "its subscription is gone"),
        ("source", "CREATE TABLE public.late (id int PRIMARY KEY)", "no longer the same"),
        ("source", "ALTER TABLE public.big ADD COLUMN more int", "schema has changed"),
        ("source", SWAP, "no longer the same"),
    ],
)
def test_what_cannot_be_gone_on_with_is_thrown_away_and_the_reason_told(migration, half, side, statement, why):
    kill(migration, done(migration, *FINISHED), jobs=6)
    half.clear()
    for part in statement.split("; "):
        migration.do(side, part)
    before = files(migration)
    outcome = migration.copy()
    copied = outcome.result["initial_copy"]
    assert why in copied["not_resumed"]
    assert copied["resumed"] is None
    assert files(migration) != before
    assert problems(migration.recorded(outcome, assert_the_same(migration))) == []


def test_a_slot_whose_wal_is_gone_begins_anew(migration, half):
    kill(migration, done(migration, *FINISHED), jobs=6)
    half.clear()
    connection = migration.open("source")
    try:
        client.query(connection, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        client.query(connection, "SELECT pg_reload_conf()")
        for _segment in range(4):
            client.query(connection, "SELECT pg_logical_emit_message(false, 'x', 'x')")
            client.query(connection, "SELECT pg_switch_wal()")
        client.query(connection, "CHECKPOINT")
        assert client.query_value(connection, "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'ha_migration_forward'") == "lost"
    finally:
        client.query(connection, "ALTER SYSTEM RESET max_slot_wal_keep_size")
        client.query(connection, "SELECT pg_reload_conf()")
        connection.close()
    assert "removed WAL" in migration.copy().result["initial_copy"]["not_resumed"]
    assert_the_same(migration)


def test_asked_to_begin_anew_it_does(migration, half):
    kill(migration, done(migration, *FINISHED), jobs=6)
    half.clear()
    before = files(migration)
    assert "asked for" in migration.copy(repeat=True).result["initial_copy"]["not_resumed"]
    assert files(migration) != before


@pytest.mark.parametrize(("side", "who"), [("source", "copy%"), ("source", "copy worker"), ("target", "copy%"), ("target", "copy worker"), ("mover", "")])
def test_a_lost_connection_keeps_what_is_finished(migration, half, side, who):
    """A server that restarts, a cut network, workers that the mover's kernel has killed: the copy ends by itself and says what to do."""
    pipe, far_end = FORK.Pipe()
    process = FORK.Process(target=_copy_and_tell, args=(migration, far_end))
    process.start()
    look = done(migration, *FINISHED)
    while not look():
        time.sleep(0.05)
    if side == "mover":
        for pid in pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)
    else:
        sessions = f"FROM pg_stat_activity WHERE application_name LIKE 'ha_migration {who}' AND datname = current_database()"
        migration.do(side, f"SELECT pg_terminate_backend(pid) {sessions}")
        (migration.folder.parent / "go").touch()
    message = pipe.recv()
    process.join()
    assert "What is finished is kept" in message
    assert migration.info()["initial_copy"]["state"] == "interrupted"
    half.clear()
    before = files(migration)
    assert migration.copy().result["initial_copy"]["resumed"]["tables_kept"] == 3
    assert files(migration) == before
    assert_the_same(migration)


def _copy_and_tell(migration, pipe):
    try:
        migration.copy(jobs=6)
    except ClientError as error:
        pipe.send(error.message)


def test_a_table_that_stays_locked_keeps_what_is_finished(migration, half):
    kill(migration, done(migration, *FINISHED), jobs=6)
    half.clear()
    holder = migration.open("source")
    client.query(holder, "BEGIN; LOCK TABLE public.heap IN ROW EXCLUSIVE MODE")
    with pytest.raises(ClientError, match=r'"heap" was written by long transactions.*What is finished is kept'):
        migration.copy(slot_timeout_seconds=1)
    # A client that waits behind us waits for less than the lock's holder.
    client.query(holder, "ROLLBACK")
    holder.close()
    copied = migration.copy().result["initial_copy"]
    assert copied["resumed"]["tables_kept"] >= 3
    assert_the_same(migration)


def test_transactions_that_wrote_while_tables_were_withdrawn_are_waited_for(migration, half):
    kill(migration, done(migration, *FINISHED), jobs=6)
    half.clear()
    holder = migration.open("source")
    client.query(holder, "SET session_replication_role = replica")
    client.query(holder, "BEGIN; INSERT INTO public.child VALUES (7777, NULL)")
    with pytest.raises(ClientError, match="writing transactions were still open.*What is finished is kept"):
        migration.copy(slot_timeout_seconds=1)
    # It ends while the next run waits: its row is in the copy, and is not sent once more.
    timer = threading.Timer(3, lambda: client.query(holder, "INSERT INTO public.child VALUES (7778, NULL); COMMIT"))
    timer.start()
    assert migration.copy().result["initial_copy"]["resumed"]["tables_kept"] == 3
    timer.join()
    holder.close()
    assert migration.value("target", "SELECT count(*) FROM public.child WHERE id IN (7777, 7778)") == 2
    assert_the_same(migration)


def test_progress_of_a_run_that_goes_on_is_true(migration, half):
    kill(migration, done(migration, *FINISHED), jobs=6)
    with killed_when(migration, lambda: _running(migration), jobs=6):
        info = migration.info()["initial_copy"]
    assert (info["state"], info["ended"], info["tables_done"]) == ("running", False, info["tables_total"] - 4)
    assert info["resumed"]["tables_kept"] == 3
    assert "3 tables kept" in info["summary"]
    assert info["resumed"]["bytes_kept"] <= info["bytes_done"] < info["bytes_total"]


def _running(migration):
    info = migration.info()["initial_copy"]
    tables = migration.value("target", "SELECT count(*) FROM ha_migration.copy WHERE state = 'copying' AND relation <> '*'")
    return (info["step"], info["resumed"] is None, tables) == ("rows", False, 4)


def test_the_lock_against_writers_is_brief_and_let_go_of(migration):
    publisher = client.connect(migration.service_file, "source", application_name="unit test", settings=resume.PUBLISHER_SETTINGS)
    try:
        client.query(publisher, "BEGIN; LOCK TABLE public.heap IN SHARE MODE")
        began = time.monotonic()
        migration.do("source", "INSERT INTO public.heap VALUES (5, 'x')")
        assert 1 < time.monotonic() - began < 5
    finally:
        publisher.close()
