# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameters of a group against the catalogue, as a plan and against the stand-in."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import PgHaError
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import formula, parameter_plan
from hypothesis import given
from hypothesis import strategies as st
from stand_in_aws import catalogue, rules

from .conftest import Service

CATALOGUE = list(catalogue.parameters().values())
VARIABLES = {"AllocatedStorage": 100, "DBInstanceClassMemory": 8 * 1024**3, "DBInstanceVCPU": 2, "EndPointPort": 5432, "TrueIfReplica": 0}


def planned(name: str, value: t.Any) -> str | None:
    changes, problems = parameter_plan.plan_parameters({name: value}, CATALOGUE)
    assert not problems, problems
    return changes[0].after if changes else "as it stands"


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("work_mem", "16MB", "16384"),
        ("work_mem", 16384, "16384"),
        ("work_mem", "16384", "16384"),
        ("wal_buffers", "16MB", "2048"),
        ("max_slot_wal_keep_size", "10GB", "10240"),
        ("max_slot_wal_keep_size", -1, "-1"),
        ("checkpoint_timeout", "15min", "900"),
        ("idle_in_transaction_session_timeout", "30s", "30000"),
        ("log_min_duration_statement", 250, "250"),
        ("random_page_cost", 1.1, "1.1"),
        ("random_page_cost", "2.0", "2"),
        ("rds.logical_replication", True, "1"),
        ("rds.logical_replication", "on", "1"),
        ("rds.force_ssl", "off", "0"),
        ("wal_compression", "lz4", "lz4"),
        ("shared_preload_libraries", ["pg_stat_statements", "pg_cron"], "pg_stat_statements,pg_cron"),
        ("shared_buffers", "{DBInstanceClassMemory/32768}", "as it stands"),
        ("shared_buffers", "{ DBInstanceClassMemory / 32768 }", "as it stands"),
        ("shared_buffers", "{DBInstanceClassMemory/16384}", "{DBInstanceClassMemory/16384}"),
        ("max_connections", "LEAST({DBInstanceClassMemory/9531392},500)", "LEAST({DBInstanceClassMemory/9531392},500)"),
        ("max_connections", "{DBInstanceClassMemory/12582880}", "{DBInstanceClassMemory/12582880}"),
        ("max_connections", "{DBInstanceVCPU*25}", "{DBInstanceVCPU*25}"),
        ("work_mem", None, "as it stands"),
    ],
)
def test_a_value_is_sent_in_the_services_own_unit(name: str, value: t.Any, sent: str) -> None:
    assert planned(name, value) == sent


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("shared_buffers", "{DBInstanceClassMemory/4}", "comes to 2,048 times the memory of the instance, because the service counts shared_buffers in 8kB"),
        ("effective_cache_size", "{DBInstanceClassMemory*3/4}", "comes to 6,144 times the memory of the instance"),
        ("shared_buffers", "{DBInstanceClassMemory/32768", "is no formula of RDS: its braces do not match"),
        ("shared_buffers", "{Memory/32768}", "is no formula of RDS: there is no variable Memory"),
        ("shared_buffers", "{DBInstanceClassMemory/0}", "is no formula of RDS: it divides by 0"),
        ("shared_buffers", "{__import__('os')}", "is no formula of RDS: it may hold numbers"),
        ("shared_buffers", "{DBInstanceClassMemory//}", "is no formula of RDS: it cannot be read"),
        ("work_mem", "16XB", "'16XB' is no number: give a number of kB, or a size like 64MB"),
        ("work_mem", "16s", "a value in s does not fit, it is counted in kB"),
        ("work_mem", 1, "1 is not within 64 and 2147483647 (kB)"),
        ("work_mem", "0.5kB", "0.5kB is 0.5 times kB, which is not whole"),
        ("wal_buffers", "20kB", "20kB is 2.5 times 8kB, which is not whole: give a multiple of 8kB"),
        ("max_connections", "100MB", "a value in MB does not fit, it has no unit in the service's catalogue: give a number"),
        ("max_connections", 1.5, "1.5 is not whole"),
        ("rds.logical_replication", "maybe", "'maybe' is neither on nor off"),
        ("wal_compression", "rar", "'rar' is none of pglz, lz4, zstd, on, off"),
        ("shared_preload_libraries", "pg_stat_statements,evil", "'evil' is none of"),
        ("work_mem", "nan", "'nan' is no number: give a number of kB"),
        ("work_mem", float("inf"), "'inf' is no number"),
        ("random_page_cost", float("nan"), "'nan' is no number"),
        ("random_page_cost", "-Infinity", "'-Infinity' is no number"),
        ("work_mem", "1e999", "'1e999' is no number"),
        ("work_mem", f"{'9' * 400}TB", "is no number"),
        ("shared_buffers", "{DBInstanceClassMemory*1e400}", "is no formula of RDS: it comes to no number that there is"),
        ("shared_buffers", "{DBInstanceClassMemory/1e-400}", "is no formula of RDS: it divides by 0"),
        ("shared_buffers", f"{{DBInstanceClassMemory*{'9' * 400}/3}}", "is no formula of RDS: it comes to no number that there is"),
        ("shared_buffers", f"{{{'(' * 9999}1{')' * 9999}}}", "is no formula of RDS: it cannot be read"),
        ("max_connections", "{DBInstanceClassMemory}", "{DBInstanceClassMemory} comes to 1073741824 and more on any instance, which is not within"),
        ("max_connections", "{DBInstanceVCPU/1000}", "{DBInstanceVCPU/1000} comes to 0 and less on any instance, which is not within"),
        ("fsync", False, "parameters.fsync cannot be changed, the service keeps it itself"),
        ("no_such", 1, "parameters.no_such: this family has no such parameter"),
    ],
)
def test_what_the_engine_would_not_take_is_refused(name: str, value: t.Any, sentence: str) -> None:
    _changes, (problem,) = parameter_plan.plan_parameters({name: value}, CATALOGUE)
    assert sentence in problem.sentence


@given(st.text(max_size=40))
def test_no_text_is_evaluated_as_anything_but_a_formula(text: str) -> None:
    try:
        assert isinstance(formula.evaluate(text, VARIABLES), int | float)
    except formula.NotAFormula:
        pass


@given(st.integers(64, 2147483647))
def test_a_number_within_the_bounds_is_sent_as_it_is(number: int) -> None:
    assert planned("work_mem", number) == str(number)


@pytest.mark.parametrize("count", [1, 20, 21, 45])
def test_requests_hold_twenty_parameters_at_most(count: int) -> None:
    names = [one["ParameterName"] for one in CATALOGUE if one["IsModifiable"] and one["DataType"] == "boolean" and one["ApplyType"] == "dynamic"][:count]
    changes, problems = parameter_plan.plan_parameters(dict.fromkeys(names, True), CATALOGUE)
    requests = list(parameter_plan.batches(changes))
    assert not problems and sum(len(parameters) for _reset, parameters in requests) == len(names)
    assert all(rules.modify_parameters(parameters, catalogue.parameters()) is None for _reset, parameters in requests)


PARAMETERS = {"work_mem": "16MB", "rds.logical_replication": True, "shared_buffers": "{DBInstanceClassMemory/16384}"}
GROUP = {"name": "freight-17", "family": "postgres17", "parameters": PARAMETERS, "tags": {"service": "freight"}}


def test_a_group_is_made_once_and_is_as_wanted(aws: Service) -> None:
    predicted = aws.run("rds_parameter_group", check_mode=True, **GROUP)
    assert predicted.changed and predicted.result["parameter_group"] is None and aws.requests == []
    made = aws.run("rds_parameter_group", **GROUP)
    assert (made.before, made.after, made.result["actions"]) == (predicted.before, predicted.after, predicted.result["actions"])
    assert made.result["actions"][0] == "create parameter group freight-17 of family postgres17"
    assert "rds.logical_replication: 0 -> 1 (at the next reboot)" in made.result["actions"] and made.result["reboot_needed"]
    assert made.result["parameter_group"]["parameters"] == {
        "work_mem": "16384", "rds.logical_replication": "1", "shared_buffers": "{DBInstanceClassMemory/16384}"
    }  # fmt: skip
    again = aws.run("rds_parameter_group", **GROUP)
    assert not again.changed and not again.result["reboot_needed"] and again.before == again.after
    assert aws.requests == ["CreateDBParameterGroup", "ModifyDBParameterGroup"]


def test_a_parameter_goes_back_to_the_engines_own_value(aws: Service) -> None:
    aws.run("rds_parameter_group", **GROUP)
    changed = aws.run("rds_parameter_group", name="freight-17", parameters={"work_mem": None})
    assert changed.result["actions"] == ["work_mem: 16384 -> the engine's own value"] and "work_mem" not in changed.result["parameter_group"]["parameters"]
    assert not aws.run("rds_parameter_group", name="freight-17", parameters={"work_mem": None}).changed


def test_who_waits_for_a_reboot_is_named(aws: Service, options: dict[str, t.Any]) -> None:
    aws.run("rds_parameter_group", **GROUP)
    aws.run("rds_instance", **options, parameter_group="freight-17")
    changed = aws.run("rds_parameter_group", name="freight-17", parameters={"max_wal_senders": 20})
    assert changed.result["parameter_group"]["reboot_due"] == ["freight"] and changed.result["reboot_needed"]
    assert aws.run("rds_instance_info", identifier="freight").result["instance"]["reboot_due"] is True
    aws.client("rds").reboot_db_instance(DBInstanceIdentifier="freight")
    assert aws.run("rds_instance_info", identifier="freight").result["instance"]["reboot_due"] is False
    dynamic = aws.run("rds_parameter_group", name="freight-17", parameters={"work_mem": "32MB"})
    assert dynamic.changed and not dynamic.result["reboot_needed"] and dynamic.result["parameter_group"]["reboot_due"] == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "new"}, "family is not given, and parameter group new does not exist yet"),
        ({"name": "freight-17", "family": "postgres16"}, "parameter group freight-17 is of family postgres17, and that cannot be changed"),
        ({"name": "freight-17", "parameters": {"work_mem": 1, "nothing": 1}}, "2 problems of parameter group freight-17; nothing was changed."),
        ({"name": "freight-17", "state": "absent"}, "parameter group freight-17 is used by freight: give them another one first"),
        ({"name": "new", "family": "postgres4"}, "ParameterGroupFamily postgres4 is not a valid"),
    ],
)
def test_what_a_group_cannot_be_is_refused(aws: Service, options: dict[str, t.Any], sentence: str, request: pytest.FixtureRequest) -> None:
    aws.run("rds_parameter_group", **GROUP)
    aws.run("rds_instance", **request.getfixturevalue("options_of_an_instance"), parameter_group="freight-17")
    aws.requests.clear()
    for check_mode in (True, False):
        with pytest.raises(PgHaError) as error:
            aws.run("rds_parameter_group", check_mode, **options)
        assert sentence in error.value.message and aws.requests == []


def test_a_group_that_nobody_uses_goes(aws: Service) -> None:
    aws.run("rds_parameter_group", **GROUP)
    assert aws.run("rds_parameter_group", check_mode=True, name="freight-17", state="absent").changed
    assert aws.run("rds_parameter_group", name="freight-17", state="absent").result["actions"] == ["delete parameter group freight-17"]
    assert not aws.run("rds_parameter_group", name="freight-17", state="absent").changed


def test_info_shows_the_catalogue(aws: Service) -> None:
    assert aws.run("rds_parameter_group_info", name="freight-17").result == {"parameter_group": None}
    made = aws.run("rds_parameter_group", **GROUP)
    read = aws.run("rds_parameter_group_info", name="freight-17").result["parameter_group"]
    assert read["parameters"] == made.result["parameter_group"]["parameters"] and read["family"] == "postgres17"
    assert read["catalogue"]["wal_buffers"]["unit"] == "8kB" and read["catalogue"]["wal_buffers"]["static"]
    assert read["catalogue"]["work_mem"] == {
        "value": "16384", "set_here": True, "unit": "kB", "kind": "integer", "allowed": "64-2147483647", "static": False, "modifiable": True
    }  # fmt: skip
