# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role target_rds against the stand-in: everything that it makes, by its own modules and by amazon.aws."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import typing as t

import boto3
import pytest
import yaml

from tests.evidence import problems

ROOT = pathlib.Path(__file__).resolve().parents[2]
REGION = "eu-central-1"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s3cr3t-of-the-account", "AWS_EC2_METADATA_DISABLED": "true"}
PLAY = [{"hosts": "pg_ha_rds", "gather_facts": False, "roles": ["freight.pg_ha.target_rds"]}]


class Account:
    """An account with a network of three subnets, and the role's inventory for it."""

    def __init__(self, folder: pathlib.Path, url: str) -> None:
        self.folder, self.url = folder, url
        ec2 = self.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"{REGION}{zone}")["Subnet"]["SubnetId"]
            for number, zone in enumerate("abb")
        ]
        self.clients = ec2.create_security_group(GroupName="clients", Description="clients", VpcId=vpc)["GroupId"]
        self.client("route53").create_hosted_zone(Name="freight.internal", CallerReference="1", HostedZoneConfig={"PrivateZone": False})
        self.options: dict[str, t.Any] = {
            "pg_ha_migration": "freight_move",
            "pg_ha_database": "freight",
            "pg_ha_target_admin_user": "ha_admin",
            "pg_ha_artifacts_dir": str(folder / "artifacts"),
            "pg_ha_pki_dir": str(folder),
            "target_rds_region": REGION,
            "target_rds_endpoint_url": url,
            "target_rds_vpc_id": vpc,
            "target_rds_subnet_ids": self.subnets[:2],
            "target_rds_client_security_group_ids": [self.clients],
            "target_rds_dns_zone": "freight.internal",
            "target_rds_dns_name": "database.freight.internal",
            "target_rds_dns_private": False,
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
        }

    def client(self, name: str) -> t.Any:
        """boto3's own client."""
        return boto3.client(name, region_name=REGION, endpoint_url=self.url, aws_access_key_id="x", aws_secret_access_key="x")

    def play(self, *arguments: str, playbook: pathlib.Path | None = None, **changes: t.Any) -> tuple[int, int, str]:
        """Run the role, or another playbook; exit code, number of changed tasks, output."""
        inventory = {"all": {"children": {"pg_ha_rds": {"hosts": {"freight-rds": {**self.options, **changes}}}}}}
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")
        (self.folder / "play.yml").write_text(yaml.safe_dump(PLAY), encoding="utf-8")
        command = [sys.executable, "-m", "ansible", "playbook", str(playbook or self.folder / "play.yml"), "-i", str(self.folder / "hosts.yml"), *arguments]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **KEYS}, capture_output=True, text=True, check=False)
        changed = re.search(r"changed=(\d+)", done.stdout)
        assert KEYS["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
        return done.returncode, int(changed[1]) if changed else -1, done.stdout + done.stderr

    def instances(self) -> list[dict[str, t.Any]]:
        """What there is."""
        return list(self.client("rds").describe_db_instances()["DBInstances"])


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Account]:
    """An account with nothing of ours in it."""
    serve = [sys.executable, str(ROOT / "lab" / "stand_in_aws" / "serve.py"), "0"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            url = next((line.strip() for line in server.stdout if line.startswith("http")), "")
            assert url, "the stand-in does not say where it is"
            yield Account(tmp_path_factory.mktemp("rds"), url)
        finally:
            server.terminate()


def test_1_check_mode_lists_what_would_be_made_and_makes_nothing(account: Account) -> None:
    code, changed, output = account.play("--check", "--diff")
    assert code == 0 and changed >= 5, output
    assert "instance_class" in output and account.instances() == [] and not (account.folder / "artifacts").exists()


def test_2_what_cannot_be_highly_available_is_refused_before_anything_is_made(account: Account) -> None:
    for changes, sentence in (
        ({"target_rds_subnet_ids": account.subnets[1:]}, f"the subnets are in {REGION}b only, and Multi-AZ needs two zones"),
        ({"target_rds_client_security_group_ids": []}, "neither the mover nor the application could connect"),
    ):
        code, changed, output = account.play(**changes)
        assert code == 2 and changed <= 0 and sentence in " ".join(output.split()), output
    assert account.instances() == [] and account.client("rds").describe_db_subnet_groups()["DBSubnetGroups"] == []


def test_3_it_makes_all_of_it(account: Account) -> None:
    code, changed, output = account.play()
    assert code == 0 and changed >= 6, output
    (instance,) = account.instances()
    assert (instance["DBInstanceIdentifier"], instance["MultiAZ"], instance["StorageEncrypted"]) == ("freight-move", True, True)
    assert not instance["PubliclyAccessible"] and instance["DeletionProtection"] and instance["MonitoringInterval"] == 60
    assert instance["MasterUserSecret"]["SecretArn"] and instance["DBParameterGroups"][0]["DBParameterGroupName"] == "freight-move-17"
    (group,) = account.client("ec2").describe_security_groups(GroupIds=[instance["VpcSecurityGroups"][0]["VpcSecurityGroupId"]])["SecurityGroups"]
    assert [(rule["FromPort"], [pair["GroupId"] for pair in rule["UserIdGroupPairs"]], rule["IpRanges"]) for rule in group["IpPermissions"]] == [
        (5432, [account.clients], [])
    ]
    zone = account.client("route53").list_hosted_zones()["HostedZones"][0]["Id"]
    records = account.client("route53").list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    assert [(one["TTL"], one["ResourceRecords"]) for one in records if one["Type"] == "CNAME"] == [(5, [{"Value": instance["Endpoint"]["Address"]}])]
    evidence = json.loads((account.folder / "artifacts" / "freight_move" / "topology.json").read_text(encoding="utf-8"))
    assert problems(evidence) == [] and evidence["target"]["write_endpoint"] == {"host": instance["Endpoint"]["Address"], "port": 5432}
    # Nobody serves a price list here, and the table does not have this class: that is said, and no figure is made up.
    assert evidence["monthly_cost"] is None and "has a price that is not known here. AWS refuses GetProducts" in " ".join(output.split()), output


def test_4_again_changes_nothing(account: Account) -> None:
    for arguments in ((), ("--check", "--diff")):
        code, changed, output = account.play(*arguments)
        assert (code, changed) == (0, 0), output


def test_5_a_change_that_interrupts_needs_its_consent(account: Account) -> None:
    code, changed, output = account.play(target_rds_instance_class="db.r7g.xlarge")
    assert code == 2 and changed == 0 and "interrupts clients when its window comes" in " ".join(output.split()), output
    code, changed, output = account.play(target_rds_instance_class="db.r7g.xlarge", target_rds_allow_interruption=True)
    assert (code, changed) == (0, 2) and "DBInstanceClass for the maintenance window" in " ".join(output.split()), output
    assert account.play(target_rds_instance_class="db.r7g.xlarge", target_rds_allow_interruption=True)[:2] == (0, 0)


def test_6_parameters_that_wait_are_said(account: Account) -> None:
    code, changed, output = account.play(target_rds_instance_class="db.r7g.xlarge", target_rds_parameters={"max_wal_senders": 30})
    assert (code, changed) == (0, 1) and "parameters for a reboot (target_rds_allow_interruption: true has it done)" in " ".join(output.split()), output


def test_7_amazon_aws_and_ours_see_the_same(account: Account) -> None:
    """Before what waits for its window was asked for: a class that is pending is as wanted for ours only."""
    account.client("rds").modify_db_instance(DBInstanceIdentifier="freight-move", DBInstanceClass="db.r7g.large", ApplyImmediately=True)
    code, _changed, output = account.play(playbook=ROOT / "tests" / "playbooks" / "aws_both_ways.yml")
    assert code == 0 and "changed [False, False, False] [] after admin_secret: False -> True" in output, output
