"""A small file system for the WAL of each member of the lab, so that scenario data_disk_full fills it and not the machine's own disk."""

from __future__ import annotations

from chaos import lab_state
from chaos.faults import on

DATA = "/var/lib/postgresql/17/main"
WAL = f"{DATA}/pg_wal"
# Holds max_wal_size and some more.
SIZE = "1600m"
_SMALL = f"mv {WAL} {WAL}.disk; install -d -o postgres -g postgres -m 0700 {WAL}; mount -t tmpfs -o size={SIZE},mode=0700 small {WAL}; chown postgres: {WAL}; "
_SMALL += f"cp -a {WAL}.disk/. {WAL}/; rm -r {WAL}.disk; "
_LARGE = f"cp -a {WAL} {WAL}.large; umount {WAL}; rmdir {WAL}; mv {WAL}.large {WAL}; "


def is_small(name: str) -> bool:
    """Whether a member has it."""
    return f" {WAL} tmpfs " in on(name, "cat", "/proc/mounts")


def _exchange(name: str, script: str) -> None:
    on(name, "sh", "-ec", f"systemctl stop patroni; {script}systemctl start patroni")
    lab_state.wait_until_whole()


def make() -> None:
    """One member after the other; nothing to do where it is so.

    :raises Broken: the cluster does not become whole in between
    """
    for name in lab_state.TARGET_SERVERS:
        if not is_small(name):
            _exchange(name, _SMALL)


def undo() -> None:
    """WAL is on the members' disks again; nothing to do where it is so.

    :raises Broken: the cluster does not become whole in between
    """
    for name in lab_state.TARGET_SERVERS:
        if is_small(name):
            _exchange(name, _LARGE)
