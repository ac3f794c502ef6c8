# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gates, each by itself, between two databases of a real server."""

from __future__ import annotations

import functools
import os
import time
import typing as t
from dataclasses import replace

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import GateError, UnknownState
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import gates, schema, section, sequences, settle
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.fingerprint import read_fingerprint
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client, scram
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import roles
from ansible_collections.freight.pg_ha.plugins.modules import cutover

APPLICATION = "CREATE TABLE public.orders (id bigint PRIMARY KEY, note text); CREATE VIEW public.short AS SELECT id FROM public.orders"


class Sides:
    """Two databases with the same application."""

    def __init__(self, server: t.Any, folder: t.Any) -> None:
        self.names = {side: f"gates_{side}_{os.getpid()}" for side in ("source", "target")}
        for name in self.names.values():
            server.create_database(name)
        self.service_file = server.services(folder / "pg_service.conf", **self.names)
        self.by_side = {side: self.open(side) for side in self.names}
        self.source, self.target = self.by_side["source"], self.by_side["target"]
        for session in self.by_side.values():
            schema.ensure_schema(session)
            client.query(session, APPLICATION)

    def open(self, side: str, **connection: t.Any) -> t.Any:
        """An autocommit session."""
        return client.connect(self.service_file, side, application_name="ha_migration test", **connection)

    def on_both(self, statement: str) -> None:
        """Run a statement on both sides."""
        for session in self.by_side.values():
            client.query(session, statement)

    def evidence(self, **changes: t.Any) -> dict[str, t.Any]:
        """What a comparison of all rows would leave that ended just now."""
        return {
            "serves": "source",
            "started_at": "2001-01-01T00:00:00+00:00",
            "mismatches": [],
            "age_seconds": 1.0,
            "system_identifier": str(client.query_value(self.target, "SELECT system_identifier FROM pg_control_system()")),
            "timeline": section.read_durability(self.target)["timeline"],
            "source": {"lsn": "0/0"},
            "fingerprint": {side: read_fingerprint(session).summary() for side, session in self.by_side.items()},
            **changes,
        }

    def failures(self, gate: gates.Gate, **values: t.Any) -> list[tuple[str, str]]:
        """(object, message) of what one gate says on the way to the target."""
        given: dict[str, t.Any] = dict.fromkeys(gates.Context.__dataclass_fields__)
        given.update(here=self.source, ahead=self.target, leaves="source", serves="target", parity_max_age_seconds=60, roles=())
        given["compare_schema"] = lambda: cutover.compare_schemas(self.by_side)
        return [(failure["object"], failure["message"]) for failure in gates.evaluate(gates.Context(**{**given, **values}), [gate])]


@pytest.fixture(scope="module")
def both(postgresql_server: t.Any, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Sides]:
    """The two databases for all tests here."""
    made = Sides(postgresql_server, tmp_path_factory.mktemp("gates"))
    yield made
    for session in made.by_side.values():
        session.close()
    admin = client.connect(postgresql_server.service_file, "source", application_name="test")
    for name in made.names.values():
        client.query(admin, f"DROP DATABASE {name} WITH (FORCE)")
    admin.close()


@pytest.fixture
def sides(both: Sides) -> t.Iterator[Sides]:
    """Both sides; what a test alters is rolled back."""
    both.on_both("BEGIN")
    yield both
    both.on_both("ROLLBACK")


def test_a_comparison_does_not_outlive_a_change_of_the_schema(sides: Sides) -> None:
    evidence = sides.evidence()
    assert sides.failures(gates.parity, parity=evidence) == []
    # Each side numbers the rows in its own order, and afterwards both schemas are equal.
    sides.on_both("ALTER TABLE public.orders ADD COLUMN n bigserial")
    found = sides.failures(gates.parity, parity=evidence)
    assert [side for side, _message in found] == ["source", "target"] and "its schema changed after the last comparison began" in found[0][1]
    assert sides.failures(gates.schema_in_step, parity=evidence) == []


@pytest.fixture
def limited(both: Sides) -> t.Iterator[t.Any]:
    """A session on the source of an administrator who may not see others' sessions."""
    client.query(both.source, "CREATE ROLE gates_limited LOGIN")
    session = both.open("source", user="gates_limited")
    yield session
    session.close()
    client.query(both.source, "DROP ROLE gates_limited")


def test_what_cannot_be_seen_is_not_quiet(both: Sides, limited: t.Any) -> None:
    busy = client.connect(both.service_file, "source", application_name="shop")
    client.query(busy, "BEGIN; SELECT 1")
    time.sleep(0.1)
    try:
        words = "its administrator does not see what other sessions do, so nobody knows what would stand in the fence's way"
        assert both.failures(gates.quiet, here=limited, long_transaction_seconds=0.05) == [("source", words)]
        with pytest.raises(UnknownState, match="cannot be seen. .* GRANT pg_monitor TO gates_limited there"):
            settle.end_sessions(limited, ["postgres"])
        client.query(both.source, "GRANT pg_monitor TO gates_limited")
        assert [one.split()[0] for one, _message in both.failures(gates.quiet, here=limited, long_transaction_seconds=0.05)] == ["pid"]
    finally:
        busy.close()


def test_administrators_are_no_application_roles(both: Sides) -> None:
    """A service's administrator is neither superuser nor replicates: the decision would take its login away."""
    names = [f"gates_{what}" for what in ("here", "there", "shop")]
    client.query(both.source, "; ".join(f"CREATE ROLE {name} LOGIN" for name in names))
    here, there = both.open("source", user=names[0]), both.open("target", user=names[1])
    try:
        assert set(settle.application_roles(here, there, (), ())) & set(names) == {"gates_shop"}
        assert settle.application_roles(here, there, ["gates_shop"], ()) == ("gates_shop",)
        with pytest.raises(GateError, match="names gates_there, which the migration itself logs in as"):
            settle.application_roles(here, there, ["gates_shop", "gates_there"], ())
    finally:
        here.close()
        there.close()
        client.query(both.source, "; ".join(f"DROP ROLE {name}" for name in names))


def test_a_given_password_is_tried_where_a_server_shows_none(both: Sides, limited: t.Any) -> None:
    """A comment says which one we have given, and not whether somebody has set another since."""
    if not client.query(both.source, "SELECT FROM pg_roles WHERE rolname = 'with_password'"):
        client.query(both.source, "CREATE ROLE with_password")
    client.query(both.source, "CREATE ROLE gates_shop NOLOGIN PASSWORD 'old' IN ROLE with_password")
    verifier = client.query_value(both.source, "SELECT rolpassword FROM pg_authid WHERE rolname = 'gates_shop'")
    client.query(both.source, f"COMMENT ON ROLE gates_shop IS '{scram.mark(verifier)}'; ALTER ROLE gates_shop PASSWORD 'new'")

    # As the mover's service file has it, which a role that only reads would not get past.
    file = f"{both.service_file}.writes"
    with open(both.service_file, encoding="utf-8") as known, open(file, "w", encoding="utf-8") as writes:
        writes.write(known.read().replace("user=postgres", "user=postgres\ntarget_session_attrs=read-write"))

    def passwords(given: dict[str, str]) -> list[str]:
        try_it = functools.partial(client.is_password_of, file)
        return [message for _role, message in both.failures(gates.passwords, here=limited, roles=("gates_shop",), passwords=given, is_password_of=try_it)]

    try:
        # Without one the comment is all that there is.
        assert passwords({}) == ["its password on the target is not known to be that on the source"]
        assert passwords({"gates_shop": "new"}) == []
        client.query(both.source, "ALTER ROLE gates_shop LOGIN; ALTER ROLE gates_shop SET default_transaction_read_only = on")
        assert passwords({"gates_shop": "new"}) == []
        assert passwords({"gates_shop": "old"}) == [f"its password on the {side} is not the one of pg_ha_application_passwords" for side in both.names]
    finally:
        client.query(both.source, "DROP ROLE gates_shop")


def test_an_administrator_that_may_not_become_a_role_is_no_broken_fence(both: Sides, limited: t.Any) -> None:
    client.query(both.source, "CREATE ROLE gates_shop LOGIN")
    words = "the administrator of the source may not become it, so that it could not be proved afterwards that its writes are refused"
    try:
        assert both.failures(gates.refusal, here=limited, roles=("gates_shop",)) == [("gates_shop", words)]
        with pytest.raises(UnknownState, match="No write can be tried as gates_shop .* GRANT gates_shop TO gates_limited there"):
            settle.prove_refusal(limited, ("gates_shop",))
        client.query(both.source, "GRANT gates_shop TO gates_limited")
        assert both.failures(gates.refusal, here=limited, roles=("gates_shop",)) == []
        # Nothing is closed here, so that a write is accepted: that is a broken fence.
        with pytest.raises(GateError, match="The fence does not hold for postgres"):
            settle.prove_refusal(both.source, ("gates_shop",))
    finally:
        client.query(both.source, "DROP ROLE gates_shop")


def test_a_materialized_view_is_refreshed_after_those_that_it_reads(sides: Sides) -> None:
    client.query(
        sides.target,
        "CREATE MATERIALIZED VIEW public.d AS SELECT count(*) AS n FROM public.orders; CREATE VIEW public.c AS SELECT n FROM public.d; "
        "CREATE MATERIALIZED VIEW public.b AS SELECT n FROM public.c; CREATE MATERIALIZED VIEW public.a AS SELECT n FROM public.b; "
        "CREATE MATERIALIZED VIEW public.e AS SELECT n FROM public.d WITH NO DATA; INSERT INTO public.orders VALUES (1)",
    )
    # One of them was filled on the side that is left after the copy; nobody has ever filled the other one.
    client.query(
        sides.source,
        "CREATE MATERIALIZED VIEW public.e AS SELECT count(*) AS n FROM public.orders; CREATE MATERIALIZED VIEW public.f AS SELECT 1 AS n WITH NO DATA",
    )
    client.query(sides.target, "CREATE MATERIALIZED VIEW public.f AS SELECT 1 AS n WITH NO DATA")
    assert settle.refresh_views(sides.source, sides.target) == 4
    populated = "SELECT string_agg(relname, '' ORDER BY relname) FROM pg_class WHERE relkind = 'm' AND relispopulated"
    assert client.query_value(sides.target, populated) == "abde"
    assert client.query_value(sides.target, "SELECT (SELECT n FROM public.a) + (SELECT n FROM public.b) + (SELECT n FROM public.d)") == 3


def test_a_role_that_another_database_needs_is_no_applications_unless_somebody_says_so(both: Sides) -> None:
    """Roles are the whole server's: with the decision it could not log in there any more."""
    client.query(both.source, "CREATE ROLE gates_shop LOGIN; CREATE ROLE gates_wiki LOGIN")
    # The target's database is another one of the same server.
    client.query(both.target, "CREATE TABLE public.wiki (id int); ALTER TABLE public.wiki OWNER TO gates_wiki")
    try:
        found = both.failures(gates.applications, roles=("gates_shop", "gates_wiki"), roles_declared=False)
        words = f"database {both.names['target']} of the source needs it too, and after the cutover it could not log in on that server any more"
        assert found == [("gates_wiki", words)]
        assert both.failures(gates.applications, roles=("gates_shop", "gates_wiki"), roles_declared=True) == []
    finally:
        client.query(both.target, "DROP TABLE public.wiki")
        client.query(both.source, "DROP ROLE gates_shop; DROP ROLE gates_wiki")


def test_what_else_differs_of_roles_that_log_in_is_told(both: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are databases of one server, so that what the target has is changed as it is read."""
    client.query(
        both.source, "CREATE ROLE gates_staff; CREATE ROLE gates_shop LOGIN IN ROLE gates_staff; CREATE ROLE gates_auth LOGIN; CREATE ROLE gates_cron LOGIN"
    )
    plain, changes = roles.read_side, [True]

    def as_on_two_servers(connection: t.Any, database: str) -> t.Any:
        side = plain(connection, database)
        if connection is both.target and changes:
            side.roles["gates_shop"] = replace(side.roles["gates_shop"], valid_until="2001-01-01", verifier="another")
            # As a roll back has left it: the cutover gives that back.
            side.roles["gates_shop"].attributes["rolcanlogin"] = False
            side.roles["gates_auth"] = replace(side.roles["gates_auth"], verifier="another")
            side.roles["gates_cron"].attributes["rolcanlogin"] = False
            del side.memberships["gates_staff", "gates_shop"]
        return side

    monkeypatch.setattr(roles, "read_side", as_on_two_servers)

    def compare() -> list[str]:
        return cutover.compare_roles(both.source, both.target, ("gates_shop",), ["gates_auth"])

    try:
        # Of the password of an application another gate tells; who is none of them is nobody's matter.
        told = ['ALTER ROLE "gates_auth" PASSWORD NULL', """ALTER ROLE "gates_shop" VALID UNTIL 'infinity'""", 'GRANT "gates_staff" TO "gates_shop"']
        assert [one.split(" WITH ")[0] for one in compare()] == told
        found = both.failures(gates.roles_in_step, compare_roles=compare)
        assert [message for _object, message in found][0] == f"the target lacks: {told[0]}" and len(found) == 3
        changes.clear()
        assert compare() == [] and both.failures(gates.roles_in_step, compare_roles=compare) == []
        assert both.failures(gates.roles_in_step) == []
    finally:
        client.query(both.source, "DROP ROLE gates_shop; DROP ROLE gates_staff; DROP ROLE gates_auth; DROP ROLE gates_cron")


def test_a_role_that_would_see_fewer_rows_is_named(both: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    client.query(both.source, "CREATE ROLE gates_shop LOGIN BYPASSRLS")
    # Both are databases of one server, so that a role is the same on both: on the target another one has its name.
    query = client.query

    def other(connection: t.Any, statement: str, parameters: t.Any = None) -> list[dict[str, t.Any]]:
        return [] if connection is both.target and "rolbypassrls" in statement else query(connection, statement, parameters)

    try:
        monkeypatch.setattr(gates.client, "query", other)
        assert both.failures(gates.row_security, roles=("gates_shop",)) == []
        query(both.target, "ALTER TABLE public.orders ENABLE ROW LEVEL SECURITY")
        words = "it bypasses row level security on the source and not on the target, where it would see fewer rows"
        assert both.failures(gates.row_security, roles=("gates_shop",)) == [("gates_shop", words)]
        monkeypatch.undo()
        assert both.failures(gates.row_security, roles=("gates_shop",)) == []
    finally:
        client.query(both.target, "ALTER TABLE public.orders DISABLE ROW LEVEL SECURITY; DROP ROLE gates_shop")


def test_a_number_that_the_source_will_hand_out_next_is_handed_out_by_the_target(sides: Sides) -> None:
    sides.on_both("CREATE SEQUENCE public.bill; CREATE SEQUENCE public.down INCREMENT -5; CREATE SEQUENCE public.unused; SELECT nextval('public.bill')")
    client.query(sides.source, "ALTER SEQUENCE public.bill RESTART WITH 1000000; SELECT setval('public.down', -400, false)")
    assert sequences.move_ahead(sides.source, sides.target, margin=100) == 2 and sequences.move_ahead(sides.source, sides.target) == 0
    following = "SELECT concat_ws(' ', nextval('public.bill'), nextval('public.down'), nextval('public.unused'))"
    assert client.query_value(sides.target, following) == client.query_value(sides.source, following) == "1000000 -400 1"
