# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What moves the clients in a case: the section gets what role cutover gives its module."""

from __future__ import annotations

import importlib.util
import pathlib

import pytest
import yaml
from ansible_collections.freight.pg_ha.plugins.modules import cutover
from chaos import matrix, moves

from tests.evidence import made_by

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("direction", matrix.DIRECTIONS)
def test_the_section_gets_every_required_parameter_and_no_unknown_one(direction):
    spec = cutover.argument_spec()
    given = moves.section_parameters(direction)
    assert {name for name, option in spec.items() if option.get("required")} <= set(given) <= set(spec)
    assert set(given["way_back"]) <= set(spec["way_back"]["options"])


def contract(key):
    """What role target_patroni hands on under a key."""
    tasks = yaml.safe_load((ROOT / "roles" / "target_patroni" / "tasks" / "contract.yml").read_text(encoding="utf-8"))
    return next(iter(tasks[0]["ansible.builtin.set_fact"].values()))[key]


@pytest.mark.parametrize("serves", ["target", "source"])
def test_the_way_back_is_the_roles(serves):
    given = {
        "cutover_serves": serves, "cutover_link_user": "l", "cutover_source_host": "h", "cutover_source_port": 5432,
        "pg_ha_mover": {"service_file": "/run/pg_ha/freight/pg_service.conf"},
        "pg_ha_target": {"admin_endpoint": {"hosts": ["pg1"], "port": 5432}, "link": contract("link")},
    }  # fmt: skip
    assert set(made_by("cutover", "__cutover_way_back", given)) == set(moves.WAY_BACK[serves])
    # Where no file of ours is on the target's servers, the subscription has the password.
    without = made_by("cutover", "__cutover_way_back", {**given, "pg_ha_target": {**given["pg_ha_target"], "link": None}})
    assert without["password_file"] == "/run/pg_ha/freight/link_password" and "passfile" not in without


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
    assert defaults["cutover_needs_sync_standby"] == "{{ pg_ha_target.shows_synchronous_standby }}"
    assert contract("shows_synchronous_standby") is spec["needs_sync_standby"]["default"]
    for name in ("pause_seconds", "parity_max_age_seconds", "long_transaction_seconds"):
        assert defaults[f"cutover_{name}"] == spec[name]["default"], name
    assert f"default({spec['budget_seconds']['default']:d})" in defaults["cutover_budget_seconds"]
