# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in for AWS on loopback, spoken to over HTTP by boto3 as the service is."""

from __future__ import annotations

import importlib
import pathlib
import sys
import typing as t

import boto3
import pytest
import requests
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import Clock
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import instance_plan
from ansible_collections.freight.pg_ha.plugins.module_utils._rds.client import RdsClient

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "lab"))
from moto.server import ThreadedMotoServer  # noqa: E402
from stand_in_aws import catalogue  # noqa: E402  (lives in lab/)
from stand_in_aws import rds as stand_in  # noqa: E402

REGION = "eu-central-1"
CLIENTS: dict[tuple[str, str], t.Any] = {}


class Service:
    """The stand-in, and what a test needs of it.

    :param url: of its API
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.slept = 0.0
        self.requests: list[str] = []
        self.sent: dict[str, t.Any] = {}

    def client(self, name: str) -> t.Any:
        """A client of boto3's own. To read a service's model takes a third of a second, and it stays the same."""
        key = (name, self.url)
        if key not in CLIENTS:
            CLIENTS[key] = boto3.client(name, region_name=REGION, endpoint_url=self.url)
        return CLIENTS[key]

    def open(self, read_only: bool = False) -> RdsClient:
        """A client as a module has it; the changes that it asks for are noted in ``requests``."""
        key = ("open", self.url)
        if key not in CLIENTS:
            CLIENTS[key] = RdsClient.open({"profile": None, "region": REGION, "endpoint_url": self.url, "ca_bundle": None}, True)._rds
        client = RdsClient(CLIENTS[key], REGION, read_only)
        write = client.write

        def noted(operation: str, method: str, request: t.Any) -> dict[str, t.Any]:
            answer = write(operation, method, request)
            self.requests.append(operation)
            self.sent[operation] = request
            return answer

        client.write = noted  # type: ignore[method-assign]
        return client

    @property
    def clock(self) -> Clock:
        """Time that passes only by sleeping; the stand-in's goes with it."""

        def sleep(seconds: float) -> None:
            self.slept += seconds

        return Clock(monotonic=lambda: self.slept, sleep=sleep)

    def run(self, name: str, /, check_mode: bool = False, **options: t.Any) -> Outcome:
        """Run a module with these options and its defaults."""
        module = importlib.import_module(f"ansible_collections.freight.pg_ha.plugins.modules.{name}")
        spec = module.argument_spec()
        unknown = set(options) - set(spec)
        assert not unknown, f"{name} has no options {unknown}"
        params = {key: options.get(key, one.get("default")) for key, one in spec.items()}
        if name.endswith("_info"):
            return module.run(self.open(read_only=True), params)
        more = {"clock": self.clock} if name != "rds_parameter_group" else {}
        return module.run(self.open(read_only=check_mode), params, check_mode, **more)

    def make_with_password(self, options: dict[str, t.Any]) -> None:
        """An instance as these options have it, made by somebody who gave its administrator a password."""
        request = instance_plan.plan_create(options, options["identifier"], catalogue.engine_versions()).create or {}
        defaults = {"MultiAZ": True, "StorageEncrypted": True, "PubliclyAccessible": False}
        self.client("rds").create_db_instance(**{**defaults, **request}, MasterUserPassword="long-enough")


@pytest.fixture(scope="session")
def _server() -> t.Iterator[str]:
    stand_in.install()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(_server: str, monkeypatch: pytest.MonkeyPatch) -> Service:
    """The service with nothing in it, where changes take no time."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    service = Service(_server)
    monkeypatch.setattr(stand_in, "delay_seconds", 0.0)
    monkeypatch.setattr(stand_in, "now", lambda: service.slept)
    requests.post(f"{_server}/moto-api/reset", timeout=10).raise_for_status()
    return service


@pytest.fixture
def network(aws: Service) -> dict[str, str]:
    """A subnet group over two zones, one with a single zone, and a security group."""
    ec2, rds = aws.client("ec2"), aws.client("rds")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"{REGION}{zone}")["Subnet"]["SubnetId"]
        for number, zone in enumerate("ab")
    ]
    rds.create_db_subnet_group(DBSubnetGroupName="two", DBSubnetGroupDescription="two zones", SubnetIds=subnets)
    rds.create_db_subnet_group(DBSubnetGroupName="one", DBSubnetGroupDescription="one zone", SubnetIds=subnets[:1])
    group = ec2.create_security_group(GroupName="freight", Description="freight", VpcId=vpc)["GroupId"]
    return {"subnet_group": "two", "security_group": group}


@pytest.fixture
def options_of_an_instance(network: dict[str, str]) -> dict[str, t.Any]:
    """What an instance shall be."""
    return {
        "identifier": "freight",
        "engine_version": "17",
        "instance_class": "db.m7g.large",
        "allocated_storage_gib": 100,
        "max_allocated_storage_gib": 500,
        "storage_type": "gp3",
        "admin_user": "administrator",
        "database": "freight",
        "subnet_group": network["subnet_group"],
        "security_group_ids": [network["security_group"]],
        "backup_retention_days": 7,
        "backup_window": "02:00-02:30",
        "maintenance_window": "sun:03:00-sun:04:00",
        "copy_tags_to_snapshot": True,
        "deletion_protection": True,
        "performance_insights": True,
        "performance_insights_retention_days": 7,
        "log_exports": ["upgrade", "postgresql"],
        "iam_authentication": True,
        "tags": {"service": "freight"},
    }


@pytest.fixture
def options(options_of_an_instance: dict[str, t.Any]) -> dict[str, t.Any]:
    """The same, under the name that most tests have for it."""
    return options_of_an_instance
