"""Conditions that every row of an answer meets, read out of a Polars predicate: `a = 1 AND b > 2` has two.

What is no comparison of a column with a constant is left out, so that a store that heeds them leaves too much in, never too
little; the predicate itself has the last word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl

_OPERATORS = {"Eq": "=", "Gt": ">", "GtEq": ">=", "Lt": "<", "LtEq": "<="}
_MIRRORED = {"=": "=", ">": "<", ">=": "<=", "<": ">", "<=": ">="}
_PER_MILLISECOND = {"Milliseconds": 1, "Microseconds": 1_000, "Nanoseconds": 1_000_000}


@dataclass(frozen=True)
class Condition:
    """`value`: of an instant its epoch milliseconds; of one between two milliseconds, the one before."""

    column: str
    operator: str  # = > >= < <=
    value: str | int | float


def conditions(predicate: pl.Expr | None) -> list[Condition]:
    if predicate is None:
        return []
    return list(_of(orjson.loads(predicate.meta.serialize(format="json"))))


def _of(tree: Any) -> Iterator[Condition]:
    match tree:
        case {"BinaryExpr": {"left": left, "op": "And" | "LogicalAnd", "right": right}}:
            yield from _of(left)
            yield from _of(right)
        case {"BinaryExpr": {"left": {"Column": str(name)}, "op": op, "right": {"Literal": literal}}} if op in _OPERATORS:
            yield from _compared(name, _OPERATORS[op], literal)
        case {"BinaryExpr": {"left": {"Literal": literal}, "op": op, "right": {"Column": str(name)}}} if op in _OPERATORS:
            yield from _compared(name, _MIRRORED[_OPERATORS[op]], literal)


def _compared(name: str, operator: str, literal: Any) -> Iterator[Condition]:
    match literal:
        case {"Scalar": {"Datetime": [int(value), str(unit), *_]}}:
            per = _PER_MILLISECOND[unit]
            if value % per and operator == "=":
                return
            operator = {"<": "<=", ">": ">="}.get(operator, operator) if value % per else operator
            yield Condition(name, operator, value // per)
        case {"Scalar": {"String": str(value)}}:
            yield Condition(name, operator, value)
        case {"Scalar": scalar} if isinstance(scalar, dict):
            (kind, value), *_ = scalar.items()
            if kind in ("Int32", "Int64", "Float64") and isinstance(value, int | float):
                yield Condition(name, operator, value)
        case {"Dyn": {"Int": int(value)}} | {"Dyn": {"Float": float(value)}}:
            yield Condition(name, operator, value)
