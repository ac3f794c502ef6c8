#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_parameter_group_info
short_description: Read a parameter group of Amazon RDS
description:
  - Reads a parameter group with every parameter of its family, the unit that the service counts it in, and what it takes. Changes nothing.
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
  name:
    description: Name of the group.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Read the target's parameters
  freight.pg_ha.rds_parameter_group_info:
    region: eu-central-1
    name: freight-17
  register: parameters
"""

RETURN = r"""
parameter_group:
  description:
    - C(name), C(family), C(description), C(parameters) (values that the group itself sets) and C(catalogue), which has by name C(value), C(unit), C(kind),
      C(allowed), C(static) and C(modifiable) of each. V(null) where there is none of that name.
  returned: success
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import client as rds
from ansible_collections.freight.pg_ha.plugins.module_utils._rds.parameter_plan import Parameter, set_in_group


def run(client: rds.RdsClient, params: dict[str, t.Any]) -> Outcome:
    """Read the group and its parameters."""
    group = client.read_parameter_group(params["name"])
    if group is None:
        return Outcome(changed=False, result={"parameter_group": None})
    described = client.read_parameters(params["name"])
    catalogue = {one.name: one.public() for one in map(Parameter.of, described)}
    found = {"name": params["name"], "family": group["DBParameterGroupFamily"], "description": group["Description"]}
    return Outcome(changed=False, result={"parameter_group": {**found, "parameters": set_in_group(described), "catalogue": catalogue}})


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {**rds.aws_argument_spec(), "name": {"type": "str", "required": True}}


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    rds.finish_with(module, lambda client: run(client, module.params), read_only=True)


if __name__ == "__main__":
    main()
