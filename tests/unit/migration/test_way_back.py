# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""There and back again: clients move to the target and return, over links of a real server, and nothing that they wrote is lost or doubled."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, GateError, PgHaError, PlanError, UnknownState, UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import wait_until
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import cutover as migration_cutover
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import ddl_guard, decision, schema, section, settle
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import way_back as migration_way_back
from ansible_collections.freight.pg_ha.plugins.module_utils._parity import snapshot, work
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client, locks
from ansible_collections.freight.pg_ha.plugins.modules import replication_copy, schema_fingerprint_info

from tests.evidence import problems

from .fakes import Console
from .migrations import Migration, run_command
from .test_dump import observe, recorded


class There(Migration):
    """A migration of method logical, with the way back."""

    def compare(self):
        """The comparison of all rows while the side that serves now is written."""
        serves = decision.plan_serving(decision.read_history(self.here, "source"), decision.read_history(self.ahead, "target"))
        way = snapshot.FORWARD if serves == "source" else snapshot.REVERSE
        options = work.Options(run=f"{time.monotonic_ns()}", way=way)

        def open_session(side, settings=None):
            return client.connect(self.service_file, side, application_name="ha_migration parity", settings=settings)

        return work.Comparison(open_session, options, lambda progress: None).run()

    def move(self, serves, **changes):
        """Cut over or roll back, with a comparison just before."""
        evidence = self.compare()
        assert evidence["mismatches"] == [] and problems(evidence) == []
        return self.cut_over(serves=serves, parity=evidence, way_back=self.way_back(), **changes)

    def way_back(self):
        return {**self.reach(), "password_file": None, "passfile": None, "ca_file": None}

    def slots(self):
        """Slots of this migration by side."""
        rows = client.query(self.here, "SELECT slot_name, database FROM pg_replication_slots WHERE database = ANY (%s)", (list(self.names.values()),))
        sides = {name: side for side, name in self.names.items()}
        return {(sides[row["database"]], row["slot_name"]) for row in rows}

    def subscriptions(self):
        """Subscriptions by side: enabled or not."""
        statement = "SELECT subname, subenabled FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
        sides = {"source": self.here, "target": self.ahead}
        return {(side, row["subname"]): row["subenabled"] for side, connection in sides.items() for row in client.query(connection, statement)}

    def side(self, name):
        return {"source": self.here, "target": self.ahead}[name]

    def wait_for_rows(self, side, number, seconds=20):
        deadline = time.monotonic() + seconds
        while self.rows(self.side(side)) != number:
            assert time.monotonic() < deadline, f"{self.rows(self.side(side))} rows on the {side}, not {number}"
            time.sleep(0.02)

    def end(self):
        for subscriber, publisher, name in ((self.ahead, self.here, schema.FORWARD_LINK), (self.here, self.ahead, schema.REVERSE_LINK)):
            settle.retire_link(subscriber, publisher, name)
        super().end()


@pytest.fixture
def there(postgresql_server, tmp_path, monkeypatch):
    monkeypatch.setattr(migration_cutover, "SETTLE_SECONDS", 0.0)
    found = There(postgresql_server, tmp_path, monkeypatch, "logical")
    yield found
    found.end()


def test_clients_go_and_return_as_often_as_they_like_and_nothing_is_lost(there):
    rows = there.rows(there.here)
    for round_number in range(3):
        for serves, leaves in (("target", "source"), ("source", "target")):
            outcome = there.move(serves)
            there.wait_until_served_by(serves, 3)
            assert outcome.result["serves"] == serves and outcome.result["evidence"]["way_back"]["follows"], outcome.result["evidence"]["way_back"]
            back = schema.link_towards(leaves)
            assert there.slots() == {(serves, back)} and there.subscriptions() == {(leaves, back): True}, round_number
            assert there.refused(there.side(leaves))
            for _row in range(5):
                there.write(there.side(serves))
            rows += 5
            there.wait_for_rows(leaves, rows)
            assert there.rows(there.side(serves)) == rows
    assert there.compare()["mismatches"] == []


def test_a_new_leader_that_still_has_the_slot_of_the_link_that_ended_loses_it_with_the_next_run(there):
    """A standby drops its copy of a slot some seconds after the leader has dropped its own; one that is promoted in between keeps it."""
    there.move("target")
    there.move("source")
    left = {("target", schema.REVERSE_LINK), ("source", schema.FORWARD_LINK)}
    client.query(there.ahead, "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (schema.REVERSE_LINK,))
    predicted = there.cut_over(serves="source", way_back=there.way_back(), check_mode=True)
    assert predicted.changed and there.slots() == left
    outcome = there.cut_over(serves="source", way_back=there.way_back())
    assert outcome.changed and outcome.result["actions"] == predicted.result["actions"] == [f"slot {schema.REVERSE_LINK} on the target: dropped"]
    assert there.slots() == left - {("target", schema.REVERSE_LINK)}
    assert not there.cut_over(serves="source", way_back=there.way_back()).changed


def test_a_comparison_from_before_clients_went_and_returned_proves_nothing_any_more(there):
    before = there.compare()
    there.move("target")
    there.move("source")
    with pytest.raises(GateError, match="clients came to the source after the last comparison"):
        there.cut_over(parity=before, way_back=there.way_back())
    params = {name: option.get("default") for name, option in schema_fingerprint_info.argument_spec().items()}
    params["service_file"] = there.service_file
    assert (
        schema_fingerprint_info.run({**params, "parity": before}).result["void_because"]
        == "clients came to the source and the target since the last comparison"
    )
    assert schema_fingerprint_info.run({**params, "parity": there.compare()}).result["void_because"] == ""


def test_what_is_written_while_clients_move_does_not_come_back(there):
    """What the next side applied between its slot and the decision would be a doubled row on the side that was left, and would stop the way back."""
    stop = threading.Event()

    def write():
        session = there.connect("source")
        # It bypasses the pooler, so that it writes up to the fence.
        with contextlib.suppress(ClientError):
            while not stop.is_set():
                there.write(session)
                time.sleep(0.001)
        session.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        there.move("target")
    finally:
        stop.set()
        writer.join()
    rows = there.rows(there.here)
    assert rows > 302
    there.write(there.ahead)
    there.wait_for_rows("source", rows + 1)
    assert there.rows(there.ahead) == rows + 1
    assert there.compare()["mismatches"] == []


@pytest.mark.parametrize("may_set_origin", [True, False])
def test_an_administrator_that_may_not_set_an_origin_moves_the_slot(there, monkeypatch, may_set_origin):
    plain = client.query_value
    asked = []

    def answer(connection, statement, parameters=None):
        if "pg_replication_origin_advance" in statement:
            asked.append(statement)
            return may_set_origin
        return plain(connection, statement, parameters)

    monkeypatch.setattr(client, "query_value", answer)
    rows = there.rows(there.here)
    assert there.move("target").result["evidence"]["way_back"]["follows"] and len(asked) == 1
    there.write(there.ahead)
    there.wait_for_rows("source", rows + 1)
    assert there.compare()["mismatches"] == []


def test_a_slot_that_a_failover_has_set_back_brings_nothing_twice(there, monkeypatch):
    """A standby holds the slot as it was some time ago: here from before rows came over, which a source before 16 cannot refuse to take back."""
    plain = migration_way_back.WayBack.prepare

    def prepare(way_back, here, ahead):
        plain(way_back, here, ahead)
        client.query(ahead, "SELECT pg_copy_logical_replication_slot(%s, 'ha_migration_old')", (schema.REVERSE_LINK,))
        there.write(here)
        there.wait_for_rows("target", there.rows(here))

    monkeypatch.setattr(migration_way_back.WayBack, "prepare", prepare)
    there.move("target")
    rows = there.rows(there.ahead)
    name = schema.REVERSE_LINK
    client.query(there.here, f"ALTER SUBSCRIPTION {name} DISABLE")
    wait_until(
        lambda: client.query(there.ahead, "SELECT FROM pg_replication_slots WHERE slot_name = %s AND active", (name,)), lambda row: not row, "end", 10, 0.05
    )
    client.query(there.ahead, "SELECT pg_drop_replication_slot(%s)", (name,))
    client.query(there.ahead, "SELECT pg_copy_logical_replication_slot('ha_migration_old', %s)", (name,))
    client.query(there.ahead, "SELECT pg_drop_replication_slot('ha_migration_old')")
    client.query(there.here, f"ALTER SUBSCRIPTION {name} ENABLE")
    there.write(there.ahead)
    there.wait_for_rows("source", rows + 1)
    assert there.rows(there.ahead) == rows + 1
    assert there.compare()["mismatches"] == []


def test_an_attempt_that_is_undone_leaves_no_way_back(there):
    there.pooler.refuses_pause = True
    with pytest.raises(section.Undone):
        there.move("target", pause_seconds=0.2)
    there.wait_until_served_by("source", 6)
    assert there.slots() == {("source", schema.FORWARD_LINK)} and there.subscriptions() == {("target", schema.FORWARD_LINK): True}
    there.pooler.refuses_pause = False
    assert there.move("target").result["evidence"]["way_back"]["follows"]


def test_while_rows_are_copied_clients_stay_and_while_clients_move_nothing_is_copied(there, monkeypatch):
    """A table that is copied again is emptied on the next side, where clients would be served without its rows."""
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.5)
    copy = {name: option.get("default") for name, option in replication_copy.argument_spec().items()}
    copy.update(service_file=there.service_file, jobs=2, work_directory=str(there.folder), again=["public.child"], link=there.way_back())
    running = there.connect("source")
    assert locks.take_lock(running, (schema.LOCK_CLASS, schema.LOCK_COPY))
    session = rf"\(session {running.info.backend_pid} of test on the source, since .*\)"
    with pytest.raises(GateError, match=f"A copy of this migration's rows runs just now {session}: wait for its end"):
        there.cut_over(way_back=there.way_back())
    running.close()
    refused = []
    plain = migration_cutover.Cutover.prepare

    def prepare(work, epoch):
        with pytest.raises(PlanError, match=r"A cutover, a roll back .* runs on this source \(session \d+ of ha_migration cutover gates, since .*\): wait"):
            replication_copy.run(copy, False, run_command)
        refused.append(epoch)
        plain(work, epoch)

    monkeypatch.setattr(migration_cutover.Cutover, "prepare", prepare)
    assert there.move("target").result["serves"] == "target" and refused == [1]
    assert client.query_value(there.ahead, "SELECT count(*) FROM public.child") == 100


def test_a_table_that_comes_after_the_gates_ends_the_attempt_and_nothing_of_it_stays(there, monkeypatch):
    plain = migration_cutover.Cutover.failed_gates

    def failed_gates(work):
        failed = plain(work)
        # Of a kind that no link carries.
        client.query(there.here, "CREATE UNLOGGED TABLE public.late (id int)")
        return failed

    with monkeypatch.context() as patch:
        patch.setattr(migration_cutover.Cutover, "failed_gates", failed_gates)
        with pytest.raises(GateError, match="Tables changed since the gates were read: public.late"):
            there.move("target")
    assert not any(statement.startswith("PAUSE") for statement in there.pooler.log)
    assert there.slots() == {("source", schema.FORWARD_LINK)} and there.subscriptions() == {("target", schema.FORWARD_LINK): True}


@pytest.mark.parametrize(("step", "held"), [("failed_gates", False), ("make_ready", True)], ids=["before clients are held", "under the fence"])
def test_ddl_that_comes_after_the_gates_ends_the_attempt_whatever_it_alters(there, monkeypatch, step, held):
    ddl_guard.apply(there.here, ddl_guard.plan_guard(ddl_guard.read_guard(there.here), ddl_guard.Wanted("source", "freight", "detect")))
    shop = client.connect(there.service_file, "source", application_name="shop")
    plain = getattr(migration_cutover.Cutover, step)

    def then_alter(work, *arguments):
        outcome = plain(work, *arguments)
        client.query(shop, "ALTER TABLE public.child ADD COLUMN late int DEFAULT 7; CREATE FUNCTION public.late() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        return outcome

    with monkeypatch.context() as patch:
        patch.setattr(migration_cutover.Cutover, step, then_alter)
        told = r"The schema changed since the gates were read: at .* ran ALTER TABLE on the source: table public.child; .* CREATE FUNCTION .* public.late\(\)"
        with pytest.raises(PgHaError, match=told):
            there.move("target")
    shop.close()
    assert any(statement.startswith("PAUSE") for statement in there.pooler.log) is held
    assert decision.plan_serving(decision.read_history(there.here, "source"), decision.read_history(there.ahead, "target")) == "source"


def after_decide(act):
    """An observer that has something done when it is decided, and clients do not move yet."""
    return lambda seen: act() if seen == "after decide" else None


def test_from_the_decision_on_a_session_past_the_pooler_makes_no_table_on_the_side_that_was_left(there, monkeypatch):
    """It would be on no other side, and no guard stands on it."""
    ddl_guard.apply(there.here, ddl_guard.plan_guard(ddl_guard.read_guard(there.here), ddl_guard.Wanted("source", "freight", "detect")))
    shop, refused = client.connect(there.service_file, "source", application_name="shop"), []

    def make_a_table():
        # Not by pytest.raises, which would keep this frame, and with it the sessions of the cutover.
        try:
            client.query(shop, "CREATE TABLE public.late AS SELECT 1 AS id")
        except ClientError as error:
            refused.append((error.details["sqlstate"], error.message))

    with monkeypatch.context() as patch:
        observe(patch, after_decide(make_a_table))
        assert there.move("target").result["serves"] == "target"
    shop.close()
    ((state, words),) = refused
    assert state == "25006" and "takes no writes of applications, and no CREATE TABLE AS: since epoch 1 the target serves them" in words
    assert ddl_guard.read_guard(there.here)["body"] is None
    there.move("source")
    client.query(there.here, "CREATE TABLE public.late AS SELECT 1 AS id")


def test_a_table_that_came_after_the_decision_is_closed_and_told_once(there, monkeypatch):
    """Where nobody may make event triggers."""
    with monkeypatch.context() as patch:
        observe(patch, after_decide(lambda: client.query(there.here, "CREATE TABLE public.late AS SELECT 1 AS id")))
        told = "Decided for the target, and the dead men .* failed: .* made tables on the source after the decision: public.late.* Run the same playbook again"
        with pytest.raises(UnknownState, match=told):
            there.move("target")
    there.wait_until_served_by("target", 3)
    with pytest.raises(ClientError, match="takes no writes"):
        client.query(there.here, "INSERT INTO public.late VALUES (2)")
    outcome = there.cut_over(serves="target", way_back=there.way_back())
    assert outcome.result["serves"] == "target" and outcome.result["evidence"]["way_back"]["follows"]
    assert not there.cut_over(serves="target", way_back=there.way_back()).changed


def test_a_slot_that_waits_for_a_transaction_names_it_and_clients_are_not_held(there, monkeypatch):
    """A slot waits for every transaction of the server that writes, whatever database it is in."""
    monkeypatch.setattr(migration_way_back, "SLOT_SECONDS", 1.0)
    batch = client.connect(there.service_file, "source", application_name="batch", dbname="postgres")
    client.query(batch, "BEGIN; SELECT txid_current()")
    with pytest.raises(
        GateError, match=rf"no way back: .*\(session {batch.info.backend_pid} of postgres in database postgres, for \d+ s\): wait for their end"
    ):
        there.move("target")
    client.query(batch, "ROLLBACK")
    assert not any(statement.startswith("PAUSE") for statement in there.pooler.log) and there.slots() == {("source", schema.FORWARD_LINK)}
    assert there.move("target").result["evidence"]["way_back"]["follows"]


def test_what_fails_before_clients_are_held_leaves_no_slot(there):
    evidence = there.compare()
    client.query(there.here, "SELECT lo_from_bytea(0, 'late')")
    with pytest.raises(GateError, match="Large objects changed since the copy"):
        there.cut_over(parity=evidence, way_back=there.way_back())
    assert there.slots() == {("source", schema.FORWARD_LINK)} and there.subscriptions() == {("target", schema.FORWARD_LINK): True}


def test_an_undone_attempt_stays_open_while_a_pooler_holds_its_clients(there, monkeypatch):
    """Its dead man died after the PAUSE: once it starts again it has to find the attempt."""

    def fail(*_arguments):
        raise GateError("There is a fault.")

    plain, goes_on = there.dead_man._serve, threading.Event()
    told = "There is a fault. .* lb1 still holds its clients although the attempt was undone: look at pg-ha-dead-man there"
    with monkeypatch.context() as patch:
        patch.setattr(there.dead_man, "_serve", lambda *arguments, **named: (goes_on.wait(20), plain(*arguments, **named)))
        patch.setattr(section, "barrier_for_all", fail)
        with pytest.raises(section.Undone, match=told):
            there.move("target", budget_seconds=1.0)
    assert there.pooler.paused and decision.read_open_epoch(there.here)["epoch"] == 1
    goes_on.set()
    there.wait_until_served_by("source", 3)
    assert there.move("target").result["actions"][0] == "epoch 1, left open by test: decided for the source"


class Died(BaseException):
    """The process is gone, its sessions stay open as those of a lost host do."""


@pytest.mark.parametrize("moment", ["before decide", "after decide", "after flip"])
def test_a_run_that_died_is_finished_and_the_way_back_has_no_gap(there, monkeypatch, moment):
    def act(seen):
        if seen == moment:
            raise Died

    with monkeypatch.context() as patch:
        observe(patch, act)
        with pytest.raises(Died):
            there.move("target", budget_seconds=2.0)
    serves = "source" if moment == "before decide" else "target"
    there.wait_until_served_by(serves, 6)
    there.write(there.side(serves))
    evidence = there.compare() if serves == "source" else None
    # The dead process' sessions hold the lock in this process; it ends with them.
    client.query(
        there.here,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY (%s) AND application_name LIKE 'ha_migration cutover%%'",
        (list(there.names.values()),),
    )
    outcome = there.cut_over(serves="target", parity=evidence, way_back=there.way_back())
    assert outcome.result["serves"] == "target" and outcome.result["evidence"]["way_back"]["follows"]
    rows = there.rows(there.ahead)
    there.write(there.ahead)
    there.wait_for_rows("source", rows + 1)
    assert there.compare()["mismatches"] == []


@pytest.fixture
def elsewhere(there):
    """A session in another database of the same server, which is migrated too."""
    name = f"{there.names['source']}_2"
    there.server.create_database(name)
    session = client.connect(there.service_file, "source", application_name="test", dbname=name)
    yield session
    client.query(there.here, f"DROP DATABASE {name} WITH (FORCE)")


def test_the_way_back_of_another_database_on_the_side_that_is_left_is_another_one(there, elsewhere):
    name = schema.REVERSE_LINK
    options = "connect = false, slot_name = NONE"
    client.query(elsewhere, f"CREATE SUBSCRIPTION {name} CONNECTION 'dbname=nowhere' PUBLICATION {name} WITH ({options})")
    try:
        assert there.move("target").result["evidence"]["way_back"]["follows"]
    finally:
        client.query(elsewhere, f"DROP SUBSCRIPTION {name}")


def test_the_slot_of_another_databases_way_back_stays(there, elsewhere):
    client.query(elsewhere, "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (schema.REVERSE_LINK,))
    with pytest.raises(GateError, match=f"no way back: slot ha_migration_reverse on the target is that of database {there.names['source']}_2"):
        there.move("target")
    assert not any(statement.startswith("PAUSE") for statement in there.pooler.log)
    assert client.query(elsewhere, "SELECT FROM pg_replication_slots WHERE slot_name = %s AND database = current_database()", (schema.REVERSE_LINK,))


@pytest.fixture
def without_source(there, monkeypatch):
    """Changes of the module's parameters with which nothing listens where the source was."""
    monkeypatch.setattr(client, "connect_console", lambda *_arguments, **_named: Console(there.pooler))
    text = (there.folder / "pg_service.conf").read_text()
    file = there.folder / "without_source.conf"
    file.write_text(text.replace(f"port={there.server.port}", "port=1", 1))
    return {"service_file": str(file), "source_gone": True}


def move_and_die_after_flip(there, monkeypatch, side):
    """The process is gone when the poolers were told."""

    def die(seen):
        if seen == "after flip":
            raise Died

    with monkeypatch.context() as patch:
        observe(patch, die)
        with pytest.raises(Died):
            there.move(side)


def test_a_cutover_whose_source_was_lost_after_the_decision_is_finished_on_the_target(there, monkeypatch, without_source):
    move_and_die_after_flip(there, monkeypatch, "target")
    with pytest.raises(GateError, match=r"declared gone \(pg_ha_source_gone\) and answers: take that input away"):
        there.cut_over(source_gone=True)
    client.query(
        there.here,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY (%s) AND application_name LIKE 'ha_migration cutover%%'",
        (list(there.names.values()),),
    )
    assert there.cut_over(check_mode=True, **without_source).changed and there.slots() != {("source", schema.FORWARD_LINK)}
    for _again in range(2):
        outcome = there.cut_over(way_back=there.way_back(), **without_source)
        assert outcome.result["serves"] == "target" and problems(recorded(outcome, outcome.result["evidence"])) == []
        assert there.slots() == {("source", schema.FORWARD_LINK)} and there.subscriptions() == {("source", schema.REVERSE_LINK): False}
    client.query(there.ahead, "DELETE FROM ha_migration.marker")
    there.write(there.ahead)
    with pytest.raises(UsageError, match="cannot return to a source that is gone"):
        there.cut_over(serves="source", **without_source)


def test_without_the_source_nothing_is_decided(there, without_source):
    with pytest.raises(GateError, match="The target was never told that it serves, so that nobody knows what the source had decided"):
        there.cut_over(**without_source)
    assert there.refused(there.ahead)


@pytest.mark.parametrize("competed", [False, True], ids=["nobody has competed", "a dead man was quicker"])
def test_a_leader_that_forgot_the_roll_back_is_closed_again_or_the_contradiction_told(there, monkeypatch, competed):
    """The next leader has neither decision nor fence, and the source has the announcement."""
    there.move("target")
    move_and_die_after_flip(there, monkeypatch, "source")
    client.query(there.ahead, f"DELETE FROM {schema.SCHEMA}.decision WHERE serves = 'source'")
    client.query(there.ahead, schema.guard_function(schema.GuardPermissive()))
    if competed:
        decision.compete(there.ahead, 2, "target", "lb2")
    client.query(
        there.here,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY (%s) AND application_name LIKE 'ha_migration cutover%%'",
        (list(there.names.values()),),
    )
    if competed:
        with pytest.raises(UnknownState, match="Epoch 2 was announced on the source, and the target, which forgot it in a failover, was decided for: both"):
            there.cut_over(serves="source", way_back=there.way_back())
        return
    assert there.cut_over(serves="source", way_back=there.way_back()).result["serves"] == "source"
    assert there.refused(there.ahead) and decision.read_decision(there.ahead, 2) == "source"
    there.wait_until_served_by("source", 3)
    there.write(there.here)


def test_a_side_that_cannot_be_reached_is_known_before_clients_are_held(there):
    evidence = there.compare()
    with pytest.raises(GateError, match=r"no way back: the source cannot follow the target as role postgres at 127.0.0.1:1\b"):
        there.cut_over(parity=evidence, way_back={**there.way_back(), "port": 1})
    assert not any(statement.startswith("PAUSE") for statement in there.pooler.log)
    assert there.slots() == {("source", schema.FORWARD_LINK)} and there.subscriptions() == {("target", schema.FORWARD_LINK): True}


def test_without_a_way_back_nothing_returns(there):
    outcome = there.cut_over(parity=there.compare())
    assert outcome.result["evidence"]["way_back"] is None and there.slots() == set() and there.subscriptions() == {}
    with pytest.raises(GateError, match="link: ha_migration_reverse: the source has no such subscription; there is no way back"):
        there.cut_over(serves="source", parity={**there_evidence(there), "serves": "target"})


def there_evidence(there):
    return {"mismatches": [], "finished_at": "2027-01-01T00:00:00+00:00", "timeline": 1, "system_identifier": "1"}


def test_a_lost_slot_is_told_and_hinders_nobody(there, monkeypatch):
    plain = section.wait_until_served

    def lose(*arguments):
        plain(*arguments)
        client.query(there.ahead, "SELECT pg_drop_replication_slot(%s)", (schema.REVERSE_LINK,))

    monkeypatch.setattr(section, "wait_until_served", lose)
    outcome = there.move("target")
    there.wait_until_served_by("target", 3)
    found = outcome.result["evidence"]["way_back"]
    assert not found["follows"] and "has lost slot ha_migration_reverse" in found["problem"]


def test_the_comparison_of_the_other_direction_does_not_count(there):
    evidence = there.compare()
    there.cut_over(parity=evidence, way_back=there.way_back())
    with pytest.raises(GateError, match="parity: the rows were never compared while the target served; run playbooks/verify.yml"):
        there.cut_over(serves="source", parity=evidence, way_back=there.way_back())


def test_an_unfinished_cutover_is_finished_first(there):
    there.move("target")
    client.query(there.here, f"UPDATE {schema.SCHEMA}.epoch SET state = 'open'")
    with pytest.raises(GateError, match="Epoch 1, which leaves the source, was not finished: run playbook cut_over.yml again first"):
        there.move("source")
    # Who only asks for the gates is told so too.
    (failed,) = there.cut_over(only_gates=True).result["failed_gates"]
    assert (failed["gate"], failed["object"]) == ("unfinished", "epoch 1 of run test") and "run playbooks/cut_over.yml with consent" in failed["remedy"]


def test_clients_return_over_a_link_only(there):
    with pytest.raises(UsageError, match="over a link only"):
        there.cut_over(serves="source", method="dump")


def test_roles_of_applications_get_their_login_back(there):
    name = f"app_{time.monotonic_ns()}"
    client.query(there.here, f"CREATE ROLE {name} LOGIN")
    try:
        there.move("target", application_roles=[name])
        assert not client.query_value(there.here, "SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", (name,))
        seen = []
        plain = section.warm
        try:
            section.warm = lambda *arguments: (seen.append(login(there, name)), plain(*arguments))
            outcome = there.move("source", application_roles=[name])
        finally:
            section.warm = plain
        assert seen == [True] and set(outcome.result["evidence"]["refused_writes"]) == {name, "postgres"}
    finally:
        client.query(there.here, f"DROP ROLE {name}")


def test_after_a_roll_back_that_was_undone_the_source_stays_closed_for_logins(there):
    name = f"app_{time.monotonic_ns()}"
    client.query(there.here, f"CREATE ROLE {name} LOGIN")
    try:
        there.pooler.refuses_pause = True
        with pytest.raises(section.Undone):
            there.move("target", application_roles=[name], pause_seconds=0.2)
        assert login(there, name), "nobody has ever left the target"
        there.wait_until_served_by("source", 6)
        there.pooler.refuses_pause = False
        there.move("target", application_roles=[name])
        there.pooler.refuses_pause = True
        with pytest.raises(section.Undone):
            there.move("source", application_roles=[name], pause_seconds=0.2)
        assert not login(there, name)
    finally:
        client.query(there.here, f"DROP ROLE {name}")


def login(there, name):
    return client.query_value(there.here, "SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", (name,))
