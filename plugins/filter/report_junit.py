# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The migration as a JUnit report."""

from __future__ import annotations

DOCUMENTATION = r"""
name: report_junit
short_description: Render the migration as JUnit XML
version_added: 0.1.0
author: the freight.pg_ha authors (@freight)
description:
  - Phases, promises and failover scenarios as test cases, which every CI system shows. What was not measured is an error, never a pass.
positional: _input
options:
  _input:
    description: The evidence by its name, as for P(freight.pg_ha.report_page#filter).
    type: dict
    required: true
  migration:
    description: Name of the migration.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Write the report for CI
  ansible.builtin.copy:
    content: "{{ evidence | freight.pg_ha.report_junit(migration='freight') }}"
    dest: report.xml
    mode: "0644"
"""

RETURN = r"""
_value:
  description: The XML document.
  type: str
"""

import typing as t

from ansible_collections.freight.pg_ha.plugins.plugin_utils._report import junit


def report_junit(evidence: t.Mapping[str, t.Any], migration: str) -> str:
    """Render it."""
    return junit.render(migration, evidence)


class FilterModule:
    """The collection's filter for Ansible."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """By name."""
        return {"report_junit": report_junit}
