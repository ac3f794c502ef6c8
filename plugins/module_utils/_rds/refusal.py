# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""How problems end a module."""

from __future__ import annotations

import typing as t

from .._core.errors import PlanError
from .._core.problems import Problem, describe


def refuse(what: str, problems: t.Sequence[Problem]) -> None:
    """Say all of it, before anything was changed.

    :param what: what the problems are of
    :raises PlanError: there is something
    """
    if problems:
        raise PlanError(describe(what, problems), problems=[problem.public() for problem in problems])
