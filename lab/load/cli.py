# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The load's command line: start, status, stop, verdict."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import re
import signal
import sys
import time
import typing as t
from decimal import Decimal

if importlib.util.find_spec("module_utils") is None:  # run from a checkout: the collection's own copy
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "plugins"))

from module_utils._core.errors import PgHaError, UsageError
from module_utils._ledger import driver, model, plan
from module_utils._ledger.record import RunFolder

from .workload import LoadWorkload, read_statements

DEFAULT_DIR = "/var/lib/freight_load"
DSN_VARIABLE = "FREIGHT_LOAD_DSN"
STATEMENTS = pathlib.Path(__file__).with_name("statements.sql")
MAX_ACCOUNTS = 10000
START_TIMEOUT_SECONDS = 20
STOP_TIMEOUT_SECONDS = 30


class Load:
    """A run of the load: its folder and, beside the record, ``load.json`` with what the run was begun with (no secret) and ``balances.json``."""

    def __init__(self, path: pathlib.Path) -> None:
        self.folder = RunFolder(path)

    @classmethod
    def current(cls, base: pathlib.Path) -> Load:
        """The run begun last.

        :raises UsageError: there is none
        """
        link = base / "current"
        if not link.is_symlink():
            raise UsageError(f"No load was ever started in {base}.")
        return cls(base / os.readlink(link))

    def write(self, name: str, value: t.Any) -> None:
        """A JSON file in the folder."""
        (self.folder.path / name).write_text(json.dumps(value) + "\n", encoding="utf-8")

    def read(self, name: str) -> t.Any:
        """The same back."""
        return json.loads((self.folder.path / name).read_text(encoding="utf-8"))

    def connect(self) -> t.Callable[[], t.Any]:
        """How its clients connect."""
        return connector(self.read("load.json")["connection"])

    def workload(self) -> LoadWorkload:
        """What its clients do."""
        settings = self.read("load.json")
        return LoadWorkload(
            run=self.folder.read_header().run,
            ledger=settings["ledger"],
            accounts=settings["accounts"],
            account_ids=tuple(int(account) for account in self.read("balances.json")),
            statements=tuple(settings["statements"]),
            statements_every=settings["statements_every"],
        )


def connector(connection: dict[str, str | None]) -> t.Callable[[], t.Any]:
    """A connection by service or by a DSN that stands in a private file or the environment.

    :raises UsageError: a file that others may read, or nothing to connect by
    """
    for path in (connection["service_file"], connection["dsn_file"]):
        if path is not None and os.stat(path).st_mode & 0o077:
            raise UsageError(f"{path} may be read by others; chmod 0600 it first.")
    if connection["dsn_file"] is not None:
        return driver.connector("freight_load", dsn=pathlib.Path(connection["dsn_file"]).read_text(encoding="utf-8").strip())
    if connection["service"] is not None:
        if connection["service_file"] is not None:
            driver.use_service_file(connection["service_file"])
        return driver.connector("freight_load", service=connection["service"])
    if DSN_VARIABLE in os.environ:
        return driver.connector("freight_load", dsn=os.environ[DSN_VARIABLE])
    raise UsageError(f"Say how to connect: --service (with --service-file), --dsn-file, or a DSN in {DSN_VARIABLE}.")


def read_balances(connect: t.Callable[[], t.Any], accounts: str, *more: str) -> tuple[dict[int, Decimal], list[list[tuple[t.Any, ...]]]]:
    """The balances of the accounts that the load uses, and the rows of further queries in the same snapshot."""
    first, *others = driver.fetch(connect, f"SELECT id, balance FROM {accounts} ORDER BY id LIMIT {MAX_ACCOUNTS}", *more)
    return {int(account): Decimal(balance) for account, balance in first}, others


def prepare(arguments: argparse.Namespace) -> Load:
    """Make the run: its folder, the balances before it and its header.

    :raises PgHaError: a load runs already, the tables cannot be read, there are no accounts
    """
    for name in (arguments.ledger, arguments.accounts):
        if not re.fullmatch(r'[\w."]+', name):
            raise UsageError(f"{name!r} is not the name of a table.")
    base = pathlib.Path(arguments.dir)
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (base / "current").is_symlink() and Load.current(base).folder.is_running():
        raise UsageError("A load is running already; stop it first.")
    connection = {"service_file": arguments.service_file, "service": arguments.service, "dsn_file": arguments.dsn_file}
    balances, [[(last,)]] = read_balances(connector(connection), arguments.accounts, f"SELECT coalesce(max(seq), 0) FROM {arguments.ledger}")
    if not balances:
        raise UsageError(f"{arguments.accounts} holds no account, so there is nothing to write to.")
    run = arguments.run or time.strftime("%Y%m%dt%H%M%S")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", run):
        raise UsageError(f"The run's name {run!r} may hold letters, digits, _ and - only.")
    load = Load(base / run)
    if load.folder.exists():
        raise UsageError(f"{base / run} holds a run already; choose another name.")
    load.folder.path.mkdir(mode=0o700, exist_ok=True)
    load.write("balances.json", {str(account): str(balance) for account, balance in balances.items()})
    settings = {name: getattr(arguments, name) for name in ("ledger", "accounts", "statements_every", "seconds", "processes")}
    statements = read_statements(arguments.statements.read_text(encoding="utf-8"))
    load.write("load.json", {**settings, "connection": connection, "statements": statements})
    load.folder.create(driver.new_header(run, "load", arguments.clients, arguments.rate, int(last) + 1))
    link = base / "current.new"
    link.unlink(missing_ok=True)
    link.symlink_to(run)
    link.rename(base / "current")
    return load


def supervise(load: Load) -> bool:
    """Run the clients in a few processes; True when all ended in good order. SIGTERM and SIGINT ask for the end."""
    lock = load.folder.lock()
    if not lock.acquire():
        raise UsageError("This run has just been begun by somebody else.")
    settings, clients = load.read("load.json"), load.folder.read_header().clients
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: load.folder.request_stop())
    end = time.monotonic() + settings["seconds"]
    shares = [list(range(first, clients, settings["processes"])) for first in range(min(settings["processes"], clients))]
    supervisor = os.getpid()
    children = [_fork_worker(load, share, end, supervisor) for share in shares]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return not any(codes)


def _fork_worker(load: Load, clients: list[int], end: float, supervisor: int) -> int:
    """A process that runs some of the clients; it ends with its supervisor, which holds the lock."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # a terminal's ^C reaches all of them, the stop comes by the file

        def should_stop() -> bool:
            return load.folder.stop_requested() or time.monotonic() >= end or os.getppid() != supervisor

        code = 0 if driver.drive(load.folder, load.workload(), load.connect(), should_stop, clients=clients) else 1
    except Exception as error:  # the child must not run on into its parent's code
        print(f"worker of clients {clients}: {error!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def daemonize(load: Load) -> None:
    """Leave the terminal: returns in the daemon only; the caller's process has a fork of its own to go on with."""
    os.setsid()
    if os.fork():
        os._exit(0)
    os.chdir("/")
    log = os.open(load.folder.path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, descriptor in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, descriptor)


def start(arguments: argparse.Namespace) -> int:
    """Begin a run; with --foreground until its end, else until every client has been acknowledged once."""
    load = prepare(arguments)
    if arguments.foreground:
        return 0 if supervise(load) else 1
    child = os.fork()
    if not child:
        code = 1
        try:
            daemonize(load)
            code = 0 if supervise(load) else 1
        except Exception as error:
            print(repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    os.waitpid(child, 0)
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while True:
        live = load.folder.read_live()
        if live["clients_begun"] == live["clients"] and live["acknowledged"] >= live["clients"]:
            print(json.dumps(live))
            return 0
        if time.monotonic() > deadline:
            load.folder.request_stop()
            errors = [error["message"] for error in load.folder.read_errors(3)]
            raise PgHaError(
                f"The load did not come up within {START_TIMEOUT_SECONDS} s and was asked to stop; first errors: {errors}; log: {load.folder.path}/log"
            )
        time.sleep(0.1)


def status(arguments: argparse.Namespace) -> int:
    """One JSON line; exit 0 while it runs, 3 when it does not."""
    live = Load.current(pathlib.Path(arguments.dir)).folder.read_live()
    print(json.dumps(live))
    return 0 if live["running"] else 3


def stop(arguments: argparse.Namespace) -> int:
    """Ask for the end and wait for it."""
    load = Load.current(pathlib.Path(arguments.dir))
    load.folder.request_stop()
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while load.folder.is_running():
        if time.monotonic() > deadline:
            raise PgHaError(f"The load did not stop within {STOP_TIMEOUT_SECONDS} s.")
        time.sleep(0.1)
    print(json.dumps(load.folder.read_live()))
    return 0


def judge(load: Load, around: str | None, window_seconds: float) -> dict[str, t.Any]:
    """The verdict over a run, by what the pooler's side serves now. Of a running load without its balances: they move."""
    window = None if around is None else plan.Window.of(around, window_seconds)
    running = load.folder.is_running()
    record, workload = load.folder.read_record(), load.workload()
    after, [rows] = read_balances(load.connect(), workload.accounts, workload.rows(record.header.first_seq))
    before = {int(account): Decimal(balance) for account, balance in load.read("balances.json").items()}
    balances = None if running else model.Balances(workload.amounts, before, {account: after[account] for account in after.keys() & before.keys()})
    pairs = ((client, seq) for client, seq in rows)
    verdict = plan.judge(record, pairs, balances=balances, window=window, running=running)
    return {**verdict, "running": running, "first_errors": load.folder.read_errors()}


def verdict(arguments: argparse.Namespace) -> int:
    """Exit 0 only when nothing was lost, nothing took effect twice and no client saw an error."""
    load = Load.current(pathlib.Path(arguments.dir))
    if load.folder.is_running() and not arguments.live:
        raise UsageError("The load is running; stop it first, or ask for a verdict on what it has done so far with --live.")
    found = judge(load, arguments.around, arguments.window)
    if arguments.json:
        print(json.dumps(found))
    else:
        for name in ("run", "seconds", "transactions_per_second", "acknowledged", "lost", "duplicated", "unexpected", "unknown", "errors", "errors_by_class"):
            print(f"{name:26}{found[name]}")
        for name in ("write_pause_ms", "write_pause_at", "write_pause_whole_run_ms", "longest_client_stall_ms", "latency_ms"):
            print(f"{name:26}{found[name]}")
        print("\n".join(found["problems"]) or "ok")
    return 0 if found["ok"] else 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="load", description="The freight application under load: durable record of every acknowledged write, and the verdict.")
    top.add_argument("--dir", default=DEFAULT_DIR, help="folder of the runs (%(default)s)")
    commands = top.add_subparsers(dest="command", required=True)
    one = commands.add_parser("start", help="begin a run and return when every client writes")
    one.set_defaults(work=start)
    one.add_argument("--service-file", help="libpq service file, mode 0600")
    one.add_argument("--service", help="service of the pooler in it")
    one.add_argument("--dsn-file", help=f"file of mode 0600 with a DSN (or set {DSN_VARIABLE})")
    one.add_argument("--run", help="name of the run (the time)")
    one.add_argument("--clients", type=int, default=16)
    one.add_argument("--rate", type=float, default=600, help="transactions per second of all clients together (%(default)s)")
    one.add_argument("--processes", type=int, default=4)
    one.add_argument("--seconds", type=float, default=3600, help="end after this time though nobody has asked (%(default)s)")
    one.add_argument("--ledger", default="app.ledger")
    one.add_argument("--accounts", default="app.accounts")
    one.add_argument("--statements", type=pathlib.Path, default=STATEMENTS, help="file with further statements, one per line; /dev/null for none (%(default)s)")
    one.add_argument("--statements-every", type=int, default=10, help="one of them joins every n-th write (%(default)s)")
    one.add_argument("--foreground", action="store_true", help="stay until the end (for systemd-run)")
    commands.add_parser("status", help="one JSON line with live figures; exit 3 when it does not run").set_defaults(work=status)
    commands.add_parser("stop", help="end in good order").set_defaults(work=stop)
    judged = commands.add_parser("verdict", help="compare the record with the database; exit 0 only when all is well")
    judged.set_defaults(work=verdict)
    judged.add_argument("--json", action="store_true")
    judged.add_argument("--around", help="moment of the flip, ISO 8601 with zone or seconds since 1970")
    judged.add_argument("--window", type=float, default=10, help="seconds to either side of it (%(default)s)")
    judged.add_argument("--live", action="store_true", help="judge a load that runs, without its balances")
    return top


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 well, 1 not well, 2 usage or not to be judged, 3 not running."""
    arguments = parser().parse_args(argv)
    try:
        return int(arguments.work(arguments))
    except PgHaError as error:
        print(f"load: {error.message}", file=sys.stderr)
        return 2
