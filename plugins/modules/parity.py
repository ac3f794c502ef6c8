#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: parity
short_description: Prove that source and target hold the same rows while the application writes
version_added: 0.1.0
description:
  - Takes one snapshot on each side that show exactly the same rows, and compares every row of every table at these snapshots.
  - To take them, all published tables are locked against writers for some milliseconds, until a marker row has come over the link.
    The hold is bounded on the server too, and tried again with growing pauses. RV(evidence.hold_ms) says how long it was.
  - Rows are compared by counts and by sums of hashes over their text, in ranges of the key, on both sides at the same time.
    A differing range is narrowed down to the keys of the rows that differ. Contents of rows are never shown.
  - Unlogged tables, materialized views and foreign tables are named as not compared.
  - Sequences that are behind on the target are named. Large objects are compared by content, owner and privileges.
  - Long work. Run it with C(async) and C(poll=0), and read O(progress_file) with M(freight.pg_ha.parity_info).
  - Mismatches do not fail the module, they make RV(evidence.outcome) V(failed), so that the evidence can be recorded.
author:
  - the freight.pg_ha authors (@freight)
options:
  source:
    description: Service name of the source in the service file.
    type: str
    default: source
  target:
    description: Service name of the target in the service file.
    type: str
    default: target
  progress_file:
    description: File for progress and evidence on the host that runs the module. Its folder must exist.
    type: path
    required: true
  run:
    description: Names this comparison in the progress file and the marker rows.
    type: str
    required: true
  following:
    description:
      - Whether the application writes on the source and the link C(ha_migration_forward) carries it.
      - When V(false), nothing may write on either side. No lock is taken, no marker is sent, and sequences must have been carried over.
    type: bool
    default: true
  serves:
    description: The side that serves the application. The other one follows it.
    type: str
    choices: [source, target]
    default: source
  jobs:
    description: How many sessions read on each side at the same time.
    type: int
    default: 2
  chunk_mib:
    description: Size of a range of keys, in MiB.
    type: int
    default: 64
  hold_ms:
    description: Longest time in milliseconds that writers may be held, per attempt.
    type: int
    default: 500
  lock_timeout_ms:
    description: Longest wait for one table in milliseconds, come to in steps from 25. Must be less than the source's C(deadlock_timeout).
    type: int
    default: 400
  attempts:
    description: How often to try to hold the tables.
    type: int
    default: 20
  catch_up_seconds:
    description: How long to wait until the link has caught up, before anything is locked.
    type: int
    default: 600
  large_objects:
    description:
      - V(compare) makes a large object that differs a mismatch.
      - V(report) only notes it. Logical replication does not carry large objects.
    type: str
    choices: [compare, report]
    default: compare
extends_documentation_fragment:
  - freight.pg_ha.postgresql
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
    details: Nothing is locked, compared or written. The answer is C(changed), because a comparison would be made.
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Every run is a new comparison.
"""

EXAMPLES = r"""
- name: Compare all rows
  freight.pg_ha.parity:
    service_file: /run/pg_ha/demo/pg_service.conf
    progress_file: /run/pg_ha/demo/parity.json
    run: "2026-11-23T04:00:00Z"
  async: 86400
  poll: 0
"""

RETURN = r"""
evidence:
  description: What was compared and what was found. Not in check mode.
  returned: success, not in check mode
  type: dict
  contains:
    outcome:
      description: V(done) without a mismatch, else V(failed).
      type: str
    tables:
      description: Number of tables and partitions that were compared.
      type: int
    rows:
      description: Number of rows that were compared.
      type: int
    mismatches:
      description: What differs. Each entry has C(object), C(problem), C(sentence), and for rows C(table), C(range) and C(keys).
      type: list
      elements: dict
    sequences:
      description: Number of sequences.
      type: int
    sequences_behind:
      description: Sequences that the target has not reached yet. The cutover moves them forward.
      type: list
      elements: str
    hold_ms:
      description: Longest time in milliseconds that writers were held.
      type: float
    source:
      description: System identifier, timeline and write position of the source at the snapshot.
      type: dict
    target:
      description: The same of the target. When its timeline changes afterwards, this evidence is void.
      type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import PgHaError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.names import APPLICATION_NAME
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.progress import ProgressFile
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.snapshot import FORWARD, REVERSE, Bounds
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.work import Comparison, Options, utc_now
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client


def argument_spec() -> dict[str, t.Any]:
    """Arguments of the module."""
    return {
        **client.connection_argument_spec(),
        "source": {"type": "str", "default": "source"},
        "target": {"type": "str", "default": "target"},
        "progress_file": {"type": "path", "required": True},
        "run": {"type": "str", "required": True},
        "following": {"type": "bool", "default": True},
        "serves": {"type": "str", "choices": ["source", "target"], "default": "source"},
        "jobs": {"type": "int", "default": 2},
        "chunk_mib": {"type": "int", "default": 64},
        "hold_ms": {"type": "int", "default": 500},
        "lock_timeout_ms": {"type": "int", "default": 400},
        "attempts": {"type": "int", "default": 20},
        "catch_up_seconds": {"type": "int", "default": 600},
        "large_objects": {"type": "str", "choices": ["compare", "report"], "default": "compare"},
    }


def options_of(params: dict[str, t.Any]) -> Options:
    """The module's arguments as options of a comparison."""
    bounds = Bounds(params["hold_ms"], params["lock_timeout_ms"], params["attempts"], params["catch_up_seconds"])
    return Options(
        run=params["run"],
        following=params["following"],
        jobs=max(1, params["jobs"]),
        chunk_bytes=max(1, params["chunk_mib"]) * 1024 * 1024,
        bounds=bounds,
        way=FORWARD if params["serves"] == "source" else REVERSE,
        compare_large_objects=params["large_objects"] == "compare",
    )


def run(params: dict[str, t.Any], check_mode: bool) -> Outcome:
    """Compare, with the progress file as witness: whatever happens, its last state says it."""
    if check_mode:
        return Outcome(changed=True)
    document: dict[str, t.Any] = {"run": params["run"], "state": "running", "started_at": utc_now()}
    progress = ProgressFile(params["progress_file"])
    progress.acquire()
    try:
        progress.write(document)

        def open_session(side: str, settings: dict[str, str] | None = None) -> t.Any:
            return client.connect(
                params["service_file"],
                params[side],
                application_name=APPLICATION_NAME,
                connect_timeout_seconds=params["connect_timeout_seconds"],
                settings=settings,
            )

        evidence = Comparison(open_session, options_of(params), lambda state: progress.write({**document, **state})).run()
        progress.write({**document, "state": "finished", "step": "finished", "evidence": evidence})
    except PgHaError as error:
        progress.write({**document, "state": "failed", "step": "failed", "error": error.message})
        raise
    finally:
        progress.release()
    return Outcome(changed=True, result={"evidence": evidence})


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
