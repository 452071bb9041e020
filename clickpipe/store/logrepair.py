"""A log that is damaged made readable again: cut where it is damaged, and the rest put aside; nothing is deleted.

A repair that takes records away gives the log another id before it does: whoever had read them is told, and who had not goes on
(logmeta.py).
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from clickpipe.errors import StateError
from clickpipe.faults import kill_point
from clickpipe.state.files import cut, hold_patiently, make_folder, remove, rename, sync_way, write_whole
from clickpipe.store.logends import bases, open_segment, segment
from clickpipe.store.logmeta import Meta, meta_of, path_of, write_meta
from clickpipe.store.logs import Log
from clickpipe.store.logwriter import locked
from clickpipe.store.segments import HEAD, Unpacker, heads, index_of


@dataclass
class _Mend:
    """Of a partition: which segments go aside, from which byte on, and what there is then: from record `start` to byte `text`."""

    is_gone: bool = False
    aside: list[tuple[str, int]] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    start: int = 0
    text: int = 0


def repair(name: str) -> list[str]:
    """What was done, in words. Raises OutsideError while the log is written."""
    path = path_of(name)
    with care(path):
        lock = locked(path, name)
        try:
            return _repaired(name, path)
        finally:
            os.close(lock)


@contextmanager
def care(path: str) -> Iterator[None]:
    """One at a time writes log.json anew, or takes segments away."""
    lock = hold_patiently(os.path.join(path, "care.lock"))
    try:
        yield
    finally:
        os.close(lock)


def _repaired(name: str, path: str) -> list[str]:
    try:
        meta = meta_of(path)
    except StateError:
        meta = None
    is_new, meta = meta is None, meta or _guessed(path)
    partitions = [os.path.join(path, str(number)) for number in range(meta.partitions)]
    mends = [_planned(partition, start) for partition, start in zip(partitions, meta.starts, strict=True)]
    starts = [mend.start for mend in mends]
    if any(mend.is_gone or mend.aside for mend in mends) or starts != list(meta.starts):
        write_meta(path, meta.repaired(starts, [mend.text for mend in mends]))
        kill_point("after-repaired-meta")
    elif is_new:
        write_meta(path, meta)
    log = Log(name)
    done = [f"log {name}: its log.json is made anew; readers that had begun must begin anew"] if is_new else []
    for number, mend in enumerate(mends):
        done += _mended(log, number, mend, meta.starts[number])
    return done


def _guessed(path: str) -> Meta:
    """What the folders say of a log whose log.json cannot be read."""
    count = len([name for name in os.listdir(path) if name.isdecimal()])
    starts = [min(bases(os.path.join(path, str(number))), default=0) for number in range(count)]
    return Meta(secrets.token_hex(16), count, (), starts)


def _planned(path: str, start: int) -> _Mend:
    if not os.path.isdir(path):
        return _Mend(is_gone=True)
    mend, offset = _Mend(), None
    for base in bases(path):
        name = segment(path, base)
        if offset is not None and base != offset:
            mend.aside.append((name, 0))
            continue
        end, offset, text = _whole(name, base)
        mend.text = mend.text if text is None else text
        if end or end == os.stat(name).st_size:
            mend.start = mend.start if mend.kept else max(base, start)
            mend.kept.append(name)
        if end < os.stat(name).st_size:
            mend.aside.append((name, end))
            offset = -1  # nothing behind it can be reached
    return mend


def _whole(path: str, base: int) -> tuple[int, int, int | None]:
    """How many bytes of a segment are as they were written, the record behind them, and where the text of that begins."""
    unpacker, offset, end, text = Unpacker(), base, 0, None
    file = open_segment(path)
    try:
        for at, head in heads(file, 0, os.fstat(file).st_size):
            if head.offset != offset or unpacker.text(head, os.pread(file, head.packed, at + HEAD)) is None:
                break
            offset, end, text = head.next, at + head.size, head.text + head.length
    finally:
        os.close(file)
    return end, offset, text


def _mended(log: Log, number: int, mend: _Mend, start: int) -> list[str]:
    if mend.is_gone:
        make_folder(log.partition(number))
        sync_way(log.partition(number))
        return [f"{log.title(number)}: its folder was gone, and begins anew"]
    done = [_put_aside(log, number, path, at) for path, at in mend.aside]
    for path in mend.kept:
        _index(path)
    if mend.start > start:
        done.append(f"{log.title(number)}: it begins with record {mend.start:,} by now: those from {start:,} on are missing")
    return done


def _put_aside(log: Log, number: int, path: str, at: int) -> str:
    """The bytes from `at` on, in a file beside the log."""
    folder = f"{log.path}.damaged"
    make_folder(folder)
    size = os.stat(path).st_size - at
    aside = os.path.join(folder, f"{number}-{os.path.basename(path)}.from-{at}.{time.time_ns()}")
    if at:
        with open(path, "rb") as file:
            file.seek(at)
            write_whole(aside, file.read(), "aside")
        kill_point("after-aside")
        cut(path, at)
    else:
        rename(path, aside)
        kill_point("after-aside")
        remove(index_of(path))
    return f"{log.title(number)}: {size:,} bytes of {os.path.basename(path)}, from byte {at:,} on, are in {aside}"


def _index(path: str) -> None:
    file = open_segment(path)
    try:
        found = b"".join(head.to_bytes() for _, head in heads(file, 0, os.fstat(file).st_size))
    finally:
        os.close(file)
    remove(index_of(path))
    if found:
        write_whole(index_of(path), found, "index")
