# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``pg-ha`` as a process: real ansible-runner over small playbooks, real signals, and a look at every file that a run leaves."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import textwrap
import time
import typing as t

import pytest

PG_HA = str(pathlib.Path(sys.executable).with_name("pg-ha"))
SECRETS = {
    "inventory": "inventory-secret:with'quote",
    "group": "group secret with spaces in it",
    "extra": "extra-secret/ü",
    "environment": "environment-secret",
    "nested": "nested-secret",
}
MODULE = """
    from ansible.module_utils.basic import AnsibleModule
    import json, pathlib
    """
MODULES = {
    # Each look finds three more MiB of twelve.
    "replication_copy_info": """
        module = AnsibleModule(argument_spec={"file": {"type": "path"}})
        path = pathlib.Path(module.params["file"])
        looks = int(path.read_text()) + 1 if path.exists() else 1
        path.write_text(str(looks))
        done = min(looks * 3, 12)
        copy = {"state": "running" if done < 12 else "done", "ended": done == 12, "step": "rows", "bytes_done": done * 1048576, "bytes_total": 12 * 1048576,
                "tables_done": done // 4, "tables_total": 3, "rows_done": done, "seconds_left": 1}
        module.exit_json(changed=False, initial_copy=copy, link={"exists": True, "following": True, "lag_bytes": 2048, "lag_seconds": 0.5})
        """,
    "refusing": """
        module = AnsibleModule(argument_spec={"error": {"type": "str"}, "msg": {"type": "str"}})
        module.fail_json(msg=module.params["msg"], error=module.params["error"])
        """,
    "cutover": """
        import time
        module = AnsibleModule(argument_spec={"seconds": {"type": "float"}, "gates": {"type": "list", "default": []}, "crash": {"type": "bool"}})
        if module.params["crash"]:
            raise RuntimeError("it broke")
        time.sleep(module.params["seconds"] or 0)
        module.exit_json(changed=False, serves="source", failed_gates=module.params["gates"], actions=[], evidence=None)
        """,
    "migration_status_info": """
        module = AnsibleModule(argument_spec={"unknown": {"type": "list", "default": []}, "open_ms": {"type": "int"}})
        attempt = {"epoch": 1, "state": "open", "budget_ms": module.params["open_ms"]} if module.params["open_ms"] else None
        module.exit_json(changed=False, status={"lines": ["The source serves."], "unknown": module.params["unknown"], "attempt": attempt})
        """,
}
PLAY = "- name: {name}\n  hosts: pg_ha_mover\n  gather_facts: false\n  any_errors_fatal: true\n  max_fail_percentage: 0\n  tasks:\n"
PLAYBOOKS = {
    "assess": """
        - name: Evaluate | Show all findings
          ansible.builtin.debug:
            msg: ["No findings."]
        - name: Evaluate | Show secrets as a careless task would
          ansible.builtin.debug:
            msg: "{{ [careless_password, some_password, extra_password | default(''), lookup('env', 'PLANTED_TOKEN'), deep.list[0].api_key] | join(' ') }}"
        - name: Evaluate | Show them in a diff and in a module's arguments
          ansible.builtin.copy:
            content: "{{ careless_password }}\\n{{ extra_password | default('') }}\\n"
            dest: "{{ folder }}/copied"
            mode: "0600"
        """,
    "replicate": """
        - name: Copy | Watch the copy
          freight.pg_ha.replication_copy_info:
            file: "{{ folder }}/looks"
          register: copied
          until: copied.initial_copy.ended
          delay: 1
          retries: 10
        """,
    "verify": """
        - name: "{{ part | default('Rows') }} | Refuse"
          block:
            - name: "{{ part | default('Rows') }} | Ask"
              freight.pg_ha.refusing:
                error: "{{ error | default('ClientError') }}"
                msg: "The thing is wrong at {{ some_password }}."
          rescue:
            - name: Say why
              ansible.builtin.fail:
                msg: "{{ ansible_failed_result.msg }}"
        """,
    "cut_over": """
        - name: Section | Have the target serve the application
          freight.pg_ha.cutover:
            seconds: "{{ seconds | default(0) }}"
            gates: "{{ gates | default([]) }}"
            crash: "{{ crash | default(false) }}"
        - name: Section | Note that it went on
          ansible.builtin.copy:
            content: "on"
            dest: "{{ folder }}/went_on"
            mode: "0600"
        """,
    "provision": """
        - name: Preflight | Refuse
          ansible.builtin.assert:
            that: false
            fail_msg: Three members are needed.
        """,
    "status": """
        - name: Read | Read the state
          freight.pg_ha.migration_status_info:
            unknown: "{{ unknown | default([]) }}"
            open_ms: "{{ open_ms | default(omit) }}"
        """,
}
MIGRATE = "".join(f"- name: {name}\n  ansible.builtin.import_playbook: {name}.yml\n" for name in ("assess", "replicate", "cut_over"))


class World:
    """A collection of that name with small playbooks, an inventory whose mover is this machine, and pg-ha beside them."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        collection = folder / "collections" / "ansible_collections" / "freight" / "pg_ha"
        (collection / "plugins" / "modules").mkdir(parents=True)
        (collection / "playbooks").mkdir()
        for name, code in MODULES.items():
            (collection / "plugins" / "modules" / f"{name}.py").write_text(textwrap.dedent(MODULE) + textwrap.dedent(code))
        for name, tasks in PLAYBOOKS.items():
            text = PLAY.format(name=f"Play of {name}") + textwrap.indent(textwrap.dedent(tasks).strip("\n"), "    ") + "\n"
            (collection / "playbooks" / f"{name}.yml").write_text(text)
        (collection / "playbooks" / "migrate.yml").write_text(MIGRATE)
        mover = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "folder": str(folder),
            "careless_password": SECRETS["inventory"],
            "deep": {"list": [{"api_key": SECRETS["nested"]}]},
        }
        inventory = {"pg_ha_mover": {"hosts": {"mover": mover}, "vars": {"some_password": SECRETS["group"]}}}
        (folder / "ansible.cfg").write_text("[defaults]\n")
        (folder / "inventory.yml").write_text(json.dumps(inventory))
        (folder / "empty.yml").write_text(json.dumps({"pg_ha_mover": {"hosts": {}}, "others": {"hosts": {"one": {}}}}))
        self.environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
            "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(folder / "local"),
            "LC_ALL": "C.UTF-8",
            "PLANTED_TOKEN": SECRETS["environment"],
            "XDG_RUNTIME_DIR": str(folder / "scratch"),
        }
        (folder / "scratch").mkdir(mode=0o700)

    @property
    def records(self) -> list[pathlib.Path]:
        """Folders of runs, oldest first."""
        return sorted((self.folder / ".pg_ha" / "runs").iterdir())

    def start(self, *arguments: str, **options: t.Any) -> subprocess.Popen[str]:
        """Start pg-ha; the inventory is given."""
        command = [PG_HA, *arguments, "-i", str(self.folder / "inventory.yml")]
        given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **options}
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True, start_new_session=True, **given)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run pg-ha to its end: exit code, stdout, stderr."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def run_json(self, *arguments: str) -> tuple[int, list[dict[str, t.Any]], dict[str, t.Any]]:
        """The same with --json: exit code, events, result."""
        code, out, err = self.run(*arguments, "--json")
        events = [json.loads(line) for line in out.splitlines()]
        assert events and events[-1]["event"] == "result", err
        return code, events[:-1], events[-1]

    def left(self) -> list[str]:
        """What is left in the folder for what ansible-runner writes."""
        return [path.name for path in (self.folder / "scratch").iterdir()]


@pytest.fixture
def world(tmp_path: pathlib.Path) -> World:
    """A fresh world."""
    return World(tmp_path)


def await_line(process: subprocess.Popen[str], words: str) -> str:
    """Read stdout until a line holds the words; all that was read."""
    seen = ""
    assert process.stdout is not None
    until = time.monotonic() + 60
    while time.monotonic() < until:
        line = process.stdout.readline()
        seen += line
        if words in line:
            return seen
        assert line, f"pg-ha ended before it said {words!r}:\n{seen}"
    raise AssertionError(f"{words!r} did not come:\n{seen}")


def test_progress_is_told_as_events_with_a_result_at_the_end(world: World) -> None:
    code, events, result = world.run_json("migrate")
    assert (code, result["outcome"], result["exit_code"]) == (0, "done", 0), (events, result)
    assert [event["phase"] for event in events if event["event"] == "phase"] == ["assess", "replicate", "cut_over"]
    assert {"event": "step", "phase": "replicate", "play": "Play of replicate", "step": "Copy: watch the copy"} in [
        {key: event[key] for key in ("event", "phase", "play", "step")} for event in events if event["event"] == "step"
    ]
    copied = [event for event in events if event["event"] == "progress"]
    assert [event["copy"]["bytes_done"] // 1048576 for event in copied][:2] == [3, 6] and copied[0]["link"]["lag_bytes"] == 2048
    # Three looks are no basis for an estimate.
    assert copied[0]["copy"]["rows_seconds_left"] is None and copied[1]["copy"]["rows_seconds_left"] is None
    assert [phase["phase"] for phase in result["phases"]] == ["assess", "replicate", "cut_over"]
    assert all(phase["seconds"] is not None for phase in result["phases"])
    assert result["changed"] == 2


def test_no_secret_stays_in_a_record_or_on_the_screen(world: World) -> None:
    (world.folder / "extra.yml").write_text(json.dumps({"extra_password": SECRETS["extra"]}))
    for given in ("@extra.yml", f"extra_password='{SECRETS['extra']}'", json.dumps({"extra_password": SECRETS["extra"]})):
        (world.folder / "copied").unlink(missing_ok=True)
        code, out, err = world.run("assess", "--diff", "-vvv", "--plain", "-e", given)
        assert code == 0, out + err
        assert "********" in out and "Show secrets as a careless task would" in out
        shown = " ".join((out + err).split())
        assert not [name for name, secret in SECRETS.items() if secret in shown or json.dumps(secret)[1:-1] in shown]
    # The secrets came through to the playbook.
    assert (world.folder / "copied").read_text() == f"{SECRETS['inventory']}\n{SECRETS['extra']}\n"
    assert len(world.records) == 3 and world.left() == []
    for record in world.records:
        assert stat.S_IMODE(record.stat().st_mode) == 0o700
        assert {path.name for path in record.iterdir()} == {"run.json", "events.jsonl", "output.log"}
        for path in record.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            text = " ".join(path.read_text().split())
            found = [name for name, secret in SECRETS.items() if secret in text or json.dumps(secret)[1:-1] in text]
            assert not found, f"{path.name} holds the secret of {found}"
        assert json.loads((record / "run.json").read_text())["extra_variables"] == ["extra_password"]
        assert "Show secrets as a careless task would" in (record / "output.log").read_text()


def test_records_are_as_many_as_asked_for(world: World) -> None:
    (world.folder / "runs").mkdir()
    (world.folder / "runs" / "mine").mkdir()
    for _number in range(3):
        assert world.run("provision", "--runs-dir", "runs", "--keep-runs", "2")[0] == 3
    assert len(list((world.folder / "runs").iterdir())) == 3 and (world.folder / "runs" / "mine").is_dir()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["verify", "-e", "error=GateError"], 3, "The thing is wrong at ********."),
        (["verify", "-e", "error=PlanError"], 3, "The thing is wrong"),
        (["verify", "-e", "error=Undone"], 3, "The thing is wrong"),
        (["verify", "-e", "error=UsageError"], 2, "The thing is wrong"),
        (["verify", "-e", "error=UnknownState"], 4, "The thing is wrong"),
        (["verify", "-e", "error=ClientError"], 1, "The thing is wrong"),
        (["provision"], 3, "Three members are needed."),
        (["cut-over", "-e", '{"gates": [{"gate": "quiet", "message": "a long transaction", "remedy": "end it"}]}'], 3, "quiet: a long transaction; end it."),
        (["cut-over", "-e", "crash=true"], 4, "it broke"),
        (["cut-over"], 0, ""),
        (["cut-over", "-e", "crash"], 2, "name=value"),
        (["roll-back"], 2, "has no playbook roll_back.yml"),
        (["test-failover"], 2, "has no playbook test_failover.yml"),
        (["assess", "-i", "nowhere"], 2, "There is no inventory nowhere"),
        (["assess", "-e", "@nowhere"], 2, "There is no file"),
        (["assess", "--runs-dir", "/dev/null/runs"], 2, "--runs-dir"),
        (["assess", "--repeat", "tomorrow"], 2, "tomorrow is no phase"),
    ],
)
def test_exit_codes(world: World, arguments: list[str], code: int, sentence: str) -> None:
    ended, out, err = world.run(*arguments)
    assert ended == code, out + err
    assert sentence in out + err


def test_an_inventory_without_a_mover_is_no_success(world: World) -> None:
    command = [PG_HA, "cut-over", "-i", "empty.yml"]
    done = subprocess.run(command, cwd=world.folder, env=world.environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "no host in group pg_ha_mover" in done.stderr


def test_a_sentence_about_bad_input_is_a_result_in_json_too(world: World) -> None:
    code, events, result = world.run_json("roll-back")
    assert (code, events, result["outcome"]) == (2, [], "usage")


def test_status_tells_the_state_and_unknown_is_no_success(world: World) -> None:
    code, out, _err = world.run("status")
    assert (code, out.splitlines()[0]) == (0, "The source serves.")
    code, _events, result = world.run_json("status", "-e", '{"unknown": ["The target cannot be reached: no route."]}')
    assert (code, result["outcome"], result["unknown"]) == (4, "unknown", ["The target cannot be reached: no route."])
    assert not (world.folder / ".pg_ha").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_in_order_and_says_what_is_left(world: World, number: signal.Signals) -> None:
    process = world.start("cut-over", "-e", "seconds=50")
    seen = await_line(process, "have the target serve")
    time.sleep(1)
    began = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, seen + out + err
    assert time.monotonic() - began < 40
    assert "Stopping: the playbook is asked to end." in out
    assert "It was in phase cut over at 'Section: have the target serve the application'." in out
    assert "decides by itself within its budget" in out and "The source serves." in out and "The same command goes on" in out
    assert not (world.folder / "went_on").exists() and world.left() == []
    result = json.loads((world.records[-1] / "run.json").read_text())
    assert (result["outcome"], result["phase"], result["state"]["lines"]) == ("interrupted", "cut_over", ["The source serves."])


def test_a_second_signal_skips_the_reading_and_harms_nothing(world: World) -> None:
    process = world.start("cut-over", "-e", "seconds=50 open_ms=20000")
    await_line(process, "have the target serve")
    process.send_signal(signal.SIGINT)
    await_line(process, "Reading what is left")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert time.monotonic() - began < 20
    assert "`pg-ha status` reads it" in out or "The source serves." in out
    assert "Traceback" not in out + err
    assert json.loads((world.records[-1] / "run.json").read_text())["outcome"] == "interrupted" and world.left() == []


def test_a_signal_that_comes_when_all_is_done_does_not_unmake_it(world: World) -> None:
    process = world.start("assess")
    await_line(process, "No findings")
    out, _err = process.communicate(timeout=60)
    assert process.returncode == 0 and "Done: assess" in out


def test_a_reader_that_goes_away_does_not_break_off_the_work(world: World) -> None:
    process = world.start("cut-over", "-e", "seconds=3")
    assert process.stdout is not None
    await_line(process, "have the target serve")
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert (world.folder / "went_on").exists()
    assert json.loads((world.records[-1] / "run.json").read_text())["outcome"] == "done"


def on_a_terminal(world: World, *arguments: str, columns: int = 80, send: tuple[str, bytes] | None = None) -> tuple[int, str]:
    """Run pg-ha on a terminal of that width; ``send`` types something once a text was seen. Exit code and all output."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(world.folder)
        os.environ.clear()
        os.environ.update(world.environment, TERM="xterm", COLUMNS=str(columns), LINES="24")
        os.execv(PG_HA, [PG_HA, *arguments, "-i", "inventory.yml"])
    seen, until = b"", time.monotonic() + 90
    while time.monotonic() < until:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:
                break
            if not part:
                break
            seen += part
            if send and send[0].encode() in seen:
                os.write(terminal, send[1])
                send = None
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode()


def test_on_a_terminal_phases_are_drawn_within_80_columns(world: World) -> None:
    code, seen = on_a_terminal(world, "migrate")
    assert code == 0, seen
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in re.split(r"[\r\n]+", seen)]
    assert max(len(line) for line in lines) <= 80
    assert any(re.match(r"▸ 3/7 replicate +\d s +Copy: watch the copy", line) for line in lines), lines
    assert any("6.0 MiB of 12.0 MiB, 1 of 3 tables" in line for line in lines) and any("50%" in line for line in lines)
    assert any("4/7 test failover" in line and "not in this playbook" in line for line in lines)
    assert any(line.startswith("Done: migrate") for line in lines)


def test_ctrl_c_of_a_terminal_reaches_the_playbook_only_through_us(world: World) -> None:
    code, seen = on_a_terminal(world, "cut-over", "-e", "seconds=50", send=("have the target serve", b"\x03"))
    assert code == 130, seen
    assert "Stopping: the playbook is asked to end." in seen and "The source serves." in seen
    assert not (world.folder / "went_on").exists()
