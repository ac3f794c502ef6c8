# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules rds_primary, rds_read_replica and rds_snapshot against the stand-in, and what the service's errors become."""

from __future__ import annotations

import typing as t

import botocore.exceptions
import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, PgHaError, PlanError, UsageError, WaitTimeout
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import client as rds
from ansible_collections.freight.pg_ha.plugins.module_utils._rds.client import RdsClient
from moto.rds.models import rds_backends
from stand_in_aws import rds as stand_in

from .conftest import REGION, Service

Options = dict[str, t.Any]
A, B = f"{REGION}a", f"{REGION}b"


@pytest.fixture
def freight(aws: Service, options: Options) -> Options:
    """The instance, made; the requests for it forgotten."""
    made = aws.run("rds_instance", **{**options, "deletion_protection": False}).result["instance"]
    aws.requests.clear()
    return made


@pytest.fixture
def source(aws: Service, options: Options) -> None:
    """The instance with a password that is not in Secrets Manager, so that it may have replicas."""
    aws.make_with_password({**options, "deletion_protection": False})


def refused(aws: Service, name: str, **options: t.Any) -> str:
    """The message with which it is refused, in check mode and in earnest, and nothing was asked of the service."""
    messages = []
    for check_mode in (True, False):
        aws.requests.clear()
        with pytest.raises(PgHaError) as error:
            aws.run(name, check_mode, **options)
        assert aws.requests == []
        messages.append(error.value.message)
    assert messages[0] == messages[1]
    return messages[0]


# --- failover ----------------------------------------------------------------------------------------------------------------------


def test_the_primary_leaves_its_zone_once(aws: Service, freight: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_in, "delay_seconds", 30.0)
    wanted = {"identifier": "freight", "leaves_zone": freight["zone"]}
    predicted = aws.run("rds_primary", check_mode=True, **wanted)
    assert predicted.changed and aws.requests == [] and predicted.result["failover"] is None
    moved = aws.run("rds_primary", **wanted)
    assert (moved.before, moved.after, moved.result["actions"]) == (predicted.before, predicted.after, predicted.result["actions"])
    assert moved.result["actions"] == [f"fail over from {A} to {B}"] and (moved.result["instance"]["zone"], moved.result["instance"]["standby_zone"]) == (B, A)
    failover = moved.result["failover"]
    assert [event["message"] for event in failover["events"]] == ["Multi-AZ instance failover started.", "Multi-AZ instance failover completed"]
    assert failover["service_seconds"] >= 0 and failover["started_at"] < failover["completed_at"]
    again = aws.run("rds_primary", **wanted)
    assert not again.changed and aws.requests == ["RebootDBInstance"] and again.result["failover"] is None
    back = aws.run("rds_primary", identifier="freight", leaves_zone=B)
    assert back.result["instance"]["zone"] == A and len(back.result["failover"]["events"]) == 2


def test_a_failover_that_does_not_end_is_said(aws: Service, freight: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_in, "delay_seconds", 3600.0)
    with pytest.raises(WaitTimeout, match="The end of the failover of freight did not come within 60 s; last seen: 'the service has said that it began'"):
        aws.run("rds_primary", identifier="freight", leaves_zone=A, wait_timeout_seconds=60)


def test_what_cannot_fail_over_is_refused(aws: Service, freight: Options, options: Options) -> None:
    aws.run("rds_instance", **{**options, "multi_az": False, "apply": "now"})
    aws.requests.clear()
    for identifier, sentence in (("freight", "freight is not Multi-AZ, so there is nothing"), ("other", "There is no instance other in region eu-central-1")):
        for check_mode in (True, False):
            with pytest.raises(PlanError, match=sentence):
                aws.run("rds_primary", check_mode, identifier=identifier, leaves_zone=A)
    assert aws.requests == []


# --- read replicas -----------------------------------------------------------------------------------------------------------------


def test_a_replica_is_made_promoted_and_deleted(aws: Service, source: None) -> None:
    wanted = {"identifier": "reports", "source": "freight", "tags": {"for": "reports"}}
    steps: list[tuple[Options, str, str | None, list[str]]] = [
        (wanted, "make reports, a read replica of freight", "freight", ["reports"]),
        ({"identifier": "reports", "state": "promoted", "backup_retention_days": 3}, "promote reports, which follows freight no more", None, []),
    ]
    for options, action, follows, replicas in steps:
        predicted = aws.run("rds_read_replica", check_mode=True, **options)
        done = aws.run("rds_read_replica", **options)
        assert done.result["actions"] == predicted.result["actions"] == [action] and (done.before, done.after) == (predicted.before, predicted.after)
        assert done.result["instance"]["replica_of"] == follows and done.result["instance"]["status"] == "available"
        assert aws.run("rds_instance_info", identifier="freight").result["instance"]["replicas"] == replicas
        assert not aws.run("rds_read_replica", **options).changed
    assert done.result["instance"]["backup_retention_days"] == 3
    assert aws.requests == ["CreateDBInstanceReadReplica", "PromoteReadReplica"]
    aws.run("rds_read_replica", identifier="more", source="freight")
    assert aws.run("rds_read_replica", identifier="more", state="absent").changed
    assert not aws.run("rds_read_replica", identifier="more", state="absent").changed


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"identifier": "reports"}, "source is not given, and replica reports does not exist yet"),
        ({"identifier": "reports", "source": "nobody"}, "There is no instance nobody for reports to follow"),
        ({"identifier": "reports", "state": "promoted"}, "There is no replica reports that could be promoted"),
        ({"identifier": "freight", "source": "freight"}, "Instance freight is no replica, and nothing makes it one again"),
        ({"identifier": "freight", "state": "absent"}, "Instance freight is no replica, so that its data would be lost with it"),
        ({"identifier": "there", "source": "other"}, "Replica there follows freight, not other"),
    ],
)
def test_what_a_replica_cannot_be_is_refused(aws: Service, source: None, wanted: Options, sentence: str) -> None:
    aws.run("rds_read_replica", identifier="there", source="freight")
    aws.requests.clear()
    for check_mode in (True, False):
        with pytest.raises(PgHaError) as error:
            aws.run("rds_read_replica", check_mode, **wanted)
        assert sentence in error.value.message and aws.requests == []


def test_a_source_without_backups_or_with_a_secret_has_no_replicas(aws: Service, options: Options) -> None:
    aws.make_with_password({**options, "backup_retention_days": 0})
    assert "Instance freight keeps no backups" in refused(aws, "rds_read_replica", identifier="reports", source="freight")
    made = aws.run("rds_instance", **{**options, "identifier": "with-secret"}).result["instance"]
    for source in ("with-secret", made["arn"]):
        message = refused(aws, "rds_read_replica", identifier="reports", source=source)
        assert "has its administrator's password in Secrets Manager, and the service makes no read replicas of those that do" in message


def test_a_replica_that_is_being_made_is_waited_for(aws: Service, source: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_in, "delay_seconds", 40.0)
    aws.client("rds").create_db_instance_read_replica(DBInstanceIdentifier="reports", SourceDBInstanceIdentifier="freight")
    wanted = {"identifier": "reports", "source": "freight"}
    assert not aws.run("rds_read_replica", check_mode=True, **wanted).changed and aws.slept == 0
    found = aws.run("rds_read_replica", **wanted)
    assert not found.changed and found.result["instance"]["status"] == "available" and aws.slept >= 40 and aws.requests == []


def test_a_promotion_that_runs_is_not_asked_for_again(aws: Service, source: None, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.run("rds_read_replica", identifier="reports", source="freight")
    aws.requests.clear()
    monkeypatch.setattr(stand_in, "delay_seconds", 40.0)
    aws.client("rds").promote_read_replica(DBInstanceIdentifier="reports")
    promoted = aws.run("rds_read_replica", identifier="reports", state="promoted")
    assert aws.requests == [] and not promoted.changed and promoted.result["instance"]["replica_of"] is None


def test_a_deletion_that_runs_is_not_asked_for_again(aws: Service, source: None, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.run("rds_read_replica", identifier="reports", source="freight")
    aws.requests.clear()
    monkeypatch.setattr(stand_in, "delay_seconds", 40.0)
    aws.client("rds").delete_db_instance(DBInstanceIdentifier="reports", SkipFinalSnapshot=True)
    for state in ("present", "promoted"):
        assert "Instance reports is being deleted, which cannot be taken back" in refused(aws, "rds_read_replica", identifier="reports", state=state)
    predicted = aws.run("rds_read_replica", check_mode=True, identifier="reports", state="absent")
    gone = aws.run("rds_read_replica", identifier="reports", state="absent")
    assert gone.result["actions"] == predicted.result["actions"] == ["delete replica reports"] and gone.result["instance"] is None
    assert aws.requests == [] and aws.slept >= 40 and aws.run("rds_instance_info", identifier="reports").result["instance"] is None


def test_what_no_waiting_ends_is_refused_in_check_mode_too(aws: Service, source: None) -> None:
    aws.run("rds_read_replica", identifier="reports", source="freight")
    for name in ("freight", "reports"):
        rds_backends["123456789012"][REGION].databases[name].status = "incompatible-parameters"
    sentence = "is incompatible-parameters, which no waiting ends: mend its parameter group"
    assert sentence in refused(aws, "rds_read_replica", identifier="reports", state="promoted")
    assert sentence in refused(aws, "rds_read_replica", identifier="reports", source="freight")
    assert sentence in refused(aws, "rds_snapshot", identifier="before", instance="freight")


# --- snapshots ---------------------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_made_once_and_deleted(aws: Service, freight: Options) -> None:
    wanted = {"identifier": "before", "instance": "freight"}
    predicted = aws.run("rds_snapshot", check_mode=True, **wanted)
    made = aws.run("rds_snapshot", **wanted)
    assert made.result["actions"] == predicted.result["actions"] == ["make snapshot before of freight"] and predicted.result["snapshot"] is None
    snapshot = made.result["snapshot"]
    assert (snapshot["instance"], snapshot["status"], snapshot["kind"], snapshot["size_gib"]) == ("freight", "available", "manual", 100)
    assert not aws.run("rds_snapshot", **wanted).changed
    found = aws.run("rds_snapshot_info", instance="freight").result["snapshots"]
    assert snapshot in found
    assert aws.run("rds_snapshot", check_mode=True, identifier="before", state="absent").changed
    assert aws.run("rds_snapshot", identifier="before", state="absent").changed and not aws.run("rds_snapshot", identifier="before", state="absent").changed


def test_what_a_snapshot_cannot_be_is_refused(aws: Service, freight: Options) -> None:
    aws.run("rds_snapshot", identifier="before", instance="freight")
    cases = [
        ({"identifier": "new"}, "instance is not given, and snapshot new does not exist yet"),
        ({"identifier": "new", "instance": "nobody"}, "There is no instance nobody in region"),
        ({"identifier": "before", "instance": "other"}, "Snapshot before is of instance freight, not of other"),
    ]
    for wanted, sentence in cases:
        for check_mode in (True, False):
            with pytest.raises(PgHaError) as error:
                aws.run("rds_snapshot", check_mode, **wanted)
            assert sentence in error.value.message


# --- errors ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("AccessDenied", ClientError, "AWS does not permit ModifyDBInstance (action rds:ModifyDBInstance) to these credentials"),
        ("ExpiredToken", ClientError, "The credentials for AWS have expired"),
        ("InvalidClientTokenId", ClientError, "AWS does not know these credentials"),
        ("Throttling", ClientError, "AWS goes on throttling ModifyDBInstance: wait some minutes"),
        ("InvalidDBInstanceState", PlanError, "ModifyDBInstance is refused in the state that it is in"),
        ("InsufficientDBInstanceCapacity", ClientError, "AWS refuses ModifyDBInstance: something (InsufficientDBInstanceCapacity)."),
    ],
)
def test_an_error_of_the_service_is_one_sentence(code: str, kind: type[PgHaError], words: str) -> None:
    with pytest.raises(kind) as error, rds.translated("ModifyDBInstance", REGION):
        raise botocore.exceptions.ClientError({"Error": {"Code": code, "Message": "something"}}, "ModifyDBInstance")
    assert words in error.value.message and "\n" not in error.value.message


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (botocore.exceptions.NoCredentialsError(), UsageError, "There are no credentials for AWS: set AWS_ACCESS_KEY_ID"),
        (
            botocore.exceptions.EndpointConnectionError(endpoint_url="https://rds.example"),
            ClientError,
            "No answer to DescribeDBInstances in region eu-central-1",
        ),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="https://rds.example"), ClientError, "No answer to DescribeDBInstances"),
        (botocore.exceptions.ParamValidationError(report="x is wrong"), UsageError, "was not sent, because a value is none that it takes"),
        (botocore.exceptions.SSOTokenLoadError(error_msg="x"), ClientError, "run aws sso login"),
    ],
)
def test_what_never_reached_the_service_is_one_sentence(raised: Exception, kind: type[PgHaError], words: str) -> None:
    with pytest.raises(kind) as error, rds.translated("DescribeDBInstances", REGION):
        raise raised
    assert words in error.value.message and "\n" not in error.value.message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"region": "eu-nowhere-9"}, "region 'eu-nowhere-9' is none of AWS's that have RDS"),
        ({"region": None}, "No region of AWS is given: set region, or AWS_REGION."),
        ({"profile": "nobody"}, "profile nobody is not in AWS's configuration"),
    ],
)
def test_a_wrong_region_or_profile_is_said_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch, options: Options, words: str) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(UsageError) as error:
        RdsClient.open({"profile": None, "region": REGION, "endpoint_url": "http://127.0.0.1:1", "ca_bundle": None, **options}, True)
    assert words in error.value.message


def test_the_region_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert RdsClient.open({"profile": None, "region": None, "endpoint_url": "http://127.0.0.1:1", "ca_bundle": None}, True).region == "eu-west-1"


@pytest.mark.parametrize(("times", "requests"), [(3, 4), (rds.ATTEMPTS - 1, rds.ATTEMPTS), (100, rds.ATTEMPTS)])
def test_throttling_is_tried_again_so_many_times(aws: Service, monkeypatch: pytest.MonkeyPatch, times: int, requests: int) -> None:
    """By boto3's own retries."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_arguments: 0)
    monkeypatch.setattr("botocore.retries.quota.RetryQuota.acquire", lambda *_arguments: True)
    seen = {"requests": 0}
    real = stand_in.settle

    def throttle(backend: t.Any) -> None:
        seen["requests"] += 1
        if seen["requests"] <= times:
            stand_in.refuse(("Throttling", "Rate exceeded"))
        real(backend)

    monkeypatch.setattr(stand_in, "settle", throttle)
    if times < rds.ATTEMPTS:
        assert aws.open(read_only=True).read_snapshots("freight") == []
    else:
        with pytest.raises(ClientError, match="AWS goes on throttling DescribeDBSnapshots: wait some minutes and run the same again"):
            aws.open(read_only=True).read_snapshots("freight")
    assert seen["requests"] == requests


def test_check_mode_has_a_second_fence(aws: Service) -> None:
    with pytest.raises(AssertionError, match="DeleteDBInstance in check mode"):
        aws.open(read_only=True).write("DeleteDBInstance", "delete_db_instance", {"DBInstanceIdentifier": "freight"})
