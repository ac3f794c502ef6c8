#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_phase_info
short_description: Read what the journal says about a phase of a migration
version_added: 0.1.0
description:
  - Reads the row of a phase from C(ha_migration.phase) on the target and says whether the phase has to do its work.
  - A database or schema that does not exist yet gives the state V(absent). A target that cannot be reached is an error, never V(absent).
author:
  - the freight.pg_ha authors (@freight)
options:
  service:
    description: Service of the target.
    type: str
    default: target
  migration:
    description: Name of the migration.
    type: str
    required: true
  phase:
    description: Name of the phase, as the playbook is called (C(assess), C(provision), C(replicate), C(verify), C(cut_over), and so on).
    type: str
    required: true
  inputs:
    description: Fingerprint of the present inputs of the phase; a phase that was done with other inputs is due again.
    type: str
  repeat:
    description: Phases that the operator wants to run again though they are done (C(pg_ha_repeat)).
    type: list
    elements: str
    default: []
  target_required:
    description:
      - Whether a target that cannot be reached, or has no service yet, is an error.
      - With V(false), which is for the phase before the target exists, it gives the state V(unknown).
    type: bool
    default: true
  maintenance_database:
    description: Database to ask whether the service's own database exists.
    type: str
    default: postgres
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
seealso:
  - module: freight.pg_ha.migration_phase
"""

EXAMPLES = r"""
- name: Journal | Read what verify has done
  freight.pg_ha.migration_phase_info:
    service_file: /run/pg_ha/move_2027/pg_service.conf
    migration: move_2027
    phase: verify
    inputs: "{{ __verification_inputs }}"
    repeat: "{{ verification_repeat }}"
  register: __verification_journal
"""

RETURN = r"""
phase:
  description: The row of the journal and what follows from it.
  returned: success
  type: dict
  contains:
    state:
      description: One of V(absent), V(running), V(done), V(refused), V(failed), V(unknown).
      type: str
    inputs_match:
      description: Whether the phase was recorded with the given inputs; true when none were given.
      type: bool
    due:
      description: Whether the phase has to do its work now.
      type: bool
    due_because:
      description: Why, in words; empty when it is not due.
      type: str
    evidence:
      description: The evidence document of the phase, null when there is none.
      type: dict
    inputs:
      description: Fingerprint of the inputs that it was recorded with.
      type: str
    run:
      description: Name of the run that recorded it.
      type: str
    started_at:
      description: When it began, ISO 8601 UTC.
      type: str
    finished_at:
      description: When it ended, ISO 8601 UTC; null while it runs.
      type: str
    serves:
      description:
        - The side that serves the application by the decisions that the target knows. The journal is written after the fact, so that an interrupted
          cutover has moved the application while its phase is still V(running).
        - Null when the target could not be asked.
      type: str
    problem:
      description: Why the target could not be asked; only with the state V(unknown).
      type: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import decision, journal
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    return {
        **client.connection_argument_spec(),
        "service": {"type": "str", "default": "target"},
        "migration": {"type": "str", "required": True},
        "phase": {"type": "str", "required": True},
        "inputs": {"type": "str"},
        "repeat": {"type": "list", "elements": "str", "default": []},
        "target_required": {"type": "bool", "default": True},
        "maintenance_database": {"type": "str", "default": "postgres"},
    }


def read(params: dict[str, t.Any]) -> tuple[journal.PhaseRecord, str | None, str]:
    """The record, the side that serves, and why the target could not be asked ("" when it could)."""
    record = journal.PhaseRecord(params["migration"], params["phase"])
    if not params["target_required"] and not journal.has_service(params["service_file"], params["service"]):
        problem = f"the service file {params['service_file']} has no service {params['service']!r} yet"
        return journal.PhaseRecord(params["migration"], params["phase"], state=journal.UNKNOWN), None, problem
    try:
        connection = journal.connect_journal(
            params["service_file"], params["service"], "pg_ha migration_phase_info", params["connect_timeout_seconds"], params["maintenance_database"]
        )
    except ClientError as error:
        if params["target_required"]:
            raise
        return journal.PhaseRecord(params["migration"], params["phase"], state=journal.UNKNOWN), None, error.message
    serves = decision.plan_serving()
    if connection is not None:
        try:
            record = journal.read_phase(connection, params["migration"], params["phase"])
            serves = decision.plan_serving(decision.read_history(connection, "target"))
        finally:
            connection.close()
    return record, serves, ""


def run(params: dict[str, t.Any]) -> Outcome:
    """Read the record and say whether the phase is due."""
    record, serves, problem = read(params)
    because = journal.why_due(record, params["inputs"], params["repeat"])
    phase = {
        **record.as_dict(),
        "inputs_match": params["inputs"] is None or record.inputs == params["inputs"],
        "due": bool(because),
        "due_because": because,
        "serves": serves,
    }
    if problem:
        phase["problem"] = problem
    return Outcome(changed=False, result={"phase": phase})


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params))


if __name__ == "__main__":
    main()
