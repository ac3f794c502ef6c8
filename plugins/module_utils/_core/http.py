# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""HTTP with bounds: a server that hangs, drips, redirects or answers garbage becomes one ClientError."""

from __future__ import annotations

import json
import threading
import time
import typing as t
from dataclasses import dataclass
from urllib.error import HTTPError

from ansible.module_utils.urls import open_url

from .errors import ClientError

# No answer of the APIs that we speak to is larger; what is, is not that API.
BODY_LIMIT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """What a server said.

    :param status: HTTP status
    :param text: body, decoded
    :param url: what was asked
    """

    status: int
    text: str
    url: str

    def json(self) -> t.Any:
        """The body as data.

        :raises ClientError: it is not JSON
        """
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError) as error:
            raise ClientError(f"{self.url} answered {self.status} with something that is not JSON: {self.text[:80]!r}.") from error

    def mapping(self) -> dict[str, t.Any]:
        """The body as a mapping.

        :raises ClientError: it is something else
        """
        data = self.json()
        if not isinstance(data, dict):
            raise ClientError(f"{self.url} answered {self.status} with {type(data).__name__} where a mapping was expected.")
        return data


# How much later than the socket's own bound a whole exchange is given up.
GRACE_SECONDS = 0.5


def request(
    url: str,
    method: str = "GET",
    *,
    body: t.Any = None,
    headers: dict[str, str] | None = None,
    ca_file: str | None = None,
    username: str | None = None,
    password: str | None = None,
    timeout_seconds: float = 10.0,
) -> Answer:
    """Ask once; follows no redirect, uses no proxy.

    :param body: sent as JSON when not None
    :param timeout_seconds: bound of the whole exchange
    :raises ClientError: no answer came, it came too slowly, or it is a redirect
    """
    ended: list[Answer | ClientError] = []

    def ask() -> None:
        try:
            ended.append(_ask(url, method, body, headers, ca_file, username, password, timeout_seconds))
        except ClientError as error:
            ended.append(error)

    # The library bounds each wait for a byte, and a resolver or a server that sends its head byte by byte knows no other bound than this one.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout_seconds + GRACE_SECONDS)
    if not ended:
        raise ClientError(f"{url} did not finish its answer within {timeout_seconds:g} s.")
    if isinstance(ended[0], ClientError):
        raise ended[0]
    return ended[0]


def _ask(
    url: str,
    method: str,
    body: t.Any,
    headers: dict[str, str] | None,
    ca_file: str | None,
    username: str | None,
    password: str | None,
    timeout_seconds: float,
) -> Answer:
    deadline = time.monotonic() + timeout_seconds
    sent = None if body is None else json.dumps(body)
    try:
        response = open_url(
            url,
            method=method,
            data=sent,
            headers={"Content-Type": "application/json", **(headers or {})},
            ca_path=ca_file,
            url_username=username,
            url_password=password,
            force_basic_auth=username is not None,
            timeout=timeout_seconds,
            follow_redirects="none",
            use_proxy=False,
            http_agent="freight.pg_ha",
        )
        status = int(response.status)
    except HTTPError as error:
        response, status = error, int(error.code)
    except Exception as error:  # open_url lets through whatever urllib, ssl and the resolver raise
        raise ClientError(f"No answer from {url}: {_explain(error)}.") from error
    if 300 <= status < 400:
        raise ClientError(f"{url} answered with a redirect ({status}), which is not followed; give the address of the API itself.")
    return Answer(status, _read(response, deadline, url, timeout_seconds), url)


def _read(response: t.Any, deadline: float, url: str, timeout_seconds: float) -> str:
    chunks: list[bytes] = []
    size = 0
    try:
        while True:
            chunk = response.read1(65536) if hasattr(response, "read1") else response.read(65536)
            if not chunk:
                break
            chunks.append(chunk)
            size += len(chunk)
            if size > BODY_LIMIT_BYTES:
                raise ClientError(f"{url} sent more than {BODY_LIMIT_BYTES} bytes; that is not the API.")
            if time.monotonic() > deadline:
                raise ClientError(f"{url} did not finish its answer within {timeout_seconds:g} s.")
    except ClientError:
        raise
    except Exception as error:  # a connection that breaks in the middle raises one of a dozen types
        raise ClientError(f"The answer of {url} broke off: {_explain(error)}.") from error
    finally:
        response.close()
    return b"".join(chunks).decode("utf-8", "replace")


def _explain(error: Exception) -> str:
    return " ".join(str(getattr(error, "reason", None) or error or type(error).__name__).split()).rstrip(".")
