# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cutover that must not begin: nothing is ready, all is done, these are other databases, somebody else is at it, the plan is old.

Each is one sentence, and afterwards both sides hold what they held before.
"""

from __future__ import annotations

import datetime
import os
import pathlib
import threading
import time
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import GateError, PgHaError
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import bring, gates, journal, schema, section
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import cutover as migration_cutover
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.fingerprint import read_fingerprint
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client, locks
from ansible_collections.freight.pg_ha.plugins.modules import connections_info, replication_copy

from tests.unit.migration.migrations import Migration, run_command
from tests.unit.migration.test_dump import observe

if t.TYPE_CHECKING:
    from tests.unit.conftest import Server


@pytest.fixture
def migration(postgresql_server: Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Migration]:
    """Two databases after the rehearsal of method dump, a pooler on the source and its dead man."""
    made = Migration(postgresql_server, tmp_path, monkeypatch, "dump")
    yield made
    made.end()


@pytest.fixture
def stranger(postgresql_server: Server) -> t.Iterator[str]:
    """A database of another application: it has a table of its own, and no part in anything."""
    name = f"stranger_{os.getpid()}_{time.monotonic_ns()}"
    postgresql_server.create_database(name)
    yield name
    admin = client.connect(postgresql_server.service_file, "source", application_name="test")
    client.query(admin, f"DROP DATABASE {name} WITH (FORCE)")
    admin.close()


def held(server: Server, folder: pathlib.Path, *databases: str) -> list[t.Any]:
    """Everything that databases hold: relations, functions, triggers, rows of our tables."""
    found: list[t.Any] = []
    for database in databases:
        connection = client.connect(server.services(folder / "look.conf", x=database), "x", application_name="test")
        found.append(
            client.query(
                connection, "SELECT relnamespace::regnamespace::text AS s, relname FROM pg_class WHERE relnamespace <> 'pg_toast'::regnamespace ORDER BY 1, 2"
            )
        )
        found.append(client.query(connection, "SELECT proname, prosrc FROM pg_proc WHERE pronamespace::regnamespace::text = 'ha_migration' ORDER BY 1"))
        found.append(client.query(connection, "SELECT tgrelid::regclass::text AS t, tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2"))
        for table in client.query(
            connection, "SELECT oid::regclass::text AS name FROM pg_class WHERE relnamespace::regnamespace::text = 'ha_migration' AND relkind = 'r'"
        ):
            found.append(
                (table["name"], client.query_value(connection, f"SELECT coalesce(string_agg(x::text, ';' ORDER BY x::text), '') FROM {table['name']} x"))
            )
        connection.close()
    return found


def sentence(error: PgHaError) -> str:
    """The one line that says it."""
    lines = error.message.splitlines()
    assert lines[0].startswith("The cutover was not started, 1 gate(s)") and len(lines) == 2, error.message
    return lines[1]


def release(migration: Migration) -> None:
    """A module that was refused ends, and with it its sessions and the lock; here its traceback keeps them."""
    client.query(migration.here, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name LIKE 'ha_migration cutover%'")


def test_an_unready_migration_is_refused(migration: Migration, stranger: str, tmp_path: pathlib.Path) -> None:
    """Nothing was replicated: neither side has our schema."""
    file = migration.server.services(tmp_path / "other.conf", source=stranger, target=stranger)
    before = held(migration.server, tmp_path, stranger)
    found = migration.cut_over(service_file=file, only_gates=True)
    assert not found.changed and [gate["gate"] for gate in found.result["failed_gates"]] == ["inventory"]
    with pytest.raises(GateError) as caught:
        migration.cut_over(service_file=file)
    assert sentence(caught.value) == (
        "- inventory: source: it takes part in no migration (it has no schema ha_migration); run playbooks/replicate.yml, or use the right inventory."
    )
    assert held(migration.server, tmp_path, stranger) == before and not [word for word in migration.pooler.log if word.startswith("PAUSE")]


def test_a_finished_migration_is_left_as_it_is(migration: Migration, tmp_path: pathlib.Path) -> None:
    assert migration.cut_over().changed
    before = held(migration.server, tmp_path, *migration.names.values())
    log = list(migration.pooler.log)
    for options in ({}, {"check_mode": True}, {"only_gates": True}):
        outcome = migration.cut_over(**options)
        assert not outcome.changed and outcome.result["serves"] == "target" and outcome.result["actions"] == []
    assert held(migration.server, tmp_path, *migration.names.values()) == before and migration.pooler.log == log


@pytest.mark.parametrize("prepared", [False, True], ids=["a stranger", "the source of another migration"])
def test_the_source_of_another_inventory_is_refused(migration: Migration, stranger: str, tmp_path: pathlib.Path, prepared: bool) -> None:
    if prepared:
        other = client.connect(migration.server.services(tmp_path / "s.conf", x=stranger), "x", application_name="test")
        schema.ensure_schema(other)
        other.close()
    file = migration.server.services(tmp_path / "other.conf", source=stranger, target=migration.names["target"])
    before = held(migration.server, tmp_path, stranger, migration.names["target"])
    with pytest.raises(GateError) as caught:
        migration.cut_over(service_file=file)
    words = f"The target was copied from database {migration.names['source']} of the server" if prepared else "source: it takes part in no migration"
    assert words in sentence(caught.value) and "use the inventory of that migration" in sentence(caught.value) or not prepared
    assert held(migration.server, tmp_path, stranger, migration.names["target"]) == before and not [
        word for word in migration.pooler.log if word.startswith("PAUSE")
    ]


def test_exchanged_sides_are_refused(migration: Migration, tmp_path: pathlib.Path) -> None:
    file = migration.server.services(tmp_path / "other.conf", source=migration.names["target"], target=migration.names["source"])
    before = held(migration.server, tmp_path, *migration.names.values())
    with pytest.raises(GateError) as caught:
        migration.cut_over(service_file=file)
    assert f"Source and target are exchanged: database {migration.names['target']} was copied" in sentence(caught.value)
    assert held(migration.server, tmp_path, *migration.names.values()) == before and not [word for word in migration.pooler.log if word.startswith("PAUSE")]


@pytest.mark.parametrize(
    ("source", "name", "words"), [("right", "m", ""), ("right", "n", "holds the journal of migration m, not of n"), ("wrong", "m", "was copied from")]
)
def test_every_phase_refuses_another_inventory_before_it_changes_anything(
    migration: Migration, stranger: str, tmp_path: pathlib.Path, source: str, name: str, words: str
) -> None:
    client.query(
        migration.ahead, "INSERT INTO ha_migration.phase (migration, phase, state, inputs, run, started_at) VALUES ('m', 'replicate', 'done', '', '', now())"
    )
    databases = {"source": migration.names["source"] if source == "right" else stranger, "target": migration.names["target"]}
    params = {option: spec.get("default") for option, spec in connections_info.argument_spec().items()}
    params.update(service_file=migration.server.services(tmp_path / "c.conf", **databases), services=["source", "target"], database="x", migration=name)
    with pytest.raises(GateError) as caught:
        connections_info.run(params)
    # Both databases are on one server here, which is a problem of its own.
    found = {problem["kind"]: problem["sentence"] for problem in caught.value.details["problems"]}
    assert found.pop("source_is_target") and list(found) == (["wrong_inventory"] if words else [])
    assert not words or words in found["wrong_inventory"]
    assert not words or found["wrong_inventory"].endswith(f"{journal.STRANGE_REMEDY}.")


def phase(migration: Migration) -> list[dict[str, t.Any]]:
    """What the journal says of phase cut_over."""
    return client.query(migration.ahead, "SELECT migration, phase, state, inputs, run FROM ha_migration.phase")


def test_of_two_controllers_one_is_refused_and_the_journal_names_the_other(migration: Migration, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes while clients are held for the first."""
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 1.0)
    named = {"migration": "m", "phase": "cut_over"}
    within, goes_on = threading.Event(), threading.Event()
    first: dict[str, t.Any] = {}

    def stop(name: str) -> None:
        if name == "after copy":
            within.set()
            assert goes_on.wait(20)

    observe(monkeypatch, stop)
    assert not migration.cut_over(only_gates=True, journal={**named, "inputs": "asked"}).result["failed_gates"] and phase(migration) == []
    migration.cut_over(check_mode=True, journal={**named, "inputs": "predicted"})
    assert phase(migration) == []
    worker = threading.Thread(target=lambda: first.update(outcome=migration.cut_over(journal={**named, "inputs": "one"})), daemon=True)
    worker.start()
    try:
        assert within.wait(20)
        begun = [{**named, "state": "running", "inputs": "one", "run": "test"}]
        assert phase(migration) == begun
        began = time.monotonic()
        with pytest.raises(GateError, match="^Another cutover or roll back of this migration runs just now, .* wait for its end.$") as caught:
            migration.cut_over(run="second", journal={**named, "inputs": "two"})
        assert caught.value.details["busy"] is True and time.monotonic() - began < 5
        assert phase(migration) == begun
    finally:
        goes_on.set()
        worker.join(30)
    assert first["outcome"].result["serves"] == "target" and first["outcome"].result["run"] == "test"
    assert client.query_value(migration.here, "SELECT count(*) FROM ha_migration.epoch") == 1


def test_two_controllers_at_the_same_moment_make_one_cutover(migration: Migration) -> None:
    together = threading.Barrier(2)
    ended: dict[str, t.Any] = {}

    def go(name: str) -> None:
        together.wait(10)
        try:
            ended[name] = migration.cut_over(run=name)
        except GateError as error:
            ended[name] = error

    workers = [threading.Thread(target=go, args=(name,), daemon=True) for name in ("one", "two")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(40)
    changed = [name for name, end in ended.items() if not isinstance(end, GateError) and end.changed]
    assert len(ended) == 2 and len(changed) == 1, ended
    other = ended["two" if changed == ["one"] else "one"]
    assert isinstance(other, GateError) and "runs just now" in other.message or not isinstance(other, GateError) and not other.changed
    assert client.query_value(migration.here, "SELECT count(*) FROM ha_migration.epoch") == 1


def evidence(migration: Migration, **changes: t.Any) -> dict[str, t.Any]:
    """Of a comparison that has just ended."""
    identifier = client.query_value(migration.ahead, "SELECT system_identifier::text FROM pg_control_system()")
    timeline = section.read_durability(migration.ahead)["timeline"]
    finished = datetime.datetime.now(datetime.UTC).isoformat()
    source = {"lsn": client.query_value(migration.here, "SELECT pg_current_wal_lsn()::text")}
    fingerprint = {side: read_fingerprint(session).summary() for side, session in (("source", migration.here), ("target", migration.ahead))}
    times = {"started_at": finished, "finished_at": finished, "fingerprint": fingerprint}
    return {"mismatches": [], "serves": "source", "timeline": timeline, "system_identifier": identifier, "source": source, **times, **changes}


@pytest.fixture
def verified(migration: Migration, monkeypatch: pytest.MonkeyPatch) -> Migration:
    """A migration of method logical of whose gates those of schema and comparison are asked."""
    params = {name: option.get("default") for name, option in replication_copy.argument_spec().items()}
    params.update(service_file=migration.service_file, method="dump", parts="all", jobs=2, work_directory=str(migration.folder))
    replication_copy.run(params, False, run_command)
    monkeypatch.setattr(bring.ByLink, "gates", (gates.schema_in_step, gates.parity))
    assert migration.cut_over(method="logical", parity=evidence(migration), only_gates=True).result["failed_gates"] == []
    return migration


# What changed on the source, what is named, and what takes it back.
STALE = [
    ("CREATE TABLE public.late (id int)", "public.late", "DROP TABLE public.late"),
    ("ALTER TABLE public.child ADD late int", "public.child", "ALTER TABLE public.child DROP late"),
    ("CREATE INDEX late ON public.child (parent)", "late", "DROP INDEX public.late"),
    ('ALTER SEQUENCE public."It\'s %s_id_seq" INCREMENT 2', "It's %s_id_seq", 'ALTER SEQUENCE public."It\'s %s_id_seq" INCREMENT 1'),
    ("DROP TABLE public.child CASCADE", "public.child", ""),
]


def test_a_schema_that_changed_since_the_comparison_is_refused(verified: Migration, tmp_path: pathlib.Path) -> None:
    for statement, names, back in STALE:
        client.query(verified.here, statement)
        before = held(verified.server, tmp_path, *verified.names.values())
        with pytest.raises(GateError) as caught:
            verified.cut_over(method="logical", parity=evidence(verified))
        assert names in caught.value.message and "bring the schema in step on both sides, then run playbooks/verify.yml" in caught.value.message, statement
        release(verified)
        assert held(verified.server, tmp_path, *verified.names.values()) == before
        assert not [word for word in verified.pooler.log if word.startswith("PAUSE")]
        if back:
            client.query(verified.here, back)
            assert verified.cut_over(method="logical", parity=evidence(verified), only_gates=True).result["failed_gates"] == [], back


HOUR = datetime.timedelta(hours=1)


CLOCKS = [
    (-HOUR, "the last comparison is 360"),
    (HOUR, "the last comparison ended 3(600|599|598) s in the future by the mover's clock"),
    (datetime.timedelta(seconds=2), None),
]


def test_a_clock_that_is_an_hour_off_makes_no_comparison_fresh(verified: Migration) -> None:
    for late, words in CLOCKS:
        finished = (datetime.datetime.now(datetime.UTC) + late).isoformat()
        options = {"method": "logical", "parity": evidence(verified, finished_at=finished), "parity_max_age_seconds": 3599}
        failed = verified.cut_over(**options, only_gates=True).result["failed_gates"]
        assert [gate["gate"] for gate in failed] == ([] if words is None else ["parity"])
        if words is not None:
            with pytest.raises(GateError, match=words):
                verified.cut_over(**options)
            release(verified)


def test_evidence_without_what_a_gate_reads_has_failed(verified: Migration) -> None:
    for lacking in ("mismatches", "timeline", "system_identifier", "source", "started_at", "fingerprint"):
        broken = {key: value for key, value in evidence(verified).items() if key != lacking}
        failed = verified.cut_over(method="logical", parity=broken, only_gates=True).result["failed_gates"]
        assert len(failed) == 1 and "could not be evaluated" in failed[0]["message"], lacking
    assert migration_cutover.with_age(None) is None
