# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands with the one function faked that calls ansible-runner."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import stat
import typing as t

import pytest
from click.testing import CliRunner
from pg_ha_runner import cli, interrupts, inventory, session, verbs
from pg_ha_runner.outcome import Ending, Exit, Stop

from .conftest import RECAP, FakePlay, failure, play, result, task

STANDS = {"lines": ["The source serves."], "unknown": [], "attempt": None}


def verb(name: str) -> verbs.Verb:
    """A verb by its name."""
    return next(verb for verb in verbs.VERBS if verb.name == name)


def options(place: pathlib.Path, **given: t.Any) -> session.Options:
    """Options with the inventory of the place."""
    return session.Options(**{"inventories": (str(place / "inventory.yml"),), **given})


def last(text: str) -> dict[str, t.Any]:
    """The last line as JSON."""
    return json.loads(text.splitlines()[-1])


def record(place: pathlib.Path) -> dict[str, t.Any]:
    """The newest record."""
    return json.loads((max((place / ".pg_ha" / "runs").iterdir()) / "run.json").read_text())


def test_a_verb_runs_its_playbook_with_what_was_asked_for_and_no_value_in_the_command_line(place: pathlib.Path, fake_play: FakePlay) -> None:
    contents = []
    fake_play.events["cut_over"] = [
        lambda: contents.extend(pathlib.Path(argument[1:]).read_text() for argument in fake_play.jobs[0].extra),
        play("Play cut_over"),
        task("a", "debug"),
        RECAP,
    ]
    given = options(place, extra=("db_password=hush-hush a=b",), settings={"pg_ha_cutover_approved": True}, check=True, diff=True, verbose=3)
    assert session.run_verb(verb("cut-over"), given, fake_play) is Exit.DONE
    [job] = fake_play.jobs
    assert (job.playbook, job.check, job.diff, job.verbosity) == ("freight.pg_ha.cut_over", True, True, 2)
    assert "hush" not in job.options and job.options.endswith("--check --diff")
    assert [json.loads(content) for content in contents] == [{"db_password": "hush-hush", "a": "b"}, {"pg_ha_cutover_approved": True}]
    assert not any(pathlib.Path(argument[1:]).exists() for argument in job.extra)
    assert record(place)["extra_variables"] == ["a", "db_password", "pg_ha_cutover_approved"]
    assert record(place)["outcome"] == "done"


def test_secrets_are_masked_in_what_is_shown_and_kept(place: pathlib.Path, fake_play: FakePlay, capsys: pytest.CaptureFixture[str]) -> None:
    event = {**result("debug", msg="planted-secret and extra-secret"), "stdout": "out planted-secret"}
    fake_play.events["assess"] = [play("Play assess"), task("a", "debug"), event, failure("x", "bad planted-secret")]
    fake_play.endings["assess"] = Ending(2)
    assert session.run_verb(verb("assess"), options(place, extra=("a_token=extra-secret",), as_json=True, verbose=1), fake_play) is Exit.FAILED
    shown = capsys.readouterr()
    kept = "".join(path.read_text() for path in (place / ".pg_ha").rglob("*") if path.is_file())
    assert "out ********" in kept and "******** and ********" in shown.out and "out ********" in shown.err
    for text in (shown.out, shown.err, kept):
        assert "planted" not in text and "extra-secret" not in text
    for path in (place / ".pg_ha" / "runs").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_a_signal_stops_reads_the_state_and_says_how_to_go_on(place: pathlib.Path, fake_play: FakePlay, capsys: pytest.CaptureFixture[str]) -> None:
    fake_play.events["cut_over"] = [play("Play cut_over"), task("Section | Go", "cutover"), lambda: os.kill(os.getpid(), signal.SIGTERM), RECAP]
    fake_play.events["status"] = [play("Play status"), task("Read", "migration_status_info"), result("migration_status_info", status=STANDS), RECAP]
    assert session.run_verb(verb("cut-over"), options(place), fake_play) is Exit.INTERRUPTED
    out = capsys.readouterr().out
    assert "It was in phase cut over at 'Section: go'." in out and "The source serves." in out and "The same command goes on" in out
    assert [job.playbook for job in fake_play.jobs] == ["freight.pg_ha.cut_over", "freight.pg_ha.status"]
    assert (record(place)["outcome"], record(place)["state"]) == ("interrupted", STANDS)


def test_a_signal_after_the_recap_does_not_unmake_what_is_done(place: pathlib.Path, fake_play: FakePlay) -> None:
    fake_play.events["assess"] = [play("Play assess"), task("a", "debug"), RECAP, lambda: os.kill(os.getpid(), signal.SIGINT)]
    fake_play.endings["assess"] = Ending(0)

    def run_play(*arguments: t.Any) -> Ending:
        fake_play(*arguments)
        return Ending(0)

    assert session.run_verb(verb("assess"), options(place), run_play) is Exit.DONE


def test_a_signal_before_the_playbook_begins_nothing(place: pathlib.Path, fake_play: FakePlay, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_inventories: t.Any) -> dict[str, t.Any]:
        os.kill(os.getpid(), signal.SIGINT)
        return {}

    monkeypatch.setattr(inventory, "read", read)
    with pytest.raises(Stop, match="before anything was begun") as stopped:
        session.run_verb(verb("assess"), options(place), fake_play)
    assert stopped.value.code is Exit.INTERRUPTED and not fake_play.jobs and not (place / ".pg_ha").exists()


def test_a_cutover_that_is_open_after_an_interrupt_is_given_its_budget(place: pathlib.Path, fake_play: FakePlay, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = {**STANDS, "attempt": {"state": "open", "budget_ms": 50}}
    fake_play.events["cut_over"] = [play("Play cut_over"), task("Section | Go", "cutover"), lambda: os.kill(os.getpid(), signal.SIGINT), RECAP]
    fake_play.events["status"] = [task("Read", "migration_status_info"), result("migration_status_info", status=opened), RECAP]
    monkeypatch.setattr(session, "PATIENCE_SECONDS", 0.2)
    assert session.run_verb(verb("cut-over"), options(place), fake_play) is Exit.INTERRUPTED
    assert [job.playbook for job in fake_play.jobs].count("freight.pg_ha.status") == 2


def test_an_unknown_end_reads_the_state_too(place: pathlib.Path, fake_play: FakePlay, capsys: pytest.CaptureFixture[str]) -> None:
    fake_play.events["cut_over"] = [play("Play cut_over"), failure("cutover", "Who serves?", error="UnknownState")]
    fake_play.endings["cut_over"] = Ending(2)
    fake_play.events["status"] = [task("Read", "x"), failure("assert", "The mover has no psycopg2.")]
    fake_play.endings["status"] = Ending(2)
    assert session.run_verb(verb("cut-over"), options(place, as_json=True), fake_play) is Exit.UNKNOWN
    shown = last(capsys.readouterr().out)
    assert shown["sentences"] == ["Who serves?", "Unknown: The mover has no psycopg2."] and shown["state_unknown"] == ["The mover has no psycopg2."]


def test_status_is_unknown_when_the_playbook_gives_nothing(place: pathlib.Path, fake_play: FakePlay, capsys: pytest.CaptureFixture[str]) -> None:
    fake_play.events["status"] = [RECAP]
    assert session.run_status(options(place, as_json=True), fake_play) is Exit.UNKNOWN
    assert last(capsys.readouterr().out)["outcome"] == "unknown"


def test_a_defect_of_the_display_does_not_break_off_the_work(
    place: pathlib.Path, fake_play: FakePlay, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pg_ha_runner.display.Plain.notice", lambda *unused: 1 / 0)
    monkeypatch.setattr("pg_ha_runner.display.os.dup2", lambda *unused: None)
    fake_play.events["assess"] = [play("Play assess"), task("a", "debug"), RECAP]
    assert session.run_verb(verb("assess"), options(place), fake_play) is Exit.DONE
    assert "nothing more is shown, the work goes on (ZeroDivisionError" in capsys.readouterr().err


def test_an_event_that_is_not_understood_does_not_pass_for_success(place: pathlib.Path, fake_play: FakePlay) -> None:
    fake_play.events["assess"] = [
        play("Play assess"),
        task("a", "debug"),
        {"event": "runner_on_ok", "event_data": {"res": "no mapping", "task_action": "debug"}},
        RECAP,
    ]
    assert session.run_verb(verb("assess"), options(place), fake_play) is Exit.UNKNOWN


def test_a_verb_without_its_playbook_is_refused_and_works_the_day_it_comes(place: pathlib.Path, fake_play: FakePlay) -> None:
    with pytest.raises(Stop, match="no playbook roll_back.yml") as stopped:
        session.run_verb(verb("roll-back"), options(place), fake_play)
    assert stopped.value.code is Exit.USAGE and not fake_play.jobs and not (place / ".pg_ha").exists()
    (place / "collection" / "playbooks" / "roll_back.yml").write_text('[{"name": "Back", "hosts": "pg_ha_mover"}]')
    fake_play.events["roll_back"] = [play("Back"), task("a", "debug"), RECAP]
    assert session.run_verb(verb("roll-back"), options(place), fake_play) is Exit.DONE


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("a=b", {"a": "b"}),
        ("a='b c' d=e", {"a": "b c", "d": "e"}),
        ('{"a": [1, true]}', {"a": [1, True]}),
        ("{a: !vault x}", {}),
    ],
)
def test_extra_variables_are_written_to_private_files(tmp_path: pathlib.Path, text: str, variables: dict[str, t.Any]) -> None:
    argument, found = inventory.extra_argument(text, tmp_path, 0)
    assert found == variables
    assert stat.S_IMODE(pathlib.Path(argument[1:]).stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["a", "[1]", "{broken", "@/nowhere", "a b=c"])
def test_extra_variables_that_are_none_are_refused(tmp_path: pathlib.Path, text: str) -> None:
    with pytest.raises(Stop) as stopped:
        inventory.extra_argument(text, tmp_path, 0)
    assert stopped.value.code is Exit.USAGE


def test_the_stopper_asks_again_and_kills_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(interrupts.os, "killpg", lambda pid, number: sent.append((pid, number)))
    signals, said, at = interrupts.Interrupts(), [], [0.0]
    stopper = interrupts.Stopper(signals, said.append, lambda: at[0])
    assert stopper.kill_now() is False and not stopper.wanted
    signals.count += 1
    assert stopper.kill_now() is True  # nothing has begun, so nothing can be ended in order
    stopper.pid = 7
    assert stopper.kill_now() is False and sent == [(7, signal.SIGINT)]
    signals.count += 1
    assert stopper.kill_now() is False and len(sent) == 1
    at[0] = interrupts.AGAIN_SECONDS
    assert stopper.kill_now() is False and len(sent) == 2
    at[0] = interrupts.GRACE_SECONDS + 1
    assert stopper.kill_now() is True
    assert said == ["Stopping: the playbook is asked to end.", "Stopping already: waiting for the playbook to end."]
    # What was stopped before is no reason to stop the next playbook.
    assert interrupts.Stopper(signals, said.append).wanted is False


def test_what_a_killed_run_has_left_is_removed_by_the_next_one_and_a_living_one_is_not(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    killed = tmp_path / "pg-ha-killed"
    killed.mkdir()
    (killed / "lock").touch()
    (killed / "command").write_text("secret")
    (tmp_path / "other").mkdir()
    with session.scratch() as mine, session.scratch() as second:
        assert not killed.exists() and mine.is_dir() and second.is_dir() and stat.S_IMODE(mine.stat().st_mode) == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_signals_are_given_back() -> None:
    before = [signal.getsignal(number) for number in interrupts.SIGNALS]
    with interrupts.Interrupts() as signals:
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.count == 1
    assert [signal.getsignal(number) for number in interrupts.SIGNALS] == before


def test_help_teaches_every_verb() -> None:
    asked = CliRunner().invoke(cli.cli, ["--help"])
    assert asked.exit_code == 0 and "130  interrupted" in asked.output
    names = [*(verb.name for verb in verbs.VERBS), "status", "lab", "completion"]
    listed = asked.output.split("Commands:")[1]
    assert [listed.index(f"\n  {name} ") for name in names] == sorted(listed.index(f"\n  {name} ") for name in names)
    for name in (verb.name for verb in verbs.VERBS):
        page = CliRunner().invoke(cli.cli, [name, "--help"])
        assert page.exit_code == 0 and f"pg-ha {name} -i inventories/prod" in page.output
        assert ("--approve" in page.output) == (name in ("cut-over", "migrate", "roll-back"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(shell: str) -> None:
    asked = CliRunner().invoke(cli.cli, ["completion", shell])
    assert asked.exit_code == 0 and "_PG_HA_COMPLETE" in asked.output


def test_completion_knows_verbs_and_phases() -> None:
    words = {"_PG_HA_COMPLETE": "bash_complete", "COMP_WORDS": "pg-ha migrate --repeat v", "COMP_CWORD": "3"}
    asked = CliRunner().invoke(cli.cli, [], prog_name="pg-ha", env=words, complete_var="_PG_HA_COMPLETE")
    assert asked.output.strip() == "plain,verify"


def test_the_lab_is_refused_outside_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "checkout", lambda: None)
    asked = CliRunner().invoke(cli.cli, ["lab", "up"])
    assert asked.exit_code == 2 and "belongs to a checkout" in asked.output


def test_the_lab_runs_its_program_with_its_options(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "down").write_text("import sys; sys.exit(0 if sys.argv[1:] == ['--images', '-e', 'a=b'] else 9)")
    monkeypatch.setattr(verbs, "checkout", lambda: tmp_path)
    assert CliRunner().invoke(cli.cli, ["lab", "down", "--images", "-e", "a=b"]).exit_code == 0
    assert CliRunner().invoke(cli.cli, ["lab", "down"]).exit_code == 1
