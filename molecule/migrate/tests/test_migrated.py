# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After the migration: what clients saw, who serves, and that nobody writes on the old primary."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess

import jsonschema
import pytest
import testinfra

ROOT = pathlib.Path(__file__).resolve().parents[3]
ARTIFACTS = ROOT / "artifacts" / "freight"
SCHEMAS = ROOT / "roles" / "report" / "files" / "schemas"
ROUTES = ROOT / "lab" / "pki" / "target" / "routes" / "freight"
LOAD = "cd /opt/freight_load && python3 -m load"
REFUSED = "takes no writes of applications"

# One table with rows of every kind of owner and grant, a partitioned parent, a leaf and the probe's.
TABLES = ["app.accounts", "app.ledger", "app.settings", 'app."Größe"', "ha_migration.probe"]
ROLES = ["freight_app", "freight_owner", "freight_admin", "freight_guest", "freight_batch", "freight_reader", "ha_admin", "postgres"]


@pytest.fixture(scope="module")
def machine():
    """A host of the lab by name."""
    return lambda name: testinfra.get_host(f"docker://pg-ha-lab-{name}")


def psql(host, statements):
    """Run statements as the superuser over the local socket of a database host; returns the command's result."""
    return host.run("su postgres -c %s", f"psql -X -q -v ON_ERROR_STOP=1 -d freight <<'SQL'\n{statements}\nSQL")


def evidence(name):
    """One evidence document."""
    return json.loads((ARTIFACTS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def leader(machine):
    """The target's leader, by asking PostgreSQL on each member."""
    found = [host for host in map(machine, ("pg1", "pg2", "pg3")) if psql(host, "\\t\nSELECT pg_is_in_recovery()").stdout.strip() == "f"]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def ledger(machine):
    """The load's own account, after it was stopped; the pause is that around the flip."""
    mover = machine("mover")
    if mover.run(f"{LOAD} status").rc == 0:
        assert mover.run(f"{LOAD} stop").rc == 0
    result = mover.run(f"{LOAD} verdict --json --around {evidence('cutover')['paused_at']} --window 10")
    assert result.rc in (0, 1), result.stderr
    return json.loads(result.stdout)


def test_clients_noticed_nothing(ledger):
    assert ledger["acknowledged"] > 1000
    assert (ledger["errors"], ledger["lost"], ledger["duplicated"], ledger["unexpected"]) == (0, 0, 0, 0), ledger["problems"]


def test_the_pause_was_measured_and_is_within_the_budget(ledger):
    assert 0 < ledger["write_pause_ms"] < 5000


def test_the_evidence_says_what_was_done():
    assert (evidence("cutover")["outcome"], evidence("cutover")["serves"]) == ("done", "target")
    assert evidence("parity")["mismatches"] == [] and evidence("parity")["rows"] > 1000
    assert evidence("cutover")["client"]["lost"] == 0 and evidence("cutover")["client"]["acknowledged"] > 0
    # Sessions past the pooler that were still there are named.
    named = {who.split(" from ")[0] for who in evidence("cutover")["sessions_ended"]}
    assert named >= {"freight_app", "freight_owner", "freight_guest", "freight_batch"}, named
    for name in ("assessment", "replication", "parity", "cutover"):
        assert {"schema", "started_at", "finished_at", "outcome"} <= set(evidence(name)), name
    assert "**The target serves the application.** No acknowledged write was lost" in (ARTIFACTS / "report.md").read_text(encoding="utf-8")
    page = (ARTIFACTS / "report.html").read_text(encoding="utf-8")
    assert "Acknowledged writes in each tenth of a second" in page and len(page) < 2_000_000
    assert "PostgreSQL     pg1  pg2  pg3" in (ARTIFACTS / "architecture.md").read_text(encoding="utf-8")
    assert "The source follows since the cutover" in (ARTIFACTS / "runbook.md").read_text(encoding="utf-8")
    assert 'failures="0" errors="0"' in (ARTIFACTS / "report.xml").read_text(encoding="utf-8")


def test_the_target_was_broken_while_it_served_nobody_and_followed_by_itself():
    failover = evidence("failover")
    assert (failover["outcome"], failover["serves"]) == ("done", "source")
    names = {row["name"] for row in failover["scenarios"]}
    assert names == {"switchover", "patroni_and_postmaster_killed", "synchronous_standby_lost", "store_member_lost"}
    for row in failover["scenarios"]:
        assert row["passed"] and row["route"] == "write endpoint" and row["caught_up_s"] is not None, row["name"]
        assert (row["rpo_lost"], row["duplicated"], row["two_writers"]) == (0, 0, []), row["name"]
    crashed = next(row for row in failover["scenarios"] if row["name"] == "patroni_and_postmaster_killed")
    assert len(crashed["writers"]) == len(crashed["timelines"]) and crashed["hit"] == crashed["writers"][:1]
    assert failover["finished_at"] < evidence("parity")["started_at"], "the comparison came before the last failover"


def test_every_document_is_what_its_schema_says():
    found = sorted(ARTIFACTS.glob("*.json"))
    assert {path.stem for path in found} >= {"assessment", "topology", "replication", "failover", "parity", "cutover", "routes"}
    for path in found:
        document = json.loads(path.read_text(encoding="utf-8"))
        name, version = re.fullmatch(r"freight\.pg_ha/([a-z_]+)/(\d+)", document["schema"]).groups()
        assert name == path.stem
        schema = json.loads((SCHEMAS / f"{name}-{version}.json").read_text(encoding="utf-8"))
        errors = [f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(document)]
        assert not errors, path.name


def test_applications_are_told_where_the_database_is_and_where_it_was():
    for side, host in (("source", "source:5432"), ("target", "lb1:6432")):
        names = {path.name for path in (ROUTES / side).iterdir()}
        assert {"freight_app", "freight_batch"} <= names and "ha_admin" not in names
        for path in (ROUTES / side).rglob("*"):
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
        lines = (ROUTES / side / "freight_app" / "database.env").read_text(encoding="utf-8").splitlines()
        assert any(line.startswith("DATABASE_URL='postgresql://freight_app") and f"@{host}/freight?sslmode=verify-full&" in line for line in lines)
    assert "@lb1:5001/freight?" in (ROUTES / "target" / "freight_app" / "database.env").read_text(encoding="utf-8")


@pytest.mark.parametrize("service", ["write", "read"])
def test_an_application_gets_in_with_what_it_was_told(machine, service):
    mover, folder = machine("mover"), "/run/pg_ha/told"
    assert mover.run("install -d -m 0700 %s", folder).rc == 0
    try:
        for name in ("pg_service.conf", "pgpass", "ca.crt"):
            text = (ROUTES / "target" / "freight_app" / name).read_text(encoding="utf-8").replace("/etc/pg_ha/routes", folder)
            # On stdin: arguments are for everybody.
            write = ["docker", "exec", "-i", "pg-ha-lab-mover", "sh", "-c", 'umask 077; cat > "$1"', "sh", f"{folder}/{name}"]
            subprocess.run(write, input=text, text=True, check=True)
        result = mover.run("PGSERVICEFILE=%s psql -X -At -c %s service=%s", f"{folder}/pg_service.conf", "SELECT current_user, pg_is_in_recovery()", service)
        assert result.stdout.strip() == ("freight_app|t" if service == "read" else "freight_app|f"), result.stderr
    finally:
        mover.run("rm -rf %s", folder)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("table", TABLES)
def test_the_old_primary_refuses_every_role(machine, role, table):
    # A rule of the application turns deletes of its settings into something else.
    privilege = "INSERT" if table == "app.settings" else "DELETE"
    statement = "INSERT INTO app.settings SELECT * FROM app.settings LIMIT 0" if table == "app.settings" else f"DELETE FROM {table} WHERE false"
    result = psql(machine("source"), f"SET default_transaction_read_only = off;\nSET ROLE {role};\n{statement};")
    assert result.rc != 0
    # Who may write there at all is refused by the fence, and not by a privilege that is not theirs.
    asked = f"\\t\nSELECT has_schema_privilege('{role}', '{table.split('.')[0]}', 'USAGE') AND has_table_privilege('{role}', '{table}', '{privilege}')"
    may = psql(machine("source"), asked).stdout.strip()
    assert (REFUSED if may == "t" else "permission denied") in result.stderr, (may, result.stderr)
    assert may == "t" or role not in ("ha_admin", "postgres", "freight_owner") or table == "ha_migration.probe"
    assert may == "t" or table != "app.settings"


@pytest.fixture(scope="module")
def old_entry(machine):
    """A pooler that still leads to the source, as one would that the cutover has never reached: a second PgBouncer beside the real one."""
    lb1, folder = machine("lb1"), "/run/old_entry"
    changes = {"listen_port": "6999", "unix_socket_dir": "", "logfile": f"{folder}/log", "pidfile": f"{folder}/pid", "log_connections": "1"}
    edits = " ".join(["-e 's#route.ini#route.source.ini#'", *(f"-e 's#^{name} =.*#{name} = {value}#'" for name, value in changes.items())])
    lb1.run_expect([0], f"install -d -o postgres -m 0700 {folder} && sed {edits} /etc/pgbouncer/pgbouncer.ini > {folder}/pgbouncer.ini")
    lb1.run_expect([0], f"systemd-run --unit=old-entry --uid=postgres pgbouncer {folder}/pgbouncer.ini && sleep 1 && systemctl is-active old-entry")
    yield "host=lb1 port=6999 dbname=freight sslmode=verify-full sslrootcert=/etc/freight_load/ca.crt passfile=/etc/freight_load/pgpass"
    lb1.run(f"systemctl stop old-entry; rm -rf {folder}")


@pytest.mark.parametrize("role", [role for role in ROLES if role.startswith("freight")])
def test_a_pooler_that_still_leads_to_the_old_primary_gets_no_write_in(machine, old_entry, role):
    statement = "INSERT INTO app.settings SELECT * FROM app.settings LIMIT 0"
    result = machine("mover").run("psql -X -c %s %s", statement, f"{old_entry} user={role}")
    # Whose login was taken on the source is nobody that a pooler could look up there.
    assert result.rc != 0 and any(words in result.stderr for words in (REFUSED, "is not permitted to log in", "no such user")), result.stderr
    # It was the source that was asked.
    log = machine("lb1").file("/run/old_entry/log").content_string
    assert re.search(rf"freight/\w+@{machine('mover').addr('source').ipv4_addresses[0]}:5432 ", log), log[-2000:]


def test_the_old_primary_refuses_a_grantee_of_public(machine):
    result = psql(machine("source"), "SET ROLE freight_guest;\nINSERT INTO app.settings SELECT * FROM app.settings LIMIT 0;")
    assert result.rc != 0 and REFUSED in result.stderr, result.stderr


def test_the_old_primary_refuses_truncate_and_copy(machine):
    for statement in ("TRUNCATE app.ledger;", "COPY app.settings FROM STDIN;\n\\."):
        result = psql(machine("source"), statement)
        assert result.rc != 0 and REFUSED in result.stderr, result.stderr


@pytest.fixture(scope="module")
def witness(machine):
    """What sessions past the pooler were answered on both sides, from before the copy to after the flip."""
    mover = machine("mover")
    mover.run("systemctl stop freight-witness")
    judge = "import json; from load import witness; print(json.dumps(witness.judge(map(json.loads, open('/var/lib/freight_load/witness.jsonl')))))"
    result = mover.run("cd /opt/freight_load && python3 -c %s", judge)
    assert result.rc == 0, result.stderr
    return json.loads(result.stdout)


def test_at_no_moment_both_sides_took_a_write(witness):
    assert witness["tries"]["source"] > 100 and witness["tries"]["target"] > 10, witness
    assert witness["one_writer"], witness


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        *((role, kind) for role in ("freight_app", "freight_owner", "freight_guest", "ha_admin") for kind in ("plain", "prepared", "repeatable read")),
        *((role, "plain") for role in ("freight_admin", "freight_batch", "freight_reader")),
    ],
)
def test_sessions_from_before_are_let_in_before_the_flip_and_refused_or_ended_after_it(witness, role, kind):
    answers = witness["answers"][f"source {role} {kind}"]
    assert "accepted" in answers
    after = answers[len(answers) - answers[::-1].index("accepted") :]
    # An application's session is ended some time after it was refused; a superuser's stays and is refused for good.
    assert after and set(after) <= {"refused", "ended", "no session"}, answers
    assert role != "ha_admin" or after[-1] == "refused", answers


@pytest.mark.parametrize("kind", ["plain", "prepared", "repeatable read"])
@pytest.mark.parametrize("role", ["freight_app", "freight_owner", "freight_guest", "ha_admin"])
def test_the_target_refuses_everybody_before_the_flip(witness, role, kind):
    answers = witness["answers"][f"target {role} {kind}"]
    before = answers[: answers.index("accepted")]
    assert "refused" in before, answers
    # Before the copy there is neither role nor table (42P01, 3F000), nor a right to it (42501); while tables are restored, a lock may be waited for in vain.
    assert set(before) <= {"refused", "no session", "ended", "42P01", "3F000", "42501"}, answers


def test_applications_cannot_log_in_on_the_old_primary(machine):
    result = psql(machine("source"), "\\t\nSELECT string_agg(rolname, ',' ORDER BY 1) FROM pg_roles WHERE rolname LIKE 'freight%' AND rolcanlogin")
    assert result.stdout.strip() == "", "roles that can still log in"


def test_no_session_of_an_application_is_left_on_the_old_primary(machine):
    result = psql(machine("source"), "\\t\nSELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'freight%'")
    assert result.stdout.strip() == "0"


def test_no_slot_is_left_on_the_old_primary(machine):
    assert psql(machine("source"), "\\t\nSELECT count(*) FROM pg_replication_slots").stdout.strip() == "0"


def test_the_target_takes_writes(leader):
    result = psql(leader, "SET ROLE freight_app;\nDELETE FROM app.ledger WHERE false;")
    assert result.rc == 0, result.stderr


def test_sequences_of_the_target_are_ahead(machine, leader):
    statement = (
        "\\t\n\\a\nSELECT schemaname || '.' || sequencename, last_value FROM pg_sequences "
        "WHERE last_value IS NOT NULL AND NOT cycle AND increment_by > 0 AND schemaname <> 'ha_migration'"
    )
    old, new = (dict(line.rsplit("|", 1) for line in psql(host, statement).stdout.splitlines() if "|" in line) for host in (machine("source"), leader))
    assert old and not [name for name, value in old.items() if int(new[name]) < int(value)]


def test_every_pooler_leads_to_the_target(machine):
    pooler = machine("lb1")
    assert pooler.file("/etc/pgbouncer/route.ini").linked_to.endswith("route.target.ini")
    assert pooler.service("pg-ha-dead-man").is_running and pooler.service("pg-ha-dead-man").is_enabled


def test_a_restarted_pooler_stays_on_the_target(machine):
    pooler = machine("lb1")
    assert pooler.run("systemctl restart pgbouncer").rc == 0
    assert pooler.file("/etc/pgbouncer/route.ini").linked_to.endswith("route.target.ini")


@pytest.mark.parametrize("name", ["pg1", "pg2", "pg3"])
def test_members_run_patroni_and_nothing_else_starts_postgresql(machine, name):
    host = machine(name)
    assert host.service("patroni").is_running and host.service("patroni").is_enabled
    assert not host.service("postgresql@17-main").is_running


@pytest.mark.parametrize("name", ["pg1", "pg2", "pg3"])
def test_the_way_back_of_each_member_waits_for_the_other_two(machine, name):
    others = ",".join(sorted({"pg1", "pg2", "pg3"} - {name}))
    assert psql(machine(name), "\\t\nSHOW synchronized_standby_slots").stdout.strip() == others


def test_every_standby_has_the_slot_of_the_way_back(machine):
    way_back = json.loads((ARTIFACTS / "cutover.json").read_text(encoding="utf-8"))["way_back"]
    assert (way_back["follows"], way_back["standbys_without"]) == (True, []), way_back
    statement = "\\t\nSELECT count(*) FROM pg_replication_slots WHERE slot_name = 'ha_migration_reverse' AND (synced AND NOT temporary OR active)"
    assert {name: psql(machine(name), statement).stdout.strip() for name in ("pg1", "pg2", "pg3")} == dict.fromkeys(("pg1", "pg2", "pg3"), "1")


def test_the_cluster_has_a_synchronous_standby(leader):
    result = psql(leader, "\\t\nSELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')")
    assert int(result.stdout.strip()) >= 1
