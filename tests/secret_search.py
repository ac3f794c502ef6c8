# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds secrets in every spelling, and says who else could read them there. Standard library only: a host gets this file on its stdin.

A search counts what it searched, because one that looked at nothing finds nothing: whoever uses it asserts both.
"""

from __future__ import annotations

import base64
import contextlib
import glob
import grp
import json
import os
import pathlib
import pwd
import re
import stat
import subprocess
import sys
import threading
import time
import typing as t
import urllib.parse

# What is shorter is in every file by chance.
LEAST_LENGTH = 6
CHUNK_BYTES = 4 * 1024 * 1024


def _base64_cores(secret: bytes) -> list[bytes]:
    """What of a secret's base64 is the same wherever in the encoded text it begins."""
    cores = []
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret)
        first = -(-before * 4 // 3)
        cores.append(encoded[first : (before + len(secret)) * 4 // 3])
    return [core for core in cores if len(core) >= LEAST_LENGTH]


def spellings(secret: str) -> dict[bytes, str]:
    """How a secret may be written, with the name of each way: plain first, the rarest last."""
    raw = secret.encode()
    found: dict[bytes, str] = {raw: "plain"}
    in_json = json.dumps(secret)[1:-1]
    ways = {
        "JSON": [in_json, json.dumps(secret, ensure_ascii=False)[1:-1], json.dumps(in_json)[1:-1]],
        "URL": [urllib.parse.quote(secret, safe=""), urllib.parse.quote(secret), urllib.parse.quote_plus(secret), urllib.parse.quote(secret, safe="").lower()],
        "passfile": [re.sub(r"([\\:])", r"\\\1", secret)],
        "SQL": [secret.replace("'", "''"), secret.replace("\\", "\\\\").replace("'", "\\'")],
        "userlist": [secret.replace('"', '""')],
        "shell": [secret.replace("'", "'\"'\"'"), secret.replace("'", "'\\''")],
        "Python": [repr(secret)[1:-1]],
        "hex": [raw.hex(), raw.hex().upper()],
    }
    for way, texts in ways.items():
        for text in texts:
            found.setdefault(text.encode(), way)
    # A Kubernetes Secret holds a URL or a passfile in base64.
    for word in [word for word, way in found.items() if way not in ("hex", "shell")]:
        for core in _base64_cores(word):
            found.setdefault(core, "base64")
            found.setdefault(core.translate(bytes.maketrans(b"+/", b"-_")), "base64")
    return found


class Search:
    """Searches places for secrets.

    :param secrets: value by name; only the names are ever shown
    """

    def __init__(self, secrets: dict[str, str]) -> None:
        short = sorted(name for name, value in secrets.items() if len(value) < LEAST_LENGTH)
        if not secrets or short:
            raise ValueError(f"nothing that could be searched for: {', '.join(short) or 'no secret'}")
        self.words: dict[bytes, tuple[str, str]] = {}
        for name, value in secrets.items():
            for word, way in spellings(value).items():
                self.words.setdefault(word, (name, way))
        self.pattern = re.compile(b"|".join(re.escape(word) for word in sorted(self.words, key=len, reverse=True)))
        self.overlap = max(map(len, self.words))
        self.searched = {"places": 0, "bytes": 0, "files": 0, "processes": 0}
        self.hits: list[dict[str, str]] = []
        self.kept: list[dict[str, str]] = []

    def report(self) -> dict[str, t.Any]:
        """What was searched, what was found where another may read it (hits), and where nobody else may (kept)."""
        return {"searched": self.searched, "hits": self.hits, "kept": self.kept}

    def text(self, place: str, text: str | bytes, readable: str = "everybody") -> None:
        """Search a text, which others may read unless it is said who alone does ("")."""
        data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
        self.searched["places"] += 1
        self.searched["bytes"] += len(data)
        self._note(place, {self.words[word] for word in self.pattern.findall(data)}, readable)

    def _note(self, place: str, found: set[tuple[str, str]], readable: str) -> None:
        for name, way in sorted(found):
            (self.hits if readable else self.kept).append({"place": place, "secret": name, "written": way, "readable_by": readable or "its owner"})

    def file(self, path: str) -> None:
        """Search a file, and its name; one that went away meanwhile was not searched."""
        found: set[tuple[str, str]] = set()
        try:
            readable = readable_by(path)
            with open(path, "rb") as stream:
                rest = b""
                while chunk := stream.read(CHUNK_BYTES):
                    self.searched["bytes"] += len(chunk)
                    found |= {self.words[word] for word in self.pattern.findall(rest + chunk)}
                    rest = (rest + chunk)[-self.overlap :]
        except OSError:
            return
        self.searched["places"] += 1
        self.searched["files"] += 1
        self._note(path, found, readable)
        self._note(f"the name {os.path.basename(path)!r}", {self.words[word] for word in self.pattern.findall(os.fsencode(path))}, "everybody")

    def tree(self, path: str, but: t.Sequence[str] = ()) -> int:
        """Search every regular file below a folder (patterns allowed); returns how many.

        :param but: folders that are left out
        """
        before = self.searched["files"]
        for top in glob.glob(os.path.expanduser(path)):
            if os.path.isfile(top):
                self.file(top)
            for folder, folders, files in os.walk(top):
                folders[:] = [name for name in folders if os.path.join(folder, name) not in but]
                for name in files:
                    full = os.path.join(folder, name)
                    with contextlib.suppress(OSError):
                        if stat.S_ISREG(os.lstat(full).st_mode):
                            self.file(full)
        return self.searched["files"] - before

    def processes(self) -> None:
        """Search the arguments of every process, which everybody may read, and its environment, which only its owner may."""
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            for part, readable in (("cmdline", "everybody"), ("environ", "")):
                with contextlib.suppress(OSError):
                    data = pathlib.Path("/proc", name, part).read_bytes()
                    self.searched["processes"] += part == "cmdline"
                    self.text(f"{part} of process {data.split(bytes(1))[0].decode(errors='replace') if part == 'cmdline' else name}", data, readable)

    def command(self, place: str, *argv: str, readable: str = "everybody") -> None:
        """Search what a program prints; it has to succeed and to print something."""
        done = subprocess.run(argv, capture_output=True, check=True)
        if not done.stdout:
            raise ValueError(f"{place}: {argv[0]} printed nothing")
        self.text(place, done.stdout, readable)


def readable_by(path: str) -> str:
    """Who but root and the owner may read a file: "everybody", "group adm", or "".

    A folder on the way that only its owner enters protects what is below it. A group that has its owner's name is nobody else.
    """
    group, others = True, True
    for folder in pathlib.Path(os.path.realpath(path)).parents:
        mode = os.stat(folder).st_mode
        group, others = group and bool(mode & (stat.S_IXGRP | stat.S_IXOTH)), others and bool(mode & stat.S_IXOTH)
    found = os.stat(path)
    if others and found.st_mode & stat.S_IROTH:
        return "everybody"
    if group and found.st_mode & stat.S_IRGRP and found.st_gid != 0:
        name = grp.getgrgid(found.st_gid).gr_name if found.st_gid in {entry.gr_gid for entry in grp.getgrall()} else str(found.st_gid)
        owner = pwd.getpwuid(found.st_uid).pw_name if found.st_uid in {entry.pw_uid for entry in pwd.getpwall()} else str(found.st_uid)
        return "" if name == owner else f"group {name}"
    return ""


class Sampler:
    """Looks at the arguments of all processes again and again, and remembers each that it has seen."""

    def __init__(self, seconds: float = 0.01) -> None:
        self.seen: set[bytes] = set()
        self.looks = 0
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def look(self) -> None:
        """Once."""
        self.looks += 1
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError):
                    self.seen.add(pathlib.Path("/proc", name, "cmdline").read_bytes())

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            self.look()

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._ended.set()
        self._thread.join()


def sample_into(path: str, max_seconds: float) -> None:
    """Keep on writing what a sampler sees into a file that nobody else reads, a line per process, until time is up or the file is taken away."""
    sampler, written = Sampler(), set[bytes]()
    until = time.monotonic() + max_seconds
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab", buffering=0) as stream:
        while time.monotonic() < until and os.path.exists(path):
            sampler.look()
            for arguments in sampler.seen - written:
                stream.write(arguments.replace(b"\n", b"\0") + b"\n")
            written |= sampler.seen
            time.sleep(0.02)


def search_here(order: dict[str, t.Any]) -> dict[str, t.Any]:
    """Search this host.

    :param order: ``{"secrets": {name: value}, "trees": [pattern], "but": [folder], "commands": {place: argv}, "sampled": path or None}``
    :returns: report, number of files by tree, names of the programs that were sampled
    """
    search = Search(order["secrets"])
    trees = {tree: search.tree(tree, order["but"]) for tree in order["trees"]}
    search.processes()
    for place, argv in order["commands"].items():
        search.command(place, *argv)
    programs: set[str] = set()
    if order["sampled"]:
        data = pathlib.Path(order["sampled"]).read_bytes()
        programs = {os.path.basename(line.split(b"\0")[0]).decode(errors="replace") for line in data.splitlines()}
        search.text("a process list during the run", data)
    return {**search.report(), "trees": trees, "sampled": sorted(programs - {""})}


if __name__ == "__main__" and len(sys.argv) == 4 and sys.argv[1] == "sample":
    sample_into(sys.argv[2], float(sys.argv[3]))
