"""How many different values, approximately: distinct(user_id). For estimate, union and merge.

distinct(x, 14) takes 2**14 registers instead of 2**12: twice as exact, four times the memory.
Payload: what stands in a register, with its number: (number << 8) + rank, a u32 each, in order; or where that is shorter the
ranks of all registers, a byte each.
Error: 1.04 / sqrt(2**precision), one standard deviation: 1.6 %. Memory: one row per register met.
Source: HyperLogLog++, see core/registers.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from clickpipe.core.aggregate import SUB_KEY, VALUE
from clickpipe.core.apache_hll import ApacheHll
from clickpipe.core.datasketch_hll import DatasketchHll
from clickpipe.core.flat import GROUP, all_groups, check_rising, in_order, of_arrays, packed, unpacked
from clickpipe.core.refused import refuse
from clickpipe.core.registers import Registers
from clickpipe.core.sketch import PAYLOAD, Sketch

_CODE = "code"


class Distinct(Sketch, Registers):
    number = 1
    forms = {"apache": ApacheHll(), "datasketch": DatasketchHll()}

    def parameter(self) -> tuple[str, float]:
        return "precision", self.precision

    def payloads(self, rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
        groups, rows = in_order(rows, keys)
        met = rows.filter(pl.col("rank").is_not_null()).with_columns(
            (pl.col(SUB_KEY).cast(pl.UInt32) * 256 + pl.col("rank")).alias(_CODE), pl.len().over(GROUP).alias("met")
        )
        is_full = pl.col("met") * 4 >= 2**self.precision
        sparse = packed(met.filter(~is_full), groups.height, [(_CODE, "<u4")])
        return groups.select(*keys, self._dense(met.filter(is_full), sparse).alias(PAYLOAD))

    def _dense(self, met: pl.DataFrame, others: pl.Series) -> pl.Series:
        """The payloads, those of full sketches in their places."""
        import numpy as np

        if not met.height:
            return others
        places = met[GROUP].unique().sort()
        ranks = np.zeros((places.len(), 2**self.precision), np.uint8)
        ranks[places.search_sorted(met[GROUP]).to_numpy(), met[SUB_KEY].to_numpy()] = met["rank"].to_numpy()
        found = all_groups(pl.DataFrame({GROUP: places, _CODE: of_arrays(ranks)}), others.len())[_CODE]
        return found.fill_null(others)

    def unpacked(self, payloads: pl.Series) -> pl.DataFrame:
        import numpy as np

        is_full = payloads.bin.size() == 2**self.precision
        places = pl.Series(np.arange(payloads.len(), dtype=np.uint32))
        owners, codes = unpacked(payloads.zip_with(~is_full, pl.Series([b""])), [(_CODE, "<u4")])
        check_rising(owners, codes[_CODE] >> 8)
        sparse = _rows(owners, codes[_CODE] >> 8, (codes[_CODE] & 255).astype(np.uint8))
        _, flat = unpacked(payloads.filter(is_full), [(_CODE, "u1")])
        ranks = flat[_CODE].reshape(-1, 2**self.precision)
        refuse(places, payloads.bin.size() > 2**self.precision, "it was not written so")
        is_sparse = pl.Series(np.count_nonzero(ranks, axis=1) * 4 < 2**self.precision)
        refuse(places.filter(is_full), is_sparse, "it was not written so")
        of, register = np.nonzero(ranks)
        owners = places.filter(is_full).gather(pl.Series(of.astype(np.uint32)))
        dense = _rows(owners, register.astype(np.uint32), ranks[of, register])
        rows = pl.concat([sparse, dense])
        is_bad = (rows[SUB_KEY] >= 2**self.precision) | (rows["rank"] < 1) | (rows["rank"] > 65 - self.precision)
        refuse(rows[GROUP], is_bad, "no such register")
        return rows

    def estimates(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Shape: GROUP and VALUE, as of all that follow."""
        return Registers.values(self, rows, [GROUP], {"rank": "rank"})

    def lows(self, rows: pl.DataFrame) -> pl.DataFrame:
        return self.estimates(rows).with_columns(Registers.bounds(self, pl.col(VALUE))[0].alias(VALUE))

    def highs(self, rows: pl.DataFrame) -> pl.DataFrame:
        return self.estimates(rows).with_columns(Registers.bounds(self, pl.col(VALUE))[1].alias(VALUE))


def _rows(owners: pl.Series, registers: object, ranks: object) -> pl.DataFrame:
    schema = {GROUP: pl.UInt32, SUB_KEY: pl.UInt32, "rank": pl.UInt8}
    return pl.DataFrame({GROUP: owners, SUB_KEY: registers, "rank": ranks}, schema=schema)
