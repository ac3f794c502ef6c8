# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The journal: one row per phase in ``ha_migration.phase`` on the target."""

from __future__ import annotations

import configparser
import json
import typing as t
from dataclasses import asdict, dataclass, replace

from .._core.errors import ClientError, PlanError
from .._core.outcome import Action
from .._postgresql import client
from .schema import SCHEMA, has_table

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# What ha_migration.phase can hold, and what a reader can find besides.
STATES = ("running", "done", "refused", "failed")
ABSENT = "absent"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class PhaseRecord:
    """A row of the journal.

    :param state: one of STATES, ABSENT (no row, schema or database yet) or UNKNOWN (the target could not be asked)
    :param inputs: fingerprint of the inputs of that run, "" when none was given
    :param run: name of the run that wrote it, "" when none was given
    :param started_at: ISO 8601 UTC, None when absent
    :param finished_at: ISO 8601 UTC, None while it runs
    :param evidence: the phase's evidence document
    """

    migration: str
    phase: str
    state: str = ABSENT
    inputs: str = ""
    run: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    evidence: dict[str, t.Any] | None = None

    def as_dict(self) -> dict[str, t.Any]:
        """All fields, JSON-able."""
        return asdict(self)

    def comparable(self) -> dict[str, t.Any]:
        """What a diff shows: everything but the server's clock."""
        return {key: value for key, value in asdict(self).items() if key not in ("started_at", "finished_at")}


@dataclass(frozen=True)
class Wanted:
    """The wanted row; None leaves a field as it is."""

    state: str
    inputs: str | None = None
    run: str | None = None
    evidence: dict[str, t.Any] | None = None


def connect_journal(
    service_file: str,
    service: str,
    application_name: str,
    connect_timeout_seconds: int,
    maintenance_database: str,
    patience_seconds: float = client.LEADER_PATIENCE_SECONDS,
) -> Connection | None:
    """A session in the database that holds the journal; None when that database does not exist on a server that answers.

    :param patience_seconds: how long to wait for a leader that is on its way
    :raises ClientError: the server cannot be reached or refuses us
    """
    arguments: dict[str, t.Any] = {
        "application_name": application_name,
        "connect_timeout_seconds": connect_timeout_seconds,
        "patience_seconds": patience_seconds,
    }
    try:
        return client.connect(service_file, service, **arguments)
    except ClientError:
        # libpq gives no SQLSTATE for a refused connection and its words may be translated: the server's own list of databases decides.
        name = service_database(service_file, service)
        if name is None:
            raise
        try:
            maintenance = client.connect(service_file, service, dbname=maintenance_database, **arguments)
        except ClientError:
            maintenance = None
        if maintenance is None:
            raise
        try:
            if client.query(maintenance, "SELECT FROM pg_database WHERE datname = %s", (name,)):
                raise
        finally:
            maintenance.close()
        return None


def service_database(service_file: str, service: str) -> str | None:
    """The database that a service names; None when the file or the service does not say."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(service_file, encoding="utf-8")
    except (configparser.Error, OSError):
        return None
    return parser.get(service, "dbname", fallback=None)


def has_service(service_file: str, service: str) -> bool:
    """Whether the service file has that service."""
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read(service_file, encoding="utf-8")
    except (configparser.Error, OSError) as error:
        raise ClientError(f"Cannot read the service file {service_file}: {client.explain(error)}.") from error
    return parser.has_section(service)


def has_journal(connection: Connection) -> bool:
    """Whether the table of the journal exists in this database."""
    return has_table(connection, "phase")


def read_phase(connection: Connection, migration: str, phase: str) -> PhaseRecord:
    """The row of a phase; state ABSENT where there is no row or no table yet."""
    absent = PhaseRecord(migration, phase)
    if not has_journal(connection):
        return absent
    iso = """'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'"""
    rows = client.query(
        connection,
        f"SELECT state, inputs, run, to_char(started_at AT TIME ZONE 'UTC', {iso}) AS started_at, "
        f"to_char(finished_at AT TIME ZONE 'UTC', {iso}) AS finished_at, "
        f"evidence::text AS evidence FROM {SCHEMA}.phase WHERE migration = %s AND phase = %s",
        (migration, phase),
    )
    if not rows:
        return absent
    row = rows[0]
    evidence = None if row["evidence"] is None else json.loads(row["evidence"])
    return replace(absent, **{**row, "evidence": evidence})


def read_strange(target: Connection, source: Connection | None, migration: str | None) -> str:
    """Why this target is not that of this migration and of this source; "" where nothing speaks against it.

    Who has the wrong inventory has other names for the same databases, or the same name for other databases.

    :param source: session on the source, None when it cannot be asked
    :param migration: its name, None when it is not known
    """
    if migration is not None and has_journal(target):
        others = [row["migration"] for row in client.query(target, f"SELECT DISTINCT migration FROM {SCHEMA}.phase WHERE migration <> %s", (migration,))]
        if others:
            return f"The target holds the journal of migration {', '.join(sorted(others))}, not of {migration}"
    if source is None:
        return ""
    known, found = _read_copied(target), _read_identity(source)
    if known is None:
        exchanged = _read_copied(source) == _read_identity(target)
        return f"Source and target are exchanged: database {found['database']} was copied from what is called the target" if exchanged else ""
    if known == found:
        return ""
    return (
        f"The target was copied from database {known['database']} of the server {known['system_identifier']}, "
        f"and the source is database {found['database']} of {found['system_identifier']}"
    )


def _read_copied(connection: Connection) -> dict[str, str] | None:
    """What this database was copied from; None where the copy does not say, or there is none."""
    if not has_table(connection, "copy"):
        return None
    rows = client.query(connection, f"SELECT detail->'source' AS known FROM {SCHEMA}.copy WHERE relation = '*'")
    return rows[0]["known"] if rows else None


def _read_identity(connection: Connection) -> dict[str, str]:
    return client.query(connection, "SELECT system_identifier::text, current_database()::text AS database FROM pg_control_system()")[0]


STRANGE_REMEDY = "use the inventory of that migration; a target that shall take part in another one is made anew"


def why_due(record: PhaseRecord, inputs: str | None, repeat: t.Sequence[str]) -> str:
    """Why a phase has to do its work now; "" when it is done, its inputs are unchanged and nobody asked for a repetition (pure)."""
    if record.state != "done":
        return {
            ABSENT: "it has not run yet",
            UNKNOWN: "the journal could not be read",
            "running": "an earlier run did not finish",
            "refused": "it was refused",
            "failed": "it failed",
        }[record.state]
    if inputs is not None and record.inputs != inputs:
        return "its inputs have changed"
    if record.phase in repeat:
        return "a repetition was asked for"
    return ""


def plan_phase(before: PhaseRecord, wanted: Wanted) -> tuple[PhaseRecord, list[Action]]:
    """The record as it shall be and the one action that makes it so; [] when it is so (pure).

    :raises PlanError: the wanted state is none that can be recorded
    """
    if wanted.state not in STATES:
        raise PlanError(f"The journal cannot hold the state {wanted.state!r}: use one of {', '.join(STATES)}.")
    # Evidence belongs to the state that it was recorded with: a phase that starts again has none.
    kept = before.evidence if before.state == wanted.state else None
    after = replace(
        before,
        state=wanted.state,
        inputs=before.inputs if wanted.inputs is None else wanted.inputs,
        # A finished row keeps the name of the run that finished it, or every further run would change it.
        run=before.run if wanted.run is None else wanted.run,
        evidence=kept if wanted.evidence is None else wanted.evidence,
    )
    if wanted.state != "running" and replace(after, run=before.run) == before:
        after = before
    if after == before:
        return before, []
    return after, [Action(f"record phase {after.phase} of {after.migration} as {after.state}")]


def remove_phase(connection: Connection, migration: str, phase: str) -> None:
    """Take a row away: what the phase had brought about is undone. Part of the caller's transaction, if there is one."""
    client.query(connection, f"DELETE FROM {SCHEMA}.phase WHERE migration = %s AND phase = %s", (migration, phase))


def write_phase(connection: Connection, before: PhaseRecord, after: PhaseRecord) -> None:
    """Write a row by the server's clock: a phase that goes on keeps its start. Part of the caller's transaction, if there is one."""
    client.query(
        connection,
        f"INSERT INTO {SCHEMA}.phase AS p (migration, phase, state, inputs, run, started_at, finished_at, evidence) "
        "VALUES (%(migration)s, %(phase)s, %(state)s, %(inputs)s, %(run)s, clock_timestamp(), "
        "CASE WHEN %(state)s <> 'running' THEN clock_timestamp() END, %(evidence)s::jsonb) "
        "ON CONFLICT (migration, phase) DO UPDATE SET state = EXCLUDED.state, inputs = EXCLUDED.inputs, run = EXCLUDED.run, "
        "started_at = CASE WHEN %(goes_on)s THEN p.started_at ELSE EXCLUDED.started_at END, finished_at = EXCLUDED.finished_at, evidence = EXCLUDED.evidence",
        {
            **after.as_dict(),
            "evidence": None if after.evidence is None else json.dumps(after.evidence, sort_keys=True),
            "goes_on": before.state == "running",
        },
    )
