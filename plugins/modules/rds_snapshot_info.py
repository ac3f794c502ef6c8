#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_snapshot_info
short_description: Read the snapshots of an instance of Amazon RDS
description:
  - Reads the snapshots of an instance, those that somebody has made and those of its backups, oldest first. Changes nothing.
  - They are found after the instance was deleted, too.
version_added: 0.1.0
author: the freight.pg_ha authors (@freight)
extends_documentation_fragment:
  - freight.pg_ha.aws
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  instance:
    description: Name of the instance.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Read the snapshots
  freight.pg_ha.rds_snapshot_info:
    region: eu-central-1
    instance: freight
  register: snapshots
"""

RETURN = r"""
snapshots:
  description: Each as M(freight.pg_ha.rds_snapshot) returns it, with C(kind), V(manual) or V(automated).
  returned: success
  type: list
  elements: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import client as rds
from ansible_collections.freight.pg_ha.plugins.module_utils._rds.model import public_snapshot


def run(client: rds.RdsClient, params: dict[str, t.Any]) -> Outcome:
    """Read them."""
    found = [public_snapshot(one) for one in client.read_snapshots(params["instance"])]
    return Outcome(changed=False, result={"snapshots": sorted(found, key=lambda one: one["created_at"] or "")})


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {**rds.aws_argument_spec(), "instance": {"type": "str", "required": True}}


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    rds.finish_with(module, lambda client: run(client, module.params), read_only=True)


if __name__ == "__main__":
    main()
