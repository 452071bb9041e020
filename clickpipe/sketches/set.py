"""A sample of a set, for unions, intersections and differences: set(user_id). Visitors of A and B, retention.

    the k smallest of the values' hashes (63 bits), and theta, below which they are all there are: n / (theta / 2**63) values

set(x, 16384) keeps 16,384 hashes instead of 4,096: twice as exact, four times the memory.
Payload: a compact theta sketch of Apache DataSketches, as it is (serial version 3, ordered).
Error: 1 / sqrt(k - 1), one standard deviation, of a set: 1.6 %; of an intersection that times sqrt(union / intersection). Exact
up to k values. Its bounds hold the truth in 95 of 100 cases, and in no fewer where next to no hash is left. Memory: k rows.
Source: Dasgupta et al. 2016, "A framework for estimating stream expression cardinalities"; Apache's CompactThetaSketch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from clickpipe.core import hashing
from clickpipe.core.aggregate import SUB_KEY, VALUE, Z95, Exprs
from clickpipe.core.apache_theta import ALL, SEED_HASH, ApacheTheta
from clickpipe.core.calls import is_whole
from clickpipe.core.flat import GROUP, all_groups, check_rising, in_order, little_endian, packed, unpacked
from clickpipe.core.refused import refuse
from clickpipe.core.sketch import PAYLOAD, Sketch
from clickpipe.errors import PlanError

K, FEWEST, MOST = 4_096, 16, 1 << 20
_THETA, _N = "theta", "n"
_LARGEST = math.nextafter(2.0**63, 0)  # what theta says may be beyond all integers


class Set(Sketch):
    """Shape of the rows: a hash each, and one without a hash that has theta, if that is not all. In the order of hashes."""

    keeps = "hashes of {x}, a fixed number at most"
    number = 2
    forms = {"apache": ApacheTheta()}

    def __init__(self, kind: str, k: Any = K) -> None:
        super().__init__(kind)
        if not is_whole(k, FEWEST, MOST):
            raise PlanError(f"a set keeps from {FEWEST} to {MOST:,} hashes, and not {k}")
        self.k = k

    @classmethod
    def fitting(cls, rows: pl.DataFrame) -> Sketch:
        return cls("str", max(K, 1 << (rows[SUB_KEY].count() - 1).bit_length()))

    def parameter(self) -> tuple[str, float]:
        return "k", self.k

    def shares(self) -> Any:
        return ("set", self.k)

    def prepared(self, value: pl.Expr) -> pl.Expr:
        hash_ = hashing.low(hashing.hashed(hashing.text_of(value))) // pl.lit(2, pl.UInt64)
        return pl.when(hash_ > 0).then(hash_)

    def sub_key(self, value: pl.Expr, order: pl.Expr) -> pl.Expr:
        return value

    def partial(self, value: pl.Expr, order: pl.Expr) -> Exprs:
        return {_THETA: pl.lit(None, pl.UInt64).first()}

    def merge(self, piece: Exprs) -> Exprs:
        return {_THETA: piece[_THETA].min()}

    def trimmed(self, rows: pl.DataFrame, keys: Sequence[str], piece: Mapping[str, str]) -> pl.DataFrame:
        theta, hash_ = pl.col(piece[_THETA]), pl.col(SUB_KEY)
        if rows.height <= self.k and not rows[piece[_THETA]].count():
            return rows
        by = list(keys) or [GROUP]
        rows = rows if keys else rows.with_columns(pl.lit(0).alias(GROUP))
        limits = rows.group_by(by).agg(
            theta.min().alias("\0theta"),
            pl.when(hash_.count() > self.k).then(hash_.bottom_k(self.k + 1).max()).alias("\0kth"),
        )
        limits = limits.select(*by, pl.min_horizontal("\0theta", "\0kth").alias("\0theta")).filter(
            pl.col("\0theta").is_not_null()
        )
        rows = rows.join(limits, on=by, how="left", nulls_equal=True)
        kept = rows.filter(pl.col("\0theta").is_null() | (hash_ < pl.col("\0theta"))).drop("\0theta")
        nothing = pl.lit(None, pl.UInt64).alias(SUB_KEY)
        said = limits.select(*by, nothing, pl.col("\0theta").alias(piece[_THETA])).select(kept.columns)
        return pl.concat([kept, said]).drop([] if keys else [GROUP])

    def payloads(self, rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        groups, rows = in_order(rows, keys)
        hashes = rows.filter(pl.col(SUB_KEY).is_not_null())
        entries = packed(hashes.rename({SUB_KEY: "hash"}), groups.height, [("hash", "<u8")])
        facts = all_groups(rows.group_by(GROUP).agg(pl.col(_THETA).min(), pl.col(SUB_KEY).count().alias(_N)), groups.height)
        return groups.select(*keys, facts.with_columns(entries.alias("entries")).select(_image()).to_series().alias(PAYLOAD))

    def unpacked(self, payloads: pl.Series) -> pl.DataFrame:
        read = pl.DataFrame({PAYLOAD: payloads}).with_row_index(GROUP).with_columns(_parts())
        self._check(read)
        owners, hashes = unpacked(read["entries"], [("hash", "<u8")])
        check_rising(owners, hashes["hash"])
        schema = {GROUP: pl.UInt32, SUB_KEY: pl.UInt64, _THETA: pl.UInt64}
        entries = pl.DataFrame({GROUP: owners, SUB_KEY: hashes["hash"], _THETA: None}, schema=schema)
        is_bad = (entries[SUB_KEY] == 0) | (entries[SUB_KEY] >= read[_THETA].fill_null(ALL + 1).gather(owners))
        refuse(owners, is_bad, "a hash that is none, or that theta excludes")
        said = read.filter(pl.col(_THETA).is_not_null()).select(GROUP, pl.lit(None, pl.UInt64).alias(SUB_KEY), _THETA)
        return pl.concat([entries, said])

    def _check(self, read: pl.DataFrame) -> None:
        """Raises Damaged for what is not written as a set is."""
        preamble = pl.col(PAYLOAD).bin.head(pl.col("longs") * 8)
        is_one = (
            (pl.col(_N) <= self.k)
            & (pl.col("entries").bin.size() == pl.col(_N) * 8)
            & pl.col(_THETA).is_between(1, ALL - 1).fill_null(value=True)
            & (preamble == _preamble().cast(pl.Binary))
        )
        is_other = ~read.select(is_one.fill_null(value=False)).to_series()
        refuse(read[GROUP], is_other, "no compact theta sketch of serial version 3 with these facts")

    def estimates(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Shape: GROUP and VALUE, as of all that follow."""
        return _told(rows, (_found() / _share()).round())

    def lows(self, rows: pl.DataFrame) -> pl.DataFrame:
        return _told(rows, pl.max_horizontal(_bound(-1).floor(), _found()))

    def highs(self, rows: pl.DataFrame) -> pl.DataFrame:
        return _told(rows, _bound(1).ceil())

    def intersection(self, first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
        """Rows of what both have seen."""
        return self._below(first, second, first.join(_hashes(second), on=[GROUP, SUB_KEY], how="semi"))

    def difference(self, first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
        """Rows of what the first has seen and the second has not."""
        return self._below(first, second, _hashes(first).join(_hashes(second), on=[GROUP, SUB_KEY], how="anti"))

    def similarity(self, first: pl.DataFrame, second: pl.DataFrame) -> pl.DataFrame:
        """What both have, of what one of them has, below the lesser theta."""
        one = _hashes(self._below(first, second, pl.concat([first, second.select(first.columns)])))
        on = [GROUP, SUB_KEY]
        both = one.join(_hashes(first), on=on, how="semi").join(_hashes(second), on=on, how="semi")
        counts = [rows.group_by(GROUP).agg(pl.len().alias(name)) for name, rows in (("one", one), ("both", both))]
        share = pl.col("both").fill_null(0) / pl.col("one")
        return counts[0].join(counts[1], on=GROUP, how="left").select(GROUP, share.alias(VALUE))

    def _below(self, first: pl.DataFrame, second: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
        """Those of the rows that both sets would have if they were there: below the lesser theta."""
        limits = (
            pl.concat([first, second]).filter(pl.col(_THETA).is_not_null()).with_columns(pl.lit(None, pl.UInt64).alias(SUB_KEY))
        )
        return self.merged(pl.concat([rows, limits.select(rows.columns)]))


# Each value is among the hashes with the probability theta: how many are found, and that share.
def _found() -> pl.Expr:
    return pl.col(SUB_KEY).count().cast(pl.Float64)


def _share() -> pl.Expr:
    return pl.col(_THETA).min().fill_null(ALL).cast(pl.Float64) / ALL


def _bound(side: int) -> pl.Expr:
    """How many values there are at the least (-1) or most (1), where so many are found: those of which as few, or as many, would
    be 1.96 deviations off, corrected by half a value for what is counted in whole ones.

    Source: Wilson 1927; Apache's BinomialBoundsN, contClassicLB and UB.
    """
    found, share = _found(), _share()
    near = pl.when(share < 1).then((found + side / 2).clip(lower_bound=0)).otherwise(found) / share
    variance = Z95**2 * (1 - share) / share
    return near + variance / 2 + side * (variance * (variance / 4 + near)).sqrt()


def _told(rows: pl.DataFrame, value: pl.Expr) -> pl.DataFrame:
    return rows.group_by(GROUP).agg(value.clip(upper_bound=_LARGEST).cast(pl.Int64).alias(VALUE))


def _hashes(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(pl.col(SUB_KEY).is_not_null())


def _image() -> pl.Expr:
    """Apache's bytes of a set."""
    return pl.concat_list(_preamble(), pl.col("entries").cast(pl.List(pl.UInt8))).cast(pl.Binary)


def _preamble() -> pl.Expr:
    """What stands before the hashes, as a list of bytes: 8 of nothing or one value, else 16, or 24 with theta."""
    has_all = pl.col(_THETA).is_null()
    n = pl.col(_N).fill_null(0)
    is_none, is_one = has_all & (n == 0), has_all & (n == 1)
    longs = pl.when(is_none | is_one).then(1).when(has_all).then(2).otherwise(3)
    flags = pl.when(is_none).then(0b11110).otherwise(0b11010)
    head = [longs, pl.lit(3), pl.lit(3), pl.lit(0), pl.lit(0), flags, pl.lit(SEED_HASH & 255), pl.lit(SEED_HASH >> 8)]
    nothing = pl.lit([], pl.List(pl.UInt8))
    return pl.concat_list(
        pl.concat_list(*(byte.cast(pl.UInt8) for byte in head)),
        pl.when(longs > 1).then(little_endian(n, 8)).otherwise(nothing),  # the number, in 4 bytes, and 4 of nothing
        pl.when(longs > 2).then(little_endian(pl.col(_THETA).fill_null(0), 8)).otherwise(nothing),
    )


def _parts() -> list[pl.Expr]:
    """Of an image: `longs`, `n`, theta and `entries`; null where it is too short."""
    longs = _number(0, 1, pl.UInt8).cast(pl.UInt32)
    has_one = (_number(5, 1, pl.UInt8) & 4 == 0).cast(pl.UInt32)
    return [
        longs.alias("longs"),
        pl.when(longs == 1).then(has_one).otherwise(_number(8, 4, pl.UInt32)).cast(pl.Int64).alias(_N),
        pl.when(longs == 3).then(_number(16, 8, pl.UInt64)).alias(_THETA),
        pl.col(PAYLOAD).bin.slice(longs * 8).alias("entries"),
    ]


def _number(begin: int, size: int, type_: Any) -> pl.Expr:
    return pl.col(PAYLOAD).bin.slice(begin, size).bin.reinterpret(dtype=type_, endianness="little")
