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
import stringprep
import unicodedata

ITERATIONS = 4096


def verifier(password: str, salt: bytes) -> str:
    """The verifier of a password (pure).

    Both sides of a migration need the same one, so that a pooler can pass a client's proof on to either; the caller gives the salt.

    :param password: what clients give; as they do, it is prepared by SASLprep
    :param salt: 16 bytes
    """
    salted = hashlib.pbkdf2_hmac("sha256", _prepare(password).encode(), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${ITERATIONS}:{_encode(salt)}${_encode(stored)}:{_encode(server)}"


def _prepare(password: str) -> str:
    """SASLprep (RFC 4013) as libpq and the server apply it: a password that it forbids is taken as it is."""
    mapped = "".join(" " if stringprep.in_table_c12(one) else one for one in password if not stringprep.in_table_b1(one))
    prepared = unicodedata.normalize("NFKC", mapped)
    right = [stringprep.in_table_d1(one) for one in prepared]
    mixed = any(right) and (not right[0] or not right[-1] or any(map(stringprep.in_table_d2, prepared)))
    forbidden = (
        stringprep.in_table_a1, stringprep.in_table_c12, stringprep.in_table_c21_c22, stringprep.in_table_c3, stringprep.in_table_c4,
        stringprep.in_table_c5, stringprep.in_table_c6, stringprep.in_table_c7, stringprep.in_table_c8, stringprep.in_table_c9,
    )  # fmt: skip
    if not prepared or mixed or any(table(one) for one in prepared for table in forbidden):
        return password
    return prepared


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()


def stable_salt(*parts: str) -> bytes:
    """A salt of 16 bytes that is the same whenever the parts are: a second run must see that nothing changed (pure)."""
    return hashlib.sha256("\0".join(parts).encode()).digest()[:16]
