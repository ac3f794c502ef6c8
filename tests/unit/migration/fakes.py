# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pooler that is made of two values, and what speaks to it."""

from __future__ import annotations

import time

ENDPOINTS = {"source": ("old", 5432), "target": ("new", 5000)}


class PoolerState:
    """What PgBouncer would show: where the database leads, and whether it is paused."""

    def __init__(self):
        self.side = "source"
        self.paused = False
        self.refuses_pause = False
        self.log = []


class Console:
    """A console of it: as much of a connection as client.query needs."""

    notices: list[str] = []

    def __init__(self, state):
        self.state = state

    def cursor(self):
        return ConsoleCursor(self.state)

    def close(self):
        pass


class ConsoleCursor:
    def __init__(self, state):
        self.state, self.description, self.rows = state, None, []

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        return None

    def execute(self, statement, parameters=None):
        verb = statement.split()[0]
        self.state.log.append(statement)
        if verb == "PAUSE":
            if self.state.refuses_pause:
                time.sleep(30)
            self.state.paused = True
        elif verb == "SHOW":
            host, port = ENDPOINTS[self.state.side]
            if statement == "SHOW CONFIG":
                self._answer({"key": "pool_mode", "value": "transaction"})
                return
            row = {"name": "app", "host": host, "port": port, "pool_mode": "transaction", "paused": int(self.state.paused)}
            self._answer(row)

    def _answer(self, row):
        self.description = [type("Column", (), {"name": name}) for name in row]
        self.rows = [tuple(row.values())]

    def fetchall(self):
        return self.rows


class FakePooler:
    def __init__(self, state):
        self.state = state

    def warm(self):
        pass

    def placed_side(self):
        return self.state.side

    def turn(self, side):
        self.state.side = side

    def resume(self, beside_guard=True):
        was, self.state.paused = self.state.paused, False
        return was
