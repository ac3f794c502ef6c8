# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Role target_rds against the stand-in: everything that it makes, by its own modules and by amazon.aws."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import typing as t
import urllib.error
import urllib.parse
import urllib.request

import boto3
import pytest
import yaml

from tests.evidence import problems

ROOT = pathlib.Path(__file__).resolve().parents[2]
REGION = "eu-central-1"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "s3cr3t-of-the-account", "AWS_EC2_METADATA_DISABLED": "true"}
# What an answer of the service becomes on its way: its status and body, or None for as it is.
Change = t.Callable[[str, bytes], tuple[int, bytes] | None]


@contextlib.contextmanager
def between(url: str, change: Change) -> t.Iterator[str]:
    """The address of somebody who passes everything on to the stand-in, and changes answers on their way back.

    :param change: gets the action that was asked for, and the answer's body
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            named = urllib.parse.parse_qs(body.decode("utf-8", "replace")).get("Action", [""])[0]
            headers = {name: value for name, value in self.headers.items() if name not in ("Host", "Connection", "Content-Length", "Accept-Encoding")}
            request = urllib.request.Request(url + self.path, data=body or None, headers=headers, method=self.command)
            try:
                with urllib.request.urlopen(request) as answer:
                    status, kind, content = answer.status, answer.headers.get("Content-Type"), answer.read()
            except urllib.error.HTTPError as error:
                status, kind, content = error.code, error.headers.get("Content-Type"), error.read()
            status, content = change(named or self.headers.get("X-Amz-Target", "").rpartition(".")[2], content) or (status, content)
            self.send_response(status)
            self.send_header("Content-Type", kind or "text/xml")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST

        def log_message(self, *_arguments: t.Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


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
        (folder / "rds.pem").write_text("a bundle\n", encoding="utf-8")
        self.client("route53").create_hosted_zone(Name="freight.internal", CallerReference="1", HostedZoneConfig={"PrivateZone": False})
        self.options: dict[str, t.Any] = {
            "pg_ha_migration": "freight_move",
            "pg_ha_database": "freight",
            "pg_ha_source_host": "db.example.org",
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

    def play(self, *arguments: str, playbook: pathlib.Path | None = None, entries: t.Sequence[str] = ("main",), **changes: t.Any) -> tuple[int, int, str]:
        """Run the role, or another playbook; exit code, number of changed tasks, output in one line."""
        inventory = {"all": {"children": {"pg_ha_rds": {"hosts": {"freight-rds": {**self.options, **changes}}}}}}
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")
        tasks = [{"ansible.builtin.include_role": {"name": "freight.pg_ha.target_rds", "tasks_from": entry}} for entry in entries]
        (self.folder / "play.yml").write_text(yaml.safe_dump([{"hosts": "pg_ha_rds", "gather_facts": False, "tasks": tasks}]), encoding="utf-8")
        command = [sys.executable, "-m", "ansible", "playbook", str(playbook or self.folder / "play.yml"), "-i", str(self.folder / "hosts.yml"), *arguments]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **KEYS}, capture_output=True, text=True, check=False)
        changed = re.search(r"changed=(\d+)", done.stdout)
        assert KEYS["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
        return done.returncode, int(changed[1]) if changed else -1, " ".join((done.stdout + done.stderr).split())

    def made(self) -> list[str]:
        """What the role has made."""
        groups = [one["GroupName"] for one in self.client("ec2").describe_security_groups()["SecurityGroups"] if one["GroupName"] not in ("default", "clients")]
        subnets = [one["DBSubnetGroupName"] for one in self.client("rds").describe_db_subnet_groups()["DBSubnetGroups"]]
        parameters = [one["DBParameterGroupName"] for one in self.client("rds").describe_db_parameter_groups()["DBParameterGroups"]]
        roles = [one["RoleName"] for one in self.client("iam").list_roles()["Roles"]]
        return [*groups, *subnets, *parameters, *roles, *(one["DBInstanceIdentifier"] for one in self.instances())]

    def parameter(self, name: str) -> str:
        """What the group sets."""
        found = self.client("rds").describe_db_parameters(DBParameterGroupName="freight-move-17")["Parameters"]
        return next(one["ParameterValue"] for one in found if one["ParameterName"] == name)

    def restarts(self) -> int:
        """How often the instance was rebooted."""
        events = self.client("rds").describe_events(SourceIdentifier="freight-move", SourceType="db-instance")["Events"]
        return sum(event["Message"] == "DB instance restarted" for event in events)

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


def test_2_what_cannot_be_is_refused_all_of_it_before_anything_is_made(account: Account) -> None:
    for changes, sentences in (
        (
            {"target_rds_subnet_ids": account.subnets[1:], "target_rds_client_security_group_ids": [], "target_rds_storage_throughput": 500},
            (
                "gp3 storage below 400 GiB has 3000 IOPS and 125 MiB/s, and the service takes no numbers for it: omit target_rds_storage_throughput.",
                f"the subnets are in {REGION}b only, and Multi-AZ needs two zones",
                "neither the mover nor the application could connect: name the security groups of mover, poolers and application, and of the source",
            ),
        ),
        (
            {"target_rds_subnet_ids": [account.subnets[0], "subnet-12345678"], "target_rds_dns_zone": "", "target_rds_outgoing_networks": []},
            (
                "target_rds_subnet_ids: subnet-12345678 is not in vpc-",
                "target_rds_dns_name is given without target_rds_dns_zone",
                "target_rds_outgoing_networks is empty, so that the instance could not follow the source: name the network of db.example.org",
            ),
        ),
        (
            {
                "target_rds_ca_file": "/nowhere/rds.pem",
                "target_rds_dns_zone": "elsewhere.internal",
                "target_rds_instance_class": "db.x2g.large",
                "target_rds_storage_type": "io1",
                "target_rds_iops": 500,
                "target_rds_parameters": {"work_mem": "much", "no_such": 1},
            },
            (
                "target_rds_ca_file: there is no file /nowhere/rds.pem on the controller",
                f"https://truststore.pki.rds.amazonaws.com/{REGION}/{REGION}-bundle.pem.",
                "target_rds_dns_name: database.freight.internal is not in target_rds_dns_zone elsewhere.internal",
                "target_rds_dns_zone: Route 53 has no public zone elsewhere.internal in account 123456789012",
                "db.x2g.large cannot be Multi-AZ in this region",
                "target_rds_iops 500 is not within 1000 and 256000",
                "target_rds_parameters.no_such: this family has no such parameter",
                "target_rds_parameters.work_mem: 'much' is no number",
            ),
        ),
    ):
        code, changed, output = account.play(**changes)
        assert (code, changed) == (2, 0) and "Nothing was changed." in output, output
        assert [sentence for sentence in sentences if sentence not in output] == [], output
    assert account.made() == []


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("ExpiredToken", "The credentials for AWS have expired"),
        ("AccessDenied", "AWS does not permit DescribeDBInstances (action rds:DescribeDBInstances) to these credentials"),
    ],
)
def test_2_credentials_are_said_in_our_words(account: Account, code: str, sentence: str) -> None:
    answer = f"<ErrorResponse><Error><Code>{code}</Code><Message>No.</Message></Error></ErrorResponse>".encode()
    with between(account.url, lambda _action, _body: (403, answer)) as url:
        exit_code, _changed, output = account.play(target_rds_endpoint_url=url)
    assert exit_code == 2 and sentence in output and "An exception occurred" not in output, output


def test_2_check_mode_predicts_where_a_run_has_ended_in_the_middle(account: Account) -> None:
    rds = account.client("rds")
    rds.create_db_subnet_group(DBSubnetGroupName="freight-move", DBSubnetGroupDescription="Subnets of the database freight-move", SubnetIds=account.subnets[:2])
    code, changed, output = account.play("--check", target_rds_tags={})
    assert (code, changed) == (0, 4), output
    rds.delete_db_subnet_group(DBSubnetGroupName="freight-move")


def test_3_it_makes_all_of_it(account: Account) -> None:
    code, changed, output = account.play()
    assert code == 0 and changed >= 6 and "has the source db.example.org connect to freight-move" in output, output
    (instance,) = account.instances()
    assert (instance["DBInstanceIdentifier"], instance["MultiAZ"], instance["StorageEncrypted"]) == ("freight-move", True, True)
    assert not instance["PubliclyAccessible"] and instance["DeletionProtection"] and instance["MonitoringInterval"] == 60
    assert instance["MasterUserSecret"]["SecretArn"] and instance["DBParameterGroups"][0]["DBParameterGroupName"] == "freight-move-17"
    (group,) = account.client("ec2").describe_security_groups(GroupIds=[instance["VpcSecurityGroups"][0]["VpcSecurityGroupId"]])["SecurityGroups"]
    assert [(rule["FromPort"], [pair["GroupId"] for pair in rule["UserIdGroupPairs"]], rule["IpRanges"]) for rule in group["IpPermissions"]] == [
        (5432, [account.clients], [])
    ]
    # It follows the source by a connection of its own.
    assert [(rule["IpProtocol"], [one["CidrIp"] for one in rule["IpRanges"]]) for rule in group["IpPermissionsEgress"]] == [("-1", ["0.0.0.0/0"])]
    zone = account.client("route53").list_hosted_zones()["HostedZones"][0]["Id"]
    records = account.client("route53").list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    assert [(one["TTL"], one["ResourceRecords"]) for one in records if one["Type"] == "CNAME"] == [(5, [{"Value": instance["Endpoint"]["Address"]}])]
    evidence = json.loads((account.folder / "artifacts" / "freight_move" / "topology.json").read_text(encoding="utf-8"))
    assert problems(evidence) == [] and evidence["target"]["write_endpoint"] == {"host": instance["Endpoint"]["Address"], "port": 5432}
    # Nobody serves a price list here, and the table does not have this class: that is said, and no figure is made up.
    assert evidence["monthly_cost"] is None and "has a price that is not known here. AWS refuses GetProducts" in output, output


def test_4_again_changes_nothing(account: Account) -> None:
    for arguments in ((), ("--check", "--diff")):
        code, changed, output = account.play(*arguments)
        assert (code, changed) == (0, 0), output


def test_5_a_change_that_interrupts_needs_its_consent(account: Account) -> None:
    """And is refused before anything else of the run is done."""
    code, changed, output = account.play(target_rds_instance_class="db.r7g.xlarge", target_rds_parameters={"work_mem": "32MB"})
    assert (code, changed) == (2, 0) and "target_rds_instance_class: db.r7g.large -> db.r7g.xlarge interrupts clients when its window comes" in output, output
    assert "give target_rds_allow_interruption: true" in output and account.parameter("work_mem") == "16384", output
    code, changed, output = account.play(target_rds_instance_class="db.r7g.xlarge", target_rds_allow_interruption=True)
    assert (code, changed) == (0, 2) and "DBInstanceClass for the maintenance window" in output, output
    assert "freight-move: instance_class: db.r7g.large -> db.r7g.xlarge: PostgreSQL is not available while it changes." in output, output
    assert account.play(target_rds_instance_class="db.r7g.xlarge", target_rds_allow_interruption=True)[:2] == (0, 0)


def test_6_parameters_that_wait_are_said(account: Account) -> None:
    waits = "parameters for a reboot (target_rds_allow_interruption: true has it done)"
    reboots = "reboot, because parameters change that are in force after one only: PostgreSQL is not available meanwhile"
    wanted: dict[str, t.Any] = {"target_rds_instance_class": "db.r7g.xlarge", "target_rds_parameters": {"max_wal_senders": 30}}
    code, changed, output = account.play("--check", **wanted)
    assert (code, changed) == (0, 1) and waits in output and reboots not in output, output
    code, changed, output = account.play("--check", **wanted, target_rds_allow_interruption=True)
    assert (code, changed) == (0, 3) and reboots in output and waits not in output, output
    assert account.restarts() == 0
    code, changed, output = account.play(**wanted)
    assert (code, changed) == (0, 1) and waits in output, output
    code, changed, output = account.play(**wanted, target_rds_allow_interruption=True)
    assert (code, changed) == (0, 2) and "reboot, because parameters wait for it: PostgreSQL is not available" in output, output
    assert account.restarts() == 1


def test_6_an_upgrade_is_predicted_before_its_parameter_group_is_there(account: Account) -> None:
    wanted: dict[str, t.Any] = {"target_rds_instance_class": "db.r7g.xlarge", "target_rds_engine_version": "18"}
    code, changed, output = account.play("--check", **wanted)
    assert (code, changed) == (2, 0) and "give target_rds_allow_major_upgrade: true" in output and "give target_rds_allow_interruption: true" in output, output
    code, changed, output = account.play("--check", **wanted, target_rds_allow_major_upgrade=True, target_rds_allow_interruption=True)
    assert (code, changed) == (0, 3) and "freight-move: engine_version: 17.7 -> 18" in output, output


def test_7_amazon_aws_and_ours_see_the_same(account: Account) -> None:
    """Before what waits for its window was asked for: a class that is pending is as wanted for ours only."""
    account.client("rds").modify_db_instance(DBInstanceIdentifier="freight-move", DBInstanceClass="db.r7g.large", ApplyImmediately=True)
    code, _changed, output = account.play(playbook=ROOT / "tests" / "playbooks" / "aws_both_ways.yml")
    assert code == 0 and "changed [False, False, False] [] after admin_secret: False -> True" in output, output


def test_8_what_leads_to_the_instance_is_the_write_endpoint(account: Account) -> None:
    proxy = "freight.proxy-0123456789ab.eu-central-1.rds.amazonaws.com"
    code, _changed, output = account.play(target_rds_write_host=proxy)
    assert code == 0, output
    target = json.loads((account.folder / "artifacts" / "freight_move" / "topology.json").read_text(encoding="utf-8"))["target"]
    assert target["write_endpoint"] == {"host": proxy, "port": 5432} and target["read_endpoint"]["host"].startswith("freight-move."), target


def test_9_an_instance_that_optimizes_its_storage_is_whole(account: Account) -> None:
    busy = b"<DBInstanceStatus>storage-optimization<"
    with between(account.url, lambda _action, body: (200, body.replace(b"<DBInstanceStatus>available<", busy)) if busy[:18] in body else None) as url:
        code, _changed, output = account.play(entries=["whole"], target_rds_endpoint_url=url, target_rds_whole_seconds=4)
    assert code == 0, output


def test_9_parameters_that_keep_the_server_down_are_mended(account: Account) -> None:
    """Before the instance is refused for its status."""
    down = b"<DBInstanceStatus>incompatible-parameters<"
    with between(account.url, lambda _action, body: (200, body.replace(b"<DBInstanceStatus>available<", down)) if down[:18] in body else None) as url:
        code, changed, output = account.play(target_rds_endpoint_url=url, target_rds_parameters={"work_mem": "8MB"})
    assert (code, changed) == (2, 1) and "is incompatible-parameters, which no waiting ends: mend its parameter group" in output, output
    assert account.parameter("work_mem") == "8192"


def test_9_a_failover_that_nobody_asked_for_is_none(account: Account) -> None:
    code, _changed, output = account.play(entries=["failover"], pg_ha_target_state={"zone": f"{REGION}c"})
    assert code == 2 and f"freight-move had left {REGION}c by itself before it was asked to, so that nothing was broken here" in output, output


def test_9_a_secret_that_may_not_be_read_is_said(account: Account) -> None:
    code, _changed, output = account.play(entries=["contract", "administrator"])
    assert code == 0, output
    denied = json.dumps({"__type": "AccessDeniedException", "message": "No."}).encode()
    with between(account.url, lambda action, _body: (400, denied) if action == "GetSecretValue" else None) as url:
        code, _changed, output = account.play(entries=["contract", "administrator"], target_rds_endpoint_url=url)
    (instance,) = (one for one in account.instances() if one["DBInstanceIdentifier"] == "freight-move")
    assert code == 2 and f"the administrator's secret {instance['MasterUserSecret']['SecretArn']}: permit them secretsmanager:GetSecretValue" in output, output


def test_the_inventory_to_copy_names_every_variable() -> None:
    defaults = set(yaml.safe_load((ROOT / "roles" / "target_rds" / "defaults" / "main.yml").read_text(encoding="utf-8")))
    # What the collection's own inputs say, and the address of a stand-in.
    others = {f"target_rds_{name}" for name in ("endpoint_url", "admin_user", "database", "source_host", "way_back", "artifacts_dir")}
    text = (ROOT / "inventories" / "prod" / "group_vars" / "all" / "main.yml").read_text(encoding="utf-8")
    assert sorted(defaults - others - set(re.findall(r"^(?:# )?(\w+):", text, re.MULTILINE))) == []
