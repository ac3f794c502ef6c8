"""How each actor dies in the lab, and how it comes back. Every command that hits has to succeed: a fault that did not happen proves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import _run

SOURCE_UNIT = "postgresql@15-main"
SOURCE_PID = "/var/lib/postgresql/15/main/postmaster.pid"
TARGET_SERVERS = ("pg1", "pg2", "pg3")
POOLER = "lb1"
# Not the one whose machine the clients are on.
ETCD_MEMBER = "etcd1"
CHAIN = "PG_HA_CHAOS"
# Folders of the mover, with their modes, that a case puts on small file systems, so that filling them costs the machine below it little.
SMALL = {"/tmp": "1777", "/var/tmp": "1777", "/root/.ansible": "0700", "/root/.ansible_async": "0700"}
SMALL_SIZE = "128m"
FILLER = "pg_ha_chaos.fill"
# What a run up to the moment may need of them; the rest is taken before it, for the section stands still while a fault fills them.
ROOM_KIB = 16 * 1024
START_SECONDS = 90


class Broken(Exception):
    """Something of the lab or of the harness did not do what it had to; the message says what."""


def docker(*arguments: str) -> None:
    """A command of Docker that has to succeed."""
    result = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise Broken(f"docker {' '.join(arguments)}: {result.stderr.strip()}")


def on(name: str, *command: str) -> str:
    """A command on a machine of the lab that has to succeed; returns what it printed."""
    result = _run.machine(name, *command)
    if result.returncode:
        raise Broken(f"{name}: {' '.join(command)[:200]}: exit {result.returncode}: {(result.stderr or result.stdout).strip()[-500:]}")
    return result.stdout


def until(what: str, seconds: float, look: Callable[[], bool]) -> None:
    """Look again and again until it is so.

    :raises Broken: it was not so within the time
    """
    end = time.monotonic() + seconds
    while not look():
        if time.monotonic() > end:
            raise Broken(f"{what}: not within {seconds:g} s.")
        time.sleep(0.5)


@dataclass
class Scene:
    """Whom a fault may hit.

    :param controller: process id of ansible-playbook, or of what leads to the section on the mover
    :param leader: the target's leader when the case began
    :param standby: its synchronous standby
    :param section: process id of the critical section on the mover, once it has come to the moment
    """

    leader: str
    standby: str
    controller: int = 0
    section: int | None = None


def nothing() -> None:
    """Nothing to prepare, or to cure."""


@dataclass(frozen=True)
class Fault:
    """One fault.

    :param hit: makes it happen; quick, for the section stands still meanwhile
    :param cure: takes it away, from whatever state, also when it never happened
    :param prepare: what is slow about it, before the playbook starts
    :param goes_on: whether the section is still there afterwards and has to be told to go on
    """

    hit: Callable[[], None]
    cure: Callable[[], None] = field(default=nothing)
    prepare: Callable[[], None] = field(default=nothing)
    goes_on: bool = True


def children(parent: int, proc: Path = Path("/proc")) -> list[int]:
    """All descendants of a process. Ansible's workers lead sessions of their own, so that a signal to the group does not reach them."""
    parents: dict[int, int] = {}
    for folder in proc.iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue  # it has just ended
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [parent]
    for one in found:
        found += [pid for pid, above in parents.items() if above == one]
    return found[1:]


def kill_tree(pid: int) -> None:
    """SIGKILL for a process and all its descendants; it is stopped first, so that it starts no more of them."""
    _signal(pid, signal.SIGSTOP)
    for one in [*children(pid), pid]:
        _signal(one, signal.SIGKILL)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def start_machine(name: str) -> None:
    """Switch a machine on, or see that it is on, and wait for systemd."""
    docker("start", f"pg-ha-lab-{name}")
    states = ("running", "degraded")
    until(f"systemd on {name}", START_SECONDS, lambda: _run.machine(name, "systemctl", "is-system-running").stdout.strip() in states)


def switched_off(name: str, goes_on: bool = True) -> Fault:
    """A machine without power, then with power again."""
    return Fault(hit=lambda: docker("kill", f"pg-ha-lab-{name}"), cure=lambda: start_machine(name), goes_on=goes_on)


def unit_killed(name: str, unit: str) -> Fault:
    """SIGKILL for all processes of a unit; systemd starts it again, as on any host that the roles have set up."""
    return Fault(hit=lambda: run_on(name, "systemctl", "kill", "--signal=KILL", unit), cure=lambda: run_on(name, "systemctl", "start", unit))


def run_on(name: str, *command: str) -> None:
    """The same where nobody wants to know what it printed."""
    on(name, *command)


def start_source() -> None:
    """Start the source's server, or see that it runs."""

    def answers() -> bool:
        if _run.machine("source", "runuser", "-u", "postgres", "--", "psql", "-X", "-At", "-c", "SELECT 1").stdout.strip() == "1":
            return True
        # A start may come too early for what is left of the killed server, and too many of them in a row are refused.
        _run.machine("source", "systemctl", "reset-failed", SOURCE_UNIT)
        _run.machine("source", "systemctl", "start", SOURCE_UNIT)
        return False

    until("the source's server", START_SECONDS, answers)


def source(*command: str) -> Fault:
    """The source's server ends by a command, and is started again."""
    return Fault(hit=lambda: run_on("source", *command), cure=start_source)


def cut(name: str, *others: str) -> Fault:
    """No packet passes between a machine and others. The rules lie ready in a chain of their own; the fault only leads there."""
    rules = "; ".join(f"iptables -w -A {CHAIN} -s {other} -j DROP; iptables -w -A {CHAIN} -d {other} -j DROP" for other in others)
    lead = "; ".join(f"iptables -w -I {place} 1 -j {CHAIN}" for place in ("INPUT", "OUTPUT"))

    def prepare() -> None:
        mend(name)
        on(name, "sh", "-ec", f"iptables -w -N {CHAIN}; {rules}")

    return Fault(prepare=prepare, hit=lambda: run_on(name, "sh", "-ec", lead), cure=lambda: mend(name))


def mend(name: str) -> None:
    """Take the rules away, whatever there is of them."""
    on(
        name,
        "sh",
        "-ec",
        f"for place in INPUT OUTPUT; do while iptables -w -C $place -j {CHAIN} 2>/dev/null; do iptables -w -D $place -j {CHAIN}; done; done; "
        f"if iptables -w -n -L {CHAIN} >/dev/null 2>&1; then iptables -w -F {CHAIN}; iptables -w -X {CHAIN}; fi",
    )


def small_disks() -> None:
    """The mover's working folders become small file systems, and /run too."""
    large_disks()
    mounts = "; ".join(f"mkdir -p {folder}; mount -t tmpfs -o size={SMALL_SIZE},mode={mode} chaos {folder}" for folder, mode in SMALL.items())
    on("mover", "sh", "-ec", f"mount -o remount,size={SMALL_SIZE} /run; {mounts}")
    most = f"fallocate -l $(($(df -k --output=avail $folder | tail -n 1) - {ROOM_KIB}))K $folder/{FILLER}.before"
    on("mover", "sh", "-ec", f"for folder in {' '.join((*SMALL, '/run'))}; do {most}; done")


def fill_disks() -> None:
    """Write until nothing more goes in, and see that it is so."""
    full = "dd if=/dev/zero of=$folder/" + FILLER + " bs=64k 2>/dev/null || true; if echo more 2>/dev/null > $folder/pg_ha_chaos.more; then exit 9; fi"
    on("mover", "sh", "-ec", f"for folder in {' '.join((*SMALL, '/run'))}; do {full}; done")


def free_disks() -> None:
    """There is room again. The file systems stay: who works on them goes on."""
    on("mover", "sh", "-ec", f"for folder in {' '.join((*SMALL, '/run'))}; do rm -f $folder/{FILLER} $folder/{FILLER}.before $folder/pg_ha_chaos.more; done")


def large_disks() -> None:
    """The mover's file systems are as they were; also after it was switched off."""
    free_disks()
    unmount = 'while grep -q "^chaos $folder " /proc/mounts; do umount -l $folder; done'
    on("mover", "sh", "-ec", f"if grep -q '^chaos ' /proc/mounts; then mount -o remount,size=50% /run; for folder in {' '.join(SMALL)}; do {unmount}; done; fi")


FAULTS: dict[str, Callable[[Scene], Fault]] = {
    "controller": lambda scene: Fault(hit=lambda: kill_tree(scene.controller)),
    "mover": lambda scene: switched_off("mover", goes_on=False),
    "section": lambda scene: Fault(hit=lambda: run_on("mover", "kill", "-KILL", str(scene.section)), goes_on=False),
    "source-killed": lambda scene: source("sh", "-c", f"kill -KILL $(head -n 1 {SOURCE_PID})"),
    "source-stopped": lambda scene: source("systemctl", "stop", "--no-block", SOURCE_UNIT),
    "leader-killed": lambda scene: unit_killed(scene.leader, "patroni"),
    "leader-off": lambda scene: switched_off(scene.leader),
    "standby-off": lambda scene: switched_off(scene.standby),
    "etcd-off": lambda scene: switched_off(ETCD_MEMBER),
    "haproxy-killed": lambda scene: unit_killed(POOLER, "haproxy"),
    "pgbouncer-killed": lambda scene: unit_killed(POOLER, "pgbouncer"),
    "dead-man-killed": lambda scene: unit_killed(POOLER, "pg-ha-dead-man"),
    "net-source-mover": lambda scene: cut("mover", "source"),
    "net-target-mover": lambda scene: cut("mover", *TARGET_SERVERS),
    "net-pooler-target": lambda scene: cut(POOLER, *TARGET_SERVERS),
    "disk-full": lambda scene: Fault(prepare=small_disks, hit=fill_disks, cure=free_disks),
}
