"""What a pipeline has seen of its input's times, told to people: explain --live.

It stands in the newest checkpoint, or without checkpoints in lateness.json, which the last run has left at its end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from math import ceil
from typing import Any

from clickpipe.core.advice import Setting, settings
from clickpipe.core.lateness import Lateness
from clickpipe.core.skew import Spread, spread
from clickpipe.core.units import format_duration
from clickpipe.errors import PlanError, near
from clickpipe.state import observed, snapshot
from clickpipe.state.directory import StateDirectory
from clickpipe.state.home import home, pipeline_directory
from clickpipe.state.manifest import Manifest

_NOTE = """\
"loses" counts records that are behind the watermark; windows that are still open take them all the same.
"""


@dataclass(frozen=True)
class Seen:
    """`said`: as a position has it. `origin` and `when`: where it stands, and since when, in seconds."""

    pipeline: str
    origin: str
    when: float
    said: Mapping[str, Any]
    partitions: Sequence[tuple[str, Spread]] = ()  # what was said, and how records are spread

    def splits(self) -> list[Mapping[str, Any]]:
        return [split for split in self.said["splits"] if {"lateness", "ahead", "silent_since"} & set(split)]


def seen(name: str) -> Seen:
    """Raises PlanError where nothing is known, StateError for what cannot be read."""
    found = _found(name)
    if not found:
        notes = [f"there are: {', '.join(_names())}"] if _names() else [f"no pipeline has left anything under {home()}"]
        raise PlanError(f'nothing is known of a pipeline "{name}"', hint=near(name, _names()), notes=notes)
    newest = max(found, key=lambda one: one.when)
    if not newest.splits():
        raise PlanError(
            f"{name}: nothing is known of its input's times yet ({newest.origin})",
            notes=["records must have come, and ingest must know their times: --time FIELD"],
        )
    return newest


def _found(name: str) -> list[Seen]:
    path = pipeline_directory(name)
    directory, found = StateDirectory(path), list[Seen]()
    for manifest in directory.manifests():
        if position := manifest.entry(0, "source"):  # the last checkpoint of a run that a limit ended has none
            when = _written(directory.path_of(manifest.epoch, "MANIFEST.json"))
            told = {"out_of_orderness": 0, **position}
            found.append(Seen(name, f"checkpoint {manifest.epoch}", when, told, _partitions(directory, manifest)))
            break
    if said := observed.kept(path):
        found.append(Seen(name, "end of its last run", _written(os.path.join(path, observed.NAME)), said))
    return found


def _partitions(directory: StateDirectory, manifest: Manifest) -> list[tuple[str, Spread]]:
    """Of each partition."""
    found = []
    for entry, workers in manifest.partitions():
        if workers and (state := manifest.entry(entry["hop"], "state")):
            tables = snapshot.from_bytes(directory.read(manifest.epoch, state))
            found.append((f"partition {entry['says']}", spread(tables, workers)))
    return found


def _written(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:  # a newer checkpoint has taken its place just now
        return time.time()


def _names() -> list[str]:
    folder = os.path.join(home(), "pipelines")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [name for name in names if any(os.path.exists(os.path.join(folder, name, one)) for one in ("epochs", observed.NAME))]


# For people.


def as_text(seen: Seen) -> str:
    splits = seen.splits()
    age = format_duration(1_000 * max(0, round(time.time() - seen.when)))
    lines = [f"{seen.pipeline}: {seen.origin}, {age} ago"]
    if len(splits) > 1:
        lines += _told(f"all {len(splits)} splits", {"lateness": _whole(splits).to_json()}, seen.said["out_of_orderness"])
    for split in splits:
        lines += _told(split["name"], split, seen.said["out_of_orderness"])
    lines += [line for said, found in seen.partitions for line in _spread_told(said, found)]
    return "\n".join(lines) + "\n" + _NOTE


def _whole(splits: list[Mapping[str, Any]]) -> Lateness:
    return Lateness.merged(Lateness.from_json(split["lateness"]) for split in splits if "lateness" in split)


def _told(name: str, split: Mapping[str, Any], in_force: int) -> Iterator[str]:
    sketch = Lateness.from_json(split["lateness"]) if "lateness" in split else Lateness()
    share = f"{_percent(sketch.disordered / max(sketch.records, 1))} out of order"
    most = f", at most {format_duration(_at_least(sketch.greatest))} behind" if sketch.disordered else ""
    yield f"{name}: {sketch.records:,} records, {share}{most}"
    if "silent_since" in split:
        yield f"  idle: silent since {_spelled(split['silent_since'])}; the watermark does not wait for it"
    if "ahead" in split:
        ahead = split["ahead"]
        count = f"{ahead['records']:,} record{'s' if ahead['records'] > 1 else ''}"
        yield f"  {count} too far in the future, up to {_rough(ahead['furthest'])} ahead: dead letters"
    if sketch.disordered:
        yield from _table(settings(sketch, in_force))


def _spread_told(said: str, found: Spread) -> Iterator[str]:
    loads = ", ".join(_share(load, found) for load in found.loads)
    yield f"{said}: {found.records:,} records to {len(found.loads)} workers: {loads}; skew {found.factor:.2f}"
    if found.hottest:
        yield f"  hottest keys: {', '.join(f'{key} {_share(count, found)}' for key, count in found.hottest)}"


def _share(count: int, found: Spread) -> str:
    return f"{100 * count / max(found.records, 1):.1f} %"


def _table(settings: list[Setting]) -> Iterator[str]:
    delays = ["--max-out-of-orderness", *(format_duration(setting.delay) for setting in settings)]
    losses = ["loses at most", *(_percent(setting.loses_at_most) for setting in settings)]
    notes = ["", *("  in force" if setting.in_force else "" for setting in settings)]
    for delay, loss, note in zip(delays, losses, notes, strict=True):
        yield f"  {delay:>{max(map(len, delays))}}  {loss:>{max(map(len, losses))}}{note}"


def _percent(share: float) -> str:
    """Rounded up, so that it is never less."""
    return "none" if not share else f"{ceil(round(share * 10_000, 6)) / 100:.2f} %"


def _at_least(milliseconds: int) -> int:
    """In whole seconds where it is many."""
    return milliseconds if milliseconds < 10_000 else -(-milliseconds // 1_000) * 1_000


def _spelled(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _rough(milliseconds: int) -> str:
    """Years, days, or a duration in whole seconds."""
    days = milliseconds // 86_400_000
    if days >= 730:
        return f"{days // 365} years"
    return f"{days} days" if days >= 2 else format_duration(max(1_000, milliseconds // 1_000 * 1_000))


# For programs.


def to_json(seen: Seen) -> dict[str, Any]:
    splits, in_force = seen.splits(), seen.said["out_of_orderness"]
    return {
        "pipeline": seen.pipeline,
        "from": seen.origin,
        "when": _spelled(int(seen.when * 1_000)),
        "max_out_of_orderness": in_force,
        "all": _object({"lateness": _whole(splits).to_json()}, in_force),
        "splits": [{"name": split["name"], **_object(split, in_force)} for split in splits],
        "partitions": [{"step": said, **asdict(found), "skew": round(found.factor, 4)} for said, found in seen.partitions],
    }


def _object(split: Mapping[str, Any], in_force: int) -> dict[str, Any]:
    sketch = Lateness.from_json(split["lateness"]) if "lateness" in split else Lateness()
    return {
        "records": sketch.records,
        "out_of_order": sketch.disordered,
        "greatest": sketch.greatest,
        "settings": [asdict(setting) for setting in settings(sketch, in_force)],
        **{key: split[key] for key in ("silent_since", "ahead") if key in split},
    }
