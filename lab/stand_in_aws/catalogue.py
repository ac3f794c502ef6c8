"""What the stand-in offers: versions, classes and parameters. Data, in the service's own shapes; a real account is asked by the modules in the same way.

Parameters are those of a PostgreSQL 17 server (pg_settings), with the unit before the description as RDS has it, and the few that RDS adds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

VERSIONS = ("15.14", "15.15", "16.10", "16.11", "17.5", "17.6", "17.7", "18.1")
# Of Amazon's default for PostgreSQL when only a major version, or none, is named in a request.
DEFAULT_VERSION = "17.6"
# Memory in GiB, and whether the class can be Multi-AZ here. The service's own answer differs by region; one class that cannot is enough to be refused.
CLASSES = {
    "db.t3.micro": (1, True), "db.t4g.medium": (4, True), "db.m6g.large": (8, True), "db.m7g.large": (8, True), "db.m7g.xlarge": (16, True),
    "db.r6g.large": (16, True), "db.r7g.large": (16, True), "db.r7g.xlarge": (32, True), "db.x2g.large": (32, False),
}  # fmt: skip
ZONES = ("a", "b", "c")
# gp3 storage below this has one performance, which no request names and every description shows.
GP3_FIXED_GIB, GP3_IOPS, GP3_THROUGHPUT = 400, 3000, 125
STORAGE = {
    "gp2": {"MinStorageSize": 20, "MaxStorageSize": 65536},
    "gp3": {
        "MinStorageSize": 20, "MaxStorageSize": 65536, "MinIopsPerDbInstance": 3000, "MaxIopsPerDbInstance": 64000,
        "MinStorageThroughputPerDbInstance": 125, "MaxStorageThroughputPerDbInstance": 4000,
    },
    "io1": {"MinStorageSize": 100, "MaxStorageSize": 65536, "MinIopsPerDbInstance": 1000, "MaxIopsPerDbInstance": 256000},
    "io2": {"MinStorageSize": 100, "MaxStorageSize": 65536, "MinIopsPerDbInstance": 1000, "MaxIopsPerDbInstance": 256000},
}  # fmt: skip


def major(version: str) -> int:
    """Major version."""
    return int(version.split(".")[0])


def _key(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def engine_versions() -> list[dict[str, Any]]:
    """As DescribeDBEngineVersions answers."""
    return [
        {
            "Engine": "postgres",
            "EngineVersion": version,
            "MajorEngineVersion": str(major(version)),
            "DBParameterGroupFamily": f"postgres{major(version)}",
            "DBEngineDescription": "PostgreSQL",
            "DBEngineVersionDescription": f"PostgreSQL {version}-R1",
            "ValidUpgradeTarget": [
                {"Engine": "postgres", "EngineVersion": other, "Description": f"PostgreSQL {other}-R1", "AutoUpgrade": False,
                 "IsMajorVersionUpgrade": major(other) != major(version)}
                for other in VERSIONS if _key(other) > _key(version)
            ],
            "ExportableLogTypes": ["iam-db-auth-error", "postgresql", "upgrade"],
            "SupportsLogExportsToCloudwatchLogs": True,
            "SupportsReadReplica": True,
            "SupportsCertificateRotationWithoutRestart": True,
            "SupportedCACertificateIdentifiers": ["rds-ca-rsa2048-g1", "rds-ca-rsa4096-g1", "rds-ca-ecc384-g1"],
            "Status": "available",
        }
        for version in VERSIONS
    ]  # fmt: skip


def orderable(region: str, version: str, name: str | None) -> list[dict[str, Any]]:
    """As DescribeOrderableDBInstanceOptions answers."""
    return [
        {
            "Engine": "postgres", "EngineVersion": version, "DBInstanceClass": one, "LicenseModel": "postgresql-license", "Vpc": True,
            "AvailabilityZones": [{"Name": f"{region}{zone}"} for zone in ZONES], "MultiAZCapable": multi, "ReadReplicaCapable": True,
            "SupportsStorageEncryption": True, "StorageType": kind, "SupportsIops": "MinIopsPerDbInstance" in bounds,
            "SupportsStorageThroughput": "MinStorageThroughputPerDbInstance" in bounds, "SupportsEnhancedMonitoring": True,
            "SupportsIAMDatabaseAuthentication": True, "SupportsPerformanceInsights": True, "SupportsStorageAutoscaling": True, **bounds,
        }
        for one, (_memory, multi) in CLASSES.items() if name in (None, one) and version in VERSIONS
        for kind, bounds in STORAGE.items()
    ]  # fmt: skip


def parameters() -> dict[str, dict[str, Any]]:
    """As DescribeEngineDefaultParameters answers, by name."""
    lines = (Path(__file__).parent / "parameters.jsonl").read_text(encoding="utf-8").splitlines()
    found = [{"Source": "engine-default", **json.loads(line)} for line in lines]
    return {one["ParameterName"]: one for one in found}
