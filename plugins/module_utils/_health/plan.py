# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What the health of a target is read from, and where probes write beside the application: names, DDL and what brings a side there (pure)."""

from __future__ import annotations

import typing as t

from .._core.outcome import Action
from .._postgresql import scram
from .._postgresql.quoting import identifier
from .._postgresql.timeline import TIMELINE

SCHEMA = "ha_migration"
TABLE = f"{SCHEMA}.health_checks"
VIEW = f"{SCHEMA}.health"
FUNCTION = f"{SCHEMA}.read_health"
PRIVILEGES = ("SELECT", "INSERT", "DELETE")

# Sessions of a role that was dropped, as the retirement of a migration does. A pooler keeps them by the role's name, and would hand them to whoever is called
# so next: to a role that has other rights.
ORPHANS = "FROM pg_stat_activity a WHERE datname = current_database() AND usesysid IS NOT NULL AND NOT EXISTS (SELECT FROM pg_roles WHERE oid = a.usesysid)"

# The same columns as ha_migration.probe, which is guarded and replicated: this one is neither, so that a target can be written before it serves.
CREATE_TABLE = (
    f"CREATE TABLE {TABLE} (run text NOT NULL, client integer NOT NULL, seq bigint NOT NULL, "
    "at timestamptz NOT NULL DEFAULT clock_timestamp(), PRIMARY KEY (run, client, seq))"
)
# What standbys do is shown to roles with pg_read_all_stats only; the function tells numbers, to everybody, and takes no input. A link's follower is no standby.
BODY = f"""
    SELECT NOT pg_is_in_recovery() AND NOT current_setting('default_transaction_read_only')::boolean,
           CASE WHEN NOT pg_is_in_recovery() THEN {TIMELINE} END,
           count(*) FILTER (WHERE state = 'streaming')::int,
           count(*) FILTER (WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum'))::int,
           max(CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) END)::bigint,
           (SELECT max(at) FROM {TABLE})
    FROM pg_stat_replication
    WHERE pid NOT IN (SELECT active_pid FROM pg_replication_slots WHERE slot_type = 'logical' AND active_pid IS NOT NULL)
"""
CREATE_FUNCTION = f"""CREATE OR REPLACE FUNCTION {FUNCTION}(
    OUT takes_writes boolean, OUT timeline integer, OUT streaming_standbys integer, OUT synchronous_standbys integer, OUT lag_bytes bigint,
    OUT last_check timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $health${BODY}$health$"""
CREATE_VIEW = f"CREATE OR REPLACE VIEW {VIEW} AS SELECT * FROM {FUNCTION}()"
GRANTS = (f"GRANT SELECT ON {VIEW} TO PUBLIC", f"GRANT USAGE ON SCHEMA {SCHEMA} TO PUBLIC")


def plan_health(before: dict[str, t.Any], writer: str, password: str, empty: bool = False) -> list[Action]:
    """Statements that make schema, table, view and the role that writes; [] when all is there.

    :param before: of :func:`.client.read_health`
    :param writer: role of the probe
    :param empty: no row stays
    """
    role = identifier(writer)
    actions = [Action(f"SELECT pg_terminate_backend(pid) {ORPHANS}")] if before["orphans"] else []
    if not before["schema"]:
        actions.append(Action(f"CREATE SCHEMA {SCHEMA}"))
    if not before["table"]:
        actions.append(Action(CREATE_TABLE))
    if empty and before["rows"]:
        actions.append(Action(f"DELETE FROM {TABLE}"))
    if not before["function"]:
        actions.append(Action(CREATE_FUNCTION))
    if not before["view"]:
        actions += [Action(CREATE_VIEW), *(Action(grant) for grant in GRANTS)]
    if not before["role"]:
        actions.append(Action(f"CREATE ROLE {role} LOGIN"))
    elif not before["login"]:
        actions.append(Action(f"ALTER ROLE {role} LOGIN"))
    verifier = scram.stable_verifier(SCHEMA, writer, password)
    if before["verifier"] != verifier:
        actions.append(Action(f"ALTER ROLE {role} PASSWORD '********'", f"ALTER ROLE {role} PASSWORD '{verifier}'"))
    if not before["connect"]:
        actions.append(Action(f"GRANT CONNECT ON DATABASE {identifier(before['database'])} TO {role}"))
    missing = [privilege for privilege in PRIVILEGES if privilege not in before["granted"]]
    if missing:
        actions.append(Action(f"GRANT {', '.join(missing)} ON {TABLE} TO {role}"))
    return actions
