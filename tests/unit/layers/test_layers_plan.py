# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What looks at the layers of a route say of an outage."""

from __future__ import annotations

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._layers import client, plan
from ansible_collections.freight.pg_ha.plugins.module_utils._layers.model import FAILED, NAME, POOLER, REFUSED, REPLICAS, ROUTE, SERVER, TAKEN, Look, read_looks

MS = 1_000_000


def look(layer: str, at_ms: int, answer: str = TAKEN, name: str = "pg1", timeline: int | None = 1, lasts_ms: int = 2) -> Look:
    return Look(layer, name, at_ms * MS, (at_ms + lasts_ms) * MS, answer, timeline if answer == TAKEN else None)


def layer(name: str, away: int | None, back: int | None, until: int = 10_000) -> list[Look]:
    """A look each 50 ms, and an outage in it."""
    return [look(name, at, FAILED if away is not None and back is not None and away <= at < back else TAKEN) for at in range(0, until, 50)]


def test_each_layer_is_back_after_the_one_below_it() -> None:
    looks = sorted([*layer(SERVER, 1000, 3000), *layer(ROUTE, 1000, 3500), *layer(POOLER, 1000, 3700)], key=lambda one: one.begin)
    assert plan.split(looks, 990 * MS, 3800 * MS) == {SERVER: 2012.0, ROUTE: 2512.0, POOLER: 2712.0}


def test_a_layer_that_was_never_away_has_no_number() -> None:
    looks = [*layer(SERVER, None, None), *layer(ROUTE, 1000, 2000)]
    assert plan.split(sorted(looks, key=lambda one: one.begin), 990 * MS, 2100 * MS)[SERVER] is None


def test_a_layer_that_did_not_come_back_has_the_whole_outage() -> None:
    looks = [*layer(SERVER, 1000, 20_000), *layer(ROUTE, 1000, 20_000)]
    assert plan.split(sorted(looks, key=lambda one: one.begin), 990 * MS, 5990 * MS)[ROUTE] == 5000.0


def test_a_layer_is_not_rounded_above_the_outage() -> None:
    """An outage has microseconds: 1023.46 ms of the whole are not 1023.5 of a layer."""
    looks = layer(SERVER, 1000, 20_000)
    assert plan.split(looks, 990 * MS, 2013_460_000)[SERVER] == 1023.46


def test_a_layer_that_comes_and_goes_counts_to_the_last_time() -> None:
    looks = [look(SERVER, at, FAILED if 1000 <= at < 2000 or 2500 <= at < 4000 else TAKEN) for at in range(0, 6000, 50)]
    assert plan.split(looks, 990 * MS, 4100 * MS)[SERVER] == 3012.0


def test_another_server_may_serve() -> None:
    looks = [look(SERVER, at) for at in range(0, 1000, 50)] + [look(SERVER, at, name="pg2", timeline=2) for at in range(4000, 6000, 50)]
    assert plan.split(looks, 990 * MS, 4100 * MS)[SERVER] == 3012.0
    assert plan.writers(looks) == ["pg1", "pg2"] and plan.timelines(looks) == [1, 2] and plan.two_writers(looks) == []


@pytest.mark.parametrize(("late_ms", "writers"), [(3900, 0), (4001, 0), (4003, 1)])
def test_an_old_leader_that_takes_a_write_after_the_new_one_is_a_second_writer(late_ms: int, writers: int) -> None:
    looks = [look(SERVER, 100), look(SERVER, 4000, name="pg2", timeline=2), look(SERVER, late_ms, lasts_ms=500), look(SERVER, 4200, name="pg2", timeline=2)]
    found = plan.two_writers(looks)
    assert len(found) == writers and all("pg1 took a write on timeline 1 after pg2 had on timeline 2" in one for one in found)


def test_two_servers_on_one_timeline_are_two_writers() -> None:
    assert plan.two_writers([look(SERVER, 0), look(SERVER, 10, name="pg2")]) == ["pg2 and pg1 both took writes on timeline 1."]
    assert plan.two_writers([look(SERVER, 0), look(SERVER, 10, REFUSED, "pg2"), look(ROUTE, 10, name="pg2")]) == []


def test_reads_of_the_replicas() -> None:
    assert plan.longest_gap_ms(layer(REPLICAS, 1000, 3000, 5000), REPLICAS) == 2050.0
    assert plan.longest_gap_ms(layer(REPLICAS, 1000, 9000, 5000), REPLICAS) == 4000.0
    assert plan.longest_gap_ms([], REPLICAS) is None


def test_the_record_can_be_read_though_its_end_is_torn() -> None:
    one, two = look(SERVER, 10), look(ROUTE, 0, FAILED)
    assert read_looks(one.line() + two.line() + '{"layer": "ser') == [two, one]


def test_a_server_that_stood_still_and_answered_afterwards_was_away() -> None:
    looks = [look(SERVER, 900), look(SERVER, 980, lasts_ms=5000), look(SERVER, 6030)]
    assert plan.split(looks, 990 * MS, 6100 * MS)[SERVER] == 4990.0


def test_no_layer_is_back_later_than_the_client_that_it_let_through() -> None:
    looks = [look(ROUTE, 900), look(ROUTE, 1000, FAILED), look(ROUTE, 1990, lasts_ms=300)]
    assert plan.split(looks, 990 * MS, 2000 * MS)[ROUTE] == 1010.0


def test_a_layer_that_nobody_looks_at_has_no_number() -> None:
    assert plan.split(layer(SERVER, 1000, 3000), 990 * MS, 3100 * MS) == {SERVER: 2012.0, ROUTE: None, POOLER: None}


@pytest.mark.parametrize(
    ("addresses", "moved"),
    [
        (["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"], 1052.0),
        (["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.2"], 2052.0),  # answers that come from several name servers: what lasts counts
        (["10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.1"], None),
        (["10.0.0.1", None, None, "10.0.0.2"], 2052.0),
        (["10.0.0.1", "10.0.0.2", "10.0.0.2", None], 52.0),
        ([None, None, "10.0.0.2", "10.0.0.2"], None),  # nobody knows where it led before
    ],
)
def test_a_name_has_moved_when_it_leads_elsewhere_for_good(addresses: list[str | None], moved: float | None) -> None:
    looks = [look(NAME, number * 1000, TAKEN if address else FAILED, address or "", None) for number, address in enumerate(addresses)]
    assert plan.name_moved_ms(looks, 950 * MS) == moved
    assert plan.name_moved_ms([], 950 * MS) is None and plan.writers(looks) == []


def test_a_resolver_says_where_a_name_leads() -> None:
    found = client.Resolver("localhost").look()
    assert found.layer == NAME and found.answer == TAKEN and {"127.0.0.1", "::1"} & set(found.name.split()) and found.begin <= found.end
    assert client.Resolver("nowhere.invalid").look().answer == FAILED
