# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What the migration has of its own in the databases, as the copy knows it.

The names are those of module_utils/_migration/schema.py, which another package may not import; a test holds them equal. What the copy has to
ask or do there is handed in.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

if t.TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

SCHEMA = "ha_migration"
GUARD_TRIGGER = "ha_migration_guard"
FORWARD_LINK = "ha_migration_forward"
FORWARD_TABLES = ("marker", "probe")
# Of these tables of ours only some rows are copied. An announcement tells who serves: one of an earlier epoch would have a target that was made anew
# after a roll back say that it serves.
COPIED = {"marker": "serves IS NULL"}
LOCK_CLASS = 4_718_001
LOCK_COPY = 1


@dataclass(frozen=True)
class Hooks:
    """What the module hands in.

    :param refuse: gets source and target and raises PlanError while the target serves or somebody changes who does
    :param guards: statements that put the guard that waits for the cutover on every table of the target, for the transaction that makes them
    :param locks: whether the copy takes its lock; not inside a cutover, which holds it
    """

    refuse: t.Callable[[Connection, Connection], None]
    guards: str
    locks: bool = True
