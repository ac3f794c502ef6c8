# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure parts: what serves, where sequences go, which statements a schema and a role need."""

from __future__ import annotations

import hashlib
import types
from dataclasses import replace

import pytest
from ansible_collections.freight.pg_ha.plugins.module_utils._core.errors import GateError, UsageError
from ansible_collections.freight.pg_ha.plugins.module_utils._migration import cutover, decision, gates, guards, roles, schema, sequences
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql import scram
from ansible_collections.freight.pg_ha.plugins.module_utils._postgresql.sequences import Sequence


@pytest.mark.parametrize(
    ("histories", "serves"),
    [
        ([], "source"),
        ([[], []], "source"),
        ([[(1, "target")], []], "target"),
        ([[], [(1, "target")]], "target"),
        ([[(1, "source")], []], "source"),
        ([[(1, "source"), (2, "target")], []], "target"),
        ([[(1, "target"), (2, "source")], [(1, "target"), (2, "source")]], "source"),
    ],
)
def test_the_newest_epoch_says_who_serves(histories, serves):
    assert decision.plan_serving(*histories) == serves


def sequence(last, *, low=1, high=2**63 - 1, step=1, cycle=False):
    """None: never used."""
    return Sequence("s", 1 if last is None else last, 1, step, low, high, cycle, called=last is not None)


def waiting(first, **options):
    """A sequence whose next number was set and not handed out yet."""
    return replace(sequence(first, **options), called=False)


@pytest.mark.parametrize(
    ("here", "there", "margin", "moves"),
    [
        (sequence(10), sequence(10), 0, {}),
        (sequence(10), sequence(9), 0, {"s": (10, True)}),
        (sequence(10), sequence(None), 0, {"s": (10, True)}),
        (sequence(10), sequence(11), 0, {}),
        (sequence(None), sequence(None), 100, {}),
        (sequence(None), sequence(7), 100, {}),
        (sequence(10), sequence(10), 100, {"s": (110, True)}),
        (sequence(10), sequence(200), 100, {}),
        (sequence(-10, low=-(2**63), high=-1, step=-1), sequence(-9, low=-(2**63), high=-1, step=-1), 0, {"s": (-10, True)}),
        (sequence(-10, low=-(2**63), high=-1, step=-1), sequence(-11, low=-(2**63), high=-1, step=-1), 0, {}),
        (sequence(30000, high=32767), sequence(30000, high=32767), 5000, {"s": (30002, True)}),
        (sequence(32767, high=32767), sequence(32767, high=32767), 5000, {}),
        (sequence(3, high=5, cycle=True), sequence(5, high=5, cycle=True), 100, {"s": (3, True)}),
        (sequence(3, high=5, cycle=True), sequence(3, high=5, cycle=True), 100, {}),
        (sequence(100, step=10), sequence(100, step=10), 3, {"s": (130, True)}),
        (waiting(1000), sequence(20), 100, {"s": (1000, False)}),
        (waiting(1000), sequence(None), 0, {"s": (1000, False)}),
        (waiting(1000), waiting(1000), 100, {}),
        (waiting(1000), sequence(999), 100, {}),
        (waiting(1000), sequence(998), 100, {"s": (1000, False)}),
        (waiting(5), sequence(20), 100, {}),  # forward only: who began anew goes on behind what was handed out
        (sequence(20), waiting(20), 0, {"s": (20, True)}),
        (sequence(20), waiting(21), 0, {}),
        (waiting(-50, low=-100, high=-1, step=-1), sequence(-20, low=-100, high=-1, step=-1), 0, {"s": (-50, False)}),
        (waiting(-50, low=-100, high=-1, step=-1), sequence(-50, low=-100, high=-1, step=-1), 0, {}),
        (waiting(2, high=5, cycle=True), sequence(5, high=5, cycle=True), 100, {"s": (2, False)}),
        (waiting(2, high=5, cycle=True), sequence(1, high=5, cycle=True), 100, {}),
    ],
)
def test_sequences_only_move_forward_within_their_range(here, there, margin, moves):
    assert sequences.plan_sequences({"s": here}, {"s": there}, margin) == moves


def test_a_sequence_that_is_missing_there_stops():
    with pytest.raises(GateError, match="app.orders_id_seq"):
        sequences.plan_sequences({"app.orders_id_seq": sequence(1)}, {})


def test_a_schema_that_is_there_needs_nothing_and_its_guard_is_never_replaced():
    before = {"version": schema.VERSION, "tables": list(schema.TABLES), "one_open_epoch": True, "guard": True}
    assert schema.plan_schema(before) == []
    actions = [action.public for action in schema.plan_schema({**before, "guard": False})]
    assert actions == [schema.guard_function(schema.GuardPermissive())]


def test_the_password_of_a_role_is_in_no_public_form():
    before = {"exists": False, "quoted": "ha_migration_probe", "login": False, "verifier": None, "usage": False, "granted": []}
    actions = roles.plan_role(before, "ha_migration_probe", "s3cret:pass", "probe")
    assert [action.public for action in actions] == [
        "CREATE ROLE ha_migration_probe LOGIN",
        "ALTER ROLE ha_migration_probe PASSWORD '********'",
        "GRANT USAGE ON SCHEMA ha_migration TO ha_migration_probe",
        "GRANT SELECT, INSERT, DELETE ON ha_migration.probe TO ha_migration_probe",
    ]
    assert not any("s3cret" in action.statement or "SCRAM" in repr(action) for action in actions)


def test_a_role_that_is_right_needs_nothing():
    verifier = scram.verifier("word", scram.stable_salt(schema.SCHEMA, "p"))
    granted = [("probe", privilege) for privilege in roles.GRANTS["probe"]["probe"]]
    assert roles.plan_role({"exists": True, "quoted": "p", "login": True, "verifier": verifier, "usage": True, "granted": granted}, "p", "word", "probe") == []


def test_the_verifier_is_that_of_rfc_7677():
    # The exchange of RFC 7677 section 3: user "user", password "pencil", this salt; the server's signature there follows from this ServerKey.
    import base64
    import hashlib
    import hmac

    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    made = scram.verifier("pencil", salt)
    server_key = base64.b64decode(made.rsplit(":", 1)[1])
    message = (
        "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    signature = hmac.new(server_key, message.encode(), hashlib.sha256).digest()
    assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@pytest.mark.parametrize(
    "text", [scram.verifier("pencil", b"0123456789abcdef"), scram.verifier("pencil", b"salt", 10_000), "md5" + hashlib.md5(b"penciluser").hexdigest()]
)
def test_a_stored_password_is_recognised(text):
    assert scram.proves(text, "user", "pencil") and not scram.proves(text, "user", "pen") and not scram.proves(None, "user", "pencil")


def test_the_proof_quotes_names_inside_its_literals():
    assert "'app.\"o''clock\"'" in guards.for_each_table(['app."o\'clock"'], guards.proof())


VERIFIER = "SCRAM-SHA-256$4096:c2FsdA==$a2V5:a2V5"
GIVEN = scram.mark(VERIFIER)


@pytest.mark.parametrize(
    ("here", "there", "found"),
    [
        (("shown", VERIFIER), ("shown", VERIFIER), False),
        (("shown", VERIFIER), ("shown", "SCRAM-SHA-256$4096:b3RoZXI=$a2V5:a2V5"), True),
        (("shown", VERIFIER), ("hidden", GIVEN), False),  # a service: its role's comment says which one it was given
        (("hidden", GIVEN), ("shown", VERIFIER), False),  # and on the way back
        (("shown", VERIFIER), ("hidden", None), True),
        (("hidden", None), ("hidden", None), True),  # unknown is not equal
        (("hidden", "of the shop"), ("hidden", "of the shop"), True),  # nor is somebody's own comment a password
        (("shown", VERIFIER), ("hidden", scram.mark(None)), True),
        (("shown", None), ("hidden", scram.mark(None)), False),  # nobody logs in on either
        (("shown", "md5abc"), ("shown", "md5def"), True),
        (("shown", "md5abc"), ("hidden", scram.mark("md5def")), True),  # all of these have one mark
    ],
)
def test_a_password_that_is_not_known_to_be_the_same_stops_the_cutover(monkeypatch, here, there, found):
    monkeypatch.setattr(gates.client, "query_value", lambda side, _statement: side[0] == "shown")
    monkeypatch.setattr(gates.client, "query", lambda side, _statement, _roles: [{"role": "app", "name": "app", "verifier": side[1], "comment": side[1]}])
    context = types.SimpleNamespace(here=here, ahead=there, roles=["app"], serves="target", leaves="source", passwords={})
    failures = list(gates.passwords(context))
    assert [(one.gate, one.object) for one in failures] == ([("passwords", "app")] if found else [])


def test_passwords_come_from_a_file_or_there_are_none(tmp_path):
    file = tmp_path / "passwords.json"
    assert cutover.read_passwords(None) == {}
    with pytest.raises(UsageError, match=r"application_passwords_file .*passwords.json cannot be read: FileNotFoundError"):
        cutover.read_passwords(str(file))
    file.write_text('{"shop": "p\\u00e4ss"', encoding="utf-8")
    with pytest.raises(UsageError, match=r"cannot be read: JSONDecodeError\.") as error:
        cutover.read_passwords(str(file))
    assert "ss" not in error.value.message.replace("passwords", "")
    file.write_text('{"shop": "p\\u00e4ss"}', encoding="utf-8")
    assert cutover.read_passwords(str(file)) == {"shop": "päss"}
