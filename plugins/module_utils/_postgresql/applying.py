# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""A subscription whose worker fails at the same change again and again: how it is noticed, and what to say of it."""

from __future__ import annotations

import typing as t

from .._core.errors import ClientError
from . import client
from .slots import FORWARD_LINK

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# A connection that was lost counts as a failure too, but hardly so often within one wait.
MOST_ERRORS = 5


def read_apply_errors(subscriber: Connection, name: str) -> int | None:
    """Failed attempts to apply since the statistics began; None where there is no such subscription or the server does not count (before 15)."""
    if subscriber.server_version < 150000:
        return None
    rows = client.query(
        subscriber,
        "SELECT e.apply_error_count::bigint AS errors FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid "
        "JOIN pg_stat_subscription_stats e ON e.subid = s.oid WHERE s.subname = %s AND d.datname = current_database()",
        (name,),
    )
    return int(rows[0]["errors"]) if rows and rows[0]["errors"] is not None else None


class Failures:
    """Counts what fails from the first look on.

    :param name: of the subscription
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._first: int | None = None

    def look(self, errors: int | None) -> None:
        """Compare with the first look.

        :param errors: what :func:`read_apply_errors` says now
        :raises ClientError: it has failed again and again, with what to do
        """
        self._first = errors if self._first is None else self._first
        if errors is not None and self._first is not None and errors - self._first >= MOST_ERRORS:
            raise ClientError(cannot_apply(self._name, errors - self._first))


def cannot_apply(name: str, failures: int) -> str:
    """The sentence for a link that does not get on (pure)."""
    side = "target" if name == FORWARD_LINK else "source"
    remedy = (
        """Run playbook replicate.yml again with that table (-e '{"replication_again": ["schema.table"]}'), which copies it again, """
        "or copy everything again (pg_ha_repeat: [replicate])."
        if name == FORWARD_LINK
        else "Mend that row there; the link then goes on by itself."
    )
    return (
        f"The {side} cannot apply what comes over {name}: it has just failed {failures} times. A row there is in the way, as after the loss of a leader whose "
        f"last changes the new one lacks. The log of the {side}'s leader names table and key. {remedy}"
    )
