#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ledger_probe
short_description: Write through the pooler as an application does, and keep a record of what was acknowledged
description:
  - With O(state=running) a few clients write rows to table C(ha_migration.probe) through a pooler, at a fixed rate, until O(state=stopped) is asked for
    or O(max_seconds) have passed. Every attempt and every acknowledgement is written to a record on the host that runs the module before the client goes on.
  - The module stays in the foreground for as long as the clients run, so start it with C(async) (longer than O(max_seconds)) and C(poll=0),
    and wait with M(freight.pg_ha.ledger_probe_info) until it has acknowledged something.
  - The clients reconnect and retry as a sane driver does. When the connection breaks while a commit is under way they look for the row before they write again.
  - Safe in production. The role that it connects as needs CONNECT, USAGE on schema C(ha_migration) and INSERT, SELECT and DELETE on its one table.
version_added: 0.1.0
author: the freight.pg_ha authors (@freight)
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
  - module: freight.pg_ha.ledger_probe_info
options:
  service:
    description: Name of the pooler's service in O(service_file) as clients see it, C(client_<host>), or C(probe) for the target's write endpoint.
    type: str
    required: true
  record_dir:
    description: Folder in which the run's own folder C(probe-<run>) is made, C(/run/pg_ha/<migration>).
    type: path
    required: true
  run:
    description: Name of the run, of letters, digits, C(_) and C(-). A name is used once.
    type: str
    required: true
  clients:
    description: How many clients, each with a connection of its own.
    type: int
    default: 4
  rate_per_client:
    description: Writes per second of each client. A pause can be seen as finely as the time between two writes of all clients together.
    type: float
    default: 50
  max_seconds:
    description: End after this many seconds though nobody has asked for it.
    type: int
    default: 900
  table:
    description:
      - V(probe) is guarded and replicated as an application's table is, and needs schema C(ha_migration) of a migration.
      - V(health_checks) is neither (M(freight.pg_ha.health_checks)), so that a target can be written before it serves.
    type: str
    choices: [probe, health_checks]
    default: probe
  layers:
    description:
      - Also look at every layer of the way, each with a session of its own, so that an outage can be split by layer. The looks lie beside the record.
      - A look is a row of its own in the probe's table (a read at the replicas), some twenty times a second. Those rows go with the run's.
    type: dict
    suboptions:
      service:
        description: Service of the administrator in O(service_file). Its host and port are replaced.
        type: str
        default: target
      members:
        description: Hosts of the database servers, each asked by its own name whoever leads. Empty where the service does not show them.
        type: list
        elements: str
        default: []
      member_port:
        description: Their port.
        type: int
        default: 5432
      write_endpoint:
        description: Host and port that lead to the primary.
        type: dict
        required: true
      read_endpoint:
        description: Host and port that lead to standbys; null where there is none.
        type: dict
  state:
    description:
      - V(running) runs the clients. When this run is running already nothing is done.
      - V(stopped) asks them to end and waits until they have.
      - V(absent) does the same, then deletes the run's rows and its record.
    type: str
    choices: [running, stopped, absent]
    default: running
"""

EXAMPLES = r"""
- name: Begin to probe
  freight.pg_ha.ledger_probe:
    service_file: /run/pg_ha/freight/pg_service.conf
    service: client_lb1
    record_dir: /run/pg_ha/freight
    run: cutover-1
    max_seconds: 600
  async: 630
  poll: 0

- name: Wait until the probe writes
  freight.pg_ha.ledger_probe_info:
    service_file: /run/pg_ha/freight/pg_service.conf
    record_dir: /run/pg_ha/freight
    run: cutover-1
  register: probe
  until: probe.probe.running and probe.probe.acknowledged > 0
  retries: 20
  delay: 1

- name: Stop the probe
  freight.pg_ha.ledger_probe:
    service_file: /run/pg_ha/freight/pg_service.conf
    service: client_lb1
    record_dir: /run/pg_ha/freight
    run: cutover-1
    state: stopped
"""

RETURN = r"""
probe:
  description: The run's figures, as in M(freight.pg_ha.ledger_probe_info). C(null) when there is no run.
  returned: success
  type: dict
actions:
  description: What was done, in words.
  returned: success
  type: list
  elements: str
"""

import contextlib
import re
import shutil
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Action, Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import wait_until
from ansible_collections.freight.pg_ha.plugins.module_utils._layers.client import Looker, Resolver, Watch
from ansible_collections.freight.pg_ha.plugins.module_utils._layers.model import LOOKS, POOLER, REPLICAS, ROUTE, SERVER, Place
from ansible_collections.freight.pg_ha.plugins.module_utils._ledger import driver
from ansible_collections.freight.pg_ha.plugins.module_utils._ledger.record import RunFolder
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql.client import connection_argument_spec

STOP_TIMEOUT_SECONDS = 30


def places(params: dict[str, t.Any]) -> list[Place]:
    """Where the layers of the way are looked at: each server, the endpoints, and the pooler as its clients see it."""
    layers = params["layers"]
    if layers is None:
        return []

    def at(layer: str, name: str, endpoint: dict[str, t.Any], writes: bool = True) -> Place:
        return Place(layer, name, layers["service"], {"host": str(endpoint["host"]), "port": str(endpoint["port"])}, writes)

    found = [at(SERVER, host, {"host": host, "port": layers["member_port"]}) for host in layers["members"]]
    found.append(at(ROUTE, "write", layers["write_endpoint"]))
    # Before the clients were moved no pooler leads there, and the probe goes to the endpoint itself.
    if params["service"].startswith("client_"):
        found.append(Place(POOLER, params["service"], params["service"]))
    return found + ([at(REPLICAS, "read", layers["read_endpoint"], writes=False)] if layers["read_endpoint"] else [])


class Probe:
    """A run of the probe on this host.

    :raises UsageError: an option is out of range
    """

    def __init__(self, params: dict[str, t.Any]) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,63}", params["run"]):
            raise UsageError(f"The run's name {params['run']!r} may hold letters, digits, _ and - only, at most 63 of them.")
        for option in ("clients", "rate_per_client", "max_seconds"):
            if params[option] <= 0:
                raise UsageError(f"{option} must be greater than 0, not {params[option]}.")
        self.params = params
        self.folder = RunFolder(f"{params['record_dir']}/probe-{params['run']}")
        self.table = f"ha_migration.{params['table']}"
        self.workload = driver.ProbeWorkload(params["run"], self.table)
        self.looks_run = f"{params['run']}-layers"
        driver.use_service_file(params["service_file"])
        self.connect = driver.connector("ledger_probe", service=params["service"], connect_timeout_seconds=params["connect_timeout_seconds"])

    def read_state(self) -> str:
        """``running``, ``stopped`` or ``absent``."""
        if self.folder.is_running():
            return "running"
        return "stopped" if self.folder.exists() else "absent"

    def read_rows(self) -> int:
        """How many rows of the run there are."""
        return int(driver.fetch(self.connect, self.workload.count())[0][0][0])

    def drive(self) -> None:
        """Run the clients until told to stop.

        :raises ClientError: the table cannot be reached, or the clients did not end in good order
        """
        driver.fetch(self.connect, self.workload.count())
        self.folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self.folder.lock()
        if not lock.acquire():
            raise UsageError(f"Somebody else has just begun the run {self.params['run']} in {self.folder.path}.")
        clients = self.params["clients"]
        header = driver.new_header(self.params["run"], "probe", clients, clients * self.params["rate_per_client"], table=self.table)
        self.folder.create(header)
        end = time.monotonic() + self.params["max_seconds"]
        with self.watching():
            in_order = driver.drive(self.folder, self.workload, self.connect, lambda: self.folder.stop_requested() or time.monotonic() >= end)
        lock.release()
        if not in_order:
            raise ClientError(
                f"Not all clients of the probe ended in good order; their record in {self.folder.path} can be read.", probe=self.folder.read_live()
            )

    @contextlib.contextmanager
    def watching(self) -> t.Iterator[None]:
        """Look at the layers meanwhile, where they were named."""
        if self.params["layers"] is None:
            yield
            return
        lookers: list[Looker | Resolver] = [Looker(place, number, self.looks_run, self.table) for number, place in enumerate(places(self.params))]
        lookers.append(Resolver(self.params["layers"]["write_endpoint"]["host"]))
        with (self.folder.path / LOOKS).open("w", encoding="utf-8") as record, Watch(lookers, record):
            yield

    def stop(self) -> None:
        """Ask the clients to end and wait for it."""
        self.folder.request_stop()
        wait_until(self.folder.is_running, lambda running: not running, f"The end of the probe {self.params['run']}", STOP_TIMEOUT_SECONDS, 0.1)

    def remove(self) -> None:
        """Delete rows and record."""
        for run in (self.params["run"], self.looks_run):
            driver.delete(self.connect, driver.ProbeWorkload(run, self.table))
        shutil.rmtree(self.folder.path, ignore_errors=True)

    def figures(self) -> dict[str, t.Any] | None:
        """The run's figures."""
        return self.folder.read_live() if self.folder.exists() else None


def plan_probe(run: str, state: str, wanted: str, rows: int) -> list[Action]:
    """What brings the run into the wanted state.

    :param state: ``running``, ``stopped`` or ``absent`` as it is
    :param rows: rows in the table; matter for ``absent`` only
    :raises UsageError: a run that has ended cannot run again
    """
    if wanted == "running":
        if state == "stopped":
            raise UsageError(f"The run {run} has ended and its record is kept; choose another name for the new run.")
        return [] if state == "running" else [Action(f"run probe {run}")]
    actions = [Action(f"stop probe {run}")] if state == "running" else []
    if wanted == "absent" and (rows or state != "absent"):
        actions.append(Action(f"delete the rows and the record of probe {run}"))
    return actions


def run(probe: Probe, check_mode: bool) -> Outcome:
    """Bring the run into the wanted state; returns when it is there (``running``: when it has ended)."""
    wanted = probe.params["state"]
    before = probe.read_state()
    actions = plan_probe(probe.params["run"], before, wanted, probe.read_rows() if wanted == "absent" else 0)
    if not check_mode:
        steps = {"run": probe.drive, "stop": probe.stop, "delete": probe.remove}
        for action in actions:
            steps[action.public.split()[0]]()
    after = wanted if actions else before
    return Outcome.of({"state": before}, {"state": after}, actions, probe=probe.figures())


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {
        **connection_argument_spec(),
        "service": {"type": "str", "required": True},
        "record_dir": {"type": "path", "required": True},
        "run": {"type": "str", "required": True},
        "clients": {"type": "int", "default": 4},
        "rate_per_client": {"type": "float", "default": 50},
        "max_seconds": {"type": "int", "default": 900},
        "table": {"type": "str", "choices": ["probe", "health_checks"], "default": "probe"},
        "layers": {
            "type": "dict",
            "options": {
                "service": {"type": "str", "default": "target"},
                "members": {"type": "list", "elements": "str", "default": []},
                "member_port": {"type": "int", "default": 5432},
                "write_endpoint": {"type": "dict", "required": True},
                "read_endpoint": {"type": "dict"},
            },
        },
        "state": {"type": "str", "choices": ["running", "stopped", "absent"], "default": "running"},
    }


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not driver.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(Probe(module.params), module.check_mode))


if __name__ == "__main__":
    main()
