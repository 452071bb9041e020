"""A framed stream, read and written.

The reader holds the stream to the format's promises: end of file without an end signal is a
failure, frames have no gaps, and a frame never holds more records than it says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
import polars as pl

from clickpipe.batch import LINES, Batch, Packed
from clickpipe.columns import HIDDEN, Columns, dtype
from clickpipe.errors import DataError, OutsideError, StepBeforeFailed
from clickpipe.wire import codec
from clickpipe.wire.arrow import from_arrow, to_arrow
from clickpipe.wire.buffer import Buffer
from clickpipe.wire.frames import ArrowFrame, Barrier, ColumnsChange, End, Failed, FrameEnd, Signal, StreamLine
from clickpipe.wire.pump import Arriving, Outbox

_LARGEST_ARROW = 1 << 30
_ROWS_IN_A_BYTE = 8  # at most: each has a bit in each column
_REMOTE = "remote-"


@dataclass
class Frame:
    """The records since the last signal, as they came, and what the signal said of them."""

    columns: Columns
    parts: list[bytes | pl.DataFrame | Packed]  # lines of NDJSON, or the columns of an Arrow frame
    end: FrameEnd


class StreamReader:
    """Reads a stream. `line` is its stream line; None for raw NDJSON, which `raw` gives as it comes.

    Raises DataError for a damaged stream, OutsideError for one that stopped before its end.
    """

    def __init__(self, inbox: Arriving) -> None:
        self._inbox = inbox
        self._buffer = Buffer(iter(inbox))
        self._seq = 0
        self.tolerant = False  # a tool stripped the TABs
        self.opens = True  # Arrow frames; else they stay as they came
        self._is_trusted = True
        self._watermark: int | None = None
        self.line = self._stream_line()

    def _stream_line(self) -> StreamLine | None:
        head = self._buffer.peek_line()
        if not self._buffer.rest():
            raise OutsideError(
                "nothing came, not even a stream line: the step before this one failed",
                notes=["raw NDJSON that may be empty is read by: clickpipe ingest - | …"],
            )
        if not codec.is_signal(head):
            return None
        self.tolerant = not head.startswith(codec.TAB)
        signal = codec.decode(self._buffer.line())
        if isinstance(signal, Failed):
            raise StepBeforeFailed
        if not isinstance(signal, StreamLine):
            raise DataError("the stream does not begin with its stream line: something before this step removed it")
        self._is_trusted = self._inbox.is_trusted
        return signal if self._is_trusted else _without_paths(signal)

    @property
    def received(self) -> int:
        """See Arriving."""
        return self._inbox.received

    def give_up(self) -> None:
        """See Arriving."""
        self._inbox.give_up()

    def raw(self) -> Arriving:
        """All bytes of a stream that turned out to be raw NDJSON."""
        self._inbox.put_back(self._buffer.rest())
        return self._inbox

    def frames(self, columns: Columns) -> Iterator[Frame | Barrier | End]:
        """The frames, each as soon as it is complete, the barriers between them, and the end signal last."""
        parts: list[bytes | pl.DataFrame | Packed] = []
        for event in self._events():
            if isinstance(event, bytes):
                parts.append(event if self._is_trusted else _checked_lines(event))
                continue
            if isinstance(event, tuple):
                arrow, data = event
                if arrow.end.rows > _ROWS_IN_A_BYTE * len(data):
                    raise DataError(f"frame {arrow.end.seq} says it has {arrow.end.rows} records, and has {len(data)} bytes")
                parts.append(self._opened(data, arrow.end, columns) if self.opens else Packed(data, arrow.end.late))
                event = arrow.end
            match event:
                case FrameEnd():
                    self._check_order(event)
                    yield Frame(columns, parts, event)
                    parts = []
                case ColumnsChange():
                    if lost := [name for name in columns.types if name not in event.types]:
                        raise DataError(f'the stream loses its column "{lost[0]}" on its way')
                    columns = replace(columns, types=event.types)
                case End():
                    if parts:
                        raise DataError("records stand after the last frame signal: something removed signals")
                    yield event if self._is_trusted else replace(event, epoch=0, state=())
                    return
                case Failed():
                    raise StepBeforeFailed
                case StreamLine():
                    raise DataError("a second stream line: two streams were joined; use several sources of one ingest")
                case Barrier():
                    if parts:
                        raise DataError("records stand before a barrier without their frame signal: something removed signals")
                    if self._is_trusted:  # a stranger has no part in our checkpoints
                        yield event
        raise self._cut_short()

    def _check_order(self, end: FrameEnd) -> None:
        if end.seq != self._seq:
            raise DataError(f"frame {self._seq} is missing: the next one says it is frame {end.seq}")
        self._seq += 1
        if end.watermark is None:
            return
        if self._watermark is not None and end.watermark < self._watermark:
            raise DataError(f"frame {end.seq} takes the watermark back from {self._watermark} to {end.watermark}")
        self._watermark = end.watermark

    def _opened(self, data: bytes, end: FrameEnd, columns: Columns) -> pl.DataFrame:
        frame = _from_arrow(data, end, columns)
        if not self._is_trusted:
            for name in (name for name, kind in columns.types.items() if kind == "json" and name in frame.columns):
                for value in frame[name].drop_nulls():
                    _check_json(value.encode())
        return frame

    def _cut_short(self) -> OutsideError:
        if self._seq:
            return OutsideError("the stream stopped before its end: a step before this one failed, or something cut it short")
        return OutsideError(
            "the stream has no signals after its first line: a step before this one failed, or a tool removed them",
            notes=["a filter such as grep must let the lines through that begin with a TAB: grep -e $'^\\t' -e PATTERN"],
        )

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


def _without_paths(line: StreamLine) -> StreamLine:
    """A stranger names no file of ours: his checkpoints are not joined, his late records and dead letters go to our own, and
    these to a folder that none of our pipelines has."""
    name = line.pipeline
    if name.strip(".") and not name.startswith(_REMOTE):  # what is no name is refused as it is
        name = f"{_REMOTE}{name}"[:100]
    return replace(line, pipeline=name, state=None, restore=None, dead_letter=None, late=None)


def _checked_lines(block: bytes) -> bytes:
    """Raises DataError for lines that are no records: nobody may have a reason to look at them before they are written."""
    for line in block.split(b"\n"):
        if line and not isinstance(_check_json(line), dict):
            raise DataError(f"a line of the stream is no JSON object: {line[:80].decode('utf-8', 'backslashreplace')}")
    return block


def _check_json(text: bytes) -> Any:
    """Raises DataError for what is none, or has line ends in it."""
    try:
        if b"\n" in text or b"\r" in text:
            raise ValueError("a line end")
        return orjson.loads(text)
    except ValueError:
        raise DataError(f"the stream has what is no JSON: {text[:80].decode('utf-8', 'backslashreplace')}") from None


def _from_arrow(data: bytes, end: FrameEnd, columns: Columns) -> pl.DataFrame:
    frame = from_arrow(data, f"frame {end.seq}", end.rows + 1)
    has = frame.columns
    frame = frame.select(name for name in (*columns.types, "_mark", LINES) if name in has)
    if end.rows and not frame.width:
        raise DataError(f"frame {end.seq} has records without columns")
    own = {name: type_ for name, type_ in (("_mark", pl.Int64), (LINES, pl.String)) if name not in columns.types}
    if wrong := [name for name, type_ in own.items() if name in has and frame.schema[name] != type_]:
        raise DataError(f"frame {end.seq} has values of type {frame.schema[wrong[0]]} where notes of ours stand")
    for name, kind in ((name, kind) for name, kind in columns.types.items() if name in frame.columns):
        if not _can_hold(frame.schema[name], kind):
            raise DataError(f'frame {end.seq} has values of type {frame.schema[name]} in the column "{name}" of type {kind}')
    sketches = [name for name, kind in columns.types.items() if kind == "sketch" and frame.schema.get(name) == pl.Binary]
    return frame.with_columns(pl.col(name).bin.encode("base64") for name in sketches)


def _can_hold(type_: Any, kind: str) -> bool:
    wanted = dtype(kind)
    if wanted.is_numeric():
        is_small = type_.is_integer() and type_ not in (pl.UInt64, pl.Int128)  # what 64 bits with a sign hold
        return bool(is_small or (type_.is_float() and wanted.is_float()))
    return type_ == wanted or (kind, type_) == ("sketch", pl.Binary)


class StreamWriter:
    """Writes a framed stream.

    `arrow`: records as Arrow where no column is lost by it: a batch with unparsed ones stays text. `keeps_text`: nor any field:
    a batch that has its text stays text.
    """

    def __init__(self, outbox: Outbox, line: StreamLine, *, arrow: bool = False, keeps_text: bool = False) -> None:
        self._outbox, self._arrow, self._keeps_text = outbox, arrow, keeps_text
        self._types = dict(line.columns.types)
        self._seq = self._rows = 0
        self._watermark: int | None = None
        self._held: Batch | None = None
        outbox.put(codec.encode(line))

    @property
    def sent(self) -> int:
        """Bytes."""
        return self._outbox.sent

    def write(self, batch: Batch) -> None:
        """One batch as one frame."""
        self._release(self._watermark)
        if batch.height:
            self._held = batch

    def advance(self, watermark: int | None, *, idle: bool = False) -> None:
        """The watermark that holds from here on: said with the records written last, if there are any.

        `idle`: the wall clock has moved it, and no record.
        """
        if self._held:
            self._release(watermark, idle=idle)
        elif watermark != self._watermark:
            self._send_end(FrameEnd(self._seq, 0, watermark, idle=idle))

    def barrier(self, barrier: Barrier) -> None:
        self._release(self._watermark)
        self._outbox.put(codec.encode(barrier))

    def end(
        self,
        accounts: list[dict[str, int]],
        epoch: int = 0,
        state: Sequence[Any] = (),
        *,
        is_stopped: bool = False,
        before: Sequence[dict[str, int]] = (),
    ) -> None:
        """`epoch` and `state`: as in a barrier, where the end is one; `before`: see End."""
        self._release(self._watermark)
        self._outbox.put(codec.encode(End(self._rows, tuple(accounts), epoch, tuple(state), is_stopped, tuple(before))))
        self._outbox.close()

    def _release(self, watermark: int | None, *, idle: bool = False) -> None:
        if not self._held:
            return
        batch, self._held = self._held, None
        if dict(batch.columns.types) != self._types:
            self._types = dict(batch.columns.types)
            self._outbox.put(codec.encode(ColumnsChange(self._types)))
        end = FrameEnd(self._seq, batch.height, watermark, batch.late_count(), idle)
        if batch.packed:
            self._send_arrow(batch.packed.data, end)
            return
        frame = self._binary(batch) if self._arrow and _is_whole(batch) and not self._must_stay(batch) else None
        if frame is not None:
            self._send_arrow(to_arrow(frame), end)
        else:
            self._outbox.put(batch.to_ndjson())
            self._send_end(end)

    def _must_stay(self, batch: Batch) -> bool:
        return self._keeps_text and (batch.text is not None or batch.origin is not None)

    def _send_end(self, end: FrameEnd) -> None:
        self._outbox.put(codec.encode(end))
        self._count(end)

    def _binary(self, batch: Batch) -> pl.DataFrame | None:
        """The columns, sketches as bytes; None where one is not the text of bytes, and would be lost."""
        has = batch.frame.columns
        frame = batch.frame.select(name for name in (*self._types, "_mark", LINES) if name in has)
        for name in set(self._sketches()) & set(has):
            data = frame[name].str.decode("base64", strict=False)
            if data.null_count() > frame[name].null_count():
                return None
            frame = frame.with_columns(data)
        return frame

    def _sketches(self) -> list[str]:
        return [name for name, kind in self._types.items() if kind == "sketch"]

    def _send_arrow(self, data: bytes, end: FrameEnd) -> None:
        self._outbox.put(codec.encode(ArrowFrame(end, len(data))))
        self._outbox.put(data)
        self._count(end)

    def _count(self, end: FrameEnd) -> None:
        self._seq += 1
        self._rows += end.rows
        self._watermark = end.watermark


def _is_whole(batch: Batch) -> bool:
    """Whether the columns are all there is to the records, or all that matters: parsed, and no cell in doubt."""
    names = set(batch.frame.columns)
    if LINES in names:
        return True
    return set(batch.columns.types) <= names and not any(name.startswith(HIDDEN) for name in names)
