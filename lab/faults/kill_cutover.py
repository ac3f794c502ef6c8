"""Run module cutover on the mover and die by SIGKILL at one moment of the critical section.

usage: kill_cutover.py --at 'after barrier' < parameters.json

The module's own code runs, out of a copy of plugins/ beside this file; only what it imports of Ansible is stood in for. Exit by signal 9 is the point;
exit 3 says that the moment never came.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import sys
import types
from typing import Any


def stand_in_for_ansible() -> None:
    """The two names that a module imports of Ansible."""
    basic = types.ModuleType("ansible.module_utils.basic")
    basic.AnsibleModule = object  # type: ignore[attr-defined]
    basic.missing_required_lib = str  # type: ignore[attr-defined]
    for name in ("ansible", "ansible.module_utils"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["ansible.module_utils.basic"] = basic


def filled(spec: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Parameters with the defaults of an argument spec, in suboptions too, as Ansible would give them."""
    found = {}
    for name, option in spec.items():
        value = given.get(name, option.get("default"))
        found[name] = filled(option["options"], value) if "options" in option and value is not None else value
    return found


def main() -> int:
    """Run up to the moment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", required=True, help="'before STEP' or 'after STEP', as cutover.json names the steps")
    arguments = parser.parse_args()
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    stand_in_for_ansible()
    from ansible_collections.freight.pg_ha.plugins.module_utils._migration import section
    from ansible_collections.freight.pg_ha.plugins.modules import cutover

    run_step = section.Steps.run

    def run(self, name, work):
        if arguments.at == f"before {name}":
            os.kill(os.getpid(), signal.SIGKILL)
        result = run_step(self, name, work)
        if arguments.at == f"after {name}":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    section.Steps.run = run  # type: ignore[method-assign]
    parameters = filled(cutover.argument_spec(), json.load(sys.stdin))
    # Programs run with the method dump only.
    cutover.run(parameters, False, lambda *arguments, **options: (1, "", "no program is run here"))
    return 3


if __name__ == "__main__":
    sys.exit(main())
