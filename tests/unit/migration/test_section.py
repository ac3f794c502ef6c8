# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The critical section between two databases of a real server with a real link, a real dead man and a pooler that is made of two values."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, GateError, PgHaError, UnknownState
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import (
    cutover,
    ddl_guard,
    dead_man,
    decision,
    guards,
    large_object_fence,
    schema,
    section,
    settle,
)
from ansible_collections.freight.pg_ha.plugins.module_utils._migration.bring import ByLink
from ansible_collections.freight.pg_ha.plugins.module_utils._migration.way_back import NoWayBack
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client

from .fakes import ENDPOINTS, Console, FakePooler, PoolerState


@pytest.fixture
def sides(postgresql_server, tmp_path):
    """A source and a target database with a table, guards and a following link; everything of it is dropped afterwards."""
    admin = client.connect(postgresql_server.service_file, "source", application_name="test")
    names = {side: f"{side}_{os.getpid()}_{time.monotonic_ns()}" for side in ("source", "target")}
    for name in names.values():
        client.query(admin, f"CREATE DATABASE {name}")
    service_file = postgresql_server.services(tmp_path / "pg_service.conf", source=names["source"], target=names["target"], pooler=names["source"])
    here = client.connect(service_file, "source", application_name="test")
    ahead = client.connect(service_file, "target", application_name="test")
    for side in (here, ahead):
        schema.ensure_schema(side)
        client.query(side, 'CREATE TABLE public."It\'s %s" (id bigint PRIMARY KEY, note text); CREATE SEQUENCE public.numbers')
        client.query(side, "CREATE TABLE public.parted (id int PRIMARY KEY) PARTITION BY RANGE (id)")
        client.query(side, "CREATE TABLE public.part PARTITION OF public.parted FOR VALUES FROM (0) TO (10)")
    slot = f"forward_{names['source']}"
    client.query(
        here,
        f'CREATE PUBLICATION {schema.FORWARD_LINK} FOR TABLE public."It\'s %s", public.part, ha_migration.marker, ha_migration.probe',
    )
    client.query(here, "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
    client.query(
        ahead,
        f"CREATE SUBSCRIPTION {schema.FORWARD_LINK} CONNECTION 'host=127.0.0.1 port={postgresql_server.port} user=postgres dbname={names['source']}' "
        f"PUBLICATION {schema.FORWARD_LINK} WITH (create_slot = false, slot_name = '{slot}', copy_data = false, synchronous_commit = on)",
    )
    client.query(here, "INSERT INTO ha_migration.marker (id) VALUES ('follows')")
    deadline = time.monotonic() + 20
    while not client.query_value(ahead, "SELECT EXISTS (SELECT FROM ha_migration.marker)"):
        assert time.monotonic() < deadline, "the link does not follow"
        time.sleep(0.01)
    yield here, ahead, service_file
    client.query(ahead, f"ALTER SUBSCRIPTION {schema.FORWARD_LINK} DISABLE")
    client.query(ahead, f"ALTER SUBSCRIPTION {schema.FORWARD_LINK} SET (slot_name = NONE)")
    client.query(ahead, f"DROP SUBSCRIPTION {schema.FORWARD_LINK}")
    for connection in (here, ahead):
        connection.close()
    client.query(admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY (%s)", (list(names.values()),))
    deadline = time.monotonic() + 10
    while client.query(admin, "SELECT FROM pg_replication_slots WHERE database = ANY (%s) AND active", (list(names.values()),)):
        assert time.monotonic() < deadline, "the walsender does not end"
        time.sleep(0.01)
    # The slot goes with its database.
    for name in names.values():
        client.query(admin, f"DROP DATABASE {name} WITH (FORCE)")
    admin.close()


class Run:
    """One attempt on these two sides."""

    def __init__(self, sides, tmp_path, **changes):
        self.here, self.ahead, self.service_file = sides
        self.pooler = PoolerState()
        config = dead_man.Config("lb1", "app", self.service_file, str(tmp_path / "route.ini"), {}, {})
        self.dead_man = dead_man.DeadMan(config, lambda message: None)
        self.dead_man.pooler = FakePooler(self.pooler)
        guards.install_guards(self.ahead, schema.GuardAwaiting(1, "target"))
        guards.install_guards(self.here, schema.GuardPermissive())
        tables = guards.read_guarded_tables(self.here)
        self.watch = section.Watch(
            tuple((row["oid"], row["name"]) for row in tables),
            tuple(row["name"] for row in tables),
            section.read_durability(self.ahead)["timeline"],
            large_objects=section.watch_large_objects(self.here, self.ahead),
            ddl=ddl_guard.count_recorded(self.here),
        )
        values = {"budget_seconds": 2.0, "roles": (), "needs_sync_standby": False, "endpoint": ENDPOINTS["target"], **changes}
        self.attempt = section.Attempt(epoch=1, run="test", leaves="source", serves="target", database="app", **values)
        self.steps = section.Steps()

    def connect(self, side):
        return client.connect(self.service_file, side, application_name="ha_migration test", settings={"synchronous_commit": "on"})

    def go(self, observe=lambda name: None, arm=True):
        self.steps.observe = observe
        if arm:
            threading.Thread(target=self._keep, daemon=True).start()
        sessions = section.Sessions(
            fence=self.connect("source"),
            control=self.connect("source"),
            canceller=self.connect("source"),
            large_objects=large_object_fence.LargeObjectFence(self.connect("source")),
            ahead=self.connect("target"),
            pausers={"lb1": Console(self.pooler)},
            lookers={"lb1": Console(self.pooler)},
        )
        self.sessions = sessions
        section.warm(sessions, self.attempt, self.watch)
        decided = section.run_section(self.attempt, sessions, self.watch, self.steps, lambda: self.connect("source"))
        section.wait_until_served(self.attempt, sessions, self.steps, 3)
        return decided

    def _keep(self):
        while True:
            attempt = self.dead_man.sides["source"].ask(decision.read_open_epoch)
            if attempt is not None:
                return self.dead_man.guard(attempt)
            self.dead_man.sides["source"].wait(0.01)

    def wait_until_served_by(self, side, seconds=6):
        deadline = time.monotonic() + seconds
        while self.pooler.paused or self.pooler.side != side:
            assert time.monotonic() < deadline, f"not served by the {side}: {vars(self.pooler)}"
            time.sleep(0.01)


def write(connection, table='public."It\'s %s"'):
    client.query(connection, f"INSERT INTO {table} VALUES ({time.monotonic_ns()}, 'x')" if "It" in table else f"INSERT INTO {table} VALUES (1)")


def refused(connection, **kwargs):
    with pytest.raises(ClientError) as caught:
        write(connection, **kwargs)
    return caught.value.details["sqlstate"] == "25006"


def test_the_section_moves_clients_and_closes_the_side_that_was_left(sides, tmp_path):
    run = Run(sides, tmp_path)
    old_session = run.connect("source")
    client.query(old_session, "BEGIN ISOLATION LEVEL REPEATABLE READ")
    client.query(old_session, "SELECT count(*) FROM public.numbers")
    plain = run.connect("source")
    client.query(plain, 'PREPARE p AS INSERT INTO public."It\'s %s" VALUES (77)')
    write(run.here)
    assert refused(run.ahead) and refused(run.ahead, table="public.part")
    assert run.go() == "target"
    assert run.pooler.side == "target" and not run.pooler.paused
    assert refused(old_session), "a repeatable read session from before"
    assert refused(run.here, table="public.part") and refused(run.here, table="public.parted")
    with pytest.raises(ClientError, match="takes no writes"):
        client.query(plain, "EXECUTE p")
    with pytest.raises(ClientError, match="takes no writes"):
        client.query(run.here, "TRUNCATE public.part")
    write(run.ahead)
    assert client.query_value(run.ahead, 'SELECT count(*) FROM public."It\'s %s"') == 2
    assert [step["name"] for step in run.steps.done][-3:] == ["decide", "announce", "flip"]


def test_a_pause_that_does_not_end_is_undone_and_clients_go_on(sides, tmp_path):
    run = Run(sides, tmp_path, pause_seconds=0.2)
    run.pooler.refuses_pause = True
    with pytest.raises(section.Undone, match="holds a transaction open"):
        run.go()
    run.wait_until_served_by("source")
    write(run.here)
    assert refused(run.ahead)
    assert decision.read_decision(run.here, 1) == "source"


def test_without_an_armed_dead_man_nobody_is_paused(sides, tmp_path):
    run = Run(sides, tmp_path, budget_seconds=0.4)
    with pytest.raises(section.Undone, match="did not acknowledge"):
        run.go(arm=False)
    assert not any(statement.startswith("PAUSE") for statement in run.pooler.log)


@pytest.mark.parametrize("moment", ["after fence", "before decide"])
def test_a_table_that_comes_inside_the_section_stops_it(sides, tmp_path, moment):
    run = Run(sides, tmp_path)

    def interfere(name):
        if name == moment:
            client.query(run.here, "CREATE TABLE public.late (id int)")

    with pytest.raises(section.Undone, match="public.late"):
        run.go(interfere)
    run.wait_until_served_by("source")
    write(run.here)


def test_a_trigger_of_the_application_that_is_asked_before_the_guard_hinders_nobody(sides, tmp_path):
    """By its name it comes first, and it refuses what the proof tries in words of its own."""
    run = Run(sides, tmp_path)
    client.query(run.here, "CREATE FUNCTION public.never() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$append only$$; END'")
    client.query(run.here, "CREATE TRIGGER append_only BEFORE DELETE OR TRUNCATE ON public.part FOR EACH STATEMENT EXECUTE FUNCTION public.never()")
    assert run.go() == "target"
    assert settle.prove_refusal(run.here, ())
    # Where only it stands, nothing is proved.
    client.query(run.here, f"DROP TRIGGER {schema.GUARD_TRIGGER} ON public.part")
    with pytest.raises(GateError, match="append only"):
        settle.prove_refusal(run.here, ())


STEPS = ("arm", "cancel autovacuum", "pause", "fence", "marker", "last look", "sequences", "arrival", "barrier", "large objects")


@pytest.mark.parametrize("moment", [*(f"{when} {step}" for step in STEPS for when in ("before", "after"))][1:] + ["before decide"])
def test_what_fails_at_any_step_before_the_decision_is_undone(sides, tmp_path, moment):
    """As a deadline does there: clients go on where they were, the next side refuses, and the fence is gone."""
    run = Run(sides, tmp_path)

    def fail(name):
        if name == moment:
            raise GateError("There is a fault.")

    with pytest.raises(section.Undone, match="clients go on at the source: There is a fault. Nothing was lost") as caught:
        run.go(fail)
    assert caught.value.details["reason"] == "There is a fault."
    run.wait_until_served_by("source")
    write(run.here)
    write(run.here, table="public.part")
    assert refused(run.ahead) and decision.read_decision(run.here, 1) == "source"
    assert not client.query(run.here, "SELECT FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND relation = 'public.part'::regclass")


def test_a_session_past_the_pooler_that_holds_a_table_makes_the_fence_give_up(sides, tmp_path):
    run = Run(sides, tmp_path)
    holder = run.connect("source")
    client.query(holder, "BEGIN; LOCK TABLE public.part IN ROW EXCLUSIVE MODE")
    with pytest.raises(section.Undone, match="lock timeout"):
        run.go()
    run.wait_until_served_by("source")
    write(run.here)
    client.query(holder, "ROLLBACK")


def test_too_little_of_the_budget_for_the_decision_is_undone(sides, tmp_path):
    run = Run(sides, tmp_path)

    def dawdle(name):
        if name == "before decide":
            time.sleep(1.7)

    with pytest.raises(section.Undone, match="Too little of the budget was left for the decision"):
        run.go(dawdle)
    run.wait_until_served_by("source")
    write(run.here)


@pytest.mark.parametrize(
    ("side", "statement", "lost"),
    [
        ("here", f"ALTER PUBLICATION {schema.FORWARD_LINK} DROP TABLE public.part", "does not carry public.part any more"),
        ("ahead", "UPDATE pg_subscription_rel SET srsubstate = 'd' WHERE srrelid = 'public.part'::regclass", "does not carry public.part any more"),
        ("ahead", f"ALTER SUBSCRIPTION {schema.FORWARD_LINK} DISABLE", "ha_migration_forward is not enabled"),
    ],
    ids=["unpublished", "copied again", "disabled"],
)
def test_a_link_that_does_not_carry_every_table_stops_it_though_the_marker_arrives(sides, tmp_path, side, statement, lost):
    run = Run(sides, tmp_path)

    def interfere(name):
        if name == "after pause":
            client.query(getattr(run, side), statement)

    with pytest.raises(section.Undone, match=lost):
        run.go(interfere)
    run.wait_until_served_by("source")
    write(run.here)


def test_a_large_object_that_came_after_the_copy_stops_it(sides, tmp_path):
    run = Run(sides, tmp_path)
    client.query(run.here, "SELECT lo_from_bytea(0, 'late')")
    with pytest.raises(section.Undone, match="Large objects changed"):
        run.go()
    run.wait_until_served_by("source")
    write(run.here)


@pytest.fixture
def vacuumed(sides):
    """A table that is vacuumed automatically and slowly as soon as it is called for, and a role that may not cancel it."""
    here, name = sides[0], f"admin_{time.monotonic_ns()}"
    client.query(here, f"CREATE ROLE {name} LOGIN IN ROLE pg_signal_backend, pg_read_all_stats")
    for side in sides[:2]:
        client.query(side, "CREATE TABLE public.slow (id int, note text)")
    client.query(here, "INSERT INTO public.slow SELECT g, repeat('x', 900) FROM generate_series(1, 3000) g; DELETE FROM public.slow")

    def begin():
        client.query(
            here,
            "ALTER TABLE public.slow SET (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_threshold = 1, "
            "autovacuum_vacuum_scale_factor = 0)",
        )
        client.query(here, "ALTER SYSTEM SET autovacuum_naptime = 1")
        client.query(here, "SELECT pg_reload_conf()")
        deadline = time.monotonic() + 120
        while not client.query(here, "SELECT FROM pg_locks WHERE relation = 'public.slow'::regclass AND mode = 'ShareUpdateExclusiveLock'"):
            assert time.monotonic() < deadline, "nobody vacuums"
            time.sleep(0.1)
        return name

    yield begin
    client.query(here, "ALTER SYSTEM RESET autovacuum_naptime")
    client.query(here, "SELECT pg_reload_conf()")
    client.query(here, f"DROP ROLE {name}")


def test_who_may_not_cancel_an_automatic_vacuum_waits_for_its_end_before_clients_are_held(sides, tmp_path, vacuumed):
    run = Run(sides, tmp_path)
    plain = client.connect(run.service_file, "source", application_name="ha_migration test", user=vacuumed())
    assert section.cancel_autovacuum(plain) == 0
    with pytest.raises(GateError, match=r"may not cancel, of public.slow \(session \d+\): wait"):
        section.await_gap(plain, run.watch, 0.3)
    # A superuser's own fence waits for nobody.
    section.await_gap(run.here, run.watch, 5)


class LateWriter:
    """Writes a large object past the poolers while clients are held."""

    def __init__(self, run, user="postgres"):
        self.run = run
        self.session = client.connect(run.service_file, "source", application_name="late", user=user)
        self.outcome = None
        self.thread = threading.Thread(target=self._write, daemon=True)

    def _write(self):
        try:
            client.query(self.session, "SELECT lo_put(4711, 0, 'late')")
            self.outcome = "acknowledged"
        except ClientError:
            self.outcome = "ended" if self.session.closed else "refused"

    def start(self):
        self.thread.start()
        deadline = time.monotonic() + 5
        while not client.query(self.run.here, "SELECT FROM pg_locks WHERE pid = %s AND NOT granted", (self.session.info.backend_pid,)):
            assert time.monotonic() < deadline and self.thread.is_alive(), f"the writer does not wait: {self.outcome}"
            time.sleep(0.005)

    def end(self):
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.outcome, client.query_value(self.run.here, "SELECT data FROM pg_largeobject WHERE loid = 4711").tobytes()


def with_a_large_object(sides, tmp_path, owner="postgres", **changes):
    for side in sides[:2]:
        client.query(side, f"SELECT lo_from_bytea(4711, 'copied'); ALTER LARGE OBJECT 4711 OWNER TO {owner}")
    return Run(sides, tmp_path, **changes)


@pytest.mark.parametrize("dies", [False, True], ids=["and goes on", "and dies"])
def test_who_waits_to_write_a_large_object_is_not_acknowledged_after_the_decision(sides, tmp_path, dies):
    run = with_a_large_object(sides, tmp_path)
    late = LateWriter(run)

    def act(name):
        if name == "before decide":
            late.start()
        if dies and name == "after decide":
            raise Died

    if dies:
        with pytest.raises(Died):
            run.go(act)
    else:
        assert run.go(act) == "target"
    assert late.end() == ("ended", b"copied")
    run.wait_until_served_by("target")


def test_who_comes_after_the_decision_cannot_write_a_large_object_before_the_sessions_are_ended(sides, tmp_path, monkeypatch):
    """Also when nobody ends them, because the mover has died."""
    monkeypatch.setattr(large_object_fence, "PATIENCE_SECONDS", 1.5)
    name = f"late_{time.monotonic_ns()}"
    client.query(sides[0], f"CREATE ROLE {name} LOGIN")
    try:
        run = with_a_large_object(sides, tmp_path, owner=name, roles=(name,))
        late, idle = LateWriter(run, user=name), LateWriter(run, user=name)
        assert run.go() == "target"
        late.start()
        assert late.end() == ("ended", b"copied")
        with pytest.raises(ClientError):
            client.query(idle.session, "SELECT pg_sleep(20)")
    finally:
        deadline = time.monotonic() + 10
        while client.query(sides[0], "SELECT FROM pg_locks WHERE relation = 'pg_largeobject'::regclass"):
            assert time.monotonic() < deadline, "the lock stays"
            time.sleep(0.05)
        for side in sides[:2]:
            client.query(side, "SELECT lo_unlink(4711)")
        client.query(sides[0], f"DROP ROLE {name}")


def test_when_it_is_undone_large_objects_are_written_again_at_once(sides, tmp_path):
    run = with_a_large_object(sides, tmp_path, budget_seconds=8.0)
    late = LateWriter(run)

    def fail(name):
        if name == "after barrier":
            late.start()
            raise GateError("There is a fault.")

    with pytest.raises(section.Undone, match="There is a fault"):
        run.go(fail)
    undone = time.monotonic()
    assert late.end() == ("acknowledged", b"lateed") and time.monotonic() - undone < 2


def test_the_server_holds_the_large_objects_when_the_mover_is_killed_and_lets_go_by_the_decision(sides, tmp_path):
    run = Run(sides, tmp_path)
    held = "SELECT pid FROM pg_locks WHERE relation = 'pg_largeobject'::regclass AND mode = 'ShareLock'"

    def mover():
        large_object_fence.LargeObjectFence(run.connect("source")).take(run.attempt)
        time.sleep(60)

    process = multiprocessing.get_context("fork").Process(target=mover)
    process.start()
    deadline = time.monotonic() + 10
    while not client.query(run.here, held):
        assert time.monotonic() < deadline, "it is not locked"
        time.sleep(0.01)
    time.sleep(0.2)
    process.kill()
    process.join()
    time.sleep(1)
    assert client.query(run.here, held)
    decision.compete(run.here, 1, "source", "lb1")
    time.sleep(0.5)
    assert not client.query(run.here, held)


def test_without_the_fence_of_the_large_objects_nothing_is_decided(sides, tmp_path):
    run = with_a_large_object(sides, tmp_path)

    def fell(name):
        if name == "before decide":
            client.query(run.here, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'pg_largeobject'::regclass AND mode = 'ShareLock'")
            time.sleep(0.2)

    with pytest.raises(section.Undone, match="the fence of the large objects does not stand"):
        run.go(fell)
    run.wait_until_served_by("source")


def test_the_first_large_object_of_all_is_kept_from_being_made_too(sides):
    assert ByLink(NoWayBack()).large_objects(*sides[:2]) == {"pages": 0, "objects": 0}


def test_large_objects_that_differ_stop_it_before_clients_are_held(sides, tmp_path):
    run = Run(sides, tmp_path)
    client.query(run.here, "SELECT lo_from_bytea(0, 'never copied')")
    with pytest.raises(GateError, match="Large objects changed"):
        section.watch_large_objects(run.here, run.ahead)
    assert not run.pooler.log


def test_every_write_of_a_large_object_changes_their_state(sides, tmp_path):
    run = Run(sides, tmp_path)

    def state():
        return client.query(run.here, section.LARGE_OBJECTS_STATE)[0]

    states = []
    for statement in (
        "SELECT lo_create(4711)",
        "SELECT lo_put(4711, 0, 'first')",
        "SELECT lo_put(4711, 0, 'other')",
        "ALTER LARGE OBJECT 4711 OWNER TO pg_database_owner",
        "SELECT lo_unlink(4711)",
    ):
        client.query(run.here, statement)
        assert state() not in states, statement
        states.append(state())
        assert state() == states[-1]


class Died(BaseException):
    """The process is gone: nothing of it runs any more, and its sessions stay open as those of a lost host do."""


@pytest.mark.parametrize(
    ("moment", "served_by"),
    [
        *((moment, "source") for moment in ("after arm", "after pause", "after fence", "after marker", "after sequences", "after arrival", "after barrier")),
        ("after decide", "target"),
    ],
)
def test_whenever_the_mover_dies_clients_are_served_by_the_decided_side(sides, tmp_path, moment, served_by):
    run = Run(sides, tmp_path, budget_seconds=1.0)

    def die(name):
        if name == moment:
            raise Died

    with pytest.raises(Died):
        run.go(die)
    run.wait_until_served_by(served_by, seconds=1.0 + 2.0)
    serving, other = (run.here, run.ahead) if served_by == "source" else (run.ahead, run.here)
    client.query(serving, "SET statement_timeout = 2000")
    write(serving)
    deadline = time.monotonic() + 3
    while decision.read_decision(run.here, 1) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert decision.read_decision(run.here, 1) == served_by
    assert refused(other)


def test_a_dead_man_that_died_while_clients_were_held_goes_on_when_it_starts_again(sides, tmp_path):
    run = Run(sides, tmp_path)
    decision.open_epoch(run.here, 1, "test", "source", 1000)
    run.pooler.paused, run.pooler.side = True, "target"  # the link was laid, and then it died
    client.query(run.here, "INSERT INTO ha_migration.decision (epoch, serves, decided_by) VALUES (1, 'target', 'mover')")
    run.dead_man._catch_up()
    assert run.pooler.side == "target" and not run.pooler.paused
    assert decision.is_announced(run.ahead, 1, "target"), "clients were let go on before the side was opened"


@pytest.mark.parametrize(("attempt", "held"), [(False, False), (True, True)], ids=["it was undone", "it is open"])
def test_a_dead_man_that_died_while_clients_were_held_and_starts_after_the_attempt_lets_them_go_on(sides, tmp_path, monkeypatch, attempt, held):
    run = Run(sides, tmp_path)
    decision.open_epoch(run.here, 1, "test", "source", 60_000)
    if not attempt:
        decision.close_epoch(run.here, 1, {})
    run.pooler.paused = True

    def end(*_arguments):
        raise Died

    monkeypatch.setattr(dead_man.Side, "wait", end)
    with pytest.raises(Died):
        run.dead_man.run()
    assert run.pooler.paused is held and run.pooler.side == "source"


@pytest.mark.parametrize(
    ("decided", "opened", "lost", "comes"),
    [
        ("target", None, None, True),
        ("target", None, "source", True),
        ("target", "target", None, False),
        ("target", "source", None, False),
        ("source", None, None, False),
    ],
    ids=["decided for the other", "and this one is lost", "but the other is left just now", "but this one is left just now", "undone"],
)
def test_a_pooler_that_was_built_anew_on_the_side_that_was_left_comes_over(sides, tmp_path, monkeypatch, decided, opened, lost, comes):
    run = Run(sides, tmp_path)
    decision.open_epoch(run.here, 1, "test", "source", 1000)
    decision.compete(run.here, 1, decided, "mover")
    decision.acknowledge(run.here, "lb1", 2, "served")
    if decided == "target":
        decision.announce(run.ahead, 1, "target")
    decision.close_epoch(run.here, 1, {})
    if opened:
        decision.open_epoch(run.here if opened == "source" else run.ahead, 2, "test", opened, 1000)
    if lost:
        plain = dead_man.Side.ask

        def ask(side, question, *arguments, **bound):
            if side.name == lost:
                raise ClientError("The side is lost.")
            return plain(side, question, *arguments, **bound)

        monkeypatch.setattr(dead_man.Side, "ask", ask)

    def end(*_arguments):
        raise Died

    monkeypatch.setattr(dead_man.Side, "wait", end)
    monkeypatch.setattr(dead_man.DeadMan, "_catch_up", lambda man: None)
    with pytest.raises(Died):
        run.dead_man.run()
    assert run.pooler.side == ("target" if comes else "source")


def test_a_dead_man_that_starts_in_the_midst_of_an_attempt_has_no_budget_of_its_own(sides, tmp_path):
    run = Run(sides, tmp_path)
    decision.open_epoch(run.here, 1, "test", "source", 60_000)
    client.query(run.here, f"UPDATE {schema.SCHEMA}.epoch SET opened_at = now() - interval '59 seconds'")
    run.pooler.paused = True
    began = time.monotonic()
    run.dead_man.guard(decision.read_open_epoch(run.here))
    assert time.monotonic() - began < 5
    assert not run.pooler.paused and decision.read_decision(run.here, 1) == "source"


@pytest.mark.parametrize(
    ("placed", "lost", "attempt", "held"),
    [
        ("source", ["target"], True, True),
        ("source", ["target"], False, False),
        ("source", ["source", "target"], True, False),
        ("target", ["source"], True, False),
    ],
    ids=["an attempt leaves the named side", "no attempt", "nobody answers", "the link was laid already"],
)
def test_a_dead_man_that_starts_while_a_side_is_lost_lets_clients_go_on_unless_an_attempt_holds_them(sides, tmp_path, monkeypatch, placed, lost, attempt, held):
    run = Run(sides, tmp_path)
    if attempt:
        decision.open_epoch(run.here, 1, "test", "source", 1000)
    run.pooler.paused, run.pooler.side = True, placed

    def lose(question, *arguments, **bound):
        raise ClientError("The side is lost.")

    for side in lost:
        monkeypatch.setattr(run.dead_man.sides[side], "ask", lose)
    run.dead_man._catch_up()
    assert run.pooler.paused is held and run.pooler.side == placed


@pytest.fixture
def without_standby(postgresql_server):
    """Call it, and no commit that is asked to be synchronous ends; again, and they do."""
    admin = client.connect(postgresql_server.service_file, "source", application_name="test", settings={"synchronous_commit": "local"})

    def be(gone):
        client.query(admin, f"ALTER SYSTEM SET synchronous_standby_names = '{'nobody' if gone else ''}'")
        client.query(admin, "SELECT pg_reload_conf()")
        time.sleep(0.2)

    yield be
    be(False)
    admin.close()


def test_a_dead_man_acts_on_no_decision_of_a_cluster_that_no_standby_has(sides, tmp_path, without_standby):
    run = Run(sides, tmp_path)
    run.pooler.side, run.pooler.paused = "target", True
    decision.open_epoch(run.ahead, 1, "test", "target", 60_000)
    attempt = decision.read_open_epoch(run.ahead)
    keeper = threading.Thread(target=run.dead_man.guard, args=(attempt,), daemon=True)
    keeper.start()
    deadline = time.monotonic() + 5
    while "lb1" not in decision.read_acknowledged(run.ahead, 1, "armed"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    without_standby(True)
    for side in (run.ahead, run.here):
        client.query(side, "SET synchronous_commit = local")
    decision.compete(run.ahead, 1, "source", "mover")
    decision.announce(run.here, 1, "source")
    time.sleep(3)
    assert (run.pooler.side, run.pooler.paused) == ("target", True)
    # Of those that it gave up none waits for ever.
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name LIKE 'ha_migration dead man%'"
    assert client.query_value(run.here, waiting) <= 1
    without_standby(False)
    run.wait_until_served_by("source", 5)
    keeper.join(5)


def test_what_was_announced_is_believed_where_the_side_that_is_left_has_forgotten_it(sides, tmp_path):
    run = Run(sides, tmp_path)

    def fail_over(name):
        """The decision's commit was not answered, and the next leader has nothing of it."""
        if name == "after decide":
            deadline = time.monotonic() + 5
            while not decision.is_announced(run.ahead, 1, "target"):
                assert time.monotonic() < deadline
            client.query(run.here, "DELETE FROM ha_migration.decision")
            client.query(run.here, schema.guard_function(schema.GuardPermissive()))
            raise UnknownState("Nobody has answered.")

    assert run.go(fail_over) == "target"
    assert decision.read_decision(run.here, 1) == "target" and refused(run.here)
    run.wait_until_served_by("target")
    write(run.ahead)


def test_who_comes_second_reads_what_the_first_decided(sides, tmp_path):
    run = Run(sides, tmp_path)
    decision.open_epoch(run.here, 1, "test", "source", 1000)
    assert decision.compete(run.here, 1, "source", "lb1") == "source"
    assert decision.compete(run.here, 1, "target", "mover") == "source"
    with pytest.raises(ClientError) as caught:
        decision.open_epoch(run.here, 2, "test", "source", 1000)
    assert caught.value.details["sqlstate"] == "23505"


def test_a_dead_man_that_decides_first_makes_the_mover_undo(sides, tmp_path):
    run = Run(sides, tmp_path)

    def decide_first(name):
        if name == "before decide":
            decision.compete(run.here, 1, "source", "lb1")

    with pytest.raises(section.Undone):
        run.go(decide_first)
    run.wait_until_served_by("source")
    write(run.here)
    assert refused(run.ahead)


def test_the_proof_fails_where_a_guard_is_missing(sides, tmp_path):
    run = Run(sides, tmp_path)
    client.query(run.here, schema.guard_function(schema.GuardRefusing(1, "target")))
    client.query(run.here, "CREATE TABLE public.unguarded (id int)")
    with pytest.raises(ClientError, match="does not hold on public.unguarded"):
        client.query(run.here, guards.for_each_table(["public.unguarded"], guards.proof()))


def test_gates_are_described_in_one_sentence_each():
    failed = [{"gate": "parity", "object": "", "message": "the rows were never compared", "remedy": "run verify"}]
    assert cutover.describe(failed) == "The cutover was not started, 1 gate(s) do not hold:\n- parity: the rows were never compared; run verify."
    assert issubclass(GateError, PgHaError)
