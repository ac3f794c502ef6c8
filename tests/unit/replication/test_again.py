# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of a finished copy that differ are copied again while clients write. Rows that were changed on the target behind the link's back stand
for those that a lost leader has taken along; the last test loses a real one."""

from __future__ import annotations

import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
import time

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, PlanError
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import decision, schema
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import resume
from ansible_collections.freight.pg_ha.plugins.modules import parity

from tests.evidence import problems
from tests.playbooks.conftest import free_port
from tests.unit.replication.conftest import APPLICATION, UNFINISHED, WEIRD, Migration
from tests.unit.replication.test_resume import FINISHED, Writers, assert_the_same, done, files, kill, kill_at, never

ALL = (*FINISHED, *UNFINISHED)
CHILD, BIG, PART = '"public"."child"', '"public"."big"', '"public"."parent_2"'
DAMAGE = {
    "public.child": "DELETE FROM public.child WHERE id <= 10",
    "public.big": "UPDATE public.big SET body = 'lost' WHERE id % 1000 = 7; DELETE FROM public.big WHERE id = 12345",
    "public.parent_2": "INSERT INTO public.parent_2 VALUES (-1, '2050-01-01'); DELETE FROM public.parent_2 WHERE id = 390",
}


def compare(migration, run="1", **options):
    """The evidence of a comparison."""
    params = {name: option.get("default") for name, option in parity.argument_spec().items()}
    params.update(service_file=migration.service_file, progress_file=str(migration.folder.parent / "parity.json"), run=run, attempts=60, **options)
    evidence = parity.run(params, check_mode=False).result["evidence"]
    assert problems(evidence) == []
    return evidence


def differing(evidence):
    """As role replication takes the tables out of it."""
    return list(dict.fromkeys(row["table"] for row in evidence["mismatches"] if "source_rows" in row))


def damage(migration, tables=tuple(DAMAGE)):
    for table in tables:
        migration.do("target", "SET session_replication_role = replica; " + DAMAGE[table])


def follow(migration):
    migration.copy()
    assert_the_same(migration)


def test_only_the_tables_that_differ_are_copied_again_and_nobodys_change_is_lost(migration):
    follow(migration)
    damage(migration)
    evidence = compare(migration)
    found = differing(evidence)
    assert found == sorted(DAMAGE)
    untouched = [table for table in ALL if table not in (CHILD, BIG, PART)]
    before, was = files(migration, untouched), migration.copy().result["initial_copy"]
    sequences = migration.value("target", "SELECT last_value FROM public.told")
    with Writers(migration) as writers:
        time.sleep(0.3)
        predicted = migration.copy(check_mode=True, again=found, again_because="1")
        assert predicted.changed
        assert predicted.result["actions"][0].startswith("copy 3 tables again, ")
        assert files(migration, untouched) == before
        outcome = migration.copy(again=found, again_because="1")
        time.sleep(0.5)
    assert writers.problems == []
    assert writers.committed > 20
    copied = outcome.result["initial_copy"]
    assert outcome.changed
    assert (copied["resumed"]["tables_kept"], copied["resumed"]["tables_copied_again"]) == (4, 3)
    assert copied["resumed"]["differed"] == [BIG, CHILD, PART]
    for name in ("tables", "sequences", "large_objects", "lsn"):
        assert copied[name] == was[name]
    assert [step["name"] for step in copied["steps"]] == ["resume", "catch_up", "rows", "statistics", "follow"]
    assert files(migration, untouched) == before
    assert problems(migration.recorded(outcome, assert_the_same(migration))) == []
    assert compare(migration, "2")["mismatches"] == []
    assert migration.value("target", "SELECT last_value FROM public.told") == sequences
    # One finding is answered once.
    assert not migration.copy(again=found, again_because="1").changed
    assert not migration.copy().changed


def test_whoever_names_tables_without_a_reason_gets_them_each_time(migration):
    follow(migration)
    for _time in range(2):
        before = files(migration, ['"public"."heap"'])
        assert migration.copy(again=["public.heap"]).changed
        assert files(migration, ['"public"."heap"']) != before
    assert_the_same(migration)


def test_all_tables_may_differ_those_of_ours_too(migration):
    migration.copy()
    migration.do("source", "INSERT INTO ha_migration.probe (run, client, seq) VALUES ('a', 1, 1), ('a', 1, 2)")
    assert_the_same(migration)
    damage(migration)
    migration.do("target", "SET session_replication_role = replica; DELETE FROM ha_migration.probe WHERE seq = 1")
    assert "ha_migration.probe" in differing(compare(migration))
    every = ["ha_migration.probe", "public.big", "public.child", "public.parent_1", "public.parent_2", "public.heap", "public.nothing", WEIRD]
    copied = migration.copy(again=every, again_because="1").result["initial_copy"]
    assert (copied["resumed"]["tables_kept"], copied["not_resumed"]) == (0, None)
    assert_the_same(migration)
    assert compare(migration, "2")["mismatches"] == []


@pytest.mark.parametrize(
    ("step", "end"), [("resume", False), ("resume", True), ("catch_up", False), ("catch_up", True), ("rows", False), ("rows", True), ("follow", False)]
)
def test_killed_at_each_step_the_next_run_goes_on(migration, monkeypatch, step, end):
    follow(migration)
    damage(migration)
    untouched = [table for table in ALL if table not in (CHILD, BIG, PART)]
    before = files(migration, untouched)
    options = {"again": list(DAMAGE), "again_because": "1"}
    with Writers(migration) as writers:
        with monkeypatch.context() as patch:
            kill_at(patch, step, end=end)
            kill(migration, never, **options)
        assert migration.info()["initial_copy"]["state"] == "interrupted"
        finished = [table for table in (CHILD, BIG, PART) if done(migration, table)()]
        assert len(finished) == (3 if step == "follow" or (step, end) == ("rows", True) else 0)
        between = files(migration, finished)
        outcome = migration.copy(**options)
        assert outcome.changed
        assert files(migration, finished) == between
        time.sleep(0.3)
    assert writers.problems == []
    assert files(migration, untouched) == before
    assert sorted(outcome.result["initial_copy"]["resumed"]["differed"]) == [BIG, CHILD, PART]
    assert_the_same(migration)
    assert compare(migration, "2")["mismatches"] == []
    assert not migration.copy(**options).changed


def test_killed_in_the_middle_what_is_finished_is_not_copied_once_more(migration, half):
    half.clear()
    follow(migration)
    damage(migration)
    half.append(BIG)
    options = {"again": list(DAMAGE), "again_because": "1"}
    with Writers(migration) as writers:
        halfway = f"SELECT state = 'copying' FROM ha_migration.copy WHERE relation = '{BIG}'"
        kill(migration, lambda: migration.value("target", halfway) and done(migration, CHILD, PART)(), jobs=3, **options)
        before = files(migration, [table for table in ALL if table != BIG])
        half.clear()
        copied = migration.copy(**options).result["initial_copy"]
        time.sleep(0.3)
    assert writers.problems == []
    assert files(migration, [table for table in ALL if table != BIG]) == before
    assert (copied["resumed"]["tables_copied_again"], sorted(copied["resumed"]["differed"])) == (1, [BIG, CHILD, PART])
    assert_the_same(migration)
    assert compare(migration, "2")["mismatches"] == []


def test_what_is_asked_for_while_a_run_is_interrupted_comes_along(migration, monkeypatch):
    follow(migration)
    damage(migration)
    with monkeypatch.context() as patch:
        kill_at(patch, "rows", end=True)
        kill(migration, never, again=["public.child"], again_because="1")
    copied = migration.copy(again=["public.big", "public.parent_2"]).result["initial_copy"]
    assert copied["resumed"]["tables_copied_again"] == 2
    assert sorted(copied["resumed"]["differed"]) == [BIG, CHILD, PART]
    assert_the_same(migration)


def test_a_failure_keeps_what_is_there_and_the_next_run_goes_on(migration):
    follow(migration)
    damage(migration, ["public.child"])
    untouched = [table for table in ALL if table != CHILD]
    before = files(migration, untouched)
    migration.do("target", "ALTER TABLE public.child ADD CONSTRAINT refuses CHECK (id <> 50) NOT VALID")
    with pytest.raises(ClientError, match="violates check constraint.*What is finished is kept"):
        migration.copy(again=["public.child"], again_because="1")
    migration.do("target", "ALTER TABLE public.child DROP CONSTRAINT refuses")
    migration.copy(again=["public.child"], again_because="1")
    assert files(migration, untouched) == before
    assert_the_same(migration)


def test_triggers_that_fire_for_replicas_do_not_see_the_copy_and_are_as_before(migration):
    migration.do(
        "source",
        "SET search_path = public; CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF current_setting('application_name') LIKE '%copy%' THEN RAISE EXCEPTION 'fired'; END IF; RETURN NEW; END $$; "
        "CREATE TRIGGER every BEFORE INSERT OR DELETE ON big FOR EACH ROW EXECUTE FUNCTION refuse(); ALTER TABLE big ENABLE ALWAYS TRIGGER every; "
        'CREATE TRIGGER "r %s" BEFORE TRUNCATE ON child EXECUTE FUNCTION refuse(); ALTER TABLE child ENABLE REPLICA TRIGGER "r %s"',
    )
    follow(migration)
    damage(migration, ["public.child", "public.big"])
    states = "SELECT string_agg(tgname::text || tgenabled::text, ',' ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal"
    before = migration.value("target", states)
    assert "everyA" in before and "r %sR" in before
    migration.copy(again=["public.child", "public.big"])
    assert migration.value("target", states) == before
    assert_the_same(migration)


def test_nothing_applies_while_tables_are_emptied(migration, monkeypatch):
    """The worker would take their locks in another order, and one of both would die of the deadlock."""
    follow(migration)
    real, running = resume.read_in_the_way, []

    def read(target, table):
        running.append(migration.value("target", "SELECT count(*) FROM pg_stat_subscription WHERE subname = 'ha_migration_forward' AND pid IS NOT NULL"))
        return real(target, table)

    monkeypatch.setattr(resume, "read_in_the_way", read)
    migration.copy(again=["public.child", "public.heap"])
    assert running == [0, 0]


@pytest.mark.parametrize(
    ("side", "statement", "why"),
    [
        ("source", "SELECT pg_drop_replication_slot('ha_migration_forward')", "the slot on the source is gone.*pg_ha_repeat"),
        ("source", "CREATE TABLE public.late (id int PRIMARY KEY)", "no longer those that are followed.*pg_ha_repeat"),
        ("target", 'UPDATE ha_migration.copy SET detail = \'{"oid": 1}\' WHERE relation = \'"public"."heap"\'', "tables are no longer the same.*pg_ha_repeat"),
    ],
)
def test_what_cannot_be_mended_is_refused_and_left_as_it_is(migration, side, statement, why):
    follow(migration)
    migration.link("disabled")
    while migration.value("source", "SELECT bool_or(active) FROM pg_replication_slots WHERE slot_name = 'ha_migration_forward'"):
        time.sleep(0.1)
    migration.do(side, statement)
    before = files(migration, ALL)
    for check_mode in (True, False):
        with pytest.raises(PlanError, match=why):
            migration.copy(check_mode=check_mode, again=["public.child"])
    assert files(migration, ALL) == before
    assert migration.info()["initial_copy"]["state"] == "done"


def test_names_that_mean_no_followed_table_are_refused(migration):
    follow(migration)
    with pytest.raises(PlanError, match=r"no tables of the source that are followed.*: public\.fast, public\.none, public\.parent\."):
        migration.copy(again=["public.child", "public.fast", "public.none", "public.parent"])
    with pytest.raises(PlanError, match="Not all of these are names .*: public.a b"):
        migration.copy(again=["public.a b"])
    assert migration.info()["initial_copy"]["state"] == "done"


def test_a_target_that_serves_is_never_touched(migration, monkeypatch):
    follow(migration)
    monkeypatch.setattr(decision, "plan_serving", lambda *_histories: "target")
    before = files(migration, ALL)
    for check_mode in (True, False):
        with pytest.raises(PlanError, match="serves the applications"):
            migration.copy(check_mode=check_mode, again=["public.child"])
    assert files(migration, ALL) == before


def test_a_row_in_the_way_is_told_and_its_table_can_be_copied_again(migration):
    """The source has deleted a row and made it again; the leader that knew of the deletion is lost."""
    follow(migration)
    migration.do("source", "DELETE FROM public.big WHERE id = 150")
    assert_the_same(migration)
    migration.do("target", "SET session_replication_role = replica; INSERT INTO public.big VALUES (150, 'back')")
    migration.do("source", "INSERT INTO public.big VALUES (150, 'new'); INSERT INTO public.heap VALUES (77, 'behind it')")
    for look in (lambda: migration.link("following", timeout_seconds=60), lambda: compare(migration, catch_up_seconds=60)):
        with pytest.raises(ClientError, match="The target cannot apply what comes over ha_migration_forward: .*log.*replication_again.*pg_ha_repeat"):
            look()
    # Another table does not help, and costs nothing.
    with pytest.raises(ClientError, match="cannot apply .*What is finished is kept"):
        migration.copy(again=["public.child"])
    with Writers(migration) as writers:
        migration.copy(again=["public.big"])
        time.sleep(0.3)
    assert writers.problems == []
    assert_the_same(migration)
    assert compare(migration)["mismatches"] == []


class Targets:
    """A server that leads and its physical standby."""

    def __init__(self, server, folder):
        self.bin, self.folder = server.bin, folder
        self.ports = {name: free_port() for name in ("leader", "standby")}
        self.user = {}
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            self.user = {"user": "postgres", "cwd": str(folder)}
        self.run("initdb", "-D", folder / "leader", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        self.start("leader")
        self.run("createdb", "-h", "127.0.0.1", "-p", self.ports["leader"], "-U", "postgres", "application")
        self.run("pg_basebackup", "-h", "127.0.0.1", "-p", self.ports["leader"], "-U", "postgres", "-D", folder / "standby", "-R", "-X", "stream", "-c", "fast")
        self.start("standby")

    def run(self, program, *argv):
        subprocess.run([str(part) for part in (self.bin / program, *argv)], check=True, stdout=subprocess.DEVNULL, **self.user)

    def start(self, name):
        options = f"-p {self.ports[name]} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off -c wal_level=logical"
        self.run("pg_ctl", "-D", self.folder / name, "-w", "-l", self.folder / f"{name}.log", "-o", f"{options} -c wal_retrieve_retry_interval=100ms", "start")

    def stop(self, name):
        subprocess.run(
            [str(self.bin / "pg_ctl"), "-D", str(self.folder / name), "-m", "immediate", "-w", "stop"], check=False, capture_output=True, **self.user
        )


class Cluster(Migration):
    """A migration whose target is a leader with a standby."""

    def __init__(self, server, targets, folder):
        self.server, self.targets, self.folder, self.log = server, targets, folder / "work", folder / "commands"
        self.folder.mkdir()
        self.names = {"source": f"lost_{os.getpid()}", "target": "application"}
        server.create_database(self.names["source"])
        self.service_file = str(folder / "pg_service.conf")
        self.lead("leader")
        for side in ("source", "target"):
            schema.ensure_schema(self.open(side))

    def lead(self, name):
        """Service target leads there from now on."""
        ports = {"source": self.server.port, "target": self.targets.ports[name], "standby": self.targets.ports["standby"]}
        databases = {**self.names, "standby": "application"}
        lines = (f"[{side}]\nhost=127.0.0.1\nport={port}\nuser=postgres\ndbname={databases[side]}\n" for side, port in ports.items())
        pathlib.Path(self.service_file).write_text("".join(lines))

    def wait(self, side, statement, seconds=30):
        """Until the statement says true."""
        deadline = time.monotonic() + seconds
        while not self.value(side, statement):
            assert time.monotonic() < deadline, statement
            time.sleep(0.05)


class Quiet(Writers):
    """Writers that never make a row again that they have deleted or moved: what is lost is then in nobody's way."""

    @staticmethod
    def write(cursor, chance, number):
        old = chance.randint(1, 400)
        statements = [
            f"INSERT INTO big VALUES ({number}, 'new'); INSERT INTO child VALUES ({number}, NULL)",
            f"INSERT INTO parent VALUES ({number}, '2029-01-01'); INSERT INTO heap VALUES ({number}, 'x')",
            f"UPDATE big SET body = '{number}' WHERE id IN ({old}, {number - 2}); DELETE FROM child WHERE id = {number - 5}",
            f"UPDATE {WEIRD} SET n = {number} WHERE id = {old}; UPDATE heap SET b = '{number}' WHERE a = {number - 4}",
        ]
        cursor.execute("SET LOCAL search_path = public; " + chance.choice(statements))


@pytest.fixture
def cluster(postgresql_server, tmp_path):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pg_ha_again_", dir="/var/tmp"))
    targets = Targets(postgresql_server, folder)
    made = Cluster(postgresql_server, targets, tmp_path)
    made.do("source", "SET session_replication_role = replica; SET search_path = public; " + APPLICATION)
    try:
        yield made
    finally:
        targets.stop("leader")
        targets.stop("standby")
        made.wait("source", "SELECT bool_and(NOT active) IS NOT false FROM pg_replication_slots WHERE database = current_database()")
        made.do("source", "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()")
        connection = client.connect(made.service_file, "source", application_name="unit test", dbname="postgres")
        client.query(connection, f"DROP DATABASE {made.names['source']} WITH (FORCE)")
        connection.close()
        shutil.rmtree(folder, ignore_errors=True)


def test_what_a_lost_leader_has_taken_along_comes_back(cluster):
    """The standby receives nothing while the leader applies; the source's slot passes these changes; the leader dies and the standby leads."""
    cluster.copy()
    with Quiet(cluster) as writers:
        time.sleep(0.5)
        assert_the_link_follows(cluster)
        cluster.wait("standby", "SELECT count(*) > 50 FROM public.child")
        cluster.do("standby", "ALTER SYSTEM SET primary_conninfo = ''")
        cluster.do("standby", "SELECT pg_reload_conf()")
        cluster.wait("standby", "SELECT count(*) = 0 FROM pg_stat_wal_receiver")
        cluster.do(
            "source",
            "SET session_replication_role = replica; SET search_path = public; INSERT INTO child VALUES (900001, NULL), (900002, NULL); "
            "UPDATE big SET body = 'changed' WHERE id = 15000; DELETE FROM big WHERE id = 15001; DELETE FROM parent WHERE id = 50",
        )
        assert_the_link_follows(cluster)  # the slot is past them
        assert cluster.value("target", "SELECT count(*) FROM public.child WHERE id IN (900001, 900002)") == 2
        cluster.targets.stop("leader")
        cluster.do("standby", "SELECT pg_promote()")
        cluster.lead("standby")
        # It goes on there as if nothing had happened.
        cluster.do("source", "INSERT INTO public.heap VALUES (900003, 'later')")
        assert_the_link_follows(cluster)
        assert cluster.value("target", "SELECT count(*) FROM public.heap WHERE a = 900003") == 1
        assert cluster.value("target", "SELECT count(*) FROM public.child WHERE id IN (900001, 900002)") == 0
    assert writers.problems == []
    assert not cluster.copy().changed
    evidence = compare(cluster)
    assert evidence["target"]["timeline"] == 2
    found = differing(evidence)
    assert {"public.big", "public.child", "public.parent_1"} <= set(found)
    with Quiet(cluster, first=10) as writers:
        time.sleep(0.3)
        cluster.copy(again=found, again_because=evidence["run"])
        time.sleep(0.5)
    assert writers.problems == []
    assert_the_same(cluster)
    assert compare(cluster, "2")["mismatches"] == []


def test_what_waits_for_the_standby_is_not_lost_with_the_leader(cluster):
    """As above, but with synchronous_commit on: what the standby has not received is not confirmed, and comes again to the next leader."""
    cluster.copy()
    cluster.do("target", "ALTER SYSTEM SET synchronous_standby_names = '*'")
    cluster.do("target", "SELECT pg_reload_conf()")
    assert cluster.link("following", synchronous_commit="on").result["link"]["synchronous_commit"] == "on"
    cluster.do("standby", "ALTER SYSTEM SET primary_conninfo = ''")
    cluster.do("standby", "SELECT pg_reload_conf()")
    cluster.wait("standby", "SELECT count(*) = 0 FROM pg_stat_wal_receiver")
    written = cluster.value("source", "INSERT INTO public.heap VALUES (900001, 'x') RETURNING pg_current_wal_insert_lsn()::text")
    cluster.wait("target", "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type LIKE 'logical replication%' AND wait_event = 'SyncRep'")
    time.sleep(1)  # wal_writer_delay and a status have passed for a worker that would not wait
    assert cluster.value("source", f"SELECT confirmed_flush_lsn < '{written}' FROM pg_replication_slots WHERE slot_name = '{schema.FORWARD_LINK}'")
    cluster.targets.stop("leader")
    cluster.do("standby", "SELECT pg_promote()")
    cluster.lead("standby")
    cluster.do("source", "INSERT INTO public.heap VALUES (900002, 'x')")
    assert_the_link_follows(cluster)
    assert cluster.value("target", "SELECT count(*) FROM public.heap WHERE a IN (900001, 900002)") == 2
    assert compare(cluster)["mismatches"] == []


def assert_the_link_follows(migration):
    assert migration.link("following", timeout_seconds=60).result["link"]["following"]
