# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages for whoever runs the target: they name what stands and what was measured, and say so where nothing was."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
import yaml
from ansible_collections.freight.pg_ha.plugins.plugin_utils._report import page

from tests.unit.report.sample import EVIDENCE, HOSTS, RDS_ENDPOINT, RDS_HOSTS, document, evidence, rds

ROOT = pathlib.Path(__file__).resolve().parents[3]
TEMPLATES = ROOT / "roles" / "report" / "templates"
KINDS = sorted(path.name.split(".")[1] for path in TEMPLATES.glob("runbook.*.md.j2"))


def template(name: str, kind: str) -> str:
    """As the role puts it together."""
    return "".join((TEMPLATES / f"{file}.md.j2").read_text(encoding="utf-8") for file in ("handbook", f"{name}.{kind}"))


RUNBOOK, ARCHITECTURE = (template(name, "patroni") for name in ("runbook", "architecture"))
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


def managed(name: str, hosts: t.Mapping[str, t.Sequence[str]] = RDS_HOSTS, **changed: t.Any) -> str:
    """A page of the sample for a managed service."""
    return page.render(template(name, "rds"), "move", rds(**changed), hosts, html=False)


def either(name: str, kind: str, **changed: t.Any) -> str:
    """A page of either kind."""
    return managed(name, **changed) if kind == "rds" else render(template(name, kind), **changed)


def test_every_kind_of_target_has_its_pages() -> None:
    roles = sorted((ROOT / "roles").glob("target_*"))
    topologies = [yaml.safe_load((role / "vars" / "main.yml").read_text(encoding="utf-8"))[f"__{role.name}_topology"] for role in roles]
    assert sorted(topology["target"]["kind"] for topology in topologies) == KINDS
    assert all((TEMPLATES / f"architecture.{kind}.md.j2").is_file() for kind in KINDS)


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


def test_a_managed_service_is_named_by_its_instance_and_its_endpoint() -> None:
    text = managed("architecture")
    for part in (
        "PgBouncer      lb1\n",
        f"    │  {RDS_ENDPOINT['host']}:5432\n",
        "Amazon RDS     freight-rds ",
        "| server of the instance, with its storage | `freight-rds` | 1 |",
        "**PgBouncer is there once only.**",
        f"The instance has one name, `{RDS_ENDPOINT['host']}`,",
    ):
        assert part in text, part
    assert "there once only" not in managed("architecture", {**RDS_HOSTS, "poolers": ["lb1", "lb2"]})
    runbook = managed("runbook")
    for part in (
        "aws rds describe-db-instances --db-instance-identifier freight-rds ",
        "aws rds describe-events --source-type db-instance --source-identifier freight-rds --duration 60 ",
        "aws rds reboot-db-instance --db-instance-identifier freight-rds --force-failover ",
        f"getent hosts {RDS_ENDPOINT['host']}",
    ):
        assert part in runbook, part


def test_an_endpoint_in_front_of_the_instance_is_told_apart_from_its_own() -> None:
    topology = rds()["topology"]
    topology["target"]["write_endpoint"] = {"host": "in-front", "port": 5432}
    text = managed("architecture", topology=topology)
    assert f"    │  in-front:5432, which leads to {RDS_ENDPOINT['host']}:5432\n" in text and f"one name, `{RDS_ENDPOINT['host']}`," in text


def test_what_a_failover_of_the_service_took_is_measured() -> None:
    row = "| The service fails over to its standby in another zone | 10.7 s | 11.6 s | 13.8 s | 14.5 s | 15.2 s | 4 | 0 |"
    assert row in managed("architecture")
    assert "| SIGKILL for PgBouncer | - | 1179 ms |" in managed("architecture")
    assert managed("runbook").count("Measured here: 15.2 s without service at worst (of 2), lost 0, whole again after 12.5 s.") == 2
    for name in ("architecture", "runbook"):
        assert "Not measured yet: `test_failover.yml` does." in managed(name, failover={})


@pytest.mark.parametrize("name", ["architecture", "runbook"])
def test_a_page_speaks_of_its_own_kind_of_target_only(name: str) -> None:
    for documents in (rds(), rds(failover={}), rds(cutover={}), rds(**RETIRED)):
        text = page.render(template(name, "rds"), "move", documents, RDS_HOSTS, html=False)
        assert not [word for word in ("patroni", "etcd", "haproxy", "pg1") if word in text.lower()]
        assert "\n\n\n" not in text
    text = render(template(name, "patroni"))
    assert "Patroni" in text and "etcd" in text and "HAProxy" in text
    assert not [word for word in ("Amazon", "RDS", "Multi-AZ", "aws ") if word in text]


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
@pytest.mark.parametrize("kind", KINDS)
def test_the_way_back_is_told_as_it_is(kind: str, changed: dict[str, t.Any], says: str) -> None:
    given = {name: {} if value is None else {**EVIDENCE[name], **value} for name, value in changed.items()}
    assert says in either("runbook", kind, **given)


@pytest.mark.parametrize(("kind", "scenarios"), [("patroni", 5), ("rds", 2)])
def test_every_playbook_and_scenario_that_it_names_is_there(kind: str, scenarios: int) -> None:
    text = either("runbook", kind, failover=document("failover", scenarios=[]))
    for word in {word.strip("`,.:;'") for word in text.split() if ".yml" in word and "/etc/" not in word}:
        assert (ROOT / "playbooks" / pathlib.Path(word).name).is_file(), word
    named = {part.split('"')[0] for part in text.split('["')[1:]}
    assert len(named) == scenarios
    for name in named:
        assert (ROOT / "roles" / "failover_test" / "files" / "scenarios" / f"{name}.yml").is_file(), name
