#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: target_costs_info
short_description: Compare what targets cost a month, and recommend one
description:
  - Lays side by side what targets cost and how long they are without service when a server is lost. Connects to nothing and changes nothing.
  - Recommended is the cheapest of the targets whose cost is known and whose time without service is within O(rto_seconds); of equally cheap ones the one
    that is without service for the shortest time. What was measured counts, and only where nothing was, what is promised.
  - Where no target qualifies, or those that do have prices in different currencies, none is recommended. The reasons say why.
  - All prices are given, with their source. What is not given is not known, never a guess.
version_added: 0.1.0
author: the freight.pg_ha authors (@freight)
extends_documentation_fragment:
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  targets:
    description: What is compared.
    type: list
    elements: dict
    required: true
    suboptions:
      kind:
        description: What it is.
        type: str
        choices: [patroni, rds, digitalocean]
        required: true
      name:
        description: What it is called.
        type: str
        required: true
      monthly_cost:
        description:
          - What it costs a month, C(amount), C(currency) (three letters), C(source) and the day that the price is C(dated) from, as
            M(freight.pg_ha.rds_price_info) returns it. Leave it out, or V(null), where it is not known.
          - Either this or O(targets[].prices).
        type: dict
      prices:
        description: What is paid for a month, such as hosts; the cost is the sum.
        type: list
        elements: dict
        suboptions:
          what:
            description: What it is.
            type: str
            required: true
          quantity:
            description: How much of it.
            type: float
            default: 1
          price:
            description: What one of it costs a month.
            type: str
            required: true
          currency:
            description: Its three letters. The same in all prices of a target.
            type: str
            required: true
          source:
            description: Who says so.
            type: str
            required: true
          dated:
            description: The day that the price is from, as V(2026-10-06).
            type: str
      rto_seconds_measured:
        description: Longest time without service that was measured when its server was lost.
        type: float
      rto_seconds_promised:
        description: What somebody promises instead.
        type: float
      notes:
        description: What else is to be known, for the report.
        type: str
  rto_seconds:
    description: How long clients may be without service.
    type: float
    default: 60
"""

EXAMPLES = r"""
- name: Compare an instance of RDS with hosts of our own
  freight.pg_ha.target_costs_info:
    targets:
      - kind: rds
        name: db.r7g.large
        monthly_cost: "{{ price.monthly_cost }}"
        rto_seconds_promised: 120
      - kind: patroni
        name: three servers
        prices:
          - {what: server, quantity: 3, price: "84.00", currency: USD, source: the offer of our hoster, dated: "2026-10-06"}
        rto_seconds_measured: 20.7
  delegate_to: localhost
  register: costs
"""

RETURN = r"""
rows:
  description: >-
    Of each target, in the order given, C(kind), C(name), what it costs a month (C(amount), text, in C(currency)), the C(source) of the prices, the day that the
    oldest is C(dated) from, C(lines) that the amount is the sum of, the C(reason) why the cost is not known, C(rto_seconds_measured),
    C(rto_seconds_promised) and C(notes). V(null) where it is not known.
  returned: success
  type: list
  elements: dict
recommendation:
  description: C(kind) and C(name) of the target that is recommended, V(null) where none is, and C(reasons), sentences.
  returned: success
  type: dict
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome, finish
from ansible_collections.freight.pg_ha.plugins.module_utils._costs import plan


def run(params: dict[str, t.Any]) -> Outcome:
    """Compare what is given."""
    return Outcome(changed=False, result=plan.compare(plan.read(params["targets"]), params["rto_seconds"]))


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    price = {
        "what": {"type": "str", "required": True},
        "quantity": {"type": "float", "default": 1},
        "price": {"type": "str", "required": True},
        "currency": {"type": "str", "required": True},
        "source": {"type": "str", "required": True},
        "dated": {"type": "str"},
    }
    target = {
        "kind": {"type": "str", "choices": list(plan.KINDS), "required": True},
        "name": {"type": "str", "required": True},
        "monthly_cost": {"type": "dict"},
        "prices": {"type": "list", "elements": "dict", "options": price},
        "rto_seconds_measured": {"type": "float"},
        "rto_seconds_promised": {"type": "float"},
        "notes": {"type": "str"},
    }
    return {
        "targets": {"type": "list", "elements": "dict", "required": True, "options": target},
        "rto_seconds": {"type": "float", "default": 60},
    }


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    finish(module, lambda: run(module.params))


if __name__ == "__main__":
    main()
