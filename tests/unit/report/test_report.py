# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page that role report renders: a verdict that follows from the evidence and never from its absence."""

from __future__ import annotations

import copy
import pathlib
import typing as t

import jinja2
import pytest

TEMPLATES = pathlib.Path(__file__).resolve().parents[3] / "roles" / "report" / "templates"
TIMES = {"started_at": "2027-01-01T00:00:00Z", "finished_at": "2027-01-01T00:01:00Z", "outcome": "done"}

EVIDENCE: dict[str, t.Any] = {
    "assessment": {
        **TIMES,
        "facts": {
            "version": "PostgreSQL 15.1", "database": "freight", "bytes": 200 << 20, "tables": 25, "partitions": 4, "encoding": "UTF8", "collate": "C.UTF-8",
        },
        "findings": [
            {"id": "large_objects", "severity": "warning", "object": "pg_largeobject", "message": "3 large objects.", "fix": ""},
            {"id": "event_trigger", "severity": "info", "object": "e", "message": "Fires.", "fix": "ALTER EVENT TRIGGER e DISABLE;"},
        ],
    },
    "topology": {**TIMES, "write_endpoint": {"host": "lb1", "port": 5000}},
    "replication": {**TIMES, "method": "logical", "tables": 25, "rows": 1000, "bytes": 1 << 20, "seconds": 4.2},
    "parity": {**TIMES, "tables": 25, "rows": 1000, "mismatches": [], "sequences": 12},
    "failover": {},
    "retirement": {},
    "cutover": {
        **TIMES,
        "serves": "target",
        "write_pause_ms": 42.5,
        "longest_client_stall_ms": 88,
        "critical_section_ms": 61,
        "steps": [{"name": "pause", "ms": 9.5}, {"name": "fence", "ms": 3}],
        "client": {"acknowledged": 12345, "errors": 0, "lost": 0, "duplicated": 0},
    },
    "routes": {
        **TIMES,
        "sides": {
            "source": {
                "directory": "/pki/routes/move/source",
                "write_endpoint": {"hosts": ["db"], "port": 5432},
                "read_endpoint": {"hosts": ["db"], "port": 5432},
                "roles": [{"name": "app", "password": "not_known", "files": ["app/database.env"], "as_declared": False}],
            },
            "target": {
                "directory": "/pki/routes/move/target",
                "write_endpoint": {"hosts": ["lb1", "lb2"], "port": 6432},
                "read_endpoint": {"hosts": ["lb1"], "port": 5001},
                "roles": [{"name": "app", "password": "written", "files": ["app/ca.crt", "app/database.env"], "as_declared": True}],
            },
        },
    },
}  # fmt: skip


def render(**changed: t.Any) -> str:
    """The page, as Ansible would render it."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("report.md.j2").render(report_migration="move", __report_evidence={**copy.deepcopy(EVIDENCE), **changed})


def cutover(**changed: t.Any) -> dict[str, t.Any]:
    """Evidence of a cutover with something changed."""
    return {**EVIDENCE["cutover"], **changed}


def verdict(page: str) -> str:
    """The sentence of the verdict."""
    return page.split("## Verdict\n\n", 1)[1].split("\n", 1)[0]


def test_a_clean_migration_says_so_first_and_shows_its_numbers() -> None:
    page = render()
    assert verdict(page).startswith("**The target serves the application.** No acknowledged write was lost")
    for line in ("| Client errors | 0 |", "| Write pause (longest time without any acknowledgement) | 42.5 ms |", "| Longest stall of one client | 88 ms |"):
        assert line in page
    assert "| pause | 9.5 |\n| fence | 3 |\n" in page
    assert "25 tables with 1000 rows and 12 sequences were compared; mismatches: 0." in page
    assert "- **warning** large_objects `pg_largeobject`: 3 large objects.\n- **info** event_trigger" in page
    assert "| Test failover | not done yet |" in page
    assert "not measured" not in page
    assert "\n\n\n" not in page


def test_the_files_of_the_routes_are_named_the_serving_side_first() -> None:
    page = render()
    section = page.split("## Routes\n", 1)[1].split("\n## ", 1)[0]
    assert section.index("/pki/routes/move/target") < section.index("/pki/routes/move/source")
    assert "now that the target serves: write to `lb1,lb2` port 6432, read from `lb1` port 5001." in section
    assert "- `app`, password written: `app/ca.crt`, `app/database.env`\n" in section
    assert "password not known, kept as they were and not as the inventory says now: `app/database.env`\n" in section


def test_the_same_evidence_gives_the_same_page() -> None:
    assert render() == render()


def test_nothing_done_yet() -> None:
    page = render(**{name: {} for name in EVIDENCE})
    assert verdict(page) == "**The source serves the application.** The cutover is not done yet."
    assert "Run playbook `assess.yml`, or `migrate.yml`" in page
    assert page.count("Not done yet.") == 7 and "| Client errors | not measured |" in page
    assert "\n\n\n" not in page


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"cutover": cutover(client={"acknowledged": 5, "errors": 0, "lost": 1, "duplicated": 0})}, "not clean: client lost: 1"),
        ({"cutover": cutover(client={"acknowledged": 5, "errors": 2, "lost": 0, "duplicated": 3})}, "client errors: 2; client duplicated: 3"),
        ({"cutover": cutover(client=None)}, "client errors were not measured; client lost were not measured; client duplicated were not measured"),
        ({"cutover": cutover(client={"errors": 0, "lost": None, "duplicated": 0})}, "client lost were not measured"),
        ({"parity": {}}, "parity was not measured"),
        ({"parity": {**EVIDENCE["parity"], "mismatches": [{"sentence": "public.t differs"}]}}, "parity mismatches: 1"),
        ({"parity": {**EVIDENCE["parity"], "mismatches": 2}}, "parity mismatches: 2"),
    ],
)
def test_what_is_wrong_or_unknown_after_a_cutover_is_in_the_verdict(changed: dict[str, t.Any], words: str) -> None:
    page = render(**changed)
    assert words in verdict(page) and "not clean" in verdict(page)
    assert "No acknowledged write was lost" not in page


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"cutover": {}}, "with `-e pg_ha_cutover_approved=true` it moves the clients"),
        ({"cutover": cutover(outcome="refused")}, "Phase Cut over ended as refused"),
        ({"cutover": {}, "parity": {**EVIDENCE["parity"], "outcome": "failed", "mismatches": 1}}, "Phase Verify ended as failed"),
        ({"cutover": {}, "replication": {}}, "Run playbook `replicate.yml`"),
    ],
)
def test_what_to_do_next(changed: dict[str, t.Any], words: str) -> None:
    page = render(**changed)
    assert words in page and verdict(page).startswith("**The source serves the application.")


def test_blockers_name_their_number() -> None:
    findings = [{"id": "wal_level", "severity": "blocker", "object": "wal_level", "message": "m", "fix": "f"}]
    page = render(assessment={**EVIDENCE["assessment"], "outcome": "refused", "findings": findings}, cutover={})
    assert "1 findings block the migration" in page


def test_a_migration_that_is_retired_is_told_with_what_stays() -> None:
    retirement = {**TIMES, "kept": ["The source stays fenced."], "not_removed": [], "backup": "No backup was made."}
    page = render(retirement=retirement)
    assert "The migration is retired: nothing of it is left beside the target. The source stays fenced. No backup was made." in page
    assert "| Retire source | done" in page and "Retire source" not in render()
    assert "Run playbook" not in page and "ended as running" in render(retirement={**retirement, "outcome": "running", "finished_at": None})
