# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scenario of molecule/rds with a real account of AWS, which costs money: an inventory like inventories/prod, and credentials in the environment.

    PG_HA_LIVE_INVENTORY=inventories/mine tools/in_env python tools/check live

It moves the clients of that inventory's source to a real instance and has that fail over. Nothing is deleted afterwards: the instance protects itself.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
INVENTORY = os.environ.get("PG_HA_LIVE_INVENTORY", "")
pytestmark = pytest.mark.skipif(not INVENTORY, reason="needs an account of AWS: PG_HA_LIVE_INVENTORY names an inventory like inventories/prod")


def play(playbook: str, *arguments: str) -> tuple[str, int]:
    """Run a playbook that has to succeed; what it says, and how many tasks have changed something."""
    program = pathlib.Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run([str(program), f"playbooks/{playbook}", "-i", INVENTORY, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return done.stdout, sum(map(int, re.findall(r"changed=(\d+)", done.stdout)))


def evidence(name: str) -> dict[str, object]:
    """One evidence document of the inventory's migration."""
    program = pathlib.Path(sys.executable).with_name("ansible")
    asked = [str(program), "pg_ha_mover", "-i", INVENTORY, "-m", "ansible.builtin.debug", "-a", "msg={{ pg_ha_artifacts_dir }}/{{ pg_ha_migration }}"]
    told = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folder = re.findall(r'"msg": "(.*)"', told)[0]
    return dict(json.loads((pathlib.Path(folder) / f"{name}.json").read_text(encoding="utf-8")))


def test_1_check_mode_lists_what_would_be_made() -> None:
    said, changed = play("migrate.yml", "--check", "--diff")
    assert changed > 0 and "cannot be predicted before the target exists" in said


def test_2_it_is_made_and_is_made_once() -> None:
    play("provision.yml")
    _said, changed = play("provision.yml")
    assert changed == 0


def test_3_the_application_moves_and_loses_nothing() -> None:
    play("migrate.yml", "-e", "pg_ha_cutover_approved=true")
    cutover, parity = evidence("cutover"), evidence("parity")
    assert (cutover["outcome"], cutover["serves"], parity["mismatches"]) == ("done", "target", [])
    _said, changed = play("migrate.yml")
    assert changed == 0


def test_4_a_forced_failover_is_within_the_budget() -> None:
    play("test_failover.yml", "-e", "pg_ha_failover_approved=true")
    failover = evidence("failover")
    assert failover["outcome"] == "done" and [row["name"] for row in failover["scenarios"]] == ["forced_failover"]  # type: ignore[union-attr, attr-defined]
