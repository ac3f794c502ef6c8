# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Bounded waiting with an injected clock."""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass

from .errors import WaitTimeout

T = t.TypeVar("T")


@dataclass(frozen=True)
class Clock:
    """Where time comes from; tests pass their own.

    :param monotonic: returns seconds that never go backwards
    :param sleep: waits that many seconds
    """

    monotonic: t.Callable[[], float] = time.monotonic
    sleep: t.Callable[[float], None] = time.sleep


SYSTEM_CLOCK = Clock()


def wait_until(
    read: t.Callable[[], T],
    accept: t.Callable[[T], bool],
    what: str,
    timeout_seconds: float,
    delay_seconds: float = 1.0,
    clock: Clock = SYSTEM_CLOCK,
) -> T:
    """Read until ``accept`` says yes and return that value.

    :param what: what is awaited, in words that finish the sentence "... did not come"
    :raises WaitTimeout: names what was awaited, the last seen value and the bound
    """
    deadline = clock.monotonic() + timeout_seconds
    while True:
        value = read()
        if accept(value):
            return value
        if clock.monotonic() + delay_seconds > deadline:
            raise WaitTimeout(f"{what} did not come within {timeout_seconds:g} s; last seen: {value!r}.", last_seen=repr(value))
        clock.sleep(delay_seconds)
