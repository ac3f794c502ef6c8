#!/usr/bin/python

# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_retirement
short_description: The end of a migration in its databases
version_added: 0.1.0
description:
  - Takes away what a finished migration has in the databases - links, publications and slots on both sides, guards and roles, and at last schema
    C(ha_migration) on the target.
  - The source keeps schema and guards, so that it stays fenced, and its journal says from then on that the migration is retired.
  - Refused, with all reasons together, unless the target serves by the decision, phase C(cut_over) is done, no attempt is open, and every pooler leads
    to the target and lets its clients go through.
  - Idempotent. A run that ended in the midst of it is finished by the next one.
author:
  - the freight.pg_ha authors (@freight)
extends_documentation_fragment:
  - freight.pg_ha.postgresql
  - freight.pg_ha.endpoints
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  migration:
    description: Name of the migration.
    type: str
    required: true
  run:
    description: Name of this run in the journal.
    type: str
    required: true
  database:
    description: The pooled database.
    type: str
    required: true
  poolers:
    description: Names of all poolers.
    type: list
    elements: str
    default: []
  roles:
    description: The migration's own roles, which go on both sides.
    type: list
    elements: str
    default: []
  source_gone:
    description:
      - The source was switched off already. Its part is then told as not removed.
      - Refused when the source answers.
    type: bool
    default: false
  begun:
    description:
      - An earlier run has begun, by the evidence on the controller. Asked only where the source is gone and the target has no schema
        C(ha_migration) any more, so that neither can tell.
    type: bool
    default: false
seealso:
  - module: freight.pg_ha.migration_status_info
"""

EXAMPLES = r"""
- name: Take away what the migration has in the databases
  freight.pg_ha.migration_retirement:
    service_file: /run/pg_ha/freight/pg_service.conf
    migration: freight
    run: 2027-01-01T00:00:00Z
    database: freight
    poolers: [lb1]
    roles: [ha_migration_dead_man, ha_migration_probe, ha_migration_link]
    source_endpoint: {host: db1.example.com, port: 5432}
    target_endpoint: {host: lb1, port: 5000}
"""

RETURN = r"""
evidence:
  description: The evidence document; null in check mode before the migration is retired.
  type: dict
  returned: success
link_needed_by:
  description: Other databases of the target that follow a source by a link of this collection, with the files that say how on the target's hosts.
  type: list
  elements: str
  returned: success
actions:
  description: What was taken away, or in check mode would be.
  type: list
  elements: str
  returned: success
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, GateError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Action, Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import journal, ours, retire, status
from ansible_collections.freight.pg_ha.plugins.module_utils._pgbouncer.client import PgbouncerClient
from ansible_collections.freight.pg_ha.plugins.module_utils._pgbouncer.plan import find
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

APPLICATION_NAME = "ha_migration retirement"


class Retirement:
    """One run.

    :param open_pooler: tests pass their own
    :raises GateError: the source may not be retired
    :raises ClientError: the target or a pooler cannot be asked
    """

    def __init__(self, params: dict[str, t.Any], open_pooler: t.Callable[..., PgbouncerClient]) -> None:
        self.params, self._open_pooler = params, open_pooler
        self.problems: list[str] = []
        self.source: Connection | None = None
        try:
            self.source = self._connect("source")
            if params["source_gone"]:
                self.problems.append("The source is declared gone (pg_ha_source_gone) and answers: take that input away, so that its part goes too.")
        except ClientError as error:
            if not params["source_gone"]:
                self.problems.append(f"{error.message} If it was switched off for good, say so with pg_ha_source_gone: true.")
        self.target = self._connect("target")
        self.sides = {side: connection for side, connection in (("source", self.source), ("target", self.target)) if connection is not None}

    def _connect(self, service: str) -> Connection:
        timeout = self.params["connect_timeout_seconds"]
        return client.connect(self.params["service_file"], service, application_name=APPLICATION_NAME, connect_timeout_seconds=timeout)

    def read(self) -> tuple[ours.Ours | None, ours.Ours]:
        """What is there, after every gate.

        :raises GateError: with all reasons
        """
        found = {side: ours.read_ours(connection, self.params["roles"]) for side, connection in self.sides.items()}
        recorded = self.recorded("source").state if self.source else "done" if self.params["begun"] else journal.ABSENT
        # What the target knew went last: then an earlier run had passed every gate.
        if found["target"].has_schema or recorded == journal.ABSENT:
            known = {side: status.read_side(connection, side) for side, connection in self.sides.items()}
            cut_over = journal.read_phase(self.target, self.params["migration"], "cut_over").state
            self.problems += retire.why_not(known.get("source"), known["target"], cut_over, self._poolers())
        if self.problems:
            raise GateError(" ".join(self.problems), problems=self.problems)
        return found.get("source"), found["target"]

    def recorded(self, side: str) -> journal.PhaseRecord:
        """The phase's row on one side."""
        return journal.read_phase(self.sides[side], self.params["migration"], retire.PHASE)

    def _poolers(self) -> list[dict[str, t.Any]]:
        ends = {side: (self.params[f"{side}_endpoint"]["host"], self.params[f"{side}_endpoint"]["port"]) for side in ("source", "target")}
        found = []
        for name in self.params["poolers"]:
            service = f"pooler_{name}"
            console = self._open_pooler(self.params["service_file"], service, connect_timeout_seconds=self.params["connect_timeout_seconds"], read_only=True)
            shown = find(console.read_databases(), self.params["database"], service)
            found.append({"name": name, "side": next((side for side, end in ends.items() if end == (shown.host, shown.port)), ""), "paused": shown.paused})
        return found

    def apply(self, removals: list[retire.Removal], source: ours.Ours | None, target: ours.Ours) -> dict[str, t.Any]:
        """Take everything away and record it on the source; returns the evidence.

        :param source: what was there; None when it is gone
        """
        began = self._now()
        for side, connection in self.sides.items():
            if journal.has_journal(connection):
                retire.record(connection, self.params["migration"], "running", self.params["run"])
                began = self.recorded(side).started_at or began
        for removal in removals:
            retire.remove(self.sides[removal.side], removal)
        evidence = retire.evidence(removals, source, target, began, self._now())
        if self.source is not None:
            retire.record(self.source, self.params["migration"], "done", self.params["run"], evidence)
        return evidence

    def _now(self) -> str:
        return str(client.query_value(self.target, """SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""))

    def close(self) -> None:
        """End the sessions."""
        for connection in self.sides.values():
            connection.close()


def run(params: dict[str, t.Any], check_mode: bool, open_pooler: t.Callable[..., PgbouncerClient] = PgbouncerClient) -> Outcome:
    """Read, plan, and unless in check mode apply."""
    retirement = Retirement(params, open_pooler)
    try:
        source, target = retirement.read()
        removals = retire.plan_removals(source, target)
        actions = [removal.action for removal in removals]
        recorded = retirement.recorded("source") if retirement.source else None
        evidence = recorded.evidence if recorded and recorded.state == "done" else None
        if recorded and not evidence:
            actions.append(Action("record on the source that the migration is retired"))
        if not check_mode and (actions or evidence is None):
            evidence = retirement.apply(removals, source, target)
    finally:
        retirement.close()
    before = {"there": [action.public.removeprefix("drop ") for action in actions]}
    return Outcome.of(before, {"there": []}, actions, evidence=evidence, link_needed_by=list(target.followers_elsewhere))


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    endpoint = {"type": "dict", "required": True, "options": {"host": {"type": "str", "required": True}, "port": {"type": "int", "required": True}}}
    return {
        **client.connection_argument_spec(),
        "migration": {"type": "str", "required": True},
        "run": {"type": "str", "required": True},
        "database": {"type": "str", "required": True},
        "poolers": {"type": "list", "elements": "str", "default": []},
        "roles": {"type": "list", "elements": "str", "default": []},
        "source_gone": {"type": "bool", "default": False},
        "begun": {"type": "bool", "default": False},
        "source_endpoint": endpoint,
        "target_endpoint": endpoint,
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
