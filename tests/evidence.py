# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shipped schemas of evidence documents, for every test that has made one; and the documents that roles put together."""

from __future__ import annotations

import functools
import json
import pathlib
import typing as t

import jsonschema
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDER = ROOT / "roles" / "report" / "files" / "schemas"


@functools.cache
def schemas() -> dict[str, dict[str, t.Any]]:
    """Schema by the name that documents carry in ``schema``."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))]
    return {schema["$id"]: schema for schema in found}


def problems(document: dict[str, t.Any]) -> list[str]:
    """Where a document is not what its schema says; empty when it is."""
    schema = schemas().get(document.get("schema", ""))
    if schema is None:
        return [f"there is no schema for {document.get('schema')!r}"]
    errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in sorted(errors, key=lambda error: error.json_path)]


def made_by(role: str, mapping: str, variables: dict[str, t.Any]) -> t.Any:
    """A document, or any other value, as a role makes it, by Ansible's own templating.

    :param mapping: a variable of ``vars/main.yml``, or ``<file of tasks>: <name of the task>`` for its option ``evidence``
    :param variables: what the role has read, registered and been told
    """
    loader = DataLoader()
    folder = ROOT / "roles" / role
    read: t.Callable[[str], t.Any] = lambda name: loader.load_from_file(str(folder / name), trusted_as_template=True)
    known = read("vars/main.yml")
    if ": " in mapping:
        file, name = mapping.split(": ")
        found = next(task for task in tasks(read(f"tasks/{file}")) if task["name"] == name)["freight.pg_ha.migration_phase"]["evidence"]
    else:
        found = known[mapping]
    made = Templar(loader, variables={**known, **variables}).template(found)
    return dict(made) if isinstance(made, dict) else made


def tasks(listed: list[dict[str, t.Any]]) -> t.Iterator[dict[str, t.Any]]:
    """Tasks, those within blocks too."""
    for task in listed:
        yield task
        for part in ("block", "rescue", "always"):
            yield from tasks(task.get(part, []))
