"""The figures of a failover test by scenario, for a terminal. Pure: no I/O, no clock."""

from __future__ import annotations

from typing import Any

from ansible_collections.freight.pg_ha.plugins.plugin_utils._report.figures import LAYERS


def render(rows: list[dict[str, Any]]) -> str:
    """A table for a terminal.

    :param rows: one per scenario, as the report sums them up
    """
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
