"""Splits -> blocks of lines, read and parsed ahead while earlier ones are computed.

    thread: read, decompress, cut -> queue -> threads: parse -> in order -> the one that computes

A block's parsing depends on nothing before it, so two can be parsed at once; what comes back keeps
the order of the input.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import NoReturn, TypeVar

from clickpipe.core.source import Split
from clickpipe.lines import Block, Cutter, Overlong, joined
from clickpipe.wire.pump import Arriving

T = TypeVar("T")
R = TypeVar("R")

_PAUSE = 0.005  # seconds without a byte after which a live batch goes out early
_BEAT = 0.1  # seconds after which whoever waits looks whether to stop
_AHEAD = 2  # blocks


def blocks(
    split: Split,
    whole: Callable[[bytes], int],
    batch_bytes: int,
    max_latency: float,
    offset: int = 0,
    tick: float | None = None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Block]:
    """The whole lines of a split from `offset` on, about `batch_bytes` at a time.

    Unit: seconds for `max_latency` and `tick`, which are for live splits. After each `tick` without input an empty
    block comes. A live split that is stopped ends with the whole lines that have come. A batch holds at least half
    of `batch_bytes`, so that a chunk and the line it cuts are not joined to a second one.
    """
    inbox = split.inbox()
    if inbox:
        chunks = _live(inbox, batch_bytes, max_latency, tick, is_stopping)
        cut = _cut(chunks, whole, 0, has_ended=lambda: inbox.is_at_end, given_up=inbox.take_given_up)
        return _pieces(cut, whole, batch_bytes)
    cut = _cut(split.chunks(offset), whole, batch_bytes // 2, offset, has_ended=lambda: not split.goes_on)
    return ahead(_pieces(cut, whole, batch_bytes))


def beginning(split: Split, whole: Callable[[bytes], int], offset: int, most: int) -> Iterator[Block]:
    """The whole lines of a split that can be read again, in small pieces, of no more than `most` bytes."""
    taken = 0

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        for chunk in split.peeked(offset):
            taken += len(chunk)
            yield chunk
            if taken >= most:
                return

    return _cut(chunks(), whole, 0, offset, has_ended=lambda: taken < most and not split.goes_on)


def _cut(
    chunks: Iterator[bytes],
    whole: Callable[[bytes], int],
    at_least: int,
    offset: int = 0,
    has_ended: Callable[[], bool] = lambda: True,
    given_up: Callable[[], tuple[Overlong, ...]] = lambda: (),
) -> Iterator[Block]:
    held: list[Block] = []
    for block in _fed(chunks, Cutter(whole, offset), has_ended, given_up):
        if held and block.offset != held[-1].end:  # an overlong line lay between
            yield joined(held)
            held = []
        held.append(block)
        if sum(len(b.data) for b in held) >= at_least:
            yield joined(held)
            held = []
    if held:
        yield joined(held)


def _fed(
    chunks: Iterator[bytes], cutter: Cutter, has_ended: Callable[[], bool], given_up: Callable[[], tuple[Overlong, ...]]
) -> Iterator[Block]:
    """`has_ended`: whether the last line is whole although it may lack its newline. `given_up`: lines that are in no chunk."""
    for chunk in chunks:
        block = cutter.feed(chunk) if chunk else Block(b"", cutter.offset)
        if block := _with(given_up(), block, cutter):
            yield block
    last = _with(given_up(), cutter.finish() if has_ended() else None, cutter)
    if last:
        yield last


def _with(lost: tuple[Overlong, ...], block: Block | None, cutter: Cutter) -> Block | None:
    """The block with these lines behind its own."""
    if not lost:
        return block
    block = block or Block(b"", cutter.offset)
    return replace(block, overlong=(*block.overlong, *(replace(line, offset=block.end) for line in lost)))


def _pieces(blocks: Iterator[Block], whole: Callable[[bytes], int], batch_bytes: int) -> Iterator[Block]:
    """Blocks much larger than a batch, cut up."""
    for block in blocks:
        start, size, overlong = 0, len(block.data), block.overlong
        while size - start > 2 * batch_bytes:
            end = _piece_end(block.data, start, whole, batch_bytes)
            yield Block(block.data[start:end], block.offset + start, overlong)
            start, overlong = end, ()
        if start < size or overlong or not size:
            yield Block(block.data[start:], block.offset + start, overlong) if start else block


def _piece_end(data: bytes, start: int, whole: Callable[[bytes], int], stretch: int) -> int:
    """Where a piece of whole records ends. Most of what is looked at becomes the piece, so no byte is looked at often."""
    while (end := data.find(b"\n", start + stretch - 1) + 1 or len(data)) < len(data):
        cut = whole(data[start:end])
        if 2 * cut >= end - start:
            return start + cut
        stretch = 2 * max(stretch, end - start)
    return end


def _live(
    inbox: Arriving, batch_bytes: int, max_latency: float, tick: float | None, is_stopping: Callable[[], bool]
) -> Iterator[bytes]:
    """Chunks of a live split. What is there goes out at once; while more pours in, a batch fills up. Empty: a tick."""
    while not is_stopping():
        chunk = _next(inbox, tick, is_stopping)
        if chunk == b"":
            return
        if not chunk:
            yield b""
            continue
        parts, size, deadline = [chunk], len(chunk), time.monotonic() + max_latency
        while size < batch_bytes and (left := deadline - time.monotonic()) > 0 and not is_stopping():
            chunk = inbox.get(min(_PAUSE, left))
            if not chunk:
                break
            parts.append(chunk)
            size += len(chunk)
        yield b"".join(parts)
    yield from inbox.read_ahead()


def _next(inbox: Arriving, tick: float | None, is_stopping: Callable[[], bool]) -> bytes | None:
    """The next chunk; None when `tick` has passed, a line was given up, or nothing more is to be waited for."""
    deadline = float("inf") if tick is None else time.monotonic() + tick
    chunk = None
    while chunk is None and not is_stopping() and (left := deadline - time.monotonic()) > 0:
        chunk = inbox.get(min(_BEAT, left))
        if inbox.has_given_up:
            break
    return chunk


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, made by a thread of their own, a few ahead. Errors arrive in their place."""
    ready: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(_AHEAD)
    stopped = threading.Event()

    def put(kind: str, item: T | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                ready.put((kind, item), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
        except BaseException as error:
            put("error", error)
        put("end", None)

    threading.Thread(target=work, daemon=True, name="ahead").start()
    try:
        while True:
            kind, item = ready.get()
            if kind == "end":
                return
            if isinstance(item, BaseException) and kind == "error":
                raise item
            yield item  # type: ignore[misc]  # kind "item" holds a T
    finally:
        stopped.set()


def parsed(items: Iterator[T], parse: Callable[[T], R], workers: int) -> Iterator[R]:
    """`parse` of each item, in order. No workers: each when its turn comes, for live input. Errors arrive in their place."""
    if not workers:
        yield from map(parse, items)
        return
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="parse") as pool:
        for work in _works(items, parse):
            pending.append(pool.submit(work))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _works(items: Iterator[T], parse: Callable[[T], R]) -> Iterator[Callable[[], R]]:
    """What is to be done for each; the last of them may be to fail."""
    try:
        for item in items:
            yield partial(parse, item)
    except Exception as error:
        yield partial(_fail, error)


def _fail(error: Exception) -> NoReturn:
    raise error
