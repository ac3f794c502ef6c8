# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What the routes of an application are made of."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Endpoint:
    """Where a client connects; several hosts are tried in order.

    :param port: of each of them
    """

    hosts: tuple[str, ...]
    port: int


@dataclass(frozen=True)
class Role:
    """A role that an application logs in with.

    :param password: None where it is not known here
    """

    name: str
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Store:
    """A secret store that a cluster's External Secrets Operator reads: passwords are named, never written.

    :param name: of the SecretStore or ClusterSecretStore
    :param kind: which of the two
    :param key: entry of the store; ``{role}`` stands for the role's name
    :param property: field of that entry
    """

    name: str
    kind: str
    key: str
    property: str

    def key_of(self, role: str) -> str:
        """The entry that holds a role's password."""
        return self.key.replace("{role}", role)


@dataclass(frozen=True)
class Routes:
    """How applications find the database while one side serves.

    :param authorities: certificates that verify both endpoints, PEM
    :param application_directory: where the files lie on an application's host
    :param write_variable: environment variable of the URL for everything
    :param read_variable: environment variable of the URL for reading only
    :param secret_prefix: a Secret is called ``<secret_prefix>-<role>``
    :param namespace: of the Secrets, None to leave it to whoever applies them
    :param store: where the passwords are, None where they are given or not known
    """

    database: str
    write: Endpoint
    read: Endpoint
    authorities: str
    application_directory: str
    write_variable: str = "DATABASE_URL"
    read_variable: str = "DATABASE_READ_URL"
    secret_prefix: str = ""
    namespace: str | None = None
    store: Store | None = None


@dataclass(frozen=True)
class Found:
    """A path as it is.

    :param mode: permissions, None where there is nothing
    :param text: content of a file
    """

    mode: int | None = None
    text: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Change:
    """One thing to do on the file system.

    :param what: ``folder`` (make it, or set its mode), ``write`` or ``remove`` (a file)
    :param text: the file's new content
    """

    what: str
    path: str
    text: str = field(default="", repr=False)
