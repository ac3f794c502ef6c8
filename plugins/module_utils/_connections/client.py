# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Tries connections. What does not work is a problem and no error: the others are tried all the same."""

from __future__ import annotations

import configparser
import time
import typing as t

from .._core.errors import ClientError, UsageError
from .._core.problems import Problem
from .._postgresql import client
from .._postgresql.console import read_pooled
from .model import Answer, Service
from .plan import explain, kind_of, pooler_problem

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

APPLICATION_NAME = "ha_migration connections"


def read_services(service_file: str, names: t.Sequence[str]) -> list[Service]:
    """The services of those names.

    :raises UsageError: the file cannot be read or lacks one
    """
    parser = configparser.RawConfigParser(strict=False)
    try:
        with open(service_file, encoding="utf-8") as stream:
            parser.read_file(stream)
    except (configparser.Error, OSError) as error:
        raise UsageError(f"Cannot read the service file {service_file}: {client.explain(error)}.") from error
    missing = [name for name in names if not parser.has_section(name)]
    if missing:
        raise UsageError(f"The service file {service_file} has no service {', '.join(missing)}: let role mover write it.")
    return [
        Service(
            name=name,
            kind="pooler" if name.startswith("pooler_") else name,
            host=parser.get(name, "host", fallback=""),
            port=parser.get(name, "port", fallback="5432"),
            user=parser.get(name, "user", fallback=""),
            database=parser.get(name, "dbname", fallback=""),
        )
        for name in names
    ]


def reason(error: ClientError) -> str:
    """libpq's or the server's own words, without ours around them."""
    cause = error.__cause__
    return client.explain(cause) if isinstance(cause, Exception) else error.message


def try_server(service_file: str, service: Service, connect_timeout_seconds: int, maintenance_database: str) -> Answer | Problem:
    """A server's answer, or why there is none. A target may lack the database: the replication makes it."""
    has_database = True
    try:
        connection = _open(service_file, service, connect_timeout_seconds)
    except ClientError as error:
        if service.kind != "target" or kind_of(reason(error)) != "missing_database":
            return explain(service, reason(error))
        has_database = False
        try:
            connection = _open(service_file, service, connect_timeout_seconds, dbname=maintenance_database)
        except ClientError as second:
            return explain(service, reason(second))
    try:
        return _ask(connection, has_database)
    except ClientError as error:
        return explain(service, reason(error))
    finally:
        connection.close()


def _open(service_file: str, service: Service, connect_timeout_seconds: int, **parameters: t.Any) -> Connection:
    return client.connect(
        service_file,
        service.name,
        application_name=APPLICATION_NAME,
        connect_timeout_seconds=connect_timeout_seconds,
        **parameters,
    )


def _ask(connection: Connection, has_database: bool) -> Answer:
    identifier = str(client.query_value(connection, "SELECT system_identifier FROM pg_control_system()"))
    began = time.time()
    there = float(client.query_value(connection, "SELECT extract(epoch FROM clock_timestamp())::float8"))
    ended = time.time()
    return Answer(identifier, there - (began + ended) / 2, (ended - began) / 2, has_database)


def try_pooler(service_file: str, service: Service, database: str, connect_timeout_seconds: int) -> Problem | None:
    """Why a pooler cannot hold clients, None when it can."""
    try:
        console = client.connect_console(service_file, service.name, connect_timeout_seconds=connect_timeout_seconds)
    except ClientError as error:
        return explain(service, reason(error))
    try:
        return pooler_problem(service, read_pooled(console, database), database)
    except ClientError as error:
        return explain(service, reason(error))
    finally:
        console.close()
