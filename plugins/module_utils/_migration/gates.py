# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The gates of a cutover: each reads one thing and says what is wrong and what to do. What cannot be read has failed."""

from __future__ import annotations

import contextlib
import datetime
import time
import typing as t
from dataclasses import asdict, dataclass, field

from .._core.errors import GateError, PgHaError
from .._postgresql import client, scram
from .._postgresql.console import read_pooled
from .._postgresql.quoting import identifier
from .._postgresql.role_needs import NEEDS
from .._postgresql.slots import read_given_up, read_slot_wal
from . import ddl_guard, decision, guards, journal, schema, section, settle

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


@dataclass(frozen=True)
class Failure:
    """A gate that does not hold.

    :param gate: the gate's name
    :param object: what it is about
    :param message: what is wrong
    :param remedy: what to do
    """

    gate: str
    object: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Schemas:
    """Both sides' schemas, compared.

    :param differences: in words
    :param hashes: fingerprint by side
    :param objects: what either side has, as fingerprints name it
    """

    differences: list[str]
    hashes: dict[str, str]
    objects: frozenset[str]


@dataclass(frozen=True)
class Context:
    """What gates look at.

    :param here: session on the side that serves
    :param ahead: session on the next side
    :param poolers: names of all poolers
    :param open_console: opens the console of one of them
    :param leaves: side that serves
    :param serves: next side
    :param database: pooled database
    :param roles: application roles, quoted
    :param endpoint_now: (host, port) that poolers must show now
    :param parity: evidence of the last full comparison, or None
    :param parity_max_age_seconds: how old it may be
    :param long_transaction_seconds: from when on a transaction counts as long
    :param sync_sides: sides that must show a synchronous standby, because they fail over
    :param compare_schema: compares the two sides' schema fingerprints
    :param window_seconds: with method dump the declared maintenance window
    :param roles_declared: whether somebody has said which roles are the applications', or they are all that log in
    :param compare_roles: what of the roles that log in differs, besides applications' passwords, in words; None where nothing brings it in step
    :param check_copy: with method dump raises what forbids the copy to begin
    :param passwords: those of application roles, by plain name, as far as they are given
    :param is_password_of: whether a password is a role's, tried on a side: ``is_password_of(side, name, password)``
    """

    here: Connection
    ahead: Connection
    poolers: tuple[str, ...]
    open_console: t.Callable[[str], Connection]
    leaves: str
    serves: str
    database: str
    roles: tuple[str, ...]
    endpoint_now: tuple[str, int]
    parity: dict[str, t.Any] | None
    parity_max_age_seconds: int
    long_transaction_seconds: float
    sync_sides: tuple[str, ...]
    compare_schema: t.Callable[[], Schemas]
    window_seconds: float | None = None
    roles_declared: bool = True
    compare_roles: t.Callable[[], list[str]] | None = None
    check_copy: t.Callable[[], None] | None = None
    passwords: t.Mapping[str, str] = field(default_factory=dict, repr=False)
    is_password_of: t.Callable[[str, str, str], bool] | None = None


Gate = t.Callable[[Context], t.Iterable[Failure]]


def evaluate(context: Context, chosen: t.Sequence[Gate]) -> list[dict[str, str]]:
    """Every failed gate of all of them, not just the first; a gate that cannot be evaluated has failed."""
    failures: list[Failure] = []
    for gate in chosen:
        try:
            failures.extend(gate(context))
        except (PgHaError, KeyError, TypeError, ValueError) as error:
            failures.append(_unknown(gate.__name__, "", error))
    return [asdict(failure) for failure in failures]


def _unknown(gate: str, what: str, error: Exception) -> Failure:
    return Failure(gate, what, f"could not be evaluated: {str(error).rstrip('.')}", "mend what hinders it; unknown counts as failed")


def strange(sides: dict[str, Connection]) -> list[dict[str, str]]:
    """Why these two sides are not those of one migration: whoever has the wrong inventory stops here, before any other gate writes its marker.

    :param sides: session by side
    """
    for side, connection in sides.items():
        if not schema.has_table(connection, "epoch"):
            words = "it takes part in no migration (it has no schema ha_migration)"
            return [asdict(Failure("inventory", side, words, "run playbooks/replicate.yml, or use the right inventory"))]
    words = journal.read_strange(sides["target"], sides["source"], None)
    return [asdict(Failure("inventory", "", words, journal.STRANGE_REMEDY))] if words else []


def link(context: Context) -> t.Iterator[Failure]:
    """The link towards the next side follows, with every table ready and every table of the application in it."""
    name = schema.link_towards(context.serves)
    if given_up := read_given_up(context.here, context.ahead, read_slot_wal(context.here, name)):
        yield Failure("link", name, given_up.rstrip("."), "nothing was changed")
        return
    rows = client.query(
        context.ahead,
        "SELECT s.subenabled AS enabled, (SELECT count(*) FROM pg_stat_subscription p WHERE p.subid = s.oid AND p.pid IS NOT NULL) AS workers, "
        "(SELECT count(*) FROM pg_subscription_rel r WHERE r.srsubid = s.oid AND r.srsubstate <> 'r') AS unready FROM pg_subscription s "
        "WHERE s.subname = %s AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        (name,),
    )
    if not rows:
        remedy = "run playbooks/replicate.yml" if context.serves == "target" else "there is no way back (cutover.json says why)"
        yield Failure("link", name, f"the {context.serves} has no such subscription", remedy)
        return
    found = rows[0]
    if not found["enabled"] or not found["workers"]:
        yield Failure(
            "link",
            name,
            "it does not follow (disabled, or its worker is not running)",
            f"look at the {context.serves}'s log for the worker's error, mend it, run again",
        )
    if found["unready"]:
        yield Failure("link", name, f"{found['unready']} tables are not ready", "wait until the copy is done")
    yield from _unpublished(context, name)


def _unpublished(context: Context, name: str) -> t.Iterator[Failure]:
    """Ordinary tables of the application that the publication does not carry, and published ones that the subscription does not know."""
    published = {
        row["name"]
        for row in client.query(
            context.here,
            "SELECT format('%%I.%%I', n.nspname, c.relname) AS name FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid "
            "JOIN pg_class c ON c.oid = r.prrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = %s",
            (name,),
        )
    }
    wanted = set(guards.read_followed_tables(context.here))
    for table in sorted(wanted - published):
        yield Failure("link", table, "this table is not published, so its rows do not follow", "bring the schema in step and replicate again")
    known = {
        row["name"]
        for row in client.query(
            context.ahead,
            "SELECT format('%%I.%%I', n.nspname, c.relname) AS name FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid "
            "JOIN pg_class c ON c.oid = r.srrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE s.subname = %s",
            (name,),
        )
    }
    for table in sorted(published - known):
        yield Failure(
            "link", table, "this table is published and the subscription does not know it", f"ALTER SUBSCRIPTION {name} REFRESH PUBLICATION after copying it"
        )


def follows(context: Context) -> t.Iterator[Failure]:
    """A marker reaches the next side within five seconds."""
    table = schema.announcement_table(context.serves)
    marker = f"gate-{time.time_ns()}"
    client.query(context.here, f"INSERT INTO {table} (id) VALUES (%s)", (marker,))
    bound = time.monotonic() + 5
    while not client.query_value(context.ahead, f"SELECT EXISTS (SELECT FROM {table} WHERE id = %s)", (marker,)):
        if time.monotonic() > bound:
            yield Failure("follows", table, "a marker did not arrive within 5 s", "let the link catch up, or look why its worker stands still")
            return
        time.sleep(0.005)
    client.query(context.here, f"DELETE FROM {table} WHERE id = %s", (marker,))


# How far the clocks of two machines may be apart before an age means nothing; what connections are tried with is as much.
CLOCK_SKEW_SECONDS = 5


def schema_in_step(context: Context) -> t.Iterator[Failure]:
    """Both sides have the same schema fingerprint, and no DDL was recorded since the last comparison began.

    What was altered and altered back, and what two majors print differently, leaves no difference behind.
    """
    remedy = "bring the schema in step on both sides, then run playbooks/verify.yml"
    schemas = context.compare_schema()
    for difference in schemas.differences:
        yield Failure("schema_in_step", "", difference, remedy)
    began = context.parity["started_at"] if context.parity else None
    # The comparison's beginning is told by the mover's clock, the DDL by the server's.
    since = (datetime.datetime.fromisoformat(began) - datetime.timedelta(seconds=CLOCK_SKEW_SECONDS)).isoformat() if began else None
    recorded = ddl_guard.read_recorded(context.here, since, limit=1000) if schemas.differences or began else []
    for row in [row for row in recorded if not _is_gone(row["object"], schemas.objects)][-TOLD:]:
        yield Failure("schema_in_step", row["object"], ddl_guard.sentence(row, context.leaves), remedy)


# How many recorded statements are told.
TOLD = 5


def _is_gone(name: str, objects: frozenset[str]) -> bool:
    """Whether a recorded relation is on no side any more, as a job's own tables that it drops again (pure). What else was recorded counts as there."""
    relation = name.startswith(("table ", "index ", "sequence ", "view ", "materialized view "))
    return relation and name not in objects


def parity(context: Context) -> t.Iterator[Failure]:
    """All rows were compared, found equal, not too long ago, with the schemas and on the very timeline on which the next side is now."""
    evidence = context.parity
    if evidence is None or evidence.get("serves") != context.leaves:
        yield Failure("parity", "", f"the rows were never compared while the {context.leaves} served", "run playbooks/verify.yml")
        return
    if evidence["mismatches"]:
        mend = "run playbooks/replicate.yml, which copies these tables again" if context.leaves == "source" else "mend what parity.json names"
        yield Failure("parity", "", f"the last comparison found {len(evidence['mismatches'])} mismatches", f"{mend}, then run playbooks/verify.yml")
    if evidence["age_seconds"] > context.parity_max_age_seconds:
        yield Failure("parity", "", f"the last comparison is {evidence['age_seconds']:.0f} s old", "run playbooks/verify.yml")
    if evidence["age_seconds"] < -CLOCK_SKEW_SECONDS:
        words = f"the last comparison ended {-evidence['age_seconds']:.0f} s in the future by the mover's clock, so nobody knows how old it is"
        yield Failure("parity", "", words, "set the mover's clock, then run playbooks/verify.yml")
    # Whatever was altered may have given rows other values on each side (a default that is not constant), the same way on both.
    for side, sha256 in sorted(context.compare_schema().hashes.items()):
        if evidence["fingerprint"][side]["sha256"] != sha256:
            yield Failure(
                "parity", side, "its schema changed after the last comparison began, and its rows may have changed with it", "run playbooks/verify.yml"
            )
    if decision.has_moved_since(context.ahead, context.leaves, evidence[context.leaves]["lsn"]):
        yield Failure("parity", "", f"clients came to the {context.leaves} after the last comparison", "run playbooks/verify.yml")
    now = section.read_durability(context.ahead)["timeline"]
    system = str(client.query_value(context.ahead, "SELECT system_identifier FROM pg_control_system()"))
    if (evidence["timeline"], str(evidence["system_identifier"])) != (now, system):
        yield Failure(
            "parity",
            "",
            f"the {context.serves} changed its leader since (timeline {evidence['timeline']} then, {now} now), applied rows may be gone",
            "run playbooks/verify.yml",
        )


def durability(context: Context) -> t.Iterator[Failure]:
    """The next side is a primary with a synchronous standby where its contract promises one; the side left keeps what it acknowledges."""
    for side, connection in ((context.leaves, context.here), (context.serves, context.ahead)):
        if client.query_value(connection, "SELECT pg_is_in_recovery()"):
            yield Failure("durability", side, "it is a standby", "connect to the primary")
        for setting in ("fsync", "full_page_writes"):
            if client.query_value(connection, f"SHOW {setting}") != "on":
                yield Failure(
                    "durability",
                    side,
                    f"{setting} is off: an acknowledged decision could vanish in a crash",
                    f"ALTER SYSTEM SET {setting} = on; SELECT pg_reload_conf()",
                )
        if side in context.sync_sides and not section.read_durability(connection)["sync_standbys"]:
            yield Failure("durability", side, "it has no synchronous standby", "wait until its cluster is whole (patronictl list)")


def quiet(context: Context) -> t.Iterator[Failure]:
    """No long or prepared transaction and no vacuum stands in the fence's way."""
    if not client.sees_others(context.here):
        role = client.own_role(context.here)
        words = "its administrator does not see what other sessions do, so nobody knows what would stand in the fence's way"
        yield Failure("quiet", context.leaves, words, f"GRANT pg_monitor TO {role}")
    rows = client.query(
        context.here,
        "SELECT pid, usename::text AS role, state, extract(epoch FROM now() - xact_start)::int AS seconds FROM pg_stat_activity "
        "WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid() "
        "AND xact_start < now() - make_interval(secs => %s) AND application_name NOT LIKE 'ha_migration%%'",
        (context.long_transaction_seconds,),
    )
    for row in rows:
        yield Failure(
            "quiet",
            f"pid {row['pid']} of {row['role']}",
            f"its transaction is {row['seconds']} s old ({row['state']})",
            f"let it end, or SELECT pg_terminate_backend({row['pid']})",
        )
    for row in client.query(context.here, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
        yield Failure("quiet", row["gid"], "a prepared transaction holds its locks", "COMMIT PREPARED or ROLLBACK PREPARED it")
    rows = client.query(
        context.here,
        "SELECT v.pid, v.relid::regclass::text AS name FROM pg_stat_progress_vacuum v JOIN pg_stat_activity a USING (pid) "
        "WHERE v.datname = current_database() AND a.backend_type <> 'autovacuum worker'",
    )
    for row in rows:
        yield Failure("quiet", row["name"], f"it is being vacuumed (pid {row['pid']})", "wait for its end")


def locks(context: Context) -> t.Iterator[Failure]:
    """The fence's locks fit twice into the lock table."""
    tables = len(guards.read_guarded_tables(context.here))
    room = client.query_value(
        context.here,
        "SELECT current_setting('max_locks_per_transaction')::bigint * "
        "(current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint)",
    )
    if tables + 1 > room / 2:
        yield Failure(
            "locks",
            "max_locks_per_transaction",
            f"{tables} tables need more than half of the {room} locks",
            "raise max_locks_per_transaction (needs a restart)",
        )


def poolers(context: Context) -> t.Iterator[Failure]:
    """Every pooler serves the database from the side that serves now, in transaction mode, not paused."""
    if not context.poolers:
        yield Failure("poolers", "", "there is no pooler", "put PgBouncer in front of the application (group pg_ha_pgbouncer)")
    for name in sorted(context.poolers):
        # One that does not answer is named, and hides nothing of the others.
        try:
            with contextlib.closing(context.open_console(name)) as console:
                yield from _pooler(context, name, console)
        except PgHaError as error:
            yield _unknown("poolers", name, error)


def _pooler(context: Context, name: str, console: Connection) -> t.Iterator[Failure]:
    row = read_pooled(console, context.database)
    if row is None:
        yield Failure("poolers", name, f"it knows no database {context.database}", "run playbooks/provision.yml")
        return
    if row["pool_mode"] != "transaction":
        yield Failure("poolers", name, f"its pool mode is {row['pool_mode']}: PAUSE would wait for every session to end", "set pool_mode = transaction")
    if (row["host"], int(row["port"])) != context.endpoint_now:
        words = f"it leads to {row['host']}:{row['port']}, not to {context.endpoint_now[0]}:{context.endpoint_now[1]}"
        yield Failure("poolers", name, words, "look at pg-ha-dead-man there")
    if row["paused"]:
        yield Failure("poolers", name, "it is paused", f"RESUME {identifier(context.database)} on its console")


def dead_men(context: Context) -> t.Iterator[Failure]:
    """Every pooler's dead man listens on the side that serves."""
    wanted = {schema.dead_man_name(name): name for name in context.poolers}
    bound = time.monotonic() + 5
    while True:
        rows = client.query(context.here, "SELECT DISTINCT application_name AS name FROM pg_stat_activity WHERE datname = current_database()")
        absent = sorted(wanted[name] for name in set(wanted) - {row["name"] for row in rows})
        if not absent or time.monotonic() > bound:
            break
        time.sleep(0.1)
    for name in absent:
        message = "its dead man's switch is not connected, so nothing would free its clients if this run died"
        yield Failure("dead_men", name, message, "look at the unit pg-ha-dead-man there")


def applications(context: Context) -> t.Iterator[Failure]:
    """No role is taken for an application's that another database of the server needs: it could log in nowhere on that server after the decision."""
    if context.roles_declared:
        return
    for row in client.query(context.here, ELSEWHERE, (list(context.roles),)):
        yield Failure(
            "applications",
            row["role"],
            f"database {row['database']} of the {context.leaves} needs it too, and after the cutover it could not log in on that server any more",
            "say in pg_ha_application_roles which roles are those of this database's applications",
        )


# Roles that own something or hold a privilege in another database, or have a session there.
ELSEWHERE = f"""
    SELECT quote_ident(r.rolname::text) AS role, string_agg(DISTINCT d.datname::text, ', ' ORDER BY d.datname::text) AS database FROM pg_roles r
    JOIN ({NEEDS}
          UNION SELECT usesysid, datid FROM pg_stat_activity WHERE backend_type = 'client backend') needs ON needs.role = r.oid
    JOIN pg_database d ON d.oid = needs.database AND d.datname <> current_database() AND NOT d.datistemplate
    WHERE quote_ident(r.rolname::text) = ANY (%s) GROUP BY 1 ORDER BY 1"""


def roles_in_step(context: Context) -> t.Iterator[Failure]:
    """What else decides whether and as what applications log in on the next side (attributes, settings, memberships) is as it is on the side that serves."""
    differences = context.compare_roles() if context.compare_roles else []
    for difference in differences[:TOLD]:
        yield Failure("roles_in_step", "", f"the {context.serves} lacks: {difference}", "run playbooks/replicate.yml, which copies no row again for it")


def identity(context: Context) -> t.Iterator[Failure]:
    """Every table has an identity by which a link finds its rows: without one UPDATE and DELETE fail as soon as it is published for the way back."""
    for row in client.query(context.here, UNIDENTIFIED, (guards.read_followed_tables(context.here),)):
        yield Failure(
            "identity",
            row["name"],
            f"it has no primary key, and with a way back the {context.serves} would refuse every UPDATE and DELETE",
            f"ALTER TABLE {row['name']} REPLICA IDENTITY FULL, or give it a key, or go without a way back (pg_ha_way_back: false)",
        )


UNIDENTIFIED = """
    SELECT name FROM unnest(%s::text[]) AS name JOIN pg_class c ON c.oid = name::regclass
    WHERE c.relreplident = 'n' OR c.relreplident <> 'f' AND NOT EXISTS (
        SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate
        AND CASE c.relreplident WHEN 'd' THEN i.indisprimary ELSE i.indisreplident END)
    ORDER BY 1"""


def passwords(context: Context) -> t.Iterator[Failure]:
    """Every application role logs in on the next side with the same password."""
    here, there = (_read_logins(connection, context.roles) for connection in (context.here, context.ahead))
    in_step = "run playbooks/replicate.yml" if context.serves == "target" else f"make it on the {context.serves} as it is on the {context.leaves}"
    for role in context.roles:
        ours, theirs = here.get(role), there.get(role)
        if ours is None or theirs is None:
            missing = context.serves if theirs is None else context.leaves
            yield Failure("passwords", role, f"the {missing} has no such role", in_step)
        elif ours["shown"] and theirs["shown"]:
            if ours["verifier"] != theirs["verifier"]:
                yield Failure("passwords", role, f"its password on the {context.serves} is another", in_step)
        elif ours["name"] in context.passwords:
            try:
                yield from _tried(context, role, ours, theirs)
            except PgHaError as error:
                yield _unknown("passwords", role, error)
        elif ours["mark"] is None or ours["mark"] != theirs["mark"]:
            words = f"its password on the {context.serves} is not known to be that on the {context.leaves}"
            yield Failure("passwords", role, words, f"{in_step}; where that does not help, set it there and give it in pg_ha_application_passwords")


def _tried(context: Context, role: str, here: dict[str, t.Any], there: dict[str, t.Any]) -> t.Iterator[Failure]:
    """The given password is that of both sides. A comment tells of the last one that we have given, and not of one that was set since."""
    given = context.passwords[here["name"]]
    for side, found in ((context.leaves, here), (context.serves, there)):
        # Of another password than ASCII only the server knows what it is made of.
        computed = found["shown"] and given.isascii()
        right = scram.proves(found["verifier"], found["name"], given) if computed else _try(context, side, found["name"], given)
        if not right:
            yield Failure(
                "passwords",
                role,
                f"its password on the {side} is not the one of pg_ha_application_passwords",
                "set the one with which applications log in on both sides, give it there, and run playbooks/provision.yml for the poolers",
            )


def _try(context: Context, side: str, name: str, password: str) -> bool:
    if context.is_password_of is None:
        raise GateError("nothing was handed in that could try a password")
    return context.is_password_of(side, name, password)


def _read_logins(connection: Connection, roles: t.Collection[str]) -> dict[str, dict[str, t.Any]]:
    """What is known of each role's password, by quoted name: ``{"name", "shown" (whether the server shows verifiers), "verifier", "mark"}``.

    Where it shows none, the role's comment says which one it was given; unknown is None.
    """
    shown = bool(client.query_value(connection, f"SELECT {scram.READABLE}"))
    source = "rolpassword AS verifier FROM pg_authid" if shown else "shobj_description(oid, 'pg_authid') AS comment FROM pg_roles"
    statement = f"SELECT quote_ident(rolname) AS role, rolname::text AS name, {source} WHERE quote_ident(rolname) = ANY (%s)"
    found = {}
    for row in client.query(connection, statement, (list(roles),)):
        mark = scram.mark(row["verifier"]) if shown else row["comment"]
        known = mark is not None and mark.startswith(scram.MARK) and mark != scram.UNTOLD
        found[row["role"]] = {"name": row["name"], "shown": shown, "verifier": row.get("verifier"), "mark": mark if known else None}
    return found


def refusal(context: Context) -> t.Iterator[Failure]:
    """After the decision it can be proved as every application role that the side which was left refuses its writes."""
    role = client.own_role(context.here)
    for name in settle.cannot_become(context.here, context.roles):
        words = f"the administrator of the {context.leaves} may not become it, so that it could not be proved afterwards that its writes are refused"
        yield Failure("refusal", name, words, f"GRANT {name} TO {role} on the {context.leaves}")


def row_security(context: Context) -> t.Iterator[Failure]:
    """No application role bypasses row level security on the side that is left and not on the next one: it would see fewer rows, and no error."""
    if not client.query_value(context.ahead, "SELECT EXISTS (SELECT FROM pg_class WHERE relrowsecurity)"):
        return
    statement = "SELECT quote_ident(rolname) AS role FROM pg_roles WHERE (rolbypassrls OR rolsuper) AND quote_ident(rolname) = ANY (%s)"
    here, ahead = ({row["role"] for row in client.query(side, statement, (list(context.roles),))} for side in (context.here, context.ahead))
    for role in sorted(here - ahead):
        words = f"it bypasses row level security on the {context.leaves} and not on the {context.serves}, where it would see fewer rows"
        remedy = f"let policies show it on both sides what it needs, then ALTER ROLE {role} NOBYPASSRLS (and NOSUPERUSER) on the {context.leaves}"
        yield Failure("row_security", role, words, remedy)


# What a copy and a comparison together are trusted to get through per second at least, to tell a window that cannot be enough.
LEAST_PACE_BYTES = 10 * 1024 * 1024


def rehearsed(context: Context) -> t.Iterator[Failure]:
    """The schema was restored on the next side as a rehearsal, and no row is there that no copy of ours has brought."""
    rehearse = "run playbooks/replicate.yml with pg_ha_method=dump"
    rows = client.query(context.ahead, f"SELECT state, detail FROM {schema.SCHEMA}.copy WHERE relation = '*'")
    if not rows or rows[0]["detail"].get("method") != "dump" or "kept" not in rows[0]["detail"]:
        yield Failure("rehearsed", context.serves, "its schema was never restored as a rehearsal", rehearse)
        return
    # What an attempt has left that did not come to its end is thrown away by the next one.
    if rows[0]["state"] == "done" and rows[0]["detail"].get("parts") == "schema":
        for table in _filled(context.ahead):
            yield Failure("rehearsed", table, f"it holds rows on the {context.serves} that no copy has brought", f"empty it there, or {rehearse}")


def _filled(connection: Connection) -> list[str]:
    """Tables of the application that hold rows."""
    names = [row["name"] for row in guards.read_guarded_tables(connection) if not row["name"].startswith(f"{schema.SCHEMA}.")]
    found: list[str] = []
    for start in range(0, len(names), 100):
        parts = (f"SELECT %s AS name WHERE EXISTS (SELECT FROM {name.replace('%', '%%')})" for name in names[start : start + 100])
        found += [row["name"] for row in client.query(connection, " UNION ALL ".join(parts), names[start : start + 100])]
    return found


def copyable(context: Context) -> t.Iterator[Failure]:
    """Nothing forbids the copy to begin: programs, versions, what stands on the next side."""
    if context.check_copy is None:
        yield Failure("copyable", "", "nothing was handed in that could copy", "report this as a defect")
        return
    try:
        context.check_copy()
    except GateError as error:
        for gate in error.details["gates"]:
            yield Failure(f"copyable {gate['gate']}", gate["object"], gate["message"].rstrip("."), gate["remedy"].rstrip("."))


def window(context: Context) -> t.Iterator[Failure]:
    """The declared window is not obviously too short for the source's bytes. One that proves too short is undone at its end."""
    declared = context.window_seconds or 0.0
    size = client.query_value(context.here, "SELECT pg_database_size(current_database())")
    needed = size / LEAST_PACE_BYTES
    if declared < needed:
        yield Failure(
            "window",
            "pg_ha_dump_window_seconds",
            f"a copy of {size / 1024**3:.1f} GiB and its comparison may take {needed:.0f} s, and the window is {declared:.0f} s",
            "declare a longer window, or use the method logical",
        )


AROUND: tuple[Gate, ...] = (durability, quiet, locks, poolers, dead_men, applications, roles_in_step, passwords, refusal, row_security)
LINK_GATES: tuple[Gate, ...] = (link, follows, schema_in_step, parity, *AROUND)
DUMP_GATES: tuple[Gate, ...] = (rehearsed, copyable, window, *AROUND)
