# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What libpq and servers say becomes one sentence; all services are tried, whatever the first says."""

from __future__ import annotations

import pathlib
import socket
import typing as t

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._connections import client as client_module
from ansible_collections.freight.pg_ha.plugins.module_utils._connections import plan
from ansible_collections.freight.pg_ha.plugins.module_utils._connections.model import Answer, Service
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, GateError, UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import decision, schema
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import client
from ansible_collections.freight.pg_ha.plugins.modules import connections_info

if t.TYPE_CHECKING:
    from tests.unit.conftest import Server

SOURCE = Service("source", "source", "db", "5432", "admin", "freight")
TARGET = Service("target", "target", "p1,p2", "5432", "admin", "freight")
POOLER = Service("pooler_lb", "pooler", "lb", "6432", "operator", "pgbouncer")
PREFIX = 'connection to server at "db" (192.0.2.1), port 5432 failed: '


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (PREFIX + 'FATAL: password authentication failed for user "admin"', "wrong_password"),
        (PREFIX + "fe_sendauth: no password supplied", "wrong_password"),
        (PREFIX + "FATAL: SASL authentication failed", "wrong_password"),
        (PREFIX + 'FATAL: database "freight" does not exist', "missing_database"),
        (PREFIX + "FATAL: no such database: freight", "missing_database"),
        (PREFIX + "SSL error: certificate verify failed", "tls_untrusted"),
        (PREFIX + 'server certificate for "x" does not match host name "db"', "tls_name"),
        (PREFIX + 'server certificate for "x" (and 1 other name) does not match host name "db"', "tls_name"),
        (PREFIX + "server does not support SSL, but SSL was required", "tls_absent"),
        (PREFIX + 'FATAL: no pg_hba.conf entry for host "192.0.2.9", user "admin", database "freight", SSL encryption', "refused_by_hba"),
        (PREFIX + "session is read-only " + PREFIX + "Connection refused", "no_primary"),
        (PREFIX + "FATAL: the database system is starting up", "starting"),
        (PREFIX + "FATAL: sorry, too many clients already", "full"),
        (PREFIX + "Connection refused Is the server running on that host and accepting TCP/IP connections?", "refused"),
        (PREFIX + "timeout expired", "silent"),
        (PREFIX + "No route to host", "silent"),
        ('could not translate host name "db" to address: Name or service not known', "unknown_host"),
        (PREFIX + "FATAL: Passwort-Authentifizierung für Benutzer »admin« fehlgeschlagen", "other"),
    ],
)
def test_a_refusal_is_known_by_its_words(message: str, kind: str) -> None:
    assert plan.kind_of(message) == kind


@pytest.mark.parametrize("service", [SOURCE, TARGET, POOLER], ids=lambda service: service.kind)
def test_every_refusal_is_one_sentence_with_object_and_remedy(service: Service) -> None:
    for kind, _words in plan.WORDS:
        what, remedy = plan.words_for(kind, service, "")
        assert what and remedy and "." not in remedy.replace("pg_hba.conf", "").replace("provision.yml", "").replace("ca.crt", "").removesuffix(" …")
    problem = plan.explain(service, "something that nobody has seen before.")
    assert problem.kind == "other" and "(something that nobody has seen before)" in problem.sentence and service.host in problem.sentence
    assert service.password_key in plan.explain(service, "password authentication failed").sentence


def test_clocks_may_differ_by_what_is_allowed() -> None:
    def said(ahead: float, blur: float = 0.0) -> list[str]:
        return [problem.sentence for problem in plan.plan_answers({SOURCE: Answer("1", ahead, blur)}, 5)]

    assert said(4.9) == said(-4.9) == said(5.5, blur=1.0) == []
    assert said(90.04)[0].startswith("The clock of the source is 90.0 s ahead of the mover's, and 5 s are allowed: ")
    assert said(-6)[0].startswith("The clock of the source is 6.0 s behind the mover's")


def test_source_and_target_are_two_servers() -> None:
    assert list(plan.plan_answers({SOURCE: Answer("1", 0, 0), TARGET: Answer("2", 0, 0)}, 5)) == []
    found = list(plan.plan_answers({SOURCE: Answer("1", 0, 0), TARGET: Answer("1", 0, 0)}, 5))
    assert [problem.kind for problem in found] == ["source_is_target"]


def test_a_pooler_holds_clients_in_transaction_mode_only() -> None:
    assert plan.pooler_problem(POOLER, {"pool_mode": "transaction"}, "freight") is None
    for pooled, kind in ((None, "pooler_database"), ({"pool_mode": "session"}, "pool_mode"), ({"pool_mode": "statement"}, "pool_mode")):
        problem = plan.pooler_problem(POOLER, pooled, "freight")
        assert problem is not None and problem.kind == kind


def params(service_file: str, *services: str, **changes: t.Any) -> dict[str, t.Any]:
    """The module's options."""
    return {
        "service_file": service_file,
        "services": list(services),
        "database": "freight",
        "migration": "m",
        "patroni_urls": [],
        "patroni_ca_file": None,
        "clock_skew_seconds": 5,
        "source_gone": False,
        "connect_timeout_seconds": 3,
        "maintenance_database": "postgres",
        **changes,
    }


def closed_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write(path: pathlib.Path, **services: str) -> str:
    """A service file from lines per service."""
    path.write_text("".join(f"[{name}]\n{lines}\n" for name, lines in services.items()))
    return str(path)


def test_everything_is_tried_and_said_together(postgresql_server: Server, tmp_path: pathlib.Path) -> None:
    here = f"host=127.0.0.1\nport={postgresql_server.port}\nuser=postgres"
    service_file = write(
        tmp_path / "services",
        source=f"{here}\ndbname=connections_nowhere",
        target=f"host=127.0.0.1\nport={closed_port()}\nuser=postgres\ndbname=x",
        pooler_a=f"{here}\ndbname=postgres\nsslmode=require",
        pooler_b=f"{here}\ndbname=postgres",
    )
    url = f"https://127.0.0.1:{closed_port()}"
    with pytest.raises(GateError) as caught:
        connections_info.run(params(service_file, "source", "target", "pooler_a", "pooler_b", patroni_urls=[url]))
    kinds = {problem["object"]: problem["kind"] for problem in caught.value.details["problems"]}
    # A server of PostgreSQL is no console: it does not know SHOW CONFIG.
    assert kinds == {"source": "missing_database", "target": "refused", "pooler_a": "tls_absent", "pooler_b": "other", "pg_ha_patroni": "patroni"}
    assert caught.value.message.count("\n- ") == 5


def test_a_target_may_lack_the_database_and_answers_all_the_same(postgresql_server: Server, tmp_path: pathlib.Path) -> None:
    here = f"host=127.0.0.1\nport={postgresql_server.port}\nuser=postgres"
    service_file = write(tmp_path / "services", target=f"{here}\ndbname=connections_nowhere", source=f"{here}\ndbname=postgres")
    found = connections_info.run(params(service_file, "target"))
    assert found.result["target_has_database"] is False and abs(found.result["clocks"]["target"]) < 1
    assert connections_info.run(params(service_file, "source")).result["target_has_database"] is False
    with pytest.raises(GateError, match="Source and target are the same server"):
        connections_info.run(params(service_file, "source", "target"))


def test_a_source_is_not_needed_any_more_when_the_cutover_is_done(postgresql_server: Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = f"host=127.0.0.1\nport={postgresql_server.port}\nuser=postgres\ndbname=postgres"
    service_file = write(tmp_path / "services", target=here, source=f"host=127.0.0.1\nport={closed_port()}")
    with pytest.raises(GateError, match="nothing listens there"):
        connections_info.run(params(service_file, "source", "target"))
    monkeypatch.setattr(connections_info, "is_moved", lambda _params: True)
    assert connections_info.run(params(service_file, "source", "target")).result["target_has_database"] is True


def test_a_source_that_is_gone_is_not_needed_once_the_target_knows_that_it_serves(postgresql_server: Server, tmp_path: pathlib.Path) -> None:
    postgresql_server.create_database("connections_moved")
    here = f"host=127.0.0.1\nport={postgresql_server.port}\nuser=postgres\ndbname=connections_moved"
    service_file = write(tmp_path / "services", target=here, source=f"host=127.0.0.1\nport={closed_port()}")
    asked = params(service_file, "source", "target")
    target = client.connect(service_file, "target", application_name="test")
    schema.ensure_schema(target)
    with pytest.raises(GateError) as caught:
        connections_info.run({**asked, "source_gone": True})
    assert "pg_ha_source_gone" not in caught.value.message
    decision.announce(target, 1, "target")
    with pytest.raises(GateError, match=r"or say that it is gone for good \(pg_ha_source_gone: true\)"):
        connections_info.run(asked)
    assert connections_info.run({**asked, "source_gone": True}).result["target_has_database"] is True
    target.close()


def test_a_service_that_is_not_there_is_a_wrong_use(tmp_path: pathlib.Path) -> None:
    service_file = write(tmp_path / "services", source="host=x")
    with pytest.raises(UsageError, match="has no service target"):
        client_module.read_services(service_file, ["source", "target"])
    with pytest.raises(UsageError, match="Cannot read the service file"):
        client_module.read_services(str(tmp_path / "absent"), ["source"])


def test_the_reason_is_the_librarys_own() -> None:
    error = ClientError("Cannot connect to the source: x")
    assert client_module.reason(error) == "Cannot connect to the source: x"
    error.__cause__ = OSError("x\n y")
    assert client_module.reason(error) == "x y"
