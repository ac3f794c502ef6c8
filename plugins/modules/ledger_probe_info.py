#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ledger_probe_info
short_description: Read a probe's figures, and judge it
description:
  - Returns what M(freight.pg_ha.ledger_probe) has done so far, also while it runs.
  - With O(verdict=true) it compares the probe's record with the rows that are in C(ha_migration.probe) on the side that serves now, read through the pooler.
    It can be asked for while the probe runs, but only a probe that was stopped in good order gives a final one.
version_added: 0.1.0
author: the freight.pg_ha authors (@freight)
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
  - module: freight.pg_ha.ledger_probe
options:
  record_dir:
    description: Folder that holds the run's folder C(probe-<run>).
    type: path
    required: true
  run:
    description: Name of the run.
    type: str
    required: true
  verdict:
    description: Compare the record with the table. Needs O(service).
    type: bool
    default: false
  service:
    description: Name of the pooler's service in O(service_file) as clients see it, C(client_<host>).
    type: str
  around:
    description:
      - A moment, ISO 8601 with a zone or seconds since 1970, such as that of the flip.
      - RV(verdict.write_pause_ms) and RV(verdict.longest_client_stall_ms) are then those around it. It must lie within the record.
    type: str
  window_seconds:
    description: How far from O(around) to look, to either side.
    type: float
    default: 10
  resolution_ms:
    description: Length of each part of RV(verdict.timeline).
    type: int
    default: 1000
"""

EXAMPLES = r"""
- name: Judge the probe around the flip
  freight.pg_ha.ledger_probe_info:
    service_file: /run/pg_ha/freight/pg_service.conf
    service: client_lb1
    record_dir: /run/pg_ha/freight
    run: cutover-1
    verdict: true
    around: "{{ cutover.flipped_at }}"
  register: probe
  failed_when: probe is failed or not probe.verdict.ok
"""

RETURN = r"""
probe:
  description:
    - C(run), C(running), C(clients), C(clients_begun), C(clients_ended) in good order, C(acknowledged), C(errors),
      C(transactions_per_second) over the last second, C(last_acknowledgement_ms) ago and C(seconds) since the start.
    - C(null) when there is no such run.
  returned: success
  type: dict
verdict:
  description: The account of the run.
  returned: when O(verdict=true)
  type: dict
  contains:
    ok:
      description: Whether nothing was lost or duplicated, no client saw an error, and all clients stopped in good order (or the probe still runs).
      type: bool
    problems:
      description: Why it is not ok, one sentence each.
      type: list
      elements: str
    running:
      description: Whether the probe ran when it was judged.
      type: bool
    attempts:
      description: Attempts of all writes.
      type: int
    acknowledged:
      description: Writes that a client knows to be committed.
      type: int
    lost:
      description: Acknowledged writes that are not in the table. The first 100 are in C(lost_keys), as (client, seq).
      type: int
    duplicated:
      description: Writes that took effect more than once. The first 100 are in C(duplicated_keys).
      type: int
    unexpected:
      description: Rows that no client has in its record as possibly committed. The first 100 are in C(unexpected_keys).
      type: int
    unknown:
      description: Commits that got no answer (C(total)), and which way they went (C(committed), C(not_committed)).
      type: dict
    errors:
      description: Errors that clients saw, also those that a retry healed; serialization failures and deadlocks are counted in C(retries) instead.
      type: int
    errors_by_class:
      description: The same by SQLSTATE. C(connect) is a connection that could not be made, C(lost) one that broke, C(rollback) a COMMIT answered with ROLLBACK.
      type: dict
    surfaced:
      description: Writes that were given up, as an application would show its user.
      type: int
    write_pause_ms:
      description: Longest time between two acknowledgements of all clients together, around O(around) when that is given. C(write_pause_at) says when it began.
      type: float
    write_pause_whole_run_ms:
      description: The same over the whole run.
      type: float
    longest_client_stall_ms:
      description: Longest time between two acknowledgements of one client. C(longest_client_stall_at) and C(longest_client_stall_client) say when and whose.
      type: float
    latency_ms:
      description: p50, p95, p99 and max of the time from a write's first attempt to its acknowledgement.
      type: dict
    transactions_per_second:
      description: Acknowledged writes per second over the whole run.
      type: float
    first_errors:
      description: The first errors in words.
      type: list
      elements: dict
    layers:
      description:
        - What the looks at the layers say of the longest time without an acknowledgement; C(null) when M(freight.pg_ha.ledger_probe) was not asked to look.
        - C(split_ms) holds C(server), C(route) and C(pooler), each counted from the last acknowledgement to when it served again before clients were served
          (C(null) when it was never away), and C(client), the whole. C(replicas_gap_ms) is the longest time without an answer of the replicas.
        - C(name_moved_ms) is when the name of the write endpoint led elsewhere, from the same acknowledgement, by the resolver of the probe's host; C(null)
          where it did not change.
        - C(two_writers) says in words which servers took writes after another one had on a later timeline. C(timelines) and C(writers) are those that took any.
      type: dict
    timeline:
      description: C(at), C(acknowledged), C(errors) and C(latency_max_ms) of each O(resolution_ms) (around O(around) when that is given).
      type: list
      elements: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._layers import plan as layers
from ansible_collections.freight.pg_ha.plugins.module_utils._layers.model import LOOKS, REPLICAS, read_looks
from ansible_collections.freight.pg_ha.plugins.module_utils._ledger import driver, plan
from ansible_collections.freight.pg_ha.plugins.module_utils._ledger.model import Gap
from ansible_collections.freight.pg_ha.plugins.module_utils._ledger.record import RunFolder
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql.client import connection_argument_spec


def read_verdict(folder: RunFolder, params: dict[str, t.Any]) -> dict[str, t.Any]:
    """The run's verdict. The record is read before the rows, so that a running probe is not blamed for what it has not been told yet.

    :raises ClientError: the rows cannot be read
    :raises PlanError: the record does not cover the moment asked for
    """
    window = None if params["around"] is None else plan.Window.of(params["around"], params["window_seconds"])
    running = folder.is_running()
    record = folder.read_record()
    driver.use_service_file(params["service_file"])
    connect = driver.connector("ledger_probe_info", service=params["service"], connect_timeout_seconds=params["connect_timeout_seconds"])
    rows = driver.fetch(connect, driver.ProbeWorkload(record.header.run, record.header.table).rows())[0]
    verdict = plan.judge(
        record, ((client, seq) for client, seq in rows), window=window, running=running, timeline_window=window, resolution_ms=params["resolution_ms"]
    )
    return {**verdict, "running": running, "first_errors": folder.read_errors(), "layers": read_layers(folder, plan.find_gaps(record, window)[0])}


def read_layers(folder: RunFolder, pause: Gap) -> dict[str, t.Any] | None:
    """What the looks at the layers say of a pause; None when nobody looked."""
    try:
        looks = read_looks((folder.path / LOOKS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    begin, end = pause.from_monotonic, pause.from_monotonic + pause.nanoseconds
    return {
        "split_ms": {**layers.split(looks, begin, end), "client": pause.milliseconds},
        "replicas_gap_ms": layers.longest_gap_ms(looks, REPLICAS),
        "name_moved_ms": layers.name_moved_ms(looks, begin),
        "two_writers": layers.two_writers(looks),
        "timelines": layers.timelines(looks),
        "writers": layers.writers(looks),
    }


def run(params: dict[str, t.Any]) -> Outcome:
    """Read figures and, when asked for, the verdict."""
    folder = RunFolder(f"{params['record_dir']}/probe-{params['run']}")
    if not params["verdict"]:
        return Outcome(changed=False, result={"probe": folder.read_live() if folder.exists() else None})
    if not folder.exists():
        raise ClientError(f"There is no run {params['run']} in {params['record_dir']}, so it cannot be judged.")
    verdict = read_verdict(folder, params)
    return Outcome(changed=False, result={"probe": folder.read_live(), "verdict": verdict})


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {
        **connection_argument_spec(),
        "record_dir": {"type": "path", "required": True},
        "run": {"type": "str", "required": True},
        "verdict": {"type": "bool", "default": False},
        "service": {"type": "str"},
        "around": {"type": "str"},
        "window_seconds": {"type": "float", "default": 10},
        "resolution_ms": {"type": "int", "default": 1000},
    }


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True, required_if=[("verdict", True, ["service"])])
    if module.params["verdict"] and not driver.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params))


if __name__ == "__main__":
    main()
