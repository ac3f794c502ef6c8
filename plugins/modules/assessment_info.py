#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: assessment_info
short_description: Look at a source database and say what stands in the way of its migration
version_added: 0.1.0
description:
  - Reads the source, and the target where it can be reached already, and returns findings with severity, object and the statement that fixes each.
  - Its sessions are read-only. A fact of the source that cannot be read is an error; a target that cannot be asked is a finding.
author:
  - the freight.pg_ha authors (@freight)
options:
  service:
    description: Service of the source.
    type: str
    default: source
  target_service:
    description: Service of the target.
    type: str
    default: target
  maintenance_database:
    description: Database of the target to ask, because the one to move may not exist there yet.
    type: str
    default: postgres
  method:
    description: How the data will be copied.
    type: str
    choices: [logical, dump]
    default: logical
  target_major_version:
    description: Major version of the target, used where the target cannot be asked yet.
    type: int
  client_major_version:
    description: Major version of the client programs on the host that will copy.
    type: int
  target_free_bytes:
    description:
      - Free bytes where the target keeps its data. When it is not given, a finding says that it is unknown.
      - What the database takes on the target already is added.
    type: int
  target_may_not:
    description: What the target's administrator may not do, in the words of the contract of targets (docs/architecture.md).
    type: list
    elements: str
    default: []
  known_passwords:
    description: Names of the roles whose passwords are given, for a target on which poolers cannot look them up.
    type: list
    elements: str
    default: []
  pooler_addresses:
    description:
      - Addresses, networks (CIDR) or names of the poolers. Names are resolved on the host that runs the module.
      - Sessions from elsewhere are findings. When it is empty, a finding says that this is unknown.
    type: list
    elements: str
    default: []
  pooler_auth_function:
    description: Function, with its schema, by which the poolers read password verifiers; empty when they do not use one.
    type: str
    default: pgbouncer.get_auth
  pooler_auth_role:
    description: Role that the poolers call the function as.
    type: str
    default: pgbouncer_auth
  own_roles:
    description: Roles that belong to the migration and not to an application (administrator, link, dead man, probe).
    type: list
    elements: str
    default: []
  application_roles:
    description: Roles that applications log in with. Empty means every login role that is neither superuser nor replication nor the migration's.
    type: list
    elements: str
    default: []
  long_transaction_seconds:
    description: Age in seconds from which a transaction is a finding.
    type: int
    default: 60
  ddl_policy:
    description: What shall happen to DDL on the source while the target follows.
    type: str
    choices: [detect, refuse]
    default: detect
  slot_wal_limit_mib:
    description: How much WAL the link's slot may hold back on the source, in MiB. The source's own limit must be no higher. Without it none is declared.
    type: int
  accepted:
    description: Blockers that the operator takes, as C(id) or C(id:object); each becomes a warning.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - freight.pg_ha.postgresql
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Evaluate | Look at the source
  freight.pg_ha.assessment_info:
    service_file: /run/pg_ha/move_2027/pg_service.conf
    target_major_version: 17
    own_roles: [postgres, ha_migration_link]
  register: __assessment_result
"""

RETURN = r"""
findings:
  description: All findings, blockers first.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: Kind of the finding.
      type: str
    severity:
      description: V(blocker), V(warning) or V(info).
      type: str
    object:
      description: What it is about.
      type: str
    message:
      description: What is the matter and what happens.
      type: str
    fix:
      description: The exact statement or setting that fixes it; empty when there is none.
      type: str
    accepted:
      description: Whether it is a blocker that the operator accepted.
      type: bool
lines:
  description: The findings, one readable line each.
  returned: success
  type: list
  elements: str
blockers:
  description: Number of blockers.
  returned: success
  type: int
facts:
  description: What the source is (version, sizes in bytes, numbers of objects, settings).
  returned: success
  type: dict
started_at:
  description: When it began to look, ISO 8601 UTC.
  returned: success
  type: str
finished_at:
  description: When it had looked, ISO 8601 UTC.
  returned: success
  type: str
fingerprint:
  description: A sha256 that changes when the findings or the kind of the source change, and not with its load or size.
  returned: success
  type: str
"""

import dataclasses
import datetime
import ipaddress
import socket
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._assessment import client, plan
from ansible_collections.freight.pg_ha.plugins.module_utils._assessment.model import Options
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql.client import HAS_PSYCOPG2, connection_argument_spec
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import copy_run


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    return {
        **connection_argument_spec(),
        "service": {"type": "str", "default": "source"},
        "target_service": {"type": "str", "default": "target"},
        "maintenance_database": {"type": "str", "default": "postgres"},
        "method": {"type": "str", "choices": ["logical", "dump"], "default": "logical"},
        "target_major_version": {"type": "int"},
        "client_major_version": {"type": "int"},
        "target_free_bytes": {"type": "int"},
        "pooler_addresses": {"type": "list", "elements": "str", "default": []},
        "pooler_auth_function": {"type": "str", "default": "pgbouncer.get_auth"},
        "pooler_auth_role": {"type": "str", "default": "pgbouncer_auth"},
        "own_roles": {"type": "list", "elements": "str", "default": []},
        "application_roles": {"type": "list", "elements": "str", "default": []},
        "long_transaction_seconds": {"type": "int", "default": 60},
        "ddl_policy": {"type": "str", "choices": ["detect", "refuse"], "default": "detect"},
        "slot_wal_limit_mib": {"type": "int"},
        "target_may_not": {"type": "list", "elements": "str", "default": []},
        "known_passwords": {"type": "list", "elements": "str", "default": [], "no_log": False},
        "accepted": {"type": "list", "elements": "str", "default": []},
    }


def resolve(addresses: t.Sequence[str]) -> tuple[str, ...]:
    """Addresses, networks and names as networks.

    :raises UsageError: a name cannot be resolved
    """
    networks: list[str] = []
    for address in addresses:
        try:
            networks.append(str(ipaddress.ip_network(address, strict=False)))
        except ValueError:
            try:
                found = {info[4][0] for info in socket.getaddrinfo(address, None)}
            except OSError as error:
                raise UsageError(f"The pooler {address!r} is neither an address nor a name that this host can resolve: correct pooler_addresses.") from error
            networks.extend(sorted(str(one) for one in found))
    return tuple(networks)


def options_of(params: dict[str, t.Any]) -> Options:
    """The operator's options as data."""
    return Options(
        method=params["method"],
        target_major=params["target_major_version"],
        client_major=params["client_major_version"],
        target_free_bytes=params["target_free_bytes"],
        pooler_networks=resolve(params["pooler_addresses"]),
        own_roles=tuple(params["own_roles"]),
        application_roles=tuple(params["application_roles"]),
        pooler_auth_function=params["pooler_auth_function"],
        pooler_auth_role=params["pooler_auth_role"],
        long_transaction_seconds=params["long_transaction_seconds"],
        ddl_policy=params["ddl_policy"],
        slot_wal_limit_mib=params["slot_wal_limit_mib"],
        target_may_not=tuple(params["target_may_not"]),
        known_passwords=tuple(params["known_passwords"]),
        today=now()[:10],
        accepted=tuple(params["accepted"]),
    )


def now() -> str:
    """The time here, ISO 8601 UTC."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_occupied(params: dict[str, t.Any]) -> tuple[str, ...]:
    """What stands on the target where a copy has to go, by the copy's own rule.

    :raises ClientError: a side answered before and does not now
    """
    source, target = (client.connect(params["service_file"], params[name], params["connect_timeout_seconds"]) for name in ("service", "target_service"))
    try:
        return tuple(copy_run.read_collisions(source, target))
    finally:
        source.close()
        target.close()


def run(params: dict[str, t.Any]) -> Outcome:
    """Read both sides and plan the findings."""
    started_at = now()
    options = options_of(params)
    connection = client.connect(params["service_file"], params["service"], params["connect_timeout_seconds"])
    try:
        source = client.read_source(connection, options.pooler_auth_function)
    finally:
        connection.close()
    target = client.try_target(
        params["service_file"], params["target_service"], source.database, params["connect_timeout_seconds"], params["maintenance_database"]
    )
    if target.database is not None:
        target = dataclasses.replace(target, occupied=read_occupied(params))
    findings = plan.plan_findings(source, target, options)
    facts = plan.summarize(source, target)
    return Outcome(
        changed=False,
        result={
            "findings": plan.present(findings),
            "lines": plan.lines(findings),
            "blockers": sum(1 for finding in findings if finding.severity == "blocker"),
            "facts": facts,
            "started_at": started_at,
            "finished_at": now(),
            "fingerprint": plan.fingerprint(findings, facts),
        },
    )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params))


if __name__ == "__main__":
    main()
