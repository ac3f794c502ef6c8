# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Bounded waiting for what the service does. Its answer to a request is not the end of it: for some seconds an instance that was changed is still available."""

from __future__ import annotations

import typing as t

from .._core.errors import PlanError
from .._core.waiting import Clock, wait_until
from .model import DELETING, SETTLED, STUCK, Described

DELAY_SECONDS = 5.0


class Reader(t.Protocol):
    """What waits need of a client."""

    def read_instance(self, identifier: str) -> dict[str, t.Any] | None:
        """An instance's description."""

    def read_snapshot(self, identifier: str) -> dict[str, t.Any] | None:
        """A snapshot's description."""


def refuse_stuck(instance: Described) -> None:
    """An instance that does not become available by waiting.

    :raises PlanError: it is one
    """
    name, status = instance["DBInstanceIdentifier"], str(instance.get("DBInstanceStatus"))
    if status == DELETING:
        raise PlanError(f"Instance {name} is being deleted, which cannot be taken back: wait until it is gone, and run the same again.")
    if status in STUCK:
        raise PlanError(f"Instance {name} is {status}, which no waiting ends: {STUCK[status]}, and run the same again.")


def settle(client: Reader, instance: Described, check_mode: bool, timeout_seconds: float, clock: Clock) -> Described:
    """An instance as it is once it is available, or in check mode as it stands; what waiting does not end is refused in both.

    :raises PlanError: it does not become available by waiting
    :raises WaitTimeout: it was not in time
    """
    refuse_stuck(instance)
    return instance if check_mode else until_settled(client, instance["DBInstanceIdentifier"], timeout_seconds, clock)


def nothing_more(_instance: Described) -> list[str]:
    """It need not wait for anything else."""
    return []


def promotion(instance: Described) -> list[str]:
    """It follows somebody still."""
    return ["promotion"] if instance.get("ReadReplicaSourceDBInstanceIdentifier") else []


def parameters(instance: Described) -> list[str]:
    """Parameters are not in force yet."""
    return ["parameters"] if any(group.get("ParameterApplyStatus") != "in-sync" for group in instance.get("DBParameterGroups", [])) else []


def secret(instance: Described) -> list[str]:
    """Nobody can read the administrator's password yet."""
    made = instance.get("MasterUserSecret") or {"SecretStatus": "creating"}
    return ["secret"] if made.get("SecretStatus") == "creating" else []


def until_settled(
    client: Reader,
    identifier: str,
    timeout_seconds: float,
    clock: Clock,
    asked: Described | None = None,
    also: t.Callable[[Described], list[str]] = nothing_more,
    ends: str | None = None,
) -> dict[str, t.Any]:
    """Wait until an instance is available and nothing is pending of what was asked for at once.

    :param asked: the request that changes it, where there was one
    :param also: what else of an instance is not as it has to be, in words
    :param ends: the state that the request ends, in which the instance still is for a moment
    :raises PlanError: it is in a state that no waiting ends
    :raises WaitTimeout: it was not in time
    """
    request = asked or {}
    at_once = {"Port" if key == "DBPortNumber" else key for key in request} if request.get("ApplyImmediately") else set()
    makes_secret = bool(request.get("ManageMasterUserPassword"))
    seen: dict[str, t.Any] = {}

    def look() -> str:
        nonlocal seen
        seen = client.read_instance(identifier) or {}
        if seen and seen.get("DBInstanceStatus") != ends:
            refuse_stuck(seen)
        pending = sorted(at_once & set(seen.get("PendingModifiedValues") or ())) + also(seen) + (secret(seen) if makes_secret else [])
        return f"{seen.get('DBInstanceStatus', 'not there')}{f', {pending} pending' if pending else ''}"

    wait_until(look, lambda status: status in SETTLED, f"Instance {identifier} in a state to be used", timeout_seconds, DELAY_SECONDS, clock)
    return seen


def until_gone(client: Reader, identifier: str, timeout_seconds: float, clock: Clock) -> None:
    """Wait until there is no instance of that name.

    :raises WaitTimeout: there was one for too long
    """

    def look() -> str:
        instance = client.read_instance(identifier)
        return "gone" if instance is None else str(instance.get("DBInstanceStatus"))

    wait_until(look, lambda status: status == "gone", f"The end of instance {identifier}", timeout_seconds, DELAY_SECONDS, clock)


def until_snapshot(client: Reader, identifier: str, timeout_seconds: float, clock: Clock) -> dict[str, t.Any]:
    """Wait until a snapshot can be restored.

    :raises PlanError: it has failed
    :raises WaitTimeout: it was not in time
    """
    seen: dict[str, t.Any] = {}

    def look() -> str:
        nonlocal seen
        seen = client.read_snapshot(identifier) or {}
        if seen.get("Status") == "failed":
            raise PlanError(f"Snapshot {identifier} has failed: see the instance's events, delete it and run the same again.")
        return f"{seen.get('Status', 'not there')}, {seen.get('PercentProgress', 0)} %"

    wait_until(look, lambda status: status.startswith("available"), f"Snapshot {identifier}", timeout_seconds, DELAY_SECONDS, clock)
    return seen
