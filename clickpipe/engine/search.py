"""Find records in the input of a pipeline by the value of a field, with the watermark just before each.

bytes of the value --found in a block--> its line --parsed--> does the field say so?
                                                                   |
times of all lines before it, through the split's clock  <---------+
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.core.beside import Beside
from clickpipe.core.eventtime import EventTime, streamed
from clickpipe.core.format import Format, Wants
from clickpipe.core.reading import blocks
from clickpipe.core.time import SplitClock
from clickpipe.engine.rebuilt import Rebuilt
from clickpipe.errors import PlanError
from clickpipe.lines import Block
from clickpipe.sources.file import FileSplit

_BLOCK = 8 << 20


@dataclass(frozen=True)
class Found:
    """A record of the input. `read`: whether the checkpoint has it behind itself; None: that cannot be told.

    `batch`: the record as the pipeline's first step is given it, or None where it is bad: then `dead`. `watermark`: its
    split's, just before it; `time`: when it was.
    """

    path: str
    offset: int
    line: bytes
    read: bool | None
    batch: Batch | None
    dead: Dead | None
    time: int | None
    watermark: int | None


@dataclass(frozen=True)
class _File:
    """`split`: the saved position; files of one split follow each other."""

    path: str
    split: Mapping[str, Any]
    read_to: int | None


def files(rebuilt: Rebuilt) -> list[str]:
    """Those that are looked into."""
    return [file.path for split in rebuilt.splits for file in _files(split)]


def search(rebuilt: Rebuilt, column: str, value: str, most: int) -> list[Found]:
    """The first `most` records whose column says so, in the order in which they were read. Raises PlanError for a file
    that is not there."""
    if column not in rebuilt.raw.types:
        raise rebuilt.raw.unknown(column, "", "the input has")
    return list(islice(_all(rebuilt, column, value), most))


def _all(rebuilt: Rebuilt, column: str, value: str) -> Iterator[Found]:
    for split in rebuilt.splits:
        past: list[_File] = []
        for file in _files(split):
            for offset, line in _candidates(rebuilt.format(), file.path, value):
                if _is_it(rebuilt, file.path, line, column, value):
                    yield _found(rebuilt, file, past, offset, line)
            past.append(file)


def _files(split: Mapping[str, Any]) -> list[_File]:
    """Of a followed path, what is beside it by now too, the oldest first."""
    if "generations" not in split:
        return [_File(split["name"], split, split["offset"])]
    beside, folder = Beside(split["name"]), os.path.dirname(split["name"])
    names = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
    paths = [os.path.join(folder, name) for name in names if name == os.path.basename(split["name"]) or beside.has_name(name)]
    read_to = {one["inode"]: int(one["offset"]) for one in split["generations"]}
    stats = sorted((os.stat(path).st_mtime_ns, path) for path in paths if os.path.isfile(path))
    return [_File(path, split, read_to.get(os.stat(path).st_ino)) for _, path in stats]


# Candidates.


def _candidates(form: Format, path: str, value: str) -> Iterator[tuple[int, bytes]]:
    """Lines in which the value stands in one of its spellings, and where they begin."""
    spellings = {value.encode("utf-8", "surrogateescape"), json.dumps(value)[1:-1].encode(), _json(value)}
    pattern = re.compile(b"|".join(map(re.escape, sorted(spellings))))
    for block in _blocks(form, path):
        last = -1
        for match in pattern.finditer(block.data):
            start = block.data.rfind(b"\n", 0, match.start()) + 1
            if start != last:
                end = block.data.find(b"\n", match.end())
                yield block.offset + start, block.data[start : end if end >= 0 else len(block.data)]
            last = start


def _json(value: str) -> bytes:
    return json.dumps(value, ensure_ascii=False)[1:-1].encode("utf-8", "surrogatepass")


def _blocks(form: Format, path: str) -> Iterator[Block]:
    is_first = True
    for block in blocks(FileSplit(path), form.cut, _BLOCK, 0.0):
        if is_first and (block.data or block.overlong):
            block, is_first = form.begin(block), False
        yield block


def _is_it(rebuilt: Rebuilt, path: str, line: bytes, column: str, value: str) -> bool:
    """Whether the record says so; of a line that is none, whether the value stands in it as a word."""
    batch, _, _ = rebuilt.format().read(Block(line + b"\n", 0), rebuilt.raw, _wants(rebuilt, set(rebuilt.floats)), path)
    if not batch.height:
        return holds_word(line.decode("utf-8", "backslashreplace"), value)
    return column in batch.frame.columns and batch.frame[column].cast(pl.String).to_list() == [value]


def holds_word(text: str, value: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


# One of them.


def _found(rebuilt: Rebuilt, file: _File, past: Iterable[_File], offset: int, line: bytes) -> Found:
    clock = _clock(rebuilt, [*past, file], offset)
    mark = clock.watermark
    batch, dead = _judged(rebuilt, rebuilt.format(), Block(line + b"\n", offset), file.path, clock, [*rebuilt.raw.types])
    known = batch if batch.height else None
    read = None if file.read_to is None else offset < file.read_to
    return Found(file.path, offset, line, read, known, dead[0] if dead else None, _instant(rebuilt, known), mark)


def _instant(rebuilt: Rebuilt, batch: Batch | None) -> int | None:
    time = _time(rebuilt)
    return None if time.field is None or batch is None else int(time.instants(batch)[0])


def _judged(
    rebuilt: Rebuilt, form: Format, block: Block, path: str, clock: SplitClock, names: list[str]
) -> tuple[Batch, list[Dead]]:
    """As the source does it: the records with these columns, those that are late marked, and bad ones."""
    taking = rebuilt.taking
    wanted = _wants(rebuilt, set(rebuilt.floats), None if taking.judges_all(form) else names)
    batch, dead, _ = form.read(block, rebuilt.raw, wanted, path)
    batch, more = taking.judged(batch, form, _time(rebuilt), clock, None, streamed(rebuilt.raw))
    return batch, [*dead, *more]


def _wants(rebuilt: Rebuilt, floats: set[str], names: list[str] | None = None) -> Wants:
    return Wants(list(rebuilt.raw.types) if names is None else names, True, floats)


def _time(rebuilt: Rebuilt) -> EventTime:
    """As the pipeline has it. Of files that grow it is not known any more when a record arrived, so none is too far ahead."""
    time = rebuilt.taking.event_time(rebuilt.format())
    return replace(time, future_skew=None) if rebuilt.ingest.follow else time


def _clock(rebuilt: Rebuilt, files: Iterable[_File], offset: int) -> SplitClock:
    """The split's clock just before this place in the last of its files."""
    time = _time(rebuilt)
    clock = time.clock(is_live=False)
    *before, last = files
    if time.field is None:
        return clock
    for file in [*before, last]:
        form = rebuilt.format()
        for block in _blocks(form, file.path):
            if file is last and block.end > offset:
                block = Block(block.data[: max(0, offset - block.offset)], block.offset)
            _judged(rebuilt, form, block, file.path, clock, [time.field])
            if file is last and block.end >= offset:
                break
    return clock


def check_there(rebuilt: Rebuilt) -> None:
    """Raises PlanError where a file of the input is not there: paths are as the pipeline was given them."""
    for path in files(rebuilt):
        if not os.path.exists(path):
            raise PlanError(f"{path} is not there", hint="paths are as the pipeline was given them: ask where it was started")
