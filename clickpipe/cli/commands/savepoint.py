"""Keep a checkpoint for as long as you like, and go back to it.

    clickpipe savepoint create NAME [SAVEPOINT]    a verified copy of the newest checkpoint; NAME may be running
    clickpipe savepoint ls [NAME]                  savepoints, with their checkpoints
    clickpipe savepoint restore NAME SAVEPOINT     the next run goes on from there; NAME must be stopped

Savepoints are never deleted by clickpipe. Restoring copies: the savepoint stays, and what was saved since is put aside.
Results go back too: parts of a file that came later are put aside, late and dead-letter files are cut (a copy is
kept). A view keeps its rows until they are given again. A file that was put together at the end cannot go back.
"""

from __future__ import annotations

import sys

import click
import orjson

from clickpipe.cli import pipelines
from clickpipe.cli.completing import values
from clickpipe.cli.text import described
from clickpipe.cli.words import say
from clickpipe.errors import PlanError
from clickpipe.state.savepoints import Savepoints

_EPILOG = """\
Examples:
  clickpipe run -c "ingest sample_data/clicks.ndjson.zst --name all --checkpoint 1s | aggregate n='count(*)' | sink -" &&
    clickpipe savepoint create all monday && clickpipe savepoint ls all"""


@described("savepoint", __doc__, _EPILOG)
@click.argument("action", type=click.Choice(["create", "ls", "restore"]), metavar="create|ls|restore", help="what to do")
@click.argument("name", default="", metavar="[NAME]", help="a pipeline", shell_complete=values.pipelines)
@click.argument(
    "savepoint", default="", metavar="[SAVEPOINT]", help="by default the checkpoint's number", shell_complete=values.savepoints
)
@click.option("--json", "as_json", is_flag=True, help="for programs")
def command(action: str, name: str, savepoint: str, as_json: bool) -> None:
    if action == "ls":
        _list((name,) if name else (), as_json)
        return
    if not name:
        raise PlanError(f"savepoint {action} needs a pipeline", notes=pipelines.known())
    directory = pipelines.opened(name)
    if action == "create":
        manifest = Savepoints(directory).create(savepoint)
        sys.stdout.write(f"{name}: checkpoint {manifest.epoch} is kept as {savepoint or manifest.epoch}\n")
        return
    if not savepoint:
        raise PlanError("savepoint restore needs a savepoint", notes=[f"there are: {', '.join(Savepoints(directory).names())}"])
    from clickpipe.engine.rewind import rewind

    for note in rewind(directory, savepoint):
        say(note)
    sys.stdout.write(f"{name}: the next run goes on from savepoint {savepoint}\n")


def _list(names: tuple[str, ...], as_json: bool) -> None:
    for directory in pipelines.chosen(names):
        for name, manifest in Savepoints(directory).all():
            size = sum(file["bytes"] for file in manifest.files())
            if as_json:
                told = {
                    "pipeline": directory.name,
                    "savepoint": name,
                    "epoch": manifest.epoch,
                    "run": manifest.run,
                    "bytes": size,
                }
                sys.stdout.write(orjson.dumps(told).decode() + "\n")
            else:
                sys.stdout.write(f"{directory.name}  {name}  checkpoint {manifest.epoch}  run {manifest.run}  {size:,} bytes\n")
