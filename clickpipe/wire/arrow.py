"""Arrow IPC streams: bytes <-> frames, whatever the bytes are."""

from __future__ import annotations

import io

import polars as pl

from clickpipe.errors import DataError


def to_arrow(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_ipc_stream(out)
    return out.getvalue()


def from_arrow(data: bytes, what: str, most_rows: int | None = None) -> pl.DataFrame:
    """Raises DataError for bytes that are none. `what`: they should have been; `most_rows`: of more, some are left out."""
    try:
        return pl.read_ipc_stream(io.BytesIO(data), n_rows=most_rows)
    except Exception as error:
        raise DataError(f"{what} is no Arrow stream: {str(error).splitlines()[0]}") from None
    except BaseException as error:  # a panic inside Polars is not an Exception
        if type(error).__name__ != "PanicException":
            raise
        raise DataError(f"{what} is no Arrow stream") from None
