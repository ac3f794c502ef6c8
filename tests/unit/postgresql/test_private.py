# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Statements that hold a secret: what would keep them is turned off, or they are not sent."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client, private

# A server as it is by default.
USUAL = {
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_statement_sample_rate": "1",
    "log_transaction_sample_rate": "0",
}
LOADED = {"pg_stat_statements.track": "top", "pg_stat_statements.track_utility": "on", "pgaudit.log": "none"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, set()),
        ({"log_statement": "ddl"}, {"log_statement"}),
        ({"log_min_duration_statement": "0"}, {"log_min_duration_statement"}),
        ({"log_min_duration_statement": "1000"}, set()),
        ({"log_min_duration_sample": "100"}, {"log_min_duration_sample"}),
        ({"log_min_duration_sample": "100", "log_statement_sample_rate": "0"}, set()),
        ({"log_transaction_sample_rate": "0.01"}, {"log_transaction_sample_rate"}),
        (LOADED, {"pg_stat_statements.track_utility"}),
        ({**LOADED, "pg_stat_statements.track": "none"}, set()),
        ({**LOADED, "pg_stat_statements.track_utility": "off", "pgaudit.log": "ddl, role"}, {"pgaudit.log"}),
    ],
)
def test_what_would_keep_a_statement_is_named(changes: dict[str, str], named: set[str]) -> None:
    assert set(private.what_tells({**USUAL, **changes})) == named


@pytest.fixture
def logged(postgresql_server: t.Any) -> t.Iterator[t.Any]:
    """Makes sessions of a role whose transactions are logged now and then."""
    admin = client.connect(postgresql_server.service_file, "source", application_name="test")
    client.query(admin, "CREATE ROLE private_limited LOGIN; ALTER ROLE private_limited SET log_transaction_sample_rate = 0.5")
    sessions = []

    def make() -> t.Any:
        sessions.append(client.connect(postgresql_server.service_file, "source", application_name="test", user="private_limited"))
        return sessions[-1]

    yield admin, make
    for session in sessions:
        session.close()
    client.query(admin, "ALTER ROLE private_limited NOSUPERUSER; DROP OWNED BY private_limited; DROP ROLE private_limited")
    admin.close()


def test_a_secret_is_not_sent_where_others_could_read_it(logged: t.Any) -> None:
    admin, make = logged
    with pytest.raises(ClientError, match="would keep the word where others can read it, because of log_transaction_sample_rate: set it to 0"):
        private.refuse_to_tell(make(), "the word")
    if admin.server_version >= 150000:
        client.query(admin, "GRANT SET ON PARAMETER log_transaction_sample_rate TO private_limited")
        private.refuse_to_tell(make(), "the word")
    client.query(admin, "ALTER ROLE private_limited SUPERUSER")
    session = make()
    private.refuse_to_tell(session, "the word")
    assert client.query_value(session, "SHOW log_min_error_statement") == "panic"
    private.speak(session)
    shown = [client.query_value(session, f"SHOW {name}") for name in ("log_transaction_sample_rate", "log_min_error_statement")]
    assert shown == ["0.5", "error"]
