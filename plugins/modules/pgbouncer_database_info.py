#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbouncer_database_info
short_description: Read where pooled databases point and how their pools are
description:
  - Reads C(SHOW DATABASES) and C(SHOW POOLS) of a PgBouncer. Changes nothing.
version_added: 0.1.0
author: the freight.pg_ha authors (@freight)
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
options:
  service:
    description: Name of the console's service in O(service_file), C(pooler_<host>).
    type: str
    required: true
  name:
    description: Return only this database, and fail when the pooler does not know it.
    type: str
"""

EXAMPLES = r"""
- name: See where the pooler sends clients
  freight.pg_ha.pgbouncer_database_info:
    service_file: /run/pg_ha/freight/pg_service.conf
    service: pooler_lb1
    name: freight
  register: pooled
"""

RETURN = r"""
databases:
  description: Name, host, port, database, paused, disabled, server_connections and pools of each database.
  returned: success
  type: list
  elements: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._pgbouncer.client import PgbouncerClient
from ansible_collections.freight.pg_ha.plugins.module_utils._pgbouncer.plan import find
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql.client import connection_argument_spec


def run(client: PgbouncerClient, params: dict[str, t.Any]) -> Outcome:
    """Read the console."""
    databases = client.read_databases()
    if params["name"] is not None:
        databases = [find(databases, params["name"], client.service)]
    return Outcome(changed=False, result={"databases": [database.public() for database in databases]})


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {**connection_argument_spec(), "service": {"type": "str", "required": True}, "name": {"type": "str"}}


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    finish(module, lambda: run(PgbouncerClient.open(module.params, read_only=True), module.params))


if __name__ == "__main__":
    main()
