# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of the doing can be tried without a lab: whole families of processes die, the prober tells what a server lets in, failures are read."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys
import time

import psycopg2
import pytest
from chaos import faults, lab_state, moves

PROBER = pathlib.Path(__file__).resolve().parents[3] / "tests" / "chaos" / "prober.py"
# As ansible-playbook does: a worker in a session of its own, and a child of that one.
FAMILY = (
    "import subprocess, sys, time; "
    "child = [sys.executable, '-c', 'import subprocess, sys, time; print(subprocess.Popen([\"sleep\", \"60\"]).pid, flush=True); time.sleep(60)']; "
    "subprocess.Popen(child, start_new_session=True); time.sleep(60)"
)


def is_alive(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_a_controller_dies_with_workers_that_left_its_group():
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True) as process:
        grandchild = int(process.stdout.readline())
        family = faults.children(process.pid)
        assert len(family) == 2 and grandchild in family
        faults.kill_tree(process.pid)
        assert process.wait(5) == -9
        deadline = time.monotonic() + 5
        while any(is_alive(pid) for pid in family) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(is_alive(pid) for pid in family)


def test_who_has_died_already_is_no_error():
    process = subprocess.Popen(["true"])
    process.wait()
    faults.kill_tree(process.pid)


def test_a_command_that_fails_breaks_the_case(monkeypatch):
    monkeypatch.setattr(faults._run, "machine", lambda name, *command: subprocess.CompletedProcess(command, 1, "", "no such unit"))
    with pytest.raises(faults.Broken, match="no such unit"):
        faults.FAULTS["haproxy-killed"](faults.Scene("pg1", "pg2")).hit()


@pytest.mark.parametrize("name", ["cut", "mend", "small_disks", "fill_disks", "free_disks", "large_disks"])
def test_what_is_run_by_a_shell_is_a_script(monkeypatch, name):
    scripts = []

    def machine(_name, *command):
        scripts.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(faults._run, "machine", machine)
    if name == "cut":
        fault = faults.cut("mover", "source")
        fault.prepare(), fault.hit(), fault.cure()
    else:
        getattr(faults, name)(*(["mover"] if name == "mend" else []))
    assert scripts
    for command in scripts:
        assert command[:2] == ("sh", "-ec")
        subprocess.run(["sh", "-n", "-c", command[2]], check=True)


@pytest.mark.parametrize(
    ("link", "side"), [("/etc/pgbouncer/route.source.ini", "source"), ("route.target.ini", "target"), ("", None), ("/etc/pgbouncer/route.other.ini", None)]
)
def test_the_poolers_link_names_a_side_or_the_run_stops(monkeypatch, link, side):
    monkeypatch.setattr(lab_state._run, "machine", lambda name, *command: subprocess.CompletedProcess(command, 0, f"{link}\n", ""))
    if side is None:
        with pytest.raises(faults.Broken, match="leads to"):
            lab_state.serves()
    else:
        assert lab_state.serves() == side


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("TASK [x]\nok: [mover]\n", ""),
        ("no comparison: x\nmsg: Two gates do not hold.\n", "Two gates do not hold."),
        ('fatal: [mover]: FAILED! => {"changed": false, "msg": "It rains."}\n', "It rains."),
        (f"msg: Nothing in {lab_state._run.ROOT}/artifacts/x.json.\n", "Nothing in artifacts/x.json."),
        ("fatal: [mover]: FAILED! => \n    changed: false\n    error: Undone\n    msg: 'It was undone.'\n\nPLAY RECAP ***\n", "It was undone."),
        (
            "fatal: [mover]: FAILED! => \n    msg: first\n\nTASK [y]\n"
            "fatal: [mover]: UNREACHABLE! => \n    changed: false\n    msg: |-\n        two\n        lines\n    unreachable: true\n\n",
            "two lines",
        ),
    ],
)
def test_the_last_failure_is_told(tmp_path, output, words):
    log = tmp_path / "log"
    move = moves.Move(["printf", "%s", output], log)
    assert move.wait(5) == 0 and move.reason() == words


@pytest.fixture
def session(postgresql_server, tmp_path, monkeypatch):
    """A session of the prober on a database with the application's table."""
    spec = importlib.util.spec_from_file_location("lab_prober", PROBER)
    prober = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prober)
    name = f"prober_{os.getpid()}_{time.monotonic_ns()}"
    postgresql_server.create_database(name)
    monkeypatch.setenv("PGSERVICEFILE", postgresql_server.services(tmp_path / "service.conf", source=name))
    monkeypatch.setattr(prober, "SERVERS", {"127.0.0.1": "source", "127.0.0.2": "nowhere"})
    monkeypatch.setattr(prober, "ROLE", "postgres")
    found = prober.Session("127.0.0.1")
    found.admin = psycopg2.connect(host="127.0.0.1", port=postgresql_server.port, user="postgres", dbname=name)
    found.admin.autocommit = True
    with found.admin.cursor() as cursor:
        cursor.execute(
            "CREATE SCHEMA app; CREATE TABLE app.settings (key text); INSERT INTO app.settings VALUES ('a'); "
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no' USING ERRCODE = '25006'; END$$"
        )
    yield found
    found.admin.close()
    if found._connection is not None:
        found._connection.close()


def test_an_accepted_write_has_the_servers_own_moments_and_no_row(session):
    before = time.time()
    line = session.attempt()
    assert line["answer"] == "accepted" and before - 0.01 <= line["begin"] <= line["end"] <= time.time() + 0.01
    with session.admin.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM app.settings")
        assert cursor.fetchone() == (1,)


def test_a_guard_refuses_it(session):
    assert session.attempt()["answer"] == "accepted"
    with session.admin.cursor() as cursor:
        cursor.execute("CREATE TRIGGER guard BEFORE INSERT ON app.settings FOR EACH STATEMENT EXECUTE FUNCTION refuse()")
    assert session.attempt()["answer"] == "refused"
    with session.admin.cursor() as cursor:
        cursor.execute("DROP TRIGGER guard ON app.settings")
    assert session.attempt()["answer"] == "accepted"


def test_a_session_that_was_ended_is_opened_again(session):
    session.attempt()
    with session.admin.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", (session._connection.info.backend_pid,))
    assert [session.attempt()["answer"] for _try in range(2)] == ["ended", "accepted"]


def test_where_nobody_answers_there_is_no_session(session):
    session.server = "127.0.0.2"
    assert session.attempt()["answer"] == "no session"


@pytest.mark.parametrize(
    ("words", "side"),
    [("epoch 3 closed: source, decided by lb1", "source"), ("epoch 3 open: nobody yet, decided by -", None), ("unknown", None), ("no attempt", None)],
)
def test_the_side_that_was_decided_for(words, side):
    assert lab_state.side_decided(words) == side
