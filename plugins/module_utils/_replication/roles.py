# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Roles of the source that have to exist on the target: read both sides, compare, plan."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from .._core.outcome import Action
from .._postgresql import client, scram
from .names import identifier, literal, setting, setting_name

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

# Attribute in pg_roles -> (word, word for the opposite). Only a superuser may give those of ADMINISTRATIVE.
ATTRIBUTES = {
    "rolsuper": ("SUPERUSER", "NOSUPERUSER"),
    "rolinherit": ("INHERIT", "NOINHERIT"),
    "rolcreaterole": ("CREATEROLE", "NOCREATEROLE"),
    "rolcreatedb": ("CREATEDB", "NOCREATEDB"),
    "rolcanlogin": ("LOGIN", "NOLOGIN"),
    "rolreplication": ("REPLICATION", "NOREPLICATION"),
    "rolbypassrls": ("BYPASSRLS", "NOBYPASSRLS"),
}
OWN_PREFIX = "ha_migration"
ADMINISTRATIVE = frozenset(["rolsuper", "rolreplication", "rolbypassrls"])


@dataclass(frozen=True)
class Role:
    """One role as a server knows it.

    :param attributes: the columns of ATTRIBUTES
    :param connection_limit: -1 for none
    :param valid_until: end of the password's life in ISO form, or None
    :param verifier: stored password; None for none or where ``verifier_known`` is False
    :param verifier_known: whether the server let us read it
    :param owns: whether it owns an object in this database; of the server's first superuser that is taken for granted
    :param settings: those for every database; what is set for one database belongs to that database
    :param mark: which verifier it was given, where ``verifier_known`` is False (:func:`scram.mark`)
    """

    name: str
    attributes: dict[str, bool]
    connection_limit: int = -1
    valid_until: str | None = None
    verifier: str | None = field(default=None, repr=False)
    verifier_known: bool = True
    owns: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    mark: str | None = None

    def public(self) -> dict[str, t.Any]:
        """What may be shown."""
        return {
            "attributes": sorted(words[0] if self.attributes[column] else words[1] for column, words in ATTRIBUTES.items()),
            "connection_limit": self.connection_limit,
            "valid_until": self.valid_until,
            "password": ("set" if self.verifier else "none") if self.verifier_known else "unknown",
            "settings": dict(sorted(self.settings.items())),
        }


@dataclass(frozen=True)
class Membership:
    """One role in another; the last two are None on servers before 16."""

    role: str
    member: str
    admin: bool = False
    inherit: bool | None = None
    set_role: bool | None = None

    def same_as(self, other: Membership) -> bool:
        """Whether the grants mean the same; what one server does not know is not compared."""
        if self.admin != other.admin:
            return False
        pairs = ((self.inherit, other.inherit), (self.set_role, other.set_role))
        return all(here is None or there is None or here == there for here, there in pairs)


@dataclass(frozen=True)
class Side:
    """All roles of one server.

    :param tells_inheritance: a membership says for itself whether it inherits and may be set (16 and later)
    """

    roles: dict[str, Role]
    memberships: dict[tuple[str, str], Membership]
    tells_inheritance: bool = True


@dataclass(frozen=True)
class RolesPlan:
    """What to do on the target, and what the operator has to know.

    :param skipped: role -> why it is not moved; predefined roles are not listed
    :param without_password: login roles whose password the source did not let us read: set new ones
    :param old_password_method: login roles with an md5 password, which scram-sha-256 in pg_hba refuses
    :param not_possible: sentences about what the target's administrator may not give
    """

    actions: list[Action]
    wanted: dict[str, Role]
    skipped: dict[str, str]
    without_password: list[str]
    old_password_method: list[str]
    not_possible: list[str]


def read_side(connection: Connection, database: str) -> Side:
    """Every role of a server, with verifiers where we may read them."""
    readable = bool(client.query_value(connection, f"SELECT {scram.READABLE}"))
    catalog = "pg_authid" if readable else "pg_roles"
    password = "r.rolpassword" if readable else "NULL"
    comment = "NULL" if readable else "shobj_description(r.oid, 'pg_authid')"
    settings: dict[str, dict[str, str]] = {}
    for row in client.query(
        connection,
        "SELECT r.rolname::text, unnest(s.setconfig) AS setting FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole WHERE s.setdatabase = 0",
    ):
        name, _equals, value = row["setting"].partition("=")
        settings.setdefault(row["rolname"], {})[name] = value
    roles = {}
    for row in client.query(
        connection,
        f"SELECT r.rolname::text, {', '.join('r.' + column for column in ATTRIBUTES)}, r.rolconnlimit, r.rolvaliduntil::text, {password} AS verifier, "
        f"{comment} AS mark, "
        # What the first superuser (10) owns is recorded nowhere.
        "r.oid = 10 OR EXISTS (SELECT FROM pg_shdepend d WHERE d.refclassid = 'pg_authid'::regclass AND d.refobjid = r.oid AND d.deptype = 'o' "
        f"AND d.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = %s))) AS owns FROM {catalog} r",
        (database,),
    ):
        roles[row["rolname"]] = Role(
            name=row["rolname"],
            attributes={column: row[column] for column in ATTRIBUTES},
            connection_limit=row["rolconnlimit"],
            valid_until=row["rolvaliduntil"],
            verifier=row["verifier"],
            verifier_known=readable,
            owns=row["owns"],
            settings=settings.get(row["rolname"], {}),
            mark=row["mark"],
        )
    new = connection.server_version >= 160000
    options = "bool_or(m.inherit_option) AS inherit, bool_or(m.set_option) AS set_role" if new else "NULL::bool AS inherit, NULL::bool AS set_role"
    memberships = {
        (row["role"], row["member"]): Membership(**row)
        for row in client.query(
            connection,
            f"SELECT r.rolname::text AS role, u.rolname::text AS member, bool_or(m.admin_option) AS admin, {options} FROM pg_auth_members m "
            "JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member GROUP BY 1, 2",
        )
    }
    return Side(roles, memberships, new)


def plan_between(
    source: Connection, target: Connection, sides: tuple[Side, Side], exclude: t.Collection[str], kept: t.Mapping[str, str] = MappingProxyType({})
) -> RolesPlan:
    """Plan between the servers of two sessions, whose administrators are never moved.

    :param sides: source and target, as they were read
    :param exclude: further roles that are not moved, by name
    :param kept: roles that stay as they are on the target, each with why
    """
    administrators = [str(client.query_value(session, "SELECT session_user::text")) for session in (source, target)]
    limited = None if client.query_value(target, "SHOW is_superuser") == "on" else administrators[1]
    return plan_roles(*sides, {*administrators, *exclude}, OWN_PREFIX, limited, kept)


def plan_roles(
    source: Side,
    target: Side,
    exclude: t.Collection[str],
    own_prefix: str,
    limited: str | None = None,
    kept: t.Mapping[str, str] = MappingProxyType({}),
) -> RolesPlan:
    """Compare and plan (pure). Attributes stay as they are on the source; what exists only on the target is left alone.

    :param exclude: roles that are not moved, by name (administrators)
    :param own_prefix: roles of ours begin with it
    :param limited: the target's administrator where it is no superuser: it becomes a member of every moved role, or could neither give what is theirs nor
      compare it. What an administrator of the source owns stays with a role of that name there, which nobody logs in as
    :param kept: roles that stay as they are on the target, each with why
    """
    administrator_is_superuser = limited is None
    candidates = [name for name in source.roles if not name.startswith("pg_")]
    skipped = {name: why for name in candidates if (why := _why_skipped(source.roles[name], exclude, own_prefix) or kept.get(name))}
    not_possible: list[str] = []
    wanted: dict[str, Role] = {}
    for name in sorted(set(candidates) - set(skipped)):
        role = source.roles[name]
        refused = [] if administrator_is_superuser else sorted(column for column in ADMINISTRATIVE if role.attributes[column])
        if refused:
            words = ", ".join(ATTRIBUTES[column][0] for column in refused)
            not_possible.append(f"Role {name} has {words} on the source, which the target's administrator may not give.")
            role = replace(role, attributes={**role.attributes, **dict.fromkeys(refused, False)})
        wanted[name] = role
    actions = [action for name in wanted for action in _plan_role(wanted[name], target.roles.get(name), administrator_is_superuser)]
    actions += _plan_memberships(source, target, wanted, not_possible)
    if limited is not None:
        owners = sorted(name for name in skipped if source.roles[name].owns and (name not in target.roles or (name, limited) in target.memberships))
        actions += [Action(f"CREATE ROLE {identifier(name)} NOLOGIN") for name in owners if name not in target.roles]
        actions += _plan_administrator(target, [*wanted, *owners], limited)
    actions += [action for name in wanted for action in _plan_settings(wanted[name], target.roles.get(name))]
    logins = [role for role in wanted.values() if role.attributes["rolcanlogin"]]
    return RolesPlan(
        actions=actions,
        wanted=wanted,
        skipped=skipped,
        without_password=[role.name for role in logins if not role.verifier_known],
        old_password_method=[role.name for role in logins if (role.verifier or "").startswith("md5")],
        not_possible=not_possible,
    )


def _why_skipped(role: Role, exclude: t.Collection[str], own_prefix: str) -> str | None:
    """Why a role of the source is not moved; None when it is."""
    if role.name.startswith(own_prefix):
        return "made by the migration itself"
    if role.name == "postgres" or role.name in exclude:
        return "administrator, or excluded by the inventory"
    if role.name.startswith("rds") and not role.owns:
        return "belongs to the service that runs the source"
    if role.attributes["rolreplication"] and not role.attributes["rolsuper"] and not role.owns:
        return "replication of the source: it owns nothing and the target has its own"
    return None


def _plan_role(role: Role, there: Role | None, administrator_is_superuser: bool) -> list[Action]:
    """CREATE ROLE or ALTER ROLE for what differs."""
    options: list[str] = []
    private: list[str] = []
    for column, words in ATTRIBUTES.items():
        if column in ADMINISTRATIVE and not administrator_is_superuser:
            continue
        if there is None or there.attributes[column] != role.attributes[column]:
            options.append(words[0] if role.attributes[column] else words[1])
    if role.connection_limit != (there.connection_limit if there else -1):
        options.append(f"CONNECTION LIMIT {role.connection_limit}")
    if role.valid_until != (there.valid_until if there else None):
        options.append(f"VALID UNTIL {literal(role.valid_until or 'infinity')}")
    private = list(options)
    marked: list[Action] = []
    if role.verifier_known and _has_another_password(role, there, administrator_is_superuser):
        # A new role has none.
        if there or role.verifier:
            options.append("PASSWORD (verifier of the source)" if role.verifier else "PASSWORD NULL")
            private.append(f"PASSWORD {literal(role.verifier)}" if role.verifier else "PASSWORD NULL")
        marked = [] if administrator_is_superuser else [Action(f"COMMENT ON ROLE {identifier(role.name)} IS {literal(scram.mark(role.verifier))}")]
    if there is not None and not options:
        return []
    verb = f"{'ALTER' if there else 'CREATE'} ROLE {identifier(role.name)}"
    return [Action(" ".join([verb, *options]), " ".join([verb, *private])), *marked]


def _has_another_password(role: Role, there: Role | None, administrator_is_superuser: bool) -> bool:
    """Whether the target's role has to be given the source's verifier. A target that hides its own says in a comment which one it was given."""
    if there is None:
        return True
    if there.verifier_known:
        return there.verifier != role.verifier
    return not administrator_is_superuser and there.mark != scram.mark(role.verifier)


def _plan_memberships(source: Side, target: Side, wanted: dict[str, Role], not_possible: list[str]) -> list[Action]:
    """GRANT and REVOKE of memberships of the moved roles."""
    actions = []
    desired = {key: item for key, item in source.memberships.items() if item.member in wanted}
    for key in sorted(desired):
        item, there = desired[key], target.memberships.get(key)
        predefined = item.role.startswith("pg_") and item.role in target.roles
        if item.role not in wanted and not predefined:
            not_possible.append(f"Role {item.member} is a member of {item.role} on the source, which is not moved.")
        elif there is None or not item.same_as(there):
            if there is not None:
                actions.append(Action(f"REVOKE {identifier(item.role)} FROM {identifier(item.member)}"))
            actions.append(Action(f"GRANT {identifier(item.role)} TO {identifier(item.member)}{_membership_options(item)}"))
    for key in sorted(set(target.memberships) - set(desired)):
        role, member = key
        if member in wanted and (role in wanted or role.startswith("pg_")):
            actions.append(Action(f"REVOKE {identifier(role)} FROM {identifier(member)}"))
    return actions


def _plan_administrator(target: Side, wanted: t.Collection[str], administrator: str) -> list[Action]:
    """GRANT of each moved role. Since 16 whoever makes a role may grant it, and neither use nor become it before that."""
    actions = []
    for name in sorted(wanted):
        there = target.memberships.get((name, administrator))
        if there is None or False in (there.inherit, there.set_role):
            options = " WITH INHERIT TRUE, SET TRUE" if target.tells_inheritance else ""
            actions.append(Action(f"GRANT {identifier(name)} TO {identifier(administrator)}{options}"))
    return actions


def _membership_options(item: Membership) -> str:
    """WITH clause of GRANT; the words INHERIT and SET exist since 16 only."""
    if item.inherit is None and item.set_role is None:
        return " WITH ADMIN OPTION" if item.admin else ""
    return f" WITH ADMIN {str(item.admin).upper()}, INHERIT {str(bool(item.inherit)).upper()}, SET {str(bool(item.set_role)).upper()}"


def _plan_settings(role: Role, there: Role | None) -> list[Action]:
    """ALTER ROLE ... SET and RESET."""
    now = there.settings if there else {}
    alter = f"ALTER ROLE {identifier(role.name)}"
    changes = [Action(f"{alter} SET {setting(name, value)}") for name, value in sorted(role.settings.items()) if now.get(name) != value]
    return changes + [Action(f"{alter} RESET {setting_name(name)}") for name in sorted(set(now) - set(role.settings))]
