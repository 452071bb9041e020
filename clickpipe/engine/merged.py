"""What a process reads that merges the streams of several workers.

    worker 0 --thread--> frames, two at most ┐
    worker 1 --thread--> frames, two at most ┴-> whichever is ready, of those the one that is behind --> pulls

The watermark is the least of all. A barrier goes on when it has come from all; until then those that have given it are
not read on, and what they write waits in their pipes. Nobody waits for one input alone, so no skew can stop it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

from clickpipe.core.meter import Ledger, added, joined
from clickpipe.core.operator import FOREVER, Feed, Pull
from clickpipe.engine.feeds import StreamFeed
from clickpipe.errors import DataError
from clickpipe.spent import IDLE, waiting
from clickpipe.state.samples import SplitSample
from clickpipe.wire.frames import Barrier, End
from clickpipe.wire.pump import Arriving
from clickpipe.wire.stream import Frame, StreamReader

_AHEAD = 2  # frames of an input that wait to be taken


@dataclass
class _Input:
    feed: StreamFeed
    waiting: deque[Frame | Barrier | End | BaseException] = field(default_factory=deque)
    watermark: int | None = None
    barrier: Barrier | None = None  # it has come from this one, and not from all
    end: End | None = None

    def is_ready(self) -> bool:
        return bool(self.waiting) and self.barrier is None

    def place(self) -> int:
        """How far it has come."""
        return -FOREVER if self.watermark is None else self.watermark


def open_merged(inboxes: Sequence[Arriving], max_drift: int | None = None) -> MergedFeed:
    """`max_drift`: an input whose watermark is further ahead of the least than this waits. Unit: milliseconds.

    Raises DataError for what are no streams of the workers of one partition.
    """
    feeds = []
    for inbox in inboxes:
        reader = StreamReader(inbox)
        if reader.line is None:
            raise DataError("merge reads streams, and this is raw NDJSON")
        feeds.append(StreamFeed(reader, reader.line))
    _check_alike(feeds)
    return MergedFeed(feeds, max_drift)


def _check_alike(feeds: Sequence[StreamFeed]) -> None:
    """Raises DataError for streams that cannot become one."""
    first = feeds[0]
    for other in feeds[1:]:
        if other.columns != first.columns:
            raise DataError(
                "the streams that are merged have different columns, or different windows or keys",
                notes=[f"one:     {', '.join(first.columns.types)}", f"another: {', '.join(other.columns.types)}"],
            )
    if any((other.run, other.restore, other.state) != (first.run, first.restore, first.state) for other in feeds[1:]):
        raise DataError("the streams that are merged are not of one run, and some take checkpoints or come from elsewhere")
    workers = [feed.worker for feed in feeds if feed.worker]
    numbers = sorted(worker.number for worker in workers)
    if workers and (len(workers) < len(feeds) or numbers != list(range(len(feeds))) or workers[0].of != len(feeds)):
        came = ", ".join(str(number) for number in numbers)
        raise DataError(f"the streams that are merged are not those of all {workers[0].of} workers: of them came {came}")


class MergedFeed(Feed):
    def __init__(self, feeds: Sequence[StreamFeed], max_drift: int | None) -> None:
        first = feeds[0]
        self.columns, self.pipeline, self.state, self.hop = first.columns, first.pipeline, first.state, first.hop
        self.run, self.max_errors, self.restore = first.run, first.max_errors, first.restore
        self.dead_letter, self.late, self.sinks, self.divided = first.dead_letter, first.late, first.sinks, first.divided
        self.life = first.life
        self.floats, self.inherited = set(), []
        self._inputs, self._max_drift = [_Input(feed) for feed in feeds], max_drift
        self._changed = threading.Condition()
        for one in feeds:
            one.floats = self.floats

    def want(self, names: list[str] | None, text: bool) -> None:
        for one in self._inputs:
            one.feed.want(names, text)

    def hand_on(self) -> None:
        for one in self._inputs:
            one.feed.hand_on()

    def leave(self) -> None:
        for one in self._inputs:
            one.feed.leave()

    @property
    def bytes_in(self) -> int:  # type: ignore[override]  # of all inputs
        return sum(one.feed.bytes_in for one in self._inputs)

    def standings(self) -> list[SplitSample]:
        return [SplitSample(f"worker {number}", None, one.watermark) for number, one in enumerate(self._inputs) if not one.end]

    def pulls(self) -> Iterator[Pull]:
        for one in self._inputs:
            threading.Thread(target=self._read, args=(one,), daemon=True, name="merge").start()
        while not all(one.end for one in self._inputs):
            one, frame = self._next()
            if isinstance(frame, End):
                if any(other.barrier for other in self._inputs):
                    raise DataError("a stream that is merged ended before the checkpoint that another one is at")
                one.end = frame
            elif isinstance(frame, Barrier):
                one.barrier = frame
            else:
                yield self._pull(one, frame)
            if aligned := self._aligned():
                yield Pull(barrier=aligned)
        self._ended([one.end for one in self._inputs if one.end])

    def _read(self, one: _Input) -> None:
        """In a thread of its own."""
        try:
            for frame in one.feed.frames():
                self._put(one, frame)
        except BaseException as error:  # it is raised where the frames are taken
            self._put(one, error)

    def _put(self, one: _Input, frame: Frame | Barrier | End | BaseException) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(one.waiting) < _AHEAD)
            one.waiting.append(frame)
            self._changed.notify_all()

    def _next(self) -> tuple[_Input, Frame | Barrier | End]:
        """Of the inputs that may be read the one that is furthest behind."""
        with self._changed:
            with waiting(IDLE):
                self._changed.wait_for(self._ready)
            one = min(self._ready(), key=_Input.place)
            frame = one.waiting.popleft()
            self._changed.notify_all()
        if isinstance(frame, BaseException):
            raise frame
        return one, frame

    def _ready(self) -> list[_Input]:
        ready = [one for one in self._inputs if one.is_ready()]
        if self._max_drift is None or not ready:
            return ready
        # One that has given its barrier waits for the others, and so they must not wait for it.
        furthest = min(one.place() for one in self._inputs if one.end is None and one.barrier is None) + self._max_drift
        return [one for one in ready if one.place() <= furthest]

    def _pull(self, one: _Input, frame: Frame) -> Pull:
        pull = one.feed.pull(frame)
        before = self._watermark()
        one.watermark = one.watermark if pull.watermark is None else pull.watermark
        now = self._watermark()
        return replace(pull, watermark=now, idle=pull.idle and now != before)

    def _watermark(self) -> int | None:
        """Until all have one there is none. One that has ended holds nothing back."""
        found = [one.watermark for one in self._inputs if one.end is None]
        return None if any(mark is None for mark in found) else min((mark for mark in found if mark is not None), default=None)

    def _aligned(self) -> Barrier | None:
        """The barrier that all have given; one that has ended gives no more. From here on it is past."""
        barriers = [one.barrier for one in self._inputs if one.end is None]
        if not barriers or any(barrier is None for barrier in barriers):
            return None
        for one in self._inputs:
            one.barrier = None
        found = [barrier for barrier in barriers if barrier is not None]
        if len({barrier.epoch for barrier in found}) > 1:
            raise DataError("the streams that are merged are not at the same checkpoint: they are not of one run")
        state = tuple(entry for barrier in found for entry in barrier.state)
        accounts = tuple(ledger.to_json() for ledger in _all(found))
        return Barrier(found[0].epoch, state, accounts)

    def _ended(self, ends: Sequence[End]) -> None:
        self.inherited = _all(ends)
        state = tuple(entry for end in ends for entry in end.state)
        self.last = Barrier(ends[0].epoch, state) if ends[0].epoch else None
        self.is_stopped = ends[0].is_stopped


def _all(ends: Sequence[Barrier] | Sequence[End]) -> list[Ledger]:
    """The accounts before the partition, and behind it those of all workers together."""
    before = [Ledger.from_json(said) for end in ends for said in end.before]
    own = [[Ledger.from_json(said) for said in end.accounts] for end in ends]
    if len({len(some) for some in own}) > 1:
        raise DataError("the streams that are merged have not come through the same steps")
    return joined(before, [reduce(added, some) for some in zip(*own, strict=True)])
