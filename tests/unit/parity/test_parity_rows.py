# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows compared on a real server, while a writer writes."""

from __future__ import annotations

import os
import pathlib
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, GateError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import SYSTEM_CLOCK
from ansible_collections.freight.pg_ha.plugins.module_utils._parity import names, snapshot, tables, work
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client

from tests.evidence import problems

NASTY = '''"Größe ""x"""."Tabelle 'y' %s \\"'''


def compare(pair: t.Any, **options: t.Any) -> dict[str, t.Any]:
    """One comparison with small ranges; its evidence is what the schema says, whatever it finds."""
    chosen = {"run": f"{time.monotonic_ns()}", "chunk_bytes": 32 * 1024, **options}
    evidence = work.Comparison(lambda side, settings=None: pair.open(side, settings), work.Options(**chosen), lambda _state: None).run()
    assert problems(evidence) == []
    return evidence


def test_equal_sides_are_proved_equal(pair: t.Any) -> None:
    pair.on("source", "ANALYZE")
    evidence = compare(pair)
    assert evidence["mismatches"] == []
    assert evidence["outcome"] == "done"
    assert evidence["tables"] == 9 and evidence["rows"] == 3000 + 2000 + 50 + 500 + 100 + 1000
    assert evidence["chunks"] > evidence["tables"], "a table of several ranges was read in one"
    assert 0 < evidence["hold_ms"] < 500
    assert evidence["target"]["timeline"] == 1 and int(evidence["target"]["system_identifier"]) > 0
    assert {entry["object"] for entry in evidence["not_compared"]} == {"table public.scratch", "materialized view public.totals"}
    assert "public.account_id_seq" in evidence["sequences_behind"]


def test_a_writer_at_work_causes_no_mismatch(pair: t.Any) -> None:
    stop, failures, commits = threading.Event(), [], [0, 0]

    def write(number: int) -> None:
        session, dice = pair.open("source"), random.Random(number)
        try:
            while not stop.is_set():
                client.query(
                    session,
                    "BEGIN; INSERT INTO public.account (owner, balance) VALUES ('new', %s); UPDATE public.account SET balance = balance + 1 WHERE id = %s; "
                    "UPDATE public.pair SET c = c || 'y' WHERE a = %s; INSERT INTO public.keyless VALUES (%s, 'w'); "
                    "DELETE FROM public.entry WHERE account = %s; "
                    "INSERT INTO ha_migration.probe (run, client, seq) VALUES ('test', %s, %s); COMMIT",
                    (dice.randrange(100), dice.randrange(1, 3000), dice.randrange(1, 100), number, dice.randrange(1, 300), number, commits[number]),
                )
                commits[number] += 1
                time.sleep(0.002)
        except ClientError as error:
            failures.append(error.message)
        finally:
            session.close()

    writers = [threading.Thread(target=write, args=(number,)) for number in (0, 1)]
    for writer in writers:
        writer.start()
    try:
        found = [compare(pair) for _round in range(8)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert [evidence["mismatches"] for evidence in found] == [[]] * len(found)
    assert found[-1]["rows"] > found[0]["rows"], "the writer did not write meanwhile"
    assert min(commits) > 50 and not [failure for failure in failures if "deadlock" not in failure]
    assert max(evidence["hold_ms"] for evidence in found) <= 600


@pytest.mark.parametrize(
    ("table", "statement", "keys"),
    [
        ("public.account", "DELETE FROM public.account WHERE id = 1234", [{"key": "id=1234", "problem": "missing on the target"}]),
        ("public.account", "UPDATE public.account SET note = NULL WHERE id = 77", [{"key": "id=77", "problem": "different"}]),
        (
            "public.event_2026",
            "INSERT INTO public.event VALUES (999999, '2026-01-05', NULL)",
            [{"key": "id=999999, day=2026-01-05", "problem": "not on the source"}],
        ),
        (NASTY, f"DELETE FROM {NASTY} WHERE \"Schlüssel %%\" = 'k''ey 7'", [{"key": "Schlüssel %%=k'ey 7", "problem": "missing on the target"}]),
        ("public.pair", "UPDATE public.pair SET c = '' WHERE a = 50", [{"key": "a=50, b=b50", "problem": "different"}]),
        (
            "public.entry",
            "UPDATE public.entry SET id = '00000000-0000-0000-0000-000000000000' WHERE id = (SELECT max(id::text)::uuid FROM public.entry)",
            None,
        ),
        ("public.keyless", "DELETE FROM public.keyless WHERE ctid = (SELECT min(ctid) FROM public.keyless)", None),
        ("public.empty_one", "INSERT INTO public.empty_one VALUES (1)", [{"key": "id=1", "problem": "not on the source"}]),
    ],
)
def test_a_change_behind_the_back_is_named(pair: t.Any, table: str, statement: str, keys: list[dict[str, str]] | None) -> None:
    pair.wait_for_link()
    pair.on("target", f"CREATE TABLE ha_migration.kept AS SELECT * FROM {table}")
    pair.behind_its_back(statement)
    evidence = compare(pair)
    columns = ", ".join(tables.read_tables(pair.target, names.FORWARD_LINK)[table].columns).replace(", twice", "")
    overriding = "OVERRIDING SYSTEM VALUE" if table == "public.account" else ""
    pair.behind_its_back(
        f"DELETE FROM {table}; INSERT INTO {table} ({columns}) {overriding} SELECT {columns} FROM ha_migration.kept; DROP TABLE ha_migration.kept"
    )
    assert evidence["outcome"] == "failed"
    assert {mismatch["table"] for mismatch in evidence["mismatches"]} == {table}
    if keys is not None:
        assert [mismatch["keys"] for mismatch in evidence["mismatches"]] == [keys]
    assert all(mismatch["keys"] and mismatch["sentence"] for mismatch in evidence["mismatches"])
    assert compare(pair)["mismatches"] == []


def test_a_range_of_keys_is_named(pair: t.Any) -> None:
    pair.on("source", "ANALYZE public.account")
    pair.wait_for_link()
    pair.behind_its_back("UPDATE public.account SET owner = 'other' WHERE id BETWEEN 1000 AND 1002")
    evidence = compare(pair)
    pair.behind_its_back("UPDATE public.account SET owner = 'owner ' || id WHERE id BETWEEN 1000 AND 1002")
    (mismatch,) = evidence["mismatches"]
    assert mismatch["range"] == '"id" from 1000 to 1002' and mismatch["counts"] == {"missing": 0, "extra": 0, "different": 3}
    assert "other" not in mismatch["sentence"] and "id=1001: different" in mismatch["sentence"]


def test_a_table_that_is_not_published_is_a_mismatch(pair: t.Any) -> None:
    for side in ("source", "target"):
        pair.on(side, "CREATE TABLE public.forgotten (id integer PRIMARY KEY)")
    evidence = compare(pair)
    for side in ("source", "target"):
        pair.on(side, "DROP TABLE public.forgotten")
    assert [mismatch["sentence"] for mismatch in evidence["mismatches"]] == [
        "Table public.forgotten (all rows): is not in the publication, so its changes do not reach the target."
    ]


def test_a_truncated_table_is_read_again(pair: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read, done = tables.read_sum, []

    def truncate_first(session: t.Any, snapshot_name: str, chunk: t.Any, table: t.Any) -> t.Any:
        if chunk.table == "public.empty_one" and not done:
            done.append(True)
            pair.on("source", "TRUNCATE public.empty_one")
        return read(session, snapshot_name, chunk, table)

    pair.on("source", "INSERT INTO public.empty_one SELECT generate_series(1, 10)")
    monkeypatch.setattr(tables, "read_sum", truncate_first)
    evidence = compare(pair, jobs=1)
    assert done and evidence["mismatches"] == [] and evidence["hold_attempts"] >= 2


def test_large_objects_are_compared(pair: t.Any) -> None:
    for side in ("source", "target"):
        pair.on(side, "SELECT lo_from_bytea(4711, decode(repeat('ab', 3000), 'hex'))")
    assert compare(pair)["mismatches"] == []
    pair.on("target", "SELECT lo_put(4711, 2500, '\\x00')")
    (mismatch,) = compare(pair)["mismatches"]
    assert mismatch["keys"] == [{"key": "oid=4711", "problem": "different content"}]
    assert compare(pair, compare_large_objects=False)["outcome"] == "done"
    for side in ("source", "target"):
        pair.on(side, "SELECT lo_unlink(4711)")


def test_a_blocking_session_is_named_and_clients_are_not_held(pair: t.Any) -> None:
    blocker = pair.open("source")
    client.query(blocker, "BEGIN; UPDATE public.account SET mood = mood WHERE id = 1")
    try:
        with pytest.raises(GateError, match=rf"pid {blocker.get_backend_pid()} .*public.account") as refused:
            compare(pair, bounds=snapshot.Bounds(hold_ms=300, lock_timeout_ms=200, attempts=2))
    finally:
        client.query(blocker, "ROLLBACK")
        blocker.close()
    assert refused.value.details["hold_ms"] < 600
    assert pair.on("source", "SELECT FROM pg_locks WHERE mode = 'ShareRowExclusiveLock'") == []


def test_writers_that_take_tables_in_another_order_are_waited_for(pair: t.Any) -> None:
    """Each of them holds public.pair and wants public.account, which the fence would have taken first: the order is learned."""
    stop, failures = threading.Event(), []

    def write(number: int) -> None:
        session = pair.open("source")
        try:
            while not stop.is_set():
                client.query(session, "BEGIN; UPDATE public.pair SET c = 'w' WHERE a = %s", (number,))
                time.sleep(0.02)
                client.query(
                    session,
                    "UPDATE public.entry SET amount = amount WHERE false; UPDATE public.account SET balance = balance + 1 WHERE id = %s; COMMIT",
                    (number,),
                )
        except ClientError as error:
            failures.append(error.message)
        finally:
            session.close()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(1, 9)]
    for writer in writers:
        writer.start()
    try:
        evidence = compare(pair, bounds=snapshot.Bounds(attempts=6))
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert evidence["mismatches"] == [] and not failures
    assert 1 < evidence["hold_attempts"] <= 6 and evidence["hold_ms"] < 300


def test_a_stopped_link_is_refused_before_any_lock(pair: t.Any) -> None:
    pair.on("target", f"ALTER SUBSCRIPTION {names.FORWARD_LINK} DISABLE")
    try:
        with pytest.raises(GateError, match="disabled"):
            compare(pair)
    finally:
        pair.on("target", f"ALTER SUBSCRIPTION {names.FORWARD_LINK} ENABLE")
    pair.wait_for_link()


@pytest.mark.parametrize(
    ("slot", "words"), [("'nowhere'", "source has no slot nowhere .* copy anew"), ("NONE", "is not attached: .* run roll_back.yml again first")]
)
def test_a_link_whose_slot_is_gone_or_was_never_given_is_refused_at_once(pair: t.Any, slot: str, words: str) -> None:
    before = pair.on("target", "SELECT subslotname::text FROM pg_subscription WHERE subname = %s", (names.FORWARD_LINK,))[0]["subslotname"]
    try:
        pair.on("target", f"ALTER SUBSCRIPTION {names.FORWARD_LINK} DISABLE")
        pair.on("target", f"ALTER SUBSCRIPTION {names.FORWARD_LINK} SET (slot_name = {slot})")
        with pytest.raises(GateError, match=words):
            compare(pair)
    finally:
        pair.on("target", f"ALTER SUBSCRIPTION {names.FORWARD_LINK} SET (slot_name = '{before}')")
        pair.on("target", f"ALTER SUBSCRIPTION {names.FORWARD_LINK} ENABLE")
    pair.wait_for_link()


def test_a_running_cutover_is_respected(pair: t.Any) -> None:
    pair.on("source", "SELECT pg_advisory_lock(%s, %s)", (names.LOCK_CLASS, names.LOCK_CUTOVER))
    try:
        with pytest.raises(GateError, match="cutover is running"):
            compare(pair)
    finally:
        pair.on("source", "SELECT pg_advisory_unlock(%s, %s)", (names.LOCK_CLASS, names.LOCK_CUTOVER))


def test_quiet_sides_are_compared_without_a_link(pair: t.Any) -> None:
    pair.wait_for_link()
    evidence = compare(pair, following=False)
    assert evidence["hold_ms"] == 0
    assert {mismatch["object"] for mismatch in evidence["mismatches"]} == {"sequence public.account_id_seq"}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_hold_ends_with_its_process(pair: t.Any, how: signal.Signals) -> None:
    """A process that is stopped with its socket open is what a lost host looks like."""
    script = textwrap.dedent(f"""
        import sys, time
        sys.path[:0] = {sys.path!r}
        from ansible_collections.freight.pg_ha.plugins.module_utils._parity import names, snapshot
        from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import SYSTEM_CLOCK
        from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
        opened = lambda side, settings=None: client.connect({pair.service_file!r}, side, application_name="dying", settings=settings)
        def never(_way, _ahead, _name):
            print("holding", flush=True)
            time.sleep(60)
        snapshot._catch_up = lambda *_: None
        snapshot._arrived = never
        snapshot.take_paired_snapshots(snapshot.FORWARD, opened, {{"source": opened("source"), "target": opened("target")}}, ["public.account"], "dying",
                                       snapshot.Bounds(hold_ms=500), SYSTEM_CLOCK)
    """)
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"holding\n"
        os.kill(child.pid, how)
        began = time.monotonic()
        pair.on("source", "UPDATE public.account SET mood = 'ok' WHERE id = 1")
        assert time.monotonic() - began < 1.0
    finally:
        child.kill()
        child.wait()


def test_the_holder_of_a_prepared_transaction_has_words() -> None:
    holder = {"pid": None, "user": None, "application": None, "state": None, "seconds": 3.0, "relation": "public.t", "transaction": "two phase"}
    assert snapshot.describe_holders([holder]) == "prepared transaction 'two phase' on public.t"


def test_the_module_leaves_its_evidence_in_the_file(pair: t.Any, tmp_path: pathlib.Path) -> None:
    from ansible_collections.freight.pg_ha.plugins.modules import parity, parity_info

    defaults = {name: option.get("default") for name, option in parity.argument_spec().items()}
    params = {**defaults, "service_file": pair.service_file, "progress_file": str(tmp_path / "parity.json"), "run": "one"}
    assert parity.run(params, check_mode=True).changed and not (tmp_path / "parity.json").exists()
    assert parity.run(params, check_mode=False).result["evidence"]["outcome"] == "done"
    asked = parity_info.run({"progress_file": params["progress_file"], "run": "one"}).result
    assert asked["state"] == "finished" and asked["evidence"]["tables"] == 9 and asked["progress"]["step"] == "finished"
    assert parity_info.run({"progress_file": params["progress_file"], "run": "two"}).result["state"] == "absent"
    with pytest.raises(GateError):
        pair.on("target", f"ALTER SUBSCRIPTION {names.FORWARD_LINK} DISABLE")
        try:
            parity.run({**params, "run": "three"}, check_mode=False)
        finally:
            pair.on("target", f"ALTER SUBSCRIPTION {names.FORWARD_LINK} ENABLE")
    asked = parity_info.run({"progress_file": params["progress_file"], "run": "three"}).result
    assert asked["state"] == "failed" and "disabled" in asked["error"]
    assert SYSTEM_CLOCK.monotonic() > 0
