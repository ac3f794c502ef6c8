# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The searcher finds what was planted, in every spelling, says who may read it, and is no search where it looked at nothing."""

from __future__ import annotations

import base64
import json
import pathlib
import subprocess
import sys
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import secret_search
from tests.secret_search import LEAST_LENGTH, Sampler, Search, readable_by, search_here

SECRET = """a:b\\c'd"e%f@g h+ü#/?"""


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (SECRET, "plain"),
        (json.dumps({"a": SECRET}), "JSON"),
        (json.dumps(json.dumps({"a": SECRET})), "JSON"),
        (urllib.parse.quote(SECRET, safe=""), "URL"),
        (urllib.parse.quote_plus(SECRET), "URL"),
        (SECRET.replace("\\", "\\\\").replace(":", "\\:"), "passfile"),
        (SECRET.replace("'", "''"), "SQL"),
        (SECRET.replace('"', '""'), "userlist"),
        (SECRET.encode().hex(), "hex"),
        (base64.b64encode(SECRET.encode()).decode(), "base64"),
        (base64.b64encode(b"user:" + SECRET.encode()).decode(), "base64"),
        (base64.b64encode(b"users:" + SECRET.encode() + b"!").decode(), "base64"),
        (base64.urlsafe_b64encode(b"user2::" + SECRET.encode() + b"...").decode(), "base64"),
    ],
)
def test_what_is_planted_is_found_in_every_spelling(text: str, written: str) -> None:
    search = Search({"link": SECRET, "other": "another-secret"})
    search.text("a log", f"before {text} after")
    assert [(hit["place"], hit["secret"]) for hit in search.hits] == [("a log", "link")]
    assert search.hits[0]["written"] == written
    assert SECRET not in json.dumps(search.report(), ensure_ascii=False)


@given(st.text(min_size=LEAST_LENGTH, max_size=40), st.binary(max_size=9), st.binary(max_size=9))
def test_any_secret_is_found_in_any_base64(secret: str, before: bytes, after: bytes) -> None:
    try:
        raw = secret.encode()
    except UnicodeEncodeError:
        return
    search = Search({"x": secret})
    search.text("t", base64.b64encode(before + raw + after))
    search.text("u", before + raw + after)
    assert {hit["place"] for hit in search.hits} == {"t", "u"}


def test_a_text_without_a_secret_has_none() -> None:
    search = Search({"link": SECRET})
    search.text("a log", "nothing " * 1000)
    assert search.hits == [] and search.searched["bytes"] == 8000


@pytest.mark.parametrize("secrets", [{}, {"x": "short"}, {"x": ""}])
def test_a_search_for_nothing_is_none(secrets: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="nothing that could be searched for"):
        Search(secrets)


def test_a_file_that_only_its_owner_reads_may_hold_it_and_no_other(tmp_path: pathlib.Path) -> None:
    open_to_all = tmp_path / "open"
    for folder in (tmp_path, *list(tmp_path.parents)[:-2]):
        folder.chmod(folder.stat().st_mode | 0o011) if folder.owner() == "root" and folder != pathlib.Path("/tmp") else None
    for name, mode in (("open", 0o644), ("closed", 0o600)):
        (tmp_path / name).write_text(SECRET)
        (tmp_path / name).chmod(mode)
    inner = tmp_path / "closed folder"
    inner.mkdir(mode=0o700)
    (inner / "open").write_text(SECRET)
    search = Search({"link": SECRET})
    assert search.tree(str(tmp_path)) == 3
    assert [hit["place"] for hit in search.hits] == [str(open_to_all)] and len(search.kept) == 2
    assert readable_by(str(open_to_all)) == "everybody" and readable_by(str(inner / "open")) == ""


def test_a_secret_across_two_pieces_of_a_file_is_found(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_search, "CHUNK_BYTES", 16)
    (tmp_path / "log").write_text("x" * 7 + SECRET + "y" * 50)
    search = Search({"link": SECRET})
    search.file(str(tmp_path / "log"))
    assert len(search.hits) + len(search.kept) == 1


def test_arguments_and_names_of_files_are_found(tmp_path: pathlib.Path) -> None:
    secret = "an-argument-of-a-process"
    with Sampler() as sampler:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.3)", secret], check=True)
    search = Search({"x": secret})
    search.text("process list", b"\n".join(sampler.seen))
    (tmp_path / secret).write_text("")
    search.tree(str(tmp_path))
    assert len(search.hits) == 2 and sampler.looks > 3


def test_a_host_is_searched_by_a_program_on_its_stdin(tmp_path: pathlib.Path) -> None:
    (tmp_path / "log").write_text(SECRET)
    (tmp_path / "sampled").write_text("python3\0-\nanother\n")
    order = {
        "secrets": {"link": SECRET},
        "trees": [str(tmp_path / "lo*")],
        "but": [],
        "commands": {"an echo": ["echo", "x"]},
        "sampled": str(tmp_path / "sampled"),
    }
    here = search_here(order)
    program = f"{pathlib.Path(secret_search.__file__).read_text()}\nprint(json.dumps(search_here(json.loads({json.dumps(order)!r}))))\n"
    done = subprocess.run([sys.executable, "-"], input=program, capture_output=True, text=True, check=True)
    there = json.loads(done.stdout)
    assert there["trees"] == here["trees"] == {str(tmp_path / "lo*"): 1} and there["sampled"] == ["another", "python3"]
    assert len(there["hits"]) + len(there["kept"]) == 1 and there["searched"]["processes"] > 1
