#!/usr/bin/python
# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: rds_price_info
short_description: Estimate what an instance of Amazon RDS costs a month
description:
  - Asks AWS's price list what a PostgreSQL instance and its storage cost on demand. Changes nothing.
  - Where the list is out of reach or does not permit to be asked, prices come from a dated table that ships with the collection, for what that has. What is not
    known is V(null), never a guess.
  - The permission is C(pricing:GetProducts). Savings Plans, reserved instances and discounts of an account are not in the list.
version_added: 0.1.0
author: the freight.pg_ha authors (@freight)
extends_documentation_fragment:
  - freight.pg_ha.aws
  - freight.pg_ha.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  instance_class:
    description: Class of the instance.
    type: str
    required: true
  multi_az:
    description: Whether it has a standby in another zone.
    type: bool
    default: true
  storage_type:
    description: Type of its storage. There is an estimate for V(gp2) and V(gp3) only.
    type: str
    choices: [gp2, gp3, io1, io2]
    default: gp3
  allocated_storage_gib:
    description: Size of its storage.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Estimate what the target costs
  freight.pg_ha.rds_price_info:
    region: eu-central-1
    instance_class: db.r7g.large
    allocated_storage_gib: 100
  register: price
"""

RETURN = r"""
monthly_cost:
  description: >-
    C(amount) and C(currency) of a month of 730 hours, C(lines) that it is the sum of (C(what), C(quantity), C(unit), C(price), C(amount)), what is not in it
    (C(without)), its C(source) and the day that the prices are C(dated) from. Amounts are text. V(null) where it is not known.
  returned: success
  type: dict
reason:
  description: Why it is not known, or does not come from the list; V(null) where it does.
  returned: success
  type: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import client as rds
from ansible_collections.freight.pg_ha.plugins.module_utils._rds import prices
from ansible_collections.freight.pg_ha.plugins.module_utils._rds.price_plan import Wanted


def run(session: t.Any, region: str, params: dict[str, t.Any]) -> Outcome:
    """Ask for the prices, and add them up."""
    if params["allocated_storage_gib"] < 1:
        raise UsageError(f"allocated_storage_gib is {params['allocated_storage_gib']}: give the size of the storage, at least 1.")
    wanted = Wanted(region, params["instance_class"], params["multi_az"], params["storage_type"], params["allocated_storage_gib"])
    cost, reason = prices.monthly_cost(wanted, lambda one: prices.PriceList.open(session, params).read(one))
    return Outcome(changed=False, result={"monthly_cost": cost, "reason": reason})


def argument_spec() -> dict[str, t.Any]:
    """The module's options."""
    return {
        **rds.aws_argument_spec(),
        "instance_class": {"type": "str", "required": True},
        "multi_az": {"type": "bool", "default": True},
        "storage_type": {"type": "str", "choices": ["gp2", "gp3", "io1", "io2"], "default": "gp3"},
        "allocated_storage_gib": {"type": "int", "required": True},
    }


def main() -> None:
    """Wire the options to run()."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    rds.finish_in_session(module, lambda session, region: run(session, region, module.params))


if __name__ == "__main__":
    main()
