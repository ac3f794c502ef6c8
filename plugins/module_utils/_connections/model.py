# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What a phase connects to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Service:
    """A service of the service file, and the words for it.

    :param name: name in the service file
    :param kind: ``source``, ``target`` or ``pooler``
    :param host: host or hosts, as in the service file
    :param port: port
    :param user: role
    :param database: database
    """

    name: str
    kind: str
    host: str
    port: str
    user: str
    database: str

    @property
    def title(self) -> str:
        """What it is, for the operator."""
        where = f"{self.host}:{self.port}"
        return {"source": f"The source {where}", "target": f"The target {where}", "pooler": f"The console of the pooler {where}"}[self.kind]

    @property
    def host_key(self) -> str:
        """Where the inventory says which host it is."""
        return {"source": "pg_ha_source_host and pg_ha_source_port", "target": "the hosts of the target's group", "pooler": "group pg_ha_pgbouncer"}[self.kind]

    @property
    def password_key(self) -> str:
        """The key with the password."""
        keys = {"source": "pg_ha_source_admin_password", "target": "pg_ha_target_admin_password", "pooler": "pg_ha_pooler_operator_password"}
        return keys[self.kind]

    @property
    def user_key(self) -> str:
        """The key with the role."""
        return {"source": "pg_ha_source_admin_user", "target": "pg_ha_target_admin_user", "pooler": "pg_ha_pooler_operator"}[self.kind]


@dataclass(frozen=True)
class Answer:
    """What a server says of itself.

    :param system_identifier: the cluster's identity
    :param ahead_seconds: by how much its clock is ahead of ours
    :param blur_seconds: how far that may be off
    :param has_database: the database to move is there
    """

    system_identifier: str
    ahead_seconds: float
    blur_seconds: float
    has_database: bool = True
