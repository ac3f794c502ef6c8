"""What is said of several runs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable


def spread(values: Iterable[float]) -> dict[str, float]:
    """Minimum, median and maximum, in the unit of the values."""
    found = sorted(values)
    return {"min": round(found[0], 3), "median": round(statistics.median(found), 3), "max": round(found[-1], 3)}
