# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Facts to findings. Pure: no I/O, no clock."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import math
import typing as t
from dataclasses import asdict, replace

from .model import SEVERITIES, Finding, Options, Role, Session, Source, Table, Target

OLDEST_SOURCE, NEWEST_SOURCE = 13, 18
OLDEST_TARGET, NEWEST_TARGET = 14, 18
# The last day on which PostgreSQL's makers mend a version: https://www.postgresql.org/support/versioning/
SUPPORTED_UNTIL = {13: "2025-11-13", 14: "2026-11-12", 15: "2027-11-11", 16: "2028-11-09", 17: "2029-11-08", 18: "2030-11-14"}
# Replication slots and WAL senders that a migration needs on the source: the link's own, and one while it is rebuilt.
SLOTS_NEEDED = 2
# Free space on the target for each byte of the database: data and indexes, plus WAL and sort files while they are built.
DISK_FACTOR = 1.5
EXHAUSTION_WARNING = 0.8
# Names that our own objects and PgBouncer's console take.
RESERVED_DATABASES = ("pgbouncer",)
MANAGED = "On a managed service set it in the service's parameters (RDS: {name}) instead."

Check = t.Callable[[Source, Target, Options], t.Iterable[Finding]]


def check_versions(source: Source, target: Target, options: Options) -> t.Iterator[Finding]:
    """Majors of source, target and client programs."""
    major = source.version_num // 10000
    if not OLDEST_SOURCE <= major <= NEWEST_SOURCE:
        message = f"The source runs PostgreSQL {major}; {OLDEST_SOURCE} to {NEWEST_SOURCE} are supported."
        yield Finding("source_version", "blocker", "server", message + " Upgrade the source to one of these first.")
    elif is_out_of_support(major, options.today):
        message = f"The source runs PostgreSQL {major}, which nobody mends since {SUPPORTED_UNTIL[major]}: do not let it serve longer than the migration takes."
        yield Finding("source_support", "warning", "server", message)
    wanted = target.version_num // 10000 if target.version_num is not None else options.target_major
    if wanted is None:
        yield Finding("target_version", "warning", "target", "The target's version is unknown, because it could not be asked and none was given.")
    elif not OLDEST_TARGET <= wanted <= NEWEST_TARGET:
        message = f"The target would run PostgreSQL {wanted}; {OLDEST_TARGET} to {NEWEST_TARGET} are supported: choose one of these."
        yield Finding("target_version", "blocker", "target", message, "patroni_postgresql_version and assessment_target_major_version")
    elif wanted < major:
        yield Finding(
            "target_version", "blocker", "target", f"The target runs PostgreSQL {wanted}, which is older than the source's {major}: choose {major} or newer."
        )
    elif is_out_of_support(wanted, options.today):
        message = f"The target would run PostgreSQL {wanted}, which nobody mends since {SUPPORTED_UNTIL[wanted]}: choose a newer version."
        yield Finding("target_support", "warning", "target", message, "patroni_postgresql_version and assessment_target_major_version")
    if options.client_major is not None and options.client_major < max(major, wanted or 0):
        yield Finding(
            "client_version",
            "blocker",
            "mover",
            f"The client programs on the mover are of version {options.client_major}, older than a server: a dump would be refused.",
            f"mover_postgresql_version: {max(major, wanted or 0)}",
        )


def is_out_of_support(major: int, today: str) -> bool:
    """Whether a version that we know has had its last day."""
    return bool(today) and today > SUPPORTED_UNTIL[major]


def check_server(source: Source, target: Target, options: Options) -> t.Iterator[Finding]:
    """What the source as a server must be."""
    if source.in_recovery:
        yield Finding("standby", "blocker", "server", "The source is a standby: name the primary as pg_ha_source_host.")
    for name in ("fsync", "full_page_writes"):
        if source.settings[name] != "on":
            message = f"{name} is off: after a crash of the source neither its data nor a decision that it took can be trusted."
            yield Finding(name, "blocker", name, message, f"ALTER SYSTEM SET {name} = 'on'; SELECT pg_reload_conf();")
    for name in source.standbys:
        message = f"The source has a standby ({name}): if it is promoted, it forgets the fence; switch off automatic failover before the cutover."
        yield Finding("source_standby", "warning", name, message)


def check_replication(source: Source, target: Target, options: Options) -> t.Iterator[Finding]:
    """Parameters of logical decoding."""
    if options.method != "logical":
        return
    if source.settings["wal_level"] != "logical":
        message = f"wal_level is {source.settings['wal_level']}; changes can be followed with logical only. It needs a restart of the source. "
        message += MANAGED.format(name="rds.logical_replication = 1, then reboot")
        yield Finding("wal_level", "blocker", "wal_level", message, "ALTER SYSTEM SET wal_level = 'logical';")
    for name, used in (("max_replication_slots", source.slots_used), ("max_wal_senders", source.senders_used)):
        free = int(source.settings[name]) - used
        if free < SLOTS_NEEDED:
            message = f"{name} is {source.settings[name]} and {used} are in use; {SLOTS_NEEDED} must be free. It needs a restart of the source. "
            yield Finding(name, "blocker", name, message + MANAGED.format(name=name), f"ALTER SYSTEM SET {name} = {used + max(SLOTS_NEEDED, 10)};")
    yield from slot_wal_limit(int(source.settings.get("max_slot_wal_keep_size", "-1")), options.slot_wal_limit_mib)
    if not source.administrator["event_triggers"]:
        message = "The administrator may not make event triggers, so DDL on the source is noticed by comparing the schemas only, and cannot be refused."
        severity = "blocker" if options.ddl_policy == "refuse" else "info"
        yield Finding("ddl_guard", severity, source.administrator["name"], message, "pg_ha_ddl_policy: detect" if severity == "blocker" else "")


def slot_wal_limit(kept: int, declared: int | None) -> t.Iterator[Finding]:
    """What keeps the link's slot from filling the source's disk. Only the source's own limit does when nobody of ours is alive.

    :param kept: max_slot_wal_keep_size in MiB, -1 for no limit
    :param declared: pg_ha_slot_wal_limit_mib
    """
    name = "max_slot_wal_keep_size"
    if declared is not None and 0 <= kept <= declared:
        return
    if declared is not None:
        message = (
            f"{name} is {'-1, no limit' if kept < 0 else f'{kept} MB'}, and pg_ha_slot_wal_limit_mib is {declared}: set the source's own limit, which holds "
        )
        message += "for all its slots. " + MANAGED.format(name=name)
        yield Finding("slot_wal_limit", "blocker", name, message, f"ALTER SYSTEM SET {name} = '{declared}MB'; SELECT pg_reload_conf();")
    elif kept < 0:
        message = f"{name} is -1, no limit: while the target is away, its slot keeps WAL until the source's disk is full. Declare what that disk can bear."
        yield Finding("slot_wal_unlimited", "warning", name, message, "pg_ha_slot_wal_limit_mib: ...")
    else:
        message = f"{name} is {kept} MB: when the target stays behind by more, the source gives the migration up and everything must be copied again."
        yield Finding(name, "info", name, message)


def check_replica_identity(source: Source, target: Target, options: Options) -> t.Iterator[Finding]:
    """Every ordinary table must say how an updated or deleted row is found."""
    if options.method != "logical":
        return
    for table in source.tables:
        if table.kind == "r" and table.persistence == "p":
            yield from replica_identity(table)


def replica_identity(table: Table) -> t.Iterator[Finding]:
    """Finding of one table, if any."""
    fix = f"ALTER TABLE {table.ident} REPLICA IDENTITY FULL;"
    if table.candidate_index is not None:
        fix = f"ALTER TABLE {table.ident} REPLICA IDENTITY USING INDEX {quote(table.candidate_index)};"
    elif table.identity != "f" and table.incomparable:
        fix = f"ALTER TABLE {table.ident} ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;"
    if table.identity == "f":
        if table.incomparable:
            message = f"The replica identity is FULL and {', '.join(table.incomparable)} cannot be compared: updates and deletes would stop the replication."
            if table.candidate_index is None:
                fix = f"ALTER TABLE {table.ident} ADD COLUMN id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;"
            yield Finding("replica_identity_type", "blocker", table.ident, message, fix)
        elif not table.searchable:
            message = "The replica identity is FULL and no index helps to find a row: each update or delete reads the whole table on the target."
            yield Finding("replica_identity_full", "warning", table.ident, message)
        return
    usable = table.primary_key if table.identity == "d" else table.identity_index if table.identity == "i" else False
    if usable:
        return
    if table.identity == "d" and table.primary_key is False:
        message = "The table has no primary key that replication can use, and no other replica identity"
    elif table.identity == "i":
        message = "The index named as replica identity does not exist any more or cannot be used"
    else:
        message = "The replica identity is NOTHING"
    if table.identity != "d" and table.primary_key:
        fix = f"ALTER TABLE {table.ident} REPLICA IDENTITY DEFAULT;"
    yield Finding("replica_identity", "blocker", table.ident, f"{message}: UPDATE and DELETE would fail on the source as soon as it is published.", fix)


def check_objects(source: Source, target: Target, options: Options) -> t.Iterator[Finding]:
    """Relations that replication does not carry, or not as one expects."""
    logical = options.method == "logical"
    for table in source.tables:
        if table.persistence == "u" and table.kind == "r":
            why = "its rows are in no stream of changes" if logical else "its rows are not copied"
            message = f"The table is unlogged: {why}, so the target starts with it empty, as a server does after a crash."
            yield Finding("unlogged_table", "warning", table.ident, message, f"ALTER TABLE {table.ident} SET LOGGED;")
        if table.kind == "f":
            message = (
                "Foreign table: its definition moves, its rows stay where they are; the target must reach that server, and user mappings must be made there."
            )
            yield Finding("foreign_table", "warning", table.ident, message)
        if table.kind == "m":
            yield Finding("materialized_view", "info", table.ident, "Materialized view: it is filled on the target by REFRESH and not followed.")
        if table.tablespace:
            message = f"It is in tablespace {table.tablespace}; on the target it goes to the default tablespace."
            yield Finding("tablespace", "warning", table.ident, message)
    for name in source.replica_triggers:
        message = "The trigger is ENABLE ALWAYS or REPLICA: on the target it fires for replicated rows too, and does its work twice."
        yield Finding("replica_trigger", "warning", name, message, f"ALTER TABLE {name.split(' ON ', 1)[1]} ENABLE TRIGGER {name.split(' ON ', 1)[0]};")
    for name in source.event_triggers:
        message = "The event trigger fires for the DDL of the migration too, and is made on the target by a superuser only."
        yield Finding("event_trigger", "warning", name, message, f"ALTER EVENT TRIGGER {name} DISABLE;")


def check_large_objects(source: Source, target: Target, options: Options) -> t.Iterator[Finding]:
    """Large objects are not part of logical decoding and cannot carry a guard."""
    if not source.large_objects:
        return
    size = f"{source.large_objects} large objects, {human(source.large_object_bytes)}"
    if options.method == "logical" and not source.administrator["superuser"]:
        message = (
            f"{size}: they are not followed, and only a superuser can lock them for the cutover. Move them into a bytea column, or use pg_ha_method: dump."
        )
        yield Finding("large_objects", "blocker", "pg_largeobject", message)
    elif options.method == "logical":
        message = f"{size}: they are copied once and not followed. Write none from the copy to the cutover; verify compares them."
        yield Finding("large_objects", "warning", "pg_largeobject", message)
    else:
        yield Finding("large_objects", "info", "pg_largeobject", f"{size}: they are part of the dump.")


def check_links(source: Source, target: Target, options: Options) -> t.Iterator[Finding]:
    """Replication that others have set up."""
    for name in source.publications:
        message = "A publication of somebody else: it is not moved. Whoever subscribes to it must be pointed to the target."
        yield Finding("publication", "info", name, message)
    for name in source.logical_slots:
        message = "A logical replication slot of somebody else: its consumer must be pointed to the target, and start anew there."
        yield Finding("logical_slot", "warning", name, message)
    for name in source.subscriptions:
        message = "The source subscribes to another server: replicated rows pass the fence of the cutover, so there would be a second writer."
        yield Finding("subscription", "blocker", name, message, f"ALTER SUBSCRIPTION {name} DISABLE; DROP SUBSCRIPTION {name};")


def check_extensions(source: Source, target: Target, options: Options) -> t.Iterator[Finding]:
    """Every extension must be there on the target."""
    for name, version in source.extensions.items():
        if target.problem:
            yield Finding("extension", "info", name, f"Extension {name} {version} is in use; the target could not be asked whether it has it.")
        elif name not in target.extensions:
            message = f"Extension {name} {version} is in use and the target does not offer it: install its package on the target's hosts."
            yield Finding("extension", "blocker", name, message)
        elif version not in target.extensions[name]:
            offered = ", ".join(target.extensions[name])
            yield Finding("extension", "info", name, f"Extension {name} is {version} on the source; the target offers {offered} and takes its default.")
    for extension, table, filled in source.extension_rows:
        # Jobs of pg_cron have a finding of their own: they shall not run on both sides.
        if filled is False or extension == "pg_cron":
            continue
        there = "There are rows of users" if filled else "There may be rows of users, which the administrator may not read,"
        message = f"{there} in this table of extension {extension}: they are neither copied nor followed nor compared. Bring them to the target by hand."
        yield Finding("extension_rows", "blocker", table, message)
    if source.cron_loaded or source.cron_jobs is not None:
        jobs = "jobs that could not be counted from this database" if source.cron_jobs is None else f"{source.cron_jobs} jobs"
        message = f"pg_cron is loaded with {jobs}: they must run on one side only. Unschedule them before the cutover and schedule them on the target after it."
        yield Finding("pg_cron", "warning", "pg_cron", message, "SELECT jobid, schedule, command, cron.unschedule(jobid) FROM cron.job;")


def check_locale(source: Source, target: Target, options: Options) -> t.Iterator[Finding]:
    """Encoding and collations."""
    if source.encoding == "SQL_ASCII":
        message = "The encoding is SQL_ASCII: nobody knows what the bytes mean, and clients of the target may refuse some."
        yield Finding("encoding", "warning", source.database, message)
    if target.database is not None and target.database["encoding"] != source.encoding:
        message = (
            f"The database on the target has the encoding {target.database['encoding']}, the source has {source.encoding}: drop it there and provision again."
        )
        yield Finding("encoding_mismatch", "blocker", source.database, message, f"DROP DATABASE {quote(source.database)};")
    if target.database is not None and source.provider == "c" and normal_locale(target.database["collate"]) != normal_locale(source.collate):
        message = f"The database on the target sorts by {target.database['collate']}, the source by {source.collate}: drop it there and provision again."
        yield Finding("collation_mismatch", "blocker", source.database, message, f"DROP DATABASE {quote(source.database)};")
    if source.collation_version is not None and source.collation_version[0] != source.collation_version[1]:
        message = "The operating system's collation changed from {} to {} under the source: its text indexes may be out of order.".format(
            *source.collation_version
        )
        fix = f"REINDEX DATABASE {quote(source.database)}; ALTER DATABASE {quote(source.database)} REFRESH COLLATION VERSION;"
        yield Finding("collation_version", "warning", source.database, message, fix)
    if normal_locale(source.collate) not in ("c", "posix", "c.utf8"):
        message = f"The database sorts by {source.collate}; the order of text may differ with the target's operating system. Indexes are built anew there."
        yield Finding("collation", "info", source.database, message)
    for name in source.nondeterministic_collations:
        yield Finding("nondeterministic_collation", "info", name, "Nondeterministic collation: equal strings may differ in bytes; the target needs ICU.")


def check_transactions(source: Source, target: Target, options: Options) -> t.Iterator[Finding]:
    """What a slot, a pause or the fence would wait for."""
    for gid in source.prepared_transactions:
        message = "A prepared transaction holds its locks: neither the copy's slot nor the fence gets past it."
        yield Finding("prepared_transaction", "blocker", gid, message, f"ROLLBACK PREPARED '{gid.replace(chr(39), chr(39) * 2)}';")
    if not source.administrator["reads_statistics"]:
        name = quote(source.administrator["name"])
        message = "Sessions of other roles cannot be seen: long transactions and clients that bypass the pooler are unknown, and a cutover would be refused."
        yield Finding("sessions_unknown", "blocker", source.administrator["name"], message, f"GRANT pg_monitor TO {name};")
    for session in source.sessions:
        if session.transaction_seconds is None or session.transaction_seconds < options.long_transaction_seconds or session.user in options.own_roles:
            continue
        who = f"{session.user} from {session.address or 'a local socket'}" + (f" ({session.application})" if session.application else "")
        kind, what = ("idle_in_transaction", "sits idle in a transaction") if session.idle else ("long_transaction", "runs a transaction")
        message = f"A session of {who} {what} since {session.transaction_seconds:.0f} s: the copy waits for it, and a cutover would be refused."
        fix = f"ALTER ROLE {quote(session.user)} SET idle_in_transaction_session_timeout = '30s';" if session.idle else ""
        yield Finding(kind, "warning", session.user, message, fix)


def check_privileges(source: Source, target: Target, options: Options) -> t.Iterator[Finding]:
    """What the copying role must be allowed."""
    role = quote(source.administrator["name"])
    if not source.administrator["createrole"]:
        message = "The administrator may not create roles: the migration makes its own (link, probe, dead man)."
        yield Finding("administrator", "blocker", source.administrator["name"], message, f"ALTER ROLE {role} CREATEROLE;")
    for table in source.tables:
        if table.row_security and not source.administrator["bypassrls"]:
            message = "Row level security applies to the copying role: it would copy only the rows that it may see."
            yield Finding("row_security", "blocker", table.ident, message, f"ALTER ROLE {role} BYPASSRLS;")
        if not table.readable:
            message = "The copying role may not read it."
            yield Finding("table_privilege", "blocker", table.ident, message, f"GRANT SELECT ON {table.ident} TO {role};")
        if table.kind in ("r", "p") and not table.owned:
            message = f"It belongs to {table.owner} and the administrator is not a member: it can neither publish nor guard it."
            yield Finding("table_owner", "blocker", table.ident, message, f"GRANT {table.owner} TO {role};")


def check_roles(source: Source, target: Target, options: Options) -> t.Iterator[Finding]:
    """Roles that applications log in with."""
    for name in options.application_roles:
        if name not in [role.name for role in source.roles]:
            yield Finding("application_role", "blocker", name, "The role is named in pg_ha_application_roles and does not exist, or cannot log in.")
    for role in source.roles:
        if role.name in options.own_roles:
            if role.name in options.application_roles:
                message = (
                    "The role is both the migration's own and an application's: the fence could not tell them apart. Give the migration a role of its own."
                )
                yield Finding("reserved_role", "blocker", role.name, message)
            continue
        yield from role_findings(role, options)
        if is_application(role, options) and not role.becomes:
            message = "The administrator may not become it: the cutover, which proves as each application's role that its writes are refused, would be refused."
            yield Finding("application_membership", "blocker", role.name, message, f"GRANT {role.ident} TO {quote(source.administrator['name'])};")
    if source.database in RESERVED_DATABASES:
        message = "The database is called like PgBouncer's console and cannot be reached through it."
        yield Finding("reserved_database", "blocker", source.database, message, f'ALTER DATABASE {quote(source.database)} RENAME TO "application";')


def is_application(role: Role, options: Options) -> bool:
    """Whether applications log in with that role."""
    if options.application_roles:
        return role.name in options.application_roles
    return not (role.superuser or role.replication) and role.name not in options.own_roles and role.name != options.pooler_auth_role


def role_findings(role: Role, options: Options) -> t.Iterator[Finding]:
    """Findings of one role that is not ours."""
    if role.superuser and (role.sessions or role.name in options.application_roles):
        message = "A superuser is in use as an application's role: it can switch off the guard that fences a side."
        yield Finding("application_superuser", "warning", role.name, message, f"ALTER ROLE {role.ident} NOSUPERUSER;")
    if not is_application(role, options):
        return
    if role.owns:
        message = (
            f"An application's role owns {role.owns} tables: it can alter them, and their guards, during the migration. Give them to a role that cannot log in."
        )
        fix = f"CREATE ROLE {quote(role.name + '_owner')} NOLOGIN; REASSIGN OWNED BY {role.ident} TO {quote(role.name + '_owner')};"
        yield Finding("application_owner", "warning", role.name, message, fix)
    if role.password == "md5":
        message = "Its password is stored as md5: the poolers and the target take scram-sha-256 only. Set the same password again."
        yield Finding("password_md5", "blocker", role.name, message, f"SET password_encryption = 'scram-sha-256'; \\password {role.ident}")
    elif role.password == "unknown":
        message = (
            "The stored password may not be read: it must be set on the target and given in pg_ha_application_passwords, which the cutover tries on both sides."
        )
        yield Finding("password_unknown", "warning", role.name, message, f"\\password {role.ident}")
    elif role.password == "none":
        yield Finding("password_none", "info", role.name, "The role has no password: it cannot log in through the poolers.")


def check_limits(source: Source, target: Target, options: Options) -> t.Iterator[Finding]:
    """What the target's administrator could not do for what is there. On a service that is no superuser."""
    if "superuser" in options.target_may_not:
        for table in source.tables:
            if table.forces_row_security:
                message = "It forces row level security on its owner, too, which the target's administrator may not bypass: nothing could follow or compare it."
                yield Finding("row_security_forced", "blocker", table.ident, message, f"ALTER TABLE {table.ident} NO FORCE ROW LEVEL SECURITY;")
        secured = [table.ident for table in source.tables if table.has_row_security]
        for role in (one for one in source.roles if secured and one.bypassrls and is_application(one, options)):
            message = (
                f"It bypasses row level security, which the target's administrator may not let it: it would see fewer rows of {', '.join(secured[:5])} there. "
                "Let policies show it what it needs, first."
            )
            yield Finding("row_security_bypassed", "blocker", role.name, message, f"ALTER ROLE {role.ident} NOBYPASSRLS;")
        # The poolers' own is not asked there.
        for name in (one for one in source.definer_functions if one.partition("(")[0] != options.pooler_auth_function):
            message = "It runs as a superuser here, and there is none for it on the target: see that it needs no more than a role may have."
            yield Finding("definer_superuser", "warning", name, message)
        if source.large_objects and options.method == "logical":
            message = "On the target nobody can be kept from writing them, so that there is no way back while there are some."
            yield Finding("large_objects_stay", "warning", "pg_largeobject", message)
    if "untrusted_languages" in options.target_may_not:
        for name in source.untrusted_functions:
            message = "It is in a language that the target's administrator may not use: write it in another one, or drop it."
            yield Finding("untrusted_language", "blocker", name, message)
    if "read_password_verifiers" in options.target_may_not:
        for role in source.roles:
            if is_application(role, options) and role.password != "none" and role.name not in options.known_passwords:
                message = "Poolers cannot look its password up on the target, where nobody may read one: give it in pg_ha_application_passwords."
                yield Finding("password_not_given", "blocker", role.name, message)


def check_poolers(source: Source, target: Target, options: Options) -> t.Iterator[Finding]:
    """Everybody must come through a pooler, and the pooler must be able to ask for passwords."""
    if not source.pooler_auth:
        function, role = options.pooler_auth_function, quote(options.pooler_auth_role)
        schema = function.rpartition(".")[0]
        fix = (
            f"CREATE SCHEMA IF NOT EXISTS {schema}; "
            f"CREATE FUNCTION {function}(p_user text) RETURNS TABLE(username text, password text) LANGUAGE sql STABLE SECURITY DEFINER "
            "SET search_path = pg_catalog AS $$ SELECT rolname::text, rolpassword::text FROM pg_authid WHERE rolname = p_user "
            "AND rolcanlogin AND NOT rolsuper AND (rolvaliduntil IS NULL OR rolvaliduntil > now()) $$; "
            f"REVOKE ALL ON FUNCTION {function}(text) FROM PUBLIC; GRANT USAGE ON SCHEMA {schema} TO {role}; "
            f"GRANT EXECUTE ON FUNCTION {function}(text) TO {role};"
        )
        yield Finding("pooler_auth", "blocker", function, "The poolers' authentication function does not exist: no client can log in through them.", fix)
    if not options.pooler_networks:
        message = "The poolers' addresses are unknown, so it cannot be said who bypasses them."
        yield Finding("pooler_addresses", "warning", "sessions", message, "assessment_pooler_addresses: [...]")
        return
    networks = [ipaddress.ip_network(network, strict=False) for network in options.pooler_networks]
    direct = [session for session in source.sessions if session.user not in options.own_roles and not is_pooled(session, networks)]
    for user in sorted({session.user for session in direct}):
        of_user = [session for session in direct if session.user == user]
        origins = sorted({(session.address or "a local socket") + (f" ({session.application})" if session.application else "") for session in of_user})
        count = sum(session.count for session in of_user)
        message = f"{count} sessions do not come through a pooler: from {', '.join(origins)}. The cutover ends them with an error."
        yield Finding("direct_session", "warning", user, message)


def is_pooled(session: Session, networks: list[t.Any]) -> bool:
    """Whether the session's address is a pooler's."""
    return bool(session.address) and any(ipaddress.ip_address(session.address) in network for network in networks)


def check_sequences(source: Source, target: Target, options: Options) -> t.Iterator[Finding]:
    """Ranges that a safety margin could leave."""
    for sequence in source.sequences:
        if sequence.used is None:
            yield Finding(
                "sequence_unknown",
                "warning",
                sequence.ident,
                "The sequence may not be read: it cannot be carried over.",
                f"GRANT SELECT ON SEQUENCE {sequence.ident} TO CURRENT_USER;",
            )
        elif sequence.used >= EXHAUSTION_WARNING and not sequence.cycle:
            message = f"{sequence.used:.0%} of its range is used up; the type is {sequence.type}."
            fix = f"ALTER SEQUENCE {sequence.ident} AS bigint;" if sequence.type != "bigint" else ""
            yield Finding("sequence_exhaustion", "warning", sequence.ident, message, fix)
        elif sequence.type == "smallint":
            yield Finding("sequence_smallint", "info", sequence.ident, "A smallint sequence: the margin of the cutover is clamped to its range.")
        if sequence.cycle:
            yield Finding("sequence_cycle", "info", sequence.ident, "The sequence cycles: values return, so it is set exactly and without a margin.")


def check_capacity(source: Source, target: Target, options: Options) -> t.Iterator[Finding]:
    """Lock table of the source and disk of the target."""
    relations = sum(1 for table in source.tables if table.kind in ("r", "p")) + 1
    per_lock = int(source.settings["max_connections"]) + int(source.settings["max_prepared_transactions"])
    budget = int(source.settings["max_locks_per_transaction"]) * per_lock
    if relations > budget / 2:
        message = (
            f"The fence locks {relations} relations in one transaction and the lock table has room for {budget}: half of it must suffice. It needs a restart."
        )
        fix = f"ALTER SYSTEM SET max_locks_per_transaction = {math.ceil(2 * relations / per_lock)};"
        yield Finding("lock_budget", "blocker", "max_locks_per_transaction", message, fix)
    needed = int(source.bytes * DISK_FACTOR)
    if options.target_free_bytes is None:
        message = f"The free space on the target is unknown; {human(needed)} are needed on each of its database hosts."
        yield Finding("target_disk", "warning", "target", message, "assessment_target_free_bytes: ...")
        return
    # What an earlier run has copied already is no longer needed.
    free = options.target_free_bytes + (target.database["bytes"] if target.database is not None else 0)
    if free < needed:
        message = f"The target has {human(free)} for the database and needs {human(needed)} ({DISK_FACTOR} times the database): give its hosts larger disks."
        yield Finding("target_disk", "blocker", "target", message)


def check_surroundings(source: Source, target: Target, options: Options) -> t.Iterator[Finding]:
    """What is not part of this migration, and what is in its way."""
    for name in target.occupied:
        message = f"{name} exists on the target and does not come from a copy of ours: the copy would be refused. Drop it there or name another database."
        yield Finding("target_occupied", "blocker", name, message)
    for name in source.other_databases:
        yield Finding("other_database", "info", name, "Another database of the same server: it is not moved; a migration moves one.")
    if target.problem:
        yield Finding("target_unknown", "info", "target", f"The target could not be asked; what depends on it is unknown. {target.problem}")


CHECKS: tuple[Check, ...] = (
    check_versions,
    check_server,
    check_replication,
    check_replica_identity,
    check_objects,
    check_large_objects,
    check_links,
    check_extensions,
    check_locale,
    check_transactions,
    check_privileges,
    check_roles,
    check_limits,
    check_poolers,
    check_sequences,
    check_capacity,
    check_surroundings,
)


def plan_findings(source: Source, target: Target, options: Options) -> list[Finding]:
    """All findings, blockers first, then by id and object; a blocker that the operator accepted is a warning."""
    found = [accept(finding, options.accepted) for check in CHECKS for finding in check(source, target, options)]
    return sorted(set(found), key=lambda finding: (SEVERITIES.index(finding.severity), finding.id, finding.object, finding.message))


def accept(finding: Finding, accepted: tuple[str, ...]) -> Finding:
    """The finding as the operator takes it."""
    if finding.severity == "blocker" and (finding.id in accepted or f"{finding.id}:{finding.object}" in accepted):
        return replace(finding, severity="warning", accepted=True)
    return finding


def summarize(source: Source, target: Target) -> dict[str, t.Any]:
    """The facts that belong into the evidence."""
    tables = [table for table in source.tables if table.kind == "r"]
    return {
        "version": source.version,
        "version_num": source.version_num,
        "target_version_num": target.version_num,
        "database": source.database,
        "bytes": source.bytes,
        "encoding": source.encoding,
        "collate": source.collate,
        "ctype": source.ctype,
        "tables": len(tables),
        "partitions": sum(1 for table in tables if table.is_partition),
        "rows_estimate": sum(table.rows for table in tables),
        "largest_tables": [{"table": table.ident, "bytes": table.bytes} for table in sorted(tables, key=lambda one: (-one.bytes, one.ident))[:10]],
        "materialized_views": sum(1 for table in source.tables if table.kind == "m"),
        "sequences": len(source.sequences),
        "large_objects": source.large_objects,
        "large_object_bytes": source.large_object_bytes,
        "extensions": dict(sorted(source.extensions.items())),
        "settings": dict(sorted(source.settings.items())),
        "administrator_is_superuser": source.administrator["superuser"],
    }


def fingerprint(findings: list[Finding], facts: dict[str, t.Any]) -> str:
    """sha256 over what does not move with the load: which findings there are, about what, and what the server is."""
    moving = {"bytes", "rows_estimate", "largest_tables", "large_objects", "large_object_bytes"}
    stable = {
        "findings": [(finding.id, finding.severity, finding.object, finding.fix) for finding in findings],
        "facts": {key: value for key, value in facts.items() if key not in moving},
    }
    return hashlib.sha256(json.dumps(stable, sort_keys=True).encode()).hexdigest()


def present(findings: list[Finding]) -> list[dict[str, t.Any]]:
    """Findings as plain data."""
    return [asdict(finding) for finding in findings]


def lines(findings: list[Finding]) -> list[str]:
    """Findings as an operator reads them, one line each, the fix after an arrow."""
    return [
        f"{finding.severity.upper():<8} {finding.id} [{finding.object}] {finding.message}{' (accepted)' if finding.accepted else ''}"
        + (f" -> {finding.fix}" if finding.fix else "")
        for finding in findings
    ]


def quote(name: str) -> str:
    """A name as SQL wants it; simple ones stay readable."""
    if name and (name[0].isascii() and (name[0].islower() or name[0] == "_")) and all(c.isascii() and (c.islower() or c.isdigit() or c == "_") for c in name):
        return name
    return '"' + name.replace('"', '""') + '"'


def normal_locale(name: str) -> str:
    """A locale's name in one spelling (``en_US.UTF-8`` and ``en_US.utf8`` are the same)."""
    return name.lower().replace("utf-8", "utf8")


def human(size: int) -> str:
    """Bytes in words."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TB"
