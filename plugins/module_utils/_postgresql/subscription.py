# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The subscription of a link: how its server reaches the publisher, and the statement that makes it (pure)."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .quoting import identifier, literal


@dataclass(frozen=True)
class Link:
    """How the subscriber's servers reach the publisher.

    :param host: its servers, separated by commas where it has several; the one that takes writes is followed
    :param passfile: path on the subscriber's servers
    :param ca_file: path on the subscriber's servers; verify-full when given
    :param password: for servers on which nothing of ours is: it stands in the subscription then, which only superusers may read. With channel
        binding, so that no CA certificate is needed there: each end proves that it knows the password on this very TLS connection
    """

    host: str
    port: int
    user: str
    dbname: str
    passfile: str | None = None
    ca_file: str | None = None
    password: str | None = field(default=None, repr=False)

    def conninfo(self, application_name: str) -> str:
        """Connection string; without a secret unless ``password`` is given."""
        parts: dict[str, t.Any] = {
            "host": self.host,
            "port": self.port,
            "dbname": self.dbname,
            "user": self.user,
            "passfile": self.passfile,
            "password": self.password,
            "sslmode": "verify-full" if self.ca_file else "require" if self.password else None,
            "channel_binding": "require" if self.password and not self.ca_file else None,
            "sslrootcert": self.ca_file,
            # Whoever leads of several.
            "target_session_attrs": "read-write" if "," in self.host else None,
            "application_name": application_name,
            "connect_timeout": 10,
            # The worker connects without a timeout: a server that dies while it does is noticed by what it does not acknowledge.
            "tcp_user_timeout": 10000,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        }
        quoted = {key: str(value).replace("\\", "\\\\").replace("'", "\\'") for key, value in parts.items() if value is not None}
        return " ".join(f"{key}='{value}'" for key, value in quoted.items())


def subscription_statement(name: str, conninfo: str, server_version: int, *, slot: str | None) -> str:
    """CREATE SUBSCRIPTION that is not enabled yet, whose tables hold their rows.

    synchronous_commit = off: applying keeps up with a busy publisher, and the worker still confirms only what its own server has flushed. That
    the standby has it too is shown where it counts: the cutover's barrier is a synchronous commit after the last applied row, and a change of
    the subscriber's leader makes the comparison of all rows void.

    :param server_version: of the subscriber, as libpq counts
    :param slot: a slot that stands already, or None to give it one later
    """
    options = {"create_slot": "false", "slot_name": literal(slot) if slot else "NONE", "copy_data": "false", "enabled": "false", "synchronous_commit": "'off'"}
    if server_version >= 150000:
        options["disable_on_error"] = "false"
    if server_version >= 160000:
        # What came over the way back is not sent there again (publishers before 16 send it all the same).
        options["origin"] = "'none'"
        # As the tables' owners, which is the default, the worker could not write tables that force row level security on them.
        options["run_as_owner"] = "true"
    words = ", ".join(f"{key} = {value}" for key, value in options.items())
    return f"CREATE SUBSCRIPTION {identifier(name)} CONNECTION {literal(conninfo)} PUBLICATION {identifier(name)} WITH ({words})"
