"""Run recipes, or a pipeline given with -c.

All steps of a pipeline run in one process and hand each other columns; --no-fuse gives each step a process
of its own, joined by pipes, with the same results.

A pipeline that takes checkpoints is supervised: when a process of it dies, all are started again from the
last checkpoint, after a pause that grows from a tenth of a second to half a minute. It is given up after 10
restarts that bring no new checkpoint (exit code 1), and not started again at all when its data, its plan or
its saved state is what is wrong (65, 2, 78). SIGTERM or Ctrl-C stop it after a last checkpoint, with windows
left open; a second one stops it at once. SIGUSR1 drains it: the input ends, and windows close.

--until now takes what is there when the run begins, and ends: for cron and timers. With checkpoints windows stay open, and
the next run goes on; a run that meets another one at work leaves it alone (exit code 75).

Under systemd (Type=notify) it says when all pipelines read, how they are, and feeds the watchdog as long as they make progress:
clickpipe systemd writes the unit.

Several recipes run side by side: a signal is for all of them, `clickpipe stop NAME` for one.
"""

from __future__ import annotations

import os

import click

from clickpipe.cli.accounts import report
from clickpipe.cli.adjusted import formatted, saved_every, taken_until
from clickpipe.cli.completing import places
from clickpipe.cli.progress import progress
from clickpipe.cli.recipes import read_plans, takes_values
from clickpipe.cli.step import CODECS
from clickpipe.cli.supervised import step_words, supervise
from clickpipe.cli.text import described
from clickpipe.cli.words import say, speak_of
from clickpipe.core.step import PartitionStep
from clickpipe.engine.notify import manager
from clickpipe.engine.opening import ACCOUNTS
from clickpipe.engine.restart import Policy
from clickpipe.errors import NothingYet, PlanError, Unsupported
from clickpipe.operators.ingest import Ingest
from clickpipe.plan.flags import DURATION
from clickpipe.plan.guarantees import require_exactly_once
from clickpipe.plan.plan import Plan
from clickpipe.stopping import RESCALED

_EPILOG = """\
Examples:
  clickpipe run recipes/trending.toml --format table
  clickpipe run -c 'ingest sample_data/clicks.ndjson.zst | select event_id page country | limit 2 | sink -'
  clickpipe run recipes/trending.toml --set window=1d --format table
  clickpipe run --until now recipes/live.toml && clickpipe status
  clickpipe run recipes/trending.toml recipes/countries.toml --format ndjson --quiet | wc -l"""


@described("run", __doc__, _EPILOG)
@click.argument("recipes", nargs=-1, metavar="[RECIPE]...", help="pipelines in TOML files", shell_complete=places.recipes)
@click.option("-c", "pipeline", metavar="PIPELINE", help="run this pipeline instead of a recipe")
@takes_values
@click.option("--format", "form", type=click.Choice(["ndjson", "csv", "table"]), help="how a sink on standard output writes")
@click.option("--checkpoint", type=DURATION, metavar="DURATION", help="save state this often; as at ingest  [e.g. 1s]")
@click.option("--until", metavar="now", help="take what is there by now, and end: for cron; as at ingest")
@click.option("--drain", is_flag=True, help="with --until: close all windows at the end")
@click.option(
    "--restart", type=click.Choice(["on-failure", "no"]), default="on-failure", help="with checkpoints: start again what died"
)
@click.option(
    "--on-poison",
    type=click.Choice(["dead-letter", "fail"]),
    default="fail",
    help="a record at which the pipeline dies every time: set it aside (files at rest only), or give up  [default fail]",
)
@click.option("--require", type=click.Choice(["exactly-once"]), help="refuse to start a pipeline that gives less")
@click.option("--no-fuse", is_flag=True, help="one process per step")
@click.option("--codec", type=click.Choice(CODECS), help="with --no-fuse: how records travel between steps")
@click.option("--accounts", type=click.Choice(["windows"]), help="what became of the records of each window too, at the end")
@click.option("--quiet", "-q", is_flag=True, help="do not print the accounts at the end")
def command(
    recipes: tuple[str, ...],
    pipeline: str | None,
    values: tuple[str, ...],
    form: str | None,
    checkpoint: int | None,
    until: str | None,
    drain: bool,
    restart: str,
    on_poison: str,
    require: str | None,
    no_fuse: bool,
    codec: str | None,
    accounts: str | None,
    quiet: bool,
) -> int:
    if accounts:
        os.environ[ACCOUNTS] = accounts  # for all processes of the pipeline
    plans = [saved_every(formatted(plan, form), checkpoint) for plan in read_plans(recipes, pipeline, values)]
    plans = [taken_until(plan, until, drain=drain) for plan in plans]
    if require:
        for plan in plans:
            require_exactly_once(plan)
    codec = codec or os.environ.get("CLICKPIPE_CODEC") or "ndjson"
    if codec not in CODECS:
        raise PlanError(f'CLICKPIPE_CODEC is "{codec}"; it can be ndjson or arrow')
    policy = None if restart == "no" else Policy(hunts=on_poison == "dead-letter")
    if policy and policy.hunts:
        for plan in plans:
            _check_hunt(plan)
    if no_fuse:
        with progress(plans, quiet=quiet):
            return supervise(plans, [step_words(plan, quiet=quiet) for plan in plans], codec, policy)
    if len(plans) > 1 or (policy and plans[0].takes_checkpoints) or manager(os.environ):
        more = [f"--set={value}" for value in values] + ([f"--format={form}"] if form else []) + (["--quiet"] if quiet else [])
        more += [] if checkpoint is None else [f"--checkpoint={checkpoint}ms"]
        more += ([f"--until={until}"] if until else []) + (["--drain"] if drain else [])
        origins = [[path] for path in recipes] or [["-c", pipeline or ""]]
        words = [[["run", "--restart=no", *more, *origin]] for origin in origins]
        with progress(plans, quiet=quiet):
            return supervise(plans, words, codec, policy)
    from clickpipe.engine.local import run

    is_forked = any(isinstance(node.step, PartitionStep) for node in plans[0].nodes)
    try:
        with progress(plans, quiet=quiet or is_forked):
            outcome = run(plans[0], say, arrow=codec == "arrow", begun=speak_of)
    except NothingYet as nothing:
        if not _ends_with_what_is_there(plans[0]):
            raise
        if not quiet:
            say(nothing.what)
        return 0
    if outcome.is_rescaled:
        return RESCALED
    if not quiet:
        report(outcome)
    return 0


def _ends_with_what_is_there(plan: Plan) -> bool:
    return any(isinstance(node.step, Ingest) and node.step.until for node in plan.nodes)


def _check_hunt(plan: Plan) -> None:
    """Setting a record aside takes input that reads the same each time."""
    sources = [node.step for node in plan.nodes if isinstance(node.step, Ingest)]
    if any(step.follow or not step.is_replayable for step in sources):
        raise Unsupported("notimpl", "--on-poison dead-letter", "it is for files at rest")
    if not plan.takes_checkpoints:
        raise PlanError("--on-poison dead-letter takes checkpoints", hint="--checkpoint 1s")
