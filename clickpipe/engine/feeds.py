"""What a plan reads when it has no source of its own: the stream on standard input, framed or raw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

from clickpipe.batch import Batch, Dead
from clickpipe.core.loop import record_count
from clickpipe.core.meter import Ledger
from clickpipe.core.operator import Feed, Pull
from clickpipe.core.source import Split
from clickpipe.errors import DataError
from clickpipe.operators.ingest import Ingest, IngestFeed
from clickpipe.wire.frames import StreamLine
from clickpipe.wire.pump import Inbox
from clickpipe.wire.stream import Frame, StreamReader

_MARK = b'"_mark":'


def open_stream(inbox: Inbox) -> Feed:
    """The feed for standard input, whichever kind of stream it is."""
    reader = StreamReader(inbox)
    if reader.line is None:
        return IngestFeed(Ingest(("-",)), [RawSplit(reader.raw())])
    return StreamFeed(reader, reader.line)


class RawSplit(Split):
    """Raw NDJSON on standard input, in front of any operator."""

    name = "standard input"

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def inbox(self) -> Inbox:
        return self._inbox


class ProducedSplit(Split):
    """Raw NDJSON that a step of the same plan makes."""

    name = "generate"

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def chunks(self) -> Iterator[bytes]:
        return self._chunks


class StreamFeed(Feed):
    """The stream of another clickpipe process."""

    def __init__(self, reader: StreamReader, line: StreamLine) -> None:
        self._reader = reader
        self.columns, self.pipeline, self.state = line.columns, line.pipeline, line.state
        self.hop, self.run = line.hop, line.run
        self.inherited = []
        self.is_tolerant = reader.tolerant
        self._floats: set[str] = set()

    def pulls(self) -> Iterator[Pull]:
        rows = 0
        for frame in self._reader.frames(self.columns):
            if frame.end:
                self._finish(frame, rows)
                return
            rows += sum(batch.height for batch in frame.batches) + frame.removed
            yield self._pull(frame)

    def _finish(self, frame: Frame, rows: int) -> None:
        assert frame.end is not None
        if frame.end.rows != rows:
            raise DataError(f"the stream says it had {frame.end.rows} records; {rows} came")
        self.inherited = [Ledger.from_json(ledger) for ledger in frame.end.accounts]

    def _pull(self, frame: Frame) -> Pull:
        batches: list[Batch] = []
        dead: list[Dead] = []
        for batch in frame.batches:
            batch, letters = self._marked(batch)
            batches.append(batch)
            dead += letters
        arrived = sum(record_count(batch) for batch in batches) + sum(map(len, dead))
        total = arrived + frame.removed if frame.records is None else frame.records
        return Pull(batches, frame.watermark, dead, total, total - arrived)

    def _marked(self, batch: Batch) -> tuple[Batch, list[Dead]]:
        """With the marks of late records in the frame; and with what counting hopping records takes."""
        needs = []
        if batch.text is not None and "_mark" not in batch.frame.columns and _MARK in batch.text.block():
            types = {**batch.columns.types, "_mark": "int"}
            columns, batch = batch.columns, replace(batch, columns=replace(batch.columns, types=types))
            batch, first = batch.need(["_mark"], set())
            batch = replace(batch, columns=columns, in_text=batch.in_text | {"_mark"})
            needs = [first] if first else []
        if batch.columns.is_hopping() and batch.columns.time:
            batch, second = batch.need([batch.columns.time.name, "window_start"], self._floats)
            needs += [second] if second else []
        return batch, cast("list[Dead]", needs)
