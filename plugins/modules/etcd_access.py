#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_access
short_description: Keep etcd's authentication on, with one user limited to one prefix
description:
  - Keeps the user V(root), one further user whose role may read and write the keys below one prefix, and authentication enabled.
version_added: 0.1.0
author: the freight.pg_ha authors (@freight)
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
  urls:
    description: Client addresses of the members, asked in order until one answers.
    type: list
    elements: str
    required: true
  ca_file:
    description: CA that signed the members' certificates.
    type: path
  root_password:
    description: Password of the user V(root). It is set once; to change it, change it in etcd and here.
    type: str
    required: true
  user:
    description: The user that applications of this etcd log in with; its role has the same name.
    type: str
    required: true
  password:
    description: Its password.
    type: str
    required: true
  prefix:
    description: The keys that the user may read and write begin with this.
    type: str
    required: true
  request_timeout_seconds:
    description: Bound of one request.
    type: int
    default: 10
"""

EXAMPLES = r"""
- name: Let Patroni keep its state under its own prefix
  freight.pg_ha.etcd_access:
    urls: [https://etcd1:2379, https://etcd2:2379, https://etcd3:2379]
    ca_file: /etc/pg_ha/tls/ca.crt
    root_password: "{{ etcd_root_password }}"
    user: patroni
    password: "{{ etcd_patroni_password }}"
    prefix: /service/main/
  no_log: true
"""

RETURN = r"""
actions:
  description: What was done; empty when nothing was due.
  returned: success
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Action, Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._etcd.client import EtcdClient, encode, range_end_of

Step = tuple[Action, str, dict[str, t.Any]]


def run(client: EtcdClient, params: dict[str, t.Any], check_mode: bool) -> Outcome:
    """Read what is there and do what is missing, authentication last."""
    password_holds = client.log_in(params["user"], params["password"])
    enabled = password_holds is not None
    if enabled and not client.log_in("root", params["root_password"]):
        raise UsageError("etcd does not accept the password of its user root; give the one that was set when authentication was enabled.")
    steps = _plan(client, params, enabled, bool(password_holds))
    if not check_mode:
        for _action, path, body in steps:
            client.write(path, body)
    return Outcome.of(None, None, [action for action, _path, _body in steps])


def _plan(client: EtcdClient, params: dict[str, t.Any], enabled: bool, password_holds: bool) -> list[Step]:
    user, wanted = params["user"], ("READWRITE", params["prefix"], range_end_of(params["prefix"]))
    users, roles = client.users(), client.roles()
    steps: list[Step] = []
    if "root" not in users:
        steps.append((Action("add user root"), "auth/user/add", {"name": "root", "password": params["root_password"]}))
    elif not enabled:
        steps.append((Action("set password of user root"), "auth/user/changepw", {"name": "root", "password": params["root_password"]}))
    if "root" not in roles:
        steps.append((Action("add role root"), "auth/role/add", {"name": "root"}))
    if "root" not in users or "root" not in client.roles_of("root"):
        steps.append((Action("grant role root to user root"), "auth/user/grant", {"user": "root", "role": "root"}))
    if user not in roles:
        steps.append((Action(f"add role {user}"), "auth/role/add", {"name": user}))
    if user not in roles or wanted not in client.prefixes_of(user):
        permission = {"permType": wanted[0], "key": encode(wanted[1]), "range_end": encode(wanted[2])}
        steps.append((Action(f"grant {wanted[0]} on prefix {wanted[1]} to role {user}"), "auth/role/grant", {"name": user, "perm": permission}))
    if user not in users:
        steps.append((Action(f"add user {user}"), "auth/user/add", {"name": user, "password": params["password"]}))
    elif not password_holds:
        steps.append((Action(f"set password of user {user}"), "auth/user/changepw", {"name": user, "password": params["password"]}))
    if user not in users or user not in client.roles_of(user):
        steps.append((Action(f"grant role {user} to user {user}"), "auth/user/grant", {"user": user, "role": user}))
    if not enabled:
        steps.append((Action("enable authentication"), "auth/enable", {}))
    return steps


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {
        "urls": {"type": "list", "elements": "str", "required": True},
        "ca_file": {"type": "path"},
        "root_password": {"type": "str", "required": True, "no_log": True},
        "user": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
        "prefix": {"type": "str", "required": True},
        "request_timeout_seconds": {"type": "int", "default": 10},
    }


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    params = module.params
    finish(
        module,
        lambda: run(
            EtcdClient(params["urls"], ca_file=params["ca_file"], request_timeout_seconds=params["request_timeout_seconds"], read_only=module.check_mode),
            params,
            module.check_mode,
        ),
    )


if __name__ == "__main__":
    main()
