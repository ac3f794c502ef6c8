# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""What targets cost beside each other, and which one is recommended. Pure: no I/O, no clock.

The rule: a target qualifies when its cost is known and its time without service, measured or else promised, is within the declared one. Of those that
qualify the cheapest is recommended, of equally cheap ones the one that is without service for the shortest time. Prices in different currencies are not
compared. There are no prices here: whoever asks gives them with their source, and what nobody gives is not known.
"""

from __future__ import annotations

import datetime
import re
import typing as t
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from .._core.errors import UsageError

KINDS = ("patroni", "rds", "digitalocean")
KEYS = frozenset({"kind", "name", "monthly_cost", "prices", "rto_seconds_measured", "rto_seconds_promised", "notes"})
# The last two are in the result of rds_price_info.
COST_KEYS = frozenset({"amount", "currency", "source", "dated", "lines", "without"})
PRICE_KEYS = frozenset({"what", "quantity", "price", "currency", "source", "dated"})
NO_PRICE = "no price is given for it"
MOST = 10**9
Entry = t.Mapping[str, t.Any]


@dataclass(frozen=True)
class Cost:
    """What a target costs a month.

    :param amount: in the currency, not rounded
    :param currency: ISO 4217
    :param source: where the prices come from
    :param dated: ISO 8601, day of the oldest price; None where one has none
    :param lines: what it is the sum of, in words
    """

    amount: Decimal
    currency: str
    source: str
    dated: str | None
    lines: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """Exact to the cent."""
        return str(self.amount.quantize(Decimal("0.01"), ROUND_HALF_UP))


@dataclass(frozen=True)
class Target:
    """One of those that are compared.

    :param kind: one of :data:`KINDS`
    :param cost: None where it is not known
    :param reason: why not, a part of a sentence
    :param measured: longest time without service that was measured, seconds
    :param promised: the one that somebody promises, seconds
    """

    kind: str
    name: str
    cost: Cost | None = None
    reason: str = NO_PRICE
    measured: float | None = None
    promised: float | None = None
    notes: str = ""

    @property
    def rto(self) -> float | None:
        """The time without service that counts, seconds: what was measured says more than a promise."""
        return self.promised if self.measured is None else self.measured

    @property
    def title(self) -> str:
        """For sentences."""
        return f"{self.name} ({self.kind})"


def compare(targets: t.Sequence[Target], rto_seconds: t.Any) -> dict[str, t.Any]:
    """Rows in the order given, and the recommendation.

    :param rto_seconds: how long a target may be without service
    :raises UsageError: it is no number
    """
    declared = float(_number("The comparison", "rto_seconds", rto_seconds))
    return {"rows": [_row(target) for target in targets], "recommendation": recommend(targets, declared)}


def recommend(targets: t.Sequence[Target], rto_seconds: float) -> dict[str, t.Any]:
    """By the rule above: ``kind`` and ``name``, None where there is none, and ``reasons``, a sentence for every target."""
    fit = [(target, target.cost) for target in targets if target.cost is not None and not _hindrances(target, rto_seconds)]
    currencies = sorted({cost.currency for _target, cost in fit})
    best = None
    if not fit:
        first = f"No target is recommended: none has a known cost and is without service for {rto_seconds:g} s at most."
    elif len(currencies) > 1:
        first = f"No target is recommended: those that qualify have prices in {' and '.join(currencies)}, which are not compared."
    else:
        best, cost = min(fit, key=lambda one: (one[1].amount, one[0].rto or 0.0))
        first = (
            f"{best.title} is recommended: {cost.shown} {cost.currency} a month is the lowest known cost of a target that is without service for "
            f"{rto_seconds:g} s at most ({_rto(best)})."
        )
    others = [_why(target, rto_seconds) for target in targets if target is not best]
    return {"kind": best and best.kind, "name": best and best.name, "reasons": [first, *others]}


def _hindrances(target: Target, rto_seconds: float) -> list[str]:
    """Why it does not qualify, parts of a sentence."""
    found = [] if target.cost is not None else [f"its cost is not known, as {target.reason}"]
    if target.rto is None:
        found.append("its time without service is neither measured nor promised")
    elif target.rto > rto_seconds:
        found.append(f"its time without service is longer than {rto_seconds:g} s ({_rto(target)})")
    return found


def _why(target: Target, rto_seconds: float) -> str:
    hindrances = _hindrances(target, rto_seconds)
    if hindrances or target.cost is None:
        return f"{target.title} does not qualify: {'; '.join(hindrances)}."
    return f"{target.title} qualifies and costs {target.cost.shown} {target.cost.currency} a month ({_rto(target)})."


def _rto(target: Target) -> str:
    return f"{target.rto:g} s, {'promised and not measured' if target.measured is None else 'measured'}"


def _row(target: Target) -> dict[str, t.Any]:
    cost = target.cost
    return {
        "kind": target.kind,
        "name": target.name,
        "amount": cost and cost.shown,
        "currency": cost and cost.currency,
        "source": cost and cost.source,
        "dated": cost and cost.dated,
        "lines": list(cost.lines) if cost else [],
        "reason": None if cost else target.reason,
        "rto_seconds_measured": target.measured,
        "rto_seconds_promised": target.promised,
        "notes": target.notes,
    }


# --- what somebody wrote ---------------------------------------------------------------------------------------------------------


def read(entries: t.Sequence[Entry]) -> list[Target]:
    """Targets as an operator describes them.

    :raises UsageError: an entry is not understood; the sentence names it
    """
    return [_target(f"Compared target {number}", entry) for number, entry in enumerate(entries, 1)]


def _target(where: str, entry: Entry) -> Target:
    _known(where, entry, KEYS)
    kind = entry.get("kind")
    if kind not in KINDS:
        raise UsageError(f"{where} has {kind!r} as kind: choose one of {', '.join(KINDS)}.")
    name = _text(where, entry, "name")
    where = f"{where} ({name})"
    given, prices = entry.get("monthly_cost"), entry.get("prices")
    if given and prices:
        raise UsageError(f"{where} has both monthly_cost and prices: give one of them.")
    return Target(
        str(kind),
        name,
        cost=cost_of(where, given) if given else _sum(where, prices) if prices else None,
        measured=_seconds(where, entry, "rto_seconds_measured"),
        promised=_seconds(where, entry, "rto_seconds_promised"),
        notes=str(entry.get("notes") or ""),
    )


def cost_of(where: str, given: Entry) -> Cost:
    """A monthly cost as it is given, or as ``rds_price_info`` returns it.

    :param where: what has it, for messages
    :raises UsageError: it is not understood
    """
    where = f"{where}, monthly_cost,"
    _known(where, given, COST_KEYS)
    return Cost(_number(where, "amount", given.get("amount")), _currency(where, given), _text(where, given, "source"), _date(where, given))


def _sum(where: str, prices: t.Sequence[Entry]) -> Cost:
    amount, lines, currencies, sources, dates = Decimal(0), [], [], [], []
    for number, line in enumerate(prices, 1):
        here = f"{where}, price {number},"
        _known(here, line, PRICE_KEYS)
        what = _text(here, line, "what")
        quantity = _number(here, "quantity", 1 if line.get("quantity") is None else line["quantity"])
        price = _number(here, "price", line.get("price"))
        amount += quantity * price
        lines.append(f"{what}: {quantity.normalize():f} at {price:f}")
        currencies.append(_currency(here, line))
        sources.append(_text(here, line, "source"))
        dates.append(None if line.get("dated") is None else _date(here, line))
    if len(set(currencies)) > 1:
        raise UsageError(f"{where} has prices in {' and '.join(sorted(set(currencies)))}: give them in one currency.")
    known = [date for date in dates if date is not None]
    return Cost(amount, currencies[0], "; ".join(dict.fromkeys(sources)), min(known) if len(known) == len(dates) else None, tuple(lines))


def _known(where: str, entry: t.Any, keys: t.Collection[str]) -> None:
    if not isinstance(entry, t.Mapping):
        raise UsageError(f"{where} is {entry!r}: give a mapping with {', '.join(sorted(keys))}.")
    strange = sorted(str(key) for key in entry if key not in keys)
    if strange:
        raise UsageError(f"{where} has {', '.join(strange)}, which nothing reads: choose of {', '.join(sorted(keys))}.")


def _text(where: str, entry: Entry, key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{where} has {value!r} as {key}: give it as text.")
    return value.strip()


def _currency(where: str, entry: Entry) -> str:
    value = _text(where, entry, "currency")
    if not re.fullmatch(r"[A-Z]{3}", value):
        raise UsageError(f"{where} has {value!r} as currency: give its three letters, such as USD.")
    return value


def _date(where: str, entry: Entry) -> str:
    value = entry.get("dated")
    try:
        # YAML makes a date of what is not quoted.
        return datetime.date.fromisoformat(str(value)).isoformat()
    except ValueError:
        raise UsageError(f"{where} has {value!r} as dated: give the day of the price, such as 2026-10-06.") from None


def _seconds(where: str, entry: Entry, key: str) -> float | None:
    return None if entry.get(key) is None else float(_number(where, key, entry[key]))


def _number(where: str, key: str, value: t.Any) -> Decimal:
    """A number, also where it arrived as text."""
    try:
        number = Decimal("NaN") if isinstance(value, bool) else Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or not 0 <= number <= MOST:
        raise UsageError(f"{where} has {value!r} as {key}: give a number from 0 to {MOST}.")
    return number
