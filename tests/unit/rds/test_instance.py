# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module rds_instance against the stand-in."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import PgHaError, UsageError, WaitTimeout
from moto.rds.models import rds_backends
from stand_in_aws import rds as stand_in

from .conftest import REGION, Service

Options = dict[str, t.Any]


def refused(aws: Service, options: Options, **changes: t.Any) -> str:
    """The message with which it is refused, in check mode and in earnest, and nothing was asked of the service."""
    messages = []
    for check_mode in (True, False):
        aws.requests.clear()
        with pytest.raises(PgHaError) as error:
            aws.run("rds_instance", check_mode, **{**options, **changes})
        assert aws.requests == []
        messages.append(error.value.message)
    assert messages[0] == messages[1]
    return messages[0]


def test_it_is_made_once_and_is_as_wanted(aws: Service, options: Options) -> None:
    predicted = aws.run("rds_instance", check_mode=True, **options)
    assert predicted.changed and predicted.result["instance"] is None and aws.requests == []
    made = aws.run("rds_instance", **options)
    assert made.changed and aws.requests == ["CreateDBInstance"]
    assert (made.before, made.after, made.result["actions"]) == (predicted.before, predicted.after, predicted.result["actions"])
    assert made.result["actions"] == ["create freight: PostgreSQL 17.7 on db.m7g.large"]
    instance = made.result["instance"]
    for name, value in options.items():
        assert instance[name] == ({"engine_version": "17.7", "log_exports": ["postgresql", "upgrade"]}.get(name, value)), name
    assert instance["multi_az"] and instance["storage_encrypted"] and instance["publicly_accessible"] is False
    assert instance["status"] == "available" and instance["endpoint"]["port"] == 5432
    assert {instance["zone"], instance["standby_zone"]} == {f"{REGION}a", f"{REGION}b"}
    again = aws.run("rds_instance", **options)
    assert not again.changed and again.result["actions"] == [] and again.before == again.after and aws.requests == ["CreateDBInstance"]


def test_the_password_is_the_services_own_and_in_no_result(aws: Service, options: Options) -> None:
    made = aws.run("rds_instance", **options)
    secret = json.loads(aws.client("secretsmanager").get_secret_value(SecretId=made.result["instance"]["admin_secret_arn"])["SecretString"])
    assert secret["username"] == options["admin_user"] and len(secret["password"]) >= 20 and secret["password"] not in repr(made)


@pytest.mark.parametrize(
    ("changes", "action", "pending"),
    [
        ({"instance_class": "db.r7g.large", "allow_interruption": True}, "instance_class: db.m7g.large -> db.r7g.large", {"DBInstanceClass": "db.r7g.large"}),
        ({"allocated_storage_gib": 200}, "allocated_storage_gib: 100 -> 200", {"AllocatedStorage": 200}),
        ({"multi_az": False}, "multi_az: True -> False", {"MultiAZ": False}),
        ({"engine_version": "18.1", "allow_interruption": True, "allow_major_upgrade": True}, "engine_version: 17.7 -> 18.1", {"EngineVersion": "18.1"}),
        ({"iam_authentication": False}, "iam_authentication: True -> False", {"IAMDatabaseAuthenticationEnabled": False}),
        ({"backup_retention_days": 0, "allow_interruption": True}, "backup_retention_days: 7 -> 0", {"BackupRetentionPeriod": 0}),
    ],
)
def test_what_can_wait_waits_for_the_window_and_is_not_asked_for_again(aws: Service, options: Options, changes: Options, action: str, pending: Options) -> None:
    aws.run("rds_instance", **options)
    wanted = {**options, **changes}
    predicted = aws.run("rds_instance", check_mode=True, **wanted)
    changed = aws.run("rds_instance", **wanted)
    assert changed.result["actions"] == predicted.result["actions"] == [action]
    assert (changed.before, changed.after) == (predicted.before, predicted.after)
    assert changed.result["instance"]["pending"] == pending
    again = aws.run("rds_instance", **wanted)
    assert not again.changed and again.result["instance"]["pending"] == pending
    now = aws.run("rds_instance", **{**wanted, "apply": "now"})
    (name, value), *_more = changes.items()
    assert now.changed and now.result["instance"]["pending"] == {} and now.result["instance"][name] == value
    assert not aws.run("rds_instance", **{**wanted, "apply": "now"}).changed


def test_what_waits_can_be_taken_back(aws: Service, options: Options) -> None:
    aws.run("rds_instance", **options)
    aws.run("rds_instance", **{**options, "allocated_storage_gib": 200})
    back = aws.run("rds_instance", **options)
    assert back.changed and back.result["instance"]["pending"] == {} and not aws.run("rds_instance", **options).changed


def test_what_is_taken_back_interrupts_nobody(aws: Service, options: Options) -> None:
    """Also where it would have, and also at once."""
    for apply in ("window", "now"):
        aws.run("rds_instance", **{**options, "deletion_protection": True})
        aws.run("rds_instance", **{**options, "instance_class": "db.r7g.large", "allow_interruption": True})
        wanted = {**options, "apply": apply}
        predicted = aws.run("rds_instance", check_mode=True, **wanted)
        back = aws.run("rds_instance", **wanted)
        assert back.result["actions"] == predicted.result["actions"] == [
            "instance_class: db.r7g.large, which waits for the window, is taken back, db.m7g.large stays"
        ]  # fmt: skip
        assert back.result["interruptions"] == [] and back.result["instance"]["pending"] == {} and back.before == back.after
        assert back.result["instance"]["instance_class"] == "db.m7g.large" and not aws.run("rds_instance", **wanted).changed


def test_what_waits_is_not_made_at_once_by_another_change_without_consent(aws: Service, options: Options) -> None:
    """The service makes all that is pending with the next change that is asked for at once."""
    aws.run("rds_instance", **options)
    aws.run("rds_instance", **{**options, "instance_class": "db.r7g.large", "allow_interruption": True})
    wanted = {**options, "instance_class": None, "deletion_protection": False, "apply": "now"}
    assert "instance_class: db.m7g.large -> db.r7g.large interrupts clients now" in refused(aws, wanted)
    changed = aws.run("rds_instance", **wanted, allow_interruption=True)
    assert changed.result["instance"]["instance_class"] == changed.after["instance_class"] == "db.r7g.large" and len(changed.result["interruptions"]) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"allocated_storage_gib": 105},
        {"allocated_storage_gib": 600, "max_allocated_storage_gib": 900},
        {"instance_class": "db.r7g.large", "deletion_protection": False, "backup_retention_days": 14, "log_exports": ["postgresql"]},
        {"engine_version": "18", "allow_major_upgrade": True, "tags": {"owner": "dba", "number": 1}},
        {"storage_type": "io1", "iops": 3000},
        {"multi_az": False, "iam_authentication": False, "ca_identifier": "rds-ca-rsa4096-g1", "parameter_group": "freight-17"},
    ],
)
def test_what_is_predicted_is_what_the_service_has_afterwards(aws: Service, options: Options, changes: Options) -> None:
    """Held against what it answers, not against the plan."""
    aws.run("rds_parameter_group", name="freight-17", family="postgres17")
    aws.run("rds_instance", **options)
    wanted = {**options, **changes, "apply": "now", "allow_interruption": True}
    predicted = aws.run("rds_instance", check_mode=True, **wanted)
    has = aws.run("rds_instance_info", identifier="freight").result["instance"]
    assert {name: has[name] for name in predicted.before} == predicted.before
    aws.run("rds_instance", **wanted)
    has = aws.run("rds_instance_info", identifier="freight").result["instance"]
    assert {name: has[name] for name in predicted.after} == predicted.after != predicted.before
    assert not aws.run("rds_instance", **wanted).changed


def test_what_is_predicted_of_a_new_instance_is_what_the_service_has(aws: Service, options: Options) -> None:
    predicted = aws.run("rds_instance", check_mode=True, **options).after
    aws.run("rds_instance", **options)
    has = aws.run("rds_instance_info", identifier="freight").result["instance"]
    assert {name: has[name] for name in predicted} == {**predicted, "log_exports": sorted(predicted["log_exports"])}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backup_retention_days", 14), ("backup_window", "01:00-01:30"), ("maintenance_window", "mon:05:00-mon:06:00"), ("copy_tags_to_snapshot", False),
        ("deletion_protection", False), ("performance_insights", False), ("log_exports", ["postgresql"]), ("log_exports", []), ("publicly_accessible", True),
        ("max_allocated_storage_gib", 900), ("auto_minor_version_upgrade", False),
    ],
)  # fmt: skip
def test_what_need_not_wait_is_so_at_once(aws: Service, options: Options, name: str, value: t.Any) -> None:
    aws.run("rds_instance", **options)
    changed = aws.run("rds_instance", **{**options, name: value, "apply": "now"})
    assert changed.changed and changed.result["interruptions"] == [] and changed.result["instance"][name] == value
    assert not aws.run("rds_instance", **{**options, name: value}).changed


@pytest.mark.parametrize(("size", "sent"), [(300, {"AllocatedStorage": 300}), (600, {"AllocatedStorage": 600, "Iops": 3000})])
def test_storage_grows_with_its_operations_named_where_the_service_wants_them(aws: Service, options: Options, size: int, sent: Options) -> None:
    aws.run("rds_instance", **{**options, "max_allocated_storage_gib": 1000})
    grown = aws.run("rds_instance", **{**options, "allocated_storage_gib": size, "max_allocated_storage_gib": 1000, "apply": "now"})
    assert grown.result["instance"]["allocated_storage_gib"] == size and aws.sent["ModifyDBInstance"].items() >= sent.items()
    assert ("Iops" in aws.sent["ModifyDBInstance"]) == ("Iops" in sent)


def test_tags_are_all_that_there_shall_be(aws: Service, options: Options) -> None:
    aws.run("rds_instance", **options)
    changed = aws.run("rds_instance", **{**options, "tags": {"owner": "dba", "number": 1}})
    assert changed.result["instance"]["tags"] == changed.after["tags"] == {"owner": "dba", "number": "1"}
    assert changed.result["actions"] == ["tag owner: nothing -> dba", "tag number: nothing -> 1", "tag service: freight -> nothing"]
    assert not aws.run("rds_instance", **{**options, "tags": None}).changed


def test_what_the_service_did_by_itself_is_not_taken_back(aws: Service, options: Options) -> None:
    """A newer minor version, and storage that has grown."""
    aws.run("rds_instance", **{**options, "engine_version": "17.5"})
    aws.client("rds").modify_db_instance(DBInstanceIdentifier="freight", AllocatedStorage=300, EngineVersion="17.7", ApplyImmediately=True)
    assert not aws.run("rds_instance", **{**options, "engine_version": "17.5"}).changed


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"engine_version": "15.4"}, "the service does not offer PostgreSQL 15.4 here: choose one of: 15.14,"),
        ({"instance_class": "db.r6g.medium"}, "the service does not offer db.r6g.medium for this version in this region"),
        ({"instance_class": "db.x2g.large"}, "db.x2g.large cannot be Multi-AZ in this region"),
        ({"subnet_group": "one"}, f"subnet group one has subnets in {REGION}a only, and Multi-AZ needs two zones"),
        ({"subnet_group": "none"}, "subnet group none has subnets in no zone only"),
        ({"allocated_storage_gib": 5}, "allocated_storage_gib 5 is not within 20 and 65536"),
        ({"iops": 100, "allocated_storage_gib": 400}, "iops 100 is not within 3000 and 64000"),
        ({"iops": 3000}, "gp3 storage below 400 GiB has 3000 IOPS and 125 MiB/s, and the service takes no numbers for it: omit iops"),
        ({"storage_type": "io1"}, "storage of type io1 needs iops"),
        ({"max_allocated_storage_gib": 100}, "max_allocated_storage_gib is not above allocated_storage_gib"),
        ({"monitoring_interval_seconds": 60}, "monitoring_interval_seconds needs a role"),
        ({"kms_key_id": "alias/freight"}, "kms_key_id is an alias"),
        ({"identifier": "1freight"}, "'1freight' is no name for an instance"),
        ({"identifier": "frei--ght"}, "'frei--ght' is no name for an instance"),
        ({"identifier": "freight-"}, "'freight-' is no name for an instance"),
        ({"parameter_group": "freight-17"}, "there is no parameter group freight-17: make it first, with rds_parameter_group"),
        ({"admin_user": None, "instance_class": None}, "admin_user is not given, and freight does not exist yet"),
    ],
)
def test_what_cannot_be_made_is_refused_before_anything_is_asked_for(aws: Service, options: Options, changes: Options, sentence: str) -> None:
    assert sentence in refused(aws, options, **changes)
    assert aws.client("rds").describe_db_instances()["DBInstances"] == []


def test_all_of_it_is_said_together(aws: Service, options: Options) -> None:
    message = refused(aws, options, instance_class="db.x2g.large", subnet_group="one", allocated_storage_gib=5, monitoring_interval_seconds=1, identifier="-")
    assert message.startswith("5 problems of instance -; nothing was changed.\n- '-' is no name")


def test_a_parameter_group_of_another_family_is_refused(aws: Service, options: Options) -> None:
    aws.client("rds").create_db_parameter_group(DBParameterGroupName="freight-16", DBParameterGroupFamily="postgres16", Description="x")
    assert "parameter group freight-16 is of family postgres16, and PostgreSQL 17.7 needs postgres17" in refused(aws, options, parameter_group="freight-16")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"instance_class": "db.r7g.large"},
            "instance_class: db.m7g.large -> db.r7g.large interrupts clients when its window comes: PostgreSQL is not available",
        ),
        ({"instance_class": "db.r7g.large", "apply": "now"}, "interrupts clients now"),
        ({"port": 5433}, "port: 5432 -> 5433 interrupts clients now: PostgreSQL restarts at once"),
        ({"backup_retention_days": 0}, "the disk may stand still for seconds to minutes"),
        ({"allocated_storage_gib": 50, "max_allocated_storage_gib": None}, "storage cannot shrink from 100 to 50 GiB"),
        ({"engine_version": "16"}, "PostgreSQL cannot go back from 17.7 to 16.11"),
        ({"engine_version": "18", "allow_interruption": True}, "from 17.7 to 18.1 is a major upgrade, which cannot be undone: give allow_major_upgrade: true"),
        ({"engine_version": "19"}, "the service does not offer PostgreSQL 19 here"),
        ({"storage_encrypted": False}, "storage_encrypted: True -> False is not possible, the service keeps it for an instance's life"),
        ({"database": "other"}, "database: freight -> other is not possible"),
        ({"admin_user": "root"}, "admin_user: administrator -> root is not possible"),
        ({"instance_class": "db.x2g.large", "allow_interruption": True}, "db.x2g.large cannot be Multi-AZ in this region"),
        ({"allocated_storage_gib": 70000, "max_allocated_storage_gib": 71000}, "allocated_storage_gib 70000 is not within 20 and 65536"),
        ({"max_allocated_storage_gib": 50}, "max_allocated_storage_gib is not above allocated_storage_gib: give 110 at least"),
        ({"storage_type": "io1"}, "storage of type io1 needs iops"),
        ({"parameter_group": "freight-16"}, "parameter group freight-16 is of family postgres16, and PostgreSQL 17.7 needs postgres17"),
        ({"subnet_group": "one", "allow_interruption": True}, f"subnet group one has subnets in {REGION}a only"),
        ({"monitoring_interval_seconds": 30}, "monitoring_interval_seconds needs a role"),
        ({"state": "absent"}, "freight is protected from deletion: set deletion_protection: false"),
    ],
)
def test_what_cannot_be_changed_is_refused_before_anything_is_asked_for(aws: Service, options: Options, changes: Options, sentence: str) -> None:
    # Storage that may grow is not a limit that is taken back.
    aws.run("rds_parameter_group", name="freight-16", family="postgres16")
    aws.run("rds_instance", **{**options, **({"max_allocated_storage_gib": None} if "max_allocated_storage_gib" in changes else {})})
    assert sentence in refused(aws, options, **changes)


def test_all_that_keeps_it_from_being_changed_is_said_together(aws: Service, options: Options) -> None:
    aws.run("rds_parameter_group", name="freight-16", family="postgres16")
    aws.run("rds_instance", **options)
    message = refused(aws, options, storage_type="io1", allocated_storage_gib=70000, parameter_group="freight-16", port=5433)
    assert message.startswith("5 problems of instance freight; nothing was changed.")


def test_an_instance_goes_with_a_snapshot_or_a_word(aws: Service, options: Options) -> None:
    aws.run("rds_instance", **{**options, "deletion_protection": False})
    assert "freight would be deleted with all its data and no snapshot is named" in refused(aws, {"identifier": "freight", "state": "absent"})
    assert aws.run("rds_instance", check_mode=True, identifier="freight", state="absent", final_snapshot="freight-final").changed
    gone = aws.run("rds_instance", identifier="freight", state="absent", final_snapshot="freight-final")
    assert gone.result["actions"] == ["delete freight, with the final snapshot freight-final"] and gone.result["instance"] is None
    assert not aws.run("rds_instance", identifier="freight", state="absent", final_snapshot="freight-final").changed
    assert [one["identifier"] for one in aws.run("rds_snapshot_info", instance="freight").result["snapshots"] if one["kind"] == "manual"] == ["freight-final"]


def test_an_instance_with_replicas_stays(aws: Service, options: Options) -> None:
    aws.make_with_password({**options, "deletion_protection": False})
    aws.run("rds_read_replica", identifier="reports", source="freight")
    assert "freight has the read replicas reports: promote or delete them first" in refused(
        aws, {"identifier": "freight", "state": "absent", "skip_final_snapshot": True}
    )


def test_it_waits_while_the_service_works(aws: Service, options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after a request the instance is still available, or there without an address: neither is the end."""
    monkeypatch.setattr(stand_in, "delay_seconds", 40.0)
    seen: list[str] = []
    real = stand_in.settle

    def look(backend: t.Any) -> None:
        real(backend)
        seen.extend(instance.status for instance in backend.databases.values())

    monkeypatch.setattr(stand_in, "settle", look)
    assert aws.run("rds_instance", **options).result["instance"]["endpoint"]
    changed = aws.run("rds_instance", **{**options, "instance_class": "db.r7g.large", "apply": "now", "allow_interruption": True})
    assert changed.result["instance"]["instance_class"] == "db.r7g.large" and changed.result["instance"]["status"] == "available"
    assert seen.index("creating") < seen.index("available") < seen.index("modifying") and aws.slept >= 80


def test_a_wait_has_a_bound_and_a_state_that_never_ends_is_said(aws: Service, options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_in, "delay_seconds", 3600.0)
    with pytest.raises(WaitTimeout, match=r"Instance freight in a state to be used did not come within 60 s; last seen: 'creating'"):
        aws.run("rds_instance", **{**options, "wait_timeout_seconds": 60})
    monkeypatch.setattr(stand_in, "delay_seconds", 0.0)
    put_in_state("incompatible-network")
    assert "freight is incompatible-network, which no waiting ends: see that its subnets have free addresses" in refused(aws, options)


def put_in_state(status: str) -> None:
    """What only the service does."""
    instance = rds_backends["123456789012"][REGION].databases["freight"]
    instance.to_come, instance.status = [], status


def test_an_instance_that_is_being_deleted_is_refused_at_once(aws: Service, options: Options) -> None:
    aws.run("rds_instance", **options)
    put_in_state("deleting")
    sentence = "Instance freight is being deleted, which cannot be taken back: wait until it is gone, and run the same again."
    assert refused(aws, options) == refused(aws, options, instance_class="db.r7g.large") == sentence and aws.slept == 0


def test_full_storage_can_be_enlarged_and_nothing_else_be_changed(aws: Service, options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.run("rds_instance", **options)
    monkeypatch.setattr(stand_in, "delay_seconds", 40.0)
    put_in_state("storage-full")
    for changes in ({}, {"allocated_storage_gib": 200}, {"allocated_storage_gib": 200, "apply": "now", "backup_retention_days": 3}):
        assert "freight is storage-full, which no waiting ends: enlarge its storage with rds_instance" in refused(aws, options, **changes)
    wanted = {**options, "allocated_storage_gib": 200, "apply": "now"}
    assert "is not within 20 and 65536" in refused(aws, {**wanted, "allocated_storage_gib": 70000, "max_allocated_storage_gib": 71000})
    predicted = aws.run("rds_instance", check_mode=True, **wanted)
    grown = aws.run("rds_instance", **wanted)
    assert grown.result["actions"] == predicted.result["actions"] == ["allocated_storage_gib: 100 -> 200"] and aws.requests == ["ModifyDBInstance"]
    assert (grown.result["instance"]["status"], grown.result["instance"]["allocated_storage_gib"]) == ("available", 200)
    assert not aws.run("rds_instance", **wanted).changed


def test_storage_that_was_rounded_up_is_as_wanted(aws: Service, options: Options) -> None:
    """Also where the service did it, and nothing lets the storage grow by itself."""
    wanted = {**options, "max_allocated_storage_gib": None}
    aws.run("rds_instance", **wanted)
    aws.client("rds").modify_db_instance(DBInstanceIdentifier="freight", AllocatedStorage=105, ApplyImmediately=True)
    again = aws.run("rds_instance", **{**wanted, "allocated_storage_gib": 105})
    assert not again.changed and again.result["instance"]["allocated_storage_gib"] == 110


def test_an_upgrade_in_the_window_reboots_nothing_before(aws: Service, options: Options) -> None:
    aws.run("rds_parameter_group", name="freight-17", family="postgres17")
    aws.run("rds_parameter_group", name="freight-18", family="postgres18")
    aws.run("rds_instance", **options, parameter_group="freight-17")
    consents = {"allow_major_upgrade": True, "allow_interruption": True, "reboot_when_due": True}
    wanted = {**options, "parameter_group": "freight-18", "engine_version": "18", **consents}
    aws.requests.clear()
    changed = aws.run("rds_instance", **wanted)
    assert aws.requests == ["ModifyDBInstance"] and changed.result["instance"]["pending"] == {"EngineVersion": "18.1"}
    assert changed.result["instance"]["engine_version"] == "17.7"
    assert not aws.run("rds_instance", **wanted).changed and aws.requests == ["ModifyDBInstance"]


def test_an_instance_with_a_password_of_somebody_is_given_one_of_the_service(aws: Service, options: Options) -> None:
    aws.make_with_password(options)
    assert aws.run("rds_instance_info", identifier="freight").result["instance"]["admin_secret_arn"] is None
    assert "admin_secret: False -> True interrupts clients now: the administrator's password becomes another" in refused(aws, options)
    assert not aws.run("rds_instance", **{**options, "admin_secret": False}).changed
    predicted = aws.run("rds_instance", check_mode=True, **options, allow_interruption=True)
    changed = aws.run("rds_instance", **options, allow_interruption=True)
    assert changed.result["actions"] == predicted.result["actions"] == ["admin_secret: False -> True"] and changed.after == predicted.after
    assert changed.result["instance"]["admin_secret"] and aws.sent["ModifyDBInstance"]["ManageMasterUserPassword"] is True
    secret = aws.client("secretsmanager").get_secret_value(SecretId=changed.result["instance"]["admin_secret_arn"])["SecretString"]
    assert json.loads(secret)["username"] == options["admin_user"] and json.loads(secret)["password"] not in repr(changed)
    assert not aws.run("rds_instance", **options).changed


def test_the_password_of_replicas_and_their_source_is_left_alone(aws: Service, options: Options) -> None:
    aws.make_with_password(options)
    aws.run("rds_read_replica", identifier="reports", source="freight")
    assert not aws.run("rds_instance", **options).changed
    assert not aws.run("rds_instance", identifier="reports", multi_az=False).changed


def test_a_new_instance_has_no_password_of_ours(aws: Service, options: Options) -> None:
    assert "admin_secret is false, and the administrator of a new instance has no password" in refused(aws, options, admin_secret=False)


def test_another_engine_under_the_name_is_refused(aws: Service, options: Options) -> None:
    aws.run("rds_instance", **options)
    rds_backends["123456789012"][REGION].databases["freight"].engine = "mysql"
    with pytest.raises(UsageError, match="freight runs mysql, not PostgreSQL"):
        aws.run("rds_instance", **options)


def test_info_reads_what_the_module_keeps(aws: Service, options: Options) -> None:
    assert aws.run("rds_instance_info", identifier="freight").result == {"instance": None, "events": []}
    made = aws.run("rds_instance", **options)
    read = aws.run("rds_instance_info", identifier="freight")
    assert not read.changed and read.result["instance"] == made.result["instance"]
    assert [event["message"] for event in read.result["events"]][-1] == "DB instance created"


def test_parameters_that_wait_are_put_in_force_by_consent(aws: Service, options: Options) -> None:
    group = {"name": "freight-17", "family": "postgres17", "parameters": {"max_wal_senders": 20}}
    aws.run("rds_parameter_group", **group)
    wanted = {**options, "parameter_group": "freight-17", "reboot_when_due": True}
    assert aws.run("rds_instance", **wanted).result["instance"]["reboot_due"] is False
    aws.run("rds_parameter_group", **{**group, "parameters": {"max_wal_senders": 30}})
    assert "parameters wait for a reboot, which interrupts clients now" in refused(aws, wanted)
    predicted = aws.run("rds_instance", check_mode=True, **wanted, allow_interruption=True)
    changed = aws.run("rds_instance", **wanted, allow_interruption=True)
    assert changed.result["actions"] == predicted.result["actions"] == ["reboot, because parameters wait for it"]
    assert changed.result["instance"]["reboot_due"] is False and aws.requests == ["RebootDBInstance"]
    assert not aws.run("rds_instance", **wanted).changed
