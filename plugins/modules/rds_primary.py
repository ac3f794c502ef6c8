#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_primary
short_description: Have an instance of Amazon RDS fail over
description:
  - Has a Multi-AZ instance serve from another zone than the one given, by a reboot with failover, and waits until the service says that it is over.
  - Nothing is done where it serves from another zone already, so that a task that is run again after a lost answer does not fail over twice.
  - Every client loses its connection. The service names no zone to go to, a Multi-AZ instance has one standby.
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
    description: Name of the instance.
    type: str
    required: true
  leaves_zone:
    description: Zone that the primary shall leave; C(zone) of M(freight.pg_ha.rds_instance_info).
    type: str
    required: true
  wait_timeout_seconds:
    description: How long to wait until the service says that the failover is over and the instance is available.
    type: int
    default: 600
"""

EXAMPLES = r"""
- name: Read where it serves
  freight.pg_ha.rds_instance_info:
    identifier: freight
  register: target

- name: Fail over
  freight.pg_ha.rds_primary:
    identifier: freight
    leaves_zone: "{{ target.instance.zone }}"
"""

RETURN = r"""
instance:
  description: As M(freight.pg_ha.rds_instance) returns it.
  returned: success
  type: dict
failover:
  description:
    - What the service says of the failover, V(null) when there was none. C(started_at) and C(completed_at) are when it says that it began and was over,
      C(service_seconds) is the time between, C(events) are C(at) and C(message) of all that it said.
    - Clients measure something else, see M(freight.pg_ha.ledger_probe).
  returned: success
  type: dict
actions:
  description: One line for what was done, or would be.
  returned: success
  type: list
  elements: str
"""

import datetime
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import PlanError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Action, Outcome
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import SYSTEM_CLOCK, Clock, wait_until
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import client as rds
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import failover_plan, waits
from ansible_collections.freight.pg_ha.plugins.module_utils._rds.model import Described, public


def await_end(client: rds.RdsClient, params: dict[str, t.Any], since: datetime.datetime, clock: Clock) -> tuple[Described, failover_plan.Failover]:
    """Wait until the service has said that it is over, and the instance is available in another zone.

    :param since: events from then on are this failover's
    """
    identifier, zone = params["identifier"], params["leaves_zone"]
    seen: dict[str, t.Any] = {}
    failover = failover_plan.Failover([], None, None)

    def look() -> str:
        nonlocal seen, failover
        seen = client.read_instance(identifier) or {}
        failover = failover_plan.read_failover(client.read_events(identifier, failover_plan.EVENT_MINUTES), since)
        return failover_plan.state(seen, zone, failover)

    wait_until(look, lambda state: state == failover_plan.OVER, f"The end of the failover of {identifier}", params["wait_timeout_seconds"], 2.0, clock)
    return seen, failover


def run(client: rds.RdsClient, params: dict[str, t.Any], check_mode: bool, clock: Clock = SYSTEM_CLOCK) -> Outcome:
    """Read, refuse or fail over, wait."""
    identifier = params["identifier"]
    before = client.read_instance(identifier)
    if before is None:
        raise PlanError(f"There is no instance {identifier} in region {client.region}: see identifier and region.")
    if before.get("AvailabilityZone") != params["leaves_zone"]:
        return Outcome.of({"zone": before.get("AvailabilityZone")}, {"zone": before.get("AvailabilityZone")}, [], instance=public(before), failover=None)
    waits.refuse_stuck(before)
    failover_plan.refuse(before)
    zones = {"zone": before["AvailabilityZone"]}, {"zone": before.get("SecondaryAvailabilityZone")}
    actions = [Action(f"fail over from {before['AvailabilityZone']} to {before.get('SecondaryAvailabilityZone') or 'the other zone'}")]
    if check_mode:
        return Outcome.of(*zones, actions, instance=public(before), failover=None)
    since = failover_plan.latest(client.read_events(identifier, failover_plan.EVENT_MINUTES))
    client.write("RebootDBInstance", "reboot_db_instance", {"DBInstanceIdentifier": identifier, "ForceFailover": True})
    after, failover = await_end(client, params, since, clock)
    return Outcome.of(*zones, actions, instance=public(after), failover=failover.public())


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {
        **rds.aws_argument_spec(),
        "identifier": {"type": "str", "required": True},
        "leaves_zone": {"type": "str", "required": True},
        "wait_timeout_seconds": {"type": "int", "default": 600},
    }


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    rds.finish_with(module, lambda client: run(client, module.params, module.check_mode))


if __name__ == "__main__":
    main()
