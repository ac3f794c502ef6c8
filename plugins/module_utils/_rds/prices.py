# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""AWS's price list by its API (GetProducts), and the table that ships where it is out of reach."""

from __future__ import annotations

import typing as t

from .._core.errors import PgHaError
from . import client, price_plan, price_table
from .price_plan import Price, Wanted

# The list is served in a few regions only, for all of them.
API_REGION = "us-east-1"
SERVICE = "pricing"
SOURCE = "AWS's price list"
# An estimate is worth no long wait.
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 5, 20, 3


class PriceList:
    """The list.

    :param pricing: boto3's client for it
    """

    def __init__(self, pricing: t.Any) -> None:
        self._pricing = pricing

    @classmethod
    def open(cls, session: t.Any, params: dict[str, t.Any]) -> PriceList:
        """A client of it.

        :param session: of boto3
        :param params: ``endpoint_url`` and ``ca_bundle``
        :raises PgHaError: none can be made
        """
        config = client.Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries={"mode": "standard", "total_max_attempts": ATTEMPTS})
        with client.translated("a client for the price list", API_REGION, SERVICE):
            return cls(session.client(SERVICE, region_name=API_REGION, endpoint_url=params["endpoint_url"], verify=params["ca_bundle"], config=config))

    def products(self, filters: t.Mapping[str, str]) -> list[str]:
        """All products with these attributes, JSON.

        :raises PgHaError: no answer, or a refusal
        """
        matched = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in filters.items()]
        with client.translated("GetProducts", API_REGION, SERVICE):
            pages = self._pricing.get_paginator("get_products").paginate(ServiceCode=price_plan.SERVICE, Filters=matched)
            return [product for page in pages for product in page["PriceList"]]

    def read(self, wanted: Wanted) -> tuple[Price, Price]:
        """Prices of the instance and of its storage.

        :raises PgHaError: the list has none, or is out of reach
        """
        instance = price_plan.price_of(self.products(wanted.instance_filters()), f"{wanted.instance_class} in {wanted.region}", "Hrs")
        storage = price_plan.storage_products(self.products(wanted.storage_filters()), wanted)
        return instance, price_plan.price_of(storage, f"{wanted.storage_type} storage in {wanted.region}", "GB-Mo")


def monthly_cost(wanted: Wanted, read: t.Callable[[Wanted], tuple[Price, Price]]) -> tuple[dict[str, t.Any] | None, str | None]:
    """What it costs a month, and why that is not of today's list or not known.

    :param read: of the list
    """
    if wanted.storage_type not in price_plan.STORAGE:
        return None, f"Storage of type {wanted.storage_type} is billed by operations as well, which are not estimated."
    try:
        return price_plan.estimate(wanted, *read(wanted), SOURCE), None
    except PgHaError as error:
        known = price_table.look_up(wanted)
        return None if known is None else price_plan.estimate(wanted, *known, price_table.SOURCE), error.message
