# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Which databases of a server need a role: roles are the whole server's, and what they own and may do is not."""

# A query of (role, database), both oid: the role owns something or holds a privilege in the database (dbid), or of the database itself (objid).
# https://www.postgresql.org/docs/current/catalog-pg-shdepend.html
NEEDS = """
    SELECT refobjid AS role, CASE WHEN classid = 'pg_database'::regclass THEN objid ELSE dbid END AS database
    FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass"""
