"""Files and globs; .gz and .zst are recognised by their first bytes, not by their names.

Each file is a split. Guarantee: replayable; a file that ends in the middle of its compression
is an error, never an end.
"""

from __future__ import annotations

import glob
import os
import stat
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from clickpipe.core.generation import begins_as, mark
from clickpipe.core.packing import GZIP, MAGIC_BYTES, ZSTD, is_packed
from clickpipe.core.source import Source, Split
from clickpipe.errors import DataError, NothingYet, OutsideError, PlanError, Unsupported, failed_call
from clickpipe.state.manifest import digest

_CHUNK = 8 << 20
_EDGE = 64 << 10
_PEEK = 32 << 10
# A compressed byte can stand for 30,000: small pieces bound what one call may give back.
_PIECE = 4 << 10
_WORTH = 1 << 20
_SEEN = 4 << 10  # bytes that tell a file from another of its name


class File(Source):
    def splits(self) -> list[Split]:
        return [FileSplit(path) for path in self._paths()]

    def followed(self) -> str:
        return self.address

    def _paths(self) -> list[str]:
        if os.path.lexists(self.address) or not glob.has_magic(self.address):
            return [self.address]
        paths = sorted(path for path in glob.glob(self.address, recursive=True) if not os.path.isdir(path))
        if not paths:
            raise NothingYet(f"no file matches {self.address}", word=self.address)
        return paths


class FileSplit(Split):
    def __init__(self, path: str) -> None:
        self.name = path
        self._known: int | None = None  # a descriptor of the file that is being read, from then until `close`
        self._marked: Mapping[str, Any] | None = None  # by which it must be known when it is opened again
        self._unpacked_from: int | None = None  # of a packed file: how many of its bytes were unpacked
        self._end: int | None = None  # where a bounded one ends
        try:
            status = os.stat(path)
            mode, self._size = status.st_mode, status.st_size
            self.can_be_read_again = stat.S_ISREG(mode)
            if self.can_be_read_again:  # a pipe must be opened once only: its writer would hear a reader leave
                os.close(os.open(path, os.O_RDONLY))
        except OSError as error:
            raise PlanError(f"{path}: {error.strerror}", word=path) from None
        if stat.S_ISDIR(mode):
            hint = f"for the files in it: '{os.path.join(path, '*')}'"
            raise PlanError(f"{path} is a directory", hint=hint, word=path)

    def bound(self) -> None:
        """A packed one does not grow: it is read to its end."""
        if not self.can_be_read_again:
            raise Unsupported("never", "--until", f"{self.name} is a pipe or a device: what it will give is not there now")
        file = self._descriptor()
        self.goes_on, self._end = not _is_packed(file), os.fstat(file).st_size

    def left(self, offset: int) -> int:
        if self._end is None or (offset and not self.goes_on):
            return 0
        return max(0, self._end - offset)

    def silence(self) -> float | None:
        return max(0.0, time.time() - os.stat(self.name).st_mtime) if os.path.exists(self.name) else None

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """Unit of `offset`: bytes of text, unpacked if the file is packed."""
        return self._chunks(offset, _lines)

    def peeked(self, offset: int) -> Iterator[bytes]:
        return self._chunks(offset, _peeked)

    def _chunks(self, offset: int, read: Callable[[int, int], Iterator[bytes]]) -> Iterator[bytes]:
        try:
            with open(os.dup(self._descriptor()), "rb", buffering=0) as file:
                if _is_packed(file.fileno()):
                    yield from _skip(self._text(read(file.fileno(), 0)), offset)
                else:
                    yield from self._text(_up_to(self._end, offset, read(file.fileno(), offset)))
        except OSError as error:
            raise failed_call(self.name, error) from None

    def hold(self) -> None:
        if self.can_be_read_again:
            self._descriptor()

    def let_go(self) -> None:
        if self.can_be_read_again:
            self._marked = mark(self._descriptor())
            self.close()

    def _descriptor(self) -> int:
        """Of the file that is read, from the first look at it on."""
        if self._known is None:
            try:
                file = os.open(self.name, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise failed_call(self.name, error) from None
            if self._marked and not begins_as(file, self._marked):
                os.close(file)
                raise OutsideError(f"{self.name} has become another file while it waited for its turn", hint="run it again")
            self._known = file
        return self._known

    def identity(self, offset: int) -> Mapping[str, Any]:
        """Of the file that is being read, whatever has its name by now: the first and the last bytes that were read;
        of a packed one its size, since it must not grow."""
        try:
            if self._known is None:
                with open(self.name, "rb", buffering=0) as file:
                    return _identity(file.fileno(), offset)
            return _identity(self._known, offset)
        except OSError as error:
            raise failed_call(self.name, error) from None

    def extent(self, position: int) -> tuple[int, int] | None:
        read = position if self._unpacked_from is None or not position else self._unpacked_from
        return (read, self._size) if self._size else None

    def close(self) -> None:
        if self._known is not None:
            os.close(self._known)
            self._known = None

    def _text(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The text of the file, unpacked if need be."""
        first = next(chunks, b"")
        if first.startswith(GZIP):
            return self._unpacked(first, chunks, lambda: zlib.decompressobj(wbits=31), "gzip")
        if first.startswith(ZSTD):
            import zstandard

            return self._unpacked(first, chunks, lambda: zstandard.ZstdDecompressor().decompressobj(), "zstd")
        return _chain(first, chunks)

    def _unpacked(self, first: bytes, chunks: Iterator[bytes], new: Callable[[], Any], word: str) -> Iterator[bytes]:
        """One or more compressed members, one after the other."""
        stream, size, held = None, 0, bytearray()
        self._unpacked_from = 0
        for chunk in _chain(first, chunks):
            self._unpacked_from += len(chunk)
            for at in range(0, len(chunk), _PIECE):
                piece = chunk[at : at + _PIECE]
                while piece:
                    stream = stream or new()
                    try:
                        held += stream.decompress(piece)
                    except Exception as error:  # zlib.error and ZstdError have no common base
                        raise DataError(
                            f"{self.name}: damaged {word} data ({error}) after {size + len(held):,} bytes of text"
                        ) from None
                    piece, stream = (stream.unused_data, None) if stream.eof else (b"", stream)
                if len(held) >= _WORTH:
                    size += len(held)
                    yield bytes(held)
                    held.clear()
        yield bytes(held)
        if stream is not None:
            raise DataError(f"{self.name}: the {word} data stops before its end, after {size + len(held):,} bytes of text")


def _identity(file: int, offset: int) -> Mapping[str, Any]:
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        return {}
    if _is_packed(file):
        return {"size": status.st_size, "head": digest(os.pread(file, _SEEN, 0))}
    head, tail = os.pread(file, min(_SEEN, offset), 0), os.pread(file, min(_SEEN, offset), max(0, offset - _SEEN))
    return {"head": digest(head), "tail": digest(tail), "at_least": min(offset, status.st_size)}


def _is_packed(file: int) -> bool:
    if not stat.S_ISREG(os.fstat(file).st_mode):
        return False
    return is_packed(os.pread(file, MAGIC_BYTES, 0))


def _skip(chunks: Iterator[bytes], count: int) -> Iterator[bytes]:
    for chunk in chunks:
        if count < len(chunk):
            yield chunk[count:] if count else chunk
        count = max(0, count - len(chunk))


def _lines(file: int, at: int) -> Iterator[bytes]:
    """Chunks that end with a line where they can: then nobody has to copy them to complete a line."""
    if not stat.S_ISREG(os.fstat(file).st_mode):
        while chunk := os.read(file, _CHUNK):
            yield chunk
        return
    while chunk := os.pread(file, _CHUNK - _EDGE + _line_end(os.pread(file, _EDGE, at + _CHUNK - _EDGE)), at):
        yield chunk
        at += len(chunk)


def _peeked(file: int, at: int) -> Iterator[bytes]:
    while chunk := os.pread(file, _PEEK, at):
        yield chunk
        at += len(chunk)


def _up_to(end: int | None, at: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """No more than stands before `end`."""
    for chunk in chunks:
        if end is not None and at + len(chunk) >= end:
            yield chunk[: max(0, end - at)]
            return
        yield chunk
        at += len(chunk)


def _line_end(edge: bytes) -> int:
    return edge.rfind(b"\n") + 1 or _EDGE


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
