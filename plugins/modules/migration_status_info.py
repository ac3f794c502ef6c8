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
  exported:
    description:
      - Evidence that the controller has of phases that run before there is a journal, by phase. Its C(outcome), C(started_at) and
        C(finished_at) stand for a phase that the journal does not have.
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
      description: As M(freight.pg_ha.replication_link_info) returns it, while there is a subscription; else null.
      type: dict
    schemas:
      description:
        - While the link is enabled, whether both sides' schemas are in step. The first of C(differences) and their number C(differences_total), C(policy) of
          the guard against DDL on the source (null where none stands), and C(ddl), what it recorded since the last comparison.
        - Null while nothing follows, and when it could not be read.
      type: dict
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
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import journal, schema, status
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
        self.source = self.attempt("The source", lambda: client.connect(file, "source", application_name=APPLICATION_NAME, connect_timeout_seconds=timeout))
        if not self.attempt("The service file", lambda: journal.has_service(file, "target")):
            self.target_exists = False
            return
        before = len(self.unknown)
        self.target = self.attempt("The target", lambda: journal.connect_journal(file, "target", APPLICATION_NAME, timeout, "postgres"))
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
            return copy_plan.describe(row, copy_client.read_tables_done(target) if row else [], running, locked, locked)

        return self.attempt("The copy", read)

    def read_link(self) -> dict[str, t.Any] | None:
        """The link, while there is one."""
        source, target = self.source, self.target
        if source is None or target is None:
            return None
        link = self.attempt("The link", lambda: link_client.read_link(source, target, schema.FORWARD_LINK, self.params["slot_wal_limit_mib"]).public())
        return link if link and link["exists"] else None

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
        source, target = reader.read_sides()
        recorded = None
        if target is not None:
            recorded = reader.attempt("The journal", lambda: status.read_phases(reader.target, params["migration"]))
        cluster = reader.attempt("The target's leader", lambda: status.read_cluster(t.cast("Connection", reader.target))) if reader.target else None
        phases, link = status.plan_phases(recorded, params["exported"]), reader.read_link()
        found: dict[str, t.Any] = {
            "migration": params["migration"],
            "serves": status.plan_serves(source and source.history, target and target.history),
            "phases": phases,
            "attempt": status.newest(source and source.attempt, target and target.attempt),
            "cutover_running": None if source is None or target is None else source.cutover_lock or target.cutover_lock,
            "copy": reader.read_copy(),
            "link": link,
            "schemas": reader.read_schemas(link, phases),
            "comparison_running": is_running(os.path.join(os.path.dirname(params["service_file"]), "parity.json")),
            "probes_running": reader.read_probes(),
            "poolers": reader.read_poolers(),
            "cluster": cluster,
        }
    finally:
        reader.close()
    found["unknown"] = reader.unknown
    return Outcome(changed=False, result={"status": {**found, "lines": status.describe(found)}})


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    endpoint = {"type": "dict", "required": True, "options": {"host": {"type": "str", "required": True}, "port": {"type": "int", "required": True}}}
    return {
        **client.connection_argument_spec(),
        "migration": {"type": "str", "required": True},
        "database": {"type": "str", "required": True},
        "poolers": {"type": "list", "elements": "str", "default": []},
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
