"""Checkpoints in one process: what its steps save at a barrier, and how a run begins, or joins one that has begun.

    barrier n --> snapshot of each step --> entries added --> barrier n goes on --> the last process (commit.py)
                        |
                        v (in the background)
                  2-aggregate.7.9f86….state

The barrier waits neither for the disk nor for the bytes: its entry says the step and the run, and the file that
appears for them has the hash of what it holds in its name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count

import polars as pl

from clickpipe.core.intake import IngestFeed
from clickpipe.core.operator import Feed, Staged
from clickpipe.core.redivided import redivided
from clickpipe.errors import StateError
from clickpipe.faults import kill_point
from clickpipe.operators.ingest import Ingest
from clickpipe.state import snapshot
from clickpipe.state.directory import StateDirectory
from clickpipe.state.home import pipeline_directory
from clickpipe.state.hunt import HUNT, SETS_ASIDE, Hunt
from clickpipe.state.manifest import Entry, Manifest, digest
from clickpipe.state.space import Space
from clickpipe.stopping import AGAIN
from clickpipe.wire.frames import Worker

PARTIAL = "partial"  # the name of the first phase of an aggregate; the second has that of the aggregate
_MOST_SAVING = 8  # files that may be on their way to the disk


@dataclass(frozen=True)
class Place:
    """A step in the whole pipeline: how many come before it, its name, and what it says. `worker`: which of them runs it."""

    hop: int
    name: str
    says: str
    words: tuple[str, ...] = ()  # that say the step again, see Step.words
    worker: Worker | None = None

    @property
    def label(self) -> str:
        """What tells its files from those of others."""
        return f"{self.hop}-{self.name}" + (f"-{self.worker.number}" if self.worker else "")

    def number(self) -> dict[str, int]:
        """What its entries say of the worker."""
        return {"worker": self.worker.number} if self.worker else {}

    def entry(self, floats: set[str]) -> Entry:
        """What a barrier says of the step itself. `floats`: integer columns in which its process has seen floats."""
        said = {"hop": self.hop, "step": self.name, "says": self.says, "words": self.words, "floats": sorted(floats)}
        return {**said, **self.number()}

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
        before, worker = len(self.restore.all_of(place.hop, "step")), place.worker
        is_divided_anew = worker is not None and worker.of != before
        saved = {
            entry.get("worker", 0): snapshot.from_bytes(self.directory.read(self.restore.epoch, entry["state"]))
            for entry in self.restore.all_of(place.hop, "state")
            if is_divided_anew or worker is None or entry.get("worker", 0) == worker.number
        }
        return redivided(saved, before, worker)

    def floats(self, places: Sequence[Place]) -> set[str]:
        """Integer columns in which these steps had seen floats."""
        if self.restore is None:
            return set()
        return {name for place in places for entry in self.restore.all_of(place.hop, "floats") for name in entry["floats"]}

    def entries(self, epoch: int, places: Sequence[tuple[Place, Mapping[str, pl.DataFrame]]], floats: set[str]) -> list[Entry]:
        """What these steps add to the barrier. Their files are written in the background."""
        self.check()
        entries: list[Entry] = []
        for place, tables in places:
            entries.append(place.entry(floats))
            if tables:
                stem = f"{place.label}.{self.run}"
                entries.append({"hop": place.hop, "state": {"stem": stem}, **place.number()})
                # Polars locks a frame that it writes, and asks for Python's lock meanwhile: a shared one can stop both threads.
                own = {name: frame.clone() for name, frame in tables.items()}
                self.in_background(partial(self._save, epoch, stem, place.name, own))
        kill_point("after-snapshot")
        return entries

    def _save(self, epoch: int, stem: str, step: str, tables: Mapping[str, pl.DataFrame]) -> None:
        data = snapshot.to_bytes(step, tables)
        self.directory.save(epoch, f"{stem}.{digest(data)}.state", data)

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


def begin(step: Ingest, name: str, word: str, space: Space) -> tuple[IngestFeed, Checkpoints]:
    """Begin a run of a pipeline with checkpoints, where its last one left off. Raises StateError, OutsideError, PlanError."""
    step.check_checkpoint()
    directory = StateDirectory(pipeline_directory(step.pipeline(name)), space)
    anew = step.reset and not os.environ.get(AGAIN)  # a supervisor has begun anew already
    run = directory.begin(anew=anew, anywhere=step.allow_fs)
    checkpoints = Checkpoints(directory, run.number, run.restore)
    checkpoints.tables(Place(0, word, step.says()))
    feed = step.begun(run.restore.entry(0, "source") if run.restore else None, space.say, directory)
    feed.run, feed.restore = run.number, run.restore.epoch if run.restore else 0
    if run.restore and run.restore.ended:
        feed.notes = (f"{directory.name} had come to its end at checkpoint {run.restore.epoch}; --reset at ingest begins anew",)
        feed.finish()
    else:
        feed.epochs, feed.checkpoints = count(run.epoch), directory
        if told := os.environ.get(HUNT):
            feed.hunt = Hunt(directory, sets_aside=told == SETS_ASIDE)
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
