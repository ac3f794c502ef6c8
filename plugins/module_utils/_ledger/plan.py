# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The account of a run: its record against the rows of the table. Pure: no I/O, no clock."""

from __future__ import annotations

import datetime
import itertools
import typing as t
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal

from .._core.errors import PlanError
from .model import NANOSECONDS, RETRY_CLASSES, Balances, ClientRecord, Entry, Gap, Kind, Record, Write

KEYS_SHOWN = 100
_ACKNOWLEDGEMENTS = (Kind.ACK, Kind.FOUND)
Key = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A stretch of time around a moment.

    :param around: ns since 1970 UTC
    :param half_width: ns to either side
    """

    around: int
    half_width: int

    @classmethod
    def of(cls, around: str | float, window_seconds: float) -> Window:
        """A window that is ``window_seconds`` wide to either side of ``around`` (ISO 8601 with a zone, or seconds since 1970).

        :raises PlanError: it is neither
        """
        return cls(parse_moment(around), int(window_seconds * NANOSECONDS))

    @property
    def begin(self) -> int:
        """First nanosecond of the window."""
        return self.around - self.half_width

    @property
    def end(self) -> int:
        """Last nanosecond of the window."""
        return self.around + self.half_width


def parse_moment(moment: str | float) -> int:
    """Nanoseconds since 1970 UTC.

    :raises PlanError: not ISO 8601 with a zone and not a number
    """
    try:
        return int(float(moment) * NANOSECONDS)
    except ValueError:
        pass
    try:
        parsed = datetime.datetime.fromisoformat(str(moment))
    except ValueError:
        raise PlanError(f"The moment {moment!r} is neither ISO 8601 nor seconds since 1970.") from None
    if parsed.tzinfo is None:
        raise PlanError(f"The moment {moment!r} has no time zone; write it with one (2026-01-31T12:00:00+00:00).")
    return int(parsed.timestamp() * 1_000_000) * 1000


def format_moment(wall: int) -> str:
    """ISO 8601 in UTC with microseconds."""
    return datetime.datetime.fromtimestamp(wall / NANOSECONDS, tz=datetime.UTC).isoformat(timespec="microseconds")


def read_writes(record: ClientRecord) -> dict[int, Write]:
    """Every write of a client by its number within the run."""
    writes: dict[int, Write] = {}
    for entry in record.entries:
        kind = entry.kind
        if kind == Kind.END:
            continue
        write = writes.get(entry.seq)
        if write is None:
            write = writes[entry.seq] = Write(began=entry.monotonic)
        if kind == Kind.INTENT:
            write.attempts += 1
            write.open = True
            continue
        if kind == Kind.ABSENT:
            _resolve(write, committed=False)
            continue  # the same attempt goes on and writes
        write.open = False
        if kind == Kind.ACK:
            write.acknowledged = entry.monotonic
        elif kind == Kind.FOUND:
            _resolve(write, committed=True)
            write.acknowledged = entry.monotonic
        elif kind == Kind.UNKNOWN:
            write.unknown.append(None)
        elif kind == Kind.SURFACED:
            write.surfaced = True
    return writes


def _resolve(write: Write, committed: bool) -> None:
    """One look answers for all unknown attempts of a write: it can be there once only, so the last of them is the one that took effect."""
    open_ones = [number for number, outcome in enumerate(write.unknown) if outcome is None]
    for number in open_ones:
        write.unknown[number] = committed and number == open_ones[-1]


def find_gaps(record: Record, window: Window | None = None) -> tuple[Gap, Gap]:
    """The longest time without an acknowledgement of any client, and the longest that one client had.

    A gap also runs from a client's first attempt to its first acknowledgement, and from the last acknowledgement to the last
    entry, so that a server that never came back is seen. With a window only gaps that overlap it count, each in full length.

    :raises PlanError: the record does not cover the window, or holds nothing
    """
    merged: list[tuple[int, int]] = []
    longest = Gap(-1, 0)
    for client in record.clients:
        moments = _moments(client.entries)
        merged.extend(moments)
        longest = max(longest, _longest(moments, window, client.client), key=lambda gap: gap.nanoseconds)
    if not merged:
        raise PlanError(f"The record of run {record.header.run} holds no attempt.")
    begin, end = min(moment[1] for moment in merged), max(moment[1] for moment in merged)
    if window is not None and not begin <= window.around <= end:
        raise PlanError(
            f"The record of run {record.header.run} covers {format_moment(begin)} to {format_moment(end)} "
            f"and not the moment asked for, {format_moment(window.around)}."
        )
    merged.sort()
    # Only the very first attempt and the very last entry bound the gaps of all clients together.
    acknowledged = sorted((entry.monotonic, entry.wall) for client in record.clients for entry in client.entries if entry.kind in _ACKNOWLEDGEMENTS)
    return _longest([merged[0], *acknowledged, merged[-1]], window, None), longest


def _moments(entries: list[Entry]) -> list[tuple[int, int]]:
    """A client's first attempt, its acknowledgements and its last entry, as (monotonic, wall); the last counts only while it was trying."""
    if not entries:
        return []
    moments = [(entries[0].monotonic, entries[0].wall)]
    moments += [(entry.monotonic, entry.wall) for entry in entries if entry.kind in _ACKNOWLEDGEMENTS]
    last = entries[-1]
    if last.kind != Kind.END or last.seq != 0:
        moments.append((last.monotonic, last.wall))
    elif len(entries) > 1:
        # END itself may come after an idle pause; what the client did before it is what it tried.
        moments.append((entries[-2].monotonic, entries[-2].wall))
    return moments


def _longest(moments: list[tuple[int, int]], window: Window | None, client: int | None) -> Gap:
    """The longest distance between two moments that follow each other."""
    best = Gap(0, moments[0][1] if moments else 0, client)
    for (before, wall), (after, after_wall) in itertools.pairwise(moments):
        if window is not None and (after_wall < window.begin or wall > window.end):
            continue
        if after - before > best.nanoseconds:
            best = Gap(after - before, wall, client, before)
    return best


def percentile(values: list[int], share: float) -> int:
    """Nearest-rank percentile of sorted values.

    :param share: 0 < share <= 1
    """
    return values[max(0, -(-int(share * 1000) * len(values) // 1000) - 1)]


def timeline(record: Record, window: Window | None = None, resolution_ms: int = 1000) -> list[dict[str, t.Any]]:
    """Acknowledgements, errors and the worst latency of each second of wall time: ``{"at", "acknowledged", "errors", "latency_max_ms"}``.

    :param resolution_ms: length of each part, where it is not a second
    """
    length = resolution_ms * 1_000_000
    parts: dict[int, list[int]] = {}
    for client in record.clients:
        began: dict[int, int] = {}
        errors = 0
        for entry in client.entries:
            new_errors, errors = entry.errors - errors, entry.errors
            if entry.kind == Kind.INTENT:
                began.setdefault(entry.seq, entry.monotonic)
            if window is not None and not window.begin <= entry.wall <= window.end:
                continue
            row = parts.setdefault(entry.wall // length, [0, 0, 0])
            row[1] += new_errors
            if entry.kind in _ACKNOWLEDGEMENTS:
                row[0] += 1
                row[2] = max(row[2], entry.monotonic - began.get(entry.seq, entry.monotonic))
    if not parts:
        return []
    shown = 19 if length % NANOSECONDS == 0 else 23
    return [
        {
            "at": format_moment(part * length)[:shown] + "Z",
            "acknowledged": row[0],
            "errors": row[1],
            "latency_max_ms": round(row[2] / 1e6, 1),
        }
        for part in range(min(parts), max(parts) + 1)
        for row in [parts.get(part, [0, 0, 0])]
    ]


def _account_balances(balances: Balances, effective: t.Iterable[Key], lost: list[Key], doubled: list[Key]) -> dict[str, t.Any]:
    """Accounts that hold more or less than the writes that should have taken effect explain.

    A write that lost both its row and its effect is one lost write, not two: an account is blamed only where no row was.
    """
    expected = dict(balances.before)
    for client, seq in effective:
        account, amount = balances.amounts(client, seq)
        expected[account] = expected.get(account, Decimal(0)) + amount
    explained_less = {balances.amounts(*key)[0] for key in lost}
    explained_more = {balances.amounts(*key)[0] for key in doubled}
    off = {account: balances.after.get(account, Decimal(0)) - expected.get(account, Decimal(0)) for account in expected.keys() | balances.after.keys()}
    return {
        "accounts": len(expected),
        "expected": str(sum(expected.values())),
        "found": str(sum(balances.after.values())),
        "effect_missing": sorted(account for account, difference in off.items() if difference < 0 and account not in explained_less),
        "effect_repeated": sorted(account for account, difference in off.items() if difference > 0 and account not in explained_more),
    }


def judge(
    record: Record,
    rows: t.Iterable[Key],
    *,
    balances: Balances | None = None,
    window: Window | None = None,
    running: bool = False,
    timeline_window: Window | None = None,
    resolution_ms: int = 1000,
) -> dict[str, t.Any]:
    """The verdict over a run.

    The record must have been read *before* the rows: then everything that it calls acknowledged was committed when the rows were read.

    :param rows: (client, seq) of every row of the run, seq as in the table, in any order, with repetitions
    :param balances: where the workload moves balances: a second, independent look for what was lost or took effect twice
    :param window: where ``write_pause_ms`` and ``longest_client_stall_ms`` are looked for; None is the whole run
    :param running: the run goes on, so a missing END is no fault
    :param timeline_window: what the timeline covers; None is the whole run
    :param resolution_ms: length of each of its parts
    :returns: the verdict; ``problems`` is [] and ``ok`` true only when nothing was lost or duplicated and no client saw an error
    :raises PlanError: the record holds nothing, or does not cover the window
    """
    header = record.header
    first = header.first_seq
    present = Counter(rows)
    writes: dict[Key, Write] = {}
    for client in record.clients:
        for seq, write in read_writes(client).items():
            writes[(client.client, seq + first)] = write
    acknowledged = {key for key, write in writes.items() if write.acknowledged is not None}
    lost = sorted(key for key in acknowledged if not present[key])
    doubled = sorted(key for key, count in present.items() if count > 1)
    extra_rows = sum(present[key] - 1 for key in doubled)
    unknown = {"total": 0, "committed": 0, "not_committed": 0}
    refused_but_present = []
    for key, write in writes.items():
        outcomes: list[bool | None] = [*write.unknown, None] if write.open else list(write.unknown)
        # Nobody looked: the table tells, unless another attempt was acknowledged, which then is the one that is there.
        there = present[key] > 0 and write.acknowledged is None
        for number, outcome in enumerate(outcomes):
            committed = (there and number == len(outcomes) - 1) if outcome is None else outcome
            unknown["total"] += 1
            unknown["committed" if committed else "not_committed"] += 1
        if present[key] and write.acknowledged is None and not outcomes:
            refused_but_present.append(key)
    last_seq = {client.client: max((entry.seq for entry in client.entries), default=-1) + first for client in record.clients}
    # A row beyond the record's end was written after the record was read, or its INTENT died with the machine.
    unexpected = sorted(refused_but_present + [key for key in present if key not in writes and (not running or key[1] <= last_seq.get(key[0], -1))])

    by_class: Counter[str] = Counter()
    retries = 0
    for client in record.clients:
        errors = 0
        for entry in client.entries:
            if entry.errors > errors:
                by_class[entry.error_class or "unknown"] += entry.errors - errors
                errors = entry.errors
            elif entry.kind == Kind.FAIL and entry.error_class in RETRY_CLASSES:
                retries += 1
    latencies = sorted(write.acknowledged - write.began for write in writes.values() if write.acknowledged is not None)
    pause_all = find_gaps(record)[0]
    pause, stall = find_gaps(record, window)
    begin = min(client.entries[0].monotonic for client in record.clients if client.entries)
    end = max(client.entries[-1].monotonic for client in record.clients if client.entries)
    begin_wall = min(client.entries[0].wall for client in record.clients if client.entries)
    end_wall = max(client.entries[-1].wall for client in record.clients if client.entries)
    surfaced = sum(write.surfaced for write in writes.values())
    ended = sum(1 for client in record.clients if client.entries and client.entries[-1].kind == Kind.END)
    verdict: dict[str, t.Any] = {
        "run": header.run,
        "workload": header.workload,
        "clients": header.clients,
        "started_at": format_moment(begin_wall),
        "finished_at": format_moment(end_wall),
        "seconds": round((end - begin) / NANOSECONDS, 3),
        "attempts": sum(write.attempts for write in writes.values()),
        "acknowledged": len(acknowledged),
        "rows": sum(present.values()),
        "lost": len(lost),
        "lost_keys": [list(key) for key in lost[:KEYS_SHOWN]],
        "duplicated": extra_rows,
        "duplicated_keys": [list(key) for key in doubled[:KEYS_SHOWN]],
        "unexpected": len(unexpected),
        "unexpected_keys": [list(key) for key in unexpected[:KEYS_SHOWN]],
        "unknown": unknown,
        "errors": sum(by_class.values()),
        "errors_by_class": dict(sorted(by_class.items())),
        "surfaced": surfaced,
        "retries": retries,
        "write_pause_ms": pause.milliseconds,
        "write_pause_at": format_moment(pause.from_wall),
        "write_pause_whole_run_ms": pause_all.milliseconds,
        "longest_client_stall_ms": stall.milliseconds,
        "longest_client_stall_at": format_moment(stall.from_wall),
        "longest_client_stall_client": stall.client,
        "latency_ms": {
            name: round(percentile(latencies, share) / 1e6, 3) if latencies else None
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
        },
        "transactions_per_second": round(len(acknowledged) * NANOSECONDS / (end - begin), 1) if end > begin else 0.0,
        "torn_bytes": sum(client.torn_bytes for client in record.clients),
        "complete": ended == header.clients,
        "balances": None,
        "timeline": timeline(record, timeline_window, resolution_ms),
    }
    if balances is not None:
        effective = acknowledged | present.keys()
        verdict["balances"] = account = _account_balances(balances, effective, lost, doubled)
        verdict["lost"] += len(account["effect_missing"])
        verdict["duplicated"] += len(account["effect_repeated"])
    verdict["problems"] = _problems(verdict, header.clients - ended, running)
    verdict["ok"] = not verdict["problems"]
    return verdict


def _problems(verdict: dict[str, t.Any], dead_clients: int, running: bool) -> list[str]:
    """Why a verdict is not ok, one sentence each."""
    problems = []
    if not verdict["acknowledged"]:
        problems.append("No write was acknowledged, so nothing was shown.")
    if verdict["lost"]:
        problems.append(f"{verdict['lost']} acknowledged writes are not in the database.")
    if verdict["duplicated"]:
        problems.append(f"{verdict['duplicated']} writes took effect more than once.")
    if verdict["unexpected"]:
        problems.append(f"{verdict['unexpected']} rows are in the table that no client has in its record as possibly committed.")
    if verdict["errors"]:
        problems.append(f"Clients saw {verdict['errors']} errors: {', '.join(f'{name} {count}' for name, count in verdict['errors_by_class'].items())}.")
    if dead_clients and not running:
        problems.append(f"{dead_clients} of {verdict['clients']} clients did not stop in good order, so what they would have seen later is not known.")
    return problems
