"""Sketches as values: bytes that say what they are, so that they can be merged for ever.

     0   "CPS"
     3   version       u8    1
     4   kind          u8    distinct 1, set 2, quantiles 3, top_k 4, frequency 5, similarity 6, sample 7
     5   hash          u8    1: MurmurHash3-128
     6   seed          u16   9001
     8   parameter     f64   what the kind has one of: precision, k, accuracy
    16   check         u32   MurmurHash3-32 of the payload, with that of the bytes 0 to 15 for its seed (theirs is 9001)
    20   payload             rows, as the kind writes them: clickpipe/sketches/

Little endian. In records a sketch is text, these bytes in base64; Arrow frames have the bytes. clickpipe-sketch(5) has examples.

What is done to sketches is done to the rows of all of them at once: values -> rows -> group_by -> values. No loop over values.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import polars as pl

from clickpipe.core import hashing
from clickpipe.core.aggregate import SUB_KEY, VALUE, Aggregate
from clickpipe.core.catalog import Catalog
from clickpipe.core.flat import GROUP, little_endian
from clickpipe.core.forms import Form
from clickpipe.core.refused import Damaged, Refusals
from clickpipe.core.summary import grouped
from clickpipe.errors import DataError, PlanError

SKETCHES = Catalog("clickpipe.sketches", "sketch", "_")
PAYLOAD = "\0payload"
_HEAD = struct.Struct("<3sBBBHd")
_MAGIC, _VERSION, _HASH = b"CPS", 1, 1
_BEGIN = _HEAD.size + 4


class Sketch(Aggregate):
    """An aggregate whose value is its pieces. A kind has a file in clickpipe/sketches/."""

    number: ClassVar[int]
    rolled_up: ClassVar[str] = "merge"
    forms: ClassVar[Mapping[str, Form]] = {}  # of other libraries, by the names that export takes

    def result(self) -> str:
        return "sketch"

    @classmethod
    def name(cls) -> str:
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def reopened(cls, parameter: float) -> Sketch:
        """That of a value. Raises PlanError for a parameter that there cannot be."""
        return cls("str", int(parameter))  # type: ignore[call-arg]  # each kind takes its parameter there

    @classmethod
    def fitting(cls, rows: pl.DataFrame) -> Sketch:
        """That of a value which does not say its parameter, and has these rows."""
        raise NotImplementedError

    def parameter(self) -> tuple[str, float]:
        """What it is called, and what it is."""
        raise NotImplementedError

    def __str__(self) -> str:
        word, value = self.parameter()
        return f"{self.name()} with {word} {value}"

    def values(self, rows: pl.DataFrame, keys: Sequence[str], piece: Mapping[str, str]) -> pl.DataFrame:
        rows = rows.rename({column: name for name, column in piece.items()})
        return self.payloads(rows, keys).select(*keys, self.sealed(pl.col(PAYLOAD)).alias(VALUE))

    def payloads(self, rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        """Merged rows of `keys`, SUB_KEY and the pieces by their names -> `keys` and PAYLOAD, bytes."""
        raise NotImplementedError

    def unpacked(self, payloads: pl.Series) -> pl.DataFrame:
        """The rows of payloads: GROUP, the place of the payload, SUB_KEY and the pieces by their names. Raises Damaged."""
        raise NotImplementedError

    def head(self) -> bytes:
        return _HEAD.pack(_MAGIC, _VERSION, self.number, _HASH, hashing.SEED, self.parameter()[1])

    def sealed(self, payload: pl.Expr) -> pl.Expr:
        """Payloads -> values, as text."""
        check = hashing.check_of(payload, _seed_of(self.head()))
        return (
            pl.concat_list(_bytes(pl.lit(self.head())), little_endian(check, 4), _bytes(payload))
            .cast(pl.Binary)
            .bin.encode("base64")
        )

    def merged(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows of GROUP, SUB_KEY and pieces -> one for each of GROUP and SUB_KEY, and as many as are kept."""
        pieces = [name for name in rows.columns if name not in (GROUP, SUB_KEY)]
        merged = self.merge({name: pl.col(name) for name in pieces})
        rows = grouped(rows, [GROUP, SUB_KEY], [expr.alias(name) for name, expr in merged.items()])
        return self.trimmed(rows, [GROUP], {name: name for name in pieces})


@dataclass(frozen=True)
class Opened:
    """Values of one kind and parameter. `at`: their places among all that were opened; GROUP of their rows is that too."""

    sketch: Sketch
    at: pl.Series
    payloads: pl.Series
    rows: pl.DataFrame


@cache
def kinds() -> Mapping[int, type[Sketch]]:
    """By the number that their values have."""
    found = [SKETCHES.find(name, Sketch) for name in SKETCHES.names()]
    return {kind.number: kind for kind in found}


def opened(texts: pl.Series) -> list[Opened]:
    """Values as text, nulls among them -> what they are, by kind and parameter. Raises Refused if some are no sketches."""
    refusals = Refusals(texts.len())
    frame = pl.DataFrame({"text": texts}).with_row_index("at").drop_nulls("text")
    frame = frame.with_columns(pl.col("text").str.decode("base64", strict=False).alias("bytes"))
    head = pl.col("bytes").bin.head(_HEAD.size)
    is_one = (pl.col("bytes").bin.size() >= _BEGIN) & pl.col("bytes").bin.starts_with(_MAGIC)
    frame = frame.with_columns(pl.when(is_one).then(head).alias("head"))
    others = frame.filter(pl.col("head").is_null())
    refusals.add(others["at"], others.select(pl.format("{} is no sketch", _shown())).to_series())
    frame = frame.drop_nulls("head").select(
        "at",
        "text",
        "head",
        pl.col("bytes").bin.slice(_BEGIN).alias(PAYLOAD),
        pl.col("bytes").bin.slice(_HEAD.size, 4).bin.reinterpret(dtype=pl.UInt32, endianness="little").alias("check"),
        hashing.check_of(pl.col("head"), hashing.SEED).alias("seed"),
    )
    found = [_opened(some, refusals) for some in frame.partition_by("head", maintain_order=True)]
    refusals.check()
    return [part for part in found if part]


def _opened(frame: pl.DataFrame, refusals: Refusals) -> Opened | None:
    """Those of one head that are whole."""
    try:
        sketch = _sketch(frame["head"][0])
    except DataError as error:
        refusals.add(frame["at"], error)
        return None
    is_whole = frame["check"] == frame.select(hashing.check_of(pl.col(PAYLOAD), frame["seed"][0])).to_series()
    if not is_whole.all():
        changed, frame = frame.filter(~is_whole), frame.filter(is_whole)
        refusals.add(changed["at"], changed.select(pl.format("a sketch is damaged: {}", _shown())).to_series())
    return _unpacked(sketch, frame, refusals)


def _unpacked(sketch: Sketch, frame: pl.DataFrame, refusals: Refusals) -> Opened:
    """Those that their kind takes. Each turn finds all that one check has against them."""
    while True:
        try:
            rows = sketch.unpacked(frame[PAYLOAD])
        except Damaged as error:
            refusals.add(frame["at"].gather(error.places), error)
            frame = frame.with_row_index(GROUP).filter(~pl.col(GROUP).is_in(error.places.implode())).drop(GROUP)
        else:
            rows = rows.with_columns(frame["at"].gather(rows[GROUP]).alias(GROUP))
            return Opened(sketch, frame["at"], frame[PAYLOAD], rows)


def _sketch(head: bytes) -> Sketch:
    _, version, kind, hash_, seed, parameter = _HEAD.unpack(head)
    if version != _VERSION:
        raise DataError(f"the sketch is of format version {version}; this clickpipe reads version {_VERSION}")
    if (hash_, seed) != (_HASH, hashing.SEED):
        ours = f"{_HASH} ({hashing.NAME}), seed {hashing.SEED}"
        raise DataError(f"the sketch is of hash {hash_}, seed {seed}; this clickpipe knows hash {ours}")
    if kind not in kinds():
        raise DataError(f"the sketch is of kind {kind}, which this clickpipe does not know")
    try:
        sketch = kinds()[kind].reopened(parameter)
    except (PlanError, ValueError, OverflowError) as error:
        raise DataError(f"a sketch is damaged: {error}") from None
    if sketch.head() != head:  # a precision of 12.5
        raise DataError(f"a sketch is damaged: {sketch} was not written so")
    return sketch


def _seed_of(head: bytes) -> int:
    return int(pl.DataFrame({"head": [head]}).select(hashing.check_of(pl.col("head"), hashing.SEED)).item())


def _bytes(binary: pl.Expr) -> pl.Expr:
    return binary.cast(pl.List(pl.UInt8))


def _shown() -> pl.Expr:
    """The beginning of a text, in quotes."""
    text = pl.col("text")
    return pl.format("'{}{}'", text.str.head(24), pl.when(text.str.len_chars() > 24).then(pl.lit("…")).otherwise(pl.lit("")))
