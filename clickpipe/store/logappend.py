"""What checkpoints have staged for a log, appended at its place: done twice it is done once.

    staged     b1 b2 b3 | b4 b5         pieces, each with the place that it has in the partition
    segment    … b1 b2 <b               after a death: b3 is put again, and all behind it

A power failure may have left anything of what was not durable: what has not the bytes that were staged goes, batch by batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from clickpipe.errors import StateError
from clickpipe.state.files import cut, length_of
from clickpipe.state.space import Patience
from clickpipe.store.logends import Place, is_before, open_segment, segment
from clickpipe.store.logs import Log
from clickpipe.store.logwriter import Tail, locked
from clickpipe.store.segments import HEAD, Head, end_of, head_of, indexed


@dataclass(frozen=True)
class Piece:
    """Batches that follow one another, `size` bytes, from `begin` on in what was staged."""

    place: Place
    begin: int
    size: int


class Appending:
    """Raises OutsideError while somebody else writes, StateError where the log is another, or another has written to it."""

    def __init__(self, name: str, id_: str, patience: Patience) -> None:
        self._log, self._patience = Log(name), patience
        if self._log.id != id_:
            raise StateError(f"log {name} is not the one that was written to: it was made anew, or repaired")
        self._lock = locked(self._log.path, name, patience)
        self._tails: dict[int, Tail] = {}

    def append(self, number: int, pieces: Sequence[Piece], read: Callable[[Piece], bytes]) -> None:
        """To a partition, in order; durable when it returns."""
        if number not in self._tails:
            self._cut_torn(self._log.partition(number), pieces, read)
            self._tails[number] = Tail(self._log, number, self._patience)
        for piece in pieces:
            self._put(self._tails[number], number, piece.place, read(piece))

    def _put(self, tail: Tail, number: int, place: Place, data: bytes) -> None:
        batches = list(_batches(data))
        if tail.place.offset >= batches[-1][0].next:
            if not self._is_there(number, place, batches[-1][0], len(data)):
                raise self._other(number, tail.place, place)
            return
        if tail.place.base != place.base and tail.place.offset == place.offset:
            tail.roll()
        here = place
        for head, batch in batches:
            if head.offset >= tail.place.offset:
                if tail.place != here:
                    raise self._other(number, tail.place, place)
                tail.put(head, batch)
            here = here.after(head)
        tail.sync()

    def _is_there(self, number: int, place: Place, last: Head, size: int) -> bool:
        """Whether this has been done, and not by somebody else. Where retention has let it go meanwhile, it has."""
        try:
            file = open_segment(segment(self._log.partition(number), place.base))
        except FileNotFoundError:
            return place.base < self._log.starts[number]
        try:
            return is_before(file, place.at + size, last)
        finally:
            os.close(file)

    def _other(self, number: int, there: Place, place: Place) -> StateError:
        return StateError(
            f"{self._log.title(number)} ends with record {there.offset:,}, and a checkpoint appends behind {place.offset:,}",
            notes=["another pipeline has written to it", "--reset at ingest goes on behind what is there"],
        )

    def _cut_torn(self, path: str, pieces: Sequence[Piece], read: Callable[[Piece], bytes]) -> None:
        """The end of an append that was cut short, from the first batch on that is not there as it was staged."""
        for piece in pieces:
            name, at = segment(path, piece.place.base), piece.place.at
            length = length_of(name)
            most = max(one.place.at + one.size for one in pieces if one.place.base == piece.place.base)
            if not at < length <= most:
                continue  # nothing of it is there; or more is, and somebody else has written
            there = _bytes(name, at, piece.size)
            for head, batch in _batches(read(piece)):
                if there[at - piece.place.at :][: head.size] != batch:
                    if end_of(indexed(name)) <= at:  # else it was acknowledged: somebody else has written
                        cut(name, at)
                    break
                at += head.size

    def close(self) -> None:
        for tail in self._tails.values():
            tail.close()
        os.close(self._lock)


def _bytes(path: str, at: int, size: int) -> bytes:
    file = open_segment(path)
    try:
        return os.pread(file, size, at)
    finally:
        os.close(file)


def _batches(data: bytes) -> Iterator[tuple[Head, bytes]]:
    at = 0
    while at < len(data):
        head = head_of(data[at : at + HEAD])
        if head is None:
            raise StateError("what a checkpoint has staged for a log is damaged")
        yield head, data[at : at + head.size]
        at += head.size
