# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Figures of a failover test by scenario, and of a copy over time. Pure."""

from __future__ import annotations

import statistics
import typing as t

LAYERS = ("server", "route", "pooler", "client")
# Parts into which the time of a copy is cut.
_PARTS = 120


def scenarios(rows: t.Sequence[t.Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    """One row per scenario, in order: how often it was run and passed, times without service, medians of the layers and of the name's move, what was lost.

    :param rows: ``scenarios`` of failover.json
    :returns: times in milliseconds, ``whole_s`` in seconds; ``worst`` is the row of the run that took longest
    """
    found = []
    for name in dict.fromkeys(row["name"] for row in rows):
        runs = [row for row in rows if row["name"] == name]
        times = [row["rto_ms"] for row in runs]
        moved = [row["name_moved_ms"] for row in runs if row["name_moved_ms"] is not None]
        layers = {layer: [row["layers_ms"][layer] for row in runs if row["layers_ms"][layer] is not None] for layer in LAYERS}
        found.append(
            {
                "name": name,
                "title": runs[0]["title"],
                "runs": len(runs),
                "passed": sum(row["passed"] for row in runs),
                "reasons": list(dict.fromkeys(reason for row in runs for reason in row["reasons"])),
                "worst_ms": round(max(times)),
                "median_ms": round(statistics.median(times)),
                "best_ms": round(min(times)),
                "budget_ms": runs[0]["budget_ms"],
                "layers_ms": {layer: round(statistics.median(values)) if values else None for layer, values in layers.items()},
                "name_moved_ms": round(statistics.median(moved)) if moved else None,
                "errors": max(row["client_errors"] for row in runs),
                "lost": sum(row["rpo_lost"] for row in runs),
                "duplicated": sum(row["duplicated"] for row in runs),
                "two_writers": sum(len(row["two_writers"]) for row in runs),
                "whole_s": max(row["redundancy_restored_s"] for row in runs),
                "worst": max(runs, key=lambda row: row["rto_ms"]),
            }
        )
    return found


def shares(layers_ms: t.Mapping[str, float | None]) -> list[tuple[str, float]]:
    """What each layer added to the time without service: (layer, share of the whole from 0 to 1); nothing where no layer was away."""
    whole = layers_ms["client"]
    if not whole or all(layers_ms[layer] is None for layer in LAYERS[:-1]):
        return []
    found, reached = [], 0.0
    for layer in LAYERS:
        at = layers_ms[layer]
        if at is not None and at > reached:
            found.append((layer, (at - reached) / whole))
            reached = at
    return found


def pace(by_table: t.Sequence[t.Mapping[str, t.Any]]) -> tuple[float, list[float]]:
    """Bytes per second over the time of a copy, as if each table had come at one pace.

    :param by_table: of replication.json
    :returns: seconds that one part stands for, and the pace in each part
    """
    end = max((row["to_s"] for row in by_table), default=0.0)
    if end <= 0:
        return 0.0, []
    length = end / _PARTS
    parts = [0.0] * _PARTS
    for row in by_table:
        took = row["to_s"] - row["from_s"]
        first, last = (min(_PARTS - 1, int(row[key] / length)) for key in ("from_s", "to_s"))
        if took <= 0:
            parts[first] += row["bytes"]
            continue
        for number in range(first, last + 1):
            overlap = min(row["to_s"], (number + 1) * length) - max(row["from_s"], number * length)
            parts[number] += row["bytes"] * max(0.0, overlap) / took
    return length, [part / length for part in parts]
