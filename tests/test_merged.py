"""Streams that are merged: their watermark, their barriers, and that nothing can stop them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from clickpipe.columns import Columns
from clickpipe.core.operator import Pull
from clickpipe.engine.feeds import StreamFeed
from clickpipe.engine.merged import MergedFeed
from clickpipe.errors import DataError, OutsideError
from clickpipe.wire.frames import Barrier, End, FrameEnd
from clickpipe.wire.stream import Frame

COLUMNS = Columns({"x": "int"})


class _Stream(StreamFeed):
    """Gives what it was told to, or fails."""

    def __init__(self, events: list[Any]) -> None:
        self.columns, self.pipeline, self.state, self.hop, self.run = COLUMNS, "p", None, 0, 1
        self.max_errors = self.restore = self.dead_letter = self.late = None
        self.sinks, self._events = (), events

    def frames(self) -> Iterator[Frame | Barrier | End]:
        for event in self._events:
            if isinstance(event, Exception):
                raise event
            yield event

    def pull(self, frame: Frame | Barrier) -> Pull:
        return Pull(watermark=cast("Frame", frame).end.watermark, read=cast("Frame", frame).end.seq)


def _frame(number: int, watermark: int | None) -> Frame:
    return Frame(COLUMNS, [], FrameEnd(number, 0, watermark))


# Of each stream, between two barriers, how far the watermark goes at each frame.
_STREAMS = st.integers(1, 3).flatmap(
    lambda parts: st.lists(
        st.lists(st.lists(st.integers(0, 50), max_size=5), min_size=parts, max_size=parts), min_size=1, max_size=4
    )
)


@given(streams=_STREAMS, drift=st.none() | st.integers(0, 30))
@settings(max_examples=examples(100), deadline=None)
def test_what_comes_before_a_barrier_stays_before_it(streams: list[list[list[int]]], drift: int | None) -> None:
    """Also where some are far ahead and must wait. Frames of a stream keep their order; the watermark is the least."""
    feeds, number, marks = [], 0, {}
    for parts in streams:
        events: list[Any] = []
        watermark = 0
        for epoch, steps in enumerate(parts, 1):
            for step in steps:
                number, watermark = number + 1, watermark + step
                events.append(_frame(number, watermark))
                marks[number] = (len(feeds), epoch, watermark)
            events.append(Barrier(epoch, (f"s{len(feeds)}",), ({"read": 1, "written": 1},)))
        feeds.append(_Stream([*events, End(0, ({"read": 2, "written": 2},), 9)]))
    merged = MergedFeed(feeds, drift)
    epoch, newest, seen = 1, dict[int, int](), []
    for pull in merged.pulls():
        if pull.barrier:
            assert pull.barrier.epoch == epoch
            assert pull.barrier.state == tuple(f"s{place}" for place in range(len(feeds)))
            assert pull.barrier.accounts == ({"read": len(feeds), "written": len(feeds)},)
            epoch += 1
            continue
        place, within, watermark = marks[pull.read]
        assert within == epoch
        newest[place] = watermark
        seen.append(pull.read)
        if pull.watermark is not None:
            assert pull.watermark == min(newest.values())
            assert len(newest) == len(feeds)
    assert epoch == len(streams[0]) + 1
    assert sorted(seen) == sorted(marks)
    for place in range(len(feeds)):
        mine = [one for one in seen if marks[one][0] == place]
        assert mine == sorted(mine)
    assert [ledger.read for ledger in merged.inherited] == [2 * len(feeds)]
    assert merged.last
    assert merged.last.epoch == 9


def test_what_one_stream_fails_of_all_fail_of() -> None:
    merged = MergedFeed([_Stream([_frame(1, 1), End(0)]), _Stream([_frame(2, 1), OutsideError("cut short")])], None)
    with pytest.raises(OutsideError, match="cut short"):
        list(merged.pulls())


def test_streams_of_two_runs_are_told() -> None:
    merged = MergedFeed([_Stream([Barrier(1), End(0)]), _Stream([Barrier(2), End(0)])], None)
    with pytest.raises(DataError, match="not at the same checkpoint"):
        list(merged.pulls())
