# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords with every character: what we write is read back by libpq, PgBouncer, a shell and PostgreSQL as the very password."""

from __future__ import annotations

import pathlib
import subprocess
import typing as t

import psycopg2
import pytest
from ansible_collections.freight.pg_ha.plugins.action.inventory_info import without_secrets
from ansible_collections.freight.pg_ha.plugins.module_utils._inventory import plan as inventory_plan
from ansible_collections.freight.pg_ha.plugins.module_utils._inventory.model import KEYS, Inventory
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import roles, schema
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql.subscription import Link, subscription_statement
from ansible_collections.freight.pg_ha.plugins.module_utils._replication.names import identifier, literal
from ansible_collections.freight.pg_ha.plugins.module_utils._routes import plan as routes_plan
from ansible_collections.freight.pg_ha.plugins.module_utils._routes.model import Endpoint, Role, Routes
from ansible_collections.freight.pg_ha.plugins.modules.application_routes import dump
from hypothesis import example, given
from hypothesis import strategies as st

from .conftest import EVERY_ASCII, QUICK, SPICE, Pgbouncer, declared_names, passwords, render

if t.TYPE_CHECKING:
    from tests.unit.conftest import Server

# What SASLprep changes: a ligature, a full-width letter, a soft hyphen, a no-break space; what it forbids; what is written from right to left.
PREPARED = ("\ufb01x", "Ａ1", "a\u00adb", "a\u00a0b", "e\u0301", "\u2028x", "\u05d0\u05d1", "\u05d0a", "\U0001f418")


class Account:
    """A role that proves its password, made by the statements of module migration_role."""

    def __init__(self, server: Server, name: str) -> None:
        self.server, self.name = server, name
        self.admin = client.connect(server.service_file, "source", application_name="test")
        if not client.query(self.admin, "SELECT FROM pg_roles WHERE rolname = 'with_password'"):
            client.query(self.admin, "CREATE ROLE with_password")
        schema.ensure_schema(self.admin)
        client.query(self.admin, f"CREATE ROLE {identifier(name)} LOGIN IN ROLE with_password")

    def give(self, password: str) -> None:
        """Bring the password to the server: as our own roles get theirs, which are of printable ASCII, or as an application's role has it already."""
        if not (password.isascii() and password.isprintable()):
            client.query(self.admin, f"ALTER ROLE {identifier(self.name)} PASSWORD {literal(password)}")
            return
        stands = roles.read_role(self.admin, self.name, "dead_man")
        planned, others = (roles.plan_role(stands, self.name, one, "dead_man") for one in (password, password + "x"))
        # What is shown is the same for another password; that this one is not in it cannot be asked, for it may be a word of it.
        assert [action.public for action in planned] == [action.public for action in others]
        for action in planned:
            client.query(self.admin, action.statement)
        assert roles.plan_role(roles.read_role(self.admin, self.name, "dead_man"), self.name, password, "dead_man") == []

    def end(self) -> None:
        client.query(self.admin, f"DROP SCHEMA ha_migration CASCADE; DROP ROLE {identifier(self.name)}")
        self.admin.close()


@pytest.fixture(scope="module")
def account(postgresql_server: Server) -> t.Iterator[Account]:
    """A role whose name quotes badly, too."""
    made = Account(postgresql_server, 'it\'s:a\\ "role" %s')
    yield made
    made.end()


def who(**parameters: t.Any) -> str:
    """The role that a connection comes in as."""
    connection = psycopg2.connect(connect_timeout=5, **parameters)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_user")
            return str(cursor.fetchone()[0])
    finally:
        connection.close()


def mover_passfile(port: int, user: str, password: str) -> str:
    """As role mover writes it."""
    variables = {"mover_source_host": "127.0.0.1", "mover_source_port": port, "mover_source_user": user, "mover_source_password": password}
    return render("mover/templates/pgpass.j2", **variables, __mover_target_known=False, __mover_poolers_known=False)


def dead_man_passfile(port: int, user: str, password: str) -> str:
    """As role dead_man writes it."""
    service = {"host": "127.0.0.1,localhost", "port": port, "user": user, "password": password}
    return render("dead_man/templates/pgpass.j2", __dead_man_services={"source": service})


def keep(path: pathlib.Path, text: str) -> str:
    """Write a passfile that libpq accepts."""
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return str(path)


@QUICK
@given(passwords())
@example(EVERY_ASCII)
@example("\\")
@example(":")
@example("#x")
@example("md5" + 32 * "0")
@example("undefined")
@example("\u2028behind the line")
@example(PREPARED[0])
@example(PREPARED[1])
@example(PREPARED[2])
@example(PREPARED[3])
@example(PREPARED[4])
@example(PREPARED[5])
@example(PREPARED[6])
@example(PREPARED[7])
@example(PREPARED[8])
def test_a_role_logs_in_with_what_the_passfiles_and_the_routes_say(account: Account, tmp_path: pathlib.Path, password: str) -> None:
    account.give(password)
    address = {"host": "127.0.0.1", "port": account.server.port, "user": account.name, "dbname": "postgres"}
    for written in (mover_passfile, dead_man_passfile):
        assert who(**address, passfile=keep(tmp_path / "pgpass", written(account.server.port, account.name, password))) == account.name
    if "\r" in password or "\n" in password:
        return
    routes = Routes("postgres", Endpoint(("127.0.0.1",), account.server.port), Endpoint(("127.0.0.1",), account.server.port), "-", "/nowhere")
    role = Role(account.name, password)
    routes_plan.check(routes, [role])
    found = routes_plan.files(routes, role, dump)
    assert who(**address, passfile=keep(tmp_path / "told", found[routes_plan.PASSFILE])) == account.name
    (tmp_path / "database.env").write_text(found[routes_plan.ENVIRONMENT], encoding="utf-8")
    shell = ["sh", "-c", '. "$1"; printf %s "$DATABASE_URL"', "sh", str(tmp_path / "database.env")]
    told = subprocess.run(shell, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    assert who(dsn=told.replace("sslmode=verify-full", "sslmode=disable")) == account.name
    # What is shown would be the same with another password. That the password is nowhere in it cannot be asked: one may be a word of the file itself.
    other = routes_plan.files(routes, Role(account.name, "another"), dump)
    assert all(routes_plan.shown(name, found[name]) == routes_plan.shown(name, other[name]) for name in found)


def test_a_wrong_password_does_not_get_in(account: Account, tmp_path: pathlib.Path) -> None:
    """Otherwise the test above would pass with a server that trusts."""
    account.give("right")
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        who(host="127.0.0.1", port=account.server.port, user=account.name, dbname="postgres", password="wrong")


@QUICK
@given(passwords(), passwords())
@example(EVERY_ASCII, EVERY_ASCII[::-1])
@example('"', '""')
def test_pgbouncer_reads_the_passwords_that_we_write(pgbouncer: Pgbouncer, tmp_path: pathlib.Path, operators: str, clients: str) -> None:
    pgbouncer.write(["postgres"], operators, clients)
    pgbouncer.say("RELOAD")
    try:
        passfile = keep(tmp_path / "pgpass", mover_passfile(pgbouncer.port, pgbouncer.operator, operators))
        console = psycopg2.connect(host="127.0.0.1", port=pgbouncer.port, user=pgbouncer.operator, dbname="pgbouncer", passfile=passfile, connect_timeout=5)
        console.close()
        passfile = keep(tmp_path / "pgpass", mover_passfile(pgbouncer.port, "postgres", clients))
        assert who(host="127.0.0.1", port=pgbouncer.port, user="postgres", dbname="postgres", passfile=passfile) == "postgres"
    finally:
        pgbouncer.write(["postgres"], "right", "right")
        pgbouncer.say("RELOAD")


@QUICK
@given(declared_names(), declared_names(), st.text(st.sampled_from(SPICE.replace("\n", "").replace("\r", "").replace("\t", "")), min_size=1, max_size=20))
def test_a_links_connection_string_says_what_is_meant(postgresql_server: Server, user: str, dbname: str, file: str) -> None:
    link = Link("127.0.0.1", 5432, user, dbname, passfile=f"/{file}")
    found = psycopg2.extensions.parse_dsn(link.conninfo("x"))
    assert (found["user"], found["dbname"], found["passfile"]) == (user, dbname, f"/{file}")
    admin = client.connect(postgresql_server.service_file, "source", application_name="test")
    try:
        client.query(admin, "BEGIN")
        # Not connected, so the server only keeps what it was told.
        statement = subscription_statement("x", link.conninfo("x"), admin.server_version, slot=None).replace(" WITH (", " WITH (connect = false, ", 1)
        for option in ("copy_data = false", "create_slot = false", "enabled = false"):
            statement = statement.replace(f", {option}", "")
        client.query(admin, statement)
        assert client.query_value(admin, "SELECT subconninfo FROM pg_subscription WHERE subname = 'x'") == link.conninfo("x")
    finally:
        client.query(admin, "ROLLBACK")
        admin.close()


@QUICK
@given(st.text(min_size=1, max_size=30))
@example("a\nb")
@example("a\x7fb")
def test_a_password_that_no_file_can_say_is_refused_and_never_shown(password: str) -> None:
    kept = without_secrets("secret", password)
    fault = inventory_plan.fault_of(KEYS["pg_ha_link_password"], kept, t.cast(Inventory, None))
    assert (fault is None) == all(character.isprintable() or ord(character) > 0x9F for character in password)
    assert repr(kept) == repr(without_secrets("secret", password + "x"))
