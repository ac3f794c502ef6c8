#!/usr/bin/python

# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cutover
short_description: Have the other side of a migration serve the application
version_added: 0.1.0
description:
  - Runs the critical section in one process. Poolers are paused, the serving side is fenced, the link is shown to be drained and durable,
    who serves is decided in one transaction, and every pooler goes on at the decided side.
  - Every gate is evaluated first, and all that do not hold are reported together. Nothing is changed then.
  - A section that cannot finish within its budget is undone and clients go on where they were.
  - Run again it finishes or undoes what an earlier run left.
author:
  - the freight.pg_ha authors (@freight)
extends_documentation_fragment:
  - freight.pg_ha.postgresql
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
    details: Evaluates the gates and changes nothing but the marker that shows that the link follows.
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  serves:
    description: The side that shall serve the application.
    type: str
    choices: [target]
    required: true
  database:
    description: Name of the pooled database.
    type: str
    required: true
  run:
    description: Who runs this, for the journal.
    type: str
    required: true
  poolers:
    description: Inventory names of the poolers. Their consoles are the services C(pooler_<name>) of the service file.
    type: list
    elements: str
    required: true
  source_endpoint:
    description: Host and port that poolers show while the source serves.
    type: dict
    required: true
    suboptions:
      host:
        description: Host.
        type: str
        required: true
      port:
        description: Port.
        type: int
        required: true
  target_endpoint:
    description: Host and port that poolers show while the target serves.
    type: dict
    required: true
    suboptions:
      host:
        description: Host.
        type: str
        required: true
      port:
        description: Port.
        type: int
        required: true
  application_roles:
    description:
      - Roles that applications log in with. They lose LOGIN on the side that is left.
      - Empty means every login role that is no superuser, does not replicate and is not in O(own_roles).
    type: list
    elements: str
    default: []
  own_roles:
    description: Roles of the migration itself, which are never application roles.
    type: list
    elements: str
    default: []
  budget_seconds:
    description: How long clients may be held at most.
    type: float
    default: 5
  pause_seconds:
    description: How long PAUSE may wait for running transactions.
    type: float
    default: 1
  needs_sync_standby:
    description: Whether the next side has to show a synchronous standby before and inside the section.
    type: bool
    default: true
  parity:
    description: Evidence of the last full comparison of all rows (of phase verify). Unset means that there was none, which is a failed gate.
    type: dict
  parity_max_age_seconds:
    description: How old that comparison may be.
    type: int
    default: 3600
  long_transaction_seconds:
    description: From when on a running transaction counts as long and stops the cutover.
    type: float
    default: 5
  only_gates:
    description: Evaluate the gates, report those that do not hold in RV(failed_gates), and change nothing.
    type: bool
    default: false
seealso:
  - module: freight.pg_ha.ledger_probe
"""

EXAMPLES = r"""
- name: The target serves the application
  freight.pg_ha.cutover:
    service_file: /run/pg_ha/freight/pg_service.conf
    serves: target
    database: freight
    run: "2026-11-23T10:00:00Z"
    poolers: [lb1]
    source_endpoint: {host: db1.example.com, port: 5432}
    target_endpoint: {host: lb1, port: 5000}
    parity: "{{ verified.evidence }}"
"""

RETURN = r"""
serves:
  description: The side that serves the application.
  type: str
  returned: success
failed_gates:
  description: Gates that do not hold, each with gate, object, message and remedy.
  type: list
  elements: dict
  returned: success
actions:
  description: What was done, in order.
  type: list
  elements: str
  returned: success
evidence:
  description:
    - What was measured of the attempt that led to the serving side. Epoch, C(steps) (name and ms), C(critical_section_ms) (first PAUSE to last pooler served),
      C(paused_at) (seconds since 1970), refusals by role, ended sessions.
    - None when nothing was decided yet.
  type: dict
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import finish
from ansible_collections.freight.pg_ha.plugins.module_utils._migration.cutover import cut_over
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.fingerprint import compare_fingerprints, read_fingerprint
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client


def compare_schemas(here, ahead):
    """Differences of the two sides' schemas, in words."""
    comparison = compare_fingerprints(read_fingerprint(here), read_fingerprint(ahead))
    return [f"{mismatch['object']}: {mismatch['problem']}" for mismatch in comparison.mismatches]


def run(params, check_mode):
    """Bring the migration to where ``serves`` serves; see the module's documentation."""
    return cut_over(params, check_mode, compare_schemas)


def argument_spec():
    """Options of the module."""
    endpoint = {"type": "dict", "required": True, "options": {"host": {"type": "str", "required": True}, "port": {"type": "int", "required": True}}}
    return {
        **client.connection_argument_spec(),
        "serves": {"type": "str", "choices": ["target"], "required": True},
        "database": {"type": "str", "required": True},
        "run": {"type": "str", "required": True},
        "poolers": {"type": "list", "elements": "str", "required": True},
        "source_endpoint": endpoint,
        "target_endpoint": endpoint,
        "application_roles": {"type": "list", "elements": "str", "default": []},
        "own_roles": {"type": "list", "elements": "str", "default": []},
        "budget_seconds": {"type": "float", "default": 5},
        "pause_seconds": {"type": "float", "default": 1},
        "needs_sync_standby": {"type": "bool", "default": True},
        "parity": {"type": "dict"},
        "parity_max_age_seconds": {"type": "int", "default": 3600},
        "long_transaction_seconds": {"type": "float", "default": 5},
        "only_gates": {"type": "bool", "default": False},
    }


def main():
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
