# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What an assessment looks at, and what it says."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

SEVERITIES = ("blocker", "warning", "info")


@dataclass(frozen=True)
class Table:
    """A table, partition, partitioned table, foreign table or materialized view of the database to move.

    :param ident: quoted name with schema
    :param kind: ``r`` table, ``p`` partitioned table, ``f`` foreign table, ``m`` materialized view
    :param persistence: ``p`` permanent, ``u`` unlogged
    :param identity: replica identity: ``d`` default, ``n`` nothing, ``f`` full, ``i`` index
    :param primary_key: there is a primary key that replication can use (valid, not deferrable)
    :param identity_index: the index named as replica identity can be used
    :param candidate_index: quoted name of an index that could be the replica identity, None when there is none
    :param searchable: an index exists by which a subscriber can find rows when the identity is full
    :param incomparable: columns, with their types, that have no equality
    :param row_security: policies apply to the copying role
    :param forces_row_security: policies apply to the owner, too
    :param has_row_security: policies apply to roles that do not bypass them
    :param owned: the copying role is, or is a member of, the owner
    :param readable: the copying role may select
    :param tablespace: name, "" for the default one
    """

    ident: str
    kind: str = "r"
    persistence: str = "p"
    identity: str = "d"
    primary_key: bool = True
    identity_index: bool = False
    candidate_index: str | None = None
    searchable: bool = True
    incomparable: tuple[str, ...] = ()
    row_security: bool = False
    forces_row_security: bool = False
    has_row_security: bool = False
    owner: str = ""
    owned: bool = True
    readable: bool = True
    is_partition: bool = False
    bytes: int = 0
    rows: int = 0
    tablespace: str = ""


@dataclass(frozen=True)
class Sequence:
    """A sequence; ``used`` is the used part of its range (0 to 1), None when it cannot be read."""

    ident: str
    type: str = "bigint"
    cycle: bool = False
    used: float | None = 0.0


@dataclass(frozen=True)
class Role:
    """A role that can log in.

    :param ident: quoted name
    :param password: ``scram``, ``md5``, ``none`` or ``unknown`` (the catalogue may not be read)
    :param sessions: number of its sessions in the database now
    :param owns: number of tables that it owns
    :param bypassrls: whether row level security does not apply to it
    :param becomes: whether the administrator may become it (SET ROLE)
    """

    name: str
    ident: str
    superuser: bool = False
    replication: bool = False
    password: str = "scram"
    sessions: int = 0
    owns: int = 0
    becomes: bool = True
    bypassrls: bool = False


@dataclass(frozen=True)
class Session:
    """Sessions of the same kind.

    :param address: client address, "" for a local socket
    :param count: how many
    :param transaction_seconds: age of the oldest transaction, None when there is none or it may not be read
    :param idle: the oldest transaction is idle
    """

    user: str
    address: str
    application: str
    count: int = 1
    transaction_seconds: float | None = None
    idle: bool = False


@dataclass(frozen=True)
class Source:
    """All facts of the source; sizes in bytes.

    :param version_num: server_version_num
    :param settings: values of pg_settings in their own units
    :param administrator: ``{"name", "superuser", "bypassrls", "createrole", "replication", "reads_statistics", "event_triggers"}`` of the copying role
    :param collation_version: ``(recorded, actual)`` of the database's collation, None where the server has none
    :param slots_used: replication slots of others than us
    :param senders_used: WAL senders of others than us
    :param pooler_auth: the poolers' authentication function exists
    :param untrusted_functions: functions in languages that only superusers may use
    :param definer_functions: functions that run as their owner, who is a superuser
    """

    version: str
    version_num: int
    in_recovery: bool
    database: str
    settings: dict[str, str]
    administrator: dict[str, t.Any]
    bytes: int = 0
    encoding: str = "UTF8"
    collate: str = "C.UTF-8"
    ctype: str = "C.UTF-8"
    provider: str = "c"
    collation_version: tuple[str, str] | None = None
    nondeterministic_collations: tuple[str, ...] = ()
    slots_used: int = 0
    senders_used: int = 0
    standbys: tuple[str, ...] = ()
    logical_slots: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    sequences: tuple[Sequence, ...] = ()
    roles: tuple[Role, ...] = ()
    sessions: tuple[Session, ...] = ()
    extensions: dict[str, str] = field(default_factory=dict)
    large_objects: int = 0
    large_object_bytes: int = 0
    event_triggers: tuple[str, ...] = ()
    replica_triggers: tuple[str, ...] = ()
    publications: tuple[str, ...] = ()
    subscriptions: tuple[str, ...] = ()
    prepared_transactions: tuple[str, ...] = ()
    extension_rows: tuple[tuple[str, str, bool | None], ...] = ()
    cron_jobs: int | None = None
    cron_loaded: bool = False
    other_databases: tuple[str, ...] = ()
    pooler_auth: bool = True
    untrusted_functions: tuple[str, ...] = ()
    definer_functions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """What the target says of itself.

    :param problem: why it could not be asked, "" when it was
    :param extensions: versions that it offers, by extension
    :param database: ``{"encoding", "collate", "ctype", "bytes"}`` of the database when it exists there already
    :param occupied: what stands there where the source's objects have to go, and no copy of ours has brought
    """

    problem: str = ""
    version_num: int | None = None
    extensions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    database: dict[str, t.Any] | None = None
    occupied: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """What the operator says.

    :param target_major: the target's major version, used where the target cannot be asked
    :param client_major: major version of the client programs on the mover
    :param target_free_bytes: free bytes where the target keeps its data, None when unknown
    :param pooler_networks: addresses of the poolers as CIDR; empty when unknown
    :param own_roles: administrator, link, dead man and probe
    :param application_roles: empty means every login role that is neither superuser, replication nor ours
    :param pooler_auth_function: name with schema, "" when the poolers do not use one
    :param pooler_auth_role: role that the poolers call it as
    :param ddl_policy: what happens to DDL on the source while the target follows, ``detect`` or ``refuse``
    :param slot_wal_limit_mib: declared limit of the WAL that the link's slot may hold back on the source, None where none is declared
    :param target_may_not: what the target's administrator may not do, words of the contract of targets
    :param known_passwords: roles whose passwords the operator gives
    :param today: date, ISO 8601, for what its makers support no longer; "" when that is not looked at
    :param accepted: findings, ``id`` or ``id:object``, that the operator takes: a blocker becomes a warning
    """

    method: str = "logical"
    target_major: int | None = None
    client_major: int | None = None
    target_free_bytes: int | None = None
    pooler_networks: tuple[str, ...] = ()
    own_roles: tuple[str, ...] = ()
    application_roles: tuple[str, ...] = ()
    pooler_auth_function: str = "pgbouncer.get_auth"
    pooler_auth_role: str = "pgbouncer_auth"
    long_transaction_seconds: float = 60
    ddl_policy: str = "detect"
    slot_wal_limit_mib: int | None = None
    target_may_not: tuple[str, ...] = ()
    known_passwords: tuple[str, ...] = ()
    today: str = ""
    accepted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One result.

    :param severity: ``blocker`` (the migration would fail or lose something), ``warning`` (decide), ``info`` (know)
    :param object: what it is about
    :param message: what is the matter, and what happens
    :param fix: the exact statement or setting, "" when there is none
    """

    id: str
    severity: str
    object: str
    message: str
    fix: str = ""
    accepted: bool = False
