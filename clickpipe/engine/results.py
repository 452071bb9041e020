"""Rows that a pipeline has given: those of one window and key, from its views and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl

from clickpipe.batch import Batch
from clickpipe.core.source import Split
from clickpipe.core.time import instant_text
from clickpipe.engine.rebuilt import Rebuilt
from clickpipe.operators.ingest import Ingest
from clickpipe.operators.sink import Sink
from clickpipe.sources.file import FileSplit
from clickpipe.state.manifest import Entry
from clickpipe.state.parts import Parts
from clickpipe.store import viewread, views


@dataclass(frozen=True)
class Given:
    """What a sink has of a window and key, in the order in which it was given. `rows` None: it cannot be looked into."""

    sink: str
    rows: list[dict[str, Any]] | None


def given(rebuilt: Rebuilt, after_hop: int, start: int, key: Mapping[str, str]) -> list[Given]:
    """Of each sink behind a step. `start`: of the window."""
    found = []
    for hop, node in enumerate(rebuilt.plan.nodes):
        entry = next((one for one in rebuilt.manifest.steps if one["hop"] == hop and "staged" in one), None)
        if hop > after_hop and entry and isinstance(node.step, Sink):
            found.append(Given(node.step.destination, _rows(node.step, entry, start, key)))
    return found


def _rows(sink: Sink, entry: Entry, start: int, key: Mapping[str, str]) -> list[dict[str, Any]] | None:
    said = entry["staged"]
    if entry["sink"] == "view":
        frame = viewread.read(said["view"]) if said["view"] in views.names() else pl.DataFrame()
        is_it = _mask(frame, start, key)
        return None if is_it is None else [*frame.filter(is_it).iter_rows(named=True)]
    if entry["sink"] != "file":
        return None
    rows: list[dict[str, Any]] = []
    for batch in _batches(sink, Parts(said["to"]).files()):
        whole, _ = (
            batch.need(["window_start", *key], set()) if {"window_start", *key} <= set(batch.columns.types) else (batch, None)
        )
        is_it = _mask(whole.frame, start, key)
        if is_it is None:
            return None
        rows += [orjson.loads(line) for line in whole.keep(is_it).to_ndjson().splitlines()]
    return rows


def _mask(frame: pl.DataFrame, start: int, key: Mapping[str, str]) -> pl.Series | None:
    """Which rows are of the window and key; None where rows do not say it."""
    if not {"window_start", *key} <= set(frame.columns):
        return None
    spelled = [str(start), instant_text(start)]
    is_it = pl.col("window_start").cast(pl.String).is_in(spelled)
    return frame.select(pl.all_horizontal(is_it, *(is_value(name, value) for name, value in key.items()))).to_series()


def is_value(name: str, value: str) -> pl.Expr:
    """Whether a column says what a person typed; `null` is a null too."""
    text = pl.col(name).cast(pl.String)
    return (text == value).fill_null(False) | (pl.col(name).is_null() if value == "null" else False)


def _batches(sink: Sink, paths: list[str]) -> Iterator[Batch]:
    """The rows of a file, or of its parts, as one input."""
    if not paths:
        return
    form = sink.format if sink.format in ("csv", "ndjson") else None
    feed = Ingest((sink.destination,), format=form).feed([_Chained(sink.destination, paths)])
    feed.want(None, True)
    for pull in feed.pulls():
        yield from pull.batches


class _Chained(Split):
    """Files that are one text: of parts of CSV only the first has the header."""

    def __init__(self, name: str, paths: list[str]) -> None:
        self.name, self._paths = name, paths

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        assert offset == 0, "it is read once, from its beginning"
        for path in self._paths:
            yield from FileSplit(path).chunks()
