"""Where the lab stands: whole or not, which side serves; and how it is brought to where a case begins."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import _run

from . import faults, matrix, moves
from .faults import POOLER, TARGET_SERVERS, Broken

T = TypeVar("T")
Result = TypeVar("Result")

LOGS = _run.ROOT / ".build" / "chaos"
MACHINES = ("source", *TARGET_SERVERS, "etcd1", "etcd2", "etcd3", POOLER, "mover")
UNITS = {POOLER: ("haproxy", "pgbouncer", "pg-ha-dead-man"), **{name: ("etcd",) for name in MACHINES if name.startswith("etcd")}}
HEALTH_SECONDS = 180
LINK_SECONDS = 30
BETWEEN_SECONDS = 300
MANY_ROWS = 100000
# Each case compares all rows twice, and what is looked at does not depend on how many there are.
SOURCE_SIZE_MB = 60
RESET = "tests/bench/reset.yml"


def say(text: str) -> None:
    """One line for the reader, at once."""
    print(text, flush=True)


def ask(name: str, statement: str, database: str = "freight") -> list[list[str]] | None:
    """Rows of a statement by the superuser on a server's own machine; None when it does not answer."""
    result = _run.machine(name, "runuser", "-u", "postgres", "--", "psql", "-X", "-q", "-At", "-F", "\t", "-d", database, "-c", statement)
    return None if result.returncode else [line.split("\t") for line in result.stdout.splitlines()]


def at_once(look: Callable[[T], Result], what: Iterable[T]) -> list[Result]:
    """Look at all of them at the same time; a look at a machine is mostly waiting. Results in the order of what was asked."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(look, what))


def leaders() -> list[str]:
    """Servers of the target that are no standby."""
    answers = at_once(lambda name: ask(name, "SELECT pg_is_in_recovery()", "postgres"), TARGET_SERVERS)
    return [name for name, answer in zip(TARGET_SERVERS, answers, strict=True) if answer == [["f"]]]


STANDBYS = "SELECT application_name, sync_state FROM pg_stat_replication WHERE state = 'streaming' AND application_name IN ('pg1', 'pg2', 'pg3')"


def members() -> tuple[str, str]:
    """The target's leader and its synchronous standby.

    :raises Broken: there is not one leader, or no synchronous standby
    """
    found = leaders()
    standbys = [name for name, state in (ask(found[0], STANDBYS, "postgres") or []) if state in ("sync", "quorum")] if len(found) == 1 else []
    if not standbys:
        raise Broken(f"The target has the leaders {found} and no synchronous standby.")
    return found[0], standbys[0]


def has_synchronous_standby() -> bool:
    """Whether the target is such that a move is not refused for its sake."""
    try:
        members()
    except Broken:
        return False
    return True


def serves() -> str:
    """The side that the pooler's link names.

    :raises Broken: it names neither
    """
    name = _run.machine(POOLER, "readlink", "/etc/pgbouncer/route.ini").stdout.strip()
    match = re.fullmatch(r"(?:.*/)?route\.(source|target)\.ini", name)
    if match is None:
        raise Broken(f"The pooler's link leads to {name!r}.")
    return match[1]


def decided(side: str) -> str:
    """The last attempt that left a side and what was decided, in words; ``unknown`` when the side does not answer."""
    where = "source" if side == "source" else next(iter(leaders()), None)
    rows = ask(where, "SELECT to_regclass('ha_migration.epoch') IS NOT NULL") if where else None
    if rows is None or where is None:
        return "unknown"
    if rows != [["t"]]:
        return "nothing begun"
    rows = ask(
        where,
        "SELECT e.epoch, e.state, coalesce(d.serves, 'nobody yet'), coalesce(d.decided_by, '-') FROM ha_migration.epoch e "
        "LEFT JOIN ha_migration.decision d USING (epoch) ORDER BY e.epoch DESC LIMIT 1",
    )
    if not rows:
        return "unknown" if rows is None else "no attempt"
    epoch, state, side_decided, by = rows[0]
    return f"epoch {epoch} {state}: {side_decided}, decided by {by}"


def epoch_of(words: str) -> int:
    """Number of the attempt of which :func:`decided` speaks, 0 without one or when it could not be read."""
    match = re.match(r"epoch (\d+)", words)
    return int(match[1]) if match else 0


def side_decided(words: str) -> str | None:
    """The side of which :func:`decided` says that it serves, None when nothing was decided or could be read."""
    match = re.search(r": (source|target), decided by ", words)
    return match[1] if match else None


def running() -> set[str]:
    """Machines that are on."""
    names = subprocess.run(["docker", "ps", "--format", "{{.Names}}"], capture_output=True, text=True, check=True).stdout.split()
    return {name.removeprefix("pg-ha-lab-") for name in names}


def ailments() -> list[str]:
    """What is not as it has to be between two cases."""
    found = []
    if down := sorted(set(MACHINES) - running()):
        return [f"{', '.join(down)} is off"]
    units = [(unit, name) for name, units in UNITS.items() for unit in units]
    states = at_once(lambda pair: _run.machine(pair[1], "systemctl", "is-active", pair[0]).stdout.strip(), units)
    found += [f"{unit} on {name} is not active" for (unit, name), state in zip(units, states, strict=True) if state != "active"]
    if ask("source", "SELECT 1") != [["1"]]:
        found.append("the source does not answer")
    leading = leaders()
    standbys = (ask(leading[0], STANDBYS, "postgres") or []) if len(leading) == 1 else []
    if len(standbys) != len(TARGET_SERVERS) - 1 or not any(state in ("sync", "quorum") for _name, state in standbys):
        found.append(f"the target has the leaders {leading} and the standbys {standbys}")
    return found


def loose_slots() -> list[str]:
    """Slots of links that nobody reads: a link that stands still, and WAL that is kept for ever."""
    found = []
    for name in ("source", *leaders()):
        rows = ask(name, "SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'ha_migration%' AND NOT active", "postgres")
        found += [f"{name} does not say which slots it has"] if rows is None else [f"nobody reads the slot {row[0]} on {name}" for row in rows]
    return found


def heal() -> None:
    """Take every fault away and wait until the lab is whole.

    :raises Broken: it does not become whole
    """
    for name in sorted(set(MACHINES) - running()):
        faults.start_machine(name)
    faults.start_source()
    for name in ("mover", POOLER):
        faults.mend(name)
    faults.large_disks()
    wait_until_whole()


def wait_until_whole() -> None:
    """Wait until nothing ails.

    :raises Broken: the lab does not become whole
    """
    end = time.monotonic() + HEALTH_SECONDS
    while found := ailments():
        if time.monotonic() > end:
            raise Broken(f"The lab is not whole after {HEALTH_SECONDS} s: {'; '.join(found)}.")
        time.sleep(1)


def play(path: str, log: Path, *arguments: str) -> int:
    """Run a playbook with its output in a log; returns its exit code."""
    return moves.Move(_run.playbook(path, *arguments), log).process.wait()


def uncovered() -> list[str]:
    """Standbys of a target that serves which do not have the slot of the way back. They look for new ones twice a minute, and at once when told to reload."""
    leading = leaders()
    if serves() != "target" or len(leading) != 1:
        return []
    found = []
    for name in set(TARGET_SERVERS) - set(leading):
        statement = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'ha_migration_reverse' AND synced AND NOT temporary"
        if ask(name, statement, "postgres") != [["1"]]:
            found.append(f"{name} does not have the slot of the way back")
            ask(name, "SELECT pg_reload_conf()", "postgres")
    return found


def following() -> list[str]:
    """Slots that nobody reads, or that standbys lack, although there was time for it."""
    end = time.monotonic() + LINK_SECONDS
    while (found := loose_slots() + uncovered()) and time.monotonic() < end:
        time.sleep(1)
    return found


def bring(case: matrix.Case, ready: bool) -> None:
    """Have the lab whole and the side that the case leaves serve; a copy begins with an empty target.

    :param ready: whether the case before has just seen that it is whole, with every link followed
    :raises Broken: it cannot be brought there
    """
    if not ready:
        heal()
    if serves() != case.leaves:
        direction = matrix.direction_to(case.leaves)
        say(f"   first {direction}, without a fault")
        if moves.move(direction, case.by, LOGS / "between.log").wait(BETWEEN_SECONDS):
            _start_anew(case, "that failed (its output is in .build/chaos/between.log)")
        ready = False
    if case.moment == "copy":
        _reset()
    elif not ready and (loose := following()):
        _start_anew(case, "; ".join(loose))
    _forget_old_writes(case.leaves)
    if case.moment == "follow":
        # The moment is in the comparison, which a playbook does not repeat while the last one holds: as after the lab was made.
        ask(leaders()[0], "DELETE FROM ha_migration.phase WHERE phase = 'verify'")
    if serves() != case.leaves:
        raise Broken(f"The pooler leads to the {serves()}, and {case.name} begins at the {case.leaves}.")


def _forget_old_writes(side: str) -> None:
    """The rows that hundreds of loads have left would make each comparison slower than the one before."""
    where = "source" if side == "source" else leaders()[0]
    if int((ask(where, "SELECT count(*) FROM app.ledger WHERE note LIKE 'load %'") or [["0"]])[0][0]) > MANY_ROWS:
        ask(where, "DELETE FROM app.ledger WHERE note LIKE 'load %'")


def _start_anew(case: matrix.Case, why: str) -> None:
    """What is there cannot be moved: throw the target's rows away, and go there again if the case begins there."""
    say(f"   from the beginning: {why}")
    heal()
    _reset()
    if case.leaves == "target":
        _play_or_break(matrix.PLAYBOOKS[matrix.CUT_OVER])
    elif case.by == matrix.SECTION:
        # The section alone begins with a target that follows.
        _play_or_break(matrix.PLAYBOOKS[matrix.CUT_OVER], "-e", "pg_ha_cutover_approved=false")


def _reset() -> None:
    moves.keep_connections()
    _play_or_break(RESET)


def _play_or_break(path: str, *arguments: str) -> None:
    log = LOGS / "anew.log"
    if play(path, log, *arguments):
        sys.stderr.write("".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-40:]))
        raise Broken(f"{path} failed: the whole output is in {log.relative_to(_run.ROOT)}.")


def build() -> None:
    """The lab with its target, which follows, and with a dead man beside the pooler; the source serves. Nothing to do where it is there."""
    forward = _run.playbook(matrix.PLAYBOOKS[matrix.CUT_OVER], "-e", "pg_ha_cutover_approved=false")
    up = [sys.executable, str(_run.ROOT / "lab" / "up"), "-e", f"lab_source_size_mb={SOURCE_SIZE_MB}"]
    for command in (up, _run.playbook("playbooks/provision.yml"), forward):
        if subprocess.run(command, cwd=_run.ROOT, env=_run.environment(), check=False).returncode:
            raise Broken(f"{command[-1]} failed.")


def is_built() -> bool:
    """Whether every machine is there and the pooler has been provisioned."""
    there = subprocess.run(["docker", "ps", "-a", "--format", "{{.Names}}"], capture_output=True, text=True, check=True).stdout.split()
    if not {f"pg-ha-lab-{name}" for name in MACHINES} <= set(there):
        return False
    for name in MACHINES:
        faults.start_machine(name)
    return _run.machine(POOLER, "readlink", "/etc/pgbouncer/route.ini").returncode == 0
