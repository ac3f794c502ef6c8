# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The database on the target: encoding and locale of the source's, owner, privileges and settings. pg_dump leaves these out."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._core.errors import PlanError
from .._core.outcome import Action
from .._postgresql import client
from .names import identifier, literal, setting, setting_name

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


@dataclass(frozen=True)
class Database:
    """One database.

    :param locale: icu (or builtin) locale, None with libc
    :param privileges: (grantee, privilege, with grant option); PUBLIC is the empty grantee
    :param settings: (role or "" for all, name) -> value of ALTER DATABASE ... SET and ALTER ROLE ... IN DATABASE ... SET
    """

    name: str
    owner: str
    encoding: str
    collate: str
    ctype: str
    provider: str
    locale: str | None
    connection_limit: int
    comment: str | None
    privileges: frozenset[tuple[str, str, bool]]
    settings: dict[tuple[str, str], str]

    def public(self) -> dict[str, t.Any]:
        """What is shown in results and diffs."""
        return {
            "owner": self.owner,
            "encoding": self.encoding,
            "collate": self.collate,
            "ctype": self.ctype,
            "provider": self.provider,
            "locale": self.locale,
            "connection_limit": self.connection_limit,
            "comment": self.comment,
            "privileges": sorted(f"{grantee or 'PUBLIC'}: {word}{' with grant option' if option else ''}" for grantee, word, option in self.privileges),
            "settings": {f"{role}: {name}" if role else name: value for (role, name), value in sorted(self.settings.items())},
        }


def read_database(connection: Connection, name: str) -> Database | None:
    """A database by name, from any database of the same server; None when it does not exist."""
    version = connection.server_version
    provider = "CASE d.datlocprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END" if version >= 150000 else "'libc'"
    locale = "d.datlocale" if version >= 170000 else "d.daticulocale" if version >= 150000 else "NULL"
    rows = client.query(
        connection,
        "SELECT d.oid, d.datname::text AS name, pg_get_userbyid(d.datdba)::text AS owner, pg_encoding_to_char(d.encoding)::text AS encoding, "
        f"d.datcollate::text AS collate, d.datctype::text AS ctype, {provider} AS provider, {locale} AS locale, d.datconnlimit AS connection_limit, "
        "shobj_description(d.oid, 'pg_database') AS comment FROM pg_database d WHERE d.datname = %s",
        (name,),
    )
    if not rows:
        return None
    row = rows[0]
    oid = row.pop("oid")
    privileges = client.query(
        connection,
        "SELECT coalesce(r.rolname::text, '') AS grantee, a.privilege_type::text AS privilege, bool_or(a.is_grantable) AS option "
        "FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a LEFT JOIN pg_roles r ON r.oid = a.grantee "
        "WHERE d.oid = %s GROUP BY 1, 2",
        (oid,),
    )
    settings: dict[tuple[str, str], str] = {}
    for item in client.query(
        connection,
        "SELECT coalesce(r.rolname::text, '') AS role, unnest(s.setconfig) AS setting FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole "
        "WHERE s.setdatabase = %s",
        (oid,),
    ):
        key, _equals, value = item["setting"].partition("=")
        settings[(item["role"], key)] = value
    return Database(**row, privileges=frozenset((item["grantee"], item["privilege"], item["option"]) for item in privileges), settings=settings)


def plan_database(source: Database, target: Database | None, moved_roles: t.Collection[str], administrator: str) -> tuple[list[Action], list[Action], Database]:
    """Plan (pure).

    :param moved_roles: roles that exist on the target under the same name; privileges of others are left out
    :param administrator: owns the database where the source's owner is not moved
    :returns: what runs before the database exists (CREATE DATABASE, not in a transaction), what runs after, and the database as wanted
    :raises PlanError: it exists with another encoding or locale, which cannot be altered
    """
    owner = source.owner if source.owner in moved_roles else administrator
    known = {grantee for grantee, _privilege, _option in source.privileges if grantee in moved_roles or grantee == ""}
    privileges = {(grantee, privilege, option) for grantee, privilege, option in source.privileges if grantee in known}
    if owner != source.owner:
        privileges |= {(owner, privilege, option) for grantee, privilege, option in source.privileges if grantee == source.owner}
    locale_options = _locale(source)
    before: list[Action] = []
    if target is None:
        options = [f"ENCODING {literal(source.encoding)}", *locale_options, "TEMPLATE template0"]
        before.append(Action(f"CREATE DATABASE {identifier(source.name)} OWNER {identifier(owner)} {' '.join(options)}"))
        # The privileges that a new database has: of PUBLIC and of its owner.
        now = {("", "CONNECT", False), ("", "TEMPORARY", False), *((owner, privilege, False) for privilege in ("CONNECT", "CREATE", "TEMPORARY"))}
        actions: list[Action] = []
    else:
        here, there = (source.encoding, locale_options), (target.encoding, _locale(target))
        if here != there:
            raise PlanError(
                f"Database {source.name} exists on the target with {there[0]}, {' '.join(there[1])}; the source has {here[0]}, {' '.join(here[1])}. "
                "Drop it on the target and run again: it is created like the source's."
            )
        now = set(target.privileges)
        actions = []
        if target.owner != owner:
            actions.append(Action(f"ALTER DATABASE {identifier(source.name)} OWNER TO {identifier(owner)}"))
            now = {(owner if grantee == target.owner else grantee, privilege, option) for grantee, privilege, option in now}
    actions += _plan_privileges(source.name, now, privileges, moved_roles)
    was = target or Database(source.name, owner, source.encoding, source.collate, source.ctype, source.provider, source.locale, -1, None, frozenset(), {})
    if was.connection_limit != source.connection_limit:
        actions.append(Action(f"ALTER DATABASE {identifier(source.name)} CONNECTION LIMIT {source.connection_limit}"))
    if was.comment != source.comment:
        actions.append(Action(f"COMMENT ON DATABASE {identifier(source.name)} IS {literal(source.comment) if source.comment is not None else 'NULL'}"))
    settings = {key: value for key, value in source.settings.items() if key[0] == "" or key[0] in moved_roles}
    for key, value in sorted(settings.items()):
        if was.settings.get(key) != value:
            actions.append(Action(f"{_alter(source.name, key[0])} SET {setting(key[1], value)}"))
    for role, name in sorted(set(was.settings) - set(settings)):
        if role == "" or role in moved_roles:
            actions.append(Action(f"{_alter(source.name, role)} RESET {setting_name(name)}"))
    kept = {item for item in now if item[0] and item[0] not in moved_roles and item[0] != owner}
    fields = {**source.__dict__, "owner": owner, "privileges": frozenset(privileges | kept), "settings": settings}
    return before, actions, Database(**fields)


def _alter(database: str, role: str) -> str:
    return f"ALTER ROLE {identifier(role)} IN DATABASE {identifier(database)}" if role else f"ALTER DATABASE {identifier(database)}"


def _locale(database: Database) -> list[str]:
    """Options of CREATE DATABASE for its locale."""
    options = [f"LC_COLLATE {literal(database.collate)}", f"LC_CTYPE {literal(database.ctype)}"]
    if database.provider == "icu":
        options += ["LOCALE_PROVIDER icu", f"ICU_LOCALE {literal(database.locale or '')}"]
    elif database.provider == "builtin":
        options += ["LOCALE_PROVIDER builtin", f"BUILTIN_LOCALE {literal(database.locale or '')}"]
    return options


def _plan_privileges(name: str, now: set[tuple[str, str, bool]], wanted: set[tuple[str, str, bool]], moved_roles: t.Collection[str]) -> list[Action]:
    """REVOKE and GRANT; grantees that exist on the target only keep what they have."""
    actions = []
    for grantee, privilege, _option in sorted(now - wanted):
        if grantee == "" or grantee in moved_roles:
            actions.append(Action(f"REVOKE {privilege} ON DATABASE {identifier(name)} FROM {identifier(grantee) if grantee else 'PUBLIC'}"))
    for grantee, privilege, option in sorted(wanted - now):
        suffix = " WITH GRANT OPTION" if option else ""
        actions.append(Action(f"GRANT {privilege} ON DATABASE {identifier(name)} TO {identifier(grantee) if grantee else 'PUBLIC'}{suffix}"))
    return actions
