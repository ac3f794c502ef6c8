#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: standby_slots
short_description: Have standbys hold the leader's replication slots
description:
  - Waits until standbys hold every logical slot of the leader that is to outlast a failover (PostgreSQL 17 and later, C(sync_replication_slots)), so that
    whoever follows by one goes on after a change of the leadership. A cluster without such slots is as wanted at once.
  - Standbys are woken by a reload, and the leader logs a snapshot of its transactions. No slot is made, moved or dropped on the leader.
version_added: 0.1.0
author: the freight.pg_ha authors (@freight)
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
    description: Service, in O(service_file), of the cluster's administrator. Its hosts are the members.
    type: str
    default: target
  hosts:
    description: Standbys that shall hold them, by their names in the service. Empty for every member but the leader.
    type: list
    elements: str
    default: []
  timeout_seconds:
    description: Bound of the wait.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Have pg2 ready to lead
  freight.pg_ha.standby_slots:
    service_file: /run/pg_ha/freight/pg_service.conf
    hosts: [pg2]
"""

RETURN = r"""
missing:
  description: By standby the slots that it did not hold at first.
  returned: success
  type: dict
actions:
  description: What was done; empty where nothing was missing.
  returned: success
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Action, Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client as postgresql
from ansible_collections.freight.pg_ha.plugins.module_utils._switchover.slots import Standbys


def run(standbys: Standbys, params: dict[str, t.Any], check_mode: bool) -> Outcome:
    """Look, and wait where something is missing."""
    missing = standbys.missing()
    actions = [Action(f"have {host} take over {', '.join(slots)}") for host, slots in missing.items()]
    if missing and not check_mode:
        standbys.wait(params["timeout_seconds"])
    return Outcome.of({"missing": missing}, {"missing": {}}, actions, missing=missing)


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {
        **postgresql.connection_argument_spec(),
        "service": {"type": "str", "default": "target"},
        "hosts": {"type": "list", "elements": "str", "default": []},
        "timeout_seconds": {"type": "int", "default": 60},
    }


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not postgresql.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    params = module.params
    standbys = Standbys(params["service_file"], params["service"], tuple(params["hosts"]), params["connect_timeout_seconds"])
    finish(module, lambda: run(standbys, params, module.check_mode))


if __name__ == "__main__":
    main()
