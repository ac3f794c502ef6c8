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
from .quoting import literal

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# Superusers only, unless the server lets others. Those with a dot belong to extensions.
QUIET = {
    **client.UNLOGGED,
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "pg_stat_statements.track_utility": "off",
    "pgaudit.log": "none",
}
# Longer than a statement takes that makes a link.
LOGGED_MS = 1000


def silence(connection: Connection) -> None:
    """Turn off what the session may turn off of that which keeps its statements."""
    _change(connection, [f"set_config({literal(name)}, {literal(value)}, false)" for name, value in QUIET.items()])


def speak(connection: Connection) -> None:
    """Give a silenced session the server's own logging back."""
    # NULL stands for the value that the session began with.
    _change(connection, [f"set_config({literal(name)}, NULL, false)" for name in QUIET])


def _change(connection: Connection, calls: list[str]) -> None:
    """Change one setting after the other; one that is not ours to change stays, and the server logs no error."""
    parts = " ".join(f"BEGIN PERFORM pg_catalog.{call}; EXCEPTION WHEN insufficient_privilege THEN NULL; END;" for call in calls)
    client.query(connection, f"DO $do$ BEGIN {parts} END $do$")


def refuse_to_tell(connection: Connection, what: str) -> None:
    """A statement with a secret may be sent only if nothing keeps it, be it that the session was silenced, be it by the server's own settings.

    One that fails is logged all the same (``log_min_error_statement``): who sends it says so.

    :param what: the secret, in words
    :raises ClientError: the server would keep it, and anybody who reads its log or statistics could see it
    """
    silence(connection)
    names = [*QUIET, "log_statement_sample_rate", "pg_stat_statements.track"]
    rows = client.query(connection, "SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", (names,))
    for name, advice in what_tells({row["name"]: row["setting"] for row in rows}).items():
        raise ClientError(
            f"The server would keep {what} where others can read it, because of {name}: set it to {advice} in the server's parameters.", setting=name
        )


def what_tells(settings: dict[str, str]) -> dict[str, str]:
    """Settings that have a quick statement kept that makes a link, each with what it has to be (pure).

    :param settings: as pg_settings has them; those of extensions that are not loaded are not there
    """
    found = {}
    if settings["log_statement"] != "none":
        found["log_statement"] = "none"
    for name in ("log_min_duration_statement", "log_min_duration_sample"):
        sampled = name != "log_min_duration_sample" or float(settings.get("log_statement_sample_rate", "1")) > 0
        if sampled and 0 <= int(settings.get(name, "-1")) < LOGGED_MS:
            found[name] = f"-1, or {LOGGED_MS} ms or more"
    if float(settings.get("log_transaction_sample_rate", "0")) > 0:
        found["log_transaction_sample_rate"] = "0"
    if settings.get("pg_stat_statements.track_utility") == "on" and settings.get("pg_stat_statements.track") != "none":
        found["pg_stat_statements.track_utility"] = "off"
    if settings.get("pgaudit.log", "none") not in ("none", ""):
        found["pgaudit.log"] = "none"
    return found


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
