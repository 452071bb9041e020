"""Records as people and their tools want them: NDJSON and CSV with times spelled out, and tables.

Times of ours (the columns of type time) leave as RFC 3339; what a source called its time is left as
it came. `_mark`, which only means something between two steps, is left out.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace

import polars as pl

from clickpipe.batch import Batch, render
from clickpipe.columns import Columns
from clickpipe.core.time import rfc3339
from clickpipe.text import Text, split_tail

# A tool between two steps may have put it first, or white space around it.
_MARK = r'^(.*),\s*"_mark"\s*:\s*-?\d+(\s*[,}].*)$'
_MARK_FIRST = r'^(\s*\{)\s*"_mark"\s*:\s*-?\d+\s*,?(.*)$'


def as_ndjson(batch: Batch, spell_times: bool) -> bytes:
    """One JSON object per record. A record that no step made anew is written as it came."""
    times = _times(batch.columns)
    batch = unmarked(batch)
    if batch.text is None:
        return render(_table(batch, spell_times), _written_types(batch.columns, spell_times))
    if spell_times and times:
        batch = taken_out(batch, times)
        if batch.text is None:
            return as_ndjson(batch, spell_times)
        batch = replace(batch, frame=batch.frame.with_columns(rfc3339(pl.col(name)) for name in times))
    return batch.to_ndjson()


def as_csv(batch: Batch, spell_times: bool, *, header: bool) -> bytes:
    """RFC 4180 lines; a null is an empty field."""
    out = io.BytesIO()
    _table(batch, spell_times).write_csv(out, include_header=header, batch_size=max(1, batch.height))
    return out.getvalue()


def as_table(batch: Batch, spell_times: bool) -> pl.DataFrame:
    return _table(batch, spell_times)


def _times(columns: Columns) -> list[str]:
    return [name for name, kind in columns.types.items() if kind == "time"]


def _written_types(columns: Columns, spell_times: bool) -> Mapping[str, str]:
    return {name: "str" if kind == "time" and spell_times else kind for name, kind in columns.types.items()}


def _table(batch: Batch, spell_times: bool) -> pl.DataFrame:
    frame = batch.frame.select(batch.columns.names())
    return frame.with_columns(rfc3339(pl.col(name)) for name in _times(batch.columns)) if spell_times else frame


def taken_out(batch: Batch, names: list[str]) -> Batch:
    """The batch with these integer columns in the frame and no longer in the text, if it has one."""
    inside = [name for name in names if name in batch.in_text]
    if batch.text is None or not inside:
        return batch
    split = split_tail(batch.text, inside)
    if split is None:  # some tool has moved them: all is parsed and written anew
        whole, _ = batch.need(batch.columns.names(), set())
        return whole.replaced(whole.frame, whole.columns)
    text, values = split
    frame = batch.frame.drop(inside, strict=False)
    frame = frame.hstack(values) if frame.width else values
    return replace(batch, frame=frame, text=text, in_text=batch.in_text - set(inside))


def unmarked(batch: Batch) -> Batch:
    """The batch without its marks."""
    text = batch.text
    if text is not None and "_mark" in batch.in_text:
        rows, lines = batch.frame["_mark"].is_not_null().arg_true(), text.lines()
        plain = lines.gather(rows).str.replace(_MARK, "$1$2").str.replace(_MARK_FIRST, "$1$2")
        text = Text(lines=lines.clone().scatter(rows, plain))
    return replace(batch, frame=batch.frame.drop("_mark", strict=False), text=text, in_text=batch.in_text - {"_mark"})
