# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""After the migration: where the lab's secrets are. Only in the files that are there to hold them, which nobody else may read.

Searched on every machine and on the controller: logs, journals, /tmp, /run, /etc, homes with ~/.ansible/tmp and ~/.ansible_async, arguments of
processes now and all along (lab/processes_start.yml), what the databases tell, artifacts, and Ansible's output at -vvvv of the same playbooks once more.
What the migration itself says at -vvvv, between servers that log and count every statement, is searched by tests/playbooks/test_secrets_of_a_move.py.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
SEARCHER = ROOT / "tests" / "secret_search.py"
SECRETS = ROOT / "inventories" / "lab" / "group_vars" / "all" / "secrets.yml"
ARTIFACTS = ROOT / "artifacts"
PREFIX = "pg-ha-lab-"
MEMBERS = ("pg1", "pg2", "pg3")
MACHINES = ("source", *MEMBERS, "etcd1", "etcd2", "etcd3", "lb1", "mover")
TREES = [
    "/var/log", "/tmp", "/var/tmp", "/dev/shm", "/run", "/etc", "/root", "/home", "/opt", "/srv", "/usr/local", "/var/lib/freight_load",
    "/var/lib/postgresql/.*", "/var/lib/postgresql/*/*/*.conf", "/var/lib/postgresql/*/*/log", "/var/lib/etcd",
]  # fmt: skip
# What there must be on each machine, or the search has looked at the wrong place.
THERE = ("/var/log", "/etc", "/usr/local")
# Files that are there to hold secrets: machines, path, owner, mode. A secret anywhere else is one too many, whoever may read it.
HOLDERS = [
    (("mover",), "/run/pg_ha/freight/pgpass", "root", "600"),
    (("mover",), "/run/pg_ha/freight/link_password", "root", "600"),
    (("mover",), "/etc/freight_load/pgpass", "root", "600"),
    (("lb1",), "/etc/pg_ha/dead_man/pgpass", "root", "600"),
    (("lb1",), "/etc/pgbouncer/userlist.txt", "postgres", "600"),
    (MEMBERS, "/etc/patroni/config.yml", "postgres", "600"),
    (MEMBERS, "/etc/pg_ha/link/pgpass", "postgres", "600"),
    (("source",), "/etc/postgresql/*/main/lab_passwords.sql", "postgres", "600"),
]
# Written by Patroni for its standbys, so not on every member.
MAY_HOLD = [(MEMBERS, "/var/lib/postgresql/.patroni_pgpass", "postgres", "600")]
# What a superuser sees; nothing of it may be in there.
TOLD = {
    "pg_stat_activity": "SELECT string_agg(query, ' ') FROM pg_stat_activity",
    # But the link's password in the way back's own subscription, which none but superusers read.
    "pg_subscription": (
        "SELECT 'subscriptions: ' || coalesce(string_agg(CASE subname WHEN 'ha_migration_reverse' "
        "THEN regexp_replace(subconninfo, 'password=''[^'']+''', '') ELSE subconninfo END, ' '), '') FROM pg_subscription"
    ),
    "settings": "SELECT string_agg(name || '=' || setting, ' ') FROM pg_settings",
    "settings of roles": "SELECT 'settings: ' || coalesce(string_agg(setconfig::text, ' '), '') FROM pg_db_role_setting",
    "journal and evidence": (
        "SELECT string_agg(query_to_xml(format('SELECT * FROM %s', oid::regclass), true, false, '')::text, ' ') FROM pg_class "
        "WHERE relnamespace = 'ha_migration'::regnamespace AND relkind = 'r' AND relname <> 'probe'"
    ),
}


@pytest.fixture(scope="module")
def secrets():
    """The lab's secrets by name."""
    found = {name: str(value) for name, value in yaml.safe_load(SECRETS.read_text(encoding="utf-8")).items() if name.endswith("_password")}
    assert len(found) > 10
    return found


@pytest.fixture(scope="module")
def searcher():
    """tests/secret_search.py as a module."""
    spec = importlib.util.spec_from_file_location("secret_search", SEARCHER)
    module = importlib.util.module_from_spec(spec)
    sys.modules["secret_search"] = module
    spec.loader.exec_module(module)
    return module


def on(machine, *argv, stdin=None):
    """Run a program on a machine; what it has printed."""
    done = subprocess.run(["docker", "exec", "-i", PREFIX + machine, *argv], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{machine}: {argv[0]}: {done.stderr[-500:]}"
    return done.stdout


def psql(machine, statement):
    """Ask as the superuser over the local socket."""
    return on(machine, "su", "postgres", "-c", "psql -X -At -v ON_ERROR_STOP=1 -d freight", stdin=statement)


@pytest.fixture(scope="module", params=MACHINES)
def report(request, secrets):
    """The search of one machine. Program and secrets go there on stdin: in arguments they would be for everybody."""
    order = {
        "secrets": secrets,
        "trees": TREES,
        "but": ["/run/log", "/var/log/journal"],
        "commands": {"the journal": ["journalctl", "--no-pager", "--output=cat"]},
        "sampled": "/run/lab_processes",
    }
    program = f"{SEARCHER.read_text(encoding='utf-8')}\nprint(json.dumps(search_here(json.loads({json.dumps(order)!r}))))\n"
    return request.param, json.loads(on(request.param, "python3", "-", stdin=program))


def test_every_machine_was_searched(report):
    machine, found = report
    assert found["searched"]["files"] > 100 and found["searched"]["processes"] > 3 and found["searched"]["bytes"] > 100_000, found["searched"]
    assert all(found["trees"][tree] for tree in THERE), found["trees"]
    # Modules were run there, and on the mover the programs that copy: whoever saw neither has not looked during the run.
    assert any(name.startswith("python3") for name in found["sampled"]), found["sampled"]
    if machine == "mover":
        assert {"pg_dump", "pg_restore"} & set(found["sampled"]), found["sampled"]


def test_no_secret_is_where_another_may_read_it(report):
    assert report[1]["hits"] == []


def test_secrets_are_kept_in_their_files_only(report):
    machine, found = report
    holders = [pattern for machines, pattern, _owner, _mode in (*HOLDERS, *MAY_HOLD) if machine in machines]
    strange = [hit for hit in found["kept"] if not any(fnmatch.fnmatch(hit["place"], pattern) for pattern in holders)]
    assert strange == []
    missing = [
        pattern for machines, pattern, *_rest in HOLDERS if machine in machines and not any(fnmatch.fnmatch(hit["place"], pattern) for hit in found["kept"])
    ]
    assert missing == [], "a file that holds secrets holds none: the search does not find what is there"


@pytest.mark.parametrize(("machines", "pattern", "owner", "mode"), [*HOLDERS, *MAY_HOLD], ids=str)
def test_files_that_hold_secrets_are_their_owners_alone(machines, pattern, owner, mode):
    for machine in machines:
        found = on(machine, "sh", "-c", f'for file in {pattern}; do [ ! -e "$file" ] || stat -c \'%U %a\' "$file"; done').split("\n")
        told = [line for line in found if line]
        assert told == [f"{owner} {mode}"] * len(told) and (told or pattern in [row[1] for row in MAY_HOLD]), (machine, told)


@pytest.mark.parametrize("machine", ["source", *MEMBERS])
def test_no_database_tells_a_secret(machine, secrets, searcher):
    search = searcher.Search(secrets)
    for place, statement in TOLD.items():
        text = psql(machine, statement)
        assert text.strip(), f"{place} of {machine} told nothing"
        search.text(f"{place} of {machine}", text)
    assert search.searched["places"] == len(TOLD) and search.hits == []


@pytest.mark.parametrize("machine", ["source", *MEMBERS])
@pytest.mark.parametrize(("table", "column"), [("pg_subscription", "subconninfo"), ("pg_authid", "rolpassword")])
def test_only_a_superuser_reads_what_could_hold_one(machine, table, column):
    statement = (
        "SELECT count(*), coalesce(string_agg(rolname, ' ') FILTER (WHERE "
        f"has_column_privilege(oid, 'pg_catalog.{table}', '{column}', 'SELECT')), '') FROM pg_roles WHERE NOT rolsuper AND rolname NOT LIKE 'pg\\_%'"
    )
    number, readers = psql(machine, statement).strip().split("|")
    assert int(number) > 5 and readers == ""


def test_no_secret_is_in_the_artifacts_nor_in_what_ansible_leaves_on_the_controller(secrets, searcher):
    search = searcher.Search(secrets)
    assert search.tree(str(ARTIFACTS)) > 5
    for place in ("~/.ansible/tmp", "~/.ansible/cp", "~/.ansible_async", f"{ROOT}/.pg_ha", f"{ROOT}/tests/output"):
        search.tree(place)
    assert search.hits + search.kept == []


def test_no_process_of_the_controller_had_one_in_its_arguments(secrets, searcher):
    search = searcher.Search(secrets)
    sampled = (ROOT / "lab" / "pki" / "processes").read_bytes()
    assert sampled.count(b"\n") > 50 and b"ansible-playbook" in sampled
    search.text("process list", sampled)
    assert search.hits == []


@pytest.mark.parametrize("playbook", ["migrate.yml", "status.yml", "report.yml"])
def test_ansibles_output_at_vvvv_has_none(secrets, searcher, playbook):
    program = pathlib.Path(sys.executable).with_name("ansible-playbook")
    argv = [str(program), "-i", str(ROOT / "inventories" / "lab"), str(ROOT / "playbooks" / playbook), "-vvvv", "--diff"]
    with searcher.Sampler() as sampler:
        done = subprocess.run(argv, cwd=ROOT, env={**os.environ, "ANSIBLE_NOCOLOR": "1"}, capture_output=True, check=False, timeout=1200)
    output = done.stdout + done.stderr
    search = searcher.Search(secrets)
    search.text(f"output of {playbook}", output)
    search.text("process list meanwhile", b"\n".join(sampler.seen))
    assert search.hits == []
    assert done.returncode == 0 and len(output) > 5_000 and len(sampler.seen) > 10
