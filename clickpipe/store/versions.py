"""What an archive consists of: numbered versions, each in a file that is whole or not there.

    archives/clicks/_versions/
        000000000041.json            what version 41 added and took away, and what the columns are since then
        000000000064.snapshot.json   all there is with version 64; versions before it are not needed any more
        …                            each with its hash in a second line (state/manifest.py)

    {"clickpipe":"archive","v":1,"version":41,"at":1772355600000,
     "add":[{"path":"day=2026-03-01/clicks-9f86d081-000000000042-0.parquet","rows":1000,"bytes":20480,"hash":"…",
             "least":1772323200000,"greatest":1772409599999,"writer":"clicks","lineage":"9f86d081…","types":{"ts":"int",…},"after":41,"newest":41}],
     "remove":[],"forget":[],"marker":{"lineage":"9f86d081…","epoch":42},
     "types":{"ts":"int",…},"time":{"column":"ts","unit":"ms"},"key":[],"revised":false}

A version is made under an exclusive lock, from the newest one; readers take none. A file that was removed stays for some time
under a name that begins with a point, for readers that know an older version; `forget` are those that are gone for good.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson

from clickpipe.errors import StateError
from clickpipe.faults import kill_point
from clickpipe.state.files import hold_patiently, make_folder, remove, sync_folder, write_whole
from clickpipe.state.manifest import sealed, unsealed
from clickpipe.state.space import NO_PATIENCE, Patience
from clickpipe.state.trust import read_own

FORMAT = 1
FOLDER = "_versions"
_SNAPSHOTS = 64  # versions from one to the next
_TRIES = 20  # of a reader while older versions go


@dataclass(frozen=True)
class File:
    """One Parquet file. `least`, `greatest`: of its times, in epoch milliseconds; None: it has none."""

    path: str  # below the archive's folder
    rows: int
    bytes: int
    hash: str
    least: int | None
    greatest: int | None
    writer: str  # the pipeline that wrote it
    lineage: str
    types: Mapping[str, str]
    after: int = 0  # its rows came behind this checkpoint, the oldest of them
    newest: int = 0  # and the newest


@dataclass(frozen=True)
class Change:
    """A column that came, or became another type. `time`: epoch milliseconds."""

    column: str
    kind: str
    time: int
    before: str = ""


@dataclass(frozen=True)
class Shape:
    """What the rows of an archive are. `time`: the column with their times and its unit."""

    types: Mapping[str, str] = field(default_factory=dict)
    time: Mapping[str, str] | None = None
    key: Sequence[str] = ()
    revised: bool = False


@dataclass(frozen=True)
class Version:
    """All there is at one moment. `markers`: of each lineage the epoch up to which its rows are here; `removed`: files that are
    none any more, and since when."""

    number: int = 0
    files: Mapping[str, File] = field(default_factory=dict)
    shape: Shape = Shape()
    markers: Mapping[str, int] = field(default_factory=dict)
    history: Sequence[Change] = ()
    removed: Mapping[str, int] = field(default_factory=dict)

    def then(self, said: Transaction, at: int) -> Version:
        """The next version."""
        gone = {*said.remove, *(file.path for file in said.add)}
        files = {path: file for path, file in self.files.items() if path not in gone}
        removed = {path: since for path, since in self.removed.items() if path not in said.forget}
        return Version(
            self.number + 1,
            files | {file.path: file for file in said.add},
            said.shape,
            {**self.markers, **said.marker},
            [*self.history, *_changes(self.shape.types, said.shape.types, at)],
            removed | dict.fromkeys(said.remove, at),
        )


@dataclass(frozen=True)
class Transaction:
    """What makes the next version."""

    shape: Shape
    add: Sequence[File] = ()
    remove: Sequence[str] = ()
    forget: Sequence[str] = ()
    marker: Mapping[str, int] = field(default_factory=dict)


class Versions:
    """Of the archive in this folder."""

    def __init__(self, folder: str, patience: Patience = NO_PATIENCE) -> None:
        self._archive, self._folder, self._patience = folder, os.path.join(folder, FOLDER), patience
        self._known = Version()

    def number(self) -> int:
        """The newest version's, 0 before the first."""
        return max((number for number, _ in self._names()), default=0)

    def newest(self) -> Version:
        """Raises StateError where it is damaged, or of a later format."""
        for _ in range(_TRIES):
            try:
                self._known = self._read()
            except FileNotFoundError:  # a snapshot has taken the place of what had just been listed
                continue
            return self._known
        raise StateError(f"{self._folder}: its versions go faster than they can be read")

    def commit(self, make: Callable[[Version], Transaction | None]) -> Version:
        """The version that `make` makes of the newest one; None: it stays. Nobody else makes one meanwhile. Raises DiskError."""
        make_folder(self._folder, self._patience)
        lock = hold_patiently(os.path.join(self._archive, "lock"), self._patience)
        try:
            now = self.newest()
            said = make(now)
            return now if said is None else self._written(now, said)
        finally:
            os.close(lock)

    def _written(self, now: Version, said: Transaction) -> Version:
        at = int(time.time() * 1_000)
        after = now.then(said, at)
        self._write(f"{after.number:012d}.json", _said_of(said, after.number, at))
        kill_point("after-version")
        self._known = after
        if after.number % _SNAPSHOTS == 0:
            self._write(f"{after.number:012d}.snapshot.json", _whole(after))
            kill_point("after-version-snapshot")
            self._retire(after.number)
        return after

    def _write(self, name: str, said: Mapping[str, Any]) -> None:
        data = sealed(orjson.dumps(said) + b"\n")
        write_whole(os.path.join(self._folder, name), data, "version", self._patience)

    def _retire(self, newest: int) -> None:
        """What the snapshot before this one has made superfluous."""
        for number, is_snapshot in self._names():
            if number <= newest - _SNAPSHOTS and not (is_snapshot and number == newest - _SNAPSHOTS):
                remove(os.path.join(self._folder, _name(number, is_snapshot)))
        sync_folder(self._folder)

    def _read(self) -> Version:
        names = self._names()
        newest = max((number for number, _ in names), default=0)
        version = self._known if self._known.number <= newest else Version()
        snapshot = max((number for number, is_snapshot in names if is_snapshot), default=0)
        if snapshot > version.number:
            version = _from_whole(self._load(_name(snapshot, True)))
        there = {number for number, is_snapshot in names if not is_snapshot}
        for number in range(version.number + 1, newest + 1):
            if number not in there:
                if number <= max((one for one, _ in self._names()), default=0) - _SNAPSHOTS:
                    raise FileNotFoundError  # it has become superfluous meanwhile
                raise StateError(f"{os.path.join(self._folder, _name(number, False))} is gone", notes=_WAYS_OUT)
            said = self._load(_name(number, False))
            version = version.then(_transaction(said), said["at"])
        return version

    def _load(self, name: str) -> dict[str, Any]:
        path = os.path.join(self._folder, name)
        line = unsealed(read_own(path))
        if line is None:
            raise StateError(f"{path} is damaged", notes=_WAYS_OUT)
        said: dict[str, Any] = orjson.loads(line)
        if said["v"] > FORMAT:
            raise StateError(f"{path} was written by a newer clickpipe (format {said['v']}; this one knows {FORMAT})")
        return said

    def _names(self) -> list[tuple[int, bool]]:
        """Numbers, and whether each is a snapshot."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        parts = [name.split(".") for name in names if name[:1].isdigit() and name.endswith(".json")]
        return sorted((int(part[0]), part[1] == "snapshot") for part in parts)


_WAYS_OUT = ("either put it back from a copy,", "or move the archive away and fill a new one: clickpipe backfill, or replay")


def _name(number: int, is_snapshot: bool) -> str:
    return f"{number:012d}{'.snapshot' if is_snapshot else ''}.json"


def _changes(before: Mapping[str, str], after: Mapping[str, str], at: int) -> list[Change]:
    return [Change(name, kind, at, before.get(name, "")) for name, kind in after.items() if before.get(name) != kind]


def _said_of(said: Transaction, number: int, at: int) -> dict[str, Any]:
    head = {"clickpipe": "archive", "v": FORMAT, "version": number, "at": at}
    rest = {"add": [asdict(file) for file in said.add], "remove": list(said.remove), "forget": list(said.forget)}
    return head | rest | {"marker": dict(said.marker)} | asdict(said.shape)


def _transaction(said: Mapping[str, Any]) -> Transaction:
    files = [File(**file) for file in said["add"]]
    return Transaction(_shape(said), files, said["remove"], said["forget"], said["marker"])


def _shape(said: Mapping[str, Any]) -> Shape:
    return Shape(said["types"], said["time"], said["key"], said["revised"])


def _whole(version: Version) -> dict[str, Any]:
    head = {"clickpipe": "archive", "v": FORMAT, "version": version.number, "at": int(time.time() * 1_000)}
    rest = {"files": [asdict(file) for file in version.files.values()], "markers": dict(version.markers)}
    history = [asdict(change) for change in version.history]
    return head | rest | {"history": history, "removed": dict(version.removed)} | asdict(version.shape)


def _from_whole(said: Mapping[str, Any]) -> Version:
    files = [File(**file) for file in said["files"]]
    history = [Change(**change) for change in said["history"]]
    return Version(said["version"], {file.path: file for file in files}, _shape(said), said["markers"], history, said["removed"])


def widened(before: Shape, after: Shape) -> Shape:
    """The shape of an archive that has rows of both. Raises StateError for a column of two types that have none in common."""
    types = dict(before.types)
    for name, kind in after.types.items():
        common = common_kind(types.get(name, kind), kind)
        if common is None:
            raise StateError(f'column "{name}" is {types[name]} in the archive, and {kind} in what is added')
        types[name] = common
    return replace(
        after, types=types, key=after.key or before.key, time=after.time or before.time, revised=before.revised or after.revised
    )


def common_kind(one: str, other: str) -> str | None:
    """The type that holds the values of both, if there is one."""
    return one if one == other else "float" if {one, other} == {"int", "float"} else None
