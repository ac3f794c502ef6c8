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
  poolers:
    description:
      - PgBouncers whose clients wait while the leader changes, so that none of them sees an error. They are paused together, and go on as soon as the route
        of each leads to the new leader, or after O(poolers.budget_seconds) whatever has become of the switchover.
      - Each needs the guard of role C(freight.pg_ha.pause_guard), which ends the pause where this module has died. Refused without it.
    type: dict
    suboptions:
      service_file:
        description: Service file with C(pooler_<name>) for each console, and with O(poolers.service).
        type: path
        required: true
      service:
        description: Service of the cluster's administrator. Its host and port are replaced by those to which a pooler leads.
        type: str
        default: target
      names:
        description: Names of the poolers.
        type: list
        elements: str
        required: true
      database:
        description: Pooled database.
        type: str
        required: true
      pause_seconds:
        description: How long PAUSE may take. A client that holds a transaction open makes it fail, and nothing is changed.
        type: float
        default: 1
      budget_seconds:
        description: How long clients wait at most.
        type: float
        default: 5
"""

EXAMPLES = r"""
- name: Let pg2 lead
  freight.pg_ha.patroni_leader:
    urls: [https://pg1:8008, https://pg2:8008, https://pg3:8008]
    ca_file: /etc/pg_ha/tls/ca.crt
    username: operator
    password: "{{ restapi_password }}"
    name: pg2

- name: Let pg3 lead while clients wait at their poolers
  freight.pg_ha.patroni_leader:
    urls: [https://pg1:8008, https://pg2:8008, https://pg3:8008]
    ca_file: /run/pg_ha/freight/target_ca.crt
    username: operator
    password: "{{ restapi_password }}"
    name: pg3
    poolers:
      service_file: /run/pg_ha/freight/pg_service.conf
      names: [lb1]
      database: freight
"""

RETURN = r"""
held:
  description: >-
    How long clients waited at their poolers (C(ms)), and why they went on (C(because), V(served) when the new leader was there).
    Null without O(poolers), and where nothing was changed.
  returned: success
  type: dict
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

import threading
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, PgHaError, UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import SYSTEM_CLOCK, Clock, wait_until
from ansible_collections.freight.pg_ha.plugins.module_utils._patroni.client import PatroniClient, patroni_argument_spec
from ansible_collections.freight.pg_ha.plugins.module_utils._patroni.model import Cluster, Member
from ansible_collections.freight.pg_ha.plugins.module_utils._patroni.plan import ANY, leader_has_settled, plan_leader
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client as postgresql
from ansible_collections.freight.pg_ha.plugins.module_utils._switchover.hold import Hold, Route


def run(client: PatroniClient, params: dict[str, t.Any], check_mode: bool, clock: Clock = SYSTEM_CLOCK, hold: Hold | None = None) -> Outcome:
    """Plan, switch over when due, wait until the cluster has settled.

    :param hold: the poolers whose clients wait meanwhile
    """
    # A cluster that is only starting answers nobody yet: whoever is content with any leader waits for it.
    cluster = _wait(client, params, None, clock) if params["name"] == ANY and not check_mode else client.read_cluster()
    before = {"leader": None if cluster.leader is None else cluster.leader.name}
    actions = plan_leader(cluster, params["name"], params["max_lag_bytes"])
    if actions and hold is not None:
        # Whoever only predicts has not armed a guard either.
        hold.check(guarded=not check_mode)
    if check_mode:
        after = {"leader": params["name"]} if actions else before
        return Outcome.of(before, after, actions, cluster={**cluster.public(), **after}, held=None)
    former = cluster.leader if actions else None
    if former is not None:
        _switch_over(client, former, params) if hold is None else _switch_over_behind(hold, client, former, params)
    if params["name"] != ANY:
        cluster = _wait(client, params, None if former is None else former.name, clock)
    held = None if hold is None or hold.held_ms is None else {"ms": hold.held_ms, "because": hold.resumed_because}
    return Outcome.of(before, {"leader": cluster.leader and cluster.leader.name}, actions, cluster=cluster.public(), held=held)


def _switch_over(client: PatroniClient, former: Member, params: dict[str, t.Any]) -> None:
    try:
        client.switchover(former, params["name"], params["timeout_seconds"])
    except ClientError:
        # No answer is not a refusal: whoever leads now tells.
        leader = client.read_cluster().leader
        if leader is None or leader.name != params["name"]:
            raise


def _switch_over_behind(hold: Hold, client: PatroniClient, former: Member, params: dict[str, t.Any]) -> None:
    """While clients wait. Patroni looks once a second whether it is done, so its answer is not what they wait for.

    :raises PgHaError: a pooler could not be paused, or Patroni refused; clients go on
    """
    failures: list[PgHaError] = []

    def ask() -> None:
        try:
            _switch_over(client, former, params)
        except PgHaError as error:
            failures.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    with hold.held():
        asking.start()
        hold.wait_until_served(lambda: bool(failures))
    asking.join()
    if failures:
        raise failures[0]


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
        "poolers": {
            "type": "dict",
            "options": {
                "service_file": {"type": "path", "required": True},
                "service": {"type": "str", "default": "target"},
                "names": {"type": "list", "elements": "str", "required": True},
                "database": {"type": "str", "required": True},
                "pause_seconds": {"type": "float", "default": 1},
                "budget_seconds": {"type": "float", "default": 5},
            },
        },
    }


def open_hold(params: dict[str, t.Any]) -> Hold | None:
    """The declared poolers.

    :raises UsageError: none is named, or the bounds cannot be kept
    """
    declared = params["poolers"]
    if declared is None:
        return None
    if not declared["names"]:
        raise UsageError("poolers.names is empty: name the PgBouncers whose clients shall wait, or leave poolers out.")
    if not 0 < declared["pause_seconds"] < declared["budget_seconds"]:
        raise UsageError(
            f"poolers.pause_seconds is {declared['pause_seconds']:g} and poolers.budget_seconds {declared['budget_seconds']:g}: "
            "the pause has to end before the budget, and both have to be more than nothing."
        )
    file = declared["service_file"]
    return Hold(
        names=tuple(declared["names"]),
        open_console=lambda name: postgresql.connect_console(file, f"pooler_{name}"),
        open_route=lambda host, port: Route(file, declared["service"], host, port),
        database=declared["database"],
        pause_seconds=declared["pause_seconds"],
        budget_seconds=declared["budget_seconds"],
    )


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if module.params["poolers"] is not None and not postgresql.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(
        module,
        lambda: run(PatroniClient.open(module.params, read_only=module.check_mode), module.params, module.check_mode, hold=open_hold(module.params)),
    )


if __name__ == "__main__":
    main()
