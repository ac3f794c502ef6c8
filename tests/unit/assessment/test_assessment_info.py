# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module against a real server with an object for each finding."""

from __future__ import annotations

import contextlib
import pathlib
import typing as t

import psycopg2
import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._assessment import client
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, UsageError
from ansible_collections.freight.pg_ha.plugins.modules import assessment_info

DATABASE = "assessed"

OBJECTS = """
CREATE ROLE assess_app LOGIN;
CREATE ROLE assess_md5 LOGIN;
UPDATE pg_authid SET rolpassword = 'md5' || md5('x' || rolname) WHERE rolname = 'assess_md5';
CREATE ROLE assess_limited LOGIN;
CREATE ROLE assess_super LOGIN SUPERUSER;
CREATE SCHEMA "Lager";
CREATE TABLE plain (id int PRIMARY KEY);
CREATE TABLE nokey (a int);
CREATE TABLE candidate (a int NOT NULL, b int);
CREATE UNIQUE INDEX "Candidate" ON candidate (a);
CREATE UNIQUE INDEX not_usable ON candidate (b);
CREATE TABLE deferred (a int PRIMARY KEY DEFERRABLE);
CREATE TABLE "Lager"."größe" (a int PRIMARY KEY);
ALTER TABLE "Lager"."größe" REPLICA IDENTITY NOTHING;
CREATE TABLE fully (a int, b text);
ALTER TABLE fully REPLICA IDENTITY FULL;
CREATE TABLE fully_json (a int, b json);
ALTER TABLE fully_json REPLICA IDENTITY FULL;
CREATE TABLE by_index (a int NOT NULL);
CREATE UNIQUE INDEX by_index_a ON by_index (a);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_a;
DROP INDEX by_index_a;
CREATE TABLE parted (a int, PRIMARY KEY (a)) PARTITION BY RANGE (a);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE UNLOGGED TABLE forgetful (a int PRIMARY KEY);
CREATE MATERIALIZED VIEW viewed AS SELECT 1 AS one;
CREATE TABLE of_extension (a int PRIMARY KEY, ours boolean);
CREATE TABLE of_users (a int PRIMARY KEY, ours boolean);
INSERT INTO of_extension VALUES (1, true);
INSERT INTO of_users VALUES (1, true), (2, false);
ALTER EXTENSION plpgsql ADD TABLE of_extension;
ALTER EXTENSION plpgsql ADD TABLE of_users;
UPDATE pg_extension SET extconfig = ARRAY['of_extension'::regclass::oid, 'of_users'::regclass::oid], extcondition = ARRAY['WHERE NOT ours', 'WHERE NOT ours']
WHERE extname = 'plpgsql';
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere;
CREATE FOREIGN TABLE abroad (a int) SERVER nowhere;
CREATE TABLE secured (a int PRIMARY KEY);
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON secured TO assess_limited;
CREATE TABLE of_app (a int PRIMARY KEY);
ALTER TABLE of_app OWNER TO assess_app;
CREATE SEQUENCE small AS smallint;
CREATE SEQUENCE round_and_round CYCLE;
CREATE SEQUENCE nearly AS integer START 2000000000;
SELECT nextval('nearly');
CREATE SEQUENCE down INCREMENT -1 MINVALUE -100 MAXVALUE 0 START 0;
SELECT setval('down', -95);
SELECT lo_create(0);
CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER always BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION nothing();
ALTER TABLE plain ENABLE ALWAYS TRIGGER always;
CREATE FUNCTION event() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER "Audit" ON ddl_command_end EXECUTE FUNCTION event();
CREATE PUBLICATION theirs FOR TABLE plain;
CREATE PUBLICATION ha_migration_forward FOR TABLE plain;
CREATE SUBSCRIPTION upstream CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false, enabled = false, slot_name = NONE, create_slot = false);
CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
"""


@pytest.fixture(scope="module")
def service_file(postgresql_server: t.Any, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[str]:
    """A database with an object for each finding; the target is the same server."""
    postgresql_server.create_database(DATABASE)
    path = tmp_path_factory.mktemp("assessment") / "pg_service.conf"
    postgresql_server.services(path, source=DATABASE, target=DATABASE, clean="template1")
    with path.open("a") as file:
        file.write(f"[limited]\nhost=127.0.0.1\nport={postgresql_server.port}\nuser=assess_limited\ndbname={DATABASE}\n[nobody]\nhost=127.0.0.1\nport=1\n")
    with session(postgresql_server) as connection, connection.cursor() as cursor:
        for statement in OBJECTS.split(";\n"):
            if statement.strip():
                cursor.execute(statement)
    yield str(path)
    with session(postgresql_server) as connection, connection.cursor() as cursor:
        cursor.execute("DROP SUBSCRIPTION upstream")
        cursor.execute('DROP EVENT TRIGGER "Audit"')
    with session(postgresql_server, dbname="postgres") as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
        cursor.execute("DROP ROLE assess_app, assess_md5, assess_limited, assess_super")


@contextlib.contextmanager
def session(server: t.Any, **parameters: str) -> t.Iterator[t.Any]:
    """An ordinary client of the database."""
    connection = psycopg2.connect(**{"host": "127.0.0.1", "port": server.port, "user": "postgres", "dbname": DATABASE, **parameters})
    connection.autocommit = True
    try:
        yield connection
    finally:
        connection.close()


def assess(service_file: str, **options: t.Any) -> dict[str, t.Any]:
    """Run the module."""
    defaults = {key: spec.get("default") for key, spec in assessment_info.argument_spec().items()}
    outcome = assessment_info.run({**defaults, "service_file": service_file, "own_roles": ["postgres"], **options})
    assert outcome.changed is False
    return outcome.result


def objects(result: dict[str, t.Any], name: str) -> dict[str, str]:
    """Severity by object of the findings with that id."""
    return {finding["object"]: finding["severity"] for finding in result["findings"] if finding["id"] == name}


def test_each_object_has_its_finding(postgresql_server: t.Any, service_file: str) -> None:
    with session(postgresql_server, user="assess_app", application_name="cron") as idle, session(postgresql_server, user="assess_super"):
        with idle.cursor() as cursor:
            cursor.execute("BEGIN; SELECT 1")
        result = assess(service_file, long_transaction_seconds=0, pooler_addresses=["10.9.9.9", "10.8.0.0/16"])
    assert objects(result, "replica_identity") == {
        "public.nokey": "blocker",
        "public.candidate": "blocker",
        "public.deferred": "blocker",
        '"Lager"."größe"': "blocker",
        "public.by_index": "blocker",
    }
    fixes = {finding["object"]: finding["fix"] for finding in result["findings"] if finding["id"] == "replica_identity"}
    assert fixes["public.candidate"] == 'ALTER TABLE public.candidate REPLICA IDENTITY USING INDEX "Candidate";'
    assert fixes['"Lager"."größe"'] == 'ALTER TABLE "Lager"."größe" REPLICA IDENTITY DEFAULT;'
    assert objects(result, "replica_identity_full") == {"public.fully": "warning"}
    assert objects(result, "replica_identity_type") == {"public.fully_json": "blocker"}
    assert objects(result, "unlogged_table") == {"public.forgetful": "warning"}
    assert objects(result, "extension_rows") == {"public.of_users": "blocker"}
    assert objects(result, "materialized_view") == {"public.viewed": "info"}
    assert objects(result, "foreign_table") == {"public.abroad": "warning"}
    assert objects(result, "application_owner") == {"assess_app": "warning"}
    assert objects(result, "application_superuser") == {"assess_super": "warning"}
    assert objects(result, "password_md5") == {"assess_md5": "blocker"}
    assert objects(result, "sequence_smallint") == {"public.small": "info"}
    assert objects(result, "sequence_cycle") == {"public.round_and_round": "info"}
    assert objects(result, "sequence_exhaustion") == {"public.nearly": "warning", "public.down": "warning"}
    assert objects(result, "large_objects") == {"pg_largeobject": "warning"}
    assert objects(result, "replica_trigger") == {"always ON public.plain": "warning"}
    assert objects(result, "event_trigger") == {'"Audit"': "warning"}
    assert objects(result, "publication") == {"theirs": "info"}
    assert objects(result, "subscription") == {"upstream": "blocker"}
    assert objects(result, "nondeterministic_collation") == {"public.ci": "info"}
    assert objects(result, "idle_in_transaction") == {"assess_app": "warning"}
    assert objects(result, "direct_session") == {"assess_app": "warning", "assess_super": "warning"}
    assert objects(result, "pooler_auth") == {"pgbouncer.get_auth": "blocker"}
    assert objects(result, "target_disk") == {"target": "warning"}
    assert objects(result, "fsync") == {"fsync": "blocker"}
    assert not objects(result, "wal_level") and not objects(result, "row_security") and not objects(result, "target_unknown")
    assert result["blockers"] == sum(1 for finding in result["findings"] if finding["severity"] == "blocker")
    assert result["facts"]["tables"] == 12 and result["facts"]["partitions"] == 1
    assert result["facts"]["large_objects"] == 1


def test_every_fix_that_is_a_statement_is_one_that_the_server_takes(postgresql_server: t.Any, service_file: str) -> None:
    """The fixes are run, in a transaction that is rolled back, where the server allows them in one."""
    ids = {
        "replica_identity",
        "replica_identity_type",
        "unlogged_table",
        "sequence_exhaustion",
        "replica_trigger",
        "event_trigger",
        "pooler_auth",
        "application_owner",
    }
    findings = [finding for finding in assess(service_file)["findings"] if finding["id"] in ids]
    assert {finding["id"] for finding in findings} == ids
    with session(postgresql_server) as connection, connection.cursor() as cursor:
        for finding in findings:
            cursor.execute("BEGIN; CREATE ROLE pgbouncer_auth; " + finding["fix"])
            cursor.execute("ROLLBACK")


def test_what_was_fixed_is_found_no_more(postgresql_server: t.Any, service_file: str) -> None:
    before = assess(service_file)
    fixes = {finding["object"]: finding["fix"] for finding in before["findings"] if finding["id"] == "replica_identity"}
    with session(postgresql_server) as connection, connection.cursor() as cursor:
        cursor.execute(fixes["public.candidate"])
        after = assess(service_file)
        cursor.execute("ALTER TABLE candidate REPLICA IDENTITY DEFAULT")
    assert "public.candidate" not in objects(after, "replica_identity")
    assert after["fingerprint"] != before["fingerprint"]
    assert assess(service_file)["fingerprint"] == before["fingerprint"]


def test_a_prepared_transaction_needs_its_decision(postgresql_server: t.Any, service_file: str) -> None:
    with session(postgresql_server) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN; INSERT INTO plain VALUES (77); PREPARE TRANSACTION 'left'")
        try:
            assert objects(assess(service_file), "prepared_transaction") == {"left": "blocker"}
        finally:
            cursor.execute("ROLLBACK PREPARED 'left'")


def test_a_limited_administrator_learns_what_it_lacks(service_file: str) -> None:
    result = assess(service_file, service="limited", own_roles=["assess_limited"])
    assert objects(result, "row_security") == {"public.secured": "blocker"}
    assert objects(result, "administrator") == {"assess_limited": "blocker"}
    assert objects(result, "sessions_unknown") == {"assess_limited": "blocker"}
    assert objects(result, "large_objects") == {"pg_largeobject": "blocker"}
    assert "public.plain" in objects(result, "table_privilege") and "public.secured" not in objects(result, "table_privilege")
    assert "public.plain" in objects(result, "table_owner")
    assert objects(result, "password_unknown")
    assert objects(result, "application_membership")["assess_app"] == "blocker"
    assert "public.small" in objects(result, "sequence_unknown")


def test_a_target_that_is_not_there_yet_is_a_finding(service_file: str) -> None:
    result = assess(service_file, target_service="nobody", target_major_version=17)
    assert objects(result, "target_unknown") == {"target": "info"}
    assert not objects(result, "target_version")
    assert objects(assess(service_file, target_service="missing"), "target_version") == {"target": "warning"}


def test_a_source_that_is_not_there_is_an_error(service_file: str) -> None:
    with pytest.raises(ClientError, match="nobody"):
        assess(service_file, service="nobody")


def test_pooler_names_are_resolved() -> None:
    assert "127.0.0.1" in assessment_info.resolve(["localhost"])
    assert assessment_info.resolve(["10.1.2.3", "10.0.0.0/8"]) == ("10.1.2.3/32", "10.0.0.0/8")
    with pytest.raises(UsageError, match="no such host"):
        assessment_info.resolve(["no such host"])


def test_the_sessions_of_the_assessment_cannot_write(service_file: str) -> None:
    connection = client.connect(service_file, "source", 5)
    with connection.cursor() as cursor, pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        cursor.execute("CREATE TABLE public.written (a int)")
    connection.close()


def test_no_file_is_left(tmp_path: pathlib.Path, service_file: str) -> None:
    assess(service_file)
    assert list(tmp_path.iterdir()) == []
