#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_snapshot
short_description: Keep a snapshot of an instance of Amazon RDS
description:
  - Makes a snapshot of an instance under a name and waits until it can be restored, or deletes it.
  - A snapshot is of one moment. One that has the name already is left as it is, however old; C(created_at) says from when it is.
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
  identifier:
    description: Name of the snapshot.
    type: str
    required: true
  state:
    description: Whether there shall be one.
    type: str
    choices: [present, absent]
    default: present
  instance:
    description: Name of the instance; needed to make one.
    type: str
  tags:
    description: Tags of a snapshot that is made.
    type: dict
    default: {}
  wait_timeout_seconds:
    description: How long to wait for it.
    type: int
    default: 3600
"""

EXAMPLES = r"""
- name: Keep what there was before the upgrade
  freight.pg_ha.rds_snapshot:
    identifier: freight-before-17
    instance: freight
"""

RETURN = r"""
snapshot:
  description:
    - C(identifier), C(instance), C(kind), C(status), C(created_at), C(size_gib), C(encrypted) and C(arn).
    - In check mode as it stands, V(null) where there is none.
  returned: success
  type: dict
actions:
  description: One line for what was done, or would be.
  returned: success
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import PlanError, UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Action, Outcome
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import SYSTEM_CLOCK, Clock
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import client as rds
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import waits
from ansible_collections.freight.pg_ha.plugins.module_utils._rds.model import public_snapshot, tag_list


def make(client: rds.RdsClient, params: dict[str, t.Any], check_mode: bool, clock: Clock) -> Outcome:
    """There shall be one."""
    name, instance = params["identifier"], params["instance"]
    found = client.read_snapshot(name)
    if found is not None and instance not in (None, found["DBInstanceIdentifier"]):
        raise PlanError(f"Snapshot {name} is of instance {found['DBInstanceIdentifier']}, not of {instance}: give another identifier.")
    actions = []
    if found is None:
        if not instance:
            raise UsageError(f"instance is not given, and snapshot {name} does not exist yet: give it.")
        source = client.read_instance(instance)
        if source is None:
            raise PlanError(f"There is no instance {instance} in region {client.region}: see instance and region.")
        waits.settle(client, source, check_mode, params["wait_timeout_seconds"], clock)
        actions = [Action(f"make snapshot {name} of {instance}")]
        if not check_mode:
            request = {"DBSnapshotIdentifier": name, "DBInstanceIdentifier": instance, "Tags": tag_list(params["tags"])}
            client.write("CreateDBSnapshot", "create_db_snapshot", request)
    if not check_mode:
        found = waits.until_snapshot(client, name, params["wait_timeout_seconds"], clock)
    names = ({}, {"identifier": name, "instance": instance}) if actions else ({"identifier": name},) * 2
    return Outcome.of(*names, actions, snapshot=None if found is None else public_snapshot(found))


def remove(client: rds.RdsClient, params: dict[str, t.Any], check_mode: bool) -> Outcome:
    """There shall be none."""
    found = client.read_snapshot(params["identifier"])
    if found is None:
        return Outcome.of({}, {}, [], snapshot=None)
    if not check_mode:
        client.write("DeleteDBSnapshot", "delete_db_snapshot", {"DBSnapshotIdentifier": params["identifier"]})
    shown = public_snapshot(found)
    return Outcome.of(shown, {}, [Action(f"delete snapshot {params['identifier']}")], snapshot=shown if check_mode else None)


def run(client: rds.RdsClient, params: dict[str, t.Any], check_mode: bool, clock: Clock = SYSTEM_CLOCK) -> Outcome:
    """Read, refuse or do, wait."""
    return make(client, params, check_mode, clock) if params["state"] == "present" else remove(client, params, check_mode)


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {
        **rds.aws_argument_spec(),
        "identifier": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "instance": {"type": "str"},
        "tags": {"type": "dict", "default": {}},
        "wait_timeout_seconds": {"type": "int", "default": 3600},
    }


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    rds.finish_with(module, lambda client: run(client, module.params, module.check_mode))


if __name__ == "__main__":
    main()
