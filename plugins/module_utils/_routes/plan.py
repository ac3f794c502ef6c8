# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Which files an application needs, what they say, and what of it may be shown. Pure."""

from __future__ import annotations

import base64
import posixpath
import re
import typing as t

from .._core.errors import UsageError
from . import prisma
from .model import Change, Endpoint, Found, Role, Routes
from .text import encode, encode_path, escape

MASK = "********"
FOLDER_MODE, FILE_MODE = 0o700, 0o600
# The environment file is written last: a folder that has it is complete.
ENVIRONMENT, SERVICES, PASSFILE, AUTHORITIES = "database.env", "pg_service.conf", "pgpass", "ca.crt"
SECRET, EXTERNAL_SECRET = "secret.yml", "external_secret.yml"
MANAGED = (AUTHORITIES, SERVICES, PASSFILE, SECRET, EXTERNAL_SECRET, prisma.FILE, ENVIRONMENT)
# So that a host that is gone is noticed: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-KEEPALIVES-IDLE. A pooler that lets clients
# wait is there all the same, and confirms what they send.
TIMING = ("connect_timeout=5", "keepalives_idle=10", "keepalives_interval=5", "keepalives_count=3", "tcp_user_timeout=15000")

# What the External Secrets Operator fills in: Go's urlquery writes a space as +, which libpq reads as a plus sign.
TEMPLATE_URL = '{{ .password | urlquery | replace "+" "%20" }}'
TEMPLATE_PASSFILE = r'{{ .password | replace "\\" "\\\\" | replace ":" "\\:" }}'

# Lines that may be shown, by file, with what stands for their secret. Of a line that is neither like this nor in the new file nothing is shown.
_TAIL = r"@[^@'?]*\?sslmode=verify-full&sslrootcert=[^&']*'"
_SHOWN = {
    ENVIRONMENT: (re.compile(rf"(\w+='postgresql://[^:@/']*):[^@']*({_TAIL})"), rf"\1:{MASK}\2"),
    PASSFILE: (re.compile(r"((?:(?:[^:\\]|\\.)*:){4}).*"), rf"\1{MASK}"),
    SECRET: (re.compile(r"(  (?!name: |namespace: )[\w.-]+: ).*"), rf"\1'{MASK}'"),
    SERVICES: (re.compile(r"\[.*\]|(?:host|port|dbname|user|passfile|sslmode|sslrootcert|connect_timeout|keepalives_\w+|tcp_user_timeout)=.*"), r"\g<0>"),
}


def check(routes: Routes, roles: t.Sequence[Role]) -> None:
    """Refuse what the files could not say.

    :raises UsageError: names what and why
    """
    for variable in (routes.write_variable, routes.read_variable):
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", variable):
            raise UsageError(f"The variable {variable!r} is no name of an environment variable: use capital letters, digits and underscores.")
    if routes.write_variable == routes.read_variable:
        raise UsageError(f"The URLs for writing and for reading cannot both be {routes.write_variable}: give them different names.")
    names = {f"The role {role.name!r}": role.name for role in roles}
    names["The database " + repr(routes.database)] = routes.database
    names["The folder " + repr(routes.application_directory)] = routes.application_directory
    names |= {f"The host {host!r}": host for endpoint in (routes.write, routes.read) for host in endpoint.hosts}
    for what, name in names.items():
        if not name or re.search(r"[\x00-\x1f\x7f]", name) or name != name.strip():
            raise UsageError(f"{what} cannot be written into a libpq service file: it is empty, has a control character, or begins or ends with a blank.")
    taken: dict[str, str] = {}
    for role in roles:
        if role.password is not None and (not role.password or re.search(r"[\x00\r\n]", role.password)):
            raise UsageError(f"The password of role {role.name} is empty or has a line break, which a passfile cannot hold: give another, or leave it out.")
        other = taken.setdefault(secret_name(routes, role.name), role.name)
        if other != role.name:
            raise UsageError(f"The roles {other} and {role.name} would share the Secret {secret_name(routes, role.name)}: write them to folders of their own.")


def url(routes: Routes, endpoint: Endpoint, user: str, password: str | None) -> str:
    """A libpq URI that verifies the server.

    :param password: encoded already, None for none
    """
    hosts = ",".join(f"{f'[{host}]' if ':' in host else encode(host)}:{endpoint.port}" for host in endpoint.hosts)
    login = encode(user) + ("" if password is None else f":{password}")
    root = encode_path(f"{routes.application_directory}/{AUTHORITIES}")
    return f"postgresql://{login}@{hosts}/{encode(routes.database)}?sslmode=verify-full&sslrootcert={root}"


def urls(routes: Routes, user: str, password: str | None) -> dict[str, str]:
    """URL by environment variable."""
    return {routes.write_variable: url(routes, routes.write, user, password), routes.read_variable: url(routes, routes.read, user, password)}


def environment_file(routes: Routes, role: Role) -> str:
    """Quoted, because a shell would end the command at ``&``."""
    if routes.store is not None:
        store = routes.store
        note = f"# Without the password, which is property {store.property} of {store.key_of(role.name)} in {store.kind} {store.name}.\n"
    else:
        note = "" if role.password is not None else "# Without a password, which was not given (pg_ha_application_passwords).\n"
    password = None if role.password is None or routes.store is not None else encode(role.password)
    return note + "".join(f"{variable}='{value}'\n" for variable, value in urls(routes, role.name, password).items())


def service_file(routes: Routes, user: str) -> str:
    """Services ``write`` and ``read``; the password is in the passfile."""
    lines = []
    for name, endpoint in (("write", routes.write), ("read", routes.read)):
        lines += [f"[{name}]", f"host={','.join(endpoint.hosts)}", f"port={endpoint.port}", f"dbname={routes.database}", f"user={user}"]
        lines += [f"passfile={routes.application_directory}/{PASSFILE}", "sslmode=verify-full", f"sslrootcert={routes.application_directory}/{AUTHORITIES}"]
        lines += [*TIMING, ""]
    return "\n".join(lines[:-1]) + "\n"


def passfile(routes: Routes, user: str, password: str) -> str:
    """One line per host.

    :param password: escaped already
    """
    places = dict.fromkeys((host, endpoint.port) for endpoint in (routes.write, routes.read) for host in endpoint.hosts)
    return "".join(f"{escape(host)}:{port}:{escape(routes.database)}:{escape(user)}:{password}\n" for host, port in places)


def secret_name(routes: Routes, role: str) -> str:
    """A name that Kubernetes takes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{routes.secret_prefix}-{role}".lower()).strip("-")[:253]


def _metadata(routes: Routes, role: str) -> dict[str, str]:
    return {"name": secret_name(routes, role)} | ({} if routes.namespace is None else {"namespace": routes.namespace})


def secret(routes: Routes, role: Role) -> dict[str, t.Any]:
    """A Kubernetes Secret: the URLs as keys for the environment, the files as keys for a volume."""
    values = urls(routes, role.name, None if role.password is None else encode(role.password))
    values |= {AUTHORITIES: routes.authorities, SERVICES: service_file(routes, role.name)}
    if role.password is not None:
        values[PASSFILE] = passfile(routes, role.name, escape(role.password))
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": _metadata(routes, role.name), "type": "Opaque", "data": data}


def external_secret(routes: Routes, role: str) -> dict[str, t.Any]:
    """What the External Secrets Operator makes the same Secret from: it holds a reference, and the operator fills in the password."""
    if routes.store is None:
        raise UsageError("No secret store is declared.")
    # What is not our template must not be taken for one.
    plain: t.Callable[[str], str] = lambda text: text.replace("{{", '{{ "{{" }}')
    values = urls(routes, role, TEMPLATE_URL)
    values |= {AUTHORITIES: routes.authorities, SERVICES: plain(service_file(routes, role))}
    values[PASSFILE] = "".join(f"{plain(line)}{TEMPLATE_PASSFILE}\n" for line in lines_of(passfile(routes, role, "")))
    reference = {"key": routes.store.key_of(role), "property": routes.store.property}
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": _metadata(routes, role),
        "spec": {
            "secretStoreRef": {"name": routes.store.name, "kind": routes.store.kind},
            "target": {"name": secret_name(routes, role), "template": {"engineVersion": "v2", "data": values}},
            "data": [{"secretKey": "password", "remoteRef": reference}],
        },
    }


def files(routes: Routes, role: Role, dump: t.Callable[[t.Any], str]) -> dict[str, str]:
    """Content by name of everything that one role needs, in the order of writing.

    :param dump: turns data into YAML
    """
    wanted = {AUTHORITIES: routes.authorities, SERVICES: service_file(routes, role.name)}
    if routes.store is not None:
        wanted[EXTERNAL_SECRET] = dump(external_secret(routes, role.name))
    else:
        if role.password is not None:
            wanted[PASSFILE] = passfile(routes, role.name, escape(role.password))
        wanted[SECRET] = dump(secret(routes, role))
    module = prisma.module_text(routes.write_variable, routes.read_variable)
    return {**wanted, prisma.FILE: module, ENVIRONMENT: environment_file(routes, role)}


def password_state(names: t.Container[str]) -> str:
    """Where the password is, by the files that there are: ``referenced`` (in a store), ``written`` (into the files) or ``not_known``."""
    if EXTERNAL_SECRET in names:
        return "referenced"
    return "written" if PASSFILE in names else "not_known"


def is_kept(found: dict[str, Found]) -> bool:
    """Whether a folder is complete, so that with ``keep`` nothing of it is touched."""
    return found[ENVIRONMENT].mode is not None


def plan_folder(path: str, found: Found) -> list[Change]:
    """Make a folder that nobody else may look into."""
    return [] if found.mode == FOLDER_MODE else [Change("folder", path)]


def plan_files(folder: str, wanted: dict[str, str], found: dict[str, Found]) -> list[Change]:
    """What to write and what to take away, the latter first: it may hold a password that no longer belongs here.

    :param found: every managed name
    """
    changes = [Change("remove", posixpath.join(folder, name)) for name in MANAGED if name not in wanted and found[name].mode is not None]
    for name, text in wanted.items():
        if found[name] != Found(FILE_MODE, text):
            changes.append(Change("write", posixpath.join(folder, name), text))
    return changes


def public(change: Change) -> str:
    """What is done, in words."""
    words = {"folder": f"keep the folder {change.path} with mode 0700", "write": f"write {change.path}", "remove": f"remove {change.path}"}
    return words[change.what]


def lines_of(text: str) -> list[str]:
    """Lines as files and shells have them. Python knows more ends of a line, and what comes after one in a password would be shown as a line of its own."""
    return text.removesuffix("\n").split("\n") if text else []


def shown(name: str, text: str, known: t.Container[str] | None = None) -> list[str]:
    """The lines of a file as they may be shown.

    :param known: lines that hold no secret; None where the text is our own, of which every line is known
    """
    pattern, replacement = _SHOWN.get(name, (None, ""))
    lines = []
    for line in lines_of(text):
        found = pattern.fullmatch(line) if pattern else None
        if found:
            lines.append(found.expand(replacement))
        else:
            lines.append(line if known is None or line in known else MASK)
    return lines


def difference(change: Change, found: Found) -> tuple[str, str]:
    """What a diff shows of a change, before and after, without secrets."""
    if change.what == "folder":
        return f"{change.path} {_mode(found.mode)}\n", f"{change.path} {_mode(FOLDER_MODE)}\n"
    name = posixpath.basename(change.path)
    after = [f"{change.path} {_mode(FILE_MODE)}", *shown(name, change.text)] if change.what == "write" else [f"{change.path} {_mode(None)}"]
    before = [f"{change.path} {_mode(found.mode)}", *shown(name, found.text or "", after)]
    if before == after:
        after.append("(what is masked differs)")
    return "".join(f"{line}\n" for line in before), "".join(f"{line}\n" for line in after)


def _mode(mode: int | None) -> str:
    return "(absent)" if mode is None else f"({mode:04o})"
