# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Method dump: the whole module between two databases of a real server, with real copies, a real dead man and a pooler that is made of two values."""

from __future__ import annotations

import multiprocessing
import os
import time

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, GateError
from ansible_collections.freight.pg_ha.plugins.module_utils._ledger.model import ClientRecord, Entry, Header, Kind, Record
from ansible_collections.freight.pg_ha.plugins.module_utils._ledger.plan import judge
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import apart, decision, schema, section, settle
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.modules import cutover

from tests.evidence import made_by, problems

from .migrations import Migration


class Died(BaseException):
    """The process is gone: nothing of it runs any more, and its sessions stay open as those of a lost host do."""


@pytest.fixture
def migration(postgresql_server, tmp_path, monkeypatch):
    found = Migration(postgresql_server, tmp_path, monkeypatch, "dump")
    yield found
    found.end()


def observe(monkeypatch, act):
    """Have every step of the section seen by ``act``."""
    plain = section.Steps.run

    def run(self, name, work):
        self.observe = act
        return plain(self, name, work)

    monkeypatch.setattr(section.Steps, "run", run)


def recorded(outcome, evidence):
    """What the role records of it, with the probe's verdict over one client that wrote twice; without a copy as with method logical."""
    steps = [(Kind.INTENT, 0), (Kind.ACK, 1), (Kind.INTENT, 10), (Kind.ACK, 11), (Kind.END, 20)]
    entries = [
        Entry(kind, 1, number // 2, ms * 1_000_000, 1_800_000_000_000_000_000 + ms * 1_000_000, number, 0, "") for number, (kind, ms) in enumerate(steps)
    ]
    verdict = judge(Record(Header("r", "probe", 1, 10.0, 0, 0, 0), [ClientRecord(0, entries)]), [(0, 0), (0, 1)])
    variables = {
        "cutover_method": "dump" if "initial_copy" in evidence else "logical",
        "__cutover_run": "2027-01-01T00:00:00Z",
        "__cutover_section": {"serves": outcome.result["serves"], "evidence": evidence},
        "__cutover_witnessed": {"verdict": verdict},
        "__cutover_own": {"skipped": True},
        "__cutover_seen": {"probe": {"running": False, "clients": 1, "clients_ended": 1}},
    }
    return made_by("cutover", "section.yml: Section | Record what was measured", variables)


def test_after_a_dump_the_source_follows_too(migration):
    way_back = {**migration.reach(), "password_file": None, "passfile": None, "ca_file": None}
    try:
        assert migration.cut_over(way_back=way_back).result["evidence"]["way_back"]["follows"]
        migration.write(migration.ahead)
        deadline = time.monotonic() + 20
        while migration.rows(migration.here) != migration.rows(migration.ahead):
            assert time.monotonic() < deadline, "the source does not follow"
            time.sleep(0.02)
    finally:
        settle.retire_link(migration.here, migration.ahead, schema.REVERSE_LINK)


def test_a_table_whose_rows_no_link_could_find_is_known_before_clients_are_held(migration):
    """Copied it could be, and afterwards the target would refuse to update it."""
    way_back = {**migration.reach(), "password_file": None, "passfile": None, "ca_file": None}
    client.query(migration.here, "CREATE TABLE public.keyless (id int)")
    with pytest.raises(GateError, match="identity: public.keyless: it has no primary key, and with a way back the target would refuse every UPDATE"):
        migration.cut_over(way_back=way_back)
    failed = {gate["gate"] for gate in migration.cut_over(only_gates=True).result["failed_gates"]}
    assert "identity" not in failed
    client.query(migration.here, "ALTER TABLE public.keyless REPLICA IDENTITY FULL")
    failed = {gate["gate"] for gate in migration.cut_over(only_gates=True, way_back=way_back).result["failed_gates"]}
    assert "identity" not in failed


def test_a_source_that_would_not_reach_the_target_is_known_before_clients_are_held(migration):
    way_back = {**migration.reach(), "port": 1, "password_file": None, "passfile": None, "ca_file": None}
    with pytest.raises(GateError, match=r"no way back: the source cannot follow the target as role postgres at 127.0.0.1:1\b"):
        migration.cut_over(way_back=way_back)
    assert not any(statement.startswith("PAUSE") for statement in migration.pooler.log)
    assert client.query(migration.here, "SELECT FROM pg_subscription WHERE subname = %s", (schema.REVERSE_LINK,)) == []


def test_rows_are_moved_under_the_fence_and_the_source_is_closed(migration):
    assert migration.rows(migration.ahead) == 0
    outcome = migration.cut_over()
    assert outcome.changed and outcome.result["serves"] == "target"
    migration.wait_until_served_by("target", 3)
    evidence = outcome.result["evidence"]
    assert evidence["parity"]["outcome"] == "done" and evidence["parity"]["rows"] == 403 and evidence["parity"]["large_objects"] == 1
    assert evidence["initial_copy"]["rows"] == 402
    for measured in (evidence, {name: value for name, value in evidence.items() if name not in ("initial_copy", "parity")}):
        assert problems(recorded(outcome, measured)) == []
    assert problems(evidence["parity"]) == []
    names = [step["name"] for step in evidence["steps"]]
    assert names[4:] == [
        *(
            "fence",
            "last look",
            "snapshot",
            "copy",
            "sequences",
            "compare",
            "large objects",
            "last sequences",
            "way back",
            "barrier",
            "look again",
            "decide",
            "announce",
            "flip",
        ),
    ]
    assert migration.refused(migration.here)
    migration.write(migration.ahead)
    assert client.query_value(migration.ahead, "SELECT n FROM public.total") == 100
    assert not migration.cut_over().changed


def test_what_does_not_pass_the_gates_holds_nobody(migration):
    client.query(migration.ahead, "SET session_replication_role = replica; INSERT INTO public.child VALUES (7)")
    with pytest.raises(GateError, match="(?s)rehearsed: public.child.*window: "):
        migration.cut_over(window_seconds=0.1)
    client.query(migration.ahead, "DELETE FROM ha_migration.copy")
    found = migration.cut_over(check_mode=True).result["failed_gates"]
    assert {gate["gate"] for gate in found} == {"rehearsed", "copyable empty"}
    assert not any(statement.startswith("PAUSE") for statement in migration.pooler.log)


def test_a_difference_undoes_it_and_the_next_run_works(migration, monkeypatch):
    def lose(name):
        if name == "after copy":
            client.query(migration.connect("target"), "SET session_replication_role = replica; DELETE FROM public.child WHERE id = 7")

    with monkeypatch.context() as patched:
        observe(patched, lose)
        with pytest.raises(section.Undone, match="public.child"):
            migration.cut_over()
    migration.wait_until_served_by("source", 3)
    migration.write(migration.here)
    assert migration.refused(migration.ahead)
    assert migration.rows(migration.ahead) == 0
    client.query(migration.here, "CREATE TABLE public.late (id int); INSERT INTO public.late VALUES (1)")
    assert migration.cut_over().result["serves"] == "target"
    assert client.query_value(migration.ahead, "SELECT count(*) FROM public.late") == 1
    assert migration.rows(migration.ahead) == 303


def test_killed_after_the_copy_clients_go_on_at_the_source_and_the_next_run_works(migration, monkeypatch):
    monkeypatch.setattr(section, "LONGEST_SILENCE_SECONDS", 2.5)
    killed = []

    def die(name):
        if name == "after copy":
            killed.append(time.monotonic())
            raise Died

    with monkeypatch.context() as patched:
        observe(patched, die)
        with pytest.raises(Died) as caught:
            migration.cut_over(window_seconds=5.0)
    migration.wait_until_served_by("source", 7)
    migration.write(migration.here)
    assert migration.refused(migration.ahead)
    assert decision.read_decision(migration.here, 1) == "source"
    # Only now do the sessions of the dead process go, and with them its lock.
    assert killed
    caught.value.__traceback__ = None
    del caught
    client.query(migration.here, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'ha_migration cutover%'")
    assert migration.cut_over().result["serves"] == "target"
    assert migration.rows(migration.ahead) == 303


def test_a_killed_process_takes_its_work_along_and_a_re_run_needs_no_end_of_the_window(migration, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(cutover.Copier, "compare", lambda self: time.sleep(60))
        process = multiprocessing.get_context("fork").Process(target=migration.cut_over)
        process.start()
        deadline = time.monotonic() + 20
        while not client.query_value(
            migration.ahead, "SELECT EXISTS (SELECT FROM ha_migration.copy WHERE relation = '*' AND detail->>'parts' = 'all' AND state = 'done')"
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.5)
        process.kill()
        process.join()
    time.sleep(1)
    assert not client.query(migration.here, "SELECT FROM pg_locks WHERE mode = 'ShareRowExclusiveLock'")
    outcome = migration.cut_over()
    assert outcome.result["serves"] == "target" and outcome.result["evidence"]["epoch"] == 2
    assert outcome.result["actions"][0] == "epoch 1, left open by test: decided for the source"
    assert migration.rows(migration.ahead) == 302


def test_the_end_of_the_window_undoes_it(migration, monkeypatch):
    monkeypatch.setattr(cutover.Copier, "compare", lambda self: time.sleep(60))
    began = time.monotonic()
    with pytest.raises(section.Undone, match="window of 6 s ends"):
        migration.cut_over(window_seconds=6.0)
    migration.wait_until_served_by("source", 1)
    assert time.monotonic() - began < 9
    migration.write(migration.here)


def test_a_fence_that_fell_undoes_it(migration, monkeypatch):
    def fell(name):
        if name == "before compare":
            client.query(migration.here, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE mode = 'ShareRowExclusiveLock'")
            migration.write(migration.here)

    observe(monkeypatch, fell)
    with pytest.raises(section.Undone):
        migration.cut_over()
    migration.wait_until_served_by("source", 3)
    assert migration.rows(migration.here) == 303


def test_work_apart_answers_fails_and_is_ended():
    assert _answer(lambda: {"x": 1}) == {"x": 1}
    with pytest.raises(GateError, match="The copy failed: no room"):
        _answer(_refuse)
    with pytest.raises(ClientError, match="ended without an answer"):
        _answer(lambda: os._exit(1))
    slow = apart.Apart("copy", lambda: time.sleep(60))
    assert not slow.wait(0.1)
    slow.stop()
    began = time.monotonic()
    slow.reap()
    assert time.monotonic() - began < 5


def _answer(work):
    beside = apart.Apart("copy", work)
    assert beside.wait(5)
    try:
        return beside.result()
    finally:
        beside.reap()


def _refuse():
    raise GateError("no room")
