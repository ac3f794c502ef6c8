# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record on disk."""

from __future__ import annotations

import pathlib

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._ledger.model import ENTRY_BYTES, Header, Kind, pack, unpack
from ansible_collections.freight.pg_ha.plugins.module_utils._ledger.record import RunFolder


def header(clients: int = 1) -> Header:
    return Header("r", "probe", clients, 10.0, 0, 0, 0)


def test_an_entry_comes_back_as_it_was() -> None:
    [entry], torn = unpack(pack(Kind.FAIL, 3, 70000, 123, 456, 7, 8, "40P01"))
    assert (entry.kind, entry.attempt, entry.seq, entry.monotonic, entry.wall, entry.acknowledged, entry.errors, entry.error_class) == (
        Kind.FAIL, 3, 70000, 123, 456, 7, 8, "40P01",
    )  # fmt: skip
    assert torn == 0


@pytest.mark.parametrize("kept", [0, 1, ENTRY_BYTES - 1])
def test_a_torn_end_is_left_out_and_counted(kept: int) -> None:
    whole = pack(Kind.INTENT, 1, 0, 1, 1, 0, 0)
    entries, torn = unpack(whole + pack(Kind.ACK, 1, 0, 2, 2, 1, 0)[:kept])
    assert (len(entries), torn) == (1, kept)


def test_reading_stops_where_a_checksum_is_wrong() -> None:
    whole = pack(Kind.INTENT, 1, 0, 1, 1, 0, 0)
    broken = bytearray(whole)
    broken[5] ^= 1
    entries, torn = unpack(whole + bytes(broken) + whole)
    assert (len(entries), torn) == (1, 2 * ENTRY_BYTES)


def test_a_run_is_recorded_once(tmp_path: pathlib.Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(header())
    with pytest.raises(UsageError, match="already holds"):
        folder.create(header())
    assert folder.read_header() == header()


def test_a_missing_client_is_an_error_and_not_a_client_without_writes(tmp_path: pathlib.Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(header(clients=2))
    folder.writer(0).write(Kind.INTENT, 0, 1)
    with pytest.raises(ClientError, match="client 1 is missing"):
        folder.read_record()


def test_no_run_is_said(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ClientError, match="There is no run"):
        RunFolder(tmp_path).read_header()


def test_running_is_whoever_holds_the_lock(tmp_path: pathlib.Path) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.is_running()
    lock = folder.lock()
    assert lock.acquire()
    assert folder.is_running()
    assert not folder.lock().acquire()
    lock.release()
    assert not folder.is_running()


def test_live_figures_come_from_the_ends_of_the_files(tmp_path: pathlib.Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create(header())
    writer = folder.writer(0)
    for seq in range(5000):
        writer.write(Kind.INTENT, seq, 1)
        writer.write(Kind.ACK, seq, 1)
    writer.write(Kind.FAIL, 5000, 1, "connect", is_error=True)
    live = folder.read_live()
    assert (live["acknowledged"], live["errors"], live["clients_begun"], live["running"]) == (5000, 1, 1, False)
    assert live["clients_ended"] == 0
    writer.write(Kind.END, 0, 0)
    assert folder.read_live()["clients_ended"] == 1
