# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in's own contract: what it says is of the service's shapes, and it refuses what the service refuses and moto takes."""

from __future__ import annotations

import typing as t

import botocore.exceptions
import botocore.session
import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import model
from moto.rds.models import rds_backends
from stand_in_aws import catalogue
from stand_in_aws import rds as stand_in

from .conftest import REGION, Service

SERVICE = botocore.session.get_session().get_service_model("rds")
# Every operation may answer with them: "Common Error Types" of the API's reference, and those of the query protocol.
COMMON = {"InvalidParameterValue", "InvalidParameterCombination", "MissingParameter"}
Request = dict[str, t.Any]


def members(shape: str) -> set[str]:
    return set(SERVICE.shape_for(shape).members)


def taken_by(operation: str) -> set[str]:
    return set(SERVICE.operation_model(operation).input_shape.members)


def codes_of(operation: str) -> set[str]:
    return {shape.metadata.get("error", {}).get("code", shape.name) for shape in SERVICE.operation_model(operation).error_shapes} | COMMON


def test_the_modules_settings_are_the_services() -> None:
    changeable = [setting for setting in model.SETTINGS if setting.modified is not None]
    assert {setting.parameter for setting in model.SETTINGS} <= taken_by("CreateDBInstance")
    assert {setting.modified or setting.parameter for setting in changeable} <= taken_by("ModifyDBInstance")
    shown = {setting.shown or setting.parameter for setting in model.SETTINGS if setting.option not in model._READ}
    assert shown <= members("DBInstance")


@pytest.mark.parametrize(
    ("shape", "answers"),
    [
        ("DBEngineVersion", catalogue.engine_versions()),
        ("UpgradeTarget", catalogue.engine_versions()[0]["ValidUpgradeTarget"]),
        ("OrderableDBInstanceOption", catalogue.orderable(REGION, "17.6", None)),
        ("Parameter", list(catalogue.parameters().values())),
    ],
)
def test_what_it_offers_is_of_the_services_shapes(shape: str, answers: list[Request]) -> None:
    assert answers and set().union(*answers) <= members(shape)


def test_what_is_pending_is_of_the_services_shape() -> None:
    assert {shown for shown, _attribute in stand_in.PENDABLE.values()} <= members("PendingModifiedValues")
    assert set(stand_in.PENDABLE) <= taken_by("ModifyDBInstance") and set(stand_in._KEPT) <= taken_by("ModifyDBInstance")


@pytest.fixture
def made(aws: Service, options: Request) -> t.Any:
    """boto3's client, with the instance freight and the parameter groups freight-16 and freight-17."""
    aws.make_with_password(options)
    aws.run("rds_instance", **{**options, "identifier": "with-secret"})
    client = aws.client("rds")
    for major in (16, 17):
        client.create_db_parameter_group(DBParameterGroupName=f"freight-{major}", DBParameterGroupFamily=f"postgres{major}", Description="x")
    return client


NEW = {"DBInstanceIdentifier": "new", "Engine": "postgres", "DBInstanceClass": "db.m7g.large", "AllocatedStorage": 100, "MasterUsername": "a"}
SECRET = {"ManageMasterUserPassword": True}
FREIGHT = {"DBInstanceIdentifier": "freight"}


@pytest.mark.parametrize(
    ("operation", "method", "request_", "code"),
    [
        ("CreateDBInstance", "create_db_instance", {**NEW, **SECRET, "EngineVersion": "99.9"}, "InvalidParameterValue"),
        ("CreateDBInstance", "create_db_instance", {**NEW, **SECRET, "DBInstanceClass": "db.nope.huge"}, "InvalidParameterValue"),
        ("CreateDBInstance", "create_db_instance", {**NEW, **SECRET, "DBInstanceClass": "db.x2g.large", "MultiAZ": True}, "InvalidParameterCombination"),
        ("CreateDBInstance", "create_db_instance", {**NEW, "MasterUserPassword": "short"}, "InvalidParameterValue"),
        ("CreateDBInstance", "create_db_instance", {**NEW, **SECRET, "MultiAZ": True, "DBSubnetGroupName": "one"}, "DBSubnetGroupDoesNotCoverEnoughAZs"),
        ("CreateDBInstance", "create_db_instance", {**NEW, **SECRET, "DBParameterGroupName": "freight-16"}, "InvalidParameterCombination"),
        ("CreateDBInstance", "create_db_instance", {**NEW, **SECRET, "AllocatedStorage": 1}, "InvalidParameterValue"),
        ("ModifyDBInstance", "modify_db_instance", {**FREIGHT, "AllocatedStorage": 50}, "InvalidParameterCombination"),
        ("ModifyDBInstance", "modify_db_instance", {**FREIGHT, "EngineVersion": "16.11"}, "InvalidParameterCombination"),
        ("ModifyDBInstance", "modify_db_instance", {**FREIGHT, "EngineVersion": "18.1"}, "InvalidParameterCombination"),
        ("ModifyDBInstance", "modify_db_instance", {**FREIGHT, "MonitoringInterval": 30}, "InvalidParameterCombination"),
        ("ModifyDBInstance", "modify_db_instance", {**FREIGHT, "DBInstanceClass": "db.nope.huge"}, "InvalidParameterValue"),
        ("DeleteDBInstance", "delete_db_instance", {**FREIGHT, "SkipFinalSnapshot": True}, "InvalidParameterCombination"),
        (
            "CreateDBInstanceReadReplica", "create_db_instance_read_replica",
            {"DBInstanceIdentifier": "new", "SourceDBInstanceIdentifier": "with-secret"}, "InvalidParameterValue",
        ),
        ("PromoteReadReplica", "promote_read_replica", FREIGHT, "InvalidDBInstanceState"),
        ("DescribeDBParameterGroups", "describe_db_parameter_groups", {"DBParameterGroupName": "none"}, "DBParameterGroupNotFound"),
        (
            "CreateDBParameterGroup", "create_db_parameter_group",
            {"DBParameterGroupName": "x", "DBParameterGroupFamily": "postgres4", "Description": "x"}, "InvalidParameterValue",
        ),
        *(
            ("ModifyDBParameterGroup", "modify_db_parameter_group", {"DBParameterGroupName": "freight-17", "Parameters": [parameter]}, code)
            for parameter, code in (
                ({"ParameterName": "no_such", "ParameterValue": "1", "ApplyMethod": "immediate"}, "InvalidParameterValue"),
                ({"ParameterName": "work_mem", "ParameterValue": "1", "ApplyMethod": "immediate"}, "InvalidParameterValue"),
                ({"ParameterName": "fsync", "ParameterValue": "0", "ApplyMethod": "immediate"}, "InvalidParameterValue"),
                ({"ParameterName": "max_connections", "ParameterValue": "100", "ApplyMethod": "immediate"}, "InvalidParameterCombination"),
            )
        ),
    ],
)  # fmt: skip
def test_it_refuses_what_the_service_refuses_with_its_own_code(made: t.Any, operation: str, method: str, request_: Request, code: str) -> None:
    with pytest.raises(botocore.exceptions.ClientError) as error:
        getattr(made, method)(**request_)
    assert error.value.response["Error"]["Code"] == code and code in codes_of(operation)


def test_a_single_zone_cannot_fail_over_and_a_busy_instance_takes_no_change(made: t.Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made.modify_db_instance(**FREIGHT, MultiAZ=False, ApplyImmediately=True)
    with pytest.raises(botocore.exceptions.ClientError, match="InvalidParameterCombination"):
        made.reboot_db_instance(**FREIGHT, ForceFailover=True)
    monkeypatch.setattr(stand_in, "delay_seconds", 60.0)
    made.reboot_db_instance(**FREIGHT)
    with pytest.raises(botocore.exceptions.ClientError, match="InvalidDBInstanceState"):
        made.modify_db_instance(**FREIGHT, BackupRetentionPeriod=3)


def test_storage_grows_by_a_tenth_at_least_and_alone_where_it_is_full(made: t.Any) -> None:
    def has() -> int:
        return int(made.describe_db_instances(**FREIGHT)["DBInstances"][0]["AllocatedStorage"])

    for asked, becomes in ((105, 110), (200, 200), (200, 200)):
        made.modify_db_instance(**FREIGHT, AllocatedStorage=asked, ApplyImmediately=True)
        assert has() == becomes
    rds_backends["123456789012"][REGION].databases["freight"].status = "storage-full"
    for request in ({"BackupRetentionPeriod": 3}, {"AllocatedStorage": 200}, {"AllocatedStorage": 300, "BackupRetentionPeriod": 3}):
        with pytest.raises(botocore.exceptions.ClientError, match="InvalidDBInstanceState"):
            made.modify_db_instance(**FREIGHT, **request)
    made.modify_db_instance(**FREIGHT, AllocatedStorage=300, ApplyImmediately=True)
    assert has() == 300


def test_a_parameter_group_in_use_stays(made: t.Any) -> None:
    made.modify_db_instance(**FREIGHT, DBParameterGroupName="freight-17")
    with pytest.raises(botocore.exceptions.ClientError, match="InvalidDBParameterGroupState"):
        made.delete_db_parameter_group(DBParameterGroupName="freight-17")
    made.delete_db_parameter_group(DBParameterGroupName="freight-16")


def test_a_replica_shares_nothing_with_its_source(made: t.Any) -> None:
    made.create_db_instance_read_replica(DBInstanceIdentifier="reports", SourceDBInstanceIdentifier="freight")
    made.modify_db_instance(DBInstanceIdentifier="reports", DBInstanceClass="db.r7g.large")
    one, two = (made.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"][0] for name in ("freight", "reports"))
    assert "DBInstanceClass" not in (one.get("PendingModifiedValues") or {}) and two["PendingModifiedValues"] == {"DBInstanceClass": "db.r7g.large"}
    assert one["DbiResourceId"] != two["DbiResourceId"] and two["DBInstanceStatus"] == "available"
