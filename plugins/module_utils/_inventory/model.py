# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What an inventory of this collection consists of."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

PREFIX = "pg_ha_"
PATRONI, RDS = "pg_ha_patroni", "pg_ha_rds"
PHASES = ("assess", "provision", "replicate", "test_failover", "verify", "cut_over", "roll_back")


@dataclass(frozen=True)
class Key:
    """A collection-wide input.

    :param name: ``pg_ha_...``
    :param type: one of the checks of plan.py
    :param required: there is no default
    :param target: required only where that group of a target has a host
    :param least: with type seconds or MiB, the smallest value that can work
    :param most: with type seconds or MiB, the largest one
    :param why: with type seconds or MiB, the reason for the bounds
    :param choices: with type choice or choices, what it may be
    """

    name: str
    type: str = "text"
    required: bool = False
    target: str = ""
    least: float = 0
    most: float = 0
    why: str = ""
    choices: tuple[str, ...] = ()


KEYS: dict[str, Key] = {
    key.name: key
    for key in (
        Key("pg_ha_migration", "identifier", required=True),
        Key("pg_ha_artifacts_dir", "folder", required=True),
        Key("pg_ha_pki_dir", "folder", required=True),
        Key("pg_ha_method", "choice", choices=("logical", "dump")),
        Key("pg_ha_database", required=True),
        Key("pg_ha_source_host", "host", required=True),
        Key("pg_ha_source_port", "port"),
        Key("pg_ha_source_admin_user", required=True),
        Key("pg_ha_source_admin_password", "secret", required=True),
        Key("pg_ha_source_ca_file", "ca_file", required=True),
        Key("pg_ha_target_admin_user", required=True),
        Key("pg_ha_target_admin_password", "secret", required=True, target=PATRONI),
        Key("pg_ha_link_user"),
        Key("pg_ha_link_password", "secret", required=True),
        Key("pg_ha_dead_man_user"),
        Key("pg_ha_dead_man_password", "secret", required=True),
        Key("pg_ha_probe_user"),
        Key("pg_ha_probe_password", "secret", required=True),
        Key("pg_ha_pooler_operator", required=True),
        Key("pg_ha_pooler_operator_password", "secret", required=True),
        Key("pg_ha_pooler_auth_user"),
        Key("pg_ha_pooler_auth_password", "secret", required=True),
        Key("pg_ha_application_roles", "list"),
        Key("pg_ha_application_passwords", "passwords"),
        Key("pg_ha_application_directory", "folder"),
        Key("pg_ha_secret_store", "store"),
        Key("pg_ha_routes_dir", "folder"),
        Key("pg_ha_address", "address"),
        Key("pg_ha_cluster"),
        Key("pg_ha_leader"),
        Key("pg_ha_target_write_host", "host"),
        Key("pg_ha_etcd_root_password", "secret", required=True, target=PATRONI),
        Key("pg_ha_etcd_patroni_password", "secret", required=True, target=PATRONI),
        Key("pg_ha_patroni_replication_password", "secret", required=True, target=PATRONI),
        Key("pg_ha_patroni_rewind_password", "secret", required=True, target=PATRONI),
        Key("pg_ha_patroni_restapi_password", "secret", required=True, target=PATRONI),
        Key("pg_ha_allowed_networks", "networks", required=True, target=PATRONI),
        Key("pg_ha_cutover_approved", "boolean"),
        Key("pg_ha_way_back", "boolean"),
        Key("pg_ha_failover_approved", "boolean"),
        Key("pg_ha_failover_hosts_approved", "boolean"),
        Key("pg_ha_failover_scenarios", "list"),
        Key("pg_ha_failover_budget_seconds", "seconds", least=0.1, most=3600, why="no route notices a lost server sooner"),
        Key("pg_ha_power_off_command", "list"),
        Key("pg_ha_power_on_command", "list"),
        Key("pg_ha_maintenance_update", "boolean"),
        Key("pg_ha_maintenance_restart_all", "boolean"),
        Key("pg_ha_retire_approved", "boolean"),
        Key("pg_ha_source_gone", "boolean"),
        Key(
            "pg_ha_cutover_budget_seconds",
            "seconds",
            least=2,
            most=60,
            why="holding the clients alone may take 1, and poolers give up on clients that wait long",
        ),
        Key("pg_ha_dump_window_seconds", "seconds", least=60, most=604800, why="everything is copied and compared in it"),
        Key("pg_ha_ddl_policy", "choice", choices=("detect", "refuse")),
        Key("pg_ha_slot_wal_limit_mib", "MiB", least=64, most=2147483647, why="the source keeps some segments of 16 MiB in any case"),
        Key("pg_ha_compared", "mappings"),
        Key("pg_ha_repeat", "choices", choices=PHASES),
    )
}

# Facts that roles hand on: they look like inputs and are none.
FACTS = frozenset({"pg_ha_mover", "pg_ha_target", "pg_ha_target_administrator", "pg_ha_target_state", "pg_ha_target_failover"})

# What report.yml needs, which renders from evidence alone.
EVIDENCE_KEYS = frozenset({"pg_ha_migration", "pg_ha_artifacts_dir"})

# Keys whose values name roles of one server: a role that serves two purposes could not be told apart. With their defaults.
ROLE_KEYS = {
    "pg_ha_source_admin_user": "",
    "pg_ha_link_user": "ha_migration_link",
    "pg_ha_dead_man_user": "ha_migration_dead_man",
    "pg_ha_probe_user": "ha_migration_probe",
    "pg_ha_pooler_auth_user": "pgbouncer_auth",
}


@dataclass(frozen=True)
class Group:
    """A group of hosts that playbooks use.

    :param least: the fewest hosts that can work
    :param most: the most, None when there is no bound
    :param odd: an even number is refused
    :param why: the reason for the bounds
    :param target: its hosts are a target
    :param part_of: it is a part of that target, and may be empty with another one
    :param machines: its hosts are machines, with an address each
    """

    name: str
    least: int
    why: str
    most: int | None = None
    odd: bool = False
    target: bool = False
    part_of: str = ""
    machines: bool = True


GROUPS: dict[str, Group] = {
    group.name: group
    for group in (
        Group("pg_ha_mover", 1, "copy, comparison and cutover run there", most=1),
        Group("pg_ha_etcd", 3, "a majority must outlive the loss of one", odd=True, part_of=PATRONI),
        Group(PATRONI, 3, "a synchronous standby must be left when one is lost", target=True),
        Group("pg_ha_haproxy", 1, "poolers reach the target's leader through it", part_of=PATRONI),
        Group(RDS, 1, "it stands for the instance of Amazon RDS and needs no machine", most=1, target=True, machines=False),
        Group("pg_ha_pgbouncer", 1, "clients are held and moved there"),
    )
}


@dataclass(frozen=True)
class Secret:
    """Stands for a secret's value, which is never read.

    :param given: it is text and not empty
    :param writable: it holds no control character: a file with one password per line can say it
    """

    given: bool
    writable: bool = field(default=True, repr=False)


@dataclass(frozen=True)
class Host:
    """A host, or the controller, and what the inventory says of it.

    :param values: values by key, secrets as :class:`Secret`
    :param broken: why a value cannot be told, by key
    :param names: names of all its variables, for finding a misspelt one
    :param connects_to: where Ansible connects to, None when that is its name
    """

    name: str
    values: dict[str, t.Any] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    connects_to: str | None = None


@dataclass(frozen=True)
class Inventory:
    """What the operator wrote.

    :param controller: variables as localhost sees them
    :param hosts: every host of a group ``pg_ha_*``
    :param groups: names of the hosts in each group ``pg_ha_*`` that is declared
    :param files: why a file on the controller cannot be used, "" when it can, by path
    """

    controller: Host
    hosts: tuple[Host, ...] = ()
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
