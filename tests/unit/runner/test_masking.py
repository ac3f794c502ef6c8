# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets by the names of their variables, in every spelling, and nothing else masked."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pg_ha_runner.masking import MASK, Masker, secrets_of, spellings


@pytest.mark.parametrize(
    ("name", "value", "secrets"),
    [
        ("pg_ha_source_admin_password", "s3cret", ["s3cret"]),
        ("ansible_become_pass", "s3cret", ["s3cret"]),
        ("ansible_become_password", "s3cret", ["s3cret"]),
        ("AWS_SECRET_ACCESS_KEY", "s3cret", ["s3cret"]),
        ("DIGITALOCEAN_TOKEN", "s3cret", ["s3cret"]),
        ("api_key", 12345, ["12345"]),
        ("users", [{"name": "a", "password": "s3cret"}], ["s3cret"]),
        ("secrets", {"db": {"user": "u", "key": "k3y"}}, ["u", "k3y"]),
        ("pg_ha_vault_password_file", "/etc/vault", []),
        ("password_encryption", "scram-sha-256", []),
        ("patroni_password", "{{ lookup('env', 'X') }}", []),
        ("patroni_password", {"__ansible_unsafe": "a{{b}}c"}, ["a{{b}}c"]),
        ("token_ttl_seconds", 30, []),
        ("password", None, []),
        ("use_password", True, []),
        ("pg_ha_database", "freight", []),
    ],
)
def test_names_tell_secrets(name: str, value: object, secrets: list[str]) -> None:
    assert list(secrets_of(name, value)) == secrets


@pytest.mark.parametrize("secret", [r"""a:b\c'd"e%f@g{h} ü#""", "plain-secret", "two words", "tab\tand\nline"])
def test_every_spelling_is_masked(secret: str) -> None:
    masker = Masker([secret])
    for spelling in spellings(secret):
        assert masker.text(f"<{spelling}>") == f"<{MASK}>", spelling
    assert masker.data({secret: [secret, 1, None, {"a": f"x{secret}"}]}) == {MASK: [MASK, 1, None, {"a": f"x{MASK}"}]}


@settings(deadline=None)
@given(st.text(min_size=4, max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_a_secret_does_not_come_through_in_any_text(secret: str, before: str, after: str) -> None:
    if len(secret.strip()) == len(secret):
        assert secret not in Masker([secret]).text(before + secret + after) or secret in MASK


def test_a_secret_that_the_terminal_has_folded_is_masked() -> None:
    secret = "a-long-secret with spaces and-hyphens in it"
    for width in range(12, 60):
        folded = "\r\n".join(textwrap.wrap(f"The password is {secret} and so on", width))
        text = Masker([secret]).text(folded)
        assert "hyphens" not in text and "spaces" not in text, folded


def test_what_is_short_is_left_alone() -> None:
    assert Masker(["x", "abc", ""]).text("x abc") == "x abc"
    assert Masker([]).text("anything") == "anything"


def test_the_longer_of_two_secrets_is_masked_whole() -> None:
    assert Masker(["secret", "secret-and-more"]).text("secret-and-more") == MASK
