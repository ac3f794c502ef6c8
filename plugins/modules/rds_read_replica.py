#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_read_replica
short_description: Keep a read replica of an instance of Amazon RDS, or promote it
description:
  - Makes a read replica of an instance and waits until it is available, promotes it to an instance of its own, or deletes it.
  - A replica follows asynchronously. It is for reads and for another region, and no replacement for Multi-AZ; a promotion loses what has not arrived.
  - M(freight.pg_ha.rds_instance) changes an existing replica's settings, M(freight.pg_ha.rds_instance_info) reads them.
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
    description: Name of the replica.
    type: str
    required: true
  state:
    description:
      - Whether there shall be a replica, V(present), or V(absent).
      - V(promoted) has it be an instance of its own, which nothing makes a replica again.
    type: str
    choices: [present, promoted, absent]
    default: present
  source:
    description:
      - Name of the instance that it follows, or its ARN where that is in another region; needed to make one.
      - It has to keep backups, and must not have its administrator's password in AWS Secrets Manager, see O(freight.pg_ha.rds_instance#module:admin_secret).
        Both are looked at beforehand in the replica's own region only; of a source in another one the service says it.
    type: str
  instance_class:
    description: Class of its machine; by default that of its source.
    type: str
  zone:
    description: Zone that it is made in; by default the service chooses.
    type: str
  multi_az:
    description: Whether the replica has a standby of its own.
    type: bool
    default: false
  parameter_group:
    description: Parameter group; by default that of its source.
    type: str
  kms_key_id:
    description:
      - Key of its storage, by ARN or id in the replica's region. Needed where the source is in another region and encrypted.
      - Refused where the source is in the same region, because the replica has its key then.
    type: str
  backup_retention_days:
    description: With V(promoted), the days for which backups of it are kept from then on.
    type: int
  tags:
    description: Tags of a replica that is made.
    type: dict
    default: {}
  wait_timeout_seconds:
    description: How long to wait for it.
    type: int
    default: 3600
"""

EXAMPLES = r"""
- name: Keep a replica for reports
  freight.pg_ha.rds_read_replica:
    identifier: freight-reports
    source: freight
    instance_class: db.m7g.large
"""

RETURN = r"""
instance:
  description: As M(freight.pg_ha.rds_instance) returns it. In check mode as it stands, V(null) where there is none.
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
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Action, Outcome
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import SYSTEM_CLOCK, Clock
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import client as rds
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import replica_plan, waits
from ansible_collections.freight.pg_ha.plugins.module_utils._rds.model import Described, public

_METHODS = {
    "CreateDBInstanceReadReplica": "create_db_instance_read_replica",
    "PromoteReadReplica": "promote_read_replica",
    "DeleteDBInstance": "delete_db_instance",
}


def shown(instance: Described | None) -> dict[str, t.Any]:
    """What a diff shows."""
    return {} if instance is None else {"replica_of": instance.get("ReadReplicaSourceDBInstanceIdentifier"), "instance_class": instance.get("DBInstanceClass")}


def run(client: rds.RdsClient, params: dict[str, t.Any], check_mode: bool, clock: Clock = SYSTEM_CLOCK) -> Outcome:
    """Read, refuse or plan, do, wait."""
    name, timeout = params["identifier"], params["wait_timeout_seconds"]
    current: Described | None = client.read_instance(name)
    source = None
    if current is None and params["source"] and replica_plan.region_of(params["source"], client.region) == client.region:
        source = client.read_instance(params["source"].rpartition(":")[2])
    step = replica_plan.plan_replica(params, current, source, client.region)
    if current is not None and params["state"] != "absent":
        # It may be in the making still, or in a promotion that was asked for before: what there is to do shows when that is over.
        current = waits.settle(client, current, check_mode, timeout, clock)
        step = replica_plan.plan_replica(params, current, source, client.region)
    if not step.words:
        return Outcome.of(shown(current), shown(current), [], instance=None if current is None else public(current))
    after = replica_plan.predict(params, shown(current), source)
    if check_mode:
        return Outcome.of(shown(current), after, [Action(step.words)], instance=None if current is None else public(current))
    if step.operation is not None:
        client.write(step.operation, _METHODS[step.operation], step.request)
    if params["state"] == "absent":
        waits.until_gone(client, name, timeout, clock)
        return Outcome.of(shown(current), after, [Action(step.words)], instance=None)
    found = waits.until_settled(client, name, timeout, clock, also=waits.promotion if params["state"] == "promoted" else waits.nothing_more)
    return Outcome.of(shown(current), after, [Action(step.words)], instance=public(found))


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {
        **rds.aws_argument_spec(),
        "identifier": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "promoted", "absent"], "default": "present"},
        "source": {"type": "str"},
        "instance_class": {"type": "str"},
        "zone": {"type": "str"},
        "multi_az": {"type": "bool", "default": False},
        "parameter_group": {"type": "str"},
        "kms_key_id": {"type": "str"},
        "backup_retention_days": {"type": "int"},
        "tags": {"type": "dict", "default": {}},
        "wait_timeout_seconds": {"type": "int", "default": 3600},
    }


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    rds.finish_with(module, lambda client: run(client, module.params, module.check_mode))


if __name__ == "__main__":
    main()
