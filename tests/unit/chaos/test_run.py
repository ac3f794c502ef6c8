# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which rows a run goes on from."""

from __future__ import annotations

import importlib.util
import json
import pathlib
from importlib.machinery import SourceFileLoader

import pytest
from chaos import matrix

from .test_table import ROW

PROGRAM = pathlib.Path(__file__).resolve().parents[3] / "tests" / "chaos" / "run"
OF = {matrix.PLAYBOOK: "p1", matrix.SECTION: "s1"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    loader = SourceFileLoader("chaos_run", str(PROGRAM))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("chaos_run", loader))
    loader.exec_module(module)
    for name in ("RESULT", "PAGE"):
        monkeypatch.setattr(module, name, tmp_path / "artifacts" / getattr(module, name).name)
    monkeypatch.setattr(module, "KEPT", {name: tmp_path / path.name for name, path in module.KEPT.items()})
    return module


def row(actor, code="s1", **more):
    return {**ROW, "trouble": [], "actor": actor, "code": code, **more}


def test_what_was_written_is_read_again(run):
    run.write([row("mover"), row("section")], OF, whole=False)
    assert [found["actor"] for found in run.read_rows(OF)] == ["mover", "section"]
    assert not run.KEPT["rows"].exists() and not run.KEPT["page"].exists()


def test_another_machine_goes_on_from_what_is_kept_and_its_own_rows_count_first(run):
    run.write([row("mover"), row("section")], OF, whole=True)
    run.RESULT.unlink()
    assert len(run.read_rows(OF)) == 2 and "| after fence | mover |" in run.KEPT["page"].read_text(encoding="utf-8")
    run.write([row("mover", state="new")], OF, whole=False)
    assert {found["actor"]: found["state"] for found in run.read_rows(OF)} == {"mover": "new", "section": ROW["state"]}


def test_rows_of_other_code_or_of_uncommitted_changes_do_not_count(run):
    rows = [row("mover", "s0"), row("section", "s1 and changes"), row("controller", "s1", by="playbook")]
    run.write(rows, OF, whole=True)
    assert run.read_rows(OF) == [] and run.read_rows({**OF, matrix.SECTION: "s1 and changes"}) == []


def test_a_cell_without_a_row_of_this_code_keeps_the_one_that_it_had_and_what_is_no_cell_goes(run):
    run.write([row("mover", "s0", state="old"), row("section", "s0", state="old"), row("nobody", "s0")], {**OF, matrix.SECTION: "s0"}, whole=True)
    run.write([row("mover", state="new")], OF, whole=True)
    assert {found["actor"]: found["state"] for found in run.kept_rows()} == {"mover": "new", "section": "old"}
    assert [found["actor"] for found in run.read_rows(OF)] == ["mover"]
    assert "2 cases, 1 of them with earlier code" in run.KEPT["page"].read_text(encoding="utf-8")
    assert "1 cases, all with the code as it is" in run.PAGE.read_text(encoding="utf-8")


def test_a_kept_row_is_a_line(run):
    run.write([row("section"), row("mover")], OF, whole=True)
    lines = run.KEPT["rows"].read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["actor"] for line in lines] == ["mover", "section"]


def test_the_code_is_named_by_what_its_files_hold(run, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "TESTED", {"playbook": ("roles", "plugins"), "section": ("plugins",)})
    for folder in ("roles", "plugins"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("1", encoding="utf-8")

    def commit():
        run.git("add", "--all")
        run.git("-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "-qm", "test")

    run.git("init", "-q")
    commit()
    first = run.code()
    (tmp_path / "roles" / "file").write_text("2", encoding="utf-8")
    changed = run.code()
    assert changed == {"playbook": f"{first['playbook']} and changes", "section": first["section"]}
    commit()
    second = run.code()
    assert second["section"] == first["section"] and second["playbook"] not in (first["playbook"], changed["playbook"])
    (tmp_path / "roles" / "file").write_text("1", encoding="utf-8")
    commit()
    assert run.code() == first
