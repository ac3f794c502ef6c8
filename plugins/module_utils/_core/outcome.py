# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What a module's run() returns, and the only place that ends a module."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .errors import PgHaError

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


@dataclass(frozen=True)
class Action:
    """One step of a plan; the order in the list is the order of execution.

    :param public: what is shown in results, diffs and logs
    :param private: what is executed where it differs from the public form (it may hold a secret)
    """

    public: str
    private: str | None = field(default=None, repr=False)

    @property
    def statement(self) -> str:
        """The form to execute."""
        return self.public if self.private is None else self.private


@dataclass(frozen=True)
class Outcome:
    """Result of a module: public forms only.

    :param changed: whether something was (or in check mode: would be) changed
    :param result: values to return, keyed by their noun
    :param before: state before, of the same shape as ``after``; None when there is no diff to show
    :param after: state after (predicted in check mode)
    """

    changed: bool
    result: dict[str, t.Any] = field(default_factory=dict)
    before: t.Any = None
    after: t.Any = None

    @classmethod
    def of(cls, before: t.Any, after: t.Any, actions: list[Action], **result: t.Any) -> Outcome:
        """An outcome whose ``changed`` follows from the plan alone."""
        return cls(
            changed=bool(actions),
            result={**result, "actions": [action.public for action in actions]},
            before=before,
            after=after,
        )


def finish(module: AnsibleModule, work: t.Callable[[], Outcome]) -> None:
    """Run ``work`` and end the module with its outcome; a PgHaError becomes one fail_json.

    ``work`` opens its own connections, so that nothing connects before the arguments are valid.
    """
    try:
        outcome = work()
    except PgHaError as error:
        module.fail_json(msg=error.message, error=type(error).__name__, **error.details)
    diff = {} if outcome.before is None and outcome.after is None else {"diff": {"before": outcome.before, "after": outcome.after}}
    module.exit_json(changed=outcome.changed, **outcome.result, **diff)
