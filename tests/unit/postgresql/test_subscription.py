# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a subscriber connects: a server that is dead or does not lead is never waited for without end."""

from __future__ import annotations

import psycopg2.extensions
import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql.subscription import Link


@pytest.mark.parametrize(("host", "attributes"), [("pg1,pg2,pg3", "read-write"), ("source", None)])
def test_of_several_servers_the_one_that_takes_writes_is_followed_and_a_dead_one_is_noticed(host, attributes):
    found = psycopg2.extensions.parse_dsn(Link(host, 5432, "link", "freight", password="p").conninfo("x"))
    assert (found["host"], found["port"], found.get("target_session_attrs")) == (host, "5432", attributes)
    assert int(found["tcp_user_timeout"]) == 10000
