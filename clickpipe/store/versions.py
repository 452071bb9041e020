"""What an archive consists of: numbered versions, each in a file that is whole or not there.

    archives/clicks/_versions/
        000000000041.json            what version 41 added and took away, and what the columns are since then
        000000000064.snapshot.json   all there is with version 64; versions before it are not needed any more
        …                            each with its hash in a second line (state/manifest.py), as clickpipe-archive(5) has it

    {"clickpipe":"archive","v":1,"version":41,"at":1772355600000,
     "add":[{"path":"day=2026-03-01/clicks-9f86d081-000000000042-0.parquet","rows":1000,"bytes":20480,"hash":"…",
             "least":1772323200000,"greatest":1772409599999,"writer":"clicks","lineage":"9f86d081…","types":{"ts":"int",…},
             "after":41,"newest":41,"time":"ts","numbers":null}],
     "remove":[],"forget":[],"marker":{"9f86d081…":42},
     "types":{"ts":"int",…},"time":{"column":"ts","unit":"ms"},"key":[],"revised":false}

A version is made under an exclusive lock, from the newest one; readers take none. A file that was removed stays for some time
under a name that begins with a point, for readers that know an older version; `forget` are those that are gone for good.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
_SNAPSHOTS = 64  # versions from one to the next, at least, and more where there are many files:
_SHARE = 64  # then a snapshot is written for as many versions as it takes to add one file in so many
_VERSION = re.compile(r"(\d{12})(\.snapshot)?\.json")
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
    time: str | None = None  # the column that its times are of
    numbers: Sequence[int] | None = None  # least and greatest as the column has them, where it does not count milliseconds


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
    at: int = 0  # when it was made; epoch milliseconds

    def then(self, changes: Iterable[tuple[Transaction, int]]) -> Version:
        """The version behind these transactions, each with its time."""
        number, shape, newest = self.number, self.shape, self.at
        files, removed = dict(self.files), dict(self.removed)
        markers, history = dict(self.markers), list(self.history)
        for said, at in changes:
            for path in said.remove:
                files.pop(path, None)
            files |= {file.path: file for file in said.add}
            removed.update(dict.fromkeys(said.remove, at))
            for path in (*said.forget, *(file.path for file in said.add)):
                removed.pop(path, None)
            markers |= said.marker
            history += _changes(shape.types, said.shape.types, at)
            number, shape, newest = number + 1, said.shape, at
        return Version(number, files, shape, markers, history, removed, newest)


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

    def commit(self, make: Callable[[Version], Transaction | None], tidy: Callable[[Version], None] = lambda _: None) -> Version:
        """The version that `make` makes of the newest one; None: it stays. `tidy` is called with what there is then.

        Nobody else makes one meanwhile. Raises DiskError.
        """
        with self.locked():
            now = self.newest()
            said = make(now)
            now = now if said is None else self._written(now, said)
            tidy(now)
            return now

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else makes a version meanwhile. Raises DiskError."""
        make_folder(self._folder, self._patience)
        lock = hold_patiently(os.path.join(self._archive, "lock"), self._patience)
        try:
            yield
        finally:
            os.close(lock)

    def _written(self, now: Version, said: Transaction) -> Version:
        at = int(time.time() * 1_000)
        after = now.then([(said, at)])
        self._write(_name(after.number, False), _said_of(said, after.number, at))
        kill_point("after-version")
        self._known = after
        snapshots = [number for number, is_snapshot in self._names() if is_snapshot]
        if after.number - max(snapshots, default=0) >= max(_SNAPSHOTS, len(after.files) // _SHARE):
            self._write(_name(after.number, True), _whole(after))
            kill_point("after-version-snapshot")
            self._retire(max(snapshots, default=0))
        return after

    def _write(self, name: str, said: Mapping[str, Any]) -> None:
        data = sealed(orjson.dumps(said) + b"\n")
        write_whole(os.path.join(self._folder, name), data, "version", self._patience)

    def _retire(self, before: int) -> None:
        """What the snapshot before the newest has made superfluous."""
        for number, is_snapshot in self._names():
            if number < before or (number == before and not is_snapshot):
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
        changes = []
        for number in range(version.number + 1, newest + 1):
            if number not in there:
                raise self._gone(number)
            said = self._load(_name(number, False))
            changes.append((_transaction(said), said["at"]))
        return version.then(changes) if changes else version

    def _gone(self, number: int) -> Exception:
        """A version that is missing: it is looked again where it has come meanwhile, or a snapshot has taken its place."""
        if any((one >= number and is_snapshot) or one == number for one, is_snapshot in self._names()):
            return FileNotFoundError(number)
        return StateError(f"{os.path.join(self._folder, _name(number, False))} is gone", notes=_WAYS_OUT)

    def _load(self, name: str) -> dict[str, Any]:
        path = os.path.join(self._folder, name)
        line = unsealed(read_own(path))
        if line is None:
            raise StateError(f"{path} is damaged", notes=_WAYS_OUT)
        said: dict[str, Any] = orjson.loads(line)
        if said["v"] > FORMAT:
            raise StateError(f"{path} was written by a newer clickpipe (format {said['v']}; this one knows {FORMAT})")
        if said["version"] != int(name.partition(".")[0]):
            raise StateError(f"{path} is version {said['version']} of an archive", notes=_WAYS_OUT)
        return said

    def _names(self) -> list[tuple[int, bool]]:
        """Numbers, and whether each is a snapshot."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        found = [match for name in names if (match := _VERSION.fullmatch(name))]
        return sorted((int(match[1]), match[2] is not None) for match in found)


_WAYS_OUT = ("either put it back from a copy,", "or move the archive away and fill a new one: clickpipe backfill, or replay")


def _name(number: int, is_snapshot: bool) -> str:
    return f"{number:012d}{'.snapshot' if is_snapshot else ''}.json"


def _changes(before: Mapping[str, str], after: Mapping[str, str], at: int) -> list[Change]:
    return [Change(name, kind, at, before.get(name, "")) for name, kind in after.items() if before.get(name) != kind]


def _said_of(said: Transaction, number: int, at: int) -> dict[str, Any]:
    head = {"clickpipe": "archive", "v": FORMAT, "version": number, "at": at}
    rest = {"add": list(said.add), "remove": list(said.remove), "forget": list(said.forget), "marker": dict(said.marker)}
    return head | rest | said_of(said.shape)


def said_of(shape: Shape) -> dict[str, Any]:
    """As JSON."""
    time = dict(shape.time) if shape.time else None
    return {"types": dict(shape.types), "time": time, "key": list(shape.key), "revised": shape.revised}


def _transaction(said: Mapping[str, Any]) -> Transaction:
    files = [File(**file) for file in said["add"]]
    return Transaction(_shape(said), files, said["remove"], said["forget"], said["marker"])


def _shape(said: Mapping[str, Any]) -> Shape:
    return Shape(said["types"], said["time"], tuple(said["key"]), said["revised"])


def _whole(version: Version) -> dict[str, Any]:
    head = {"clickpipe": "archive", "v": FORMAT, "version": version.number, "at": version.at}
    rest = {"files": list(version.files.values()), "markers": dict(version.markers)}
    return head | rest | {"history": list(version.history), "removed": dict(version.removed)} | said_of(version.shape)


def _from_whole(said: Mapping[str, Any]) -> Version:
    files = [File(**file) for file in said["files"]]
    history = [Change(**change) for change in said["history"]]
    by_path = {file.path: file for file in files}
    return Version(said["version"], by_path, _shape(said), said["markers"], history, said["removed"], said["at"])


def widened(before: Shape, after: Shape) -> Shape:
    """The shape of an archive that has rows of both. Raises StateError for a column of two types that have none in common."""
    types = dict(before.types)
    for name, kind in after.types.items():
        common = common_kind(types.get(name, kind), kind)
        if common is None:
            raise StateError(f'column "{name}" is {types[name]} in the archive, and {kind} in what is added')
        types[name] = common
    return replace(
        after,
        types=types,
        key=tuple(after.key or before.key),
        time=before.time or after.time,
        revised=before.revised or after.revised,
    )


def common_kind(one: str, other: str) -> str | None:
    """The type that holds the values of both, if there is one."""
    return one if one == other else "float" if {one, other} == {"int", "float"} else None
