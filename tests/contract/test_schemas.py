# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every evidence document has a schema that ships, says everything in words, and is the one that docs/evidence.md shows."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import tarfile
import typing as t

import jsonschema
import pytest
import yaml

from tests.evidence import FOLDER, schemas

DIALECT = "https://json-schema.org/draft/2020-12/schema"
# The probe's own record on the mover: no evidence, and exported by nobody.
NO_EVIDENCE = {"freight.pg_ha/ledger/1"}
EVERY_DOCUMENT = {"schema", "started_at", "finished_at", "outcome"}


def produced(committed: list[pathlib.Path], root: pathlib.Path) -> set[str]:
    """Names of documents that roles and modules make."""
    texts = [
        path.read_text(encoding="utf-8") for path in committed if path.suffix in {".py", ".yml"} and path.relative_to(root).parts[0] in {"roles", "plugins"}
    ]
    return {name for text in texts for name in re.findall(r"freight\.pg_ha/[a-z_]+/\d+", text)}


def nodes(schema: t.Any, path: str = "") -> t.Iterator[tuple[str, dict[str, t.Any]]]:
    """Every schema within a schema, with its place."""
    if isinstance(schema, dict):
        yield path, schema
        for key, value in schema.items():
            if key in {"properties", "$defs"}:
                for name, inner in value.items():
                    yield from nodes(inner, f"{path}/{key}/{name}")
            elif key in {"items", "additionalProperties", "then", "else"}:
                yield from nodes(value, f"{path}/{key}")
            elif key in {"anyOf", "oneOf", "allOf"}:
                for number, inner in enumerate(value):
                    yield from nodes(inner, f"{path}/{key}/{number}")


def findings(schema: dict[str, t.Any]) -> list[str]:
    """What a schema leaves open."""
    found = []
    for path, node in nodes(schema):
        inner = node.get("properties", {})
        found += [f"{path}/{name} has no description" for name, one in inner.items() if not one.get("description", "").endswith(".")]
        found += [f"{path} requires {name}, which it does not describe" for name in sorted(set(node.get("required", [])) - set(inner))]
        closed = "if" in node or "$ref" in node or node.get("additionalProperties") is not None
        if "object" in node.get("type", "") and not closed:
            found.append(f"{path} does not say what else it may hold")
        if inner and node.get("additionalProperties") is not False:
            found.append(f"{path} lets in what it does not describe")
    return found


def documents(schema: dict[str, t.Any]) -> t.Iterator[dict[str, t.Any]]:
    """The forms that a document can have."""
    if "properties" in schema:
        yield schema
    for branch in ("then", "else"):
        if branch in schema:
            yield schema["$defs"][schema[branch]["$ref"].rsplit("/", 1)[1]]


def test_every_document_that_is_made_has_a_schema_and_no_other_has(committed: list[pathlib.Path], root: pathlib.Path) -> None:
    assert produced(committed, root) - NO_EVIDENCE == set(schemas())


@pytest.mark.parametrize("name", schemas())
def test_a_schema_is_valid_complete_and_closed(name: str) -> None:
    schema = schemas()[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == DIALECT
    evidence, version = re.fullmatch(r"freight\.pg_ha/([a-z_]+)/(\d+)", name).groups()
    assert (FOLDER / f"{evidence}-{version}.json").is_file()
    assert findings(schema) == []
    forms = list(documents(schema))
    assert forms
    for form in forms:
        assert form["properties"]["schema"]["const"] == name
        assert set(form["required"]) >= EVERY_DOCUMENT and form["additionalProperties"] is False


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}, "/a has no description"),
        ({"type": "object", "properties": {"a": {"description": "A."}}}, "lets in what it does not describe"),
        ({"type": "object"}, "does not say what else it may hold"),
        ({"type": "array", "items": {"type": "object"}}, "/items does not say what else"),
        ({"type": "object", "properties": {}, "required": ["b"], "additionalProperties": False}, "requires b"),
    ],
)
def test_what_a_schema_leaves_open_is_found(broken: dict[str, t.Any], words: str) -> None:
    assert any(words in finding for finding in findings(broken))


def test_schemas_ship(archive: pathlib.Path) -> None:
    with tarfile.open(archive) as content:
        members = set(content.getnames())
    assert {f"roles/report/files/schemas/{path.name}" for path in FOLDER.glob("*.json")} <= members


def test_the_report_knows_every_document(root: pathlib.Path) -> None:
    names = yaml.safe_load((root / "roles" / "report" / "vars" / "main.yml").read_text(encoding="utf-8"))["__report_paths"]
    assert {name.split("/")[1] for name in schemas()} <= set(names)


def test_the_page_is_made_from_the_schemas(root: pathlib.Path) -> None:
    made = subprocess.run([sys.executable, str(root / "tools" / "evidence_page")], check=True, capture_output=True, text=True).stdout
    assert (root / "docs" / "evidence.md").read_text(encoding="utf-8") == made, "run tools/evidence_page > docs/evidence.md"
