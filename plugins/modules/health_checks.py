#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: health_checks
short_description: Where the health of a target is read, and where its probe writes
version_added: 0.1.0
description:
  - Makes table C(ha_migration.health_checks), which a failover test's clients write, and view C(ha_migration.health), which everybody may read.
    An application's health check selects from it whether the server takes writes, its timeline, how many standbys stream and how many of them are synchronous,
    how far the last one is behind, and when a probe wrote last.
  - The table is neither guarded nor replicated, so that a target can be tested before it serves.
  - Makes the role of the probe, which may write that table and nothing else of it. Its password reaches the server only as a SCRAM verifier.
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
    description: The side, a service of O(service_file).
    type: str
    default: target
  writer:
    description: Role of the probe.
    type: str
    required: true
  password:
    description: Its password, printable ASCII.
    type: str
    required: true
  empty:
    description: Whether rows are taken away that a test has left which came to no end.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Let the probe write on the target
  freight.pg_ha.health_checks:
    service_file: /run/pg_ha/freight/pg_service.conf
    writer: ha_migration_probe
    password: "{{ pg_ha_probe_password }}"
"""

RETURN = r"""
actions:
  description: Statements that were run, or would be in check mode, without secrets.
  type: list
  elements: str
  returned: success
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._health.client import read_health
from ansible_collections.freight.pg_ha.plugins.module_utils._health.plan import PRIVILEGES, SCHEMA, plan_health
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client, private, scram


def run(params: dict[str, t.Any], check_mode: bool) -> Outcome:
    """Read, plan, and unless in check mode apply.

    :raises UsageError: the password cannot be used
    :raises ClientError: a statement failed, and nothing of it stays
    """
    if not params["password"].isascii() or not params["password"].isprintable():
        raise UsageError(f"The password of {params['writer']} holds characters beyond printable ASCII: choose another.")
    connection = client.connect(params["service_file"], params["service"], application_name="ha_migration health")
    private.silence(connection)

    def verified() -> str | None:
        known = client.logs_in(params["service_file"], params["service"], params["writer"], params["password"])
        return scram.stable_verifier(SCHEMA, params["writer"], params["password"]) if known else None

    before = read_health(connection, params["writer"], verified)
    actions = plan_health(before, params["writer"], params["password"], params["empty"])
    if actions and not check_mode:
        private.apply(connection, actions)
    public = {name: before[name] for name in ("table", "view", "role", "granted")}
    left = {"rows": before["rows"]} if params["empty"] else {}
    wanted = {"table": True, "view": True, "role": True, "granted": list(PRIVILEGES)}
    return Outcome.of({**public, **left}, {**wanted, **dict.fromkeys(left, False)}, actions)


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    return {
        **client.connection_argument_spec(),
        "service": {"type": "str", "default": "target"},
        "writer": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
        "empty": {"type": "bool", "default": False},
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
