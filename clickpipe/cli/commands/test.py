"""Run the tests that recipes carry.

    clickpipe test recipes/trending.toml                    all of them, in all forms of the pipeline
    clickpipe test recipes/*.toml --form fused              in one process only, which is quick

A recipe's [[test]] says what records are given and what rows are to come of them; see clickpipe-recipe(5). Its pipeline is run
with these records in the place of its source, and its rows are looked at where its last sink would write them; nothing is written
but in a temporary directory. All forms must give the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click
import orjson

from clickpipe.cli.text import described
from clickpipe.cli.words import say
from clickpipe.errors import PlanError, near

if TYPE_CHECKING:
    from clickpipe.cli.trials.trial import Failure, Trial, Verdict

_FAILED = 65
_SEEDS = 1_000_000
_EPILOG = """\
Examples:
  clickpipe test recipes/trending.toml
  clickpipe test recipes/*.toml --form fused
  clickpipe test recipes/trending.toml --filter once --json

Forms: fused, all steps in one process, the records in one batch; single, each record a batch of its own; piped, a process per
step; resumed, stopped after some records and going on from a checkpoint, several times; workers, two of them, where the recipe
has a partition; shuffled, where a test says shuffle: other orders of the records that its watermark allows; crashed, where it
says crash_after: killed, and started again.

Exit codes: 0 all tests passed, or there are none; 65 one failed; 2 a test or its recipe is wrong."""


@described("test", __doc__, _EPILOG)
@click.argument("recipes", nargs=-1, metavar="RECIPE...", help="pipelines in TOML files")
@click.option("--filter", "text", metavar="TEXT", help="only tests with this in their name; a whole name is that test alone")
@click.option("--form", "forms", multiple=True, metavar="FORM,…", help="only these forms")
@click.option(
    "--seed", type=click.IntRange(0), metavar="N", help="shuffled: the same orders each time  [default: others each time]"
)
@click.option("--json", "as_json", is_flag=True, help="for programs, an object per test")
def command(recipes: tuple[str, ...], text: str | None, forms: tuple[str, ...], seed: int | None, as_json: bool) -> int:
    if not recipes:
        raise PlanError("no recipe", hint="clickpipe test recipes/trending.toml")
    trials = [*_trials(recipes, text, _wanted(forms))]
    seed = int.from_bytes(os.urandom(4)) % _SEEDS if seed is None else seed
    passed = failed = 0
    for trial in trials:
        verdict = trial.verdict(seed)
        passed, failed = passed + verdict.is_right, failed + (not verdict.is_right)
        sys.stdout.writelines(f"{line}\n" for line in ([_as_json(verdict, seed)] if as_json else _told(verdict)))
        sys.stdout.flush()
    if trials and not as_json:
        seeded = f"; seed {seed}" if any("shuffled" in trial.forms for trial in trials) else ""
        sys.stdout.write(f"{passed} passed, {failed} failed{seeded}\n")
    return _FAILED if failed else 0


def _wanted(forms: tuple[str, ...]) -> list[str]:
    from clickpipe.cli.trials.forms import FORMS

    wanted = [form.strip() for some in forms for form in some.split(",")]
    for form in wanted:
        if form not in FORMS:
            raise PlanError(f'--form: no form "{form}"', hint=near(form, FORMS), notes=[f"there are: {', '.join(FORMS)}"])
    return wanted


def _trials(recipes: Sequence[str], text: str | None, wanted: Sequence[str]) -> Iterator[Trial]:
    """All are read before one is run."""
    from clickpipe.cli.trials.trial import ready
    from clickpipe.plan.cases import read_cases
    from clickpipe.plan.recipe import read_recipe

    names: list[str] = []
    for recipe in recipes:
        cases = read_cases(recipe)
        if not cases:
            read_recipe(recipe, {})
            say(f"{recipe}: no tests")
        names += [case.name for case in cases]
        is_whole = any(case.name == text for case in cases)
        for case in cases:
            if text is None or text == case.name or (not is_whole and text in case.name):
                trial = ready(case, wanted)
                if trial.forms:
                    yield trial
                else:
                    say(f'{recipe}: test "{case.name}" has no such form')
    if text is not None and not any(text in name for name in names):
        raise PlanError(f'--filter: no test has "{text}" in its name', hint=near(text, names), notes=[f"{len(names)} tests"])


def _told(verdict: Verdict) -> Iterator[str]:
    from clickpipe.cli.trials.telling import line_of, told

    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    yield line_of(verdict, coloured=coloured)
    yield from told(verdict, coloured=coloured)


def _as_json(verdict: Verdict, seed: int) -> str:
    case = verdict.case
    said = {
        "recipe": case.recipe,
        "test": case.name,
        "passed": verdict.is_right,
        "seconds": round(verdict.seconds, 3),
        "forms": verdict.forms,
        "seed": seed if "shuffled" in verdict.forms else None,
        "failures": [_failure(one, verdict) for one in verdict.failures],
    }
    return orjson.dumps(said).decode()


def _failure(failure: Failure, verdict: Verdict) -> dict[str, Any]:
    from clickpipe.cli.trials.telling import again

    said: dict[str, Any] = {"form": failure.run.form, "seed": failure.run.seed, "what": failure.what, "like": failure.like}
    if found := failure.matched:
        said["agree"] = found.agreed
        said["differing"] = [{"expected": one.expected, "actual": one.actual, "columns": one.columns} for one in found.differing]
        said["missing"], said["unexpected"], said["disorder"] = found.missing, found.unexpected, found.disorder
    return said | {"again": again(failure, verdict)}
