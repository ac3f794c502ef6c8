# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Sessions whose statements hold secrets: what the server would log of them is turned off, and errors show no statement."""

from __future__ import annotations

import typing as t

try:
    import psycopg2
except ImportError:  # the module has said so before it gets here
    pass

from .._core.errors import ClientError
from .._core.outcome import Action
from . import client

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# Superusers only. The last two belong to extensions and are placeholders where those are not loaded.
QUIET = {
    **client.UNLOGGED,
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "pg_stat_statements.track_utility": "off",
    "pgaudit.log": "none",
}


def silence(connection: Connection) -> bool:
    """Turn the statement logging of a session off; False where we may not (no superuser: verifiers are then all that a log can show)."""
    if client.query_value(connection, "SHOW is_superuser") != "on":
        return False
    for name, value in QUIET.items():
        client.query(connection, "SELECT set_config(%s, %s, false)", (name, value))
    return True


def refuse_to_tell(connection: Connection, what: str) -> None:
    """Where a session could not be silenced, a statement with a secret may be sent only if the server's own settings keep it out of the log.

    One that fails is logged all the same (``log_min_error_statement``): who sends it says so.

    :param what: the secret, in words
    :raises ClientError: the log would show it
    """
    if silence(connection):
        return
    if client.query_value(connection, "SHOW log_statement") != "none":
        raise ClientError(f"The server's log would show {what}, since log_statement is not none: set it in the server's parameters.")
    longest = int(client.query_value(connection, "SELECT setting FROM pg_settings WHERE name = 'log_min_duration_statement'"))
    if 0 <= longest < LOGGED_MS:
        raise ClientError(f"The server's log would show {what}, since log_min_duration_statement is {longest} ms: set it to {LOGGED_MS} or more, or -1.")


# Longer than a statement takes that makes a link.
LOGGED_MS = 1000


def speak(connection: Connection) -> None:
    """Give a silenced session the server's own logging back; one that could not be silenced has it."""
    if client.query_value(connection, "SHOW is_superuser") != "on":
        return
    for name in QUIET:
        client.query(connection, f"RESET {name}")


def apply(connection: Connection, actions: list[Action]) -> None:
    """Run the private forms in one transaction; nothing of it stays when one fails.

    :raises ClientError: names the action by its public form, with the server's message but never the statement
    """
    if not actions:
        return
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        for action in actions:
            try:
                cursor.execute(action.statement)
            except psycopg2.Error as error:
                sqlstate, message = error.pgcode, error.diag.message_primary or type(error).__name__
                if not connection.closed:
                    cursor.execute("ROLLBACK")
                # "from None": the original holds the statement.
                raise ClientError(f"{action.public}: {message}. Nothing of this step was changed.", sqlstate=sqlstate) from None
        cursor.execute("COMMIT")
