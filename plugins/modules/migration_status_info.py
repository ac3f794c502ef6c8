#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migration_status_info
short_description: Where a migration stands, by its journal and the real state
version_added: 0.1.0
description:
  - Reads who serves, every phase of the journal, the last cutover, copy, link, poolers and the target's leader. Changes nothing.
  - What cannot be read is null, and RV(status.unknown) says so in a sentence. It never fails because a side cannot be reached.
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
    support: none
  idempotent:
    support: full
options:
  migration:
    description: Name of the migration.
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
  slot_wal_limit_mib:
    description: How much of the source's WAL the link's slot may hold back, in MiB, beside the source's own limit. From half of it on there is an alarm.
    type: int
  roles:
    description: Names of the migration's own roles.
    type: list
    elements: str
    default: []
  exported:
    description:
      - Evidence that the controller has of phases that run before there is a journal, by phase. Its C(outcome), C(started_at) and
        C(finished_at) stand for a phase that the journal does not have.
      - With a phase C(retire_source) that is done a source which does not answer is no longer unknown.
    type: dict
    default: {}
seealso:
  - module: freight.pg_ha.migration_phase_info
"""

EXAMPLES = r"""
- name: See where the migration stands
  freight.pg_ha.migration_status_info:
    service_file: /run/pg_ha/freight/pg_service.conf
    migration: freight
    database: freight
    poolers: [lb1]
    source_endpoint: {host: db1.example.com, port: 5432}
    target_endpoint: {host: lb1, port: 5000}
  register: stands
"""

RETURN = r"""
status:
  description: Where the migration stands.
  type: dict
  returned: success
  contains:
    migration:
      description: Its name.
      type: str
    serves:
      description: V(source), V(target) or V(unknown).
      type: str
    phases:
      description: Phase, state (V(absent), V(running), V(done), V(refused), V(failed) or V(unknown)), run, started_at, finished_at and reason of each.
      type: list
      elements: dict
    attempt:
      description: The newest attempt to change who serves - epoch, run, leaves, state (V(open) or V(closed)), decided, outcome, reason, budget_ms; or null.
      type: dict
    cutover_running:
      description: Whether a module C(cutover) works now; null when unknown.
      type: bool
    copy:
      description: As M(freight.pg_ha.replication_copy_info) returns it; null when unknown or when there is nothing to read.
      type: dict
    link:
      description:
        - The link from the side that serves to the other, as M(freight.pg_ha.replication_link_info) returns it, with its C(name), while there is a
          subscription; else null.
      type: dict
    schemas:
      description:
        - While the link is enabled, whether both sides' schemas are in step. The first of C(differences) and their number C(differences_total), C(policy) of
          the guard against DDL on the source (null where none stands), and C(ddl), what it recorded since the last comparison.
        - Null while nothing follows, and when it could not be read.
      type: dict
    way_back:
      description:
        - Once clients have moved - possible (null when unknown), sentence, held_bytes (WAL that its slot holds back) and safe_bytes (how much more may be
          written before the server gives the slot up; null without a limit). Else null.
      type: dict
    leftovers:
      description: What is there and belongs to nothing that stands - object, side, holds (what it holds back) and removed_by of each.
      type: list
      elements: dict
    disagreements:
      description: Where the journal says something else than the decision, and which is believed, one sentence each.
      type: list
      elements: str
    retired:
      description: Since when the migration is retired; null while it is not.
      type: str
    comparison_running:
      description: Whether rows are compared on this host now.
      type: bool
    probes_running:
      description: Probes that write from this host now.
      type: list
      elements: str
    poolers:
      description: Name, host, port, side (V(source), V(target) or V(elsewhere)) and paused of each pooler that answers.
      type: list
      elements: dict
    cluster:
      description: Leader, timeline and number of synchronous standbys of the target; null when it was not reached.
      type: dict
    unknown:
      description: What could not be read and why, one sentence each.
      type: list
      elements: str
    lines:
      description: All of it in sentences.
      type: list
      elements: str
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import PgHaError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._ledger.record import RunFolder
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import decision, journal, leftovers, ours, retire, schema, status
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.fingerprint import compare_fingerprints, read_fingerprint
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.progress import is_running
from ansible_collections.freight.pg_ha.plugins.module_utils._pgbouncer.client import PgbouncerClient
from ansible_collections.freight.pg_ha.plugins.module_utils._pgbouncer.plan import find
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import copy_client, copy_plan, link_client

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

APPLICATION_NAME = "ha_migration status"
T = t.TypeVar("T")


class Reader:
    """Reads one thing after the other; what fails is noted in ``unknown`` and the rest goes on."""

    def __init__(self, params: dict[str, t.Any], open_pooler: t.Callable[..., PgbouncerClient] = PgbouncerClient) -> None:
        self.params, self._open_pooler = params, open_pooler
        self.unknown: list[str] = []
        self.source: Connection | None = None
        self.target: Connection | None = None
        self.target_exists = True
        self.retired = self._exported_retirement()

    def _exported_retirement(self) -> str | None:
        document = self.params["exported"].get(retire.PHASE) or {}
        return document.get("finished_at") if document.get("outcome") == "done" else None

    def attempt(self, what: str, read: t.Callable[[], T]) -> T | None:
        """What was read, or None."""
        try:
            return read()
        except PgHaError as error:
            self.unknown.append(f"{what} cannot be read: {error.message}")
            return None

    def connect(self) -> None:
        """Open both sides. A target without the database has nothing of the migration."""
        file, timeout = self.params["service_file"], self.params["connect_timeout_seconds"]
        # What is said is how it stands now: nothing is waited for.
        self.source = self.attempt(
            "The source", lambda: client.connect(file, "source", application_name=APPLICATION_NAME, connect_timeout_seconds=timeout, patience_seconds=0)
        )
        if self.source is None and self.retired:
            # It may have been switched off, as it should be in the end.
            self.unknown.clear()
        if not self.attempt("The service file", lambda: journal.has_service(file, "target")):
            self.target_exists = False
            return
        before = len(self.unknown)
        self.target = self.attempt("The target", lambda: journal.connect_journal(file, "target", APPLICATION_NAME, timeout, "postgres", patience_seconds=0))
        self.target_exists = self.target is not None or len(self.unknown) > before

    def read_sides(self) -> tuple[status.Side | None, status.Side | None]:
        """What both sides know; a target that does not exist knows nothing, unless the source says that the copy has begun."""
        source = self.attempt("The source's part of the journal", lambda: status.read_side(self.source, "source")) if self.source else None
        if self.target is not None:
            return source, self.attempt("The target's part of the journal", lambda: status.read_side(t.cast("Connection", self.target), "target"))
        if self.target_exists:
            return source, None
        if source is None or source.has_schema:
            self.unknown.append(
                "The target is unknown to this controller (its CA certificate is missing), or its database is gone, and the migration has begun."
            )
            return source, None
        return source, status.NOTHING

    def read_copy(self) -> dict[str, t.Any] | None:
        """The initial copy; None where none of it can be there."""
        source, target = self.source, self.target
        if source is None or target is None or not journal.has_journal(target):
            return None

        def read() -> dict[str, t.Any]:
            locked = copy_client.lock_holder(source) is not None
            row = copy_client.read_run(target)
            running = copy_client.read_running(target) if row and locked else {}
            return copy_plan.describe(row, copy_client.read_tables_done(target) if row else [], running, locked)

        return self.attempt("The copy", read)

    def read_retired(self) -> str | None:
        """Since when the migration is retired, by the journal that the source keeps, or by the evidence on the controller."""
        if self.source is None:
            return self.retired
        source = self.source
        record = self.attempt("The source's part of the journal", lambda: journal.read_phase(source, self.params["migration"], retire.PHASE))
        return record.finished_at if record and record.state == "done" else self.retired

    def read_ours(self) -> dict[str, ours.Ours]:
        """What of ours is on each side that answers."""
        found = {}
        for name, connection in (("source", self.source), ("target", self.target)):
            if connection is not None:
                have = self.attempt(f"What is left on the {name}", lambda connection=connection: ours.read_ours(connection, self.params["roles"]))
                if have is not None:
                    found[name] = have
        return found

    def read_link(self, serves: str) -> dict[str, t.Any] | None:
        """The link from the side that serves to the other, while there is one."""
        source, target = self.source, self.target
        if source is None or target is None or serves == "unknown":
            return None
        publisher, subscriber = (source, target) if serves == "source" else (target, source)
        name = schema.link_towards(decision.other(serves))
        link = self.attempt("The link", lambda: link_client.read_link(publisher, subscriber, name, self.params["slot_wal_limit_mib"]).public())
        return {"name": name, **link} if link and link["exists"] else None

    def read_schemas(self, link: dict[str, t.Any] | None, phases: list[dict[str, t.Any]]) -> dict[str, t.Any] | None:
        """Whether both sides' schemas are in step, while the target follows."""
        source, target = self.source, self.target
        if source is None or target is None or not link or not link["enabled"]:
            return None
        verified = next((phase["started_at"] for phase in phases if phase["phase"] == "verify" and phase["state"] == "done"), None)

        def read() -> dict[str, t.Any]:
            found = compare_fingerprints(read_fingerprint(source), read_fingerprint(target)).mismatches
            return status.read_schemas(source, [f"{mismatch['object']} {mismatch['problem']}" for mismatch in found], verified)

        return self.attempt("The schemas", read)

    def read_poolers(self) -> list[dict[str, t.Any]]:
        """Where each pooler leads."""
        found = []
        ends = {side: (self.params[f"{side}_endpoint"]["host"], self.params[f"{side}_endpoint"]["port"]) for side in ("source", "target")}
        for name in self.params["poolers"]:
            service = f"pooler_{name}"
            # Before the target exists its poolers need not.
            if not self.target_exists and not self.attempt(
                "The service file", lambda service=service: journal.has_service(self.params["service_file"], service)
            ):
                continue
            console = self._open_pooler(self.params["service_file"], service, connect_timeout_seconds=self.params["connect_timeout_seconds"], read_only=True)
            shown = self.attempt(f"Pooler {name}", lambda console=console, service=service: find(console.read_databases(), self.params["database"], service))
            if shown is not None:
                side = next((side for side, end in ends.items() if end == (shown.host, shown.port)), "elsewhere")
                found.append({"name": name, "host": shown.host, "port": shown.port, "side": side, "paused": shown.paused})
        return found

    def read_probes(self) -> list[str]:
        """Probes that run on this host."""
        folder = os.path.dirname(self.params["service_file"])
        runs = sorted(name for name in os.listdir(folder) if name.startswith("probe-")) if os.path.isdir(folder) else []
        return [name.removeprefix("probe-") for name in runs if RunFolder(os.path.join(folder, name)).is_running()]

    def close(self) -> None:
        """End the sessions."""
        for connection in (self.source, self.target):
            if connection is not None:
                connection.close()


def run(params: dict[str, t.Any], open_pooler: t.Callable[..., PgbouncerClient] = PgbouncerClient) -> Outcome:
    """Read everything that can be read."""
    reader = Reader(params, open_pooler)
    if not client.HAS_PSYCOPG2:
        raise PgHaError("This host has no psycopg2, so it was never prepared as a mover and nothing can be asked: run `pg-ha assess` first.")
    try:
        reader.connect()
        found = read_all(reader)
    finally:
        reader.close()
    found["unknown"] = reader.unknown
    return Outcome(changed=False, result={"status": {**found, "lines": status.describe(found)}})


def read_all(reader: Reader) -> dict[str, t.Any]:
    """The status without what is unknown."""
    params = reader.params
    source, target = reader.read_sides()
    recorded = None
    if target is not None:
        recorded = reader.attempt("The journal", lambda: status.read_phases(reader.target, params["migration"]))
    retired = reader.read_retired()
    serves = "target" if retired else status.plan_serves(source and source.history, target and target.history)
    phases, link = status.plan_phases(recorded, params["exported"]), reader.read_link(serves)
    found: dict[str, t.Any] = {
        "migration": params["migration"],
        "serves": serves,
        "retired": retired,
        "phases": phases,
        "attempt": status.newest(source and source.attempt, target and target.attempt),
        "cutover_running": None if source is None or target is None else source.cutover_lock or target.cutover_lock,
        "copy": reader.read_copy(),
        "link": link,
        "schemas": reader.read_schemas(link, phases) if serves == "source" else None,
        "comparison_running": is_running(os.path.join(os.path.dirname(params["service_file"]), "parity.json")),
        "probes_running": reader.read_probes(),
        "poolers": reader.read_poolers(),
        "cluster": reader.attempt("The target's leader", lambda: status.read_cluster(t.cast("Connection", reader.target))) if reader.target else None,
    }
    return {**found, **judge(found, params["poolers"], reader.read_ours(), both=reader.source is not None and reader.target is not None)}


def judge(found: dict[str, t.Any], hosts: list[str], have: dict[str, ours.Ours], *, both: bool) -> dict[str, t.Any]:
    """Way back, leftovers and disagreements, from what was read (pure)."""
    attempt, copy = found["attempt"], found["copy"]
    busy = found["cutover_running"] if found["retired"] is None else False
    if (attempt and attempt["state"] == "open") or (copy and not copy["ended"]):
        busy = True
    stands = leftovers.Stands(found["serves"], {row["phase"]: row["state"] for row in found["phases"]}, busy, found["retired"] is not None)
    name = "" if stands.serves == "unknown" else schema.link_towards(decision.other(stands.serves))
    slot = next((slot for slot in have[stands.serves].slots if slot.name == name), None) if stands.serves in have else None
    return {
        "way_back": leftovers.plan_way_back(stands, found["link"], slot, known=both),
        "leftovers": leftovers.plan_leftovers(stands, have, found["poolers"], hosts),
        "disagreements": leftovers.plan_disagreements(stands),
    }


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    endpoint = {"type": "dict", "required": True, "options": {"host": {"type": "str", "required": True}, "port": {"type": "int", "required": True}}}
    return {
        **client.connection_argument_spec(),
        "migration": {"type": "str", "required": True},
        "database": {"type": "str", "required": True},
        "poolers": {"type": "list", "elements": "str", "default": []},
        "roles": {"type": "list", "elements": "str", "default": []},
        "source_endpoint": endpoint,
        "target_endpoint": endpoint,
        "slot_wal_limit_mib": {"type": "int"},
        "exported": {"type": "dict", "default": {}},
    }


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    finish(module, lambda: run(module.params))


if __name__ == "__main__":
    main()
