#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_parameter_group
short_description: Keep a parameter group of Amazon RDS
description:
  - Makes a parameter group, brings parameters to the given values, or deletes it.
  - Every value is held against the service's own catalogue of the family before any is sent, all of them together. Range, choices, the unit that the service
    counts in, and whether it can be changed at all come from there.
  - A static parameter is in force only after a reboot, which this module does not do; it says that one is due, and for which instances.
version_added: 0.1.0
author: the freight.pg_ha authors (@freight)
extends_documentation_fragment:
  - freight.pg_ha.aws
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  name:
    description: Name of the group.
    type: str
    required: true
  state:
    description: Whether there shall be one.
    type: str
    choices: [present, absent]
    default: present
  family:
    description: Family, for example V(postgres17). Settled for a group's life, needed to make one.
    type: str
  description:
    description: What the group is for. Settled for its life.
    type: str
    default: PostgreSQL
  parameters:
    description:
      - Values by name. A number is in the service's own unit (C(shared_buffers) in pages of 8 kB); a size as V(64MB) or a time as V(30s) is converted,
        and refused where it does not come out even. A formula as V({DBInstanceClassMemory/32768}) is checked, also against
        asking for more memory than there is, and against the parameter's range where no instance could meet it.
      - V(null) has the engine's own value come back. What is not named is left alone.
    type: dict
    default: {}
  tags:
    description: All of the group's tags; others are taken away. Omit it to leave them alone.
    type: dict
"""

EXAMPLES = r"""
- name: Keep the target's parameters
  freight.pg_ha.rds_parameter_group:
    region: eu-central-1
    name: freight-17
    family: postgres17
    description: freight, highly available
    parameters:
      shared_buffers: "{DBInstanceClassMemory/32768}"
      work_mem: 16MB
      rds.logical_replication: true
"""

RETURN = r"""
parameter_group:
  description:
    - C(name), C(family), C(parameters) (values that the group itself sets, in the service's form; in check mode as they stand) and C(reboot_due), the instances
      of which the service says that they wait for a reboot.
  returned: success
  type: dict
reboot_needed:
  description: Whether a static parameter was changed, or would be, so that instances with this group have to be rebooted.
  returned: success
  type: bool
actions:
  description: One line for each thing that was done, or would be.
  returned: success
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Action, Outcome
from ansible_collections.freight.pg_ha.plugins.module_utils._core.problems import Problem
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import client as rds
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import parameter_plan
from ansible_collections.freight.pg_ha.plugins.module_utils._rds.model import Described, tag_changes, tag_list, tags_of, waits_for_reboot
from ansible_collections.freight.pg_ha.plugins.module_utils._rds.refusal import refuse


def read(client: rds.RdsClient, name: str) -> tuple[Described | None, list[dict[str, t.Any]], dict[str, str]]:
    """The group, its parameters with those of the family, and its tags."""
    group = client.read_parameter_group(name)
    if group is None:
        return None, [], {}
    return group, client.read_parameters(name), tags_of({"TagList": client.read_tags(group["DBParameterGroupArn"])})


def keep(client: rds.RdsClient, params: dict[str, t.Any], check_mode: bool) -> Outcome:
    """There shall be one, with these parameters."""
    name, family = params["name"], params["family"]
    group, parameters, tags = read(client, name)
    if group is None and not family:
        refuse(
            f"parameter group {name}",
            [Problem("missing", "family", f"family is not given, and parameter group {name} does not exist yet", "give one like postgres17")],
        )
    if group is not None and family not in (None, group["DBParameterGroupFamily"]):
        message = f"parameter group {name} is of family {group['DBParameterGroupFamily']}, and that cannot be changed"
        refuse(f"parameter group {name}", [Problem("immutable", "family", message, f"give that one, or make another group for {family}")])
    changes, problems = parameter_plan.plan_parameters(params["parameters"], parameters if group is not None else client.read_catalogue(family))
    refuse(f"parameter group {name}", problems)
    add, remove = tag_changes(params["tags"] or {} if group is None else params["tags"], tags)
    actions = [] if group is not None else [Action(f"create parameter group {name} of family {family}")]
    actions += [change.action for change in changes]
    if group is not None:
        actions += [Action(f"tag {key}: {value}") for key, value in add.items()] + [Action(f"tag {key}: taken away") for key in remove]
    before = {**parameter_plan.set_in_group(parameters), **{f"tag {key}": value for key, value in tags.items()}}
    after = {**parameter_plan.predict(before, changes), **{f"tag {key}": value for key, value in add.items()}}
    after = {key: value for key, value in after.items() if key not in {f"tag {one}" for one in remove}}
    if not check_mode:
        carry_out(client, params, group, changes, (add, remove))
    result = {"parameter_group": describe_group(client, name), "reboot_needed": any(change.parameter.static for change in changes)}
    return Outcome.of(before, after, actions, **result)


def carry_out(
    client: rds.RdsClient,
    params: dict[str, t.Any],
    group: Described | None,
    changes: t.Sequence[parameter_plan.ParameterChange],
    tags: tuple[dict[str, str], list[str]],
) -> None:
    """Send the requests, parameters in batches."""
    name = params["name"]
    if group is None:
        request = {"DBParameterGroupName": name, "DBParameterGroupFamily": params["family"], "Description": params["description"], "Tags": tag_list(tags[0])}
        client.write("CreateDBParameterGroup", "create_db_parameter_group", request)
    else:
        client.keep_tags(group["DBParameterGroupArn"], *tags)
    for reset, parameters in parameter_plan.batches(changes):
        if reset:
            request = {"DBParameterGroupName": name, "ResetAllParameters": False, "Parameters": parameters}
            client.write("ResetDBParameterGroup", "reset_db_parameter_group", request)
        else:
            client.write("ModifyDBParameterGroup", "modify_db_parameter_group", {"DBParameterGroupName": name, "Parameters": parameters})


def describe_group(client: rds.RdsClient, name: str) -> dict[str, t.Any] | None:
    """The group as it stands now, for the result."""
    group = client.read_parameter_group(name)
    if group is None:
        return None
    waiting = [one["DBInstanceIdentifier"] for one in client.read_users_of(name) if waits_for_reboot(one, name)]
    return {
        "name": name,
        "family": group["DBParameterGroupFamily"],
        "parameters": parameter_plan.set_in_group(client.read_parameters(name)),
        "reboot_due": sorted(waiting),
    }


def remove(client: rds.RdsClient, params: dict[str, t.Any], check_mode: bool) -> Outcome:
    """There shall be none."""
    name = params["name"]
    group = client.read_parameter_group(name)
    if group is None:
        return Outcome.of({}, {}, [], parameter_group=None, reboot_needed=False)
    users = [one["DBInstanceIdentifier"] for one in client.read_users_of(name)]
    if users:
        refuse(
            f"parameter group {name}",
            [Problem("state", "name", f"parameter group {name} is used by {', '.join(sorted(users))}", "give them another one first")],
        )
    before = describe_group(client, name)
    if not check_mode:
        client.write("DeleteDBParameterGroup", "delete_db_parameter_group", {"DBParameterGroupName": name})
    return Outcome.of(before, {}, [Action(f"delete parameter group {name}")], parameter_group=before if check_mode else None, reboot_needed=False)


def run(client: rds.RdsClient, params: dict[str, t.Any], check_mode: bool) -> Outcome:
    """Read, refuse or plan, do."""
    return (keep if params["state"] == "present" else remove)(client, params, check_mode)


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {
        **rds.aws_argument_spec(),
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "family": {"type": "str"},
        "description": {"type": "str", "default": "PostgreSQL"},
        "parameters": {"type": "dict", "default": {}},
        "tags": {"type": "dict"},
    }


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    rds.finish_with(module, lambda client: run(client, module.params, module.check_mode))


if __name__ == "__main__":
    main()
