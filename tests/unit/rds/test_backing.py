# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real PostgreSQL behind an instance of the stand-in: two hosts on loopback, one of them runs the server, and a forced failover moves it."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import socket
import tempfile
import threading
import time
import typing as t
from http.server import ThreadingHTTPServer

import psycopg2
import pytest
from stand_in_aws import authority, backing, host, serve
from stand_in_aws import rds as stand_in

from .conftest import REGION, Service

ADDRESSES = {"a": "127.0.0.1", "b": "127.0.0.2"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])


class Instance:
    """What a client has of it."""

    def __init__(self, aws: Service, hosts: dict[str, host.Host], names: pathlib.Path, port: int) -> None:
        self.aws, self.hosts, self.names, self.port = aws, hosts, names, port

    def wait(self) -> dict[str, t.Any]:
        """Until it is available; what the service says of it."""
        for _look in range(600):
            told = dict(self.aws.client("rds").describe_db_instances(DBInstanceIdentifier="freight")["DBInstances"][0])
            assert told["DBInstanceStatus"] != "incompatible-parameters", self.aws.client("rds").describe_events(
                SourceIdentifier="freight", SourceType="db-instance"
            )
            if told["DBInstanceStatus"] == "available":
                return told
            time.sleep(0.1)
        pytest.fail("it did not become available")

    @property
    def address(self) -> str:
        """Where its name leads to now."""
        address, name = self.names.read_text(encoding="utf-8").split()
        assert name == self.wait()["Endpoint"]["Address"]
        return address

    def connect(self, user: str, password: str, **more: t.Any) -> t.Any:
        """A session."""
        name = self.wait()["Endpoint"]["Address"]
        wanted = {"dbname": "freight", "sslmode": "verify-full", "sslrootcert": str(self.names.parent / "authority" / "ca.crt"), "connect_timeout": 5, **more}
        made = psycopg2.connect(host=name, hostaddr=self.address, port=self.port, user=user, password=password, **wanted)
        made.autocommit = True
        return made

    def administrator(self) -> t.Any:
        """A session of the administrator, with the password that the service keeps."""
        secret = self.aws.client("secretsmanager").get_secret_value(SecretId=self.wait()["MasterUserSecret"]["SecretArn"])
        told = json.loads(secret["SecretString"])
        return self.connect(told["username"], told["password"])


@pytest.fixture
def instance(aws: Service, network: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> t.Iterator[Instance]:
    """One that was made, with logical replication."""
    try:
        programs = host.newest_programs()
    except ValueError:
        pytest.skip("no PostgreSQL server binary under /usr/lib/postgresql")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pg_ha_rds_", dir="/var/tmp"))
    folder.chmod(0o755)
    (folder / "volumes").mkdir()
    hosts = {zone: host.Host(folder / "volumes", programs, "postgres" if os.geteuid() == 0 else None) for zone in ADDRESSES}
    servers = {zone: ThreadingHTTPServer((address, 0), host.handler(hosts[zone])) for zone, address in ADDRESSES.items()}
    for server in servers.values():
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    names, port = folder / "names", free_port()
    where = {zone: (ADDRESSES[zone], int(server.server_address[1])) for zone, server in servers.items()}
    monkeypatch.setattr(stand_in, "backing", backing.Backing(where, names, authority.Authority(folder / "authority").sign, detection_seconds=0.0))
    rds = aws.client("rds")
    rds.create_db_parameter_group(DBParameterGroupName="freight-17", DBParameterGroupFamily="postgres17", Description="freight")
    wanted = {"rds.logical_replication": "1", "work_mem": "16384"}
    rds.modify_db_parameter_group(
        DBParameterGroupName="freight-17",
        Parameters=[{"ParameterName": name, "ParameterValue": value, "ApplyMethod": "pending-reboot"} for name, value in wanted.items()],
    )
    rds.create_db_instance(
        DBInstanceIdentifier="freight", Engine="postgres", EngineVersion="17.7", DBInstanceClass="db.m7g.large", AllocatedStorage=100, MultiAZ=True, Port=port,
        DBName="freight", MasterUsername="administrator", ManageMasterUserPassword=True, DBSubnetGroupName=network["subnet_group"],
        DBParameterGroupName="freight-17", AvailabilityZone=f"{REGION}a",
    )  # fmt: skip
    made = Instance(aws, hosts, names, port)
    try:
        made.wait()
        yield made
    finally:
        for one in hosts.values():
            one.volume("freight").stop("immediate")
        for server in servers.values():
            server.shutdown()
            server.server_close()
        shutil.rmtree(folder, ignore_errors=True)


def asked(session: t.Any, statement: str) -> t.Any:
    with session.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


TIMELINE = "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
REFUSED = [
    "ALTER SYSTEM SET work_mem = '1MB'",
    "SELECT count(*) FROM pg_authid",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "CREATE ROLE another SUPERUSER",
    "SET ROLE rdsadmin",
    "CREATE EVENT TRIGGER ours ON ddl_command_end EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()",
]


def test_a_failover_moves_it_with_all_that_was_written(instance: Instance) -> None:
    session = instance.administrator()
    assert instance.address == ADDRESSES["a"] and asked(session, "SHOW wal_level") == "logical" and asked(session, "SHOW work_mem") == "16MB"
    # The administrator is no superuser, and may what the service allows.
    for statement in REFUSED:
        with pytest.raises(psycopg2.Error):
            asked(session, statement)
    asked(session, "SET session_replication_role = replica")
    asked(session, "SET session_replication_role = DEFAULT")
    # Whoever has rds_replication may make slots; nobody else may.
    asked(session, "CREATE ROLE link LOGIN PASSWORD 'a secret of the link'")
    link = instance.connect("link", "a secret of the link")
    instance.hosts["a"].grant()
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        asked(link, "SELECT pg_create_logical_replication_slot('one', 'pgoutput')")
    asked(session, "GRANT rds_replication TO link")
    instance.hosts["a"].grant()
    asked(link, "SELECT pg_create_logical_replication_slot('one', 'pgoutput')")
    asked(session, "CREATE TABLE kept AS SELECT 1 AS one")
    timeline = asked(session, TIMELINE)

    instance.aws.client("rds").reboot_db_instance(DBInstanceIdentifier="freight", ForceFailover=True)
    told = instance.wait()
    assert (told["AvailabilityZone"], told["SecondaryAvailabilityZone"]) == (f"{REGION}b", f"{REGION}a") and instance.address == ADDRESSES["b"]
    with pytest.raises(psycopg2.OperationalError):
        asked(session, "SELECT 1")
    session = instance.administrator()
    assert asked(session, "SELECT one FROM kept") == 1 and asked(session, TIMELINE) == timeline
    assert asked(session, "SELECT slot_name FROM pg_replication_slots") == "one" and asked(session, "SELECT count(*) FROM pg_stat_replication") == 0


def test_who_may_not_come_in(instance: Instance) -> None:
    for user, more in (("rdsadmin", {}), ("administrator", {"sslmode": "disable"}), ("administrator", {})):
        with pytest.raises(psycopg2.OperationalError):
            instance.connect(user, "wrong", **more)


def test_dynamic_parameters_are_in_force_at_once_and_static_ones_after_a_reboot(instance: Instance) -> None:
    rds = instance.aws.client("rds")
    rds.modify_db_parameter_group(
        DBParameterGroupName="freight-17",
        Parameters=[
            {"ParameterName": "work_mem", "ParameterValue": "8192", "ApplyMethod": "immediate"},
            {"ParameterName": "max_connections", "ParameterValue": "77", "ApplyMethod": "pending-reboot"},
        ],
    )
    session = instance.administrator()
    for _look in range(50):
        if asked(session, "SHOW work_mem") == "8MB":
            break
        time.sleep(0.1)
    assert (asked(session, "SHOW work_mem"), asked(session, "SHOW max_connections")) == ("8MB", "100")
    rds.reboot_db_instance(DBInstanceIdentifier="freight")
    instance.wait()
    assert asked(instance.administrator(), "SHOW max_connections") == "77"


def test_a_deleted_instance_is_gone(instance: Instance) -> None:
    rds = instance.aws.client("rds")
    rds.delete_db_instance(DBInstanceIdentifier="freight", SkipFinalSnapshot=True)
    for _look in range(100):
        if not rds.describe_db_instances()["DBInstances"]:
            break
        time.sleep(0.1)
    assert rds.describe_db_instances()["DBInstances"] == [] and instance.names.read_text(encoding="utf-8") == ""
    assert not any(one.volume("freight").runs_here() for one in instance.hosts.values())


def test_hosts_are_named_by_zone_and_need_names_and_an_authority(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["0", "--host", "a=10.0.0.1:9400", "--host", "b=db-b:9401", "--names", str(tmp_path / "names"), "--authority", str(tmp_path / "ca")]
    made = serve.backing_of(serve.parse(given))
    assert made is not None and made.hosts == {"a": ("10.0.0.1", 9400), "b": ("db-b", 9401)}
    assert (tmp_path / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600
    assert serve.backing_of(serve.parse(["0"])) is None
    with pytest.raises(SystemExit):
        serve.parse(given[:3])
    assert "--host needs --names and --authority" in capsys.readouterr().err
