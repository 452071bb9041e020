"""What a plan reads when it has no source of its own: the stream on standard input, framed or raw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from clickpipe.batch import LINES, Batch, Packed, from_columns, from_lines, from_narrow, widened
from clickpipe.core.meter import Ledger
from clickpipe.core.operator import Feed, Pull
from clickpipe.core.source import Split
from clickpipe.errors import DataError
from clickpipe.operators.ingest import Ingest
from clickpipe.text import Text
from clickpipe.wire.frames import Barrier, End, StreamLine
from clickpipe.wire.pump import Arriving
from clickpipe.wire.stream import Frame, StreamReader


def open_stream(inbox: Arriving) -> Feed:
    """The feed for standard input, whichever kind of stream it is."""
    reader = StreamReader(inbox)
    if reader.line is None:
        return Ingest(("-",)).feed([RawSplit(reader.raw())])
    return StreamFeed(reader, reader.line)


class RawSplit(Split):
    """Raw NDJSON on standard input, in front of any operator."""

    name = "standard input"

    def __init__(self, inbox: Arriving) -> None:
        self._inbox = inbox

    def inbox(self) -> Arriving:
        return self._inbox


class ProducedSplit(Split):
    """Raw NDJSON that a step of the same plan makes."""

    name = "generate"

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        return self._chunks


class StreamFeed(Feed):
    """The stream of another clickpipe process."""

    def __init__(self, reader: StreamReader, line: StreamLine) -> None:
        self._reader = reader
        self.columns, self.pipeline, self.state = line.columns, line.pipeline, line.state
        self.hop, self.run, self.max_errors, self.restore = line.hop, line.run, line.max_errors, line.restore
        self.dead_letter, self.late, self.sinks, self.worker = line.dead_letter, line.late, line.sinks, line.worker
        self.divided, self.life = line.divided, line.life or ""
        self.inherited = []
        if reader.tolerant:
            self.notes = ("a tool took the TABs off the stream's signals; looking for them in every line, which is slower",)
        self.floats: set[str] = set()
        self._names: list[str] | None = None

    @property
    def bytes_in(self) -> int:  # type: ignore[override]  # it is counted elsewhere
        return self._reader.received

    def want(self, names: list[str] | None, text: bool) -> None:
        if text or names is None:
            return
        self._names = [name for name in self.columns.types if name in names]

    def hand_on(self) -> None:
        self._reader.opens = False

    def leave(self) -> None:
        self._reader.give_up()

    def pulls(self) -> Iterator[Pull]:
        for frame in self.frames():
            if isinstance(frame, End):
                self.ended(frame)
            else:
                yield self.pull(frame)

    def frames(self) -> Iterator[Frame | Barrier | End]:
        """What comes, parsed; another thread may ask."""
        rows = 0
        for frame in self._reader.frames(self.columns):
            if isinstance(frame, End) and frame.rows != rows:
                raise DataError(f"the stream says it had {frame.rows} records; {rows} came")
            rows += frame.end.rows if isinstance(frame, Frame) else 0
            yield frame

    def ended(self, end: End) -> None:
        self.inherited = [Ledger.from_json(ledger) for ledger in end.accounts]
        self.last = Barrier(end.epoch, end.state) if end.epoch else None
        self.is_stopped, self.before = end.is_stopped, end.before

    def pull(self, frame: Frame | Barrier) -> Pull:
        if isinstance(frame, Barrier):
            return Pull(barrier=frame)
        batches = [self._batch(part, frame) for part in frame.parts]
        arrived = sum(batch.height for batch in batches)
        if arrived > frame.end.rows:
            raise DataError(f"frame {frame.end.seq} says it has {frame.end.rows} records and holds {arrived}")
        return Pull(batches, frame.end.watermark, [], frame.end.rows, frame.end.rows - arrived, idle=frame.end.idle)

    def _batch(self, part: bytes | pl.DataFrame | Packed, frame: Frame) -> Batch:
        columns = widened(frame.columns, self.floats)
        if isinstance(part, Packed):
            return Batch(pl.DataFrame(height=frame.end.rows), columns, source="stream", packed=part)
        if isinstance(part, pl.DataFrame):
            is_narrow = LINES in part.columns
            needed = self._names if is_narrow and self._names else columns.types
            if missing := [name for name in needed if name not in part.columns]:
                raise DataError(f'frame {frame.end.seq} lacks the column "{missing[0]}"')
            return from_narrow(part, columns) if is_narrow else Batch(part, columns, source="stream")
        text = Text(part, count=frame.end.rows)
        if frame.end.late:
            return _marked(from_lines(text, columns))
        batch = from_columns(part, columns, self._names) if self._names is not None else None
        return batch or from_lines(text, columns)


def _marked(batch: Batch) -> Batch:
    """With the marks of late records as a column: they are in the text, and not among the declared ones."""
    columns = batch.columns
    batch = replace(batch, columns=columns.add({"_mark": "int"}))
    batch, dead = batch.need(["_mark"], set())
    if dead:
        raise DataError("the stream has late records with a mark that is none")
    return replace(batch, columns=columns, in_text=batch.in_text | {"_mark"})
