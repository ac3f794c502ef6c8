#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_instance
short_description: Keep a PostgreSQL instance of Amazon RDS
description:
  - Makes an instance, changes what differs, or deletes it, and waits until it is available.
  - What the service would refuse, or would do with an outage, is said before anything is asked of it, all of it together, class and version and storage against
    what the service offers in the region.
  - The administrator's password is made, kept and rotated by the service in AWS Secrets Manager. Nobody gives it to this module, and it does not return it.
    See O(admin_secret).
  - What the service has changed by itself and has a right to (a newer minor version, storage that has grown up to its limit) is not taken back.
version_added: 0.1.0
author: the freight.pg_ha authors (@freight)
extends_documentation_fragment:
  - freight.pg_ha.aws
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  identifier:
    description: Name of the instance.
    type: str
    required: true
  state:
    description: Whether there shall be one.
    type: str
    choices: [present, absent]
    default: present
  engine_version:
    description:
      - Version of PostgreSQL. A major one (V(17)) is the newest minor one that the service offers when it makes the instance, and any of it afterwards.
    type: str
  instance_class:
    description: Class of the machine, for example V(db.m7g.large).
    type: str
  allocated_storage_gib:
    description:
      - Storage to begin with. It never shrinks, and grows by a tenth at least, as the service rounds up. What stands less than a tenth above is as wanted.
      - It is the only change that an instance takes whose storage is full (C(storage-full)), with O(apply=now).
    type: int
  max_allocated_storage_gib:
    description:
      - Limit up to which the service enlarges the storage by itself. Without it the storage of a new instance is never enlarged, and a standing limit is left
        alone.
    type: int
  storage_type:
    description: Type of the storage.
    type: str
    choices: [gp2, gp3, io1, io2]
  iops:
    description: Operations per second that the storage is provisioned for.
    type: int
  storage_throughput_mibps:
    description: Throughput that gp3 storage is provisioned for.
    type: int
  storage_encrypted:
    description: Whether storage, backups and snapshots are encrypted. Settled for an instance's life.
    type: bool
    default: true
  kms_key_id:
    description: Key of it, by ARN or id; by default the account's own for RDS. Settled for an instance's life.
    type: str
  multi_az:
    description: Whether the service keeps a synchronous standby in another zone and fails over to it.
    type: bool
    default: true
  subnet_group:
    description: Subnet group; for Multi-AZ with subnets in two zones at least.
    type: str
  security_group_ids:
    description: Security groups.
    type: list
    elements: str
  publicly_accessible:
    description: Whether the instance has a public address.
    type: bool
    default: false
  port:
    description: Port.
    type: int
  database:
    description: Database that is made with the instance. Settled for its life.
    type: str
  admin_user:
    description: Administrator's name. Settled for an instance's life.
    type: str
  admin_secret:
    description:
      - Whether the service makes and keeps the administrator's password in AWS Secrets Manager, also that of an instance that was made with another one. Who
        logs in with the old password is refused from then on, so that this needs O(allow_interruption).
      - V(false) leaves the password of a standing instance alone; a new instance always has a secret.
      - The service makes no read replicas of an instance that has one. The password of a replica, and of an instance that has replicas, is left alone.
    type: bool
    default: true
  admin_secret_kms_key_id:
    description: Key that encrypts the administrator's secret; read when the secret is made.
    type: str
  parameter_group:
    description: Parameter group, of the version's family. See M(freight.pg_ha.rds_parameter_group).
    type: str
  backup_retention_days:
    description: Days for which backups are kept, V(0) for no backups.
    type: int
  backup_window:
    description: Daily time of backups in UTC, for example V(03:00-04:00).
    type: str
  maintenance_window:
    description: Weekly time of maintenance in UTC, for example V(sun:04:30-sun:05:30).
    type: str
  copy_tags_to_snapshot:
    description: Whether snapshots have the instance's tags.
    type: bool
  deletion_protection:
    description: Whether the service refuses to delete the instance.
    type: bool
  auto_minor_version_upgrade:
    description: Whether the service installs minor versions in the maintenance window.
    type: bool
  iam_authentication:
    description: Whether roles of the database may log in with tokens of IAM.
    type: bool
  monitoring_interval_seconds:
    description: How often Enhanced Monitoring looks, V(0) for never.
    type: int
    choices: [0, 1, 5, 10, 15, 30, 60]
  monitoring_role_arn:
    description: Role that writes what it sees.
    type: str
  performance_insights:
    description: Whether the load is recorded by statement (Performance Insights, in CloudWatch Database Insights today).
    type: bool
  performance_insights_retention_days:
    description: Days for which that record is kept.
    type: int
  database_insights_mode:
    description: Mode of CloudWatch Database Insights.
    type: str
    choices: [standard, advanced]
  log_exports:
    description: Logs that are sent to CloudWatch, V(postgresql) and V(upgrade).
    type: list
    elements: str
    choices: [postgresql, upgrade, iam-db-auth-error]
  ca_identifier:
    description:
      - Certificate authority of the server's certificate, for example V(rds-ca-rsa2048-g1). A change restarts PostgreSQL, unless the service says that the
        version takes a new certificate without.
    type: str
  tags:
    description: All of the instance's tags; others are taken away. Omit it to leave them alone.
    type: dict
  apply:
    description:
      - When a change is made that can wait, V(now), or in the maintenance V(window). What waits is returned as C(pending).
      - With a change that is made V(now) the service makes all that waits.
    type: str
    choices: [now, window]
    default: window
  reboot_when_due:
    description:
      - Reboot the instance where parameters of its group wait for that; needs O(allow_interruption).
      - An instance whose version changes in the window is not rebooted before; that restarts it.
    type: bool
    default: false
  allow_interruption:
    description: Consent to a change that interrupts clients, now or in the window. Without it such a change is refused, and the message names it.
    type: bool
    default: false
  allow_major_upgrade:
    description: Consent to a major upgrade, which cannot be undone.
    type: bool
    default: false
  final_snapshot:
    description: Name of the snapshot that is made when the instance is deleted. Give it a name without a time, so that it can be looked for.
    type: str
  skip_final_snapshot:
    description: Delete an instance without one.
    type: bool
    default: false
  wait_timeout_seconds:
    description: How long to wait for the instance to be available, or gone.
    type: int
    default: 3600
"""

EXAMPLES = r"""
- name: Keep the target
  freight.pg_ha.rds_instance:
    region: eu-central-1
    identifier: freight
    engine_version: "17"
    instance_class: db.m7g.large
    allocated_storage_gib: 100
    max_allocated_storage_gib: 500
    storage_type: gp3
    admin_user: administrator
    subnet_group: freight
    security_group_ids: [sg-0123456789abcdef0]
    parameter_group: freight-17
    backup_retention_days: 14
    deletion_protection: true

- name: Give it a larger machine tonight
  freight.pg_ha.rds_instance:
    identifier: freight
    instance_class: db.m7g.xlarge
    apply: window
    allow_interruption: true
"""

RETURN = r"""
instance:
  description:
    - The instance by the names of the options, with C(arn), C(status), C(endpoint), C(zone), C(standby_zone), C(admin_secret_arn), C(replica_of), C(replicas),
      C(reboot_due) (parameters wait for a reboot) and C(pending) (what the service will change in its window).
    - In check mode as it stands, C(null) where there is none.
  returned: success
  type: dict
actions:
  description: One line for each thing that was done, or would be.
  returned: success
  type: list
  elements: str
interruptions:
  description: One line for each of them that clients will have noticed, or will notice in the window.
  returned: success
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Action, Outcome
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import SYSTEM_CLOCK, Clock
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import change_plan, instance_plan, instance_refusals_plan, waits
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import client as rds
from ansible_collections.freight.pg_ha.plugins.module_utils._rds.model import DELETING, FULL, Described, Offer, public
from ansible_collections.freight.pg_ha.plugins.module_utils._rds.refusal import refuse


def offer_for(client: rds.RdsClient, wanted: t.Mapping[str, t.Any], current: Described | None) -> Offer:
    """What the service offers for what will stand."""
    standing = current or {}
    group = next((one["DBParameterGroupName"] for one in standing.get("DBParameterGroups", [])), None)
    return client.read_offer(
        str(wanted.get("engine_version") or standing.get("EngineVersion") or ""),
        wanted.get("instance_class") or standing.get("DBInstanceClass"),
        wanted.get("subnet_group") or (standing.get("DBSubnetGroup") or {}).get("DBSubnetGroupName"),
        wanted.get("parameter_group") or group,
    )


def keep(client: rds.RdsClient, wanted: t.Mapping[str, t.Any], current: Described | None, check_mode: bool, clock: Clock) -> Outcome:
    """There shall be one, as wanted."""
    identifier = wanted["identifier"]
    if current is not None and current.get("Engine") != rds.ENGINE:
        raise UsageError(f"Instance {identifier} runs {current.get('Engine')}, not PostgreSQL: give another identifier.")
    # Full storage is a state that only a change ends.
    if current is not None and current.get("DBInstanceStatus") != FULL:
        current = waits.settle(client, current, check_mode, wanted["wait_timeout_seconds"], clock)
    if current is None:
        offer = offer_for(client, wanted, None)
        refuse(f"instance {identifier}", instance_refusals_plan.refuse_create(wanted, identifier, offer))
        plan = instance_plan.plan_create(wanted, identifier, offer.versions)
    else:
        changes = change_plan.changes(wanted, current, wanted["apply"])
        if not change_plan.only_grows(changes, wanted["apply"]):
            waits.refuse_stuck(current)
        offer = offer_for(client, wanted, current) if changes else Offer()
        refuse(f"instance {identifier}", instance_refusals_plan.refuse_modify(wanted, current, changes, offer, wanted["apply"]))
        plan = instance_plan.plan_modify(wanted, current, changes, wanted["apply"], offer)
    after = current if check_mode else carry_out(client, plan, wanted, current, clock)
    return Outcome.of(plan.before or {}, plan.after, plan.actions, instance=None if after is None else public(after), interruptions=plan.interruptions)


def carry_out(
    client: rds.RdsClient, plan: instance_plan.InstancePlan, wanted: t.Mapping[str, t.Any], current: Described | None, clock: Clock
) -> Described | None:
    """Send what the plan holds, and wait for the end of it."""
    if plan.create is not None:
        client.write("CreateDBInstance", "create_db_instance", plan.create)
    if plan.modify:
        client.write("ModifyDBInstance", "modify_db_instance", plan.modify)
    if current is not None:
        client.keep_tags(current["DBInstanceArn"], plan.add_tags, plan.remove_tags)
    if not plan.actions:
        return current
    left = None if current is None else current.get("DBInstanceStatus")
    after = waits.until_settled(client, wanted["identifier"], wanted["wait_timeout_seconds"], clock, asked=plan.create or plan.modify, ends=left)
    if not plan.reboot:
        return after
    client.write("RebootDBInstance", "reboot_db_instance", {"DBInstanceIdentifier": wanted["identifier"]})
    return waits.until_settled(client, wanted["identifier"], wanted["wait_timeout_seconds"], clock, also=waits.parameters)


def remove(client: rds.RdsClient, wanted: t.Mapping[str, t.Any], current: Described | None, check_mode: bool, clock: Clock) -> Outcome:
    """There shall be none."""
    if current is None:
        return Outcome.of({}, {}, [], instance=None, interruptions=[])
    identifier, snapshot = wanted["identifier"], wanted["final_snapshot"]
    gone = f"{identifier} is deleted, and its clients have no server"
    actions = [Action(f"delete {identifier}, {f'with the final snapshot {snapshot}' if snapshot else 'without a snapshot'}")]
    if current.get("DBInstanceStatus") != DELETING:
        refuse(f"instance {identifier}", instance_refusals_plan.refuse_delete(current, snapshot, wanted["skip_final_snapshot"]))
        if not check_mode:
            request = {"FinalDBSnapshotIdentifier": snapshot, "SkipFinalSnapshot": False} if snapshot else {"SkipFinalSnapshot": True}
            client.write("DeleteDBInstance", "delete_db_instance", {"DBInstanceIdentifier": identifier, **request})
    if not check_mode:
        waits.until_gone(client, identifier, wanted["wait_timeout_seconds"], clock)
    return Outcome.of(public(current), {}, actions, instance=public(current) if check_mode else None, interruptions=[gone])


def run(client: rds.RdsClient, params: dict[str, t.Any], check_mode: bool, clock: Clock = SYSTEM_CLOCK) -> Outcome:
    """Read, refuse or plan, do, wait. What cannot be a name is not asked for: it is a problem among the others."""
    current = None if instance_refusals_plan.refuse_identifier(params["identifier"]) else client.read_instance(params["identifier"])
    return (keep if params["state"] == "present" else remove)(client, params, current, check_mode, clock)


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    text = ("engine_version", "instance_class", "kms_key_id", "subnet_group", "database", "admin_user", "admin_secret_kms_key_id", "parameter_group")
    text += ("backup_window", "maintenance_window", "monitoring_role_arn", "ca_identifier", "final_snapshot")
    numbers = ("allocated_storage_gib", "max_allocated_storage_gib", "iops", "storage_throughput_mibps", "port", "backup_retention_days")
    numbers += ("performance_insights_retention_days",)
    choices = ("copy_tags_to_snapshot", "deletion_protection", "auto_minor_version_upgrade", "iam_authentication", "performance_insights")
    return {
        **rds.aws_argument_spec(),
        **{name: {"type": "str"} for name in text},
        **{name: {"type": "int"} for name in numbers},
        **{name: {"type": "bool"} for name in choices},
        "identifier": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "storage_type": {"type": "str", "choices": ["gp2", "gp3", "io1", "io2"]},
        "storage_encrypted": {"type": "bool", "default": True},
        "admin_secret": {"type": "bool", "default": True},
        "multi_az": {"type": "bool", "default": True},
        "security_group_ids": {"type": "list", "elements": "str"},
        "publicly_accessible": {"type": "bool", "default": False},
        "monitoring_interval_seconds": {"type": "int", "choices": [0, 1, 5, 10, 15, 30, 60]},
        "database_insights_mode": {"type": "str", "choices": ["standard", "advanced"]},
        "log_exports": {"type": "list", "elements": "str", "choices": ["postgresql", "upgrade", "iam-db-auth-error"]},
        "tags": {"type": "dict"},
        "apply": {"type": "str", "choices": ["now", "window"], "default": "window"},
        "allow_interruption": {"type": "bool", "default": False},
        "allow_major_upgrade": {"type": "bool", "default": False},
        "reboot_when_due": {"type": "bool", "default": False},
        "skip_final_snapshot": {"type": "bool", "default": False},
        "wait_timeout_seconds": {"type": "int", "default": 3600},
    }


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True, mutually_exclusive=[("final_snapshot", "skip_final_snapshot")])
    rds.finish_with(module, lambda client: run(client, module.params, module.check_mode))


if __name__ == "__main__":
    main()
