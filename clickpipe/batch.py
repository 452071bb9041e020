"""A batch: some records, as columns where someone needs columns, as text where nobody does.

    frame   the parsed and computed columns, one row a record
    text    the records' own lines, while nothing has replaced them; None once a step made
            records of its own
    types   the columns a record has, in order, those still unparsed in `text` included

A column in `frame` that is not in `text` was added: writing the batch splices it in. Names
that begin with NUL are ours and are never written: where a record came from, and which of its
cells do not fit their type. Such a cell is judged when a step first needs its column, so that
the order of steps, not the way they are spread over processes, decides a record's fate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import orjson
import polars as pl

from clickpipe import ndjson
from clickpipe.columns import HIDDEN, Columns
from clickpipe.errors import OursError
from clickpipe.text import Text, leading_milliseconds, splice, splice_some, write_ndjson

WRONG = HIDDEN + "wrong:"
OFFSET = HIDDEN + "offset"
RAW = HIDDEN + "raw"
ROW = HIDDEN + "row"
LINES = HIDDEN + "lines"  # on the way to workers of the same plan: the lines of some, see engine/divided.py
SOURCE = HIDDEN + "source"  # where the batch holds records of several
_BROKEN = HIDDEN + "broken"


@dataclass(frozen=True)
class Dead:
    """Records that are bad: their text, why, and where they were found."""

    raw: list[str]
    reason: list[str]
    offset: list[int | None]
    source: str | None = None
    time: list[int | None] = field(default_factory=list)
    sources: list[str | None] = field(default_factory=list)  # of each, where they are not all of one

    def __len__(self) -> int:
        return len(self.raw)


@dataclass(frozen=True)
class Packed:
    """An Arrow frame that nobody has opened. `late`: how many of its records carry a mark."""

    data: bytes
    late: int | None


@dataclass(frozen=True)
class Batch:
    frame: pl.DataFrame
    columns: Columns
    text: Text | None = None
    in_text: frozenset[str] = frozenset()  # columns whose value stands in `text` too, if it is kept
    source: str | None = None
    in_origin: frozenset[str] = frozenset()
    origin: Text | None = None  # where nobody wants the text: the lines that the ROW column counts
    is_judged: bool = False  # a step before has seen that each line is a record
    packed: Packed | None = None  # where nobody looks into it: all there is to the records, as it came

    @property
    def height(self) -> int:
        return self.frame.height

    def visible(self) -> list[str]:
        return [name for name in self.frame.columns if not name.startswith(HIDDEN)]

    def need(self, names: Iterable[str], floats: set[str]) -> tuple[Batch, Dead | None]:
        """The batch with these columns in `frame`, and the records that have no fitting value for one.

        `floats` collects the integer columns in which a float turned up: from then on they are floats.
        """
        names = list(dict.fromkeys(names))
        missing = [name for name in names if name not in self.frame.columns]
        batch = self._parsed(missing, floats) if missing else self
        return batch._judged(names)

    def _parsed(self, names: list[str], floats: set[str]) -> Batch:
        assert self.text is not None, f"{names} are neither parsed nor in the text"
        if names == [self._time_name()] and self.is_judged and self.columns.types[names[0]] == "int":
            leading = leading_milliseconds(self.text, names[0])
            if leading is not None:
                return replace(self, frame=self.frame.with_columns(leading) if self.frame.width else leading.to_frame())
        block = self.text.block()
        columns = widened(self.columns, floats)
        parsed = read(block, columns, names, self.height, is_ours=True)
        found = {name for name in parsed.floats if name not in columns.declared and name != self._time_name()}
        if found:
            floats |= found
            columns = widened(columns, floats)
            parsed = read(block, columns, names, self.height, is_ours=True)
        return self._with_parsed(parsed, names, columns)

    def _with_parsed(self, parsed: ndjson.Parsed, names: list[str], columns: Columns) -> Batch:
        frame, wrong = parsed.frame.select(names), dict(parsed.wrong)
        if parsed.rows is not None:  # a tool between two steps broke some lines: their rows come back as empty ones
            every = pl.DataFrame({ROW: pl.Series(range(self.height), dtype=pl.Int64)})
            rows = frame.with_columns(parsed.rows.alias(ROW), **wrong_columns(wrong))
            spread = every.join(rows, on=ROW, how="left", maintain_order="left").drop(ROW)
            reasons = dict.fromkeys(range(self.height), "not JSON: a blank line") | dict.fromkeys(parsed.rows.to_list())
            reasons |= {line.number: reason for line, reason in parsed.bad}
            broken = pl.Series(_BROKEN, [reasons[row] for row in range(self.height)], pl.String)
            return replace(self, frame=self.frame.hstack(spread).with_columns(broken), columns=columns)
        frame = frame.with_columns(**wrong_columns(wrong))
        return replace(self, frame=self.frame.hstack(frame) if self.frame.width else frame, columns=columns)

    def _judged(self, names: list[str]) -> tuple[Batch, Dead | None]:
        masks = [name for name in names if WRONG + name in self.frame.columns]
        has_broken = _BROKEN in self.frame.columns
        if not masks and not has_broken:
            return self, None
        reason = pl.coalesce(
            *([pl.col(_BROKEN)] if has_broken else []),
            *(pl.when(pl.col(WRONG + name)).then(pl.lit(self._misfit(name))) for name in masks),
            pl.lit(None, pl.String),
        )
        reasons = self.frame.select(reason.alias("reason")).to_series()
        drop = [WRONG + name for name in masks] + ([_BROKEN] if has_broken else [])
        good = replace(self.keep(reasons.is_null()))
        good = replace(good, frame=good.frame.drop(drop))
        if good.height == self.height:
            return good, None
        return good, self.keep(reasons.is_not_null()).as_dead(reasons.drop_nulls())

    def _misfit(self, name: str) -> str:
        return f'column "{name}" is not {article(self.columns.types[name])}'

    def as_dead(self, reasons: pl.Series) -> Dead:
        """These records as dead letters, with one reason each."""
        raw = self._raw()
        offsets = self.frame[OFFSET].to_list() if OFFSET in self.frame.columns else [None] * self.height
        time = self._time_name()
        times = self.frame[time].to_list() if time in self.frame.columns else [None] * self.height
        sources = self.frame[SOURCE].to_list() if SOURCE in self.frame.columns else []
        return Dead(raw, reasons.to_list(), offsets, self.source, times, sources)

    def _raw(self) -> list[str]:
        if RAW in self.frame.columns and not self.frame[RAW].null_count():
            return self.frame[RAW].to_list()
        if self.text is None and self.origin is not None:
            return self.origin.pick(self.frame[ROW].to_list())
        return split(self.to_ndjson()) if self.text is None else self.text.lines().to_list()

    def with_text(self) -> Batch:
        """The batch with its lines, which were kept aside in case a record leaves the stream."""
        if self.text is not None or self.origin is None:
            return self
        lines = self.origin.lines().gather(self.frame[ROW])
        if lines.null_count():
            raise OursError("a record is to leave the stream whose line was not thought to be needed")
        return replace(self, text=Text(lines=lines), in_text=self.in_origin)

    def is_in_order(self) -> bool:
        """Whether no cell is in doubt."""
        return not any(name.startswith((WRONG, RAW, _BROKEN)) for name in self.frame.columns)

    def _time_name(self) -> str:
        return self.columns.time.name if self.columns.time else HIDDEN

    def late_count(self) -> int | None:
        """How many records carry a mark; None for none."""
        if self.packed:
            return self.packed.late
        if "_mark" not in self.frame.columns:
            return None
        return self.height - self.frame["_mark"].null_count() or None

    def keep(self, mask: pl.Series) -> Batch:
        """The records for which `mask` is true."""
        if mask.all():
            return self
        return replace(self, frame=self.frame.filter(mask), text=self.text.keep(mask) if self.text else None)

    def head(self, count: int) -> Batch:
        mask = pl.Series(range(self.height), dtype=pl.Int64) < count
        return self.keep(mask)

    def parts(self, most_rows: int | None) -> Iterator[Batch]:
        """The same records in batches of at most so many."""
        if most_rows is None or self.height <= most_rows:
            yield self
            return
        rows = pl.int_range(self.height, eager=True)
        for begin in range(0, self.height, most_rows):
            yield self.repeat(rows[begin : begin + most_rows])

    def repeat(self, rows: pl.Series) -> Batch:
        """The records with these numbers, in this order, as often as they are named."""
        return replace(self, frame=self.frame[rows], text=self.text.repeat(rows) if self.text else None)

    def add(self, added: pl.DataFrame, columns: Columns) -> Batch:
        """New columns beside the old ones."""
        return replace(self, frame=self.frame.hstack(added), columns=columns)

    def replaced(self, frame: pl.DataFrame, columns: Columns) -> Batch:
        """Records made anew from `frame`: the text is gone."""
        return replace(self, frame=frame, columns=columns, text=None, in_text=frozenset(), origin=None)

    def added(self) -> list[str]:
        """Columns that must be spliced in when the text is written."""
        return [name for name in self.columns.types if name in self.frame.columns and name not in self.in_text]

    def to_ndjson(self) -> bytes:
        """The records as lines of JSON, every line ended."""
        text = self.text or Text(block=render(self.frame.select(self.columns.names()), self.columns.types))
        added = self.added() if self.text is not None else []
        if added:
            text = splice(text, self.frame.select(added))
        if "_mark" in self.frame.columns and "_mark" not in self.in_text | set(self.columns.types):
            text = splice_some(text, self.frame["_mark"])
        return text.block()


def from_lines(text: Text, columns: Columns) -> Batch:
    """A batch of unparsed records that a step before has handed on."""
    text = text.without_blanks()
    return Batch(pl.DataFrame(height=len(text.lines())), columns, text, frozenset(columns.types), "stream", is_judged=True)


def from_narrow(frame: pl.DataFrame, columns: Columns) -> Batch:
    """A batch of some columns, with the lines of those records that may leave the stream."""
    batch = aside(Batch(frame.drop(LINES), columns, source="stream", is_judged=True), Text(lines=frame[LINES]))
    return replace(batch, in_origin=batch.in_origin | ({"_mark"} & set(frame.columns)))


def from_columns(block: bytes, columns: Columns, names: list[str]) -> Batch | None:
    """A batch of such records of which only these columns are needed; None where a line is not in order."""
    parsed = read(block, columns, names, is_ours=True)
    if parsed.rows is not None or not names or any(columns.types[name] == "json" for name in names):
        return None
    return aside(
        Batch(parsed.frame.select(names), columns, source="stream", is_judged=True), Text(block, count=parsed.frame.height)
    )


def aside(batch: Batch, text: Text) -> Batch:
    """The batch with its text kept aside."""
    frame = batch.frame.with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias(ROW))
    return replace(batch, frame=frame, origin=text, in_origin=frozenset(batch.columns.types))


def read(
    block: bytes, columns: Columns, names: list[str], count: int | None = None, *, expect_bad: bool = False, is_ours: bool = False
) -> ndjson.Parsed:
    """Some columns of a block of lines; of `count` lines, where which row is which must be known. `is_ours`: see `parse`."""
    nested = [name for name in names if columns.types[name] == "json"]
    return ndjson.parse(block, count, columns.schema(names), nested, expect_bad=expect_bad, is_ours=is_ours)


def widened(columns: Columns, floats: set[str]) -> Columns:
    """The columns, with these integer ones as floats."""
    changed = {name: "float" for name in floats if columns.types.get(name) == "int"}
    return replace(columns, types={**columns.types, **changed}) if changed else columns


def wrong_columns(wrong: Mapping[str, pl.Series]) -> dict[str, pl.Series]:
    return {WRONG + name: mask for name, mask in wrong.items()}


def render(frame: pl.DataFrame, types: Mapping[str, str]) -> bytes:
    """A frame as NDJSON. Columns of type json hold JSON text and are written as what they say."""
    nested = [name for name in frame.columns if types.get(name) == "json"]
    if not nested:
        return write_ndjson(frame)
    return b"".join(_render_row(row, nested) for row in frame.iter_rows(named=True))


def _render_row(row: dict[str, object], nested: list[str]) -> bytes:
    for name in nested:
        if row[name] is not None:
            row[name] = orjson.Fragment(str(row[name]))
    return orjson.dumps(row) + b"\n"


def split(block: bytes) -> list[str]:
    """Lines as text. (`splitlines` would also cut at U+2028 and its like.)"""
    return block.decode("utf-8", "replace").removesuffix("\n").split("\n") if block else []


def article(kind: str) -> str:
    return {"int": "a 64-bit integer", "float": "a number", "bool": "true or false", "time": "a time"}.get(kind, "text")


__all__ = [
    "LINES",
    "OFFSET",
    "RAW",
    "ROW",
    "SOURCE",
    "WRONG",
    "Batch",
    "Dead",
    "Packed",
    "article",
    "from_columns",
    "from_lines",
    "render",
    "widened",
]
