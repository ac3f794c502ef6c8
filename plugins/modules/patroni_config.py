#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: patroni_config
short_description: Keep settings of a Patroni cluster's dynamic configuration
description:
  - Brings the given settings into the cluster's dynamic configuration through Patroni's REST API, with one PATCH, or none when they are there.
  - Settings that need a restart of PostgreSQL are marked by Patroni as pending; M(freight.pg_ha.patroni_member) restarts members. This module restarts nothing.
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
  configuration:
    description:
      - What shall stand in the dynamic configuration. Mappings are merged into what is there, lists and scalars replace it, V(null) removes a key.
      - What is not named is left alone. Put no secret there, every member of the cluster shows it.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Keep a failover short
  freight.pg_ha.patroni_config:
    urls: [https://pg1:8008, https://pg2:8008, https://pg3:8008]
    ca_file: /etc/pg_ha/tls/ca.crt
    username: operator
    password: "{{ restapi_password }}"
    configuration:
      ttl: 20
      loop_wait: 1
      retry_timeout: 3
      postgresql:
        parameters:
          max_connections: 200
"""

RETURN = r"""
configuration:
  description: The dynamic configuration afterwards (predicted in check mode).
  returned: success
  type: dict
actions:
  description: One line per setting that changed.
  returned: success
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._patroni.client import PatroniClient, patroni_argument_spec
from ansible_collections.freight.pg_ha.plugins.module_utils._patroni.plan import patch_actions, plan_patch, project_patch


def run(client: PatroniClient, params: dict[str, t.Any], check_mode: bool) -> Outcome:
    """Read, compare, and send one PATCH with the difference."""
    before = client.read_config()
    patch = plan_patch(before, params["configuration"])
    after = client.patch_config(patch) if patch and not check_mode else project_patch(before, patch)
    return Outcome.of(before, after, patch_actions(patch), configuration=after)


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {**patroni_argument_spec(), "configuration": {"type": "dict", "required": True}}


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    finish(module, lambda: run(PatroniClient.open(module.params, read_only=module.check_mode), module.params, module.check_mode))


if __name__ == "__main__":
    main()
