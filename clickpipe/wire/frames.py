"""What travels on a wire besides records: the signals, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clickpipe.columns import Columns

VERSION = 1


@dataclass(frozen=True)
class Worker:
    """Which of several processes that run the same steps, each with keys of its own, a stream goes to or comes from.

    `number`: from 0; `by`: the columns that the records were divided by.
    """

    number: int
    of: int
    by: tuple[str, ...]


@dataclass(frozen=True)
class StreamLine:
    """The first line: what is known of the stream, and where its state lives."""

    columns: Columns
    pipeline: str = ""
    hop: int = 0
    run: int = 0
    state: str | None = None
    max_errors: str | None = None  # how many bad records the pipeline allows
    restore: int | None = None  # the checkpoint to go on from, 0 for none; None: this pipeline takes no checkpoints
    dead_letter: str | None = None  # where a person wants bad records
    sinks: tuple[str, ...] = ()  # where the steps before write; each wants every record, so the stream is read to its end
    late: str | None = None  # where a person wants late records
    worker: Worker | None = None
    divided: Columns | None = None  # of pieces of an aggregate: what its partition had divided
    life: str | None = None  # which of the runs of pipelines of this name it is: processes with the same one belong together


@dataclass(frozen=True)
class ColumnsChange:
    """From here on the records have these columns."""

    types: dict[str, str]


@dataclass(frozen=True)
class FrameEnd:
    """Closes the records since the last signal.

    `late`: how many of them carry a `_mark`; `idle`: the wall clock has moved the watermark, and no record.
    """

    seq: int
    rows: int
    watermark: int | None = None
    late: int | None = None
    idle: bool = False


@dataclass(frozen=True)
class ArrowFrame:
    """The next `bytes` bytes are an Arrow IPC stream of `rows` records."""

    end: FrameEnd
    bytes: int


@dataclass(frozen=True)
class Barrier:
    """A checkpoint barrier. `state`: what the steps before it have saved; `accounts`, `before`: as in End, up to here."""

    epoch: int
    state: tuple[Any, ...] = ()
    accounts: tuple[dict[str, int], ...] = ()
    before: tuple[dict[str, int], ...] = ()


@dataclass(frozen=True)
class End:
    """The stream ended as it should. `accounts`: what became of every record so far, oldest ledger first.

    `epoch`: the end is the last barrier too; 0 where there are no checkpoints, or nothing new to save.
    `is_stopped`: the run ends, and the input does not: windows stay open, and the next run goes on.
    `before`: the accounts of the steps before a partition, which the first worker hands on as they are.
    """

    rows: int
    accounts: tuple[dict[str, int], ...] = field(default=())
    epoch: int = 0
    state: tuple[Any, ...] = ()
    is_stopped: bool = False
    before: tuple[dict[str, int], ...] = ()


@dataclass(frozen=True)
class Failed:
    """The step before has failed and has said why: whoever reads this fails too, and need not say more."""


Signal = StreamLine | ColumnsChange | FrameEnd | ArrowFrame | Barrier | End | Failed
