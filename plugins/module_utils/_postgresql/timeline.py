# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Which timeline a primary writes."""

from __future__ import annotations

# An expression: the first eight digits of a WAL file's name (PostgreSQL, xlog_internal.h, XLogFileName). It follows a promotion at once, where the
# control file tells the new timeline only after a checkpoint. Fails on a standby.
TIMELINE = "('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int"
