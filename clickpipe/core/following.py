"""Files and logs that grow: what is appended goes out at once, in turn, and the input never ends by itself.

    round    app.log --block--> judged by its clock -->     the watermark and a checkpoint
             web.log --block--> judged by its clock -->     come behind the last block of a round

The watermark is the least of those of the files that have given records and are not idle (idle.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from clickpipe.core import clock as wall
from clickpipe.core.eventtime import EventTime
from clickpipe.core.format import SAMPLE, Format
from clickpipe.core.intake import IngestFeed, Taking
from clickpipe.core.operator import Pull
from clickpipe.core.source import Arrived
from clickpipe.core.time import SplitClock
from clickpipe.core.watched import Watched, WatchedSplit
from clickpipe.lines import Block, line_count
from clickpipe.spent import IDLE, waiting

_QUIET = 0.2  # seconds without a record after which the columns are judged by what has come


class Following(IngestFeed):
    is_live = True
    _at_close: Callable[[], None] | None = None
    _is_finished = False  # an earlier run had come to its end

    def __init__(
        self,
        taking: Taking,
        watched: Callable[[Format, EventTime, Callable[[str], None]], Watched],
        say: Callable[[str], None],
        saved: Mapping[str, Any] | None = None,
    ) -> None:
        """Raises PlanError for what cannot be followed, StateError if what `saved` names cannot be found again."""
        self._watched, self._say = watched, say
        super().__init__(taking, saved)

    def _prepare(self) -> None:
        self._watch = self._watched(self._format, self._time, self._say)
        self._changes = 0

    def _first_name(self) -> str:
        return self._watch.tails[0].name if self._watch.tails else self.pipeline

    def _begin(self) -> None:
        self._watch.begin()

    def _sample(self) -> list[Block]:
        sample: list[Block] = []
        lines, since = 0, time.monotonic()
        while lines < SAMPLE:
            before = len(sample)
            for block in self._watch.sample(self._pace.batch_bytes):
                sample.append(block)
                lines += line_count([block])
                if lines >= SAMPLE:
                    break
            if len(sample) > before:
                since = time.monotonic()
            elif self._watch.is_over or (any(block.data for block in sample) and time.monotonic() - since >= _QUIET):
                break
            else:
                time.sleep(_QUIET / 4)
        self._watch.rewind()
        return sample

    def _peek(self) -> list[Block]:
        first = [*islice(self._watch.sample(self._pace.batch_bytes), 1)]
        self._watch.rewind()
        return first

    def pulls(self) -> Iterator[Pull]:
        self._wait_for_next()
        while not self._is_stopping and not self._watch.is_over:
            yield from self.round()
            self._rest()
            yield Pull(watermark=self._reached)  # so that what has failed in the background is heard of
        if self._drains and not self._is_finished:
            yield from self._drained()
        elif self._taking.bounded and not self._is_stopping:
            yield from self._released()
        if self._drains or self._taking.bounded:
            for tail in () if self._is_finished else self._watch.tails:
                self._tell_of_unfinished(tail.name, tail.unfinished, tail.silence())
        self._end()

    def _drained(self) -> Iterator[Pull]:
        """What stands there by now; whoever goes on writing does not keep us."""
        left = self._watch.left()
        while left > 0 and self._drains:
            yield from self.round()
            if not self._watch.taken:
                return
            left -= self._watch.taken

    def _released(self) -> Iterator[Pull]:
        """The end of a bounded run: who has given nothing for long is idle, also if this run was short. Else the file of
        yesterday would hold the watermark back for ever. One is waited for: it was not idle yet when the others became so."""
        now = self._now()
        known = [(tail.silence(), tail.name) for tail in self._watch.tails if tail.has_given]
        silent = sorted((silence, name) for silence, name in known if silence is not None)
        for silence, name in silent[1:]:
            self._watermark.rest(name, now, round(1_000 * silence))
        if self._advance(self._marks(), now):
            yield Pull(watermark=self._reached, idle=True)

    def round(self) -> Iterator[Pull]:
        """What has been appended to each file. A barrier comes last: then all that was read has been handed on."""
        last: Pull | None = None
        began, heard = self._now(), set[str]()
        for tail, block in self._watch.blocks(self._pace.batch_bytes):
            for pull in self._pulled(tail, block):
                if last:
                    yield last
                last = pull
                heard |= {tail.name} if _has_records(last) else set()
            if self._is_stopping and not self._drains:
                break
        else:
            self._look(began, heard)
        has_moved = self._advance(self._marks(), began)
        changes = sum(tail.changes for tail in self._watch.tails)
        self._is_new, self._changes = self._is_new or changes != self._changes, changes
        barrier = self._next_barrier()
        if last or barrier or has_moved:
            last = last or Pull()
            last.watermark, last.barrier, last.idle = self._reached, barrier, has_moved and not heard
            yield last

    def _rest(self) -> None:
        """Until more may have come. A little more is waited for, so that a batch fills up."""
        if self._watch.taken < self._pace.batch_bytes:
            with waiting(IDLE):
                look = self._watch.look
                time.sleep(min(look, self._pace.latency) if self._watch.taken else look)

    def _pulled(self, tail: WatchedSplit, block: Block) -> Iterator[Pull]:
        self._note(tail.name, block)
        if self._reached is not None:  # the others may have gone on without it
            tail.clock.lift(self._reached)
        parsed = self._format.read(block, self._raw_columns, self._wants, tail.name)
        arrived = tail.arrived(block) or [Arrived(block.end, wall.now())]
        for pull in self._judged_as_arrived(block, parsed, arrived, tail.clock, tail.name):
            if _has_records(pull):
                tail.has_given = True
                self._watermark.look(tail.name, self._now(), has_given=True)
            yield pull

    def _look(self, began: int, heard: set[str]) -> None:
        """What a round has found in the files that it has heard nothing of: they were looked at when it began, or later."""
        for tail in self._watch.tails:
            if tail.name not in heard and (tail.has_given or self._watermark.has_seen(tail.name)):
                self._watermark.look(tail.name, began, has_given=False)

    def _marks(self) -> dict[str, int | None]:
        """Of the files that are waited for: of one that is gone, no more will come."""
        for tail in self._watch.tails:
            tail.has_given = tail.has_given and not tail.is_done
        return {tail.name: tail.clock.watermark for tail in self._watch.tails if tail.has_given}

    def when_closed(self, call: Callable[[], None]) -> None:
        """Something else to do then."""
        self._at_close = call

    def close(self) -> None:
        if self._at_close:
            self._at_close()
        self._watch.close()

    # Where it is, and how to go on from there.

    def finish(self) -> None:
        self._is_finished = True
        self.stop(drain=True)

    def _positions(self) -> list[dict[str, Any]]:
        tails = self._watch.tails
        return [tail.to_json() | self._observed(tail.name, tail.clock, len(tails)) for tail in tails]

    def _clocks(self) -> dict[str, SplitClock]:
        return {tail.name: tail.clock for tail in self._watch.tails}

    def _left(self) -> list[str]:
        return [tail.name for tail in self._watch.tails if not tail.is_done]

    def _restore(self, splits: list[Mapping[str, Any]]) -> None:
        self._watch.restore(splits)


def _has_records(pull: Pull) -> bool:
    """Bad ones are none: a split that gives only these says nothing about the time."""
    return any(batch.height for batch in pull.batches)
