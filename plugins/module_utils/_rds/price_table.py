# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Prices for where AWS's price list is out of reach. Pure: no I/O, no clock.

Of the list ``AmazonRDS`` that AWS has published for us-east-1, version 20261006224050, by the products' numbers (SKU).
"""

from __future__ import annotations

from decimal import Decimal

from .price_plan import Price, Wanted

DATED = "2026-10-06"
SOURCE = f"a table that ships with the collection, of AWS's price list of {DATED}"
# Region, class, deployment: US dollars per hour
INSTANCES = {
    ("us-east-1", "db.t4g.micro", "Single-AZ"): Decimal("0.016"),  # 9HPEGXQTDDGH53C9
    ("us-east-1", "db.t4g.small", "Single-AZ"): Decimal("0.032"),  # S9H3AXMBHSKRFJTA
    ("us-east-1", "db.t4g.small", "Multi-AZ"): Decimal("0.065"),  # 5SY529FVXY3EARD8
}
# Region, usage type: US dollars per GiB and month
STORAGE = {
    ("us-east-1", "RDS:GP3-Storage"): Decimal("0.115"),  # KYVYY29G957PKY3B
    ("us-east-1", "RDS:Multi-AZ-GP3-Storage"): Decimal("0.23"),  # J7S7KD4WFDNQWKNX
}


def look_up(wanted: Wanted) -> tuple[Price, Price] | None:
    """Prices of instance and storage; None where the table does not have both."""
    instance = INSTANCES.get((wanted.region, wanted.instance_class, wanted.deployment))
    storage = STORAGE.get((wanted.region, wanted.storage_usage))
    return None if instance is None or storage is None else (Price(instance, DATED), Price(storage, DATED))
