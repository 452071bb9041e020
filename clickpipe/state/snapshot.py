r"""The state of one step, as a file.

    {"clickpipe":"state","v":1,"step":"aggregate","tables":{"groups":812,"fired":160}}\n
    … 812 bytes of Arrow IPC stream … 160 bytes of Arrow IPC stream

The header is a line of JSON; it names the tables in order with their lengths in bytes. For a look:
`head -1 FILE`, or `clickpipe checkpoint show`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import orjson
import polars as pl

from clickpipe.errors import StateError

VERSION = 1


def to_bytes(step: str, tables: Mapping[str, pl.DataFrame]) -> bytes:
    bodies = {name: _written(frame) for name, frame in tables.items()}
    lengths = {name: len(body) for name, body in bodies.items()}
    header = {"clickpipe": "state", "v": VERSION, "step": step, "tables": lengths}
    return b"".join([orjson.dumps(header), b"\n", *bodies.values()])


def from_bytes(data: bytes) -> dict[str, pl.DataFrame]:
    """Raises StateError for a version that this program does not know. The caller has compared the hash."""
    line, _, rest = data.partition(b"\n")
    header = orjson.loads(line)
    if header["v"] != VERSION:
        raise StateError(f"a state of format version {header['v']}; this clickpipe reads version {VERSION}")
    tables, at = {}, 0
    for name, length in header["tables"].items():
        tables[name] = pl.read_ipc_stream(io.BytesIO(rest[at : at + length]))
        at += length
    return tables


def _written(frame: pl.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.write_ipc_stream(out)
    return out.getvalue()
