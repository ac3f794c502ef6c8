# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What of the migration is there and belongs to nothing that stands, the way back, and where the journal is not believed (pure)."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from . import decision, schema

if t.TYPE_CHECKING:
    from . import ours


@dataclass(frozen=True)
class Stands:
    """What is known of the migration.

    :param serves: ``source``, ``target`` or ``unknown``
    :param phases: state of each phase in the journal
    :param busy: an attempt is open, or somebody works on copy or cutover, so that what they use is no leftover; None when unknown
    :param retired: the migration has ended
    """

    serves: str
    phases: dict[str, str]
    busy: bool | None
    retired: bool


def plan_leftovers(stands: Stands, sides: dict[str, ours.Ours], poolers: list[dict[str, t.Any]], hosts: t.Sequence[str]) -> list[dict[str, str]]:
    """Everything that nobody needs any more: ``{"object", "side", "holds", "removed_by"}``; [] while it is unknown what stands.

    :param sides: what of ours is on each side that could be asked
    :param poolers: ``{"name", "paused"}`` of each that answers
    :param hosts: names of all poolers
    """
    if stands.serves == "unknown" or stands.busy is None:
        return []
    found = [] if stands.busy else [row for side in sides for row in _links(stands, side, sides)]
    if stands.retired:
        found += [row for side, have in sides.items() for row in _after_the_end(side, have)]
    elif not stands.busy:
        found += _dead_men(stands, sides, hosts)
    if not stands.busy:
        found += [
            _leftover(f"pause of pooler {row['name']}", row["name"], "all its clients", f"`RESUME` on the console of {row['name']}, or `pg-ha cut-over` again")
            for row in poolers
            if row["paused"]
        ]
    return found


def _leftover(what: str, side: str, holds: str, removed_by: str) -> dict[str, str]:
    return {"object": what, "side": side, "holds": holds, "removed_by": removed_by}


def _links(stands: Stands, side: str, sides: dict[str, ours.Ours]) -> list[dict[str, str]]:
    """Slots and subscriptions on one side that are no half of the link from the side that serves to the other."""
    name = schema.link_towards(decision.other(stands.serves))
    begun = not stands.retired and (stands.serves == "target" or stands.phases.get("replicate") != "absent")
    followers = sides.get(decision.other(side))
    rows = []
    for slot in sides[side].slots:
        wanted = begun and side == stands.serves and slot.name == name
        read = slot.active or followers is None or name in (followers.subscriptions or {})
        if not wanted or not read:
            held = "an unknown amount of WAL" if slot.held_bytes is None else f"{slot.held_bytes} bytes of WAL"
            rows.append(_leftover(f"slot {slot.name}", side, held, _remover(stands, slot.name)))
    for subscription in sides[side].subscriptions or {}:
        if not begun or side == stands.serves or subscription != name:
            rows.append(_leftover(f"subscription {subscription}", side, "nothing, while it has no slot", _remover(stands, subscription)))
    return rows


def _remover(stands: Stands, link: str) -> str:
    """The command that takes away half a link."""
    if stands.retired:
        return "`pg-ha retire-source`"
    if stands.serves == "target":
        return "`pg-ha cut-over` again, or at the end `pg-ha retire-source`"
    return "`pg-ha replicate` again" if link == schema.FORWARD_LINK else "the next `pg-ha cut-over`"


def _after_the_end(side: str, have: ours.Ours) -> list[dict[str, str]]:
    """What is left of a migration that is retired; the source keeps schema, guards and event triggers, which fence it."""
    names = [f"publication {name}" for name in have.publications] + [f"role {name}" for name in have.roles] + list(have.dead_men)
    if side == "target":
        names += [f"guard on {table}" for table in have.guards] + [f"event trigger {name}" for name in have.event_triggers]
        names += ["schema ha_migration"] if have.has_schema else []
    return [_leftover(name, side, "nothing", "`pg-ha retire-source`") for name in names]


def _dead_men(stands: Stands, sides: dict[str, ours.Ours], hosts: t.Sequence[str]) -> list[dict[str, str]]:
    """Dead men of poolers that the inventory does not have, and poolers whose dead man does not listen once there should be one."""
    if stands.serves not in sides or stands.phases.get("cut_over") not in ("running", "done", "refused", "failed"):
        return []
    listening, expected = set(sides[stands.serves].dead_men), {schema.dead_man_name(name): name for name in hosts}
    rows = [_leftover(name, stands.serves, "a session", "stopping pg-ha-dead-man on that host") for name in sorted(listening - set(expected))]
    for name in sorted(set(expected) - listening):
        host = expected[name]
        rows.append(_leftover(f"pooler {host} without its dead man", stands.serves, "the next cutover", f"`systemctl restart pg-ha-dead-man` on {host}"))
    return rows


def sentence(row: dict[str, str]) -> str:
    """A leftover in words."""
    return f"Leftover: {row['object']} on the {row['side']} holds back {row['holds']}; it is removed by {row['removed_by']}."


def plan_way_back(stands: Stands, link: dict[str, t.Any] | None, slot: ours.Slot | None, *, known: bool) -> dict[str, t.Any] | None:
    """Whether clients can return; None while they never moved.

    :param link: of the link from the side that serves to the other, None where there is none
    :param slot: its slot
    :param known: whether both sides could be asked
    """
    moved = stands.serves == "target" or stands.phases.get("roll_back") == "done"
    if not moved or stands.retired:
        return None
    other = decision.other(stands.serves)
    command = "Roll back" if stands.serves == "target" else "Another cutover"
    held = {"held_bytes": slot.held_bytes if slot else None, "safe_bytes": slot.safe_bytes if slot else None}
    if not known:
        return {"possible": None, "sentence": "It is unknown whether there is a way back: one side could not be asked.", **held}
    if link is None or not link["following"]:
        why = "; ".join(link["problems"]) if link else f"the {other} has no subscription {schema.link_towards(other)}"
        return {"possible": False, "sentence": f"There is no way back: {why}.", **held}
    words = f"{command} is possible: the {other} follows, lag {link['lag_bytes']} bytes."
    if slot is not None:
        words += f" {_expiry(slot)} {_failover(slot)}" if stands.serves == "target" else f" {_expiry(slot)}"
    if link["alarm"]:
        words += f" {link['alarm']}."
    return {"possible": True, "sentence": words, **held}


def _expiry(slot: ours.Slot) -> str:
    held = "an unknown amount" if slot.held_bytes is None else f"{slot.held_bytes} bytes"
    if slot.safe_bytes is None:
        return f"Its slot holds {held} of WAL, and the server sets no limit (max_slot_wal_keep_size): watch the disk."
    return f"Its slot holds {held} of WAL; after {slot.safe_bytes} more the server gives it up, and the way back with it."


def _failover(slot: ours.Slot) -> str:
    if slot.failover:
        return "The slot is meant to outlive a failover; whether a standby has it already is unknown, since only the standby can be asked."
    return "It is unknown whether the slot outlives a failover of the target: the server is not told to keep it on its standbys."


def plan_disagreements(stands: Stands) -> list[str]:
    """Where the journal says something else than the decision, one sentence each, with which is believed."""
    done = {phase for phase, state in stands.phases.items() if state == "done"}
    if stands.serves == "source" and "cut_over" in done:
        words = "The journal says that cut over is done, and the decision says that the source serves: the decision is believed."
        return [f"{words} `pg-ha roll-back` finishes the record, `pg-ha cut-over` moves the clients again."]
    if stands.serves == "target" and not stands.retired and stands.phases.get("cut_over") not in ("done", "unknown"):
        state = stands.phases.get("cut_over")
        words = f"The journal says that cut over is {state}, and the decision says that the target serves: the decision is believed."
        return [f"{words} `pg-ha cut-over` finishes the record."]
    return []
