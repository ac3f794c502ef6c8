# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options that every module with a Patroni cluster shares."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment C(freight.pg_ha.patroni)."""

    DOCUMENTATION = r"""
options:
  urls:
    description:
      - REST addresses of the cluster's members, for example V(https://pg1:8008); asked in order until one answers.
    type: list
    elements: str
    required: true
  ca_file:
    description: CA that signed the REST certificates, on the host that runs the module; the system's store when omitted.
    type: path
  username:
    description: User of Patroni's C(restapi.authentication); needed for changes only.
    type: str
  password:
    description: Its password.
    type: str
  request_timeout_seconds:
    description: Bound of one request.
    type: int
    default: 10
notes:
  - Redirects are not followed and proxies are not used.
"""
