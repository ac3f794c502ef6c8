# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults happen after the host was told to take them away, and are taken away from whatever state."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.waiting import wait_until
from ansible_collections.freight.pg_ha.plugins.module_utils._fault.client import Host, standing
from ansible_collections.freight.pg_ha.plugins.module_utils._fault.plan import ruleset
from ansible_collections.freight.pg_ha.plugins.modules import host_fault

DEFAULTS = {name: option.get("default") for name, option in host_fault.argument_spec().items()}


class World:
    """A host whose systemd and nftables are programs that write down how they were called."""

    def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.log.touch()
        programs = folder / "bin"
        programs.mkdir()
        for name in ("systemctl", "systemd-run", "nft"):
            self.program(name, "exit 0")
        monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

    def program(self, name: str, end: str) -> None:
        file = self.folder / "bin" / name
        file.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.log}\n{end}\n')
        file.chmod(0o755)

    def run(self, check_mode: bool = False, **params: t.Any) -> t.Any:
        return host_fault.run({**DEFAULTS, "name": "f", "address": "127.0.0.1", **params}, check_mode, Host("f", self.folder / "run"))

    def said(self) -> list[str]:
        found = self.log.read_text().splitlines()
        self.log.write_text("")
        return found


@pytest.fixture
def world(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


@pytest.fixture
def process(tmp_path: pathlib.Path) -> t.Iterator[pathlib.Path]:
    """A process with a child, and the file that names it."""
    code = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print('up', flush=True); import time; time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert parent.stdout is not None and parent.stdout.readline() == b"up\n"
    file = tmp_path / "postmaster.pid"
    file.write_text(f"{parent.pid}\n/data\n")
    yield file
    os.killpg(parent.pid, signal.SIGKILL)
    parent.wait()


def states(file: pathlib.Path) -> list[str]:
    """State of the process and of its children, as the kernel says."""
    pid = file.read_text().split()[0]
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pathlib.Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[0] for one in (pid, *children)]


def test_the_host_is_told_to_cure_before_it_is_hit(world: World) -> None:
    outcome = world.run(kind="process_killed", unit="patroni", cure_after_seconds=60)
    armed, hit = world.said()
    assert armed.startswith("systemd-run ") and "--unit=pg-ha-fault-f" in armed and "--on-active=60s" in armed
    assert hit == "systemctl kill --kill-whom=all --signal=KILL patroni" and outcome.result["at"] == pytest.approx(time.time(), abs=60)
    assert "\nsystemctl start patroni || failed=1\n" in (world.folder / "run" / "f" / "cure").read_text()
    assert not world.run(kind="process_killed", unit="patroni", cure_after_seconds=60).changed and world.said() == []
    cured = world.run(state="absent")
    assert cured.changed and world.said() == [
        "systemctl start patroni",
        "systemctl is-active --quiet pg-ha-fault-f.timer",
        "systemctl stop pg-ha-fault-f.timer",
    ]
    assert not world.run(state="absent").changed and world.said() == []


def test_check_mode_says_what_would_be_done(world: World) -> None:
    predicted = world.run(True, kind="unit_stopped", unit="etcd")
    assert predicted.changed and predicted.result == {"actions": ["systemctl stop etcd"], "at": None} and world.said() == []
    world.run(kind="unit_stopped", unit="etcd")
    world.said()
    assert world.run(True, state="absent").result["actions"] == ["systemctl start etcd"] and world.said() == []


def test_a_host_that_cannot_be_armed_is_not_hit(world: World) -> None:
    world.program("systemd-run", "echo no bus >&2; exit 1")
    with pytest.raises(ClientError, match="no bus"):
        world.run(kind="unit_stopped", unit="patroni")
    assert [line.split()[0] for line in world.said()] == ["systemd-run"]


def test_a_fault_that_did_not_happen_is_cured(world: World) -> None:
    world.program("nft", 'case "$1" in *drop*) echo not supported >&2; exit 1;; esac')
    with pytest.raises(ClientError, match="not supported"):
        world.run(kind="network_cut", peers=["10.0.0.1"])
    assert "nft add table inet pg_ha_fault; delete table inet pg_ha_fault" in world.said()
    assert not world.run(state="absent").changed


def test_a_cure_that_fails_is_told_and_tried_again(world: World) -> None:
    world.run(kind="unit_stopped", unit="patroni")
    world.program("systemctl", "echo masked >&2; exit 1")
    with pytest.raises(ClientError, match="masked"):
        world.run(state="absent")
    world.program("systemctl", "exit 0")
    assert world.run(state="absent").changed


def test_a_frozen_process_stands_still_with_its_children(world: World, process: pathlib.Path) -> None:
    world.run(kind="process_frozen", unit="patroni", pid_file=str(process))
    # A signal is on its way when kill returns.
    wait_until(lambda: states(process), lambda found: found == ["T", "T"], "The stop of both", 10, 0.01)
    world.run(state="absent")
    assert "systemctl kill --kill-whom=all --signal=CONT patroni" in world.said()


def test_the_named_process_alone_is_killed(world: World, process: pathlib.Path) -> None:
    pid = int(process.read_text().split()[0])
    child = int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text())
    world.run(kind="process_killed", unit="patroni", processes="named", pid_file=str(process))
    stat = pathlib.Path(f"/proc/{pid}/stat")
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0], lambda state: state in "ZX", "The end of the process", 10, 0.01)
    assert pathlib.Path(f"/proc/{child}").exists()


def test_a_full_disk_is_one_of_its_file_system(world: World) -> None:
    world.program("fallocate", "exit 0")
    world.program("dd", "exit 1")
    world.run(kind="disk_full", path=str(world.folder))
    said = world.said()
    length = int(next(line for line in said if line.startswith("fallocate")).split()[2])
    assert [line.split()[2] for line in said if line.startswith("dd")] == [f"of={world.folder}/pg_ha_fault.fill"] * 2
    free = os.statvfs(world.folder)
    assert 0 < length <= free.f_frsize * free.f_blocks and json.loads((world.folder / "run" / "f" / "fault.json").read_text())["path"] == str(world.folder)
    assert world.run(True, state="absent").result["actions"] == [f"rm -f {world.folder}/pg_ha_fault.fill"]


def test_a_server_that_takes_all_wal_was_not_hit_and_one_that_ends_was(world: World) -> None:
    world.program("runuser", 'shift 3; exec "$@"')
    world.program("psql", "exit 2")
    world.run(kind="wal_written")
    assert "pg_logical_emit_message" in "".join(world.said())
    world.run(state="absent")
    # Its clock goes a minute with each look.
    world.program("date", f"echo x >> {world.folder}/looks; expr $(wc -l < {world.folder}/looks) '*' 60")
    world.program("psql", "exit 0")
    with pytest.raises(ClientError, match="the disk that holds it is not full"):
        world.run(kind="wal_written")


@pytest.mark.parametrize("code", [1, 127])
def test_wal_that_could_not_be_asked_for_is_no_end_of_the_server(world: World, code: int) -> None:
    world.program("runuser", 'shift 3; exec "$@"')
    world.program("psql", f"echo 'why not' >&2; exit {code}")
    with pytest.raises(ClientError, match="why not"):
        world.run(kind="wal_written")


def test_every_physical_slot_is_dropped_also_one_in_use(world: World, postgresql_server: t.Any) -> None:
    environment = {**os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(postgresql_server.port), "PGUSER": "postgres"}
    psql = [str(postgresql_server.bin / "psql"), "-X", "-At", "-d", "postgres", "-c"]

    def ask(statement: str) -> str:
        return subprocess.run([*psql, statement], env=environment, check=True, capture_output=True, text=True).stdout.strip()

    # An address in the environment stands for the socket on which the host's own server listens.
    exports = "".join(f"export {name}={environment[name]}; " for name in ("PGHOST", "PGPORT", "PGUSER"))
    world.program("runuser", f'shift 3; {exports}exec "$@"')
    ask("SELECT pg_create_physical_replication_slot(name, true) FROM (VALUES ('fault_used'), ('fault_idle')) AS slots (name)")
    ask("SELECT pg_create_logical_replication_slot('fault_logical', 'pgoutput')")
    receiver = [str(postgresql_server.bin / "pg_receivewal"), "--slot=fault_used", "--directory", str(world.folder)]
    with subprocess.Popen(receiver, env=environment, stderr=subprocess.DEVNULL) as receiving:
        try:
            used = "SELECT active FROM pg_replication_slots WHERE slot_name = 'fault_used'"
            wait_until(lambda: ask(used), lambda active: active == "t", "The use of the slot", 10, 0.05)
            world.run(kind="slots_dropped")
            assert ask("SELECT string_agg(slot_name, ' ') FROM pg_replication_slots WHERE slot_name LIKE 'fault%'") == "fault_logical"
        finally:
            receiving.terminate()
            ask("SELECT pg_drop_replication_slot('fault_logical')")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"kind": "process_killed"}, "process_killed needs unit"),
        ({"kind": "process_killed", "unit": "patroni", "processes": "named"}, "needs pid_file"),
        ({"kind": "process_frozen"}, "needs unit and pid_file"),
        ({"kind": "process_frozen", "unit": "patroni", "pid_file": "/nowhere"}, "/nowhere names no process that runs"),
        ({"kind": "network_cut"}, "needs peers"),
        ({"kind": "network_cut", "peers": ["pg1"]}, "'pg1' is no IP address"),
        ({"kind": "disk_full"}, "needs path"),
        ({"kind": "unit_stopped", "unit": "etcd", "cure_after_seconds": 0}, "by itself after some time"),
        ({"kind": "unit_stopped", "unit": "etcd", "name": "a/b"}, "may hold letters"),
        ({"kind": "unit_stopped", "unit": "etcd", "address": "192.0.2.1"}, "does not have the address 192.0.2.1"),
        ({"kind": "unit_stopped", "unit": "etcd", "address": "2001:db8::1"}, "does not have the address 2001:db8::1"),
    ],
)
def test_what_cannot_be_a_fault_is_refused_before_anything_happens(world: World, params: dict[str, t.Any], words: str) -> None:
    with pytest.raises((UsageError, ClientError), match=words):
        world.run(**params)
    assert world.said() == []


def test_a_fault_that_the_host_has_cured_by_itself_stands_no_more(world: World) -> None:
    world.run(kind="unit_stopped", unit="etcd")
    script = ["/bin/sh", str(world.folder / "run" / "f" / "cure")]
    world.program("systemctl", "exit 1")
    assert subprocess.run(script, check=False).returncode != 0 and standing(world.folder / "run") == ["f"]
    world.program("systemctl", "exit 0")
    subprocess.run(script, check=True)
    assert standing(world.folder / "run") == [] and world.run(kind="unit_stopped", unit="etcd").result["at"] is not None


def test_without_a_name_all_that_stands_is_taken_away_also_beside_one_that_cannot_be(world: World) -> None:
    assert standing(world.folder / "run") == [] and not host_fault.clear(dict(DEFAULTS), False, {}).changed
    for name, unit in (("f", "etcd"), ("g", "patroni")):
        host_fault.run({**DEFAULTS, "name": name, "address": "127.0.0.1", "kind": "unit_stopped", "unit": unit}, False, Host(name, world.folder / "run"))
    hosts = {name: Host(name, world.folder / "run") for name in standing(world.folder / "run")}
    absent = {**DEFAULTS, "state": "absent"}
    predicted = host_fault.clear(absent, True, hosts)
    assert list(hosts) == ["f", "g"] and predicted.result["actions"] == ["systemctl start etcd", "systemctl start patroni"]
    world.program("systemctl", '[ "$2" != etcd ]')
    with pytest.raises(ClientError, match="systemctl start etcd"):
        host_fault.clear(absent, False, hosts)
    assert standing(world.folder / "run") == ["f"]


def test_another_fault_under_the_same_name_is_refused(world: World) -> None:
    world.run(kind="unit_stopped", unit="etcd")
    with pytest.raises(UsageError, match="Another fault of kind unit_stopped"):
        world.run(kind="unit_stopped", unit="patroni")


def test_packets_are_dropped_in_the_wanted_direction() -> None:
    both = ruleset(["10.0.0.1", "fe80::1", "10.0.0.2"], "both")
    assert "input ip saddr { 10.0.0.1, 10.0.0.2 } drop" in both and "output ip6 daddr { fe80::1 } drop" in both
    assert "output" not in ruleset(["10.0.0.1"], "in") and "input" not in ruleset(["10.0.0.1"], "out")
