"""List, show and verify what a pipeline has saved.

    clickpipe checkpoint ls              pipelines, and their checkpoints
    clickpipe checkpoint show NAME       the newest checkpoint: its steps, positions and files
    clickpipe checkpoint verify NAME     whether every file of every checkpoint is whole

Nothing is changed, and a running pipeline is not disturbed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import click
import orjson

from clickpipe.cli import pipelines
from clickpipe.cli.completing import values
from clickpipe.cli.text import described
from clickpipe.errors import PlanError, StateError
from clickpipe.state.directory import StateDirectory
from clickpipe.state.manifest import Entry, Manifest

_EPILOG = """\
Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts --name days --checkpoint 1s |
    clickpipe window tumble 1d | clickpipe aggregate n='count(*)' | clickpipe sink - && clickpipe checkpoint show days"""


@described("checkpoint", __doc__, _EPILOG)
@click.argument("action", type=click.Choice(["ls", "show", "verify"]), metavar="ls|show|verify", help="what to do")
@click.argument("name", default="", metavar="[NAME]", help="a pipeline", shell_complete=values.pipelines)
@click.option("--epoch", type=int, metavar="N", help="this checkpoint instead of the newest")
@click.option("--json", "as_json", is_flag=True, help="for programs")
def command(action: str, name: str, epoch: int | None, as_json: bool) -> None:
    if action == "ls":
        _list(pipelines.chosen((name,) if name else ()), as_json)
        return
    if not name:
        raise PlanError(f"checkpoint {action} needs a pipeline", notes=pipelines.known())
    directory = pipelines.opened(name)
    if action == "show":
        _show(_chosen(directory, epoch), as_json)
    else:
        _verify(directory)


def _chosen(directory: StateDirectory, epoch: int | None) -> Manifest:
    manifest = next((one for one in directory.manifests() if epoch in (None, one.epoch)), None)
    if manifest is None:
        raise PlanError(f"{directory.name} has no checkpoint" + ("" if epoch is None else f" {epoch}"))
    return manifest


def _list(directories: list[StateDirectory], as_json: bool) -> None:
    rows = [
        (directory.name, *row)
        for directory in directories
        for manifest in directory.manifests()
        if (row := _row(directory, manifest))
    ]
    if as_json:
        names = ("pipeline", "epoch", "run", "when", "bytes", "ended")
        sys.stdout.buffer.write(b"".join(orjson.dumps(dict(zip(names, row, strict=True))) + b"\n" for row in rows))
        return
    for name, epoch, run, when, size, ended in rows:
        sys.stdout.write(f"{name}  {epoch}  run {run}  {when}  {size:,} bytes{'  ended' if ended else ''}\n")


def _row(directory: StateDirectory, manifest: Manifest) -> tuple[int, int, str, int, bool] | None:
    """None for one that a running pipeline has let go meanwhile."""
    try:
        when = datetime.fromtimestamp(os.stat(directory.path_of(manifest.epoch, "MANIFEST.json")).st_mtime, UTC)
    except FileNotFoundError:
        return None
    size = sum(entry[key]["bytes"] for entry in manifest.steps for key in ("state", "append") if key in entry)
    return manifest.epoch, manifest.run, when.strftime("%Y-%m-%dT%H:%M:%SZ"), size, manifest.ended


def _show(manifest: Manifest, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(manifest) + b"\n")
        return
    entries = sorted(manifest.steps, key=lambda entry: (entry["hop"], "step" not in entry))
    sys.stdout.write(
        f"{manifest.pipeline}: checkpoint {manifest.epoch} of run {manifest.run}{', ended' if manifest.ended else ''}\n"
    )
    sys.stdout.writelines(f"  {line}\n" for entry in entries for line in _lines(entry))


def _lines(entry: Entry) -> Iterator[str]:
    """One entry, in words; of a step that several workers run, the first one's."""
    match entry:
        case {"step": _, "worker": number} if number:
            return
        case {"step": step, "says": says}:
            yield f"{step} {says}".rstrip()
        case {"source": {"splits": splits}}:
            yield from (f"  {split['name']} {_place(split)}" for split in splits)
        case {"state": {"file": file, "bytes": size}} | {"append": {"file": file, "bytes": size}}:
            yield f"  {file}  {size:,} bytes"


def _place(split: Mapping[str, Any]) -> str:
    """How far a split was read; of a followed path, how far the files were that have, or had, the path."""
    if "generations" not in split:
        return f"read to byte {split['offset']:,}{', its end' if split['done'] else ''}"
    places = [f"read to byte {one['offset']:,} of inode {one['inode']}" for one in split["generations"]]
    return ", ".join(places) or "has no file"


def _verify(directory: StateDirectory) -> None:
    damaged = directory.unreadable()
    for manifest in directory.manifests():
        try:
            directory.verify(manifest)
        except StateError:
            if not directory.is_gone(manifest.epoch):  # or a running pipeline has let it go
                damaged.append(manifest.epoch)
            continue
        sys.stdout.write(f"{directory.name}  {manifest.epoch}  whole\n")
    if damaged:
        raise StateError(f"{directory.name}: damaged checkpoints: {', '.join(map(str, sorted(damaged)))}")
