# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""An instance's storage: what it can be, and what the service wants named beside a change of it. Pure: no I/O, no clock."""

from __future__ import annotations

import typing as t

from .._core.problems import Problem
from .model import Described, Offer

# "gp3 storage" in the RDS User Guide: below it PostgreSQL has 3000 IOPS and 125 MiB/s, and the service takes no other numbers, nor these.
GP3_FIXED_GIB = 400
SIZES = frozenset({"allocated_storage_gib", "max_allocated_storage_gib"})
PERFORMANCE = ("iops", "storage_throughput_mibps")
OPTIONS = SIZES | {*PERFORMANCE, "storage_type"}
NEEDS_IOPS = frozenset({"io1", "io2"})
# Option, and its bounds in DescribeOrderableDBInstanceOptions.
_BOUNDS = (
    ("allocated_storage_gib", "MinStorageSize", "MaxStorageSize"),
    ("max_allocated_storage_gib", "MinStorageSize", "MaxStorageSize"),
    ("iops", "MinIopsPerDbInstance", "MaxIopsPerDbInstance"),
    ("storage_throughput_mibps", "MinStorageThroughputPerDbInstance", "MaxStorageThroughputPerDbInstance"),
)
Options = t.Mapping[str, t.Any]


def _a_tenth_more(size_gib: int) -> int:
    return -(-size_gib * 11 // 10)


def size_for(wanted_gib: int, stands_gib: int, limit_gib: int | None) -> int:
    """The size that a wish comes to: storage grows by a tenth at least, and what has grown stays.

    :param limit_gib: up to which the service enlarges it by itself
    """
    if wanted_gib > stands_gib:
        return max(wanted_gib, _a_tenth_more(stands_gib))
    # Less than a tenth above the wish is what the wish was rounded up to.
    return stands_gib if stands_gib <= max(limit_gib or 0, _a_tenth_more(wanted_gib)) else wanted_gib


def is_fixed(kind: str | None, size_gib: int | None) -> bool:
    """Small gp3 storage has one performance."""
    return kind == "gp3" and (size_gib or 0) < GP3_FIXED_GIB


def asked_of(whole: Options, current: Described, wanted: Options, changed: t.Collection[str]) -> dict[str, t.Any]:
    """The options as they will stand, without what nobody has asked for.

    :param whole: the options as they will stand
    :param changed: names of those that will not be as they are
    """
    asked = dict(whole)
    standing = current.get("StorageType"), current.get("AllocatedStorage")
    if "storage_type" in changed or is_fixed(*standing) or is_fixed(whole.get("storage_type"), whole.get("allocated_storage_gib")):
        # The service's own numbers, or those of the type before.
        asked.update({name: wanted.get(name) for name in PERFORMANCE})
    if not SIZES & set(changed) or ("max_allocated_storage_gib" not in changed and (current.get("MaxAllocatedStorage") or 0) <= (standing[1] or 0)):
        # It may have grown up to its limit, which is none any more then.
        asked["max_allocated_storage_gib"] = None
    return asked


def _offered(kind: str | None, offer: Offer) -> Described | None:
    return next((one for one in offer.options if kind in (None, one.get("StorageType"))), None)


def refuse_type(wanted: Options, offer: Offer) -> list[Problem]:
    """A type that the class has not."""
    kind = wanted.get("storage_type")
    kinds = sorted({option["StorageType"] for option in offer.options if option.get("StorageType")})
    if not kind or not kinds or kind in kinds:
        return []
    return [Problem("value", "storage_type", f"{wanted.get('instance_class')} has no storage of type {kind}", f"choose one of: {', '.join(kinds)}")]


def refuse_bounds(wanted: Options, offer: Offer) -> list[Problem]:
    """Size and performance against the bounds that the class has for that type of storage."""
    option = _offered(wanted.get("storage_type"), offer)
    if option is None:
        return []
    found = []
    for name, least, most in _BOUNDS:
        value, low, high = wanted.get(name), option.get(least), option.get(most)
        if value is not None and ((low is not None and value < low) or (high is not None and value > high)):
            message = f"{name} {value} is not within {low} and {high}, what {wanted.get('instance_class')} takes with {option.get('StorageType')}"
            found.append(Problem("value", name, message, "choose a value within"))
    return found


def refuse_together(wanted: Options) -> list[Problem]:
    """Options that only go together."""
    found, kind, size, limit = [], wanted.get("storage_type"), wanted.get("allocated_storage_gib") or 0, wanted.get("max_allocated_storage_gib")
    if kind in NEEDS_IOPS and not wanted.get("iops"):
        found.append(Problem("missing", "iops", f"storage of type {kind} needs iops", "give it"))
    if is_fixed(kind, size):
        words = f"gp3 storage below {GP3_FIXED_GIB} GiB has 3000 IOPS and 125 MiB/s, and the service takes no numbers for it"
        found += [Problem("value", name, words, f"omit {name}") for name in PERFORMANCE if wanted.get(name) is not None]
    if limit and limit <= size:
        message = "max_allocated_storage_gib is not above allocated_storage_gib"
        found.append(Problem("value", "max_allocated_storage_gib", message, f"give {_a_tenth_more(size)} at least"))
    return found


def companions(request: Described, current: Described, wanted: Options, offer: Offer) -> dict[str, t.Any]:
    """What the service wants beside storage: where performance is provisioned, neither size nor type nor IOPS change without size and IOPS named."""
    pending = current.get("PendingModifiedValues") or {}
    size = request.get("AllocatedStorage") or pending.get("AllocatedStorage") or current.get("AllocatedStorage")
    kind = request.get("StorageType") or pending.get("StorageType") or current.get("StorageType")
    if not {"AllocatedStorage", "StorageType", "Iops"} & set(request) or kind not in NEEDS_IOPS | {"gp3"} or is_fixed(kind, size):
        return {}
    option = _offered(kind, offer) or {}
    # Small gp3 storage that grows large has more of them.
    iops = request.get("Iops") or wanted.get("iops") or max(current.get("Iops") or 0, option.get("MinIopsPerDbInstance") or 0)
    return {"AllocatedStorage": size, **({"Iops": iops} if iops else {})}
