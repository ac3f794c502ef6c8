#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: patroni_leader
short_description: Name the leader that a Patroni cluster shall have
description:
  - Makes the named member the leader by a planned switchover, and waits until it runs and the former leader streams from it.
  - Refuses, before anything is changed, a member that is unknown, does not follow the leader, is too far behind or not synchronous, and a paused cluster.
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
    description: Member that shall lead; V(any) is content with whoever leads and only waits until somebody does.
    type: str
    required: true
  max_lag_bytes:
    description: A candidate that is further behind is refused.
    type: int
    default: 1048576
  synchronous_standby:
    description: Also wait until a synchronous standby streams from the leader.
    type: bool
    default: false
  running_members:
    description: Also wait until this many members run, the leader among them, and follow.
    type: int
    default: 1
  timeout_seconds:
    description: Bound of the switchover, and again of the wait after it.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Let pg2 lead
  freight.pg_ha.patroni_leader:
    urls: [https://pg1:8008, https://pg2:8008, https://pg3:8008]
    ca_file: /etc/pg_ha/tls/ca.crt
    username: operator
    password: "{{ restapi_password }}"
    name: pg2
"""

RETURN = r"""
cluster:
  description: The cluster afterwards (predicted in check mode), as M(freight.pg_ha.patroni_cluster_info) returns it.
  returned: success
  type: dict
actions:
  description: What was done; empty when the member already led.
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
from ansible_collections.freight.pg_ha.plugins.module_utils._patroni.plan import ANY, leader_has_settled, plan_leader


def run(client: PatroniClient, params: dict[str, t.Any], check_mode: bool, clock: Clock = SYSTEM_CLOCK) -> Outcome:
    """Plan, switch over when due, wait until the cluster has settled."""
    # A cluster that is only starting answers nobody yet: whoever is content with any leader waits for it.
    cluster = _wait(client, params, None, clock) if params["name"] == ANY and not check_mode else client.read_cluster()
    before = {"leader": None if cluster.leader is None else cluster.leader.name}
    actions = plan_leader(cluster, params["name"], params["max_lag_bytes"])
    if check_mode:
        after = {"leader": params["name"]} if actions else before
        return Outcome.of(before, after, actions, cluster={**cluster.public(), **after})
    former = cluster.leader if actions else None
    if former is not None:
        _switch_over(client, former, params)
    if params["name"] != ANY:
        cluster = _wait(client, params, None if former is None else former.name, clock)
    return Outcome.of(before, {"leader": cluster.leader and cluster.leader.name}, actions, cluster=cluster.public())


def _switch_over(client: PatroniClient, former: Member, params: dict[str, t.Any]) -> None:
    try:
        client.switchover(former, params["name"], params["timeout_seconds"])
    except ClientError:
        # No answer is not a refusal: whoever leads now tells.
        leader = client.read_cluster().leader
        if leader is None or leader.name != params["name"]:
            raise


def _wait(client: PatroniClient, params: dict[str, t.Any], former: str | None, clock: Clock) -> Cluster:
    def read() -> Cluster | str:
        # A member may not answer while roles change; that is a value to wait over, and to tell when the time is up.
        try:
            return client.read_cluster()
        except ClientError as error:
            return error.message

    def accept(seen: Cluster | str) -> bool:
        return isinstance(seen, Cluster) and leader_has_settled(seen, params["name"], former, params["synchronous_standby"], params["running_members"])

    what = "A running leader" if params["name"] == ANY else f"Leader {params['name']}"
    what += " with a synchronous standby" if params["synchronous_standby"] else ""
    what += f" and {params['running_members']} running members" if params["running_members"] > 1 else ""
    return t.cast(Cluster, wait_until(read, accept, what, params["timeout_seconds"], 0.5, clock))


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {
        **patroni_argument_spec(),
        "name": {"type": "str", "required": True},
        "max_lag_bytes": {"type": "int", "default": 1048576},
        "synchronous_standby": {"type": "bool", "default": False},
        "running_members": {"type": "int", "default": 1},
        "timeout_seconds": {"type": "int", "default": 60},
    }


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    finish(module, lambda: run(PatroniClient.open(module.params, read_only=module.check_mode), module.params, module.check_mode))


if __name__ == "__main__":
    main()
