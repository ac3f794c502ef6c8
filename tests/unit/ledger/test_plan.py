# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The account: tables over records and rows."""

from __future__ import annotations

import typing as t
from decimal import Decimal

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import PlanError
from ansible_collections.freight.pg_ha.plugins.module_utils._ledger import plan
from ansible_collections.freight.pg_ha.plugins.module_utils._ledger.model import Balances, ClientRecord, Entry, Header, Kind, Record

N, A, F, U, FOUND, ABSENT, S, END = Kind.INTENT, Kind.ACK, Kind.FAIL, Kind.UNKNOWN, Kind.FOUND, Kind.ABSENT, Kind.SURFACED, Kind.END
MS = 1_000_000
BASE = 1_800_000_000_000_000_000


def record(*clients: list[tuple[t.Any, ...]], first_seq: int = 0) -> Record:
    """Clients from (ms, kind, seq[, class]); cumulative figures are filled in. 40001 is no error."""
    made = []
    for number, steps in enumerate(clients):
        acknowledged = errors = 0
        entries = []
        for ms, kind, seq, *rest in steps:
            error_class = rest[0] if rest else ""
            acknowledged += kind in (A, FOUND)
            errors += kind in (F, U) and error_class != "40001"
            entries.append(Entry(kind, 1, seq, int(ms * MS), BASE + int(ms * MS), acknowledged, errors, error_class))
        made.append(ClientRecord(number, entries))
    return Record(Header("r", "probe", len(clients), 10.0, first_seq, 0, BASE), made)


def writes(count: int, end: bool = True) -> list[tuple[t.Any, ...]]:
    """``count`` writes of 1 ms, one every 10 ms."""
    made = [step for seq in range(count) for step in ((10 * seq, N, seq), (10 * seq + 1, A, seq))]
    return [*made, (10 * count, END, 0)] if end else made


def test_all_is_well() -> None:
    verdict = plan.judge(record(writes(3), writes(3)), [(client, seq) for client in (0, 1) for seq in range(3)])
    assert verdict["ok"] and verdict["problems"] == []
    assert (verdict["acknowledged"], verdict["lost"], verdict["duplicated"], verdict["errors"], verdict["unexpected"]) == (6, 0, 0, 0, 0)
    assert verdict["write_pause_ms"] == 10.0 and verdict["longest_client_stall_ms"] == 10.0
    assert verdict["latency_ms"] == {"p50": 1.0, "p95": 1.0, "p99": 1.0, "max": 1.0}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(0, 0), (0, 2)], {"lost": 1, "lost_keys": [[0, 1]], "duplicated": 0}),
        ([], {"lost": 3, "lost_keys": [[0, 0], [0, 1], [0, 2]]}),
        ([(0, 0), (0, 1), (0, 1), (0, 2)], {"lost": 0, "duplicated": 1, "duplicated_keys": [[0, 1]]}),
        ([(0, 0), (0, 1), (0, 1), (0, 1), (0, 2)], {"duplicated": 2, "duplicated_keys": [[0, 1]]}),
        ([(0, 0), (0, 1), (0, 2), (0, 3)], {"unexpected": 1, "unexpected_keys": [[0, 3]]}),
        ([(0, 0), (0, 1), (0, 2), (7, 0)], {"unexpected": 1, "unexpected_keys": [[7, 0]]}),
    ],
)
def test_rows_that_do_not_fit_the_record_are_named(rows: list[tuple[int, int]], expected: dict[str, t.Any]) -> None:
    verdict = plan.judge(record(writes(3)), rows)
    assert {name: verdict[name] for name in expected} == expected
    assert not verdict["ok"]


def test_the_number_in_the_table_begins_at_the_runs_first() -> None:
    verdict = plan.judge(record(writes(2), first_seq=100), [(0, 100)])
    assert verdict["lost_keys"] == [[0, 101]]


@pytest.mark.parametrize(
    ("steps", "rows", "unknown", "acknowledged", "unexpected"),
    [
        # The client looked and found it.
        ([(1, N, 0), (2, U, 0, "lost"), (3, N, 0), (4, FOUND, 0)], [(0, 0)], (1, 1, 0), 1, 0),
        # The client looked, it was not there, and it wrote again.
        ([(1, N, 0), (2, U, 0, "lost"), (3, N, 0), (4, ABSENT, 0), (5, A, 0)], [(0, 0)], (1, 0, 1), 1, 0),
        # Two unknown in a row: the later one took effect.
        ([(1, N, 0), (2, U, 0, "lost"), (3, N, 0), (4, ABSENT, 0), (5, U, 0, "lost"), (6, N, 0), (7, FOUND, 0)], [(0, 0)], (2, 1, 1), 1, 0),
        # Nobody looked any more: the table says.
        ([(1, N, 0), (2, U, 0, "lost"), (3, S, 0)], [(0, 0)], (1, 1, 0), 0, 0),
        ([(1, N, 0), (2, U, 0, "lost"), (3, S, 0)], [], (1, 0, 1), 0, 0),
        # Killed in the middle.
        ([(1, N, 0)], [(0, 0)], (1, 1, 0), 0, 0),
        ([(1, N, 0)], [], (1, 0, 1), 0, 0),
        # Refused, certainly, and there all the same.
        ([(1, N, 0), (2, F, 0, "25006"), (3, S, 0, "25006")], [(0, 0)], (0, 0, 0), 0, 1),
        ([(1, N, 0), (2, F, 0, "25006"), (3, S, 0, "25006")], [], (0, 0, 0), 0, 0),
    ],
)
def test_unknown_outcomes_are_resolved(
    steps: list[tuple[t.Any, ...]], rows: list[tuple[int, int]], unknown: tuple[int, int, int], acknowledged: int, unexpected: int
) -> None:
    verdict = plan.judge(record(steps), rows)
    assert tuple(verdict["unknown"].values()) == unknown
    assert (verdict["acknowledged"], verdict["unexpected"], verdict["lost"], verdict["duplicated"]) == (acknowledged, unexpected, 0, 0)


def test_errors_are_counted_by_class_and_retries_apart() -> None:
    steps = [(1, N, 0), (2, F, 0, "40001"), (3, N, 0), (4, F, 0, "57P01"), (5, N, 0), (6, F, 0, "connect"), (7, N, 0), (8, A, 0), (9, END, 0)]
    verdict = plan.judge(record(steps), [(0, 0)])
    assert (verdict["errors"], verdict["errors_by_class"], verdict["retries"], verdict["attempts"]) == (2, {"57P01": 1, "connect": 1}, 1, 4)
    assert verdict["latency_ms"]["max"] == 7.0
    assert verdict["problems"] == ["Clients saw 2 errors: 57P01 1, connect 1."]


def test_the_write_pause_is_over_all_clients_and_the_stall_over_one() -> None:
    one = [(0, N, 0), (1, A, 0), (2, N, 1), (101, A, 1), (102, END, 0)]
    two = [(0, N, 0), (31, A, 0), (32, N, 1), (70, A, 1), (102, END, 0)]
    verdict = plan.judge(record(one, two), [(0, 0), (0, 1), (1, 0), (1, 1)])
    assert verdict["write_pause_ms"] == 39.0
    assert verdict["write_pause_at"] == plan.format_moment(BASE + 31 * MS)
    assert (verdict["longest_client_stall_ms"], verdict["longest_client_stall_client"]) == (100.0, 0)


def test_a_server_that_never_came_back_is_a_pause() -> None:
    steps = [*writes(2, end=False), (20, N, 2), (21, F, 2, "lost"), (5000, N, 2), (5001, F, 2, "connect"), (5002, END, 0)]
    verdict = plan.judge(record(steps), [(0, 0), (0, 1)])
    assert verdict["write_pause_ms"] == 4990.0 and verdict["longest_client_stall_ms"] == 4990.0


def test_a_pause_is_looked_for_around_a_moment() -> None:
    steps = [(0, N, 0), (1, A, 0), (900, N, 1), (901, A, 1), (5000, N, 2), (5001, A, 2), (5100, N, 3), (5301, A, 3), (5302, END, 0)]
    verdict = plan.judge(record(steps), [(0, seq) for seq in range(4)], window=plan.Window(BASE + 5200 * MS, 50 * MS))
    assert (verdict["write_pause_ms"], verdict["write_pause_whole_run_ms"]) == (300.0, 4100.0)


def test_a_moment_outside_of_the_record_is_refused() -> None:
    with pytest.raises(PlanError, match="not the moment asked for"):
        plan.judge(record(writes(3)), [(0, 0)], window=plan.Window(BASE + 60_000 * MS, 10 * MS))


def test_an_empty_record_is_refused() -> None:
    with pytest.raises(PlanError, match="holds no attempt"):
        plan.judge(record([]), [])


def test_nothing_acknowledged_is_not_ok() -> None:
    assert "nothing was shown" in plan.judge(record([(1, N, 0), (2, F, 0, "40001"), (3, END, 0)]), [])["problems"][0]


def test_a_client_that_died_is_not_ok_unless_the_run_goes_on() -> None:
    rows = [(0, seq) for seq in range(2)]
    assert plan.judge(record(writes(2, end=False)), rows)["problems"] == [
        "1 of 1 clients did not stop in good order, so what they would have seen later is not known."
    ]
    assert plan.judge(record(writes(2, end=False)), [*rows, (0, 2)], running=True)["ok"]


def balances(**after: int) -> Balances:
    """Write n puts 10 onto account n % 2."""
    return Balances(lambda client, seq: (seq % 2, 10), {0: Decimal(100), 1: Decimal(100)}, {int(name[1:]): Decimal(value) for name, value in after.items()})


@pytest.mark.parametrize(
    ("rows", "held", "lost", "duplicated"),
    [
        ([0, 1, 2], balances(a0=120, a1=110), 0, 0),
        # The row went and its effect stayed; both went; the effect alone went.
        ([0, 1], balances(a0=120, a1=110), 1, 0),
        ([0, 1], balances(a0=110, a1=110), 1, 0),
        ([0, 1, 2], balances(a0=110, a1=110), 1, 0),
        # The effect came twice, with its row or without.
        ([0, 1, 2], balances(a0=130, a1=110), 0, 1),
        ([0, 1, 2, 2], balances(a0=130, a1=110), 0, 1),
        # One effect on the wrong account: the sum is right and the accounts are not.
        ([0, 1, 2], balances(a0=110, a1=120), 1, 1),
        # An account is gone.
        ([0, 1, 2], balances(a0=120), 1, 0),
    ],
)
def test_balances_show_what_rows_do_not(rows: list[int], held: Balances, lost: int, duplicated: int) -> None:
    verdict = plan.judge(record(writes(3)), [(0, seq) for seq in rows], balances=held)
    assert (verdict["lost"], verdict["duplicated"]) == (lost, duplicated)
    assert verdict["ok"] == (not lost and not duplicated)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100)])
def test_percentiles_are_values_that_were_seen(share: float, expected: int) -> None:
    assert plan.percentile(list(range(1, 101)), share) == expected
    assert plan.percentile([7], share) == 7


def test_seconds_without_an_acknowledgement_are_in_the_timeline() -> None:
    steps = [(0, N, 0), (1, A, 0), (2, N, 1), (3, F, 1, "lost"), (2000, N, 1), (2001, A, 1), (2002, END, 0)]
    assert [(row["acknowledged"], row["errors"], row["latency_max_ms"]) for row in plan.timeline(record(steps))] == [(1, 1, 1.0), (0, 0, 0.0), (1, 0, 1999.0)]


def test_a_timeline_can_be_of_tenths_of_a_second() -> None:
    rows = plan.timeline(record([(0, N, 0), (1, A, 0), (250, N, 1), (251, A, 1), (252, END, 0)]), resolution_ms=100)
    assert [row["acknowledged"] for row in rows] == [1, 0, 1]
    assert [row["at"][-5:] for row in rows] == [".000Z", ".100Z", ".200Z"]


@pytest.mark.parametrize("moment", ["1800000000", "2027-01-15T08:00:00+00:00", "2027-01-15T09:00:00+01:00", 1800000000.0])
def test_moments_are_read(moment: str | float) -> None:
    assert plan.parse_moment(moment) == BASE


@pytest.mark.parametrize("moment", ["yesterday", "2027-01-15T08:00:00"])
def test_moments_that_may_mean_anything_are_refused(moment: str) -> None:
    with pytest.raises(PlanError):
        plan.parse_moment(moment)
