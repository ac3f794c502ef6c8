# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line of ``pg-ha``."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from . import __version__, session, verbs
from .outcome import Exit, Stop

EPILOG = """
\b
Exit codes:
  0    done: what was asked for is true
  1    failed: the sentences say what and where; run again when it is mended
  2    bad input, or nothing of the kind in this version; nothing was done
  3    refused: a gate does not hold, or a cutover was undone; clients are where they were
  4    unknown: something could not be read; `pg-ha status` looks again
  130  interrupted: the sentences say what is left; the same command goes on

\b
Examples:
  pg-ha assess -i inventories/prod
  pg-ha migrate -i inventories/prod --check --diff
  pg-ha migrate -i inventories/prod --approve
  pg-ha status -i inventories/prod --json

Ctrl-C is safe at every moment: the playbook is stopped in order, and what is left is said in plain words.
"""
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def complete_phase(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Phases for the shell."""
    return [CompletionItem(phase) for phase in verbs.PHASES if phase.startswith(incomplete)]


def read_phases(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> list[str]:
    """Phases as the journal calls them."""
    phases = [phase.replace("-", "_") for phase in given]
    for phase in phases:
        if phase not in verbs.PHASES[:-1]:
            raise click.BadParameter(f"{phase} is no phase that can be repeated: use one of {', '.join(verbs.PHASES[:-1])}.")
    return phases


COMMON = [
    click.option(
        "-i", "--inventory", multiple=True, metavar="PATH", type=click.Path(), help="Inventory; may be repeated. Else PG_HA_INVENTORY or ansible.cfg."
    ),
    click.option("-e", "--extra-vars", multiple=True, metavar="NAME=VALUE", help="Variables as name=value, JSON, YAML or @file; may be repeated."),
    click.option("--json", "as_json", is_flag=True, help="One JSON object per line on stdout; the last one is the result."),
    click.option("-v", "--verbose", count=True, help="Show Ansible's own output; -vv and more make Ansible say more."),
]
RUNNING = [
    click.option("--check", is_flag=True, help="Predict; change nothing."),
    click.option("--diff", is_flag=True, help="Show what changes in files (with -v)."),
    click.option("--plain", is_flag=True, help="Plain lines with the time, also on a terminal."),
    click.option(
        "--repeat",
        multiple=True,
        metavar="PHASE",
        callback=read_phases,
        shell_complete=complete_phase,
        help="Run a phase again though done; may be repeated.",
    ),
    click.option(
        "--runs-dir",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="PG_HA_RUNS_DIR",
        default=Path(".pg_ha") / "runs",
        show_default=True,
        help="Where records of runs are kept; readable by you alone, secrets masked.",
    ),
    click.option("--keep-runs", type=click.IntRange(min=1), default=20, show_default=True, help="How many records are kept."),
]
APPROVE = click.option("--approve", is_flag=True, help="Consent to change who serves the application (pg_ha_cutover_approved=true).")


def options(*groups: t.Any) -> t.Callable[[t.Callable[..., t.Any]], t.Callable[..., t.Any]]:
    """Several options at once, in their order."""

    def decorate(function: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
        for option in reversed([option for group in groups for option in group]):
            function = option(function)
        return function

    return decorate


class InOrder(click.Group):
    """Lists commands in the order of the path, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names as they were added."""
        return list(self.commands)


@click.group(cls=InOrder, context_settings=CONTEXT, epilog=EPILOG)
@click.version_option(__version__, prog_name="pg-ha")
def cli() -> None:
    """Move a production application from one PostgreSQL server to a highly available one, and see that it worked.

    Each command is a playbook of the collection freight.pg_ha. `migrate` is all of them in order. Every phase reads its journal
    and the real state first: the same command again goes on where the last one was.
    """


def finish(work: t.Callable[[], Exit], as_json: bool) -> t.NoReturn:
    """Run a command and exit with its code; what was not begun is told in one sentence."""
    verbs.prepare_environment(os.environ)
    try:
        code = work()
    except Stop as stop:
        code = stop.code
        if as_json:
            print(json.dumps({"event": "result", "outcome": code.name.lower(), "exit_code": int(code), "sentences": [stop.message]}), flush=True)
        else:
            print(f"pg-ha: {stop.message}", file=sys.stderr, flush=True)
    sys.exit(int(code))


def add_verb(verb: verbs.Verb) -> None:
    """The command of a verb that runs a playbook."""
    approves = verb.name in {"cut-over", "migrate", "roll-back"}

    @options(COMMON, [APPROVE] if approves else [], RUNNING)
    def command(
        inventory: tuple[str, ...],
        extra_vars: tuple[str, ...],
        as_json: bool,
        verbose: int,
        check: bool,
        diff: bool,
        plain: bool,
        repeat: list[str],
        runs_dir: Path,
        keep_runs: int,
        approve: bool = False,
    ) -> None:
        settings: dict[str, t.Any] = {}
        if approve:
            settings["pg_ha_cutover_approved"] = True
        if repeat:
            settings["pg_ha_repeat"] = repeat
        chosen = session.Options(inventory, extra_vars, settings, check, diff, as_json, plain, verbose, runs_dir, keep_runs)
        finish(lambda: session.run_verb(verb, chosen), as_json)

    teaches = " ".join(verb.teaches.split())
    example = f"\b\nExample:\n  pg-ha {verb.name} -i inventories/prod{' --approve' if approves else ''}"
    cli.command(verb.name, help=f"{verb.summary}\n\n{teaches}", short_help=verb.summary, epilog=example)(command)


for _verb in verbs.VERBS:
    add_verb(_verb)


@cli.command("status", short_help=verbs.STATUS.summary, epilog="\b\nExample:\n  pg-ha status -i inventories/prod --json")
@options(COMMON)
def status(inventory: tuple[str, ...], extra_vars: tuple[str, ...], as_json: bool, verbose: int) -> None:
    """Say where a migration stands: who serves, each phase, copy, link, poolers.

    Reads the journal and the real state, and changes nothing (the mover's connection files below /run are written anew). What cannot
    be read is shown as unknown with the reason, and the exit code is then 4.
    """
    finish(lambda: session.run_status(session.Options(inventory, extra_vars, as_json=as_json, verbose=verbose)), as_json)


@cli.group("lab", short_help="Make or remove the lab (from a checkout only).")
def lab() -> None:
    """The lab: the whole environment in Docker, from a checkout of the project."""


def add_lab(name: str, summary: str) -> None:
    """A command of the lab, which takes the options of its program."""

    @lab.command(name, help=summary, context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> None:
        finish(lambda: run_lab(name, arguments), as_json=False)


add_lab("up", "Build and start the lab's machines and its source server. Run again, it changes nothing.")
add_lab("down", "Remove the lab: no container, network or volume is left (--images removes images too).")


def run_lab(name: str, arguments: t.Sequence[str]) -> Exit:
    """Run lab/up or lab/down.

    :raises Stop: this is no checkout
    """
    root = verbs.checkout()
    if root is None:
        raise Stop(Exit.USAGE, "The lab belongs to a checkout of the project and is not part of what is installed: clone it, then run `pg-ha lab` there.")
    try:
        code = subprocess.run([sys.executable, str(root / "lab" / name), *arguments], cwd=root, check=False).returncode
    except KeyboardInterrupt:
        raise Stop(Exit.INTERRUPTED, f"Interrupted: the lab is left half way. `pg-ha lab {name}` goes on, `pg-ha lab down` removes it.") from None
    return Exit.DONE if code == 0 else Exit.FAILED


@cli.command("completion", short_help="Print shell completion.", epilog='\b\nExample:\n  eval "$(pg-ha completion bash)"')
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that lets SHELL complete commands and options of pg-ha."""
    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"There is no completion for {shell}.")
    click.echo(made(cli, {}, "pg-ha", "_PG_HA_COMPLETE").source())


def main() -> None:
    """Entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a character is no reason to show nothing.
            stream.reconfigure(errors="backslashreplace")
    cli(prog_name="pg-ha", complete_var="_PG_HA_COMPLETE")
