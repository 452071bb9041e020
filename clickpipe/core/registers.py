"""Distinct values, approximately: HyperLogLog, with its registers as rows of (group, register, rank).

    hash of the value   low half: which of m = 2**precision registers     high half: rank = leading zeros + 1

Merging takes the greatest rank of each register. The registers are those that Apache DataSketches keeps (HLL_8); a
`datasketch.HyperLogLogPlusPlus` has the same if its hash function gives the low half's lowest bits below the high half's.

The estimate needs neither tables nor thresholds: it holds from 0 to 2**60 values.
Memory: one row per register that was met: few for small groups, 2**precision at most.
Error: 1.04 / sqrt(2**precision), one standard deviation; less for small groups.
Source: Flajolet et al. 2007, "HyperLogLog"; 64 bits as in Heule et al. 2013, "HyperLogLog in Practice"; the estimate from
Ertl 2017, "New cardinality estimation algorithms for HyperLogLog sketches", algorithm 6.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from clickpipe.core import hashing
from clickpipe.core.aggregate import SUB_KEY, VALUE, Z95, Aggregate, Exprs
from clickpipe.core.calls import is_whole
from clickpipe.errors import DataError, PlanError

if TYPE_CHECKING:
    import numpy as np

PRECISION = 12
FEWEST, MOST = 4, 18
_ALPHA = 1 / (2 * math.log(2))


class Registers(Aggregate):
    keeps = "registers of {x}, a fixed number at most"

    def __init__(self, kind: str, precision: Any = PRECISION) -> None:
        super().__init__(kind)
        if not is_whole(precision, FEWEST, MOST):
            raise PlanError(f"the precision is from {FEWEST} to {MOST}, and not {precision}")
        self.precision = precision

    def result(self) -> str:
        return "int"

    def shares(self) -> Hashable:
        return ("registers", self.precision)

    def prepared(self, value: pl.Expr) -> pl.Expr:
        hashed = hashing.hashed(hashing.text_of(value))
        above = pl.lit(2**64 - 2**self.precision, pl.UInt64)
        return (hashing.high(hashed) & above) | hashing.lowest(hashing.low(hashed), self.precision)

    def sub_key(self, value: pl.Expr, order: pl.Expr) -> pl.Expr:
        return hashing.lowest(value, self.precision).cast(pl.UInt32)

    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        return {"rank": self.alone(value, order)["rank"].max()}

    def alone(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        # The lowest bits are the register's number: the one above them makes an end to the zeros.
        rank = (value | pl.lit(2 ** (self.precision - 1), pl.UInt64)).bitwise_leading_zeros() + 1
        return {"rank": pl.when(value.is_not_null()).then(rank).cast(pl.UInt8)}

    def merge(self, piece: Exprs) -> Exprs:
        return {"rank": piece["rank"].max()}

    def values(self, rows: pl.DataFrame, keys: Sequence[str], piece: Mapping[str, str]) -> pl.DataFrame:
        rank, last = pl.col(piece["rank"]), 65 - self.precision
        sums = [
            rank.count().cast(pl.Float64).alias("met"),
            pl.lit(2.0).pow(-rank.filter(rank < last).cast(pl.Int32)).sum().alias("sum"),
            (rank == last).sum().cast(pl.Float64).alias("full"),
        ]
        found = rows.group_by(keys).agg(sums) if keys else rows.select(sums)
        return found.select(*keys, self._estimates(found["met"], found["sum"], found["full"]).alias(VALUE))

    def _estimates(self, met: pl.Series, powers: pl.Series, full: pl.Series) -> pl.Series:
        m = float(2**self.precision)
        indicator = powers + m * _tau(1 - full / m) * 2.0 ** (self.precision - 64) + m * _sigma(1 - met / m)
        return (_ALPHA * m * m / indicator).round().clip(upper_bound=2.0**62).cast(pl.Int64)  # all that no hash has is infinite

    def bounds(self, estimate: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
        off = Z95 * 1.04 / math.sqrt(2**self.precision) * estimate
        return (estimate - off).round().cast(pl.Int64), (estimate + off).round().cast(pl.Int64)


def _sigma(x: pl.Series) -> pl.Series:
    """x + x² + 2 x⁴ + 4 x⁸ …: what registers that nothing has met tell; infinite where x is 1."""
    total, weight, power = x, 1.0, x
    for _ in range(MOST + 8):  # x is 1, or at most 1 - 1/m: x to the 2**26 is nothing then
        power = power * power
        total = total + power * weight
        weight *= 2
    return total.set(x >= 1, math.inf)


def _tau(x: pl.Series) -> pl.Series:
    """What registers that are full tell; 0 where x is 1."""
    if (x == 1).all():
        return x * 0.0
    total, weight, power = 1 - x, 1.0, x
    for _ in range(64):
        power = power.sqrt()
        weight *= 0.5
        total = total - (1 - power) * (1 - power) * weight
    return (total / 3).set((x == 0) | (x == 1), 0.0)


def dense(rows: pl.DataFrame, precision: int) -> np.ndarray[Any, Any]:
    """Rows of one sketch -> the ranks of all its registers."""
    import numpy as np

    ranks = np.zeros(2**precision, np.uint8)
    ranks[rows[SUB_KEY].to_numpy()] = rows["rank"].to_numpy()
    return ranks


def sparse(registers: Any, ranks: Any, precision: int) -> pl.DataFrame:
    """Registers, which may come several times, and their ranks, 0 where nothing was met -> rows. Raises DataError."""
    met = pl.DataFrame({SUB_KEY: registers, "rank": ranks}, schema={SUB_KEY: pl.UInt32, "rank": pl.UInt8}).filter(
        pl.col("rank") > 0
    )
    if (met["rank"] > 64).any():
        raise DataError("a damaged sketch: a register that no hash can have set")
    # Libraries that take the rank of more bits than are left to it go beyond the last of ours.
    return met.group_by(SUB_KEY).agg(pl.col("rank").max().clip(upper_bound=65 - precision))
