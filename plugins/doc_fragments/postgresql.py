# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The connection options that every module with a PostgreSQL connection shares."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment C(freight.pg_ha.postgresql)."""

    DOCUMENTATION = r"""
options:
  service_file:
    description:
      - Path of the libpq connection service file on the host that runs the module.
      - Role C(freight.pg_ha.mover) writes it. Host, user, TLS and the file with the password stand there, so that no secret is an argument.
    type: path
    required: true
  connect_timeout_seconds:
    description: Seconds to wait for a connection.
    type: int
    default: 10
requirements:
  - psycopg2 on the host that runs the module
"""
