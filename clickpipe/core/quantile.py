"""Quantiles, exact or from a sketch: values by rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, ClassVar

import polars as pl

from clickpipe.columns import NUMBERS
from clickpipe.core.aggregate import VALUE
from clickpipe.core.ranks import TOTAL, at_ranks
from clickpipe.core.values import Values
from clickpipe.errors import PlanError


class Quantile(Values):
    """The least value that is not below a share `q` of all. `q`: from 0 to 1, or a list of such; then the value is a list.

    Source: SQL:2003, PERCENTILE_DISC.
    """

    takes: ClassVar[tuple[str, ...]] = NUMBERS
    sketched: ClassVar[str] = "quantiles"

    def __init__(self, kind: str, q: Any) -> None:
        super().__init__(kind)
        self.is_list = isinstance(q, list)
        self.fractions = [fraction(one) for one in (q if self.is_list else [q])]
        if not self.fractions:
            raise PlanError("no quantile is asked for", hint="as in [0.5, 0.99]")

    def result(self) -> str:
        return "json" if self.is_list else self.value_kind()

    def value_kind(self) -> str:
        return "float"

    def values(self, rows: pl.DataFrame, keys: Sequence[str], piece: Mapping[str, str]) -> pl.DataFrame:
        asked = [self.ranks(q, pl.col(TOTAL)) for q in self.fractions]
        found = at_ranks(rows, keys, piece["n"], [rank for some in asked for rank in some])
        columns = iter(range(found.width))
        values = [self.at(q, *(pl.col(str(next(columns))) for _ in some)) for q, some in zip(self.fractions, asked, strict=True)]
        value = pl.when(pl.col(TOTAL).is_not_null()).then(pl.concat_list(values)) if self.is_list else values[0]
        return found.select(*keys, value.alias(VALUE))

    def ranks(self, q: float, n: pl.Expr) -> list[pl.Expr]:
        """Which ranks, from 0, are needed of n values."""
        # Of q as it is meant: 0.55 of 100 values are 55, though as doubles 55.00000000000001.
        share = Fraction(str(q)).limit_denominator(10**9)
        not_below = (n.cast(pl.Int128) * share.numerator + (share.denominator - 1)) // share.denominator
        return [not_below.clip(lower_bound=1) - 1]

    def at(self, q: float, *found: pl.Expr) -> pl.Expr:
        """The quantile, of what stands at these ranks."""
        return found[0]


class Between(Quantile):
    """Between two values, if it must be. Source: SQL:2003, PERCENTILE_CONT."""

    def ranks(self, q: float, n: pl.Expr) -> list[pl.Expr]:
        return [self._place(q).floor().cast(pl.Int64), self._place(q).ceil().cast(pl.Int64)]

    def at(self, q: float, *found: pl.Expr) -> pl.Expr:
        low, high = (one.cast(pl.Float64) for one in found)
        share, apart = self._place(q) - self._place(q).floor(), high - low
        far = low * (1 - share) + high * share  # they may be further apart than any double
        return pl.when(apart.is_infinite()).then(far).otherwise(low + apart * share)

    def _place(self, q: float) -> pl.Expr:
        return (pl.col(TOTAL) - 1) * q


def fraction(q: Any) -> float:
    """Raises PlanError for what is not from 0 to 1."""
    if isinstance(q, bool) or not isinstance(q, int | float) or not 0 <= q <= 1:
        raise PlanError(f"a quantile is from 0 to 1, and not {q}", hint="the 99th percentile is 0.99")
    return float(q)
