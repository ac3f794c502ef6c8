# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plans by themselves: what stands and what is wanted, and what comes of it."""

from __future__ import annotations

import datetime
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import PgHaError, PlanError, WaitTimeout
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import Clock
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import (
    change_plan,
    failover_plan,
    instance_plan,
    instance_refusals_plan,
    replica_plan,
    storage_plan,
    waits,
)
from ansible_collections.freight.pg_ha.plugins.module_utils._rds.model import CERTIFICATE, FULL, OUTAGE, PASSWORD, STUCK, Offer
from stand_in_aws import catalogue

from .conftest import REGION

Options = dict[str, t.Any]
STANDS: Options = {
    "DBInstanceIdentifier": "freight",
    "DBInstanceStatus": "available",
    "DBInstanceClass": "db.m7g.large",
    "EngineVersion": "17.6",
    "AllocatedStorage": 100,
    "MaxAllocatedStorage": 500,
    "StorageType": "gp3",
    "Iops": 3000,
    "StorageThroughput": 125,
    "MultiAZ": True,
    "BackupRetentionPeriod": 7,
    "CACertificateIdentifier": "rds-ca-rsa2048-g1",
    "DBParameterGroups": [{"DBParameterGroupName": "freight-17", "ParameterApplyStatus": "in-sync"}],
    "DBSubnetGroup": {"DBSubnetGroupName": "two"},
    "MasterUserSecret": {"SecretArn": "arn:aws:secretsmanager:x", "SecretStatus": "active"},
}
WAITS_FOR_REBOOT = {"DBParameterGroups": [{"DBParameterGroupName": "freight-17", "ParameterApplyStatus": "pending-reboot"}]}
OFFER = Offer(
    catalogue.engine_versions(),
    catalogue.orderable(REGION, "17.6", "db.m7g.large"),
    [f"{REGION}a", f"{REGION}b"],
    {"freight-16": "postgres16", "freight-17": "postgres17", "freight-18": "postgres18"},
)
LARGE = {"AllocatedStorage": 1000, "MaxAllocatedStorage": None, "Iops": 12000, "StorageThroughput": 500}


def stands(pending: Options | None = None, **more: t.Any) -> Options:
    return {**STANDS, **({"PendingModifiedValues": pending} if pending else {}), **more}


def words(wanted: Options, current: Options, apply: str = "window") -> list[str]:
    return [change.words for change in change_plan.changes(wanted, current, apply)]


# --- what differs ------------------------------------------------------------------------------------------------------------------

CLASS_WAITS = {"DBInstanceClass": "db.r7g.large"}
VERSION_BACK = "engine_version: 18.1, which waits for the window, is taken back, 17.6 stays"
CLASS_BACK = "instance_class: db.r7g.large, which waits for the window, is taken back, db.m7g.large stays"


@pytest.mark.parametrize(
    ("wanted", "current", "apply", "expected"),
    [
        ({"instance_class": "db.r7g.large"}, stands(), "window", ["instance_class: db.m7g.large -> db.r7g.large"]),
        ({"instance_class": "db.r7g.large"}, stands(CLASS_WAITS), "window", []),
        ({"instance_class": "db.r7g.large"}, stands(CLASS_WAITS), "now", ["instance_class: db.m7g.large -> db.r7g.large"]),
        ({"instance_class": "db.m7g.large"}, stands(CLASS_WAITS), "window", [CLASS_BACK]),
        ({"instance_class": "db.m7g.large"}, stands(CLASS_WAITS), "now", [CLASS_BACK]),
        # ApplyImmediately is for all that is pending.
        (
            {"backup_retention_days": 14}, stands(CLASS_WAITS), "now",
            ["backup_retention_days: 7 -> 14", "instance_class: db.m7g.large -> db.r7g.large"],
        ),
        ({"backup_retention_days": 14}, stands(CLASS_WAITS), "window", ["backup_retention_days: 7 -> 14"]),
        ({"backup_retention_days": 7}, stands(CLASS_WAITS), "now", []),
        ({"engine_version": "17"}, stands(), "now", []),
        ({"engine_version": "17.5"}, stands(), "now", []),
        ({"engine_version": "17"}, stands({"EngineVersion": "17.7"}), "window", []),
        ({"engine_version": "17.5"}, stands({"EngineVersion": "17.7"}), "now", []),
        ({"engine_version": "17.7"}, stands({"EngineVersion": "17.7"}), "now", ["engine_version: 17.6 -> 17.7"]),
        ({"engine_version": "17"}, stands({"EngineVersion": "18.1"}), "window", [VERSION_BACK]),
        ({"engine_version": "17.5"}, stands({"EngineVersion": "18.1"}), "now", [VERSION_BACK]),
        ({"allocated_storage_gib": 105}, stands(), "now", ["allocated_storage_gib: 100 -> 110"]),
        ({"allocated_storage_gib": 105}, stands({"AllocatedStorage": 110}), "window", []),
        ({"allocated_storage_gib": 105}, stands(AllocatedStorage=110, MaxAllocatedStorage=None), "window", []),
        ({"allocated_storage_gib": 100}, stands(AllocatedStorage=300), "window", []),
        ({"allocated_storage_gib": 100}, stands(AllocatedStorage=300, MaxAllocatedStorage=None), "window", ["allocated_storage_gib: 300 -> 100"]),
        ({"admin_secret": True}, stands(MasterUserSecret=None), "window", ["admin_secret: False -> True"]),
        ({"admin_secret": True}, stands(), "window", []),
        ({"admin_secret": False}, stands(), "window", []),
        ({"admin_secret": False}, stands(MasterUserSecret=None), "window", []),
        ({"admin_secret": True}, stands(MasterUserSecret=None, ReadReplicaDBInstanceIdentifiers=["reports"]), "window", []),
        ({"admin_secret": True}, stands(MasterUserSecret=None, ReadReplicaSourceDBInstanceIdentifier="other"), "window", []),
    ],
)  # fmt: skip
def test_what_differs(wanted: Options, current: Options, apply: str, expected: list[str]) -> None:
    assert words(wanted, current, apply) == expected


@pytest.mark.parametrize(
    ("wanted", "has", "limit", "size"),
    [
        (100, 100, None, 100), (101, 100, None, 110), (110, 100, None, 110), (111, 100, None, 111), (102, 101, None, 112),
        (99, 100, None, 100), (95, 100, None, 100), (91, 100, None, 100), (90, 100, None, 90), (50, 100, None, 50), (50, 100, 500, 100), (50, 600, 500, 50),
    ],
)  # fmt: skip
def test_storage_grows_by_a_tenth_and_what_has_grown_stays(wanted: int, has: int, limit: int | None, size: int) -> None:
    assert storage_plan.size_for(wanted, has, limit) == size
    assert storage_plan.size_for(wanted, size, limit) == size


@pytest.mark.parametrize(
    ("wanted", "apply", "alone"),
    [
        ({"allocated_storage_gib": 200}, "now", True),
        ({"allocated_storage_gib": 600, "max_allocated_storage_gib": 900}, "now", True),
        ({"allocated_storage_gib": 200}, "window", False),
        ({"allocated_storage_gib": 200, "instance_class": "db.r7g.large"}, "now", False),
        ({"max_allocated_storage_gib": 900}, "now", False),
        ({"allocated_storage_gib": 100}, "now", False),
    ],
)
def test_full_storage_is_enlarged_alone_and_now(wanted: Options, apply: str, alone: bool) -> None:
    assert change_plan.only_grows(change_plan.changes(wanted, stands(), apply), apply) is alone


UPGRADE = {"engine_version": "18", "parameter_group": "freight-18", "reboot_when_due": True}


@pytest.mark.parametrize(
    ("wanted", "current", "apply", "due"),
    [
        ({"reboot_when_due": True}, stands(), "window", False),
        ({"reboot_when_due": True}, stands(**WAITS_FOR_REBOOT), "window", True),
        ({"reboot_when_due": False}, stands(**WAITS_FOR_REBOOT), "window", False),
        ({"reboot_when_due": True, "parameter_group": "freight-17b"}, stands(), "window", True),
        # The upgrade restarts it in the window.
        (UPGRADE, stands(), "window", False),
        (UPGRADE, stands({"EngineVersion": "18.1"}, **WAITS_FOR_REBOOT), "window", False),
        (UPGRADE, stands(), "now", True),
        ({"engine_version": "17", "reboot_when_due": True}, stands({"EngineVersion": "18.1"}, **WAITS_FOR_REBOOT), "window", True),
    ],
)
def test_when_it_is_rebooted(wanted: Options, current: Options, apply: str, due: bool) -> None:
    assert change_plan.is_reboot_due(wanted, current, change_plan.changes(wanted, current, apply), apply) is due


ROTATES = Offer([{"EngineVersion": "17.6", "SupportsCertificateRotationWithoutRestart": True}])
RESTARTS = Offer([{"EngineVersion": "17.6", "SupportsCertificateRotationWithoutRestart": False}, {"EngineVersion": "17.7"}])


@pytest.mark.parametrize(
    ("wanted", "current", "offer", "expected"),
    [
        ({"instance_class": "db.r7g.large"}, stands(), OFFER, [OUTAGE]),
        ({"instance_class": "db.m7g.large"}, stands(CLASS_WAITS), OFFER, [""]),
        ({"backup_retention_days": 14}, stands(), OFFER, [""]),
        ({"backup_retention_days": 0}, stands(), OFFER, ["the disk may stand still for seconds to minutes"]),
        ({"ca_identifier": "rds-ca-rsa4096-g1"}, stands(), ROTATES, [""]),
        ({"ca_identifier": "rds-ca-rsa4096-g1"}, stands(), RESTARTS, [CERTIFICATE]),
        ({"ca_identifier": "rds-ca-rsa4096-g1"}, stands(), Offer(), [CERTIFICATE]),
        ({"admin_secret": True}, stands(MasterUserSecret=None), OFFER, [PASSWORD]),
    ],
)
def test_what_clients_notice(wanted: Options, current: Options, offer: Offer, expected: list[str]) -> None:
    assert [change_plan.interruption(change, current, offer) for change in change_plan.changes(wanted, current, "window")] == expected


@pytest.mark.parametrize(
    ("wanted", "current", "sent"),
    [
        ({"allocated_storage_gib": 300}, stands(), {"AllocatedStorage": 300}),
        ({"allocated_storage_gib": 600, "max_allocated_storage_gib": 900}, stands(), {"AllocatedStorage": 600, "MaxAllocatedStorage": 900, "Iops": 3000}),
        ({"allocated_storage_gib": 2000}, stands(**LARGE), {"AllocatedStorage": 2000, "Iops": 12000}),
        ({"iops": 20000}, stands(**LARGE), {"AllocatedStorage": 1000, "Iops": 20000}),
        ({"storage_type": "io1", "iops": 12000}, stands(**LARGE), {"StorageType": "io1", "AllocatedStorage": 1000, "Iops": 12000}),
        ({"storage_type": "gp2"}, stands(**LARGE), {"StorageType": "gp2"}),
        ({"admin_secret": True, "admin_secret_kms_key_id": "key"}, stands(MasterUserSecret=None),
         {"ManageMasterUserPassword": True, "MasterUserSecretKmsKeyId": "key"}),
        ({"engine_version": "17"}, stands({"EngineVersion": "18.1"}), {"EngineVersion": "17.6"}),
    ],
)  # fmt: skip
def test_what_is_sent(wanted: Options, current: Options, sent: Options) -> None:
    plan = instance_plan.plan_modify(wanted, current, change_plan.changes(wanted, current, "now"), "now", OFFER)
    assert plan.modify == {"DBInstanceIdentifier": "freight", "ApplyImmediately": True, **sent}
    assert plan.after is not None and plan.after["iops"] == sent.get("Iops", current["Iops"])


# --- what is refused ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "current", "sentences"),
    [
        ({"allocated_storage_gib": 70000, "max_allocated_storage_gib": 71000}, stands(), [
            "allocated_storage_gib 70000 is not within 20 and 65536", "max_allocated_storage_gib 71000 is not within 20 and 65536"]),
        ({"max_allocated_storage_gib": 90}, stands(), ["max_allocated_storage_gib is not above allocated_storage_gib: give 110 at least."]),
        ({"allocated_storage_gib": 600}, stands(), ["max_allocated_storage_gib is not above allocated_storage_gib: give 660 at least."]),
        ({"storage_type": "io1"}, stands(**LARGE), ["storage of type io1 needs iops"]),
        ({"storage_type": "io1", "iops": 12000}, stands(**LARGE), []),
        ({"storage_type": "io9"}, stands(), ["db.m7g.large has no storage of type io9: choose one of: gp2, gp3, io1, io2."]),
        ({"iops": 4000}, stands(), ["gp3 storage below 400 GiB has 3000 IOPS and 125 MiB/s"]),
        ({"iops": 100}, stands(**LARGE), ["iops 100 is not within 3000 and 64000"]),
        ({"parameter_group": "freight-16"}, stands(), ["parameter group freight-16 is of family postgres16, and PostgreSQL 17.6 needs postgres17"]),
        ({"parameter_group": "nobody"}, stands(), ["there is no parameter group nobody"]),
        ({"parameter_group": "default.postgres17"}, stands(), []),
        ({"parameter_group": "freight-18"}, stands({"EngineVersion": "18.1"}), []),
        ({"engine_version": "18", "allow_major_upgrade": True}, stands(), ["parameter group freight-17 is of family postgres17"]),
        ({"engine_version": "18", "allow_major_upgrade": True, "parameter_group": "FREIGHT-18"}, stands(), []),
        ({"engine_version": "17"}, stands({"EngineVersion": "18.1"}, DBParameterGroups=[{"DBParameterGroupName": "freight-17"}]), []),
        ({"storage_encrypted": False}, stands(StorageEncrypted=True), ["storage_encrypted: True -> False is not possible"]),
        # Storage that has grown up to its limit stands, and is no obstacle for what has nothing to do with it.
        ({"allocated_storage_gib": 100, "max_allocated_storage_gib": 500, "iops": 20000}, stands(**{**LARGE, "MaxAllocatedStorage": 1000}), [
            "max_allocated_storage_gib is not above allocated_storage_gib"]),
        ({"backup_retention_days": 14}, stands(AllocatedStorage=500), []),
        ({"instance_class": "db.m7g.large", "iops": 20000}, stands(**{**LARGE, "MaxAllocatedStorage": 1000}), []),
        (
            {"storage_type": "io1", "allocated_storage_gib": 70000, "parameter_group": "freight-16"}, stands(MaxAllocatedStorage=None),
            ["allocated_storage_gib 70000 is not within", "storage of type io1 needs iops", "parameter group freight-16 is of family"],
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_all_at_once(wanted: Options, current: Options, sentences: list[str]) -> None:
    wanted = {**wanted, "allow_interruption": True}
    found = instance_refusals_plan.refuse_modify(wanted, current, change_plan.changes(wanted, current, "window"), OFFER, "window")
    assert len(found) == len(sentences), found
    for problem, sentence in zip(found, sentences, strict=True):
        assert sentence in problem.sentence


@pytest.mark.parametrize(
    ("wanted", "current", "apply", "sentences"),
    [
        ({"instance_class": "db.m7g.large"}, stands(CLASS_WAITS), "window", []),
        ({"backup_retention_days": 14}, stands(CLASS_WAITS), "window", []),
        ({"backup_retention_days": 14}, stands(CLASS_WAITS), "now", ["instance_class: db.m7g.large -> db.r7g.large interrupts clients now"]),
        ({"ca_identifier": "rds-ca-rsa4096-g1"}, stands(EngineVersion="17.1"), "window", ["interrupts clients when its window comes: PostgreSQL restarts for"]),
        ({"admin_secret": True}, stands(MasterUserSecret=None), "window", ["admin_secret: False -> True interrupts clients now: the administrator's password"]),
        ({"reboot_when_due": True}, stands(**WAITS_FOR_REBOOT), "window", ["parameters wait for a reboot, which interrupts clients now"]),
    ],
)
def test_what_interrupts_clients_needs_consent(wanted: Options, current: Options, apply: str, sentences: list[str]) -> None:
    changes = change_plan.changes(wanted, current, apply)
    found = instance_refusals_plan.refuse_modify(wanted, current, changes, OFFER, apply)
    assert [problem.kind for problem in found] == ["consent"] * len(sentences), found
    for problem, sentence in zip(found, sentences, strict=True):
        assert sentence in problem.sentence
    assert instance_refusals_plan.refuse_modify({**wanted, "allow_interruption": True}, current, changes, OFFER, apply) == []


# --- replicas ----------------------------------------------------------------------------------------------------------------------

REPLICA = {"DBInstanceIdentifier": "reports", "ReadReplicaSourceDBInstanceIdentifier": "freight", "DBInstanceStatus": "available"}
SOURCE = stands(MasterUserSecret=None)
ELSEWHERE = "arn:aws:rds:us-east-1:123456789012:db:freight"
PARAMS: Options = {
    "identifier": "reports", "state": "present", "source": "freight", "instance_class": None, "zone": None, "multi_az": False, "parameter_group": None,
    "kms_key_id": None, "backup_retention_days": None, "tags": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("params", "current", "source", "operation", "says"),
    [
        ({}, None, SOURCE, "CreateDBInstanceReadReplica", "make reports"),
        ({}, REPLICA, None, None, ""),
        ({"state": "promoted"}, REPLICA, None, "PromoteReadReplica", "promote reports"),
        ({"state": "promoted"}, SOURCE, None, None, ""),
        ({"state": "absent"}, REPLICA, None, "DeleteDBInstance", "delete replica reports"),
        ({"state": "absent"}, {**REPLICA, "DBInstanceStatus": "deleting"}, None, None, "delete replica reports"),
        ({"state": "absent"}, None, None, None, ""),
        ({"source": f"arn:aws:rds:{REGION}:123456789012:db:freight"}, None, SOURCE, "CreateDBInstanceReadReplica", "make reports"),
        ({"source": ELSEWHERE}, None, None, "CreateDBInstanceReadReplica", "make reports"),
    ],
)
def test_what_a_replica_needs(params: Options, current: Options | None, source: Options | None, operation: str | None, says: str) -> None:
    step = replica_plan.plan_replica({**PARAMS, **params}, current, source, REGION)
    assert step.operation == operation and step.words.startswith(says) and bool(step.words) is bool(says)
    assert (step.request == {}) is (operation is None)


def test_a_source_in_another_region_is_asked_for_there() -> None:
    request = replica_plan.plan_replica({**PARAMS, "source": ELSEWHERE, "kms_key_id": "key"}, None, None, REGION).request
    assert request["SourceRegion"] == "us-east-1" and request["KmsKeyId"] == "key"
    assert not {"SourceRegion", "KmsKeyId"} & set(replica_plan.plan_replica(PARAMS, None, SOURCE, REGION).request)
    with pytest.raises(PgHaError, match="kms_key_id is given for reports, which has the key of freight because that is in the same region: omit it."):
        replica_plan.plan_replica({**PARAMS, "kms_key_id": "key"}, None, SOURCE, REGION)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (None, "There is no instance freight for reports to follow"),
        (stands(MasterUserSecret=None, BackupRetentionPeriod=0), "Instance freight keeps no backups"),
        (stands(), "Instance freight has its administrator's password in Secrets Manager, and the service makes no read replicas of those that do"),
    ],
)
def test_a_source_that_cannot_be_followed_is_refused(source: Options | None, sentence: str) -> None:
    with pytest.raises(PgHaError) as error:
        replica_plan.plan_replica(PARAMS, None, source, REGION)
    assert sentence in error.value.message and "\n" not in error.value.message


# --- failover ----------------------------------------------------------------------------------------------------------------------

AT = datetime.datetime(2026, 11, 1, 12, tzinfo=datetime.UTC)


def events(*messages: str) -> list[Options]:
    return [{"Date": AT + datetime.timedelta(seconds=number), "Message": message} for number, message in enumerate(messages)]


BEGAN, ENDED = "Multi-AZ instance failover started.", "Multi-AZ instance failover completed"


@pytest.mark.parametrize(
    ("zone", "status", "messages", "state"),
    [
        ("a", "rebooting", [], "the service has said nothing of it yet"),
        ("a", "rebooting", ["Backing up"], "the service has said nothing of it yet"),
        ("a", "rebooting", [BEGAN], "the service has said that it began"),
        ("b", "available", [BEGAN], "the service has said that it began"),
        ("a", "available", [BEGAN, ENDED], "it is over, and the primary is in a still"),
        ("b", "rebooting", [BEGAN, ENDED], "it is over, and the instance is rebooting"),
        ("b", "available", [BEGAN, ENDED], failover_plan.OVER),
        ("b", "available", [ENDED], failover_plan.OVER),
    ],
)
def test_what_a_failover_waits_for(zone: str, status: str, messages: list[str], state: str) -> None:
    failover = failover_plan.read_failover(events(*messages), AT - datetime.timedelta(seconds=1))
    assert failover_plan.state({"AvailabilityZone": zone, "DBInstanceStatus": status}, "a", failover) == state


def test_only_what_came_later_is_this_failovers() -> None:
    told = events(BEGAN, ENDED, BEGAN)
    assert failover_plan.latest([]) < AT and failover_plan.latest(told) == AT + datetime.timedelta(seconds=2)
    failover = failover_plan.read_failover(told, told[1]["Date"])
    assert failover.started == told[2]["Date"] and failover.completed is None and failover.public()["service_seconds"] is None
    assert failover_plan.read_failover(told, AT - datetime.timedelta(seconds=1)).public()["service_seconds"] == 1.0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"MultiAZ": False}, "freight is not Multi-AZ, so there is nothing"),
        ({"DBInstanceStatus": "modifying"}, "freight is modifying: wait until it is available"),
    ],
)
def test_what_cannot_fail_over(changes: Options, sentence: str) -> None:
    failover_plan.refuse(stands())
    with pytest.raises(PlanError, match=sentence):
        failover_plan.refuse(stands(**changes))


# --- waits -------------------------------------------------------------------------------------------------------------------------


class Seen:
    """A service that shows an instance in one state after the other, and stays in the last."""

    def __init__(self, *states: str | Options | None) -> None:
        self.states = [{"DBInstanceStatus": state} if isinstance(state, str) else state for state in states]
        self.slept = 0.0

    def read_instance(self, _identifier: str) -> Options | None:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return None if state is None else {"DBInstanceIdentifier": "freight", **state}

    def read_snapshot(self, identifier: str) -> Options | None:
        return self.read_instance(identifier)

    @property
    def clock(self) -> Clock:
        def sleep(seconds: float) -> None:
            self.slept += seconds

        return Clock(monotonic=lambda: self.slept, sleep=sleep)


MODIFYING = {"DBInstanceStatus": "available", "PendingModifiedValues": {"AllocatedStorage": 200}}
AT_ONCE = {"ApplyImmediately": True, "AllocatedStorage": 200}
HAS_SECRET = {"DBInstanceStatus": "available", "MasterUserSecret": {"SecretStatus": "active"}}
MAKES_SECRET = {"DBInstanceStatus": "available", "MasterUserSecret": {"SecretStatus": "creating"}}


@pytest.mark.parametrize(
    ("states", "more", "looks"),
    [
        (["available"], {}, 1),
        (["creating", "backing-up", "available"], {}, 3),
        ([None, "creating", "storage-optimization"], {}, 3),
        ([MODIFYING, "modifying", "available"], {"asked": AT_ONCE}, 3),
        ([MODIFYING], {"asked": {**AT_ONCE, "ApplyImmediately": False}}, 1),
        ([FULL, "modifying", "available"], {"ends": FULL}, 3),
        (["available", MAKES_SECRET, HAS_SECRET], {"asked": {"ManageMasterUserPassword": True}}, 3),
        ([{**REPLICA}, "modifying", "available"], {"also": waits.promotion}, 3),
    ],
)
def test_it_waits_until_it_is_settled(states: list[t.Any], more: Options, looks: int) -> None:
    seen = Seen(*states)
    waits.until_settled(seen, "freight", 60, seen.clock, **more)
    assert seen.slept == (looks - 1) * waits.DELAY_SECONDS


@pytest.mark.parametrize("state", ["deleting", *STUCK])
def test_what_waiting_does_not_end_is_refused_also_in_check_mode(state: str) -> None:
    for check_mode in (True, False):
        seen = Seen(state)
        with pytest.raises(PlanError) as error:
            waits.settle(seen, {"DBInstanceIdentifier": "freight", "DBInstanceStatus": state}, check_mode, 60, seen.clock)
        assert error.value.message.startswith("Instance freight is ") and "run the same again" in error.value.message and seen.slept == 0
    seen = Seen("modifying", state)
    with pytest.raises(PlanError):
        waits.until_settled(seen, "freight", 60, seen.clock)


def test_waits_have_a_bound() -> None:
    for wait in (waits.until_settled, waits.until_gone, waits.until_snapshot):
        seen = Seen("modifying")
        with pytest.raises(WaitTimeout):
            wait(seen, "freight", 60, seen.clock)
        assert 55 <= seen.slept <= 60


def test_it_waits_until_it_is_gone() -> None:
    seen = Seen("deleting", "deleting", None)
    waits.until_gone(seen, "freight", 60, seen.clock)
    assert seen.slept == 2 * waits.DELAY_SECONDS


def test_a_snapshot_that_failed_is_said() -> None:
    seen = Seen({"Status": "creating"}, {"Status": "failed"})
    with pytest.raises(PlanError, match="Snapshot before has failed"):
        waits.until_snapshot(seen, "before", 60, seen.clock)
    seen = Seen({"Status": "creating"}, {"Status": "available", "PercentProgress": 100})
    assert waits.until_snapshot(seen, "before", 60, seen.clock)["Status"] == "available"
