#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: replication_link_info
short_description: What both sides say about a migration's replication link
version_added: 0.1.0
description:
  - Reads subscription, tables, worker, slot and lag. What could not be read is null, never zero, and counts as a problem.
author:
  - the freight.pg_ha authors (@freight)
extends_documentation_fragment:
  - freight.pg_ha.postgresql
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
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
  slot_wal_limit_mib:
    description:
      - How much of the publisher's WAL the slot may hold back, in MiB. From half of it on RV(link.problems) holds an alarm.
      - Without it only the server's own C(max_slot_wal_keep_size) counts.
    type: int
"""

EXAMPLES = r"""
- name: See how far the target is behind
  freight.pg_ha.replication_link_info:
    service_file: /run/pg_ha/freight/pg_service.conf
  register: __link
"""

RETURN = r"""
link:
  description: The link.
  type: dict
  returned: success
  contains:
    exists:
      description: Whether there is a subscription.
      type: bool
    enabled:
      description: Whether it is enabled.
      type: bool
    worker_running:
      description: Whether its apply worker runs.
      type: bool
    synchronous_commit:
      description: Whether applied transactions wait for the subscriber's synchronous standby; null without a subscription.
      type: str
    slot_exists:
      description: Whether the slot is there.
      type: bool
    slot_active:
      description: Whether somebody is connected to it.
      type: bool
    slot_wal_status:
      description: As in pg_replication_slots.
      type: str
    tables:
      description: Number of subscribed tables by state; V(r) is ready.
      type: dict
    published:
      description: Number of published tables.
      type: int
    lag_bytes:
      description: WAL that the subscriber has not confirmed; null when unknown.
      type: int
    lag_seconds:
      description: Delay that the sender measured last; null when it has measured none.
      type: float
    errors:
      description: Failed attempts to apply since the statistics began; null where the server does not count.
      type: int
    slot_held_bytes:
      description: WAL that the slot keeps on the publisher; null when unknown.
      type: int
    slot_limit_bytes:
      description: How much it may keep, by O(slot_wal_limit_mib) or the server's C(max_slot_wal_keep_size), whichever is lower; null without a limit.
      type: int
    alarm:
      description: That this limit is near, in words; empty while it is not.
      type: str
    given_up:
      description: That the publisher has given the link up for its disk, what is left over and how to begin anew; empty while it has not.
      type: str
    following:
      description: Whether changes arrive.
      type: bool
    problems:
      description: Why not, in words, and RV(link.alarm), with which they may still arrive.
      type: list
      elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import link_client

APPLICATION_NAME = "ha_migration link info"


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    return {
        **client.connection_argument_spec(),
        "publisher_service": {"type": "str", "default": "source"},
        "subscriber_service": {"type": "str", "default": "target"},
        "name": {"type": "str", "default": "ha_migration_forward"},
        "slot_wal_limit_mib": {"type": "int"},
    }


def run(params: dict[str, t.Any]) -> Outcome:
    """Read both sides."""
    timeout = params["connect_timeout_seconds"]
    publisher = client.connect(params["service_file"], params["publisher_service"], application_name=APPLICATION_NAME, connect_timeout_seconds=timeout)
    subscriber = client.connect(params["service_file"], params["subscriber_service"], application_name=APPLICATION_NAME, connect_timeout_seconds=timeout)
    try:
        return Outcome(False, {"link": link_client.read_link(publisher, subscriber, params["name"], params["slot_wal_limit_mib"]).public()})
    finally:
        publisher.close()
        subscriber.close()


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params))


if __name__ == "__main__":
    main()
