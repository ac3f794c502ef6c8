# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages that role report renders: a verdict that follows from the evidence and never from its absence, and nothing from a database is ever markup."""

from __future__ import annotations

import html.parser
import pathlib
import re
import typing as t

import jinja2
import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.freight.pg_ha.plugins.filter.report_page import report_page
from ansible_collections.freight.pg_ha.plugins.plugin_utils._report import page

from tests.evidence import problems
from tests.unit.report.sample import EVIDENCE, HOSTS, RDS_ENDPOINT, RDS_HOSTS, TABLES, document, evidence, forced_failover, nothing, rds

TEMPLATES = pathlib.Path(__file__).resolve().parents[3] / "roles" / "report" / "templates"
MARKDOWN, HTML = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.md.j2", "report.html.j2"))


def markdown(**changed: t.Any) -> str:
    """The page for tickets."""
    return page.render(MARKDOWN, "move", evidence(**changed), HOSTS, html=False)


def web(**changed: t.Any) -> str:
    """The page for people."""
    return page.render(HTML, "move", evidence(**changed), HOSTS, html=True)


class Reader(html.parser.HTMLParser):
    """What a browser would find: elements, their attributes, the text."""

    VOID = frozenset({"meta", "link", "br", "rect", "polyline", "polygon"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def test_the_sample_is_what_the_schemas_want() -> None:
    for documents in (EVIDENCE, rds()):
        assert {name: problems(document) for name, document in documents.items() if document} == {name: [] for name, document in documents.items() if document}


def test_a_clean_migration_says_so_first_and_shows_its_numbers() -> None:
    text = markdown()
    assert text.split("## Verdict\n\n", 1)[1].startswith("**The target serves the application.** No acknowledged write was lost")
    for line in ("| Client errors | 0 |", "| Write pause (longest time without any acknowledgement) | 42.5 ms |", "| Longest stall of one client | 88 ms |"):
        assert line in text
    assert "| pause | 9.5 |\n| fence | 3 |\n" in text
    assert "25 tables with 1000 rows and 12 sequences were compared; mismatches: 0." in text
    assert "- **warning** large_objects `pg_largeobject`: 3 large objects.\n- **info** event_trigger" in text
    assert "| postmaster_killed | 3 of 3 | 1400 | 1028 | 5000 | 0 | 0 | 4 | 12.5 |" in text
    assert "not measured" not in text
    assert "\n\n\n" not in text


def test_the_files_of_the_routes_are_named_the_serving_side_first() -> None:
    section = markdown().split("## Routes\n", 1)[1].split("\n## ", 1)[0]
    assert section.index("/pki/routes/move/target") < section.index("/pki/routes/move/source")
    assert "now that the target serves: write to `lb1,lb2` port 6432, read from `lb1` port 5001." in section
    assert "- `app`, password written: `app/ca.crt`, `app/database.env`\n" in section
    assert "password not known, kept as they were and not as the inventory says now: `app/database.env`\n" in section


@pytest.mark.parametrize("render", [markdown, web])
def test_the_same_evidence_gives_the_same_page(render: t.Callable[..., str]) -> None:
    assert render() == render()


def test_nothing_done_yet() -> None:
    text = markdown(**nothing())
    assert "**The source serves the application.** The cutover is not done yet." in text
    assert "Run playbook `assess.yml`, or `migrate.yml`" in text
    assert text.count("Not done yet.") == 7 and "| Client errors | not measured |" in text
    assert "\n\n\n" not in text
    seen = Reader(web(**nothing()))
    assert seen.text.count("Not done yet.") == 6 and "The target is not provisioned yet." in seen.text
    assert seen.text.count("not measured") == 6, "a tile for each promise and the pause, and the last sentence"


COST = {
    "amount": "445.69", "currency": "USD", "without": "traffic", "source": "AWS's price list", "dated": "2026-11-20",
    "lines": [{"what": "db.r7g.large, Multi-AZ", "quantity": 730, "unit": "hour", "price": "0.573", "amount": "418.29"}],
}  # fmt: skip


def test_what_the_target_costs_is_said_where_it_is_known() -> None:
    priced = {**EVIDENCE["topology"], "monthly_cost": COST}
    assert problems(priced) == [] and problems({**priced, "monthly_cost": None}) == []
    text = markdown(topology=priced)
    assert "about **445.69 USD** a month, without traffic" in text and "| db.r7g.large, Multi-AZ | 730 hour | 0.573 | 418.29 |" in text
    shown = " ".join(Reader(web(topology=priced)).words)
    assert "about 445.69 USD a month" in shown and "2026-11-20" in shown
    for unknown in (EVIDENCE["topology"], {**priced, "monthly_cost": None}):
        assert "a month" not in markdown(topology=unknown) and "It costs" not in web(topology=unknown)


def test_every_section_of_the_page_shows_what_the_evidence_says() -> None:
    seen = Reader(web())
    assert seen.open == []
    for words in (
        "The target serves the application.", "of 12 345", "6 of 6", "longest 20.7 s", "15 min 0 s", "pg1", "etcd3", "db is fenced",
        "the critical section took 61 ms",
        "refused as app on 25 tables", "The leader's host loses its power", "Errors by class: 57P01 4", "122 MB in 6.2 s", "is filled by REFRESH",
        "ALTER EVENT TRIGGER e DISABLE;",
        "/pki/routes/move/target",
    ):  # fmt: skip
        assert words in seen.text, words
    assert len([tag for tag, _attributes in seen.tags if tag == "svg"]) == 2 + 2 * 4 + 2


def test_the_page_needs_nothing_from_a_network_and_runs_nothing() -> None:
    text = web()
    seen = Reader(text)
    assert {tag for tag, _attributes in seen.tags} & {"script", "iframe", "object", "embed", "form", "img"} == set()
    addresses = [value for _tag, attributes in seen.tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(address is not None and address.startswith(("#", "data:")) for address in addresses) and "url(" not in text and "@import" not in text
    assert not [name for _tag, attributes in seen.tags for name in attributes if name.startswith("on")]


def managed(**changed: t.Any) -> tuple[str, str]:
    """Both pages of a migration to a managed service."""
    documents = rds(**changed)
    return page.render(HTML, "move", documents, RDS_HOSTS, html=True), page.render(MARKDOWN, "move", documents, RDS_HOSTS, html=False)


def test_a_managed_service_is_shown_as_what_it_is() -> None:
    text, ticket = managed()
    seen = Reader(text)
    address = f"{RDS_ENDPOINT['host']}:5432"
    assert f"Amazon RDS Multi-AZ freight-rds writes to {address}, reads from the same; the storage is mirrored to a second zone" in seen.text
    assert "until the endpoint led to it" in seen.text and seen.open == []
    assert "Amazon RDS Multi-AZ, the storage is mirrored to a second zone; instance `freight-rds`: write to" in ticket
    for words in ("HAProxy", "etcd", "Patroni", "one leads", "servers"):
        assert words not in seen.text and words not in ticket, words


def test_another_endpoint_for_reads_is_named() -> None:
    topology = rds()["topology"]
    topology["target"]["write_endpoint"] = {"host": "in-front", "port": 5432}
    assert f"writes to in-front:5432, reads from {RDS_ENDPOINT['host']}:5432;" in Reader(managed(topology=topology)[0]).text


def test_what_the_service_says_stands_beside_what_clients_saw() -> None:
    text, ticket = managed()
    seen = Reader(text)
    for words in (
        "name led elsewhere: 10.7 s",
        "Clients were without service for 15.2 s; the write endpoint's name led elsewhere after 11.4 s. The service counts 12.2 s from when it began",
        "the band is the time of the service itself",
        "2027-01-01 02:16:48 +8.2 s Multi-AZ instance failover started. 2027-01-01 02:16:59 +19.0 s DB instance restarted",
    ):  # fmt: skip
        assert words in seen.text, words
    said = ticket.split("`forced_failover`, the run that took longest: ", 1)[1]
    assert said.startswith("clients were without service for 15.2 s; the write endpoint's name led elsewhere after 11.4 s.\nThe service counts 12.2 s from")
    assert "| 2027-01-01 02:17:00 | Multi-AZ instance failover completed |\n\n## Routes" in said
    assert "`pgbouncer_killed`, the run" not in ticket and "\n\n\n" not in ticket
    assert text.count("The service counts") == 1


def test_nothing_is_said_of_a_service_or_a_name_where_there_is_none() -> None:
    for text in (web(), markdown()):
        assert not [words for words in ("led elsewhere", "service counts", "by the service", "service said", "own time") if words in text]


def test_a_service_that_has_not_said_that_it_was_over_is_told_so() -> None:
    said = {"started_at": None, "completed_at": None, "service_seconds": None, "events": []}
    text, ticket = managed(failover=document("failover", scenarios=[forced_failover(1, 13_800.0, None, service=said)]))
    assert "The service has not said both when it began and when it was over." in text and "led elsewhere" not in text and "own time" not in text
    assert "clients were without service for 13.8 s.\nThe service has not said both when it began and when it was over." in ticket


HOSTILE = '"><script>alert(1)</script>{{ 7 * 7 }}|`\n%s'


def test_what_a_database_calls_its_things_is_never_markup() -> None:
    assessment = document("assessment", findings=[{**EVIDENCE["assessment"]["findings"][0], "object": HOSTILE, "message": HOSTILE, "fix": HOSTILE}])
    parity = document("parity", by_table=[{"table": HOSTILE, "rows": 1, "chunks": 1, "seconds": 0.1}], mismatches=[{"object": HOSTILE, "sentence": HOSTILE}])
    text = web(assessment=assessment, parity=parity, cutover={**EVIDENCE["cutover"], "outcome": "failed", "reason": HOSTILE, "serves": None})
    seen = Reader(text)
    assert "script" not in {tag for tag, _attributes in seen.tags} and seen.open == []
    assert "alert(1)" in seen.text and "{{ 7 * 7 }}" in seen.text and ">49" not in text
    said = forced_failover(1, 13_800.0)
    said["service"]["events"][0]["message"] = HOSTILE
    told, ticket = managed(failover=document("failover", scenarios=[said]))
    assert "script" not in {tag for tag, _attributes in Reader(told).tags} and "alert(1)" in Reader(told).text
    assert len([line for line in ticket.splitlines() if line.startswith("| 2027") and "alert(1)" in line and "\\|" in line and line.endswith("%s |")]) == 1
    lines = markdown(parity=parity).splitlines()
    assert len([line for line in lines if line.startswith("- ") and "alert(1)" in line and "\\|" in line and line.endswith("%s")]) == 1


def test_a_page_of_many_tables_and_scenarios_stays_small() -> None:
    tables = [{"table": f"app.table_{number}", "rows": number, "chunks": 1, "seconds": 0.1} for number in range(20000)]
    failover = document("failover")
    failover["scenarios"] = [
        {**row, "name": f"scenario_{number}", "timeline": row["timeline"] * 4}
        for number in range(22)
        for row in failover["scenarios"][:1]
        for _repeat in range(3)
    ]
    copied = [{"table": name, "rows": 1, "bytes": size, "from_s": begin, "to_s": end} for name, size, begin, end in TABLES] * 5000
    text = web(parity=document("parity", by_table=tables), failover=failover, replication=document("replication", by_table=copied))
    assert len(text.encode()) < 2_000_000
    assert "The 200 largest; all of them are in parity.json." in text


def test_a_run_that_was_stopped_says_why() -> None:
    stopped = {**EVIDENCE["replication"], "outcome": "refused", "reason": "There are no slots left."}
    for text in (web(replication=stopped, cutover={}), markdown(replication=stopped, cutover={})):
        assert "There are no slots left." in text and "Phase Replicate ended as refused" in text


def test_a_scenario_that_did_not_pass_is_open_with_its_reasons() -> None:
    failover = document("failover", outcome="failed")
    failover["scenarios"][0].update(passed=False, reasons=["1 acknowledged rows are lost."], rpo_lost=1)
    text = web(failover=failover)
    assert "failover scenarios that did not pass: switchover" in text
    seen = Reader(text)
    opened = [attributes["id"] for tag, attributes in seen.tags if tag == "details" and "open" in attributes]
    assert opened == ["scenario-1"] and "Did not pass. 1 acknowledged rows are lost." in seen.text


def test_a_document_that_is_not_complete_is_named_and_nothing_is_made_up() -> None:
    parity = document("parity")
    del parity["rows"]
    with pytest.raises(AnsibleFilterError, match="a document of the evidence is not complete"):
        report_page(evidence(parity=parity), HTML, "move", HOSTS, html=True)
    assert "25 tables with not measured rows" in markdown(parity=parity)


def test_a_template_that_asks_for_what_is_not_there_fails() -> None:
    with pytest.raises(jinja2.UndefinedError):
        page.render("{{ verdict.nothing }}", "move", evidence(), HOSTS, html=True)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0123, "0.0123 s"), (59.9, "59.9 s"), (60, "1 min 0 s"), (3599.7, "1 h 0 min"), (90000, "1 d 1 h"), (None, "not measured")]
)
def test_durations(seconds: float | None, words: str) -> None:
    assert page.duration(seconds) == words


@pytest.mark.parametrize(("value", "words"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (5e15, "5e+03 TB"), (None, "not measured")])
def test_sizes(value: float | None, words: str) -> None:
    assert page.size(value) == words


@pytest.mark.parametrize(("value", "words"), [(1234567, "1\u202f234\u202f567"), ([1, 2], "2"), (None, "not measured"), (True, "not measured")])
def test_numbers(value: t.Any, words: str) -> None:
    assert page.number(value) == words


def test_evidence_of_one_moment_says_when_and_not_how_long() -> None:
    moment = EVIDENCE["topology"]["finished_at"]
    row = re.search(r"<tr><td>Provision</td>.*?</tr>", web(topology=document("topology", started_at=moment)), re.DOTALL)
    assert row and "not measured" in row[0] and "0 s" not in row[0] and 'class="lane"' in row[0]
