# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The migration as a JUnit report, which every CI system shows: phases, promises and failover scenarios are its test cases. Pure.

Elements and attributes as Jenkins and GitLab read them: testsuites > testsuite(name, tests, failures, errors, skipped) > testcase(classname, name, time)
with failure, error or skipped inside.
"""

from __future__ import annotations

import re
import typing as t
from xml.etree import ElementTree

from . import page, verdict

# What XML 1.0 cannot say at all (its section 2.2).
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# How a case ended when it did not end well: the element within it.
FAILURE, ERROR, SKIPPED = "failure", "error", "skipped"


def render(migration: str, evidence: verdict.Evidence) -> str:
    """The document."""
    root = ElementTree.Element("testsuites", {"name": _text(migration)})
    _suite(root, "phases", _phases(evidence))
    _suite(root, "promises", _promises(evidence))
    _suite(root, "failover", _failover(evidence))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


class Case(t.NamedTuple):
    """A test case.

    :param seconds: how long it took, None where that says nothing
    :param bad: how it ended when it did not end well, and why
    """

    name: str
    seconds: float | None
    bad: tuple[str, str] | None


def _phases(evidence: verdict.Evidence) -> t.Iterator[Case]:
    for row in page.path(verdict.phases(evidence)):
        phase, place = row["phase"], row["place"]
        seconds = None if place is None else place["seconds"]
        if not phase.document:
            yield Case(phase.name, None, (SKIPPED, "not done yet"))
        elif phase.outcome == "done":
            yield Case(phase.name, seconds, None)
        else:
            yield Case(phase.name, seconds, (FAILURE, f"{phase.playbook} ended as {phase.outcome}. {phase.document.get('reason', '')}".strip()))


def _promises(evidence: verdict.Evidence) -> t.Iterator[Case]:
    """What was promised to clients, and that both sides are equal; unknown is an error, never a pass."""
    moved = verdict.has_moved(evidence)
    client = evidence["cutover"].get("client") or {}
    for name, words in (("errors", "client errors"), ("lost", "acknowledged writes lost"), ("duplicated", "writes that took effect twice")):
        yield Case(f"no {words}", None, _zero(client.get(name), words) if moved else (SKIPPED, "the clients were not moved yet"))
    compared = bool(evidence["parity"]) or moved
    mismatches = _zero(verdict.count(evidence["parity"].get("mismatches")), "mismatches")
    yield Case("no parity mismatches", None, mismatches if compared else (SKIPPED, "not compared yet"))


def _zero(value: int | None, words: str) -> tuple[str, str] | None:
    if value is None:
        return ERROR, f"{words} were not measured"
    return (FAILURE, f"{value} {words}") if value else None


def _failover(evidence: verdict.Evidence) -> t.Iterator[Case]:
    failover = evidence["failover"]
    for row in failover.get("scenarios", []):
        bad = None if row["passed"] else (FAILURE, " ".join(row["reasons"]))
        yield Case(f"{row['name']} #{row['repeat']}", row["rto_ms"] / 1000, bad)
    if failover.get("trouble"):
        yield Case("the test came to its end", None, (ERROR, failover["trouble"]))


def _suite(root: ElementTree.Element, name: str, cases: t.Iterable[Case]) -> None:
    listed = list(cases)
    kinds = [case.bad[0] for case in listed if case.bad is not None]
    counts = {"tests": len(listed), "failures": kinds.count(FAILURE), "errors": kinds.count(ERROR), "skipped": kinds.count(SKIPPED)}
    suite = ElementTree.SubElement(root, "testsuite", {"name": name, **{key: str(value) for key, value in counts.items()}})
    for case in listed:
        element = ElementTree.SubElement(suite, "testcase", {"classname": f"freight.pg_ha.{name}", "name": _text(case.name)})
        if case.seconds is not None:
            element.set("time", f"{case.seconds:.3f}")
        if case.bad is not None:
            ElementTree.SubElement(element, case.bad[0], {"message": _text(case.bad[1])})


def _text(value: str) -> str:
    """Text that XML can hold: other characters are shown as what stands for them."""
    return _NOT_XML.sub("\ufffd", value)
