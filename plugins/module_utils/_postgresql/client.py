# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Connections to PostgreSQL by service name.

No secret is ever an argument: a module gets the path of a libpq service file (written by role mover, mode 0600) and a
service's name in it; host, user, TLS and the passfile stand there. The format is libpq's connection service file,
https://www.postgresql.org/docs/current/libpq-pgservice.html
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import typing as t

try:
    import psycopg2
    import psycopg2.extensions

    HAS_PSYCOPG2 = True
except ImportError:
    HAS_PSYCOPG2 = False

from .._core.errors import ClientError

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# What every session of ours sets: no bound of a role or database may break off our own long statements, and what the
# server prints must not depend on its configuration.
SESSION_SETTINGS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "search_path": "pg_catalog",
    "standard_conforming_strings": "on",
    "client_min_messages": "warning",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "row_security": "off",
    # What a client that has lost its power leaves behind (locks of ours) has to be gone in seconds; a server's own defaults are hours.
    "tcp_keepalives_idle": "3",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
}

# Bounds that only newer servers know, with the version since which they do: a session of ours may be idle for as long as a copy takes beside it.
NEWER_SETTINGS = {"idle_session_timeout": ("0", 140000), "transaction_timeout": ("0", 170000)}

# For sessions whose statements hold a verifier: nothing of them in the server's log (only a superuser may set these).
UNLOGGED = {"log_statement": "none", "log_min_duration_statement": "-1", "log_min_error_statement": "panic", "log_duration": "off"}


# As long as a failover may take.
LEADER_PATIENCE_SECONDS = 30.0


def connection_argument_spec() -> dict[str, t.Any]:
    """The options that every module with a PostgreSQL connection shares (doc fragment ``postgresql``)."""
    return {"service_file": {"type": "path", "required": True}, "connect_timeout_seconds": {"type": "int", "default": 10}}


def connect(
    service_file: str,
    service: str,
    *,
    application_name: str,
    autocommit: bool = True,
    connect_timeout_seconds: int = 10,
    settings: dict[str, str] | None = None,
    patience_seconds: float = LEADER_PATIENCE_SECONDS,
    **parameters: str,
) -> Connection:
    """Open a session with our settings; keepalives notice a dead peer within about 10 s.

    :param service: a service's name in ``service_file``: ``source``, ``target`` or ``pooler_<host>``
    :param settings: settings of the session over and above SESSION_SETTINGS
    :param patience_seconds: how long to try again while a host only starts or ends, or none of those that answer takes writes: a leader is on its way
      then. Whatever else is wrong is told at once. 0 where somebody waits who must not
    :param parameters: further libpq parameters (``dbname=...``)
    :raises ClientError: the server cannot be reached or refuses us; says which service and why
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return _connect(service_file, service, application_name, autocommit, connect_timeout_seconds, {**SESSION_SETTINGS, **(settings or {})}, parameters)
        except ClientError as error:
            if not any(words in error.message for words in _ON_ITS_WAY) or time.monotonic() >= deadline:
                raise
            time.sleep(LOOK_SECONDS)


def logs_in(service_file: str, service: str, user: str, password: str) -> bool:
    """Whether a role logs in with a password: what is asked of a server that shows nobody its verifiers.

    :raises ClientError: the server cannot be reached, so that nothing is known
    """
    try:
        connect(service_file, service, application_name="ha_migration login", user=user, password=password).close()
    except ClientError as error:
        if any(words in error.message for words in (_WRONG, _NOLOGIN)):
            return False
        if _LATER in error.message:
            return True
        raise
    return True


def is_password_of(service_file: str, service: str, user: str, password: str) -> bool:
    """Whether a password is a role's; that it may log in, or write, is another matter.

    :raises ClientError: the server cannot be reached, so that nothing is known
    """
    try:
        connect(service_file, service, application_name="ha_migration login", user=user, password=password, target_session_attrs="any").close()
    except ClientError as error:
        if _WRONG in error.message:
            return False
        if any(words in error.message for words in (_LATER, _NOLOGIN, _FULL)):
            return True
        raise
    return True


# What servers say of a password that is not the role's; and, after they have found it right, of a role that may not log in, or not now, or not there.
_WRONG = "password authentication failed"
_NOLOGIN = "is not permitted to log in"
_FULL = "too many connections for"
_LATER = "permission denied for database"


# What libpq says of a host that is no primary (before and since version 14), servers of themselves while they start or stop, and libpq of one that ends
# before it has said anything (it asks no other host then).
_ON_ITS_WAY = (
    "session is read-only",
    "server is in hot standby mode",
    "could not make a writable connection",
    "the database system is ",
    "server closed the connection unexpectedly",
)
LOOK_SECONDS = 0.5


def _connect(
    service_file: str,
    service: str,
    application_name: str,
    autocommit: bool,
    connect_timeout_seconds: int,
    settings: dict[str, str],
    parameters: dict[str, str],
) -> Connection:
    # PGSERVICEFILE is read from the environment only: libpq has no parameter for it before version 18.
    os.environ["PGSERVICEFILE"] = service_file
    try:
        connection = psycopg2.connect(
            service=service,
            application_name=application_name,
            connect_timeout=str(connect_timeout_seconds),
            keepalives_idle="3",
            keepalives_interval="2",
            keepalives_count="3",
            tcp_user_timeout="10000",
            **t.cast("dict[str, t.Any]", parameters),
        )
        connection.autocommit = True
        settings = {name: value for name, (value, since) in NEWER_SETTINGS.items() if connection.server_version >= since} | settings
        with connection.cursor() as cursor:
            calls = ", ".join(["pg_catalog.set_config(%s, %s, false)"] * len(settings))
            cursor.execute(f"SELECT {calls}", [part for pair in settings.items() for part in pair])
        connection.autocommit = autocommit
    except psycopg2.Error as error:
        message = f"Cannot connect to the {service} (service {service!r} of {service_file}): {explain(error)}"
        raise ClientError(message, service=service, connection_lost=True) from error
    return connection


def connect_console(service_file: str, service: str, *, connect_timeout_seconds: int = 5) -> Connection:
    """Open PgBouncer's admin console (it speaks only the simple protocol and knows no settings).

    :raises ClientError: as for :func:`connect`
    """
    os.environ["PGSERVICEFILE"] = service_file
    try:
        connection = psycopg2.connect(service=service, connect_timeout=str(connect_timeout_seconds))
        connection.autocommit = True
    except psycopg2.Error as error:
        raise ClientError(f"Cannot open the console of {service} (service file {service_file}): {explain(error)}", service=service) from error
    return connection


def query(connection: Connection, statement: str, parameters: t.Any = None) -> list[dict[str, t.Any]]:
    """Run one statement and return its rows as dicts; [] for a statement without rows.

    :raises ClientError: with the server's message, SQLSTATE in ``details["sqlstate"]``, the table that the server names (or None) in
      ``details["table"]``, and ``details["connection_lost"]`` where the session has ended
    """
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            if cursor.description is None:
                return []
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    except psycopg2.Error as error:
        raise ClientError(f"The statement failed: {explain(error)}", sqlstate=error.pgcode, table=error.diag.table_name, **lost(connection)) from error


def sees_others(connection: Connection) -> bool:
    """Whether the session sees what sessions of other roles do; without that right pg_stat_activity shows them as if they did nothing."""
    return bool(query_value(connection, "SELECT pg_has_role('pg_read_all_stats', 'USAGE')"))


def own_role(connection: Connection) -> str:
    """Quoted name of the role that the session acts as."""
    return str(query_value(connection, "SELECT quote_ident(current_user::text)"))


def query_value(connection: Connection, statement: str, parameters: t.Any = None) -> t.Any:
    """The one value of a statement that returns one row with one column.

    :raises ClientError: the statement failed or did not return exactly one row
    """
    rows = query(connection, statement, parameters)
    if len(rows) != 1:
        raise ClientError(f"Expected one row and got {len(rows)} from: {statement}")
    return next(iter(rows[0].values()))


# A console answers within milliseconds, or its process does not run: the kernel of a stopped process keeps its connections alive for ever.
CONSOLE_SECONDS = 5.0


def query_console(console: Connection, statement: str, timeout_seconds: float = CONSOLE_SECONDS) -> list[dict[str, t.Any]]:
    """As :func:`query`, bounded: a console knows no statement_timeout. After the bound its session is of no more use.

    :raises ClientError: the console refused, or did not answer in time
    """
    with bounded(console, timeout_seconds) as late:
        try:
            return query(console, statement)
        except ClientError as error:
            if not late.is_set():
                raise
            raise ClientError(f"The pooler's console did not answer {statement} within {timeout_seconds:g} s: look at the unit pgbouncer there.") from error


@contextlib.contextmanager
def bounded(connection: Connection, timeout_seconds: float) -> t.Iterator[threading.Event]:
    """Cut a session's wire at the end of a time, whatever is waited for on it then; the event says that this was done."""
    late = threading.Event()

    def give_up() -> None:
        late.set()
        with contextlib.suppress(OSError, psycopg2.Error), socket.socket(fileno=os.dup(connection.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout_seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def drain_notifications(connection: Connection) -> None:
    """Read what waits on the socket and forget the notifications: they only wake us.

    :raises ClientError: the session has failed
    """
    try:
        connection.poll()
        connection.notifies.clear()
    except psycopg2.Error as error:
        raise ClientError(f"The session was lost: {explain(error)}") from error


def lost(connection: Connection) -> dict[str, bool]:
    """``{"connection_lost": True}`` for an error's details where the session has ended, else nothing."""
    return {"connection_lost": True} if connection.closed else {}


def explain(error: Exception) -> str:
    """The server's or libpq's message in one line (they hold no passwords)."""
    return " ".join(str(error).split())
