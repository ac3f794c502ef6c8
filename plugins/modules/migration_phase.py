#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_phase
short_description: Record the state of a phase of a migration in the journal
version_added: 0.1.0
description:
  - Writes the row of a phase in C(ha_migration.phase) on the target. The same state, inputs and evidence again change nothing.
  - The schema must exist; see M(freight.pg_ha.migration_schema). In check mode a change is predicted also where it does not exist yet.
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
    description: Name of the phase, as the playbook is called.
    type: str
    required: true
  state:
    description:
      - The state to record.
      - V(running) begins the phase, or goes on with one that an earlier run left; it keeps the time of the start then.
    type: str
    choices: [running, done, refused, failed]
    required: true
  inputs:
    description: Fingerprint of the inputs. What was recorded stays when this is not given.
    type: str
  run:
    description: Name of the run. What was recorded stays when this is not given; a different name alone changes no finished row.
    type: str
  evidence:
    description:
      - The evidence document; it holds no secret.
      - When it is not given, the evidence of the same state stays, and that of another state goes.
    type: dict
  undoes:
    description:
      - Another phase, whose row is taken away in the same transaction, because this one has undone what it had brought about.
      - C(roll_back) undoes C(cut_over), and the other way round.
    type: str
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
    support: full
  idempotent:
    support: full
seealso:
  - module: freight.pg_ha.migration_phase_info
"""

EXAMPLES = r"""
- name: Journal | Record that verify is done
  freight.pg_ha.migration_phase:
    service_file: /run/pg_ha/move_2027/pg_service.conf
    migration: move_2027
    phase: verify
    state: done
    inputs: "{{ __verification_inputs }}"
    evidence: "{{ __verification_evidence }}"
"""

RETURN = r"""
phase:
  description: The row of the journal as it is now; in check mode as it would be.
  returned: success
  type: dict
  contains:
    state:
      description: The recorded state.
      type: str
    inputs:
      description: Fingerprint of the inputs.
      type: str
    run:
      description: Name of the run.
      type: str
    started_at:
      description: When it began, ISO 8601 UTC.
      type: str
    finished_at:
      description: When it ended, ISO 8601 UTC; null while it runs.
      type: str
    evidence:
      description: The evidence document.
      type: dict
actions:
  description: What was done, or in check mode would be done.
  returned: success
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import PlanError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Action, Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import journal
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    return {
        **client.connection_argument_spec(),
        "service": {"type": "str", "default": "target"},
        "migration": {"type": "str", "required": True},
        "phase": {"type": "str", "required": True},
        "state": {"type": "str", "choices": list(journal.STATES), "required": True},
        "inputs": {"type": "str"},
        "run": {"type": "str"},
        "evidence": {"type": "dict"},
        "undoes": {"type": "str"},
        "maintenance_database": {"type": "str", "default": "postgres"},
    }


def run(params: dict[str, t.Any], check_mode: bool) -> Outcome:
    """Read the row, plan, and write when there is something to write.

    :raises PlanError: the journal does not exist yet
    """
    connection = journal.connect_journal(
        params["service_file"], params["service"], "pg_ha migration_phase", params["connect_timeout_seconds"], params["maintenance_database"]
    )
    try:
        there = connection is not None and journal.has_journal(connection)
        if not there and not check_mode:
            raise PlanError(
                f"Cannot record phase {params['phase']}: the target has no schema ha_migration in the database of service "
                f"{params['service']!r}; run playbook replicate.yml, which makes it."
            )
        before = journal.PhaseRecord(params["migration"], params["phase"])
        if connection is not None:
            before = journal.read_phase(connection, params["migration"], params["phase"])
        after, actions = journal.plan_phase(before, journal.Wanted(params["state"], params["inputs"], params["run"], params["evidence"]))
        undone = None
        if connection is not None and params["undoes"]:
            undone = journal.read_phase(connection, params["migration"], params["undoes"])
            if undone.state != journal.ABSENT:
                actions.append(Action(f"take away phase {params['undoes']} of {params['migration']}"))
        recorded = after
        if actions and not check_mode and connection is not None:
            client.query(connection, "BEGIN")
            journal.write_phase(connection, before, after)
            if undone is not None:
                journal.remove_phase(connection, params["migration"], undone.phase)
            client.query(connection, "COMMIT")
            recorded = journal.read_phase(connection, params["migration"], params["phase"])
    finally:
        if connection is not None:
            connection.close()
    return Outcome.of(before.comparable(), after.comparable(), actions, phase=recorded.as_dict())


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
