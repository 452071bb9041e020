"""Show what a recipe or pipeline would do, step by step, and what may be wrong with it.

A tree: the source, each step below it, and below a partition what its workers run; with columns and types, keys, windows,
what is kept in memory and until when, which columns are made of the input, what is guaranteed. Reads the beginning of the
input to learn its columns, and writes nothing.

At the end stands advice: what would go wrong though the pipeline can run, and the remedy. It changes no exit code, unless
--strict is given. Only what is certain is said.

  dedup-within      dedup --within is shorter than --max-out-of-orderness
  filter-first      a filter that could stand before the step that it stands behind
  idle-timeout      --idle-timeout is shorter than a window
  no-checkpoint     input that never ends, and a sink that shows nothing before a checkpoint
  no-result         aggregate without a window, of input that never ends
  no-watermark      a step waits for the watermark, and ingest knows no time
  out-of-order      no --max-out-of-orderness, and the first records are not in order
  sink-key          a view of rows that have no key
  sink-name         a destination that is a file, and looks like a mistyped address
  sink-revisions    rows that come again when they change, where all are kept
  unbounded-state   what is kept grows for ever, of input that never ends
  workers           more workers than cores

With --live NAME: what that pipeline has seen of its input's times, as its newest checkpoint has it (or, without
checkpoints, the end of its last run): which --max-out-of-orderness would lose how many records, per split and in all;
which splits are idle, and since when; which gave times too far in the future. A setting "loses" the records that are
behind the watermark; windows that are still open take them all the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from clickpipe.cli.begun import begun
from clickpipe.cli.completing import places
from clickpipe.cli.completing import values as completed
from clickpipe.cli.explained import Look, as_text, plain
from clickpipe.cli.live import as_text as as_text_live
from clickpipe.cli.live import seen
from clickpipe.cli.live import to_json as to_json_live
from clickpipe.cli.recipes import read_plans, takes_values
from clickpipe.cli.text import described
from clickpipe.columns import Columns
from clickpipe.errors import PlanError
from clickpipe.operators.ingest import Ingest
from clickpipe.plan import graph
from clickpipe.plan.blocks import lowered
from clickpipe.plan.explain import tell, to_json
from clickpipe.plan.guarantees import guarantees, require_exactly_once
from clickpipe.plan.lint import Advised, advice, numbered
from clickpipe.plan.plan import Plan

_FORMATS = ("text", "json", "mermaid", "dot")
_STRICT = 65  # exit code
_EPILOG = """\
Examples:
  clickpipe explain recipes/trending.toml
  clickpipe explain recipes/trending.toml --format mermaid
  clickpipe explain -c "ingest sample_data/access.log --format combined | filter 'status >= 500' | sink -" --json
  clickpipe explain --strict recipes/errors.toml || echo "there is advice"
  clickpipe run -c "ingest sample_data/clicks.ndjson.zst --time ts --name clicks --checkpoint 1s
    | filter 'latency_ms > 9000' | sink -" | tail -1 && clickpipe explain --live clicks"""


@described("explain", __doc__, _EPILOG)
@click.argument("recipes", nargs=-1, metavar="[RECIPE]", help="a pipeline in a TOML file", shell_complete=places.recipes)
@click.option("-c", "pipeline", metavar="PIPELINE", help="explain this pipeline instead of a recipe")
@takes_values
@click.option("--format", "form", type=click.Choice(_FORMATS), help="a tree to read, JSON, or a graph to draw  [default text]")
@click.option("--json", "as_json", is_flag=True, help="the same as --format json")
@click.option("--strict", is_flag=True, help="exit with 65 where there is advice")
@click.option("--require", type=click.Choice(["exactly-once"]), help="fail if the pipeline gives less, and say where")
@click.option(
    "--live",
    "live",
    metavar="NAME",
    help="tell what this pipeline has seen of its input's times",
    shell_complete=completed.pipelines,
)
def command(
    recipes: tuple[str, ...],
    pipeline: str | None,
    values: tuple[str, ...],
    form: str | None,
    as_json: bool,
    strict: bool,
    require: str | None,
    live: str | None,
) -> int:
    if as_json and form not in (None, "json"):
        raise PlanError(f"--json is --format json, and --format {form} is another", word="--json")
    form = "json" if as_json else form or "text"
    if live is not None:
        if recipes or pipeline is not None or values or require or strict:
            raise PlanError("--live NAME is for a pipeline that has run: no recipe beside it", word="--live")
        if form not in ("text", "json"):
            raise PlanError(f"--live NAME is told as text or json, not as {form}", word="--format")
        _tell_live(live, form == "json")
        return 0
    plans = read_plans(recipes, pipeline, values)
    if len(plans) > 1:
        raise PlanError("one recipe at a time")
    if require:
        require_exactly_once(plans[0])
    columns, parsed, known = begun(plans[0])
    found = advice(plans[0], columns, known)
    _show(plans[0], columns, parsed, found, form, ends=known.ends)
    return _STRICT if strict and found else 0


def _tell_live(name: str, as_json: bool) -> None:
    told = seen(name)
    _write(_json(to_json_live(told)) if as_json else as_text_live(told))


def _show(
    plan: Plan, columns: Columns | None, parsed: list[str] | None, found: Sequence[Advised], form: str, *, ends: bool
) -> None:
    runs = plan if columns is None else lowered(plan, columns)
    told, said, advised = tell(runs, columns), guarantees(plan), numbered(found, runs)
    names = {number: [one.advice.name for at, one in advised if at == number] for number, _ in advised}
    if form == "text":
        text = as_text(told, parsed, said, advised, ends=ends, look=Look.of_output())
    elif form == "json":
        text = _json({"pipeline": _name(plan), **to_json(told, parsed, said), "advice": [_object(*one) for one in advised]})
    else:
        text = graph.mermaid(told, names, plain) if form == "mermaid" else graph.dot(_name(plan), told, names, plain)
    _write(text)


def _write(text: str) -> None:
    """In a JSON string, too, a backslash and a number stand for what has no place in the encoding."""
    sys.stdout.buffer.write(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace"))


def _json(said: Mapping[str, Any]) -> str:
    return json.dumps(said, indent=2, ensure_ascii=False) + "\n"


def _object(number: int, one: Advised) -> dict[str, Any]:
    return {"name": one.advice.name, "number": number, "step": one.node.written.name} | {
        "what": one.advice.what,
        "remedy": one.advice.remedy,
    }


def _name(plan: Plan) -> str:
    """Of the pipeline, where its words say it."""
    given = next((node.step.name for node in plan.nodes if isinstance(node.step, Ingest) and node.step.name), None)
    return given or plan.name
