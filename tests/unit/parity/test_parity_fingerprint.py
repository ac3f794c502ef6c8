# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Schema fingerprint: every kind of change is seen, and named."""

from __future__ import annotations

import time
import typing as t
from dataclasses import replace

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._parity import fingerprint
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.fingerprint import Definition, Fingerprint
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client

CHANGES = [
    ("ALTER TABLE public.account ADD COLUMN x integer", {"column public.account.x"}),
    ("ALTER TABLE public.account ALTER COLUMN owner DROP NOT NULL", {"column public.account.owner"}),
    ("ALTER TABLE public.account ALTER COLUMN owner SET DEFAULT 'somebody'", {"column public.account.owner"}),
    ('ALTER TABLE public.pair ALTER COLUMN c TYPE text COLLATE "C"', {"column public.pair.c"}),
    ("ALTER TABLE public.account DROP CONSTRAINT account_balance_check", {"constraint public.account.account_balance_check"}),
    ("DROP INDEX public.account_owner_id_idx", {"index public.account_owner_id_idx"}),
    ("ALTER TABLE public.keyless REPLICA IDENTITY DEFAULT", {"table public.keyless"}),
    ("CREATE OR REPLACE VIEW public.rich WITH (security_barrier) AS SELECT id, owner FROM public.account WHERE balance > 1001", {"view public.rich"}),
    ("CREATE OR REPLACE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'", {"function public.touch()"}),
    ("ALTER TABLE public.account DISABLE TRIGGER touch", {"trigger public.account.touch"}),
    ("ALTER TYPE public.mood ADD VALUE 'great'", {"enum public.mood"}),
    ("ALTER DOMAIN public.positive SET NOT NULL", {"domain public.positive"}),
    ("ALTER TYPE public.place ADD ATTRIBUTE city text", {"column public.place.city"}),
    ("ALTER SEQUENCE public.loose NO CYCLE", {"sequence definition public.loose"}),
    ("ALTER POLICY own ON public.pair USING (true)", {"policy public.pair.own"}),
    ("ALTER TABLE public.pair DISABLE ROW LEVEL SECURITY", {"table public.pair"}),
    ("REVOKE SELECT ON public.account FROM PUBLIC", {"table public.account"}),
    ("DROP TABLE public.event_2025", {"table public.event_2025", "index public.event_2025_pkey", "constraint public.event_2025.event_2025_pkey"}),
    ("CREATE SCHEMA additional", {"schema additional"}),
    ("CREATE STATISTICS public.both_ab ON a, b FROM public.pair", {"statistics public.both_ab"}),
    ("CREATE RULE nothing AS ON DELETE TO public.pair DO INSTEAD NOTHING", {"rule public.pair.nothing"}),
    ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC", {"default privileges postgres on r"}),
    ("CREATE OPERATOR public.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_catalog.texteq)", {"operator public.===(pg_catalog.text,pg_catalog.text)"}),
]


def test_equal_schemas_have_one_fingerprint_and_are_read_quickly(pair: t.Any) -> None:
    began = time.monotonic()
    found = [fingerprint.read_fingerprint(connection) for connection in (pair.source, pair.target)]
    assert time.monotonic() - began < 1.0
    assert found[0].sha256 == found[1].sha256
    assert fingerprint.compare_fingerprints(*found).mismatches == []
    assert not [name for name in found[0].objects if "ha_migration" in name]


def test_the_guard_is_no_difference(pair: t.Any) -> None:
    pair.on("target", "CREATE TRIGGER ha_migration_guard BEFORE INSERT ON public.pair FOR EACH STATEMENT EXECUTE FUNCTION ha_migration.guard()")
    found = fingerprint.compare_fingerprints(fingerprint.read_fingerprint(pair.source), fingerprint.read_fingerprint(pair.target))
    pair.on("target", "DROP TRIGGER ha_migration_guard ON public.pair")
    assert found.mismatches == []


@pytest.mark.parametrize(("statement", "objects"), CHANGES, ids=[statement[:40] for statement, _objects in CHANGES])
def test_a_change_is_named(pair: t.Any, statement: str, objects: set[str]) -> None:
    before = fingerprint.read_fingerprint(pair.source)
    session = pair.open("target")
    try:
        fingerprint.client.query(session, "BEGIN")
        fingerprint.client.query(session, statement)
        after = fingerprint.read_fingerprint(session)
        fingerprint.client.query(session, "ROLLBACK")
    finally:
        session.close()
    found = fingerprint.compare_fingerprints(before, after)
    assert objects <= {mismatch["object"] for mismatch in found.mismatches}
    assert before.sha256 != after.sha256
    assert all(mismatch["problem"] for mismatch in found.mismatches)


def test_the_module_says_equal(pair: t.Any) -> None:
    from ansible_collections.freight.pg_ha.plugins.modules import schema_fingerprint_info

    params = {
        "service_file": pair.service_file,
        "source": "source",
        "target": "target",
        "connect_timeout_seconds": 5,
        "parity": None,
        "parity_max_age_seconds": 60,
    }
    outcome = schema_fingerprint_info.run(params)
    assert outcome.changed is False and outcome.result["equal"] is True
    assert outcome.result["fingerprints"]["source"]["objects"] > 60
    pair.on("target", "CREATE TABLE public.additional (id integer)")
    outcome = schema_fingerprint_info.run(params)
    pair.on("target", "DROP TABLE public.additional")
    assert outcome.result["equal"] is False
    assert "Table public.additional: is not on the source." in [mismatch["sentence"] for mismatch in outcome.result["mismatches"]]


def test_a_view_that_changed_where_two_majors_print_it_differently_is_told_once(pair: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ansible_collections.freight.pg_ha.plugins.modules import schema_fingerprint_info

    read = schema_fingerprint_info.read_fingerprint

    def of_another_major(connection: t.Any) -> Fingerprint:
        """The target is newer and puts other parentheses into what it prints."""
        found = read(connection)
        if client.query_value(connection, "SELECT current_database()") == "parity_fingerprint_target":
            changed = {name: replace(one, text=f"({one.text})") if one.text else one for name, one in found.objects.items()}
            found = replace(found, major=found.major + 1, objects=changed)
        return found

    monkeypatch.setattr(schema_fingerprint_info, "read_fingerprint", of_another_major)
    params = {"service_file": pair.service_file, "source": "source", "target": "target", "connect_timeout_seconds": 10, "parity_max_age_seconds": 60}

    def run(parity: dict[str, t.Any] | None) -> dict[str, t.Any]:
        return dict(schema_fingerprint_info.run({**params, "parity": parity}).result)

    first = run(None)
    assert first["equal"] and "view public.rich" in [entry["object"] for entry in first["not_compared"]]
    evidence = {"outcome": "done", "started_at": "2001-01-01T00:00:00Z", "fingerprint": first["fingerprints"]}
    before = client.query_value(pair.source, "SELECT pg_get_viewdef('public.rich'::regclass)")
    pair.on("source", "CREATE OR REPLACE VIEW public.rich WITH (security_barrier) AS SELECT id, owner FROM public.account WHERE balance > 1001")
    try:
        told = run(evidence)
        assert not told["equal"] and "Schema: changed on the source since the last comparison and not on the target" in told["mismatches"][0]["sentence"]
        assert run({**evidence, "outcome": "failed", "fingerprint": told["fingerprints"]})["equal"]
    finally:
        pair.on("source", f"CREATE OR REPLACE VIEW public.rich WITH (security_barrier) AS {before}")
    assert run(evidence)["equal"]


def side(major: int = 15, encoding: str = "UTF8", extensions: dict[str, str] | None = None, **objects: Definition) -> Fingerprint:
    """A fingerprint by hand."""
    return Fingerprint(major, encoding, "C/C", {name.replace("_", " "): definition for name, definition in objects.items()}, extensions or {})


def test_a_text_counts_within_a_major_only() -> None:
    one, other = Definition('{"owner": "a"}', "SELECT 1"), Definition('{"owner": "a"}', "SELECT (1)")
    assert len(fingerprint.compare_fingerprints(side(view_v=one), side(view_v=other)).mismatches) == 1
    across = fingerprint.compare_fingerprints(side(view_v=one), side(17, view_v=other))
    assert across.mismatches == [] and across.not_compared[0]["object"] == "view v"
    assert fingerprint.compare_fingerprints(side(view_v=one), side(17, view_v=Definition('{"owner": "b"}', "SELECT 1"))).mismatches


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("SELECT a.b, a.c FROM s.a", "SELECT b, c FROM s.a", True),
        ('SELECT "A ""x".b FROM t', "SELECT b FROM t", True),
        ("SELECT 'a.b' FROM t", "SELECT 'b' FROM t", False),
        ("SELECT 1.5 FROM t", "SELECT 5 FROM t", False),
        ("SELECT a.b + 1 FROM a", "SELECT b + 2 FROM a", False),
    ],
)
def test_qualifiers_do_not_count_across_majors(one: str, other: str, same: bool) -> None:
    assert (fingerprint.unqualified(one) == fingerprint.unqualified(other)) is same


def test_extensions_of_the_target_and_versions_are_notes() -> None:
    found = fingerprint.compare_fingerprints(side(extensions={"x": "1.0"}), side(extension_y=Definition("{}"), extensions={"x": "1.1"}))
    assert found.mismatches == []
    assert found.notes == ["extension y is only on the target.", "extension x is 1.0 on the source and 1.1 on the target."]
    assert fingerprint.compare_fingerprints(side(extension_y=Definition("{}")), side()).mismatches


def test_another_encoding_is_a_mismatch() -> None:
    assert fingerprint.compare_fingerprints(side(), side(encoding="LATIN1")).mismatches[0]["object"] == "database"


def test_bodies_of_functions_are_not_shown() -> None:
    found = fingerprint.compare_fingerprints(
        side(**{"function_f()": Definition('{"arguments": "secret"}')}), side(**{"function_f()": Definition('{"arguments": "other"}')})
    )
    assert found.mismatches[0]["problem"] == "differs in arguments"
