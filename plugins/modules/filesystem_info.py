#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: filesystem_info
short_description: Say how much space a folder has or would have
version_added: 0.1.0
description:
  - Reads the size and free space of the file system that holds a folder. Where the folder does not exist yet, its nearest existing parent is asked.
author:
  - the freight.pg_ha authors (@freight)
options:
  path:
    description: Absolute path of the folder.
    type: path
    required: true
extends_documentation_fragment:
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: See how much space the database will have
  freight.pg_ha.filesystem_info:
    path: /var/lib/postgresql
  register: __assessment_disk
"""

RETURN = r"""
filesystem:
  description: The file system that holds the folder.
  returned: success
  type: dict
  contains:
    asked:
      description: The folder that was asked, which is the path or its nearest existing parent.
      type: str
    total_bytes:
      description: Size.
      type: int
    free_bytes:
      description: What users without privileges can still write.
      type: int
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish


def argument_spec() -> dict[str, t.Any]:
    """Options of the module."""
    return {"path": {"type": "path", "required": True}}


def run(params: dict[str, t.Any]) -> Outcome:
    """Ask the file system.

    :raises UsageError: the path is not absolute
    :raises ClientError: the file system does not answer
    """
    asked = params["path"]
    if not os.path.isabs(asked):
        raise UsageError(f"The path {asked!r} is not absolute.")
    while not os.path.exists(asked):
        asked = os.path.dirname(asked)
    try:
        found = os.statvfs(asked)
    except OSError as error:
        raise ClientError(f"The file system of {asked} does not answer: {error.strerror}.") from error
    filesystem = {"asked": asked, "total_bytes": found.f_blocks * found.f_frsize, "free_bytes": found.f_bavail * found.f_frsize}
    return Outcome(changed=False, result={"filesystem": filesystem})


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    finish(module, lambda: run(module.params))


if __name__ == "__main__":
    main()
