"""A disk as a log of what was done to it, and what may be left of that when the power goes.

What fsync returned for survives. Of the rest

    an entry of a folder (a new name, a rename, a removal) may have happened or not, each by itself
    the data of a file may be missing, there, cut in the midst, there as zeros, or there in part, whatever the order

An fsync covers what was begun before it, from the moment in which it returns. A rename is there or not, never half;
it survives when the folder of the new name was synced. A file is its contents, whatever names it has had: a name
that survives may stand for a file of which nothing does.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

ROOT = 0
Tree = dict[str, bytes | None]  # paths below the root; None for a folder
FATES = ("missing", "whole", "cut", "zeros", "reordered")


@dataclass(frozen=True)
class Name:
    """`node` is there under this name from here, and under no other."""

    folder: int
    name: str
    node: int


@dataclass(frozen=True)
class NoName:
    """`node` has lost this name."""

    folder: int
    name: str
    node: int


@dataclass(frozen=True)
class Write:
    node: int
    at: int
    data: bytes


@dataclass(frozen=True)
class Length:
    node: int
    length: int


@dataclass(frozen=True)
class Sync:
    """All that was done to `node` before the operation of this number survives from here."""

    node: int
    covers: int


Operation = Name | NoName | Write | Length | Sync


@dataclass(frozen=True)
class State:
    """What a disk may hold after a power loss behind the first `cut` operations."""

    cut: int
    story: str
    tree: Tree

    def __str__(self) -> str:
        return f"power lost after operation {self.cut}; {self.story}"


@dataclass
class Disk:
    """`folders`: the nodes that are one."""

    log: list[Operation] = field(default_factory=list)
    folders: set[int] = field(default_factory=lambda: {ROOT})

    def final(self) -> Tree:
        """With all that was done."""
        cut = Cut(self, len(self.log))
        return cut.tree(set(cut.names), {}, random.Random(0))

    def states(self, cut: int, samples: int, chance: random.Random) -> Iterator[State]:
        """Some of what may be left: half with what was done to names in its order, half with any of it."""
        what = Cut(self, cut)
        for number in range(samples):
            if number % 2 == 0:
                happened = what.names[: chance.randint(0, len(what.names))]
                fates = dict.fromkeys(what.nodes, chance.choice(FATES))
            else:
                happened = [at for at in what.names if chance.random() < 0.5]
                fates = {node: chance.choice(FATES) for node in what.nodes}
            story = f"of what was done to names, {what.names}, there is {happened}; data by node: {fates}"
            yield State(cut, story, what.tree(set(happened), fates, chance))


class Cut:
    """A disk whose power goes behind the first `cut` operations: what of them is safe, and what is not."""

    def __init__(self, disk: Disk, cut: int) -> None:
        self._log, self._folders = disk.log[:cut], disk.folders
        self._safe: dict[int, int] = {}
        for operation in self._log:
            if isinstance(operation, Sync):
                self._safe[operation.node] = max(operation.covers, self._safe.get(operation.node, 0))
        unsafe = [(at, operation) for at, operation in enumerate(self._log) if not self._is_safe(at, operation)]
        self.names = [at for at, operation in unsafe if isinstance(operation, (Name, NoName))]
        self.nodes = sorted({operation.node for _, operation in unsafe if isinstance(operation, (Write, Length))})

    def _is_safe(self, at: int, operation: Operation) -> bool:
        node = operation.folder if isinstance(operation, (Name, NoName)) else operation.node
        return at < self._safe.get(node, 0)

    def tree(self, happened: set[int], fates: Mapping[int, str], chance: random.Random) -> Tree:
        """`happened`: which of the unsafe operations on names did; `fates`: of the nodes with unsafe data."""
        places: dict[int, tuple[int, str]] = {}  # where a node is
        there: dict[tuple[int, str], int] = {}
        data: dict[int, list[tuple[bool, Write | Length]]] = {}
        for at, operation in enumerate(self._log):
            if isinstance(operation, (Write, Length)):
                data.setdefault(operation.node, []).append((self._is_safe(at, operation), operation))
            elif isinstance(operation, (Name, NoName)) and (at in happened or self._is_safe(at, operation)):
                _rename(operation, places, there)
        tree: Tree = {}
        for (folder, name), node in there.items():
            path = _path(folder, name, places)
            if path is not None:
                is_folder = node in self._folders
                tree[path] = None if is_folder else _contents(data.get(node, []), fates.get(node, "whole"), chance)
        return tree


def _rename(operation: Name | NoName, places: dict[int, tuple[int, str]], there: dict[tuple[int, str], int]) -> None:
    place = (operation.folder, operation.name)
    if isinstance(operation, NoName):
        if there.get(place) == operation.node:
            del there[place], places[operation.node]
        return
    if operation.node in places:
        del there[places[operation.node]]
    if place in there:  # what stood there is replaced
        del places[there[place]]
    there[place], places[operation.node] = operation.node, place


def _path(folder: int, name: str, places: Mapping[int, tuple[int, str]]) -> str | None:
    """From the root; None below a folder that is not there."""
    while folder != ROOT:
        if folder not in places:
            return None
        folder, above = places[folder]
        name = f"{above}/{name}"
    return name


def _contents(done: Sequence[tuple[bool, Write | Length]], fate: str, chance: random.Random) -> bytes:
    safe = [operation for is_safe, operation in done if is_safe]
    rest = [operation for is_safe, operation in done if not is_safe]
    match fate:
        case "missing":
            return _applied(safe)
        case "whole":
            return _applied(safe + rest)
        case "zeros":
            before, after = _applied(safe), _applied(safe + rest)
            return after[: len(before)] + bytes(max(0, len(after) - len(before)))
        case "reordered":
            return _applied(safe + [operation for operation in rest if chance.random() < 0.5])
        case "cut":
            return _applied(safe + _cut(rest, chance))
    raise AssertionError(fate)


def _cut(rest: list[Write | Length], chance: random.Random) -> list[Write | Length]:
    """Up to somewhere within one of them."""
    if not rest:
        return []
    kept = rest[: chance.randint(1, len(rest))]
    last = kept[-1]
    if isinstance(last, Write) and last.data:
        kept[-1] = Write(last.node, last.at, last.data[: chance.randrange(len(last.data))])
    return kept


def _applied(operations: Sequence[Write | Length]) -> bytes:
    data = bytearray()
    for operation in operations:
        if isinstance(operation, Length):
            data[operation.length :] = bytes(max(0, operation.length - len(data)))
        else:
            data += bytes(max(0, operation.at - len(data)))
            data[operation.at : operation.at + len(operation.data)] = operation.data
    return bytes(data)
