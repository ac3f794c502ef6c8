# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Amazon RDS's settings of an instance, and how the API names them. Data only: no I/O, no clock.

Names, and what is said of outages, are those of botocore's model of the service (CreateDBInstance, ModifyDBInstance, DescribeDBInstances, version 2014-10-31).
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

ENGINE = "postgres"
# Storage that was enlarged is optimized for hours, in which everything but the storage can be changed.
SETTLED = frozenset({"available", "storage-optimization"})
DELETING = "deleting"
# The one change that an instance takes in this state is more storage.
FULL = "storage-full"
# States that no waiting ends, and what to do about them.
STUCK = {
    "stopped": "start it",
    "failed": "restore a snapshot of it",
    "incompatible-network": "see that its subnets have free addresses and its security groups exist",
    "incompatible-parameters": "mend its parameter group and reboot it",
    "incompatible-restore": "see its events",
    "incompatible-option-group": "give it another option group",
    "inaccessible-encryption-credentials": "give the service its key of KMS back and restore a snapshot of it",
    "inaccessible-encryption-credentials-recoverable": "give the service its key of KMS back and start it",
    "insufficient-capacity": "wait, or choose another class",
    "restore-error": "see its events",
    FULL: "enlarge its storage with rds_instance (allocated_storage_gib with apply: now, and nothing else)",
}
Described = t.Mapping[str, t.Any]

OUTAGE = "PostgreSQL is not available while it changes"
RESTART = "PostgreSQL restarts at once, whenever the change was asked for"
CERTIFICATE = "PostgreSQL restarts for the new certificate"
PASSWORD = "the administrator's password becomes another at once, whenever the change was asked for"
AT_ONCE = frozenset({RESTART, PASSWORD})


def _same(current: t.Any, wanted: t.Any) -> bool:
    return bool(current == wanted)


def _same_text(current: t.Any, wanted: t.Any) -> bool:
    return str(current).lower() == str(wanted).lower()


def _same_set(current: t.Any, wanted: t.Any) -> bool:
    return set(current or ()) == set(wanted)


def _same_key(current: t.Any, wanted: t.Any) -> bool:
    """The service answers with the key's ARN, whose last part is its id."""
    return current is not None and wanted in (current, str(current).rpartition("/")[2])


def covers_version(current: str, wanted: str) -> bool:
    """Whether a version is what was asked for: ``17`` is any 17.x."""
    return current == wanted or current.startswith(f"{wanted}.")


@dataclass(frozen=True)
class Setting:
    """One setting of an instance.

    :param option: the module's option
    :param parameter: in a request that creates an instance
    :param shown: in the description of an instance, where it has another name there
    :param modified: in a request that changes one, where it has another name there; None where it can never be changed
    :param interrupts: what a change of it does to clients; "" when they do not notice
    :param same: whether what stands is what is wanted
    """

    option: str
    parameter: str
    shown: str = ""
    modified: str | None = ""
    interrupts: str = ""
    same: t.Callable[[t.Any, t.Any], bool] = _same

    def read(self, instance: Described) -> t.Any:
        """What stands, in the option's form; None where the service says nothing of it."""
        return _READ[self.option](instance) if self.option in _READ else instance.get(self.shown or self.parameter)

    def read_pending(self, instance: Described) -> t.Any:
        """What the service will change it to; None when nothing is pending."""
        pending = instance.get("PendingModifiedValues") or {}
        return pending.get(self.shown or self.parameter) if self.option not in _READ or self.option == "subnet_group" else None


_READ: dict[str, t.Callable[[Described], t.Any]] = {
    "security_group_ids": lambda instance: sorted(group["VpcSecurityGroupId"] for group in instance.get("VpcSecurityGroups", [])),
    "subnet_group": lambda instance: (instance.get("DBSubnetGroup") or {}).get("DBSubnetGroupName"),
    "parameter_group": lambda instance: next((group["DBParameterGroupName"] for group in instance.get("DBParameterGroups", [])), None),
    "port": lambda instance: (instance.get("Endpoint") or {}).get("Port") or instance.get("DbInstancePort"),
    "log_exports": lambda instance: sorted(instance.get("EnabledCloudwatchLogsExports") or []),
    "admin_secret": lambda instance: bool(instance.get("MasterUserSecret")),
}

SETTINGS = (
    Setting("instance_class", "DBInstanceClass", interrupts=OUTAGE),
    Setting("engine_version", "EngineVersion", interrupts=OUTAGE, same=covers_version),
    Setting("allocated_storage_gib", "AllocatedStorage"),
    Setting("max_allocated_storage_gib", "MaxAllocatedStorage"),
    Setting("storage_type", "StorageType"),
    Setting("iops", "Iops"),
    Setting("storage_throughput_mibps", "StorageThroughput"),
    Setting("storage_encrypted", "StorageEncrypted", modified=None),
    Setting("kms_key_id", "KmsKeyId", modified=None, same=_same_key),
    Setting("multi_az", "MultiAZ"),
    Setting("subnet_group", "DBSubnetGroupName", interrupts=OUTAGE, same=_same_text),
    Setting("security_group_ids", "VpcSecurityGroupIds", same=_same_set),
    Setting("publicly_accessible", "PubliclyAccessible"),
    Setting("port", "Port", modified="DBPortNumber", interrupts=RESTART),
    Setting("database", "DBName", modified=None),
    Setting("admin_user", "MasterUsername", modified=None),
    Setting("admin_secret", "ManageMasterUserPassword", interrupts=PASSWORD),
    Setting("parameter_group", "DBParameterGroupName", same=_same_text),
    Setting("backup_retention_days", "BackupRetentionPeriod"),
    Setting("backup_window", "PreferredBackupWindow"),
    Setting("maintenance_window", "PreferredMaintenanceWindow", same=_same_text),
    Setting("copy_tags_to_snapshot", "CopyTagsToSnapshot"),
    Setting("deletion_protection", "DeletionProtection"),
    Setting("auto_minor_version_upgrade", "AutoMinorVersionUpgrade"),
    Setting("iam_authentication", "EnableIAMDatabaseAuthentication", shown="IAMDatabaseAuthenticationEnabled"),
    Setting("monitoring_interval_seconds", "MonitoringInterval"),
    Setting("monitoring_role_arn", "MonitoringRoleArn"),
    Setting("performance_insights", "EnablePerformanceInsights", shown="PerformanceInsightsEnabled"),
    Setting("performance_insights_retention_days", "PerformanceInsightsRetentionPeriod"),
    Setting("database_insights_mode", "DatabaseInsightsMode"),
    Setting("log_exports", "EnableCloudwatchLogsExports", modified="CloudwatchLogsExportConfiguration", same=_same_set),
    Setting("ca_identifier", "CACertificateIdentifier", interrupts=CERTIFICATE),
)
SETTING = {setting.option: setting for setting in SETTINGS}


def waits_for_reboot(instance: Described, group: str | None = None) -> bool:
    """Whether parameters of an instance are in force after a reboot only.

    :param group: those of this parameter group; None means any
    """
    used = [one for one in instance.get("DBParameterGroups", []) if group in (None, one["DBParameterGroupName"])]
    return any(one.get("ParameterApplyStatus") == "pending-reboot" for one in used)


def tags_of(described: Described) -> dict[str, str]:
    """The tags of anything that the service describes; its own (``aws:…``) are not ours to keep."""
    return {tag["Key"]: tag.get("Value", "") for tag in described.get("TagList") or [] if not tag["Key"].startswith("aws:")}


def tag_list(tags: t.Mapping[str, t.Any]) -> list[dict[str, str]]:
    """Tags in the API's form."""
    return [{"Key": key, "Value": str(value)} for key, value in sorted(tags.items())]


def tag_changes(wanted: t.Mapping[str, t.Any] | None, standing: t.Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Tags to set and tags to take away.

    :param wanted: all that there shall be; None leaves them alone
    :param standing: as :func:`tags_of` has them
    """
    if wanted is None:
        return {}, []
    add = {key: str(value) for key, value in wanted.items() if standing.get(key) != str(value)}
    return add, sorted(set(standing) - set(wanted))


def public_events(events: t.Iterable[Described]) -> list[dict[str, str]]:
    """Events as the modules return them."""
    return [{"at": event["Date"].isoformat(), "message": event["Message"]} for event in events]


@dataclass(frozen=True)
class Offer:
    """What the service offers where the instance is, or will be.

    :param versions: of DescribeDBEngineVersions, each ``EngineVersion``, ``DBParameterGroupFamily``, ``ValidUpgradeTarget``
    :param options: of DescribeOrderableDBInstanceOptions for the class and version that are wanted
    :param zones: zones of the subnet group
    :param families: families of the parameter groups that there are, by their names
    """

    versions: t.Sequence[Described] = ()
    options: t.Sequence[Described] = ()
    zones: t.Sequence[str] = ()
    families: t.Mapping[str, str] | None = None


def version_key(version: str) -> tuple[int, ...]:
    """For comparing versions; what is no number counts as 0 (``17.6-R2``)."""
    return tuple(int(part) if part.isdigit() else 0 for part in version.replace("-", ".").split("."))


def choose_version(offered: t.Iterable[Described], wanted: str) -> str | None:
    """The newest offered version that is what was asked for."""
    fitting = [one["EngineVersion"] for one in offered if covers_version(one["EngineVersion"], wanted)]
    return max(fitting, key=version_key, default=None)


def public(instance: Described) -> dict[str, t.Any]:
    """An instance as the modules return it: the options' names, and what only the service knows.

    ``MasterUserSecret`` is the secret's address, never what is in it.
    """
    endpoint = instance.get("Endpoint") or {}
    return {
        "identifier": instance["DBInstanceIdentifier"],
        "arn": instance.get("DBInstanceArn"),
        "status": instance.get("DBInstanceStatus"),
        "endpoint": {"host": endpoint["Address"], "port": endpoint["Port"]} if endpoint.get("Address") else None,
        "zone": instance.get("AvailabilityZone"),
        "standby_zone": instance.get("SecondaryAvailabilityZone"),
        **{setting.option: setting.read(instance) for setting in SETTINGS},
        "admin_secret_arn": (instance.get("MasterUserSecret") or {}).get("SecretArn"),
        "replica_of": instance.get("ReadReplicaSourceDBInstanceIdentifier"),
        "replicas": sorted(instance.get("ReadReplicaDBInstanceIdentifiers") or []),
        "reboot_due": waits_for_reboot(instance),
        "pending": {key: value for key, value in (instance.get("PendingModifiedValues") or {}).items() if key != "MasterUserPassword"},
        "tags": tags_of(instance),
    }


def public_snapshot(snapshot: Described) -> dict[str, t.Any]:
    """A snapshot as the modules return it."""
    created = snapshot.get("SnapshotCreateTime")
    return {
        "identifier": snapshot["DBSnapshotIdentifier"],
        "instance": snapshot["DBInstanceIdentifier"],
        "kind": snapshot.get("SnapshotType"),
        "status": snapshot.get("Status"),
        "created_at": None if created is None else created.isoformat(),
        "size_gib": snapshot.get("AllocatedStorage"),
        "encrypted": snapshot.get("Encrypted"),
        "arn": snapshot.get("DBSnapshotArn"),
    }
