# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""The content of large objects by the functions that clients have: their table is a superuser's."""

from __future__ import annotations

PIECE_BYTES = 1 << 20
INV_READ = 0x40000

# Bytes of the large object m.oid. Its descriptor is closed again, or a statement over all of them would keep one for each.
SIZE = (
    f"(SELECT o.size FROM (SELECT d.fd, lo_lseek64(d.fd, 0, 2) AS size FROM (SELECT lo_open(m.oid, {INV_READ}) AS fd OFFSET 0) d OFFSET 0) o "
    "WHERE lo_close(o.fd) = 0)"
)
# Digest of the content of m.oid, read in pieces, so that no value is larger than one of them.
CONTENT = (
    f"(SELECT md5(string_agg(md5(lo_get(m.oid, piece, {PIECE_BYTES})), '' ORDER BY piece)) "
    f"FROM generate_series(0, greatest({SIZE} - 1, 0), {PIECE_BYTES}) piece)"
)
# Whether the session may read the table itself, which is quicker.
READABLE = "has_table_privilege('pg_catalog.pg_largeobject', 'SELECT')"
