"""Show which pipelines run, how far they have come, and what went wrong.

    running   a process of it lives             waiting   died, and its supervisor will start it again
    ended     its input ended, all is written   stopped   nothing of it lives; a run goes on from its checkpoint
    failed    its supervisor has given it up    stopping, draining   it was asked to end, and has not yet

Pipelines that take no checkpoints are not shown.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click
import orjson

from clickpipe.cli import pipelines
from clickpipe.cli.completing import values
from clickpipe.cli.text import described
from clickpipe.errors import StateError
from clickpipe.state.directory import StateDirectory
from clickpipe.state.manifest import Manifest

_EPILOG = """\
Examples:
  clickpipe status
  clickpipe run -c "ingest sample_data/clicks.ndjson.zst --checkpoint 1s | aggregate n='count(*)' | sink -" &&
    clickpipe status --json"""


@described("status", __doc__, _EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME]...", help="pipelines; by default all", shell_complete=values.pipelines)
@click.option("--json", "as_json", is_flag=True, help="for programs: an object per line")
def command(names: tuple[str, ...], as_json: bool) -> None:
    told = [_told(directory) for directory in pipelines.chosen(names)]
    if as_json:
        sys.stdout.write("".join(orjson.dumps(one).decode() + "\n" for one in told))
        return
    if not told:
        sys.stdout.write(f"{pipelines.known()[0]}\n")
        return
    rows = [_cells(one) for one in told]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        sys.stdout.write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


def _told(directory: StateDirectory) -> dict[str, Any]:
    processes, supervisor, said = directory.processes(), directory.supervisor(), directory.told_by_supervisor()
    manifest, run, damage = _newest(directory)
    return {
        "pipeline": directory.name,
        "state": _state(processes, supervisor, said, manifest),
        "run": run,
        "checkpoint": manifest and manifest.epoch,
        "age_seconds": manifest and _age(directory, manifest),
        "processes": processes,
        "supervisor": supervisor,
        "restarts": said.get("restarts", 0),
        "workers": said.get("workers"),
        "reason": damage or (said.get("reason") or said.get("last") or ""),
    }


def _newest(directory: StateDirectory) -> tuple[Manifest | None, int | None, str]:
    """The newest checkpoint, the number of the run, and what is wrong with them."""
    try:
        damaged = directory.unreadable()
        manifest = next(directory.manifests(), None)
        return manifest, directory.run(), f"checkpoint {damaged[-1]} is damaged" if damaged else ""
    except StateError as error:
        return None, None, error.what


def _state(processes: list[int], supervisor: int | None, said: dict[str, Any], manifest: Manifest | None) -> str:
    if supervisor:
        return str(said.get("state", "running"))
    if processes:
        return "running"
    if said.get("state") == "failed" and not (manifest and manifest.ended):
        return "failed"
    return "ended" if manifest and manifest.ended else "stopped"


def _age(directory: StateDirectory, manifest: Manifest) -> float | None:
    """None for a checkpoint that a newer one has replaced just now."""
    try:
        return round(max(0.0, time.time() - os.stat(directory.path_of(manifest.epoch, "MANIFEST.json")).st_mtime), 1)
    except FileNotFoundError:
        return None


def _cells(one: dict[str, Any]) -> list[str]:
    checkpoint, age = one["checkpoint"], one["age_seconds"]
    return [
        one["pipeline"],
        one["state"],
        f"run {one['run'] or '?'}",
        "no checkpoint"
        if checkpoint is None
        else f"checkpoint {checkpoint}" + (f", {_spelled(age)} ago" if age is not None else ""),
        f"process {' '.join(map(str, one['processes']))}" if one["processes"] else "",
        f"workers {' '.join(map(str, one['workers']))}" if one["workers"] else "",
        f"restarts {one['restarts']}" if one["restarts"] else "",
        one["reason"],
    ]


def _spelled(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"
