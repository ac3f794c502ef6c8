# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Estimates that are true: none before there is a basis (pure, the clock is handed in)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

# What is looked at: the last samples, so that a slow beginning is forgotten.
WINDOW_SECONDS = 30.0
# The basis: so long must have been watched, and so often must it have moved meanwhile.
LEAST_SECONDS = 4.0
LEAST_MOVES = 3


@dataclass
class Pace:
    """How fast something moves towards its total."""

    samples: deque[tuple[float, float]] = field(default_factory=deque)
    total: float = 0.0

    def see(self, done: float | None, total: float | None, now: float) -> None:
        """Take in a sample; what goes backwards, or has another total, begins anew."""
        if done is None or not total:
            return
        if self.samples and (done < self.samples[-1][1] or total != self.total):
            self.samples.clear()
        self.total = total
        self.samples.append((now, done))
        while len(self.samples) > 2 and now - self.samples[1][0] >= WINDOW_SECONDS:
            self.samples.popleft()

    def seconds_left(self, now: float) -> int | None:
        """Seconds until the total at the pace of late; None while there is no basis."""
        if not self.samples:
            return None
        (began, first), (ended, last) = self.samples[0], self.samples[-1]
        if ended - began < LEAST_SECONDS or len({done for _at, done in self.samples}) <= LEAST_MOVES:
            return None
        left = (self.total - last) * (ended - began) / (last - first)
        return max(0, round(left - (now - ended)))
