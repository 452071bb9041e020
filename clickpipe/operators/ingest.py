"""Raw input -> stream: event time, watermarks, bad lines.

Shape: the input's fields, and `_time` where the time field is not epoch milliseconds or another
epoch integer, and `_mark` on late records. Order: as in the input; several files one after the
other, by the time of their first record. Memory: some blocks of --batch-bytes.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from clickpipe.batch import Batch, Dead
from clickpipe.columns import RESERVED, TYPES, Columns, TimeColumn, can_be_named, check_new
from clickpipe.core.address import part_of
from clickpipe.core.catalog import Catalog
from clickpipe.core.format import SAMPLE, Format, Wants
from clickpipe.core.operator import Feed, Pull
from clickpipe.core.option import Duration, Size, argument, option
from clickpipe.core.reading import blocks, parsed
from clickpipe.core.source import Source, Split
from clickpipe.core.step import SourceStep
from clickpipe.core.time import UNITS, SplitClock, instants
from clickpipe.core.units import format_duration
from clickpipe.errors import DataError, PlanError, StateError
from clickpipe.lines import Block
from clickpipe.wire.frames import Barrier

SOURCES = Catalog("clickpipe.sources", "source")
FORMATS = Catalog("clickpipe.formats", "format")
_WORKERS = 2
_PACKED = {b"\x1f\x8b": "zcat", b"\x28\xb5\x2f\xfd": "zstdcat"}  # by the first bytes
_QUIET = 0.2  # seconds without a byte after which a live input is judged by what has come
_ENOUGH = 16 << 20  # bytes of a file that are searched for its first time
_CSV = re.compile(r"\.csv(\.gz|\.zst)?$")


@dataclass(frozen=True)
class Ingest(SourceStep):
    source: tuple[str, ...] = argument("files, globs, or - for standard input", metavar="SOURCE")
    time: str | None = option("field that holds event time", default=None, example="ts", metavar="FIELD")
    time_unit: str = option(
        "unit of a numeric time; auto tells them apart by magnitude", default="auto", choices=("auto", *UNITS)
    )
    time_zone: str = option("zone of times without one", default="UTC", example="Europe/Berlin")
    max_out_of_orderness: Duration = option(
        "how far a record may be behind the newest before it is late",
        default=Duration(0),
        example="5s",
        aliases=("--watermark-delay",),
    )
    max_future_skew: Duration | None = option(
        "a time further ahead than this is a dead letter; files: off, live: 1h", default=None, example="1h"
    )
    format: str | None = option("format of the input; by default csv for *.csv, else ndjson", default=None, metavar="FORMAT")
    columns: str | None = option(
        "take these columns instead of inferring them from the first 1,000 records", default=None, example="ts:int,page:str"
    )
    strict: bool = option("judge the types of all columns here, not where one is first used", default=False)
    name: str | None = option("name of the pipeline; its state lives under it", default=None)
    dead_letter: str | None = option(
        "file for bad records, instead of dead.ndjson in the state directory", default=None, metavar="FILE"
    )
    max_errors: str | None = option(
        "stop with exit code 65 after more bad records than N or P%", default=None, example="100", metavar="N|P%"
    )
    checkpoint: Duration | None = option(
        "save the pipeline's state this often, so that a killed run goes on from there", default=None, example="1s"
    )
    reset: bool = option("begin anew; what earlier runs saved is put aside", default=False)
    allow_fs: bool = option(
        "keep state on a network file system too, which is refused otherwise: its locks and its fsync promise less", default=False
    )
    batch_bytes: Size = option("a batch is about this large", default=Size(8 << 20), example="8MiB")
    max_latency: Duration = option("never wait longer than this for a batch to fill", default=Duration(50), example="50ms")

    harmless = frozenset({"checkpoint", "reset", "allow_fs", "batch_bytes", "max_latency", "max_errors", "dead_letter", "name"})
    later = {
        "--follow": "following growing files is not in this version",
        "--spool": "the durable log is not in this version",
        "--from": "starting elsewhere than at the beginning is not in this version",
        "--until": "stopping before the end is not in this version",
        "--idle-timeout": "idle splits come with --follow",
        "--on-idle": "idle splits come with --follow",
    }
    epilog = """\
Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts --max-out-of-orderness 5s | clickpipe limit 3
  cat sample_data/access.log | clickpipe ingest - --format combined | clickpipe filter "status >= 500" | clickpipe sink -
  clickpipe ingest 'sample_data/access*' --format combined | clickpipe limit 2 | clickpipe sink -

A line that is bad never takes its neighbours with it: it becomes a dead letter and is counted.

With --checkpoint a full disk does not end the run: it pauses, says what waits for space, and goes on by itself."""

    def open(self, saved: Mapping[str, Any] | None = None) -> IngestFeed:
        """`saved`: the position of an earlier run, where this one goes on. Raises StateError if the input is another."""
        if self.checkpoint is not None and self.checkpoint <= 0:
            raise PlanError("--checkpoint must be longer than 0s", word="--checkpoint")
        try:
            ZoneInfo(self.time_zone)
        except (KeyError, ValueError, OSError):
            raise PlanError(f'no time zone "{self.time_zone}"', hint="as in Europe/Berlin", word=self.time_zone) from None
        return IngestFeed(self, saved=saved)

    def pipeline(self) -> str:
        """Its name, by which its state is kept."""
        return self.name or _pipeline_name(_splits(self.source)[0].name)

    def describe(self, given: Columns) -> str:
        delay = f", {format_duration(self.max_out_of_orderness)} out of order" if self.time else ""
        return f"event time {self.time}{delay}" if self.time else "no event time"

    def memory(self) -> str:
        return f"about five batches of {self.batch_bytes >> 20} MiB"


class IngestFeed(Feed):
    """Reads the splits, one after the other, in the order of their first event times.

    `epochs`: with checkpoints, the numbers of those to come.
    """

    epochs: Iterator[int] | None = None

    def __init__(self, step: Ingest, splits: list[Split] | None = None, saved: Mapping[str, Any] | None = None) -> None:
        self._step = step
        self._splits = splits or _splits(step.source)
        self._format: Format = FORMATS.find(_format_name(step, self._splits), Format)()
        self.floats = set()
        self._wants = Wants(None, True, self.floats)
        self._raw_time = step.time or self._format.time
        self._starts: dict[int, int] = {}
        self._open: dict[int, Iterator[Block]] = {}
        self.inherited = []
        self.pipeline = step.name or _pipeline_name(self._splits[0].name)
        self.is_live = any(split.is_live for split in self._splits)
        self._offsets: dict[int, int] = {}
        self._identities: dict[int, Mapping[str, Any]] = {}  # of splits that were read to their end
        self._clocks: dict[int, SplitClock] = {}
        self._done: list[int] = []
        self._reached: int | None = None
        self._order: list[int] | None = None
        self._raw_columns = (
            self._restored(saved) if saved else self._with_time(self._declared() if step.columns else self._inferred())
        )
        self.columns = self._streamed(self._raw_columns)
        if splits is None:
            self._check_reserved()

    # What the columns are.

    def _declared(self) -> Columns:
        assert self._step.columns is not None
        types: dict[str, str] = {}
        for part in self._step.columns.split(","):
            name, colon, kind = part.strip().rpartition(":")
            if not colon or kind not in TYPES or kind == "time":
                known = ", ".join(t for t in TYPES if t != "time")
                raise PlanError(f'"{part.strip()}" is not NAME:TYPE; types are {known}', word=self._step.columns)
            check_new(name, self._step.columns)
            types[name] = kind
        if not self._format.has_text:
            inferred = self._inferred().types
            types = {name: types.get(name, kind) for name, kind in inferred.items()}
        return Columns(types, frozenset(types))

    def _inferred(self) -> Columns:
        sample: list[Block] = []
        for number in range(len(self._splits)):
            taken: list[Block] = []
            if inbox := self._splits[number].inbox():  # the sample must not depend on how much a first read brings
                inbox.gather(SAMPLE, _QUIET)
            stream = self._blocks(number)
            for block in stream:
                taken.append(block)
                has_some = self._splits[number].is_live and any(block.data for block in taken)  # more than a header line
                if has_some or _line_count(sample + taken) >= SAMPLE:
                    break
            self._open[number] = chain(taken, stream)
            sample += taken
            if _line_count(sample) >= SAMPLE:
                break
        types = self._nameable(self._format.infer(sample))
        if not types and any(b"\0" in block.data[:4096] for block in sample):
            packed = next((tool for magic, tool in _PACKED.items() if sample[0].data.startswith(magic)), "")
            hint = f"unpack it before: {packed} FILE | clickpipe ingest - …" if packed else ""
            raise DataError(f"{self._splits[0].name} is binary, not {_format_name(self._step, self._splits)}", hint=hint)
        return Columns(types)

    def _nameable(self, types: dict[str, str]) -> dict[str, str]:
        """Fields that can be columns. In NDJSON the others stay what they are: text that nobody looks at."""
        for name in types:
            if not can_be_named(name) and not self._format.has_text:
                raise DataError(f'a column cannot be called "{name}"')
        return {name: kind for name, kind in types.items() if can_be_named(name)}

    def _with_time(self, columns: Columns) -> Columns:
        name = self._raw_time
        if name is None:
            return columns
        if name not in columns.types:
            if not columns.types:  # nothing was read that says otherwise
                return replace(columns.add({name: "int"}), time=TimeColumn(name, self._step.time_unit))
            raise columns.unknown(name, " for --time", "the input has")
        if columns.types[name] not in ("int", "float", "str"):
            raise PlanError(f'column "{name}" is {columns.types[name]}, which is no time', word=name)
        return replace(columns, time=TimeColumn(name, self._step.time_unit))

    def _streamed(self, raw: Columns) -> Columns:
        """What the next step sees: event time as an integer."""
        if raw.time is None or raw.types[raw.time.name] == "int":
            return raw
        return replace(raw.add({"_time": "int"}), time=TimeColumn("_time", "ms"))

    def _check_reserved(self) -> None:
        for name in RESERVED:
            if name in self._raw_columns.types:
                raise DataError(f'the input has a field "{name}", a name that clickpipe reserves: rename it first')

    # What the records are.

    def want(self, names: list[str] | None, text: bool) -> None:
        if self._step.strict:
            names = None
        if names is not None:
            names = [name for name in self._raw_columns.types if name in names or name == self._raw_time]
        elif self._format.has_text:
            names = list(self._raw_columns.types)
        self._wants = Wants(names, text, self.floats)

    def pulls(self) -> Iterator[Pull]:
        self._order = self._order or self._in_order(list(range(len(self._splits))))
        due, is_new = time.monotonic() + self._interval(), False
        for at, number in enumerate(self._order):
            if number in self._done:
                continue
            clock = self._clocks.setdefault(number, SplitClock(self._step.max_out_of_orderness, self._skew(number)))
            held = [self._starts[later] for later in self._order[at + 1 :] if later in self._starts]
            for batch, dead, read, end in self._read(number):
                pull = self._judged(batch, clock, dead, read, self._splits[number].is_live)
                bound = min([mark - self._step.max_out_of_orderness for mark in held], default=clock.watermark)
                if clock.watermark is not None and bound is not None:
                    self._reached = max(min(clock.watermark, bound), self._reached if self._reached is not None else bound)
                pull.watermark = self._reached
                self._offsets[number] = end
                is_new |= read > 0
                if self.epochs and is_new and time.monotonic() >= due:
                    pull.barrier, is_new = self._barrier(self.epochs), False
                    due = time.monotonic() + self._interval()
                yield pull
            self._identities[number] = self._splits[number].identity(self._offsets.get(number, 0)) if self.epochs else {}
            self._splits[number].close()
            self._done.append(number)
        if self.epochs:
            self.last = self._barrier(self.epochs)

    # Where it is, and how to go on from there.

    def finish(self) -> None:
        """Nothing is left to read: the run before had come to the end."""
        self._done = list(range(len(self._splits)))

    def _interval(self) -> float:
        return (self._step.checkpoint or 0) / 1_000

    def _barrier(self, epochs: Iterator[int]) -> Barrier:
        return Barrier(next(epochs), ({"hop": 0, "source": self._position()},))

    def _position(self) -> dict[str, Any]:
        """What `open` needs to go on from here, as JSON."""
        order = self._order or []
        return {
            "columns": self._raw_columns.to_json(),
            "floats": sorted(self.floats),
            "format": self._format.saved(),
            "reached": self._reached,
            "splits": [self._split_position(number) for number in order],
        }

    def _split_position(self, number: int) -> dict[str, Any]:
        offset, clock = self._offsets.get(number, 0), self._clocks.get(number)
        return {
            "name": self._splits[number].name,
            "offset": offset,
            "identity": self._identities.get(number) or self._splits[number].identity(offset),
            "done": number in self._done,
            "start": self._starts.get(number),
            "greatest": None if clock is None else clock.greatest,
        }

    def _restored(self, saved: Mapping[str, Any]) -> Columns:
        """Where an earlier run was, and the columns that it had. Raises StateError if its input is not there any more."""
        self.floats |= set(saved["floats"])
        self._raw_columns = Columns.from_json(saved["columns"])
        self._format.restore(saved["format"])
        self._reached = saved["reached"]
        numbers = {split.name: number for number, split in enumerate(self._splits)}
        self._order = []
        for said in saved["splits"]:
            number = numbers.pop(said["name"], None)
            if number is not None:
                self._order.append(number)
                self._restore_split(number, said)
            elif not said["done"]:
                raise StateError(f"{said['name']} is gone, and {said['offset']:,} bytes of it had been read only")
        self._order += self._in_order(sorted(numbers.values()))  # files that are new
        return self._raw_columns

    def _restore_split(self, number: int, said: Mapping[str, Any]) -> None:
        split = self._splits[number]
        now = split.identity(said["offset"])
        if now.get("at_least", said["offset"]) < said["identity"].get("at_least", 0):
            raise StateError(
                f"{split.name} has shrunk: {said['offset']:,} bytes of it had been read, and it has {now['at_least']:,}",
                hint="--reset starts anew, and keeps what there is aside",
            )
        if now != said["identity"]:
            raise StateError(
                f"{split.name} is not the file that was read before: its first {said['offset']:,} bytes have changed",
                hint="--reset starts anew, and keeps what there is aside",
            )
        self._offsets[number] = said["offset"] if now else 0
        if not now and not said["done"]:
            self.notes = (*self.notes, f"{split.name} cannot be read again: what had come since the last checkpoint is lost")
        if said["done"]:
            self._done.append(number)
            self._identities[number] = said["identity"]
        if said["start"] is not None:
            self._starts[number] = said["start"]
        self._clocks[number] = SplitClock(self._step.max_out_of_orderness, self._skew(number), said["greatest"])

    def _in_order(self, numbers: list[int]) -> list[int]:
        if len(numbers) < 2 or self._raw_time is None:
            return numbers
        for number in numbers:
            stream = self._open.get(number) or self._blocks(number)
            taken: list[Block] = []
            start = None
            while start is None and sum(len(block.data) for block in taken) < _ENOUGH and (block := next(stream, None)):
                taken.append(block)
                start = self._first_time(block)
            self._open[number] = chain(taken, stream)
            if start is not None:
                self._starts[number] = start
        return sorted(numbers, key=lambda n: (self._starts.get(n, 0), n))

    def _first_time(self, block: Block) -> int | None:
        assert self._raw_time is not None
        batch, _, _ = self._format.read(block, self._raw_columns, Wants([self._raw_time], False, set()), "")
        times = self._instants(batch).drop_nulls()
        return int(times[0]) if len(times) else None

    def _blocks(self, number: int) -> Iterator[Block]:
        step = self._step
        offset = self._offsets.get(number, 0)
        latency, tick = step.max_latency / 1_000, self._interval() or None
        stream = blocks(self._splits[number], self._format.cut, step.batch_bytes, latency, offset, tick)
        first = next((block for block in stream if block.data or block.overlong), None)
        if first is None:
            return iter(())
        if offset:
            return chain([first], stream)
        return chain([self._format.begin(first)], stream)

    def _read(self, number: int) -> Iterator[tuple[Batch, list[Dead], int, int]]:
        """Batches, bad records, how many were read, and where the next begins."""
        split = self._splits[number]
        stream = self._open.pop(number, None) or self._blocks(number)

        def read(block: Block) -> tuple[Batch, list[Dead], int, int]:
            return *self._format.read(block, self._raw_columns, self._wants, split.name), block.end

        return parsed(stream, read, 0 if split.is_live else _WORKERS)

    def _skew(self, number: int) -> int | None:
        if self._step.max_future_skew is not None:
            return self._step.max_future_skew
        return 3_600_000 if self._splits[number].is_live else None

    def _judged(self, batch: Batch, clock: SplitClock, dead: list[Dead], read: int, is_live: bool) -> Pull:
        """Event time, lateness and the guard against clocks that run ahead."""
        dead = list(dead)
        if self._step.strict or not self._format.has_text:  # a value that fits no type cannot become JSON
            batch, misfits = batch.need([name for name in batch.columns.types if name in batch.frame.columns], set())
            dead += [misfits] if misfits else []
        if self._raw_time is not None:
            batch, more = self._timed(batch, clock, int(time.time() * 1_000) if is_live else None)
            dead += more
        return Pull([batch], None, dead, read)

    def _timed(self, batch: Batch, clock: SplitClock, arrival: int | None) -> tuple[Batch, list[Dead]]:
        assert self._raw_time is not None
        batch, misfits = batch.need([self._raw_time], set())
        times = self._instants(batch).alias("_time")
        dead = [misfits] if misfits else []
        if times.null_count():
            dead.append(batch.keep(times.is_null()).as_dead(pl.Series(self._reasons(batch, times), dtype=pl.String)))
            batch, times = batch.keep(times.is_not_null()), times.drop_nulls()
        judged = clock.judge(times, arrival)
        added: list[Any] = [] if self.columns.time == self._raw_columns.time else [times]
        added += [] if judged.mark is None else [judged.mark]
        columns = batch.columns.add({"_time": "int"}) if self.columns.types.get("_time") else batch.columns
        frame = batch.frame.with_columns(*added) if added else batch.frame
        batch = replace(batch, frame=frame, columns=replace(columns, time=self.columns.time))
        if judged.future is not None:
            ahead = batch.keep(judged.future)
            reason = f'"{self._raw_time}" is too far in the future'
            dead.append(ahead.as_dead(pl.Series([reason] * ahead.height, dtype=pl.String)))
            batch = batch.keep(~judged.future)
        return batch, dead

    def _instants(self, batch: Batch) -> pl.Series:
        assert self._raw_time is not None
        kind = batch.columns.types[self._raw_time]
        return instants(batch.frame[self._raw_time], kind, self._step.time_unit, self._step.time_zone)

    def _reasons(self, batch: Batch, times: pl.Series) -> list[str]:
        assert self._raw_time is not None
        values = batch.frame[self._raw_time].filter(times.is_null()).to_list()
        return [
            f'no "{self._raw_time}"' if value is None else f'"{self._raw_time}" is no instant: {value!r}'[:200]
            for value in values
        ]


def _splits(addresses: tuple[str, ...]) -> list[Split]:
    if not addresses:
        raise PlanError("no source", hint="a file, a glob, or - for standard input")
    found = []
    for address in addresses:
        part, rest = part_of(address, SOURCES, "stdin")
        source: Source = SOURCES.find(part, Source)(rest)
        found += source.splits()
    names = [split.name for split in found]
    for name in names:
        if names.count(name) > 1:
            raise PlanError(f"{name} is named twice", word=name)
    return found


def _line_count(blocks: list[Block]) -> int:
    return sum(block.data.count(b"\n") for block in blocks)


def _format_name(step: Ingest, splits: list[Split]) -> str:
    return step.format or ("csv" if _CSV.search(splits[0].name) else "ndjson")


def _pipeline_name(split: str) -> str:
    """`data/clicks.ndjson.zst` -> `clicks`"""
    stem = split.rsplit("/", 1)[-1].split(".", 1)[0]
    return "stdin" if split == "standard input" else re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:100] or "unnamed"
