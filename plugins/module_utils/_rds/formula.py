# Copyright (c) the freight.pg_ha authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This is a private util of freight.pg_ha: it may change without notice.
"""Formulas of RDS's parameters: ``{DBInstanceClassMemory/32768}``, ``LEAST({DBInstanceClassMemory/9531392},5000)``. Pure.

Variables, functions and the quotient without decimals are those of "Specifying DB parameters" in the RDS User Guide.
"""

from __future__ import annotations

import ast
import math
import typing as t

VARIABLES = ("AllocatedStorage", "DBInstanceClassMemory", "DBInstanceVCPU", "EndPointPort", "TrueIfReplica")
_FUNCTIONS: dict[str, t.Callable[..., float]] = {"GREATEST": max, "LEAST": min, "SUM": lambda *values: sum(values)}
_OPERATORS: dict[type, t.Callable[[float, float], float]] = {
    ast.Add: lambda one, two: one + two,
    ast.Sub: lambda one, two: one - two,
    ast.Mult: lambda one, two: one * two,
    ast.Div: lambda one, two: int(one / two),
}


class NotAFormula(ValueError):
    """The text is none; the message says what of it is not."""


def is_formula(value: str) -> bool:
    """Whether a value is meant as one."""
    return "{" in value or value.split("(")[0] in _FUNCTIONS


def evaluate(formula: str, variables: t.Mapping[str, float]) -> float:
    """What a formula comes to.

    :param variables: by name; memory in bytes, storage in GiB
    :raises NotAFormula: for anything that the service would not take
    """
    if formula.count("{") != formula.count("}"):
        raise NotAFormula("its braces do not match")
    try:
        number = _value(ast.parse(formula.replace("{", "(").replace("}", ")"), mode="eval").body, variables)
        finite = math.isfinite(number)
    except NotAFormula:
        raise
    except OverflowError as error:
        raise NotAFormula("it comes to no number that there is") from error
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NotAFormula("it cannot be read") from error
    if not finite:
        raise NotAFormula("it comes to no number that there is")
    return number


def _value(node: ast.expr, variables: t.Mapping[str, float]) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.Name):
        if node.id not in VARIABLES:
            raise NotAFormula(f"there is no variable {node.id}; there is {', '.join(VARIABLES)}")
        return variables[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        one, two = _value(node.left, variables), _value(node.right, variables)
        if isinstance(node.op, ast.Div) and two == 0:
            raise NotAFormula("it divides by 0")
        return _OPERATORS[type(node.op)](one, two)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and node.args and not node.keywords:
        return _FUNCTIONS[node.func.id](*(_value(argument, variables) for argument in node.args))
    raise NotAFormula("it may hold numbers, the service's variables, + - * / and GREATEST, LEAST, SUM")
