# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""SCRAM-SHA-256 verifiers (RFC 5803), so that a clear password never reaches a server or its log."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

ITERATIONS = 4096


def verifier(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """What PostgreSQL stores for a password: ``SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>``.

    The password is taken as it is: only ASCII passwords are safe, since SASLprep of others is left to libpq.

    :param salt: 16 random bytes when not given
    """
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${iterations}:{_encode(salt)}${_encode(stored)}:{_encode(server)}"


def matches(stored: str | None, password: str) -> bool:
    """Whether a stored verifier was made from this password; False for anything that is not a SCRAM verifier."""
    try:
        mechanism, parameters, _keys = (stored or "").split("$")
        iterations, salt = parameters.split(":")
        if mechanism != "SCRAM-SHA-256":
            return False
        return hmac.compare_digest(verifier(password, base64.b64decode(salt), int(iterations)), stored or "")
    except ValueError:
        return False


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
