# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""etcd's authentication through its JSON gateway. https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/"""

from __future__ import annotations

import base64
import typing as t

from .._core.errors import ClientError
from .._core.http import Answer, request


def range_end_of(prefix: str) -> str:
    """The key after the last key with this prefix: what etcd wants beside a prefix."""
    raw = bytearray(prefix.encode())
    raw[-1] += 1
    return raw.decode()


class EtcdClient:
    """A cluster behind its members' client addresses.

    :param urls: asked in order until one answers
    :param read_only: raise on every write (check mode's second fence)
    """

    def __init__(self, urls: list[str], *, ca_file: str | None = None, request_timeout_seconds: float = 10.0, read_only: bool = False) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._ca_file = ca_file
        self._timeout_seconds = request_timeout_seconds
        self._read_only = read_only
        self._token: str | None = None

    def log_in(self, name: str, password: str) -> bool | None:
        """Whether the password is right, None while authentication is off; further calls are made as this user.

        :raises ClientError: etcd answers with something else than yes or no
        """
        answer = self._ask("auth/authenticate", {"name": name, "password": password})
        if answer.status == 200:
            self._token = str(answer.mapping().get("token", ""))
            return True
        if "authentication is not enabled" in answer.text:
            return None
        if "authentication failed" in answer.text or "invalid user" in answer.text:
            return False
        raise _refusal("auth/authenticate", answer)

    def status(self) -> tuple[str, str]:
        """The member's own id and that of the leader that it follows (``0`` while there is none); needs no login.

        :raises ClientError: no answer, or not like etcd's
        """
        answer = self._call("maintenance/status", {})
        header = answer.get("header")
        if not isinstance(header, dict) or "member_id" not in header:
            raise ClientError("etcd did not answer maintenance/status as it is documented: there is no member_id.")
        return str(header["member_id"]), str(answer.get("leader", "0"))

    def users(self) -> list[str]:
        """Names of the users."""
        return list(self._call("auth/user/list", {}).get("users", []))

    def roles(self) -> list[str]:
        """Names of the roles."""
        return list(self._call("auth/role/list", {}).get("roles", []))

    def roles_of(self, user: str) -> list[str]:
        """Roles of a user."""
        return list(self._call("auth/user/get", {"name": user}).get("roles", []))

    def prefixes_of(self, role: str) -> list[tuple[str, str, str]]:
        """Permission type, key and range end of each permission of a role."""
        permissions = self._call("auth/role/get", {"role": role}).get("perm", [])
        return [(perm.get("permType", "READ"), _decode(perm.get("key", "")), _decode(perm.get("range_end", ""))) for perm in permissions]

    def write(self, path: str, body: dict[str, t.Any]) -> None:
        """One change.

        :raises ClientError: refused, or no answer
        """
        if self._read_only:
            raise ClientError(f"{path} was refused: this client may only read.")
        self._call(path, body)

    def _call(self, path: str, body: dict[str, t.Any]) -> dict[str, t.Any]:
        answer = self._ask(path, body)
        if answer.status != 200:
            raise _refusal(path, answer)
        return answer.mapping()

    def _ask(self, path: str, body: dict[str, t.Any]) -> Answer:
        failures: list[str] = []
        headers = {"Authorization": self._token} if self._token else {}
        for url in self._urls:
            try:
                return request(f"{url}/v3/{path}", "POST", body=body, headers=headers, ca_file=self._ca_file, timeout_seconds=self._timeout_seconds)
            except ClientError as error:
                failures.append(error.message)
        raise ClientError(f"No member of the etcd cluster answered {path}. {' '.join(failures)}")


def encode(key: str) -> str:
    """A key as the gateway wants it."""
    return base64.b64encode(key.encode()).decode()


def _decode(key: str) -> str:
    return base64.b64decode(key).decode("utf-8", "replace")


def _refusal(path: str, answer: Answer) -> ClientError:
    return ClientError(f"etcd refused {path} with {answer.status}: {' '.join(answer.text.split())[:200]}")
