"""What a log is: its name, how many partitions it has, and where each begins by now.

log.json    {"clickpipe":"log","v":1,"id":"5a1e…","partitions":2,"by":["user"],"starts":[0,73411],"before":[]}
            hash of that line

"before"    [{"id":"77c0…","ends":[9120,8004]}]    of each repair: the id before it, and how many bytes of each partition's
            text it has left as they were
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from clickpipe.errors import PlanError, StateError
from clickpipe.state.files import make_folder, sync_way, write_whole
from clickpipe.state.home import home
from clickpipe.state.manifest import sealed, unsealed
from clickpipe.state.space import NO_PATIENCE, Patience
from clickpipe.state.trust import check_folder, check_no_links, read_own

FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_META = "log.json"


@dataclass(frozen=True)
class Meta:
    """What is fixed of a log, `starts`: the first record that each partition still has, and what its repairs have left."""

    id: str
    partitions: int
    by: Sequence[str]
    starts: Sequence[int]
    before: Sequence[Mapping[str, Any]] = ()

    def id_at(self, number: int, text: int) -> str:
        """The log's id, as it was before the repairs that have left what is before this byte of a partition as it was."""
        return next((str(one["id"]) for one in self.before if text <= one["ends"][number]), self.id)

    def ids(self) -> set[str]:
        return {self.id, *(str(one["id"]) for one in self.before)}

    def repaired(self, starts: Sequence[int], ends: Sequence[int]) -> Meta:
        """After a repair, which has left so many bytes of text. Whoever had read more is told that this is another log."""
        before = [{**one, "ends": [min(pair) for pair in zip(one["ends"], ends, strict=True)]} for one in self.before]
        before.append({"id": self.id, "ends": list(ends)})
        return replace(self, id=secrets.token_hex(16), starts=tuple(starts), before=tuple(before))

    def to_bytes(self) -> bytes:
        return sealed(orjson.dumps({"clickpipe": "log", "v": FORMAT, **asdict(self)}) + b"\n")


def folder() -> str:
    return os.path.join(home(), "logs")


def path_of(name: str) -> str:
    """Raises PlanError for a name that could lead elsewhere."""
    if not _NAME.fullmatch(name):
        raise PlanError(f"a log cannot be called {name!r}", hint="letters, digits, _ and -", word=name)
    return os.path.join(folder(), name)


def names() -> list[str]:
    """All logs there are."""
    try:
        found = os.listdir(folder())
    except FileNotFoundError:
        return []
    return sorted(name for name in found if _NAME.fullmatch(name) and os.path.exists(os.path.join(folder(), name, _META)))


def meta_of(path: str) -> Meta | None:
    """None where there is no log. Raises StateError for one that is damaged, or of a later format."""
    try:
        line = unsealed(read_own(os.path.join(path, _META)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    if line is None:
        hint = f"clickpipe log repair {os.path.basename(path)} makes it again from the segments"
        raise StateError(f"{os.path.join(path, _META)} is damaged", hint=hint)
    said = orjson.loads(line)
    if said["v"] > FORMAT:
        raise StateError(f"{path} was written by a newer clickpipe (format {said['v']}; this one knows {FORMAT})")
    return Meta(said["id"], said["partitions"], tuple(said["by"]), tuple(said["starts"]), tuple(said.get("before", ())))


def write_meta(path: str, meta: Meta, patience: Patience = NO_PATIENCE) -> None:
    write_whole(os.path.join(path, _META), meta.to_bytes(), "log", patience)


def made(name: str, partitions: int | None, by: Sequence[str], patience: Patience = NO_PATIENCE) -> Meta:
    """A log that is there, or is made now. Raises PlanError where it is there and has other partitions."""
    path = path_of(name)
    meta = meta_of(path)
    if meta is None:
        meta = _new(path, partitions or 1, by, patience)
    check_no_links(path)
    if meta.partitions > 1 and not meta.by:
        meta = _named_again(name, path, meta, by, patience)
    if (partitions or meta.partitions) != meta.partitions or (by and tuple(by) != tuple(meta.by)):
        has = f"{meta.partitions} by {','.join(meta.by)}" if meta.by else str(meta.partitions)
        raise PlanError(f"log {name} has {has} partitions for its whole life", hint="another log, or none of these options")
    return meta


def _new(path: str, partitions: int, by: Sequence[str], patience: Patience) -> Meta:
    check_folder(path)
    for number in range(partitions):
        make_folder(os.path.join(path, str(number)), patience)
        sync_way(os.path.join(path, str(number)))
    check_no_links(path)
    meta = Meta(secrets.token_hex(16), partitions, tuple(by), (0,) * partitions)
    write_meta(path, meta, patience)
    return meta


def _named_again(name: str, path: str, meta: Meta, by: Sequence[str], patience: Patience) -> Meta:
    """The columns by which a log is divided were lost with its log.json."""
    if not by:
        raise PlanError(f"log {name} was repaired, and by which columns it is divided was lost", hint="--by COL,…", word="--by")
    meta = replace(meta, by=tuple(by))
    write_meta(path, meta, patience)
    return meta
