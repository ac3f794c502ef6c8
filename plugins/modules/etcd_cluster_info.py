#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_cluster_info
short_description: Read which members of an etcd cluster answer, and who leads
version_added: 0.1.0
description:
  - Asks each member by its own address. Changes nothing, and needs no login.
author:
  - the freight.pg_ha authors (@freight)
extends_documentation_fragment:
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  members:
    description: Client address of each member, by the name under which it shall be returned.
    type: dict
    required: true
  ca_file:
    description: CA certificate that verifies them.
    type: path
  request_timeout_seconds:
    description: Bound of one answer.
    type: int
    default: 5
"""

EXAMPLES = r"""
- name: Read who leads the store
  freight.pg_ha.etcd_cluster_info:
    members:
      etcd1: https://etcd1:2379
      etcd2: https://etcd2:2379
      etcd3: https://etcd3:2379
    ca_file: /etc/pg_ha/tls/ca.crt
  register: store
"""

RETURN = r"""
cluster:
  description: The cluster as its members see it.
  returned: success
  type: dict
  contains:
    leader:
      description: Name of the leader; null when the members that answer do not follow one and the same, or it does not answer itself.
      type: str
    answering:
      description: Names of the members that answer and follow a leader.
      type: list
      elements: str
    silent:
      description: Why each of the others does not count, by name.
      type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._etcd.client import EtcdClient

NO_LEADER = "0"


def run(params: dict[str, t.Any]) -> Outcome:
    """Ask every member."""
    ids: dict[str, str] = {}
    leaders: set[str] = set()
    silent: dict[str, str] = {}
    for name, url in params["members"].items():
        try:
            member, leader = EtcdClient([url], ca_file=params["ca_file"], request_timeout_seconds=params["request_timeout_seconds"], read_only=True).status()
        except ClientError as error:
            silent[name] = error.message
            continue
        if leader == NO_LEADER:
            silent[name] = "It answers and follows no leader."
            continue
        ids[member] = name
        leaders.add(leader)
    leading = ids.get(next(iter(leaders))) if len(leaders) == 1 else None
    return Outcome(changed=False, result={"cluster": {"leader": leading, "answering": list(ids.values()), "silent": silent}})


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    return {
        "members": {"type": "dict", "required": True},
        "ca_file": {"type": "path"},
        "request_timeout_seconds": {"type": "int", "default": 5},
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    finish(module, lambda: run(module.params))


if __name__ == "__main__":
    main()
