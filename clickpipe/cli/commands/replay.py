"""Run a recipe over its log once more: after a change of its steps, or to look at old times again.

    clickpipe replay recipes/trending.toml                                        from the beginning, in place of what is there
    clickpipe replay recipes/trending.toml --from 2026-03-01 --into view:again    from then on, into a new view
    clickpipe replay recipes/trending.toml --into - --speed 10x                   at ten times the pace at which it happened

Its input must be there still: a log, or files. Into the same views and archives all rows are replaced at once when all have been
computed. Nothing of the pipeline's own checkpoints is read or changed.
"""

from __future__ import annotations

import re

import click

from clickpipe.cli.accounts import report
from clickpipe.cli.completing.places import sinks, sources
from clickpipe.cli.progress import bar, of_pipelines
from clickpipe.cli.recipes import read_plan, takes_one
from clickpipe.cli.text import described
from clickpipe.cli.words import say
from clickpipe.errors import PlanError

_SPEED = re.compile(r"(\d+(?:\.\d+)?)x?")
_EPILOG = """\
Examples:
  clickpipe replay -q -c "ingest sample_data/clicks.ndjson.zst --time ts | window tumble 1d | aggregate n='count(*)' |
    sink view:days" --into -
  clickpipe replay -q --speed 1000000x -c "ingest sample_data/clicks.ndjson.zst --time ts | window tumble 1d |
    aggregate n='count(*)' | sink view:days" --into -"""


@described("replay", __doc__, _EPILOG)
@takes_one
@click.option("--from", "start", metavar="WHERE", help="earliest, an offset or a time, as at ingest  [default earliest]")
@click.option("--into", metavar="DEST", help="a new place for the results, as at sink", shell_complete=sinks)
@click.option("--speed", metavar="Nx", help="event time goes by N times as fast as it did; by default as fast as it can be read")
@click.option("--input", "inputs", multiple=True, metavar="SOURCE", help="another log, archive or file", shell_complete=sources)
@click.option("--quiet", "-q", is_flag=True, help="do not print the accounts at the end")
def command(
    recipe: str,
    pipeline: str | None,
    values: tuple[str, ...],
    start: str | None,
    into: str | None,
    speed: str | None,
    inputs: tuple[str, ...],
    quiet: bool,
) -> None:
    from clickpipe.engine.recompute import name_again
    from clickpipe.engine.replay import replay

    plan = read_plan(recipe, pipeline, values)
    pace = _speed(speed)
    with bar(of_pipelines(lambda: [name_again(plan, "replay")]), prints=into == "-", quiet=quiet):
        outcome = replay(plan, inputs, start, into, pace, say)
    if not quiet:
        report(outcome)


def _speed(text: str | None) -> float | None:
    if text is None:
        return None
    match = _SPEED.fullmatch(text)
    if not match or not float(match[1]):
        raise PlanError(f'--speed "{text}" is not a number of times', hint="as in --speed 10x", word="--speed")
    return float(match[1])
