# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Faults of a host as commands: what makes each happen and what takes it away from whatever state (pure).

A cure is a list of commands that also works when the fault never happened, and that the host can run by itself.
"""

from __future__ import annotations

import ipaddress
import shlex
import typing as t
from dataclasses import dataclass

from .._core.errors import UsageError

KILLED, STOPPED, FROZEN, CUT = "process_killed", "unit_stopped", "process_frozen", "network_cut"
FULL, WAL, SLOTS = "disk_full", "wal_written", "slots_dropped"
KINDS = (KILLED, STOPPED, FROZEN, CUT, FULL, WAL, SLOTS)
NEEDS = {KILLED: ("unit",), STOPPED: ("unit",), FROZEN: ("unit", "pid_file"), CUT: ("peers",), FULL: ("path",), WAL: (), SLOTS: ()}
# What of a unit is hit: its main process, everything in it, or the process that a file names, with its children.
MAIN, ALL, NAMED = "main", "all", "named"
TABLE = "pg_ha_fault"
FILLER = "pg_ha_fault.fill"
# What is left for the end, which goes in page by page: whoever else writes there takes or gives some meanwhile.
LEFT_BYTES = 32 << 20
PAGE_BYTES = 4096
_FILL = "".join(f'while dd if=/dev/zero of="$1" bs={size} count=1 oflag=append conv=notrunc 2>/dev/null; do :; done; ' for size in ("64k", PAGE_BYTES))
_SUPERUSER = ("runuser", "-u", "postgres", "--")
WAL_SECONDS = 60
# Segments that lie ready take some of it on a disk that is full.
_WRITE_WAL = f"""end=$(($(date +%s) + {WAL_SECONDS}))
while [ "$(date +%s)" -lt "$end" ]; do
  psql -X -q -d postgres -c "SELECT pg_logical_emit_message(false, 'pg_ha_fault', repeat('x', 4000000))" >/dev/null && continue
  # 2: psql has lost its session, or found no server. Anything else is no end of the server.
  if [ $? -eq 2 ]; then exit 0; fi
  exit 1
done
echo "WAL could be written for {WAL_SECONDS} s: the disk that holds it is not full." >&2
exit 1"""
# A standby may connect again between its end and the drop.
_DROP_SLOTS = """
DO $$
DECLARE one record;
BEGIN
  FOR one IN SELECT slot_name FROM pg_catalog.pg_replication_slots WHERE slot_type = 'physical' AND NOT temporary LOOP
    FOR try IN 1..100 LOOP
      BEGIN
        PERFORM pg_catalog.pg_terminate_backend(active_pid, 1000) FROM pg_catalog.pg_replication_slots WHERE slot_name = one.slot_name AND active;
        PERFORM pg_catalog.pg_drop_replication_slot(one.slot_name);
        EXIT;
      EXCEPTION WHEN object_in_use THEN
        IF try = 100 THEN RAISE; END IF;
      END;
    END LOOP;
  END LOOP;
END $$
"""


@dataclass(frozen=True)
class Fault:
    """One fault.

    :param hit: commands, in order; ``stdin`` goes to the one before
    :param cure: commands, in order; every one of them is run though one before it failed
    """

    hit: tuple[tuple[str, ...], ...]
    cure: tuple[tuple[str, ...], ...]

    def script(self, folder: str) -> str:
        """The cure as a shell script, for the host's own timer: it runs when nobody of ours is there any more.

        :param folder: what says that the fault stands; it stays where a command failed
        """
        tries = "".join(f"{shlex.join(command)} || failed=1\n" for command in self.cure)
        return f'#!/bin/sh\nfailed=0\n{tries}[ "$failed" -eq 0 ] && rm -rf {shlex.quote(folder)}\n'


def check(params: dict[str, t.Any]) -> None:
    """Refuse what cannot be a fault.

    :raises UsageError: an option is missing or senseless
    """
    missing = [name for name in NEEDS[params["kind"]] if not params[name]]
    if params["kind"] == KILLED and params["processes"] == NAMED and not params["pid_file"]:
        missing.append("pid_file")
    if missing:
        raise UsageError(f"A fault of kind {params['kind']} needs {' and '.join(missing)}.")
    if params["cure_after_seconds"] <= 0:
        raise UsageError(f"cure_after_seconds is {params['cure_after_seconds']}: the host has to take the fault away by itself after some time.")
    for peer in params["peers"]:
        try:
            ipaddress.ip_address(peer)
        except ValueError:
            raise UsageError(f"The peer {peer!r} is no IP address (peers of a network cut are addresses, for names may not be found any more).") from None


def plan_fault(params: dict[str, t.Any], pids: t.Sequence[int], free_bytes: int) -> Fault:
    """The commands of a fault.

    :param pids: of the process that ``pid_file`` names, the process first, then its children; empty where none is wanted
    :param free_bytes: of the file system that holds ``path``
    """
    unit = params["unit"]
    start = ("systemctl", "start", unit or "")
    if params["kind"] == KILLED:
        if params["processes"] == NAMED:
            # Its children end by themselves when they see it gone, as after a crash.
            return Fault((("kill", "-KILL", str(pids[0])),), (start,))
        return Fault((("systemctl", "kill", f"--kill-whom={params['processes']}", "--signal=KILL", unit),), (start,))
    if params["kind"] == STOPPED:
        return Fault((("systemctl", "stop", unit),), (start,))
    if params["kind"] == FROZEN:
        # Whoever of the unit stands still goes on: pids may be another's by then.
        return Fault((("kill", "-STOP", *map(str, pids)),), (("systemctl", "kill", "--kill-whom=all", "--signal=CONT", unit), start))
    if params["kind"] == FULL:
        filler = f"{params['path']}/{FILLER}"
        length = str(max(PAGE_BYTES, free_bytes - LEFT_BYTES))
        return Fault((("fallocate", "--length", length, filler), ("sh", "-c", _FILL, "fill", filler)), (("rm", "-f", filler),))
    if params["kind"] == WAL:
        return Fault(((*_SUPERUSER, "sh", "-c", _WRITE_WAL),), ())
    if params["kind"] == SLOTS:
        # Whoever runs the cluster makes them again.
        return Fault(((*_SUPERUSER, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", _DROP_SLOTS.strip()),), ())
    return Fault(
        # One transaction: packets are dropped to and from all of them at the same moment.
        (("nft", ruleset(params["peers"], params["direction"])),),
        (("nft", f"add table inet {TABLE}; delete table inet {TABLE}"),),
    )


def ruleset(peers: t.Sequence[str], direction: str) -> str:
    """Commands of nftables that drop packets from (``in``), to (``out``) or from and to some addresses.

    https://wiki.nftables.org/wiki-nftables/index.php/Quick_reference-nftables_in_10_minutes
    """
    families = {"ip": [peer for peer in peers if ":" not in peer], "ip6": [peer for peer in peers if ":" in peer]}
    parts = [f"add table inet {TABLE}"]
    for hook, side, name in (("input", "saddr", "in"), ("output", "daddr", "out")):
        if direction in (name, "both"):
            parts.append(f"add chain inet {TABLE} {hook} {{ type filter hook {hook} priority -200; policy accept; }}")
            parts += [f"add rule inet {TABLE} {hook} {family} {side} {{ {', '.join(ours)} }} drop" for family, ours in families.items() if ours]
    return "; ".join(parts)
