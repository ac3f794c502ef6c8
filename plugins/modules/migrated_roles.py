#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: migrated_roles
short_description: Roles of the source exist on the target of a migration
version_added: 0.1.0
description:
  - Roles with their attributes, memberships and settings, and with the verifier of their password where the source lets us read it.
  - Left out are predefined roles, the migration's own, administrators, and roles that only serve the source's own replication.
  - Roles that exist on the target only are left alone.
  - An administrator of the target that is no superuser becomes a member of every moved role, so that it can give objects to their owners and read their rows.
  - Verifiers are never shown, and the target does not log the statements that hold them where the administrator may turn that off.
  - Refuses once the target serves the applications, since the source's roles have lost the right to log in by then.
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
    description: Service of the source.
    type: str
    default: source
  target_service:
    description: Service of the target.
    type: str
    default: target
  maintenance_database:
    description: Database of the target to connect to; the one to move may not exist there yet.
    type: str
    default: postgres
  exclude:
    description: Further roles that are not moved.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Roles of the source on the target
  freight.pg_ha.migrated_roles:
    service_file: /run/pg_ha/freight/pg_service.conf
    exclude: [monitoring]
"""

RETURN = r"""
roles:
  description: The moved roles by name, with attributes and settings; of the password only whether there is one.
  type: dict
  returned: success
not_moved:
  description: Roles that are not moved, and why; predefined roles are not listed.
  type: dict
  returned: success
without_password:
  description: Login roles whose password the source does not let us read. Set new ones before the cutover.
  type: list
  elements: str
  returned: success
old_password_method:
  description: Login roles with an md5 password, which a server that asks for scram-sha-256 refuses. Set new ones before the cutover.
  type: list
  elements: str
  returned: success
not_possible:
  description: What the target's administrator may not give, in sentences.
  type: list
  elements: str
  returned: success
actions:
  description: Statements that were run, or would be in check mode, without secrets.
  type: list
  elements: str
  returned: success
"""

import contextlib
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, PlanError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import decision
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client, private
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import roles

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

APPLICATION_NAME = "ha_migration roles"
# Databases of those who run a service; no application's, and often closed to its customers.
SERVICES = ("rdsadmin", "_dodb", "cloudsqladmin", "azure_maintenance")


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    return {
        **client.connection_argument_spec(),
        "source_service": {"type": "str", "default": "source"},
        "target_service": {"type": "str", "default": "target"},
        "maintenance_database": {"type": "str", "default": "postgres"},
        "exclude": {"type": "list", "elements": "str", "default": []},
    }


def connect(params: dict[str, t.Any], service: str, **parameters: str) -> Connection:
    """A session on one side.

    :param service: the option that names the service
    """
    return client.connect(
        params["service_file"],
        params[service],
        application_name=APPLICATION_NAME,
        connect_timeout_seconds=params["connect_timeout_seconds"],
        **parameters,
    )


def served_elsewhere(params: dict[str, t.Any], target: Connection, database: str) -> list[str]:
    """Further databases of the target that serve by the decision of a migration; one that lets nobody look counts as one of them."""
    found = []
    rows = client.query(
        target, "SELECT datname::text AS name FROM pg_database WHERE datallowconn AND NOT datistemplate AND datname <> %s ORDER BY 1", (database,)
    )
    for row in rows:
        if row["name"] in SERVICES:
            continue
        try:
            session = connect(params, "target_service", dbname=row["name"])
        except ClientError:
            found.append(row["name"])
            continue
        with contextlib.closing(session):
            if decision.plan_serving(decision.read_history(session, "target")) == "target":
                found.append(row["name"])
    return found


def run(params: dict[str, t.Any], check_mode: bool) -> Outcome:
    """Read both sides, plan, apply.

    :raises PlanError: the target serves already
    """
    source = connect(params, "source_service")
    target = connect(params, "target_service", dbname=params["maintenance_database"])
    try:
        if decision.plan_serving(decision.read_history(source, "source")) == "target":
            raise PlanError(
                "The target serves the applications: its roles are no longer made like the source's. Run playbook roll_back.yml first if that is meant."
            )
        database = str(client.query_value(source, "SELECT current_database()::text"))
        here, there = roles.read_side(source, database), roles.read_side(target, database)
        served = served_elsewhere(params, target, database)
        # What the source's server took from them with that database's cutover, and what has changed on the target since, is that database's.
        kept = {name: f"it exists on the target, which serves database {served[0]} with it" for name in there.roles if served and name in here.roles}
        plan = roles.plan_between(source, target, (here, there), params["exclude"], kept)
        if plan.actions and not check_mode:
            private.silence(target)
            private.apply(target, plan.actions)
    finally:
        source.close()
        target.close()
    after = {name: role.public() for name, role in plan.wanted.items()}
    before = {name: there.roles[name].public() for name in plan.wanted if name in there.roles}
    return Outcome.of(
        before,
        after,
        plan.actions,
        roles=after,
        # A result named "skipped" would say that the task was.
        not_moved=plan.skipped,
        without_password=plan.without_password,
        old_password_method=plan.old_password_method,
        not_possible=plan.not_possible,
    )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))
    finish(module, lambda: run(module.params, module.check_mode))


if __name__ == "__main__":
    main()
