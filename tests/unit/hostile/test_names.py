# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names with quotes, percent signs, line breaks and SQL in them: real servers and poolers take each of them for what it is."""

from __future__ import annotations

import os
import pathlib
import time
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError
from ansible_collections.freight.pg_ha.plugins.module_utils._inventory import plan
from ansible_collections.freight.pg_ha.plugins.module_utils._inventory.model import KEYS
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import guards, roles, schema, section, sequences, settle
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.fingerprint import compare_fingerprints, read_fingerprint
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql.console import read_pooled
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import copy_client, database
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import roles as moved_roles
from ansible_collections.freight.pg_ha.plugins.module_utils._replication.names import identifier, literal, relation, setting
from hypothesis import example, given
from hypothesis import strategies as st

from .conftest import QUICK, SQL, Pgbouncer, declared_names, names, render

if t.TYPE_CHECKING:
    from tests.unit.conftest import Server

RESERVED = ("pg_", "ha_migration")


class Two:
    """Two databases of the server, with our schema."""

    def __init__(self, server: Server, folder: pathlib.Path) -> None:
        self.server = server
        self.databases = {side: f"names_{side}_{os.getpid()}_{time.monotonic_ns()}" for side in ("source", "target")}
        for name in self.databases.values():
            server.create_database(name)
        self.service_file = server.services(folder / "pg_service.conf", **self.databases)
        self.sides = [client.connect(self.service_file, side, application_name="test") for side in ("source", "target")]
        for side in self.sides:
            schema.ensure_schema(side)
        self.before = [self.ours(side) for side in self.sides]

    @staticmethod
    def ours(side: t.Any) -> list[dict[str, t.Any]]:
        """Our schema's tables: a name with SQL in it may have harmed them."""
        return client.query(side, "SELECT relname, relkind FROM pg_class WHERE relnamespace = 'ha_migration'::regnamespace ORDER BY 1")

    def end(self) -> None:
        for side in self.sides:
            client.query(side, "ROLLBACK")
            side.close()
        admin = client.connect(self.server.service_file, "source", application_name="test")
        for name in self.databases.values():
            client.query(admin, f"DROP DATABASE {name} WITH (FORCE)")
        admin.close()


@pytest.fixture(scope="module")
def two(postgresql_server: Server, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Two]:
    made = Two(postgresql_server, tmp_path_factory.mktemp("names"))
    yield made
    made.end()


def usable(name: str) -> bool:
    """Names that begin with these are not for applications."""
    return not name.startswith(RESERVED) and name not in ("public", "information_schema", "none")


four = st.tuples(*[names().filter(usable)] * 4)


@QUICK
@given(four)
@example(("$each$", "$each$", "$each$", "$each$"))
@example(("%s", "%", "%(x)s", "%%"))
@example((SQL[0], SQL[0], SQL[0], SQL[0]))
def test_guards_fence_and_proof_hold_on_a_table_of_any_name(two: Two, given_names: tuple[str, ...]) -> None:
    in_schema, table, column, sequence = given_names
    here, there = two.sides
    if sequence == table:
        sequence = table[:-1] + ("x" if table[-1] != "x" else "y")
    quoted, counter = relation(in_schema, table), relation(in_schema, sequence)
    for side in two.sides:
        client.query(side, f"BEGIN; CREATE SCHEMA {identifier(in_schema)}; CREATE TABLE {quoted} ({identifier(column)} int PRIMARY KEY)")
        client.query(side, f"CREATE SEQUENCE {counter}")
    try:
        client.query(here, f"SELECT setval({literal(counter)}::regclass, 4711)")
        for side in two.sides:
            client.query(side, schema.guard_function(schema.GuardPermissive()))
            client.query(side, guards.install_statement(None))
        assert compare_fingerprints(read_fingerprint(here), read_fingerprint(there)).mismatches == []
        client.query(there, f"ALTER TABLE {quoted} ADD {identifier(column[:-1] + ('z' if column[-1] != 'z' else 'y'))} int")
        assert compare_fingerprints(read_fingerprint(here), read_fingerprint(there)).mismatches
        assert sequences.move_ahead(here, there) == 1 and sequences.move_ahead(here, there) == 0
        tables = [row["name"] for row in guards.read_guarded_tables(here)]
        assert len(tables) == 2 and all(row["guarded"] for row in guards.read_guarded_tables(here))
        client.query(here, f"LOCK TABLE {', '.join(tables)} IN SHARE ROW EXCLUSIVE MODE")
        client.query(here, guards.for_each_table(tables, section.EXPLAIN_PROOF))
        with pytest.raises(ClientError, match="fence does not hold"):
            client.query(here, f"SAVEPOINT s; {guards.for_each_table(tables, guards.proof())}")
        client.query(here, "ROLLBACK TO s")
        client.query(here, schema.guard_function(schema.GuardRefusing(1, "target")))
        client.query(here, guards.for_each_table(tables, guards.proof()))
        assert settle.prove_refusal(here, ()) == {"postgres": 2}
        copied, unlogged, _extension = copy_client.read_tables(here, ())
        assert unlogged == [] and len(copy_client.quote_names(here, copied)) == len(copied) == 1
    finally:
        for side in two.sides:
            client.query(side, "ROLLBACK")
    assert [two.ours(side) for side in two.sides] == two.before


@QUICK
@given(st.tuples(names().filter(usable), names().filter(usable)))
@example(("$each$", "r"))
@example((SQL[0], SQL[1]))
def test_a_role_of_any_name_is_made_moved_and_fenced(two: Two, given_names: tuple[str, str]) -> None:
    ours, application = given_names
    if ours == application:
        application = "x" if ours != "x" else "y"
    here = two.sides[0]
    try:
        client.query(here, f"BEGIN; CREATE TABLE public.plain (id int); CREATE ROLE {identifier(application)} LOGIN")
        for action in roles.plan_role(roles.read_role(here, ours, "dead_man"), ours, "secret", "dead_man"):
            client.query(here, action.statement)
        assert roles.plan_role(roles.read_role(here, ours, "dead_man"), ours, "secret", "dead_man") == []
        quoted = settle.application_roles(here, two.sides[1], [application], [ours])
        assert client.query_value(here, "SELECT ident FROM (SELECT quote_ident(%s) AS ident) AS i", (application,)) == quoted[0]
        client.query(here, guards.install_statement(schema.GuardAwaiting(1, "source")))
        client.query(here, f"GRANT ALL ON public.plain TO {quoted[0]}")
        assert settle.prove_refusal(here, quoted)[quoted[0]] == 2
        client.query(here, f"ALTER ROLE {quoted[0]} NOLOGIN")
        client.query(here, f"ALTER ROLE {identifier(application)} SET {setting('search_path', application.replace(chr(34), '') or 'x')}")
        side = moved_roles.read_side(here, two.databases["source"])
        assert side.roles[application].attributes["rolcanlogin"] is False and ours in side.roles
        empty = moved_roles.Side({}, {})
        planned = moved_roles.plan_roles(side, empty, [name for name in side.roles if name != application], "ha_migration")
        client.query(here, f"DROP OWNED BY {identifier(application)}; DROP ROLE {identifier(application)}")
        for action in planned.actions:
            client.query(here, action.statement)
        assert moved_roles.read_side(here, two.databases["source"]).roles[application].attributes["rolcanlogin"] is False
    finally:
        client.query(here, "ROLLBACK")
    assert two.ours(here) == two.before[0]


@QUICK
@given(declared_names().filter(usable))
@example("a=b")
@example("postgresql://x")
@example('it\'s "x" %s \\ {{ y }}')
def test_a_database_of_any_printable_name_is_reached_by_the_movers_file(postgresql_server: Server, tmp_path: pathlib.Path, name: str) -> None:
    admin = client.connect(postgresql_server.service_file, "source", application_name="test")
    client.query(admin, f"CREATE DATABASE {identifier(name)} TEMPLATE template0")
    try:
        assert reach(tmp_path / "services", service_file(postgresql_server.port, name, "postgres"), "source") == name
        assert database.read_database(admin, name).name == name
    finally:
        client.query(admin, f"DROP DATABASE {identifier(name)} WITH (FORCE)")
        admin.close()


@QUICK
@given(names() | st.text("abcXYZ019_.-", min_size=1, max_size=20))
@example("a-b.c_D9")
@example("9")
def test_a_name_that_the_inventory_lets_through_is_one_that_pgbouncer_takes(pgbouncer: Pgbouncer, name: str) -> None:
    fault = plan.check_text(KEYS["pg_ha_database"], name)
    if fault is not None:
        assert repr(name) in fault[0] or name == "pgbouncer"
        return
    pgbouncer.write([name], "right", "right")
    pgbouncer.say("RELOAD")
    try:
        pooled = read_pooled(pgbouncer.console, name)
        assert pooled is not None and pooled["database"] == name and pooled["pool_mode"] == "transaction"
        for verb, paused in (("PAUSE", 1), ("RESUME", 0)):
            pgbouncer.say(f"{verb} {identifier(name)}")
            assert (read_pooled(pgbouncer.console, name) or {})["paused"] == paused
    finally:
        pgbouncer.write(["postgres"], "right", "right")
        pgbouncer.say("RELOAD")


@pytest.mark.parametrize("name", ["a b", 'a"b', "a=b", "ä", "a;b", "*", "a%b"])
def test_a_name_that_pgbouncer_does_not_take_is_refused_before(pgbouncer: Pgbouncer, name: str) -> None:
    pgbouncer.write([name], "right", "right")
    pgbouncer.say("RELOAD")
    try:
        assert read_pooled(pgbouncer.console, name) is None or name == "*"
        for key in plan.POOLER_NAMES:
            assert plan.check_text(KEYS[key], name) is not None
    finally:
        pgbouncer.write(["postgres"], "right", "right")
        pgbouncer.say("RELOAD")


def service_file(port: int, name: str, user: str) -> str:
    """As role mover writes it, without TLS, which the server of the tests does not speak."""
    variables = {
        "mover_source_host": "127.0.0.1", "mover_source_port": port, "mover_database": name, "mover_source_user": user, "mover_directory": "/nowhere",
        "__mover_passfile": "/nowhere/pgpass", "__mover_target_known": False, "__mover_poolers_known": False,
    }  # fmt: skip
    return (
        render("mover/templates/pg_service.conf.j2", **variables)
        .replace("sslmode=verify-full", "sslmode=disable")
        .replace("sslrootcert=/nowhere/source_ca.crt\n", "")
    )


def reach(path: pathlib.Path, text: str, service: str) -> str:
    """The database that a service leads to."""
    path.write_text(text)
    connection = client.connect(str(path), service, application_name="test")
    try:
        return str(client.query_value(connection, "SELECT current_database()"))
    finally:
        connection.close()
