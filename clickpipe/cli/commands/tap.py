"""Look at the records behind one step of a running pipeline.

They come as NDJSON, from the moment on at which it is asked, of all processes that run the step. The pipeline never waits: what
this, or what reads it, cannot take is lost to it, and how much that was is said at the end. Behind a sink there is nothing; of a
sink what comes to it is shown.

A step that is there twice is named by its place, which `clickpipe top NAME --once` shows from 0 on.

--record DIR writes them to DIR/STEP.ndjson instead, and beside it what they are, to be given to a test of a recipe.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import click
import orjson

from clickpipe.cli.completing import values
from clickpipe.cli.text import described
from clickpipe.cli.words import say
from clickpipe.errors import OutsideError, PlanError, near
from clickpipe.state import samples
from clickpipe.state.files import write_fleeting
from clickpipe.state.home import run_directories
from clickpipe.state.samples import Sample, StepSample
from clickpipe.state.tapping import Asking, count_of
from clickpipe.stopping import on_ask, on_stop
from clickpipe.wire.pump import write_all

_PATIENCE = 3.0  # seconds in which a process answers
_CHUNK = 1 << 16
_EPILOG = """\
Examples:
  clickpipe generate --count 400000 --rate 1000 | clickpipe ingest - --time ts --name shown | clickpipe window tumble 1m |
    clickpipe aggregate n='count(*)' | (sleep 3; cat) | clickpipe sink /tmp/shown.ndjson --quiet &
    sleep 2; clickpipe tap shown ingest --limit 2; wait"""


@described("tap", __doc__, _EPILOG)
@click.argument(
    "pipeline", metavar="PIPELINE", help="one that runs: clickpipe top --once shows all", shell_complete=values.pipelines
)
@click.argument("step", metavar="STEP", help="its name, or its place from 0 on", shell_complete=values.steps_of)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="end after so many records")
@click.option("--sample", type=click.FloatRange(0, 1, min_open=True), default=1.0, metavar="P", help="this share of them")
@click.option("--record", type=click.Path(), metavar="DIR", help="write them to DIR/STEP.ndjson")
@click.option("--quiet", "-q", is_flag=True, help="do not say how many there were")
def command(pipeline: str, step: str, limit: int | None, sample: float, record: str | None, quiet: bool) -> None:
    found = _processes(pipeline, step)
    told = found[0][1]
    taken = _Taken(limit)
    on_ask(lambda _: taken.end())
    asked = [_ask(pipeline, process, told.hop, sample) for process, _ in found]
    try:
        writer = _Recording(record, pipeline, told, found[0][0]) if record else _Printing()
        for lines in taken.lines(asked):
            writer.write(lines)
    finally:
        for one in asked:
            one.close()
    writer.close(taken)
    if not quiet:
        say(taken.told())


def _processes(pipeline: str, step: str) -> list[tuple[Sample, StepSample]]:
    """Those of its newest life that run the step. Raises PlanError."""
    alive = [sample for sample in samples.read(pipeline) if sample.is_alive]
    if not alive:
        others = [name for name in samples.pipelines() if any(one.is_alive for one in samples.read(name))]
        notes = [f"there run: {', '.join(others)}" if others else "nothing runs"]
        raise PlanError(f'no pipeline "{pipeline}" runs', hint=near(pipeline, others), notes=notes, word=pipeline)
    newest = max(alive, key=lambda sample: sample.born)
    mine = [(sample, one) for sample in alive if (sample.life, sample.run) == (newest.life, newest.run) for one in sample.steps]
    named = {one.hop: one.name for _, one in sorted(mine, key=lambda pair: pair[1].hop)}
    hops = [hop for hop, name in named.items() if step in (name, str(hop))]
    if len(hops) != 1:
        notes = [f"its steps: {', '.join(f'{hop} {name}' for hop, name in named.items())}"]
        what = (
            f"{pipeline} has {len(hops)} steps called {step}: say which by its place"
            if hops
            else f'{pipeline} has no step "{step}"'
        )
        raise PlanError(what, hint="" if hops else near(step, list(named.values())), notes=notes, word=step)
    return [pair for pair in mine if pair[1].hop == hops[0]]


def _ask(pipeline: str, process: Sample, hop: int, share: float) -> Asking:
    folder = next(folder for folder in run_directories(pipeline) if os.path.isdir(folder))
    asking = Asking(folder, process.process, hop, share)
    on_stop(asking.close)
    return asking


@dataclass
class _Taken:
    """What has come, and what passed. Lines are whole; `limit`: no more records than that."""

    limit: int | None
    shown: int = 0
    _counts: dict[int, dict[str, int]] = field(default_factory=dict)  # by process
    _is_over: bool = False

    def end(self) -> bool:
        self._is_over = True
        return True

    def lines(self, asked: Sequence[Asking]) -> Iterator[bytes]:
        """Until the pipeline has ended, or enough has come. Raises OutsideError where a process does not answer."""
        open_, poll, rests = {one.descriptor: one for one in asked}, select.poll(), {one.descriptor: b"" for one in asked}
        for descriptor in open_:
            poll.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + _PATIENCE
        while open_ and not self._is_over:
            for descriptor, _ in poll.poll(200):
                data = _read(descriptor)
                if not data:
                    poll.unregister(descriptor)
                    os.close(open_.pop(descriptor).descriptor)
                    continue
                whole, _, rests[descriptor] = (rests[descriptor] + data).rpartition(b"\n")
                if lines := self._records(open_[descriptor].process, whole):
                    yield lines
            silent = [one.process for one in open_.values() if one.process not in self._counts]
            if silent and time.monotonic() > deadline:
                raise OutsideError(
                    f"process {silent[0]} does not answer: it has ended just now, stands still, or is not to be asked"
                )

    def _records(self, process: int, lines: bytes) -> bytes:
        records = []
        for line in lines.split(b"\n"):
            if line.startswith(b"\t"):
                self._counts[process] = count_of(line) or self._counts.get(process, {})
            elif line and (self.limit is None or self.shown < self.limit):
                records.append(line + b"\n")
                self.shown += 1
        self._is_over |= self.shown == self.limit
        return b"".join(records)

    @property
    def lost(self) -> int:
        return sum(one.get("lost", 0) for one in self._counts.values())

    def told(self) -> str:
        passed = sum(one.get("passed", 0) for one in self._counts.values())
        lost = f"; {self.lost:,} could not be taken in time" if self.lost else ""
        return f"{self.shown:,} records" + (f" of {passed:,} that passed" if passed > self.shown else "") + lost


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:  # nobody writes yet
        return b""


class _Printing:
    def __init__(self) -> None:
        from clickpipe.core.terminal import standard_output

        self._outbox = standard_output()

    def write(self, lines: bytes) -> None:
        self._outbox.put(lines)

    def close(self, taken: _Taken) -> None:
        self._outbox.close()


class _Recording:
    """A fixture: the records, and what they are."""

    def __init__(self, folder: str, pipeline: str, step: StepSample, process: Sample) -> None:
        from clickpipe.state.files import AtomicFile

        os.makedirs(folder, exist_ok=True)
        self._path = os.path.join(folder, f"{step.name}.ndjson")
        self._about = {"pipeline": pipeline, "step": f"{step.name} {step.says}".strip(), "hop": step.hop, "run": process.run}
        self._file = AtomicFile(self._path)

    def write(self, lines: bytes) -> None:
        write_all(self._file.descriptor, lines)

    def close(self, taken: _Taken) -> None:
        self._file.commit()
        about = {**self._about, "records": taken.shown, "lost": taken.lost}
        write_fleeting(self._path.removesuffix(".ndjson") + ".json", orjson.dumps(about) + b"\n", mode=0o644)
        say(f"{self._path}: {taken.shown:,} records")
