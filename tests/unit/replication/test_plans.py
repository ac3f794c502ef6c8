# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is decided before anything is written: quoting, roles, database, table of contents, gates, link."""

from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, PlanError
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import schema
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import scram
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql.subscription import Link, subscription_statement
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import copy_plan, database, link_client, link_plan, names, own, roles, toc
from ansible_collections.freight.pg_ha.plugins.module_utils._replication.model import Column, Left, LinkState, Report, Settings, Table
from ansible_collections.freight.pg_ha.plugins.module_utils._replication.programs import Programs

NASTY = 'we""ird %s; --'.replace('""', '"')
VERIFIER = "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy"


@pytest.mark.parametrize(
    ("name", "quoted"),
    [("orders", '"orders"'), (NASTY, '"we""ird %s; --"'), ("Größe", '"Größe"'), ("a.b", '"a.b"'), ("line\nend", '"line\nend"')],
)
def test_identifiers_are_always_quoted(name, quoted):
    assert names.identifier(name) == quoted


@pytest.mark.parametrize(("value", "quoted"), [("x", "'x'"), ("it's", "'it''s'"), ("a\\b", " E'a\\\\b'"), ("", "''"), ("%s", "'%s'")])
def test_literals_mean_the_same_with_any_configuration(value, quoted):
    assert names.literal(value) == quoted


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("", []),
        ("public", ["public"]),
        ('"$user", public', ["$user", "public"]),
        ('"We, ird", "a""b",c', ["We, ird", 'a"b', "c"]),
        ('""', [""]),
    ],
)
def test_list_settings_are_split_into_names(value, parts):
    assert names.split_list(value) == parts


@pytest.mark.parametrize("value", ['"open', '"a" b'])
def test_a_broken_list_is_refused(value):
    with pytest.raises(ValueError):
        names.split_list(value)


@pytest.mark.parametrize(
    ("name", "value", "clause"),
    [
        ("work_mem", "8MB", "\"work_mem\" TO '8MB'"),
        ("search_path", '"$user", public', "\"search_path\" TO '$user', 'public'"),
        ("search_path", "", "\"search_path\" TO ''"),
        ("myapp.tenant", "it's", "\"myapp\".\"tenant\" TO 'it''s'"),
    ],
)
def test_settings(name, value, clause):
    assert names.setting(name, value) == clause


def role(name="app", *, verifier=VERIFIER, known=True, owns=False, settings=None, limit=-1, until=None, **attributes):
    defaults = dict.fromkeys(roles.ATTRIBUTES, False) | {"rolinherit": True, "rolcanlogin": True}
    return roles.Role(name, {**defaults, **attributes}, limit, until, verifier, known, owns, settings or {})


def side(*items, memberships=()):
    return roles.Side({item.name: item for item in items}, {(item.role, item.member): item for item in memberships})


def statements(plan):
    return [action.statement for action in plan.actions]


def plan_roles(source, target, exclude=("admin",), superuser=True):
    return roles.plan_roles(source, target, exclude, "ha_migration", None if superuser else "admin")


def test_a_new_role_is_created_with_its_verifier_which_is_never_shown():
    plan = plan_roles(side(role()), side())
    assert statements(plan) == [f"CREATE ROLE \"app\" NOSUPERUSER INHERIT NOCREATEROLE NOCREATEDB LOGIN NOREPLICATION NOBYPASSRLS PASSWORD '{VERIFIER}'"]
    shown = repr(plan.actions) + repr(plan) + str(plan.wanted["app"].public())
    assert "SCRAM" not in shown and "c3RvcmVk" not in shown


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        (role(), role(), []),
        (role(rolcreatedb=True), role(), ['ALTER ROLE "app" CREATEDB']),
        (role(rolcanlogin=False), role(), ['ALTER ROLE "app" NOLOGIN']),
        (role(limit=5), role(), ['ALTER ROLE "app" CONNECTION LIMIT 5']),
        (role(until="2030-01-01 00:00:00+00"), role(), ["ALTER ROLE \"app\" VALID UNTIL '2030-01-01 00:00:00+00'"]),
        (role(), role(until="2030-01-01 00:00:00+00"), ["ALTER ROLE \"app\" VALID UNTIL 'infinity'"]),
        (role(), role(verifier="other"), [f"ALTER ROLE \"app\" PASSWORD '{VERIFIER}'"]),
        (role(verifier=None), role(), ['ALTER ROLE "app" PASSWORD NULL']),
        # What a side does not let us read is not compared, and nothing is taken away for it.
        (role(verifier=None, known=False), role(), []),
        (role(), role(verifier=None, known=False), []),
        (role(settings={"jit": "on"}), role(settings={"jit": "off", "x.y": "1"}), ['ALTER ROLE "app" SET "jit" TO \'on\'', 'ALTER ROLE "app" RESET "x"."y"']),
        (role(NASTY), None, None),
    ],
)
def test_a_role_that_exists_is_altered_only_where_it_differs(here, there, expected):
    plan = plan_roles(side(here), side(*([there] if there else [])))
    if expected is None:
        assert statements(plan)[0].startswith('CREATE ROLE "we""ird %s; --" ')
    else:
        assert statements(plan) == expected


@pytest.mark.parametrize(
    ("item", "moved"),
    [
        (role("pg_monitor"), False),
        (role("postgres", rolsuper=True), False),
        (role("admin", rolsuper=True), False),
        (role("ha_migration_link", rolreplication=True), False),
        (role("replicator", rolreplication=True), False),
        (role("replicator", rolreplication=True, owns=True), True),
        (role("rdsadmin"), False),
        (role("boss", rolsuper=True, rolreplication=True), True),
        (role("app"), True),
    ],
)
def test_which_roles_are_moved(item, moved):
    plan = plan_roles(side(item), side())
    assert (item.name in plan.wanted) is moved
    assert bool(plan.actions) is moved
    assert moved or item.name.startswith("pg_") or plan.skipped[item.name]


def test_roles_that_only_the_target_has_are_left_alone():
    assert plan_roles(side(), side(role("patroni"), role("old"))).actions == []


def test_what_an_administrator_without_superuser_may_not_give_is_said_and_left_out():
    plan = plan_roles(side(role(rolsuper=True, rolbypassrls=True)), side(), superuser=False)
    assert statements(plan)[0].startswith('CREATE ROLE "app" INHERIT NOCREATEROLE NOCREATEDB LOGIN PASSWORD')
    assert "BYPASSRLS, SUPERUSER" in plan.not_possible[0]
    given = [roles.Membership("app", "admin", True, True, True)]
    assert plan_roles(side(role(rolsuper=True)), side(role(), memberships=given), superuser=False).actions == []


@pytest.mark.parametrize(
    ("there", "tells", "expected"),
    [
        (None, True, ['GRANT "app" TO "admin" WITH INHERIT TRUE, SET TRUE']),
        (None, False, ['GRANT "app" TO "admin"']),
        (roles.Membership("app", "admin", True, False, False), True, ['GRANT "app" TO "admin" WITH INHERIT TRUE, SET TRUE']),  # as its maker has it
        (roles.Membership("app", "admin", True, True, False), True, ['GRANT "app" TO "admin" WITH INHERIT TRUE, SET TRUE']),
        (roles.Membership("app", "admin", False, True, True), True, []),
        (roles.Membership("app", "admin", True), False, []),
    ],
)
def test_an_administrator_without_superuser_becomes_a_member_of_what_is_moved(there, tells, expected):
    target = dataclasses.replace(side(role(), memberships=[there] if there else []), tells_inheritance=tells)
    assert statements(plan_roles(side(role()), target, superuser=False)) == expected
    assert plan_roles(side(role()), target).actions == []


def test_what_the_sources_administrators_own_stays_with_a_role_of_their_name():
    source = side(role(), role("postgres", owns=True, rolsuper=True), role("admin", owns=True, rolsuper=True), role("dba", rolsuper=True))
    plan = plan_roles(source, side(role("admin")), exclude=("admin", "dba"), superuser=False)
    assert [one for one in statements(plan) if "postgres" in one] == [
        'CREATE ROLE "postgres" NOLOGIN',
        'GRANT "postgres" TO "admin" WITH INHERIT TRUE, SET TRUE',
    ]
    assert not any('"dba"' in one or one.startswith('CREATE ROLE "admin"') for one in statements(plan))
    assert not any("postgres" in one for one in statements(plan_roles(source, side(), exclude=("admin", "dba"))))
    given = [roles.Membership(name, "admin", True, True, True) for name in ("app", "postgres")]
    marked = dataclasses.replace(role(verifier=None, known=False), mark=scram.mark(VERIFIER))
    settled = side(marked, role("postgres", rolcanlogin=False), role("admin"), memberships=given)
    assert plan_roles(source, settled, exclude=("admin", "dba"), superuser=False).actions == []


def test_a_target_that_hides_passwords_is_told_which_one_it_was_given():
    plan = plan_roles(side(role()), side(), superuser=False)
    comment = f"COMMENT ON ROLE \"app\" IS '{scram.mark(VERIFIER)}'"
    assert statements(plan)[1] == comment and VERIFIER not in comment
    for mark, due in ((scram.mark(VERIFIER), False), (scram.mark(VERIFIER + "x"), True), (None, True), ("its own comment", True)):
        there = dataclasses.replace(role(verifier=None, known=False), mark=mark)
        done = statements(plan_roles(side(role()), side(there), superuser=False))
        assert (f'ALTER ROLE "app" PASSWORD {names.literal(VERIFIER)}' in done, comment in done) == (due, due)
    assert scram.mark("md5abc") == scram.mark("md5def") != scram.mark(None)


def test_a_new_role_without_a_password_is_marked_at_once_where_nobody_could_see_that_it_has_none():
    comment = f"COMMENT ON ROLE \"app\" IS '{scram.mark(None)}'"
    made = statements(plan_roles(side(role(verifier=None)), side(), superuser=False))
    assert comment in made and not any("PASSWORD" in one for one in made)
    given = [roles.Membership("app", "admin", True, True, True)]
    there = dataclasses.replace(role(verifier=None, known=False), mark=scram.mark(None))
    assert plan_roles(side(role(verifier=None)), side(there, memberships=given), superuser=False).actions == []


def test_passwords_that_need_a_new_one_are_listed():
    plan = plan_roles(side(role("hidden", verifier=None, known=False), role("old", verifier="md5abc"), role("group", rolcanlogin=False)), side())
    assert (plan.without_password, plan.old_password_method) == (["hidden"], ["old"])


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        (roles.Membership("grp", "app"), None, ['GRANT "grp" TO "app"']),
        (roles.Membership("grp", "app", admin=True), None, ['GRANT "grp" TO "app" WITH ADMIN OPTION']),
        (roles.Membership("grp", "app", False, True, False), None, ['GRANT "grp" TO "app" WITH ADMIN FALSE, INHERIT TRUE, SET FALSE']),
        (roles.Membership("grp", "app"), roles.Membership("grp", "app", False, True, True), []),
        (roles.Membership("grp", "app", admin=True), roles.Membership("grp", "app"), ['REVOKE "grp" FROM "app"', 'GRANT "grp" TO "app" WITH ADMIN OPTION']),
        (None, roles.Membership("grp", "app"), ['REVOKE "grp" FROM "app"']),
        (roles.Membership("pg_monitor", "app"), None, ['GRANT "pg_monitor" TO "app"']),
    ],
)
def test_memberships(here, there, expected):
    both = [role("app"), role("grp")]
    source = side(*both, role("pg_monitor"), memberships=[here] if here else [])
    target = side(*both, role("pg_monitor"), memberships=[there] if there else [])
    assert statements(plan_roles(source, target)) == expected


def test_a_membership_in_a_role_that_is_not_moved_is_said():
    plan = plan_roles(side(role("app"), role("admin"), memberships=[roles.Membership("admin", "app")]), side(role("app")))
    assert plan.actions == [] and "admin" in plan.not_possible[0]


PRIVILEGES = frozenset({("", "TEMPORARY", False), ("own", "CREATE", False), ("app", "CONNECT", True)})
BASE = database.Database("freight", "own", "UTF8", "C.UTF-8", "C.UTF-8", "libc", None, -1, None, PRIVILEGES, {})


def plan_database(source, target, moved=("own", "app")):
    before, after, _wanted = database.plan_database(source, target, moved, "admin")
    return [action.statement for action in before + after]


def test_a_new_database_is_made_like_the_sources():
    assert plan_database(BASE, None) == [
        "CREATE DATABASE \"freight\" OWNER \"own\" ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8' TEMPLATE template0",
        'REVOKE CONNECT ON DATABASE "freight" FROM PUBLIC',
        'REVOKE CONNECT ON DATABASE "freight" FROM "own"',
        'REVOKE TEMPORARY ON DATABASE "freight" FROM "own"',
        'GRANT CONNECT ON DATABASE "freight" TO "app" WITH GRANT OPTION',
    ]


def test_the_same_database_is_left_alone_and_what_only_the_target_has_stays():
    extra = dataclasses.replace(BASE, privileges=BASE.privileges | {("ha_migration_probe", "CONNECT", False)})
    assert plan_database(BASE, extra) == []


def test_what_an_existing_database_lacks_is_altered():
    wanted = {("", "work_mem"): "8MB", ("app", "search_path"): "a, b", ("gone", "x"): "1"}
    source = dataclasses.replace(BASE, comment="it's", connection_limit=9, settings=wanted)
    privileges = frozenset({("admin", "CREATE", False), ("", "TEMPORARY", False)})
    target = dataclasses.replace(BASE, owner="admin", settings={("", "jit"): "off"}, privileges=privileges)
    assert plan_database(source, target) == [
        'ALTER DATABASE "freight" OWNER TO "own"',
        'GRANT CONNECT ON DATABASE "freight" TO "app" WITH GRANT OPTION',
        'ALTER DATABASE "freight" CONNECTION LIMIT 9',
        "COMMENT ON DATABASE \"freight\" IS 'it''s'",
        'ALTER DATABASE "freight" SET "work_mem" TO \'8MB\'',
        'ALTER ROLE "app" IN DATABASE "freight" SET "search_path" TO \'a\', \'b\'',
        'ALTER DATABASE "freight" RESET "jit"',
    ]


def test_the_administrator_owns_what_an_unmoved_role_owned():
    assert 'OWNER "admin"' in plan_database(dataclasses.replace(BASE, owner="postgres"), None)[0]


def test_another_locale_is_refused_before_any_write():
    with pytest.raises(PlanError, match="Drop it on the target"):
        plan_database(BASE, dataclasses.replace(BASE, collate="de_DE.UTF-8"))


LISTING = """;
; Archive created at 2027-01-01
6; 2615 16389 SCHEMA - Ünï "q" %s; -- postgres
3237; 2606 16406 CONSTRAINT public p p_pkey postgres
3235; 1259 16417 INDEX public p_d_idx postgres
3236; 1259 16420 INDEX public other idx postgres
3248; 2620 16434 TRIGGER public nopk ha_migration_guard postgres
3249; 2620 16436 TRIGGER public nopk other postgres
2; 3079 16500 EXTENSION - citext
3400; 0 0 COMMENT - EXTENSION citext
4398; 2613 18223 BLOB METADATA - 18223..18234 freight_owner
4499; 0 0 ACL - LARGE OBJECTS 18223..18234 freight_owner
4498; 0 0 COMMENT - LARGE OBJECT 18234 freight_owner
4399; 0 0 BLOBS - 18223..18234 freight_owner
3395; 2613 424242 BLOB - 424242 postgres
"""


def test_the_table_of_contents_is_read_and_filtered_by_oid():
    entries = toc.parse(LISTING)
    assert len(entries) == 13
    kept = toc.without(entries, {(2620, 16434)}, extension_comments=False)
    gone = {entry.number for entry in entries} - {entry.number for entry in kept}
    assert gone == {3248, 3400}
    assert len(toc.without(entries, set(), extension_comments=True)) == 13
    assert [entry.number for entry in entries if entry.is_large_object] == [4398, 4499, 4498, 4399, 3395]
    assert toc.use_list(entries[1:3]) == "3237; 2606 16406\n3235; 1259 16417\n"


def test_indexes_are_found_by_their_table():
    found = toc.by_table(toc.parse(LISTING), {(2606, 16406): 7, (1259, 16417): 7, (1259, 16420): 8})
    assert {table: ([e.number for e in constraints], [e.number for e in indexes]) for table, (constraints, indexes) in found.items()} == {
        7: ([3237], [3235]),
        8: ([], [3236]),
    }


def column(name="id", type_name="int4", builtin=True, kind="b", is_array=False):
    return Column(name, type_name, builtin, kind, is_array)


def table(**changes):
    return dataclasses.replace(Table("public", "orders", 1, 100, (column(), column(NASTY))), **changes)


@pytest.mark.parametrize(
    ("columns", "same_encoding", "form"),
    [
        ([column()], True, "binary"),
        ([column()], False, "text"),
        ([column(type_name="int4", is_array=True)], True, "binary"),
        ([column(type_name="mood", builtin=False, kind="e")], True, "binary"),
        ([column(type_name="mood", builtin=False, kind="e", is_array=True)], True, "text"),
        ([column(type_name="address", builtin=False, kind="c")], True, "text"),
        ([column(type_name="oid")], True, "text"),
        ([], True, "binary"),
    ],
)
def test_binary_only_where_it_is_known_to_be_safe(columns, same_encoding, form):
    assert copy_plan.copy_format(columns, same_encoding) == form


def test_a_slow_index_begins_before_any_table_that_is_not_much_larger():
    assert copy_plan.index_weight(100, slow=True) > copy_plan.index_weight(300, slow=False) and copy_plan.index_weight(100, slow=True) > 300
    assert copy_plan.index_weight(100, slow=False) < 100


def test_copy_statements():
    out, empty, into = copy_plan.copy_statements(table(), "binary")
    assert out == 'COPY "public"."orders" ("id", "we""ird %s; --") TO STDOUT WITH (FORMAT binary)'
    assert empty == 'TRUNCATE ONLY "public"."orders"'
    assert into.endswith("FROM STDIN WITH (FORMAT binary, FREEZE)")
    assert copy_plan.copy_statements(table(columns=()), "text")[0] == 'COPY "public"."orders" TO STDOUT WITH (FORMAT text)'
    # Who serves is told by announcements: those of earlier epochs stay where they are.
    out = copy_plan.copy_statements(table(name="marker", ours=True), "text")[0]
    assert out.startswith("COPY (SELECT ") and 'FROM "public"."marker" WHERE serves IS NULL) TO STDOUT' in out
    assert "WHERE" not in copy_plan.copy_statements(table(name="marker"), "text")[0]
    for found in (copy_plan.copy_statements(table(ours=True), "text"), copy_plan.copy_statements(table(), "text", referenced=True)):
        assert found[1] == 'DELETE FROM ONLY "public"."orders"'
        assert found[2].endswith("FROM STDIN WITH (FORMAT text)")


@pytest.mark.parametrize(
    ("version", "present", "absent"),
    [(140000, [], ["origin", "disable_on_error"]), (150000, ["disable_on_error = false"], ["origin"]), (170000, ["origin = 'none'"], [])],
)
def test_the_subscription_uses_only_what_its_server_knows(version, present, absent):
    statement = subscription_statement(
        "ha_migration_forward", Link("db1", 5432, "link", "freight", "/p", "/c").conninfo("x"), version, slot="ha_migration_forward"
    )
    assert all(word in statement for word in [*present, "synchronous_commit = 'off'", "copy_data = false", "create_slot = false"])
    assert not any(word in statement for word in absent)
    assert "password=" not in statement and "passfile=''/p''" in statement and "verify-full" in statement


def test_the_slot_speaks_the_servers_language():
    assert copy_plan.slot_statement("s", 140010).endswith("pgoutput EXPORT_SNAPSHOT")
    assert copy_plan.slot_statement("s", 150000).endswith("pgoutput (SNAPSHOT 'export')")


SOURCE = {"version": 150004, "wal_level": "logical", "slots_free": 1, "senders_free": 1, "in_recovery": False, "slot_elsewhere": None, "slot_wal_keep_mib": -1}
TARGET = {"version": 170002, "in_recovery": False, "collisions": []}


@pytest.mark.parametrize(
    ("source", "target", "tables", "method", "programs", "gates"),
    [
        ({}, {}, [table()], "logical", 17, []),
        ({"wal_level": "replica", "slots_free": 0, "senders_free": 0}, {}, [table()], "logical", 17, ["wal_level", "slots", "senders"]),
        ({"wal_level": "replica", "slots_free": 0}, {}, [table(identity=False)], "dump", 17, []),
        ({}, {}, [table(identity=False)], "logical", 17, ["replica_identity"]),
        ({"slot_elsewhere": "other"}, {}, [], "logical", 17, ["slot"]),
        ({}, {}, [], "logical", 15, ["programs"]),
        ({}, {}, [], "logical", None, ["programs"]),
        ({"version": 180000}, {}, [], "logical", 18, ["version"]),
        ({"in_recovery": True}, {"in_recovery": True}, [], "logical", 17, ["primary", "primary"]),
        ({}, {"collisions": ["public.orders"]}, [], "dump", 17, ["empty"]),
    ],
)
def test_gates(source, target, tables, method, programs, gates):
    found = copy_plan.plan_gates({**SOURCE, **source}, {**TARGET, **target}, tables, method, programs)
    assert [gate["gate"] for gate in found] == gates
    assert all(gate["remedy"] for gate in found)


def test_collisions_are_what_stands_in_the_sources_way():
    relations = [("public", "t"), ("tools", "t"), ("ha_migration", "copy")]
    found = copy_plan.collisions(["public", "app", "x"], relations, ["public", "app", "tools"], "ha_migration")
    assert found == ["public.t", "schema app"]


def test_a_reset_takes_away_only_what_was_not_there_before():
    kept = {"schemas": ["public", "tools"], "extensions": {"stats": {"schema": "public", "version": "1"}}, "event_triggers": ["old"]}
    found = {
        "schemas": ["app", "ha_migration", "public", "tools"],
        "extensions": {"stats": {"schema": "public", "version": "1"}, "citext": {"schema": "app", "version": "1"}},
        "event_triggers": ["old", "new"],
    }
    planned = copy_plan.plan_reset(found, kept, "ha_migration")
    assert planned[:4] == ['DROP EVENT TRIGGER "new"', 'DROP EXTENSION "citext" CASCADE', 'DROP SCHEMA "app" CASCADE', "DROP SCHEMA public CASCADE"]
    assert planned[-1] == "CREATE EXTENSION \"stats\" SCHEMA public VERSION '1'"
    assert not any("tools" in item or "ha_migration" in item for item in planned)


def test_errors_of_programs_show_no_statement_and_no_row():
    output = "\n".join(
        [
            "pg_restore: while PROCESSING TOC:",
            "pg_restore: from TOC entry 3; 1259 1 TABLE public t own",
            'pg_restore: error: could not execute query: ERROR:  role "x" does not exist',
            "DETAIL:  Key (email)=(a@b) is duplicated.",
            "Command was: CREATE USER MAPPING ... password 's3cret'",
        ]
    )
    said = copy_plan.public_error(output)
    assert 'role "x" does not exist' in said and "TOC entry 3" in said
    assert "s3cret" not in said and "a@b" not in said
    psql = 'psql:/tmp/schema.sql:17: ERROR:  role "x" does not exist\nLINE 1: ALTER TABLE s3cret OWNER TO x\nDETAIL:  a@b'
    assert copy_plan.public_error(psql) == 'psql: ERROR: role "x" does not exist'
    assert copy_plan.public_error("") == "it ended without a message"


def test_progress_counts_what_runs_but_never_as_done():
    rows = [
        {"relation": "a", "state": "done", "bytes_total": 100, "rows_done": 7},
        {"relation": "b", "state": "copying", "bytes_total": 100, "rows_done": None},
        {"relation": "c", "state": "waiting", "bytes_total": 100, "rows_done": None},
    ]
    assert copy_plan.progress(rows, {"b": 5000}) == {"bytes_total": 300, "bytes_done": 199, "tables_total": 3, "tables_done": 1, "rows_done": 7}
    assert copy_plan.estimate_seconds(100, 300, 10) == 20
    assert copy_plan.estimate_seconds(0, 300, 10) is None


def test_the_estimate_leaves_out_what_an_interrupted_run_had_copied():
    rows = [{"relation": name, "state": state, "bytes_total": 100, "rows_done": 1} for name, state in (("a", "done"), ("b", "done"), ("c", "waiting"))]
    row = {"state": "copying", "elapsed": 10.0, "detail": {"step": "rows", "resumed": {"tables_kept": 1, "bytes_kept": 100}}}
    found = copy_plan.describe(row, rows, {}, True)
    assert (found["bytes_done"], found["seconds_left"], found["resumed"]["tables_kept"]) == (200, 10, 1)
    assert "1 tables kept of an earlier run" in found["summary"]


def test_the_pace_leaves_it_out_too():
    report = Report(method="logical", bytes=300, seconds=10.0, resumed={"tables_kept": 1, "rows_kept": 1, "bytes_kept": 100, "tables_copied_again": 1})
    assert report.public()["bytes_per_second"] == 20


LEFT = Left("reserved", True, frozenset(['"public"."orders"', '"public"."b"']), {'"public"."orders"': 1, '"public"."b"': 2}, {'"public"."orders"': (5, 500)})
BOTH = [table(oid=1), table(name="b", oid=2)]


@pytest.mark.parametrize(
    ("changes", "tables", "word"),
    [
        ({}, BOTH, None),
        ({"slot": "extended"}, BOTH, None),
        ({"slot": "unreserved"}, BOTH, None),
        ({"slot": None}, BOTH, "slot is gone"),
        ({"slot": "lost"}, BOTH, "removed WAL"),
        ({"slot": "unknown"}, BOTH, "removed WAL"),
        ({"subscribed": False}, BOTH, "subscription is gone"),
        ({"published": frozenset()}, BOTH, "publication is gone"),
        ({}, BOTH[:1], "no longer the same"),
        ({}, [*BOTH, table(name="c", oid=3)], "no longer the same"),
        ({}, [BOTH[0], table(name="b", oid=9)], "no longer the same"),
        ({"tables": {'"public"."orders"': None, '"public"."b"': None}}, BOTH, "no longer the same"),
        ({"done": {}}, BOTH, "no table was finished"),
        ({"published": frozenset(['"public"."b"'])}, BOTH, "no table was finished"),
        ({}, [table(oid=1, ours=True), BOTH[1]], "no table was finished"),
    ],
)
def test_why_an_interrupted_copy_begins_anew(changes, tables, word):
    why = copy_plan.why_anew(dataclasses.replace(LEFT, **changes), tables)
    assert why is None if word is None else word in why


def test_only_what_is_done_and_still_published_is_kept():
    assert copy_plan.split_tables(LEFT, BOTH) == (BOTH[:1], BOTH[1:])
    assert copy_plan.split_tables(dataclasses.replace(LEFT, published=frozenset(['"public"."b"'])), BOTH) == ([], BOTH)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("-- Dumped from database version 15.19\n\\restrict other\nCREATE TABLE a ();\n\\unrestrict other\n", True),
        ("-- Dumped from database version 15.18\n\\restrict random\nCREATE TABLE b ();\n\\unrestrict random\n", False),
    ],
)
def test_a_schemas_fingerprint_is_that_of_its_statements(tmp_path, text, same):
    archive = str(tmp_path / "schema.dump")
    prints = []
    for said in ("-- Dumped from database version 15.18\n\\restrict random\nCREATE TABLE a ();\n\\unrestrict random\n", text):
        prints.append(Programs(Settings("file"), lambda argv, environment, said=said: (0, said, "")).fingerprint(archive, [toc.Entry(1, 1259, 5, "TABLE")]))
    assert (prints[0] == prints[1]) is same


def test_a_program_whose_server_goes_away_has_lost_its_connection():
    gone = Programs(Settings("file"), lambda argv, environment: (1, "", "pg_restore: error: server closed the connection unexpectedly"))
    with pytest.raises(ClientError) as caught:
        gone.list_entries("archive")
    assert caught.value.details == {"connection_lost": True}


GOOD = LinkState(True, True, True, True, True, "reserved", {"r": 3}, 3, 0, None, 0)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"exists": False, "tables": {}}, "no subscription"),
        ({"enabled": False}, "disabled"),
        ({"worker_running": False}, "does not run"),
        ({"slot_exists": False}, "no slot"),
        ({"slot_active": False}, "nobody is connected"),
        ({"given_up": "The migration has been given up."}, "given up"),
        ({"tables": {"r": 2, "d": 1}}, "1 tables are not ready"),
        ({"published": 4}, "3 tables are subscribed and 4 published"),
        ({"lag_bytes": None}, "lag is unknown"),
    ],
)
def test_a_link_follows_only_when_everything_says_so(changes, word):
    assert GOOD.following
    state = dataclasses.replace(GOOD, **changes)
    assert not state.following
    assert word in "; ".join(state.problems)


def test_an_alarm_is_a_problem_with_which_the_link_follows():
    state = dataclasses.replace(GOOD, alarm="ALARM: it is near")
    assert (state.following, state.problems, state.obstacles) == (True, ["ALARM: it is near"], [])


@pytest.mark.parametrize(
    ("kept", "declared", "refused"),
    [(-1, None, False), (10, None, False), (-1, 100, True), (101, 100, True), (100, 100, False), (0, 100, False)],
)
def test_only_the_sources_own_limit_keeps_the_declared_one(kept, declared, refused):
    found = copy_plan.limit_gate(kept, declared)
    assert (found is not None) == refused


@pytest.mark.parametrize(
    ("before", "state", "expected"),
    [
        (GOOD, "following", []),
        (dataclasses.replace(GOOD, enabled=False), "following", ['ALTER SUBSCRIPTION "l" ENABLE']),
        (GOOD, "disabled", ['ALTER SUBSCRIPTION "l" DISABLE']),
        (dataclasses.replace(GOOD, enabled=False), "disabled", []),
        (GOOD, "absent", ['DROP SUBSCRIPTION "l"', "drop slot l"]),
        (LinkState(), "absent", []),
    ],
)
def test_link_plans(before, state, expected):
    assert [action.statement for action in link_plan.plan_link(before, "l", state)] == expected


@pytest.mark.parametrize("state", ["following", "disabled"])
def test_a_link_that_is_not_there_cannot_be_enabled(state):
    with pytest.raises(PlanError, match=r"replicate\.yml"):
        link_plan.plan_link(LinkState(), "l", state)


@pytest.mark.parametrize("name", ["SCHEMA", "GUARD_TRIGGER", "FORWARD_LINK", "FORWARD_TABLES", "LOCK_CLASS", "LOCK_COPY"])
def test_names_are_those_of_the_migrations_schema(name):
    assert getattr(own, name) == getattr(schema, name)


def test_hours_of_lag_need_no_more_room_than_seconds():
    lag = link_client.LagOverTime(most=10)
    for number in range(1000):
        lag.see(100 + number * 0.2, None if number == 1 else number)
    assert 5 <= len(lag.seen) < 10
    assert lag.seen[0] == {"seconds": 0.0, "bytes": 0}
    assert all(abs(row["bytes"] * 0.2 - row["seconds"]) < 0.1 for row in lag.seen) and lag.seen[-1]["bytes"] > 800
