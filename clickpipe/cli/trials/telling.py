"""What came of a test, for people: a line for each, and for one that failed expected and actual rows with what differs marked.

FAIL  recipes/trending.toml: a page is counted once per minute  (single, 0.4 s)
  in single: rows: 3 rows as expected, 1 differs, 1 is missing
      window_start          page  clicks
    - 2026-03-01T09:00:00Z  /a    2
    + 2026-03-01T09:00:00Z  /a    3
                                  ^
    - 2026-03-01T09:01:00Z  /b    1
  again: clickpipe test recipes/trending.toml --filter 'a page is counted once per minute' --form single
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from clickpipe.cli.trials.forms import Run
from clickpipe.cli.trials.matching import Matched, Pair, same_beginning
from clickpipe.cli.trials.trial import Failure, Verdict
from clickpipe.core.terminal import shown
from clickpipe.plan.cases import Row

_MOST = 10  # rows of a kind that are shown
_WIDEST = 60  # characters of a value
_KEPT = 10  # of them before the first that differs
_RED, _GREEN, _PLAIN = "\x1b[31m", "\x1b[32m", "\x1b[0m"
Line = tuple[str, Sequence[str]]  # its mark, and its cells


def line_of(verdict: Verdict, *, coloured: bool) -> str:
    mark, colour = ("pass", _GREEN) if verdict.is_right else ("FAIL", _RED)
    mark = f"{colour}{mark}{_PLAIN}" if coloured else mark
    how = f"{' '.join(verdict.forms)}, {verdict.seconds:.1f} s"
    return f"{mark}  {shown_line(f'{verdict.case.recipe}: {verdict.case.name}')}  ({how})"


def told(verdict: Verdict, *, coloured: bool) -> Iterator[str]:
    """Lines below that of the test. What is wrong in the same way in several forms is told once."""
    alike: list[list[Failure]] = []
    for failure in verdict.failures:
        others = next((some for some in alike if _wrong(some[0]) == _wrong(failure)), None)
        if others:
            others.append(failure)
        else:
            alike.append([failure])
    for some in alike:
        yield from _told_of(some, verdict, coloured=coloured)


def _wrong(failure: Failure) -> tuple[object, ...]:
    return failure.what, failure.matched, failure.like


def _told_of(failures: Sequence[Failure], verdict: Verdict, *, coloured: bool) -> Iterator[str]:
    failure = failures[0]
    where = ", ".join(_where(one.run) for one in failures)
    found = failure.matched
    what = failure.what
    if found and (found.agreed or failure.like or not what.endswith("came")):
        what = f"{what}: {_counted(found)}"
    what += f"; {failure.like} gave what was expected" if failure.like else ""
    first, *rest = shown(what).splitlines() or [""]
    yield f"  in {where}: {first}"
    yield from (f"      {line}" for line in rest)
    if found:
        yield from (f"      {line}" for line in _table(found, coloured=coloured))
    yield f"  again: {again(failure, verdict)}"


def _where(run: Run) -> str:
    return run.form if run.seed is None else f"{run.form} (seed {run.seed})"


def again(failure: Failure, verdict: Verdict) -> str:
    """The command that repeats this alone."""
    words = ["clickpipe", "test", verdict.case.recipe, "--filter", verdict.case.name, "--form", failure.run.form]
    words += [] if failure.run.seed is None else ["--seed", str(failure.run.seed)]
    return shown_line(shlex.join(words))


def shown_line(text: str) -> str:
    """On one line, and harmless."""
    return shown(json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"').replace("\\\\", "\\"))


def _counted(found: Matched) -> str:
    if found.disorder is not None:
        return f"all came, and not in this order; the first that differs is row {found.disorder + 1}"
    counts = (
        (found.agreed, "as expected", "as expected"),
        (len(found.differing), "differs", "differ"),
        (len(found.missing), "is missing", "are missing"),
        (len(found.unexpected), "was not expected", "were not expected"),
    )
    return ", ".join(f"{number} {one if number == 1 else many}" for number, one, many in counts if number)


def _table(found: Matched, *, coloured: bool) -> Iterator[str]:
    lines = [*_lines(found)]
    names = _names(found)
    if not names:
        return
    widths = [max([len(name), *(len(cells[at]) for mark, cells in lines if mark != "^")]) for at, name in enumerate(names)]
    yield f"  {_row(names, widths)}"
    for mark, cells in lines:
        if mark == "^":
            yield f"  {_row(['^' * len(cell) for cell in cells], widths)}"
            continue
        colour = {"-": _RED, "+": _GREEN}.get(mark, "") if coloured else ""
        yield f"{colour}{mark} {_row(cells, widths)}{_PLAIN if colour else ''}"
    for kind, rows in (("differ", found.differing), ("are missing", found.missing), ("were not expected", found.unexpected)):
        if len(rows) > _MOST:
            yield f"  … {len(rows) - _MOST:,} more {kind}"


def _names(found: Matched) -> list[str]:
    """Columns that are expected, and of rows that nobody expected all that they have, where nothing else says which matter."""
    named = dict.fromkeys(name for pair in found.differing for name in (*pair.expected, *pair.columns))
    named |= dict.fromkeys(name for row in found.missing for name in row)
    if not named:
        named = dict.fromkeys(name for row in found.unexpected[:_MOST] for name in row)
    return [*named]


def _lines(found: Matched) -> Iterator[Line]:
    names = _names(found)
    for pair in found.differing[:_MOST]:
        yield from _pair(pair, names)
    for mark, rows in (("-", found.missing), ("+", found.unexpected)):
        yield from ((mark, [_cell(row, name) for name in names]) for row in rows[:_MOST])


def _pair(pair: Pair, names: Sequence[str]) -> Iterator[Line]:
    """With a line of marks below. A long value begins shortly before it differs."""
    cells = [_beside(pair, name) for name in names]
    yield "-", [expected for expected, _ in cells]
    yield "+", [actual for _, actual in cells]
    marks = ["^" * max(1, min(_WIDEST, max(map(len, both)))) for both in cells]
    yield "^", [mark if name in pair.columns else "" for mark, name in zip(marks, names, strict=True)]


def _beside(pair: Pair, name: str) -> tuple[str, str]:
    expected, actual = _whole(pair.expected, name), _whole(pair.actual, name)
    if name not in pair.columns:
        return _cut(actual), _cut(actual)
    at = same_beginning(expected, actual)
    if max(len(expected), len(actual)) > _WIDEST and at > _KEPT:
        return _cut("…" + expected[at - _KEPT :]), _cut("…" + actual[at - _KEPT :])
    return _cut(expected), _cut(actual)


def _cell(row: Row, name: str) -> str:
    return _cut(_whole(row, name))


def _whole(row: Row, name: str) -> str:
    return _value(row[name]) if name in row else ""


def _value(value: Any) -> str:
    """Texts without their quotes, where nobody could take them for something else."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    is_plain = isinstance(value, str) and value == text[1:-1] and value.strip() == value and not _is_json(value)
    return shown(value if is_plain else text)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return not text
    return True


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
