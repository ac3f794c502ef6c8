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
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import SYSTEM_CLOCK, Clock
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import link_client, link_plan

APPLICATION_NAME = "ha_migration link"


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    return {
        **client.connection_argument_spec(),
        "publisher_service": {"type": "str", "default": "source"},
        "subscriber_service": {"type": "str", "default": "target"},
        "name": {"type": "str", "default": "ha_migration_forward"},
        "state": {"type": "str", "choices": ["following", "disabled", "absent"], "default": "following"},
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
            else:
                after = link_client.read_link(publisher, subscriber, name, limit)
    finally:
        publisher.close()
        subscriber.close()
    return Outcome.of(link_plan.summary(before), link_plan.wanted(before, params["state"]), actions, link=after.public(), lag=lag.seen)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
