#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_instance_info
short_description: Read an instance of Amazon RDS
description:
  - Reads an instance, what is pending for it, and what the service says has happened to it lately. Changes nothing.
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
  identifier:
    description: Name of the instance.
    type: str
    required: true
  events_minutes:
    description: How far back its events are read, V(0) for not at all. The service keeps them for two weeks.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Read the target
  freight.pg_ha.rds_instance_info:
    region: eu-central-1
    identifier: freight
  register: target
"""

RETURN = r"""
instance:
  description: As M(freight.pg_ha.rds_instance) returns it, V(null) where there is none of that name.
  returned: success
  type: dict
events:
  description: C(at) (ISO 8601 UTC) and C(message) of each event, oldest first.
  returned: success
  type: list
  elements: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import client as rds
from ansible_collections.freight.pg_ha.plugins.module_utils._rds.model import public, public_events


def run(client: rds.RdsClient, params: dict[str, t.Any]) -> Outcome:
    """Read the instance, and its events where it is there."""
    instance = client.read_instance(params["identifier"])
    events = client.read_events(params["identifier"], params["events_minutes"]) if instance is not None and params["events_minutes"] else []
    return Outcome(changed=False, result={"instance": None if instance is None else public(instance), "events": public_events(events)})


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {**rds.aws_argument_spec(), "identifier": {"type": "str", "required": True}, "events_minutes": {"type": "int", "default": 60}}


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    rds.finish_with(module, lambda client: run(client, module.params), read_only=True)


if __name__ == "__main__":
    main()
