"""Files beside a path that may have had it: rotation renames the file and keeps it in its directory.

They are found by their names (app.log.1, app.log-20260301) and by their inodes. Descriptors that are given
belong to who asked.
"""

from __future__ import annotations

import os
import re
import stat
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice, takewhile
from typing import Any

from clickpipe.core.generation import fits, opened
from clickpipe.core.packing import MAGIC_BYTES, is_packed

_ROTATED = re.compile(r"[.-](\d[\dT:_.+-]*Z?|old|prev)")


class Listing:
    """The names in directories, each looked at once, for all paths in it."""

    def __init__(self) -> None:
        self._sorted: dict[str, list[str]] = {}

    def names(self, folder: str, begin: str) -> Iterator[str]:
        """Those that begin so."""
        if folder not in self._sorted:
            self._sorted[folder] = []
            with suppress(OSError):
                self._sorted[folder] = sorted(os.listdir(folder or "."))
        names = self._sorted[folder]
        return takewhile(lambda name: name.startswith(begin), islice(names, bisect_left(names, begin), None))


class Beside:
    def __init__(self, path: str) -> None:
        self._path, self._base = path, os.path.basename(path)

    def files(self, listing: Listing | None = None) -> list[int]:
        """Of all that may have had the path and are not packed. `listing`: what stands beside it, where that is known."""
        folder = os.path.dirname(self._path)
        names = listing.names(folder, self._base) if listing else (entry.name for entry in self._entries())
        paths = [path for name in names if self.has_name(name) and not os.path.islink(path := os.path.join(folder, name))]
        found = [file for path in paths if (file := opened_regular(path)) is not None]
        return without(found, [file for file in found if has_packing(file)])

    def has_name(self, name: str) -> bool:
        """Whether a file with this name may have had the path."""
        return name.startswith(self._base) and _ROTATED.fullmatch(name, len(self._base)) is not None

    def paths(self, inode: int) -> list[str]:
        """Where a file is now: under the path, which may be a link, or beside it under any name."""
        here = [self._path] * (inode_at(self._path) == inode)
        return here + [entry.path for entry in self._entries() if entry.inode() == inode]

    def has_had(self, path: str) -> bool:
        return path == self._path or self.has_name(os.path.basename(path))

    def copy(self, identity: Mapping[str, Any]) -> int | None:
        """The longest file that begins with what was read. Many may begin with the same header line: that is not enough."""
        if not identity["records"]:
            return None
        files = self.files()
        found = sorted((file for file in files if fits(file, identity)), key=lambda file: os.fstat(file).st_size)
        without(files, [file for file in files if file not in found[-1:]])
        return found[-1] if found else None

    def inodes(self) -> set[int]:
        return {entry.inode() for entry in self._entries()}

    def _entries(self) -> list[os.DirEntry[str]]:
        with suppress(OSError), os.scandir(os.path.dirname(self._path) or ".") as entries:
            return [*entries]
        return []


def inode_at(path: str) -> int | None:
    with suppress(OSError):
        return os.stat(path).st_ino
    return None


def opened_regular(path: str) -> int | None:
    """A descriptor, unless the file has gone or is none."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a socket, which may have got the inode of a file, cannot even be opened
            return None
        file = opened(path)
    except FileNotFoundError:
        return None
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    return None


def has_packing(file: int) -> bool:
    return is_packed(os.pread(file, MAGIC_BYTES, 0))


def without(files: list[int], others: Iterable[int]) -> list[int]:
    """These files without some of them, which are closed."""
    closed = set(others)
    for file in closed:
        os.close(file)
    return [file for file in files if file not in closed]
