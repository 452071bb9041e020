"""How fast a stream of Arrow frames goes over TCP on this machine: python tests/bench/sockets.py [MILLIONS [zstd]]

One process writes batches that it has in memory, another one reads frames and looks at nothing in them. Prints JSON: millions
of records per second by the wall clock, and the seconds that both were busy, which is what counts on a machine that is busy.
"""

from __future__ import annotations

import json
import os
import sys
import time

RECORDS = 50_000  # in a batch


def read(told: int) -> None:
    import polars as pl

    from clickpipe.wire import link
    from clickpipe.wire.stream import Frame, StreamReader
    from clickpipe.wire.terms import Terms

    inbox = link.reader("tcp://:0", Terms(True))
    os.write(told, str(inbox.address).encode())
    reader = StreamReader(inbox)
    assert reader.line is not None
    frames = [frame for frame in reader.frames(reader.line.columns) if isinstance(frame, Frame)]
    assert all(isinstance(part, pl.DataFrame) for frame in frames for part in frame.parts)
    inbox.close()


def write(address: str, batches: int, *, packs: bool) -> dict[str, float]:
    import polars as pl

    from clickpipe.batch import Batch
    from clickpipe.columns import Columns
    from clickpipe.wire import link
    from clickpipe.wire.frames import StreamLine
    from clickpipe.wire.stream import StreamWriter
    from clickpipe.wire.terms import Terms

    numbers = pl.Series(range(RECORDS))
    frame = pl.DataFrame(
        {
            "ts": 1_700_000_000_000 + numbers,
            "user_id": "u" + (numbers * 7919 % 10_000).cast(pl.String),
            "page": "/p/" + (numbers * 31 % 500).cast(pl.String),
            "ms": numbers * 17 % 3_000,
        }
    )
    columns = Columns({"ts": "int", "user_id": "str", "page": "str", "ms": "int"})
    begun, busy = time.perf_counter(), time.process_time()
    outbox = link.writer(address, Terms(False, packs=packs))
    stream = StreamWriter(outbox, StreamLine(columns), arrow=True)
    for _ in range(batches):
        stream.write(Batch(frame, columns, source="bench"))
    stream.end([])
    seconds, busy = time.perf_counter() - begun, time.process_time() - busy
    return {"millions": batches * RECORDS / seconds / 1e6, "writer": busy}


def main(millions: int, *, packs: bool) -> None:
    hear, told = os.pipe()
    child = os.fork()  # before Polars has threads
    if not child:
        begun = time.process_time()
        read(told)
        os.write(told, f" {time.process_time() - begun}".encode())
        os._exit(0)
    said = write(os.read(hear, 100).decode(), millions * 1_000_000 // RECORDS, packs=packs)
    os.waitpid(child, 0)
    print(json.dumps(said | {"reader": float(os.read(hear, 100))}))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10, packs="zstd" in sys.argv)
