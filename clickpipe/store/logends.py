"""The segments of a partition on disk, and where the last one ends: the place of the next batch."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from clickpipe.errors import StateError
from clickpipe.state.trust import link_refused
from clickpipe.store.segments import HEAD, Head, Unpacker, has_head, head_of, heads, index_end, indexed

_SUFFIX = ".ndjson.zst"
_SEGMENT = re.compile(rf"(\d{{20}}){re.escape(_SUFFIX)}", re.ASCII)


def bases(path: str) -> list[int]:
    """The numbers of the first records of a partition's segments. Raises StateError where its folder is gone."""
    try:
        found = os.listdir(path)
    except FileNotFoundError:
        hint = f"put it back from a copy, or clickpipe log repair {_log_of(path)} begins the partition anew"
        raise StateError(f"{path} is gone, and it is a partition of a log", hint=hint) from None
    return sorted(int(match[1]) for name in found if (match := _SEGMENT.fullmatch(name)))


def segment(path: str, base: int) -> str:
    return os.path.join(path, f"{base:020d}{_SUFFIX}")


def open_segment(path: str) -> int:
    """To read. Raises FileNotFoundError, PlanError for a link."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise link_refused(path) from None
        raise


@dataclass(frozen=True)
class Place:
    """Where the next batch of a partition goes: in the segment that begins with record `base`, `at` so many bytes."""

    base: int
    at: int
    offset: int
    text: int

    def after(self, head: Head) -> Place:
        return Place(self.base, self.at + head.size, head.next, head.text + head.length)

    def to_json(self) -> Mapping[str, Any]:
        return asdict(self)


def end_of_segment(title: str, path: str, base: int) -> Place:
    """Where the last segment ends. Its index is believed as far as it goes; then the segment is looked through.

    Raises StateError where what was acknowledged is not there, or something whole stands behind what is not.
    """
    name = segment(path, base)
    file = open_segment(name)
    try:
        place = _known_end(title, path, base, file)
        size = os.fstat(file).st_size
        for at, head in heads(file, place.at, size):
            if head.offset != place.offset or Unpacker().text(head, os.pread(file, head.packed, at + HEAD)) is None:
                break
            place = place.after(head)
        if place.at < size and has_head(file, place.at + 1, size):
            raise damage(title, name, place.at, size, place.offset)
        return place
    finally:
        os.close(file)


def _known_end(title: str, path: str, base: int, file: int) -> Place:
    """The end of what the index knows. Where its sum leads to its last head it is right, whatever became of the others.

    The segment is measured behind each look at the index: somebody may write, and what the index knows stands there by then.
    """
    name = segment(path, base)
    if (found := index_end(name)) and found[0] <= os.fstat(file).st_size and is_before(file, *found):
        return Place(base, found[0], found[1].next, found[1].text + found[1].length)
    known = indexed(name)
    if not known:
        return Place(base, 0, base, first_text(title, path, base, file))
    at, size = sum(head.size for head in known), os.fstat(file).st_size
    if at > size or not is_before(file, at, known[-1]):
        raise damage(title, name, min(at, size), size, known[-1].next)
    return Place(base, at, known[-1].next, known[-1].text + known[-1].length)


def first_text(title: str, path: str, base: int, file: int) -> int:
    """Where the text of a segment begins in the partition's."""
    first = head_of(os.pread(file, HEAD, 0))
    if first is not None:
        return first.text
    before = [one for one in bases(path) if one < base]
    return end_of_segment(title, path, before[-1]).text if before else 0


def is_before(file: int, end: int, head: Head) -> bool:
    """Whether the batch that ends there is this one."""
    return end >= head.size and head_of(os.pread(file, HEAD, end - head.size)) == head


def damage(title: str, path: str, at: int, end: int, offset: int) -> StateError:
    where = f"between bytes {at:,} and {end:,}, from record {offset:,} on"
    return StateError(f"{title}: {path} is damaged {where}", notes=_ways(path))


def missing(title: str, path: str, offset: int, following: int | None) -> StateError:
    """`path`: of the partition; `following`: the first record behind those that are missing, if there is one."""
    upto = "" if following is None else f" up to {following:,}"
    notes = _ways(os.path.join(path, "segment"))
    return StateError(f"{title}: its segments from record {offset:,} on{upto} are missing in {path}", notes=notes)


def _ways(path: str) -> list[str]:
    name = _log_of(os.path.dirname(path))
    return [
        "either put it back from a copy,",
        f"or clickpipe log repair {name} keeps what is before it, and puts the rest aside",
    ]


def _log_of(partition: str) -> str:
    return os.path.basename(os.path.dirname(partition))
