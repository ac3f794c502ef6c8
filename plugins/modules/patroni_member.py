#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: patroni_member
short_description: Restart or reinitialize a member of a Patroni cluster where it is due
description:
  - V(restarted) restarts PostgreSQL on a member that has a restart pending, and leaves every other alone.
  - V(reinitialized) throws a replica's data away and copies it from the leader when it does not follow the leader, and leaves a following one alone.
  - Waits until the member runs and follows.
version_added: 0.1.0
author: the freight.pg_ha authors (@freight)
extends_documentation_fragment:
  - freight.pg_ha.patroni
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
    description: The member.
    type: str
    required: true
  state:
    description: What shall be true of it.
    type: str
    choices: [restarted, reinitialized]
    default: restarted
  leader_allowed:
    description: Restart the member even while it leads. Writes stop meanwhile, so M(freight.pg_ha.patroni_leader) is the better way.
    type: bool
    default: false
  timeout_seconds:
    description: Bound of the request, and again of the wait after it.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Let a replica take up settings that need a restart
  freight.pg_ha.patroni_member:
    urls: [https://pg1:8008, https://pg2:8008, https://pg3:8008]
    ca_file: /etc/pg_ha/tls/ca.crt
    username: operator
    password: "{{ restapi_password }}"
    name: pg3
    state: restarted
"""

RETURN = r"""
cluster:
  description: The cluster afterwards, as M(freight.pg_ha.patroni_cluster_info) returns it.
  returned: success
  type: dict
actions:
  description: What was done; empty when nothing was due.
  returned: success
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import SYSTEM_CLOCK, Clock, wait_until
from ansible_collections.freight.pg_ha.plugins.module_utils._patroni.client import PatroniClient, patroni_argument_spec
from ansible_collections.freight.pg_ha.plugins.module_utils._patroni.model import Cluster, Member
from ansible_collections.freight.pg_ha.plugins.module_utils._patroni.plan import member_has_settled, plan_member


def run(client: PatroniClient, params: dict[str, t.Any], check_mode: bool, clock: Clock = SYSTEM_CLOCK) -> Outcome:
    """Plan, act when due, wait until the member has settled."""
    cluster = client.read_cluster()
    actions = plan_member(cluster, params["name"], params["state"], params["leader_allowed"])
    before = _describe(cluster, params["name"])
    if check_mode or not actions:
        after = {"state": "running", "pending_restart": False} if actions else before
        return Outcome.of(before, after, actions, cluster=cluster.public())
    member = t.cast(Member, cluster.member(params["name"]))
    act = client.restart if params["state"] == "restarted" else client.reinitialize
    act(member, params["timeout_seconds"])
    cluster = _wait(client, params, clock)
    return Outcome.of(before, _describe(cluster, params["name"]), actions, cluster=cluster.public())


def _describe(cluster: Cluster, name: str) -> dict[str, t.Any]:
    member = t.cast(Member, cluster.member(name))
    return {"state": member.state, "pending_restart": member.pending_restart}


def _wait(client: PatroniClient, params: dict[str, t.Any], clock: Clock) -> Cluster:
    def read() -> Cluster | str:
        try:
            return client.read_cluster()
        except ClientError as error:
            return error.message

    def accept(seen: Cluster | str) -> bool:
        return isinstance(seen, Cluster) and member_has_settled(seen, params["name"])

    return t.cast(Cluster, wait_until(read, accept, f"Member {params['name']} as {params['state']}", params["timeout_seconds"], 1.0, clock))


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {
        **patroni_argument_spec(),
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["restarted", "reinitialized"], "default": "restarted"},
        "leader_allowed": {"type": "bool", "default": False},
        "timeout_seconds": {"type": "int", "default": 120},
    }


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    finish(module, lambda: run(PatroniClient.open(module.params, read_only=module.check_mode), module.params, module.check_mode))


if __name__ == "__main__":
    main()
