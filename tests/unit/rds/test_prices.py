# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an instance costs: AWS's price list as botocore's model has it, and the table for where it is out of reach."""

from __future__ import annotations

import json
import typing as t

import boto3
import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import price_table
from ansible_collections.freight.pg_ha.plugins.module_utils._rds.price_plan import Price, Wanted
from ansible_collections.freight.pg_ha.plugins.module_utils._rds.prices import PriceList
from ansible_collections.freight.pg_ha.plugins.modules import rds_price_info
from botocore.stub import Stubber

WANTED = Wanted("eu-central-1", "db.r7g.large", True, "gp3", 100)


def product(usage: str, price: str, unit: str, engine: str = "PostgreSQL", **more: t.Any) -> str:
    """A product as the list has it."""
    dimensions = {"one": {"unit": unit, "beginRange": "0", "endRange": "Inf", "pricePerUnit": {"USD": price}}}
    terms = {"OnDemand": {"term": {"priceDimensions": dimensions}}, "Reserved": {"other": {"priceDimensions": {"x": {"pricePerUnit": {"USD": "0.1"}}}}}}
    attributes = {"usagetype": usage, "databaseEngine": engine}
    return json.dumps({"product": {"attributes": attributes}, "terms": terms, "publicationDate": "2026-11-20T10:11:12Z", **more})


INSTANCE = product("EUC1-Multi-AZUsage:db.r7g.large", "0.5730000000", "Hrs")
STORAGE = [
    product("EUC1-RDS:GP3-Storage", "0.137", "GB-Mo"),
    product("EUC1-RDS:Multi-AZ-GP3-Storage", "0.2740000000", "GB-Mo"),
    product("EUC1-RDS:Multi-AZ-GP3-Storage", "0.3", "GB-Mo", "MySQL"),
    product("EUC1-RDS:Multi-AZCluster-GP3-Storage", "0.4", "GB-Mo"),
]


class Session:
    """Of boto3, with the list's answers given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str] | str) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
        self.answers = answers
        self.asked: list[dict[str, str]] = []

    def client(self, name: str, **options: t.Any) -> t.Any:
        assert (name, options["region_name"]) == ("pricing", "us-east-1")
        made = boto3.client(name, region_name="us-east-1")
        stubber = Stubber(made)
        for answer in self.answers:
            if isinstance(answer, str):
                stubber.add_client_error("get_products", answer, "no")
            else:
                stubber.add_response("get_products", {"FormatVersion": "aws_v1", "PriceList": answer})
        stubber.activate()
        made.meta.events.register("provide-client-params.pricing.GetProducts", lambda params, **_: self.asked.append(params))
        return made


def run(session: Session, region: str = "eu-central-1", **options: t.Any) -> dict[str, t.Any]:
    """The module's result."""
    spec = rds_price_info.argument_spec()
    given = {"instance_class": "db.r7g.large", "allocated_storage_gib": 100, **options}
    return rds_price_info.run(session, region, {key: given.get(key, one.get("default")) for key, one in spec.items()}).result


def test_a_month_is_what_the_list_says(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(monkeypatch, [INSTANCE], STORAGE)
    found = run(session)
    cost = found["monthly_cost"]
    assert found["reason"] is None and (cost["amount"], cost["currency"], cost["dated"]) == ("445.69", "USD", "2026-11-20")
    assert cost["lines"] == [
        {"what": "db.r7g.large, Multi-AZ", "quantity": 730, "unit": "hour", "price": "0.573", "amount": "418.29"},
        {"what": "gp3 storage, Multi-AZ", "quantity": 100, "unit": "GiB", "price": "0.274", "amount": "27.40"},
    ]
    asked = [{one["Field"]: one["Value"] for one in request["Filters"]} for request in session.asked]
    assert [request["ServiceCode"] for request in session.asked] == ["AmazonRDS"] * 2
    assert asked[0] == {
        "regionCode": "eu-central-1", "productFamily": "Database Instance", "instanceType": "db.r7g.large", "databaseEngine": "PostgreSQL",
        "deploymentOption": "Multi-AZ",
    }  # fmt: skip
    assert asked[1] == {"regionCode": "eu-central-1", "productFamily": "Database Storage", "deploymentOption": "Multi-AZ"}


def test_storage_is_postgresqls_where_the_list_tells_engines_apart_and_everybodys_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    anybodys = product("RDS:Multi-AZ-GP3-Storage", "0.23", "GB-Mo", "Any")
    assert run(Session(monkeypatch, [INSTANCE], [anybodys]))["monthly_cost"]["lines"][1]["price"] == "0.23"
    assert run(Session(monkeypatch, [INSTANCE], [anybodys, *STORAGE]))["monthly_cost"]["lines"][1]["price"] == "0.274"
    single = run(Session(monkeypatch, [product("EUC1-InstanceUsage:db.r7g.large", "0.2865", "Hrs")], STORAGE), multi_az=False)
    assert single["monthly_cost"]["lines"][1] == {"what": "gp3 storage, Single-AZ", "quantity": 100, "unit": "GiB", "price": "0.137", "amount": "13.70"}


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([[]], "has no prices for db.r7g.large in eu-central-1"),
        ([[INSTANCE, INSTANCE]], "has 2 prices for db.r7g.large in eu-central-1"),
        ([[product("x", "1", "Quantity")]], "none in US dollars per Hrs"),
        ([[INSTANCE], STORAGE[:1]], "has no prices for gp3 storage in eu-central-1"),
        (["AccessDeniedException"], "action pricing:GetProducts"),
        (["ExpiredTokenException"], "have expired"),
    ],
)
def test_what_the_list_does_not_say_is_not_known(monkeypatch: pytest.MonkeyPatch, answers: list[t.Any], words: str) -> None:
    found = run(Session(monkeypatch, *answers))
    assert found["monthly_cost"] is None and words in found["reason"]


def test_the_table_is_used_where_the_list_is_out_of_reach_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(Session(monkeypatch, "AccessDeniedException"), "us-east-1", instance_class="db.t4g.small", allocated_storage_gib=20)
    cost = found["monthly_cost"]
    assert (cost["amount"], cost["dated"]) == ("52.05", "2026-10-06") and "table" in cost["source"] and "AWS does not permit" in found["reason"]


def test_every_price_of_the_table_can_be_used_with_its_regions_storage() -> None:
    for region, name, deployment in price_table.INSTANCES:
        found = price_table.look_up(Wanted(region, name, deployment == "Multi-AZ", "gp3", 20))
        assert found is not None and all(isinstance(price, Price) and price.amount > 0 for price in found)
    assert price_table.look_up(WANTED) is None


def test_storage_that_is_billed_by_operations_is_not_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    found = run(Session(monkeypatch), storage_type="io1")
    assert found["monthly_cost"] is None and "io1 is billed by operations" in found["reason"]


def test_no_storage_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        run(Session(monkeypatch), allocated_storage_gib=0)


def test_nobody_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    opened = PriceList.open(boto3.session.Session(region_name="eu-central-1"), {"endpoint_url": "http://127.0.0.1:9", "ca_bundle": None})
    with pytest.raises(ClientError, match="No answer to GetProducts"):
        opened.read(WANTED)
