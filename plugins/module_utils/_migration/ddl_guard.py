# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The guard against DDL on the side that serves while the other one follows: event triggers with one function.

DDL is not replicated. What an application alters on one side only stops the link sooner or later, and always the cutover, whose gate
compares both schemas by themselves. This guard says who did it and when (policy ``detect``), or does not let it happen (``refuse``).
It lets pass whatever is no part of the fingerprint, and everything while the link's slot is not there: a migration that was given up
hinders nobody, also when nobody is left who could take the guard away.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass

from .._core.errors import ClientError, PlanError, UsageError
from .._core.outcome import Action
from .._postgresql import client
from .._postgresql.quoting import literal
from . import schema

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

POLICIES = ("detect", "refuse")
FUNCTION = f"{schema.SCHEMA}.ddl_guard"
# The link whose slot stands on a side while that side serves and the other one follows.
LINKS = {"source": schema.FORWARD_LINK, "target": schema.REVERSE_LINK}
# Name -> event and tags. What runs CONCURRENTLY commits on its way and has to be refused before it begins.
TRIGGERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ha_migration_ddl_start": ("ddl_command_start", ("ALTER TABLE", "CREATE INDEX", "DROP INDEX")),
    "ha_migration_ddl_end": ("ddl_command_end", ()),
    "ha_migration_ddl_drop": ("sql_drop", ()),
}
NO_EVENT_TRIGGERS = (
    "The administrator of the {side} may not make event triggers (only a superuser may, or rds_superuser on RDS), so DDL there is noticed by "
    "comparing both schemas' fingerprints only: at every look at the status and before the cutover, without the name of who did it"
)

# What is made or altered, and what is dropped. Left out: temporary objects, our own schema, and what an extension's script does (that is
# the extension's own row). Before 18 a trigger, policy or rule has no schema of its own: its identity ends with that of its table.
_CHANGED = r"""
    SELECT array_agg(DISTINCT lower(c.object_type) || coalesce(' ' || c.object_identity, '')) INTO changed FROM pg_event_trigger_ddl_commands() c
    WHERE NOT c.in_extension AND coalesce(c.schema_name, '') NOT IN ('pg_temp', 'ha_migration')
      AND coalesce(c.object_identity, '') <> 'ha_migration' AND coalesce(c.object_identity, '') !~ ' on (pg_temp|ha_migration)\.';"""
_DROPPED = r"""
    SELECT array_agg(DISTINCT d.object_type || ' ' || d.object_identity) INTO changed FROM pg_event_trigger_dropped_objects() d
    WHERE d.original AND coalesce(d.schema_name, '') NOT IN ('pg_temp', 'ha_migration')
      AND d.object_identity <> 'ha_migration' AND d.object_identity !~ ' on (pg_temp|ha_migration)\.';"""

# Whatever the session has set: what names mean, and what a backslash does.
_SETTINGS = "SET search_path = pg_catalog SET standard_conforming_strings = on"


@dataclass(frozen=True)
class Wanted:
    """The guard of one side.

    :param side: on which it stands
    :param migration: its name, for the sentence
    :param policy: one of POLICIES
    """

    side: str
    migration: str
    policy: str


def function_body(wanted: Wanted) -> str:
    """Body of the event triggers' function (pure).

    Our own sessions pass by their application_name: this is a guard against accidents and not against people. The gate of the cutover
    compares the schemas, whatever was let through.

    :raises UsageError: the migration's name is none
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", wanted.migration):
        raise UsageError(f"{wanted.migration!r} is no name of a migration: it begins with a small letter and holds small letters, digits and underscores.")
    refused = f"DDL is refused while migration {wanted.migration} follows this database: "
    hint = (
        "Wait until the clients have moved. What cannot wait: set pg_ha_ddl_policy to detect, run playbook replicate.yml, make the same change on both "
        "sides, run playbook verify.yml."
    )
    return rf"""
DECLARE
  policy CONSTANT text := '{wanted.policy}';
  changed text[];
BEGIN
  IF current_setting('application_name') LIKE 'ha\_migration%' OR tg_tag ~ ' (PUBLICATION|SUBSCRIPTION)$'
     OR tg_tag IN ('COMMENT', 'SECURITY LABEL', 'REFRESH MATERIALIZED VIEW', 'REINDEX')
     OR NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{LINKS[wanted.side]}' AND database = current_database()
                    AND wal_status IS DISTINCT FROM 'lost')
  THEN RETURN; END IF;
  IF tg_event = 'ddl_command_start' THEN
    IF policy = 'refuse' AND current_query() ~* '\m(index\s+concurrently|detach\M.*\mconcurrently)\M' THEN
      changed := ARRAY['an index or partition, concurrently'];
    END IF;
  ELSIF tg_event = 'ddl_command_end' THEN{_CHANGED}
  ELSIF tg_tag LIKE 'DROP %' THEN{_DROPPED}
  END IF;
  IF changed IS NULL THEN RETURN; END IF;
  IF policy = 'refuse' THEN
    RAISE EXCEPTION USING ERRCODE = '55000', HINT = '{hint}',
      MESSAGE = '{refused}' || tg_tag || ' (' || changed[1] || CASE WHEN cardinality(changed) > 1 THEN ' and more' ELSE '' END || ')';
  END IF;
  INSERT INTO {schema.SCHEMA}.ddl (role, command, object) SELECT session_user, tg_tag, unnest(changed);
END """


def closing_statement(epoch: int, serves: str) -> str:
    """Where the guard stands, have it refuse all DDL from the decision on (pure): a table that is made then is on no other side, and has no guard of its own.

    :param epoch: the attempt that closes this side
    :param serves: the side that serves instead
    """
    body = rf"""
BEGIN
  IF current_setting('application_name') LIKE 'ha\_migration%' OR tg_tag ~ ' (PUBLICATION|SUBSCRIPTION)$' THEN RETURN; END IF;
  RAISE EXCEPTION USING ERRCODE = '25006', HINT = 'Connect through the pooler.',
    MESSAGE = 'this server takes no writes of applications, and no ' || tg_tag || ': since epoch {epoch} the {serves} serves them';
END """
    return f"DO $do$ BEGIN IF to_regproc('{FUNCTION}') IS NOT NULL THEN EXECUTE {literal(_declared(body))}; END IF; END $do$"


def _declared(body: str) -> str:
    return f"CREATE OR REPLACE FUNCTION {FUNCTION}() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER {_SETTINGS} AS $guard${body}$guard$"


def read_guard(connection: Connection, tries: bool = False) -> dict[str, t.Any]:
    """What of it stands on one side.

    :param tries: whether a session without a superuser's rights tries to make an event trigger, in a transaction that is rolled back
    :returns: ``{"body" (of the function, None where there is none), "triggers" (names of those that are as they shall be), "others" (names of
      those that are not), "table": bool, "may": bool (the session's role may make event triggers)}``
    """
    bodies = client.query(
        connection,
        "SELECT p.prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = %s AND p.proname = 'ddl_guard'",
        (schema.SCHEMA,),
    )
    rows = client.query(
        connection,
        "SELECT e.evtname::text AS name, e.evtevent::text AS event, coalesce(e.evttags, '{}') AS tags, e.evtenabled = 'O' AS enabled, "
        "n.nspname = %s AND p.proname = 'ddl_guard' AS ours "
        "FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid JOIN pg_namespace n ON n.oid = p.pronamespace WHERE e.evtname::text = ANY (%s)",
        (schema.SCHEMA, list(TRIGGERS)),
    )
    right = {row["name"] for row in rows if row["enabled"] and row["ours"] and (row["event"], tuple(sorted(row["tags"]))) == TRIGGERS[row["name"]]}
    may = client.query_value(connection, "SELECT current_setting('is_superuser') = 'on'") or (tries and _is_let(connection))
    table = client.query_value(
        connection,
        "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relname = 'ddl')",
        (schema.SCHEMA,),
    )
    body = bodies[0]["prosrc"] if bodies else None
    return {"body": body, "triggers": sorted(right), "others": sorted({row["name"] for row in rows} - right), "table": bool(table), "may": bool(may)}


def _is_let(connection: Connection) -> bool:
    """Whether a session without a superuser's rights may make event triggers, as services allow their administrators: known by trying, and nothing stays."""
    service = client.query_value(connection, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_superuser' AND pg_has_role(oid, 'MEMBER'))")
    if not service:
        return False
    try:
        client.query(connection, _TRY)
    except ClientError as error:
        if error.details.get("sqlstate") != "42501":
            raise
        return False
    finally:
        client.query(connection, "ROLLBACK")
    return True


# For no command that there is; seen by nobody else, since it is rolled back.
_TRY = (
    "BEGIN; CREATE FUNCTION pg_temp.ha_migration_try() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; "
    "CREATE EVENT TRIGGER ha_migration_try ON sql_drop WHEN TAG IN ('DROP CAST') EXECUTE FUNCTION pg_temp.ha_migration_try()"
)


def policy_of(guard: dict[str, t.Any]) -> str | None:
    """The policy that is in force on a side; None where no guard stands (pure)."""
    if guard["body"] is None or guard["triggers"] != sorted(TRIGGERS):
        return None
    found = re.search(r"policy CONSTANT text := '(\w+)'", guard["body"])
    return found.group(1) if found else None


def plan_guard(before: dict[str, t.Any], wanted: Wanted | None) -> list[Action]:
    """Statements that bring one side's guard to what is wanted; [] when it is there (pure).

    :param wanted: None: no guard
    :raises PlanError: DDL shall be refused and the administrator may not make an event trigger
    """
    if wanted is None:
        actions = [Action(f"DROP EVENT TRIGGER {name}") for name in (*before["others"], *before["triggers"])]
        return actions + ([Action(f"DROP FUNCTION {FUNCTION}()")] if before["body"] is not None else [])
    if not before["may"]:
        if wanted.policy == "refuse":
            why = NO_EVENT_TRIGGERS.format(side=wanted.side)
            raise PlanError(f"DDL cannot be refused. {why}. Set pg_ha_ddl_policy to detect.")
        return []
    actions = [] if before["table"] else [Action(f"CREATE TABLE {schema.SCHEMA}.ddl ({' '.join(schema.TABLES['ddl'].split())})")]
    body = function_body(wanted)
    if before["body"] != body:
        actions.append(Action(f"CREATE OR REPLACE FUNCTION {FUNCTION}() RETURNS event_trigger (policy {wanted.policy})", _declared(body)))
    for name, (event, tags) in TRIGGERS.items():
        if name in before["others"]:
            actions.append(Action(f"DROP EVENT TRIGGER {name}"))
        if name not in before["triggers"]:
            words = ", ".join(f"'{tag}'" for tag in tags)
            actions.append(Action(f"CREATE EVENT TRIGGER {name} ON {event}{f' WHEN TAG IN ({words})' if tags else ''} EXECUTE FUNCTION {FUNCTION}()"))
    return actions


def apply(connection: Connection, actions: list[Action]) -> None:
    """Run the plan in one transaction."""
    if actions:
        schema.with_transaction(connection, [action.statement for action in actions])


def remove(connection: Connection) -> None:
    """Take the guard away; what it has recorded stays."""
    apply(connection, plan_guard(read_guard(connection), None))


def read_recorded(connection: Connection, since: str | None = None, limit: int = 5) -> list[dict[str, t.Any]]:
    """The newest DDL that was recorded on one side, oldest first: ``[{"at", "role", "command", "object"}]``.

    :param since: ISO 8601; what came before it is left out
    """
    if not schema.has_table(connection, "ddl"):
        return []
    rows = client.query(
        connection,
        "SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS at, role, command, object "
        f"FROM {schema.SCHEMA}.ddl WHERE %s::timestamptz IS NULL OR at >= %s::timestamptz ORDER BY number DESC LIMIT %s",
        (since, since, limit),
    )
    return rows[::-1]


def count_recorded(connection: Connection) -> int | None:
    """How many commands one side has recorded; None where it records none. A number of one would not do: who took the next may commit first."""
    return int(client.query_value(connection, f"SELECT count(*) FROM {schema.SCHEMA}.ddl")) if schema.has_table(connection, "ddl") else None


def read_recorded_since(connection: Connection, before: int | None) -> list[dict[str, t.Any]]:
    """What was recorded since a count, as :func:`read_recorded`; without one nothing is.

    :param before: of :func:`count_recorded`
    """
    more = 0 if before is None else int(client.query_value(connection, f"SELECT count(*) FROM {schema.SCHEMA}.ddl")) - before
    return read_recorded(connection, limit=more) if more else []


def sentence(row: dict[str, t.Any], side: str) -> str:
    """One recorded command for the operator (pure)."""
    return f"at {row['at']} role {row['role']} ran {row['command']} on the {side}: {row['object']}"
