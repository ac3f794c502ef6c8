"""The figures of a failover test by scenario, for a terminal. Pure: no I/O, no clock."""

from __future__ import annotations

from typing import Any

from ansible_collections.freight.pg_ha.plugins.plugin_utils._report.figures import LAYERS

CRASH, LOSS, PLANNED = (5000, 5000), (30000, 25000), (2500, 2500)
# What the lab has to show of a scenario with the shipped settings, in ms: the worst run, and the median of all
BOUNDS = {
    "switchover": PLANNED,
    **dict.fromkeys(("postmaster_killed", "patroni_killed", "patroni_and_postmaster_killed", "leader_stopped", "leader_shut_down"), CRASH),
    **dict.fromkeys(("leader_off", "leader_cut_off", "leader_cut_from_peers", "leader_cut_from_standbys", "leader_cut_one_way", "leader_frozen"), LOSS),
}


def beyond_bounds(rows: list[dict[str, Any]], behind_poolers: bool = True) -> list[str]:
    """A sentence for each scenario that was slower than the lab has to show.

    :param rows: one per scenario, as the report sums them up
    :param behind_poolers: whether clients came through them; without, a planned switchover ends their sessions and counts as a crash does
    """
    bounds = BOUNDS if behind_poolers else {**BOUNDS, "switchover": CRASH}
    found = []
    for row in rows:
        worst, median = bounds.get(row["name"], (row["budget_ms"], row["budget_ms"]))
        if row["worst_ms"] > worst or row["median_ms"] > median:
            found.append(f"{row['name']}: worst {row['worst_ms']} ms, median {row['median_ms']} ms; it has to be at most {worst} and {median} ms.")
    return found


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
