# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the load does: the application's writes. Pure text; every value follows from (client, seq)."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_AMOUNT = 97


@dataclass(frozen=True)
class LoadWorkload:
    """A row in the ledger, the same amount onto an account, and a read, in one transaction of two messages.

    The first message does the work and the second is COMMIT, so that a transaction is open between the two as in an
    application, and an outcome is unknown only when the connection broke at COMMIT.

    :param run: the run's name, plain
    :param ledger: qualified name of the ledger, (client, seq, account_id, amount, note)
    :param accounts: qualified name of the accounts, (id, balance)
    :param account_ids: the accounts to use
    :param statements: further statements of the application; one of them joins every ``statements_every``-th write.
        ``{client}``, ``{seq}`` and ``{account}`` in them are replaced.
    """

    run: str
    ledger: str
    accounts: str
    account_ids: tuple[int, ...]
    statements: tuple[str, ...] = ()
    statements_every: int = 10
    commit_answer: str = field(default="COMMIT", init=False)

    def amounts(self, client: int, seq: int) -> tuple[int, int]:
        """The account and the amount of a write."""
        return self.account_ids[(client * 7919 + seq * 104729) % len(self.account_ids)], 1 + (client * 31 + seq) % MAX_AMOUNT

    def steps(self, client: int, seq: int) -> tuple[str, ...]:
        """The work, then COMMIT."""
        account, amount = self.amounts(client, seq)
        return (
            f"BEGIN; INSERT INTO {self.ledger} (client, seq, account_id, amount, note) VALUES ({client}, {seq}, {account}, {amount}, '{self.note}'); "
            f"UPDATE {self.accounts} SET balance = balance + {amount} WHERE id = {account}; "
            f"{self._statement(client, seq, account)}SELECT balance FROM {self.accounts} WHERE id = {account}",
            "COMMIT",
        )

    def _statement(self, client: int, seq: int, account: int) -> str:
        if not self.statements or (seq + client) % self.statements_every:
            return ""
        statement = self.statements[(seq + client) // self.statements_every % len(self.statements)]
        return statement.replace("{client}", str(client)).replace("{seq}", str(seq)).replace("{account}", str(account)) + "; "

    @property
    def note(self) -> str:
        """What marks the run's rows."""
        return f"load {self.run}"

    def look(self, client: int, seq: int) -> str:
        """Whether a write is there."""
        return f"SELECT count(*), pg_is_in_recovery() FROM {self.ledger} WHERE client = {client} AND seq = {seq}"

    def rows(self, first_seq: int) -> str:
        """Every row of the run."""
        return f"SELECT client, seq FROM {self.ledger} WHERE seq >= {first_seq} AND note = '{self.note}'"


def read_statements(text: str) -> tuple[str, ...]:
    """One statement per line; empty lines and ``--`` comments are left out."""
    lines = (line.strip().rstrip(";") for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("--"))
