"""Records held back until the watermark has passed them, and given out in the order of event time.

    arrive   t=4 t=2 | t=7 t=3 | t=9        pieces   [2 4] [3 7] [9]      each in order of time, ties as they came
    W = 5                                   given out 2 3 4               left: [7] [9]

Order: by time; of one time as they came. Guarantee: a record that is given out is what came: its text, and what is known
of it should it leave the stream as late or dead; also after a restart, for which all of that is saved.
Memory: what is held, with its text: the stream's rate times its out-of-orderness.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import orjson
import polars as pl

from clickpipe.batch import ROW, SOURCE, WRONG, Batch
from clickpipe.columns import HIDDEN, Columns, TimeColumn
from clickpipe.core.step import Tables
from clickpipe.core.timed import MARK, TimedOperator, without_marks
from clickpipe.text import Text, owned, split_lines

_TIME, _LINE = HIDDEN + "held:time", HIDDEN + "held:line"
_MOST_ROWS, _MOST_BYTES = 1 << 16, 8 << 20  # of a batch that is given out
_FEW_ROWS = 1 << 10  # that what is left of two pieces may be to be put together
_SPARSE = 4  # a piece of which a fourth is left is copied, to let go of the rest


@dataclass(frozen=True)
class _Form:
    """How what is held is represented; one for all pieces. `is_aside`: nobody has wanted the text so far."""

    columns: Columns
    in_text: frozenset[str]
    has_text: bool
    is_aside: bool
    is_judged: bool

    def to_json(self) -> bytes:
        said = {name: getattr(self, name) for name in ("has_text", "is_aside", "is_judged")}
        return orjson.dumps({"stream": self.columns.to_json(), "in_text": sorted(self.in_text), **said})

    @staticmethod
    def from_json(text: bytes) -> _Form:
        said = orjson.loads(text)
        flags = (said["has_text"], said["is_aside"], said["is_judged"])
        return _Form(Columns.from_json(said["stream"]), frozenset(said["in_text"]), *flags)


def alike(parts: Sequence[Tables]) -> list[Tables]:
    """What several processes have saved, with the records of all in one form."""
    forms = [_Form.from_json(tables["form"].item().encode()) for tables in parts if "form" in tables]
    if len(set(map(_Form.to_json, forms))) < 2:
        return list(parts)
    common = reduce(_in_common, forms)
    said = pl.DataFrame({"form": [common.to_json().decode()]})
    return [
        {**tables, "held": _converted(tables["held"], _Form.from_json(tables["form"].item().encode()), common), "form": said}
        if "form" in tables
        else tables
        for tables in parts
    ]


class Held:
    """Of records that are not late."""

    def __init__(self, saved: Mapping[str, pl.DataFrame]) -> None:
        self._pieces: list[pl.DataFrame] = []
        self._form: _Form | None = None
        if "held" in saved:
            self._form = _Form.from_json(saved["form"].item().encode())
            self._pieces = [saved["held"].sort(_TIME, maintain_order=True)]

    def add(self, batch: Batch, times: pl.Series) -> None:
        if not batch.height:
            return
        form, frame = _taken(batch)
        frame = frame.with_columns(times.alias(_TIME)).sort(_TIME, maintain_order=True)
        if not self._pieces or self._form is None:
            self._form = form
        elif form != self._form:
            common = _in_common(self._form, form)
            self._pieces = [_converted(piece, self._form, common) for piece in self._pieces]
            frame, self._form = _converted(frame, form, common), common
        self._append(frame, _MOST_ROWS)

    def release(self, watermark: int) -> Iterator[Batch]:
        """What the watermark has passed."""
        pieces, self._pieces, ready = self._pieces, [], []
        for piece in pieces:
            passed = piece[_TIME].search_sorted(watermark, "left")
            ready += [piece[:passed]] if passed else []
            if passed < piece.height:
                self._append(_compact(piece, passed), _FEW_ROWS)
        if ready and self._form is not None:
            frame = self._joined(ready).sort(_TIME, maintain_order=True)
            for some in frame.iter_slices(_rows_at_once(frame)):
                yield _batch(some, self._form)

    def snapshot(self) -> Mapping[str, pl.DataFrame]:
        if not self._pieces or self._form is None:
            return {}
        return {"held": self._joined(self._pieces), "form": pl.DataFrame({"form": [self._form.to_json().decode()]})}

    def _append(self, piece: pl.DataFrame, most: int) -> None:
        """Pieces grow while they are short, up to `most` rows, so that there are few: live input comes in small batches."""
        self._pieces.append(piece)
        while len(self._pieces) > 1:
            newer, older = self._pieces[-1].height, self._pieces[-2].height
            if older > 2 * newer or older + newer > most:
                return
            self._pieces[-2:] = [self._joined(self._pieces[-2:]).sort(_TIME, maintain_order=True)]

    def _joined(self, pieces: Sequence[pl.DataFrame]) -> pl.DataFrame:
        """Columns that not every piece has parsed are parsed again by whoever needs them."""
        assert self._form is not None
        if len(pieces) == 1:
            return pieces[0]
        everywhere = set.intersection(*(set(piece.columns) for piece in pieces))
        anywhere = set.union(*(set(piece.columns) for piece in pieces))
        partly = (anywhere - everywhere) & self._form.in_text
        dropped = [*partly, *(WRONG + name for name in partly)]
        frame = pl.concat([piece.drop(dropped, strict=False) for piece in pieces], how="diagonal_relaxed", rechunk=False)
        masks = [name for name in frame.columns if name.startswith(WRONG)]
        return frame.with_columns(pl.col(name).fill_null(False) for name in masks) if masks else frame


class HeldOperator(TimedOperator):
    """Gives records out in the order of event time, as they came. Late ones have no place any more."""

    def __init__(self, column: TimeColumn, saved: Tables) -> None:
        super().__init__(column, saved)
        self._held = Held(saved)

    def on_time(self, batch: Batch, times: pl.Series) -> Iterable[Batch]:
        self._held.add(without_marks(batch), times)
        return ()

    def on_watermark(self, time: int) -> Iterable[Batch]:
        super().on_watermark(time)
        return self._held.release(time)

    def snapshot(self) -> Tables:
        return {**super().snapshot(), **self._held.snapshot()}


def _taken(batch: Batch) -> tuple[_Form, pl.DataFrame]:
    """A batch as one frame, its lines and its source in columns of their own."""
    is_aside = batch.text is None and batch.origin is not None
    batch = batch.with_text()
    form = _Form(batch.columns, batch.in_text - {MARK}, batch.text is not None, is_aside, batch.is_judged)
    frame = batch.frame.drop(ROW, MARK, strict=False)
    if SOURCE not in frame.columns:
        source = batch.source and batch.source.encode("utf-8", "replace").decode()
        frame = frame.with_columns(pl.lit(source, pl.String).alias(SOURCE))
    if batch.text is not None:
        frame = frame.with_columns(batch.text.lines().alias(_LINE))
    return form, frame


def _batch(frame: pl.DataFrame, form: _Form) -> Batch:
    """The same undone."""
    source = None
    if frame[SOURCE].n_unique() == 1:
        source, frame = frame[SOURCE][0], frame.drop(SOURCE)
    bare = Batch(frame.drop(_TIME, _LINE, strict=False), form.columns, source=source, is_judged=form.is_judged)
    if not form.has_text:
        return bare
    text = Text(lines=frame[_LINE])
    if not form.is_aside:
        return replace(bare, text=text, in_text=form.in_text)
    numbered = bare.frame.with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias(ROW))
    return replace(bare, frame=numbered, origin=text, in_origin=form.in_text)


def _in_common(one: _Form, other: _Form) -> _Form:
    """The form that holds records of both. An integer column of one may be one of floats in the other."""
    floats = {name: "float" for name, kind in other.columns.types.items() if kind == "float" and name in one.columns.types}
    columns = replace(one.columns, types={**other.columns.types, **one.columns.types, **floats})
    is_judged = one.is_judged and other.is_judged
    if (one.has_text, one.in_text) == (other.has_text, other.in_text):
        return _Form(columns, one.in_text, one.has_text, one.is_aside and other.is_aside, is_judged)
    return _Form(columns, frozenset(columns.types), True, False, is_judged)


def _converted(frame: pl.DataFrame, form: _Form, to: _Form) -> pl.DataFrame:
    """With every column in the text, where the other form has it so."""
    if (form.has_text, form.in_text) == (to.has_text, to.in_text):
        return frame
    lines = split_lines(_batch(frame, replace(form, is_aside=False)).to_ndjson())
    return frame.with_columns(lines.alias(_LINE))


def _rows_at_once(frame: pl.DataFrame) -> int:
    size = int(frame[_LINE].str.len_bytes().sum() if _LINE in frame.columns else frame.estimated_size())
    return max(1, min(_MOST_ROWS, frame.height * _MOST_BYTES // max(1, size)))


def _compact(piece: pl.DataFrame, passed: int) -> pl.DataFrame:
    """What is left of a piece, without the text of what is not."""
    left = piece[passed:]
    return owned(left) if passed and _SPARSE * left.height < piece.height else left
