"""Late and dead-letter files: which there are, and what is in them, block by block.

    pipelines/clicks/late.ndjson  dead.ndjson    or where --late or --dead-letter said, which the checkpoints know

A line that is still being written, or that belongs to a checkpoint that is not complete, is not there yet.
Memory: one block, and one line of at most a block.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import orjson
import polars as pl

from clickpipe.batch import read as read_columns
from clickpipe.columns import Columns
from clickpipe.errors import PlanError, failed_call, near
from clickpipe.state.epochs import Epochs
from clickpipe.state.home import home, pipeline_directory
from clickpipe.text import split_lines

LINE = "\0line"  # the whole line, beside the columns of its kind
_BLOCK = 4 << 20


@dataclass(frozen=True)
class Kind:
    """Late records, or dead letters. `reason`: the column that says why; `types`: what is read of a line."""

    name: str
    one: str
    many: str
    reason: str
    types: Mapping[str, str]

    def is_line(self, line: bytes) -> bool:
        """Whether a line is of this kind."""
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:
            return False
        return isinstance(record, dict) and {self.reason, *self.types} <= record.keys() | {"window_start", "window_end"}


DEAD = Kind(
    "dead",
    "dead letter",
    "dead letters",
    "error",
    {"raw": "str", "error": "str", "source": "str", "offset": "int", "time": "str"},
)
LATE = Kind(
    "late",
    "late record",
    "late records",
    "_reason",
    {"_reason": "str", "_mark": "int", "_late_by": "int", "window_start": "int", "window_end": "int"},
)


@dataclass(frozen=True)
class Side:
    """One file. `end`: how much of it complete checkpoints know of; None: there are none, all whole lines count."""

    kind: Kind
    pipeline: str
    path: str
    end: int | None = None


@dataclass(frozen=True)
class Some:
    """Records of a block. Shape: the columns of their kind, and LINE. `damaged`: lines that are no such records."""

    frame: pl.DataFrame
    damaged: int = 0


# Which there are.


def pipelines() -> list[str]:
    """All that have a state directory, whether they take checkpoints or not."""
    folder = os.path.join(home(), "pipelines")
    return sorted(name for name in (os.listdir(folder) if os.path.isdir(folder) else ()) if not name.startswith("."))


def sides(kind: Kind) -> list[Side]:
    """Those of all pipelines."""
    return [side for name in pipelines() for side in sides_of(kind, name)]


def chosen(kind: Kind, name: str) -> list[Side]:
    """Those of a pipeline, or the one with this path. Raises PlanError with the nearest name."""
    if name in pipelines():
        return sides_of(kind, name)
    if os.path.isfile(name):
        return [Side(kind, "", name)]
    what = f"{name}: no such file" if os.sep in name else f'no pipeline "{name}" has saved anything'
    known = pipelines()
    notes = [f"there are: {', '.join(known)}" if known else f"there is none under {home()}"]
    raise PlanError(what, hint=near(name, known), notes=notes, word=name)


def sides_of(kind: Kind, name: str) -> list[Side]:
    """Those of one pipeline; none where nothing has left it."""
    directory = pipeline_directory(name)
    manifest = next(Epochs(directory).manifests(), None)
    ends = manifest.lengths if manifest else {}
    usual = {os.path.join(directory, f"{one.name}.ndjson"): one for one in (DEAD, LATE)}
    paths = [path for path in ends if path not in usual and _begins_as(kind, path)]
    paths += [path for path, one in usual.items() if one is kind]
    return [Side(kind, name, path, ends.get(path, 0) if manifest else None) for path in paths if os.path.isfile(path)]


def _begins_as(kind: Kind, path: str) -> bool:
    first = next(_blocks(path, None), b"").partition(b"\n")[0]
    return kind.is_line(first)


# What is in them.


def counted(side: Side) -> tuple[int, bytes]:
    """How many lines there are, and the newest; nothing is looked into."""
    count, newest = 0, b""
    for block in _blocks(side.path, side.end):
        count += block.count(b"\n")
        newest = block[block.rfind(b"\n", 0, -1) + 1 : -1]
    return count, newest


def read(side: Side) -> Iterator[Some]:
    """All records, in the order in which they came. Raises OutsideError."""
    for block in _blocks(side.path, side.end):
        yield _parsed(side.kind, block)


def _parsed(kind: Kind, block: bytes) -> Some:
    count = block.count(b"\n")
    parsed = read_columns(block, Columns(kind.types), list(kind.types), count)
    lines = split_lines(block)
    if parsed.rows is not None:
        lines = lines.gather(parsed.rows)
    frame = parsed.frame.select(list(kind.types)).with_columns(lines.alias(LINE))
    needed = ("raw", "error") if kind is DEAD else (kind.reason,)
    misfits = [pl.lit(mask) for mask in parsed.wrong.values()]
    good = frame.filter(~pl.any_horizontal(*(pl.col(name).is_null() for name in needed), *misfits))
    return Some(good, count - good.height)


def _blocks(path: str, end: int | None) -> Iterator[bytes]:
    """Whole lines, some at a time. A line longer than a block is none of ours: a blank line comes in its place."""
    try:
        with open(path, "rb") as file:
            left, rest, is_skipping = end, b"", False
            while chunk := file.read(_BLOCK if left is None else min(left, _BLOCK)):
                left = None if left is None else left - len(chunk)
                cut = chunk.rfind(b"\n") + 1
                if is_skipping and cut:
                    chunk, cut, is_skipping = chunk[chunk.find(b"\n") :], cut - chunk.find(b"\n"), False
                if cut:
                    yield rest + chunk[:cut]
                rest = b"" if is_skipping else (b"" if cut else rest) + chunk[cut:]
                if len(rest) > _BLOCK:
                    rest, is_skipping = b"", True
    except OSError as error:
        raise failed_call(path, error) from None
