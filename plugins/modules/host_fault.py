#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_fault
short_description: Break something on a host on purpose, for a failover test, and mend it
version_added: 0.1.0
description:
  - With O(state=present) a process is killed or stands still, a unit stops, packets to and from some addresses are dropped, a disk is full, WAL is
    written until no more goes in, or standbys lose their slots.
  - With O(state=absent) it is taken away, from whatever state, also when it never happened.
  - Before anything is broken the host is told to take it away by itself after O(cure_after_seconds), so that it does not stay when whoever asked has died.
    The timer does not survive a boot, and neither does what it would mend (a process, a rule of nftables), but for a file that fills a disk.
  - Without O(name), O(state=absent) takes away every fault that stands on the host, as one does whose run has died.
  - It is made for role C(freight.pg_ha.failover_test), which breaks nothing without consent. Whoever uses it alone needs to know what will be missed.
author:
  - the freight.pg_ha authors (@freight)
extends_documentation_fragment:
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
requirements:
  - systemd; nftables for V(network_cut)
options:
  name:
    description:
      - Name of the fault on this host, of letters, digits, C(_) and C(-).
      - Needed with O(state=present).
    type: str
  kind:
    description:
      - V(process_killed) sends SIGKILL to what O(processes) says. Whatever keeps the unit may start it again.
      - V(unit_stopped) stops a unit as an operator does.
      - V(process_frozen) sends SIGSTOP to the process in O(pid_file) and its children, so that they stand still with their connections open.
      - V(network_cut) drops every packet from and to O(peers), at one moment.
      - V(disk_full) fills the file system of O(path).
      - V(wal_written) has the PostgreSQL server on this host write WAL until it ends, as its superuser C(postgres), over the socket; after V(disk_full) on the
        disk that holds its WAL. Where it has not ended after a minute the fault did not happen.
      - V(slots_dropped) drops every physical replication slot of the PostgreSQL server on this host, also those in use; as its superuser C(postgres), over the
        socket.
      - Needed with O(state=present); what stands is taken away as what it is.
    type: str
    choices: [process_killed, unit_stopped, process_frozen, network_cut, disk_full, wal_written, slots_dropped]
  unit:
    description: Unit of systemd that is hit, and started afterwards.
    type: str
  processes:
    description: Of V(process_killed), the unit's main process, all that it holds, or the process in O(pid_file).
    type: str
    choices: [main, all, named]
    default: all
  pid_file:
    description: File whose first line is a process's number, such as C(postmaster.pid).
    type: path
  peers:
    description: IP addresses.
    type: list
    elements: str
    default: []
  direction:
    description: Which packets are dropped, as seen from this host.
    type: str
    choices: [both, in, out]
    default: both
  path:
    description: A folder on the file system that shall be full.
    type: path
  address:
    description:
      - An address of the host that is meant. Refused where the module finds itself on another host, for a task may be delegated otherwise than it reads.
      - Needed with O(state=present).
    type: str
  cure_after_seconds:
    description: The host takes the fault away by itself after so long.
    type: int
    default: 300
  state:
    description: Whether the fault stands.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Kill the postmaster
  freight.pg_ha.host_fault:
    name: postmaster
    kind: process_killed
    address: 10.0.0.21
    unit: patroni
    processes: named
    pid_file: /var/lib/postgresql/17/main/postmaster.pid

- name: Mend it
  freight.pg_ha.host_fault:
    name: postmaster
    state: absent

- name: Mend whatever was broken on this host
  freight.pg_ha.host_fault:
    state: absent
"""

RETURN = r"""
at:
  description: When the fault happened, in seconds since 1970 by the host's clock; null when nothing was done.
  returned: success
  type: float
actions:
  description: Commands that were run, or would be in check mode.
  returned: success
  type: list
  elements: str
"""

import re
import shlex
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Action, Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._fault.client import Host, standing
from ansible_collections.freight.pg_ha.plugins.module_utils._fault.plan import ALL, KINDS, MAIN, NAMED, check, plan_fault


def run(params: dict[str, t.Any], check_mode: bool, host: Host) -> Outcome:
    """Make it happen, or take it away.

    :raises UsageError: options that cannot be
    :raises ClientError: it did not happen, or could not be taken away
    """
    if not re.fullmatch("[A-Za-z0-9_-]{1,40}", params["name"]):
        raise UsageError(f"The fault's name {params['name']!r} may hold letters, digits, _ and - only, at most 40 of them.")
    standing = host.read()
    before = {"state": "absent" if standing is None else "present"}
    after = {"state": params["state"]}
    if before == after:
        _check_same(params, standing)
        return Outcome.of(before, after, [], at=None)
    if params["state"] == "absent":
        # What it was made with says how it is taken away.
        fault = plan_fault(t.cast("dict[str, t.Any]", standing), [0], 0)
        if not check_mode:
            host.cure(fault)
        return Outcome.of(before, after, _actions(fault.cure), at=None)
    check(params)
    host.check_address(params["address"])
    fault = plan_fault(params, host.pids(params), host.free_bytes(params))
    at = None if check_mode else host.happen(fault, _wanted(params))
    return Outcome.of(before, after, _actions(fault.hit), at=at)


def clear(params: dict[str, t.Any], check_mode: bool, hosts: dict[str, Host]) -> Outcome:
    """Take away all that stands.

    :param hosts: the host by the name of each of its faults
    :raises ClientError: one could not be taken away; the others were
    """
    actions: list[str] = []
    failures = []
    for name, host in hosts.items():
        try:
            actions += run({**params, "name": name}, check_mode, host).result["actions"]
        except ClientError as error:
            failures.append(error.message)
    if failures:
        raise ClientError(" ".join(failures))
    return Outcome(bool(hosts), {"actions": actions, "at": None}, {"standing": list(hosts)}, {"standing": []})


def _wanted(params: dict[str, t.Any]) -> dict[str, t.Any]:
    return {name: value for name, value in params.items() if name != "state"}


def _check_same(params: dict[str, t.Any], standing: dict[str, t.Any] | None) -> None:
    if standing is not None and standing != _wanted(params):
        raise UsageError(f"Another fault of kind {standing.get('kind')} stands under the name {params['name']}: take that one away first.")


def _actions(commands: t.Iterable[tuple[str, ...]]) -> list[Action]:
    return [Action(shlex.join(command)) for command in commands]


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    return {
        "name": {"type": "str"},
        "kind": {"type": "str", "choices": list(KINDS)},
        "unit": {"type": "str"},
        "processes": {"type": "str", "choices": [MAIN, ALL, NAMED], "default": ALL},
        "pid_file": {"type": "path"},
        "peers": {"type": "list", "elements": "str", "default": []},
        "direction": {"type": "str", "choices": ["both", "in", "out"], "default": "both"},
        "path": {"type": "path"},
        "address": {"type": "str"},
        "cure_after_seconds": {"type": "int", "default": 300},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True, required_if=[("state", "present", ["name", "kind", "address"])])
    name = module.params["name"]
    if name is None:
        finish(module, lambda: clear(module.params, module.check_mode, {one: Host(one) for one in standing()}))
    else:
        finish(module, lambda: run(module.params, module.check_mode, Host(name)))


if __name__ == "__main__":
    main()
