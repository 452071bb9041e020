"""The one hash of all sketches: MurmurHash3-128, seed 9001, of a value's UTF-8 text.

It is the hash of Apache DataSketches, so that sketches can be exchanged with whoever uses those. 7 and 7.0 are one value,
and so are "7" and 7, as in the keys of JSON. Not for dividing work among processes: a worker that sees only some hashes
would have sketches that are wrong.
Source: Appleby, MurmurHash3_x64_128; org.apache.datasketches.hash.MurmurHash3.
"""

from __future__ import annotations

from functools import partial

import polars as pl

NAME, SEED = "murmur3-128", 9001
_INTEGERS = float(2**63)


def text_of(value: pl.Expr) -> pl.Expr:
    """The text by which values are told apart; null of what is no number: 1.0 / 0.

    It goes by the type that they have here: a column of integers may become one of floats in any batch.
    """
    return value.map_batches(_texts, return_dtype=pl.String, is_elementwise=True)


def _texts(values: pl.Series) -> pl.Series:
    if not values.dtype.is_float():
        return values.cast(pl.String)
    value = pl.col("value")
    is_whole = (value == value.truncate()) & (value.abs() < _INTEGERS)
    text = pl.when(is_whole).then(value.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(value.cast(pl.String))
    return values.to_frame("value").select(pl.when(value.is_finite()).then(text)).to_series()


def hashed(text: pl.Expr) -> pl.Expr:
    """128 bits of a text; null of null."""
    try:
        from polars_hash import NonCryptographicHashingNameSpace as Hashes
    except ImportError:
        return text.map_batches(one_by_one, return_dtype=pl.UInt128, is_elementwise=True)
    return Hashes(text.alias("text")).murmur128(seed=SEED)


def low(hash128: pl.Expr) -> pl.Expr:
    """The lower 64 bits, the first that the hash's authors give."""
    return hash128.cast(pl.UInt64, wrap_numerical=True)


def high(hash128: pl.Expr) -> pl.Expr:
    return (hash128 // pl.lit(2**64, pl.UInt128)).cast(pl.UInt64)


def one_by_one(texts: pl.Series) -> pl.Series:
    """For machines that polars-hash has no wheel for: ten times as slow."""
    import mmh3

    different = texts.unique().drop_nulls()
    hashes = pl.Series([mmh3.hash128(text.encode(), SEED, signed=False) for text in different], dtype=pl.UInt128)
    return texts.replace_strict(different, hashes, default=None, return_dtype=pl.UInt128)


def lowest(hash64: pl.Expr, bits: int) -> pl.Expr:
    """Its lowest bits, as a number of 64."""
    return hash64 & pl.lit(2**bits - 1, pl.UInt64)


def check_of(data: pl.Expr, seed: int) -> pl.Expr:
    """32 bits of bytes, MurmurHash3-32: whether they are what was written."""
    try:
        from polars_hash import NonCryptographicHashingNameSpace as Hashes
    except ImportError:
        return data.map_batches(partial(check_one_by_one, seed=seed), return_dtype=pl.UInt32, is_elementwise=True)
    return Hashes(data.alias("data")).murmur32(seed=seed)


def check_one_by_one(values: pl.Series, seed: int) -> pl.Series:
    """The same without polars-hash."""
    import mmh3

    return pl.Series([None if value is None else mmh3.hash(value, seed, signed=False) for value in values], dtype=pl.UInt32)
