#!/usr/bin/env python
"""Serve the stand-in until it is told to stop, and print its address.

    serve.py PORT [--delay SECONDS] [--bind ADDRESS] [--host ZONE=ADDRESS:PORT ... --names FILE --authority FOLDER [--detection SECONDS]]
    serve.py begin PIDFILE PORT ...     the same in the background, until `serve.py end PIDFILE`; what it says is beside that file

Port 0 takes a free one. With hosts (host.py, one for each zone: a, b) every instance is a real PostgreSQL on one of them. FILE holds the endpoints' names in
the form of /etc/hosts, for a name server; FOLDER is that of the authority whose certificates they have.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

# The service's own policies, of which Enhanced Monitoring's role has one. Before moto is imported, which reads it once.
os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from moto.server import ThreadedMotoServer  # noqa: E402

from stand_in_aws import rds  # noqa: E402
from stand_in_aws.authority import Authority  # noqa: E402
from stand_in_aws.backing import Backing  # noqa: E402

BEGINS_SECONDS = 60


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS", help="how long a change takes where no server does")
    parser.add_argument("--bind", default="127.0.0.1", metavar="ADDRESS")
    parser.add_argument("--host", action="append", default=[], metavar="ZONE=ADDRESS:PORT")
    parser.add_argument("--names", type=Path, metavar="FILE")
    parser.add_argument("--authority", type=Path, metavar="FOLDER")
    parser.add_argument("--detection", type=float, default=5.0, metavar="SECONDS", help="what passes before a standby takes over")
    found = parser.parse_args(arguments)
    if found.host and not (found.names and found.authority):
        parser.error("--host needs --names and --authority")
    return found


def backing_of(arguments: argparse.Namespace) -> Backing | None:
    """The servers behind the instances; None without hosts."""
    if not arguments.host:
        return None
    hosts = {}
    for one in arguments.host:
        zone, _is, where = one.partition("=")
        address, _colon, port = where.rpartition(":")
        hosts[zone] = (address, int(port))
    return Backing(hosts, arguments.names, Authority(arguments.authority).sign, detection_seconds=arguments.detection)


def begin(pid_file: Path, arguments: list[str]) -> int:
    """Have another process serve, which outlives this one. Returns when it answers.

    The lock on the file is the process's life: a number alone may be somebody else's by now.
    """
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    with pid_file.with_name("log").open("w", encoding="utf-8") as log, pid_file.open("w", encoding="utf-8") as held:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        command = [sys.executable, __file__, *arguments]
        served = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=[held.fileno()])
        held.write(str(served.pid))
    until = time.monotonic() + BEGINS_SECONDS
    while time.monotonic() < until and served.poll() is None:
        if "http://" in pid_file.with_name("log").read_text(encoding="utf-8"):
            return 0
        time.sleep(0.1)
    return 1


def end(pid_file: Path) -> int:
    """End the one that serves, if it does."""
    with pid_file.open(encoding="utf-8") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.kill(int(held.read()), signal.SIGTERM)
            fcntl.flock(held, fcntl.LOCK_EX)
    pid_file.unlink()
    return 0


def main() -> int:
    """Serve."""
    if sys.argv[1:2] == ["begin"]:
        return begin(Path(sys.argv[2]), sys.argv[3:])
    if sys.argv[1:2] == ["end"]:
        return end(Path(sys.argv[2]))
    arguments = parse(sys.argv[1:])
    rds.install()
    rds.delay_seconds, rds.backing = arguments.delay, backing_of(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = ThreadedMotoServer(ip_address=arguments.bind, port=arguments.port, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"http://{host}:{port}", flush=True)
    stop.wait()
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
