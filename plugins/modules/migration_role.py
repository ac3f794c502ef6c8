#!/usr/bin/python

# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_role
short_description: A login role of the migration itself on one side
version_added: 0.1.0
description:
  - Makes the role of the dead man's switch, of the probe or of the links, with the privileges on schema C(ha_migration) that it needs and no others.
  - The password reaches the server only as a SCRAM verifier, the same on both sides.
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
  name:
    description: Name of the role.
    type: str
    required: true
  password:
    description: Its password, printable ASCII.
    type: str
    required: true
  purpose:
    description: What the role is for, which decides its privileges.
    type: str
    choices: [dead_man, link, probe]
    required: true
  replication_role:
    description: Role whose members may replicate, on a server whose administrator can give no attribute for it (C(rds_replication) of Amazon RDS).
    type: str
"""

EXAMPLES = r"""
- name: The dead man's role on the source
  freight.pg_ha.migration_role:
    service_file: /run/pg_ha/freight/pg_service.conf
    service: source
    name: ha_migration_dead_man
    password: "{{ pg_ha_dead_man_password }}"
    purpose: dead_man
"""

RETURN = r"""
actions:
  description: Statements that were run, or would be in check mode, without secrets.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import roles, schema
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client, private, scram


def run(params, check_mode):
    """Read, plan, and unless in check mode apply."""
    if not params["password"].isascii() or not params["password"].isprintable():
        raise UsageError(f"The password of {params['name']} holds characters beyond printable ASCII: choose another.")
    connection = client.connect(params["service_file"], params["service"], application_name="ha_migration role")
    private.silence(connection)
    name, by = params["name"], params["replication_role"]

    def verified():
        known = client.logs_in(params["service_file"], params["service"], name, params["password"])
        return scram.stable_verifier(schema.SCHEMA, name, params["password"]) if known else None

    before = roles.read_role(connection, name, params["purpose"], verified, by)
    actions = roles.plan_role(before, name, params["password"], params["purpose"], by)
    if actions and not check_mode:
        private.apply(connection, actions)
    public = {"exists": before["exists"], "login": before["login"], "granted": len(before["granted"])}
    wanted = {"exists": True, "login": True, "granted": sum(len(privileges) for privileges in roles.GRANTS[params["purpose"]].values())}
    return Outcome.of(public, wanted, actions)


def argument_spec():
    """Options of the module."""
    return {
        **client.connection_argument_spec(),
        "service": {"type": "str", "choices": ["source", "target"], "required": True},
        "name": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
        "purpose": {"type": "str", "choices": sorted(roles.GRANTS), "required": True},
        "replication_role": {"type": "str"},
    }


def main():
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
