# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sequences: which of two is behind, and what is read of a real server."""

from __future__ import annotations

import os
import typing as t
from dataclasses import replace

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql.sequences import Sequence, is_behind, read_sequences, sequences_behind


def sequence(last: int | None, increment: int = 1, cycle: bool = False) -> Sequence:
    """A sequence; None: never used."""
    return Sequence("public.s", 1 if last is None else last, 1, increment, -100, 100, cycle, called=last is not None)


@pytest.mark.parametrize(
    ("here", "there", "behind"),
    [
        (sequence(5), sequence(5), False),
        (sequence(5), sequence(4), True),
        (sequence(5), sequence(None), True),
        (sequence(None), sequence(None), False),
        (sequence(-5, -1), sequence(-4, -1), True),
        (sequence(-5, -1), sequence(-6, -1), False),
        (sequence(5, cycle=True), sequence(6, cycle=True), True),
        (replace(sequence(50), called=False), sequence(49), False),
        (replace(sequence(50), called=False), sequence(48), True),
        (replace(sequence(50), called=False), sequence(None), True),
    ],
)
def test_sequences_are_compared_in_their_direction(here: Sequence, there: Sequence, behind: bool) -> None:
    assert is_behind(here, there) is behind
    assert sequences_behind({"public.s": here}, {}) == ["public.s"]


@pytest.fixture
def connection(postgresql_server: t.Any) -> t.Iterator[t.Any]:
    """A session in a schema of its own, as a role that is no superuser; everything is rolled back."""
    connection = client.connect(postgresql_server.service_file, "source", application_name="test")
    role = f"reader_{os.getpid()}"
    client.query(connection, f"BEGIN; CREATE ROLE {role}; CREATE SCHEMA seq; CREATE SCHEMA own; GRANT ALL ON SCHEMA seq TO {role}")
    client.query(connection, 'CREATE SEQUENCE seq."Größe" INCREMENT -2; CREATE SEQUENCE own.hidden; CREATE TEMPORARY SEQUENCE passing')
    client.query(connection, """SELECT nextval('seq."Größe"'), nextval('own.hidden')""")
    client.query(connection, f'GRANT SELECT ON SEQUENCE seq."Größe" TO {role}; SET LOCAL ROLE {role}')
    yield connection
    client.query(connection, "ROLLBACK")
    connection.close()


def test_sequences_of_sessions_and_of_the_migration_are_left_out(connection: t.Any) -> None:
    found = read_sequences(connection, "own")
    assert found == {'seq."Größe"': Sequence('seq."Größe"', -1, -1, -2, -(2**63), -1, False)}


def test_a_number_that_comes_next_is_read(connection: t.Any) -> None:
    client.query(connection, 'RESET ROLE; CREATE SEQUENCE seq.unused; CREATE SEQUENCE seq."100%"; ALTER SEQUENCE seq."Größe" RESTART WITH -70')
    client.query(connection, """SELECT setval('seq."100%"', 1000, false)""")
    found = {name: (one.last_value, one.called, one.next_value) for name, one in read_sequences(connection, "own").items() if name.startswith("seq.")}
    assert found == {"seq.unused": (1, False, 1), 'seq."100%"': (1000, False, 1000), 'seq."Größe"': (-70, False, -70)}
    assert client.query_value(connection, """SELECT nextval('seq."100%"')""") == 1000


def test_a_value_that_may_not_be_read_is_refused(connection: t.Any) -> None:
    with pytest.raises(ClientError, match=r"may not read the sequences own\.hidden: grant SELECT"):
        read_sequences(connection, "seq")
