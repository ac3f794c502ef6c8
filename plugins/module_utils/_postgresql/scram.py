# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""SCRAM-SHA-256 verifiers, so that no password is ever in a statement that a server may log.

RFC 5802 section 3 (SaltedPassword, StoredKey, ServerKey) with SHA-256 after RFC 7677; the form
``SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`` is that of PostgreSQL's pg_authid,
https://www.postgresql.org/docs/current/catalog-pg-authid.html
"""

from __future__ import annotations

import base64
import hashlib
import hmac

ITERATIONS = 4096


def verifier(password: str, salt: bytes, iterations: int = ITERATIONS) -> str:
    """The verifier of a password (pure).

    Both sides of a migration need the same one, so that a pooler can pass a client's proof on to either; the caller gives the salt.

    :param password: printable ASCII (others would need SASLprep)
    :param salt: 16 bytes
    """
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${iterations}:{_encode(salt)}${_encode(stored)}:{_encode(server)}"


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()


def proves(text: str | None, role: str, password: str) -> bool:
    """Whether a password is the one that a role's stored verifier was made of (pure)."""
    if text is None or not text.startswith("SCRAM-SHA-256$"):
        return text == "md5" + hashlib.md5(f"{password}{role}".encode(), usedforsecurity=False).hexdigest()
    iterations, salt = text.split("$")[1].split(":")
    return hmac.compare_digest(verifier(password, base64.b64decode(salt), int(iterations)), text)


def stable_salt(*parts: str) -> bytes:
    """A salt of 16 bytes that is the same whenever the parts are: a second run must see that nothing changed (pure)."""
    return hashlib.sha256("\0".join(parts).encode()).digest()[:16]


def stable_verifier(scope: str, role: str, password: str) -> str:
    """The verifier of a role of ours: the same on both sides, and in every run (pure).

    :param scope: what the role belongs to
    """
    return verifier(password, stable_salt(scope, role))


MARK = "freight.pg_ha verifier "
# Whether the session may read verifiers, as text for SELECT.
READABLE = "has_table_privilege('pg_catalog.pg_authid', 'SELECT')"


def mark(text: str | None) -> str:
    """Comment of a role that says which verifier it was given, on a server that shows nobody what it has (pure).

    Everybody may read a comment. A SCRAM verifier has a random salt, so that its digest tells nobody anything. Of what has none only the method is told, which
    makes no two of them equal (:data:`UNTOLD`).

    :param text: the verifier; None for no password
    """
    told = text or ""
    return MARK + hashlib.sha256((told if told.startswith("SCRAM-") else told[:3]).encode()).hexdigest()


# The mark of every md5 password.
UNTOLD = mark("md5")
