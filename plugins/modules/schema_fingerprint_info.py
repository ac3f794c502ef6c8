#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: schema_fingerprint_info
short_description: Compare the schemas of source and target by their catalogs
version_added: 0.1.0
description:
  - Reads every object's definition from the catalogs of both databases and says which objects differ. No dump's text is compared.
  - Covers tables, columns, constraints, indexes, views, functions, triggers, types, sequences, policies, rules, statistics, owners,
    privileges, replica identities and extensions. Schema C(ha_migration), its guard triggers, publications and subscriptions are left out.
  - Views, rules and SQL bodies that two major versions print differently are listed in RV(not_compared), not as mismatches. What may have changed in them on
    one side only since the comparison in O(parity), or since the copy, is a mismatch once.
  - Versions of extensions, and extensions that only the target has, are RV(notes).
  - Reads only, in less than a second for some hundred tables.
author:
  - the freight.pg_ha authors (@freight)
options:
  source:
    description: Service name of the source in the service file.
    type: str
    default: source
  target:
    description: Service name of the target in the service file.
    type: str
    default: target
  parity:
    description: Evidence of an earlier comparison of rows. RV(void_because) says whether it still holds.
    type: dict
  parity_max_age_seconds:
    description: How old that evidence may be.
    type: int
    default: 3600
extends_documentation_fragment:
  - freight.pg_ha.postgresql
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
- name: Compare the schemas
  freight.pg_ha.schema_fingerprint_info:
    service_file: /run/pg_ha/demo/pg_service.conf
  register: schemas
  failed_when: not schemas.equal
"""

RETURN = r"""
equal:
  description: Whether there is no mismatch.
  returned: success
  type: bool
mismatches:
  description: What differs, one entry per object.
  returned: success
  type: list
  elements: dict
  contains:
    object:
      description: Kind and quoted name.
      type: str
    side:
      description: Where it differs, V(target) or V(both); where it changed, V(source) or V(target).
      type: str
    problem:
      description: What differs.
      type: str
    sentence:
      description: Object and problem as one sentence.
      type: str
not_compared:
  description: Objects that the two major versions print differently, with the reason.
  returned: success
  type: list
  elements: dict
notes:
  description: Facts that are no mismatch, such as versions of extensions.
  returned: success
  type: list
  elements: str
fingerprints:
  description: Per side the hash over all objects, their number and the major version.
  returned: success
  type: dict
  sample:
    source: {sha256: "9f86d0...", objects: 412, major: 15}
    target: {sha256: "60303a...", objects: 412, major: 17}
positions:
  description: Per side the system identifier, the timeline and the write position.
  returned: success
  type: dict
void_because:
  description:
    - Why O(parity) proves nothing any more, empty when it holds. It is void when it is too old, when a schema changed or clients
      moved since, and when either side has another timeline, because a failover of the target can lose applied rows.
  returned: when O(parity) is given
  type: str
"""

import datetime
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._migration.ddl_guard import read_recorded
from ansible_collections.freight.pg_ha.plugins.module_utils._migration.decision import has_moved_since
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.fingerprint import compare_fingerprints, read_fingerprint
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.names import APPLICATION_NAME
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.plan import mismatch_sentence, uncompared_changes, why_void
from ansible_collections.freight.pg_ha.plugins.module_utils._parity.snapshot import read_position
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client


def argument_spec() -> dict[str, t.Any]:
    """Arguments of the module."""
    return {
        **client.connection_argument_spec(),
        "source": {"type": "str", "default": "source"},
        "target": {"type": "str", "default": "target"},
        "parity": {"type": "dict"},
        "parity_max_age_seconds": {"type": "int", "default": 3600},
    }


def run(params: dict[str, t.Any]) -> Outcome:
    """Read both fingerprints and compare them."""
    fingerprints, positions, recorded, moved_to = {}, {}, {}, []
    parity = params["parity"]
    for side, other in (("source", "target"), ("target", "source")):
        connection = client.connect(
            params["service_file"], params[side], application_name=APPLICATION_NAME, connect_timeout_seconds=params["connect_timeout_seconds"]
        )
        try:
            fingerprints[side] = read_fingerprint(connection)
            positions[side] = read_position(connection).as_dict()
            recorded[side] = read_recorded(connection, (parity or {}).get("started_at"), limit=1000)
            lsn = ((parity or {}).get(other) or {}).get("lsn")
            if lsn and has_moved_since(connection, other, lsn):
                moved_to.append(other)
        finally:
            connection.close()
    found = compare_fingerprints(fingerprints["source"], fingerprints["target"])
    hashes = {side: fingerprint.sha256 for side, fingerprint in fingerprints.items()}
    mismatches = found.mismatches or uncompared_changes(parity, hashes, [entry["object"] for entry in found.not_compared], recorded)
    void: dict[str, t.Any] = {}
    if parity is not None:
        void["void_because"] = why_void(parity, hashes, positions, moved_to, params["parity_max_age_seconds"], datetime.datetime.now(datetime.UTC))
    return Outcome(
        changed=False,
        result={
            "equal": not mismatches,
            "mismatches": [{**mismatch, "sentence": mismatch_sentence(mismatch)} for mismatch in mismatches],
            "not_compared": found.not_compared,
            "notes": found.notes,
            "fingerprints": {side: fingerprint.summary() for side, fingerprint in fingerprints.items()},
            "positions": positions,
            **void,
        },
    )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params))


if __name__ == "__main__":
    main()
