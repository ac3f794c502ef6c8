# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table that probes write and the view that applications read, on a real server."""

from __future__ import annotations

import itertools
import os
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql.quoting import identifier
from ansible_collections.freight.pg_ha.plugins.modules import health_checks

_names = itertools.count()


@pytest.fixture
def params(postgresql_server: t.Any, tmp_path: t.Any) -> t.Iterator[dict[str, t.Any]]:
    name = f"health_{os.getpid()}_{next(_names)}"
    postgresql_server.create_database(name)
    service_file = postgresql_server.services(tmp_path / "pg_service.conf", target=name)
    writer = f"it's \"{name}"
    yield {"service_file": str(service_file), "connect_timeout_seconds": 5, "service": "target", "writer": writer, "password": "pass'word %s", "empty": False}
    admin = client.connect(str(service_file), "target", application_name="test")
    if client.query(admin, "SELECT FROM pg_roles WHERE rolname = %s", (writer,)):
        client.query(admin, f"DROP OWNED BY {identifier(writer)}; DROP ROLE {identifier(writer)}")
    admin.close()


def test_made_once(params: dict[str, t.Any]) -> None:
    predicted = health_checks.run(params, True)
    made = health_checks.run(params, False)
    assert made.changed and predicted.result["actions"] == made.result["actions"]
    assert not any("SCRAM" in action or "pass'word" in action for action in made.result["actions"])
    assert not health_checks.run(params, False).changed


def test_the_writer_writes_and_everybody_reads_the_health(params: dict[str, t.Any]) -> None:
    health_checks.run(params, False)
    session = client.connect(params["service_file"], "target", application_name="test")
    client.query(session, f"SET ROLE {identifier(params['writer'])}")
    client.query(session, "INSERT INTO ha_migration.health_checks (run, client, seq) VALUES ('r', 1, 1)")
    client.query(session, "DELETE FROM ha_migration.health_checks WHERE false")
    with pytest.raises(ClientError, match="permission denied"):
        client.query(session, "TRUNCATE ha_migration.health_checks")
    row = client.query(session, "SELECT * FROM ha_migration.health")[0]
    assert row["takes_writes"] is True and row["timeline"] >= 1 and row["streaming_standbys"] == 0 and row["last_check"] is not None
    session.close()


def test_rows_that_were_left_are_taken_away_where_that_is_wanted(params: dict[str, t.Any]) -> None:
    health_checks.run(params, False)
    session = client.connect(params["service_file"], "target", application_name="test")
    client.query(session, "INSERT INTO ha_migration.health_checks (run, client, seq) VALUES ('left', 1, 1)")
    assert not health_checks.run(params, False).changed
    emptied = health_checks.run({**params, "empty": True}, False)
    assert emptied.result["actions"] == ["DELETE FROM ha_migration.health_checks"] and (emptied.before["rows"], emptied.after["rows"]) == (True, False)
    assert client.query_value(session, "SELECT count(*) FROM ha_migration.health_checks") == 0
    assert not health_checks.run({**params, "empty": True}, False).changed
    session.close()


def test_sessions_of_a_role_that_was_dropped_are_ended_before_its_namesake_is_made(params: dict[str, t.Any]) -> None:
    health_checks.run(params, False)
    admin = client.connect(params["service_file"], "target", application_name="test")
    kept = client.connect(params["service_file"], "target", application_name="kept by a pooler", user=params["writer"], password=params["password"])
    client.query(kept, "DELETE FROM ha_migration.health_checks WHERE false")
    client.query(admin, f"DROP OWNED BY {identifier(params['writer'])}; DROP ROLE {identifier(params['writer'])}")
    outcome = health_checks.run(params, False)
    assert outcome.result["actions"][0].startswith("SELECT pg_terminate_backend")
    with pytest.raises(ClientError):
        client.query(kept, "SELECT 1")
    assert not health_checks.run(params, False).changed
    client.query(admin, "SELECT 1")
    admin.close()


def test_what_is_missing_is_made(params: dict[str, t.Any]) -> None:
    health_checks.run(params, False)
    session = client.connect(params["service_file"], "target", application_name="test")
    client.query(session, "DROP VIEW ha_migration.health")
    outcome = health_checks.run({**params, "password": "another"}, False)
    assert outcome.result["actions"][0].startswith("CREATE OR REPLACE VIEW") and "PASSWORD '********'" in outcome.result["actions"][-1]
    assert not health_checks.run({**params, "password": "another"}, False).changed
    session.close()


def test_a_password_that_a_verifier_cannot_hold_is_refused(params: dict[str, t.Any]) -> None:
    with pytest.raises(UsageError, match="printable ASCII"):
        health_checks.run({**params, "password": "pässword"}, False)
