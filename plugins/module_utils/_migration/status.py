# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Where a migration stands: what one side knows of it, and the whole in words. Reads only; what could not be read is unknown."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._postgresql import client
from . import ddl_guard, decision, journal, leftovers, schema, section

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# In the order of the path; those after the report stand apart and are shown when they were run.
PHASES = ("assess", "provision", "replicate", "verify", "test_failover", "cut_over", "roll_back", "retire_source")
COMMANDS = {phase: phase.replace("_", "-") for phase in PHASES}
# How many differences and commands are told.
TOLD = 5
# Phases that every migration goes through, and so what comes next.
DUE = ("assess", "provision", "replicate", "verify", "cut_over")

History = list[tuple[int, str]]


@dataclass(frozen=True)
class Side:
    """What one side knows.

    :param has_schema: whether schema ha_migration is there
    :param history: every change of hands that it knows
    :param attempt: the newest attempt that left it
    :param cutover_lock: whether a module cutover works on it now
    """

    has_schema: bool
    history: History
    attempt: dict[str, t.Any] | None
    cutover_lock: bool


NOTHING = Side(has_schema=False, history=[], attempt=None, cutover_lock=False)


def read_side(connection: Connection, side: str) -> Side:
    """Ask one side."""
    history = decision.read_history(connection, side)
    locked = bool(
        client.query_value(
            connection,
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND granted "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))",
            (schema.LOCK_CLASS, schema.LOCK_CUTOVER),
        )
    )
    if not schema.has_table(connection, "epoch"):
        return Side(False, history, None, locked)
    last, opened = decision.read_last_epoch(connection), decision.read_open_epoch(connection)
    attempt = None
    if last is not None:
        evidence = last["evidence"] or {}
        attempt = {key: last[key] for key in ("epoch", "run", "leaves", "state", "decided")}
        attempt.update(outcome=evidence.get("outcome"), reason=evidence.get("reason"), budget_ms=opened["budget_ms"] if opened else None)
    return Side(True, history, attempt, locked)


def read_phases(connection: Connection | None, migration: str) -> list[dict[str, t.Any]]:
    """Every phase's row of the journal, without its evidence; ``connection`` None is a database that does not exist."""
    records = [journal.PhaseRecord(migration, phase) if connection is None else journal.read_phase(connection, migration, phase) for phase in PHASES]
    keys = ("phase", "state", "run", "started_at", "finished_at")
    return [{**{key: record.as_dict()[key] for key in keys}, "reason": (record.evidence or {}).get("reason")} for record in records]


def read_cluster(connection: Connection) -> dict[str, t.Any]:
    """The target's leader as its own server sees it."""
    found = section.read_durability(connection)
    return {"leader": connection.info.host or None, "timeline": found["timeline"], "sync_standbys": found["sync_standbys"]}


def read_schemas(source: Connection, differences: list[str], verified_at: str | None) -> dict[str, t.Any]:
    """What keeps both sides' schemas in step, and what came between.

    :param differences: of their fingerprints, in words
    :param verified_at: when they were last compared for good; DDL before it is no news
    """
    return {
        "differences": differences[:TOLD],
        "differences_total": len(differences),
        "policy": ddl_guard.policy_of(ddl_guard.read_guard(source)),
        "ddl": ddl_guard.read_recorded(source, verified_at, TOLD),
    }


def plan_phases(recorded: list[dict[str, t.Any]] | None, exported: dict[str, dict[str, t.Any]]) -> list[dict[str, t.Any]]:
    """The journal's phases; where it has none, what the evidence on the controller says (pure).

    :param recorded: None when the journal could not be read
    :param exported: phase -> ``outcome``, ``started_at``, ``finished_at`` of the evidence on the controller
    """
    rows = recorded or [dict.fromkeys(("run", "started_at", "finished_at", "reason")) | {"phase": phase, "state": journal.UNKNOWN} for phase in PHASES]
    found = []
    for row in rows:
        document = exported.get(row["phase"])
        if document and row["state"] == journal.ABSENT:
            row = {**row, "state": document.get("outcome") or journal.UNKNOWN, **{key: document.get(key) for key in ("started_at", "finished_at")}}
        found.append(row)
    return found


def plan_serves(source: History | None, target: History | None) -> str:
    """The side that serves; ``unknown`` when a side that could not be asked might know better (pure).

    To leave a side is decided on that side: what it says of itself alone is sure.
    """
    if source is not None and target is not None:
        return decision.plan_serving(source, target)
    if source is not None and decision.plan_serving(source) == "source":
        return "source"
    if target is not None and decision.plan_serving(target) == "target":
        return "target"
    return "unknown"


def newest(*attempts: dict[str, t.Any] | None) -> dict[str, t.Any] | None:
    """The newest of the attempts that are known (pure)."""
    return max((attempt for attempt in attempts if attempt), key=lambda attempt: attempt["epoch"], default=None)


def describe(status: dict[str, t.Any]) -> list[str]:
    """The status in sentences (pure)."""
    serves = "It is unknown who serves the application" if status["serves"] == "unknown" else f"The {status['serves']} serves the application"
    lines = [f"{serves} (migration {status['migration']})."]
    lines += [line for phase in status["phases"] if (line := _describe_phase(phase, status))]
    lines += _describe_work(status)
    if status["copy"] and status["copy"]["state"] != "absent":
        lines.append(f"Copy: {status['copy']['summary']}.")
    if status["way_back"]:
        lines.append(status["way_back"]["sentence"])
    elif status["link"]:
        lines.append(_describe_link(status["link"]))
    if status["schemas"]:
        lines += _describe_schemas(status["schemas"])
    lines += [_describe_pooler(pooler, status["serves"]) for pooler in status["poolers"]]
    if status["cluster"]:
        cluster = status["cluster"]
        lines.append(f"Target: {cluster['leader']} leads on timeline {cluster['timeline']}, synchronous standbys: {cluster['sync_standbys']}.")
    lines += [*status["disagreements"], *(leftovers.sentence(row) for row in status["leftovers"])]
    return [*lines, *_describe_next(status)]


def _describe_phase(phase: dict[str, t.Any], status: dict[str, t.Any]) -> str:
    name, state = phase["phase"].replace("_", " "), phase["state"]
    if state in (journal.ABSENT, journal.UNKNOWN) and status["retired"]:
        return ""
    if state == journal.ABSENT:
        return f"  {name:14}has not run" if phase["phase"] in DUE else ""
    if state == journal.UNKNOWN:
        return f"  {name:14}unknown" if phase["phase"] in DUE else ""
    if state == "running":
        idle = "" if _works(phase["phase"], status) else ", and nobody works on it: run it again to go on"
        return f"  {name:14}running since {phase['started_at']}{idle}"
    at, why = phase["finished_at"], phase["reason"]
    return f"  {name:14}{state}" + (f" at {at}" if at else "") + (f": {why}" if why else "")


def _works(phase: str, status: dict[str, t.Any]) -> bool:
    """Whether somebody works on a phase now, as far as it can be seen; a phase whose work leaves no trace counts as worked on."""
    if phase == "replicate":
        return bool(status["copy"]) and not status["copy"]["ended"]
    if phase == "verify":
        return bool(status["comparison_running"])
    if phase in ("cut_over", "roll_back"):
        return bool(status["cutover_running"]) or bool(status["probes_running"])
    return True


def _describe_work(status: dict[str, t.Any]) -> list[str]:
    """What is under way on the mover and the poolers."""
    lines = []
    attempt = status["attempt"]
    if attempt and attempt["state"] == "open":
        decided = f"decided for the {attempt['decided']}" if attempt["decided"] else "not decided yet"
        budget = f"{attempt['budget_ms'] / 1000:g} s" if attempt["budget_ms"] else "its budget"
        where = "it is worked on" if status["cutover_running"] else f"nobody works on it: the dead men decide within {budget}, and the same command finishes it"
        lines.append(f"A cutover is under way (epoch {attempt['epoch']}), {decided}; {where}.")
    elif attempt and attempt["outcome"] == "undone":
        lines.append(f"The last cutover (epoch {attempt['epoch']}) was undone: {attempt['reason']}")
    if status["copy"] and status["copy"]["state"] == "running":
        lines.append("The copy runs on the mover; `pg-ha replicate` waits for it and goes on.")
    if status["comparison_running"]:
        lines.append("A comparison runs on the mover; it ends by itself.")
    if status["probes_running"]:
        lines.append(f"A probe writes through the pooler ({', '.join(status['probes_running'])}); it ends by itself within minutes.")
    return lines


def _describe_link(link: dict[str, t.Any]) -> str:
    if not link["following"]:
        return f"Link: does not follow ({'; '.join(link['problems'])})."
    late = "" if link["lag_seconds"] is None else f" ({link['lag_seconds']:.1f} s)"
    alarm = f" {link['alarm']}." if link["alarm"] else ""
    return f"Link: the {'target' if link['name'] == schema.FORWARD_LINK else 'source'} follows, lag {link['lag_bytes']} bytes{late}.{alarm}"


def _describe_schemas(schemas: dict[str, t.Any]) -> list[str]:
    how = {None: "without a guard, so nobody is named", "detect": "recorded", "refuse": "refused"}[schemas["policy"]]
    if not schemas["differences"]:
        stops = "; what came since the last comparison may stop the cutover until rows are compared again" if schemas["ddl"] else ""
        lines = [f"Schema: both sides are in step; DDL on the source is {how}{stops}."]
    else:
        number, shown = schemas["differences_total"], "; ".join(schemas["differences"])
        more = f"; and {number - len(schemas['differences'])} more" if number > len(schemas["differences"]) else ""
        lines = [f"Schema: out of step in {number} objects, which stops the cutover until both sides are equal: {shown}{more}. DDL on the source is {how}."]
    return lines + [f"  DDL {ddl_guard.sentence(row, 'source')}." for row in schemas["ddl"]]


def _describe_pooler(pooler: dict[str, t.Any], serves: str) -> str:
    held = "it holds its clients" if pooler["paused"] else "clients go through"
    wrong = "" if serves in ("unknown", pooler["side"]) else f"; this is not the side that serves: look at pg-ha-dead-man on {pooler['name']}"
    side = "neither side" if pooler["side"] == "elsewhere" else f"the {pooler['side']}"
    return f"Pooler {pooler['name']}: leads to {pooler['host']}:{pooler['port']}, {side}; {held}{wrong}."


def _describe_next(status: dict[str, t.Any]) -> list[str]:
    """The command that goes on, where it is known what is next."""
    if status["retired"]:
        return [f"The migration is retired since {status['retired']}: the target serves alone. Stopping the source's server is the operator's act."]
    if status["unknown"]:
        return []
    waiting = [phase["phase"] for phase in status["phases"] if phase["phase"] in DUE and phase["state"] != "done"]
    if not waiting:
        return ["Nothing is left to do: `pg-ha report` renders the evidence."]
    if waiting[0] == "verify" and any(phase["phase"] == "verify" and phase["state"] == "failed" for phase in status["phases"]):
        # To compare again mends nothing; where no rows differ, replicate changes nothing.
        return ["Next: `pg-ha replicate`, which copies tables again that differ, then `pg-ha verify`; or `pg-ha migrate` for everything that is left."]
    return [f"Next: `pg-ha {COMMANDS[waiting[0]]}`, or `pg-ha migrate` for everything that is left."]
