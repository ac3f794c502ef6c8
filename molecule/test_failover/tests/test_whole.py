# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looked at on the hosts, before anything is broken and afterwards: the cluster is whole, and nothing of a fault is there."""

from __future__ import annotations

import pytest
import testinfra

UNITS = {**dict.fromkeys(("pg1", "pg2", "pg3"), ("patroni",)), **dict.fromkeys(("etcd1", "etcd2", "etcd3"), ("etcd",)), "lb1": ("haproxy", "pgbouncer")}


def machine(name):
    """A host of the lab."""
    return testinfra.get_host(f"docker://pg-ha-lab-{name}")


def ask(name, statement):
    """What the server on a member answers its superuser."""
    answer = machine(name).run("su postgres -c %s", f'psql -X -q -A -t -d postgres -c "{statement}"')
    assert answer.rc == 0, answer.stdout + answer.stderr
    return answer.stdout.strip()


@pytest.mark.parametrize("name", UNITS)
def test_its_services_run(name):
    host = machine(name)
    assert all(host.service(unit).is_running and host.service(unit).is_enabled for unit in UNITS[name])


def test_one_leads_and_the_others_follow_one_of_them_synchronously():
    leading = [name for name in ("pg1", "pg2", "pg3") if ask(name, "SELECT pg_is_in_recovery()") == "f"]
    assert len(leading) == 1
    followers = "SELECT string_agg(state || ' ' || sync_state, ', ' ORDER BY sync_state) FROM pg_stat_replication WHERE application_name LIKE 'pg_'"
    assert ask(leading[0], followers) == "streaming async, streaming sync"


@pytest.mark.parametrize("name", UNITS)
def test_no_fault_is_there(name):
    host = machine(name)
    folder = host.file("/var/lib/pg_ha_fault")
    assert not folder.exists or folder.listdir() == []
    assert "pg-ha-fault" not in host.run("systemctl list-timers --all --no-legend").stdout


def test_no_guard_of_a_pause_is_left_standing():
    assert not machine("lb1").service("pg-ha-pause-guard").is_running
