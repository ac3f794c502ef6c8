#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_ddl_guard
short_description: Guard against DDL on the side that serves while the other one follows
version_added: 0.1.0
description:
  - DDL is not replicated. Event triggers on the side that serves refuse it, or record who ran what and when in C(ha_migration.ddl), never the statement.
  - What is no part of the schema's fingerprint passes - temporary objects, comments, publications, REFRESH, REINDEX - and so do the migration's own
    sessions, and everybody while the link's slot is not there.
  - Event triggers do not see roles, databases and other event triggers; the cutover compares both schemas in any case.
  - Where the administrator may not make event triggers, O(policy=refuse) fails and with O(policy=detect) the comparison alone is what detects.
author:
  - the freight.pg_ha authors (@freight)
extends_documentation_fragment:
  - freight.pg_ha.postgresql
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  service:
    description: The side that serves - V(source) while the target follows, V(target) while the source follows over the way back.
    type: str
    choices: [source, target]
    required: true
  state:
    description: V(absent) takes the guard away; what was recorded stays.
    type: str
    choices: [present, absent]
    default: present
  migration:
    description: Name of the migration. Required with O(state=present).
    type: str
  policy:
    description: V(detect) records DDL and lets it pass, V(refuse) refuses it.
    type: str
    choices: [detect, refuse]
    default: detect
seealso:
  - module: freight.pg_ha.schema_fingerprint_info
"""

EXAMPLES = r"""
- name: Record DDL on the source while the target follows
  freight.pg_ha.migration_ddl_guard:
    service_file: /run/pg_ha/freight/pg_service.conf
    service: source
    migration: freight
"""

RETURN = r"""
guard:
  description: The guard as it is now, or would be.
  type: dict
  returned: success
  contains:
    policy:
      description: The policy in force; null where no guard stands.
      type: str
    notice:
      description: Why there is none although one is wanted, in one sentence; empty otherwise.
      type: str
actions:
  description: Statements that were run, or would be in check mode.
  type: list
  elements: str
  returned: success
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import ddl_guard
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client


def run(params: dict[str, t.Any], check_mode: bool) -> Outcome:
    """Read, plan, and unless in check mode apply.

    :raises PlanError: the policy cannot be had on this server
    """
    wanted = None
    if params["state"] == "present":
        wanted = ddl_guard.Wanted(params["service"], params["migration"], params["policy"])
    connection = client.connect(
        params["service_file"], params["service"], application_name="ha_migration ddl guard", connect_timeout_seconds=params["connect_timeout_seconds"]
    )
    try:
        before = ddl_guard.read_guard(connection, tries=wanted is not None)
        actions = ddl_guard.plan_guard(before, wanted)
        if not check_mode:
            ddl_guard.apply(connection, actions)
    finally:
        connection.close()
    possible = wanted is not None and before["may"]
    policy = params["policy"] if possible else None
    notice = "" if wanted is None or possible else f"{ddl_guard.NO_EVENT_TRIGGERS.format(side=params['service'])}."
    return Outcome.of({"policy": ddl_guard.policy_of(before)}, {"policy": policy}, actions, guard={"policy": policy, "notice": notice})


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    return {
        **client.connection_argument_spec(),
        "service": {"type": "str", "choices": ["source", "target"], "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "migration": {"type": "str"},
        "policy": {"type": "str", "choices": list(ddl_guard.POLICIES), "default": "detect"},
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True, required_if=[("state", "present", ("migration",))])
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
