# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The fence of large objects, which outlives the decision.

Their tables take no trigger, so that a lock alone keeps writers away. One that ended with the decision's commit would let go on whoever waits for
it: the write would be acknowledged on the side that was just left. So a session of its own holds the lock until nobody is there any more who could
write. It does so within one statement, which the server carries on when we have died.
"""

from __future__ import annotations

import contextlib
import threading
import typing as t

from .._core.errors import ClientError, PgHaError
from .._postgresql import client
from .._postgresql.quoting import literal
from . import schema

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from .section import Attempt

# Whoever opens a large object, also to read it, locks the first one; whoever only makes or owns it, the second.
TABLES = "pg_catalog.pg_largeobject, pg_catalog.pg_largeobject_metadata"
# Whether this role may lock them.
LOCKABLE = " AND ".join(f"has_table_privilege('{table}', 'UPDATE')" for table in TABLES.split(", "))
# How long the lock outlives a budget in which nobody has decided: clients may be held for two seconds more.
LATE_SECONDS = 1.5
# How long after the decision we may take to end the applications' sessions, before the statement itself does; and when it ends at the latest.
PATIENCE_SECONDS = 5.0
LONGEST_SECONDS = 15.0


class LargeObjectFence:
    """Keeps everybody from the large objects of one side.

    :param session: of its own, on the side that is left
    """

    def __init__(self, session: Connection) -> None:
        self._session = session
        self._holds = False

    def take(self, attempt: Attempt) -> None:
        """Lock them, until clients go on at the side that was to be left, or until those who could write are gone from there.

        :raises ClientError: somebody writes them and does not end, or this role may not lock them
        """
        # From this version on a server may be told to look whether its client lives: here it must not.
        alone = "SET LOCAL client_connection_check_interval = 0; " if self._session.server_version >= 140000 else ""
        try:
            client.query(
                self._session,
                # Each look has to see what was committed meanwhile, and no bound of ours may end it.
                f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; {alone}"
                f"SET LOCAL lock_timeout = {attempt.lock_timeout_ms:d}; LOCK TABLE {TABLES} IN SHARE MODE",
            )
        except ClientError:
            with contextlib.suppress(ClientError):
                client.query(self._session, "ROLLBACK")
            raise
        self._holds = True
        threading.Thread(target=self._stand, args=(hold_statement(attempt),), daemon=True).start()

    def _stand(self, statement: str) -> None:
        with contextlib.suppress(PgHaError):
            client.query(self._session, statement)
            client.query(self._session, "ROLLBACK")

    def proof(self) -> list[str]:
        """Statements for the decision's transaction that fail unless the lock is held now; it was taken once, so it has been all the while."""
        if not self._holds:
            return []
        held = f"SELECT FROM pg_locks WHERE pid = {self._session.info.backend_pid} AND relation = 'pg_catalog.pg_largeobject'::regclass AND granted"
        return [f"DO $held$ BEGIN IF NOT EXISTS ({held}) THEN RAISE EXCEPTION 'the fence of the large objects does not stand'; END IF; END $held$"]


def hold_statement(attempt: Attempt) -> str:
    """The block that holds the lock of its transaction (pure).

    Who waits for the lock at the decision is ended, whoever it is. The applications' other sessions are ended by who finishes the attempt; a
    session that is still in its login shows in no view, so one look is not enough.
    """
    roles = ", ".join(literal(role) for role in attempt.roles)
    theirs = f"quote_ident(usename::text) = ANY (ARRAY[{roles}]::text[])"
    waits = "pid IN (SELECT l.pid FROM pg_locks l WHERE NOT l.granted AND l.relation IN ('pg_largeobject'::regclass, 'pg_largeobject_metadata'::regclass))"
    return f"""
        DO $hold$
        DECLARE
            until timestamptz := clock_timestamp() + make_interval(secs => {attempt.hold_seconds + LATE_SECONDS});
            decided text; since timestamptz; clean int := 0; item record;
        BEGIN
            LOOP
                SELECT serves INTO decided FROM {schema.SCHEMA}.decision WHERE epoch = {attempt.epoch:d};
                EXIT WHEN decided = '{attempt.leaves}' OR (decided IS NULL AND clock_timestamp() > until);
                IF decided IS NOT NULL THEN
                    since := coalesce(since, clock_timestamp());
                    clean := clean + 1;
                    PERFORM pg_stat_clear_snapshot();
                    FOR item IN SELECT pid, {waits} AS waits FROM pg_stat_activity
                        WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
                            AND application_name NOT LIKE 'ha_migration%' AND ({theirs} OR {waits})
                    LOOP
                        clean := 0;
                        IF item.waits OR clock_timestamp() > since + make_interval(secs => {PATIENCE_SECONDS}) THEN
                            BEGIN
                                PERFORM pg_terminate_backend(item.pid);
                            EXCEPTION WHEN insufficient_privilege THEN NULL;
                            END;
                        END IF;
                    END LOOP;
                    EXIT WHEN clean > 2 OR clock_timestamp() > since + make_interval(secs => {LONGEST_SECONDS});
                END IF;
                PERFORM pg_sleep(0.05);
            END LOOP;
        END $hold$"""
