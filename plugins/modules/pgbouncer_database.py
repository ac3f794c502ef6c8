#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbouncer_database
short_description: Keep a pooled database paused or active
description:
  - Pauses or resumes one database of a PgBouncer through its admin console.
  - A pause waits for running transactions. When they do not end in time it is taken back, so that clients are never held longer than asked.
version_added: 0.1.0
author: the freight.pg_ha authors (@freight)
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
    description: Name of the console's service in O(service_file), C(pooler_<host>).
    type: str
    required: true
  name:
    description: The database as clients name it.
    type: str
    required: true
  state:
    description: What shall be true of it.
    type: str
    choices: [active, paused]
    required: true
  timeout_seconds:
    description: How long a pause may wait for running transactions.
    type: float
    default: 5.0
"""

EXAMPLES = r"""
- name: Hold the clients of a database
  freight.pg_ha.pgbouncer_database:
    service_file: /run/pg_ha/freight/pg_service.conf
    service: pooler_lb1
    name: freight
    state: paused
    timeout_seconds: 2
"""

RETURN = r"""
database:
  description: The database afterwards, as M(freight.pg_ha.pgbouncer_database_info) returns it.
  returned: success
  type: dict
actions:
  description: What was sent; empty when nothing was due.
  returned: success
  type: list
  elements: str
"""

import dataclasses
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._pgbouncer.client import PgbouncerClient
from ansible_collections.freight.pg_ha.plugins.module_utils._pgbouncer.plan import find, plan_state
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql.client import connection_argument_spec


def run(client: PgbouncerClient, params: dict[str, t.Any], check_mode: bool) -> Outcome:
    """Read, plan, send when due, and read again."""
    before = find(client.read_databases(), params["name"], client.service)
    actions = plan_state(before, params["state"])
    if actions and not check_mode:
        client.apply(actions, params["timeout_seconds"])
        after = find(client.read_databases(), params["name"], client.service)
        if plan_state(after, params["state"]):
            raise ClientError(f"Database {params['name']} at {client.service} is still not {params['state']} after {actions[0].public}.")
    else:
        after = dataclasses.replace(before, paused=params["state"] == "paused")
    return Outcome.of(before.public(), after.public(), actions, database=after.public())


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {
        **connection_argument_spec(),
        "service": {"type": "str", "required": True},
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["active", "paused"], "required": True},
        "timeout_seconds": {"type": "float", "default": 5.0},
    }


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    finish(module, lambda: run(PgbouncerClient.open(module.params, read_only=module.check_mode), module.params, module.check_mode))


if __name__ == "__main__":
    main()
