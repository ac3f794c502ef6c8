"""On the mover: compare both sides and have the other side serve, as the playbook's modules do, out of a copy of plugins/ beside this file.

usage: section.py < parameters.json

The parameters are those of module cutover without ``parity``. Prints what the module returns. Exit 2 with ``msg: ...`` when it refuses or fails.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
from kill_cutover import filled, stand_in_for_ansible  # noqa: E402  (beside this file on the mover)


def main() -> int:
    """Compare, then move."""
    stand_in_for_ansible()
    from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import PgHaError
    from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
    from ansible_collections.freight.pg_ha.plugins.modules import cutover, migration_phase_info, parity

    given = json.load(sys.stdin)
    leaves = "source" if given["serves"] == "target" else "target"
    comparison = {
        "service_file": given["service_file"],
        "progress_file": os.path.join(os.path.dirname(given["service_file"]), "chaos.json"),
        "run": given["run"],
        "serves": leaves,
        "catch_up_seconds": 60,
    }
    journal = {"service_file": given["service_file"], "migration": "freight", "phase": "verify"}
    try:
        # As role mover does before anything else: a leader may be on its way.
        for side in ("source", "target"):
            client.connect(given["service_file"], side, application_name="ha_migration chaos", patience_seconds=client.LEADER_PATIENCE_SECONDS).close()
        # What was decided before is finished without one.
        if migration_phase_info.run(filled(migration_phase_info.argument_spec(), journal)).result["phase"]["serves"] == leaves:
            given["parity"] = parity.run(filled(parity.argument_spec(), comparison), False).result["evidence"]
        # Programs run with the method dump only.
        outcome = cutover.run(filled(cutover.argument_spec(), given), False, lambda *arguments, **options: (1, "", "no program is run here"))
    except PgHaError as error:
        print(f"msg: {error.message}", flush=True)
        return 2
    print(json.dumps({"changed": outcome.changed, **outcome.result}, default=str), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
