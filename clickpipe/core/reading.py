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
from typing import TypeVar

from clickpipe.core.source import Split
from clickpipe.lines import Block, Cutter, joined
from clickpipe.wire.pump import Inbox

T = TypeVar("T")
R = TypeVar("R")

_PAUSE = 0.005  # seconds without a byte after which a live batch goes out early
_AHEAD = 2  # blocks


def blocks(split: Split, whole: Callable[[bytes], int], batch_bytes: int, max_latency: float) -> Iterator[Block]:
    """The whole lines of a split, about `batch_bytes` at a time. `max_latency` in seconds, for live splits."""
    cutter = Cutter(whole)
    inbox = split.inbox()
    chunks = _live(inbox, batch_bytes, max_latency) if inbox else ahead(split.chunks())
    held: list[Block] = []
    for chunk in chunks:
        block = cutter.feed(chunk) if chunk else None
        if block:
            held.append(block)
        if held and (inbox or sum(len(b.data) for b in held) >= batch_bytes):
            yield joined(held)
            held = []
    last = cutter.finish()
    held += [last] if last else []
    if held:
        yield joined(held)


def _live(inbox: Inbox, batch_bytes: int, max_latency: float) -> Iterator[bytes]:
    """Chunks of a live split. What is there goes out at once; while more pours in, a batch fills up."""
    while first := inbox.get():
        parts, size, deadline = [first], len(first), time.monotonic() + max_latency
        while size < batch_bytes and (left := deadline - time.monotonic()) > 0:
            chunk = inbox.get(min(_PAUSE, left))
            if not chunk:
                break
            parts.append(chunk)
            size += len(chunk)
        yield b"".join(parts)
        if chunk == b"":
            return


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
    """`parse` of each item, in order. No workers: each when its turn comes, for live input."""
    if not workers:
        yield from map(parse, items)
        return
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="parse") as pool:
        for item in items:
            pending.append(pool.submit(parse, item))
            if len(pending) > workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
