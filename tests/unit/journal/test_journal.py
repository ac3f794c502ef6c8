# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal: what is due, what is written, and what a missing database, schema or server means."""

from __future__ import annotations

import pathlib
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, PlanError
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import decision, journal, schema
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.modules import migration_phase, migration_phase_info

DONE = journal.PhaseRecord("move", "verify", "done", "abc", "r1", "2027-01-01T00:00:00.000Z", "2027-01-01T00:00:01.000Z", {"rows": 1})


@pytest.mark.parametrize(
    ("record", "inputs", "repeat", "due"),
    [
        (journal.PhaseRecord("move", "verify"), "abc", [], True),
        (journal.PhaseRecord("move", "verify", "running", "abc"), "abc", [], True),
        (journal.PhaseRecord("move", "verify", "failed", "abc"), "abc", [], True),
        (journal.PhaseRecord("move", "verify", "refused", "abc"), "abc", [], True),
        (journal.PhaseRecord("move", "verify", "unknown", "abc"), "abc", [], True),
        (DONE, "abc", [], False),
        (DONE, None, [], False),
        (DONE, "other", [], True),
        (DONE, "", [], True),
        (DONE, "abc", ["verify"], True),
        (DONE, "abc", ["replicate"], False),
    ],
)
def test_a_phase_is_due_unless_it_is_done_with_the_same_inputs(record: journal.PhaseRecord, inputs: str | None, repeat: list[str], due: bool) -> None:
    assert bool(journal.why_due(record, inputs, repeat)) is due


@pytest.mark.parametrize(
    ("wanted", "changed", "evidence"),
    [
        (journal.Wanted("done"), False, {"rows": 1}),
        (journal.Wanted("done", "abc", "r2", {"rows": 1}), False, {"rows": 1}),
        (journal.Wanted("done", "abc", "r2", {"rows": 2}), True, {"rows": 2}),
        (journal.Wanted("done", "other"), True, {"rows": 1}),
        (journal.Wanted("running", "abc", "r2"), True, None),
        (journal.Wanted("failed"), True, None),
    ],
)
def test_plan_of_a_row(wanted: journal.Wanted, changed: bool, evidence: t.Any) -> None:
    after, actions = journal.plan_phase(DONE, wanted)
    assert bool(actions) is changed
    assert after.evidence == evidence


def test_a_state_that_cannot_be_recorded_is_refused() -> None:
    with pytest.raises(PlanError, match="absent"):
        journal.plan_phase(DONE, journal.Wanted("absent"))


@pytest.fixture
def service_file(postgresql_server: t.Any, tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> str:
    """A service ``target`` whose database does not exist yet, and one that nobody answers."""
    name = f"journal_{abs(hash(request.node.name))}"
    path = tmp_path / "pg_service.conf"
    postgresql_server.services(path, target=name)
    with path.open("a") as file:
        file.write(f"[nobody]\nhost=127.0.0.1\nport=1\nuser=postgres\ndbname={name}\n")
    return str(path)


def phase(service_file: str, check_mode: bool = False, **options: t.Any) -> t.Any:
    """Run migration_phase."""
    defaults = {key: spec.get("default") for key, spec in migration_phase.argument_spec().items()}
    return migration_phase.run({**defaults, "service_file": service_file, "migration": "move", "phase": "verify", **options}, check_mode)


def info(service_file: str, **options: t.Any) -> dict[str, t.Any]:
    """Run migration_phase_info and return its phase."""
    defaults = {key: spec.get("default") for key, spec in migration_phase_info.argument_spec().items()}
    return migration_phase_info.run({**defaults, "service_file": service_file, "migration": "move", "phase": "verify", **options}).result["phase"]


def make_schema(service_file: str) -> None:
    """Make schema ha_migration."""
    connection = client.connect(service_file, "target", application_name="test")
    schema.ensure_schema(connection)
    connection.close()


def test_from_no_database_to_a_finished_phase(postgresql_server: t.Any, service_file: str) -> None:
    assert info(service_file)["state"] == "absent"
    assert phase(service_file, check_mode=True, state="running").changed
    with pytest.raises(PlanError, match="replicate.yml"):
        phase(service_file, state="running")

    postgresql_server.create_database(journal.service_database(service_file, "target"))
    assert info(service_file)["due_because"] == "it has not run yet"
    with pytest.raises(PlanError, match="schema ha_migration"):
        phase(service_file, state="running")

    make_schema(service_file)
    assert phase(service_file, check_mode=True, state="running", inputs="abc", run="r1").changed
    assert info(service_file)["state"] == "absent"

    begun = phase(service_file, state="running", inputs="abc", run="r1")
    assert begun.changed and begun.after["state"] == "running" and begun.before["state"] == "absent"
    assert not phase(service_file, state="running", inputs="abc", run="r1").changed
    went_on = phase(service_file, state="running", inputs="abc", run="r2")
    assert went_on.changed and went_on.result["phase"]["started_at"] == begun.result["phase"]["started_at"]
    assert info(service_file)["due_because"] == "an earlier run did not finish"

    evidence = {"rows": 10**12, "ratio": 0.25, "names": ["Üb", "a'b"], "nothing": None, "deep": {"a": [1, {"b": True}]}}
    done = phase(service_file, state="done", inputs="abc", evidence=evidence)
    assert done.changed and done.result["phase"]["finished_at"] is not None
    assert done.result["phase"]["started_at"] == begun.result["phase"]["started_at"]
    again = phase(service_file, state="done", inputs="abc", run="r3", evidence=evidence)
    assert not again.changed and again.result["phase"]["run"] == "r2"

    found = info(service_file, inputs="abc")
    assert (found["state"], found["due"], found["inputs_match"], found["evidence"]) == ("done", False, True, evidence)
    assert info(service_file, inputs="other")["inputs_match"] is False
    assert info(service_file, inputs="abc", repeat=["verify"])["due"] is True
    assert info(service_file, phase="replicate")["state"] == "absent"

    # A cutover that was interrupted after its decision: the journal does not say it yet.
    assert info(service_file, phase="cut_over")["serves"] == "source"
    target = client.connect(service_file, "target", application_name="test")
    decision.announce(target, 1, "target")
    target.close()
    moved = info(service_file, phase="cut_over")
    assert (moved["state"], moved["serves"]) == ("absent", "target")


def test_a_target_that_cannot_be_reached_is_an_error_and_never_absent(service_file: str) -> None:
    with pytest.raises(ClientError, match="nobody"):
        info(service_file, service="nobody")
    with pytest.raises(ClientError, match="missing"):
        info(service_file, service="missing")
    assert info(service_file, service="nobody", target_required=False)["state"] == "unknown"
    found = info(service_file, service="missing", target_required=False)
    assert found["due"] is True and "no service 'missing'" in found["problem"]


def test_a_maintenance_database_that_is_missing_too_is_an_error(service_file: str) -> None:
    with pytest.raises(ClientError):
        info(service_file, maintenance_database="there_is_none")


def test_check_mode_writes_nothing_over_a_finished_row(postgresql_server: t.Any, service_file: str) -> None:
    postgresql_server.create_database(journal.service_database(service_file, "target"))
    make_schema(service_file)
    phase(service_file, state="done", evidence={"rows": 1})
    predicted = phase(service_file, check_mode=True, state="done", evidence={"rows": 2})
    assert predicted.changed and predicted.after["evidence"] == {"rows": 2}
    assert info(service_file)["evidence"] == {"rows": 1}
