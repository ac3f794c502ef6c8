# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts to findings, as a table: what is wrong, which finding, how severe, and the statement that fixes it."""

from __future__ import annotations

import typing as t
from dataclasses import replace

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._assessment import plan
from ansible_collections.freight.pg_ha.plugins.module_utils._assessment.model import Options, Role, Sequence, Session, Source, Table, Target

SETTINGS = {
    "wal_level": "logical",
    "max_replication_slots": "10",
    "max_wal_senders": "10",
    "fsync": "on",
    "full_page_writes": "on",
    "max_locks_per_transaction": "64",
    "max_connections": "100",
    "max_prepared_transactions": "0",
    "max_slot_wal_keep_size": "1000",
}
ADMINISTRATOR = {
    "name": "postgres",
    "superuser": True,
    "bypassrls": True,
    "createrole": True,
    "replication": True,
    "reads_statistics": True,
    "event_triggers": True,
}
CLEAN = Source(
    version="PostgreSQL 15.1",
    version_num=150001,
    in_recovery=False,
    database="freight",
    settings=SETTINGS,
    administrator=ADMINISTRATOR,
    bytes=1 << 30,
    tables=(Table("public.t"),),
    sequences=(Sequence("public.s"),),
    roles=(Role("app", "app"), Role("postgres", "postgres", superuser=True)),
    sessions=(Session("app", "10.0.0.9", "web", 3),),
)
TARGET = Target(version_num=170001)
OPTIONS = Options(
    client_major=17, target_free_bytes=1 << 40, pooler_networks=("10.0.0.9/32",), own_roles=("postgres", "ha_migration_link"), slot_wal_limit_mib=1000
)


def settings(**changed: str) -> dict[str, t.Any]:
    """The clean settings with some changed."""
    return {"settings": {**SETTINGS, **changed}}


def administrator(**changed: bool) -> dict[str, t.Any]:
    """The clean administrator with something changed."""
    return {"administrator": {**ADMINISTRATOR, **changed}}


def table(**facts: t.Any) -> dict[str, t.Any]:
    """One table."""
    return {"tables": (Table("public.x", **facts),)}


def test_a_clean_source_has_no_finding() -> None:
    assert plan.plan_findings(CLEAN, TARGET, OPTIONS) == []


CASES: list[tuple[dict[str, t.Any], dict[str, t.Any], dict[str, t.Any], str, str, str]] = [
    # changed facts of the source, of the target, options, id, severity, part of the fix
    ({"version_num": 120005}, {}, {}, "source_version", "blocker", ""),
    ({"version_num": 190000}, {"version_num": 190000}, {"client_major": 19}, "source_version", "blocker", ""),
    ({}, {"version_num": 140003}, {}, "target_version", "blocker", ""),
    ({}, {"version_num": None}, {}, "target_version", "warning", ""),
    ({}, {"version_num": None}, {"target_major": 14}, "target_version", "blocker", ""),
    ({}, {}, {"client_major": 15}, "client_version", "blocker", "mover_postgresql_version: 17"),
    ({"in_recovery": True}, {}, {}, "standby", "blocker", ""),
    (settings(fsync="off"), {}, {}, "fsync", "blocker", "ALTER SYSTEM SET fsync = 'on'"),
    (settings(full_page_writes="off"), {}, {}, "full_page_writes", "blocker", "ALTER SYSTEM SET full_page_writes = 'on'"),
    ({"standbys": ("replica1",)}, {}, {}, "source_standby", "warning", ""),
    (settings(wal_level="replica"), {}, {}, "wal_level", "blocker", "ALTER SYSTEM SET wal_level = 'logical';"),
    ({"slots_used": 9}, {}, {}, "max_replication_slots", "blocker", "ALTER SYSTEM SET max_replication_slots = 19;"),
    ({"senders_used": 10}, {}, {}, "max_wal_senders", "blocker", "ALTER SYSTEM SET max_wal_senders = 20;"),
    (settings(max_slot_wal_keep_size="1000"), {}, {"slot_wal_limit_mib": None}, "max_slot_wal_keep_size", "info", ""),
    (settings(max_slot_wal_keep_size="-1"), {}, {"slot_wal_limit_mib": None}, "slot_wal_unlimited", "warning", "pg_ha_slot_wal_limit_mib: ..."),
    (settings(max_slot_wal_keep_size="-1"), {}, {"slot_wal_limit_mib": 500}, "slot_wal_limit", "blocker", "max_slot_wal_keep_size = '500MB'"),
    (settings(max_slot_wal_keep_size="501"), {}, {"slot_wal_limit_mib": 500}, "slot_wal_limit", "blocker", "max_slot_wal_keep_size = '500MB'"),
    (administrator(event_triggers=False), {}, {}, "ddl_guard", "info", ""),
    (administrator(event_triggers=False), {}, {"ddl_policy": "refuse"}, "ddl_guard", "blocker", "pg_ha_ddl_policy: detect"),
    (table(primary_key=False), {}, {}, "replica_identity", "blocker", "ALTER TABLE public.x REPLICA IDENTITY FULL;"),
    (table(primary_key=False, candidate_index="X"), {}, {}, "replica_identity", "blocker", 'REPLICA IDENTITY USING INDEX "X";'),
    (table(primary_key=False, incomparable=("doc json",)), {}, {}, "replica_identity", "blocker", "ADD COLUMN id bigint GENERATED"),
    (table(identity="n"), {}, {}, "replica_identity", "blocker", "REPLICA IDENTITY DEFAULT;"),
    (table(identity="i"), {}, {}, "replica_identity", "blocker", "REPLICA IDENTITY DEFAULT;"),
    (table(identity="f", primary_key=False, searchable=False), {}, {}, "replica_identity_full", "warning", ""),
    (table(identity="f", incomparable=("doc json",)), {}, {}, "replica_identity_type", "blocker", "ADD COLUMN id"),
    (table(identity="f", incomparable=("doc json",), candidate_index="x_key"), {}, {}, "replica_identity_type", "blocker", "USING INDEX x_key;"),
    (table(persistence="u"), {}, {}, "unlogged_table", "warning", "ALTER TABLE public.x SET LOGGED;"),
    (table(kind="f"), {}, {}, "foreign_table", "warning", ""),
    (table(kind="m"), {}, {}, "materialized_view", "info", ""),
    (table(tablespace="fast"), {}, {}, "tablespace", "warning", ""),
    ({"replica_triggers": ("t ON public.x",)}, {}, {}, "replica_trigger", "warning", "ALTER TABLE public.x ENABLE TRIGGER t;"),
    ({"event_triggers": ("audit",)}, {}, {}, "event_trigger", "warning", "ALTER EVENT TRIGGER audit DISABLE;"),
    ({"large_objects": 3}, {}, {}, "large_objects", "warning", ""),
    ({"large_objects": 3, **administrator(superuser=False)}, {}, {}, "large_objects", "blocker", ""),
    ({"large_objects": 3}, {}, {"method": "dump"}, "large_objects", "info", ""),
    ({"publications": ("debezium",)}, {}, {}, "publication", "info", ""),
    ({"logical_slots": ("debezium",)}, {}, {}, "logical_slot", "warning", ""),
    ({"subscriptions": ("upstream",)}, {}, {}, "subscription", "blocker", "DROP SUBSCRIPTION upstream;"),
    ({"extensions": {"postgis": "3.3"}}, {}, {}, "extension", "blocker", ""),
    ({"extensions": {"citext": "1.6"}}, {"extensions": {"citext": ("1.5", "1.7")}}, {}, "extension", "info", ""),
    ({"extensions": {"citext": "1.6"}}, {"problem": "no", "version_num": None}, {"target_major": 17}, "extension", "info", ""),
    ({"extension_rows": (("pg_partman", "partman.part_config", True),)}, {}, {}, "extension_rows", "blocker", ""),
    ({"extension_rows": (("postgis", "public.spatial_ref_sys", None),)}, {}, {}, "extension_rows", "blocker", ""),
    ({"cron_loaded": True, "cron_jobs": 2}, {}, {}, "pg_cron", "warning", "cron.unschedule"),
    ({"encoding": "SQL_ASCII"}, {}, {}, "encoding", "warning", ""),
    ({}, {"database": {"encoding": "LATIN1", "collate": "C.UTF-8", "bytes": 1}}, {}, "encoding_mismatch", "blocker", "DROP DATABASE freight;"),
    ({}, {"database": {"encoding": "UTF8", "collate": "de_DE.UTF-8", "bytes": 1}}, {}, "collation_mismatch", "blocker", "DROP DATABASE freight;"),
    ({"collation_version": ("2.31", "2.36")}, {}, {}, "collation_version", "warning", "REINDEX DATABASE freight;"),
    ({"collate": "de_DE.UTF-8"}, {}, {}, "collation", "info", ""),
    ({"nondeterministic_collations": ("public.ci",)}, {}, {}, "nondeterministic_collation", "info", ""),
    ({"prepared_transactions": ("it's",)}, {}, {}, "prepared_transaction", "blocker", "ROLLBACK PREPARED 'it''s';"),
    (administrator(reads_statistics=False), {}, {}, "sessions_unknown", "blocker", "GRANT pg_monitor TO postgres;"),
    ({"sessions": (Session("app", "10.0.0.9", "", 1, 90.0),)}, {}, {}, "long_transaction", "warning", ""),
    ({"sessions": (Session("app", "10.0.0.9", "", 1, 90.0, True),)}, {}, {}, "idle_in_transaction", "warning", "idle_in_transaction_session_timeout"),
    (administrator(createrole=False), {}, {}, "administrator", "blocker", "ALTER ROLE postgres CREATEROLE;"),
    ({**table(row_security=True), **administrator(bypassrls=False)}, {}, {}, "row_security", "blocker", "ALTER ROLE postgres BYPASSRLS;"),
    (table(readable=False), {}, {}, "table_privilege", "blocker", "GRANT SELECT ON public.x TO postgres;"),
    (table(owned=False, owner='"Boss"'), {}, {}, "table_owner", "blocker", 'GRANT "Boss" TO postgres;'),
    ({}, {}, {"application_roles": ("gone",)}, "application_role", "blocker", ""),
    ({}, {}, {"application_roles": ("app", "postgres")}, "reserved_role", "blocker", ""),
    ({"database": "pgbouncer"}, {}, {}, "reserved_database", "blocker", "RENAME TO"),
    ({"roles": (Role("root", "root", superuser=True, sessions=1),)}, {}, {}, "application_superuser", "warning", "ALTER ROLE root NOSUPERUSER;"),
    ({"roles": (Role("app", "app", owns=4),)}, {}, {}, "application_owner", "warning", "REASSIGN OWNED BY app TO app_owner;"),
    ({"roles": (Role("app", "app", password="md5"),)}, {}, {}, "password_md5", "blocker", "\\password app"),
    ({"roles": (Role("app", "app", password="unknown"),)}, {}, {}, "password_unknown", "warning", ""),
    (
        {**table(has_row_security=True), "roles": (Role("app", "app", bypassrls=True),)},
        {},
        {"target_may_not": ("superuser",)},
        "row_security_bypassed",
        "blocker",
        "ALTER ROLE app NOBYPASSRLS;",
    ),
    ({"roles": (Role("app", "app", becomes=False),)}, {}, {}, "application_membership", "blocker", "GRANT app TO postgres;"),
    ({"roles": (Role("app", "app", password="none"),)}, {}, {}, "password_none", "info", ""),
    ({"pooler_auth": False}, {}, {}, "pooler_auth", "blocker", "CREATE FUNCTION pgbouncer.get_auth(p_user text)"),
    ({}, {}, {"pooler_networks": ()}, "pooler_addresses", "warning", ""),
    ({"sessions": (Session("app", "10.0.0.7", "cron", 2),)}, {}, {}, "direct_session", "warning", ""),
    ({"sessions": (Session("app", "", "psql"),)}, {}, {}, "direct_session", "warning", ""),
    ({"sequences": (Sequence("public.s", used=None),)}, {}, {}, "sequence_unknown", "warning", "GRANT SELECT ON SEQUENCE public.s"),
    ({"sequences": (Sequence("public.s", "integer", used=0.9),)}, {}, {}, "sequence_exhaustion", "warning", "ALTER SEQUENCE public.s AS bigint;"),
    ({"sequences": (Sequence("public.s", "smallint"),)}, {}, {}, "sequence_smallint", "info", ""),
    ({"sequences": (Sequence("public.s", cycle=True, used=0.99),)}, {}, {}, "sequence_cycle", "info", ""),
    ({"tables": tuple(Table(f"public.t{n}") for n in range(3300))}, {}, {}, "lock_budget", "blocker", "max_locks_per_transaction = 67;"),
    ({}, {}, {"target_free_bytes": None}, "target_disk", "warning", ""),
    ({}, {}, {"target_free_bytes": 1 << 30}, "target_disk", "blocker", ""),
    ({"other_databases": ("wiki",)}, {}, {}, "other_database", "info", ""),
    ({}, {"problem": "no service"}, {}, "target_unknown", "info", ""),
]


@pytest.mark.parametrize(("source", "target", "options", "name", "severity", "fix"), CASES, ids=[f"{case[3]}-{case[4]}" for case in CASES])
def test_one_thing_wrong_gives_one_finding(
    source: dict[str, t.Any], target: dict[str, t.Any], options: dict[str, t.Any], name: str, severity: str, fix: str
) -> None:
    findings = plan.plan_findings(replace(CLEAN, **source), replace(TARGET, **target), replace(OPTIONS, **options))
    found = [finding for finding in findings if finding.id == name]
    assert [finding.severity for finding in found] == [severity]
    assert fix in found[0].fix
    assert found[0].message and found[0].object
    # Nothing else is said but what the same cause explains.
    assert {finding.id for finding in findings} - {name} <= {"target_unknown", "extension"} | ({"target_version"} if name == "source_version" else set())


@pytest.mark.parametrize(
    "source",
    [
        settings(wal_level="replica"),
        table(primary_key=False),
        {"slots_used": 10},
    ],
)
def test_a_dump_needs_nothing_of_logical_decoding(source: dict[str, t.Any]) -> None:
    assert plan.plan_findings(replace(CLEAN, **source), TARGET, replace(OPTIONS, method="dump")) == []


def test_what_is_copied_already_needs_no_space() -> None:
    target = replace(TARGET, database={"encoding": "UTF8", "collate": "C.UTF-8", "bytes": 1 << 30})
    assert plan.plan_findings(CLEAN, target, replace(OPTIONS, target_free_bytes=1 << 30)) == []


@pytest.mark.parametrize("facts", [{"kind": "p", "primary_key": False}, {"identity": "i", "identity_index": True, "primary_key": False}, {"identity": "f"}])
def test_a_usable_replica_identity_is_no_finding(facts: dict[str, t.Any]) -> None:
    assert plan.plan_findings(replace(CLEAN, **table(**facts)), TARGET, OPTIONS) == []


@pytest.mark.parametrize(
    ("accepted", "severity"), [("replica_identity", "warning"), ("replica_identity:public.x", "warning"), ("replica_identity:public.y", "blocker")]
)
def test_an_accepted_blocker_is_a_warning(accepted: str, severity: str) -> None:
    findings = plan.plan_findings(replace(CLEAN, **table(identity="n")), TARGET, replace(OPTIONS, accepted=(accepted,)))
    assert [finding.severity for finding in findings] == [severity]


def test_blockers_come_first_and_every_line_says_how_to_fix_it() -> None:
    source = replace(CLEAN, publications=("p",), prepared_transactions=("x",), event_triggers=("e",))
    findings = plan.plan_findings(source, TARGET, OPTIONS)
    assert [finding.severity for finding in findings] == ["blocker", "warning", "info"]
    assert plan.lines(findings)[0].startswith("BLOCKER  prepared_transaction [x]") and plan.lines(findings)[0].endswith("-> ROLLBACK PREPARED 'x';")


def test_load_and_size_do_not_move_the_fingerprint_and_a_new_finding_does() -> None:
    def fingerprint(**facts: t.Any) -> str:
        source = replace(CLEAN, **facts)
        return plan.fingerprint(plan.plan_findings(source, TARGET, OPTIONS), plan.summarize(source, TARGET))

    assert fingerprint() == fingerprint(bytes=2 << 30)
    direct = [(Session("app", "10.0.0.7", "cron", count),) for count in (2, 5)]
    assert fingerprint(sessions=direct[0]) == fingerprint(sessions=direct[1]) != fingerprint()
    assert fingerprint(version_num=150002) != fingerprint()


@pytest.mark.parametrize(("name", "quoted"), [("app", "app"), ("App", '"App"'), ('a"b', '"a""b"'), ("1a", '"1a"'), ("größe", '"größe"'), ("", '""')])
def test_names_are_quoted(name: str, quoted: str) -> None:
    assert plan.quote(name) == quoted


@pytest.mark.parametrize(
    ("source", "target", "today", "found"),
    [
        (130000, 170000, "2025-11-13", set()),
        (130000, 170000, "2025-11-14", {("source_support", "warning")}),
        (130000, 140000, "2026-11-13", {("source_support", "warning"), ("target_support", "warning")}),
        (130000, 130000, "", {("target_version", "blocker")}),
        (120000, 170000, "2026-11-13", {("source_version", "blocker")}),
        (180000, 190000, "2026-11-13", {("target_version", "blocker")}),
        (170000, 160000, "2026-11-13", {("target_version", "blocker")}),
    ],
)
def test_versions_that_nobody_mends(source: int, target: int, today: str, found: set[tuple[str, str]]) -> None:
    findings = plan.plan_findings(replace(CLEAN, version_num=source), replace(TARGET, version_num=target), replace(OPTIONS, today=today, client_major=None))
    assert {(finding.id, finding.severity) for finding in findings} == found


def test_every_supported_version_has_a_last_day() -> None:
    assert sorted(plan.SUPPORTED_UNTIL) == list(range(min(plan.OLDEST_SOURCE, plan.OLDEST_TARGET), max(plan.NEWEST_SOURCE, plan.NEWEST_TARGET) + 1))


def test_what_stands_in_the_copys_way_is_a_blocker_for_each() -> None:
    findings = plan.plan_findings(CLEAN, replace(TARGET, occupied=("public.t", "schema s")), OPTIONS)
    assert [(finding.id, finding.severity, finding.object) for finding in findings] == [
        ("target_occupied", "blocker", "public.t"),
        ("target_occupied", "blocker", "schema s"),
    ]
