# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What the target costs beside what the operator compares it with. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.freight.pg_ha.plugins.module_utils._costs import plan

from . import verdict

# How long clients may be without service, where nothing is declared.
RTO_SECONDS = 60


def compared(evidence: verdict.Evidence, entries: t.Sequence[plan.Entry], rto_seconds: t.Any) -> dict[str, t.Any] | None:
    """Rows and recommendation, the target that stands first; None where nothing is compared and its cost is not known.

    The first entry of the kind that stands is that target: it says what the evidence does not.

    :param entries: ``pg_ha_compared``
    :param rto_seconds: how long clients may be without service
    :raises UsageError: an entry is not understood
    """
    topology, targets = evidence["topology"], plan.read(entries)
    if not targets and not topology.get("monthly_cost"):
        return None
    if topology:
        kind = topology["target"]["kind"]
        same = next((target for target in targets if target.kind == kind), None)
        stands = _stands(evidence, same or plan.Target(kind, ", ".join(topology["target"]["members"])))
        targets = [stands, *(target for target in targets if target is not same)]
    return plan.compare(targets, rto_seconds)


def _stands(evidence: verdict.Evidence, target: plan.Target) -> plan.Target:
    """The target with what the evidence knows of it."""
    cost, measured = evidence["topology"].get("monthly_cost"), worst_seconds(evidence["failover"].get("scenarios", []))
    known: dict[str, t.Any] = {} if measured is None else {"measured": measured}
    if cost:
        known["cost"] = plan.cost_of("The target", cost)
        known["notes"] = ". ".join([*([target.notes.rstrip(".")] if target.notes else []), f"Without {cost['without']}."])
    return dataclasses.replace(target, **known)


def worst_seconds(rows: t.Sequence[t.Mapping[str, t.Any]]) -> float | None:
    """The longest time without service in those runs in which no server took writes for a while; None where there was no such run.

    :param rows: ``scenarios`` of failover.json
    """
    return max((row["rto_ms"] / 1000 for row in rows if row["layers_ms"]["server"] is not None), default=None)
