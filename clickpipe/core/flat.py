"""Numbers of groups <-> bytes of groups, all at once: records of one width, one behind the other.

group 0: (3, 1) (7, 2)     group 1: (5, 9)     <->     b"…" of two records, b"…" of one
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from clickpipe.core.aggregate import SUB_KEY
from clickpipe.core.keys import number
from clickpipe.core.refused import refuse

if TYPE_CHECKING:
    import numpy as np

GROUP = "\0place"
_BYTE, _KEY = "\0byte", "\0key"


def packed(rows: pl.DataFrame, groups: int, dtype: Any) -> pl.Series:
    """Rows in the order of GROUP -> the bytes of each of so many groups. The fields of `dtype` are columns of the rows."""
    import numpy as np

    records = np.empty(rows.height, dtype)
    for name in records.dtype.names or ():
        records[name] = rows[name].to_numpy()
    owners = np.repeat(rows[GROUP].to_numpy(), records.dtype.itemsize)
    flat = pl.DataFrame({GROUP: owners, _BYTE: records.view(np.uint8)}, schema={GROUP: pl.UInt32, _BYTE: pl.UInt8})
    lists = flat.group_by(pl.col(GROUP).set_sorted(), maintain_order=True).agg(_BYTE)
    return all_groups(lists, groups)[_BYTE].fill_null([]).cast(pl.Binary)


def unpacked(payloads: pl.Series, dtype: Any) -> tuple[pl.Series, np.ndarray[Any, Any]]:
    """The bytes of groups -> of each record its group, and the records. Raises Damaged."""
    import numpy as np

    sizes, width = payloads.bin.size(), np.dtype(dtype).itemsize
    places = pl.int_range(payloads.len(), dtype=pl.UInt32, eager=True)
    refuse(places, sizes % width != 0, "it ends in the middle")
    flat = payloads.filter(sizes > 0).cast(pl.List(pl.UInt8)).explode(empty_as_null=False).to_numpy()
    owners = np.repeat(places.to_numpy(), (sizes // width).to_numpy())
    return pl.Series(owners), np.ascontiguousarray(flat).view(dtype)


def check_rising(owners: pl.Series, numbers: np.ndarray[Any, Any]) -> None:
    """Raises Damaged unless the numbers of each group rise: none comes twice, and a sketch is one value."""
    of = owners.to_numpy()
    falls = (numbers[1:] <= numbers[:-1]) & (of[1:] == of[:-1])
    refuse(owners[1:], pl.Series(falls), "it is not in order")


def of_arrays(arrays: np.ndarray[Any, Any]) -> pl.Series:
    """A row of numbers for each -> their bytes."""
    import numpy as np

    if not len(arrays):
        return pl.Series(dtype=pl.Binary)
    rows = np.ascontiguousarray(arrays).view(np.uint8)
    return pl.Series(rows, dtype=pl.Array(pl.UInt8, rows.shape[1])).arr.to_list().cast(pl.Binary)


def little_endian(number: pl.Expr, size: int) -> pl.Expr:
    """A number -> its bytes, as a list."""
    number = number.cast(pl.UInt64)
    return pl.concat_list(*((number // (1 << 8 * place) & 255).cast(pl.UInt8) for place in range(size)))


def all_groups(found: pl.DataFrame, groups: int) -> pl.DataFrame:
    """A row for each of so many groups, in their order; nulls where none was found."""
    numbers = pl.DataFrame({GROUP: range(groups)}, schema={GROUP: pl.UInt32})
    return numbers.join(found, on=GROUP, how="left", maintain_order="left")


def numbered(rows: pl.DataFrame, keys: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The groups that there are, with their GROUP, and the rows with theirs. Without keys there is one, also of no rows."""
    if not keys:
        one = pl.DataFrame({GROUP: [0]}, schema={GROUP: pl.UInt32})
        return one, rows.with_columns(pl.lit(0, pl.UInt32).alias(GROUP))
    key = number(keys).alias(_KEY)
    groups = rows.group_by(key, maintain_order=True).agg(pl.col(keys).first()).with_row_index(GROUP)
    found = rows.with_columns(key).join(groups.select(_KEY, GROUP), on=_KEY, maintain_order="left").drop(_KEY)
    return groups.drop(_KEY), found


def in_order(rows: pl.DataFrame, keys: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The same, with the rows in the order of GROUP and SUB_KEY."""
    groups, rows = numbered(rows, keys)
    return groups, rows.sort(GROUP, SUB_KEY)
