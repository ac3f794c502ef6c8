"""The initial copy against what people would use instead. Runs on the mover, between two servers of its own; prints JSON.

    copy_rivals.py --megabytes N --rounds N

Every rival copies the same database, in turn, round after round, over TCP with TLS, to an empty database. What is timed is the whole command.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

sys.path.insert(0, "/opt/pg_ha_bench")

from module_utils._migration import guards, schema
from module_utils._parity.work import Comparison, Options
from module_utils._postgresql import client
from module_utils._postgresql.subscription import Link
from module_utils._replication import copy_run, own, programs
from module_utils._replication.model import Settings

BIN = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]))
HOME = pathlib.Path("/var/lib/pg_ha_bench")
PORTS = {"source": 5441, "target": 5442}
SERVICES = HOME / "pg_service.conf"
JOBS = 2
SETTINGS = {
    "wal_level": "logical", "max_wal_size": "8GB", "shared_buffers": "1GB", "maintenance_work_mem": "256MB", "checkpoint_timeout": "30min",
    "ssl": "on", "ssl_cert_file": str(HOME / "server.crt"), "ssl_key_file": str(HOME / "server.key"), "unix_socket_directories": str(HOME),
    "max_worker_processes": "16", "autovacuum": "off", "listen_addresses": "localhost",
}  # fmt: skip

# libpq looks into the home folder for certificates.
ENVIRONMENT = {**os.environ, "HOME": str(HOME)}

# Two large tables with indexes, one of them of documents with a GIN index, and many small ones.
SCHEMA = """
CREATE TABLE accounts (aid int PRIMARY KEY, branch int NOT NULL, balance numeric(12,2) NOT NULL, filler char(84) NOT NULL);
CREATE TABLE documents (id bigserial PRIMARY KEY, title text NOT NULL, body jsonb NOT NULL, at timestamptz NOT NULL);
"""
ROWS = """
INSERT INTO accounts SELECT i, i % 100, i % 1000, 'account ' || i FROM generate_series(1, {accounts}) i;
INSERT INTO documents (title, body, at)
SELECT 'title ' || md5(i::text), jsonb_build_object('kind', i % 50, 'tags', jsonb_build_array('t' || i % 300, 't' || i % 7), 'text',
       repeat(md5(i::text) || ' ', 12)),
       '2026-01-01'::timestamptz + i * interval '1 second' FROM generate_series(1, {documents}) i;
CREATE INDEX ON documents (title);
CREATE INDEX ON documents (at);
CREATE INDEX ON documents USING gin (body);
DO $$ BEGIN FOR i IN 1..200 LOOP
  EXECUTE format('CREATE TABLE small_%s (id int PRIMARY KEY, name text)', i);
  EXECUTE format('INSERT INTO small_%s SELECT n, ''name '' || n FROM generate_series(1, 500) n', i);
END LOOP; END $$;
"""
# With their share of the indexes (measured).
BYTES_PER_ACCOUNT, BYTES_PER_DOCUMENT = 142, 898


def as_postgres(*argv: object, text: str | None = None) -> str:
    """Run a program as the servers' owner."""
    found = subprocess.run([str(part) for part in argv], user="postgres", cwd=HOME, input=text, text=True, check=True, capture_output=True)
    return found.stdout


def psql(side: str, statements: str, database: str = "bench") -> str:
    """Run statements on a side."""
    return as_postgres(BIN / "psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-h", HOME, "-p", PORTS[side], "-d", database, "-f", "-", text=statements)


def start(megabytes: int) -> None:
    """Make both servers and the source's rows."""
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(mode=0o755)
    owner = pwd.getpwnam("postgres")
    os.chown(HOME, owner.pw_uid, owner.pw_gid)
    as_postgres(
        "openssl", "req", "-new", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=DNS:localhost", "-keyout", HOME / "server.key", "-out", HOME / "server.crt",
    )  # fmt: skip
    for side, port in PORTS.items():
        data = HOME / side
        as_postgres(BIN / "initdb", "-D", data, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--data-checksums")
        (data / "pg_hba.conf").write_text("local all all trust\nhostssl all all 127.0.0.1/32 trust\nhostssl all all ::1/128 trust\n")
        options = " ".join(f"-c {name}={value}" for name, value in {**SETTINGS, "port": str(port)}.items())
        subprocess.run(
            [BIN / "pg_ctl", "-D", data, "-w", "-l", HOME / f"{side}.log", "-o", options, "start"],
            user="postgres",
            cwd=HOME,
            env=ENVIRONMENT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        psql(side, "CREATE DATABASE bench", "postgres")
    SERVICES.write_text(
        "".join(
            f"[{side}]\nhost=localhost\nport={port}\nuser=postgres\ndbname=bench\nsslmode=verify-full\nsslrootcert={HOME}/server.crt\n\n"
            for side, port in PORTS.items()
        )
    )
    # Our module insists on a file that nobody else reads, and runs as root; the rivals read a copy of it as the servers' owner.
    SERVICES.chmod(0o600)
    half = megabytes * 1024 * 1024 // 2
    psql("source", SCHEMA)
    psql("source", ROWS.format(accounts=half // BYTES_PER_ACCOUNT, documents=half // BYTES_PER_DOCUMENT))
    psql("source", "VACUUM (ANALYZE)")
    psql("source", "CHECKPOINT")


def stop() -> None:
    """End both servers and remove what they had."""
    for side in PORTS:
        if (HOME / side / "postmaster.pid").exists():
            subprocess.run([BIN / "pg_ctl", "-D", HOME / side, "-m", "immediate", "stop"], user="postgres", cwd=HOME, check=False, stdout=subprocess.DEVNULL)
    shutil.rmtree(HOME, ignore_errors=True)


def reset() -> None:
    """An empty target, and a source that knows of no copy; both write what they still owe, so that nobody pays for another's work."""
    psql("target", "SELECT 'ALTER SUBSCRIPTION ha_migration_forward DISABLE' FROM pg_subscription \\gexec\nDROP SUBSCRIPTION IF EXISTS ha_migration_forward")
    psql("target", "DROP DATABASE IF EXISTS bench WITH (FORCE)", "postgres")
    psql("target", "CREATE DATABASE bench", "postgres")
    psql("source", "SET client_min_messages = warning; DROP PUBLICATION IF EXISTS ha_migration_forward; DROP SCHEMA IF EXISTS ha_migration CASCADE; "
         "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")  # fmt: skip
    for side in PORTS:
        psql(side, "CHECKPOINT", "postgres")
    subprocess.run(["sync"], check=True)


def uri(side: str) -> str:
    """Connection string of the rivals."""
    return f"postgresql://postgres@localhost:{PORTS[side]}/bench?sslmode=verify-full&sslrootcert={HOME}/server.crt"


def shell(script: str) -> None:
    """A rival as an operator would type it."""
    found = subprocess.run(["bash", "-euo", "pipefail", "-c", script], user="postgres", cwd=HOME, env=ENVIRONMENT, text=True, capture_output=True, check=False)
    if found.returncode:
        sys.exit(f"a rival failed: {found.stderr[-2000:]}")


def dump_and_restore() -> None:
    """pg_dump -Fc into pg_restore."""
    shell(f"{BIN}/pg_dump -Fc '{uri('source')}' | {BIN}/pg_restore --exit-on-error -d '{uri('target')}'")


def pgcopydb() -> None:
    """pgcopydb clone with as many processes."""
    shutil.rmtree(HOME / "pgcopydb", ignore_errors=True)
    shell(
        f"pgcopydb clone --dir {HOME}/pgcopydb --source '{uri('source')}' --target '{uri('target')}' --table-jobs {JOBS} --index-jobs {JOBS} --not-consistent"
    )


def copy_alone() -> None:
    """COPY of the rows of every table into tables without indexes, one after the other."""
    names = psql("source", "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relpages DESC").split()
    large, small = names[:2], names[2:]
    lines = [f"{BIN}/pg_dump --section=pre-data '{uri('source')}' | {BIN}/psql -X -q -v ON_ERROR_STOP=1 '{uri('target')}'"]
    copy = f"{BIN}/psql -X -q -v ON_ERROR_STOP=1"
    lines += [f"{copy} '{uri('source')}' -c 'COPY {name} TO STDOUT' | {copy} '{uri('target')}' -c 'COPY {name} FROM STDIN'" for name in large]
    lines.append(f"{BIN}/pg_dump -a {' '.join(f'-t {name}' for name in small)} '{uri('source')}' | {copy} '{uri('target')}'")
    shell("\n".join(lines))


def ours() -> None:
    """What module replication_copy does, in a process of its own: slot, snapshot, schema, rows, indexes, statistics, and a link that follows."""
    subprocess.run([sys.executable, __file__, "--ours"], check=True, stdout=subprocess.DEVNULL)


def run_ours() -> None:
    """Body of that process."""
    for side in PORTS:
        connection = client.connect(str(SERVICES), side, application_name="bench")
        schema.ensure_schema(connection)
        connection.close()
    settings = Settings(str(SERVICES), jobs=JOBS, programs=str(BIN))
    hooks = own.Hooks(refuse=lambda source, target: None, guards=guards.install_statement(schema.GuardAwaiting(0, "target")))

    def run_command(argv: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
        found = subprocess.run(argv, env={**os.environ, **environment}, text=True, capture_output=True, check=False)
        return found.returncode, found.stdout, found.stderr

    link = Link("localhost", PORTS["source"], "postgres", "bench", ca_file=str(HOME / "server.crt"))
    outcome = copy_run.run(settings, link, programs.Programs(settings, run_command), hooks, check_mode=False)
    json.dump(outcome.result["initial_copy"], (HOME / "ours.json").open("w"))


RIVALS: dict[str, Callable[[], None]] = {
    "pg_dump_restore": dump_and_restore, "pgcopydb": pgcopydb, "copy_alone": copy_alone, "replication_copy": ours,
}  # fmt: skip


def count_rows(side: str) -> str:
    """What was copied, to be sure that everybody did the same."""
    return psql(side, "SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM documents), (SELECT count(*) FROM small_200)")


def compare() -> dict[str, float]:
    """Throughput of the comparison of all rows on the last copy."""
    began = time.monotonic()

    def open_session(side: str, settings: dict[str, str] | None = None) -> object:
        return client.connect(str(SERVICES), side, application_name="ha_migration parity", settings=settings)

    evidence = Comparison(open_session, Options(run="bench", following=True, jobs=JOBS), lambda state: None).run()
    seconds = time.monotonic() - began
    if evidence["mismatches"]:
        sys.exit(f"the copy differs: {evidence['mismatches'][:3]}")
    return {"seconds": round(seconds, 2), "rows": evidence["rows"], "rows_per_second": round(evidence["rows"] / seconds), "hold_ms": evidence["hold_ms"]}


def main() -> int:
    """Rounds of all rivals in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ours", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        run_ours()
        return 0
    try:
        start(arguments.megabytes)
        wanted = count_rows("source")
        size = int(psql("source", "SELECT pg_database_size('bench')"))
        seconds: dict[str, list[float]] = {name: [] for name in RIVALS}
        steps = []
        for number in range(1, arguments.rounds + 1):
            for name, rival in RIVALS.items():
                reset()
                began = time.monotonic()
                rival()
                seconds[name].append(round(time.monotonic() - began, 2))
                if count_rows("target") != wanted:
                    sys.exit(f"{name} did not copy every row")
                print(f"   round {number}: {name} {seconds[name][-1]:.1f} s", file=sys.stderr, flush=True)
            steps.append(json.loads((HOME / "ours.json").read_text())["steps"])
        print(json.dumps({"bytes": size, "jobs": JOBS, "seconds": seconds, "steps": steps, "parity": compare()}))
    finally:
        stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
