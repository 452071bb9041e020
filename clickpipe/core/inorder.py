"""Splits that end, read one after the other in the order of their first event times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, groupby, islice
from signal import SIGUSR1
from typing import Any

from clickpipe.batch import Batch, Dead
from clickpipe.core import clock as wall
from clickpipe.core import openfiles
from clickpipe.core.format import SAMPLE, Wants, shown_text
from clickpipe.core.intake import IngestFeed, Taking
from clickpipe.core.operator import Pull
from clickpipe.core.progress import Progress
from clickpipe.core.reading import beginning, blocks, parsed
from clickpipe.core.source import Split
from clickpipe.core.time import SplitClock
from clickpipe.errors import StateError
from clickpipe.lines import Block, line_count
from clickpipe.stopping import RESCALE, on_ask, parent

_WORKERS = 2
_LOOK = 0.002  # seconds between two looks for a checkpoint
_QUIET = 0.2  # seconds without a byte after which a live input is judged by what has come
_ENOUGH = 16 << 20  # bytes of a file that are searched for its first time

_Read = tuple[Progress, int | None, Block | None, tuple[Batch, list[Dead], int] | None]


class InOrder(IngestFeed):
    _was_asked = _has_begun = False

    def __init__(
        self,
        taking: Taking,
        splits: list[Split],
        saved: Mapping[str, Any] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Raises StateError if `saved` is of another input. `say`: what a person should know meanwhile."""
        self._splits, self._say = splits, say
        super().__init__(taking, saved)

    def _prepare(self) -> None:
        if any(split.is_shared for split in self._splits):
            on_ask(self._asked)
        spare = openfiles.spare()
        for number, split in enumerate(self._splits):
            split.hold()
            if self._taking.bounded:
                split.bound()
            if number >= spare:
                split.let_go()
            split.listen(self._taking.admission, self._format.cut, self._format.begin, self._say)
            if self._was_asked:  # before it was there to be told
                split.end()
        self.is_live = any(split.is_live for split in self._splits)
        self._all = [Progress(split, self._time) for split in self._splits]
        for one in self._all[spare:]:
            one.stays_open = False
        self._order: list[Progress] | None = None

    def _first_name(self) -> str:
        return self._splits[0].name

    def _sample(self) -> list[Block]:
        sample: list[Block] = []
        lines = 0
        for one in self._all:
            taken: list[Block] = []
            if inbox := one.split.inbox():  # the sample must not depend on how much a first read brings
                inbox.gather(SAMPLE, _QUIET)
            stream = self._blocks(one)
            for block in stream:
                taken.append(block)
                if self._is_enough(one, taken, SAMPLE - lines):
                    break
                if inbox and one.split.is_shared:
                    inbox.gather(SAMPLE, _QUIET)
            one.opened = chain(taken, stream)
            self._let_go(one)
            sample += taken
            lines += line_count(taken)
            if lines >= SAMPLE:
                break
        return sample

    def _peek(self) -> list[Block]:
        one = self._all[0]
        stream = one.opened or self._blocks(one)
        first = list(islice(stream, 1))
        one.opened = chain(first, stream)
        return first

    def _is_enough(self, one: Progress, taken: list[Block], wanted: int) -> bool:
        """Whether as many lines have come, or live input has given more than a header line. Where many write, the first may be
        somebody who knocks at all doors: there a record is waited for."""
        if line_count(taken) >= wanted:
            return True
        if sum(len(block.overlong) for block in taken) >= SAMPLE:
            return one.split.is_shared
        has_some = one.split.is_live and any(block.data for block in taken)
        return has_some and (not one.split.is_shared or bool(self._format.infer(taken)))

    def pulls(self) -> Iterator[Pull]:
        self._has_begun = True
        self._order = self._order or self._in_order(self._all)
        self._wait_for_next()
        left = [(one, held) for one, held in zip(self._order, _held(self._order), strict=True) if not one.is_done]
        if left:
            yield from self._hunted(*left[0])
        # What cannot be read again, a pipe, by itself: while it is waited for, nothing that was read before is kept back.
        for _, some in groupby(left, lambda one: one[0].split.can_be_read_again or one[0].split.name):
            yield from self._pulls_of([*some])
            if self._is_stopping:
                break
        self._end()

    def _pulls_of(self, some: list[tuple[Progress, int | None]]) -> Iterator[Pull]:
        """Of one split, or of files; each with the time at which it is held."""
        for one, held, block, found in self._read(some):
            if block is None or found is None:
                if self._is_stopping:
                    return
                one.finish(is_saved=self.epochs is not None)
                self._tell_of_unfinished(one.split.name, one.split.left(one.offset), one.split.silence())
                continue
            self._note(one.split.name, block)
            self._catch_up(one)
            *before, pull = self._as_arrived(one, block, found)
            yield from before
            self._go_on(pull, one, held)
            one.offset = block.end
            pull.barrier = self._next_barrier()
            yield pull
            if self._is_stopping and not one.split.is_live:  # what is live ends by itself, with what has come
                return

    def _hunted(self, one: Progress, held: int | None) -> Iterator[Pull]:
        """In small batches, a checkpoint behind each, until the stretch has been passed in which the last life died."""
        hunt, one.opened = self.hunt, None if self.hunt else one.opened
        if hunt is None or self.epochs is None or self.checkpoints is None:
            return
        for block in self._blocks(one, hunt.batch_bytes(self._pace.batch_bytes)):
            is_it = hunt.sets_aside and hunt.is_at(one.split.name, block.offset)
            hunt.begin(one.split.name, block.offset, block.end, block.data.count(b"\n") or 1)
            self._note(one.split.name, block)
            self._catch_up(one)
            if is_it:
                pull = Pull([], None, [_poison(block, one.split.name)], 1)
            else:
                batch, dead, read = self._format.read(block, self._raw_columns, self._wants, one.split.name)
                pull = self._judged(batch, one.clock, dead, read, None)
            self._go_on(pull, one, held)
            one.offset = block.end
            pull.barrier = self._barrier(self.epochs)
            yield pull
            while not self.checkpoints.is_complete(pull.barrier.epoch) and not self._is_stopping:
                time.sleep(_LOOK)
                yield Pull(watermark=self._reached)  # so that what has failed in the background is heard of
            if self._is_stopping:
                return
            if hunt.is_over(one.split.name, block.end):
                break
        hunt.end()
        self.hunt = None

    def _catch_up(self, one: Progress) -> None:
        """A split that the stream has gone on without is judged by where the stream stands: one that is new to a later run,
        or was idle."""
        begins = None if one.start is None else one.start - self._time.out_of_orderness
        stands = begins if one.clock.watermark is None else one.clock.watermark
        if self._reached is not None and (stands is None or stands < self._reached):
            one.clock.lift(self._reached)

    def _go_on(self, pull: Pull, one: Progress, held: int | None) -> None:
        """The watermark, which waits for the first records of the splits to come."""
        now, has_given = self._now(), any(batch.height for batch in pull.batches)
        if one.split.can_pause:
            self._watermark.look(one.split.name, now, has_given=has_given)
        to_come = {} if held is None else {"to come": held - self._time.out_of_orderness}
        has_moved = self._advance({one.split.name: one.clock.watermark} | to_come, now)
        pull.watermark, pull.idle = self._reached, has_moved and not has_given

    def _in_order(self, splits: list[Progress]) -> list[Progress]:
        if len(self._all) < 2 or self._time.field is None:
            return splits
        for one in splits:
            start = self._start(one)
            if start is not None:
                one.start = start
            self._let_go(one)
        return sorted(splits, key=lambda one: one.start or 0)

    def _start(self, one: Progress) -> int | None:
        """The first event time in it. What can be read again is not kept meanwhile: there may be thousands of files."""
        if one.opened is None and one.split.can_be_read_again:
            return self._first_of(self._begun(one, beginning(one.split, self._format.cut, one.offset, _ENOUGH)))[0]
        stream = one.opened or self._blocks(one)
        start, taken = self._first_of(stream)
        one.opened = chain(taken, stream)
        return start

    def _let_go(self, one: Progress) -> None:
        """Where too many would be open."""
        if one.split.can_be_read_again and not one.stays_open:
            one.opened = None
            one.split.let_go()

    def _first_of(self, stream: Iterator[Block]) -> tuple[int | None, list[Block]]:
        """The first event time in it, and the blocks in which it was looked for."""
        taken: list[Block] = []
        start = None
        while start is None and sum(len(block.data) for block in taken) < _ENOUGH and (block := next(stream, None)):
            taken.append(block)
            start = self._first_time(block)
        return start, taken

    def _first_time(self, block: Block) -> int | None:
        assert self._time.field is not None
        batch, _, _ = self._format.read(block, self._raw_columns, Wants([self._time.field], False, set()), "")
        times = self._time.instants(batch).drop_nulls()
        return int(times[0]) if len(times) else None

    def _blocks(self, one: Progress, batch_bytes: int | None = None) -> Iterator[Block]:
        pace = self._pace
        stream = blocks(
            one.split,
            len if one.split.is_shared else self._format.cut,
            batch_bytes or pace.batch_bytes,
            pace.latency,
            one.offset,
            self._tick(),
            lambda: self._is_stopping and not one.split.is_shared,  # one that is shared ends by itself
        )
        return stream if one.split.is_shared else self._begun(one, stream)

    def _begun(self, one: Progress, stream: Iterator[Block]) -> Iterator[Block]:
        """Without what comes before the first record: a header line."""
        first = next((block for block in stream if block.data or block.overlong), None)
        if first is None:
            return iter(())
        return chain([first if one.offset else self._format.begin(first)], stream)

    def _tick(self) -> float | None:
        """Seconds after which live input that pauses is looked at: for checkpoints, and for when it is idle."""
        timeout = self._taking.idle.timeout / 1_000 if self._time.field else 0
        beats = [beat for beat in (self._pace.interval, min(1.0, timeout / 4)) if beat]
        return min(beats, default=None)

    def _as_arrived(self, one: Progress, block: Block, found: tuple[Batch, list[Dead], int]) -> list[Pull]:
        if arrived := one.split.arrived(block):
            return list(self._judged_as_arrived(block, found, arrived, one.clock, one.split.name))
        batch, dead, read = found
        return [self._judged(batch, one.clock, dead, read, wall.now() if one.split.is_live else None)]

    def _read(self, some: list[tuple[Progress, int | None]]) -> Iterator[_Read]:
        """Blocks, their batches and bad records, and how many were read; none at the end of a split. While the last of one are
        computed, the first of the next are read."""

        def items() -> Iterator[tuple[Progress, int | None, Block | None]]:
            for one, held in some:
                stream, one.opened = one.opened or self._blocks(one), None
                for block in stream:
                    yield one, held, block
                yield one, held, None

        def read(item: tuple[Progress, int | None, Block | None]) -> _Read:
            one, held, block = item
            if block is None:
                return one, held, None, None
            return one, held, block, self._format.read(block, self._raw_columns, self._wants, one.split.name)

        return parsed(items(), read, 0 if some[0][0].split.is_live else _WORKERS)

    # How it ends.

    def stop(self, *, drain: bool) -> None:
        super().stop(drain=drain)
        for split in self._splits:
            split.end()

    def _asked(self, number: int) -> bool:
        """What never ends by itself ends, as if its clients had, when a signal asks for it; at once the second time, unless a
        supervisor decides on that. With checkpoints it stops, and the engine decides as soon as it runs."""
        if number == RESCALE or (self._pace.interval and self._has_begun):
            return False
        is_first, self._was_asked = not self._was_asked, True
        self.stop(drain=not self._pace.interval or number == SIGUSR1)
        return is_first or parent() is not None

    def close(self) -> None:
        for split in self._splits:
            if split.is_shared or split.can_be_read_again:
                split.close()

    # Where it is, and how to go on from there.

    def finish(self) -> None:
        for one in self._all:
            one.is_done = True

    def _positions(self) -> list[dict[str, Any]]:
        order = self._order or []
        return [one.to_json() | self._observed(one.split.name, one.clock, len(order)) for one in order]

    def _clocks(self) -> dict[str, SplitClock]:
        return {one.split.name: one.clock for one in self._all}

    def extent(self) -> tuple[int, int] | None:
        read = whole = 0
        for one in self._all:
            found = one.split.extent(self._places.get(one.split.name, one.offset))
            if found is None:
                return None
            read, whole = read + (found[1] if one.is_done else min(found)), whole + found[1]
        return read, whole

    def _left(self) -> list[str]:
        return [one.split.name for one in self._all if not one.is_done]

    def _restore(self, splits: list[Mapping[str, Any]]) -> None:
        fresh = {one.split.name: one for one in self._all}
        order = []
        for said in splits:
            one = fresh.pop(said["name"], None)
            if one is not None:
                order.append(one)
                note = one.restore(said)
                self.notes = (*self.notes, note) if note else self.notes
            elif not said["done"]:
                raise StateError(f"{said['name']} is gone, and {said['offset']:,} bytes of it had been read only")
        self._order = order + self._in_order([*fresh.values()])  # files that are new


def _held(order: list[Progress]) -> list[int | None]:
    """Of each split: the least of the first event times behind it."""
    found: list[int | None] = []
    least = None
    for one in reversed(order):
        found.append(least)
        least = min((start for start in (least, one.start) if start is not None), default=None)
    return found[::-1]


def _poison(block: Block, source: str) -> Dead:
    """A record at which the pipeline has died every time."""
    return Dead([shown_text(block.data.rstrip(b"\n"))], ["the pipeline died at it every time"], [block.offset], source, [None])
