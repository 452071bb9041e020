"""Formats of raw input: blocks of bytes -> batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns
from clickpipe.core.catalog import Catalog
from clickpipe.lines import Block, Overlong
from clickpipe.ndjson import LONGEST_LINE, Line

FORMATS = Catalog("clickpipe.formats", "format")
SAMPLE = 1_000  # records that types are inferred from


@dataclass
class Wants:
    """What of the records is asked for. `names` None: every column. `floats`: integers seen as floats.

    `expect_bad`: the last block that was read held bad lines. It changes the speed of reading, nothing else.
    """

    names: list[str] | None
    text: bool
    floats: set[str]
    expect_bad: bool = False


class Format:
    """One format. `time` is the column that holds event time unless the user says otherwise."""

    time: ClassVar[str | None] = None
    types: ClassVar[Mapping[str, str]] = {}  # the columns that every input has; none: they are inferred
    has_text: ClassVar[bool] = False  # whether the input's own lines are records as they stand

    def begin(self, block: Block) -> Block:
        """The first block of a split, less what is no record (a header line)."""
        return block

    def cut(self, data: bytes) -> int:
        """How much of whole lines is whole records."""
        return len(data)

    def infer(self, blocks: list[Block]) -> dict[str, str]:
        """Column types from the first records of the input."""
        raise NotImplementedError

    def saved(self) -> Any:
        """What `restore` needs where reading goes on in the middle of a split, as JSON."""
        return None

    def restore(self, saved: Any) -> None:
        pass

    def read(self, block: Block, columns: Columns, wants: Wants, source: str) -> tuple[Batch, list[Dead], int]:
        """The records of a block, the bad ones, and how many there were in all."""
        raise NotImplementedError


def dead_lines(block: Block, bad: list[tuple[Line, str]], source: str) -> Iterator[Dead]:
    """Bad lines as dead letters."""
    if bad:
        yield Dead(
            [shown_text(line.text) for line, _ in bad],
            [reason for _, reason in bad],
            [block.offset + line.offset for line, _ in bad],
            source,
            [None] * len(bad),
        )
    if block.overlong:
        yield dead_overlong(block.overlong, source)


def lines_at(block: Block, bad: list[tuple[int, str]]) -> list[tuple[Line, str]]:
    """Lines by number, with the place where each begins."""
    lines = block.data.split(b"\n")
    starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
    return [(Line(number, starts[number], lines[number]), reason) for number, reason in bad]


def dead_overlong(lines: tuple[Overlong, ...], source: str) -> Dead:
    return Dead(
        [shown_text(line.beginning) for line in lines],
        [line.reason or f"longer than {LONGEST_LINE} bytes: {line.length}; only its beginning is kept" for line in lines],
        [line.offset for line in lines],
        source,
        [None] * len(lines),
    )


def shown_text(line: bytes) -> str:
    return line.rstrip(b"\r").decode("utf-8", "backslashreplace")
