# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What an instance costs a month, by AWS's price list. Pure: no I/O, no clock.

The list names what is billed by usage types, ``Multi-AZUsage:db.t4g.small`` and ``RDS:Multi-AZ-GP3-Storage``, outside us-east-1 with the region's short name
before them (``EUC1-RDS:...``). Storage is listed for PostgreSQL in some regions and for any engine in others. What comes on top by use is not known
beforehand, and no part of an estimate: :data:`WITHOUT`.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from .._core.errors import ClientError

SERVICE = "AmazonRDS"
# A month by AWS's own convention
HOURS = 730
ENGINES = ("PostgreSQL", "Any")
# What is billed by the month and nothing else; with io1 and io2 every operation per second is, too.
STORAGE = {"gp2": "GP2", "gp3": "GP3"}
WITHOUT = "traffic, logs, monitoring, requests to keys and secrets, and backups that are larger than the storage"


@dataclass(frozen=True)
class Wanted:
    """What is to be priced.

    :param instance_class: e.g. ``db.t4g.small``
    :param storage_gib: its storage
    """

    region: str
    instance_class: str
    multi_az: bool
    storage_type: str
    storage_gib: int

    @property
    def deployment(self) -> str:
        """As the list has it."""
        return "Multi-AZ" if self.multi_az else "Single-AZ"

    @property
    def storage_usage(self) -> str:
        """The usage type of its storage, without the region's short name."""
        return f"RDS:{'Multi-AZ-' if self.multi_az else ''}{STORAGE[self.storage_type]}-Storage"

    def instance_filters(self) -> dict[str, str]:
        """Attributes of the product that is billed by the hour."""
        return {
            "regionCode": self.region,
            "productFamily": "Database Instance",
            "instanceType": self.instance_class,
            "databaseEngine": ENGINES[0],
            "deploymentOption": self.deployment,
        }

    def storage_filters(self) -> dict[str, str]:
        """Attributes of the products among which is the one that is billed by the GiB."""
        return {"regionCode": self.region, "productFamily": "Database Storage", "deploymentOption": self.deployment}


@dataclass(frozen=True)
class Price:
    """What a unit costs.

    :param amount: US dollars for an hour, or for a GiB and month
    :param dated: day of the list, ISO 8601
    """

    amount: Decimal
    dated: str


def storage_products(products: t.Sequence[str], wanted: Wanted) -> list[str]:
    """Those among them that are the storage meant; where the list tells engines apart, PostgreSQL's."""
    read = [(product, json.loads(product)["product"]["attributes"]) for product in products]
    ours = [(product, attributes) for product, attributes in read if _without_region(attributes["usagetype"]) == wanted.storage_usage]
    return next((found for engine in ENGINES if (found := [product for product, one in ours if one.get("databaseEngine") == engine])), [])


def price_of(products: t.Sequence[str], what: str, unit: str) -> Price:
    """The price on demand of the one product that there has to be.

    :param products: as the list has them, JSON
    :param what: in messages
    :param unit: in which it has to be billed, ``Hrs`` or ``GB-Mo``
    :raises ClientError: there is none, more than one, or one with a price that we do not understand
    """
    if len(products) != 1:
        raise ClientError(f"AWS's price list has {len(products) or 'no'} prices for {what}, and one was expected.")
    product = json.loads(products[0])
    terms = product["terms"].get("OnDemand", {}).values()
    dimensions = [one for term in terms for one in term["priceDimensions"].values() if one["beginRange"] == "0"]
    if len(dimensions) != 1 or dimensions[0]["unit"] != unit or "USD" not in dimensions[0]["pricePerUnit"]:
        raise ClientError(f"AWS's price list has a price for {what} that is none in US dollars per {unit}.")
    return Price(Decimal(dimensions[0]["pricePerUnit"]["USD"]), product["publicationDate"][:10])


def estimate(wanted: Wanted, instance: Price, storage: Price, source: str) -> dict[str, t.Any]:
    """What it comes to, for results and evidence; amounts are text, because they are exact.

    :param source: where the prices come from
    """
    lines = [
        _line(f"{wanted.instance_class}, {wanted.deployment}", HOURS, "hour", instance),
        _line(f"{wanted.storage_type} storage, {wanted.deployment}", wanted.storage_gib, "GiB", storage),
    ]
    return {
        "amount": _cents(sum((Decimal(line["amount"]) for line in lines), Decimal(0))),
        "currency": "USD",
        "lines": lines,
        "without": WITHOUT,
        "source": source,
        "dated": min(instance.dated, storage.dated),
    }


def _line(what: str, quantity: int, unit: str, price: Price) -> dict[str, t.Any]:
    return {"what": what, "quantity": quantity, "unit": unit, "price": f"{price.amount.normalize():f}", "amount": _cents(quantity * price.amount)}


def _cents(amount: Decimal) -> str:
    return str(amount.quantize(Decimal("0.01"), ROUND_HALF_UP))


def _without_region(usage: str) -> str:
    """``EUC1-RDS:GP3-Storage`` is ``RDS:GP3-Storage`` elsewhere."""
    return usage[usage.find("RDS:") :] if "RDS:" in usage else usage
