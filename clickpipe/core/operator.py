"""Operators, feeds and writers: how a plan runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns
from clickpipe.core.meter import Ledger
from clickpipe.state.samples import SplitSample
from clickpipe.wire.frames import Barrier, Worker

FOREVER = 2**62  # the end of time: no event time reaches it


@dataclass(frozen=True)
class Late:
    """Records whose windows are all gone. Shape: a record's columns, and when each of its windows closed."""

    batch: Batch
    reason: str = "late"


class Operator:
    """A running step. One thread, no locks, no I/O, no clock."""

    done = False  # needs no more input
    most_rows: int | None = None  # that a batch may have which it is given; None: any number

    def on_batch(self, batch: Batch) -> Iterable[Batch | Late | Dead]:
        return (batch,)

    def on_watermark(self, time: int) -> Iterable[Batch]:
        """No record older than `time` counts any more. FOREVER = end of input."""
        return ()

    def on_idle(self) -> None:
        """The watermark that comes next was moved by the wall clock, not by records."""

    def on_update(self) -> Iterable[Batch]:
        """What has changed and is not final yet: asked for at each checkpoint, without checkpoints at each watermark."""
        return ()

    def size(self) -> tuple[int, int]:
        """Of its state: rows, and bytes of memory."""
        tables = self.snapshot().values()
        return sum(table.height for table in tables), int(sum(table.estimated_size() for table in tables))

    def take_partly_late(self) -> int:
        """Records since the last call that came too late for some of their windows only."""
        return 0

    def snapshot(self) -> Mapping[str, pl.DataFrame]:
        """All state, as immutable tables by name."""
        return {}


@dataclass
class Pull:
    """What a feed hands on at once: records, what was wrong with others, and the watermark after them."""

    batches: list[Batch] = field(default_factory=list)
    watermark: int | None = None
    dead: list[Dead] = field(default_factory=list)
    read: int = 0  # records taken from the input, the dead ones included
    removed: int = 0  # records that a tool between two processes took out
    barrier: Barrier | None = None  # a checkpoint is taken behind all this
    idle: bool = False  # the wall clock has moved the watermark, and no record


class Feed:
    """What a plan reads: a source, or the stream from the step before."""

    columns: Columns  # of the records, before the first step
    pipeline: str = ""
    state: str | None = None  # the pipeline's state directory
    max_errors: str | None = None  # how many bad records the pipeline allows
    dead_letter: str | None = None  # where a person wants bad records
    late: str | None = None  # and late ones
    sinks: tuple[str, ...] = ()  # where steps before write
    is_live: bool = False  # more may come at any time
    has_text: bool = True  # records have lines, which are kept aside where only some columns are wanted
    hop: int = 0
    run: int = 0
    floats: set[str]  # integer columns in which a float turned up; shared with the operators
    notes: tuple[str, ...] = ()  # what a person should know of the input
    inherited: list[Ledger]  # accounts of the steps before, known at the end
    last: Barrier | None = None  # the end as a barrier, known then; None where nothing is saved
    restore: int | None = None  # the checkpoint to go on from, 0 for none; None: no checkpoints are taken
    is_stopped: bool = False  # `pulls` ended because of `stop`, and more may be read another time
    worker: Worker | None = None  # which of several this process is, if it is one
    divided: Columns | None = None  # of pieces of an aggregate: what its partition had divided
    before: Sequence[dict[str, int]] = ()  # of a worker: the accounts that it hands on as they are, known at the end
    life: str = ""  # which of the runs of pipelines of this name it is
    bytes_in = 0  # that were read

    def standings(self) -> list[SplitSample]:
        """Of its splits, for whoever looks. Another thread may ask."""
        return []

    def extent(self) -> tuple[int, int] | None:
        """How much of the input was read, and how much there is, in one unit; None where that cannot be told, or there is no
        end. Another thread may ask."""
        return None

    def greatest(self) -> int | None:
        """The latest event time that it has seen, in epoch milliseconds. Another thread may ask."""
        return None

    def want(self, names: list[str] | None, text: bool) -> None:
        """What the plan needs of the records: the values of these columns (None: of all), and their text."""

    def parsed(self) -> list[str]:
        """The columns whose values are made of the input, as `want` has asked."""
        return list(self.columns.types)

    def hand_on(self) -> None:
        """Nobody looks into the records: they may stay packed."""

    def pulls(self) -> Iterator[Pull]:
        raise NotImplementedError

    def stop(self, *, drain: bool) -> None:
        """End `pulls` soon. `drain`: as if the input had ended. May be called in a signal handler. By default it goes on."""

    def leave(self) -> None:
        """Nobody wants any more what is made of it. Called by another thread."""

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Staged:
    """What a writer has taken since the last checkpoint.

    `said` goes into the manifest, and is all that a commit needs, in this process or another one (core/sink.py);
    `durable` makes it survive, and may be called in another thread; `appears`: a path that is there from then on only.
    """

    said: Mapping[str, Any]
    durable: Callable[[], None]
    appears: str | None = None


class Writer:
    """Where a plan's records go.

    With checkpoints: `prepare` once per checkpoint, then its `durable`. When the manifest is written, the pipeline's
    last process commits what all writers have prepared. `bytes_out`: that were written, where records become bytes.
    """

    bytes_out = 0

    def accept(self, batch: Batch) -> tuple[Batch, list[Dead]]:
        """What of a batch can be written, and the rest with the reasons: it goes no further."""
        return batch, []

    def write(self, batch: Batch) -> None:
        raise NotImplementedError

    def advance(self, watermark: int | None) -> None:
        """Everything up to this watermark was written; a good moment to let readers see it."""

    def close(self, accounts: list[Ledger]) -> None:
        """The stream ended as it should."""

    def prepare(self, epoch: int, *, ended: bool) -> Staged:
        """What was written since the last checkpoint, not yet to be seen."""
        return Staged({}, lambda: None)

    def abandon(self) -> None:
        """The stream failed: leave nothing behind that looks finished."""
