# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules, held against the tree. That each rule can fail is shown in test_rules.py."""

from __future__ import annotations

import pathlib
import re
import tarfile
import types
import typing as t

import rules
import yaml


def below(committed: list[pathlib.Path], root: pathlib.Path, *folders: str, suffixes: tuple[str, ...] = ()) -> t.Iterator[tuple[str, str]]:
    """Relative name and text of the committed files below some folders."""
    for path in committed:
        name = path.relative_to(root).as_posix()
        if name.startswith(tuple(f"{folder}/" for folder in folders)) and (not suffixes or path.suffix in suffixes):
            yield name, path.read_text(encoding="utf-8")


def report(findings: list[str]) -> None:
    """One line per finding."""
    assert not findings, f"{len(findings)} finding(s):\n" + "\n".join(findings)


def read_yaml(path: pathlib.Path) -> t.Any:
    """A YAML file, {} where there is none."""
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def test_module_utils_import_only_what_they_may(committed: list[pathlib.Path], root: pathlib.Path) -> None:
    findings = []
    for name, text in below(committed, root, "plugins/module_utils", suffixes=(".py",)):
        parts = name.split("/")[2:]
        if not parts[0].startswith("_") or len(parts) != 2:
            findings.append(f"{name}: module_utils has private packages of one level only")
            continue
        findings += rules.util_import_findings(parts[1], text, parts[0])
    report(findings)


def test_modules_import_nothing_of_each_other(committed: list[pathlib.Path], root: pathlib.Path) -> None:
    findings = []
    for name, text in below(committed, root, "plugins/modules", suffixes=(".py",)):
        for line, module in rules.imported_modules(text, ()):
            if module.startswith("ansible_collections.") and not module.startswith(rules.PACKAGE):
                findings.append(f"{name}:{line} imports {module}")
    report(findings)


def test_the_runner_knows_the_collection_by_name_only(committed: list[pathlib.Path], root: pathlib.Path) -> None:
    files = list(below(committed, root, "runner/pg_ha_runner", suffixes=(".py",)))
    assert files
    report([finding for name, text in files for finding in rules.runner_findings(name, text)])


def test_every_module_keeps_the_contract(committed: list[pathlib.Path], root: pathlib.Path) -> None:
    group = (read_yaml(root / "meta" / "runtime.yml").get("action_groups") or {}).get("all") or []
    modules = {pathlib.PurePath(name).stem: text for name, text in below(committed, root, "plugins/modules", suffixes=(".py",))}
    actions = {pathlib.PurePath(name).stem for name, _text in below(committed, root, "plugins/action", suffixes=(".py",))}
    findings = [finding for name, text in modules.items() for finding in rules.module_findings(name, text, group, name in actions)]
    findings += [f"action plugin {name} has no module that documents it" for name in sorted(actions - set(modules))]
    findings += [f"{name} is in action_groups.all and no module" for name in group if name not in modules]
    if list(group) != sorted(group):
        findings.append("action_groups.all is not sorted")
    report(findings)


def test_every_playbook_stops_at_the_first_failure_and_only_lists_roles(committed: list[pathlib.Path], root: pathlib.Path) -> None:
    playbooks = [(name, text) for name, text in below(committed, root, "playbooks", suffixes=(".yml", ".yaml")) if name.count("/") == 1]
    report([finding for name, text in playbooks for finding in rules.playbook_findings(name, text)])


def test_no_wait_hides_why_its_look_failed(committed: list[pathlib.Path], root: pathlib.Path) -> None:
    tasks = [(name, text) for name, text in below(committed, root, "roles", suffixes=(".yml",)) if "/tasks/" in name and "until:" in text]
    assert len(tasks) > 5
    report([finding for name, text in tasks for finding in rules.waiting_findings(name, text)])


def test_every_role_says_the_same_in_argument_specs_and_defaults(committed: list[pathlib.Path], root: pathlib.Path) -> None:
    findings = []
    for role in sorted({path.relative_to(root).parts[1] for path in committed if path.relative_to(root).parts[0] == "roles"}):
        folder = root / "roles" / role
        findings += rules.argument_spec_findings(role, read_yaml(folder / "meta" / "argument_specs.yml"), read_yaml(folder / "defaults" / "main.yml"))
    report(findings)


def test_every_kind_of_target_has_its_role_and_entry_points(root: pathlib.Path, inventory_model: types.ModuleType) -> None:
    groups = [group.name for group in inventory_model.GROUPS.values() if group.target]
    assert read_yaml(root / "roles" / "target" / "vars" / "main.yml")["__target_groups"] == groups
    for group in groups:
        role = root / "roles" / group.replace("pg_ha_", "target_")
        contract = (role / "tasks" / "contract.yml").read_text(encoding="utf-8")
        offers = next(found.split(", ") for found in re.findall(r"offers: \[(.*)\]", contract))
        wanted = {"contract", "administrator", "whole", *offers}
        assert wanted <= set(read_yaml(role / "meta" / "argument_specs.yml")["argument_specs"]), role.name
        assert wanted <= {path.stem for path in (role / "tasks").glob("*.yml")}, role.name


def test_roles_read_collection_wide_inputs_in_defaults_only(committed: list[pathlib.Path], root: pathlib.Path) -> None:
    findings = []
    for name, text in below(committed, root, "roles", suffixes=(".yml", ".j2")):
        if name.split("/")[2] in {"tasks", "handlers", "templates", "vars"}:
            findings += rules.collection_input_findings(name, text)
    report(findings)


def test_the_check_of_the_inventory_knows_every_input(committed: list[pathlib.Path], root: pathlib.Path, inventory_model: types.ModuleType) -> None:
    defaults = {name: text for name, text in below(committed, root, "roles", suffixes=(".yml",)) if name.split("/")[2] == "defaults"}
    report(rules.input_findings(set(inventory_model.KEYS), inventory_model.FACTS, defaults, (root / "docs" / "architecture.md").read_text(encoding="utf-8")))


def test_every_phase_checks_the_inventory_first(committed: list[pathlib.Path], root: pathlib.Path) -> None:
    findings = []
    for name, text in below(committed, root, "playbooks", suffixes=(".yml",)):
        first = yaml.safe_load(text)[0]
        roles = [role if isinstance(role, str) else role["role"] for role in first.get("roles", [])]
        if "ansible.builtin.import_playbook" not in first and (first.get("hosts") != "localhost" or roles != ["freight.pg_ha.inputs"]):
            findings.append(f"{name}: its first play is not role inputs on localhost, so that an inventory without a mover would pass in silence")
    report(findings)


def test_no_error_is_swallowed(committed: list[pathlib.Path], root: pathlib.Path) -> None:
    content = below(committed, root, "roles", "playbooks", "molecule", "lab", suffixes=(".yml", ".yaml"))
    report([finding for name, text in content for finding in rules.silenced_findings(name, text)])


def test_collections_that_roles_use_are_declared(committed: list[pathlib.Path], root: pathlib.Path) -> None:
    declared = set(read_yaml(root / "galaxy.yml").get("dependencies") or {})
    used: dict[str, str] = {}
    for name, text in below(committed, root, "roles", "playbooks", suffixes=(".yml",)):
        used.update(dict.fromkeys(rules.collections_used(text), name))
    report([f"{name} uses {collection}, which galaxy.yml does not name" for collection, name in sorted(used.items()) if collection not in declared])
    report([f"galaxy.yml names {collection}, which nothing uses" for collection in sorted(declared - set(used))])


def test_no_text_names_a_machine(committed: list[pathlib.Path], root: pathlib.Path) -> None:
    findings = []
    for path in committed:
        name = path.relative_to(root).as_posix()
        if name.startswith("tests/contract/"):
            continue
        try:
            findings += rules.machine_path_findings(name, path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue
    report(findings)


def test_locks_have_hashes_and_no_address(root: pathlib.Path) -> None:
    for lock in sorted((root / "requirements").glob("*.txt")):
        text = lock.read_text(encoding="utf-8")
        assert "://" not in text, f"{lock.name} names an address"
        pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        assert pins and all("==" in pin and pin.endswith("\\") for pin in pins), f"{lock.name} has an entry without a version or a hash"


def test_the_archive_holds_only_what_ships(archive: pathlib.Path) -> None:
    with tarfile.open(archive) as content:
        members = content.getnames()
    assert {"meta/runtime.yml", "LICENSE"} <= set(members)
    report(rules.archive_findings(members))
