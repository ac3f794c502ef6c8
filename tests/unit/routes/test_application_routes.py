# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What applications are given: libpq itself reads it back, nobody else may, and a diff shows no secret."""

from __future__ import annotations

import base64
import os
import pathlib
import shlex
import typing as t

import psycopg2.extensions
import pytest
import yaml
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import ClientError, UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._core.outcome import Outcome
from ansible_collections.freight.pg_ha.plugins.module_utils._routes import plan
from ansible_collections.freight.pg_ha.plugins.module_utils._routes.text import encode, escape, folder_name
from ansible_collections.freight.pg_ha.plugins.modules import application_routes

USER = "Größe@x:y/z %'$"
PASSWORD = r"""a:b\c'd"e%f@g{h} ü#&?/+$(id)"""
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
STORE = {"name": "vault", "kind": "ClusterSecretStore", "key": "apps/{role}", "property": "password"}


@pytest.fixture
def params(tmp_path: pathlib.Path) -> dict[str, t.Any]:
    """Options of the module for one role with everything that quotes badly."""
    (tmp_path / "ca.crt").write_text(CERTIFICATE)
    return {
        "directory": str(tmp_path / "new" / "target"),
        "database": "my shop/ü",
        "write_endpoint": {"hosts": ["lb1", "lb2"], "port": 6432},
        "read_endpoint": {"hosts": ["fd00::1"], "port": 5001},
        "ca_files": [str(tmp_path / "ca.crt"), str(tmp_path / "ca.crt")],
        "application_directory": "/etc/my app/routes/",
        "roles": [{"name": USER, "password": PASSWORD}],
        "write_variable": "DATABASE_URL",
        "read_variable": "DATABASE_READ_URL",
        "secret_prefix": "move_2027",
        "namespace": None,
        "secret_store": None,
        "keep": False,
    }


def run(params: dict[str, t.Any], check_mode: bool = False, **changed: t.Any) -> Outcome:
    """The module with some options changed."""
    return application_routes.run({**params, **changed}, check_mode)


def folder(params: dict[str, t.Any], role: str = USER) -> pathlib.Path:
    """The role's folder."""
    return pathlib.Path(params["directory"]) / folder_name(role)


def environment(path: pathlib.Path) -> dict[str, str]:
    """An environment file as a shell reads it."""
    words = [shlex.split(line, comments=True) for line in path.read_text().splitlines()]
    return dict(word.split("=", 1) for line in words for word in line)


def secret(params: dict[str, t.Any]) -> dict[str, str]:
    """Decoded values of the Secret."""
    manifest = yaml.safe_load((folder(params) / "secret.yml").read_text())
    return {key: base64.b64decode(value).decode() for key, value in manifest["data"].items()}


def test_libpq_reads_the_urls_back(params: dict[str, t.Any]) -> None:
    run(params)
    urls = environment(folder(params) / "database.env")
    common = {"user": USER, "password": PASSWORD, "dbname": "my shop/ü", "sslmode": "verify-full", "sslrootcert": "/etc/my app/routes/ca.crt"}
    assert psycopg2.extensions.parse_dsn(urls["DATABASE_URL"]) == {**common, "host": "lb1,lb2", "port": "6432,6432"}
    assert psycopg2.extensions.parse_dsn(urls["DATABASE_READ_URL"]) == {**common, "host": "fd00::1", "port": "5001"}


def test_services_hold_no_password_and_the_passfile_has_a_line_per_host(params: dict[str, t.Any]) -> None:
    run(params)
    services = (folder(params) / "pg_service.conf").read_text()
    assert services.startswith(f"[write]\nhost=lb1,lb2\nport=6432\ndbname=my shop/ü\nuser={USER}\npassfile=/etc/my app/routes/pgpass\nsslmode=verify-full\n")
    assert services.count("tcp_user_timeout=15000\n") == services.count("connect_timeout=5\n") == 2
    assert "\n[read]\nhost=fd00::1\nport=5001\n" in services and "password=" not in services
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    user = USER.replace(":", "\\:")
    assert (folder(params) / "pgpass").read_text().splitlines() == [
        f"lb1:6432:my shop/ü:{user}:{escaped}",
        f"lb2:6432:my shop/ü:{user}:{escaped}",
        f"fd00\\:\\:1:5001:my shop/ü:{user}:{escaped}",
    ]


def test_the_secret_says_the_same(params: dict[str, t.Any]) -> None:
    run(params, namespace="shop")
    manifest = yaml.safe_load((folder(params) / "secret.yml").read_text())
    assert manifest["metadata"] == {"name": "move-2027-gr-e-x-y-z", "namespace": "shop"}
    assert (manifest["apiVersion"], manifest["kind"]) == ("v1", "Secret")
    urls = environment(folder(params) / "database.env")
    files = {name: (folder(params) / name).read_text() for name in ("ca.crt", "pg_service.conf", "pgpass")}
    assert secret(params) == {**urls, **files}
    assert files["ca.crt"] == CERTIFICATE, "a file that is named twice is in the bundle once"


def test_nobody_else_may_look(params: dict[str, t.Any]) -> None:
    run(params)
    top = pathlib.Path(params["directory"])
    for path in [top.parent, top, *top.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    (folder(params) / "pgpass").chmod(0o644)
    top.chmod(0o755)
    outcome = run(params)
    assert outcome.result["actions"] == [f"keep the folder {top} with mode 0700", f"write {folder(params)}/pgpass"]
    assert (folder(params) / "pgpass").stat().st_mode & 0o777 == 0o600
    assert not run(params).changed


def test_again_changes_nothing_and_check_mode_predicts_without_writing(params: dict[str, t.Any]) -> None:
    predicted = run(params, check_mode=True)
    assert predicted.changed and not pathlib.Path(params["directory"]).parent.exists()
    real = run(params)
    assert (real.result, real.before, real.after) == (predicted.result, predicted.before, predicted.after)
    assert not run(params).changed and not run(params, check_mode=True).changed


def test_without_a_password_none_is_invented(params: dict[str, t.Any]) -> None:
    run(params)
    outcome = run(params, roles=[{"name": USER, "password": None}])
    assert outcome.result["routes"]["roles"][0]["password"] == "not_known"
    assert f"remove {folder(params)}/pgpass" in outcome.result["actions"], "a password that is no longer declared is taken away"
    assert sorted(path.name for path in folder(params).iterdir()) == ["ca.crt", "database.env", "pg_service.conf", "prisma_client.mjs", "secret.yml"]
    assert "password" not in psycopg2.extensions.parse_dsn(environment(folder(params) / "database.env")["DATABASE_URL"])
    assert "passfile=" in (folder(params) / "pg_service.conf").read_text(), "the passfile is left to the application"
    assert set(secret(params)) == {"DATABASE_URL", "DATABASE_READ_URL", "ca.crt", "pg_service.conf"}


def test_with_a_store_there_is_only_a_reference(params: dict[str, t.Any]) -> None:
    run(params)
    outcome = run(params, secret_store=STORE)
    assert outcome.result["routes"]["roles"][0]["password"] == "referenced"
    everything = "".join(path.read_text() for path in folder(params).iterdir())
    assert PASSWORD not in everything and encode(PASSWORD) not in everything
    assert not {"secret.yml", "pgpass"} & {path.name for path in folder(params).iterdir()}
    assert "property password of apps/" in (folder(params) / "database.env").read_text()
    manifest = yaml.safe_load((folder(params) / "external_secret.yml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("external-secrets.io/v1", "ExternalSecret")
    assert manifest["spec"]["secretStoreRef"] == {"name": "vault", "kind": "ClusterSecretStore"}
    assert manifest["spec"]["data"] == [{"secretKey": "password", "remoteRef": {"key": f"apps/{USER}", "property": "password"}}]
    values = manifest["spec"]["target"]["template"]["data"]
    # The operator's template, filled in by hand with what its functions give.
    filled = values["DATABASE_URL"].replace(plan.TEMPLATE_URL, encode(PASSWORD))
    assert psycopg2.extensions.parse_dsn(filled)["password"] == PASSWORD
    assert values["pgpass"].splitlines()[0].endswith(":" + plan.TEMPLATE_PASSFILE)


def test_what_is_no_template_is_not_taken_for_one(params: dict[str, t.Any]) -> None:
    run(params, secret_store=STORE, database="a{{b")
    manifest = yaml.safe_load((folder(params) / "external_secret.yml").read_text())
    assert 'dbname=a{{ "{{" }}b\n' in manifest["spec"]["target"]["template"]["data"]["pg_service.conf"]


def test_old_values_are_kept_whatever_comes_later(params: dict[str, t.Any]) -> None:
    assert run(params, keep=True).changed
    before = {path.name: path.read_text() for path in folder(params).iterdir()}
    again = run(
        params, keep=True, read_endpoint={"hosts": ["elsewhere"], "port": 1}, roles=[{"name": USER, "password": None}, {"name": "late", "password": None}]
    )
    assert {path.name: path.read_text() for path in folder(params).iterdir()} == before
    assert folder(params, "late").is_dir(), "a role that comes later gets its own"
    first, late = again.result["routes"]["roles"]
    assert (first["password"], first["as_declared"], late["as_declared"]) == ("written", False, True)
    assert run(params, keep=True).result["routes"]["roles"][0]["as_declared"]


def test_a_folder_that_a_killed_run_left_half_is_completed(params: dict[str, t.Any]) -> None:
    run(params, keep=True)
    (folder(params) / "database.env").unlink()
    (folder(params) / "pg_service.conf").write_text("half")
    assert run(params, keep=True).changed
    assert "[read]" in (folder(params) / "pg_service.conf").read_text() and (folder(params) / "database.env").exists()


def forms(password: str) -> list[str]:
    """A password as it stands in the files."""
    url = f"postgresql://{encode(USER)}:{encode(password)}@"
    return [password, encode(password), escape(password), base64.b64encode(url.encode()).decode()[:60]]


def test_a_diff_shows_no_secret_old_or_new(params: dict[str, t.Any]) -> None:
    old = "the-old:one"
    run(params, roles=[{"name": USER, "password": old}])
    (folder(params) / "pgpass").write_text((folder(params) / "pgpass").read_text() + "garbage with s3cret\n")
    with open(folder(params) / "database.env", "a", encoding="utf-8") as handle:
        handle.write("OTHER=s3cret\nMORE='postgresql://a:s3cret@b@c/d'\n# s3cret\n")
    outcome = run(params, check_mode=True)
    text = f"{outcome.before}{outcome.after}{outcome.result}"
    for form in [*forms(PASSWORD), *forms(old), "s3cret"]:
        assert form not in text, form
    assert f"DATABASE_URL='postgresql://{encode(USER)}:********@lb1:6432,lb2:6432/" in outcome.before
    assert "(what is masked differs)" in outcome.after, "a change of the password alone is seen to be one"


def test_a_diff_of_a_first_run_shows_what_comes(params: dict[str, t.Any]) -> None:
    outcome = run(params, check_mode=True, namespace="shop")
    assert "[write]\nhost=lb1,lb2\n" in outcome.after and "  namespace: shop\n" in outcome.after and "(absent)" in outcome.before
    assert not [form for form in forms(PASSWORD) if form in f"{outcome.before}{outcome.after}"]
    data = [line for line in outcome.after.splitlines() if line.startswith("  DATABASE_URL: ")]
    assert data == ["  DATABASE_URL: '********'"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"write_variable": "DB-URL"}, "'DB-URL' is no name of an environment variable"),
        ({"read_variable": "DATABASE_URL"}, "cannot both be DATABASE_URL"),
        ({"roles": [{"name": "a\nb", "password": None}]}, r"The role 'a\nb' cannot be written"),
        ({"roles": [{"name": "a ", "password": None}]}, "The role 'a ' cannot be written"),
        ({"roles": [{"name": "a", "password": ""}]}, "The password of role a is empty"),
        ({"roles": [{"name": "a", "password": "s3\ncret"}]}, "The password of role a is empty or has a line break"),
        ({"roles": [{"name": "a b", "password": None}, {"name": "a_b", "password": None}]}, "The roles a b and a_b would share the Secret move-2027-a-b"),
        ({"database": ""}, "The database '' cannot be written"),
        ({"ca_files": ["/nowhere/ca.crt"]}, "The CA certificate /nowhere/ca.crt cannot be read: No such file or directory."),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_sentence(params: dict[str, t.Any], changed: dict[str, t.Any], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        run(params, **changed)
    assert words in refused.value.message and "s3" not in refused.value.message
    assert not pathlib.Path(params["directory"]).exists()


def test_a_key_is_no_authority(params: dict[str, t.Any], tmp_path: pathlib.Path) -> None:
    (tmp_path / "ca.crt").write_text(CERTIFICATE + "-----BEGIN PRIVATE KEY-----\n")
    with pytest.raises(UsageError, match="holds a key as well"):
        run(params)


def test_a_file_in_the_way_is_named(params: dict[str, t.Any]) -> None:
    pathlib.Path(params["directory"]).parent.write_text("")
    with pytest.raises(ClientError, match="cannot be (written|looked at): "):
        run(params)


def test_names_of_roles_lead_nowhere_else() -> None:
    assert [folder_name(name) for name in ("..", "a/../b", "a.b")] == ["%2E%2E", "a%2F%2E%2E%2Fb", "a%2Eb"]


def test_a_link_is_replaced_and_not_followed(params: dict[str, t.Any], tmp_path: pathlib.Path) -> None:
    run(params)
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    (folder(params) / "database.env").unlink()
    (folder(params) / "database.env").symlink_to(victim)
    assert run(params).changed
    assert victim.read_text() == "as it was" and not os.path.islink(folder(params) / "database.env")


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_what_follows_an_unusual_end_of_a_line_in_a_password_is_not_shown(end: str) -> None:
    assert plan.shown(plan.PASSFILE, f"db:5432:freight:app:one{end}two\n") == [f"db:5432:freight:app:{plan.MASK}"]
