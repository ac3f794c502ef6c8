# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The one tree of errors; clients translate a library's exceptions into it at their boundary."""

from __future__ import annotations

import typing as t


class PgHaError(Exception):
    """Something failed and the sentence says what, where and what to do. Carries no secret.

    :param message: one clear sentence for the operator
    :param details: further facts for the module's result (JSON-able, no secrets)
    """

    def __init__(self, message: str, **details: t.Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class UsageError(PgHaError):
    """An input is wrong; nothing was changed."""


class PlanError(PgHaError):
    """The wanted state is refused before any write (unknown member, lag too high, ...)."""


class GateError(PgHaError):
    """A gate does not hold or could not be evaluated; nothing was changed.

    ``details["gates"]`` lists every failed gate: ``{"gate", "object", "message", "remedy"}``.
    """


class ClientError(PgHaError):
    """A system could not be reached, refused us, or answered something that we do not understand."""


class GivenUp(PgHaError):
    """The link was given up, because its slot held back more of the publisher's WAL than is declared; the sentence says how to begin anew."""


class WaitTimeout(PgHaError):
    """What was awaited did not come in time; the message names it, the last seen value and the bound."""


class UnknownState(PgHaError):
    """An outcome could not be read (a commit without an answer). Never treated as success."""
