# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""PgBouncer's admin console."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import typing as t

from .._core.errors import ClientError
from .._core.outcome import Action
from .._postgresql.client import connect_console, query, query_console
from .plan import PooledDatabase, databases_of


class PgbouncerClient:
    """The console of one pooler.

    :param service: a service's name in ``service_file``, ``pooler_<host>``
    :param read_only: raise on every write (check mode's second fence)
    :param connect: opens a console session; tests pass their own
    """

    def __init__(
        self, service_file: str, service: str, *, connect_timeout_seconds: int = 5, read_only: bool = False, connect: t.Callable[..., t.Any] = connect_console
    ) -> None:
        self.service = service
        self._open = lambda: connect(service_file, service, connect_timeout_seconds=connect_timeout_seconds)
        self._read_only = read_only
        self._connection: t.Any = None

    @classmethod
    def open(cls, params: dict[str, t.Any], read_only: bool) -> PgbouncerClient:
        """A client from a module's options."""
        return cls(params["service_file"], params["service"], connect_timeout_seconds=params["connect_timeout_seconds"], read_only=read_only)

    def read_databases(self) -> list[PooledDatabase]:
        """SHOW DATABASES and SHOW POOLS.

        :raises ClientError: the console cannot be reached, refuses us or answers something else
        """
        if self._connection is None:
            self._connection = self._open()
        try:
            return databases_of(query_console(self._connection, "SHOW DATABASES"), query_console(self._connection, "SHOW POOLS"))
        except ClientError:
            self._connection = None
            raise

    def apply(self, actions: list[Action], timeout_seconds: float) -> None:
        """Send PAUSE or RESUME; a PAUSE that does not finish in time is taken back.

        :raises ClientError: refused, or not finished in time (then clients go on as before)
        """
        for action in actions:
            if self._read_only:
                raise ClientError(f"{action.public} was refused: this client may only read.")
            self._send_bounded(action.statement, timeout_seconds)

    def _send_bounded(self, statement: str, timeout_seconds: float) -> None:
        waiting = self._open()
        failures: list[Exception] = []

        def send() -> None:
            try:
                query(waiting, statement)
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        thread.join(timeout_seconds)
        if thread.is_alive():
            self._take_back(waiting, thread, statement, timeout_seconds)
        with contextlib.suppress(Exception):
            waiting.close()
        if failures:
            failure = failures[0]
            raise failure if isinstance(failure, ClientError) else ClientError(f"{statement} at {self.service} failed: {failure}") from failure

    def _take_back(self, waiting: t.Any, thread: threading.Thread, statement: str, timeout_seconds: float) -> t.NoReturn:
        # The waiting console goes first: a RESUME beside a console that still waits in PAUSE leaves that one hanging.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(waiting.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        if statement.startswith("PAUSE"):
            rescue = self._open()
            query(rescue, statement.replace("PAUSE", "RESUME", 1))
            rescue.close()
        raise ClientError(
            f"{statement} at {self.service} did not finish within {timeout_seconds:g} s and was taken back, clients go on; "
            "look for long transactions and session pooling in SHOW POOLS, then try again."
        )
