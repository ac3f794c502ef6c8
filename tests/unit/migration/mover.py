# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module cutover as a process that can be killed: parameters are the first line of its input, and it stops at a moment until it is told to go on.

It prints ``at <moment>`` there, and at its end one line of JSON: ``{"result": ...}``, or ``{"error": name, "message": words}``.
"""

from __future__ import annotations

import json
import sys

from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import PgHaError
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import bring, gates, section
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import cutover as migration_cutover
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.modules import cutover


def main() -> None:
    """Run the module once."""
    given = json.loads(sys.stdin.readline())
    moment = given.pop("moment")
    plain = section.Steps.run

    def observe(name: str) -> None:
        if name == moment:
            print(f"at {name}", flush=True)
            sys.stdin.readline()

    def run(self, name, work):
        self.observe = observe
        return plain(self, name, work)

    section.Steps.run = run
    # The server of the tests runs without fsync.
    bring.ByLink.gates = tuple(gate for gate in bring.ByLink.gates if gate is not gates.durability)
    migration_cutover.SETTLE_SECONDS = 0.0
    # What is cut off is as silent after one second as after five.
    client.query_console.__defaults__ = (1.0,)
    client.connect_console.__kwdefaults__ = {"connect_timeout_seconds": 2}
    params = {name: option.get("default") for name, option in cutover.argument_spec().items()}
    try:
        outcome = cutover.run({**params, **given}, False, lambda *arguments: (1, "", "no program is run here"))
        print(json.dumps({"result": outcome.result}, default=str), flush=True)
    except PgHaError as error:
        print(json.dumps({"error": type(error).__name__, "message": error.message}), flush=True)


if __name__ == "__main__":
    main()
