"""No more than so many groups in each window: the first to come are kept, and the others stop the run or share one row.

Which groups were first is known exactly and survives a restart, so that the answer does not depend on how records are batched.
Memory: one row per group that is kept, as long as records may come to its window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from clickpipe.columns import HIDDEN
from clickpipe.core.summary import Table
from clickpipe.errors import DataError

OTHER = "other"  # column: whether a row is that of all groups that were too many
_RANK, _KNOWN = HIDDEN + "rank", HIDDEN + "known"


@dataclass(frozen=True)
class Cap:
    """`most` groups, by the columns `by`, of each of what `window` tells apart; then `stop`, or go on with `other`.

    `lateness`: for how long after its end records may come to a window.
    """

    most: int
    policy: str
    by: tuple[str, ...]
    window: tuple[str, ...]
    lateness: int = 0


class Capped:
    def __init__(self, cap: Cap, saved: Mapping[str, pl.DataFrame]) -> None:
        self._cap, self._keys = cap, [*cap.window, *cap.by]
        self._known = Table(self._keys, [], saved.get("known"))

    def admit(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The records, those of groups that are too many under a null key and with `other`. Raises DataError to stop."""
        too_many = self._too_many(frame.select(self._keys).unique(maintain_order=True))
        if too_many.height and self._cap.policy == "stop":
            raise self._stop(too_many)
        if self._cap.policy == "stop":
            return frame
        if not too_many.height:
            return frame.with_columns(pl.lit(value=False).alias(OTHER))
        marked = too_many.with_columns(pl.lit(value=True).alias(OTHER))
        frame = frame.join(marked, on=self._keys, how="left", nulls_equal=True, maintain_order="left")
        frame = frame.with_columns(pl.col(OTHER).fill_null(value=False))
        return frame.with_columns(pl.when(~pl.col(OTHER)).then(pl.col(name)).alias(name) for name in self._cap.by)

    def _too_many(self, groups: pl.DataFrame) -> pl.DataFrame:
        """Of these groups, in the order of their arrival, those that there is no place for; the others are known from here."""
        known = self._known.rows()
        if known.width:
            groups = groups.join(known, on=self._keys, how="anti", nulls_equal=True, maintain_order="left")
        if not groups.height:
            return groups
        rank = pl.int_range(pl.len(), dtype=pl.Int64)
        groups = groups.with_columns((rank.over(self._cap.window) if self._cap.window else rank).alias(_RANK))
        has_place = pl.col(_RANK) + self._taken(known, groups) < self._cap.most
        fits = groups.select(has_place.alias(_KNOWN))[_KNOWN]
        admitted = groups.filter(fits).drop(_RANK)
        if admitted.height:
            self._known.add(admitted, pl.lit(0))
        return groups.filter(~fits).drop(_RANK)

    def _taken(self, known: pl.DataFrame, groups: pl.DataFrame) -> pl.Expr:
        """How many places of its window are taken, for each."""
        window = list(self._cap.window)
        if not known.width:
            return pl.lit(0)
        if not window:
            return pl.lit(known.height)
        counts = known.group_by(window).agg(pl.len().cast(pl.Int64).alias(_KNOWN))
        joined = groups.select(window).join(counts, on=window, how="left", maintain_order="left")
        return pl.lit(joined[_KNOWN].fill_null(0))

    def _stop(self, too_many: pl.DataFrame) -> DataError:
        one = ", ".join(f"{name} {value}" for name, value in zip(self._cap.by, too_many.select(self._cap.by).row(0), strict=True))
        where = " in a window" if self._cap.window else ""
        return DataError(
            f"more than {self._cap.most:,} groups{where}: there is no place for {one}",
            hint="--max-groups sets how many; with --overflow other what is too many shares one row",
        )

    def let_go(self, time: int) -> None:
        """Of windows to which nothing can come any more."""
        if "window_end" in self._cap.window:
            self._known.keep(lambda groups: groups.filter(pl.col("window_end") + self._cap.lateness > time))

    def snapshot(self) -> Mapping[str, pl.DataFrame]:
        rows = self._known.rows()
        return {"known": rows} if rows.width else {}
