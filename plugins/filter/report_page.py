# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report's pages from evidence."""

from __future__ import annotations

DOCUMENTATION = r"""
name: report_page
short_description: Render a page of the migration's report
version_added: 0.1.0
author: the freight.pg_ha authors (@freight)
description:
  - Renders a template with the evidence of a migration and what follows from it, such as the verdict.
  - In HTML everything that comes from the evidence is text, whatever a table in a database is called.
positional: _input
options:
  _input:
    description: The evidence by its name, C(assessment), C(topology), C(replication), C(parity), C(failover), C(cutover), C(routes), C(retirement); an empty
      dictionary where there is none.
    type: dict
    required: true
  template:
    description: Text of the template.
    type: str
    required: true
  migration:
    description: Name of the migration.
    type: str
    required: true
  hosts:
    description: Names of hosts by what they are, C(source), C(poolers), C(proxies), C(members), C(store), C(mover).
    type: dict
    required: true
  html:
    description: Whether the page is HTML; else it is Markdown.
    type: bool
    default: false
  compared:
    description: Targets beside which the cost of this one is shown, as O(freight.pg_ha.target_costs_info#module:targets).
    type: list
    elements: dict
    default: []
  rto_seconds:
    description: How long clients may be without service, for the recommendation among them.
    type: float
    default: 60
"""

EXAMPLES = r"""
- name: Render the report
  ansible.builtin.copy:
    content: "{{ evidence | freight.pg_ha.report_page(template=page, migration='freight', hosts=hosts, html=true) }}"
    dest: report.html
    mode: "0644"
  vars:
    page: "{{ lookup('ansible.builtin.file', 'report.html.j2') }}"
"""

RETURN = r"""
_value:
  description: The page.
  type: str
"""

import typing as t

import jinja2
from ansible.errors import AnsibleFilterError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import UsageError
from ansible_collections.freight.pg_ha.plugins.plugin_utils._report import costs, page


def report_page(
    evidence: t.Mapping[str, t.Any],
    template: str,
    migration: str,
    hosts: t.Mapping[str, t.Sequence[str]],
    html: bool = False,
    compared: t.Sequence[t.Mapping[str, t.Any]] = (),
    rto_seconds: t.Any = costs.RTO_SECONDS,
) -> str:
    """Render it.

    :raises AnsibleFilterError: the evidence lacks what the page shows, or what is compared is not understood
    """
    try:
        return page.render(template, migration, evidence, hosts, html=html, compared=compared, rto_seconds=rto_seconds)
    except UsageError as error:
        raise AnsibleFilterError(error.message) from error
    except (jinja2.TemplateError, KeyError) as error:
        raise AnsibleFilterError(
            f"The report cannot be rendered, because a document of the evidence is not complete: {error}. Run its playbook again, or take the document away."
        ) from error


class FilterModule:
    """The collection's filter for Ansible."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """By name."""
        return {"report_page": report_page}
