# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes the rules importable and offers the tree that git would commit."""

from __future__ import annotations

import importlib.util
import pathlib
import shutil
import subprocess
import sys
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))


@pytest.fixture(scope="session")
def root() -> pathlib.Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def committed() -> list[pathlib.Path]:
    """Every file that is in git or would be: what is ignored is not looked at."""
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted(ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file())


@pytest.fixture(scope="session")
def archive(committed: list[pathlib.Path], tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The collection as ansible-galaxy builds it from a fresh clone."""
    clone, out = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("archive")
    for path in committed:
        copy = clone / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    program = pathlib.Path(sys.executable).with_name("ansible-galaxy")
    subprocess.run([str(program), "collection", "build", "--output-path", str(out), str(clone)], check=True, capture_output=True, text=True)
    return next(out.glob("freight-pg_ha-*.tar.gz"))


@pytest.fixture
def inventory_model(root: pathlib.Path) -> types.ModuleType:
    """What the inventory's check knows, loaded without the collection."""
    spec = importlib.util.spec_from_file_location("inventory_model", root / "plugins/module_utils/_inventory/model.py")
    assert spec is not None and spec.loader is not None
    model = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up.
    sys.modules[spec.name] = model
    spec.loader.exec_module(model)
    return model
