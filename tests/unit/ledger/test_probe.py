# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe against a real server, with things going wrong behind its back."""

from __future__ import annotations

import pathlib
import time
import typing as t

import psycopg2
import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, PlanError, UsageError
from ansible_collections.freight.pg_ha.plugins.modules import ledger_probe, ledger_probe_info

from .conftest import BackgroundProbe, Database


def options(database: Database, tmp_path: pathlib.Path, **more: t.Any) -> dict[str, t.Any]:
    return {
        "service_file": database.service_file,
        "connect_timeout_seconds": 5,
        "service": "client_lb1",
        "record_dir": str(tmp_path),
        "run": "r1",
        "clients": 4,
        "rate_per_client": 50.0,
        "max_seconds": 60,
        "table": "probe",
        "layers": None,
        "state": "running",
        **more,
    }


@pytest.fixture
def begin(database: Database, tmp_path: pathlib.Path) -> t.Iterator[t.Callable[..., BackgroundProbe]]:
    """Begin a probe in the background; it is stopped whatever happens."""
    begun: list[BackgroundProbe] = []

    def start(**more: t.Any) -> BackgroundProbe:
        begun.append(BackgroundProbe(ledger_probe.Probe(options(database, tmp_path, **more)), ledger_probe.run))
        return begun[-1]

    yield start
    for probe in begun:
        probe.stop()


def verdict_of(database: Database, tmp_path: pathlib.Path, **more: t.Any) -> dict[str, t.Any]:
    params = {**options(database, tmp_path), "verdict": True, "around": None, "window_seconds": 5.0, "resolution_ms": 1000, **more}
    return t.cast(dict[str, t.Any], ledger_probe_info.run(params).result["verdict"])


def test_a_quiet_run_is_ok(database: Database, tmp_path: pathlib.Path, begin: t.Callable[..., BackgroundProbe]) -> None:
    probe = begin()
    live = ledger_probe_info.run({**options(database, tmp_path), "verdict": False}).result["probe"]
    assert live["running"] and live["acknowledged"] > 0
    running = verdict_of(database, tmp_path)
    assert running["ok"] and running["running"], running["problems"]
    time.sleep(1)
    probe.stop()
    verdict = verdict_of(database, tmp_path)
    assert verdict["ok"], verdict["problems"]
    assert verdict["acknowledged"] == verdict["rows"] == database.execute("SELECT count(*) FROM ha_migration.probe")[0][0]
    assert 100 < verdict["transactions_per_second"] < 250
    assert probe.outcome.changed


def test_a_deleted_row_is_one_lost(database: Database, tmp_path: pathlib.Path, begin: t.Callable[..., BackgroundProbe]) -> None:
    begin().stop()
    database.execute("DELETE FROM ha_migration.probe WHERE client = 2 AND seq = 3")
    verdict = verdict_of(database, tmp_path)
    assert (verdict["lost"], verdict["lost_keys"], verdict["duplicated"], verdict["ok"]) == (1, [[2, 3]], 0, False)


def test_a_row_that_is_there_twice_is_one_duplicated(database: Database, tmp_path: pathlib.Path, begin: t.Callable[..., BackgroundProbe]) -> None:
    begin().stop()
    database.execute("ALTER TABLE ha_migration.probe DROP CONSTRAINT probe_pkey")
    database.execute("INSERT INTO ha_migration.probe SELECT * FROM ha_migration.probe WHERE client = 1 AND seq = 2")
    verdict = verdict_of(database, tmp_path)
    assert (verdict["lost"], verdict["duplicated"], verdict["duplicated_keys"], verdict["ok"]) == (0, 1, [[1, 2]], False)


def test_a_row_that_nobody_wrote_is_unexpected(database: Database, tmp_path: pathlib.Path, begin: t.Callable[..., BackgroundProbe]) -> None:
    begin().stop()
    database.execute("INSERT INTO ha_migration.probe VALUES ('r1', 0, 1000000)")
    verdict = verdict_of(database, tmp_path)
    assert (verdict["unexpected"], verdict["unexpected_keys"], verdict["ok"]) == (1, [[0, 1000000]], False)


def test_a_lock_of_300_ms_is_a_write_pause_of_300_ms(database: Database, tmp_path: pathlib.Path, begin: t.Callable[..., BackgroundProbe]) -> None:
    probe = begin()
    connection = psycopg2.connect(database.dsn)
    with connection.cursor() as cursor:
        cursor.execute("LOCK TABLE ha_migration.probe IN EXCLUSIVE MODE")
        moment = time.time()
        time.sleep(0.3)
        connection.rollback()
    connection.close()
    time.sleep(0.5)
    probe.stop()
    verdict = verdict_of(database, tmp_path, around=str(moment), window_seconds=0.2)
    # At 200 writes per second the moment before and after is known to some ms; the rest is room for a busy machine.
    assert 295 <= verdict["write_pause_ms"] <= 450
    assert 295 <= verdict["longest_client_stall_ms"] <= 500
    assert verdict["lost"] == 0 and verdict["errors"] == 0


def test_killed_backends_leave_nothing_lost_or_unknown(database: Database, tmp_path: pathlib.Path, begin: t.Callable[..., BackgroundProbe]) -> None:
    probe = begin()
    for _round in range(8):
        database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ledger_probe' AND datname = current_database()")
        time.sleep(0.1)
    probe.stop()
    verdict = verdict_of(database, tmp_path)
    assert verdict["errors"] > 0 and not verdict["ok"]
    assert verdict["unknown"]["total"] == verdict["unknown"]["committed"] + verdict["unknown"]["not_committed"]
    assert (verdict["lost"], verdict["duplicated"], verdict["unexpected"], verdict["surfaced"]) == (0, 0, 0, 0)
    assert verdict["first_errors"][0]["message"]


def test_a_restart_of_the_server_loses_nothing(database: Database, tmp_path: pathlib.Path, begin: t.Callable[..., BackgroundProbe]) -> None:
    probe = begin()
    database.restart()
    time.sleep(1)
    probe.stop()
    verdict = verdict_of(database, tmp_path)
    assert (verdict["lost"], verdict["duplicated"], verdict["surfaced"], verdict["complete"]) == (0, 0, 0, True)
    assert verdict["errors"] > 0 and verdict["write_pause_ms"] > 20
    assert sum(row["errors"] for row in verdict["timeline"]) == verdict["errors"]


def test_the_record_alone_shows_what_a_changed_table_hides(database: Database, tmp_path: pathlib.Path, begin: t.Callable[..., BackgroundProbe]) -> None:
    probe = begin()
    database.execute("REVOKE ALL ON ha_migration.probe FROM PUBLIC; ALTER TABLE ha_migration.probe ADD CHECK (seq < 0) NOT VALID")
    time.sleep(0.3)
    probe.stop()
    verdict = verdict_of(database, tmp_path)
    assert verdict["surfaced"] > 0 and verdict["errors_by_class"].keys() == {"23514"} and verdict["lost"] == 0


def test_states_follow_each_other(database: Database, tmp_path: pathlib.Path, begin: t.Callable[..., BackgroundProbe]) -> None:
    def bring(state: str, check_mode: bool = False) -> t.Any:
        return ledger_probe.run(ledger_probe.Probe(options(database, tmp_path, state=state)), check_mode)

    predicted = bring("running", check_mode=True)
    assert predicted.changed and predicted.after == {"state": "running"} and not list(tmp_path.glob("probe-*"))
    assert not bring("stopped").changed
    assert not bring("absent").changed
    begin()
    assert not bring("running").changed
    assert bring("stopped", check_mode=True).changed and bring("running").result["probe"]["running"]
    assert bring("stopped").changed
    assert not bring("stopped").changed
    with pytest.raises(UsageError, match="another name"):
        bring("running")
    assert bring("absent", check_mode=True).changed
    assert bring("absent").changed
    assert database.execute("SELECT count(*) FROM ha_migration.probe") == [(0,)] and not list(tmp_path.glob("probe-*"))
    assert not bring("absent").changed


def test_it_ends_by_itself(database: Database, tmp_path: pathlib.Path) -> None:
    outcome = ledger_probe.run(ledger_probe.Probe(options(database, tmp_path, max_seconds=1)), False)
    assert outcome.changed and outcome.result["probe"]["acknowledged"] > 50 and not outcome.result["probe"]["running"]
    assert verdict_of(database, tmp_path)["ok"]


@pytest.mark.parametrize(("option", "value"), [("run", "it's"), ("run", ""), ("clients", 0), ("rate_per_client", -1.0), ("max_seconds", 0)])
def test_options_out_of_range_are_refused(database: Database, tmp_path: pathlib.Path, option: str, value: t.Any) -> None:
    with pytest.raises(UsageError):
        ledger_probe.Probe(options(database, tmp_path, **{option: value}))


def test_a_missing_table_is_said_before_anything_is_written(database: Database, tmp_path: pathlib.Path) -> None:
    database.execute("DROP TABLE ha_migration.probe")
    with pytest.raises(ClientError, match=r"ha_migration\.probe"):
        ledger_probe.run(ledger_probe.Probe(options(database, tmp_path)), False)
    assert not list(tmp_path.glob("probe-*"))


def test_what_cannot_be_judged_is_an_error(database: Database, tmp_path: pathlib.Path, begin: t.Callable[..., BackgroundProbe]) -> None:
    with pytest.raises(ClientError, match="cannot be judged"):
        verdict_of(database, tmp_path)
    begin().stop()
    with pytest.raises(PlanError, match="not the moment asked for"):
        verdict_of(database, tmp_path, around="2001-01-01T00:00:00+00:00")
    database.execute("DROP TABLE ha_migration.probe")
    with pytest.raises(ClientError, match="Cannot read the rows"):
        verdict_of(database, tmp_path)


def test_insert_select_and_delete_are_enough(database: Database, tmp_path: pathlib.Path) -> None:
    database.execute("DROP ROLE IF EXISTS ha_migration_probe")
    database.execute("CREATE ROLE ha_migration_probe LOGIN; GRANT USAGE ON SCHEMA ha_migration TO ha_migration_probe")
    database.execute("GRANT INSERT, SELECT, DELETE ON ha_migration.probe TO ha_migration_probe")
    text = pathlib.Path(database.service_file).read_text(encoding="utf-8").replace("user=postgres", "user=ha_migration_probe")
    pathlib.Path(database.service_file).write_text(text, encoding="utf-8")
    try:
        ledger_probe.run(ledger_probe.Probe(options(database, tmp_path, max_seconds=1)), False)
        assert verdict_of(database, tmp_path)["ok"]
        assert ledger_probe.run(ledger_probe.Probe(options(database, tmp_path, state="absent")), False).changed
    finally:
        database.execute("DROP OWNED BY ha_migration_probe; DROP ROLE ha_migration_probe")


def test_an_outage_is_split_by_layer(database: Database, tmp_path: pathlib.Path, begin: t.Callable[..., BackgroundProbe]) -> None:
    """All layers lead to one server here, so that none is back long before another one."""
    pathlib.Path(database.service_file).write_text(
        pathlib.Path(database.service_file).read_text().replace("[client_lb1]", "[target]") + database_service(database)
    )
    endpoint = {"host": "127.0.0.1", "port": database.server.port}
    layers = {"service": "target", "members": ["127.0.0.1"], "member_port": database.server.port, "write_endpoint": endpoint, "read_endpoint": endpoint}
    probe = begin(layers=layers)
    time.sleep(1)
    database.restart()
    time.sleep(2)
    probe.stop()
    verdict = verdict_of(database, tmp_path)
    assert verdict["lost"] == verdict["unexpected"] == 0 and verdict["errors"] > 0
    seen = verdict["layers"]
    assert seen["two_writers"] == [] and seen["writers"] == ["127.0.0.1"] and len(seen["timelines"]) == 1
    assert seen["split_ms"]["client"] == verdict["write_pause_ms"] and seen["replicas_gap_ms"] > 0
    assert all(milliseconds is None or milliseconds <= verdict["write_pause_ms"] for milliseconds in seen["split_ms"].values())
    assert database.execute("SELECT count(DISTINCT client) FROM ha_migration.probe WHERE run = 'r1-layers'") == [(3,)]
    ledger_probe.run(ledger_probe.Probe(options(database, tmp_path, state="absent")), False)
    assert database.execute("SELECT count(*) FROM ha_migration.probe") == [(0,)]


def test_without_looks_there_is_no_split(database: Database, tmp_path: pathlib.Path, begin: t.Callable[..., BackgroundProbe]) -> None:
    begin().stop()
    assert verdict_of(database, tmp_path)["layers"] is None


def database_service(database: Database) -> str:
    """The pooler as its clients see it, on the same server."""
    return f"\n[client_lb1]\nhost=127.0.0.1\nport={database.server.port}\nuser=postgres\ndbname={database.name}\n"
