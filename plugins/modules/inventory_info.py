#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: inventory_info
short_description: Check what the inventory of a migration says
version_added: 0.1.0
description:
  - Reads every key C(pg_ha_*) of every host in a group C(pg_ha_*), those groups, and the CA file that they name on the controller. Reaches no host.
  - Fails with all problems together, each in one sentence with its remedy. Of secrets it looks only whether they are given.
author:
  - the freight.pg_ha authors (@freight)
options:
  evidence_only:
    description: Whether the phase renders evidence, so that neither secrets nor the parts of a target are needed.
    type: bool
    default: false
extends_documentation_fragment:
  - freight.pg_ha.attributes
attributes:
  action:
    description: Runs on the controller.
    support: full
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Inventory | Refuse what cannot work
  freight.pg_ha.inventory_info:
"""

RETURN = r"""
problems:
  description: What is wrong; the list is empty on success.
  returned: always
  type: list
  elements: dict
  contains:
    kind:
      description: Kind of the problem.
      type: str
    object:
      description: Key, group or host that it is about.
      type: str
    message:
      description: What is wrong.
      type: str
    remedy:
      description: What to do.
      type: str
    sentence:
      description: Both, for the operator.
      type: str
"""
