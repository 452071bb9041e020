"""Raw input as a feed: what its columns are, when its records were, and where it is for a checkpoint.

    InOrder      splits that end, one after the other        (core/inorder.py)
    Following    files that grow, in turn                    (core/following.py)

A subclass says which blocks come next; everything else is the same for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clickpipe.batch import Batch, Dead
from clickpipe.columns import RESERVED, Columns, can_be_named, declared_types
from clickpipe.core import clock as wall
from clickpipe.core.eventtime import EventTime, streamed
from clickpipe.core.format import FORMATS, Format, Wants
from clickpipe.core.idle import IdleRule, Watermark
from clickpipe.core.lateness import Lateness
from clickpipe.core.operator import Feed, Pull
from clickpipe.core.packing import UNPACK
from clickpipe.core.source import Admission, Arrived
from clickpipe.core.time import SplitClock
from clickpipe.errors import Caution, DataError, NothingYet
from clickpipe.lines import Block
from clickpipe.spent import IDLE, waiting
from clickpipe.state.epochs import Epochs
from clickpipe.state.hunt import Hunt
from clickpipe.state.samples import SplitSample
from clickpipe.wire.frames import Barrier

_PATIENCE = 2  # intervals that a checkpoint waits for the one before
_BUCKETS = 8_192  # of lateness that a checkpoint holds for all splits together: a barrier is one line of the stream
_FEWEST = 8  # of one split
_SLOW_WRITER = 60.0  # seconds that a line may take


@dataclass(frozen=True)
class Pace:
    """How much is read at once, and how often something happens. Unit: seconds; an `interval` of 0: no checkpoints."""

    batch_bytes: int
    latency: float
    interval: float = 0.0


@dataclass(frozen=True)
class Taking:
    """How raw input is taken: what its records are. `columns`: as a person declares them; `bounded`: no more than is there when
    it begins; `stays_open`: and at that end the run stops, as if it had been asked to, instead of closing windows.
    """

    pipeline: str
    format: str
    time: EventTime
    pace: Pace
    columns: str | None = None
    strict: bool = False
    idle: IdleRule = IdleRule()
    admission: Admission = Admission()
    bounded: bool = False
    stays_open: bool = False

    def event_time(self, form: Format) -> EventTime:
        """In the field that a person named, or that the format has it in."""
        return replace(self.time, field=self.time.field or form.time)

    def judges_all(self, form: Format) -> bool:
        """Whether every column's values are judged: by wish, or since a value that fits no type cannot become JSON."""
        return self.strict or not form.has_text

    def judged(
        self, batch: Batch, form: Format, time: EventTime, clock: SplitClock, arrival: int | None, after: Columns
    ) -> tuple[Batch, list[Dead]]:
        """Event time, lateness and the guard against clocks that run ahead; and bad records. `after`: as EventTime.judged."""
        dead: list[Dead] = []
        if self.judges_all(form):
            batch, misfits = batch.need([name for name in batch.columns.types if name in batch.frame.columns], set())
            dead = [misfits] if misfits else []
        batch, more = time.judged(batch, clock, arrival, after)
        return batch, dead + more


class IngestFeed(Feed):
    """Raw input, judged record by record. `epochs`: with checkpoints, the numbers of those to come."""

    epochs: Iterator[int] | None = None
    hunt: Hunt | None = None  # for a record at which the pipeline dies
    checkpoints: Epochs | None = None  # where they are complete one day
    _before = 0  # the newest that was begun
    _say: Callable[[str], None]  # what a person should know

    def __init__(self, taking: Taking, saved: Mapping[str, Any] | None = None) -> None:
        """`saved`: the position of an earlier run. Raises StateError if its input is not there any more."""
        self._taking, self._pace, self.pipeline = taking, taking.pace, taking.pipeline
        self._format: Format = FORMATS.find(taking.format, Format)()
        self.has_text = self._format.has_text
        self._time = taking.event_time(self._format)
        self.floats = set()
        self.inherited = []
        self._wants = Wants(None, True, self.floats)
        self._watermark = Watermark(taking.idle)
        self._idle: frozenset[str] = frozenset()
        self._places: dict[str, int] = {}  # where the last block of each split ended
        self._due, self._is_new = 0.0, False
        self._is_stopping = self._drains = False
        self._prepare()
        if saved:
            self._restore_common(saved)
            self._restore(saved["splits"])
        else:
            self._begin()
            with waiting(IDLE):
                found = self._declared(taking.columns) if taking.columns else self._inferred()
            self._raw_columns = self._time.found_in(found)
        idles = taking.idle.moves_by_clock and self._raw_columns.time is not None
        self.columns = replace(streamed(self._raw_columns), idles=idles)

    # What a subclass says.

    def _prepare(self) -> None:
        """Before anything is read or restored."""

    def _begin(self) -> None:
        """Without an earlier run."""

    def _sample(self) -> list[Block]:
        """The first records. They are read again."""
        raise NotImplementedError

    def _peek(self) -> list[Block]:
        """The first block of one split, if there is any. It is handed on all the same."""
        raise NotImplementedError

    def _first_name(self) -> str:
        """Of the first split."""
        raise NotImplementedError

    def _positions(self) -> list[dict[str, Any]]:
        """Where each split is, as JSON."""
        raise NotImplementedError

    def _clocks(self) -> dict[str, SplitClock]:
        """Of each split by its name."""
        raise NotImplementedError

    def _left(self) -> list[str]:
        """The splits that are not at their end. Another thread may ask."""
        raise NotImplementedError

    def _restore(self, splits: list[Mapping[str, Any]]) -> None:
        """Go on from these positions."""
        raise NotImplementedError

    # What the columns are.

    def check_reserved(self) -> None:
        """Raises DataError for a field that has a name of ours."""
        for name in RESERVED:
            if name in self._raw_columns.types:
                raise DataError(f'the input has a field "{name}", a name that clickpipe reserves: rename it first')

    def _declared(self, text: str) -> Columns:
        types = declared_types(text)
        if not self._format.has_text:
            inferred = self._inferred().types
            types = {name: types.get(name, kind) for name, kind in inferred.items()}
        return Columns(types, frozenset(types))

    def _inferred(self) -> Columns:
        sample = self._sample()
        if self._taking.bounded and not any(block.data or block.overlong for block in sample):
            raise NothingYet(f"{self._first_name()} has no record yet", hint="--columns tells what they will be")
        types = self._nameable(self._format.infer(sample))
        if not types and any(b"\0" in block.data[:4096] for block in sample):
            packed = next((tool for magic, tool in UNPACK.items() if sample[0].data.startswith(magic)), "")
            hint = f"unpack it before: {packed} FILE | clickpipe ingest - …" if packed else ""
            raise DataError(f"{self._first_name()} is binary, not {self._taking.format}", hint=hint)
        return Columns(types)

    def _nameable(self, types: dict[str, str]) -> dict[str, str]:
        """The same, if all fields can be columns: one that cannot would be lost at the first step that makes records anew."""
        for name in types:
            if not can_be_named(name):
                raise DataError(f"the input has a field {name!r}, and no column can be called so: rename it first")
        return types

    # What the records are.

    def want(self, names: list[str] | None, text: bool) -> None:
        if self._taking.strict:
            names = None
        if names is not None:
            names = [name for name in self._raw_columns.types if name in names or name == self._time.field]
        elif self._format.has_text:
            names = list(self._raw_columns.types)
        self._wants = Wants(names, text, self.floats)

    def parsed(self) -> list[str]:
        names = self._wants.names
        return list(self._raw_columns.types) if names is None or self._taking.judges_all(self._format) else names

    def disorder(self) -> Lateness:
        """How far the first records come behind others. They are handed on all the same."""
        clock, blocks = self._time.clock(is_live=False), self._peek() if self._time.field in self._raw_columns.types else []
        for block in blocks:
            batch, _, _ = self._format.read(block, self._raw_columns, Wants([str(self._time.field)], False, set()), "")
            clock.judge(self._time.instants(batch).drop_nulls())
        return clock.lateness

    def _judged(self, batch: Batch, clock: SplitClock, dead: list[Dead], read: int, arrival: int | None) -> Pull:
        batch, more = self._taking.judged(batch, self._format, self._time, clock, arrival, self.columns)
        self._is_new |= read > 0
        return Pull([batch], None, [*dead, *more], read)

    def _judged_as_arrived(
        self, block: Block, parsed: tuple[Batch, list[Dead], int], arrived: Sequence[Arrived], clock: SplitClock, name: str
    ) -> Iterator[Pull]:
        """Pieces that arrived at different times are judged each by its own, where that makes a difference."""
        batch, dead, read = parsed
        first = min(one.arrival for one in arrived)
        if len(arrived) < 2 or not self._is_ahead(batch, clock, first):
            yield self._judged(batch, clock, dead, read, first)
            return
        at = block.offset
        for one in arrived:
            overlong = block.overlong if one is arrived[-1] else ()
            piece = Block(block.data[at - block.offset : one.end - block.offset], at, overlong)
            batch, dead, read = self._format.read(piece, self._raw_columns, self._wants, name)
            yield self._judged(batch, clock, dead, read, one.arrival)
            at = one.end

    def _is_ahead(self, batch: Batch, clock: SplitClock, arrival: int) -> bool:
        """Whether a record may be too far ahead of when it arrived."""
        if self._time.field is None or self._time.field not in batch.frame.columns:
            return False
        greatest = self._time.instants(batch).max()
        return isinstance(greatest, int) and clock.may_be_ahead(greatest, arrival)

    # How far it has come.

    @property
    def _reached(self) -> int | None:
        return self._watermark.reached

    def _now(self) -> int:
        """Milliseconds, of a clock that never goes back."""
        return wall.ticks()

    def _note(self, split: str, block: Block) -> None:
        """It was taken."""
        self.bytes_in += len(block.data)
        self._places[split] = block.end

    def standings(self) -> list[SplitSample]:
        clocks = self._clocks()
        left = [name for name in self._left() if name in clocks]
        return [SplitSample(name, self._places.get(name), clocks[name].watermark, self._watermark.silence(name)) for name in left]

    def greatest(self) -> int | None:
        found = [clock.greatest for clock in self._clocks().values() if clock.greatest is not None]
        return max(found, default=None)

    def _advance(self, marks: Mapping[str, int | None], now: int) -> bool:
        """See Watermark. Where the clock has moved it, or a split has become idle, there is something new to save."""
        has_moved = self._watermark.advance(marks, now)
        idle = self._watermark.idle()
        self._is_new |= (has_moved and bool(idle)) or idle != self._idle
        self._idle = idle
        return has_moved

    def seen(self) -> dict[str, Any]:
        """What has been seen of the times, as a position has it."""
        clocks = self._clocks()
        splits = [{"name": name} | self._observed(name, clock, len(clocks)) for name, clock in clocks.items()]
        return {"out_of_orderness": self._time.out_of_orderness, "splits": splits}

    def _observed(self, split: str, clock: SplitClock, splits: int) -> dict[str, Any]:
        """What has been seen of a split, for its position."""
        silence = self._watermark.silence(split)
        idle = {} if silence is None else {"silent_since": wall.now() - silence}
        return clock.to_json(max(_FEWEST, _BUCKETS // splits)) | idle

    # How it ends.

    def stop(self, *, drain: bool) -> None:
        self._drains = drain
        self._is_stopping = True

    def leave(self) -> None:
        self.stop(drain=False)

    def _tell_of_unfinished(self, name: str, unfinished: int, silence: float | None) -> None:
        """Of a line that nobody will read, or that nobody seems to finish: one that is being written is for the next run."""
        is_being_written = silence is not None and silence < _SLOW_WRITER
        if unfinished and not (self._taking.stays_open and not self._drains and is_being_written):
            self._say(Caution(f"{name} ends with {unfinished:,} bytes of a line without its newline, which is left unread"))

    def _end(self) -> None:
        """Nothing more is handed on."""
        if self._taking.stays_open and self.epochs:
            self._is_stopping = True
        self.is_stopped = self._is_stopping and not self._drains
        if self.epochs:
            self.last = self._barrier(self.epochs)

    # Where it is, and how to go on from there.

    def finish(self) -> None:
        """Nothing is left to read: the run before had come to the end."""
        raise NotImplementedError

    def _next_barrier(self) -> Barrier | None:
        """A checkpoint, if one is due and there is something new to save."""
        now = time.monotonic()
        if not self.epochs or not self._is_new or now < self._due or self._is_behind(now):
            return None
        barrier = self._barrier(self.epochs)
        self._before = barrier.epoch
        self._wait_for_next()
        return barrier

    def _is_behind(self, now: float) -> bool:
        """The checkpoint before is still on its way to a slow disk: another would hold up the stream. For some time."""
        if not self.checkpoints or not self._before or now > self._due + _PATIENCE * self._pace.interval:
            return False
        return not self.checkpoints.is_complete(self._before)

    def _wait_for_next(self) -> None:
        self._is_new, self._due = False, time.monotonic() + self._pace.interval

    def _barrier(self, epochs: Iterator[int]) -> Barrier:
        return Barrier(next(epochs), ({"hop": 0, "source": self._position(), "begun": time.time()},))

    def _position(self) -> dict[str, Any]:
        """What a later run needs to go on from here, as JSON."""
        return {
            "columns": self._raw_columns.to_json(),
            "floats": sorted(self.floats),
            "format": self._format.saved(),
            "reached": self._reached,
            "out_of_orderness": self._time.out_of_orderness,
            "splits": self._positions(),
        }

    def _restore_common(self, saved: Mapping[str, Any]) -> None:
        self.floats |= set(saved["floats"])
        self._raw_columns = Columns.from_json(saved["columns"])
        self._format.restore(saved["format"])
        self._watermark.reached = saved["reached"]
