# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report's section on costs: from evidence and inventory, and only where one of them has something to say."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.freight.pg_ha.plugins.filter.report_page import report_page
from ansible_collections.freight.pg_ha.plugins.plugin_utils._report import costs

from tests.unit.report.sample import HOSTS, document, evidence, nothing, scenario

TEMPLATES = pathlib.Path(__file__).resolve().parents[3] / "roles" / "report" / "templates"
MARKDOWN, HTML = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.md.j2", "report.html.j2"))
TITLE = "What it costs, compared"
COST = {
    "amount": "445.69", "currency": "USD", "without": "traffic", "source": "AWS's price list", "dated": "2026-11-20",
    "lines": [{"what": "db.r7g.large, Multi-AZ", "quantity": 730, "unit": "hour", "price": "0.573", "amount": "418.29"}],
}  # fmt: skip
SERVERS = {
    "kind": "patroni", "name": "three | <servers>",
    "prices": [{"what": "server", "quantity": 3, "price": 84.1, "currency": "USD", "source": "an offer", "dated": "2026-10-06"}],
}  # fmt: skip
CLOUD = {"kind": "digitalocean", "name": "cloud", "rto_seconds_promised": 30}


def rds() -> dict[str, t.Any]:
    """A topology of RDS with its price."""
    topology = document("topology", monthly_cost=COST)
    topology["target"] = {**topology["target"], "kind": "rds", "members": ["freight-rds"]}
    return topology


def pages(compared: list[dict[str, t.Any]] | None = None, rto_seconds: t.Any = 60, **changed: t.Any) -> tuple[str, str]:
    """Markdown and HTML, as the role renders them."""
    options: dict[str, t.Any] = {"compared": compared or [], "rto_seconds": rto_seconds}
    found = evidence(**changed)
    return report_page(found, MARKDOWN, "move", HOSTS, **options), report_page(found, HTML, "move", HOSTS, html=True, **options)


def rows(compared: list[dict[str, t.Any]], **changed: t.Any) -> tuple[list[dict[str, t.Any]], dict[str, t.Any]]:
    """Rows and recommendation."""
    found = costs.compared(evidence(**changed), compared, 60)
    assert found is not None
    return found["rows"], found["recommendation"]


def test_the_section_is_there_only_where_it_has_something_to_say() -> None:
    for page in (*pages(), *pages(topology=document("topology", monthly_cost=None)), *pages(**nothing())):
        assert TITLE not in page and "#costs" not in page
    for page in (*pages([CLOUD]), *pages(topology=rds()), *pages([CLOUD], **nothing())):
        assert TITLE in page


def test_the_price_of_the_list_stands_beside_the_measured_time_and_what_is_compared() -> None:
    text, web = pages([SERVERS, CLOUD], topology=rds())
    assert "- freight-rds (rds) is recommended: 445.69 USD a month is the lowest known cost of a target that is without service for 60 s at most" in text
    assert "| freight-rds (stands) | rds | 445.69 USD | 20.7 s | none | AWS's price list; 2026-11-20 | Without traffic. |" in text
    assert "| three \\| <servers> | patroni | 252.30 USD | not measured | none | an offer; 2026-10-06; server: 3 at 84.1 |  |" in text
    assert "| cloud | digitalocean | not known | not measured | 30 s | no price is given for it |  |" in text
    assert "three | &lt;servers&gt;" in web and "<servers>" not in web and 'href="#costs"' in web
    assert (text, web) == pages([SERVERS, CLOUD], topology=rds())
    assert "\n\n\n" not in text


def test_the_entry_of_the_kind_that_stands_says_what_the_evidence_does_not() -> None:
    (row, other), found = rows([SERVERS, CLOUD])
    assert (row["name"], row["amount"], row["rto_seconds_measured"]) == ("three | <servers>", "252.30", 20.746)
    assert found["kind"] == "patroni" and other["name"] == "cloud"
    # Only the first of them, and never against the evidence.
    entries = [{**SERVERS, "rto_seconds_measured": 1, "notes": "old."}, {**SERVERS, "name": "larger"}]
    again, _found = rows(entries, topology=document("topology", monthly_cost=COST))
    assert [(row["name"], row["amount"], row["notes"]) for row in again] == [("three | <servers>", "445.69", "old. Without traffic."), ("larger", "252.30", "")]
    assert again[0]["rto_seconds_measured"] == 20.746
    (untested,), found = rows([{**SERVERS, "rto_seconds_measured": 21}], failover={})
    assert untested["rto_seconds_measured"] == 21 and found["kind"] == "patroni"


def test_a_target_that_was_not_tested_is_not_recommended() -> None:
    (row,), found = rows([], topology=rds(), failover={})
    assert row["rto_seconds_measured"] is None and found["kind"] is None
    assert found["reasons"][1] == "freight-rds (rds) does not qualify: its time without service is neither measured nor promised."


def test_the_declared_time_counts() -> None:
    assert "20.746 s, measured" in pages([SERVERS], 20.75)[0]
    assert "No target is recommended: none has a known cost and is without service for 20 s at most." in pages([SERVERS], "20")[0]


def test_the_worst_time_is_that_of_a_run_that_hit_the_server() -> None:
    way_only = scenario("haproxy_killed", "SIGKILL for HAProxy", 90000, 10000)
    way_only["layers_ms"]["server"] = None
    hit = [scenario("leader_off", "Off", rto, 30000) for rto in (20000, 21500, 900)]
    assert costs.worst_seconds([way_only, *hit]) == 21.5
    assert costs.worst_seconds([way_only]) is None


def test_what_is_not_understood_is_one_sentence() -> None:
    with pytest.raises(AnsibleFilterError, match="Compared target 2 has 'x' as kind: choose one of patroni, rds, digitalocean"):
        pages([CLOUD, {"kind": "x", "name": "y"}])
