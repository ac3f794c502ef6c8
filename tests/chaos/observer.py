"""Stops the critical section at one moment, so that a fault hits exactly there. In the lab only: the lab lays this file and a line that imports it
(``pg_ha_observer.pth``) among the packages of the mover's Python; nothing of it ships, and the module's code is the one that ships.

    python3 -m pg_ha_observer arm 'after fence' | wait SECONDS | go | clear

An armed moment is taken once, by the first process that comes to it: it says so in ``reached``, and goes on when it is told to (``go``) or after
HOLD_SECONDS, which is less than the server lets the fence live without a word (half of the budget).
"""

from __future__ import annotations

import json
import os
import sys
import time

TYPE_CHECKING = False  # without importing typing: every Python of the mover comes here when it starts
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

# Not on a file system that a case fills, and gone when the machine is switched off.
FOLDER = "/dev/shm/pg_ha_chaos"
HOLD_SECONDS = 2.0
PACKAGE = "ansible_collections.freight.pg_ha.plugins.module_utils._migration"


def path(name: str) -> str:
    """A file of ours."""
    return os.path.join(FOLDER, name)


def write(name: str, value: Any) -> None:
    """A whole file at once."""
    with open(path(name + ".new"), "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.rename(path(name + ".new"), path(name))


def observe(moment: str) -> None:
    """Called before and after every step: stop where it was asked for."""
    try:
        with open(path("plan"), encoding="utf-8") as file:
            if json.load(file) != moment:
                return
        os.rename(path("plan"), path("taken"))
    except FileNotFoundError:
        return
    write("reached", {"pid": os.getpid(), "at": time.time()})
    until = time.monotonic() + HOLD_SECONDS
    while not os.path.exists(path("go")) and time.monotonic() < until:
        time.sleep(0.002)
    write("left", {"at": time.time(), "told": os.path.exists(path("go"))})


def watch_section(module: Any) -> None:
    """Every Steps has us as its observer."""
    begin = module.Steps.__init__

    def __init__(self: Any, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        self.observe = observe

    module.Steps.__init__ = __init__


def watch_cutover(module: Any) -> None:
    """What comes after the flip is no step; it is observed like one."""
    finish = module.Cutover.finish

    def observed(self: Any, attempt: Any) -> None:
        observe("before finish")
        finish(self, attempt)
        observe("after finish")

    module.Cutover.finish = observed


WATCHED = {f"{PACKAGE}.section": watch_section, f"{PACKAGE}.cutover": watch_cutover}


class Loader:
    """A module's own loader, and us after it."""

    def __init__(self, loader: Any, watch: Callable[[Any], None]) -> None:
        self.loader, self.watch = loader, watch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the loader does."""
        created: ModuleType | None = self.loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        """As the loader does; then the module is watched."""
        self.loader.exec_module(module)
        self.watch(module)


class Finder:
    """Finds what the other finders find, and has the watched modules loaded by our loader."""

    def find_spec(self, name: str, where: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """A module's spec, None for all that is not watched."""
        watch = WATCHED.get(name)
        if watch is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, where, target)
            if spec is not None:
                spec.loader = Loader(spec.loader, watch)  # type: ignore[assignment]
                return spec
        return None


def main(arguments: list[str]) -> int:
    """Command line; exit 3 when the moment did not come in time."""
    command, *values = arguments
    os.makedirs(FOLDER, mode=0o700, exist_ok=True)
    if command in ("arm", "clear"):
        for name in os.listdir(FOLDER):
            os.unlink(path(name))
    if command == "arm":
        write("plan", values[0])
    if command == "go":
        write("go", True)
    if command == "wait":
        until = time.monotonic() + float(values[0])
        while not os.path.exists(path("reached")):
            if time.monotonic() > until:
                return 3
            time.sleep(0.005)
        with open(path("reached"), encoding="utf-8") as file:
            print(file.read())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
# Only a Python that finds an armed moment is changed at all.
if os.path.exists(path("plan")):
    sys.meta_path.insert(0, Finder())
