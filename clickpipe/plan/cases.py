"""The tests that a recipe carries: what is given, and what is to come of it. See clickpipe-recipe.5.

[[test]]
name = "a page is counted once per minute"
given = ...      records              -> Case.given: lines, some of which say what time it is
expect = ...     rows, or how many    -> Case.rows
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any

from clickpipe.core.time import parse_instant
from clickpipe.errors import Place, PlanError, near
from clickpipe.plan.recipe import read_toml

Row = dict[str, Any]
Expected = tuple[Row, ...] | int | None  # rows, how many, or nothing is said of them
CLOCK = "@clock"

_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "name": ((str,), "text"),
    "given": ((str, list), "records, as NDJSON or as tables"),
    "given_file": ((str,), "the name of a file beside the recipe"),
    "expect": ((str, list, int), "rows, as NDJSON or as tables, or how many"),
    "expect_late": ((str, list, int), "records, as NDJSON or as tables, or how many"),
    "expect_dead": ((str, list, int), "dead letters, as NDJSON or as tables, or how many"),
    "expect_error": ((str,), "a part of the message"),
    "exact": ((bool,), "true or false"),
    "ordered": ((bool,), "true or false"),
    "tolerance": ((int, float, dict), "a number, or a table of numbers by column"),
    "shuffle": ((bool,), "true or false"),
    "crash_after": ((int,), "a number of records"),
    "clock": ((str, datetime), "a time"),
    "ends": ((bool,), "true or false"),
    "set": ((dict,), "a table of names and values"),
}
_RESULTS = ("expect", "expect_late", "expect_dead", "expect_error")
_HEADER = re.compile(r"^[ \t]*\[\[[ \t]*test[ \t]*\]\]", re.MULTILINE)


@dataclass(frozen=True)
class Moment:
    """A line among the records: it is this time now. Milliseconds."""

    at: int


@dataclass(frozen=True)
class Case:
    """One test. `given`: lines without their newlines, and moments; `places`: where its keys stand, for messages."""

    recipe: str
    name: str
    given: tuple[str | Moment, ...]
    rows: Expected = None
    late: Expected = None
    dead: Expected = None
    error: str | None = None
    is_exact: bool = False
    is_ordered: bool = False
    tolerance: float | Mapping[str, float] | None = None
    shuffles: bool = False
    crash_after: int | None = None
    ends: bool = True
    values: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)

    @property
    def records(self) -> int:
        return sum(isinstance(line, str) for line in self.given)

    @property
    def has_clock(self) -> bool:
        return any(isinstance(line, Moment) for line in self.given)

    def wrong(self, what: str, *, key: str = "", hint: str = "", notes: Sequence[str] = ()) -> PlanError:
        """What is wrong with the test, with its place."""
        return _wrong(self.recipe, self.name, self.places, what, key, hint, notes)


def read_cases(path: str) -> list[Case]:
    """The tests of a recipe, in order. Raises PlanError with the line."""
    text, said = read_toml(path)
    tests = said.get("test", [])
    if not isinstance(tests, list) or not all(isinstance(test, dict) for test in tests):
        raise PlanError(f"{path}: a test is a table", hint="[[test]]")
    places = _places(text, tests)
    cases = [_Reader(path, test, where).case() for test, where in zip(tests, places, strict=True)]
    names = [case.name for case in cases]
    for number, case in enumerate(cases):
        if case.name in names[:number]:
            raise case.wrong("another test has that name", key="name")
    return cases


class _Reader:
    """One table of [[test]] -> a case."""

    def __init__(self, path: str, said: Mapping[str, Any], places: Mapping[str, Place]) -> None:
        self._path, self._said, self._places = path, said, places
        self._name = said["name"] if isinstance(said.get("name"), str) else ""

    def case(self) -> Case:
        said = self._said
        self._check_keys()
        given = self._given()
        case = Case(
            self._path,
            self._name,
            given,
            rows=self._expected("expect"),
            late=self._expected("expect_late"),
            dead=self._expected("expect_dead"),
            error=said.get("expect_error"),
            is_exact=said.get("exact", False),
            is_ordered=said.get("ordered", False),
            tolerance=self._tolerance(),
            shuffles=said.get("shuffle", False),
            crash_after=said.get("crash_after"),
            ends=said.get("ends", True),
            values=self._values(),
            places=self._places,
        )
        self._check(case)
        return case

    def _check_keys(self) -> None:
        for key, value in self._said.items():
            if key not in _KINDS:
                raise self._wrong(f'unknown key "{key}"', key, near(key, [*_KINDS]), [f"keys are: {', '.join(_KINDS)}"])
            kinds, words = _KINDS[key]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise self._wrong(f"{key} must be {words}", key)
        if not self._name.strip():
            raise self._wrong("a test has a name", "name", 'name = "what it shows"')
        if ("given" in self._said) == ("given_file" in self._said):
            raise self._wrong("a test has given = … or given_file = …, one of the two", "given")
        if not any(key in self._said for key in _RESULTS):
            raise self._wrong("it expects nothing", hint=f"say one of {', '.join(_RESULTS)}")

    def _check(self, case: Case) -> None:
        if case.error is not None and any(said is not None for said in (case.rows, case.late, case.dead)):
            raise self._wrong("a pipeline that fails gives no rows: expect_error stands alone", "expect_error")
        if case.error is not None and not case.error.strip():
            raise self._wrong("which error? a part of its message", "expect_error")
        if case.crash_after is not None and not 0 < case.crash_after <= case.records:
            raise self._wrong(f"crash_after must be from 1 to {case.records}, the number of records", "crash_after")
        if case.is_ordered and not isinstance(case.rows, tuple):
            raise self._wrong("ordered is for rows that are expected", "ordered")

    def _wrong(self, what: str, key: str = "", hint: str = "", notes: Sequence[str] = ()) -> PlanError:
        return _wrong(self._path, self._name, self._places, what, key, hint, notes)

    # What is given.

    def _given(self) -> tuple[str | Moment, ...]:
        key = "given_file" if "given_file" in self._said else "given"
        value = self._text_of(self._said[key]) if key == "given_file" else self._said[key]
        lines = value.split("\n") if isinstance(value, str) else [self._as_json(one, key) for one in value]
        given = [self._moment(line, key) for line in lines if line.strip()]
        if "clock" in self._said:
            given.insert(0, self._time(self._said["clock"], "clock"))
        self._check_moments(given, key)
        return tuple(given)

    def _text_of(self, name: str) -> str:
        path = os.path.join(os.path.dirname(self._path), name)
        try:
            with open(path, encoding="utf-8", newline="") as file:
                return file.read()
        except OSError as error:
            raise self._wrong(f"{path}: {error.strerror}", "given_file") from None
        except UnicodeDecodeError as error:
            raise self._wrong(f"{path}: not UTF-8: {error.reason} at byte {error.start}", "given_file") from None

    def _moment(self, line: str, key: str) -> str | Moment:
        """A line that is a record stays as it is, also a bad one."""
        if not line.lstrip().startswith(f'{{"{CLOCK}"'):
            return line
        try:
            said = json.loads(line)
        except ValueError as error:
            raise self._wrong(f"{line.strip()} is not JSON: {error}", key) from None
        if set(said) != {CLOCK}:
            raise self._wrong(f'a line with "{CLOCK}" has nothing else', key)
        return self._time(said[CLOCK], key)

    def _time(self, said: object, key: str) -> Moment:
        try:
            return Moment(parse_instant(said.isoformat() if isinstance(said, datetime) else str(said)))
        except (ValueError, OverflowError) as error:
            raise self._wrong(str(error), key) from None

    def _check_moments(self, given: Sequence[str | Moment], key: str) -> None:
        moments = [one.at for one in given if isinstance(one, Moment)]
        if moments and not isinstance(given[0], Moment):
            raise self._wrong("what time is it at the beginning?", key, "clock = 2026-03-01T09:00:00Z")
        if moments != sorted(moments):
            raise self._wrong("the clock goes back", key)

    # What is expected.

    def _expected(self, key: str) -> Expected:
        value = self._said.get(key)
        if isinstance(value, int):
            if value < 0:
                raise self._wrong(f"{key} must be {_KINDS[key][1]}", key)
            return value
        if isinstance(value, str):
            return tuple(self._row(line, number, key) for number, line in enumerate(value.split("\n"), 1) if line.strip())
        return None if value is None else tuple(json.loads(self._as_json(one, key)) for one in value)

    def _row(self, line: str, number: int, key: str) -> Row:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise self._wrong(f"line {number} is not JSON: {error}", key, notes=[line.strip()[:200]]) from None
        if any("\ud800" <= character <= "\udfff" for character in json.dumps(row, ensure_ascii=False)):
            raise self._wrong(f"line {number} has half of a character, which no row can have", key)
        if not isinstance(row, dict):
            raise self._wrong(f"line {number} is no object: {line.strip()[:200]}", key)
        return row

    def _as_json(self, one: object, key: str) -> str:
        if not isinstance(one, dict):
            raise self._wrong(f"{key} has something in it that is no table: {one!r}", key)
        return json.dumps(one, ensure_ascii=False, separators=(",", ":"), default=_spelled)

    def _tolerance(self) -> float | Mapping[str, float] | None:
        said = self._said.get("tolerance")
        for one in said.values() if isinstance(said, dict) else () if said is None else (said,):
            if isinstance(one, bool) or not isinstance(one, int | float) or not 0 <= one < float("inf"):
                raise self._wrong("a tolerance is a part of the value: 0.02 is two hundredths", "tolerance")
        return said

    def _values(self) -> dict[str, str]:
        for name, value in self._said.get("set", {}).items():
            if isinstance(value, dict | list):
                raise self._wrong(f"set: {name} must be one value", "set")
        return {name: str(value) for name, value in self._said.get("set", {}).items()}


def _spelled(value: object) -> str:
    """Times of TOML, as sinks spell them."""
    if isinstance(value, datetime):
        text = value.isoformat(timespec="milliseconds" if value.microsecond else "seconds")
        return re.sub(r"\+00:00$", "Z", text)
    if isinstance(value, date | time):
        return value.isoformat()
    raise TypeError(value)


def _wrong(path: str, name: str, places: Mapping[str, Place], what: str, key: str, hint: str, notes: Sequence[str]) -> PlanError:
    place = places.get(key) or places.get("")
    where = f"{path}:{place.number}" if place else path
    error = PlanError(what, hint=hint, notes=notes)
    error.at(f'test "{name}"' if name else "test").at(where)
    error.place = place
    return error


def _places(text: str, tests: Sequence[Mapping[str, Any]]) -> list[dict[str, Place]]:
    """For each test where its keys stand; "" is its beginning. Nothing where that cannot be told."""
    starts = [match.start() for match in _HEADER.finditer(text)]
    if not tests or len(starts) != len(tests):
        return [{} for _ in tests]
    ends = [*starts[1:], len(text)]
    return [_keys_in(text, begin, end, test) for begin, end, test in zip(starts, ends, tests, strict=True)]


def _keys_in(text: str, begin: int, end: int, test: Mapping[str, Any]) -> dict[str, Place]:
    header = _HEADER.match(text, begin)
    assert header
    found = {"": _place(text, header.end() - len(header[0].lstrip()), header.end())}
    for key in test:
        match = re.compile(rf"""^[ \t]*(?:\[test\.)?(["']?{re.escape(key)}["']?)[ \t]*(?:[=.]|\])""", re.MULTILINE).search(
            text, header.end(), end
        )
        if match:
            found[key] = _place(text, *match.span(1))
    return found


def _place(text: str, start: int, end: int) -> Place:
    begin = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", start)
    line = text[begin : stop if stop >= 0 else len(text)].rstrip("\r")
    return Place(line, start - begin, end - begin, text.count("\n", 0, start) + 1)
