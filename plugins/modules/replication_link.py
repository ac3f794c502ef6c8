#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: replication_link
short_description: State of a migration's replication link
version_added: 0.1.0
description:
  - Enables, disables or removes a subscription of the migration together with its slot. M(freight.pg_ha.replication_copy) makes it.
author:
  - the freight.pg_ha authors (@freight)
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
  publisher_service:
    description: Service of the side that sends.
    type: str
    default: source
  subscriber_service:
    description: Service of the side that receives.
    type: str
    default: target
  name:
    description: Name of publication, slot and subscription.
    type: str
    default: ha_migration_forward
  state:
    description:
      - V(following) enables the subscription and waits until everything that was written before has been confirmed.
      - V(disabled) stops it; the slot keeps the WAL of the publisher.
      - V(absent) drops subscription and slot; the publication stays.
    type: str
    choices: [following, disabled, absent]
    default: following
  synchronous_commit:
    description:
      - Whether each transaction that is applied waits for the subscriber's synchronous standby, with O(state=following). It is set once everything has been
        caught up with, and then waited for once more. By default it stays as it is.
      - With V(on) nothing is confirmed to the publisher that the standby does not have, unless the subscriber's postmaster alone is killed. PostgreSQL's worker
        then waits no longer, and confirms before it ends. It costs a round trip for each transaction.
      - V(off) applies several times as many transactions a second. What the subscriber's leader has confirmed and its standby has not received yet is lost with
        the leader, and only a comparison of all rows shows it.
    type: str
    choices: ['on', 'off']
  timeout_seconds:
    description: Seconds to wait until it has caught up.
    type: int
    default: 600
  slot_wal_limit_mib:
    description:
      - How much of the publisher's WAL the slot may hold back, in MiB. From half of it on C(link.problems) holds an alarm.
      - While O(state=following) waits and more is held back, the link is given up in favour of the publisher's disk. The subscription is disabled, the
        slot is dropped, and the module fails with C(error=GivenUp).
      - Without it only the server's own C(max_slot_wal_keep_size) counts.
    type: int
"""

EXAMPLES = r"""
- name: Wait until the target has caught up
  freight.pg_ha.replication_link:
    service_file: /run/pg_ha/freight/pg_service.conf
    state: following
    synchronous_commit: 'on'
"""

RETURN = r"""
link:
  description: The link as it is now, see M(freight.pg_ha.replication_link_info).
  type: dict
  returned: success
lag:
  description: The lag as it was seen while the target caught up, C(seconds) since the first look and C(bytes); at most 240 of them.
  type: list
  elements: dict
  returned: success
actions:
  description: What was done, or in check mode would be done.
  type: list
  elements: str
  returned: success
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import WaitTimeout
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Action, Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import SYSTEM_CLOCK, Clock
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import link_client, link_plan
from ansible_collections.freight.pg_ha.plugins.module_utils._replication.model import LinkState

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

APPLICATION_NAME = "ha_migration link"


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    return {
        **client.connection_argument_spec(),
        "publisher_service": {"type": "str", "default": "source"},
        "subscriber_service": {"type": "str", "default": "target"},
        "name": {"type": "str", "default": "ha_migration_forward"},
        "state": {"type": "str", "choices": ["following", "disabled", "absent"], "default": "following"},
        "synchronous_commit": {"type": "str", "choices": ["on", "off"]},
        "timeout_seconds": {"type": "int", "default": 600},
        "slot_wal_limit_mib": {"type": "int"},
    }


def run(params: dict[str, t.Any], check_mode: bool, clock: Clock = SYSTEM_CLOCK) -> Outcome:
    """Read, plan, apply, wait.

    :raises PlanError: there is nothing to enable or disable
    :raises WaitTimeout: it did not catch up
    :raises GivenUp: the publisher has given the link up, or we have at the declared limit
    """
    name, timeout, limit = params["name"], params["connect_timeout_seconds"], params["slot_wal_limit_mib"]
    publisher = client.connect(params["service_file"], params["publisher_service"], application_name=APPLICATION_NAME, connect_timeout_seconds=timeout)
    subscriber = client.connect(params["service_file"], params["subscriber_service"], application_name=APPLICATION_NAME, connect_timeout_seconds=timeout)
    try:
        before = link_client.read_link(publisher, subscriber, name, limit)
        actions = link_plan.plan_link(before, name, params["state"])
        commit = link_plan.plan_commit(before, name, params["state"], params["synchronous_commit"])
        after = before
        lag = link_client.LagOverTime()
        if not check_mode:
            if params["state"] == "absent":
                link_client.drop_link(publisher, subscriber, name)
            else:
                for action in actions:
                    client.query(subscriber, action.statement)
            if params["state"] == "following":
                after = link_client.wait_until_caught_up(publisher, subscriber, name, params["timeout_seconds"], clock, limit, lag)
                if commit:
                    after = _change_commit(publisher, subscriber, commit, params, clock, lag)
            else:
                after = link_client.read_link(publisher, subscriber, name, limit)
    finally:
        publisher.close()
        subscriber.close()
    wanted = link_plan.wanted(before, params["state"], params["synchronous_commit"])
    return Outcome.of(link_plan.summary(before), wanted, actions + commit, link=after.public(), lag=lag.seen)


def _change_commit(
    publisher: Connection, subscriber: Connection, actions: list[Action], params: dict[str, t.Any], clock: Clock, lag: link_client.LagOverTime
) -> LinkState:
    """Change for whom applied transactions wait, and see that the link keeps up with that.

    :raises WaitTimeout: it does not
    """
    name, limit = params["name"], params["slot_wal_limit_mib"]
    link_client.set_commit(subscriber, actions)
    try:
        return link_client.wait_until_caught_up(publisher, subscriber, name, params["timeout_seconds"], clock, limit, lag)
    except WaitTimeout as error:
        raise WaitTimeout(
            f"{error.message} It had caught up before it got synchronous_commit = {params['synchronous_commit']}. Where the publisher commits more "
            "transactions a second than can wait for a standby one after the other, leave that off (replication_synchronous_commit).",
            **error.details,
        ) from error


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
