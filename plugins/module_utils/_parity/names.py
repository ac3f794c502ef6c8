# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Names that the proof shares with schema ``ha_migration`` (a unit test holds them equal to its own)."""

from __future__ import annotations

SCHEMA = "ha_migration"
GUARD_TRIGGER = "ha_migration_guard"
FORWARD_LINK = "ha_migration_forward"
REVERSE_LINK = "ha_migration_reverse"
MARKER_TABLE = f"{SCHEMA}.marker"
REVERSE_MARKER_TABLE = f"{SCHEMA}.marker_back"
# The one table of the schema that is compared: the probe writes it as an application would.
PROBE_TABLE = "probe"
LOCK_CLASS = 4_718_001
LOCK_COPY = 1
LOCK_CUTOVER = 2

# Schemas whose objects are nobody's application.
SYSTEM_SCHEMAS = ("pg_catalog", "information_schema", "pg_toast")
APPLICATION_NAME = "ha_migration parity"
