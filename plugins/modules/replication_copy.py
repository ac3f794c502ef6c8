#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: replication_copy
short_description: The initial copy of a database to the target of a migration, and the link that follows
version_added: 0.1.0
description:
  - Copies schema, rows and large objects at the snapshot of a replication slot, in parallel and without files for rows, then subscribes at that slot.
  - Right after the schema is there, every table of the target gets a guard that refuses writes of applications until the cutover opens it.
  - It may run for hours. Start it with C(async) and watch it with M(freight.pg_ha.replication_copy_info); an advisory lock on the source lets only one run.
  - A copy that was interrupted (its process was killed, a server was restarted, the network was cut) is gone on with by the next run. Finished tables are kept,
    the others are copied again at a snapshot from which the link follows without a gap. Until then the slot holds back the source's WAL.
  - It is begun anew where it had finished no table, where slot, publication or subscription are gone or the slot has lost WAL, and where the source's schema
    has changed. A finished copy is not repeated.
  - Tables of a finished copy that were found to differ (O(again)) are copied again in the same way. The others are not touched, but follow only after it.
    Sequences, large objects and the schema are left as they are.
  - Never writes to a target that holds tables which are not its own, nor to one that serves the applications.
  - Large objects, sequences and unlogged tables do not follow. The first two are copied once; unlogged tables are left empty and named in the result.
author:
  - the freight.pg_ha authors (@freight)
extends_documentation_fragment:
  - freight.pg_ha.postgresql
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
requirements:
  - pg_dump and pg_restore on the host that runs the module, not older than either server
options:
  source_service:
    description: Service of the source.
    type: str
    default: source
  target_service:
    description: Service of the target.
    type: str
    default: target
  method:
    description:
      - V(logical) makes publication, slot and subscription, so that changes follow.
      - V(dump) copies at one snapshot and nothing follows; for a maintenance window while the source is fenced.
    type: str
    choices: [logical, dump]
    default: logical
  parts:
    description: V(schema) ends after what comes before the rows; with O(method=dump) a rehearsal of the restore.
    type: str
    choices: [all, schema]
    default: all
  snapshot:
    description: Name of an exported snapshot that somebody else holds open on the source, with O(method=dump).
    type: str
  repeat:
    description: Throw a finished or an interrupted copy away and copy again.
    type: bool
    default: false
  again:
    description:
      - Tables to copy again though they are finished, because they were found to differ (M(freight.pg_ha.parity)). Names with schema, as SQL writes them.
      - They are emptied on the target first. Has no effect while O(repeat=true), or where everything has to be copied anyway.
    type: list
    elements: str
    default: []
  again_because:
    description:
      - Names what has found that they differ. A table is copied again once for each name, so that the same task, run again, goes on with what was
        interrupted and changes nothing when it is done.
      - When not given, every run on a finished copy copies them again.
    type: str
    default: ""
  link:
    description: How the target's servers reach the source; needed with O(method=logical).
    type: dict
    suboptions:
      host:
        description: Host of the source as the target's servers resolve it.
        type: str
        required: true
      port:
        description: Port of the source.
        type: int
        default: 5432
      user:
        description: Role with the attribute REPLICATION on the source.
        type: str
        required: true
      passfile:
        description: Password file on the target's servers. The password itself is no part of the subscription.
        type: str
      password_file:
        description:
          - File on this host that holds the password alone, for servers on which nothing of ours is. It is part of the subscription then, which
            only its owner and superusers may read, and is sent over TLS with channel binding.
          - Not together with C(passfile).
        type: path
      ca_file:
        description: CA certificate on the target's servers; verifies the source fully when given.
        type: str
  jobs:
    description: Tables copied and indexes built at once. When not given, the processors of the host that runs the module, at least two.
    type: int
  run:
    description: Name of the run, for the journal.
    type: str
    default: ""
  programs_directory:
    description: Folder of pg_dump and pg_restore. When not given, the newest below C(/usr/lib/postgresql), else the C(PATH).
    type: path
  work_directory:
    description: Folder on the host that runs the module for the archives of schema and large objects; removed at the end.
    type: path
    default: /var/tmp
  maintenance_work_mem:
    description: Memory for building one index on the target.
    type: str
    default: 256MB
  slot_timeout_seconds:
    description:
      - Seconds to wait for transactions that were writing when the slot is made.
      - Where an interrupted copy is gone on with, also for those that write to a table that is copied again. Its writers are kept away for milliseconds.
    type: int
    default: 300
  lock_timeout_seconds:
    description: Seconds that the dump of the schema waits for a lock before it gives up.
    type: int
    default: 60
  slot_wal_limit_mib:
    description:
      - How much of the source's WAL the slot may hold back, in MiB. When it is more, the copy is given up in favour of the source's disk. The slot is
        dropped, and the module fails with C(error=GivenUp).
      - The source's own C(max_slot_wal_keep_size) must be no higher, or the copy is refused, since only that limit holds with nobody of ours alive.
      - Without it only the source's own limit counts.
    type: int
"""

EXAMPLES = r"""
- name: Copy and follow
  freight.pg_ha.replication_copy:
    service_file: /run/pg_ha/freight/pg_service.conf
    link:
      host: db1.example.com
      user: ha_migration_link
      passfile: /etc/pg_ha/link/pgpass
      ca_file: /etc/pg_ha/link/source_ca.crt
  async: 86400
  poll: 0

- name: Copy a table again that was found to differ
  freight.pg_ha.replication_copy:
    service_file: /run/pg_ha/freight/pg_service.conf
    link:
      host: db1.example.com
      user: ha_migration_link
      passfile: /etc/pg_ha/link/pgpass
      ca_file: /etc/pg_ha/link/source_ca.crt
    again: [public.orders]
    again_because: "{{ __parity.evidence.run }}"
  async: 86400
  poll: 0
"""

RETURN = r"""
initial_copy:
  description: What was copied, also when an earlier run has done it.
  type: dict
  returned: success
  contains:
    step:
      description: V(done); in check mode V(predicted).
      type: str
    method:
      description: How it was copied.
      type: str
    tables:
      description: Number of tables and leaf partitions.
      type: int
    rows:
      description: Number of rows.
      type: int
    bytes:
      description: Size of the tables on the source.
      type: int
    seconds:
      description: How long the run took that finished it.
      type: float
    bytes_per_second:
      description: Pace of that run, without what it kept.
      type: int
    sequences:
      description: Number of sequences that were set.
      type: int
    large_objects:
      description: Number of large objects on the source.
      type: int
    lsn:
      description: Consistent point of the slot.
      type: str
    jobs:
      description: Workers.
      type: int
    unlogged:
      description: Unlogged tables, which are left empty.
      type: list
      elements: str
    extension_tables:
      description: Tables of extensions, whose rows the extension makes itself.
      type: list
      elements: str
    steps:
      description: Names and seconds of the steps.
      type: list
      elements: dict
    resumed:
      description: What was kept of an earlier run and counts above too; null where the copy was made in one run.
      type: dict
      contains:
        tables_kept:
          description: Tables that are finished and were not copied again.
          type: int
        rows_kept:
          description: Rows of these.
          type: int
        bytes_kept:
          description: Size of these on the source.
          type: int
        tables_copied_again:
          description: Tables that were not finished, or were to be copied again.
          type: int
        differed:
          description: Names of the tables that were to be copied again (O(again)).
          type: list
          elements: str
    not_resumed:
      description: Why what an interrupted run had left was thrown away; null where nothing was.
      type: str
actions:
  description: Steps that were done; in check mode what would be done.
  type: list
  elements: str
  returned: success
gates:
  description: Every gate that does not hold, with C(gate), C(object), C(message) and C(remedy).
  type: list
  elements: dict
  returned: when a gate does not hold
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, PlanError, UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import decision, guards, schema
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql.subscription import Link
from ansible_collections.freight.pg_ha.plugins.module_utils._replication import copy_run, own, programs
from ansible_collections.freight.pg_ha.plugins.module_utils._replication.model import Again, Settings

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    link = {
        "host": {"type": "str", "required": True},
        "port": {"type": "int", "default": 5432},
        "user": {"type": "str", "required": True},
        "passfile": {"type": "str", "no_log": False},
        "password_file": {"type": "path", "no_log": False},
        "ca_file": {"type": "str"},
    }
    return {
        **client.connection_argument_spec(),
        "source_service": {"type": "str", "default": "source"},
        "target_service": {"type": "str", "default": "target"},
        "method": {"type": "str", "choices": ["logical", "dump"], "default": "logical"},
        "parts": {"type": "str", "choices": ["all", "schema"], "default": "all"},
        "snapshot": {"type": "str"},
        "repeat": {"type": "bool", "default": False},
        "again": {"type": "list", "elements": "str", "default": []},
        "again_because": {"type": "str", "default": ""},
        "link": {"type": "dict", "options": link},
        "jobs": {"type": "int"},
        "run": {"type": "str", "default": ""},
        "programs_directory": {"type": "path"},
        "work_directory": {"type": "path", "default": "/var/tmp"},
        "maintenance_work_mem": {"type": "str", "default": "256MB"},
        "slot_timeout_seconds": {"type": "int", "default": 300},
        "lock_timeout_seconds": {"type": "int", "default": 60},
        "slot_wal_limit_mib": {"type": "int"},
    }


def run(params: dict[str, t.Any], check_mode: bool, run_command: programs.RunCommand) -> Outcome:
    """Check the options and copy.

    :raises UsageError: options contradict each other
    """
    if params["snapshot"] and params["method"] != "dump":
        raise UsageError("Option snapshot is for method dump: with method logical the slot's own snapshot is used.")
    if params["parts"] == "schema" and params["method"] != "dump":
        raise UsageError("Option parts=schema is for method dump: with method logical a slot would keep WAL that nobody reads.")
    if params["again"] and params["method"] == "dump":
        raise UsageError("Option again is for method logical: with method dump the cutover copies everything.")
    settings = Settings(
        service_file=params["service_file"],
        method=params["method"],
        parts=params["parts"],
        jobs=params["jobs"] or max(2, os.cpu_count() or 2),
        snapshot=params["snapshot"],
        programs=programs.find_folder(params["programs_directory"]),
        work_directory=params["work_directory"],
        source=params["source_service"],
        target=params["target_service"],
        slot_timeout_seconds=params["slot_timeout_seconds"],
        lock_timeout_seconds=params["lock_timeout_seconds"],
        connect_timeout_seconds=params["connect_timeout_seconds"],
        maintenance_work_mem=params["maintenance_work_mem"],
        slot_wal_limit_mib=params["slot_wal_limit_mib"],
        run=params["run"],
    )
    link = None
    if params["link"]:
        link = _link(params["link"], _database(settings))
    elif params["method"] == "logical":
        raise UsageError("Method logical needs option link: how the target's servers reach the source.")
    # No announcement opens them before the cutover says which one does.
    hooks = own.Hooks(refuse=refuse_when_target_serves, guards=guards.install_statement(schema.GuardAwaiting(epoch=0, opens="target")))
    again = Again(tuple(params["again"]), params["again_because"])
    return copy_run.run(settings, link, programs.Programs(settings, run_command), hooks, check_mode, params["repeat"], again)


def _link(declared: dict[str, t.Any], database: str) -> Link:
    """How the target's servers reach the source.

    :raises ClientError: the password cannot be read
    :raises UsageError: it is given twice
    """
    password = None
    if declared["password_file"]:
        if declared["passfile"]:
            raise UsageError("Option link has passfile and password_file: the password is on the target's servers, or in the subscription.")
        try:
            with open(declared["password_file"], encoding="utf-8") as handle:
                password = handle.read().removesuffix("\n")
        except OSError as error:
            raise ClientError(f"Cannot read the password of the link: {error.strerror} ({declared['password_file']}).") from error
    return Link(declared["host"], declared["port"], declared["user"], database, declared["passfile"], declared["ca_file"], password)


def refuse_when_target_serves(source: Connection, target: Connection) -> None:
    """Never throw away a database that applications use, nor begin while somebody changes who serves.

    :raises PlanError: one of these is so
    """
    sides = {"source": source, "target": target}
    for name, connection in sides.items():
        if schema.read_schema(connection)["one_open_epoch"] and decision.read_open_epoch(connection) is not None:
            raise PlanError(f"An attempt to change who serves is open on the {name}. Run playbook cut_over.yml again to finish or undo it first.")
    if decision.plan_serving(*(decision.read_history(connection, name) for name, connection in sides.items())) == "target":
        raise PlanError("The target serves the applications by decision of the cutover: it is not copied over. To begin anew, run roll_back.yml first.")


def _database(settings: Settings) -> str:
    """Name of the source's database."""
    connection = client.connect(
        settings.service_file, settings.source, application_name="ha_migration copy", connect_timeout_seconds=settings.connect_timeout_seconds
    )
    try:
        return str(client.query_value(connection, "SELECT current_database()::text"))
    finally:
        connection.close()


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if not client.HAS_PSYCOPG2:
        module.fail_json(msg=missing_required_lib("psycopg2"))

    def run_command(argv: list[str], environment: dict[str, str]) -> tuple[int, str, str]:
        return module.run_command(argv, environ_update=environment, handle_exceptions=False)

    finish(module, lambda: run(module.params, module.check_mode, run_command))


if __name__ == "__main__":
    main()
