# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the secrets of an inventory come to while clients are moved there and back at -vvvv with diffs, between servers that log and count every statement."""

from __future__ import annotations

import os
import pathlib
import tempfile
import typing as t

import pytest

from tests.playbooks.conftest import PASSWORD
from tests.playbooks.test_cut_over import APPROVED, PGBOUNCER, Pair
from tests.playbooks.test_secrets import LOUD, VALUES, VERIFIER, look_into_processes, look_into_server, look_into_temporary_folders, look_into_what_is_left
from tests.secret_search import Sampler, Search

MOVES = {"replicate_and_verify": (), "cut_over": APPROVED, "roll_back": APPROVED}


class LoudPair(Pair):
    """Both sides tell everything that they are told, and every printable character is in a secret."""

    def variables(self) -> dict[str, t.Any]:
        """With secrets that can be searched for."""
        return {**super().variables(), **VALUES}

    def start_server(self, name: str, port: int, *settings: str) -> None:
        """Loud from its first start."""
        super().start_server(name, port, *settings, *LOUD)

    def logs(self) -> dict[str, pathlib.Path]:
        """What the servers have logged, by side."""
        return {"source": self.folder / "data.log", "target": self.folder / "ahead.log"}


@pytest.fixture(scope="module")
def world() -> t.Iterator[LoudPair]:
    """The world of this file."""
    if PGBOUNCER is None:
        pytest.skip("no pgbouncer is installed")
    made = LoudPair(pathlib.Path(tempfile.mkdtemp(prefix="pg_ha_move_", dir="/var/tmp")))
    if not list((made.bin.parent / "lib").glob("pg_stat_statements.so")):
        pytest.skip("pg_stat_statements is not installed")
    try:
        made.start()
        # What the fixture itself has said to the servers is no matter of the playbooks.
        for log in made.logs().values():
            log.write_text("")
        for port in (made.port, made.ahead):
            made.sql("CREATE EXTENSION pg_stat_statements; SELECT pg_stat_statements_reset()", "postgres", port)
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def ran(world: LoudPair) -> tuple[LoudPair, dict[str, str], Sampler, pathlib.Path]:
    """Copied, compared, cut over and rolled back: the output by play, the processes meanwhile, and the home of whoever ran it."""
    home = world.folder / "home"
    home.mkdir(mode=0o755)
    outputs = {}
    with pytest.MonkeyPatch.context() as patch, Sampler() as sampler:
        patch.setenv("HOME", str(home))
        # Where Ansible looks for the state of long tasks it asks passwd, and not HOME.
        patch.setenv("ANSIBLE_ASYNC_DIR", str(home / ".ansible_async"))
        for name, arguments in MOVES.items():
            done = world.run(name, *arguments, "-vvvv", "--diff")
            outputs[name] = done.output
            assert done.code == 0, done.failure.get("msg", done.output[-3000:])
    return world, outputs, sampler, home


def search() -> Search:
    """For all secrets of this world."""
    return Search({**VALUES, "administrator": PASSWORD})


def test_clients_were_there_and_are_back(ran: tuple[LoudPair, dict[str, str], Sampler, pathlib.Path]) -> None:
    world, *_rest = ran
    decided = "SELECT string_agg(serves, ' ' ORDER BY epoch) FROM ha_migration.decision"
    assert (world.sql(decided).strip(), world.sql(decided, port=world.ahead).strip()) == ("target", "source")
    assert os.readlink(world.folder / "route.ini").endswith("route.source.ini")


def test_the_output_at_vvvv_has_none(ran: tuple[LoudPair, dict[str, str], Sampler, pathlib.Path]) -> None:
    _world, outputs, _sampler, _home = ran
    found = search()
    for name, output in outputs.items():
        assert "EXEC" in output, "this was not -vvvv"
        found.text(name, output)
    assert found.searched["bytes"] > 100_000 and found.hits == []
    assert VERIFIER.findall(" ".join(outputs.values())) == []


def test_no_process_has_one_in_its_arguments(ran: tuple[LoudPair, dict[str, str], Sampler, pathlib.Path]) -> None:
    _world, _outputs, sampler, _home = ran
    look_into_processes(search(), sampler)


def test_what_long_tasks_leave_at_home_and_the_evidence_have_none(ran: tuple[LoudPair, dict[str, str], Sampler, pathlib.Path]) -> None:
    world, _outputs, _sampler, home = ran
    look_into_what_is_left(search(), home, world.folder / "artifacts")


@pytest.mark.parametrize("side", ["source", "target"])
def test_the_servers_log_and_statistics_have_none(ran: tuple[LoudPair, dict[str, str], Sampler, pathlib.Path], side: str) -> None:
    world, *_rest = ran
    counted = world.sql("SELECT query FROM pg_stat_statements", "postgres", {"source": world.port, "target": world.ahead}[side])
    look_into_server(search(), world.logs()[side].read_text(errors="replace"), counted)


def test_nothing_is_left_in_temporary_folders(ran: tuple[LoudPair, dict[str, str], Sampler, pathlib.Path]) -> None:
    look_into_temporary_folders(search())
