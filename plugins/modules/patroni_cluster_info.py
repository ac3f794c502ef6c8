#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: patroni_cluster_info
short_description: Read the members, leader and lag of a Patroni cluster
description:
  - Reads a cluster through Patroni's REST API. Changes nothing.
version_added: 0.1.0
author: the freight.pg_ha authors (@freight)
extends_documentation_fragment:
  - freight.pg_ha.patroni
  - freight.pg_ha.attributes
options:
  processes:
    description:
      - Also ask each member itself what runs there and since when, as C(running) of each member.
      - A member that does not answer, or whose PostgreSQL does not run, is an error then.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Read the cluster
  freight.pg_ha.patroni_cluster_info:
    urls: [https://pg1:8008, https://pg2:8008, https://pg3:8008]
    ca_file: /etc/pg_ha/tls/ca.crt
  register: cluster_info

- name: Show who leads
  ansible.builtin.debug:
    msg: "{{ cluster_info.cluster.leader }}"
"""

RETURN = r"""
cluster:
  description: The cluster as one member sees it.
  returned: success
  type: dict
  contains:
    scope:
      description: Name of the cluster.
      type: str
    paused:
      description: Whether automatic failover is paused.
      type: bool
    leader:
      description: Name of the leader; null when there is none.
      type: str
    synchronous_standbys:
      description: Synchronous standbys that stream on the leader's timeline.
      type: list
      elements: str
    members:
      description: >-
        Name, role, state, host, port, api_url, timeline, lag_bytes (null when unknown), pending_restart, tags,
        and lowered (settings that a standby takes only after its leader) of each member; with O(processes) also running, of which
        are postgresql_version, patroni_version and started_at (when the postmaster started, in seconds since the epoch by the member's clock).
      type: list
      elements: dict
"""

import typing as t
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._patroni.client import PatroniClient, patroni_argument_spec


def run(client: PatroniClient, processes: bool = False) -> Outcome:
    """Read the cluster, and ask each member where that is wanted."""
    cluster = client.read_cluster()
    public = cluster.public()
    if processes:
        public["members"] = [{**told, "running": asdict(client.read_running(member))} for told, member in zip(public["members"], cluster.members, strict=True)]
    return Outcome(changed=False, result={"cluster": public})


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {**patroni_argument_spec(), "processes": {"type": "bool", "default": False}}


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    finish(module, lambda: run(PatroniClient.open(module.params, read_only=True), module.params["processes"]))


if __name__ == "__main__":
    main()
