# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages for whoever runs the target: they name what stands and what was measured, and say so where nothing was."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.plugin_utils._report import page

from tests.unit.report.sample import EVIDENCE, HOSTS, document, evidence

ROOT = pathlib.Path(__file__).resolve().parents[3]
RUNBOOK, ARCHITECTURE = ((ROOT / "roles" / "report" / "templates" / f"{name}.md.j2").read_text(encoding="utf-8") for name in ("runbook", "architecture"))
RETIRED = {
    "retirement": {
        "outcome": "done",
        "started_at": "2027-01-02T00:00:00Z",
        "finished_at": "2027-01-02T00:00:00Z",
        "kept": [],
        "not_removed": [],
        "backup": "No backup was made here.",
    }
}
TWO_OF_EACH = {**HOSTS, "poolers": ["lb1", "lb2"], "proxies": ["lb1", "lb2"]}


def render(template: str, hosts: t.Mapping[str, t.Sequence[str]] = HOSTS, **changed: t.Any) -> str:
    """A page of the sample."""
    return page.render(template, "move", evidence(**changed), hosts, html=False)


def test_it_names_the_hosts_and_endpoints_that_stand() -> None:
    text = render(ARCHITECTURE)
    for part in (
        "PgBouncer      lb1\n",
        "lb1:5000 to the leader, lb1:5001 to the standbys",
        "PostgreSQL     pg1  pg2  pg3",
        "etcd           etcd1  etcd2  etcd3",
    ):
        assert part in text
    assert "| etcd | `etcd1`, `etcd2`, `etcd3` | 1 |" in text and "port 6432" in text


def test_what_is_there_once_is_said_to_be_so() -> None:
    assert "**PgBouncer and HAProxy are there once only.**" in render(ARCHITECTURE)
    assert "there once only" not in render(ARCHITECTURE, TWO_OF_EACH)
    assert render(RUNBOOK).count("it is the only one: no service until it is back") == 2
    assert "it is the only one" not in render(RUNBOOK, TWO_OF_EACH)


def test_each_figure_is_the_measured_one_and_where_there_is_none_the_page_says_how_to_get_it() -> None:
    text = render(RUNBOOK)
    assert "| The leader's host loses its power | 20.7 s | 30.0 s | 0 | 12.5 s |" in text
    assert "Measured here: 2510 ms without service at worst (of 1), lost 0, whole again after 12.5 s." in text
    assert """Not measured here: `test_failover.yml -e '{"pg_ha_failover_scenarios": ["haproxy_killed"]}'` does.""" in text
    for template in (RUNBOOK, ARCHITECTURE):
        untested = render(template, failover={})
        assert "Not measured yet: `test_failover.yml` does." in untested and "Measured here" not in untested


def way_back(**changed: t.Any) -> dict[str, t.Any]:
    """What changes where the way back does."""
    return {"cutover": {"way_back": {"link": "l", "follows": True, "problem": None, "standbys_without": [], **changed}}}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, "nothing written since is lost by going back"),
        (way_back(follows=False, problem="The slot is lost."), "did not follow after the cutover: The slot is lost."),
        (way_back(standbys_without=["pg3"]), "do not have its slot: `pg3`."),
        ({"cutover": {"way_back": None}}, "going back loses what was written since"),
        ({"cutover": None}, "The source serves: there is nothing to go back from."),
        (RETIRED, "There is no way back: the source was retired at 2027-01-02 00:00:00."),
    ],
)
def test_the_way_back_is_told_as_it_is(changed: dict[str, t.Any], says: str) -> None:
    given = {name: {} if value is None else {**EVIDENCE[name], **value} for name, value in changed.items()}
    assert says in render(RUNBOOK, **given)


def test_every_playbook_and_scenario_that_it_names_is_there() -> None:
    text = render(RUNBOOK, failover=document("failover", scenarios=[]))
    for word in {word.strip("`,.:'") for word in text.split() if ".yml" in word and "/etc/" not in word}:
        assert (ROOT / "playbooks" / pathlib.Path(word).name).is_file(), word
    named = {part.split('"')[0] for part in text.split('["')[1:]}
    assert len(named) == 5
    for name in named:
        assert (ROOT / "roles" / "failover_test" / "files" / "scenarios" / f"{name}.yml").is_file(), name
