# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The file system of a folder, whether it exists yet or not."""

from __future__ import annotations

import pathlib
import shutil

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import UsageError
from ansible_collections.freight.pg_ha.plugins.modules import filesystem_info


@pytest.mark.parametrize("below", ["", "not/there/yet"])
def test_a_folder_has_the_space_of_its_nearest_parent(tmp_path: pathlib.Path, below: str) -> None:
    outcome = filesystem_info.run({"path": str(tmp_path / below)})
    found = outcome.result["filesystem"]
    assert not outcome.changed
    assert found["asked"] == str(tmp_path)
    assert found["total_bytes"] == shutil.disk_usage(tmp_path).total
    assert 0 < found["free_bytes"] <= found["total_bytes"]


def test_a_relative_path_is_refused() -> None:
    with pytest.raises(UsageError, match="not absolute"):
        filesystem_info.run({"path": "var/lib"})
