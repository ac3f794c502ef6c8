# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Schema ``ha_migration``: the journal, the decision and what travels with the data. The same text on both sides."""

from __future__ import annotations

import typing as t

from .._core.errors import ClientError
from .._core.outcome import Action
from .._postgresql import client

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

SCHEMA = "ha_migration"
# Table and view of module health_checks, which are not the migration's.
HEALTH = (f"{SCHEMA}.health_checks", f"{SCHEMA}.health")
VERSION = 2
GUARD_TRIGGER = "ha_migration_guard"
# One name each for publication, subscription and slot of a direction.
FORWARD_LINK = "ha_migration_forward"
REVERSE_LINK = "ha_migration_reverse"
# What is published beside the application's tables, per direction. The decision itself is not: it is announced as a marker row, so
# that nobody's local insert can collide with an applied one. A marker table serves one direction only, because an old publisher
# would send applied rows back.
FORWARD_TABLES = ("marker", "probe")
REVERSE_TABLES = ("marker_back", "probe")
# Advisory locks on the source (key 1 is ours, key 2 says what for).
LOCK_CLASS = 4_718_001
LOCK_COPY = 1
LOCK_CUTOVER = 2
# What is said where the latter is taken.
CUTOVER_RUNS = "Another cutover or roll back of this migration runs just now, or a comparison of its rows: wait for its end."
CHANNEL = "ha_migration"


def dead_man_name(pooler: str) -> str:
    """application_name of the dead man of a pooler, by which a gate sees that it listens (PostgreSQL cuts names at 63 bytes)."""
    return f"ha_migration dead man {pooler}"[:63]


TABLES: dict[str, str] = {
    "version": "version integer PRIMARY KEY, made_at timestamptz NOT NULL DEFAULT now()",
    "phase": """
        migration text NOT NULL, phase text NOT NULL,
        state text NOT NULL CHECK (state IN ('running', 'done', 'refused', 'failed')),
        inputs text NOT NULL, run text NOT NULL,
        started_at timestamptz NOT NULL, finished_at timestamptz,
        evidence jsonb,
        PRIMARY KEY (migration, phase)""",
    # What the initial copy has done: one row per relation (quoted name), and '*' for the whole, with its step and report in detail.
    "copy": """
        relation text PRIMARY KEY,
        state text NOT NULL CHECK (state IN ('waiting', 'copying', 'done', 'failed')),
        bytes_total bigint NOT NULL, rows_done bigint,
        started_at timestamptz, finished_at timestamptz,
        detail jsonb NOT NULL DEFAULT '{}'""",
    # An attempt to change who serves. Stands on the side that serves when it opens.
    "epoch": """
        epoch bigint PRIMARY KEY,
        run text NOT NULL,
        leaves text NOT NULL CHECK (leaves IN ('source', 'target')),
        state text NOT NULL CHECK (state IN ('open', 'closed')),
        budget_ms integer NOT NULL,
        opened_at timestamptz NOT NULL DEFAULT now(), closed_at timestamptz,
        evidence jsonb""",
    # Write-once: the mover, every dead man and every re-run compete for it. ahead_lsn: where the WAL of the side that serves from then on
    # holds all that came from the side left, and nothing else yet; the way back begins there.
    "decision": """
        epoch bigint PRIMARY KEY,
        serves text NOT NULL CHECK (serves IN ('source', 'target')),
        decided_by text NOT NULL,
        at timestamptz NOT NULL DEFAULT now(),
        ahead_lsn pg_lsn""",
    # Published source to target: barriers of order, and (serves not null) the announcement that opens the guard there.
    "marker": """
        id text PRIMARY KEY,
        epoch bigint,
        serves text CHECK (serves = 'target'),
        at timestamptz NOT NULL DEFAULT now()""",
    # The same, target to source.
    "marker_back": """
        id text PRIMARY KEY,
        epoch bigint,
        serves text CHECK (serves = 'source'),
        at timestamptz NOT NULL DEFAULT now()""",
    "probe": """
        run text NOT NULL, client integer NOT NULL, seq bigint NOT NULL,
        at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (run, client, seq)""",
    # Acknowledgements: each pooler's dead man, and the mover's own barriers (keeper 'mover').
    "keeper": """
        keeper text NOT NULL, epoch bigint NOT NULL,
        state text NOT NULL,
        at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (keeper, epoch, state)""",
    # DDL on the side that serves while the other one follows (ddl_guard.py): who, what and when, never the statement, which may hold data.
    "ddl": """
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        role text NOT NULL, command text NOT NULL, object text NOT NULL""",
}

ONE_OPEN_EPOCH = "one_open_epoch"

# What brings a schema of the version before to that version.
UPGRADES = {2: f"ALTER TABLE {SCHEMA}.decision ADD COLUMN IF NOT EXISTS ahead_lsn pg_lsn"}


def has_table(connection: Connection, name: str) -> bool:
    """Whether this database has our table of that name."""
    return bool(client.query_value(connection, "SELECT pg_catalog.to_regclass(%s) IS NOT NULL", (f"{SCHEMA}.{name}",)))


def read_schema(connection: Connection) -> dict[str, t.Any]:
    """What exists of the schema on one side.

    :returns: ``{"version": int | None, "tables": [names], "one_open_epoch": bool, "guard": bool}``
    """
    tables = [
        row["relname"]
        for row in client.query(
            connection,
            "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind = 'r' ORDER BY 1",
            (SCHEMA,),
        )
    ]
    version = client.query(connection, f"SELECT max(version) AS version FROM {SCHEMA}.version")[0]["version"] if "version" in tables else None
    found = client.query(
        connection,
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = %s) AS one_open_epoch, "
        "EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = %s AND p.proname = 'guard') AS guard",
        (SCHEMA, ONE_OPEN_EPOCH, SCHEMA),
    )[0]
    return {"version": version, "tables": tables, **found}


def plan_schema(before: dict[str, t.Any]) -> list[Action]:
    """Statements that bring one side's schema to VERSION; [] when it is there (pure).

    The guard is made permissive only where none exists: an existing body carries a decision.
    """
    actions = []
    if before["version"] is None:
        actions.append(Action(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
    for name, columns in TABLES.items():
        if name not in before["tables"]:
            actions.append(Action(f"CREATE TABLE {SCHEMA}.{name} ({' '.join(columns.split())})"))
    if not before["one_open_epoch"]:
        actions.append(Action(f"CREATE UNIQUE INDEX {ONE_OPEN_EPOCH} ON {SCHEMA}.epoch ((true)) WHERE state = 'open'"))
    if not before["guard"]:
        actions.append(Action(guard_function(GuardPermissive())))
    actions += [Action(statement) for version, statement in UPGRADES.items() if (before["version"] or VERSION) < version]
    if before["version"] != VERSION:
        actions.append(Action(f"INSERT INTO {SCHEMA}.version (version) VALUES ({VERSION})"))
    return actions


class GuardPermissive:
    """The guard of the serving side: lets everybody through."""


class GuardRefusing:
    """The guard of a side that has stopped to serve: refuses everybody, whatever snapshot they hold.

    :param epoch: the attempt that closed it
    :param serves: the side that serves instead
    """

    def __init__(self, epoch: int, serves: str) -> None:
        self.epoch = epoch
        self.serves = serves


class GuardAwaiting:
    """The guard of the next side: refuses until the announcement of this epoch has arrived. Reading a row is unsafe for closing,
    since a repeatable read session sees the old one, and safe for opening: an old snapshot refuses.

    :param epoch: the attempt that may open it
    :param opens: the side on which it stands
    """

    def __init__(self, epoch: int, opens: str) -> None:
        self.epoch = epoch
        self.opens = opens


def link_towards(serves: str) -> str:
    """Name of the link that brings the rows to side ``serves``."""
    return FORWARD_LINK if serves == "target" else REVERSE_LINK


def announcement_table(serves: str) -> str:
    """Table (with schema) whose row announces on side ``serves`` that it serves."""
    return f"{SCHEMA}.{'marker' if serves == 'target' else 'marker_back'}"


def guard_function(guard: GuardPermissive | GuardRefusing | GuardAwaiting) -> str:
    """CREATE OR REPLACE for the one trigger function of a side.

    SECURITY DEFINER, because applications have no right to look into our schema. SQLSTATE 25006 (read_only_sql_transaction) is
    what drivers already take for "this is not the primary".
    """
    if isinstance(guard, GuardRefusing):
        body = _raise(f"since epoch {guard.epoch} the {guard.serves} serves them")
    elif isinstance(guard, GuardAwaiting):
        why = f"the migration has not been decided for this {guard.opens} (epoch {guard.epoch})"
        announced = f"SELECT FROM {announcement_table(guard.opens)} WHERE epoch = {guard.epoch} AND serves = '{guard.opens}'"
        body = f"IF NOT EXISTS ({announced}) THEN {_raise(why)} END IF;"
    else:
        body = ""
    return (
        f"CREATE OR REPLACE FUNCTION {SCHEMA}.guard() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog "
        f"AS $guard$ BEGIN {body} RETURN NULL; END $guard$"
    )


def _raise(why: str) -> str:
    """The statement of PL/pgSQL that refuses a write."""
    return f"RAISE EXCEPTION USING ERRCODE = '25006', MESSAGE = 'this server takes no writes of applications: {why}', HINT = 'Connect through the pooler.';"


def ensure_schema(connection: Connection) -> list[Action]:
    """Bring the schema of one side to VERSION in one transaction; returns what was done."""
    actions = plan_schema(read_schema(connection))
    if actions:
        with_transaction(connection, [action.statement for action in actions])
    return actions


def with_transaction(connection: Connection, statements: list[str]) -> None:
    """Run statements in one transaction on an autocommit session; nothing of it stays when one fails."""
    try:
        client.query(connection, "BEGIN; " + "; ".join(statements) + "; COMMIT")
    except ClientError:
        client.query(connection, "ROLLBACK")
        raise
