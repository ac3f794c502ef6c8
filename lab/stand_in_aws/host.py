#!/usr/bin/env python
"""A database host of the stand-in: what an instance of RDS would run on. Serves HTTP for the stand-in alone: `host.py PORT [VOLUMES [PROGRAMS]]`.

Two hosts see the same volumes, as the service mirrors an instance's storage to the standby's zone: one of them runs the server. After a failover the other one
starts it on what has been written, by crash recovery. So there is no standby to be seen in the server, the timeline stays, and replication slots are there.

POST /make, /start, /set, /stop with a JSON object that names the ``instance``. Needs no library. Who may be a superuser is the service alone (``rdsadmin``).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SERVICE_ROLE = "rdsadmin"
GRANT_SECONDS = 1.0
# The service keeps them to itself, or reads them and sets others by them.
NOT_THE_SERVERS = ("rds.", "shared_preload_libraries")
ROLES = """
CREATE ROLE rds_superuser; CREATE ROLE rds_replication; CREATE ROLE rds_password; CREATE ROLE rds_iam;
GRANT pg_monitor, pg_signal_backend, rds_replication, rds_password TO rds_superuser WITH ADMIN OPTION;
DO $$
DECLARE granted text;
BEGIN
  FOREACH granted IN ARRAY ARRAY['pg_checkpoint', 'pg_create_subscription', 'pg_use_reserved_connections', 'pg_maintain'] LOOP
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = granted) THEN
      EXECUTE format('GRANT %I TO rds_superuser WITH ADMIN OPTION', granted);
    END IF;
  END LOOP;
END $$;
GRANT SET ON PARAMETER session_replication_role TO rds_superuser;
"""
# In the service whoever has rds_replication may replicate. Here only an attribute lets a role do so.
REPLICATE = """
DO $$
DECLARE name text;
BEGIN
  FOR name IN SELECT rolname FROM pg_roles
    WHERE rolcanlogin AND NOT rolsuper AND rolreplication <> pg_has_role(oid, 'rds_replication', 'MEMBER') LOOP
    EXECUTE format('ALTER ROLE %I %s', name, CASE WHEN pg_has_role(name, 'rds_replication', 'MEMBER') THEN 'REPLICATION' ELSE 'NOREPLICATION' END);
  END LOOP;
END $$
"""


class Failed(Exception):
    """A program of PostgreSQL said no; its words."""


def quoted(text: str) -> str:
    """A string of postgresql.conf."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def literal(text: str) -> str:
    """A string constant of SQL."""
    return f"E{quoted(text)}"


def name(text: str) -> str:
    """An identifier of SQL."""
    return '"' + text.replace('"', '""') + '"'


class Volume:
    """The storage of one instance.

    :param folder: that both hosts see
    :param programs: PostgreSQL's
    :param user: who runs the server, where this is root
    """

    def __init__(self, folder: Path, programs: Path, user: str | None = None) -> None:
        self.folder, self.data, self.programs = folder, folder / "data", programs
        self._as: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if user else {}

    def make(self, admin: str, password: str, database: str, port: int, certificate: str, key: str) -> None:
        """A server with the service's roles, a database and its administrator, which is no superuser.

        :raises Failed: there is one already, or it could not be made
        """
        self._run("initdb", "-D", self.data, "-U", SERVICE_ROLE, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        self._write("server.crt", certificate)
        self._write("server.key", key)
        self._write("pg_hba.conf", f"local all {SERVICE_ROLE} trust\nhost all {SERVICE_ROLE} all reject\nhostssl all all all scram-sha-256\n")
        self._write("instance.conf", f"port = {port}\n")
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("include_if_exists = 'instance.conf'\ninclude_if_exists = 'parameters.conf'\n")
        self.start({})
        self.sql(ROLES)
        self.sql(f"CREATE ROLE {name(admin)} LOGIN CREATEDB CREATEROLE PASSWORD {literal(password)} IN ROLE rds_superuser")
        self.sql(f"CREATE DATABASE {name(database)} OWNER {name(admin)}")
        self.sql(REPLICATE)
        self.stop("fast")

    def start(self, parameters: dict[str, str]) -> None:
        """Run the server here. Whoever ran it before has stopped: the stand-in sees to that, as the service does.

        :raises Failed: it did not come up
        """
        self.set(parameters, reload=False)
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        options = f"-c listen_addresses=* -c unix_socket_directories={self.folder} -c ssl=on"
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "300", "-l", self.folder / "log", "-o", options, "start")

    def set(self, parameters: dict[str, str], reload: bool = True) -> None:
        """Have it run with these parameters; what is static waits for a restart.

        :raises Failed: it does not run
        """
        own = {key: value for key, value in parameters.items() if not key.startswith(NOT_THE_SERVERS)}
        if parameters.get("rds.logical_replication") in ("1", "on", "true"):
            own["wal_level"] = "logical"
        lines = [f"{key} = {quoted(value)}\n" for key, value in sorted(own.items())]
        self._write("parameters.conf", "".join(lines))
        if reload:
            self._run("pg_ctl", "-D", self.data, "reload")

    def stop(self, how: str) -> None:
        """Stop it, or have it end as with its host (``immediate``). One that does not run has stopped.

        :raises Failed: it goes on
        """
        if (self.data / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", self.data, "-w", "-m", how, "stop")

    def sql(self, statements: str) -> None:
        """As the service.

        :raises Failed: a statement was refused
        """
        self._run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", self.folder, "-p", self._port(), "-U", SERVICE_ROLE, "-d", "postgres", said=statements)

    def runs_here(self) -> bool:
        """Whether this host runs it."""
        return (self.data / "postmaster.pid").exists() and not self._call("pg_ctl", "-D", self.data, "status").returncode

    def _port(self) -> str:
        return (self.data / "instance.conf").read_text(encoding="utf-8").split()[-1]

    def _write(self, file: str, text: str) -> None:
        path = self.data / file
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        if self._as:
            shutil.chown(path, self._as["user"])

    def _call(self, program: str, *arguments: object, said: str = "") -> subprocess.CompletedProcess[str]:
        # A server that is started keeps what it is given as its output: it goes to its log.
        return subprocess.run(
            [str(self.programs / program), *map(str, arguments)],
            input=said, text=True, cwd=self.folder, check=False, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if program == "pg_ctl" else subprocess.PIPE, **self._as,
        )  # fmt: skip

    def _run(self, program: str, *arguments: object, said: str = "") -> None:
        done = self._call(program, *arguments, said=said)
        if done.returncode:
            log = self.folder / "log"
            told = done.stderr or (log.read_text(encoding="utf-8", errors="replace")[-2000:] if log.exists() else "")
            raise Failed(f"{program} ended with {done.returncode}: {' '.join(told.split())}")


class Host:
    """What the stand-in may ask of this host.

    :param volumes: folder of all volumes
    """

    def __init__(self, volumes: Path, programs: Path, user: str | None = None) -> None:
        self.volumes, self.programs, self.user = volumes, programs, user
        self._lock = threading.Lock()

    def volume(self, instance: str) -> Volume:
        """Storage of an instance."""
        return Volume(self.volumes / instance, self.programs, self.user)

    def do(self, operation: str, request: dict[str, Any]) -> None:
        """One of ``make``, ``start``, ``set``, ``stop``, one after the other.

        :raises Failed: it could not be done
        """
        volume = self.volume(request.pop("instance"))
        known: dict[str, Callable[..., None]] = {"make": volume.make, "start": volume.start, "set": volume.set, "stop": volume.stop}
        if operation not in known:
            raise Failed(f"there is no operation {operation}")
        with self._lock:
            if operation == "make":
                volume.folder.mkdir(mode=0o700, parents=True)
                if self.user:
                    shutil.chown(volume.folder, self.user, self.user)
            known[operation](**request)

    def grant(self) -> None:
        """Let those replicate who have the role for it, as long as this runs."""
        for folder in self.volumes.iterdir():
            volume = self.volume(folder.name)
            if volume.runs_here():
                try:
                    volume.sql(REPLICATE)
                except (Failed, OSError):
                    continue  # it is being made, starting or ending


def handler(host: Host) -> type[BaseHTTPRequestHandler]:
    """HTTP for a host."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: requests hold passwords."""

        def do_POST(self) -> None:
            try:
                host.do(self.path.strip("/"), json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0")))))
                status, text = 200, ""
            except (Failed, OSError, TypeError, KeyError, ValueError) as error:
                status, text = 500, str(error)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

    return Handler


def newest_programs() -> Path:
    """Of the newest PostgreSQL that is installed."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))


def main() -> int:
    """Serve until the process is ended."""
    port, volumes = int(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "/var/lib/rds")
    host = Host(volumes, Path(sys.argv[3]) if len(sys.argv) > 3 else newest_programs(), "postgres" if os.geteuid() == 0 else None)
    server = ThreadingHTTPServer(("", port), handler(host))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while True:
        host.grant()
        threading.Event().wait(GRANT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
