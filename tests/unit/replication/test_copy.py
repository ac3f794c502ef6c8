# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The copy from end to end on a real server, whose one database is the source and whose other is the target."""

from __future__ import annotations

import contextlib
import os
import threading
import time

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, GateError, GivenUp, PlanError, UsageError, WaitTimeout
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import ddl_guard, decision, gates, schema
from ansible_collections.freight.pg_ha.plugins.module_utils._parity import snapshot
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client, locks
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import copy_client, copy_run, link_client, pool, roles, worker
from ansible_collections.freight.pg_ha.plugins.modules import migrated_database, replication_copy

from tests.evidence import problems


def test_everything_is_copied_once_and_then_follows(migration):
    assert migration.info()["initial_copy"]["state"] == "absent"
    predicted = migration.copy(check_mode=True)
    assert predicted.changed
    assert migration.value("target", "SELECT to_regclass('public.big') IS NULL")
    assert migration.value("source", "SELECT count(*) FROM pg_publication") == 0

    first = migration.copy()
    assert first.changed
    report = first.result["initial_copy"]
    assert (report["step"], report["large_objects"], report["unlogged"]) == ("done", 3, ['"public"."fast"'])
    assert report["tables"] == 7
    assert migration.content("target") == migration.content("source")
    assert migration.value("target", "SELECT count(*) FROM public.nothing") == 1
    assert migration.value("target", "SELECT count(*) FROM public.fast") == 0
    objects = "SELECT string_agg(oid || encode(lo_get(oid), 'hex'), ',' ORDER BY oid) FROM pg_largeobject_metadata WHERE lo_get(oid) = 'large'"
    assert migration.value("target", objects) is not None
    for statement in (
        "SELECT last_value || ' ' || is_called FROM public.down",
        "SELECT last_value || ' ' || is_called FROM public.untouched",
        "SELECT last_value || ' ' || is_called FROM public.told",
        "SELECT string_agg(indexdef, ';' ORDER BY indexdef) FROM pg_indexes WHERE schemaname <> 'ha_migration' AND schemaname <> 'pg_catalog'",
        "SELECT string_agg(conname || pg_get_constraintdef(oid), ';' ORDER BY conname) FROM pg_constraint WHERE connamespace <> 'ha_migration'::regnamespace",
        "SELECT string_agg(tgname, ',' ORDER BY tgname) FROM pg_trigger WHERE NOT tgisinternal AND tgname <> 'ha_migration_guard'",
    ):
        assert migration.value("target", statement) == migration.value("source", statement)
    assert migration.value("target", "SELECT count(*) FROM pg_stats WHERE tablename = 'big'") > 0
    assert list(migration.folder.iterdir()) == []

    # Nobody but the link writes on the target, and no table was there without its guard: a transaction made both.
    unguarded = (
        "SELECT count(*) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'ctid' WHERE c.relkind IN ('r', 'p') "
        "AND c.relnamespace = 'public'::regnamespace AND NOT EXISTS "
        "(SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND g.tgname = 'ha_migration_guard' AND g.xmin::text = a.xmin::text)"
    )
    assert migration.value("target", unguarded) == 0
    with pytest.raises(ClientError, match="takes no writes of applications"):
        migration.do("target", "DELETE FROM public.big WHERE false")
    migration.do("source", "UPDATE public.big SET body = 'new' WHERE id <= 10; DELETE FROM public.heap; INSERT INTO public.parent VALUES (9, '2029-01-01')")
    followed = migration.link("following")
    assert not followed.changed
    assert followed.result["link"]["following"]
    assert migration.content("target")[:6] == migration.content("source")[:6]

    evidence = migration.recorded(first, followed.result)
    assert problems(evidence) == [] and (evidence["rows"], evidence["lag_bytes"]) == (report["rows"], followed.result["link"]["lag_bytes"])

    copied = {row["table"]: row for row in evidence["by_table"]}
    assert len(copied) == evidence["tables"] and sum(row["rows"] for row in copied.values()) == evidence["rows"]
    assert all(0 <= row["from_s"] <= row["to_s"] <= evidence["seconds"] for row in copied.values())
    assert evidence["lag"] and evidence["lag"][0]["seconds"] == 0.0

    second = migration.copy()
    assert not second.changed
    assert second.result["initial_copy"] == report
    assert not migration.copy(check_mode=True).changed
    info = migration.info()
    assert (info["initial_copy"]["state"], info["initial_copy"]["ended"], info["link"]["problems"]) == ("done", True, [])
    assert info["initial_copy"]["tables_done"] == info["initial_copy"]["tables_total"] == 9

    # No password and no connection string with one is ever an argument.
    assert all("password" not in word or word == "--no-password" for argv in migration.commands for word in argv)

    migration.do("source", "CREATE TABLE public.late (id int PRIMARY KEY)")
    with pytest.raises(PlanError, match="no longer those that are followed: public.late"):
        migration.copy()
    # A repetition that is refused takes nothing away.
    with pytest.raises(GateError):
        migration.copy(repeat=True, programs_directory="/nowhere")
    assert migration.info()["initial_copy"]["state"] == "done"
    assert migration.info()["link"]["enabled"]
    assert migration.copy(repeat=True).changed
    assert migration.value("target", "SELECT to_regclass('public.late') IS NOT NULL")


def test_early_indexes_are_the_same(migration, monkeypatch):
    monkeypatch.setattr(replication_copy, "Settings", lambda **options: copy_run.Settings(**options, early_index_bytes=1))
    migration.copy()
    statement = "SELECT string_agg(indexdef, ';' ORDER BY indexdef) FROM pg_indexes WHERE schemaname NOT IN ('ha_migration', 'pg_catalog')"
    assert migration.value("target", statement) == migration.value("source", statement)
    early = [argv for argv in migration.commands if argv[0].endswith("pg_restore") and not any(word.startswith(("--section", "--list")) for word in argv)]
    assert len(early) > 3
    assert migration.link("following").result["link"]["following"]


def test_an_interrupted_copy_is_thrown_away_and_made_again(migration):
    migration.do("target", "CREATE SCHEMA tools CREATE TABLE kept (id int)")
    migration.copy()
    target = migration.open("target")
    detail = copy_client.read_run(target)["detail"]
    copy_client.write_run(target, "copying", {**detail, "step": "rows"})
    client.query(target, "SET session_replication_role = replica; TRUNCATE public.child; INSERT INTO public.heap VALUES (99, 'half')")
    target.close()
    assert migration.info()["initial_copy"]["state"] == "interrupted"
    assert migration.copy().changed
    assert migration.content("target") == migration.content("source")
    assert migration.value("target", "SELECT count(*) FROM tools.kept") == 0
    assert migration.value("target", "SELECT count(*) FROM pg_largeobject_metadata") == 3
    assert migration.link("following").result["link"]["following"]


def test_a_password_for_servers_on_which_nothing_is_ours_stands_in_the_subscription(migration, monkeypatch, tmp_path):
    file, seen = tmp_path / "password", []
    file.write_text("it's a \\ secret\n", encoding="utf-8")
    monkeypatch.setattr(replication_copy.copy_run, "run", lambda _settings, link, *_rest: seen.append(link))
    migration.copy(link=migration.reach(password_file=str(file)))
    told = seen[0].conninfo("x")
    assert "password='it\\'s a \\\\ secret'" in told and "sslmode='require'" in told and "channel_binding='require'" in told
    assert "secret" not in repr(seen[0])


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"password_file": "/nowhere/password"}, ClientError, "Cannot read the password of the link: No such file or directory"),
        ({"password_file": "/nowhere/password", "passfile": "/etc/pgpass"}, UsageError, "has passfile and password_file"),
    ],
)
def test_a_password_that_cannot_be_read_or_is_given_twice_is_refused(migration, changed, kind, words):
    with pytest.raises(kind, match=words):
        migration.copy(link=migration.reach(**changed))


def test_a_failure_leaves_no_slot_and_says_why(migration):
    migration.do("source", "ALTER TABLE public.child ADD CHECK (id < 0) NOT VALID")
    with pytest.raises(ClientError, match="postgres_of_nowhere"):
        migration.copy(link=migration.reach(user="postgres_of_nowhere"))
    assert migration.value("source", "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'ha_migration_forward'") == 0
    assert migration.value("source", "SELECT count(*) FROM pg_publication") == 0
    info = migration.info()["initial_copy"]
    assert info["state"] == "failed"
    assert "postgres_of_nowhere" in info["error"]
    assert list(migration.folder.iterdir()) == []


def test_a_row_that_the_target_refuses_fails_the_copy_without_showing_it(migration):
    # A check that was changed after the rows were there: the target knows only the new one.
    migration.do("source", "CREATE FUNCTION public.fine(text) RETURNS boolean LANGUAGE sql AS 'SELECT true'")
    migration.do("source", "ALTER TABLE public.heap ADD CHECK (public.fine(b)); INSERT INTO public.heap VALUES (1, 's3cret')")
    migration.do("source", "CREATE OR REPLACE FUNCTION public.fine(text) RETURNS boolean LANGUAGE sql AS 'SELECT false'")
    with pytest.raises(ClientError) as caught:
        migration.copy()
    assert 'Table "public"."heap"' in caught.value.message
    assert "s3cret" not in caught.value.message
    assert migration.value("source", "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'ha_migration_forward'") == 0


def test_gates_are_reported_together_and_nothing_is_touched(migration):
    migration.do("source", "CREATE TABLE public.bare (id int); CREATE TABLE public.bare2 (id int)")
    migration.do("target", "CREATE TABLE public.big (id int)")
    with pytest.raises(GateError) as caught:
        migration.copy(check_mode=True)
    assert sorted(gate["gate"] for gate in caught.value.details["gates"]) == ["empty", "replica_identity", "replica_identity"]
    with pytest.raises(GateError):
        migration.copy()
    assert migration.value("source", "SELECT count(*) FROM pg_publication") == 0
    assert migration.value("target", "SELECT count(*) FROM public.big") == 0


def test_only_one_copy_runs(migration, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.5)
    other = migration.open("source")
    assert copy_client.try_lock(other)
    assert not migration.info()["initial_copy"]["ended"]
    with pytest.raises(PlanError, match="Another copy runs"):
        migration.copy()
    other.close()


def test_a_job_that_has_not_ended_is_waited_for(migration, tmp_path):
    results = tmp_path / "job"
    results.write_text('{"started": 1, "finished": 0}')
    other = migration.open("source")
    assert copy_client.try_lock(other)
    assert not migration.info(job_results_file=str(results))["initial_copy"]["ended"]
    other.close()
    later = threading.Timer(1, results.write_text, ['{"failed": true}'])
    later.start()
    found = migration.info(job_results_file=str(results))["initial_copy"]
    later.join()
    assert found["ended"] and not found["lost"]


@pytest.mark.parametrize("left", [None, "", '{"started": 1, "finished": 0}'], ids=["no file", "an empty one", "begun"])
def test_a_job_that_nobody_works_on_is_lost(migration, tmp_path, left):
    results = tmp_path / "job"
    if left is not None:
        results.write_text(left)
    found = migration.info(job_results_file=str(results), lost_after_seconds=1)["initial_copy"]
    assert found["ended"] and found["lost"] and found["state"] == "interrupted" and "run replicate again" in found["error"]


@pytest.mark.parametrize("repeat", [True, False])
def test_a_target_that_serves_is_never_copied_over(migration, repeat):
    migration.do("source", "INSERT INTO ha_migration.decision (epoch, serves, decided_by) VALUES (1, 'target', 'mover')")
    with pytest.raises(PlanError, match="serves the applications"):
        migration.copy(repeat=repeat)
    with pytest.raises(PlanError, match="serves the applications"):
        migration.copy(repeat=repeat, check_mode=True)


def test_nothing_begins_while_an_epoch_is_open(migration):
    migration.do("source", "INSERT INTO ha_migration.epoch (epoch, run, leaves, state, budget_ms) VALUES (1, 'r', 'source', 'open', 5000)")
    with pytest.raises(PlanError, match="open on the source"):
        migration.copy()


def test_a_dump_copies_at_a_snapshot_that_somebody_else_holds(migration):
    rehearsal = migration.copy(method="dump", parts="schema", link=None)
    assert rehearsal.changed
    assert problems(migration.recorded(rehearsal, None)) == []
    assert not migration.copy(method="dump", parts="schema", link=None).changed
    assert migration.value("target", "SELECT count(*) FROM public.big") == 0
    holder = migration.open("source")
    snapshot = copy_client.open_snapshot(holder)
    migration.do("source", "DELETE FROM public.child")
    migration.copy(method="dump", snapshot=snapshot, link=None)
    holder.close()
    assert migration.value("target", "SELECT count(*) FROM public.child") == 100
    assert migration.value("source", "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'ha_migration_forward'") == 0
    assert migration.value("source", "SELECT count(*) FROM pg_publication") == 0


@pytest.mark.parametrize("options", [{"snapshot": "x"}, {"parts": "schema"}, {"link": None}])
def test_options_that_contradict_each_other(migration, options):
    with pytest.raises(UsageError):
        migration.copy(**options)


def test_the_link_can_be_stopped_and_dropped(migration):
    migration.copy()
    assert migration.link("disabled", check_mode=True).changed
    assert migration.link("disabled").changed
    assert not migration.link("disabled").changed
    with pytest.raises(WaitTimeout):
        _wait(migration)
    assert migration.link("following").changed
    assert migration.link("absent", check_mode=True).changed
    assert migration.link("absent").changed
    assert not migration.link("absent").changed
    assert migration.value("source", "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'ha_migration_forward'") == 0


def test_once_it_has_caught_up_what_it_applies_waits_for_the_standby(migration):
    migration.copy()
    assert migration.link("following").result["link"]["synchronous_commit"] == "off"
    predicted = migration.link("following", check_mode=True, synchronous_commit="on")
    assert predicted.result["link"]["synchronous_commit"] == "off"
    changed = migration.link("following", synchronous_commit="on")
    assert (changed.before, changed.after) == (predicted.before, predicted.after) and changed.result["actions"] == predicted.result["actions"]
    assert changed.result["link"]["synchronous_commit"] == "on" and changed.result["link"]["following"]
    assert not migration.link("following", synchronous_commit="on").changed
    # Who does not ask leaves it, and a link that stands still does not wait.
    assert not migration.link("following").changed
    assert migration.link("disabled", synchronous_commit="off").result["link"]["synchronous_commit"] == "on"


def _wait(migration):
    source, target = migration.open("source"), migration.open("target")
    try:
        client.query(source, "INSERT INTO public.heap VALUES (5, 'x')")
        link_client.wait_until_caught_up(source, target, schema.FORWARD_LINK, 0.5)
    finally:
        source.close()
        target.close()


def test_a_producer_that_breaks_is_no_end_of_table():
    def produce(file):
        file.write(b"half a row")
        raise ClientError("the source went away")

    stream = pool.Stream(produce)
    with pytest.raises(ClientError, match="went away"):
        while stream.read(100):
            pass
    stream.close()


def test_a_producer_that_is_killed_is_no_end_of_table():
    def produce(file):
        file.write(b"half a row")
        file.flush()
        os.kill(os.getpid(), 9)

    stream = pool.Stream(produce)
    with pytest.raises(ClientError, match="without an answer"):
        while stream.read(100):
            pass
    assert stream.error.details == {"connection_lost": True}
    stream.close()


def test_jobs_run_heaviest_first_and_followers_after_them():
    order = []
    jobs = [pool.Job(weight, "x", f"job {weight}") for weight in (1, 30, 20)]
    pool.run_jobs(
        jobs,
        1,
        lambda: lambda job: {"pid": os.getpid()},
        lambda job: order.append(job.weight),
        lambda job, result: [pool.Job(25, "x", "follower")] if job.weight == 30 and result["pid"] != os.getpid() else [],
    )
    assert order == [30, 25, 20, 1]


@pytest.mark.parametrize("how", ["raises", "dies"])
def test_one_job_that_fails_ends_all(how):
    def work(job):
        if job.weight == 1:
            time.sleep(60)
        if how == "dies":
            os._exit(3)
        raise ClientError("no", sqlstate="42000")

    began = time.monotonic()
    with pytest.raises(ClientError, match="job 2") as caught:
        pool.run_jobs([pool.Job(1, "x", "job 1"), pool.Job(2, "x", "job 2")], 2, lambda: work, lambda job: None, lambda job, result: [])
    assert time.monotonic() - began < 30
    # A worker that was killed is no failure of the work.
    assert caught.value.details == ({"sqlstate": "42000"} if how == "raises" else {"connection_lost": True})


def test_roles_and_database_of_the_same_server_are_already_there(migration):
    def params(module):
        return {**{name: option.get("default") for name, option in module.argument_spec().items()}, "service_file": migration.service_file}

    assert not migration.roles().changed
    migration.do("source", "COMMENT ON DATABASE {} IS 'x'".format(migration.names["source"]))
    migrated = migrated_database.run(params(migrated_database), False)
    assert not migrated.changed
    migration.do("source", "INSERT INTO ha_migration.decision (epoch, serves, decided_by) VALUES (1, 'target', 'mover')")
    with pytest.raises(PlanError, match="serves"):
        migration.roles(check_mode=True)


def test_roles_that_another_database_of_the_target_serves_with_are_left_as_they_are(migration, monkeypatch):
    """Its cutover has taken their login on the source, where the same server holds both databases."""
    name, role = f"{migration.names['target']}_wiki", f"wiki_{os.getpid()}"
    migration.do("source", f"CREATE ROLE {role} LOGIN")
    migration.server.create_database(name)
    wiki = client.connect(migration.service_file, "target", application_name="test", dbname=name)
    plain = roles.read_side
    answers = []

    def as_on_two_servers(connection, database):
        side = plain(connection, database)
        answers.append(side)
        if len(answers) % 2:
            side.roles[role].attributes["rolcanlogin"] = False
        return side

    monkeypatch.setattr(roles, "read_side", as_on_two_servers)
    try:
        schema.ensure_schema(wiki)
        assert migration.roles(check_mode=True).result["actions"] == [f'ALTER ROLE "{role}" NOLOGIN']
        client.query(wiki, "INSERT INTO ha_migration.marker (id, epoch, serves) VALUES ('x', 1, 'target')")
        outcome = migration.roles(check_mode=True)
        assert outcome.result["actions"] == [] and outcome.result["not_moved"][role] == f"it exists on the target, which serves database {name} with it"
    finally:
        wiki.close()
        migration.do("source", f"DROP ROLE {role}")
        migration.do("source", f"DROP DATABASE {name} WITH (FORCE)")


def test_a_target_that_is_made_anew_after_a_roll_back_does_not_believe_that_it_serves(migration):
    """The announcement of the cutover that was rolled back is still in the source's table, whose rows are copied."""
    migration.do("source", "INSERT INTO ha_migration.marker (id, epoch, serves) VALUES ('decided 1', 1, 'target'), ('a barrier', NULL, NULL)")
    migration.copy()
    target = client.connect(migration.service_file, "target", application_name="test")
    with contextlib.closing(target):
        assert decision.read_history(target, "target") == []
        assert client.query_value(target, "SELECT string_agg(id, ' ') FROM ha_migration.marker WHERE id NOT LIKE 'follow%'") == "a barrier"


def test_the_guard_against_ddl_is_not_copied(migration):
    migration.copy()
    source = migration.open("source")
    ddl_guard.apply(source, ddl_guard.plan_guard(ddl_guard.read_guard(source), ddl_guard.Wanted("source", "move", "refuse")))
    with pytest.raises(ClientError, match="DDL is refused while migration move follows"):
        client.query(source, "CREATE TABLE public.late (id int PRIMARY KEY)")
    assert migration.copy(repeat=True).changed
    assert migration.value("target", "SELECT count(*) FROM pg_event_trigger") == 0
    assert migration.link("following").result["link"]["following"]
    ddl_guard.remove(source)
    source.close()


# --- the source's disk comes first ----------------------------------------------------------------------------------------------


@pytest.fixture
def keep(migration):
    """Sets max_slot_wal_keep_size in MiB; afterwards it is what it was."""

    def alter(words):
        migration.do("source", f"ALTER SYSTEM {words}")
        migration.do("source", "SELECT pg_reload_conf()")

    def keep(mib):
        alter(f"SET max_slot_wal_keep_size = '{mib}MB'")
        wait_for(lambda: migration.value("source", "SELECT setting::int FROM pg_settings WHERE name = 'max_slot_wal_keep_size'") == mib)

    yield keep
    alter("RESET max_slot_wal_keep_size")


def wait_for(look, seconds=10):
    bound = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < bound
        time.sleep(0.05)


WRITE_SEGMENT = "SELECT pg_logical_emit_message(false, 'test', 'x'), pg_switch_wal()"


def write_wal(migration, segments):
    """Each segment has 16 MiB."""
    for _segment in range(segments):
        migration.do("source", WRITE_SEGMENT)


def test_a_limit_that_the_source_does_not_keep_is_a_gate(migration, keep):
    with pytest.raises(GateError) as caught:
        migration.copy(slot_wal_limit_mib=100)
    (gate,) = caught.value.details["gates"]
    assert gate["gate"] == "slot_wal_limit" and "max_slot_wal_keep_size is -1, no limit" in gate["message"]
    assert gate["remedy"].startswith("ALTER SYSTEM SET max_slot_wal_keep_size = '100MB'; SELECT pg_reload_conf();")
    keep(200)
    with pytest.raises(GateError, match="max_slot_wal_keep_size is 200 MB"):
        migration.copy(slot_wal_limit_mib=100)
    assert migration.value("source", "SELECT count(*) FROM pg_publication") == 0
    keep(100)
    assert migration.copy(slot_wal_limit_mib=100).changed


def test_there_is_an_alarm_from_half_of_the_limit_on_and_the_link_still_follows(migration, keep):
    migration.copy()
    target = migration.open("target")
    client.query(target, "BEGIN; LOCK TABLE public.big IN SHARE MODE")  # the apply worker waits
    migration.do("source", "UPDATE public.big SET body = 'new' WHERE id = 1")
    write_wal(migration, 2)
    assert migration.info(slot_wal_limit_mib=160)["link"]["alarm"] == "" and migration.info()["link"]["slot_limit_bytes"] is None
    write_wal(migration, 4)
    found = migration.info(slot_wal_limit_mib=160)
    assert found["link"]["alarm"].startswith("ALARM: slot ha_migration_forward holds back") and "at 160 MiB the link is given up" in found["link"]["alarm"]
    assert found["link"]["problems"] == [found["link"]["alarm"]] and found["link"]["following"]
    assert found["initial_copy"]["summary"].endswith(found["link"]["alarm"])
    assert migration.info()["link"]["problems"] == []
    # The source's own limit counts without a declared one, and the lower of both.
    keep(150)
    assert "at 150 MiB" in migration.info()["link"]["alarm"] and "at 150 MiB" in migration.info(slot_wal_limit_mib=160)["link"]["alarm"]
    target.close()
    assert migration.link("following", slot_wal_limit_mib=1000).result["link"]["following"]
    # What has caught up is not given up, though the slot's oldest WAL moves only with the next record of running transactions.
    assert migration.link("following", slot_wal_limit_mib=64).result["link"]["following"]
    migration.do("source", "CHECKPOINT")
    wait_for(lambda: migration.info()["link"]["problems"] == [], 30)


def test_a_slot_that_the_server_has_invalidated_ends_the_migration_and_every_phase_says_so(migration, keep):
    migration.copy()
    migration.link("disabled")
    keep(32)
    write_wal(migration, 6)
    assert migration.info()["link"]["alarm"].endswith("its next checkpoint gives the link up")
    migration.do("source", "CHECKPOINT")
    link = migration.info()["link"]
    assert (link["slot_wal_status"], link["following"], link["alarm"]) == ("lost", False, "")
    sentence = link["given_up"]
    assert sentence.startswith("The migration has been given up in favour of the source's disk: the server has invalidated slot ha_migration_forward")
    assert "left over are slot ha_migration_forward, its publication, its subscription. Mend" in sentence and "`pg-ha replicate --repeat replicate`" in sentence
    assert link["problems"] == [sentence.rstrip(".")]
    source, target = migration.open("source"), migration.open("target")
    for phase in (migration.copy, lambda: migration.copy(check_mode=True), lambda: migration.link("following", timeout_seconds=5)):
        with pytest.raises(GivenUp) as said:
            phase()
        assert said.value.message == sentence
    with pytest.raises(GateError) as said:
        snapshot.check_link(snapshot.FORWARD, source, target)
    assert said.value.message == sentence
    values = dict.fromkeys(gates.Context.__dataclass_fields__)
    failures = gates.evaluate(gates.Context(**{**values, "here": source, "ahead": target, "leaves": "source", "serves": "target"}), [gates.link])
    assert [failure["message"] for failure in failures] == [sentence.rstrip(".")]
    # DDL is free again: nothing follows.
    ddl_guard.apply(source, ddl_guard.plan_guard(ddl_guard.read_guard(source), ddl_guard.Wanted("source", "move", "refuse")))
    client.query(source, "CREATE TABLE public.late (id int PRIMARY KEY)")  # by an application: of this session's name nothing is ours
    ddl_guard.remove(source)
    source.close()
    target.close()
    assert migration.copy(repeat=True).changed
    assert migration.link("following").result["link"]["following"]


def test_at_the_declared_limit_the_wait_gives_the_link_up(migration, keep):
    migration.copy()
    keep(64)
    target = migration.open("target")
    client.query(target, "BEGIN; LOCK TABLE public.big IN SHARE MODE")
    migration.do("source", "UPDATE public.big SET body = 'new' WHERE id = 1")
    write_wal(migration, 6)
    with pytest.raises(GivenUp) as said:
        migration.link("following", slot_wal_limit_mib=64)
    assert "slot ha_migration_forward held back more than the declared 64 MiB of WAL and was dropped" in said.value.message
    assert "left over are its publication, its subscription, disabled. Mend" in said.value.message
    assert migration.value("source", "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'ha_migration_forward'") == 0
    assert migration.value("target", "SELECT NOT subenabled FROM pg_subscription WHERE subname = 'ha_migration_forward'")
    target.close()
    assert migration.copy(repeat=True, slot_wal_limit_mib=64).changed
    assert migration.link("following", slot_wal_limit_mib=64).result["link"]["following"]


@pytest.mark.parametrize(
    ("declared", "then", "reason"),
    [
        (64, "SELECT 1", "slot ha_migration_forward held back more than the declared 64 MiB of WAL and was dropped"),
        (None, "CHECKPOINT", "the server invalidated slot ha_migration_forward"),
    ],
)
def test_at_a_limit_the_copy_ends_itself(migration, keep, monkeypatch, declared, then, reason):
    keep(64)

    def hang(self, table, form):
        other = migration.open("source")
        for _segment in range(6):
            client.query(other, WRITE_SEGMENT)
        client.query(other, then)
        client.query(self._open_target(), "SELECT pg_sleep(120)")
        return {"rows": 0, "format": form}

    monkeypatch.setattr(worker.Worker, "_copy", hang)
    began = time.monotonic()
    with pytest.raises(GivenUp) as said:
        migration.copy(slot_wal_limit_mib=declared)
    assert time.monotonic() - began < 60
    assert reason in said.value.message and "nothing of it is left there" in said.value.message
    assert migration.value("source", "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'ha_migration_forward'") == 0
    assert migration.value("source", "SELECT count(*) FROM pg_publication") == 0
    info = migration.info()["initial_copy"]
    assert (info["state"], info["error"]) == ("failed", said.value.message)
    monkeypatch.undo()
    assert migration.copy(slot_wal_limit_mib=declared).changed
    assert migration.link("following").result["link"]["following"]


def test_a_deferrable_key_is_no_replica_identity(postgresql_server):
    connection = client.connect(postgresql_server.service_file, "source", application_name="test")
    keys = {"at_once": "PRIMARY KEY", "deferrable": "PRIMARY KEY DEFERRABLE", "none": ""}
    client.query(connection, "BEGIN; CREATE SCHEMA keys; " + "; ".join(f'CREATE TABLE keys."{name}" (id int {key})' for name, key in keys.items()))
    try:
        tables, _unlogged, _extension = copy_client.read_tables(connection, ())
        assert {table.name: table.identity for table in tables if table.schema == "keys"} == {"at_once": True, "deferrable": False, "none": False}
        client.query(connection, 'CREATE PUBLICATION keys FOR TABLE keys."deferrable"')
        with pytest.raises(ClientError, match="does not have a replica identity"):
            client.query(connection, 'UPDATE keys."deferrable" SET id = 2')
    finally:
        client.query(connection, "ROLLBACK")
        connection.close()
