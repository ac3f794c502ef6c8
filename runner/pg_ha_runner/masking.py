# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Masks the values of known secrets in everything that is shown or kept (pure).

The second fence only: tasks that carry secrets say ``no_log``, and what ansible-runner writes of environment, command and events is
not kept at all. A secret is known by the name of its variable, in the inventory, in extra variables or in the environment.
"""

from __future__ import annotations

import base64
import json
import re
import typing as t
import urllib.parse

MASK = "********"
SECRET_NAME = re.compile(r"passw(?:or)?d|(?:^|_)pass$|passphrase|secret|token|credential|api_?key|access_key|private_key|vault", re.IGNORECASE)
# Where a secret is, or how long it lives, is none.
NO_SECRET_NAME = re.compile(r"_(?:file|files|path|dir|directory|seconds|length|user|name|encryption|method)$", re.IGNORECASE)
# What is shorter cannot be masked without destroying the text around it.
LEAST_LENGTH = 4
# How ansible-inventory writes a value that is no template whatever it holds.
UNSAFE = "__ansible_unsafe"


def secrets_of(name: str, value: t.Any, secret: bool = False) -> t.Iterator[str]:
    """The secret values in a variable, which may be a structure.

    :param secret: whether what holds it is named like a secret already
    """
    secret = (secret or bool(SECRET_NAME.search(name))) and not NO_SECRET_NAME.search(name)
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from secrets_of(str(key), inner, secret)
    elif isinstance(value, list):
        for inner in value:
            yield from secrets_of("", inner, secret)
    elif secret and value is not None and not isinstance(value, bool):
        text = str(value)
        if name == UNSAFE or "{{" not in text:
            yield text


def spellings(secret: str) -> set[str]:
    """How a value may be written: as it is, in JSON, in YAML, in a passfile, in a URL, in a shell, in base64."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
        secret.replace("'", "''"),
        secret.replace("'", "'\"'\"'"),
        re.sub(r"([\\:])", r"\\\1", secret),
        urllib.parse.quote(secret, safe=""),
        urllib.parse.quote_plus(secret),
        base64.b64encode(secret.encode()).decode(),
    }


class Masker:
    """Replaces every known secret, also where the terminal's width has folded it."""

    def __init__(self, secrets: t.Iterable[str]) -> None:
        words = {spelling for secret in secrets if len(secret) >= LEAST_LENGTH for spelling in spellings(secret)}
        folded = (_foldable(word) for word in sorted(words, key=len, reverse=True))
        self._pattern = re.compile("|".join(folded)) if words else None

    def text(self, text: str) -> str:
        """The text without secrets."""
        return self._pattern.sub(MASK, text) if self._pattern else text

    def data(self, value: t.Any) -> t.Any:
        """JSON-able data without secrets, in keys too."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self.data(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.data(inner) for inner in value]
        return value


def _foldable(word: str) -> str:
    """A pattern for a word between whose characters a line may break; white space in it may be any."""
    return r"(?:\r?\n[ \t]*)?".join(r"\s+" if character.isspace() else re.escape(character) for character in re.sub(r"\s+", " ", word))
