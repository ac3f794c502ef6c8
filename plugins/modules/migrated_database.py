#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migrated_database
short_description: The database to move exists on the target of a migration
version_added: 0.1.0
description:
  - Creates the database on the target with encoding and locale of the source's.
  - Keeps its owner, privileges, connection limit, comment and settings like there.
  - What is inside is the matter of M(freight.pg_ha.replication_copy).
author:
  - the freight.pg_ha authors (@freight)
extends_documentation_fragment:
  - freight.pg_ha.postgresql
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  source_service:
    description: Service of the source; its database is the one to move.
    type: str
    default: source
  target_service:
    description: Service of the target.
    type: str
    default: target
  maintenance_database:
    description: Database of the target to connect to.
    type: str
    default: postgres
"""

EXAMPLES = r"""
- name: The database on the target
  freight.pg_ha.migrated_database:
    service_file: /run/pg_ha/freight/pg_service.conf
"""

RETURN = r"""
database:
  description: The database as it is now; in check mode as it would be.
  type: dict
  returned: success
actions:
  description: Statements that were run, or would be in check mode.
  type: list
  elements: str
  returned: success
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client, private
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import database

APPLICATION_NAME = "ha_migration database"


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    return {
        **client.connection_argument_spec(),
        "source_service": {"type": "str", "default": "source"},
        "target_service": {"type": "str", "default": "target"},
        "maintenance_database": {"type": "str", "default": "postgres"},
    }


def run(params: dict[str, t.Any], check_mode: bool) -> Outcome:
    """Read both sides, plan, apply.

    :raises PlanError: it exists with another encoding or locale
    """
    timeout = params["connect_timeout_seconds"]
    source = client.connect(params["service_file"], params["source_service"], application_name=APPLICATION_NAME, connect_timeout_seconds=timeout)
    target = client.connect(
        params["service_file"],
        params["target_service"],
        application_name=APPLICATION_NAME,
        connect_timeout_seconds=timeout,
        dbname=params["maintenance_database"],
    )
    try:
        name = str(client.query_value(source, "SELECT current_database()::text"))
        here = database.read_database(source, name)
        if here is None:
            raise ClientError(f"The source does not show its own database {name}.")
        there = database.read_database(target, name)
        administrator = str(client.query_value(target, "SELECT session_user::text"))
        roles = {row["name"] for row in client.query(target, "SELECT rolname::text AS name FROM pg_roles")}
        if check_mode:
            # Roles that migrated_roles would have made by now.
            roles |= {grantee for grantee, _privilege, _option in here.privileges if grantee} | {here.owner}
        # As migrated_roles has it: administrators stay, and each side has its own.
        administrators = {"postgres", administrator, str(client.query_value(source, "SELECT session_user::text"))}
        moved = {role for role in roles - administrators if not role.startswith("ha_migration")}
        creation, changes, wanted = database.plan_database(here, there, moved, administrator)
        if not check_mode:
            for action in creation:
                client.query(target, action.statement)
            private.apply(target, changes)
    finally:
        source.close()
        target.close()
    return Outcome.of(there.public() if there else None, wanted.public(), creation + changes, database=wanted.public())


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
