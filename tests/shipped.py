# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dead man's program as role dead_man lays it on a pooler's host."""

from __future__ import annotations

import pathlib
import shutil

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]


def ship(folder: pathlib.Path) -> pathlib.Path:
    """Copy what the role copies, and no more; returns where Python finds it."""
    code = yaml.safe_load((ROOT / "roles" / "dead_man" / "vars" / "main.yml").read_text(encoding="utf-8"))["__dead_man_code"]
    for file in code:
        source = file["src"].replace("{{ __dead_man_modules }}", str(ROOT / "plugins" / "module_utils"))
        target = pathlib.Path(file["dest"].replace("{{ __dead_man_package }}", str(folder / "freight_pg_ha")))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    return folder
