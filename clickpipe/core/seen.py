"""What was seen of each key, until the watermark has reached a time of its own: exact, columnar, log-structured.

    segment     rows     in the order in which they were added: the key's columns, what is known, UNTIL
                index    (hash of the key, number of the row), in the order of the hash

    oldest  [ 1,200,000 ]  [ 450,000 ]  [ 120,000 ]  [ 38,000 ]  newest

A batch becomes a segment, and a segment is merged with the one before it when it has half its rows, so that there are
few and a row is moved a few times only. Keys are found by binary search for their hash in each segment; whoever asks
compares the values, so two keys of one hash cost a comparison and nothing else. Hashes never leave the process: what is
saved is the rows.

A row is given up once the watermark has reached its UNTIL: with its whole segment, or when that is merged.
Memory: the rows whose UNTIL is still to come, and at most twice as many others; 12 bytes a row for the index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from clickpipe.columns import HIDDEN
from clickpipe.core.keys import hash_of
from clickpipe.text import owned

UNTIL = HIDDEN + "until"
_HASH, _ROW = HIDDEN + "hash", HIDDEN + "at"


@dataclass(frozen=True)
class Hashed:
    """Rows by the hash of their key: what is the same for finding and for adding them."""

    index: pl.DataFrame

    def is_distinct(self) -> bool:
        """Whether surely no two rows have the same key."""
        hashes = self.index[_HASH]
        return not (hashes == hashes.shift()).any()


@dataclass(frozen=True)
class _Segment:
    rows: pl.DataFrame
    index: pl.DataFrame
    until: int  # the greatest of its rows


class Seen:
    """`latest`: only the row that was added last says anything of a key, and those before it may be given up."""

    def __init__(self, keys: Sequence[str], saved: pl.DataFrame | None = None, *, latest: bool = False) -> None:
        self._keys, self._latest = list(keys), latest
        self._segments: list[_Segment] = []
        self._watermark: int | None = None
        if saved is not None:
            self.add(saved)

    def hashed(self, rows: pl.DataFrame) -> Hashed:
        """Shape: the key's columns, and any others."""
        return self._hashed(self._agreed(rows))

    def find(self, asked: Hashed) -> tuple[pl.Series, pl.DataFrame]:
        """Which rows may have a key that was seen, by their hash, and what was seen of those hashes, oldest first."""
        sought = asked.index
        hits = [(segment, _matching(segment.index[_HASH], sought[_HASH])) for segment in self._segments]
        rows = [segment.rows[_numbers(segment.index, sought[_HASH].filter(hit))] for segment, hit in hits if hit.any()]
        if not rows:
            return pl.Series([], dtype=pl.UInt32), pl.DataFrame()
        some = pl.select(pl.any_horizontal(*(pl.lit(hit) for _, hit in hits))).to_series()
        return sought[_ROW].filter(some).sort(), pl.concat(rows)

    def add(self, rows: pl.DataFrame, hashed: Hashed | None = None) -> None:
        """Shape: the key's columns and UNTIL, and whatever else there was before. `hashed`: these rows, if that is known."""
        if not rows.height:
            return
        self._segments.append(self._segment(self._agreed(rows), hashed))
        while len(self._segments) > 1 and self._segments[-2].rows.height <= 2 * self._segments[-1].rows.height:
            newer, older = self._segments.pop(), self._segments.pop()
            self._segments += self._merged(older, newer)

    def forget(self, watermark: int) -> None:
        """Rows whose UNTIL is reached may go."""
        self._watermark = watermark
        if any(segment.until <= watermark for segment in self._segments):
            self._segments = [segment for segment in self._segments if segment.until > watermark]

    def rows(self) -> pl.DataFrame:
        """All that is kept, oldest first; no columns if nothing is. Some of it may be forgotten already. Free to take."""
        return pl.concat([segment.rows for segment in self._segments], rechunk=False) if self._segments else pl.DataFrame()

    def _segment(self, rows: pl.DataFrame, hashed: Hashed | None = None) -> _Segment:
        index = (hashed or self._hashed(rows)).index
        return _Segment(owned(rows), index, rows[UNTIL].max())  # type: ignore[arg-type]  # integers, and some

    def _hashed(self, rows: pl.DataFrame) -> Hashed:
        numbered = rows.select(hash_of(self._keys).alias(_HASH), pl.int_range(pl.len(), dtype=pl.UInt32).alias(_ROW))
        return Hashed(numbered.sort(_HASH))

    def _merged(self, older: _Segment, newer: _Segment) -> list[_Segment]:
        """One segment of both, or none if nothing is left of them."""
        both = pl.concat([older.rows, newer.rows])
        rows = both
        if self._watermark is not None:
            rows = rows.filter(pl.col(UNTIL) > self._watermark)
        if self._latest:
            rows = rows.unique(subset=self._keys, keep="last", maintain_order=True)
        if rows.height < both.height:
            return [self._segment(rows)] if rows.height else []
        moved = newer.index.with_columns(pl.col(_ROW) + pl.lit(older.rows.height, pl.UInt32))
        return [_Segment(both, pl.concat([older.index, moved]).sort(_HASH), max(older.until, newer.until))]

    def _agreed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with keys of the types that ours have. A column of integers may have become one of floats meanwhile."""
        if not self._segments:
            return rows
        ours = self._segments[0].rows.schema
        floats = [
            name for name in self._keys if pl.Float64 in (rows.schema[name], ours[name]) and rows.schema[name] != ours[name]
        ]
        if floats:
            wide = [pl.col(name).cast(pl.Float64) for name in floats]
            self._segments = [self._segment(segment.rows.with_columns(wide)) for segment in self._segments]
            rows = rows.with_columns(wide)
        return rows


def _matching(hashes: pl.Series, sought: pl.Series) -> pl.Series:
    """Which of the sought ones are there. Both are in order."""
    places = hashes.search_sorted(sought, "left").clip(upper_bound=len(hashes) - 1)
    return hashes.gather(places) == sought


def _numbers(index: pl.DataFrame, sought: pl.Series) -> pl.Series:
    """The rows that have one of these hashes, in the order in which they were added."""
    hashes, sought = index[_HASH], sought.unique()
    begins, ends = hashes.search_sorted(sought, "left"), hashes.search_sorted(sought, "right")
    places = pl.select(pl.int_ranges(begins, ends, dtype=pl.UInt32)).to_series().explode()
    return index[_ROW].gather(places).sort()
