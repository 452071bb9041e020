"""One file that grows, read through a descriptor: it stays the same file, whatever it is renamed to.

    | head 4 KiB |            …            | 4 KiB before | unfinished line |
                                                     offset             size

A file is known by its inode, its first bytes and those before the offset: inodes are used again, and a
file can be cut off and written anew under its old inode.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from clickpipe.core.format import Format
from clickpipe.core.packing import MAGIC_BYTES, is_packed, may_be_packed
from clickpipe.errors import ClickpipeError, failed_call
from clickpipe.lines import Block, Cutter
from clickpipe.state.manifest import digest

SEEN = 4 << 10  # bytes at each place by which a file is known


class Generation:
    """Unit of `offset`: bytes; all before it was handed on."""

    def __init__(self, file: int, name: str, form: Format, offset: int = 0, *, has_records: bool = False) -> None:
        """`file`: a descriptor, closed with this; `name`: of the split, for messages; `has_records`: before the offset."""
        self.file, self.name, self._format = file, name, form
        self.inode = os.fstat(file).st_ino
        self.left: float | None = None  # since when another file has its path
        self.limit: int | None = None  # where it ends for a bounded run
        self._begin(offset, has_records)

    def _begin(self, offset: int, has_records: bool = False) -> None:
        self._start = self.offset = self._seen = offset
        self._has_records = self._had_records = has_records
        self._cutter = Cutter(self._format.cut, offset)
        self._head = os.pread(self.file, min(SEEN, offset), 0)
        self._before = self._end = _before(self.file, offset)
        self.last_growth = time.monotonic()

    def restart(self) -> None:
        """It was cut off: everything in it is new."""
        self._begin(0)
        self.limit = None if self.limit is None else 0

    def rewind(self) -> None:
        """What was read from it since it was opened is read again."""
        self._begin(self._start, self._had_records)

    @property
    def size(self) -> int:
        return os.fstat(self.file).st_size

    @property
    def is_removed(self) -> bool:
        """Whether it has no name any more."""
        return os.fstat(self.file).st_nlink == 0

    @property
    def is_beyond(self) -> bool:
        """Whether more of it was read than stood there when it was bounded."""
        return self._seen > (self.limit or 0)

    @property
    def silence(self) -> float:
        """Seconds since it was written to."""
        return max(0.0, time.time() - os.fstat(self.file).st_mtime)

    @property
    def unfinished(self) -> int:
        """Bytes of a last line that has no newline yet."""
        return self._seen - self.offset

    def take(self, at_most: int) -> bytes:
        """What has been appended; nothing while it cannot be told what it is."""
        if self.limit is not None and self.left is None:
            at_most = min(at_most, max(0, self.limit - self._seen))
        chunk = os.pread(self.file, at_most, self._seen)
        return b"" if not self._seen and may_be_packed(chunk) else chunk

    def is_packed(self) -> bool:
        return not self._seen and is_packed(os.pread(self.file, MAGIC_BYTES, 0))

    def was_cut(self) -> bool:
        """Whether what was read has changed: the file was cut off, and perhaps written anew."""
        if self.size < self._seen:
            return True
        return os.pread(self.file, len(self._head), 0) != self._head or _before(self.file, self._seen) != self._end

    def feed(self, chunk: bytes) -> Block | None:
        """The whole records that `chunk` completes."""
        if len(self._head) < SEEN:
            self._head = (self._head + chunk[:SEEN])[:SEEN]
        self._end = (self._end + chunk[-SEEN:])[-SEEN:]
        self._seen += len(chunk)
        self.last_growth = time.monotonic()
        return self._begun(self._cutter.feed(chunk))

    def finish(self) -> Block | None:
        """No more will come: a last line without its newline is a record too."""
        return self._begun(self._cutter.finish())

    def _begun(self, block: Block | None) -> Block | None:
        """Less the header line, if it is the first block."""
        if block is None or not (block.data or block.overlong):
            return None
        is_first = self.offset == 0
        if block.offset == self.offset:
            self._before = (self._before + block.data[-SEEN:])[-SEEN:]
        else:  # an overlong line or a byte order mark lay between
            self._before = _before(self.file, block.end)
        self.offset = block.end
        try:
            block = self._format.begin(block) if is_first else block
        except ClickpipeError as error:
            raise error.at(self.name) from None
        self._has_records |= bool(block.data)
        return block

    def close(self) -> None:
        os.close(self.file)

    # By what it is known.

    def identity(self) -> dict[str, Any]:
        """With the offset, as JSON. Of what was read, whatever has become of the file."""
        head = self._head[: self.offset]
        tail = digest(self._before)
        return {"inode": self.inode, "offset": self.offset, "head": digest(head), "tail": tail, "records": self._has_records}

    def is_copied_in(self, file: int) -> bool:
        """Whether a file is a copy of this one: it begins with all records that were read, or holds some of them only."""
        size = os.fstat(file).st_size
        if self._has_records and fits(file, self.identity()):
            return True
        if not 0 < size <= self.size:
            return False
        head = os.pread(file, SEEN, 0)
        return head == os.pread(self.file, len(head), 0) and _before(file, size) == _before(self.file, size)


def fits(file: int, identity: Mapping[str, Any]) -> bool:
    """Whether a file begins with all that had been read."""
    offset = identity["offset"]
    if os.fstat(file).st_size < offset:
        return False
    head = os.pread(file, min(SEEN, offset), 0)
    return bool(digest(head) == identity["head"] and digest(_before(file, offset)) == identity["tail"])


def mark(file: int) -> dict[str, Any]:
    """By which a file that is not to be read again is known later on, as JSON."""
    status, head = os.fstat(file), os.pread(file, SEEN, 0)
    return {"inode": status.st_ino, "bytes": len(head), "head": digest(head), "written": status.st_mtime_ns}


def has_mark(file: int, marked: Mapping[str, Any]) -> bool:
    """A short file may have the inode and the beginning of another one, a header line say, but not its time too."""
    is_short = int(marked["bytes"]) < SEEN
    return begins_as(file, marked) and (not is_short or bool(os.fstat(file).st_mtime_ns == marked["written"]))


def begins_as(file: int, marked: Mapping[str, Any]) -> bool:
    """The same of one that may have grown since."""
    return bool(os.fstat(file).st_ino == marked["inode"] and digest(os.pread(file, marked["bytes"], 0)) == marked["head"])


def opened(path: str) -> int:
    """A descriptor. Raises FileNotFoundError, and OutsideError for any other reason."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise failed_call(path, error) from None


def _before(file: int, offset: int) -> bytes:
    length = min(SEEN, offset)
    return os.pread(file, length, offset - length)
