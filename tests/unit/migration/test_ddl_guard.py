# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard against DDL on a real server: what each policy does to each kind of it, and whom it hinders when nothing follows."""

from __future__ import annotations

import os
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, PlanError, UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import bring, ddl_guard, gates, guards, schema, settle, way_back
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.fingerprint import compare_fingerprints, read_fingerprint
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.modules import migration_ddl_guard

APPLICATION = """
    CREATE TABLE public.orders (id bigint PRIMARY KEY, note text);
    CREATE TABLE public.day (id int, at date) PARTITION BY RANGE (at);
    CREATE TABLE public.day_1 PARTITION OF public.day FOR VALUES FROM ('2027-01-01') TO ('2027-01-02');
    CREATE INDEX notes ON public.orders (note);
    CREATE VIEW public.short AS SELECT id FROM public.orders;
    CREATE MATERIALIZED VIEW public.total AS SELECT count(*) AS n FROM public.orders;
    CREATE UNIQUE INDEX ON public.total (n);
    CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER touch BEFORE UPDATE ON public.orders FOR EACH ROW EXECUTE FUNCTION public.touch();
    CREATE TYPE public.mood AS ENUM ('sad');
    CREATE PUBLICATION others FOR TABLE public.orders;
"""

# Statement, command tag, object as it is named.
GUARDED = [
    ("CREATE TABLE public.made (id int)", "CREATE TABLE", "table public.made"),
    ("CREATE TABLE public.copied AS SELECT 1 AS one", "CREATE TABLE AS", "table public.copied"),
    ("SELECT 1 AS one INTO public.selected", "SELECT INTO", "table public.selected"),
    ('CREATE TABLE public."It\'s %s; --" (id int)', "CREATE TABLE", 'table public."It\'s %s; --"'),
    ("CREATE TABLE public.day_2 PARTITION OF public.day FOR VALUES FROM ('2027-01-02') TO ('2027-01-03')", "CREATE TABLE", "table public.day_2"),
    ("ALTER TABLE public.orders ADD COLUMN price numeric DEFAULT 7", "ALTER TABLE", "table public.orders"),
    ("ALTER TABLE public.orders DROP COLUMN note", "ALTER TABLE", "table public.orders"),
    ("ALTER TABLE public.orders ALTER COLUMN note TYPE varchar(9)", "ALTER TABLE", "table public.orders"),
    ("ALTER TABLE public.orders RENAME TO sales", "ALTER TABLE", "table public.sales"),
    ("ALTER TABLE public.orders DISABLE TRIGGER touch", "ALTER TABLE", "table public.orders"),
    ("DROP TABLE public.day_1", "DROP TABLE", "table public.day_1"),
    ("DROP SCHEMA public CASCADE", "DROP SCHEMA", "schema public"),
    ("CREATE INDEX more ON public.orders (note)", "CREATE INDEX", "index public.more"),
    ("DROP INDEX public.notes", "DROP INDEX", "index public.notes"),
    ("CREATE OR REPLACE VIEW public.short AS SELECT id FROM public.orders WHERE id > 0", "CREATE VIEW", "view public.short"),
    ("CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "CREATE FUNCTION", "function public.f()"),
    ("CREATE TRIGGER again BEFORE UPDATE ON public.orders EXECUTE FUNCTION public.touch()", "CREATE TRIGGER", "trigger again on public.orders"),
    ("DROP TRIGGER touch ON public.orders", "DROP TRIGGER", "trigger touch on public.orders"),
    ("ALTER TYPE public.mood ADD VALUE 'happy'", "ALTER TYPE", "type public.mood"),
    ("CREATE SCHEMA app", "CREATE SCHEMA", "schema app"),
    ("CREATE SEQUENCE public.s", "CREATE SEQUENCE", "sequence public.s"),
    ("CREATE POLICY p ON public.orders", "CREATE POLICY", "policy p on public.orders"),
    ("GRANT SELECT ON public.orders TO PUBLIC", "GRANT", "table"),
    ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC", "ALTER DEFAULT PRIVILEGES", "tables"),
    ("CREATE EXTENSION pg_trgm SCHEMA public", "CREATE EXTENSION", "extension pg_trgm"),
    ("DO $do$ BEGIN EXECUTE 'CREATE TABLE public.inner_one (id int)'; END $do$", "CREATE TABLE", "table public.inner_one"),
]
FREE = [
    "CREATE TEMP TABLE t (id serial PRIMARY KEY, note text DEFAULT 'x' CHECK (note <> '')); CREATE INDEX ON t (note); ALTER TABLE t ADD COLUMN more int; "
    "ALTER TABLE t ALTER COLUMN note DROP DEFAULT; CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION public.touch(); "
    "DROP TRIGGER g ON t; ALTER TABLE t DROP COLUMN more; DROP TABLE t",
    "CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1 AS one; CREATE TEMP VIEW v AS SELECT * FROM t; CREATE TEMP SEQUENCE s; "
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; SELECT 1 AS x INTO TEMP u",
    "REFRESH MATERIALIZED VIEW public.total",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY public.total",
    "REINDEX TABLE public.orders",
    "COMMENT ON TABLE public.orders IS 'told'",
    "CREATE ROLE ddl_guard_somebody; ALTER ROLE ddl_guard_somebody CONNECTION LIMIT 3; DROP ROLE ddl_guard_somebody",
    "CREATE PUBLICATION mine FOR TABLE public.orders; ALTER PUBLICATION mine ADD TABLE public.day_1; DROP PUBLICATION mine",
    "CREATE TABLE IF NOT EXISTS public.orders (id int); DROP TABLE IF EXISTS public.absent; CREATE INDEX IF NOT EXISTS notes ON public.orders (note)",
    "CREATE TABLE ha_migration.ours (id int); ALTER TABLE ha_migration.ours ADD COLUMN n int; DROP TABLE ha_migration.ours",
    "TRUNCATE public.orders; ANALYZE public.orders; INSERT INTO public.orders VALUES (1, 'x'); LOCK TABLE public.orders",
]


class Side:
    """A database with the application, the migration's schema, and the slot of the link when it follows."""

    def __init__(self, server: t.Any, folder: t.Any) -> None:
        self.name = f"ddl_guard_{os.getpid()}"
        server.create_database(self.name)
        self.service_file = server.services(folder / "pg_service.conf", source=self.name, target=self.name)
        self.ours, self.application = self.open("ha_migration test"), self.open("shop")
        schema.ensure_schema(self.ours)
        client.query(self.ours, APPLICATION)

    def open(self, application_name: str) -> t.Any:
        """An autocommit session."""
        return client.connect(self.service_file, "source", application_name=application_name)

    def follow(self, name: str = schema.FORWARD_LINK) -> None:
        """Somebody follows, as far as this side can see."""
        client.query(self.ours, "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))

    def guard(self, check_mode: bool = False, **options: t.Any) -> t.Any:
        """Run the module."""
        defaults = {name: option.get("default") for name, option in migration_ddl_guard.argument_spec().items()}
        return migration_ddl_guard.run({**defaults, "service_file": self.service_file, "service": "source", "migration": "move", **options}, check_mode)

    def recorded(self, connection: t.Any) -> list[tuple[str, str, str]]:
        """Rows as this session sees them."""
        return [(row["role"], row["command"], row["object"]) for row in ddl_guard.read_recorded(connection, limit=20)]


@pytest.fixture(scope="module")
def database(postgresql_server: t.Any, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Side]:
    """One database for all tests here."""
    made = Side(postgresql_server, tmp_path_factory.mktemp("ddl"))
    yield made
    made.ours.close()
    made.application.close()
    admin = client.connect(postgresql_server.service_file, "source", application_name="test")
    client.query(admin, f"DROP DATABASE {made.name} WITH (FORCE)")
    admin.close()


@pytest.fixture
def side(database: Side) -> t.Iterator[Side]:
    """The target follows and no guard stands yet; whatever a test leaves is taken away."""
    database.follow()
    yield database
    database.guard(state="absent")
    client.query(database.ours, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()")
    client.query(database.ours, "DELETE FROM ha_migration.ddl")


def undone(connection: t.Any, statement: str, look: t.Callable[[], t.Any]) -> t.Any:
    """What can be seen after a statement in its transaction, which is rolled back."""
    client.query(connection, "BEGIN")
    try:
        client.query(connection, statement)
        return look()
    finally:
        client.query(connection, "ROLLBACK")


@pytest.mark.parametrize(("statement", "command", "thing"), GUARDED, ids=[statement[:50] for statement, _command, _thing in GUARDED])
def test_ddl_is_recorded_or_refused(side: Side, statement: str, command: str, thing: str) -> None:
    side.guard(policy="detect")
    assert undone(side.application, statement, lambda: side.recorded(side.application)) == [("postgres", command, thing)]
    side.guard(policy="refuse")
    with pytest.raises(ClientError) as refused:
        undone(side.application, statement, lambda: None)
    assert refused.value.details["sqlstate"] == "55000"
    assert f"DDL is refused while migration move follows this database: {command} ({thing})" in refused.value.message
    assert "HINT: Wait until the clients have moved." in refused.value.message and "pg_ha_ddl_policy to detect" in refused.value.message
    assert side.recorded(side.ours) == []


@pytest.mark.parametrize("statement", FREE, ids=[statement[:40] for statement in FREE])
@pytest.mark.parametrize("policy", ddl_guard.POLICIES)
def test_what_is_no_part_of_the_fingerprint_passes(side: Side, policy: str, statement: str) -> None:
    side.guard(policy=policy)
    assert undone(side.application, statement, lambda: side.recorded(side.application)) == []


def test_an_index_that_is_built_concurrently_is_refused_before_and_not_after_it_is_built(side: Side) -> None:
    invalid = "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relname IN ('slow', 'notes') AND NOT i.indisvalid"
    side.guard(policy="refuse")
    for statement in (
        "CREATE INDEX CONCURRENTLY slow ON public.orders (id, note)",
        "create unique index\n  concurrently if not exists slow ON public.orders (id, note)",
        "DROP INDEX CONCURRENTLY public.notes",
        "ALTER TABLE public.day DETACH PARTITION public.day_1 CONCURRENTLY",
    ):
        with pytest.raises(ClientError, match="DDL is refused"):
            client.query(side.application, statement)
        assert client.query_value(side.ours, invalid) == 0
        assert client.query_value(side.ours, "SELECT count(*) FROM pg_inherits WHERE inhdetachpending") == 0
    assert client.query_value(side.ours, "SELECT to_regclass('public.slow') IS NULL AND to_regclass('public.notes') IS NOT NULL")
    side.guard(policy="detect")
    client.query(side.application, "CREATE INDEX CONCURRENTLY slow ON public.orders (id, note)")
    client.query(side.application, "DROP INDEX CONCURRENTLY public.slow")
    assert side.recorded(side.ours) == [("postgres", "CREATE INDEX", "index public.slow"), ("postgres", "DROP INDEX", "index public.slow")]


@pytest.mark.parametrize("policy", ddl_guard.POLICIES)
def test_a_role_without_any_right_on_our_schema_meets_the_same_guard(side: Side, policy: str) -> None:
    client.query(side.ours, "CREATE ROLE ddl_guard_owner LOGIN; GRANT CREATE ON SCHEMA public TO ddl_guard_owner")
    try:
        side.guard(policy=policy)
        owner = client.connect(side.service_file, "source", application_name="shop", user="ddl_guard_owner")
        # Whatever a session has set does not change what the guard's words mean.
        client.query(owner, "SET standard_conforming_strings = off; SET escape_string_warning = off; SET search_path = public")
        client.query(owner, "CREATE TEMP TABLE t (id int)")
        if policy == "refuse":
            with pytest.raises(ClientError, match="DDL is refused"):
                client.query(owner, "CREATE TABLE public.owned (id int)")
            with pytest.raises(ClientError, match="DDL is refused .* concurrently"):
                client.query(owner, "CREATE INDEX CONCURRENTLY slow ON public.orders (id)")
        else:
            client.query(owner, "CREATE TABLE public.owned (id int); DROP TABLE public.owned")
            expected = [("ddl_guard_owner", "CREATE TABLE", "table public.owned"), ("ddl_guard_owner", "DROP TABLE", "table public.owned")]
            assert side.recorded(side.ours) == expected
        owner.close()
    finally:
        client.query(side.ours, "DROP OWNED BY ddl_guard_owner; DROP ROLE ddl_guard_owner")


def test_no_statement_is_kept(side: Side) -> None:
    side.guard()
    client.query(side.application, "ALTER TABLE public.orders ADD COLUMN secret text DEFAULT 's3cret'; ALTER TABLE public.orders DROP COLUMN secret")
    kept = client.query(side.ours, "SELECT d::text AS row FROM ha_migration.ddl d")
    assert len(kept) == 2 and not [row for row in kept if "s3cret" in row["row"]]


@pytest.mark.parametrize("policy", ddl_guard.POLICIES)
def test_our_own_sessions_pass(side: Side, policy: str) -> None:
    side.guard(policy=policy)
    client.query(side.ours, "CREATE TABLE public.ours (id int PRIMARY KEY); GRANT SELECT ON ha_migration.epoch TO pg_monitor")
    guards.install_guards(side.ours, schema.GuardPermissive())
    client.query(side.ours, "CREATE PUBLICATION ha_migration_forward FOR TABLE public.orders; DROP PUBLICATION ha_migration_forward; DROP TABLE public.ours")
    client.query(side.ours, "DROP TRIGGER ha_migration_guard ON public.orders; REVOKE SELECT ON ha_migration.epoch FROM pg_monitor")
    assert side.recorded(side.ours) == []


def test_it_hinders_nobody_when_nothing_follows(side: Side) -> None:
    side.guard(policy="refuse")
    client.query(side.ours, "SELECT pg_drop_replication_slot(%s)", (schema.FORWARD_LINK,))
    client.query(side.application, "CREATE TABLE public.free (id int); DROP TABLE public.free")
    # The other direction's slot is no reason on this side, and the reason on the other one.
    side.follow(schema.REVERSE_LINK)
    client.query(side.application, "CREATE TABLE public.free (id int); DROP TABLE public.free")
    side.guard(policy="refuse", service="target")
    with pytest.raises(ClientError, match="DDL is refused"):
        client.query(side.application, "CREATE TABLE public.free (id int)")
    side.guard(state="absent", service="target")
    client.query(side.application, "CREATE TABLE public.free (id int); DROP TABLE public.free")


def test_the_module_predicts_makes_repairs_and_removes(side: Side) -> None:
    triggers = "SELECT count(*) FROM pg_event_trigger WHERE evtname LIKE 'ha_migration%'"
    predicted = side.guard(check_mode=True)
    assert (predicted.changed, predicted.before, predicted.after) == (True, {"policy": None}, {"policy": "detect"})
    assert client.query_value(side.ours, triggers) == 0
    first = side.guard()
    assert first.result["actions"] == predicted.result["actions"] and first.result["guard"] == {"policy": "detect", "notice": ""}
    assert not any("BEGIN" in action for action in first.result["actions"])
    assert client.query_value(side.ours, triggers) == len(ddl_guard.TRIGGERS)
    again = side.guard()
    assert (again.changed, again.before, again.after) == (False, {"policy": "detect"}, {"policy": "detect"})
    changed = side.guard(policy="refuse")
    assert (changed.before, changed.after, len(changed.result["actions"])) == ({"policy": "detect"}, {"policy": "refuse"}, 1)
    client.query(side.ours, "ALTER EVENT TRIGGER ha_migration_ddl_end DISABLE; DROP EVENT TRIGGER ha_migration_ddl_drop")
    repaired = side.guard(policy="refuse")
    assert repaired.before == {"policy": None} and len(repaired.result["actions"]) == 3
    assert not side.guard(policy="refuse").changed
    assert side.guard(state="absent", check_mode=True).changed and side.guard(policy="refuse").changed is False
    gone = side.guard(state="absent")
    assert (gone.changed, gone.before, gone.after) == (True, {"policy": "refuse"}, {"policy": None})
    assert client.query_value(side.ours, triggers) == 0 and not side.guard(state="absent").changed


def test_a_schema_of_an_earlier_version_gets_its_table(side: Side) -> None:
    client.query(side.ours, "DROP TABLE ha_migration.ddl")
    assert ddl_guard.read_recorded(side.ours) == []
    assert side.guard().result["actions"][0].startswith("CREATE TABLE ha_migration.ddl")
    undone(side.application, "CREATE SCHEMA app", lambda: None)
    assert not side.guard().changed


def test_a_schema_that_goes_takes_the_guard_along(side: Side) -> None:
    side.guard(policy="refuse")
    undone(side.application, "DROP SCHEMA ha_migration CASCADE; CREATE TABLE public.free (id int)", lambda: None)


def test_where_no_event_trigger_may_be_made_that_is_said(side: Side) -> None:
    client.query(side.ours, "CREATE ROLE ddl_guard_limited LOGIN")
    try:
        file = f"{side.service_file}.limited"
        with open(side.service_file, encoding="utf-8") as known, open(file, "w", encoding="utf-8") as limited:
            limited.write(known.read().replace("user=postgres", "user=ddl_guard_limited"))
        found = side.guard(service_file=file)
        assert not found.changed and found.result["guard"]["policy"] is None
        assert found.result["guard"]["notice"].startswith("The administrator of the source may not make event triggers")
        with pytest.raises(PlanError, match="DDL cannot be refused. The administrator of the source .* Set pg_ha_ddl_policy to detect"):
            side.guard(service_file=file, policy="refuse")
        assert side.guard(service_file=file, state="absent").result["guard"]["notice"] == ""
        # A service lets members of its role, and is asked by trying: this server does not.
        client.query(side.ours, "CREATE ROLE rds_superuser; GRANT rds_superuser TO ddl_guard_limited, CURRENT_USER")
        assert side.guard(service_file=file, check_mode=True).result["guard"]["notice"].startswith("The administrator of the source may not")
        assert ddl_guard._is_let(side.ours) and client.query(side.ours, "SELECT FROM pg_event_trigger WHERE evtname = 'ha_migration_try'") == []
    finally:
        client.query(side.ours, "DROP ROLE IF EXISTS rds_superuser; DROP ROLE ddl_guard_limited")


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="no name of a migration"):
        ddl_guard.function_body(ddl_guard.Wanted("source", "it's", "detect"))


def test_the_fingerprint_does_not_know_it(side: Side) -> None:
    before = read_fingerprint(side.ours)
    side.guard(policy="refuse")
    after = read_fingerprint(side.ours)
    assert after.sha256 == before.sha256 and compare_fingerprints(before, after).mismatches == []


def context(side: Side, differences: list[str], parity: dict[str, t.Any] | None = None, objects: tuple[str, ...] = ("table public.late",)) -> gates.Context:
    """What the gate of the schemas looks at."""
    values: dict[str, t.Any] = dict.fromkeys(gates.Context.__dataclass_fields__)
    return gates.Context(
        **{**values, "here": side.ours, "leaves": "source", "parity": parity, "compare_schema": lambda: gates.Schemas(differences, {}, frozenset(objects))}
    )


def test_what_was_recorded_since_the_last_comparison_stops_the_cutover(side: Side) -> None:
    side.guard()
    client.query(side.application, "CREATE TABLE public.late (id int)")
    try:
        failures = gates.evaluate(context(side, ["table public.late: is missing on the target"]), [gates.schema_in_step])
        assert [failure["object"] for failure in failures] == ["", "table public.late"]
        assert "role postgres ran CREATE TABLE on the source: table public.late" in failures[1]["message"]
        assert gates.evaluate(context(side, []), [gates.schema_in_step]) == []
        # What leaves no difference: altered back, or printed differently by the other side's major.
        assert len(gates.evaluate(context(side, [], {"started_at": "2001-01-01T00:00:00Z"}), [gates.schema_in_step])) == 1
        # A table that is gone again has no rows that could be lost.
        assert gates.evaluate(context(side, [], {"started_at": "2001-01-01T00:00:00Z"}, objects=()), [gates.schema_in_step]) == []
        assert gates.evaluate(context(side, [], {"started_at": "2101-01-01T00:00:00Z"}), [gates.schema_in_step]) == []
        # What came before the last comparison, which was equal then, is not what differs now.
        assert len(gates.evaluate(context(side, ["x"], {"started_at": "2001-01-01T00:00:00Z"}), [gates.schema_in_step])) == 2
        assert len(gates.evaluate(context(side, ["x"], {"started_at": "2101-01-01T00:00:00Z"}), [gates.schema_in_step])) == 1
    finally:
        client.query(side.ours, "DROP TABLE public.late")


def test_it_goes_when_the_link_is_retired(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    side.guard(policy="refuse")
    retired = []
    monkeypatch.setattr(settle, "retire_link", lambda ahead, here, name: retired.append((name, ddl_guard.policy_of(ddl_guard.read_guard(here)))))
    for _again in range(2):
        bring.ByLink(way_back.NoWayBack()).retire(side.ours, side.ours, "target")
    assert retired == [(schema.FORWARD_LINK, None)] * 2
