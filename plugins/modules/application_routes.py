#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: application_routes
short_description: Write what applications need to find the database
version_added: 0.1.0
description:
  - Keeps one folder per role with an environment file of two URLs, a libpq service file, a passfile, the CA certificates and a Kubernetes manifest of the same.
  - Every connection verifies the server (C(sslmode=verify-full)).
  - Passwords are only those that are given. Where none is given, the URLs have none and there is no passfile. Where a secret store is declared, none is
    written, and the manifest is an C(ExternalSecret) that names the store's entry.
  - Folders have mode 0700 and files 0600. Files of these names that are no longer due are removed. A diff shows no secret.
author:
  - the freight.pg_ha authors (@freight)
options:
  directory:
    description: Folder for the folders of the roles. Made where it is missing.
    type: path
    required: true
  database:
    description: Database to connect to.
    type: str
    required: true
  write_endpoint:
    description: Where applications write. Several hosts are tried in order.
    type: dict
    required: true
    suboptions: &endpoint
      hosts:
        description: Names as they stand in the server's certificate.
        type: list
        elements: str
        required: true
      port:
        description: Port of each of them.
        type: int
        required: true
  read_endpoint:
    description: Where applications may read what can be a little old.
    type: dict
    required: true
    suboptions: *endpoint
  ca_files:
    description: Certificates that verify both endpoints, on the host where this runs. They are bundled.
    type: list
    elements: path
    required: true
  application_directory:
    description: Folder in which the files of one role lie on an application's host, or are mounted. The URLs and services name it.
    type: str
    default: /etc/pg_ha/routes
  roles:
    description: Roles that applications log in with.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The role.
        type: str
        required: true
      password:
        description: Its password, as the application knows it. Leave it out where it is not known here.
        type: str
  write_variable:
    description: Environment variable of the URL for writing.
    type: str
    default: DATABASE_URL
  read_variable:
    description: Environment variable of the URL for reading.
    type: str
    default: DATABASE_READ_URL
  secret_prefix:
    description: The Kubernetes Secret of a role is called after this and the role.
    type: str
    required: true
  namespace:
    description: Namespace of the Secrets. Left out, they go where they are applied.
    type: str
  secret_store:
    description: A store of the External Secrets Operator that holds the passwords. No password is written then, even where one is given.
    type: dict
    suboptions:
      name:
        description: Name of the store in the cluster.
        type: str
        required: true
      kind:
        description: Kind of the store.
        type: str
        choices: [SecretStore, ClusterSecretStore]
        default: ClusterSecretStore
      key:
        description: Entry that holds a role's password. C({role}) stands for the role.
        type: str
        required: true
      property:
        description: Field of that entry.
        type: str
        default: password
  keep:
    description: Leave the folder of a role alone that is complete already, whatever it says.
    type: bool
    default: false
extends_documentation_fragment:
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Write what the application needs
  freight.pg_ha.application_routes:
    directory: /srv/pki/routes/move_2027/target
    database: shop
    write_endpoint: {hosts: [lb1.example.org, lb2.example.org], port: 6432}
    read_endpoint: {hosts: [lb1.example.org], port: 5001}
    ca_files: [/srv/pki/ca.crt]
    secret_prefix: move-2027
    roles:
      - name: shop_app
        password: "{{ shop_app_password }}"
  delegate_to: localhost
"""

RETURN = r"""
routes:
  description: What was written, without anything secret.
  returned: success
  type: dict
  contains:
    directory:
      description: The folder.
      type: str
    write_endpoint:
      description: Hosts and port for writing.
      type: dict
    read_endpoint:
      description: Hosts and port for reading.
      type: dict
    roles:
      description: What each role has.
      type: list
      elements: dict
      contains:
        name:
          description: The role.
          type: str
        files:
          description: Its files, relative to the folder.
          type: list
          elements: str
        password:
          description: Where its password is. V(written) into the files, V(referenced) in the secret store, or V(not_known).
          type: str
        as_declared:
          description: Whether the files say what the options say; false where they were kept and say something else.
          type: bool
actions:
  description: What was done, or would be in check mode.
  returned: success
  type: list
  elements: str
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.common.yaml import HAS_YAML, yaml_dump
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Action, Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._routes import client, plan, text
from ansible_collections.freight.pg_ha.plugins.module_utils._routes.model import Change, Endpoint, Found, Role, Routes, Store


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    endpoint = {"hosts": {"type": "list", "elements": "str", "required": True}, "port": {"type": "int", "required": True}}
    role = {"name": {"type": "str", "required": True}, "password": {"type": "str", "no_log": True}}
    store = {
        "name": {"type": "str", "required": True},
        "kind": {"type": "str", "choices": ["SecretStore", "ClusterSecretStore"], "default": "ClusterSecretStore"},
        "key": {"type": "str", "required": True, "no_log": False},
        "property": {"type": "str", "default": "password"},
    }
    return {
        "directory": {"type": "path", "required": True},
        "database": {"type": "str", "required": True},
        "write_endpoint": {"type": "dict", "required": True, "options": endpoint},
        "read_endpoint": {"type": "dict", "required": True, "options": endpoint},
        "ca_files": {"type": "list", "elements": "path", "required": True},
        "application_directory": {"type": "str", "default": "/etc/pg_ha/routes"},
        "roles": {"type": "list", "elements": "dict", "required": True, "options": role},
        "write_variable": {"type": "str", "default": "DATABASE_URL"},
        "read_variable": {"type": "str", "default": "DATABASE_READ_URL"},
        "secret_prefix": {"type": "str", "required": True, "no_log": False},
        "namespace": {"type": "str"},
        "secret_store": {"type": "dict", "no_log": False, "options": store},
        "keep": {"type": "bool", "default": False},
    }


def routes_of(params: dict[str, t.Any]) -> Routes:
    """The options as data."""
    endpoints = {side: Endpoint(tuple(params[f"{side}_endpoint"]["hosts"]), params[f"{side}_endpoint"]["port"]) for side in ("write", "read")}
    return Routes(
        database=params["database"],
        authorities=client.read_authorities(params["ca_files"]),
        application_directory=params["application_directory"].rstrip("/"),
        write_variable=params["write_variable"],
        read_variable=params["read_variable"],
        secret_prefix=params["secret_prefix"],
        namespace=params["namespace"],
        store=None if params["secret_store"] is None else Store(**params["secret_store"]),
        **endpoints,
    )


def dump(data: dict[str, t.Any]) -> str:
    """Data as YAML, in the order that readers of manifests expect."""
    return yaml_dump(data, sort_keys=False, allow_unicode=True, width=10_000)


def plan_role(folder: str, wanted: dict[str, str], keep: bool) -> tuple[list[tuple[Change, Found]], dict[str, t.Any]]:
    """Changes of one role's folder with what is there now, and the folder in words."""
    found = {name: client.read(os.path.join(folder, name)) for name in plan.MANAGED}
    there, kept = client.read(folder), keep and plan.is_kept(found)
    changes = plan.plan_files(folder, wanted, found)
    names = [name for name in plan.MANAGED if found[name].mode is not None] if kept else list(wanted)
    described = {
        "password": plan.password_state(names),
        "files": [os.path.join(os.path.basename(folder), name) for name in names],
        "as_declared": not kept or not changes,
    }
    if kept:
        return [], described
    pairs = [(change, there) for change in plan.plan_folder(folder, there)]
    return pairs + [(change, found[os.path.basename(change.path)]) for change in changes], described


def run(params: dict[str, t.Any], check_mode: bool) -> Outcome:
    """Look, plan, write."""
    routes = routes_of(params)
    roles = [Role(role["name"], role["password"]) for role in params["roles"]]
    plan.check(routes, roles)
    directory = client.read(params["directory"])
    pairs, described = [(change, directory) for change in plan.plan_folder(params["directory"], directory)], []
    for role in roles:
        folder = os.path.join(params["directory"], text.folder_name(role.name))
        changes, words = plan_role(folder, plan.files(routes, role, dump), params["keep"])
        pairs += changes
        described.append({"name": role.name, **words})
    if not check_mode:
        for change, _found in pairs:
            client.apply(change)
    differences = [plan.difference(change, found) for change, found in pairs]
    return Outcome.of(
        "".join(before for before, _after in differences),
        "".join(after for _before, after in differences),
        [Action(plan.public(change)) for change, _found in pairs],
        routes={
            "directory": params["directory"],
            "write_endpoint": params["write_endpoint"],
            "read_endpoint": params["read_endpoint"],
            "roles": described,
        },
    )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not HAS_YAML:
        module.fail_json(msg=missing_required_lib("PyYAML"))
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
