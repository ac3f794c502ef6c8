# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What the looks at the layers say of an outage. Pure: no I/O, no clock."""

from __future__ import annotations

import typing as t

from .model import LAYERS, NAME, REPLICAS, SERVER, TAKEN, Look

MILLISECOND = 1_000_000
# Two looks of a layer are this far apart at most while nothing is wrong; what is further apart stood still.
PACE_NS = 250 * MILLISECOND


def split(looks: t.Sequence[Look], last_acknowledged: int, first_acknowledged: int) -> dict[str, float | None]:
    """By layer, how long after the last acknowledgement before an outage it served again, in milliseconds; None where it was never away, or never looked at.

    The layers of a route lie behind each other, so each number holds those below it: what a layer itself costs is the distance to the one below.

    :param looks: in order of their begin
    :param last_acknowledged: monotonic ns
    :param first_acknowledged: monotonic ns of the first one afterwards
    """
    asked = {look.layer for look in looks}
    return {layer: _back_after(looks, layer, last_acknowledged, first_acknowledged) if layer in asked else None for layer in LAYERS if layer != REPLICAS}


def _back_after(looks: t.Sequence[Look], layer: str, begin: int, end: int) -> float | None:
    """The server's layer is whoever takes writes: any of them will do."""
    taken = sorted(look.end for look in looks if look.layer == layer and look.answer == TAKEN and look.begin <= end)
    before = max((moment for moment in taken if moment <= begin), default=begin)
    gaps = _gaps([before, *(moment for moment in taken if moment > begin)], end)
    # The last of them before clients were served, since a layer may come and go meanwhile; what let a client through was there, though no look saw it yet.
    return round((min(gaps[-1], end) - begin) / MILLISECOND, 3) if gaps else None


def _gaps(moments: list[int], end: int) -> list[int]:
    """The ends of all distances between moments that are longer than the pace; the last one may reach to ``end``."""
    found = [after for one, after in zip(moments, moments[1:], strict=False) if after - one > PACE_NS]
    return [*found, end] if end - moments[-1] > PACE_NS else found


def longest_gap_ms(looks: t.Sequence[Look], layer: str) -> float | None:
    """Longest time in which a layer answered nobody, over the whole record; None when it was never asked.

    A layer that has stopped to answer has its gap up to the last look at it.
    """
    ours = [look for look in looks if look.layer == layer]
    if not ours:
        return None
    moments = [ours[0].begin, *sorted(look.end for look in ours if look.answer == TAKEN), max(look.end for look in ours)]
    return round(max(after - one for one, after in zip(moments, moments[1:], strict=False)) / MILLISECOND, 1)


def name_moved_ms(looks: t.Sequence[Look], begin: int) -> float | None:
    """How long after a moment the write endpoint's name led elsewhere than before it, for good; None where it did not change, or nobody asked.

    :param looks: in order of their begin
    :param begin: monotonic ns
    """
    answers = [look for look in looks if look.layer == NAME and look.answer == TAKEN]
    before = [look.name for look in answers if look.end <= begin]
    if not before or not answers or answers[-1].name == before[-1]:
        return None
    stale = max((look.begin for look in answers if look.name == before[-1]), default=begin)
    moved = next(look.end for look in answers if look.begin > stale)
    return round((moved - begin) / MILLISECOND, 3)


def two_writers(looks: t.Sequence[Look]) -> list[str]:
    """In words, every server that took a write though a later timeline had taken one already: two servers were written at once.

    Only what is certain counts: the later timeline's write had been answered before the other one began. Two servers on one timeline are two writers, too.
    """
    taken = sorted(_writes(looks), key=lambda look: look.end)
    first: dict[int, Look] = {}
    for look in taken:
        first.setdefault(t.cast(int, look.timeline), look)
    found: dict[str, str] = {}
    for look in taken:
        timeline = t.cast(int, look.timeline)
        if look.name != first[timeline].name:
            found.setdefault(look.name, f"{look.name} and {first[timeline].name} both took writes on timeline {timeline}.")
        for later, one in first.items():
            if later > timeline and one.end < look.begin:
                found.setdefault(look.name, f"{look.name} took a write on timeline {timeline} after {one.name} had on timeline {later}.")
    return [found[name] for name in sorted(found)]


def _writes(looks: t.Iterable[Look]) -> list[Look]:
    return [look for look in looks if look.layer == SERVER and look.answer == TAKEN and look.timeline is not None]


def timelines(looks: t.Sequence[Look]) -> list[int]:
    """Every timeline on which a server took a write, in order."""
    return sorted({t.cast(int, look.timeline) for look in _writes(looks)})


def writers(looks: t.Sequence[Look]) -> list[str]:
    """Who took writes, in the order in which each did so first."""
    return list(dict.fromkeys(look.name for look in _writes(looks)))
