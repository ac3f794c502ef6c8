# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The verbs: which playbook each runs, and where playbooks are."""

from __future__ import annotations

import os
import sys
import typing as t
from dataclasses import dataclass
from pathlib import Path

import yaml

from .outcome import Exit, Stop

COLLECTION = "freight.pg_ha"
# The seven phases of a migration, as journal and evidence call them, in their order.
PHASES = ("assess", "provision", "replicate", "test_failover", "verify", "cut_over", "report")


@dataclass(frozen=True)
class Verb:
    """What a user can ask for.

    :param name: as typed
    :param summary: one line for the list of commands
    :param teaches: the page of ``--help``
    """

    name: str
    summary: str
    teaches: str

    @property
    def playbook(self) -> str:
        """Its playbook without suffix."""
        return self.name.replace("-", "_")


VERBS = (
    Verb(
        "assess",
        "Look at the source and at what the target can take; writes to neither.",
        """Looks at the source without writing to it. Each finding has a severity and the statement that fixes it; blockers end
        with exit code 3. Evidence: assessment.json.""",
    ),
    Verb(
        "provision",
        "Build the target: etcd, Patroni, HAProxy, PgBouncer.",
        """Brings every host of the target to its declared state. What holds already is left alone; the source is not touched.
        Evidence: topology.json.""",
    ),
    Verb(
        "replicate",
        "Copy the database to the target and let it follow; applications stay.",
        """Makes roles, schema and rows on the target while the application writes, then follows. On the source: schema
        ha_migration, a publication and a slot. The copy goes on on the mover when this command ends; the same command
        then waits for it. Evidence: replication.json.""",
    ),
    Verb(
        "test-failover",
        "Break the target on purpose, and measure what clients see.",
        """Breaks the target on purpose: by itself while it serves nobody, and once it serves only with -e pg_ha_failover_approved=true. Without it says what it
        would do, and to whom. Evidence: failover.json.""",
    ),
    Verb(
        "verify",
        "Compare every row of both sides while the application writes.",
        """Compares schemas, rows, sequences and large objects at one moment; writers wait for some milliseconds. Changes
        neither side. Evidence: parity.json.""",
    ),
    Verb(
        "cut-over",
        "Say whether every gate holds; with --approve move the clients.",
        """Without consent it evaluates every gate and changes nobody's service: exit code 0 when all hold, 3 when some do not.
        With --approve (or pg_ha_cutover_approved in the inventory) the target serves afterwards. Clients are held for at
        most the declared budget. Evidence: cutover.json.""",
    ),
    Verb(
        "migrate",
        "All phases in order; with --approve including the cutover.",
        """The main job. Each phase looks at the journal and at the real state first: run again it goes on where it was, and on
        a finished migration it changes nothing. Without consent it ends before the cutover and says whether every gate holds.""",
    ),
    Verb(
        "roll-back",
        "Move the clients back to the source.",
        """The cutover with the sides exchanged; needs consent as the cutover does. Evidence: cutover.json.""",
    ),
    Verb(
        "switch-over",
        "Move the leadership of the target's cluster; clients wait and see no error.",
        """A planned switchover to a synchronous standby, or to -e pg_ha_leader=<member>. Clients wait at their poolers for at most
        the budget; a guard beside each pooler lets them go on where this run dies.""",
    ),
    Verb(
        "maintain",
        "Update and restart the target's members one after the other; clients wait and see no error.",
        """Standbys first, then the leadership moves as by switch-over, then the former leader. Installs newer versions of the packages
        unless -e pg_ha_maintenance_update=false is given, and restarts who runs something older or waits for a restart; everybody with
        -e pg_ha_maintenance_restart_all=true. With nothing due it changes nothing.""",
    ),
    Verb(
        "retire-source",
        "End the migration: take away what it has; the source stays fenced.",
        """Without consent it says what would go. With -e pg_ha_retire_approved=true dead men, links, roles and our schema go, so that
        there is no way back; stopping the source's server is yours. Evidence: retirement.json.""",
    ),
    Verb(
        "report",
        "Render the report from the evidence; asks no host.",
        """Renders report.html, report.md and report.xml in artifacts/<migration>/ from the evidence on this controller, and for whoever
        runs the target architecture.md and runbook.md.""",
    ),
)
STATUS = Verb("status", "Say where a migration stands, from the journal and the real state.", "")


def checkout() -> Path | None:
    """The root of the checkout that this program runs from; None where it was installed."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "galaxy.yml").is_file() and (root / "lab").is_dir() else None


def prepare_environment(environ: t.MutableMapping[str, str]) -> None:
    """Let Ansible find its programs, the checkout's configuration and collection, and a locale that it accepts.

    Only what nobody has set: in an execution environment everything is set already.
    """
    programs = str(Path(sys.executable).parent)
    if programs not in environ.get("PATH", "").split(os.pathsep):
        environ["PATH"] = programs + os.pathsep + environ.get("PATH", "")
    if "UTF" not in (environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or "").upper():
        environ["LC_ALL"] = "C.UTF-8"
    root = checkout()
    if root is not None and not Path("ansible.cfg").is_file():
        environ.setdefault("ANSIBLE_CONFIG", str(root / "ansible.cfg"))
        environ.setdefault("ANSIBLE_COLLECTIONS_PATH", str(root / ".build" / "collections"))


def configured(name: str) -> t.Any:
    """A setting of Ansible, from ansible.cfg, the environment or its default.

    :raises Stop: ansible.cfg cannot be read
    """
    try:
        from ansible import constants  # it reads ansible.cfg and the environment when it is imported
    except ImportError:
        raise Stop(Exit.USAGE, "ansible-core is not installed beside the runner: install it, or run `make setup` in a checkout.") from None
    except Exception as error:  # whatever its reader raises
        raise Stop(Exit.USAGE, f"Ansible's configuration cannot be read: {' '.join(str(error).split())}") from error
    return getattr(constants, name)


def find_collection() -> Path:
    """The folder of the collection where Ansible finds it.

    :raises Stop: it is nowhere
    """
    roots = [Path(str(root)).expanduser() for root in configured("COLLECTIONS_PATHS")] + [Path(entry) for entry in sys.path if entry]
    for root in roots:
        found = root / "ansible_collections" / Path(*COLLECTION.split("."))
        if (found / "playbooks").is_dir():
            return found
    raise Stop(Exit.USAGE, f"The collection {COLLECTION} is not where Ansible looks for collections: install it, or run `make setup` in a checkout.")


def find_playbook(verb: Verb) -> Path:
    """The file of a verb's playbook.

    :raises Stop: this version has none
    """
    path = find_collection() / "playbooks" / f"{verb.playbook}.yml"
    if not path.is_file():
        raise Stop(Exit.USAGE, f"This version of {COLLECTION} has no playbook {verb.playbook}.yml, so there is no `pg-ha {verb.name}` yet; nothing was done.")
    return path


def plays_of(playbook: Path) -> list[tuple[str, str]]:
    """(phase, name) of each play of a playbook and of those that it imports, in order; a phase is called like its playbook.

    :raises Stop: it cannot be read
    """
    try:
        plays = yaml.safe_load(playbook.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise Stop(Exit.FAILED, f"The playbook {playbook} cannot be read: {' '.join(str(error).split())}") from error
    found: list[tuple[str, str]] = []
    for play in plays or []:
        imported = play.get("ansible.builtin.import_playbook") or play.get("import_playbook")
        if imported:
            found += plays_of(playbook.parent / str(imported))
        else:
            found.append((playbook.stem, str(play.get("name") or play.get("hosts"))))
    return found


def words(phase: str) -> str:
    """A phase as a reader calls it."""
    return phase.replace("_", " ")
