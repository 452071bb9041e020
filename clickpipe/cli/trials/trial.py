"""One test of a recipe: its pipeline in all forms, and whether each gave what was expected, and what the others gave."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from clickpipe.cli.nursery import end_all
from clickpipe.cli.trials.arranged import Arranged, arrange
from clickpipe.cli.trials.forms import FORMS, Came, Run, forms_of, runs_of
from clickpipe.cli.trials.given import check_shuffle
from clickpipe.cli.trials.matching import Matched, Rule, matched
from clickpipe.errors import PlanError
from clickpipe.plan.cases import Case, Expected, Row
from clickpipe.stopping import forget, on_stop

_OF_DEAD = ("raw", "error")  # of a dead letter, what does not depend on where it stood
_SIDES = {"rows": "rows", "late": "late records", "dead": "dead letters"}


@dataclass(frozen=True)
class Failure:
    """What a form gave that is wrong. `what`: in words; `matched`: row by row; `like`: the form that it was to be equal to."""

    run: Run
    what: str
    matched: Matched | None = None
    like: str | None = None


@dataclass
class Verdict:
    """`forms`: those that were run."""

    case: Case
    forms: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_right(self) -> bool:
        return not self.failures


@dataclass(frozen=True)
class Trial:
    """A test that is ready to run. `mistake`: what is wrong with its plan, which it may expect."""

    case: Case
    arranged: Arranged | None
    forms: Sequence[str]
    mistake: PlanError | None = None

    def verdict(self, seed: int) -> Verdict:
        begun = time.monotonic()
        verdict = Verdict(self.case, [*self.forms])
        verdict.failures += self._failures(seed)
        verdict.seconds = time.monotonic() - begun
        return verdict

    def _failures(self, seed: int) -> Iterator[Failure]:
        """Of each form at most one; none behind one that failed altogether."""
        if self.mistake is not None:
            yield from filter(None, [_judged_error(self.case, Run("fused", _nothing), str(self.mistake))])
            return
        assert self.arranged is not None
        first: tuple[str, Came] | None = None
        for form in self.forms:
            for run in runs_of(self.arranged, form, seed):
                with _folder() as folder:
                    came = run.came(folder / "run")
                failure = _judged(self.case, run, came) or (_compared(run, came, *first) if first else None)
                if failure:
                    yield failure
                    if came.error is not None:  # the others would say the same in other words
                        return
                    break
                first = first or (form, came)


def ready(case: Case, wanted: Sequence[str]) -> Trial:
    """`wanted`: forms, or none for all. Raises PlanError for a recipe or a test that is wrong."""
    try:
        arranged = arrange(case)
    except PlanError as mistake:
        if case.error is None:
            raise
        return Trial(case, None, [form for form in FORMS[:1] if not wanted or form in wanted], mistake)
    if case.shuffles:
        check_shuffle(arranged)
    return Trial(case, arranged, [form for form in forms_of(arranged) if not wanted or form in wanted])


def _nothing(_: Path) -> Came:
    return Came()


@contextmanager
def _folder() -> Iterator[Path]:
    """A temporary one, which goes whatever happens."""
    path = tempfile.mkdtemp(prefix="clickpipe-test-")

    def clear() -> None:
        shutil.rmtree(path, ignore_errors=True)

    def stop() -> None:
        end_all()
        clear()

    on_stop(stop)
    try:
        yield Path(os.path.realpath(path))
    finally:
        clear()
        forget(stop)


# What is right.


def _judged(case: Case, run: Run, came: Came) -> Failure | None:
    if case.error is not None or came.error is not None:
        return _judged_error(case, run, came.error)
    judges: Sequence[Callable[[], Failure | None]] = (
        lambda: _held("rows", case.rows, came.rows, run, Rule(case.is_exact, case.is_ordered, case.tolerance)),
        lambda: _held("late", _or_none(case.late), came.late, run, Rule(tolerance=case.tolerance)),
        lambda: _held("dead", _or_none(case.dead), came.dead, run, Rule(part="error")),
    )
    return next(filter(None, (judge() for judge in judges)), None)


def _or_none(said: Expected) -> Expected:
    """A test that does not speak of late records and dead letters expects that there are none."""
    return 0 if said is None else said


def _judged_error(case: Case, run: Run, said: str | None) -> Failure | None:
    if case.error is None:
        return Failure(run, f"it failed: {said}")
    if said is None:
        return Failure(run, f'it was to fail with "{case.error}", and it ended well')
    if case.error not in said:
        return Failure(run, f'it was to fail with "{case.error}", and said: {said}')
    return None


def _held(side: str, expected: Expected, actual: Sequence[Row], run: Run, rule: Rule) -> Failure | None:
    if expected is None:
        return None
    if isinstance(expected, int):
        if len(actual) == expected:
            return None
        return Failure(run, f"{_count(expected, side)} expected, {len(actual)} came", Matched(unexpected=[*actual]))
    found = matched(expected, actual, rule)
    return None if found.is_right else Failure(run, _SIDES[side], found)


def _count(number: int, side: str) -> str:
    words = _SIDES[side]
    return f"{number or 'no'} {words.removesuffix('s') if number == 1 else words}"


def _compared(run: Run, came: Came, form: str, first: Came) -> Failure | None:
    """All forms give the same, also in columns that the test does not speak of."""
    rule = Rule(is_exact=True)
    for side, here, there in (
        ("rows", came.rows, first.rows),
        ("late", came.late, first.late),
        ("dead", [*map(_letter, came.dead)], [*map(_letter, first.dead)]),
    ):
        found = matched(there, here, rule)
        if not found.is_right:
            return Failure(run, _SIDES[side], found, like=form)
    return None


def _letter(dead: Row) -> Row:
    return {name: dead.get(name) for name in _OF_DEAD}
