# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""A cutover whose source was lost after the decision: what the target can finish alone, when somebody has declared that the source is gone."""

from __future__ import annotations

import contextlib
import typing as t

from .._core.errors import ClientError, GateError
from .._core.outcome import Outcome
from .._postgresql import client
from .._postgresql.locks import take_lock
from .._postgresql.slots import has_subscription
from . import decision, schema, section, settle

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

APPLICATION_NAME = "ha_migration cutover gone"


def finish(params: dict[str, t.Any], check_mode: bool, kept: t.Callable[[], dict[str, t.Any]], open_console: t.Callable[[str], Connection]) -> Outcome:
    """Finish on the target.

    :param kept: what the method has left of evidence on the target
    :param open_console: opens the console of a pooler
    :raises GateError: the source answers, the target does not know that it serves, or not every pooler leads there
    """
    refuse_source(params)
    target = _connect(params, "target")
    try:
        epoch = _decided(target, params, open_console)
        evidence = {
            "epoch": epoch,
            "outcome": "done",
            "serves": "target",
            # What was measured stood on the source.
            "steps": [],
            "way_back": {"link": schema.REVERSE_LINK, "follows": False, "problem": "The source is gone.", "standbys_without": None},
            "sessions_ended": {},
            "refused_writes": {},
            **kept(),
        }
        if not check_mode and not params["only_gates"]:
            _tidy(target)
    finally:
        target.close()
    actions = [f"epoch {epoch}: the target serves, without the source"]
    return Outcome(
        changed=not params["only_gates"],
        result={"serves": "target", "failed_gates": [], "actions": actions, "run": None, "evidence": evidence},
        before={"serves": "target", "finished": False},
        after={"serves": "target", "finished": True},
    )


def refuse_source(params: dict[str, t.Any]) -> None:
    """It must not answer: then its part has to be done.

    :raises GateError: it does
    """
    with contextlib.suppress(ClientError):
        _connect(params, "source").close()
        raise GateError("The source is declared gone (pg_ha_source_gone) and answers: take that input away, so that the cutover is finished there too.")


def _connect(params: dict[str, t.Any], side: str) -> Connection:
    return client.connect(
        params["service_file"],
        side,
        application_name=APPLICATION_NAME,
        connect_timeout_seconds=params["connect_timeout_seconds"],
        settings={"synchronous_commit": "on"},
    )


def _decided(target: Connection, params: dict[str, t.Any], open_console: t.Callable[[str], Connection]) -> int:
    """The attempt that led to the target, which alone says so.

    :raises GateError: it does not, somebody else is at it, or a pooler leads elsewhere
    """
    if not take_lock(target, (schema.LOCK_CLASS, schema.LOCK_CUTOVER)):
        raise GateError(schema.CUTOVER_RUNS, busy=True)
    known = decision.read_history(target, "target")
    if not known or decision.plan_serving(known) != "target":
        raise GateError("The target was never told that it serves, so that nobody knows what the source had decided: bring the source back.")
    if decision.read_open_epoch(target) is not None:
        raise GateError("An attempt to return to the source is open on the target: it cannot be finished without the source.")
    epoch = max(known)[0]
    endpoint = (params["target_endpoint"]["host"], params["target_endpoint"]["port"])
    attempt = section.Attempt(epoch, params["run"], "source", "target", params["database"], params["budget_seconds"], (), False, endpoint)
    consoles = {name: open_console(name) for name in params["poolers"]}
    if late := section.behind(consoles, attempt):
        raise GateError(f"{', '.join(late)} does not serve its clients from the target: look at pg-ha-dead-man there.")
    return epoch


def _tidy(target: Connection) -> None:
    """Nothing comes any more from the source, and nothing is kept for it; the announcement has done its work."""
    name = schema.FORWARD_LINK
    if has_subscription(target, name):
        settle.drop_subscription(target, name)
    settle.drop_slot(target, schema.REVERSE_LINK)
    settle.open_guard(target)
