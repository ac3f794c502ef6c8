#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: parity_info
short_description: Read the progress of a comparison of rows
version_added: 0.1.0
description:
  - Reads the file that M(freight.pg_ha.parity) writes while it works. Made for C(until) with a C(delay) of one second.
author:
  - the freight.pg_ha authors (@freight)
options:
  progress_file:
    description: The progress file of the comparison.
    type: path
    required: true
  run:
    description: Name of the comparison, as given to M(freight.pg_ha.parity).
    type: str
    required: true
extends_documentation_fragment:
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Wait for the comparison
  freight.pg_ha.parity_info:
    progress_file: /run/pg_ha/demo/parity.json
    run: "2026-11-23T04:00:00Z"
  register: parity
  until: parity.state not in ["absent", "running"]
  retries: 86400
  delay: 1
"""

RETURN = r"""
state:
  description:
    - V(absent) while the run has not begun, V(running), V(finished) with RV(evidence), V(failed) with RV(error), or V(lost) when its
      process has ended without a result.
  returned: success
  type: str
progress:
  description: Where it is - step, tables, ranges, bytes and rows.
  returned: success
  type: dict
  sample: {step: comparing rows, tables_done: 12, tables_total: 31, chunks_done: 40, chunks_total: 96, bytes_total: 214958080, rows: 812345}
evidence:
  description: As M(freight.pg_ha.parity) returns it, or none.
  returned: success
  type: dict
error:
  description: Why it failed, or none.
  returned: success
  type: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.progress import read_progress


def argument_spec() -> dict[str, t.Any]:
    """Arguments of the module."""
    return {"progress_file": {"type": "path", "required": True}, "run": {"type": "str", "required": True}}


def run(params: dict[str, t.Any]) -> Outcome:
    """Read the file."""
    document = dict(read_progress(params["progress_file"], params["run"]))
    state, evidence, error = document.pop("state"), document.pop("evidence", None), document.pop("error", None)
    if state == "lost":
        error = "The process that compared rows has ended without a result; nothing is held and nothing was changed. Run verify again."
    return Outcome(changed=False, result={"state": state, "progress": document, "evidence": evidence, "error": error})


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    finish(module, lambda: run(module.params))


if __name__ == "__main__":
    main()
