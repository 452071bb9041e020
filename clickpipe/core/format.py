"""Formats of raw input: blocks of bytes -> batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from clickpipe.batch import Batch, Dead
from clickpipe.columns import Columns
from clickpipe.lines import Block, Overlong
from clickpipe.ndjson import LONGEST_LINE

SAMPLE = 1_000  # records that types are inferred from


@dataclass
class Wants:
    """What of the records is asked for. `names` None: every column. `floats`: integers seen as floats."""

    names: list[str] | None
    text: bool
    floats: set[str]


class Format:
    """One format. `time` is the column that holds event time unless the user says otherwise."""

    time: ClassVar[str | None] = None
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

    def read(self, block: Block, columns: Columns, wants: Wants, source: str) -> tuple[Batch, list[Dead], int]:
        """The records of a block, the bad ones, and how many there were in all."""
        raise NotImplementedError


def offsets(block: Block, rows: Iterable[int]) -> list[int]:
    """Where in the input these lines of the block begin. Unit: bytes."""
    wanted, found, at = set(rows), {}, block.offset
    for number, line in enumerate(block.data.split(b"\n")):
        if number in wanted:
            found[number] = at
        at += len(line) + 1
    return [found[row] for row in sorted(wanted)]


def dead_lines(block: Block, bad: list[tuple[int, str]], source: str) -> Iterator[Dead]:
    """Bad lines as dead letters."""
    if bad:
        lines = block.data.split(b"\n")
        where = offsets(block, (number for number, _ in bad))
        shown = [shown_text(lines[number]) for number, _ in bad]
        yield Dead(shown, [reason for _, reason in bad], list(where), source, [None] * len(bad))
    if block.overlong:
        yield dead_overlong(block.overlong, source)


def dead_overlong(lines: tuple[Overlong, ...], source: str) -> Dead:
    return Dead(
        [shown_text(line.beginning) for line in lines],
        [f"longer than {LONGEST_LINE} bytes: {line.length}; only its beginning is kept" for line in lines],
        [line.offset for line in lines],
        source,
        [None] * len(lines),
    )


def shown_text(line: bytes) -> str:
    return line.rstrip(b"\r").decode("utf-8", "backslashreplace")
