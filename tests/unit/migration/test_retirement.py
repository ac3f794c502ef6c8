# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The end of a migration on a real server: nothing of it is left where clients are served, and the side that was left stays fenced."""

from __future__ import annotations

import os

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, GateError, PlanError
from ansible_collections.freight.pg_ha.plugins.module_utils._health import plan as health
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import cutover as migration_cutover
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import decision, guards, journal, ours, retire, schema, settle
from ansible_collections.freight.pg_ha.plugins.module_utils._pgbouncer.plan import PooledDatabase
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.modules import migration_retirement, migration_status_info, replication_copy

from tests.evidence import problems

from .fakes import ENDPOINTS
from .test_way_back import There

ROLE = f'retired "{os.getpid()}" %s'


class Poolers:
    """Consoles that show what the test says."""

    def __init__(self):
        self.side, self.paused = "target", False

    def __call__(self, _file, service, **options):
        assert options["read_only"] is True
        self.service = service
        return self

    def read_databases(self):
        host, port = ENDPOINTS[self.side]
        return [PooledDatabase("app", host, port, "app", self.paused, False, 1, ())]


class Moved(There):
    """A migration whose clients are on the target, with the way back, its journal and a role of its own."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.poolers = Poolers()
        quoted = '"' + ROLE.replace('"', '""') + '"'
        client.query(self.ahead, f"DROP ROLE IF EXISTS {quoted}; CREATE ROLE {quoted} LOGIN")
        client.query(self.ahead, f"GRANT USAGE ON SCHEMA ha_migration TO {quoted}; GRANT SELECT ON ha_migration.epoch TO {quoted}")
        client.query(self.ahead, f"GRANT CONNECT ON DATABASE {self.names['target']} TO {quoted}")
        self.move("target", own_roles=[ROLE])
        self.wait_until_served_by("target", 3)
        self.journal("cut_over", "done")

    def journal(self, phase, state):
        before = journal.read_phase(self.ahead, "move", phase)
        journal.write_phase(self.ahead, before, journal.plan_phase(before, journal.Wanted(state, run="test"))[0])

    def retire(self, check_mode=False, **changes):
        params = {name: option.get("default") for name, option in migration_retirement.argument_spec().items()}
        endpoints = {f"{side}_endpoint": {"host": host, "port": port} for side, (host, port) in ENDPOINTS.items()}
        params.update(service_file=self.service_file, migration="move", run="test", database="app", poolers=["lb1"], roles=[ROLE], **endpoints)
        return migration_retirement.run({**params, **changes}, check_mode, self.poolers)

    def left(self, side):
        return ours.read_ours(self.side(side), [ROLE])

    def lose_source(self):
        """Its host does not answer any more."""
        text = open(self.service_file, encoding="utf-8").read()
        with open(self.service_file, "w", encoding="utf-8") as file:
            file.write(text.replace(f"port={self.server.port}", "port=1", 1))

    def find_source(self):
        text = open(self.service_file, encoding="utf-8").read()
        with open(self.service_file, "w", encoding="utf-8") as file:
            file.write(text.replace("port=1\n", f"port={self.server.port}\n", 1))

    def end(self):
        self.find_source()
        super().end()


@pytest.fixture
def moved(postgresql_server, tmp_path, monkeypatch):
    monkeypatch.setattr(migration_cutover, "SETTLE_SECONDS", 0.0)
    found = Moved(postgresql_server, tmp_path, monkeypatch, "logical")
    yield found
    found.end()


def clean(left):
    """Nothing of ours but dead men, which the poolers' part ends."""
    return not (left.has_schema or left.subscriptions or left.slots or left.publications or left.guards or left.event_triggers or left.roles)


def test_nothing_is_left_where_clients_are_served_and_the_other_side_stays_fenced(moved):
    moved.ended = True
    predicted = moved.retire(check_mode=True)
    assert predicted.changed and predicted.result["evidence"] is None and moved.left("target").guards and moved.slots() == {("target", schema.REVERSE_LINK)}
    outcome = moved.retire()
    assert outcome.result["actions"] == predicted.result["actions"] and outcome.before == predicted.before
    assert clean(moved.left("target")), moved.left("target")
    source = moved.left("source")
    assert (source.has_schema, source.subscriptions, source.slots, source.publications, source.roles) == (True, {}, (), (), ()) and source.guards
    assert moved.refused(moved.here)
    moved.write(moved.ahead)
    evidence = outcome.result["evidence"]
    assert problems(evidence) == [] and evidence["source"] == "fenced" and evidence["not_removed"] == []
    assert {"side": "target", "kind": "slot", "name": schema.REVERSE_LINK} in evidence["removed"]
    # The last that goes is what the decision stands in.
    assert evidence["removed"][-1] == {"side": "target", "kind": "schema", "name": "ha_migration"}
    again = moved.retire()
    assert not again.changed and again.result["evidence"] == evidence and again.result["actions"] == []
    # It is not begun anew by accident.
    with pytest.raises(PlanError, match="is not copied over"):
        replication_copy.refuse_when_target_serves(moved.here, moved.ahead)


def test_the_health_of_the_target_stays_to_be_read(moved):
    moved.ended = True
    for statement in (health.CREATE_TABLE, health.CREATE_FUNCTION, health.CREATE_VIEW, *health.GRANTS):
        client.query(moved.ahead, statement)
    client.query(moved.ahead, "INSERT INTO ha_migration.health_checks VALUES ('f', 1, 1)")
    # What an application has built upon it stays, too.
    client.query(moved.ahead, "CREATE VIEW public.alive AS SELECT takes_writes FROM ha_migration.health")
    moved.retire()
    assert client.query_value(moved.ahead, "SELECT takes_writes FROM public.alive") and health.FUNCTION == retire.HEALTH_FUNCTION
    assert clean(moved.left("target")) and client.query_value(moved.ahead, "SELECT to_regclass('ha_migration.epoch') IS NULL")
    assert {health.TABLE, health.VIEW} == set(schema.HEALTH)
    asked = "BEGIN; SET LOCAL ROLE pg_monitor; SELECT takes_writes, last_check FROM ha_migration.health"
    assert client.query(moved.ahead, asked) == [{"takes_writes": True, "last_check": None}]
    client.query(moved.ahead, "ROLLBACK")
    assert not moved.retire().changed


def test_a_role_that_another_migration_has_too_stays_and_loses_what_it_had_here(moved):
    """The roles of all migrations are called the same, and are the whole server's."""
    moved.ended = True
    name, quoted = f"{moved.names['target']}_wiki", '"' + ROLE.replace('"', '""') + '"'
    moved.server.create_database(name)
    wiki = client.connect(moved.service_file, "target", application_name="test", dbname=name)
    try:
        schema.ensure_schema(wiki)
        client.query(wiki, f"GRANT USAGE ON SCHEMA ha_migration TO {quoted}")
        statement = f"CREATE SUBSCRIPTION {schema.FORWARD_LINK} CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE)"
        client.query(wiki, statement)
        outcome = moved.retire()
        assert outcome.result["link_needed_by"] == [name]
        evidence = outcome.result["evidence"]
        told = f"Role {ROLE} stays on the target, where it is needed in {name}: another migration has it."
        assert problems(evidence) == [] and told in evidence["kept"]
        assert {"side": "target", "kind": "privileges of role", "name": ROLE} in evidence["removed"]
        assert not moved.retire().changed
        assert client.query_value(wiki, "SELECT has_schema_privilege(%s, 'ha_migration', 'USAGE')", (ROLE,))
        # The last one takes it away.
        client.query(wiki, f"DROP SUBSCRIPTION {schema.FORWARD_LINK}; REVOKE USAGE ON SCHEMA ha_migration FROM {quoted}")
        assert [one.name for one in retire.plan_removals(None, ours.read_ours(wiki, [ROLE])) if one.kind == "role"] == [ROLE]
    finally:
        client.query(wiki, f"DROP SUBSCRIPTION IF EXISTS {schema.FORWARD_LINK}; DROP OWNED BY {quoted}")
        wiki.close()
        client.query(moved.ahead, f"DROP DATABASE {name} WITH (FORCE)")
        client.query(moved.ahead, f"DROP ROLE {quoted}")


class Died(BaseException):
    """The process is gone."""


def test_a_run_that_dies_after_any_step_is_finished_by_the_next(moved, monkeypatch):
    moved.ended = True
    plain, deaths = retire.remove, 0

    def die(*arguments):
        plain(*arguments)
        raise Died

    monkeypatch.setattr(retire, "remove", die)
    while True:
        try:
            outcome = moved.retire()
            break
        except Died:
            deaths += 1
            assert moved.refused(moved.here) and deaths < 60
    # Each run took one thing away; the last has found nothing left but to say so.
    assert deaths == 10 and outcome.result["actions"] == ["record on the source that the migration is retired"]
    assert clean(moved.left("target")) and journal.read_phase(moved.here, "move", retire.PHASE).state == "done"


def test_every_reason_against_it_is_told_together_and_nothing_is_changed(moved):
    moved.journal("cut_over", "running")
    moved.poolers.side, moved.poolers.paused = "source", True
    decision.open_epoch(moved.ahead, 9, "r", "target", 5000)
    client.query(moved.ahead, "SELECT pg_advisory_lock(%s, %s)", (schema.LOCK_CLASS, schema.LOCK_CUTOVER))
    before = moved.left("target")
    with pytest.raises(GateError) as caught:
        moved.retire(source_gone=True)
    told = caught.value.details["problems"]
    assert len(told) == 6, told
    for part in (
        "declared gone",
        "Phase cut_over is running",
        "is open on the target (epoch 9)",
        "lock on the target",
        "lead to the target",
        "holds its clients",
    ):
        assert sum(part in sentence for sentence in told) == 1, part
    left = moved.left("target")
    assert (left.guards, left.publications, left.subscriptions, left.roles) == (before.guards, before.publications, before.subscriptions, before.roles)
    # The dead man shall not go on with this attempt.
    decision.compete(moved.ahead, 9, "target", "test")
    decision.close_epoch(moved.ahead, 9, {"outcome": "undone", "reason": "test"})


def test_while_the_source_serves_it_is_not_retired(moved):
    moved.move("source", own_roles=[ROLE])
    moved.wait_until_served_by("source", 3)
    with pytest.raises(GateError, match="The source serves the application by the decision that stands"):
        moved.retire()
    assert moved.slots() == {("source", schema.FORWARD_LINK)}


def test_a_source_that_is_gone_is_retired_only_when_somebody_says_so(moved):
    moved.ended = True
    client.query(moved.here, f"ALTER SUBSCRIPTION {schema.REVERSE_LINK} DISABLE")
    moved.lose_source()
    with pytest.raises(GateError, match="Cannot connect to the source .* say so with pg_ha_source_gone: true"):
        moved.retire()
    assert moved.left("target").slots
    evidence = moved.retire(source_gone=True).result["evidence"]
    assert clean(moved.left("target")) and problems(evidence) == []
    assert evidence["source"] == "gone" and "were not removed" in evidence["not_removed"][0] and evidence["kept"] == []
    # Now only the controller can tell a migration that is retired from one that has not begun.
    with pytest.raises(GateError, match="Phase cut_over is absent"):
        moved.retire(source_gone=True)
    again = moved.retire(source_gone=True, begun=True)
    assert not again.changed and problems(again.result["evidence"]) == []
    assert moved.refused(moved.here)


def test_a_guard_waits_for_a_gap_and_hinders_nobody(moved):
    holder = moved.connect("target")
    client.query(holder, "BEGIN; LOCK TABLE public.child IN ACCESS SHARE MODE")
    with pytest.raises(ClientError, match="Table public.child stayed locked through 2 attempts of 20 ms to take the guard off it"):
        guards.remove_guard(moved.ahead, "public.child", lock_timeout_ms=20, attempts=2)
    assert "public.child" in moved.left("target").guards
    client.query(holder, "ROLLBACK")
    holder.close()
    guards.remove_guard(moved.ahead, "public.child")
    assert "public.child" not in moved.left("target").guards


def status_of(moved, **options):
    """Where it stands, in sessions that may not write."""
    params = {key: spec.get("default") for key, spec in migration_status_info.argument_spec().items()}
    ends = {f"{side}_endpoint": {"host": host, "port": port} for side, (host, port) in ENDPOINTS.items()}
    given = {"service_file": moved.service_file, "migration": "move", "database": "app", "connect_timeout_seconds": 2, "roles": [ROLE], "poolers": ["lb1"]}
    return migration_status_info.run({**params, **given, **ends, **options}, moved.poolers).result["status"]


def test_status_tells_the_way_back_its_leftovers_and_the_end(moved):
    found = status_of(moved)
    back = found["way_back"]
    assert back["possible"] and "Roll back is possible: the source follows, lag " in back["sentence"], found
    assert found["link"]["name"] == schema.REVERSE_LINK and back["held_bytes"] >= 0 and back["safe_bytes"] is None
    assert (found["leftovers"], found["disagreements"], found["unknown"]) == ([], [], [])
    near = status_of(moved, slot_wal_limit_mib=0)["lines"]
    assert [line for line in near if line.startswith("Roll back is possible") and f"ALARM: slot {schema.REVERSE_LINK} holds back" in line], near
    # Half of the old link, and a slot that its subscriber has left.
    client.query(moved.here, "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (schema.FORWARD_LINK,))
    settle.drop_subscription(moved.here, schema.REVERSE_LINK)
    moved.journal("cut_over", "failed")
    found = status_of(moved)
    assert {(row["object"], row["side"]) for row in found["leftovers"]} == {
        (f"slot {schema.FORWARD_LINK}", "source"),
        (f"slot {schema.REVERSE_LINK}", "target"),
    }
    assert not found["way_back"]["possible"] and f"There is no way back: the source has no subscription {schema.REVERSE_LINK}." in found["lines"]
    assert len(found["disagreements"]) == 1 and found["disagreements"][0] in found["lines"]
    moved.journal("cut_over", "done")
    moved.ended = True
    evidence = moved.retire().result["evidence"]
    exported = {"retire_source": {"outcome": "done", "finished_at": evidence["finished_at"]}}
    found = status_of(moved)
    assert found["retired"] and found["serves"] == "target" and found["unknown"] == [] and found["way_back"] is None
    # Only a dead man is left, which is the poolers' part.
    assert [row for row in found["leftovers"] if not row["object"].startswith("ha_migration dead man")] == []
    assert found["lines"][-1].startswith("The migration is retired since ") and not [line for line in found["lines"] if "has not run" in line]
    moved.lose_source()
    found = status_of(moved, exported=exported)
    assert (found["serves"], found["unknown"], found["retired"]) == ("target", [], evidence["finished_at"])
    assert found["lines"][-1].startswith("The migration is retired since ")
    # Without that evidence nobody can say.
    assert status_of(moved)["serves"] == "unknown"
