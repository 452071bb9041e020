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

import os
import queue
import select
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count

import polars as pl

from clickpipe.core.intake import IngestFeed
from clickpipe.core.meter import Ledger
from clickpipe.core.operator import Feed, Staged, Writer
from clickpipe.core.sink import Commits, Destination
from clickpipe.errors import OutsideError, StateError
from clickpipe.faults import kill_point
from clickpipe.operators.ingest import Ingest
from clickpipe.operators.sink import SINKS
from clickpipe.state import snapshot
from clickpipe.state.directory import StateDirectory
from clickpipe.state.files import append_at, length_of, sync_folder
from clickpipe.state.home import pipeline_directory
from clickpipe.state.manifest import Entry, Manifest, digest
from clickpipe.state.space import Space
from clickpipe.wire.frames import Barrier

_KEPT = 3  # checkpoints
_USUAL = 10.0  # seconds after which it is told that the last process waits for a file of a process before it
_GRACE = 1.0  # seconds for which it goes on waiting, once the step before us is gone
_MOST_SAVING = 8  # files that may be on their way to the disk
_PENDING = 2  # checkpoints that may be on their way to the disk


@dataclass(frozen=True)
class Place:
    """A step in the whole pipeline: how many come before it, its name, and what it says."""

    hop: int
    name: str
    says: str

    def entry(self, floats: set[str]) -> Entry:
        """What a barrier says of the step itself. `floats`: integer columns in which its process has seen floats."""
        return {"hop": self.hop, "step": self.name, "says": self.says, "floats": sorted(floats)}

    def staged(self, kind: str, staged: Staged) -> Entry:
        """What a barrier says of the step's output. `kind`: the part of clickpipe.sinks that commits it."""
        appears = {"appears": staged.appears} if staged.appears else {}
        return {"hop": self.hop, "sink": kind, "staged": staged.said, **appears}


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
        if self.restore.ended and self.restore.entry(place.hop, "step") is None:
            return {}  # a limit had ended the run, and the steps before it were not asked
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
        self.check()
        entries: list[Entry] = []
        for place, tables in places:
            entries.append(place.entry(floats))
            if tables:
                data = snapshot.to_bytes(place.name, tables)
                name = f"{place.hop}-{place.name}.state"
                entries.append({"hop": place.hop, "state": {"file": name, "bytes": len(data), "hash": digest(data)}})
                self.in_background(partial(self.directory.save, epoch, name, data))
        kill_point("after-snapshot")
        return entries

    def in_background(self, work: Callable[[], None]) -> None:
        """Durable work of a checkpoint. What it raises is raised soon. A disk that is too slow is waited for."""
        while self._saving and (self._saving[0].done() or len(self._saving) > _MOST_SAVING):
            self._saving[0].result()
            self._saving = self._saving[1:]
        self._saving = [*self._saving, self._pool.submit(work)]

    @property
    def is_saving(self) -> bool:
        """Whether files of this process are on their way to the disk."""
        return not all(future.done() for future in list(self._saving))

    def close(self) -> None:
        """Wait for the files that are on their way. Raises what writing one raised."""
        self._pool.shutdown()
        self.check()

    def check(self) -> None:
        """Raises what writing a file raised. Several threads ask, so a list of futures is replaced, never changed."""
        for future in self._saving:
            if future.done():
                future.result()


@dataclass(frozen=True)
class _Pending:
    epoch: int
    entries: Sequence[Entry]
    accounts: Sequence[Mapping[str, int]]
    staged: Staged
    ended: bool


class Committer:
    """Completes checkpoints in the last process, in a thread of its own, strictly in the order of their numbers.

    A manifest is a redo log: what all sinks have staged for a checkpoint, those in the middle too, is committed from what
    the manifest says of it and from nothing else. First the commits of the one that the run goes on from are finished:
    whoever wrote that may have died before.
    """

    def __init__(
        self, pipeline: str, checkpoints: Checkpoints, writer: Writer, kind: str, place: Place, say: Callable[[str], None]
    ) -> None:
        self._pipeline, self._checkpoints, self._writer, self._place = pipeline, checkpoints, writer, place
        self._kind, self._say = kind, say
        self._commits: dict[int, Commits] = {}
        checkpoints.directory.lead(checkpoints.run)
        if checkpoints.restore is not None:
            self._commit(checkpoints.restore)
        self._queue: queue.Queue[_Pending | None] = queue.Queue(_PENDING)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True, name="committer")
        self._thread.start()

    def put(self, barrier: Barrier, accounts: Sequence[Ledger], floats: set[str], *, ended: bool) -> None:
        """A checkpoint whose barrier has arrived. Raises what an earlier one raised."""
        self.check()
        staged = self._writer.prepare(barrier.epoch, ended=ended)
        kill_point("after-prepare")
        said = [ledger.to_json() for ledger in accounts]
        entries = [*barrier.state, self._place.entry(floats), self._place.staged(self._kind, staged)]
        self._queue.put(_Pending(barrier.epoch, entries, said, staged, ended))

    def close(self) -> None:
        """Wait until all are complete."""
        self._queue.put(None)
        self._thread.join()
        for commits in self._commits.values():
            commits.close()
        self.check()

    def check(self) -> None:
        """Raises what completing a checkpoint raised."""
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
        directory = self._checkpoints.directory
        pending.staged.durable()
        kill_point("after-staged-durable")
        entries = _with_lengths(pending.entries)
        self._wait_for_files(pending.epoch, entries)
        directory.sync(pending.epoch)
        kill_point("before-manifest")
        run = self._checkpoints.run
        manifest = Manifest(self._pipeline, run, pending.epoch, entries, pending.accounts, pending.ended)
        directory.commit(manifest)
        self._commit(manifest)
        directory.retire(_KEPT)

    def _commit(self, manifest: Manifest) -> None:
        """Show everything that the manifest names, as one unit. Repeating it is harmless."""
        directory = self._checkpoints.directory
        for entry in manifest.steps:
            if "append" in entry:
                said = entry["append"]
                patience = directory.patience(f"checkpoint {manifest.epoch}")
                append_at(said["to"], said["at"], directory.read(manifest.epoch, said), patience)
                kill_point("after-append")
        kill_point("before-commit")
        for entry in manifest.steps:
            if "staged" in entry:
                self._commits_of(entry).commit(entry["staged"])
                kill_point("after-commit")

    def _commits_of(self, entry: Entry) -> Commits:
        if entry["hop"] not in self._commits:
            destination: type[Destination] = SINKS.find(entry["sink"], Destination)
            self._commits[entry["hop"]] = destination.commits(self._checkpoints.directory)
        return self._commits[entry["hop"]]

    def _wait_for_files(self, epoch: int, entries: Sequence[Entry]) -> None:
        """Until all are in place: then everything before us is durable."""
        for path in self._paths(epoch, entries):
            self._wait_for_file(epoch, path)
        for folder in {os.path.dirname(entry["appears"]) for entry in entries if "appears" in entry}:
            sync_folder(folder)  # whoever made it there may not have come to that yet
            sync_folder(os.path.dirname(folder))

    def _wait_for_file(self, epoch: int, path: str) -> None:
        """As long as the step before us lives: it may wait for space on a full disk."""
        begun, is_told, last = time.monotonic(), False, float("inf")
        while not os.path.exists(path):
            self._checkpoints.check()
            waited = time.monotonic() - begun
            is_others = not self._checkpoints.is_saving  # our own files come, or we hear why not
            if waited > _USUAL and is_others and not is_told:
                self._say(f"checkpoint {epoch} waits for {path}: its step writes slowly, or waits for space itself")
                is_told = True
            if last == float("inf") and _step_before_is_gone():  # a process before it may still write
                last = waited + _GRACE
            if waited > last and is_others:
                raise OutsideError(f"checkpoint {epoch}: {path} did not come: the step that writes it has died")
            time.sleep(min(0.001 + waited / 100, 0.1))

    def _paths(self, epoch: int, entries: Sequence[Entry]) -> list[str]:
        """What the entries name and is there only when it is durable."""
        names = [entry[key]["file"] for entry in entries for key in ("state", "append") if key in entry]
        appear = [entry["appears"] for entry in entries if "appears" in entry]
        return [self._checkpoints.directory.path_of(epoch, name) for name in names] + appear


def _step_before_is_gone() -> bool:
    """Whether standard input is a pipe that nobody writes to any more."""
    poll = select.poll()
    poll.register(0, 0)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def _with_lengths(entries: Sequence[Entry]) -> list[Entry]:
    """Appends with the place where each goes: where its file ends now, since all earlier checkpoints are done."""
    ends: dict[str, int] = {}
    placed: list[Entry] = []
    for entry in entries:
        if append := entry.get("append"):
            at = ends.get(append["to"], length_of(append["to"]))
            ends[append["to"]] = at + append["bytes"]
            entry = {**entry, "append": {**append, "at": at}}
        placed.append(entry)
    return placed


def begin(step: Ingest, name: str, word: str, space: Space) -> tuple[IngestFeed, Checkpoints]:
    """Begin a run of a pipeline with checkpoints, where its last one left off. Raises StateError, OutsideError, PlanError."""
    directory = StateDirectory(pipeline_directory(step.name or name or step.pipeline()), space)
    run = directory.begin(anew=step.reset, anywhere=step.allow_fs)
    checkpoints = Checkpoints(directory, run.number, run.restore)
    checkpoints.tables(Place(0, word, step.says()))
    feed = step.open(run.restore.entry(0, "source") if run.restore else None, say=space.say)
    feed.run, feed.restore = run.number, run.restore.epoch if run.restore else 0
    if run.restore and run.restore.ended:
        feed.notes = (f"{directory.name} had come to its end at checkpoint {run.restore.epoch}; --reset at ingest begins anew",)
        feed.finish()
    else:
        feed.epochs = count(run.epoch)
    return feed, checkpoints


def join(feed: Feed, space: Space) -> Checkpoints | None:
    """Belong to the run that a stream says it is of. Raises StateError, OutsideError."""
    if feed.restore is None:
        return None
    directory = StateDirectory(pipeline_directory(feed.pipeline, feed.state), space)
    directory.join(feed.run)
    restore = directory.manifest(feed.restore) if feed.restore else None
    if feed.restore and restore is None:
        raise StateError(f"{directory.name}: checkpoint {feed.restore}, which the stream goes on from, is not there")
    return Checkpoints(directory, feed.run, restore)
