# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where poolers lead while one or the other side serves."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment C(freight.pg_ha.endpoints)."""

    DOCUMENTATION = r"""
options:
  source_endpoint:
    description: Host and port that poolers show while the source serves.
    type: dict
    required: true
    suboptions:
      host:
        description: Host.
        type: str
        required: true
      port:
        description: Port.
        type: int
        required: true
  target_endpoint:
    description: Host and port that poolers show while the target serves.
    type: dict
    required: true
    suboptions:
      host:
        description: Host.
        type: str
        required: true
      port:
        description: Port.
        type: int
        required: true
"""
