#!/usr/bin/python

# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_schema
short_description: Schema ha_migration on one side of a migration
version_added: 0.1.0
description:
  - Makes the schema that holds journal, decisions, markers and guards. Both sides have the same.
  - An existing guard function is left alone, because its body carries a decision.
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
    description: The side, a service of the service file.
    type: str
    choices: [source, target]
    required: true
"""

EXAMPLES = r"""
- name: The schema of the migration on the target
  freight.pg_ha.migration_schema:
    service_file: /run/pg_ha/freight/pg_service.conf
    service: target
"""

RETURN = r"""
actions:
  description: Statements that were run, or would be in check mode.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import schema
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client


def run(params, check_mode):
    """Read, plan, and unless in check mode apply."""
    connection = client.connect(params["service_file"], params["service"], application_name="ha_migration schema")
    before = schema.read_schema(connection)
    actions = schema.plan_schema(before)
    after = {"version": schema.VERSION, "tables": sorted(schema.TABLES), "one_open_epoch": True, "guard": True}
    if actions and not check_mode:
        schema.ensure_schema(connection)
    return Outcome.of(before, after, actions)


def argument_spec():
    """Options of the module."""
    return {**client.connection_argument_spec(), "service": {"type": "str", "choices": ["source", "target"], "required": True}}


def main():
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
