# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From an inventory to its problems, and what the action plugin reads of it."""

from __future__ import annotations

import dataclasses
import pathlib
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.action.inventory_info import ActionModule, read_certificate, without_secrets
from ansible_collections.freight.pg_ha.plugins.module_utils._core.problems import Problem, describe
from ansible_collections.freight.pg_ha.plugins.module_utils._inventory.model import KEYS, Host, Inventory, Secret
from ansible_collections.freight.pg_ha.plugins.module_utils._inventory.plan import plan_problems

VALUES: dict[str, t.Any] = {
    "pg_ha_migration": "move_1",
    "pg_ha_artifacts_dir": "/srv/artifacts",
    "pg_ha_pki_dir": "/srv/pki",
    "pg_ha_database": "freight",
    "pg_ha_source_host": "db.example.org",
    "pg_ha_source_admin_user": "admin",
    "pg_ha_source_ca_file": "/srv/ca.crt",
    "pg_ha_target_admin_user": "admin",
    "pg_ha_pooler_operator": "operator",
    "pg_ha_allowed_networks": ["192.0.2.0/24"],
    **{key.name: Secret(True) for key in KEYS.values() if key.type == "secret"},
}
GROUPS = {
    "pg_ha_mover": ("mover",),
    "pg_ha_etcd": ("e1", "e2", "e3"),
    "pg_ha_patroni": ("p1", "p2", "p3"),
    "pg_ha_haproxy": ("lb",),
    "pg_ha_pgbouncer": ("lb",),
    "pg_ha_rds": (),
}
RDS = {"pg_ha_rds": ("freight-rds",), "pg_ha_patroni": (), "pg_ha_etcd": (), "pg_ha_haproxy": ()}


def inventory(
    changes: dict[str, t.Any] | None = None, groups: dict[str, tuple[str, ...]] | None = None, without: tuple[str, ...] = (), names: tuple[str, ...] = ()
) -> Inventory:
    """A good inventory, changed.

    :param changes: values of all hosts
    :param without: keys that are not given
    :param names: further variables
    """
    values = {key: value for key, value in {**VALUES, **(changes or {})}.items() if key not in without}
    known = {**GROUPS, **(groups or {})}
    members = sorted({name for hosts in known.values() for name in hosts})
    hosts = tuple(
        Host(name, {**values, "pg_ha_address": f"192.0.2.{number}"}, names=frozenset({*values, *names, "pg_ha_address"}))
        for number, name in enumerate(members, 1)
    )
    return Inventory(Host("localhost", values, names=frozenset({*values, *names})), hosts, known)


def changed_host(found: Inventory, name: str, **changes: t.Any) -> Inventory:
    """The same with one host changed."""
    return dataclasses.replace(found, hosts=tuple(dataclasses.replace(host, **changes) if host.name == name else host for host in found.hosts))


def sentences(found: Inventory, evidence_only: bool = False) -> list[str]:
    """What is said of it."""
    return [problem.sentence for problem in plan_problems(found, evidence_only)]


def test_a_good_inventory_has_no_problems() -> None:
    assert sentences(inventory()) == []
    assert sentences(inventory({"pg_ha_cutover_approved": "true", "pg_ha_source_port": "5433", "pg_ha_repeat": ["verify"]})) == []
    assert sentences(inventory({"pg_ha_cutover_budget_seconds": "5", "pg_ha_dump_window_seconds": 3600.5})) == []
    assert sentences(inventory({"pg_ha_source_host": "2001:db8::1"})) == []
    assert sentences(inventory({"pg_ha_ddl_policy": "refuse", "pg_ha_slot_wal_limit_mib": "20480"})) == []
    assert sentences(inventory({"pg_ha_target_write_host": "vip.example.org"}, {"pg_ha_haproxy": ()})) == []


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("pg_ha_migration", "Move-1", "begin with a small letter"),
        ("pg_ha_artifacts_dir", "artifacts", "an absolute path"),
        ("pg_ha_pki_dir", 5, "an absolute path"),
        ("pg_ha_database", "", "1 to 63 bytes"),
        ("pg_ha_database", "ä" * 32, "1 to 63 bytes"),
        ("pg_ha_database", "pgbouncer", "PgBouncer's console"),
        ("pg_ha_source_host", "db.example.org:5432", "the port in a key of its own"),
        ("pg_ha_source_host", "db one", "which is no host's name"),
        ("pg_ha_source_port", 70000, "1 to 65535"),
        ("pg_ha_source_port", "54x", "1 to 65535"),
        ("pg_ha_source_port", True, "1 to 65535"),
        ("pg_ha_source_port", 5432.5, "1 to 65535"),
        ("pg_ha_method", "logicall", "write logical"),
        ("pg_ha_method", "physical", "choose one of logical, dump"),
        ("pg_ha_cutover_budget_seconds", 0, "give 2 to 60 seconds"),
        ("pg_ha_cutover_budget_seconds", "many", "give 2 to 60 seconds"),
        ("pg_ha_cutover_budget_seconds", 3600, "give 2 to 60 seconds"),
        ("pg_ha_cutover_budget_seconds", "nan", "give 2 to 60 seconds"),
        ("pg_ha_dump_window_seconds", 1, "give 60 to 604800 seconds"),
        ("pg_ha_ddl_policy", "refuze", "write refuse"),
        ("pg_ha_slot_wal_limit_mib", 63, "give 64 to 2147483647 MiB"),
        ("pg_ha_slot_wal_limit_mib", "100.5", "give 64 to 2147483647 MiB"),
        ("pg_ha_slot_wal_limit_mib", "inf", "give 64 to 2147483647 MiB"),
        ("pg_ha_slot_wal_limit_mib", "10GB", "give 64 to 2147483647 MiB"),
        ("pg_ha_cutover_approved", "perhaps", "write true or false"),
        ("pg_ha_repeat", "verify", "no list"),
        ("pg_ha_repeat", ["verfy"], "holds verfy"),
        ("pg_ha_application_roles", "app", "a list of names"),
        ("pg_ha_compared", ["rds"], "a list of mappings"),
        ("pg_ha_allowed_networks", [], "a list of networks"),
        ("pg_ha_allowed_networks", ["192.0.2.1/24"], "no bit set behind the mask"),
        ("pg_ha_allowed_networks", ["::/0"], "which is everybody"),
        ("pg_ha_link_password", Secret(False), "is empty or no text"),
    ],
)
def test_a_value_that_cannot_work_is_named_with_its_remedy(key: str, value: t.Any, says: str) -> None:
    found = sentences(inventory({key: value}))
    assert len(found) == 1 and found[0].startswith(f"{key} ") and says in found[0], found


def test_a_misspelt_key_is_named_with_the_one_that_is_meant() -> None:
    found = sentences(inventory(names=("pg_ha_sorce_host", "pg_ha_zebra", "zebra")))
    assert found == [
        "pg_ha_sorce_host is no key of this collection: write pg_ha_source_host, or remove it.",
        "pg_ha_zebra is no key of this collection: remove it; docs/architecture.md lists the keys.",
    ]


def test_a_key_that_is_not_given_is_named_with_what_looks_like_it() -> None:
    assert sentences(inventory(without=("pg_ha_database",), names=("pgha_database",))) == [
        "pg_ha_database is not given: give it in group_vars/all (pgha_database is read by nothing)."
    ]
    assert sentences(inventory(without=("pg_ha_probe_password",))) == ["pg_ha_probe_password is not given: give it in a vault in group_vars/all."]


def test_a_key_that_only_some_hosts_have_is_not_given_for_the_others() -> None:
    found = changed_host(inventory(), "lb", values={key: value for key, value in inventory().hosts[0].values.items() if key != "pg_ha_database"})
    assert any(sentence.startswith("pg_ha_database is not given for lb: ") for sentence in sentences(found))


def test_a_key_with_two_values_is_refused() -> None:
    good = inventory()
    found = changed_host(good, "lb", values={**next(host for host in good.hosts if host.name == "lb").values, "pg_ha_database": "other"})
    assert "pg_ha_database has another value for lb than for the rest: give one value for all hosts." in sentences(found)


def test_a_template_that_fails_hides_no_other_problem() -> None:
    good = inventory({"pg_ha_method": "x"}, without=("pg_ha_cluster",))
    found = changed_host(good, "lb", broken={"pg_ha_cluster": "'y' is undefined"})
    assert [sentence.split(" ")[0] for sentence in sentences(found)] == ["pg_ha_cluster", "pg_ha_method"]


def test_what_is_seen_on_the_controller_alone_counts_only_without_hosts() -> None:
    """An implicit localhost lacks inventory_dir: what fails there works for the hosts."""
    good = inventory()
    controller = Host("localhost", {}, {"pg_ha_pki_dir": "'inventory_dir' is undefined"}, frozenset({"pg_ha_sorce_host"}))
    assert [problem.object for problem in plan_problems(dataclasses.replace(good, controller=controller))] == ["pg_ha_sorce_host"]
    empty = Inventory(controller, (), dict.fromkeys(GROUPS, ()))
    found = sentences(empty)
    assert "pg_ha_database is not given: give it in group_vars/all." in found and not any("pki_dir" in sentence for sentence in found)


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({"pg_ha_mover": ()}, "Group pg_ha_mover holds 0 hosts and needs exactly 1 (copy, comparison and cutover run there): add hosts."),
        ({"pg_ha_mover": ("mover", "m2")}, "Group pg_ha_mover holds 2 hosts and needs exactly 1 (copy, comparison and cutover run there): leave one."),
        ({"pg_ha_etcd": ("e1", "e2")}, "Group pg_ha_etcd holds 2 hosts and needs at least 3"),
        ({"pg_ha_etcd": ("e1",)}, "Group pg_ha_etcd holds 1 host and needs at least 3"),
        ({"pg_ha_etcd": ("e1", "e2", "e3", "e4")}, "use an odd number"),
        ({"pg_ha_patroni": ("p1", "p2")}, "Group pg_ha_patroni holds 2 hosts and needs at least 3"),
        ({"pg_ha_patroni": ()}, "There is no target, because no group of one has a host: put the target into pg_ha_patroni or pg_ha_rds."),
        ({"pg_ha_haproxy": ()}, "Group pg_ha_haproxy holds 0 hosts"),
        ({"pg_ha_pgbouncer": ()}, "Group pg_ha_pgbouncer holds 0 hosts"),
        ({"pg_ha_kubernetes": ("k1",)}, "no part and no target that this version knows: remove it; groups of targets are: pg_ha_patroni, pg_ha_rds."),
        ({"pg_ha_petroni": ("p1",)}, "write pg_ha_patroni"),
    ],
)
def test_groups_have_the_hosts_that_can_work(groups: dict[str, tuple[str, ...]], says: str) -> None:
    found = sentences(inventory(groups=groups))
    assert len(found) == 1 and says in found[0], found


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({"pg_ha_rds": ("r1",)}, "Groups pg_ha_patroni and pg_ha_rds are two targets: leave hosts in one of them."),
        ({**RDS, "pg_ha_rds": ("r1", "r2")}, "Group pg_ha_rds holds 2 hosts and needs exactly 1 (it stands for the instance of Amazon RDS"),
    ],
)
def test_there_is_one_target(groups: dict[str, tuple[str, ...]], says: str) -> None:
    (found,) = sentences(inventory(groups=groups))
    assert found.startswith(says)


def test_an_instance_of_a_service_needs_no_machines_and_no_secrets_of_patroni() -> None:
    patroni = tuple(key.name for key in KEYS.values() if key.target == "pg_ha_patroni")
    found = inventory(groups=RDS, without=patroni)
    instance = next(host for host in found.hosts if host.name == "freight-rds")
    values = {key: value for key, value in instance.values.items() if key != "pg_ha_address"}
    assert len(patroni) == 7 and sentences(changed_host(found, "freight-rds", values=values)) == []
    assert len(sentences(inventory(without=patroni))) == 7


def test_a_group_that_is_not_declared_is_named() -> None:
    good = inventory()
    found = dataclasses.replace(good, groups={name: hosts for name, hosts in good.groups.items() if name != "pg_ha_haproxy"})
    assert sentences(found) == ["Group pg_ha_haproxy is not declared: add it to the inventory; poolers reach the target's leader through it."]


def test_a_host_stands_there_once() -> None:
    def with_values(name: str, **changes: t.Any) -> list[str]:
        good = inventory()
        host = next(host for host in good.hosts if host.name == name)
        return sentences(changed_host(good, name, values={**host.values, **changes}))

    assert with_values("e2", pg_ha_address="192.0.2.1") == ["e1 and e2 have the same pg_ha_address 192.0.2.1: give each host its own."]
    assert with_values("e2", pg_ha_address="e2.example.org") == ["pg_ha_address of e2 is 'e2.example.org': give the host's IPv4 address."]
    assert "2001:db8::1" in with_values("e2", pg_ha_address="2001:db8::1")[0]
    twice = changed_host(changed_host(inventory(), "e1", connects_to="192.0.2.9"), "e2", connects_to="192.0.2.9")
    assert sentences(twice) == ["e1 and e2 are the same host 192.0.2.9 (ansible_host): name each host once."]
    assert sentences(inventory(groups={"pg_ha_etcd": ("e1", "E1", "e3")})) == ["E1 and e1 are one name to a resolver: name each host once."]


@pytest.mark.parametrize("source", ["p1", "P1.", "192.0.2.5", "lb"])
def test_the_source_is_no_host_of_ours(source: str) -> None:
    found = sentences(inventory({"pg_ha_source_host": source}))
    assert len(found) == 1 and found[0].startswith("pg_ha_source_host is ") and "hosts of their own" in found[0]


def test_one_role_has_one_purpose() -> None:
    assert sentences(inventory({"pg_ha_link_user": "admin"})) == [
        "pg_ha_source_admin_user and pg_ha_link_user name the same role admin: give each purpose a role of its own."
    ]
    assert len(sentences(inventory({"pg_ha_probe_user": "ha_migration_dead_man"}))) == 1


def test_a_window_is_longer_than_the_budget() -> None:
    assert any(
        "not longer than pg_ha_cutover_budget_seconds" in one
        for one in sentences(inventory({"pg_ha_cutover_budget_seconds": 60, "pg_ha_dump_window_seconds": 60}))
    )


def test_a_report_needs_neither_secrets_nor_a_target() -> None:
    secrets = tuple(key.name for key in KEYS.values() if key.type == "secret")
    found = inventory(groups={"pg_ha_patroni": (), "pg_ha_etcd": ()}, without=secrets)
    assert len(sentences(found)) == len(secrets) + 2 and sentences(found, evidence_only=True) == []
    assert sentences(inventory(groups={"pg_ha_mover": ()}), evidence_only=True)[0].startswith("Group pg_ha_mover holds 0 hosts")


def test_a_file_that_is_no_certificate_is_named() -> None:
    found = dataclasses.replace(inventory(), files={"/srv/ca.crt": "holds no certificate in PEM form"})
    assert sentences(found) == [
        "pg_ha_source_ca_file (/srv/ca.crt) holds no certificate in PEM form: put the CA certificate of the source there as PEM, or correct the path."
    ]


def test_what_is_no_certificate(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "ca.crt"
    assert "No such file" in read_certificate(str(path))
    path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert read_certificate(str(path)) == "holds no certificate in PEM form"
    path.write_text("-----BEGIN PRIVATE KEY-----\n")
    assert "private key" in read_certificate(str(path))
    path.write_bytes(b"\x30\x82\xff\xfe")
    assert read_certificate(str(path)) == "is no PEM file"


def test_secrets_are_not_read_and_problems_are_shown_together() -> None:
    assert repr(Secret(True)) == "Secret(given=True)"
    problems = [Problem("a", "x", "x is wrong", "mend it"), Problem("b", "y", "y is wrong", "mend it too")]
    assert describe("the inventory", problems) == "2 problems of the inventory; nothing was changed.\n- x is wrong: mend it.\n- y is wrong: mend it too."
    assert describe("x", problems[:1]).startswith("1 problem of x;")
    assert ActionModule._requires_connection is False


@pytest.mark.parametrize(
    ("passwords", "roles", "said"),
    [
        ({"app": Secret(True)}, ["app"], []),
        ({"app": Secret(True)}, [], []),
        ({"ap": Secret(True)}, ["app"], ["has a password for ap, which pg_ha_application_roles does not name: correct the role's name, or name it there."]),
        (
            {"app": Secret(False)},
            [],
            ["has an empty password or one that is no text for app: give a password, quoted where it is a number, or leave the role out."],
        ),
        (None, [], ["is no mapping: give it as role: password."]),
    ],
)
def test_passwords_of_applications(passwords: t.Any, roles: list[str], said: list[str]) -> None:
    found = inventory({"pg_ha_application_passwords": passwords, "pg_ha_application_roles": roles})
    assert sentences(found) == [f"pg_ha_application_passwords {sentence}" for sentence in said]


def test_passwords_of_applications_are_not_read() -> None:
    assert without_secrets("passwords", {"app": "s3cret", "other": ""}) == {"app": Secret(True), "other": Secret(False)}
    assert without_secrets("passwords", "s3cret") is None


def test_a_secret_store_has_a_name_and_a_key() -> None:
    assert sentences(inventory({"pg_ha_secret_store": {"name": "vault", "key": "apps/{role}"}})) == []
    assert sentences(inventory({"pg_ha_secret_store": {"name": "vault"}}))[0].endswith("see docs/routes.md.")
