# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What moves the clients in a case: the section gets what role cutover gives its module."""

from __future__ import annotations

import importlib.util
import pathlib
import re

import pytest
import yaml
from ansible_collections.freight.pg_ha.plugins.modules import cutover
from chaos import matrix, moves

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("direction", matrix.DIRECTIONS)
def test_the_section_gets_every_required_parameter_and_no_unknown_one(direction):
    spec = cutover.argument_spec()
    given = moves.section_parameters(direction)
    assert {name for name, option in spec.items() if option.get("required")} <= set(given) <= set(spec)
    assert set(given["way_back"]) <= set(spec["way_back"]["options"])


@pytest.mark.parametrize("serves", ["target", "source"])
def test_the_way_back_is_the_roles(serves):
    text = yaml.safe_load((ROOT / "roles" / "cutover" / "vars" / "main.yml").read_text(encoding="utf-8"))["__cutover_way_back"]
    of_target, of_source = text.split("if cutover_serves == 'target'")
    keys = set(re.findall(r"'(\w+)':", of_target if serves == "target" else of_source))
    assert keys == set(moves.WAY_BACK[serves])


def test_what_is_not_given_is_filled_in_suboptions_too():
    spec = importlib.util.spec_from_file_location("kill_cutover", ROOT / "lab" / "faults" / "kill_cutover.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    found = program.filled(cutover.argument_spec(), moves.section_parameters(matrix.CUT_OVER))
    assert found["way_back"]["passfile"] is None and found["way_back"]["user"] == "ha_migration_link"
    assert found["budget_seconds"] == 5 and found["parity"] is None
    assert cutover.read_way_back({**found, "way_back": None}).evidence() == {"way_back": None}


def test_what_the_role_leaves_to_the_modules_defaults_has_the_same_default():
    defaults = yaml.safe_load((ROOT / "roles" / "cutover" / "defaults" / "main.yml").read_text(encoding="utf-8"))
    spec = cutover.argument_spec()
    for name in ("pause_seconds", "needs_sync_standby", "parity_max_age_seconds", "long_transaction_seconds"):
        assert defaults[f"cutover_{name}"] == spec[name]["default"], name
    assert f"default({spec['budget_seconds']['default']:d})" in defaults["cutover_budget_seconds"]
