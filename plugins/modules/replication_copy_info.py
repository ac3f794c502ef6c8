#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: replication_copy_info
short_description: Progress of the initial copy of a migration, and the state of its link
version_added: 0.1.0
description:
  - Says how far M(freight.pg_ha.replication_copy) is and, after it, how far the target is behind.
  - Meant for a loop with C(until) and C(delay) beside a copy that runs with C(async); C(initial_copy.ended) is true when there is nothing to wait for.
author:
  - the freight.pg_ha authors (@freight)
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
options:
  source_service:
    description: Service of the source.
    type: str
    default: source
  target_service:
    description: Service of the target.
    type: str
    default: target
  job_results_file:
    description: The C(results_file) of the task that started the copy. While that job has not ended, the copy has not, even if it has not begun to write.
    type: path
  lost_after_seconds:
    description:
      - How long the job of O(job_results_file) may be without a result while nobody holds the copy's lock, until it counts as lost (killed, or on a full disk).
        It is waited for that long, in one call.
    type: float
    default: 60
  slot_wal_limit_mib:
    description:
      - How much of the source's WAL the slot may hold back, in MiB. From half of it on RV(initial_copy.summary) and C(link.problems) hold an alarm.
      - Without it only the server's own C(max_slot_wal_keep_size) counts.
    type: int
"""

EXAMPLES = r"""
- name: Watch the copy
  freight.pg_ha.replication_copy_info:
    service_file: /run/pg_ha/freight/pg_service.conf
    job_results_file: "{{ __replication_job.results_file }}"
  register: __replication_progress
  until: __replication_progress.initial_copy.ended
  delay: 1
  retries: 86400
"""

RETURN = r"""
initial_copy:
  description: The initial copy.
  type: dict
  returned: success
  contains:
    state:
      description: V(absent), V(running), V(interrupted) (it wrote last that it runs, and nobody does), V(failed) or V(done).
      type: str
    ended:
      description: Whether nobody works on it.
      type: bool
    lost:
      description: Whether the job of O(job_results_file) has ended without a result.
      type: bool
    step:
      description: Step that it is in, or was in when it ended.
      type: str
    method:
      description: How it copies.
      type: str
    bytes_total:
      description: Size of the tables on the source.
      type: int
    bytes_done:
      description: Of these, what has been copied; estimated for tables that are under way.
      type: int
    tables_total:
      description: Number of tables.
      type: int
    tables_done:
      description: Number of tables that are there.
      type: int
    rows_done:
      description: Rows of these.
      type: int
    seconds_left:
      description: Estimate until all rows are there, at the pace of this run; null while there is none.
      type: int
    error:
      description: Why it failed, or that its process was lost.
      type: str
    resumed:
      description: What it has kept of an earlier run, see M(freight.pg_ha.replication_copy); null where it keeps nothing.
      type: dict
    report:
      description: What it says about itself when it is done, see M(freight.pg_ha.replication_copy).
      type: dict
    summary:
      description: All of it in one line.
      type: str
link:
  description: The link that follows, see M(freight.pg_ha.replication_link_info).
  type: dict
  returned: success
"""

import json
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import WaitTimeout
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import wait_until
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import journal, schema
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import copy_client, copy_plan, link_client
from ansible_collections.freight.pg_ha.plugins.module_utils._replication.model import LinkState

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

APPLICATION_NAME = "ha_migration copy info"
LOST = "The process that copied has ended without a result (was it killed, or is the mover's disk full?). What is finished stays: run replicate again."


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    return {
        **client.connection_argument_spec(),
        "source_service": {"type": "str", "default": "source"},
        "target_service": {"type": "str", "default": "target"},
        "job_results_file": {"type": "path"},
        "lost_after_seconds": {"type": "float", "default": 60},
        "slot_wal_limit_mib": {"type": "int"},
    }


def run(params: dict[str, t.Any]) -> Outcome:
    """Read both sides; a target without the database has no copy."""
    timeout = params["connect_timeout_seconds"]
    target = journal.connect_journal(params["service_file"], params["target_service"], APPLICATION_NAME, timeout, "postgres")
    source = client.connect(params["service_file"], params["source_service"], application_name=APPLICATION_NAME, connect_timeout_seconds=timeout)
    try:
        locked, lost = _look(source, params["job_results_file"], params["lost_after_seconds"])
        if target is None:
            return Outcome(False, {"initial_copy": _or_lost(copy_plan.describe(None, [], {}, locked), lost), "link": LinkState().public()})
        row = copy_client.read_run(target)
        tables = copy_client.read_tables_done(target) if row else []
        running = copy_client.read_running(target) if row and locked else {}
        link = link_client.read_link(source, target, schema.FORWARD_LINK, params["slot_wal_limit_mib"])
        found = copy_plan.describe(row, tables, running, locked, link.alarm)
        return Outcome(False, {"initial_copy": _or_lost(found, lost), "link": link.public()})
    finally:
        source.close()
        if target is not None:
            target.close()


def _look(source: Connection, path: str | None, lost_after_seconds: float) -> tuple[bool, bool]:
    """Whether somebody holds the copy's lock, and whether the job is lost. Where neither is so, the job has ended with a result, or there is none.

    It begins some time before it locks, and writes its result right after it has let go: only one that does neither for long is lost.
    """

    def look() -> tuple[bool, bool]:
        # In this order: it lets go of the lock before it writes its result.
        ended = _job_has_ended(path)
        return copy_client.lock_holder(source) is not None, ended

    try:
        locked, _ended = wait_until(look, any, "The copy's lock, or its job's result", lost_after_seconds, 0.5)
    except WaitTimeout:
        return False, True
    return locked, False


def _or_lost(found: dict[str, t.Any], lost: bool) -> dict[str, t.Any]:
    return {**found, "lost": lost, **({"state": "interrupted", "error": LOST, "summary": LOST} if lost else {})}


def _job_has_ended(path: str | None) -> bool:
    """Whether the asynchronous job has written its result; a file that is not there or half written has not."""
    if path is None:
        return True
    try:
        with open(path, encoding="utf-8") as handle:
            return "started" not in json.load(handle)
    except (OSError, ValueError):
        return False


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params))


if __name__ == "__main__":
    main()
