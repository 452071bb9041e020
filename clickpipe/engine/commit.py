"""The last process completes checkpoints: waits for what the others save, writes the manifest, shows the results.

    barrier arrives --> prepare --queue--> what its entries name is in place --> MANIFEST.json --> commits
                                           (a thread of its own)                 the one moment

A file has its name only when it is durable, so waiting is looking for names. A state file is named by its hash,
which nobody knew when the barrier passed.
"""

from __future__ import annotations

import os
import queue
import select
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from clickpipe.core.meter import Ledger
from clickpipe.core.operator import Staged, Writer
from clickpipe.core.sink import Commits
from clickpipe.engine.checkpoints import Checkpoints, Place
from clickpipe.errors import Caution, OutsideError, StateError
from clickpipe.faults import kill_point
from clickpipe.operators.sink import commits_of
from clickpipe.state.files import append_at, hold, length_of, sync_folder
from clickpipe.state.history import History
from clickpipe.state.manifest import Entry, Manifest
from clickpipe.state.samples import CheckpointSample
from clickpipe.wire.frames import Barrier

T = TypeVar("T")

_KEPT = 3  # checkpoints
_USUAL = 10.0  # seconds after which it is told that the last process waits for a file of a process before it
_GRACE = 1.0  # seconds for which it goes on waiting, once the step before us is gone
_PENDING = 2  # checkpoints that may be on their way to the disk


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
        self,
        pipeline: str,
        checkpoints: Checkpoints,
        writer: Writer,
        kind: str,
        place: Place,
        say: Callable[[str], None],
        inputs: Sequence[int] = (0,),
    ) -> None:
        """`inputs`: descriptors of the streams of the steps before it."""
        self.newest: CheckpointSample | None = None
        self._inputs = inputs
        self._pipeline, self._checkpoints, self._writer, self._place = pipeline, checkpoints, writer, place
        self._kind, self._say = kind, say
        self._commits: dict[int, Commits] = {}
        self._lengths = dict(checkpoints.restore.lengths) if checkpoints.restore else {}
        checkpoints.directory.lead(checkpoints.run)
        self._history = History(checkpoints.directory.path, anew=checkpoints.restore is None)
        self._held: dict[str, int] = {}  # late and dead-letter files
        if checkpoints.restore is not None:
            self._check_lengths(checkpoints.restore)
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
        while self._held:
            os.close(self._held.popitem()[1])
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
        entries = _with_lengths(self._wait_for_files(pending.epoch, pending.entries))
        directory.sync(pending.epoch)
        kill_point("before-manifest")
        run = self._checkpoints.run
        for append in (entry["append"] for entry in entries if "append" in entry):
            self._lengths[append["to"]] = append["at"] + append["bytes"]
        lengths = dict(self._lengths)
        manifest = Manifest(self._pipeline, run, pending.epoch, entries, pending.accounts, pending.ended, lengths)
        directory.commit(manifest)
        self._commit(manifest)
        source = manifest.entry(0, "source") or {}
        self.newest = _told(manifest, now := time.time())
        self._history.note(manifest.epoch, source.get("reached"), now, ended=manifest.ended)
        directory.retire(_KEPT)

    def _commit(self, manifest: Manifest) -> None:
        """Show everything that the manifest names, as one unit. Repeating it is harmless."""
        directory = self._checkpoints.directory
        for entry in manifest.steps:
            if "append" in entry:
                said = entry["append"]
                patience = directory.patience(f"checkpoint {manifest.epoch}")
                if said["to"] not in self._held:
                    self._held[said["to"]] = hold(said["to"], patience)
                append_at(said["to"], said["at"], directory.read(manifest.epoch, said), patience)
                kill_point("after-append")
        kill_point("before-commit")
        for entry in manifest.steps:
            if "staged" in entry:
                self._commits_of(entry).commit(entry["staged"])
                kill_point("after-commit")

    def _check_lengths(self, manifest: Manifest) -> None:
        """Raises StateError for a late or dead-letter file that has lines of others: ours would be put over them."""
        for path, length in manifest.lengths.items():
            if length_of(path) > length:
                raise StateError(
                    f"{path} has grown since checkpoint {manifest.epoch}, and not by this pipeline",
                    notes=[
                        "give each pipeline a file of its own, and take the other's lines out of this one,",
                        "or start anew with --reset at ingest",
                    ],
                )

    def _commits_of(self, entry: Entry) -> Commits:
        if entry["hop"] not in self._commits:
            self._commits[entry["hop"]] = commits_of(entry["sink"], self._checkpoints.directory)
        return self._commits[entry["hop"]]

    def _wait_for_files(self, epoch: int, entries: Sequence[Entry]) -> list[Entry]:
        """Until all that the entries name is in place: then everything before us is durable. State files known by name."""
        directory = self._checkpoints.directory
        complete: list[Entry] = []
        for entry in entries:
            if "state" in entry:
                stem = entry["state"]["stem"]
                entry = {**entry, "state": self._wait_for(epoch, stem, partial(directory.state_file, epoch, stem))}
            for path in _appearing(directory.path_of, epoch, entry):
                self._wait_for(epoch, path, partial(_exists, path))
            complete.append(entry)
        for folder in {os.path.dirname(entry["appears"]) for entry in entries if "appears" in entry}:
            sync_folder(folder)  # whoever made it there may not have come to that yet
            sync_folder(os.path.dirname(folder))
        return complete

    def _wait_for(self, epoch: int, what: str, look: Callable[[], T | None]) -> T:
        """As long as the step before us lives: it may wait for space on a full disk."""
        begun, is_told, last = time.monotonic(), False, float("inf")
        while (found := look()) is None:
            self._checkpoints.check()
            waited = time.monotonic() - begun
            is_others = not self._checkpoints.is_saving  # our own files come, or we hear why not
            if waited > _USUAL and is_others and not is_told:
                self._say(Caution(f"checkpoint {epoch} waits for {what}: its step writes slowly, or waits for space itself"))
                is_told = True
            if last == float("inf") and _are_gone(self._inputs):  # a process before it may still write
                last = waited + _GRACE
            if waited > last and is_others:
                raise OutsideError(f"checkpoint {epoch}: {what} did not come: the step that writes it has died")
            time.sleep(min(0.001 + waited / 100, 0.1))
        return found


def _told(manifest: Manifest, now: float) -> CheckpointSample:
    """Of one that was completed now."""
    begun = manifest.entry(0, "begun") or now
    return CheckpointSample(manifest.epoch, now, max(0.0, now - begun), sum(file["bytes"] for file in manifest.files()))


def _exists(path: str) -> bool | None:
    return os.path.exists(path) or None


def _appearing(path_of: Callable[[int, str], str], epoch: int, entry: Entry) -> list[str]:
    """What an entry names and is there only when it is durable."""
    named = [path_of(epoch, entry["append"]["file"])] if "append" in entry else []
    return named + ([entry["appears"]] if "appears" in entry else [])


def _are_gone(inputs: Sequence[int]) -> bool:
    """Whether all are pipes that nobody writes to any more."""
    poll = select.poll()
    for descriptor in inputs:
        poll.register(descriptor, 0)
    return sum(bool(event & select.POLLHUP) for _, event in poll.poll(0)) == len(inputs)


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
