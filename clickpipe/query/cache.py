"""Answers that were given, kept under the SQL, the way they are shown, and the versions of the tables they are from.

    $CLICKPIPE_HOME/cache/query/9f86d081….answer
        {"v":1,"tables":{"clicks":"archive 42"},"notes":[],"body":"d081…"}      with its hash in a second line
        the bytes that were shown, whose hash is `body`

An answer is given again while all its tables have those versions, and no name in it means another table. What is damaged is none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import orjson

from clickpipe import __version__
from clickpipe.errors import ClickpipeError
from clickpipe.query.tables import Table, find
from clickpipe.state.files import make_folder, write_fleeting
from clickpipe.state.home import home
from clickpipe.state.manifest import digest, sealed, unsealed

_LARGEST = 16 << 20  # bytes of an answer that is kept
_MOST = 256 << 20  # of all of them


@dataclass(frozen=True)
class Kept:
    """An answer as it was shown, and what was said of it."""

    shown: bytes
    notes: Sequence[str] = ()


def key_of(sql: str, *shown: object) -> str:
    """`shown`: all that decides how an answer looks."""
    return digest(orjson.dumps([__version__, sql, *map(str, shown)]))


def kept(key: str) -> Kept | None:
    """The answer, if it is still right."""
    try:
        with open(_path(key), "rb") as file:
            head, body = file.readline() + file.readline(), file.read()
    except OSError:
        return None
    line = unsealed(head)
    said = orjson.loads(line) if line is not None else None
    if said is None or said["body"] != digest(body):
        return None
    for name, version in said["tables"].items():
        try:
            if find(name).version() != version:
                return None
        except ClickpipeError:
            return None
    with suppress(OSError):
        os.utime(_path(key))  # what is asked for often stays
    return Kept(body, said["notes"])


def keep(key: str, versions: dict[str, str], answer: Kept) -> None:
    """`versions`: of the tables, read before the answer was computed. A full disk keeps nothing, and that is all right."""
    if len(answer.shown) > _LARGEST:
        return
    said = {"v": 1, "tables": versions, "notes": list(answer.notes), "body": digest(answer.shown)}
    with suppress(ClickpipeError, OSError):
        make_folder(_folder())
        write_fleeting(_path(key), sealed(orjson.dumps(said) + b"\n") + answer.shown)
        _make_room()


def versions_of(tables: Sequence[Table]) -> dict[str, str]:
    return {table.name: table.version() for table in tables}


def _make_room() -> None:
    """The answers that nobody has asked for for the longest time go."""
    entries = sorted((entry.stat().st_mtime, entry.stat().st_size, entry.path) for entry in os.scandir(_folder()))
    size = sum(entry[1] for entry in entries)
    for _, bytes_, path in entries:
        if size <= _MOST:
            return
        with suppress(FileNotFoundError):
            os.unlink(path)
        size -= bytes_


def _folder() -> str:
    return os.path.join(home(), "cache", "query")


def _path(key: str) -> str:
    return os.path.join(_folder(), f"{key}.answer")
