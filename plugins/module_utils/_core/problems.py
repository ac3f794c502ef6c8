# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What stands in the way of a phase: all of it together, each in one sentence."""

from __future__ import annotations

import typing as t
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Problem:
    """Something that must be mended before a phase begins.

    :param kind: what sort of problem it is, for programs
    :param object: the inventory key, group, host or service that it is about
    :param message: what is wrong, naming the object; no full stop
    :param remedy: what to do; no full stop
    """

    kind: str
    object: str
    message: str
    remedy: str

    @property
    def sentence(self) -> str:
        """For the operator."""
        return f"{self.message}: {self.remedy}."

    def public(self) -> dict[str, str]:
        """For results."""
        return {**asdict(self), "sentence": self.sentence}


def describe(what: str, problems: t.Sequence[Problem]) -> str:
    """One message with a line for each.

    :param what: what the problems are of, e.g. ``the inventory``
    """
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return "\n".join([f"{count} of {what}; nothing was changed.", *(f"- {problem.sentence}" for problem in problems)])
