"""A framed stream, read and written.

The reader holds the stream to the format's promises: end of file without an end signal is a
failure, frames have no gaps, and a frame never holds more records than it says.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

import polars as pl

from clickpipe.batch import Batch, from_text
from clickpipe.columns import HIDDEN, Columns
from clickpipe.errors import DataError, OutsideError
from clickpipe.ndjson import count_lines
from clickpipe.text import Text
from clickpipe.wire import codec
from clickpipe.wire.buffer import Buffer
from clickpipe.wire.frames import ArrowFrame, Barrier, ColumnsChange, End, FrameEnd, Signal, StreamLine
from clickpipe.wire.pump import Inbox, Outbox, Pushback

_LARGEST_ARROW = 1 << 30
_RAW = "_raw"


@dataclass
class Frame:
    """Records since the last signal, and what the signal said."""

    batches: list[Batch]
    watermark: int | None = None
    removed: int = 0  # rows that something between the two processes took out
    records: int | None = None  # said only where a record may stand in several rows
    end: End | None = None


class StreamReader:
    """Reads a stream. `line` is its stream line; None for raw NDJSON, which `raw` gives as it comes.

    Raises DataError for a damaged stream, OutsideError for one that stopped before its end.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._buffer = Buffer(iter(inbox))
        self._seq = 0
        self.tolerant = False  # a tool stripped the TABs
        self.line = self._stream_line()

    def _stream_line(self) -> StreamLine | None:
        head = self._buffer.peek_line()
        if not codec.is_signal(head):
            return None
        self.tolerant = not head.startswith(codec.TAB)
        signal = codec.decode(self._buffer.line())
        if not isinstance(signal, StreamLine):
            raise DataError("the stream does not begin with its stream line: something before this step removed it")
        return signal

    def raw(self) -> Inbox:
        """All bytes of a stream that turned out to be raw NDJSON."""
        return Pushback(self._buffer.rest(), self._inbox)

    def frames(self, columns: Columns) -> Iterator[Frame]:
        """The frames up to the end signal, each as soon as it is complete."""
        batches: list[Batch] = []
        arrived = 0
        for event in self._events():
            if isinstance(event, bytes):
                batches.append(_from_text(event, columns))
                arrived += batches[-1].height
                continue
            if isinstance(event, tuple):
                arrow, data = event
                batches.append(_from_arrow(data, arrow.end, columns))
                arrived += batches[-1].height
                event = arrow.end
            match event:
                case FrameEnd():
                    yield Frame(batches, event.watermark, self._removed(event, arrived), event.records)
                    batches, arrived = [], 0
                case ColumnsChange():
                    columns = replace(columns, types=event.types)
                case End():
                    if arrived:
                        raise DataError(f"{arrived} records stand after the last frame signal: something removed signals")
                    yield Frame([], end=event)
                    return
                case StreamLine():
                    raise DataError("a second stream line: two streams were joined; use several sources of one ingest")
                case Barrier():
                    pass  # belongs to checkpoints, which this version does not take
        raise self._cut_short()

    def _cut_short(self) -> OutsideError:
        if self._seq:
            return OutsideError("the stream stopped before its end: a step before this one failed, or something cut it short")
        return OutsideError(
            "the stream has no signals after its first line: a step before this one failed, or a tool removed them",
            notes=["a filter such as grep must let the lines through that begin with a TAB: grep -e $'^\\t' -e PATTERN"],
        )

    def _removed(self, end: FrameEnd, arrived: int) -> int:
        if end.seq != self._seq:
            raise DataError(f"frame {self._seq} is missing: the next one says it is frame {end.seq}")
        if arrived > end.rows:
            raise DataError(f"frame {end.seq} says it has {end.rows} records and holds {arrived}")
        self._seq += 1
        return end.rows - arrived

    def _events(self) -> Iterator[bytes | Signal | tuple[ArrowFrame, bytes]]:
        buffer = self._buffer
        while True:
            block = buffer.records_tolerant() if self.tolerant else buffer.records()
            if block:
                yield block
            line = buffer.line()
            if not line.endswith(b"\n"):
                return  # whoever wrote it was killed in mid-line
            signal = codec.decode(line)
            if not isinstance(signal, ArrowFrame):
                yield signal
                continue
            if signal.bytes > _LARGEST_ARROW:
                raise DataError(f"an Arrow frame of {signal.bytes} bytes is too large")
            data = buffer.exactly(signal.bytes)
            if len(data) < signal.bytes:
                return
            yield signal, data


def _from_text(block: bytes, columns: Columns) -> Batch:
    if b"\n\n" in block or b"\n\r\n" in block or block[:1] in b"\r\n":
        block = b"".join(line + b"\n" for line in block.split(b"\n") if line.strip())
    return from_text(block, count_lines(block), columns, "stream")


def _from_arrow(data: bytes, end: FrameEnd, columns: Columns) -> Batch:
    try:
        frame = pl.read_ipc_stream(io.BytesIO(data))
    except Exception as error:
        raise DataError(f"frame {end.seq} is no Arrow stream: {str(error).splitlines()[0]}") from None
    except BaseException as error:  # a panic inside Polars is not an Exception
        if type(error).__name__ != "PanicException":
            raise
        raise DataError(f"frame {end.seq} is no Arrow stream") from None
    missing = [name for name in columns.types if name not in frame.columns and _RAW not in frame.columns]
    if missing:
        raise DataError(f'frame {end.seq} lacks the column "{missing[0]}"')
    if _RAW not in frame.columns:
        return Batch(frame, columns, source="stream")
    text = Text(lines=frame[_RAW])
    rest = frame.drop(_RAW)
    return Batch(rest, columns, text, frozenset(columns.types) - frozenset(rest.columns), "stream")


class StreamWriter:
    """Writes a framed stream.

    `arrow`: records as Arrow where nothing is lost by it: a batch with unparsed columns stays text.
    """

    def __init__(self, outbox: Outbox, line: StreamLine, *, arrow: bool = False) -> None:
        self._outbox, self._arrow = outbox, arrow
        self._types = dict(line.columns.types)
        self._seq = self._rows = 0
        self._watermark: int | None = None
        self._held: tuple[Batch, int | None] | None = None
        outbox.put(codec.encode(line))

    def write(self, batch: Batch, records: int | None = None) -> None:
        """One batch as one frame. `records` when a record may stand in several rows."""
        self._release(self._watermark)
        if batch.height:
            self._held = batch, records

    def advance(self, watermark: int | None) -> None:
        """The watermark that holds from here on: said with the records written last, if there are any."""
        if self._held:
            self._release(watermark)
        elif watermark != self._watermark:
            self._send_end(FrameEnd(self._seq, 0, watermark))

    def end(self, accounts: list[dict[str, int]]) -> None:
        self._release(self._watermark)
        self._outbox.put(codec.encode(End(self._rows, tuple(accounts))))
        self._outbox.close()

    def _release(self, watermark: int | None) -> None:
        if not self._held:
            return
        (batch, records), self._held = self._held, None
        if dict(batch.columns.types) != self._types:
            self._types = dict(batch.columns.types)
            self._outbox.put(codec.encode(ColumnsChange(self._types)))
        end = FrameEnd(self._seq, batch.height, watermark, records)
        if self._arrow and not any(name.startswith(HIDDEN) for name in batch.frame.columns):
            self._send_arrow(batch, end)
        else:
            self._outbox.put(batch.to_ndjson())
            self._send_end(end)

    def _send_end(self, end: FrameEnd) -> None:
        self._outbox.put(codec.encode(end))
        self._count(end)

    def _send_arrow(self, batch: Batch, end: FrameEnd) -> None:
        out = io.BytesIO()
        names = [name for name in batch.visible() if name in self._types or name == "_mark"]
        frame = batch.frame.select(names)
        if batch.text is not None and not set(self._types) <= set(names):
            frame = frame.with_columns(batch.text.lines().alias(_RAW))
        frame.write_ipc_stream(out)
        data = out.getvalue()
        self._outbox.put(codec.encode(ArrowFrame(end, len(data))))
        self._outbox.put(data)
        self._count(end)

    def _count(self, end: FrameEnd) -> None:
        self._seq += 1
        self._rows += end.rows
        self._watermark = end.watermark
