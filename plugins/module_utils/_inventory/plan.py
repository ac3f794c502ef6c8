# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""From an inventory to its problems. Pure: no I/O, no clock, and no secret's value."""

from __future__ import annotations

import difflib
import ipaddress
import re
import typing as t

from .._core.problems import Problem
from .model import EVIDENCE_KEYS, FACTS, GROUPS, KEYS, PREFIX, ROLE_KEYS, Group, Host, Inventory, Key, Secret

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?")
Fault = tuple[str, str]
# These stand in pgbouncer.ini, which knows no quoting there.
POOLER_NAMES = ("pg_ha_database", "pg_ha_pooler_operator", "pg_ha_pooler_auth_user")


def plan_problems(inventory: Inventory, evidence_only: bool = False) -> list[Problem]:
    """All problems, in the order of keys, groups and hosts.

    :param evidence_only: the phase renders evidence: neither secrets nor a whole target are asked for
    """
    found = [*unknown_keys(inventory), *broken_keys(inventory), *missing_keys(inventory, evidence_only), *wrong_values(inventory)]
    if evidence_only:
        return [*found, *group_problems(inventory, ("pg_ha_mover",))]
    found += [*wrong_budgets(inventory), *same_roles(inventory), *unknown_groups(inventory), *group_problems(inventory, tuple(GROUPS))]
    return [*found, *addresses(inventory), *source_is_ours(inventory)]


def everybody(inventory: Inventory) -> tuple[Host, ...]:
    """All hosts; the controller only where there are none, since it sees less: an implicit localhost has no inventory_dir."""
    return inventory.hosts or (inventory.controller,)


def names_of(inventory: Inventory) -> set[str]:
    """Names of all variables that anybody has."""
    return {name for host in (inventory.controller, *inventory.hosts) for name in host.names}


def values_of(inventory: Inventory, name: str) -> list[t.Any]:
    """The different values that a key has, without secrets."""
    found: list[t.Any] = []
    for host in everybody(inventory):
        if name in host.values and host.values[name] not in found:
            found.append(host.values[name])
    return found


def value_of(inventory: Inventory, name: str) -> t.Any:
    """A collection-wide key's value, None when it has none."""
    found = values_of(inventory, name)
    return found[0] if found else None


def meant(name: str, known: t.Iterable[str]) -> str:
    """The known name that is nearest to a misspelt one, "" when none is near."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)), "")


# --- keys ------------------------------------------------------------------------------------------------------------------------


def unknown_keys(inventory: Inventory) -> t.Iterator[Problem]:
    """Keys that nothing reads: a misspelt one would be ignored in silence."""
    known = {*KEYS, *FACTS}
    for name in sorted({name for name in names_of(inventory) if name.startswith(PREFIX)} - known):
        near = meant(name, KEYS)
        remedy = f"write {near}, or remove it" if near else "remove it; docs/architecture.md lists the keys"
        yield Problem("unknown_key", name, f"{name} is no key of this collection", remedy)


def broken_keys(inventory: Inventory) -> t.Iterator[Problem]:
    """Keys whose templates fail."""
    for name in sorted({name for host in inventory.hosts for name in host.broken}):
        reason = [host.broken[name] for host in inventory.hosts if name in host.broken][0]
        yield Problem("broken_key", name, f"{name} has a template that fails ({reason})", "correct it")


def missing_keys(inventory: Inventory, evidence_only: bool) -> t.Iterator[Problem]:
    """Keys without a default that are not given, or only for some hosts."""
    hosts = everybody(inventory)
    for key in KEYS.values():
        if not key.required or (evidence_only and key.name not in EVIDENCE_KEYS) or not is_concerned(inventory, key.target):
            continue
        without = [host.name for host in hosts if key.name not in host.values and key.name not in host.broken]
        if not without:
            continue
        # Names with our prefix are reported as unknown keys.
        near = meant(key.name, {name for name in names_of(inventory) if not name.startswith(PREFIX)})
        where = "a vault in group_vars/all" if key.type == "secret" else "group_vars/all"
        remedy = f"give it in {where}" + (f" ({near} is read by nothing)" if near else "")
        for_whom = "" if len(without) == len(hosts) else f" for {', '.join(without)}"
        yield Problem("missing_key", key.name, f"{key.name} is not given{for_whom}", remedy)


def wrong_values(inventory: Inventory) -> t.Iterator[Problem]:
    """Values that cannot work; a key that has several values although it is one for all."""
    for key in KEYS.values():
        values = values_of(inventory, key.name)
        if key.type == "address":
            continue
        if len(values) > 1 and key.type != "secret":
            holders = [host.name for host in everybody(inventory) if host.values.get(key.name, values[0]) != values[0]]
            yield Problem("wrong_value", key.name, f"{key.name} has another value for {', '.join(holders)} than for the rest", "give one value for all hosts")
            continue
        for value in values:
            fault = fault_of(key, value, inventory)
            if fault is not None:
                kind = "impossible_budget" if key.type == "seconds" else "wrong_value"
                yield Problem(kind, key.name, f"{key.name} {fault[0]}", fault[1])
                break


def fault_of(key: Key, value: t.Any, inventory: Inventory) -> Fault | None:
    """What is wrong with a value, and the remedy; None when it can work."""
    if isinstance(value, Secret):
        if value.given and not value.writable:
            return "holds a line break or another control character", "give a password without one: password files have one line for each"
        return None if value.given else ("is empty or no text", "give a password, quoted where it is a number")
    if key.type == "passwords":
        return check_passwords(value, value_of(inventory, "pg_ha_application_roles") or [])
    if key.type == "ca_file":
        problem = inventory.files.get(str(value), "")
        return (f"({value}) {problem}", "put the CA certificate of the source there as PEM, or correct the path") if problem else None
    return CHECKS[key.type](key, value)


def check_text(key: Key, value: t.Any) -> Fault | None:
    """A name that the server takes."""
    if not isinstance(value, str) or not value.strip() or len(value.encode()) > 63:
        return f"is {value!r}", "give a name of 1 to 63 bytes"
    if not value.isprintable() or value != value.strip():
        return f"is {value!r}", "use no line breaks or control characters, and no blank at either end: no connection file can say such a name"
    if key.name in POOLER_NAMES and not re.fullmatch(r"[A-Za-z0-9_.-]+", value):
        return f"is {value!r}", "give a name of ASCII letters, digits and _ . - only: PgBouncer's configuration can say no other"
    if key.name == "pg_ha_database" and value == "pgbouncer":
        return "is pgbouncer, which is the name of PgBouncer's console", "rename the database before it is moved"
    return None


def check_identifier(key: Key, value: t.Any) -> Fault | None:
    """A name that becomes part of paths."""
    if isinstance(value, str) and re.fullmatch(r"[a-z][a-z0-9_]*", value):
        return None
    return f"is {value!r}", "begin with a small letter and use small letters, digits and underscores only"


def check_folder(key: Key, value: t.Any) -> Fault | None:
    """A folder on the controller."""
    return None if isinstance(value, str) and value.startswith("/") else (f"is {value!r}", "give an absolute path on the controller")


def check_host(key: Key, value: t.Any) -> Fault | None:
    """A host's name or address."""
    if isinstance(value, str) and (NAME.fullmatch(value) or is_address(value)):
        return None
    return f"is {value!r}, which is no host's name", "give a name or an address, and the port in a key of its own"


def is_address(value: str) -> bool:
    """Whether it is an IP address of either version."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def check_port(key: Key, value: t.Any) -> Fault | None:
    """A TCP port; text where it comes from a survey or a command line."""
    number = to_number(value)
    if number is not None and number == int(number) and 1 <= number <= 65535:
        return None
    return f"is {value!r}", "give a port from 1 to 65535"


def to_number(value: t.Any) -> float | None:
    """A number, also where it arrived as text; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def check_seconds(key: Key, value: t.Any) -> Fault | None:
    """A bound in seconds within what can work."""
    number = to_number(value)
    if number is not None and key.least <= number <= key.most:
        return None
    return f"is {value!r}, which cannot work ({key.why})", f"give {key.least:g} to {key.most:g} seconds"


def check_mib(key: Key, value: t.Any) -> Fault | None:
    """A whole number of MiB within what can work."""
    number = to_number(value)
    if number is not None and key.least <= number <= key.most and number == int(number):
        return None
    return f"is {value!r}, which cannot work ({key.why})", f"give {key.least:.0f} to {key.most:.0f} MiB"


def check_choice(key: Key, value: t.Any) -> Fault | None:
    """One of several words."""
    if value in key.choices:
        return None
    near = meant(str(value), key.choices)
    return f"is {value!r}", f"write {near}" if near else f"choose one of {', '.join(key.choices)}"


def check_choices(key: Key, value: t.Any) -> Fault | None:
    """A list of words."""
    if not isinstance(value, (list, tuple)):
        return f"is {value!r} and no list", f"give a list of {', '.join(key.choices)}"
    wrong = [str(one) for one in value if one not in key.choices]
    return (f"holds {', '.join(wrong)}", f"choose of {', '.join(key.choices)}") if wrong else None


def check_list(key: Key, value: t.Any) -> Fault | None:
    """A list of names."""
    if isinstance(value, (list, tuple)) and all(isinstance(one, str) and one for one in value):
        return None
    return f"is {value!r}", "give a list of names"


def check_mappings(key: Key, value: t.Any) -> Fault | None:
    """A list of descriptions. What each says is looked at by whoever uses it."""
    if isinstance(value, (list, tuple)) and all(isinstance(one, dict) for one in value):
        return None
    return f"is {value!r}", "give a list of mappings, see docs/rds.md"


def check_passwords(value: t.Any, roles: list[str]) -> Fault | None:
    """A mapping from roles to passwords, of which only whether they are given is known here."""
    if not isinstance(value, dict):
        return "is no mapping", "give it as role: password"
    empty = sorted(str(role) for role, password in value.items() if not (isinstance(password, Secret) and password.given))
    if empty:
        return f"has an empty password or one that is no text for {', '.join(empty)}", "give a password, quoted where it is a number, or leave the role out"
    broken = sorted(str(role) for role, password in value.items() if not password.writable)
    if broken:
        return f"has a password with a line break or another control character for {', '.join(broken)}", "give a password without one"
    strangers = sorted(set(value) - set(roles)) if isinstance(roles, list) and roles else []
    if strangers:
        return f"has a password for {', '.join(strangers)}, which pg_ha_application_roles does not name", "correct the role's name, or name it there"
    return None


def check_store(key: Key, value: t.Any) -> Fault | None:
    """Where a secret store has the passwords."""
    if isinstance(value, dict) and value.get("name") and value.get("key"):
        return None
    return f"is {value!r}", "give name (of the store) and key (of a role's entry), see docs/routes.md"


def check_networks(key: Key, value: t.Any) -> Fault | None:
    """Networks as CIDR."""
    if not isinstance(value, (list, tuple)) or not value:
        return f"is {value!r}", "give a list of networks such as 192.0.2.0/24"
    for one in value:
        try:
            network = ipaddress.ip_network(one)
        except ValueError:
            return f"holds {one!r}, which is no network", "write networks as 192.0.2.0/24, with no bit set behind the mask"
        if network.prefixlen == 0:
            return f"holds {one!r}, which is everybody", "name the networks of clients, poolers, mover and source"
    return None


def check_boolean(key: Key, value: t.Any) -> Fault | None:
    """A boolean; text where it comes from a survey or a command line."""
    if isinstance(value, bool) or str(value).strip().lower() in {"true", "false", "yes", "no", "on", "off", "1", "0", "t", "f", "y", "n"}:
        return None
    return f"is {value!r}", "write true or false"


CHECKS: dict[str, t.Callable[[Key, t.Any], Fault | None]] = {
    "store": check_store,
    "text": check_text,
    "identifier": check_identifier,
    "folder": check_folder,
    "host": check_host,
    "port": check_port,
    "seconds": check_seconds,
    "MiB": check_mib,
    "choice": check_choice,
    "choices": check_choices,
    "list": check_list,
    "mappings": check_mappings,
    "networks": check_networks,
    "boolean": check_boolean,
}


def wrong_budgets(inventory: Inventory) -> t.Iterator[Problem]:
    """Budgets that contradict each other."""
    budget = to_number(value_of(inventory, "pg_ha_cutover_budget_seconds"))
    window = to_number(value_of(inventory, "pg_ha_dump_window_seconds"))
    if budget is not None and window is not None and window <= budget:
        message = f"pg_ha_dump_window_seconds is {window:g} and not longer than pg_ha_cutover_budget_seconds, which is {budget:g}"
        yield Problem("impossible_budget", "pg_ha_dump_window_seconds", message, "declare a window in which everything can be copied and compared")


def same_roles(inventory: Inventory) -> t.Iterator[Problem]:
    """One role for two purposes."""
    by_role: dict[str, list[str]] = {}
    for key, default in ROLE_KEYS.items():
        role = value_of(inventory, key) or default
        if role:
            by_role.setdefault(str(role), []).append(key)
    for role, keys in by_role.items():
        if len(keys) > 1:
            message = f"{' and '.join(keys)} name the same role {role}"
            yield Problem("duplicate_name", keys[1], message, "give each purpose a role of its own")


# --- groups and hosts ------------------------------------------------------------------------------------------------------------


def is_concerned(inventory: Inventory, target: str) -> bool:
    """Whether what belongs to a target counts: it is the one that there is, or none is named, where any may be meant."""
    chosen = [group.name for group in GROUPS.values() if group.target and inventory.groups.get(group.name)]
    return not target or not chosen or target in chosen


def unknown_groups(inventory: Inventory) -> t.Iterator[Problem]:
    """Groups that no playbook uses, and a target that there is not."""
    targets = [group.name for group in GROUPS.values() if group.target]
    for name in sorted(set(inventory.groups) - set(GROUPS)):
        near = meant(name, GROUPS)
        remedy = f"write {near}" if near else f"remove it; groups of targets are: {', '.join(targets)}"
        yield Problem("unknown_target", name, f"Group {name} is no part and no target that this version knows", remedy)
    chosen = [name for name in targets if inventory.groups.get(name)]
    if not chosen:
        yield Problem("unknown_target", targets[0], "There is no target, because no group of one has a host", f"put the target into {' or '.join(targets)}")
    if len(chosen) > 1:
        yield Problem("unknown_target", chosen[1], f"Groups {' and '.join(chosen)} are two targets", "leave hosts in one of them")


def group_problems(inventory: Inventory, names: t.Sequence[str]) -> t.Iterator[Problem]:
    """Groups that are not declared, or have too few or too many hosts."""
    for name in names:
        group = GROUPS[name]
        if name not in inventory.groups:
            yield Problem("undeclared_group", name, f"Group {name} is not declared", f"add it to the inventory; {group.why}")
            continue
        yield from size_problems(inventory, group)


def size_problems(inventory: Inventory, group: Group) -> t.Iterator[Problem]:
    """A group's number of hosts. That a target's group is empty is said elsewhere."""
    size = len(inventory.groups[group.name])
    if not size and (group.target or not is_concerned(inventory, group.part_of)):
        return
    if group.name == "pg_ha_haproxy" and not size and value_of(inventory, "pg_ha_target_write_host") is not None:
        return
    wanted = "exactly 1" if group.most == group.least else f"at least {group.least}"
    holds = f"Group {group.name} holds {size} host{'' if size == 1 else 's'}"
    if size < group.least or (group.most is not None and size > group.most):
        yield Problem("group_size", group.name, f"{holds} and needs {wanted} ({group.why})", "add hosts" if size < group.least else "leave one")
    elif group.odd and size % 2 == 0:
        yield Problem("group_size", group.name, f"{holds}, and an even number outlives no more losses than one less", "use an odd number")


def addresses(inventory: Inventory) -> t.Iterator[Problem]:
    """Every host has an address of its own, and none stands there twice."""
    by_address: dict[str, list[str]] = {}
    by_connection: dict[str, list[str]] = {}
    for host in inventory.hosts:
        if host.connects_to is not None:
            by_connection.setdefault(host.connects_to, []).append(host.name)
        if "pg_ha_address" in host.broken or not is_machine(inventory, host.name):
            continue
        address = host.values.get("pg_ha_address")
        if address is None:
            yield Problem(
                "missing_key", "pg_ha_address", f"pg_ha_address is not given for {host.name}", "give the host's IPv4 address; pg_hba and certificates name it"
            )
        elif not is_address_4(address):
            yield Problem("wrong_value", "pg_ha_address", f"pg_ha_address of {host.name} is {address!r}", "give the host's IPv4 address")
        else:
            by_address.setdefault(str(address), []).append(host.name)
    for address, names in by_address.items():
        if len(names) > 1:
            yield Problem("duplicate_address", "pg_ha_address", f"{' and '.join(names)} have the same pg_ha_address {address}", "give each host its own")
    for connection, names in by_connection.items():
        if len(names) > 1:
            yield Problem("duplicate_name", "ansible_host", f"{' and '.join(names)} are the same host {connection} (ansible_host)", "name each host once")
    yield from same_names(inventory)


def is_machine(inventory: Inventory, name: str) -> bool:
    """Whether a host is one, and does not only stand for a service."""
    return any(name in hosts and (group not in GROUPS or GROUPS[group].machines) for group, hosts in inventory.groups.items())


def is_address_4(value: t.Any) -> bool:
    """Whether it is an IPv4 address: pg_hba and certificates are made of it."""
    try:
        ipaddress.IPv4Address(value)
    except (ValueError, TypeError):
        return False
    return isinstance(value, str)


def same_names(inventory: Inventory) -> t.Iterator[Problem]:
    """Names that differ in case or a final dot only are one host to a resolver."""
    by_name: dict[str, list[str]] = {}
    for host in inventory.hosts:
        by_name.setdefault(host.name.lower().rstrip("."), []).append(host.name)
    for names in by_name.values():
        if len(names) > 1:
            yield Problem("duplicate_name", names[1], f"{' and '.join(names)} are one name to a resolver", "name each host once")


def source_is_ours(inventory: Inventory) -> t.Iterator[Problem]:
    """The source is a server of its own: nothing of ours runs there."""
    source = str(value_of(inventory, "pg_ha_source_host") or "").lower().rstrip(".")
    if not source:
        return
    for host in inventory.hosts:
        known_as = {host.name, str(host.values.get("pg_ha_address", "")), host.connects_to or ""}
        if source not in {name.lower().rstrip(".") for name in known_as}:
            continue
        groups = ", ".join(sorted(name for name, hosts in inventory.groups.items() if host.name in hosts))
        message = f"pg_ha_source_host is {source}, which is {host.name} of {groups}"
        yield Problem(
            "source_is_target", "pg_ha_source_host", message, "name the server that serves the application today; the target's parts need hosts of their own"
        )
