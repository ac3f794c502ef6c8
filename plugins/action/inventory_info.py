# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the inventory in the controller's own process: only there are all hosts' variables, and a check costs next to nothing."""

from __future__ import annotations

import pathlib
import ssl
import typing as t
import unicodedata

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import Templar
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.problems import describe
from ansible_collections.freight.pg_ha.plugins.module_utils._inventory.model import FACTS, KEYS, PREFIX, Host, Inventory, Secret
from ansible_collections.freight.pg_ha.plugins.module_utils._inventory.plan import plan_problems, values_of

ARGUMENT_SPEC: dict[str, t.Any] = {"evidence_only": {"type": "bool", "default": False}}


class ActionModule(ActionBase):
    """Action plugin of module inventory_info."""

    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Collect, plan, and fail with all problems."""
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _validation, options = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        inventory = self._collect(task_vars or {})
        problems = plan_problems(inventory, options["evidence_only"])
        result.update(changed=False, problems=[problem.public() for problem in problems])
        if problems:
            result.update(failed=True, error=UsageError.__name__, msg=describe("the inventory", problems))
        return result

    def _collect(self, variables: dict[str, t.Any]) -> Inventory:
        """The inventory as data, secrets left out."""
        groups = {name: tuple(hosts) for name, hosts in variables["groups"].items() if name.startswith(PREFIX)}
        names = sorted({name for hosts in groups.values() for name in hosts})
        hosts = tuple(self._read_host(name, variables["hostvars"]) for name in names)
        controller = self._read_host(variables["inventory_hostname"], variables["hostvars"])
        read = Inventory(controller, hosts, groups)
        files = {str(path): read_certificate(str(path)) for path in values_of(read, "pg_ha_source_ca_file")}
        return Inventory(controller, hosts, groups, files)

    def _read_host(self, name: str, hostvars: t.Any) -> Host:
        """A host's keys, each evaluated by itself so that one that fails hides no other."""
        raw = hostvars.raw_get(name)
        templar = Templar(loader=self._loader, variables={**raw, "hostvars": hostvars})
        values: dict[str, t.Any] = {}
        broken: dict[str, str] = {}
        for key in [key for key in raw if key in KEYS]:
            try:
                value = templar.template(raw[key])
            except AnsibleError as error:
                broken[key] = str(error).splitlines()[0].rstrip(".")
                continue
            values[key] = without_secrets(KEYS[key].type, value)
        inputs = frozenset(str(key) for key in raw if not str(key).startswith("ansible_"))
        return Host(name, values, broken, inputs - FACTS, connects_to(raw, templar))


def without_secrets(kind: str, value: t.Any) -> t.Any:
    """A value of which only whether it is given is kept, where it is a password or holds some."""
    if kind == "secret":
        return Secret(isinstance(value, str) and bool(value), not any(unicodedata.category(character) == "Cc" for character in str(value)))
    if kind == "passwords" and isinstance(value, dict):
        return {role: without_secrets("secret", password) for role, password in value.items()}
    return None if kind == "passwords" else value


def connects_to(raw: dict[str, t.Any], templar: Templar) -> str | None:
    """Where Ansible connects to; None when it is the host's name, or cannot be told."""
    if "ansible_host" not in raw:
        return None
    try:
        return str(templar.template(raw["ansible_host"]))
    except AnsibleError:
        return None


def read_certificate(path: str) -> str:
    """Why a file on the controller is no CA certificate; "" when it is one."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except OSError as error:
        return f"cannot be read on the controller ({error.strerror})"
    except UnicodeDecodeError:
        return "is no PEM file"
    if "PRIVATE KEY" in text:
        return "holds a private key, which must not travel to other hosts"
    try:
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError):
        return "holds no certificate in PEM form"
    return ""
