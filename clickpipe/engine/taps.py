"""Taps of a running process: records between two of its steps, as they pass, for whoever looks.

    the thread that computes --batch, if there is room--> three batches at most --thread--> pipe --> clickpipe tap

It never waits: what there is no room for is lost to the tap, and counted.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import polars as pl

from clickpipe.batch import Batch
from clickpipe.core.loop import Edge
from clickpipe.core.render import as_ndjson
from clickpipe.engine.checkpoints import Place
from clickpipe.state import tapping
from clickpipe.state.tapping import Asked
from clickpipe.wire.pump import write_all

_MOST = 3  # batches that wait to be written
_CHANGING = threading.Lock()  # held while it is changed who taps an edge
_TELL = 1.0  # seconds after which it is told what has passed, if nothing is written


class Taps:
    """`edges`: of the loop; `places`: of the steps, the first of which is the source where `has_source`."""

    def __init__(self, pipeline: str, edges: Sequence[Edge], places: Sequence[Place], *, has_source: bool) -> None:
        self._pipeline, self._process = pipeline, os.getpid()
        last = len(edges) - 1
        self._edges = {at.hop: edges[min(number + (not has_source), last)] for number, at in enumerate(places)}
        self._begun: dict[str, _Tap] = {}

    def look(self) -> None:
        """Whether somebody asks. By another thread than the one that computes."""
        self._begun = {stem: tap for stem, tap in self._begun.items() if not tap.is_over}
        for one in tapping.asked(self._pipeline, self._process):
            edge = self._edges.get(one.hop)
            if edge is not None and one.stem not in self._begun and (descriptor := one.opened()) is not None:
                self._begun[one.stem] = tap = _Tap(edge, one, descriptor)
                tap.begin()


class _Tap:
    def __init__(self, edge: Edge, asked: Asked, descriptor: int) -> None:
        self._edge, self._asked, self._descriptor = edge, asked, descriptor
        self._queue: queue.Queue[Batch] = queue.Queue(_MOST)
        self._passed = self._given = self._lost = 0
        self.is_over = False

    def begin(self) -> None:
        with _CHANGING:
            self._edge.taps = (*self._edge.taps, self.offer)
        threading.Thread(target=self._work, daemon=True, name="tap").start()

    def offer(self, batch: Batch) -> None:
        """By the thread that computes."""
        some = self._some(batch)
        self._passed += batch.height
        if not some.height:
            return
        try:
            # Polars locks a frame that it writes, and asks for Python's lock meanwhile: a shared one can stop both threads.
            self._queue.put_nowait(replace(some, frame=some.frame.clone()))
        except queue.Full:
            self._lost += some.height

    def _some(self, batch: Batch) -> Batch:
        """Evenly spread over all that have passed."""
        share = self._asked.share
        if share >= 1:
            return batch
        number = pl.int_range(self._passed, self._passed + batch.height, dtype=pl.Int64, eager=True)
        return batch.keep(((number + 1) * share).floor() > (number * share).floor())

    def _work(self) -> None:
        try:
            while True:
                self._write()
        except OSError:  # nobody reads it any more
            with _CHANGING:
                self._edge.taps = tuple(tap for tap in self._edge.taps if tap != self.offer)
        finally:
            with suppress(OSError):
                os.close(self._descriptor)
            tapping.remove(self._asked.stem)
            self.is_over = True

    def _write(self) -> None:
        data = b""
        with suppress(queue.Empty):
            batch = self._queue.get(timeout=_TELL)
            data = as_ndjson(batch.with_text(), spell_times=True)
            self._given += batch.height
        write_all(self._descriptor, data + tapping.counted(self._passed, self._given, self._lost))
