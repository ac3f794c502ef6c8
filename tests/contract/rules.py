# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules between the parts, as functions from content to findings: an empty list means that the rule holds."""

from __future__ import annotations

import ast
import re
import typing as t

import jinja2
import yaml

PACKAGE = "ansible_collections.freight.pg_ha.plugins.module_utils"
SHARED = frozenset({"_core", "_postgresql"})
INPUT_AND_OUTPUT = frozenset(
    {"ansible", "asyncio", "boto3", "botocore", "http", "kubernetes", "os", "pathlib", "psycopg2", "pydo", "random"}
    | {"requests", "select", "shutil", "socket", "ssl", "subprocess", "tempfile", "threading", "time", "urllib", "uuid"}
)
PLAY_KEYS = frozenset(
    {"name", "hosts", "gather_facts", "become", "become_user", "any_errors_fatal", "max_fail_percentage", "serial", "roles", "tags", "vars", "environment"}
    | {"module_defaults", "gather_subset", "connection"}
)
SHIPPED = frozenset({"MANIFEST.json", "FILES.json", "README.md", "LICENSE", "CHANGELOG.rst", "meta", "plugins", "roles", "playbooks", "docs", "changelogs"})
MACHINE_PATH = re.compile(r"(?<![\w.}/-])/(?:home|Users|work|workspace)/[A-Za-z0-9_-]+")
SILENCED = re.compile(r"^\s*(?:-\s+)?(?:ignore_errors\s*:.*|failed_when\s*:\s*(?:false|no|\[\])\s*(?:#.*)?$)", re.MULTILINE | re.IGNORECASE)


# --- imports ---------------------------------------------------------------------------------------------------------------------


def imported_modules(source: str, package: tuple[str, ...], root: str = PACKAGE) -> list[tuple[int, str]]:
    """Absolute names of everything that a file imports.

    :param source: Python source
    :param package: package of the file relative to the collection's module_utils or plugins, for relative imports
    :param root: the package that relative imports are below
    :returns: pairs of line number and dotted name; ``from a import b`` gives ``a.b``
    """
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package[: len(package) - node.level + 1]
                base = ".".join([root, *above, *([base] if base else [])])
            found += [(node.lineno, f"{base}.{alias.name}") for alias in node.names]
    return found


def util_import_findings(name: str, source: str, system: str) -> list[str]:
    """A package of module_utils imports itself, _core and _postgresql; _core only itself, _postgresql also _core; nothing imports upwards.

    :param name: file name within the package, e.g. ``plan.py``
    :param system: the package, e.g. ``_patroni``
    """
    allowed = {"_core": {"_core"}, "_postgresql": {"_core", "_postgresql"}}.get(system, {system} | SHARED)
    findings = []
    for line, module in imported_modules(source, (system,)):
        inner = module.removeprefix(PACKAGE + ".") if module.startswith(PACKAGE + ".") else None
        if inner is not None and inner.split(".")[0] not in allowed:
            findings.append(f"{system}/{name}:{line} imports {inner}, and {system} may import only {', '.join(sorted(allowed))}")
        elif inner is None and module.startswith("ansible_collections."):
            findings.append(f"{system}/{name}:{line} imports {module}, which is not below module_utils")
    if re.fullmatch(r"(?:.*_)?plan\.py", name):
        findings += plan_findings(name, source, system)
    return findings


def plan_findings(name: str, source: str, system: str) -> list[str]:
    """A plan is pure: no I/O, no clock, and of its own package no client."""
    findings = []
    for line, module in imported_modules(source, (system,)):
        if module.split(".")[0] in INPUT_AND_OUTPUT:
            findings.append(f"{system}/{name}:{line} imports {module}: a plan has no I/O and no clock")
        elif module.startswith(PACKAGE) and re.search(r"\.(?:\w+_)?client(?:\.|$)", module):
            findings.append(f"{system}/{name}:{line} imports {module}: a plan knows no client")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "open" or re.search(r"(?:^|\.)(?:now|utcnow|today)$", called):
                findings.append(f"{system}/{name}:{node.lineno} calls {called}: a plan has no I/O and no clock")
    return findings


def runner_findings(name: str, source: str) -> list[str]:
    """The runner knows the collection by the names of its playbooks only, and one function of it calls ansible-runner."""
    findings = []
    for line, module in imported_modules(source, (), "pg_ha_runner"):
        if module.startswith("ansible_collections."):
            findings.append(f"{name}:{line} imports {module}: the runner knows the collection by name only")
        elif module.split(".")[0] == "ansible_runner" and not name.endswith("/play.py"):
            findings.append(f"{name}:{line} imports {module}: only play.py calls ansible-runner")
    return findings


# --- playbooks -------------------------------------------------------------------------------------------------------------------


def playbook_findings(name: str, text: str) -> list[str]:
    """Playbooks only list roles (or import playbooks), and every play stops everything at the first failure."""
    findings = []
    plays = yaml.safe_load(text)
    if not isinstance(plays, list) or not plays:
        return [f"{name} is no list of plays"]
    for number, play in enumerate(plays, 1):
        where = f"{name}, play {number}"
        if "ansible.builtin.import_playbook" in play:
            continue
        if "import_playbook" in play:
            findings.append(f"{where}: write ansible.builtin.import_playbook")
            continue
        if play.get("any_errors_fatal") is not True:
            findings.append(f"{where}: any_errors_fatal: true is missing")
        if play.get("max_fail_percentage") != 0 or isinstance(play.get("max_fail_percentage"), bool):
            findings.append(f"{where}: max_fail_percentage: 0 is missing")
        if not play.get("roles"):
            findings.append(f"{where}: lists no role")
        for role in play.get("roles", []):
            role_name = role if isinstance(role, str) else role.get("role", role.get("name", ""))
            if not str(role_name).startswith("freight.pg_ha."):
                findings.append(f"{where}: role {role_name} is not named in full (freight.pg_ha.<role>)")
        findings += [f"{where}: has {key}, and a play only lists roles" for key in sorted(set(play) - PLAY_KEYS)]
    return findings


def waiting_findings(name: str, text: str) -> list[str]:
    """A look that fails while something is waited for ends it with its own error, or is made again: a condition that asks it for more hides why it failed."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    of_a_failed_look = {"success": False, "failed": True, "finished": True}
    environment.tests.update({f"ansible.builtin.{state}": lambda _result, holds=holds: holds for state, holds in of_a_failed_look.items()})
    findings = []
    for task in _tasks(yaml.safe_load(text)):
        failed = {task["register"]: {"failed": True, "msg": "x"}}
        try:
            bool(environment.compile_expression(task["until"], undefined_to_none=False)(**failed))
        except jinja2.UndefinedError as error:
            findings.append(f"{name}: {task['name']}: a failed look has no answer for its until ({error.message})")
    return findings


def _tasks(content: t.Any) -> t.Iterator[dict[str, t.Any]]:
    """Every task that waits, however deep it stands in blocks."""
    for task in content or []:
        if "until" in task:
            yield task
        for part in ("block", "rescue", "always"):
            yield from _tasks(task.get(part))


def silenced_findings(name: str, text: str) -> list[str]:
    """No error is swallowed."""
    return [f"{name}:{text.count(chr(10), 0, hit.start()) + 1} swallows errors: {hit.group().strip()}" for hit in SILENCED.finditer(text)]


# --- roles -----------------------------------------------------------------------------------------------------------------------


def is_templated(value: t.Any) -> bool:
    """Whether a value contains a template somewhere."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if isinstance(value, dict):
        return any(is_templated(part) for part in [*value.keys(), *value.values()])
    return isinstance(value, list) and any(is_templated(part) for part in value)


def same(left: t.Any, right: t.Any) -> bool:
    """Equality that tells true from 1."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def argument_spec_findings(role: str, specs: dict[str, t.Any], defaults: dict[str, t.Any]) -> list[str]:
    """A role's argument_specs say the same as its defaults.

    An option has its default in both files, or is required and in neither. A default that is a template is not repeated where the type is a number or a
    boolean, because the documentation tools read it as such a value; elsewhere it may be repeated in the same words.
    """
    findings = []
    entries = specs.get("argument_specs") or {}
    if "main" not in entries:
        return [f"{role}: argument_specs has no entry point main"]
    known: set[str] = set()
    for entry, spec in entries.items():
        if not spec.get("short_description"):
            findings.append(f"{role}, {entry}: short_description is missing")
        for option, facts in (spec.get("options") or {}).items():
            known.add(option)
            where = f"{role}, {entry}: {option}"
            if not option.startswith(f"{role}_"):
                findings.append(f"{where} does not begin with {role}_")
            if "type" not in facts or "description" not in facts:
                findings.append(f"{where} has no type or no description")
            if option not in defaults:
                if "default" in facts:
                    findings.append(f"{where} has a default that is not in defaults/main.yml")
                elif facts.get("required") is not True:
                    findings.append(f"{where} is neither required nor in defaults/main.yml")
                continue
            value = defaults[option]
            if is_templated(value):
                if "default" in facts and facts.get("type") in {"bool", "int", "float"}:
                    findings.append(f"{where}: a template is no default of type {facts['type']}; leave it out and describe it")
                elif "default" in facts and not same(facts["default"], value):
                    findings.append(f"{where}: the defaults differ: {facts['default']!r} and {value!r}")
            elif facts.get("required") is True:
                findings.append(f"{where} is required and has a default in defaults/main.yml")
            elif "default" not in facts and value is not None:
                findings.append(f"{where} has the default {value!r} in defaults/main.yml and none here")
            elif not same(facts.get("default"), value):
                findings.append(f"{where}: the defaults differ: {facts['default']!r} and {value!r}")
    findings += [f"{role}: {name} is in defaults/main.yml and not in argument_specs" for name in sorted(set(defaults) - known)]
    return findings


def expressions(content: t.Any, bare: bool = False) -> t.Iterator[str]:
    """Every Jinja expression in YAML content, its string literals removed: they are words for the operator.

    :param bare: whether a string is an expression without delimiters, as under ``when``
    """
    if isinstance(content, str):
        for found in [content] if bare else re.findall(r"\{\{(.*?)\}\}|\{%(.*?)%\}", content, re.DOTALL):
            yield re.sub(r"'[^']*'|\"[^\"]*\"", "''", found if isinstance(found, str) else "".join(found))
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from expressions(value, bare or key in {"when", "that", "until", "changed_when", "failed_when"})
    elif isinstance(content, list):
        for value in content:
            yield from expressions(value, bare)


def collection_input_findings(name: str, text: str) -> list[str]:
    """Collection-wide inputs (pg_ha_*) are read in role defaults only; the facts that roles hand on are no inputs."""
    handed_on = {"pg_ha_mover", "pg_ha_target", "pg_ha_target_administrator", "pg_ha_target_state", "pg_ha_target_failover"}
    content = text if name.endswith(".j2") else yaml.safe_load(text)
    read = {variable for expression in expressions(content) for variable in re.findall(r"(?<![\w.])pg_ha_[a-z_]+", expression)}
    return [f"{name} reads {variable}: collection-wide inputs are read in defaults/main.yml only" for variable in sorted(read - handed_on)]


# --- modules ---------------------------------------------------------------------------------------------------------------------


def input_findings(known: t.Collection[str], facts: t.Collection[str], defaults: dict[str, str], page: str) -> list[str]:
    """The keys that the inventory's check knows are those that role defaults read, and those that the architecture's table explains.

    :param known: names of the check's keys
    :param facts: names that look like inputs and are handed on by roles
    :param defaults: text of each role's defaults
    :param page: docs/architecture.md
    """
    read = {name: where for where, text in defaults.items() for name in collection_inputs(text)}
    findings = [f"{where} reads {name}, which the inventory's check does not know" for name, where in sorted(read.items()) if name not in {*known, *facts}]
    findings += [f"the inventory's check knows {name}, which no role's defaults read" for name in sorted(set(known) - set(read))]
    rows = [line for line in page.splitlines() if line.startswith("| `pg_ha_")]
    # What stands in brackets is the default.
    explained = {name for row in rows for name in re.findall(r"`(pg_ha_[a-z_]+)`", re.sub(r"\([^)]*\)", "", row.split("|")[1]))}
    findings += [f"the architecture's table does not explain {name}" for name in sorted(set(known) - explained)]
    findings += [f"the architecture's table explains {name}, which the inventory's check does not know" for name in sorted(explained - set(known))]
    return findings


def collection_inputs(text: str) -> set[str]:
    """Collection-wide inputs that YAML reads, also by a name that is looked up."""
    content = yaml.safe_load(text) or {}
    bare = {name for expression in expressions(content) for name in re.findall(r"(?<![\w.])pg_ha_[a-z_]+", expression)}
    return bare | set(re.findall(r"hostvars, '(pg_ha_[a-z_]+)'", text))


def module_findings(name: str, source: str, action_group: t.Collection[str], is_action: bool = False) -> list[str]:
    """A module is documented, says what it supports, and belongs to the action group.

    :param is_action: an action plugin of that name does the work, and the module only documents it
    """
    findings = []
    tree = ast.parse(source)
    texts = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    findings += [f"{name}: {text} is missing" for text in ("DOCUMENTATION", "EXAMPLES", "RETURN") if text not in texts]
    document = yaml.safe_load(texts.get("DOCUMENTATION", "")) or {}
    if document.get("module") != name:
        findings.append(f"{name}: DOCUMENTATION names the module {document.get('module')}")
    fragments = document.get("extends_documentation_fragment") or []
    if "freight.pg_ha.attributes" not in ([fragments] if isinstance(fragments, str) else fragments):
        findings.append(f"{name}: does not extend freight.pg_ha.attributes")
    for attribute in ("check_mode", "diff_mode", "idempotent"):
        if "support" not in ((document.get("attributes") or {}).get(attribute) or {}):
            findings.append(f"{name}: attribute {attribute} is not declared")
    findings += [f"{name}: {key} is missing in DOCUMENTATION" for key in ("version_added", "author", "short_description") if not document.get(key)]
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    wanted = () if is_action else ("argument_spec", "run", "main")
    findings += [f"{name}: no function {function}()" for function in wanted if function not in functions]
    if "supports_check_mode=True" not in source and not is_action:
        findings.append(f"{name}: supports_check_mode=True is missing")
    if name not in action_group:
        findings.append(f"{name}: not in action_groups.all of meta/runtime.yml")
    return findings


# --- texts and the archive -------------------------------------------------------------------------------------------------------


def machine_path_findings(name: str, text: str) -> list[str]:
    """No text names a path of somebody's machine."""
    return [f"{name}:{text.count(chr(10), 0, hit.start()) + 1} names {hit.group()}" for hit in MACHINE_PATH.finditer(text)]


def archive_findings(members: t.Iterable[str]) -> list[str]:
    """The archive holds what users need and nothing of the lab, the tests or the runner."""
    findings = []
    for member in members:
        parts = member.strip("./").split("/")
        if parts[0] not in SHIPPED:
            findings.append(f"{member} must not ship")
        elif any(part.startswith(".") or part in {"__pycache__", "fragments"} or part.endswith(".pyc") for part in parts):
            findings.append(f"{member} must not ship")
    return findings


def collections_used(text: str) -> set[str]:
    """Collections that YAML content takes modules, plugins and roles from."""
    named = re.findall(r"(?:^|[\s\[\"'(|])((?:amazon|ansible|community|kubernetes|containers)\.[a-z_]+)\.[a-z_0-9]+", text)
    return set(named) - {"ansible.builtin"}
