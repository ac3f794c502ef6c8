# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After the migration to the stand-in for Amazon RDS, and a failover of it: what clients saw, who serves, and what was predicted."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess

import boto3
import jsonschema
import pytest
import testinfra
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
ARTIFACTS = ROOT / "artifacts" / "freight_rds"
SCHEMAS = ROOT / "roles" / "report" / "files" / "schemas"
SECRETS = ROOT / "inventories" / "lab_rds" / "group_vars" / "all" / "secrets.yml"
LOAD = "cd /opt/freight_load && python3 -m load"
API = {"region_name": "eu-central-1", "endpoint_url": "http://127.0.0.1:5055", "aws_access_key_id": "lab", "aws_secret_access_key": "lab"}


def machine(name):
    """A host of the lab by name."""
    return testinfra.get_host(f"docker://pg-ha-rds-{name}")


def evidence(name):
    """One evidence document."""
    return json.loads((ARTIFACTS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def instance():
    """What the service says of it."""
    return boto3.client("rds", **API).describe_db_instances(DBInstanceIdentifier="freight-rds")["DBInstances"][0]


@pytest.fixture(scope="module")
def ledger():
    """The load's own account of the time before the failover."""
    result = machine("mover").run(f"{LOAD} verdict --json --around {evidence('cutover')['paused_at']} --window 10")
    assert result.rc in (0, 1), result.stderr
    return json.loads(result.stdout)


def test_clients_noticed_nothing(ledger):
    assert ledger["acknowledged"] > 1000
    assert (ledger["errors"], ledger["lost"], ledger["duplicated"], ledger["unexpected"]) == (0, 0, 0, 0), ledger["problems"]
    assert 0 < ledger["write_pause_ms"] < 5000


def test_the_evidence_says_what_was_done():
    assert (evidence("cutover")["outcome"], evidence("cutover")["serves"]) == ("done", "target")
    assert evidence("cutover")["way_back"]["follows"] and evidence("cutover")["client"]["lost"] == 0
    assert evidence("parity")["mismatches"] == [] and evidence("parity")["rows"] > 1000
    assert evidence("topology")["target"]["kind"] == "rds" and not evidence("topology")["target"]["administrator_is_superuser"]
    for name in ("report.html", "report.md", "architecture.md", "runbook.md"):
        assert "Patroni" not in (ARTIFACTS / name).read_text(encoding="utf-8"), name


def test_every_document_is_what_its_schema_says():
    found = sorted(ARTIFACTS.glob("*.json"))
    assert {path.stem for path in found} >= {"assessment", "topology", "replication", "failover", "parity", "cutover", "routes"}
    for path in found:
        document = json.loads(path.read_text(encoding="utf-8"))
        name, version = re.fullmatch(r"freight\.pg_ha/([a-z_]+)/(\d+)", document["schema"]).groups()
        schema = json.loads((SCHEMAS / f"{name}-{version}.json").read_text(encoding="utf-8"))
        errors = [f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]
        assert not errors, f"{path.name}: {errors}"


def test_a_forced_failover_behind_the_pooler_is_within_the_budget(instance):
    failover = evidence("failover")
    (row,) = failover["scenarios"]
    assert (failover["outcome"], failover["serves"], row["name"], row["route"]) == ("done", "target", "forced_failover", "pooler")
    assert row["passed"] and (row["rpo_lost"], row["duplicated"], row["two_writers"]) == (0, 0, []) and row["rto_ms"] <= 60000
    assert row["name_moved_ms"] > 0 and row["service"]["service_seconds"] > 0
    assert [event["message"] for event in row["service"]["events"]][-1] == "Multi-AZ instance failover completed"
    # Once before the cutover, once after it: it is where it was.
    assert instance["MultiAZ"] and instance["AvailabilityZone"] == "eu-central-1a" and instance["SecondaryAvailabilityZone"] == "eu-central-1b"


def test_the_first_check_has_said_what_would_be_made():
    log = (ROOT / "lab" / "pki_rds" / "predicted.log").read_text(encoding="utf-8")
    assert re.search(r"freight-rds +: ok=\d+ +changed=5 ", log) and "failed=0" in log and "instance_class: db.t4g.medium" in log
    assert "cannot be predicted before the target exists" in log


@pytest.mark.parametrize("role", ["freight_app", "freight_owner", "ha_admin", "postgres"])
def test_the_source_takes_no_writes(role):
    statement = f"psql -X -q -d freight -c 'SET SESSION AUTHORIZATION {role}; INSERT INTO app.ledger SELECT * FROM app.ledger LIMIT 0'"
    result = machine("source").run("su postgres -c %s", statement)
    assert result.rc != 0 and "takes no writes of applications" in result.stderr, result.stderr


def test_the_instance_serves_applications_with_what_they_were_told():
    result = machine("mover").run("PGSERVICEFILE=/etc/freight_load/pg_service.conf psql -X -At service=freight -c 'SELECT current_user, pg_is_in_recovery()'")
    assert result.stdout.strip() == "freight_app|f", result.stderr


def test_no_secret_is_told(instance):
    secrets = {str(value) for value in yaml.safe_load(SECRETS.read_text(encoding="utf-8")).values()}
    kept = boto3.client("secretsmanager", **API).get_secret_value(SecretId=instance["MasterUserSecret"]["SecretArn"])["SecretString"]
    secrets.add(json.loads(kept)["password"])
    told = {str(path): path.read_text(encoding="utf-8", errors="replace") for path in ARTIFACTS.rglob("*") if path.is_file()}
    told["predicted.log"] = (ROOT / "lab" / "pki_rds" / "predicted.log").read_text(encoding="utf-8")
    for name in ("mover", "lb1", "source"):
        told[f"journal of {name}"] = subprocess.run(
            ["docker", "exec", f"pg-ha-rds-{name}", "journalctl", "--no-pager"], capture_output=True, text=True, check=True
        ).stdout
    assert len(secrets) > 10 and not [name for name, text in told.items() if any(secret in text for secret in secrets)]
