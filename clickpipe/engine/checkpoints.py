"""Checkpoints in one process: what its steps save at a barrier, and, in the last process, the commit.

    barrier n --> snapshot of each step --> entries added --> barrier n goes on       each process
                        |                        |
                        v (in the background)    v
                  2-aggregate.state        the last: waits for every file, MANIFEST.json, commits

A barrier's entries become the manifest. They carry the hash of each file before the file is there, so that
the barrier need not wait for the disk; a file has its name only when it is durable, so the last process
needs to look for names only.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any

import polars as pl

from clickpipe.core.meter import Ledger
from clickpipe.core.operator import Feed, Staged, Writer
from clickpipe.errors import OutsideError, StateError
from clickpipe.faults import kill_point
from clickpipe.operators.ingest import Ingest, IngestFeed
from clickpipe.state import snapshot
from clickpipe.state.directory import StateDirectory
from clickpipe.state.files import append_at, length_of
from clickpipe.state.home import pipeline_directory
from clickpipe.state.manifest import Entry, Manifest, digest

_KEPT = 3  # checkpoints
_PATIENCE = 60.0  # seconds for which the last process waits for a file of a process before it
_PENDING = 2  # checkpoints that may be on their way to the disk


@dataclass(frozen=True)
class Place:
    """A step in the whole pipeline: how many come before it, its name, and what it says."""

    hop: int
    name: str
    says: str


class Checkpoints:
    """One process's part in its pipeline's checkpoints."""

    def __init__(self, directory: StateDirectory, run: int, restore: Manifest | None) -> None:
        self.directory, self.run, self.restore = directory, run, restore
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._saving: list[Future[None]] = []

    def tables(self, place: Place) -> Mapping[str, pl.DataFrame]:
        """What a step saved. Raises StateError if another step stood in its place."""
        if self.restore is None:
            return {}
        said = f"{self.restore.entry(place.hop, 'step')} {self.restore.entry(place.hop, 'says')}"
        if said != f"{place.name} {place.says}":
            raise StateError(
                f"{self.directory.name}: checkpoint {self.restore.epoch} is of another pipeline",
                notes=[
                    f"saved: {said}",
                    f"now:   {place.name} {place.says}",
                    "--reset at ingest starts anew, and keeps what there is aside",
                ],
            )
        entry = self.restore.entry(place.hop, "state")
        return snapshot.from_bytes(self.directory.read(self.restore.epoch, entry)) if entry else {}

    def floats(self, places: Sequence[Place]) -> set[str]:
        """Integer columns in which these steps had seen floats."""
        if self.restore is None:
            return set()
        return {name for place in places for name in self.restore.entry(place.hop, "floats") or ()}

    def entries(self, epoch: int, places: Sequence[tuple[Place, Mapping[str, pl.DataFrame]]], floats: set[str]) -> list[Entry]:
        """What these steps add to the barrier. Their files are written in the background."""
        self._check()
        entries: list[Entry] = []
        for place, tables in places:
            entries.append({"hop": place.hop, "step": place.name, "says": place.says, "floats": sorted(floats)})
            if tables:
                data = snapshot.to_bytes(place.name, tables)
                name = f"{place.hop}-{place.name}.state"
                entries.append({"hop": place.hop, "state": {"file": name, "bytes": len(data), "hash": digest(data)}})
                self.in_background(lambda name=name, data=data: self.directory.save(epoch, name, data))  # type: ignore[misc]
        kill_point("after-snapshot")
        return entries

    def in_background(self, work: Callable[[], None]) -> None:
        """Durable work of a checkpoint. What it raises is raised at the next one."""
        self._saving.append(self._pool.submit(work))

    def close(self) -> None:
        """Wait for the files that are on their way. Raises what writing one raised."""
        self._pool.shutdown()
        self._check()

    def _check(self) -> None:
        for future in [future for future in self._saving if future.done()]:
            self._saving.remove(future)
            future.result()


@dataclass(frozen=True)
class _Pending:
    epoch: int
    entries: list[Entry]
    accounts: Sequence[Mapping[str, int]]
    staged: Staged
    place: Place
    ended: bool


class Committer:
    """Completes checkpoints in the last process, in a thread of its own, strictly in the order of their numbers."""

    def __init__(self, pipeline: str, checkpoints: Checkpoints, writer: Writer) -> None:
        self._pipeline, self._checkpoints, self._writer = pipeline, checkpoints, writer
        self._queue: queue.Queue[_Pending | None] = queue.Queue(_PENDING)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="committer")
        self._thread.start()

    @staticmethod
    def redo(checkpoints: Checkpoints, writer: Writer, place: Place) -> None:
        """Finish the commits of the checkpoint that the run goes on from; whoever wrote it may have died before."""
        manifest = checkpoints.restore
        if manifest is not None:
            _commit(checkpoints.directory, manifest, writer, place)

    def put(self, epoch: int, entries: list[Entry], accounts: Sequence[Ledger], place: Place, *, ended: bool) -> None:
        """A checkpoint whose barrier has arrived. Raises what an earlier one raised."""
        self._check()
        staged = self._writer.prepare(epoch, ended=ended)
        kill_point("after-prepare")
        said = [ledger.to_json() for ledger in accounts]
        self._queue.put(_Pending(epoch, entries, said, staged, place, ended))

    def close(self) -> None:
        """Wait until all are complete."""
        self._queue.put(None)
        self._thread.join()
        self._check()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        while (pending := self._queue.get()) is not None:
            if self._failure is None:
                try:
                    self._complete(pending)
                except BaseException as error:
                    self._failure = error

    def _complete(self, pending: _Pending) -> None:
        directory, place = self._checkpoints.directory, pending.place
        pending.staged.durable()
        kill_point("after-staged-durable")
        entries = [_with_length(entry) for entry in pending.entries]
        entries.append({"hop": place.hop, "step": place.name, "says": place.says})
        entries.append({"hop": place.hop, "staged": pending.staged.said})
        self._wait_for_files(pending.epoch, entries)
        kill_point("before-manifest")
        run = self._checkpoints.run
        manifest = Manifest(self._pipeline, run, pending.epoch, entries, pending.accounts, pending.ended)
        directory.commit(manifest)
        _commit(directory, manifest, self._writer, place)
        directory.retire(_KEPT)

    def _wait_for_files(self, epoch: int, entries: Sequence[Entry]) -> None:
        deadline = time.monotonic() + _PATIENCE
        for entry in entries:
            for key in ("state", "append"):
                while key in entry and not self._checkpoints.directory.has(epoch, entry[key]["file"]):
                    if time.monotonic() > deadline:
                        raise OutsideError(
                            f"checkpoint {epoch}: {entry[key]['file']} did not come: its step has died or stands still"
                        )
                    time.sleep(0.001)


def _commit(directory: StateDirectory, manifest: Manifest, writer: Writer, place: Place) -> None:
    """Show everything that the manifest names, as one unit. Repeating it is harmless."""
    for entry in manifest.steps:
        if "append" in entry:
            said = entry["append"]
            append_at(said["to"], said["at"], directory.read(manifest.epoch, said))
            kill_point("after-append")
    kill_point("before-commit")
    staged: Mapping[str, Any] | None = manifest.entry(place.hop, "staged")
    if staged is not None:
        writer.commit(staged)
    kill_point("after-commit")


def _with_length(entry: Entry) -> Entry:
    """An append with the place where it goes: where the file ends now, since all earlier appends are done."""
    if "append" not in entry:
        return entry
    return {**entry, "append": {**entry["append"], "at": length_of(entry["append"]["to"])}}


def begin(step: Ingest, name: str, word: str) -> tuple[IngestFeed, Checkpoints]:
    """Begin a run of a pipeline with checkpoints, where its last one left off. Raises StateError, OutsideError, PlanError."""
    directory = StateDirectory(pipeline_directory(step.name or name or step.pipeline()))
    run = directory.begin(anew=step.reset)
    checkpoints = Checkpoints(directory, run.number, run.restore)
    checkpoints.tables(Place(0, word, step.says()))
    feed = step.open(run.restore.entry(0, "source") if run.restore else None)
    feed.run, feed.restore = run.number, run.restore.epoch if run.restore else 0
    if run.restore and run.restore.ended:
        feed.notes = (f"{directory.name} had come to its end at checkpoint {run.restore.epoch}; --reset at ingest begins anew",)
        feed.finish()
    else:
        feed.epochs = count(run.epoch)
    return feed, checkpoints


def join(feed: Feed) -> Checkpoints | None:
    """Belong to the run that a stream says it is of. Raises StateError, OutsideError."""
    if feed.restore is None:
        return None
    directory = StateDirectory(pipeline_directory(feed.pipeline, feed.state))
    directory.join(feed.run)
    restore = directory.manifest(feed.restore) if feed.restore else None
    if feed.restore and restore is None:
        raise StateError(f"{directory.name}: checkpoint {feed.restore}, which the stream goes on from, is not there")
    return Checkpoints(directory, feed.run, restore)
