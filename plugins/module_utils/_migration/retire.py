# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The end of a migration: what it has in the databases goes, and the target serves alone.

The schema on the target goes last, so that a run which ended anywhere before finds the same decision and goes on. The source keeps its schema:
the guard needs it, and without the guard two servers would take writes. Its journal says from then on that the migration is retired.
The health of the target stays to be read, where it was (view ha_migration.health): applications ask for it.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._core.outcome import Action
from .._postgresql import client
from .._postgresql.quoting import identifier
from . import decision, guards, journal, ours, schema, settle, status

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

PHASE = "retire_source"
PRIVILEGES = "privileges of role"
KEPT = (
    "The source stays fenced: schema ha_migration and the guard on every table stay there and refuse every write of applications.",
    "Nothing of this collection runs on the source's host. To stop its server is the operator's act.",
)
NOT_REMOVED = (
    "The source did not answer and was declared gone: its subscription, publication, slot and roles of the migration were not removed. "
    "Should it come back, its guard still refuses every write of applications."
)
# What reads the health, of which schema.HEALTH names table and view; a test holds it equal to the health's own name.
HEALTH_FUNCTION = f"{schema.SCHEMA}.read_health"
BACKUP = "No backup was made or proved here: have one of the target that was restored once before the source's server is stopped."


@dataclass(frozen=True)
class Removal:
    """One thing that goes.

    :param kind: subscription, slot, publication, guard, event trigger, role, "privileges of role" or schema
    :param name: plain, of guards and event triggers quoted
    """

    side: str
    kind: str
    name: str

    @property
    def action(self) -> Action:
        """Its public form."""
        return Action(f"drop {self.kind} {self.name} on the {self.side}")


def plan_removals(source: ours.Ours | None, target: ours.Ours) -> list[Removal]:
    """Everything that goes, in order; [] when it is gone (pure).

    Links first: a slot whose subscriber is left holds back WAL. The source's guards, event triggers and schema stay.

    :param source: None when it is gone
    """
    sides = {"source": source or ours.Ours(), "target": target}
    found = [Removal(side, "subscription", name) for side, have in sides.items() for name in have.subscriptions or {}]
    found += [Removal(side, "slot", slot.name) for side, have in sides.items() for slot in have.slots]
    found += [Removal(side, "publication", name) for side, have in sides.items() for name in have.publications]
    found += [Removal("target", "event trigger", name) for name in target.event_triggers]
    found += [Removal("target", "guard", name) for name in target.guards]
    found += [Removal(side, "role", name) for side in ("target", "source") for name in sides[side].roles]
    found += [Removal(side, PRIVILEGES, role.name) for side in ("target", "source") for role in sides[side].shared if role.here]
    if target.has_schema:
        found.append(Removal("target", "schema", schema.SCHEMA))
    return found


def remove(connection: Connection, removal: Removal) -> None:
    """Take one thing away.

    :raises ClientError: the server refused; a table stayed locked
    :raises WaitTimeout: somebody still uses the slot
    """
    name = removal.name
    if removal.kind == "subscription":
        settle.drop_subscription(connection, name)
    elif removal.kind == "slot":
        settle.drop_slot(connection, name)
    elif removal.kind == "guard":
        guards.remove_guard(connection, name)
    elif removal.kind in ("role", PRIVILEGES):
        schema.with_transaction(connection, _role_statements(connection, identifier(name), drop=removal.kind == "role"))
    elif removal.kind == "schema":
        schema.with_transaction(connection, _schema_statements(connection))
    else:
        statements = {
            "publication": f"DROP PUBLICATION {identifier(name)}",
            "event trigger": f"DROP EVENT TRIGGER {name}",
        }
        client.query(connection, statements[removal.kind])


def _schema_statements(connection: Connection) -> list[str]:
    """Where applications can ask for the target's health, that stays as it is, with whatever is built upon it; its rows go."""
    if not client.query_value(connection, "SELECT to_regclass(%s) IS NOT NULL", (schema.HEALTH[1],)):
        return [f"DROP SCHEMA {schema.SCHEMA} CASCADE"]
    tables = client.query(
        connection,
        "SELECT format('%%I.%%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relkind = 'r' AND format('%%I.%%I', n.nspname, c.relname) <> ALL (%s) ORDER BY 1",
        (schema.SCHEMA, list(schema.HEALTH)),
    )
    functions = client.query(
        connection,
        "SELECT p.oid::regprocedure::text AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
        "WHERE n.nspname = %s AND format('%%I.%%I', n.nspname, p.proname) <> %s ORDER BY 1",
        (schema.SCHEMA, HEALTH_FUNCTION),
    )
    drops = [*(f"DROP TABLE {row['name']}" for row in tables), *(f"DROP FUNCTION {row['name']}" for row in functions)]
    return [*drops, f"DELETE FROM {schema.HEALTH[0]}"]


def _role_statements(connection: Connection, role: str, *, drop: bool) -> list[str]:
    """What the migration granted goes first: a role that holds a privilege cannot be dropped."""
    if not client.query_value(connection, "SELECT to_regrole(%s) IS NOT NULL", (role,)):
        return []
    statements = []
    if client.query_value(connection, "SELECT to_regnamespace(%s) IS NOT NULL", (schema.SCHEMA,)):
        statements += [f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema.SCHEMA} FROM {role}", f"REVOKE ALL ON SCHEMA {schema.SCHEMA} FROM {role}"]
    database = client.query_value(connection, "SELECT quote_ident(current_database())")
    return [*statements, f"REVOKE ALL ON DATABASE {database} FROM {role}", *([f"DROP ROLE {role}"] if drop else [])]


def why_not(source: status.Side | None, target: status.Side, cut_over: str, poolers: list[dict[str, t.Any]]) -> list[str]:
    """Why the source may not be retired, one sentence each; [] when it may (pure).

    :param source: None when it is gone
    :param cut_over: state of phase cut_over in the journal
    :param poolers: ``{"name", "side", "paused"}`` of each
    """
    problems = []
    if decision.plan_serving(*(side.history for side in (source, target) if side is not None)) != "target":
        problems.append("The source serves the application by the decision that stands: run cut_over.yml before the source is retired.")
    if cut_over != "done":
        problems.append(f"Phase cut_over is {cut_over} in the journal: run cut_over.yml, which finishes it.")
    for name, side in (("source", source), ("target", target)):
        if side is not None and side.attempt is not None and side.attempt["state"] == "open":
            problems.append(
                f"An attempt to change who serves is open on the {name} (epoch {side.attempt['epoch']}): run cut_over.yml, which finishes or undoes it."
            )
        if side is not None and side.cutover_lock:
            problems.append(f"Somebody changes who serves now (lock on the {name}): wait until that run has ended.")
    for pooler in poolers:
        if pooler["side"] != "target":
            problems.append(f"Pooler {pooler['name']} does not lead to the target: look at pg-ha-dead-man there, which puts it on the side that serves.")
        if pooler["paused"]:
            problems.append(f"Pooler {pooler['name']} holds its clients: have it let them go on (RESUME on its console).")
    return problems


def record(connection: Connection, migration: str, state: str, run: str, evidence: dict[str, t.Any] | None = None) -> None:
    """Write the phase's row on one side; the same again changes nothing."""
    before = journal.read_phase(connection, migration, PHASE)
    after, actions = journal.plan_phase(before, journal.Wanted(state, run=run, evidence=evidence))
    if actions:
        journal.write_phase(connection, before, after)


def evidence(removals: list[Removal], source: ours.Ours | None, target: ours.Ours, started_at: str, finished_at: str) -> dict[str, t.Any]:
    """The document of a retirement that is done (pure).

    :param source: what was there; None when it is gone
    """
    sides = {"source": source or ours.Ours(), "target": target}
    stays = [
        f"Role {role.name} stays on the {side}, where it is needed in {', '.join(role.elsewhere)}: another migration has it."
        for side, have in sides.items()
        for role in have.shared
    ]
    return {
        "schema": "freight.pg_ha/retirement/1",
        "started_at": started_at,
        "finished_at": finished_at,
        "outcome": "done",
        "serves": "target",
        "source": "gone" if source is None else "fenced",
        "removed": [{"side": removal.side, "kind": removal.kind, "name": removal.name} for removal in removals],
        "kept": [*(KEPT if source is not None else ()), *stays],
        "not_removed": [NOT_REMOVED] if source is None else [],
        "backup": BACKUP,
    }
