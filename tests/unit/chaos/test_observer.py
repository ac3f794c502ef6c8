# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The observer stops the very section that ships, once, and is nothing without an armed moment."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "tests" / "chaos" / "observer.py"
# A module's process: Python starts and comes by the observer, as the .pth file has it; then it imports and runs steps.
SECTION = """
import sys
import pg_ha_observer
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import cutover, section
steps = section.Steps()
for name in ("fence", "marker"):
    steps.run(name, lambda: None)
def failing():
    raise ValueError(name)
try:
    steps.run("decide", failing)
except ValueError:
    pass
class Done(cutover.Cutover):
    def __init__(self): pass
cutover_finish = cutover.Cutover.finish
try:
    Done().finish(None)
except AttributeError:
    pass
print([step["name"] for step in steps.done], "observed" if cutover_finish.__name__ == "observed" else "as it ships")
"""


@pytest.fixture
def place(tmp_path):
    """The observer as it lies on the mover, with a folder of its own."""
    text = PROGRAM.read_text(encoding="utf-8")
    assert text.count('FOLDER = "/dev/shm/pg_ha_chaos"') == 1
    (tmp_path / "pg_ha_observer.py").write_text(text.replace("/dev/shm/pg_ha_chaos", str(tmp_path / "armed")), encoding="utf-8")
    return tmp_path


def environment(place):
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(place), str(ROOT / ".build" / "collections")])}


def observer(place, *arguments):
    return subprocess.run([sys.executable, "-m", "pg_ha_observer", *arguments], env=environment(place), capture_output=True, text=True, check=False)


def section(place):
    return subprocess.Popen([sys.executable, "-c", SECTION], env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process):
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    return out.strip()


def test_without_an_armed_moment_nothing_is_changed(place):
    assert end(section(place)) == "['fence', 'marker', 'decide'] as it ships"
    assert not (place / "armed").exists()


@pytest.mark.parametrize("moment", ["before fence", "after fence", "after decide", "before finish"])
def test_the_section_stands_still_at_the_moment_until_it_is_told_to_go_on(place, moment):
    assert observer(place, "arm", moment).returncode == 0
    process = section(place)
    waited = observer(place, "wait", "15")
    reached = json.loads(waited.stdout)
    assert (waited.returncode, reached["pid"]) == (0, process.pid) and abs(time.time() - reached["at"]) < 10
    assert process.poll() is None
    assert observer(place, "go").returncode == 0
    assert end(process) == "['fence', 'marker', 'decide'] observed"
    assert json.loads((place / "armed" / "left").read_text())["told"] is True


def test_a_moment_is_taken_once(place):
    observer(place, "arm", "after marker")
    observer(place, "go")
    assert end(section(place)).endswith("observed")
    assert not (place / "armed" / "plan").exists()
    assert end(section(place)).endswith("as it ships")


def test_nobody_is_held_for_longer_than_the_fence_lives(place):
    observer(place, "arm", "after fence")
    began = time.monotonic()
    end(section(place))
    assert 2.0 <= time.monotonic() - began < 2.5 + 5
    left, reached = (json.loads((place / "armed" / name).read_text()) for name in ("left", "reached"))
    assert left["told"] is False and 2.0 <= left["at"] - reached["at"] < 2.5


def test_a_moment_that_does_not_come_is_said(place):
    observer(place, "arm", "after lunch")
    assert observer(place, "wait", "0.1").returncode == 3
    assert end(section(place)).endswith("observed")
    assert (place / "armed" / "plan").exists()


def test_arming_forgets_what_was_before(place):
    observer(place, "arm", "after fence")
    observer(place, "go")
    observer(place, "arm", "after marker")
    assert [path.name for path in (place / "armed").iterdir()] == ["plan"]
    assert observer(place, "clear").returncode == 0
    assert list((place / "armed").iterdir()) == []


def test_the_line_among_the_packages_is_enough(place, tmp_path):
    """A .pth file as install_observer writes it: every start of that Python comes by."""
    packages = tmp_path / "packages"
    packages.mkdir()
    shutil.copy(place / "pg_ha_observer.py", packages)
    (packages / "pg_ha_observer.pth").write_text("import pg_ha_observer\n")
    observer(place, "arm", "after fence")
    code = f"import site, sys; site.addsitedir({str(packages)!r}); print(type(sys.meta_path[0]).__name__)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "Finder\n"
