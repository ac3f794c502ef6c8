# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a migration stands, read from two databases of a real server in sessions that may not write."""

from __future__ import annotations

import fcntl
import itertools
import os
import pathlib
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import ddl_guard, decision, journal, schema, status
from ansible_collections.freight.pg_ha.plugins.module_utils._pgbouncer.plan import PooledDatabase
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import copy_client, link_client
from ansible_collections.freight.pg_ha.plugins.module_utils._replication.model import Table
from ansible_collections.freight.pg_ha.plugins.modules import migration_status_info

ENDPOINTS = {"source": {"host": "old", "port": 5432}, "target": {"host": "new", "port": 5000}}
numbers = itertools.count()


class FakePooler:
    """The console of a pooler, whose state is handed in as its name's entry of ``leads``."""

    leads: t.ClassVar[dict[str, tuple[str, bool]]] = {}

    def __init__(self, service_file: str, service: str, **options: t.Any) -> None:
        assert options["read_only"] is True
        self.name = service.removeprefix("pooler_")

    def read_databases(self) -> list[PooledDatabase]:
        if self.name not in self.leads:
            raise ClientError(f"Cannot open the console of pooler_{self.name}: refused")
        side, paused = self.leads[self.name]
        return [PooledDatabase("app", ENDPOINTS[side]["host"], ENDPOINTS[side]["port"], "app", paused, False, 1, ())]


class World:
    """Two databases, of which the target is made when asked for."""

    def __init__(self, server: t.Any, folder: pathlib.Path) -> None:
        self.server, self.folder = server, folder
        number = next(numbers)
        self.names = {side: f"status_{side}_{os.getpid()}_{number}" for side in ("source", "target")}
        server.create_database(self.names["source"])
        self.services(source=True)

    def services(self, target: str = "", **_sides: bool) -> None:
        """Write the service file. Sessions of the module may not write: what it would change fails."""
        text = ""
        for side in ("source", *(["target"] if target else [])):
            port = 1 if target == "gone" and side == "target" else self.server.port
            read_only = "options=-c default_transaction_read_only=on\n"
            text += f"[{side}]\nhost=127.0.0.1\nport={port}\nuser=postgres\ndbname={self.names[side]}\n{read_only}"
        (self.folder / "pg_service.conf").write_text(text)

    def make_target(self) -> None:
        """The target and its journal, as replicate makes them."""
        self.server.create_database(self.names["target"])
        self.services(target="there")
        for side in ("source", "target"):
            schema.ensure_schema(self.connect(side))

    def connect(self, side: str) -> t.Any:
        """A session that may write."""
        return client.connect(str(self.folder / "pg_service.conf"), side, application_name="test", options="-c default_transaction_read_only=off")

    def read(self, **options: t.Any) -> dict[str, t.Any]:
        """Run the module."""
        defaults = {key: spec.get("default") for key, spec in migration_status_info.argument_spec().items()}
        given = {"service_file": str(self.folder / "pg_service.conf"), "migration": "move", "database": "app", "connect_timeout_seconds": 2}
        ends = {f"{side}_endpoint": end for side, end in ENDPOINTS.items()}
        return migration_status_info.run({**defaults, **given, **ends, **options}, FakePooler).result["status"]

    def record(self, phase: str, state: str, evidence: dict[str, t.Any] | None = None) -> None:
        """A row of the journal."""
        target = self.connect("target")
        before = journal.read_phase(target, "move", phase)
        journal.write_phase(target, before, journal.plan_phase(before, journal.Wanted(state, "x", "r1", evidence))[0])
        target.close()


@pytest.fixture
def world(postgresql_server: t.Any, tmp_path: pathlib.Path) -> t.Iterator[World]:
    """A source alone."""
    FakePooler.leads = {}
    made = World(postgresql_server, tmp_path)
    yield made
    admin = client.connect(postgresql_server.service_file, "source", application_name="test")
    for name in made.names.values():
        client.query(admin, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    admin.close()


def states(found: dict[str, t.Any]) -> dict[str, str]:
    """State of each phase."""
    return {phase["phase"]: phase["state"] for phase in found["phases"]}


def test_before_anything_has_run_the_source_serves_and_assess_is_next(world: World) -> None:
    found = world.read(poolers=["lb1"])
    assert (found["serves"], found["unknown"]) == ("source", [])
    assert set(states(found).values()) == {"absent"}
    assert found["lines"][0] == "The source serves the application (migration move)." and "`pg-ha assess`" in found["lines"][-1]
    assert (found["copy"], found["link"], found["cluster"], found["attempt"]) == (None, None, None, None)


def test_evidence_on_the_controller_stands_for_phases_before_the_journal(world: World) -> None:
    document = {"outcome": "done", "started_at": "2027-01-01T00:00:00Z", "finished_at": "2027-01-01T00:00:05Z"}
    found = world.read(exported={"assess": document, "provision": {}})
    assert (states(found)["assess"], states(found)["provision"]) == ("done", "absent")
    assert "  assess        done at 2027-01-01T00:00:05Z" in found["lines"] and "`pg-ha provision`" in found["lines"][-1]


def test_a_target_without_the_database_has_nothing_of_the_migration(world: World) -> None:
    world.services(target="there")
    found = world.read()
    assert (found["serves"], found["unknown"], set(states(found).values())) == ("source", [], {"absent"})


def test_a_target_that_is_gone_after_the_beginning_is_unknown(world: World) -> None:
    schema.ensure_schema(world.connect("source"))
    found = world.read()
    assert found["serves"] == "source" and set(states(found).values()) == {"unknown"}
    assert "the migration has begun" in found["unknown"][0]
    assert not [line for line in found["lines"] if line.startswith("Next")]


def test_a_target_that_does_not_answer_leaves_what_the_source_knows(world: World) -> None:
    world.make_target()
    world.services(target="gone")
    found = world.read()
    assert (found["serves"], found["cluster"], found["cutover_running"]) == ("source", None, None)
    assert set(states(found).values()) == {"unknown"} and found["unknown"][0].startswith("The target cannot be read: Cannot connect to the target")


def test_a_source_that_does_not_answer_leaves_who_serves_unknown(world: World) -> None:
    world.make_target()
    world.record("replicate", "done")
    file = world.folder / "pg_service.conf"
    file.write_text(file.read_text().replace(f"port={world.server.port}", "port=1", 1))
    found = world.read()
    assert found["serves"] == "unknown" and states(found)["replicate"] == "done"
    assert found["lines"][0].startswith("It is unknown who serves") and len(found["unknown"]) == 1


def test_the_journal_is_told_with_reasons_and_what_nobody_works_on(world: World) -> None:
    world.make_target()
    world.record("assess", "done")
    world.record("replicate", "running")
    world.record("verify", "refused", {"reason": "Rows differ."})
    found = world.read()
    text = "\n".join(found["lines"])
    assert "nobody works on it" in text and ": Rows differ." in text and found["unknown"] == []
    assert found["cluster"]["timeline"] == 1 and "leads on timeline 1" in text


def test_a_copy_that_runs_is_seen_with_its_numbers(world: World) -> None:
    world.make_target()
    world.record("replicate", "running")
    source, target = world.connect("source"), world.connect("target")
    assert copy_client.try_lock(source)
    copy_client.write_run(target, "copying", {"step": "rows", "method": "logical"}, begin=True)
    copy_client.write_tables(target, [Table("public", "t", 1, 1048576, ()), Table("public", "u", 2, 3145728, ())])
    copy_client.write_table_done(target, '"public"."t"', 10, {})
    found = world.read()
    assert (found["copy"]["state"], found["copy"]["bytes_done"], found["copy"]["bytes_total"]) == ("running", 1048576, 4194304)
    text = "\n".join(found["lines"])
    assert "The copy runs on the mover" in text and "1 of 2 tables, 1 of 4 MiB" in text and "nobody works on it" not in text
    source.close()
    assert world.read()["copy"]["state"] == "interrupted"
    target.close()


def test_a_cutover_that_was_left_open_is_told_with_who_decides(world: World) -> None:
    world.make_target()
    source = world.connect("source")
    decision.open_epoch(source, 1, "r1", "source", 5000)
    FakePooler.leads = {"lb1": ("source", True)}
    found = world.read(poolers=["lb1"])
    assert (found["attempt"]["state"], found["attempt"]["budget_ms"], found["cutover_running"], found["serves"]) == ("open", 5000, False, "source")
    text = "\n".join(found["lines"])
    assert "epoch 1), not decided yet; nobody works on it: the dead men decide within 5 s" in text
    assert "Pooler lb1: leads to old:5432, the source; it holds its clients." in text
    client.query(source, "SELECT pg_advisory_lock(%s, %s)", (schema.LOCK_CLASS, schema.LOCK_CUTOVER))
    assert world.read()["cutover_running"] is True
    decision.compete(source, 1, "source", "test")
    decision.close_epoch(source, 1, {"outcome": "undone", "reason": "Too slow."})
    assert "The last cutover (epoch 1) was undone: Too slow." in world.read()["lines"]
    source.close()


def test_after_the_decision_a_pooler_that_stayed_behind_is_named(world: World) -> None:
    world.make_target()
    for phase in ("assess", "provision", "replicate", "verify", "cut_over"):
        world.record(phase, "done")
    source, target = world.connect("source"), world.connect("target")
    decision.open_epoch(source, 1, "r1", "source", 5000)
    assert decision.compete(source, 1, "target", "test") == "target"
    FakePooler.leads = {"lb1": ("source", False), "lb2": ("target", False)}
    found = world.read(poolers=["lb1", "lb2", "lb3"])
    assert found["serves"] == "target"
    text = "\n".join(found["lines"])
    assert "lb1: leads to old:5432, the source; clients go through; this is not the side that serves: look at pg-ha-dead-man on lb1." in text
    assert "lb2: leads to new:5000, the target; clients go through." in text
    assert found["unknown"] == ["Pooler lb3 cannot be read: Cannot open the console of pooler_lb3: refused"]
    decision.announce(target, 1, "target")
    decision.close_epoch(source, 1, {"outcome": "done"})
    assert world.read()["lines"][-1] == "Nothing is left to do: `pg-ha report` renders the evidence."
    # The target alone is sure of itself, too.
    file = world.folder / "pg_service.conf"
    file.write_text(file.read_text().replace(f"port={world.server.port}", "port=1", 1))
    assert world.read()["serves"] == "target"
    source.close()
    target.close()


def test_what_works_on_the_mover_is_seen_by_its_locks(world: World) -> None:
    world.make_target()
    (world.folder / "probe-one").mkdir()
    (world.folder / "probe-two").mkdir()
    with (world.folder / "parity.json.lock").open("a") as comparison, (world.folder / "probe-two" / "lock").open("a") as probe:
        fcntl.flock(comparison, fcntl.LOCK_EX)
        fcntl.flock(probe, fcntl.LOCK_EX)
        found = world.read()
    assert (found["comparison_running"], found["probes_running"]) == (True, ["two"])
    assert world.read()["comparison_running"] is False


def test_without_any_file_everything_is_unknown_and_nothing_is_made(world: World) -> None:
    found = world.read(service_file=str(world.folder / "none" / "pg_service.conf"), poolers=["lb1"])
    assert found["serves"] == "unknown" and len(found["unknown"]) >= 2
    assert not (world.folder / "none").exists()


def follow(world: World) -> t.Any:
    """A link between both databases that follows one table, made as the copy makes it; the source's session."""
    world.make_target()
    source, target = world.connect("source"), world.connect("target")
    for side in (source, target):
        client.query(side, "CREATE TABLE public.t (id int PRIMARY KEY)")
    client.query(source, f"CREATE PUBLICATION {schema.FORWARD_LINK} FOR TABLE public.t, ha_migration.marker, ha_migration.probe")
    client.query(source, "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (schema.FORWARD_LINK,))
    client.query(
        target,
        f"CREATE SUBSCRIPTION {schema.FORWARD_LINK} CONNECTION 'host=127.0.0.1 port={world.server.port} user=postgres dbname={world.names['source']}' "
        f"PUBLICATION {schema.FORWARD_LINK} WITH (create_slot = false, slot_name = '{schema.FORWARD_LINK}', copy_data = false)",
    )
    link_client.wait_until_caught_up(source, target, schema.FORWARD_LINK, 20)
    target.close()
    return source


def test_while_the_target_follows_both_schemas_are_compared_and_ddl_is_named(world: World) -> None:
    source = follow(world)
    try:
        found = world.read(slot_wal_limit_mib=1000)
        assert found["unknown"] == [] and found["schemas"] == {"differences": [], "differences_total": 0, "policy": None, "ddl": []}
        assert "Schema: both sides are in step; DDL on the source is without a guard, so nobody is named." in found["lines"]
        assert [line for line in found["lines"] if line.startswith("Link: the target follows") and "ALARM" not in line]
        ddl_guard.apply(source, ddl_guard.plan_guard(ddl_guard.read_guard(source), ddl_guard.Wanted("source", "move", "detect")))
        assert "Schema: both sides are in step; DDL on the source is recorded." in world.read()["lines"]
        shop = client.connect(str(world.folder / "pg_service.conf"), "source", application_name="shop", options="-c default_transaction_read_only=off")
        client.query(shop, "CREATE INDEX i ON public.t (id); DROP INDEX public.i")
        line = next(line for line in world.read()["lines"] if line.startswith("Schema: "))
        assert "both sides are in step" in line and "what came since the last comparison may stop the cutover until rows are compared again." in line
        client.query(shop, "ALTER TABLE public.t ADD COLUMN note text")
        shop.close()
        found = world.read()
        line = next(line for line in found["lines"] if line.startswith("Schema: "))
        assert "out of step in 1 objects, which stops the cutover" in line and "column public.t.note is missing on the target" in line
        assert [line for line in found["lines"] if line.endswith("role postgres ran ALTER TABLE on the source: table public.t.")]
        world.record("verify", "done")
        assert world.read()["schemas"]["ddl"] == []
    finally:
        target = world.connect("target")
        link_client.drop_link(source, target, schema.FORWARD_LINK)
        target.close()
        source.close()


@pytest.mark.parametrize(("state", "command"), [("failed", "replicate"), ("running", "verify"), ("absent", "verify")])
def test_after_a_comparison_that_failed_replicate_is_next(state: str, command: str) -> None:
    phases = [{"phase": phase, "state": {"verify": state, "cut_over": "absent"}.get(phase, "done")} for phase in status.PHASES]
    assert status._describe_next({"retired": None, "unknown": [], "phases": phases})[0].startswith(f"Next: `pg-ha {command}`")


def test_an_alarm_and_a_link_that_was_given_up_are_told() -> None:
    told = "ALARM: slot x holds back much"
    link = {"name": schema.FORWARD_LINK, "following": True, "lag_bytes": 5, "lag_seconds": None, "alarm": told, "problems": [told]}
    assert status._describe_link(link) == "Link: the target follows, lag 5 bytes. ALARM: slot x holds back much."
    given_up = {"following": False, "problems": ["The migration has been given up"], "alarm": ""}
    assert status._describe_link(given_up) == "Link: does not follow (The migration has been given up)."


SOURCE, TARGET = (1, "source"), (2, "target")


@pytest.mark.parametrize(
    ("source", "target", "serves"),
    [
        ([], [], "source"),
        ([SOURCE], [], "source"),
        ([TARGET], [], "target"),
        ([TARGET], [TARGET], "target"),
        ([], None, "source"),
        ([TARGET], None, "unknown"),
        (None, [TARGET], "target"),
        (None, [], "unknown"),
        (None, [(3, "source")], "unknown"),
        (None, None, "unknown"),
    ],
)
def test_who_serves_is_known_only_from_the_side_that_would_know_better(source: t.Any, target: t.Any, serves: str) -> None:
    assert status.plan_serves(source, target) == serves
