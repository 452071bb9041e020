"""Compute results again from history, and put them in the place of those that are there.

    clickpipe backfill recipes/trending.toml --from 2026-03-01 --to 2026-03-03

The recipe's steps run over its raw records once more, as one bounded run: over the archive that the recipe writes them to (sink
archive:NAME --pass), else over its input, or what --input says. Of the views and archives that take its results, those rows are
replaced whose window began in that time, all at once when all have been computed; the rest stays. A pipeline that runs goes on.
"""

from __future__ import annotations

import click

from clickpipe.cli.accounts import report
from clickpipe.cli.completing.places import sources
from clickpipe.cli.progress import bar, of_pipelines
from clickpipe.cli.recipes import read_plan, takes_one
from clickpipe.cli.text import described
from clickpipe.cli.words import say
from clickpipe.core.operator import FOREVER
from clickpipe.core.time import parse_instant
from clickpipe.errors import PlanError

_EPILOG = """\
Examples:
  clickpipe run -q -c "ingest sample_data/clicks.ndjson.zst --time ts | window tumble 1d | aggregate n='count(*)' |
    sink view:days" &&
    clickpipe backfill -q -c "ingest sample_data/clicks.ndjson.zst --time ts | window tumble 1d | aggregate n='count(*)' |
    sink view:days" --from 2026-03-02 --to 2026-03-03 && clickpipe view show days

Late records are late again, and rows that were corrected come with their last correction only. A sink of raw records is left out.
Nothing of the pipeline's own checkpoints is read or changed."""


@described("backfill", __doc__, _EPILOG)
@takes_one
@click.option("--from", "start", metavar="TIME", help="windows that began then or later")
@click.option("--to", "end", metavar="TIME", help="windows that began before then")
@click.option("--input", "inputs", multiple=True, metavar="SOURCE", help="where the raw records are", shell_complete=sources)
@click.option("--quiet", "-q", is_flag=True, help="do not print the accounts at the end")
def command(
    recipe: str,
    pipeline: str | None,
    values: tuple[str, ...],
    start: str | None,
    end: str | None,
    inputs: tuple[str, ...],
    quiet: bool,
) -> None:
    from clickpipe.engine.backfill import backfill
    from clickpipe.engine.recompute import name_again

    span = (_instant(start, "--from", -FOREVER), _instant(end, "--to", FOREVER)) if start or end else None
    if span and span[0] >= span[1]:
        raise PlanError("--to must be later than --from", word="--to")
    plan = read_plan(recipe, pipeline, values)
    with bar(of_pipelines(lambda: [name_again(plan, "backfill")]), quiet=quiet):
        outcome, rows = backfill(plan, inputs, span, say)
    if not quiet:
        report(outcome)
        say(f"{rows:,} rows have taken the place of those that were there")


def _instant(text: str | None, flag: str, otherwise: int) -> int:
    try:
        return otherwise if text is None else parse_instant(text)
    except ValueError as error:
        raise PlanError(f"{flag}: {error}", word=flag) from None
