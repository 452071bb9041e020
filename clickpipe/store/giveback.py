"""A record that left a pipeline, as it was before: for another try.

What is given back is a line of a late or dead-letter file without what clickpipe put there. A record's own fields
stay as they came, byte for byte, unless some tool has rewritten the file.
"""

from __future__ import annotations

import json

import polars as pl

from clickpipe.store.sides import DEAD, LINE, Kind, Some

_SHOWN = 64 << 10  # characters of a bad line that a dead letter keeps
_WINDOW = r',?"window_start":-?\d+,"window_end":-?\d+'
# Patterns that end with the line are looked for from its end: ten times as fast as with what comes before them.
_ADDED = rf'(?:{_WINDOW})?,?"_mark":(?:-?\d+|null),"_late_by":(?:-?\d+|null),"_reason":"[^"\\]*"\}}$'
_NAMES = ("window_start", "window_end", "_mark", "_late_by", "_reason")
_TIME = r',?"_time":(-?\d+)\}$'


def given_back(kind: Kind, some: Some) -> tuple[pl.Series, int]:
    """The lines as they were, and how many records cannot be given back whole."""
    return _raw(some.frame) if kind is DEAD else (_late(some.frame), 0)


def _raw(letters: pl.DataFrame) -> tuple[pl.Series, int]:
    """Of a bad line the beginning is kept, and of one that was not UTF-8 a description."""
    is_whole = (
        (pl.col("raw").str.len_chars() < _SHOWN)
        & (pl.col("error") != "not UTF-8")
        & ~pl.col("error").str.starts_with("longer than ")
    )
    whole = letters.filter(is_whole)
    return _untravelled(whole), letters.height - whole.height


def _untravelled(letters: pl.DataFrame) -> pl.Series:
    """A step that is a process of its own saw the record with the fields that steps before had added."""
    raw = pl.col("raw")
    without = raw.str.replace(_WINDOW + r"\}$", "}").str.replace(r',?"_mark":-?\d+\}$', "}")
    is_travelled = pl.col("source") == "stream"
    return letters.select(pl.when(is_travelled).then(without.str.replace(_TIME, "}")).otherwise(raw)).to_series()


def _late(records: pl.DataFrame) -> pl.Series:
    """Lines as clickpipe writes them are cut, and only doubtful ones looked at one by one."""
    instant = (pl.col("_mark") - pl.col("_late_by")).cast(pl.String)
    cut = pl.when(pl.col(LINE).str.contains(_ADDED)).then(pl.col(LINE).str.replace(_ADDED, "}"))
    is_ours = (cut.str.extract(_TIME, 1) == instant).fill_null(False)
    bare = pl.when(is_ours).then(cut.str.replace(_TIME, "}")).otherwise(cut)
    is_doubtful = cut.is_null() | (~is_ours & cut.str.contains('"_time"', literal=True))
    judged = records.select(bare.alias("line"), is_doubtful.alias("is_doubtful"))
    lines, rows = judged["line"], judged["is_doubtful"].arg_true()
    if not len(rows):
        return lines
    settled = map(_settled, records[LINE].gather(rows), lines.gather(rows))
    return lines.scatter(rows, pl.Series([*settled], dtype=pl.String))


def _settled(line: str, cut: str | None) -> str:
    """A line that a tool has rewritten, or whose `_time` stands elsewhere: ours, if it says what the other fields say."""
    record = json.loads(line)
    mark, late_by, time = record.get("_mark"), record.get("_late_by"), record.get("_time")
    is_ours = isinstance(mark, int) and isinstance(late_by, int) and time == mark - late_by
    piece = f',"_time":{time}'
    if cut is not None and not is_ours:
        return cut
    if cut is not None and cut.count(piece) == 1:
        return cut.replace(piece, "")
    left = {name: value for name, value in record.items() if name not in _NAMES and not (is_ours and name == "_time")}
    return json.dumps(left, separators=(",", ":"), ensure_ascii=False)
