"""Show what a recipe or pipeline would do, step by step.

Reads the beginning of the input to learn its columns, and writes nothing.

With --live NAME: what that pipeline has seen of its input's times, as its newest checkpoint has it (or, without
checkpoints, the end of its last run): which --max-out-of-orderness would lose how many records, per split and in all;
which splits are idle, and since when; which gave times too far in the future. A setting "loses" the records that are
behind the watermark; windows that are still open take them all the same.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping

import click
import orjson

from clickpipe.cli.live import as_text, seen
from clickpipe.cli.live import to_json as to_json_live
from clickpipe.cli.recipes import read_plans
from clickpipe.cli.text import described
from clickpipe.columns import Columns
from clickpipe.core.guarantee import Guarantee
from clickpipe.core.step import RawStep
from clickpipe.errors import ClickpipeError, PlanError
from clickpipe.operators.ingest import Ingest
from clickpipe.plan.blocks import lowered
from clickpipe.plan.explain import Told, tell, to_json
from clickpipe.plan.guarantees import guarantees, require_exactly_once
from clickpipe.plan.parse import locate
from clickpipe.plan.plan import Plan

_EPILOG = """\
Examples:
  clickpipe explain recipes/trending.toml
  clickpipe explain -c "ingest sample_data/access.log --format combined | filter 'status >= 500' | sink -" --json
  clickpipe run -c "ingest sample_data/clicks.ndjson.zst --time ts --name clicks --checkpoint 1s
    | filter 'latency_ms > 9000' | sink -" | tail -1 && clickpipe explain --live clicks"""


@described("explain", __doc__, _EPILOG)
@click.argument("recipes", nargs=-1, metavar="[RECIPE]", help="a pipeline in a TOML file")
@click.option("-c", "pipeline", metavar="PIPELINE", help="explain this pipeline instead of a recipe")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="fill in ${NAME} in the pipeline")
@click.option("--require", type=click.Choice(["exactly-once"]), help="fail if the pipeline gives less, and say where")
@click.option("--live", "live", metavar="NAME", help="tell what this pipeline has seen of its input's times")
@click.option("--json", "as_json", is_flag=True, help="for programs")
def command(
    recipes: tuple[str, ...],
    pipeline: str | None,
    values: tuple[str, ...],
    require: str | None,
    live: str | None,
    as_json: bool,
) -> None:
    if live is not None:
        if recipes or pipeline is not None or values or require:
            raise PlanError("--live NAME is for a pipeline that has run: no recipe beside it", word="--live")
        _tell_live(live, as_json)
        return
    plans = read_plans(recipes, pipeline, values)
    if len(plans) > 1:
        raise PlanError("one recipe at a time")
    plan = plans[0]
    if require:
        require_exactly_once(plan)
    is_live = _is_live(plan)
    columns = None if is_live else _columns(plan)
    told = tell(plan if columns is None else lowered(plan, columns), columns)
    said = guarantees(plan)
    if as_json:
        sys.stdout.write(orjson.dumps(to_json(told, said), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        sys.stdout.write(_text(told, said))


def _tell_live(name: str, as_json: bool) -> None:
    told = seen(name)
    text = orjson.dumps(to_json_live(told), option=orjson.OPT_INDENT_2).decode() + "\n" if as_json else as_text(told)
    sys.stdout.write(text)


def _is_live(plan: Plan) -> bool:
    """Whether what comes is known only when it comes."""
    first = plan.nodes[0].step
    return plan.source is None or isinstance(first, RawStep) or (isinstance(first, Ingest) and not first.is_replayable)


def _columns(plan: Plan) -> Columns | None:
    """None where they are known only when the first record comes."""
    node = plan.source
    assert node is not None
    assert isinstance(node.step, Ingest)
    try:
        if not node.step.follow:
            return node.step.open().columns
        return _columns_so_far(node.step)
    except ClickpipeError as error:
        raise locate(error, node.written) from None


def _columns_so_far(step: Ingest) -> Columns | None:
    """Of files that are followed: nothing is waited for."""
    try:
        columns = dataclasses.replace(step, follow=False, idle_timeout=None, on_idle=None).open().columns
    except PlanError:  # a file that has not come yet
        return None
    return columns if step.columns or not set(columns.types) <= {step.time} else None


def _text(told: list[Told], said: Mapping[str, Guarantee]) -> str:
    lines = []
    for number, one in enumerate(told, 1):
        lines.append(f"{number}. {one.step}: {one.does}")
        if one.reads:
            lines.append(f"     reads    {', '.join(one.reads)}")
        columns = "known when the stream comes" if one.columns is None else ", ".join(f"{n} {t}" for n, t in one.columns.items())
        lines += [f"     columns  {columns}", f"     memory   {one.memory}"]
    lines += [f"{part}: {guarantee}" for part, guarantee in said.items()]
    return "\n".join(lines) + "\n"
