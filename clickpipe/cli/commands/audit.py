"""Hold what a recipe has given against a batch over its raw records.

    clickpipe audit recipes/trending.toml                 a line per window, exit code 65 where one is wrong
    clickpipe audit recipes/trending.toml --sample 20     twenty windows by chance, for cron

The raw records are read from the archive that the recipe writes them to (sink archive:NAME --pass), else from its input, or from
what --input says. Windows that may still change are left out. Views and archives are compared row by row.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click
import orjson

from clickpipe.cli.completing.places import sources
from clickpipe.cli.recipes import read_plan, takes_one
from clickpipe.cli.text import described
from clickpipe.cli.words import say
from clickpipe.core.terminal import shown
from clickpipe.core.time import instant_text

if TYPE_CHECKING:
    from clickpipe.engine.audit import Compared

_DIFFERENT = 65
_SHOWN = 10  # rows of a window that are shown
_EPILOG = """\
Examples:
  clickpipe run -q -c "ingest sample_data/clicks.ndjson.zst --time ts | window tumble 1d | aggregate n='count(*)' |
    sink view:days" &&
    clickpipe audit -c "ingest sample_data/clicks.ndjson.zst --time ts | window tumble 1d | aggregate n='count(*)' |
    sink view:days"

Exact functions must agree to the last digit, and estimates too: a sketch does not depend on the order of its records. --exact
holds estimates against exact values instead, within their bound, and takes the memory that these take."""


@described("audit", __doc__, _EPILOG)
@takes_one
@click.option("--input", "inputs", multiple=True, metavar="SOURCE", help="where the raw records are", shell_complete=sources)
@click.option("--sample", type=click.IntRange(1), metavar="N", help="compare N windows only, chosen by chance")
@click.option("--seed", type=int, metavar="N", help="--sample: the same windows each time")
@click.option("--exact", is_flag=True, help="hold estimates against exact values")
@click.option("--differences", is_flag=True, help="print windows that are wrong, and no others")
@click.option("--json", "as_json", is_flag=True, help="for programs, an object per window")
def command(
    recipe: str,
    pipeline: str | None,
    values: tuple[str, ...],
    inputs: tuple[str, ...],
    sample: int | None,
    seed: int | None,
    exact: bool,
    differences: bool,
    as_json: bool,
) -> int:
    from clickpipe.engine.audit import Audit

    plan = read_plan(recipe, pipeline, values)
    windows = wrong = rows = 0
    for one in Audit(plan, inputs, sample, seed, exact).compared(say):
        windows, wrong, rows = windows + 1, wrong + (not one.is_right), rows + one.agreed
        if one.is_right and differences:
            continue
        lines = [orjson.dumps(_as_json(one)).decode()] if as_json else list(map(shown, _told(one)))
        sys.stdout.writelines(f"{line}\n" for line in lines)
    say(f"{windows:,} windows compared, {rows:,} rows agree" + (f"; {wrong:,} windows are wrong" if wrong else ""))
    return _DIFFERENT if wrong else 0


def _told(one: Compared) -> Iterator[str]:
    counts = {
        f"{one.agreed:,} {'row agrees' if one.agreed == 1 else 'rows agree'}": True,
        f"{len(one.differing):,} differ": one.differing,
        f"{len(one.missing):,} missing": one.missing,
        f"{len(one.too_many):,} too many": one.too_many,
    }
    where = "all" if one.window is None else instant_text(one.window)
    yield f"{one.sink}  {where}  {', '.join(text for text, has in counts.items() if has)}"
    for key, values in one.differing[:_SHOWN]:
        told = ", ".join(f"{name} is {there}, should be {should}" for name, (there, should) in values.items())
        yield f"    {_key(key)}: {told}"
    yield from (f"    {_key(key)}: missing" for key in one.missing[:_SHOWN])
    yield from (f"    {_key(key)}: too many" for key in one.too_many[:_SHOWN])


def _key(key: Mapping[str, object]) -> str:
    parts = [f"{name}={value}" for name, value in key.items() if name not in ("window_start", "window_end")]
    return " ".join(parts) or "row"


def _as_json(one: Compared) -> dict[str, Any]:
    differing = [
        {"key": key, "values": {name: {"is": there, "should_be": should} for name, (there, should) in values.items()}}
        for key, values in one.differing
    ]
    return {
        "sink": one.sink,
        "window_start": one.window,
        "agree": one.agreed,
        "differing": differing,
        "missing": one.missing,
        "too_many": one.too_many,
    }
