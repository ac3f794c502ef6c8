# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""pg_dump and pg_restore: where they are and how they are called. Services, not passwords, are their arguments."""

from __future__ import annotations

import hashlib
import pathlib
import re
import typing as t

from .._core.errors import ClientError
from . import copy_client, toc
from .copy_plan import public_error
from .model import Settings

# (argv, environment) -> (exit code, output, errors)
RunCommand = t.Callable[[list[str], dict[str, str]], tuple[int, str, str]]

# Dumping waits for locks at most that long, then says so: behind a waiting pg_dump every writer of the table would queue.
_SESSION = ("statement_timeout=0", "lock_timeout=0", "idle_in_transaction_session_timeout=0")

# What libpq says when the server has gone away.
_LOST = ("server closed the connection", "terminating connection", "connection to server at")


def find_folder(given: str | None) -> str:
    """Folder of the newest pg_dump (Debian's /usr/bin/pg_dump may choose an older one); "" for the PATH."""
    if given:
        return given
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/pg_dump"), key=lambda path: int(path.parts[-3]) if path.parts[-3].isdigit() else 0)
    return str(found[-1].parent) if found else ""


class Programs:
    """pg_dump and pg_restore with our environment."""

    def __init__(self, settings: Settings, run_command: RunCommand) -> None:
        self.settings = settings
        self.run_command = run_command

    def version(self) -> int | None:
        """Major version of pg_dump; None where there is none."""
        try:
            code, output, _errors = self.run_command([self._path("pg_dump"), "--version"], {})
        except OSError:
            return None
        found = re.search(r"\(PostgreSQL\) (\d+)", output)
        return int(found.group(1)) if code == 0 and found else None

    def dump_schema(self, file: str, snapshot: str, exclude_schema: str) -> None:
        """Archive of everything but rows and large objects."""
        self._dump(file, snapshot, exclude_schema, ["--section=pre-data", "--section=post-data", "--no-blobs"])

    def dump_large_objects(self, file: str, snapshot: str, exclude_schema: str) -> None:
        """Archive of the large objects; before 17 they are made in another section, hence no section is named."""
        self._dump(file, snapshot, exclude_schema, ["--blobs", "--exclude-table-data=*.*"])

    def _dump(self, file: str, snapshot: str, exclude_schema: str, options: list[str]) -> None:
        argv = [
            self._path("pg_dump"),
            f"--dbname=service={self.settings.source}",
            "--format=custom",
            "--compress=0",
            "--no-password",
            "--no-publications",
            "--no-subscriptions",
            f"--exclude-schema={exclude_schema}",
            f"--snapshot={snapshot}",
            f"--lock-wait-timeout={self.settings.lock_timeout_seconds * 1000}",
            f"--file={file}",
            *options,
        ]
        self._run("The dump of the source failed", argv, ())

    def list_entries(self, file: str) -> list[toc.Entry]:
        """The archive's table of contents."""
        return toc.parse(self._run("The archive cannot be read", [self._path("pg_restore"), "--list", file], ()))

    def fingerprint(self, file: str, entries: t.Iterable[toc.Entry]) -> str:
        """sha256 over the statements of these entries, the same for the same schema; a new pg_dump may word them differently.

        Left out is what differs from dump to dump: versions, and the random word against injected psql commands.
        """
        text = self._restore(file, list(entries), "The archive cannot be read", None, ["--file=-"])
        lines = (line for line in text.splitlines() if not line.startswith(("-- Dumped ", "\\restrict ", "\\unrestrict ")))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def restore(self, file: str, entries: t.Iterable[toc.Entry], what: str, *, section: str | None = None, jobs: int = 1, clean: bool = False) -> None:
        """Restore these entries in the archive's order; the first statement that fails fails it.

        :param what: begins the sentence of an error
        :param clean: drop first what is there of them
        """
        chosen = list(entries)
        if not chosen:
            return
        options = [f"--dbname=service={self.settings.target}", "--no-password", "--exit-on-error", *([f"--jobs={jobs}"] if jobs > 1 else [])]
        options += ["--clean", "--if-exists"] if clean else []
        self._restore(file, chosen, what, section, options)

    def restore_at_once(self, file: str, entries: t.Iterable[toc.Entry], what: str, *, section: str, then: str) -> None:
        """Restore these entries and run further statements, all in one transaction.

        :param then: statements after them
        """
        script = pathlib.Path(f"{file}.{section}.sql")
        try:
            self._restore(file, list(entries), what, section, [f"--file={script}"])
            with script.open("a", encoding="utf-8") as handle:
                handle.write(then)
            argv = [self._path("psql"), f"--dbname=service={self.settings.target}", "--no-password", "--no-psqlrc", "--quiet", "--single-transaction"]
            self._run(what, [*argv, "--set=ON_ERROR_STOP=1", "--output=/dev/null", f"--file={script}"], ())
        finally:
            script.unlink(missing_ok=True)

    def _restore(self, file: str, chosen: list[toc.Entry], what: str, section: str | None, options: list[str]) -> str:
        lists = pathlib.Path(f"{file}.{chosen[0].number if chosen else 0}.{section or 'some'}.list")
        lists.write_text(toc.use_list(chosen), encoding="utf-8")
        argv = [self._path("pg_restore"), *options, "--no-tablespaces", f"--use-list={lists}", *([f"--section={section}"] if section else []), file]
        try:
            return self._run(what, argv, ("synchronous_commit=off", f"maintenance_work_mem={self.settings.maintenance_work_mem}"))
        finally:
            lists.unlink()

    def _run(self, what: str, argv: list[str], session: t.Iterable[str]) -> str:
        environment = {
            "PGSERVICEFILE": self.settings.service_file,
            "PGAPPNAME": copy_client.WORKER_NAME,
            "PGCONNECT_TIMEOUT": str(self.settings.connect_timeout_seconds),
            "PGOPTIONS": " ".join(f"-c {item}" for item in (*_SESSION, *session)),
        }
        code, output, errors = self.run_command(argv, environment)
        if code != 0:
            lost = {"connection_lost": True} if any(words in errors for words in _LOST) else {}
            raise ClientError(f"{what}: {public_error(errors)}.", **lost)
        return output

    def _path(self, name: str) -> str:
        return f"{self.settings.programs}/{name}" if self.settings.programs else name
