"""Figures of a failover test's evidence, by scenario. Pure: no I/O, no clock."""

from __future__ import annotations

import statistics
from typing import Any

LAYERS = ("server", "route", "pooler", "client")


def summarize(scenarios: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row per scenario, in order: how often it was run and passed, worst, median and best time without service, the median of each layer, and what was lost.

    :param scenarios: rows of failover.json
    """
    found = []
    for name in dict.fromkeys(row["name"] for row in scenarios):
        rows = [row for row in scenarios if row["name"] == name]
        times = [row["rto_ms"] for row in rows]
        layers = {layer: [row["layers_ms"][layer] for row in rows if row["layers_ms"][layer] is not None] for layer in LAYERS}
        found.append(
            {
                "name": name,
                "runs": len(rows),
                "passed": sum(row["passed"] for row in rows),
                "worst_ms": round(max(times)),
                "median_ms": round(statistics.median(times)),
                "best_ms": round(min(times)),
                "layers_ms": {layer: round(statistics.median(values)) if values else None for layer, values in layers.items()},
                "errors": max(row["client_errors"] for row in rows),
                "lost": sum(row["rpo_lost"] for row in rows),
                "duplicated": sum(row["duplicated"] for row in rows),
                "two_writers": sum(len(row["two_writers"]) for row in rows),
                "whole_s": max(row["redundancy_restored_s"] for row in rows),
            }
        )
    return found


def render(rows: list[dict[str, Any]]) -> str:
    """The rows as a table for a terminal."""
    head = ("scenario", "runs", "passed", "worst", "median", "best", "server", "route", "pooler", "errors", "lost", "twice", "two writers", "whole s")
    lines = [head]
    for row in rows:
        layers = ["-" if row["layers_ms"][layer] is None else str(row["layers_ms"][layer]) for layer in LAYERS[:3]]
        figures = [row[key] for key in ("runs", "passed", "worst_ms", "median_ms", "best_ms")]
        rest = [row[key] for key in ("errors", "lost", "duplicated", "two_writers", "whole_s")]
        lines.append((row["name"], *map(str, figures), *layers, *map(str, rest)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(text.ljust(width) if not column else text.rjust(width) for column, (text, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )
