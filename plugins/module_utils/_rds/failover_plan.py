# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""A failover that was asked for, as the service tells it. Pure: no I/O, no clock.

The service has no answer that says that a failover is over: only its events do (RDS-EVENT-0013 started, RDS-EVENT-0015 and 0049 completed), and the zone.
"""

from __future__ import annotations

import datetime
import typing as t
from dataclasses import dataclass

from .._core.errors import PlanError
from .model import SETTLED, Described, public_events

# An event is there within seconds; the service answers in whole minutes.
EVENT_MINUTES = 30
OVER = "over"
_BEGINNING = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class Failover:
    """What the events say.

    :param events: all since it was asked for
    :param started: when the service says that it began; None while it has not said so
    :param completed: when it says that it was over
    """

    events: list[Described]
    started: datetime.datetime | None
    completed: datetime.datetime | None

    def public(self) -> dict[str, t.Any]:
        """For results."""
        both = self.started is not None and self.completed is not None
        seconds = round((self.completed - self.started).total_seconds(), 3) if both and self.started and self.completed else None
        return {
            "started_at": None if self.started is None else self.started.isoformat(),
            "completed_at": None if self.completed is None else self.completed.isoformat(),
            "service_seconds": seconds,
            "events": public_events(self.events),
        }


def refuse(instance: Described) -> None:
    """An instance that cannot fail over.

    :raises PlanError: it has no standby, or is busy
    """
    name = instance["DBInstanceIdentifier"]
    if not instance.get("MultiAZ"):
        raise PlanError(f"Instance {name} is not Multi-AZ, so there is nothing that it could fail over to: set multi_az with rds_instance first.")
    if instance.get("DBInstanceStatus") not in SETTLED:
        raise PlanError(f"Instance {name} is {instance.get('DBInstanceStatus')}: wait until it is available, and run the same again.")


def latest(events: t.Sequence[Described]) -> datetime.datetime:
    """The moment of the last event; what comes later belongs to what is asked for now. By the service's clock, since ours may differ."""
    return max((event["Date"] for event in events), default=_BEGINNING)


def read_failover(events: t.Sequence[Described], since: datetime.datetime) -> Failover:
    """The failover among events.

    :param events: oldest first
    :param since: only later ones count
    """
    ours = [event for event in events if event["Date"] > since]
    return Failover(ours, _first(ours, "failover started"), _first(ours, "failover completed"))


def _first(events: t.Iterable[Described], words: str) -> datetime.datetime | None:
    return next((event["Date"] for event in events if words in event["Message"].lower()), None)


def state(instance: Described, left: str, failover: Failover) -> str:
    """:data:`OVER`, or what it still waits for, in words."""
    if failover.completed is None:
        return "the service has said that it began" if failover.started else "the service has said nothing of it yet"
    if instance.get("AvailabilityZone") == left:
        return f"it is over, and the primary is in {left} still"
    return OVER if instance.get("DBInstanceStatus") in SETTLED else f"it is over, and the instance is {instance.get('DBInstanceStatus')}"
