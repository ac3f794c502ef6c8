# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory says that the runner needs before a playbook runs: who is the mover, and which values are secrets."""

from __future__ import annotations

import json
import os
import subprocess
import typing as t
from pathlib import Path

import yaml

from .masking import secrets_of
from .outcome import Exit, Stop
from .verbs import configured

MOVER = "pg_ha_mover"
TIMEOUT_SECONDS = 120


def choose(given: t.Sequence[str], environ: t.Mapping[str, str]) -> list[str]:
    """Absolute inventories: those given, or those of PG_HA_INVENTORY, or the one of ansible.cfg.

    :raises Stop: there is none, or one does not exist
    """
    chosen = list(given) or [part for part in environ.get("PG_HA_INVENTORY", "").split(os.pathsep) if part]
    if not chosen:
        chosen = [str(path) for path in configured("DEFAULT_HOST_LIST") if str(path) != "/etc/ansible/hosts" or Path(str(path)).exists()]
    if not chosen:
        raise Stop(Exit.USAGE, "Which migration? Give -i <inventory>, or set PG_HA_INVENTORY, or `inventory` in ansible.cfg.")
    for path in chosen:
        # A comma makes a list of hosts for Ansible.
        if "," not in path and not Path(path).exists():
            raise Stop(Exit.USAGE, f"There is no inventory {path}: check -i.")
    return [path if "," in path else str(Path(path).absolute()) for path in chosen]


def extra_argument(text: str, folder: Path, number: int) -> tuple[str, dict[str, t.Any]]:
    """An ``-e`` as an argument that shows no value to other processes, and what it sets.

    :param folder: private; the values are written there
    :returns: ``@<file>``, and the variables
    :raises Stop: it is none of ``@file``, ``name=value`` and a mapping
    """
    if text.startswith("@"):
        path = Path(text[1:]).absolute()
        if not path.is_file():
            raise Stop(Exit.USAGE, f"There is no file {path}: check -e {text}.")
        return f"@{path}", _mapping(path.read_text(encoding="utf-8"))
    if text.lstrip().startswith(("{", "[")):
        content, variables = text, _mapping(text)
        if not variables and "!vault" not in text:
            raise Stop(Exit.USAGE, "An -e that begins with { must be a mapping in JSON or YAML.")
    else:
        from ansible.parsing.splitter import parse_kv

        variables = {str(key): str(value) for key, value in parse_kv(text).items() if key != "_raw_params"}
        if not variables or "_raw_params" in parse_kv(text):
            raise Stop(Exit.USAGE, "An -e must be name=value, a mapping in JSON or YAML, or @file.")
        content = json.dumps(variables)
    path = folder / f"extra_{number}.yml"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as handle:
        handle.write(content)
    return f"@{path}", variables


def _mapping(text: str) -> dict[str, t.Any]:
    """The variables in a text; {} where they cannot be read here (a vault): Ansible says what is wrong with it."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def read(inventories: t.Sequence[str]) -> dict[str, t.Any]:
    """What ansible-inventory lists.

    :raises Stop: it cannot be read, or has no mover
    """
    command = ["ansible-inventory", "--list", *(part for path in inventories for part in ("-i", path))]
    try:
        # In a session of its own: the terminal's Ctrl-C is ours alone.
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS, start_new_session=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise Stop(Exit.USAGE, "There is no ansible-inventory in PATH: install ansible-core beside the runner.") from None
    except subprocess.TimeoutExpired:
        raise Stop(Exit.FAILED, f"The inventory was not read within {TIMEOUT_SECONDS} s.") from None
    try:
        listing: dict[str, t.Any] = json.loads(done.stdout) if done.returncode == 0 else {}
    except ValueError:
        listing = {}
    if not listing:
        why = " ".join((done.stderr.strip() or "it gave no reason").split())[:400]
        raise Stop(Exit.USAGE, f"The inventory {', '.join(inventories)} cannot be read: {why}")
    if not (listing.get(MOVER) or {}).get("hosts"):
        raise Stop(Exit.USAGE, f"The inventory {', '.join(inventories)} has no host in group {MOVER}: name the host that runs the copy and the cutover there.")
    return listing


def secrets(listing: dict[str, t.Any], extra: dict[str, t.Any], environ: t.Mapping[str, str]) -> set[str]:
    """Every secret value of the inventory, of extra variables and of the environment."""
    found: set[str] = set()
    for variables in (listing.get("_meta") or {}).get("hostvars", {}).values():
        for name, value in variables.items():
            found.update(secrets_of(name, value))
    for variables in (extra, environ):
        for name, value in variables.items():
            found.update(secrets_of(name, value))
    return found
