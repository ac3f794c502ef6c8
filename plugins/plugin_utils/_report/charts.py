# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Charts as SVG that stretches with the page. Colours are the page's own (classes), so that one picture does for light, dark and paper.

Text stands beside the picture and not in it, because it must not stretch: a chart comes with its ticks.
"""

from __future__ import annotations

import math
import typing as t
from dataclasses import dataclass

from markupsafe import Markup, escape

_HEIGHT = 100


@dataclass(frozen=True)
class Tick:
    """A label on an axis.

    :param at: where, in percent from the left or from the bottom
    """

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """A picture and its axes."""

    svg: Markup
    ticks_x: list[Tick]
    ticks_y: list[Tick]


def nice_ceiling(value: float) -> float:
    """The next number of the form 1, 2 or 5 times a power of ten; 1 for what is not above 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if value <= step * power * (1 + 1e-9))


def compact(value: float) -> str:
    """A number as an axis shows it: at most three digits and a unit of thousands."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def columns(
    values: t.Sequence[float],
    tone: str,
    *,
    span: tuple[float, float],
    unit_x: str,
    label: str,
    titles: t.Sequence[str] = (),
    band: tuple[float, float] | None = None,
    unit_y: str = "",
) -> Chart:
    """One column per value, side by side.

    :param tone: class of the columns
    :param span: what the left and the right edge stand for
    :param unit_x: of these, for the labels
    :param label: says in words what is seen, for who cannot see it
    :param titles: words of each column, shown when it is pointed at
    :param band: a part of the span that is marked
    """
    top = nice_ceiling(max(values, default=0))
    width = max(1, len(values))
    # So many that a gap would be thinner than what a screen shows have none.
    gap = 0.16 if width <= 60 else 0.0
    parts = [_begin(width, label)]
    if band is not None:
        left, right = (_across(span, edge) / 100 * width for edge in band)
        parts.append(Markup('<rect class="band" x="{}" y="0" width="{}" height="{}"/>').format(_short(left), _short(max(right - left, width / 200)), _HEIGHT))
    for number, value in enumerate(values):
        if value <= 0:
            continue
        height = max(1.0, value / top * _HEIGHT)
        title = Markup("<title>{}</title>").format(titles[number]) if titles else ""
        column = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}">{}</rect>')
        parts.append(column.format(tone, _short(number + gap / 2), _short(_HEIGHT - height), _short(1 - gap), _short(height), title))
    parts.append(Markup("</svg>"))
    ticks_y = [Tick(share * 100, f"{compact(top * share)}{unit_y}") for share in (0.0, 0.5, 1.0)]
    return Chart(Markup("").join(parts), _ticks(span, unit_x), ticks_y)


def line(points: t.Sequence[tuple[float, float]], tone: str, *, unit_x: str, label: str, unit_y: str = "") -> Chart:
    """A line through points, and the area below it.

    :param points: (x, y), x ascending
    """
    span = (points[0][0], points[-1][0]) if points else (0.0, 1.0)
    top = nice_ceiling(max((y for _x, y in points), default=0))
    shown = " ".join(f"{_short(_across(span, x) * 10)},{_short(_HEIGHT - y / top * _HEIGHT)}" for x, y in points)
    area = Markup('<polygon class="{} area" points="0,{} {} 1000,{}"/>').format(tone, _HEIGHT, shown, _HEIGHT)
    drawn = Markup('<polyline class="{} line" points="{}"/>').format(tone, shown)
    ticks_y = [Tick(share * 100, f"{compact(top * share)}{unit_y}") for share in (0.0, 0.5, 1.0)]
    return Chart(Markup("").join([_begin(1000, label), area, drawn, Markup("</svg>")]), _ticks(span, unit_x), ticks_y)


def _begin(width: float, label: str) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">')
    return head.format(_short(width), _HEIGHT, escape(label))


def _across(span: tuple[float, float], value: float) -> float:
    """Where a value lies between both edges, in percent."""
    length = span[1] - span[0]
    return (value - span[0]) / length * 100 if length > 0 else 0.0


def _ticks(span: tuple[float, float], unit: str) -> list[Tick]:
    """Round numbers within the span, five at most."""
    length = span[1] - span[0]
    if length <= 0:
        return [Tick(0.0, f"{compact(span[0])}{unit}")]
    step = nice_ceiling(length / 5)
    first = math.ceil(span[0] / step - 1e-9)
    last = math.floor(span[1] / step + 1e-9)
    return [Tick(_across(span, number * step), f"{compact(number * step)}{unit}") for number in range(first, last + 1)]


def _short(value: float) -> str:
    """A coordinate without digits that nobody sees."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
