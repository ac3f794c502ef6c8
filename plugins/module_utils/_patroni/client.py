# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Patroni's REST API: the only place that speaks to it."""

from __future__ import annotations

import typing as t

from .._core.errors import ClientError
from .._core.http import Answer, request
from .model import Cluster, Member, Running, cluster_of, running_of


def patroni_argument_spec() -> dict[str, t.Any]:
    """The options that every module with a Patroni cluster shares (doc fragment ``patroni``)."""
    return {
        "urls": {"type": "list", "elements": "str", "required": True},
        "ca_file": {"type": "path"},
        "username": {"type": "str"},
        "password": {"type": "str", "no_log": True},
        "request_timeout_seconds": {"type": "int", "default": 10},
    }


class PatroniClient:
    """A cluster behind the REST addresses of its members.

    :param urls: ``https://host:8008`` of as many members as are known; asked in order until one answers
    :param read_only: raise on every write (check mode's second fence)
    """

    def __init__(
        self,
        urls: list[str],
        *,
        ca_file: str | None = None,
        username: str | None = None,
        password: str | None = None,
        request_timeout_seconds: float = 10.0,
        read_only: bool = False,
    ) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._ca_file = ca_file
        self._username = username
        self._password = password
        self._timeout_seconds = request_timeout_seconds
        self._read_only = read_only

    @classmethod
    def open(cls, params: dict[str, t.Any], read_only: bool) -> PatroniClient:
        """A client from a module's options."""
        return cls(
            params["urls"],
            ca_file=params["ca_file"],
            username=params["username"],
            password=params["password"],
            request_timeout_seconds=params["request_timeout_seconds"],
            read_only=read_only,
        )

    def read_cluster(self) -> Cluster:
        """GET /cluster of the first member that answers.

        :raises ClientError: none answers, or not like Patroni
        """
        answer = self._read("/cluster")
        return cluster_of(answer.mapping(), answer.url)

    def read_config(self) -> dict[str, t.Any]:
        """GET /config: the dynamic configuration.

        :raises ClientError: none answers, or there is no configuration yet
        """
        return self._read("/config").mapping()

    def read_running(self, member: Member) -> Running:
        """GET /patroni of that member itself.

        :raises ClientError: it does not answer, or PostgreSQL does not run there
        """
        url = f"{self._base(member)}/patroni"
        return running_of(request(url, ca_file=self._ca_file, timeout_seconds=self._timeout_seconds).mapping(), url)

    def patch_config(self, patch: dict[str, t.Any]) -> dict[str, t.Any]:
        """PATCH /config at the first member that answers; returns the configuration afterwards.

        :raises ClientError: refused or unreachable
        """
        base = self._read("/cluster").url.removesuffix("/cluster")
        return self._write("PATCH", f"{base}/config", patch).mapping()

    def switchover(self, leader: Member, candidate: str, timeout_seconds: float) -> None:
        """POST /switchover at the leader; returns when Patroni says that it is done.

        :raises ClientError: refused, or no answer (then nobody knows: read the cluster)
        """
        self._write("POST", f"{self._base(leader)}/switchover", {"leader": leader.name, "candidate": candidate}, timeout_seconds)

    def restart(self, member: Member, timeout_seconds: float) -> None:
        """POST /restart at that member, if it still has one pending.

        :raises ClientError: refused or no answer
        """
        self._write("POST", f"{self._base(member)}/restart", {"restart_pending": True}, timeout_seconds)

    def reinitialize(self, member: Member, timeout_seconds: float) -> None:
        """POST /reinitialize at that member: its data is thrown away and copied from the leader.

        :raises ClientError: refused or no answer
        """
        self._write("POST", f"{self._base(member)}/reinitialize", {"force": True}, timeout_seconds)

    def _base(self, member: Member) -> str:
        base = member.api_url.removesuffix("/patroni")
        # The password goes only to a member that proves itself by TLS where our own addresses do.
        if not base.startswith(("https://", "http://")) or (self._urls[0].startswith("https://") and not base.startswith("https://")):
            raise ClientError(f"Member {member.name} announces the REST address {member.api_url!r}, which cannot be used; set restapi.connect_address on it.")
        return base

    def _read(self, path: str) -> Answer:
        failures: list[str] = []
        for url in self._urls:
            try:
                answer = request(f"{url}{path}", ca_file=self._ca_file, timeout_seconds=self._timeout_seconds)
            except ClientError as error:
                failures.append(error.message)
                continue
            if answer.status == 200:
                return answer
            failures.append(f"{answer.url} answered {answer.status}.")
        raise ClientError(f"No member of the Patroni cluster gave {path}. {' '.join(failures)}")

    def _write(self, method: str, url: str, body: dict[str, t.Any], timeout_seconds: float | None = None) -> Answer:
        if self._read_only:
            raise ClientError(f"{method} {url} was refused: this client may only read.")
        answer = request(
            url,
            method,
            body=body,
            ca_file=self._ca_file,
            username=self._username,
            password=self._password,
            timeout_seconds=timeout_seconds or self._timeout_seconds,
        )
        if answer.status in (401, 403):
            raise ClientError(f"{url} refused the credentials ({answer.status}); give the username and password of Patroni's restapi.authentication.")
        if answer.status not in (200, 202):
            raise ClientError(f"{method} {url} was answered with {answer.status}: {' '.join(answer.text.split())[:300]}")
        return answer
