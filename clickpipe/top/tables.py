"""The dashboard once, as text: what `clickpipe top --once` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

from clickpipe.top.cells import PIPELINES, STEPS, Column, splits, summary
from clickpipe.top.model import Pipeline


def all_of_them(found: Sequence[Pipeline]) -> RenderableType:
    return table(PIPELINES, found) if found else "nothing runs"


def one_of_them(one: Pipeline) -> RenderableType:
    return Group(*_parts(one))


def _parts(one: Pipeline) -> Iterator[RenderableType]:
    yield from summary(one)
    if one.steps:
        yield from ("", table(STEPS, one.steps))
    if one.splits:
        yield from ("", table(splits(one), one.splits))


def table(columns: Sequence[Column], rows: Iterable[Any]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        made.add_column(column.title, justify="right" if column.is_number else "left", no_wrap=True)
    for row in rows:
        made.add_row(*(column.text(row) for column in columns))
    return made


def printed(what: RenderableType, width: int | None) -> None:
    """On standard output. `width`: in characters; None: the terminal's."""
    Console(highlight=False, markup=False, emoji=False, width=width, soft_wrap=False).print(what)
