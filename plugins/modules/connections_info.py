#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: connections_info
short_description: Try everything that a phase connects to
version_added: 0.1.0
description:
  - Tries each service of the service file, and Patroni's REST API, and compares clocks. Writes nothing.
  - Fails with all problems together, each in one sentence that names the inventory key or object and the remedy.
  - A source that cannot be reached is none when the journal says that the cutover is done. A target may lack the database, which the replication makes.
  - A target whose journal is that of another migration than O(migration), or that was copied from another source, is a problem.
author:
  - the freight.pg_ha authors (@freight)
options:
  services:
    description: Names of services in the service file. C(source) and C(target) are servers, C(pooler_*) are consoles of PgBouncer.
    type: list
    elements: str
    required: true
  database:
    description: Database that poolers must know.
    type: str
    required: true
  migration:
    description: Name of the migration in the journal.
    type: str
    required: true
  patroni_urls:
    description: Addresses of Patroni's REST API; one that answers is enough.
    type: list
    elements: str
    default: []
  patroni_ca_file:
    description: CA certificate that verifies them.
    type: path
  source_gone:
    description: The source was lost or switched off for good. It is no problem then where the target itself says that it serves.
    type: bool
    default: false
  clock_skew_seconds:
    description: By how much the clocks of the servers may differ from the one of this host.
    type: float
    default: 5
  maintenance_database:
    description: Database of the target to ask while the one to move does not exist there.
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
"""

EXAMPLES = r"""
- name: Reach | Try everything that the phase needs
  freight.pg_ha.connections_info:
    service_file: /run/pg_ha/move_2027/pg_service.conf
    services: [source, target, pooler_lb1]
    database: freight
    migration: move_2027
    patroni_urls: [https://pg1:8008, https://pg2:8008]
    patroni_ca_file: /run/pg_ha/move_2027/target_ca.crt
"""

RETURN = r"""
problems:
  description: What is wrong, with C(kind), C(object), C(message), C(remedy) and C(sentence) each; empty on success.
  returned: always
  type: list
  elements: dict
target_has_database:
  description: Whether the database exists on the target; false where the target was not asked.
  returned: success
  type: bool
clocks:
  description: By how many seconds the clock of each server is ahead of this host's.
  returned: success
  type: dict
"""

import locale
import typing as t
from dataclasses import replace

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._connections import client, plan
from ansible_collections.freight.pg_ha.plugins.module_utils._connections.model import Answer, Service
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, GateError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._core.problems import Problem, describe
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import decision, journal
from ansible_collections.freight.pg_ha.plugins.module_utils._patroni.client import PatroniClient
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql.client import HAS_PSYCOPG2, connection_argument_spec

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    return {
        **connection_argument_spec(),
        "services": {"type": "list", "elements": "str", "required": True},
        "database": {"type": "str", "required": True},
        "migration": {"type": "str", "required": True},
        "patroni_urls": {"type": "list", "elements": "str", "default": []},
        "patroni_ca_file": {"type": "path"},
        "source_gone": {"type": "bool", "default": False},
        "clock_skew_seconds": {"type": "float", "default": 5},
        "maintenance_database": {"type": "str", "default": "postgres"},
    }


def try_patroni(params: dict[str, t.Any]) -> list[Problem]:
    """Ask for the cluster."""
    if not params["patroni_urls"]:
        return []
    try:
        PatroniClient(
            params["patroni_urls"], ca_file=params["patroni_ca_file"], request_timeout_seconds=params["connect_timeout_seconds"], read_only=True
        ).read_cluster()
    except ClientError as error:
        return [plan.patroni_problem(params["patroni_urls"], error.message)]
    return []


def try_journal(params: dict[str, t.Any], kinds: set[str]) -> list[Problem]:
    """Ask the target whose it is."""
    sessions: dict[str, t.Any] = {}
    try:
        for side in ("target", "source"):
            if side in kinds:
                sessions[side] = open_journal(params, side)
        if sessions.get("target") is None:
            return []
        found = plan.strange_problem(journal.read_strange(sessions["target"], sessions.get("source"), params["migration"]), journal.STRANGE_REMEDY)
    except ClientError as error:
        found = plan.strange_problem(f"Whose the target is could not be read ({error.message.rstrip('.')})", "mend that")
    finally:
        for connection in filter(None, sessions.values()):
            connection.close()
    return [found] if found else []


def open_journal(params: dict[str, t.Any], side: str) -> Connection | None:
    """A session on a side, None where the database does not exist yet."""
    return journal.connect_journal(params["service_file"], side, "ha_migration connections", params["connect_timeout_seconds"], params["maintenance_database"])


def is_moved(params: dict[str, t.Any]) -> bool:
    """Whether the journal says that the cutover is done, so that nobody needs the source any more."""
    connection = open_journal(params, "target")
    if connection is None:
        return False
    try:
        return journal.read_phase(connection, params["migration"], "cut_over").state == "done"
    finally:
        connection.close()


def is_told(params: dict[str, t.Any]) -> bool:
    """Whether the target itself knows that it serves: then a cutover can be finished without the source."""
    connection = open_journal(params, "target")
    if connection is None:
        return False
    try:
        return decision.plan_serving(decision.read_history(connection, "target")) == "target"
    finally:
        connection.close()


def needed(params: dict[str, t.Any], problems: list[Problem]) -> list[Problem]:
    """The problems, without those of a source that nobody needs any more."""
    others = [problem for problem in problems if problem.object != "source"]
    if len(others) == len(problems):
        return problems
    if is_moved(params):
        return others
    if not is_told(params):
        return problems
    if params["source_gone"]:
        return others
    remedy = "; or say that it is gone for good (pg_ha_source_gone: true), since the target serves already"
    return [replace(problem, remedy=problem.remedy + remedy) if problem.object == "source" else problem for problem in problems]


def run(params: dict[str, t.Any]) -> Outcome:
    """Try everything.

    :raises GateError: something cannot be used; names all of it
    """
    services = client.read_services(params["service_file"], params["services"])
    answers: dict[Service, Answer] = {}
    problems: list[Problem] = []
    for service in services:
        if service.kind == "pooler":
            found = client.try_pooler(params["service_file"], service, params["database"], params["connect_timeout_seconds"])
        else:
            found = client.try_server(params["service_file"], service, params["connect_timeout_seconds"], params["maintenance_database"])
        if isinstance(found, Answer):
            answers[service] = found
        elif isinstance(found, Problem):
            problems.append(found)
    problems += [*plan.plan_answers(answers, params["clock_skew_seconds"]), *try_patroni(params)]
    by_kind = {service.kind: answer for service, answer in answers.items()}
    problems += try_journal(params, set(by_kind))
    if "target" in by_kind:
        problems = needed(params, problems)
    if problems:
        raise GateError(describe("what this phase connects to", problems), problems=[problem.public() for problem in problems])
    has_database = "target" in by_kind and by_kind["target"].has_database
    clocks = {service.kind: round(answer.ahead_seconds, 3) for service, answer in answers.items()}
    return Outcome(changed=False, result={"problems": [], "target_has_database": has_database, "clocks": clocks})


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    # libpq's words are read: they shall be the ones that we know.
    locale.setlocale(locale.LC_MESSAGES, "C")
    finish(module, lambda: run(module.params))


if __name__ == "__main__":
    main()
