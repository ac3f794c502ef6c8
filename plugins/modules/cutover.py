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
  - With O(method=dump) there is no link. Clients are held for a declared window, and schema, rows, sequences and large objects are copied and
    completely compared under the same fence before the decision. Any difference, and the end of the window, undo it.
  - Run again it finishes or undoes what an earlier run left.
author:
  - the freight.pg_ha authors (@freight)
extends_documentation_fragment:
  - freight.pg_ha.postgresql
  - freight.pg_ha.endpoints
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
    description:
      - The side that shall serve the application.
      - V(source) is the way back, over the link that an earlier cutover has left with O(way_back). It loses nothing that was written since.
    type: str
    choices: [target, source]
    required: true
  database:
    description: Name of the pooled database.
    type: str
    required: true
  run:
    description: Who runs this, for the journal.
    type: str
    required: true
  journal:
    description:
      - The phase of which the journal on the target says that it has begun, as soon as this module is the only one that is at it.
      - Not written with O(only_gates) and in check mode, and not by a module that is refused because another one is at it.
    type: dict
    suboptions:
      migration:
        description: Name of the migration.
        type: str
        required: true
      phase:
        description: Name of the phase.
        type: str
        required: true
      inputs:
        description: Fingerprint of the phase's inputs.
        type: str
        required: true
  poolers:
    description: Inventory names of the poolers. Their consoles are the services C(pooler_<name>) of the service file.
    type: list
    elements: str
    required: true
  application_roles:
    description:
      - Roles that applications log in with. They lose LOGIN on the side that is left.
      - Empty means every login role that is no superuser, does not replicate and is not in O(own_roles).
    type: list
    elements: str
    default: []
  own_roles:
    description: Roles of the migration itself, which are never application roles. Neither are the administrators that the two services log in as.
    type: list
    elements: str
    default: []
  application_passwords_file:
    description:
      - File on this host, a JSON object with the passwords of application roles by name, as far as they are known.
      - Where a side shows nobody its verifiers, these are tried on it. Without one, the comment that M(freight.pg_ha.migrated_roles) left counts.
    type: path
  method:
    description:
      - V(logical) goes on from a link that follows.
      - V(dump) copies everything in the section, within O(window_seconds).
    type: str
    choices: [logical, dump]
    default: logical
  way_back:
    description:
      - How the side that is left reaches the side that shall serve. Without it the side that was left stays as it was at the cutover, and there is no way
        back without loss.
      - Publication, slot and subscription are laid before clients are held, so that it is known that the one side reaches the other.
    type: dict
    suboptions:
      host:
        description:
          - Host of the side that shall serve, as the side that is left resolves it. Of several, separated by commas, the one that takes writes is followed.
          - Not a proxy in front of them. One that still holds a connection when its server has died lets the follower wait without end.
        type: str
        required: true
      port:
        description: Port there.
        type: int
        required: true
      user:
        description: Role of the link.
        type: str
        required: true
      password_file:
        description:
          - File on the host that runs the module that holds its password, for a side on which nothing of ours is. The password is kept in the subscription,
            which only superusers may read. The connection needs TLS with channel binding then, so that no CA certificate is needed there.
        type: path
      passfile:
        description: Password file on the servers of the side that is left.
        type: str
      ca_file:
        description: CA certificate on the servers of the side that is left, for verify-full.
        type: str
  source_gone:
    description:
      - The source was lost for good after it had decided for the target, and before the cutover was finished. Then what the target can finish alone is done.
      - Refused when the source answers, and when the target was never told that it serves.
    type: bool
    default: false
  budget_seconds:
    description: How long clients may be held at most. With O(method=dump) what every step but copy and comparison is measured by.
    type: float
    default: 5
  window_seconds:
    description: With O(method=dump) how long clients may be held at most, whatever dies.
    type: float
    default: 3600
  jobs:
    description: With O(method=dump) tables copied and compared at once. When not given, the processors of the host that runs the module, at least two.
    type: int
  work_directory:
    description: With O(method=dump) folder on the host that runs the module for the archives of schema and large objects; removed at the end.
    type: path
    default: /var/tmp
  pause_seconds:
    description: How long PAUSE may wait for running transactions.
    type: float
    default: 1
  needs_sync_standby:
    description: Whether the target has to show a synchronous standby before and inside the section.
    type: bool
    default: true
  parity:
    description:
      - Evidence of the last full comparison of all rows (of phase verify). Unset means that there was none, which is a failed gate.
      - Not looked at with O(method=dump), which compares under the fence.
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
    journal: {migration: freight, phase: cut_over, inputs: 5f3759df}
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
run:
  description: The O(run) of the attempt that led to the serving side, which may be that of an earlier, interrupted task. None when nothing was decided yet.
  type: str
  returned: success
evidence:
  description:
    - What was measured of the attempt that led to the serving side. Epoch, C(steps) (name and ms), C(critical_section_ms) (first PAUSE to last pooler served),
      C(paused_at) (seconds since 1970), refusals by role, ended sessions, C(way_back) (link, follows, problem, standbys without its slot; null without one).
      With O(method=dump) also C(initial_copy) and C(parity).
    - None when nothing was decided yet.
  type: dict
  returned: success
"""

import os
import typing as t
from dataclasses import replace

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, PlanError, UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import decision, gates, guards, journal
from ansible_collections.freight.pg_ha.plugins.module_utils._migration.bring import ByDump, ByLink
from ansible_collections.freight.pg_ha.plugins.module_utils._migration.cutover import Comparers, cut_over
from ansible_collections.freight.pg_ha.plugins.module_utils._migration.section import LARGE_OBJECTS
from ansible_collections.freight.pg_ha.plugins.module_utils._migration.way_back import NoWayBack, WayBack
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.fingerprint import compare_fingerprints, read_fingerprint
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.names import APPLICATION_NAME
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.work import Comparison, Options
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql.subscription import Link
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import copy_client, copy_run, own, programs, roles
from ansible_collections.freight.pg_ha.plugins.module_utils._replication.model import Settings

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# Under the fence nothing but a session that bypasses the pooler can stand in the way of a dump or of emptying the target.
LOCK_TIMEOUT_SECONDS = 10


def compare_schemas(sides: dict[str, Connection]) -> gates.Schemas:
    """Compare the schemas of the sessions by side."""
    found = {side: read_fingerprint(session) for side, session in sides.items()}
    comparison = compare_fingerprints(found["source"], found["target"])
    differences = [f"{mismatch['object']}: {mismatch['problem']}" for mismatch in comparison.mismatches]
    objects = frozenset(name for fingerprint in found.values() for name in fingerprint.objects)
    return gates.Schemas(differences, {side: fingerprint.sha256 for side, fingerprint in found.items()}, objects)


def compare_roles(source: Connection, target: Connection, applications: t.Collection[str], further: t.Collection[str]) -> list[str]:
    """What module migrated_roles would do for the roles that log in, and for those whose members they are.

    :param applications: quoted names
    :param further: plain names of roles that others depend on, such as the one by which poolers look passwords up
    """
    database = str(client.query_value(source, "SELECT current_database()::text"))
    here, there = (roles.read_side(session, database) for session in (source, target))
    rows = client.query(source, "SELECT rolname::text AS name FROM pg_roles WHERE quote_ident(rolname::text) = ANY (%s)", (list(applications),))
    names = {row["name"] for row in rows}
    here = replace(here, roles={name: _as_let_in(role, there.roles.get(name)) if name in names else role for name, role in here.roles.items()})
    others = {name for name, role in here.roles.items() if role.attributes["rolcanlogin"]} - names - set(further)
    return [action.public for action in roles.plan_between(source, target, (here, there), others).actions]


def _as_let_in(role: roles.Role, there: roles.Role | None) -> roles.Role:
    """An application's role without what the cutover itself gives and takes (its login on either side), and without what another gate looks at."""
    attributes = role.attributes if there is None else {**role.attributes, "rolcanlogin": there.attributes["rolcanlogin"]}
    return replace(role, attributes=attributes, verifier_known=False)


class _ComparisonUnderFence(Comparison):
    """A comparison beside the cutover, which itself holds the lock that keeps others away."""

    def _lock_out_other_work(self, source: Connection, here: Connection) -> None:
        """Nothing: whoever calls this has done it."""


class Copier:
    """Copy and comparison from source to target, for the section of method dump; a Copier of module_utils/_migration/bring.py."""

    def __init__(self, params: dict[str, t.Any], run_command: programs.RunCommand) -> None:
        self._params = params
        self._run_command = run_command
        self._jobs = params["jobs"] or max(2, os.cpu_count() or 2)

    def check(self) -> None:
        """Raise GateError with every gate of the copy that does not hold."""
        self._copy(None, check_mode=True)

    def copy(self, snapshot: str) -> dict[str, t.Any]:
        """Throw away what was there of ours and copy at a snapshot."""
        return dict(self._copy(snapshot, check_mode=False).result["initial_copy"])

    def large_objects(self, snapshot: str | None = None) -> dict[str, t.Any] | None:
        """Fingerprint of the source's large objects, now or at a snapshot; None where there are none."""
        source = self._open("source")
        try:
            if snapshot is not None:
                copy_client.use_snapshot(source, snapshot)
            found = client.query(source, LARGE_OBJECTS)[0]
        finally:
            source.close()
        return found if found["pages"] else None

    def compare(self) -> dict[str, t.Any]:
        """Compare everything and keep the evidence beside the copy's."""
        options = Options(run=self._params["run"], following=False, jobs=self._jobs)
        evidence = _ComparisonUnderFence(self._open, options, lambda progress: None).run()
        target = self._open("target")
        try:
            known = copy_client.read_run(target)
            if known is None:
                raise PlanError("The copy's own record is gone from the target.")
            copy_client.write_run(target, known["state"], {**known["detail"], "parity": evidence})
        finally:
            target.close()
        return evidence

    def undo(self) -> None:
        """End what still works for us on both sides, and empty the target's tables; their guards stay."""
        target = self._open("target", {"session_replication_role": "replica", "lock_timeout": f"{LOCK_TIMEOUT_SECONDS}s"})
        source = self._open("source")
        try:
            for side in (source, target):
                copy_client.end_strays(side)
                client.query(
                    side,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s "
                    "AND pid <> pg_backend_pid()",
                    (APPLICATION_NAME,),
                )
            known = copy_client.read_run(target)
            if known is not None and known["detail"].get("parts") == "all":
                copy_client.write_run(target, "failed", {**known["detail"], "error": "The cutover was undone."})
                tables, unlogged, _extension = copy_client.read_tables(target, own.FORWARD_TABLES)
                names = [table.quoted for table in tables if not table.ours] + unlogged
                if names:
                    client.query(target, f"TRUNCATE {', '.join(names)}")
                copy_client.unlink_large_objects(target)
        finally:
            source.close()
            target.close()

    def evidence(self) -> dict[str, t.Any]:
        """Reports of copy and comparison, as the target keeps them."""
        target = self._open("target")
        try:
            known = copy_client.read_run(target)
        finally:
            target.close()
        detail = known["detail"] if known else {}
        return {"initial_copy": detail.get("report"), "parity": detail.get("parity")}

    def _copy(self, snapshot: str | None, check_mode: bool) -> Outcome:
        settings = Settings(
            service_file=self._params["service_file"],
            method="dump",
            jobs=self._jobs,
            snapshot=snapshot,
            programs=programs.find_folder(None),
            work_directory=self._params["work_directory"],
            lock_timeout_seconds=LOCK_TIMEOUT_SECONDS,
            connect_timeout_seconds=self._params["connect_timeout_seconds"],
            run=self._params["run"],
        )
        # The guards' function awaits this attempt's announcement already; the restored tables only lack the trigger.
        hooks = own.Hooks(refuse=_refuse_when_target_serves, guards=guards.install_statement(None), locks=False)
        return copy_run.run(settings, None, programs.Programs(settings, self._run_command), hooks, check_mode, repeat=True)

    def _open(self, side: str, settings: dict[str, str] | None = None) -> Connection:
        return client.connect(
            self._params["service_file"],
            side,
            application_name=APPLICATION_NAME,
            connect_timeout_seconds=self._params["connect_timeout_seconds"],
            settings=settings,
            patience_seconds=0,
        )


def _refuse_when_target_serves(source: Connection, target: Connection) -> None:
    """The open epoch is our own; what is decided must still be the source.

    :raises PlanError: the target serves
    """
    if decision.plan_serving(decision.read_history(source, "source"), decision.read_history(target, "target")) == "target":
        raise PlanError("The target serves the applications by decision: it is not copied over.")


def run(params: dict[str, t.Any], check_mode: bool, run_command: programs.RunCommand) -> Outcome:
    """Bring the migration to where ``serves`` serves; see the module's documentation."""
    if params["method"] == "dump" and params["serves"] != "target":
        raise UsageError("Clients return to the source over a link only: give method=logical.")
    if params["source_gone"] and params["serves"] != "target":
        raise UsageError("Clients cannot return to a source that is gone: take source_gone (pg_ha_source_gone) away.")
    way_back = read_way_back(params)
    bring = ByDump(params["window_seconds"], Copier(params, run_command), way_back) if params["method"] == "dump" else ByLink(way_back)
    return cut_over(params, check_mode, Comparers(compare_schemas, compare_roles), bring)


def read_way_back(params: dict[str, t.Any]) -> WayBack | NoWayBack:
    """The declared way back, its password out of the file on this host.

    :raises ClientError: the file cannot be read
    :raises UsageError: the service of the side that shall serve names no database
    """
    declared = params["way_back"]
    if declared is None:
        return NoWayBack()
    password = None
    if declared["password_file"]:
        try:
            with open(declared["password_file"], encoding="utf-8") as handle:
                password = handle.read().removesuffix("\n")
        except OSError as error:
            raise ClientError(f"Cannot read the password of the way back: {error.strerror} ({declared['password_file']}).") from error
    database = journal.service_database(params["service_file"], params["serves"])
    if database is None:
        raise UsageError(f"Service {params['serves']} of {params['service_file']} names no database.")
    link = Link(declared["host"], declared["port"], declared["user"], database, declared["passfile"], declared["ca_file"], password)
    return WayBack(link, params["serves"], params["service_file"])


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    endpoint = {"type": "dict", "required": True, "options": {"host": {"type": "str", "required": True}, "port": {"type": "int", "required": True}}}
    return {
        **client.connection_argument_spec(),
        "serves": {"type": "str", "choices": ["target", "source"], "required": True},
        "database": {"type": "str", "required": True},
        "run": {"type": "str", "required": True},
        "journal": {"type": "dict", "options": {name: {"type": "str", "required": True} for name in ("migration", "phase", "inputs")}},
        "poolers": {"type": "list", "elements": "str", "required": True},
        "source_endpoint": endpoint,
        "target_endpoint": endpoint,
        "application_roles": {"type": "list", "elements": "str", "default": []},
        "own_roles": {"type": "list", "elements": "str", "default": []},
        # A file's name is no secret.
        "application_passwords_file": {"type": "path", "no_log": False},
        "method": {"type": "str", "choices": ["logical", "dump"], "default": "logical"},
        "way_back": {
            "type": "dict",
            "options": {
                "host": {"type": "str", "required": True},
                "port": {"type": "int", "required": True},
                "user": {"type": "str", "required": True},
                "password_file": {"type": "path", "no_log": False},
                "passfile": {"type": "str", "no_log": False},
                "ca_file": {"type": "str"},
            },
        },
        "source_gone": {"type": "bool", "default": False},
        "budget_seconds": {"type": "float", "default": 5},
        "window_seconds": {"type": "float", "default": 3600},
        "jobs": {"type": "int"},
        "work_directory": {"type": "path", "default": "/var/tmp"},
        "pause_seconds": {"type": "float", "default": 1},
        "needs_sync_standby": {"type": "bool", "default": True},
        "parity": {"type": "dict"},
        "parity_max_age_seconds": {"type": "int", "default": 3600},
        "long_transaction_seconds": {"type": "float", "default": 5},
        "only_gates": {"type": "bool", "default": False},
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))

    def run_command(argv: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
        return module.run_command(argv, environ_update=environment, handle_exceptions=False)

    finish(module, lambda: run(module.params, module.check_mode, run_command))


if __name__ == "__main__":
    main()
