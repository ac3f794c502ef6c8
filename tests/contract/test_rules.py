# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every rule finds a small bad sample, and lets a good one pass: a rule that cannot fail holds nothing."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import pathlib
import types

import pytest
import rules

HEAD = "from __future__ import annotations\n"


@pytest.mark.parametrize(
    ("system", "name", "source", "finding"),
    [
        ("_patroni", "client.py", "from .._pgbouncer import plan", "_pgbouncer"),
        ("_patroni", "client.py", "from .._pgbouncer.plan import Plan", "_pgbouncer"),
        ("_patroni", "client.py", "from .. import _pgbouncer", "_pgbouncer"),
        ("_patroni", "client.py", f"from {rules.PACKAGE}._pgbouncer import plan", "_pgbouncer"),
        ("_patroni", "client.py", f"import {rules.PACKAGE}._pgbouncer.plan", "_pgbouncer"),
        ("_patroni", "client.py", "from ansible_collections.freight.pg_ha.plugins.modules import cutover", "not below module_utils"),
        ("_core", "waiting.py", "from .._postgresql import client", "_core may import only _core"),
        ("_postgresql", "client.py", "from .._patroni import client", "_patroni"),
        ("_patroni", "plan.py", "import psycopg2", "no I/O"),
        ("_patroni", "plan.py", "import os.path", "no I/O"),
        ("_patroni", "plan.py", "from time import monotonic", "no I/O"),
        ("_replication", "copy_plan.py", "import subprocess", "no I/O"),
        ("_patroni", "plan.py", "from ansible.module_utils.urls import open_url", "no I/O"),
        ("_patroni", "plan.py", "from . import client", "no client"),
        ("_patroni", "plan.py", "from .client import Client", "no client"),
        ("_patroni", "plan.py", "from .._postgresql.client import connect", "no client"),
        ("_patroni", "plan.py", "import datetime\nx = datetime.datetime.now()", "no clock"),
        ("_patroni", "plan.py", "def read():\n    return open('x')", "no I/O"),
    ],
)
def test_a_wrong_import_is_found(system: str, name: str, source: str, finding: str) -> None:
    found = rules.util_import_findings(name, HEAD + source, system)
    assert len(found) >= 1 and finding in " ".join(found)


@pytest.mark.parametrize(
    ("system", "name", "source"),
    [
        (
            "_patroni",
            "client.py",
            "import time\nfrom .._core.errors import ClientError\nfrom .._postgresql import client\nfrom . import model\nfrom .plan import x",
        ),
        ("_patroni", "plan.py", "import dataclasses, re, datetime\nfrom .._core.errors import PlanError\nfrom .model import Cluster"),
        ("_postgresql", "client.py", "import psycopg2\nfrom .._core import errors"),
    ],
)
def test_a_right_import_passes(system: str, name: str, source: str) -> None:
    assert rules.util_import_findings(name, HEAD + source, system) == []


GOOD_PLAY = """
- name: Do
  hosts: all
  any_errors_fatal: true
  max_fail_percentage: 0
  roles: [freight.pg_ha.etcd]
- name: More
  ansible.builtin.import_playbook: more.yml
"""


def test_a_good_play_passes() -> None:
    assert rules.playbook_findings("x.yml", GOOD_PLAY) == []


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("any_errors_fatal: true", "become: true", "any_errors_fatal"),
        ("any_errors_fatal: true", "any_errors_fatal: false", "any_errors_fatal"),
        ("max_fail_percentage: 0", "become: true", "max_fail_percentage"),
        ("max_fail_percentage: 0", "max_fail_percentage: 10", "max_fail_percentage"),
        ("max_fail_percentage: 0", "max_fail_percentage: false", "max_fail_percentage"),
        ("roles: [freight.pg_ha.etcd]", "roles: []", "lists no role"),
        ("roles: [freight.pg_ha.etcd]", "roles: [etcd]", "not named in full"),
        ("roles: [freight.pg_ha.etcd]", "roles: [freight.pg_ha.etcd]\n  tasks: []", "has tasks"),
        ("roles: [freight.pg_ha.etcd]", "roles: [freight.pg_ha.etcd]\n  pre_tasks: []", "has pre_tasks"),
        ("ansible.builtin.import_playbook", "import_playbook", "ansible.builtin"),
    ],
)
def test_a_bad_play_is_found(old: str, new: str, finding: str) -> None:
    assert old in GOOD_PLAY
    found = rules.playbook_findings("x.yml", GOOD_PLAY.replace(old, new))
    assert len(found) == 1 and finding in found[0]


@pytest.mark.parametrize(
    "line", ["  ignore_errors: true", "- ignore_errors: '{{ x }}'", "  failed_when: false", "  failed_when: False  # why", "  failed_when: no"]
)
def test_a_swallowed_error_is_found(line: str) -> None:
    assert rules.silenced_findings("x.yml", f"- name: X\n{line}\n") == [f"x.yml:2 swallows errors: {line.strip()}"]


def test_a_condition_for_failure_passes() -> None:
    assert rules.silenced_findings("x.yml", "  failed_when: result.rc != 0\n  # ignore_errors: no\n") == []


@pytest.mark.parametrize(
    ("until", "findings"),
    [
        ("look.rows.ended", 1),
        ("look is ansible.builtin.success and look.rows.ended", 0),
        ("look.rows is not defined or look.rows.ended", 0),
        ("look.rows.ended or look is ansible.builtin.failed", 1),
        ("look is ansible.builtin.finished", 0),
    ],
)
def test_a_wait_that_hides_why_its_look_failed_is_found(until: str, findings: int) -> None:
    text = f"- name: Block\n  block:\n    - name: Wait\n      register: look\n      until: {until}\n"
    assert len(rules.waiting_findings("x.yml", text)) == findings


def spec(**options: object) -> dict[str, object]:
    """An argument_specs document of role x with the given options of entry point main."""
    return {"argument_specs": {"main": {"short_description": "X", "options": options}}}


def option(**facts: object) -> dict[str, object]:
    """A described option of type str."""
    return {"type": "str", "description": "What it is.", **facts}


@pytest.mark.parametrize(
    ("specs", "defaults", "finding"),
    [
        ({}, {}, "no entry point main"),
        (spec(x_a=option(default="1")), {"x_a": "2"}, "differ"),
        (spec(x_a=option(type="int", default=1)), {"x_a": True}, "differ"),
        (spec(x_a=option()), {"x_a": "2"}, "none here"),
        (spec(x_a=option(default="2")), {}, "not in defaults"),
        (spec(x_a=option()), {}, "neither required"),
        (spec(x_a=option(required=True)), {"x_a": "2"}, "is required and has a default"),
        (spec(), {"x_a": "2"}, "not in argument_specs"),
        (spec(y=option(required=True)), {}, "does not begin"),
        (spec(x_a={"required": True}), {}, "no type"),
        (spec(x_a=option(type="int", default="{{ a }}")), {"x_a": "{{ a }}"}, "no default of type int"),
        (spec(x_a=option(default="{{ b }}")), {"x_a": "{{ a }}"}, "differ"),
    ],
)
def test_specs_that_differ_from_defaults_are_found(specs: dict[str, object], defaults: dict[str, object], finding: str) -> None:
    found = rules.argument_spec_findings("x", specs, defaults)
    assert len(found) == 1 and finding in found[0]


def test_specs_that_equal_defaults_pass() -> None:
    specs = spec(x_a=option(default="1"), x_b=option(required=True), x_c=option(type="int"), x_d=option(default="{{ d }}"))
    assert rules.argument_spec_findings("x", specs, {"x_a": "1", "x_c": "{{ pg_ha_c }}", "x_d": "{{ d }}"}) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tasks/x.yml", "- x: 'a {{ pg_ha_database }}'"),
        ("tasks/x.yml", "- when: pg_ha_database is defined"),
        ("tasks/x.yml", "- ansible.builtin.assert: {that: [a, pg_ha_database]}"),
        ("templates/x.j2", "{% if pg_ha_database %}"),
    ],
)
def test_a_collection_wide_input_outside_defaults_is_found(name: str, text: str) -> None:
    assert rules.collection_input_findings(name, text) == [f"{name} reads pg_ha_database: collection-wide inputs are read in defaults/main.yml only"]


@pytest.mark.parametrize(
    "text", ["# {{ pg_ha_x }}", "a: '{{ pg_ha_target.write_endpoint }}'", "m: set pg_ha_x", "m: \"{{ x + 'set pg_ha_x' }}\"", "r: freight.pg_ha.x"]
)
def test_words_and_handed_on_facts_pass(text: str) -> None:
    assert rules.collection_input_findings("tasks/x.yml", text) == []


GOOD_MODULE = '''
DOCUMENTATION = """
module: thing
short_description: Thing
version_added: 0.1.0
author: the freight.pg_ha authors (@freight)
extends_documentation_fragment: [freight.pg_ha.attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
  idempotent: {support: full}
"""
EXAMPLES = ""
RETURN = ""
def argument_spec(): ...
def run(): ...
def main(): AnsibleModule(supports_check_mode=True)
'''


def test_a_good_module_passes() -> None:
    assert rules.module_findings("thing", GOOD_MODULE, ["thing"]) == []


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("EXAMPLES = ", "X = ", "EXAMPLES"),
        ("module: thing", "module: other", "names the module other"),
        ("freight.pg_ha.attributes", "freight.pg_ha.postgresql", "does not extend"),
        ("diff_mode: {support: full}", "platform: {support: full}", "diff_mode"),
        ("version_added: 0.1.0", "notes: []", "version_added"),
        ("def run", "def go", "run()"),
        ("supports_check_mode=True", "supports_check_mode=False", "supports_check_mode"),
    ],
)
def test_a_bad_module_is_found(old: str, new: str, finding: str) -> None:
    assert old in GOOD_MODULE
    found = rules.module_findings("thing", GOOD_MODULE.replace(old, new), ["thing"])
    assert len(found) == 1 and finding in found[0]


def test_a_module_outside_the_action_group_is_found() -> None:
    assert rules.module_findings("thing", GOOD_MODULE, []) == ["thing: not in action_groups.all of meta/runtime.yml"]


@pytest.mark.parametrize("text", ["see /home/somebody/x", "cd '/work/x'", "(/workspace/x/venv)", "/Users/me"])
def test_a_path_of_a_machine_is_found(text: str) -> None:
    assert len(rules.machine_path_findings("x", text)) == 1


@pytest.mark.parametrize("text", ["~/.ansible", "https://example.org/work/x", "{{ x }}/home/y", "roles/work/x", "network/work"])
def test_other_paths_pass(text: str) -> None:
    assert rules.machine_path_findings("x", text) == []


@pytest.mark.parametrize(
    "member",
    [
        "lab/up",
        "runner/pg_ha_runner/cli.py",
        "tests/unit/x.py",
        "Makefile",
        "plugins/modules/__pycache__/x.pyc",
        ".ansible-lint",
        "changelogs/fragments/x.yml",
        "docs/.x",
    ],
)
def test_what_must_not_ship_is_found(member: str) -> None:
    assert rules.archive_findings([member, "plugins/modules/x.py"]) == [f"{member} must not ship"]


@pytest.mark.parametrize(
    ("name", "source", "findings"),
    [
        ("runner/pg_ha_runner/session.py", "from . import verbs\nfrom .play import play\nimport click", 0),
        ("runner/pg_ha_runner/play.py", "def play():\n    import ansible_runner", 0),
        ("runner/pg_ha_runner/session.py", "import ansible_runner.interface", 1),
        ("runner/pg_ha_runner/state.py", "from ansible_collections.freight.pg_ha.plugins.module_utils._core import errors", 1),
    ],
)
def test_a_runner_that_reaches_into_the_collection_is_found(name: str, source: str, findings: int) -> None:
    assert len(rules.runner_findings(name, source)) == findings


def test_used_collections_are_found() -> None:
    text = '- community.crypto.x509_certificate:\n- ansible.builtin.copy:\n  x: "{{ a | ansible.utils.ipaddr }}"\n'
    assert rules.collections_used(text) == {"community.crypto", "ansible.utils"}


@pytest.fixture(scope="module")
def check(root: pathlib.Path) -> types.ModuleType:
    """tools/check as a module."""
    loader = importlib.machinery.SourceFileLoader("check", str(root / "tools" / "check"))
    specification = importlib.util.spec_from_loader("check", loader)
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    # dataclasses look their module up.
    import sys

    sys.modules["check"] = module
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("code", "lines", "counts"),
    [
        (0, ["nothing to count"], (1, 0, 0)),
        (1, ["nothing to count"], (0, 1, 0)),
        (0, ["===== 3 passed, 2 skipped, 1 warning in 1.20s ====="], (3, 0, 2)),
        (0, ["\x1b[32m3 passed\x1b[0m in 0.10s"], (3, 0, 0)),
        (1, ["= 1 failed, 3 passed, 2 errors in 61.20s (0:01:01) ="], (3, 3, 0)),
        (1, ["= 3 passed in 1.20s ="], (3, 1, 0)),
        (0, ["= 3 passed in 1.20s =", "= 4 passed, 1 skipped in 2.00s ="], (7, 0, 1)),
    ],
)
def test_steps_are_counted(check: types.ModuleType, code: int, lines: list[str], counts: tuple[int, int, int]) -> None:
    found = check.verdict(code, lines)
    assert (found.passed, found.failed, found.skipped) == counts


def test_why_a_step_failed_is_told_again_at_the_end(check: types.ModuleType) -> None:
    lines = [
        "TASK [role : One] *****\n",
        "ok: [mover] =>\n",
        "    msg: all is well\n",
        "TASK [role : Two] *****\n",
        '\x1b[31mfatal: [mover]: FAILED! => {"msg": "why"}\x1b[0m\n',
        "FAILED - RETRYING: [mover]: Three (2 retries left).\n",
        "FAILED tests/a.py::test_b - AssertionError\n",
    ]
    assert check.reasons_of(lines) == ["TASK [role : Two] ", 'fatal: [mover]: FAILED! => {"msg": "why"}', "FAILED tests/a.py::test_b - AssertionError"]
    shown = ["\x1b[31mfatal: [mover]: FAILED! =>\x1b[0m\n", "\x1b[31m    msg: >-\n", "        the reason\n", "\n", "    not of it\n"]
    assert check.reasons_of(shown) == ["fatal: [mover]: FAILED! =>", "    msg: >-", "        the reason"]


def test_a_step_that_leaves_a_process_behind_fails_and_is_not_waited_for(check: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "LEFT_BEHIND_SECONDS", 0.5)
    assert check.run(check.Step("quiet", ["sh", "-c", "echo shown"])) == (0, ["shown\n"])
    code, lines = check.run(check.Step("leaves one", ["sh", "-c", "echo shown; sleep 20 & exit 0"]))
    assert code == 1 and lines[0] == "shown\n" and "has not" in lines[1]
    assert check.reasons_of(lines) == lines[1:]


PAGE = "| variable | meaning |\n|---|---|\n| `pg_ha_a`, `pg_ha_b` (default `x`) | like `pg_ha_z` |\n"


def test_inputs_that_agree_pass() -> None:
    defaults = {"r": "r_a: '{{ pg_ha_a }}'\nr_b: \"{{ groups['x'] | map('extract', hostvars, 'pg_ha_b') }}\"\nr_c: '{{ pg_ha_fact.x }}'\n"}
    assert rules.input_findings({"pg_ha_a", "pg_ha_b"}, {"pg_ha_fact"}, defaults, PAGE) == []


@pytest.mark.parametrize(
    ("known", "defaults", "finding"),
    [
        ({"pg_ha_a", "pg_ha_b"}, {"r": "r_a: '{{ pg_ha_a ~ pg_ha_b ~ pg_ha_c }}'\n"}, "r reads pg_ha_c"),
        ({"pg_ha_a", "pg_ha_b"}, {"r": "r_a: '{{ pg_ha_a }}'\n"}, "knows pg_ha_b, which no role's defaults read"),
        ({"pg_ha_a", "pg_ha_b", "pg_ha_c"}, {"r": "r_a: '{{ pg_ha_a ~ pg_ha_b ~ pg_ha_c }}'\n"}, "does not explain pg_ha_c"),
        ({"pg_ha_a"}, {"r": "r_a: '{{ pg_ha_a }}'\n"}, "explains pg_ha_b"),
    ],
)
def test_an_input_that_one_of_them_does_not_know_is_found(known: set[str], defaults: dict[str, str], finding: str) -> None:
    assert finding in " ".join(rules.input_findings(known, set(), defaults, PAGE))


def test_a_module_that_documents_an_action_needs_no_run() -> None:
    source = GOOD_MODULE.replace("def run(", "def walk(").replace("def main(", "def go(").replace("def argument_spec(", "def options(")
    assert rules.module_findings("thing", source, ["thing"], is_action=True) == []
    assert rules.module_findings("thing", source, ["thing"]) != []
