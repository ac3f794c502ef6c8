# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What targets cost beside each other: sums, what is not understood, the rule of the recommendation, and the module."""

from __future__ import annotations

import datetime
import json
import typing as t

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._costs import plan
from ansible_collections.freight.pg_ha.plugins.modules import target_costs_info

COST = {"amount": "445.69", "currency": "USD", "source": "a list", "dated": "2026-10-06"}
PRICE = {"what": "server", "price": "84.10", "currency": "USD", "source": "an offer", "dated": "2026-10-06"}


def target(name: str, amount: str | None = None, measured: float | None = None, promised: float | None = None, **changed: t.Any) -> dict[str, t.Any]:
    """A target as an operator describes it; the kind is the name's first word."""
    cost = None if amount is None else {**COST, "amount": amount, "currency": changed.pop("currency", "USD")}
    times = {"rto_seconds_measured": measured, "rto_seconds_promised": promised}
    return {"kind": name.split()[0], "name": name, "monthly_cost": cost, **times, **changed}


def compare(*targets: dict[str, t.Any], rto_seconds: t.Any = 60) -> dict[str, t.Any]:
    """What comes out of it."""
    return plan.compare(plan.read(targets), rto_seconds)


def test_a_given_cost_is_shown_as_it_is_given() -> None:
    # As rds_price_info returns it, and with a date that YAML has made one.
    given = {**COST, "lines": [{"what": "x"}], "without": "traffic", "dated": datetime.date(2026, 10, 6)}
    assert compare({"kind": "rds", "name": "r", "monthly_cost": given, "notes": "n"})["rows"] == [
        {
            "kind": "rds", "name": "r", "amount": "445.69", "currency": "USD", "source": "a list", "dated": "2026-10-06", "lines": [], "reason": None,
            "rto_seconds_measured": None, "rto_seconds_promised": None, "notes": "n",
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("prices", "amount", "dated", "source", "lines"),
    [
        ([PRICE], "84.10", "2026-10-06", "an offer", ["server: 1 at 84.10"]),
        ([{**PRICE, "quantity": 3}], "252.30", "2026-10-06", "an offer", ["server: 3 at 84.10"]),
        # Exact, and rounded once: 3 x 0.335 is 1.005.
        ([{**PRICE, "price": 0.335, "quantity": 3.0}], "1.01", "2026-10-06", "an offer", ["server: 3 at 0.335"]),
        ([{**PRICE, "price": 0}], "0.00", "2026-10-06", "an offer", ["server: 1 at 0"]),
        (
            [PRICE, {**PRICE, "what": "disk", "quantity": 100, "price": "0.2", "source": "a page", "dated": "2026-09-01"}],
            "104.10", "2026-09-01", "an offer; a page", ["server: 1 at 84.10", "disk: 100 at 0.2"],
        ),
        ([PRICE, {key: value for key, value in PRICE.items() if key != "dated"}], "168.20", None, "an offer", ["server: 1 at 84.10"] * 2),
    ],
)  # fmt: skip
def test_prices_are_added_up(prices: list[dict[str, t.Any]], amount: str, dated: str | None, source: str, lines: list[str]) -> None:
    (row,) = compare({"kind": "patroni", "name": "p", "prices": prices})["rows"]
    assert (row["amount"], row["currency"], row["dated"], row["source"], row["lines"]) == (amount, "USD", dated, source, lines)


@pytest.mark.parametrize("given", [{}, {"monthly_cost": None}, {"monthly_cost": {}}, {"prices": None}, {"prices": []}])
def test_what_nobody_gives_is_not_known(given: dict[str, t.Any]) -> None:
    (row,) = compare({"kind": "digitalocean", "name": "d", **given})["rows"]
    assert row["amount"] is row["currency"] is row["source"] is row["dated"] is None and row["reason"] == "no price is given for it"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"kind": "kubernetes"}, "Compared target 2 has 'kubernetes' as kind: choose one of patroni, rds, digitalocean."),
        ({"name": ""}, "Compared target 2 has '' as name: give it as text."),
        ({"monthly_costs": COST}, "Compared target 2 has monthly_costs, which nothing reads: choose of kind, monthly_cost, name,"),
        ({"monthly_cost": COST, "prices": [PRICE]}, "Compared target 2 (two) has both monthly_cost and prices: give one of them."),
        ({"monthly_cost": "445 USD"}, "Compared target 2 (two), monthly_cost, is '445 USD': give a mapping with amount, currency,"),
        ({"monthly_cost": {**COST, "amount": "about 5"}}, "monthly_cost, has 'about 5' as amount: give a number from 0 to 1000000000."),
        ({"monthly_cost": {**COST, "amount": "-1"}}, "has '-1' as amount"),
        ({"monthly_cost": {**COST, "amount": "nan"}}, "has 'nan' as amount"),
        ({"monthly_cost": {**COST, "amount": "1e400"}}, "has '1e400' as amount"),
        ({"monthly_cost": {**COST, "amount": True}}, "has True as amount"),
        ({"monthly_cost": {**COST, "amount": None}}, "has None as amount"),
        ({"monthly_cost": {**COST, "currency": "$"}}, "has '$' as currency: give its three letters, such as USD."),
        ({"monthly_cost": {**COST, "source": None}}, "has None as source: give it as text."),
        ({"monthly_cost": {**COST, "dated": "last week"}}, "has 'last week' as dated: give the day of the price, such as 2026-10-06."),
        ({"prices": [PRICE, {**PRICE, "what": None}]}, "Compared target 2 (two), price 2, has None as what"),
        ({"prices": [{**PRICE, "quantity": "some"}]}, "price 1, has 'some' as quantity"),
        ({"prices": [PRICE, {**PRICE, "currency": "EUR"}]}, "Compared target 2 (two) has prices in EUR and USD: give them in one currency."),
        ({"rto_seconds_measured": "fast"}, "Compared target 2 (two) has 'fast' as rto_seconds_measured"),
    ],
)
def test_what_is_not_understood_is_named_with_its_remedy(changed: dict[str, t.Any], says: str) -> None:
    with pytest.raises(UsageError) as error:
        compare({"kind": "rds", "name": "one"}, {"kind": "rds", "name": "two", **changed})
    assert says in error.value.message and error.value.message.endswith(".")


def test_a_declared_time_that_is_no_number_is_refused() -> None:
    with pytest.raises(UsageError, match="The comparison has 'soon' as rto_seconds"):
        compare(rto_seconds="soon")


NONE = "No target is recommended:"
LOWEST = "a month is the lowest known cost of a target that is without service for"
FAST, SLOW, CHEAP = target("patroni a", "252.30", 20.7), target("rds b", "445.69", None, 120), target("digitalocean c", "60", 55, 10)


@pytest.mark.parametrize(
    ("targets", "rto_seconds", "name", "first"),
    [
        ([FAST, SLOW], 60, "patroni a", f"patroni a (patroni) is recommended: 252.30 USD {LOWEST} 60 s at most (20.7 s, measured)."),
        ([FAST, SLOW, CHEAP], 60, "digitalocean c", "digitalocean c (digitalocean) is recommended: 60.00 USD"),
        # Measured counts over promised, in either direction; text is a number too.
        ([FAST, CHEAP], "54.9", "patroni a", "patroni a (patroni) is recommended"),
        ([target("rds b", "1", 30, 120), FAST], 60, "rds b", "rds b (rds) is recommended"),
        ([FAST, SLOW], 120, "patroni a", "patroni a (patroni) is recommended"),
        ([SLOW], 120, "rds b", f"rds b (rds) is recommended: 445.69 USD {LOWEST} 120 s at most (120 s, promised and not measured)."),
        # A cost that is not known is never the lowest one.
        ([target("rds b", None, 1), FAST], 60, "patroni a", "patroni a (patroni) is recommended"),
        ([target("patroni x", "5", 9), target("rds y", "5.00", 8), target("rds z", "5", 8)], 60, "rds y", "rds y (rds) is recommended"),
        ([target("rds b", "400", 1, currency="EUR"), FAST], 60, None, f"{NONE} those that qualify have prices in EUR and USD, which are not compared."),
        # Another currency among those that do not qualify is in nobody's way.
        ([target("rds b", "400", 90, currency="EUR"), FAST], 60, "patroni a", "patroni a (patroni) is recommended"),
        ([SLOW, target("rds b", None, 1), target("rds c", "1")], 60, None, f"{NONE} none has a known cost and is without service for 60 s at most."),
        ([], 60, None, NONE),
    ],
)
def test_the_cheapest_of_those_that_qualify_is_recommended(targets: list[dict[str, t.Any]], rto_seconds: t.Any, name: str | None, first: str) -> None:
    found = compare(*targets, rto_seconds=rto_seconds)["recommendation"]
    assert (found["name"], found["kind"]) == (name, name and name.split()[0])
    assert found["reasons"][0].startswith(first)
    assert len(found["reasons"]) == len(targets) + (name is None)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (target("rds b", "300", 5), "rds b (rds) qualifies and costs 300.00 USD a month (5 s, measured)."),
        (target("rds b", "1", 61.5), "rds b (rds) does not qualify: its time without service is longer than 60 s (61.5 s, measured)."),
        (target("rds b", "1"), "rds b (rds) does not qualify: its time without service is neither measured nor promised."),
        (
            target("rds b", None, None, 90),
            "rds b (rds) does not qualify: its cost is not known, as no price is given for it; its time without service is longer than 60 s "
            "(90 s, promised and not measured).",
        ),
    ],
)
def test_of_every_other_target_it_is_said_why_not(other: dict[str, t.Any], why: str) -> None:
    assert compare(other, FAST)["recommendation"]["reasons"][1:] == [why]


def run_module(capsys: pytest.CaptureFixture[str], **options: t.Any) -> tuple[int, dict[str, t.Any]]:
    """Its exit code and result, in check mode."""
    with patch_module_args({**options, "_ansible_check_mode": True}), pytest.raises(SystemExit) as ended:
        target_costs_info.main()
    return int(t.cast(int, ended.value.code)), json.loads(capsys.readouterr().out)


def test_the_module_compares_what_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    targets = [{"kind": "patroni", "name": "a", "prices": [{**PRICE, "quantity": 3}], "rto_seconds_measured": "20.7"}, {"kind": "rds", "name": "b"}]
    code, result = run_module(capsys, targets=targets)
    assert code == 0 and result["changed"] is False
    assert [(row["name"], row["amount"], row["rto_seconds_measured"]) for row in result["rows"]] == [("a", "252.30", 20.7), ("b", None, None)]
    assert result["recommendation"]["name"] == "a"
    assert run_module(capsys, targets=targets, rto_seconds=10)[1]["recommendation"]["kind"] is None


def test_the_module_says_in_one_sentence_what_it_does_not_understand(capsys: pytest.CaptureFixture[str]) -> None:
    code, result = run_module(capsys, targets=[{"kind": "rds", "name": "b", "monthly_cost": {**COST, "amount": "x"}}])
    assert code == 1 and result["error"] == "UsageError"
    assert result["msg"] == "Compared target 1 (b), monthly_cost, has 'x' as amount: give a number from 0 to 1000000000."


def test_the_module_takes_what_the_plan_reads() -> None:
    options = target_costs_info.argument_spec()["targets"]["options"]
    assert set(options) == plan.KEYS and set(options["prices"]["options"]) == plan.PRICE_KEYS
