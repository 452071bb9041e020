"""A manifest: what a checkpoint consists of. Its appearance under its name is the commit.

    {"clickpipe":"manifest","v":1,"pipeline":"clicks","run":7,"epoch":42,"ended":false,
     "accounts":[{"read":10}],"steps":[{"hop":0,"step":"ingest","says":"…","source":{…}},
     {"hop":2,"step":"aggregate","says":"…","state":{"file":"2-aggregate.7.9f86….state","bytes":812,"hash":"9f86…"}},
     {"hop":1,"append":{"file":"1-late.ndjson","bytes":80,"hash":"…","to":"/…/late.ndjson","at":160}},
     {"hop":3,"step":"sink","says":"…","staged":{…}}]}
    9f86d081884c7d659a2feaa0c55ad015

The second line is the BLAKE2b hash (16 bytes) of the first, its newline included: a manifest that is torn
or changed is none. `steps` are the entries that the barrier collected on its way down the pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b, file_digest
from io import BufferedReader
from typing import Any

import orjson

VERSION = 1
Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """A complete checkpoint. `ended`: the input had ended, and nothing is left to do."""

    pipeline: str
    run: int
    epoch: int
    steps: Sequence[Entry]
    accounts: Sequence[Mapping[str, int]] = field(default=())
    ended: bool = False
    lengths: Mapping[str, int] = field(default_factory=dict)  # of the late and dead-letter files, with this checkpoint

    def entry(self, hop: int, key: str) -> Any:
        """What the step at this place said under this key."""
        return next((entry[key] for entry in self.all_of(hop, key)), None)

    def all_of(self, hop: int, key: str) -> list[Entry]:
        """What the step at this place said that has this key; several where workers ran it."""
        return [entry for entry in self.steps if entry["hop"] == hop and key in entry]

    def partitions(self) -> list[tuple[Entry, int]]:
        """What each said, in their order, and how many workers it had: those that have run the step behind it."""
        found = sorted((entry for entry in self.steps if entry.get("step") == "partition"), key=lambda entry: entry["hop"])
        return [(entry, len([one for one in self.all_of(entry["hop"] + 1, "step") if "worker" in one])) for entry in found]

    def files(self) -> list[Entry]:
        """All that it names in its folder, each with its length and hash."""
        named = [entry[key] for entry in self.steps for key in ("state", "append") if key in entry]
        rows = [entry["staged"].get("rows") for entry in self.steps if "staged" in entry]
        return named + [file for file in rows if isinstance(file, Mapping)]

    def to_bytes(self) -> bytes:
        return sealed(orjson.dumps({"clickpipe": "manifest", "v": VERSION, **asdict(self)}) + b"\n")

    @staticmethod
    def from_bytes(data: bytes) -> Manifest | None:
        """None for what is no whole manifest. Raises KeyError for one of another version."""
        line = unsealed(data)
        if line is None:
            return None
        said = orjson.loads(line)
        if said["v"] != VERSION:
            raise KeyError(said["v"])
        known = {name: said[name] for name in ("pipeline", "run", "epoch", "steps", "accounts", "ended")}
        return Manifest(**known, lengths=said.get("lengths", {}))


def sealed(line: bytes) -> bytes:
    """A line with its newline, and its hash in a second one: torn or changed, it is none."""
    return line + digest(line).encode() + b"\n"


def unsealed(data: bytes) -> bytes | None:
    """The line, without its newline; None where it is not whole."""
    line, newline, rest = data.partition(b"\n")
    return line if rest == digest(line + newline).encode() + b"\n" else None


def digest(data: bytes) -> str:
    """The hash that all files of a checkpoint are known by."""
    return blake2b(data, digest_size=16).hexdigest()


def digest_of(file: BufferedReader) -> str:
    """The same of a whole file, piece by piece."""
    return file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()
