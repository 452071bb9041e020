"""Rows that came, held against rows that were expected.

    expected   {"page":"/a","clicks":2}      {"page":"/b","clicks":3}
    came       {"page":"/a","clicks":2,…}    {"page":"/b","clicks":4,…}    {"page":"/c","clicks":1,…}
               agrees                        differs in clicks             nobody expected it

An expected row need only name the columns that it is about. Each takes a row of its own, so that as many as can be find theirs;
those that are left over are put beside the row that is most like them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from clickpipe.plan.cases import Row

_MOST_LEFT = 200
_ROUNDING = 1e-9  # a part of the value: sums of floats depend on the order
Tolerance = float | Mapping[str, float] | None


@dataclass(frozen=True)
class Pair:
    """An expected row beside the one that is most like it. `columns`: in which they differ."""

    expected: Row
    actual: Row
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Matched:
    """`disorder`: where the first row came that another one was expected before, where order matters."""

    agreed: int = 0
    differing: list[Pair] = field(default_factory=list)
    missing: list[Row] = field(default_factory=list)
    unexpected: list[Row] = field(default_factory=list)
    disorder: int | None = None

    @property
    def is_right(self) -> bool:
        return not (self.differing or self.missing or self.unexpected) and self.disorder is None


@dataclass(frozen=True)
class Rule:
    """When a row is what was expected. `part`: of this column's text only a part is expected."""

    is_exact: bool = False
    is_ordered: bool = False
    tolerance: Tolerance = None
    part: str | None = None

    def differing(self, expected: Row, actual: Row) -> tuple[str, ...]:
        """The columns in which they differ."""
        names = dict.fromkeys([*expected, *actual]) if self.is_exact else expected
        return tuple(name for name in names if not self._agrees(name, expected, actual))

    def _agrees(self, name: str, expected: Row, actual: Row) -> bool:
        if (name in expected) != (name in actual):
            return name in expected and expected[name] is None and not self.is_exact
        if name == self.part and isinstance(expected[name], str):
            return expected[name] in str(actual[name])
        near = self.tolerance.get(name, 0) if isinstance(self.tolerance, Mapping) else self.tolerance
        return _is_like(expected[name], actual[name], near or 0)


def matched(expected: Sequence[Row], actual: Sequence[Row], rule: Rule) -> Matched:
    takes = _taken([*_candidates(expected, actual, rule)])
    if rule.is_ordered and len(takes) == len(expected) == len(actual):
        places = (number for number, one in enumerate(expected) if rule.differing(one, actual[number]))
        return Matched(len(expected), disorder=next(places, None))
    left = [one for number, one in enumerate(expected) if number not in takes]
    over = [row for number, row in enumerate(actual) if number not in takes.values()]
    pairs = [*_nearest(left, over, rule)]
    return Matched(
        len(takes),
        [Pair(left[one], over[row], rule.differing(left[one], over[row])) for one, row in pairs],
        [one for number, one in enumerate(left) if number not in dict(pairs)],
        [row for number, row in enumerate(over) if number not in dict(pairs).values()],
    )


def _candidates(expected: Sequence[Row], actual: Sequence[Row], rule: Rule) -> Iterator[list[int]]:
    """For each expected row the rows that it may be. Those whose texts are others are not looked at: rows may be many."""
    texts = [name for name in expected[0] if all(isinstance(one.get(name), str) for one in expected)] if expected else []
    texts = [name for name in texts if name != rule.part]
    by_text: dict[tuple[Any, ...], list[int]] = {}
    for number, row in enumerate(actual):
        if all(isinstance(row.get(name), str) for name in texts):
            by_text.setdefault(tuple(row[name] for name in texts), []).append(number)
    for one in expected:
        some = by_text.get(tuple(one[name] for name in texts), [])
        yield [number for number in some if not rule.differing(one, actual[number])]


def _taken(candidates: Sequence[Sequence[int]]) -> dict[int, int]:
    """Which row each expected one takes, as many of them as can be. Source: augmenting paths, as Kuhn has it."""
    takes: dict[int, int] = {}
    owners: dict[int, int] = {}
    for one in sorted(range(len(candidates)), key=lambda one: len(candidates[one])):
        before: dict[int, int] = {}  # a row, and who asked for it
        asked, free = deque([one]), None
        while asked and free is None:
            asking = asked.popleft()
            for row in candidates[asking]:
                if row in before:
                    continue
                before[row] = asking
                if row not in owners:
                    free = row
                    break
                asked.append(owners[row])
        while free is not None:
            owner, following = before[free], takes.get(before[free])
            takes[owner], owners[free] = free, owner
            free = following if owner != one else None
    return takes


def _nearest(left: Sequence[Row], over: Sequence[Row], rule: Rule) -> Iterator[tuple[int, int]]:
    """Pairs that have something in common, the most alike first, and the only two that are left. Of very many the first only."""
    alike = sorted(
        (
            (_likeness(one, row, rule), -a, -b)
            for a, one in enumerate(left[:_MOST_LEFT])
            for b, row in enumerate(over[:_MOST_LEFT])
        ),
        reverse=True,
    )
    gone_left, gone_over = set[int](), set[int]()
    for likeness, a, b in alike:
        is_pair = likeness > 0 or len(left) == len(over) == 1
        if is_pair and -a not in gone_left and -b not in gone_over:
            gone_left.add(-a)
            gone_over.add(-b)
            yield -a, -b


def _likeness(expected: Row, actual: Row, rule: Rule) -> float:
    """Equal texts say more than equal numbers, which are often equal by chance; texts that begin alike say a little."""
    differing = rule.differing(expected, actual)
    same = sum((2.0 if isinstance(expected[name], str) else 1.0) for name in expected if name not in differing)
    return same + sum(_begin_alike(expected[name], actual.get(name)) for name in expected if name in differing)


def _begin_alike(expected: Any, actual: Any) -> float:
    if not (isinstance(expected, str) and isinstance(actual, str) and expected):
        return 0.0
    return same_beginning(expected, actual) / max(len(expected), len(actual))


def same_beginning(one: str, other: str) -> int:
    """So many characters."""
    return sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(one, other, strict=False)))


def _is_like(expected: Any, actual: Any, near: float) -> bool:
    if isinstance(expected, bool) or isinstance(actual, bool):
        return expected is actual
    if isinstance(expected, int | float) and isinstance(actual, int | float):
        return _is_near(expected, actual, near)
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(_is_like(expected[key], actual[key], near) for key in expected)
    if isinstance(expected, list) and isinstance(actual, list):
        return len(expected) == len(actual) and all(_is_like(a, b, near) for a, b in zip(expected, actual, strict=True))
    return type(expected) is type(actual) and bool(expected == actual)


def _is_near(expected: float, actual: float, near: float) -> bool:
    if isinstance(expected, int) and isinstance(actual, int):
        return abs(expected - actual) <= near * abs(expected)
    return expected == actual or math.isclose(expected, actual, rel_tol=0, abs_tol=max(near, _ROUNDING) * abs(expected))
