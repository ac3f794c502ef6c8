# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Parameters of a group, held against the engine's own catalogue before any is sent. Pure: no I/O, no clock.

The catalogue is what DescribeDBParameters answers. It has no field for a parameter's unit: the description begins with it, as in ``(8kB) Sets the number
of shared memory buffers used by the server.``
"""

from __future__ import annotations

import math
import re
import typing as t
from dataclasses import dataclass

from .._core.outcome import Action
from .._core.problems import Problem
from .formula import NotAFormula, evaluate, is_formula
from .model import Described

STATIC = "static"
# ModifyDBParameterGroup, Parameters: at most so many in one request.
BATCH = 20
_UNIT = re.compile(r"\((8kB|kB|MB|B|ms|s|min)\)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|MB|GB|TB|us|ms|s|min|h|d)")
_BYTES = {"B": 1, "kB": 1024, "8kB": 8192, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}
_MILLISECONDS = {"us": 0.001, "ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_TRUE, _FALSE = {"1", "on", "true", "yes"}, {"0", "off", "false", "no"}
_RANGE = re.compile(r"(-?[\d.e+]+)-(-?[\d.e+]+)")
# No instance has less or more of anything, so what a formula comes to in between is what it will come to.
_LEAST = {"AllocatedStorage": 20, "DBInstanceClassMemory": 1024**3, "DBInstanceVCPU": 1, "EndPointPort": 1150, "TrueIfReplica": 0}
_MOST = {"AllocatedStorage": 65536, "DBInstanceClassMemory": 4096 * 1024**3, "DBInstanceVCPU": 448, "EndPointPort": 65535, "TrueIfReplica": 1}


class BadValue(ValueError):
    """A value that the parameter does not take: ``words`` says why, ``remedy`` what to do."""

    def __init__(self, words: str, remedy: str) -> None:
        super().__init__(words)
        self.words, self.remedy = words, remedy


@dataclass(frozen=True)
class Parameter:
    """A parameter of the catalogue.

    :param unit: in which the service counts it; None when it has none
    """

    name: str
    value: str | None
    set_here: bool
    static: bool
    kind: str
    allowed: str
    modifiable: bool
    unit: str | None

    @classmethod
    def of(cls, described: Described) -> Parameter:
        """From DescribeDBParameters."""
        unit = _UNIT.match(described.get("Description") or "")
        return cls(
            name=described["ParameterName"],
            value=described.get("ParameterValue"),
            set_here=described.get("Source") == "user",
            static=described.get("ApplyType") == STATIC,
            kind=described.get("DataType") or "string",
            allowed=described.get("AllowedValues") or "",
            modifiable=bool(described.get("IsModifiable")),
            unit=unit[1] if unit else None,
        )

    def public(self) -> dict[str, t.Any]:
        """For results."""
        return {name: getattr(self, name) for name in ("value", "set_here", "unit", "kind", "allowed", "static", "modifiable")}

    def normal(self, wanted: t.Any) -> str:
        """A value as the service keeps it.

        :raises BadValue: it does not take it
        """
        text = ",".join(map(str, wanted)) if isinstance(wanted, list) else str(wanted).strip()
        if self.kind == "boolean":
            return self._boolean(text.lower())
        if is_formula(text):
            self._check_formula(text)
            return text
        if self.kind in ("integer", "float"):
            text = self._number(text)
        self._check_allowed(text)
        return text

    def _boolean(self, text: str) -> str:
        if text in _TRUE | _FALSE:
            return "1" if text in _TRUE else "0"
        raise BadValue(f"{text!r} is neither on nor off", "give true or false")

    def _number(self, text: str) -> str:
        size = _SIZE.fullmatch(text)
        if size:
            return self._in_unit(float(size[1]), size[2])
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise BadValue(f"{text!r} is no number", f"give a number{f' of {self.unit}, or a size like 64MB' if self.unit else ''}")
        if self.kind == "integer" and number != int(number):
            raise BadValue(f"{text} is not whole", f"give a whole number{f' of {self.unit}' if self.unit else ''}")
        return str(int(number)) if number == int(number) else text

    def _in_unit(self, amount: float, unit: str) -> str:
        table = next((one for one in (_BYTES, _MILLISECONDS) if unit in one and self.unit in one), None)
        if table is None:
            counted = f"is counted in {self.unit}" if self.unit else "has no unit in the service's catalogue"
            raise BadValue(f"a value in {unit} does not fit, it {counted}", f"give a number{f' of {self.unit}' if self.unit else ''}")
        number = amount * table[unit] / table[t.cast(str, self.unit)]
        if not math.isfinite(number):
            raise BadValue(f"{amount:g}{unit} is no number", f"give a number{f' of {self.unit}' if self.unit else ''}")
        if number != int(number):
            raise BadValue(f"{amount:g}{unit} is {number:g} times {self.unit}, which is not whole", f"give a multiple of {self.unit}")
        return str(int(number))

    def _check_allowed(self, text: str) -> None:
        """Against ``16-1073741823`` (negative ends too), or ``a,b,c``."""
        bounds = _RANGE.fullmatch(self.allowed)
        if bounds and self.kind in ("integer", "float"):
            if not float(bounds[1]) <= float(text) <= float(bounds[2]):
                raise BadValue(f"{text} is not within {bounds[1]} and {bounds[2]}{f' ({self.unit})' if self.unit else ''}", "choose a value within")
        elif self.allowed and not bounds:
            choices = [one.strip() for one in self.allowed.split(",")]
            for one in text.split(",") if self.kind == "list" and text else [text]:
                if one.strip() not in choices:
                    raise BadValue(f"{one.strip()!r} is none of {', '.join(choices)}", "choose from them")

    def _check_formula(self, text: str) -> None:
        """Also against what no instance of any class has: a formula that forgets the unit asks for thousands of times its memory."""
        comes_to = []
        for variables in (_LEAST, _MOST):
            try:
                number = evaluate(text, variables)
            except NotAFormula as error:
                raise BadValue(f"{text!r} is no formula of RDS: {error}", "see Specifying DB parameters in the RDS User Guide") from error
            asked, memory = number * _BYTES.get(self.unit or "", 0), variables["DBInstanceClassMemory"]
            if asked > memory:
                raise BadValue(
                    f"{text} comes to {asked / memory:,.0f} times the memory of the instance, because the service counts {self.name} in {self.unit}",
                    f"divide by {_BYTES[t.cast(str, self.unit)]} more",
                )
            comes_to.append(number)
        bounds = _RANGE.fullmatch(self.allowed)
        if bounds and self.kind in ("integer", "float") and (min(comes_to) > float(bounds[2]) or max(comes_to) < float(bounds[1])):
            words = f"{text} comes to {min(comes_to):.0f} and more" if min(comes_to) > float(bounds[2]) else f"{text} comes to {max(comes_to):.0f} and less"
            raise BadValue(f"{words} on any instance, which is not within {bounds[1]} and {bounds[2]}", "give one that comes to a value within")

    def same(self, wanted: str) -> bool:
        """Whether the value stands already. A formula's blanks do not count."""
        return self.value is not None and self.value.replace(" ", "") == wanted.replace(" ", "")


@dataclass(frozen=True)
class ParameterChange:
    """One parameter that is not as wanted; ``after`` None: it goes back to the engine's own value."""

    parameter: Parameter
    after: str | None

    @property
    def action(self) -> Action:
        """For the operator."""
        before = "nothing" if self.parameter.value is None else self.parameter.value
        after = "the engine's own value" if self.after is None else self.after
        return Action(f"{self.parameter.name}: {before} -> {after}{' (at the next reboot)' if self.parameter.static else ''}")

    def request(self) -> dict[str, str]:
        """Of ModifyDBParameterGroup or ResetDBParameterGroup. A static parameter can only wait for a reboot."""
        found = {"ParameterName": self.parameter.name, "ApplyMethod": "pending-reboot" if self.parameter.static else "immediate"}
        return found if self.after is None else {**found, "ParameterValue": self.after}


def plan_parameters(wanted: t.Mapping[str, t.Any], catalogue: t.Iterable[Described]) -> tuple[list[ParameterChange], list[Problem]]:
    """What differs, and what the engine would not take: all of it together.

    :param wanted: by name; None has the engine's own value come back
    :param catalogue: of DescribeDBParameters
    """
    known = {one["ParameterName"]: Parameter.of(one) for one in catalogue}
    changes, problems = [], []
    for name, value in sorted(wanted.items()):
        parameter = known.get(name)
        if parameter is None:
            problems.append(
                Problem("value", name, f"parameters.{name}: this family has no such parameter", "look for its name in pg_settings, or leave it out")
            )
        elif value is None:
            if parameter.set_here:
                changes.append(ParameterChange(parameter, None))
        elif not parameter.modifiable:
            problems.append(Problem("value", name, f"parameters.{name} cannot be changed, the service keeps it itself", "leave it out"))
        else:
            try:
                after = parameter.normal(value)
            except BadValue as bad:
                problems.append(Problem("value", name, f"parameters.{name}: {bad.words}", bad.remedy))
                continue
            if not parameter.same(after):
                changes.append(ParameterChange(parameter, after))
    return changes, problems


def set_in_group(catalogue: t.Iterable[Described]) -> dict[str, str]:
    """What a group itself sets, by name, in the service's form."""
    return {one["ParameterName"]: one["ParameterValue"] for one in catalogue if one.get("Source") == "user" and one.get("ParameterValue") is not None}


def predict(before: t.Mapping[str, str], changes: t.Iterable[ParameterChange]) -> dict[str, str]:
    """What a group will set."""
    found = dict(before)
    for change in changes:
        if change.after is None:
            found.pop(change.parameter.name, None)
        else:
            found[change.parameter.name] = change.after
    return found


def batches(changes: t.Sequence[ParameterChange]) -> t.Iterator[tuple[bool, list[dict[str, str]]]]:
    """Requests' worth of changes: (whether they reset, their parameters)."""
    for reset in (False, True):
        chosen = [change.request() for change in changes if (change.after is None) is reset]
        for begin in range(0, len(chosen), BATCH):
            yield reset, chosen[begin : begin + BATCH]
