"""Run a pipeline in every form that it has. For tests: all forms must give the same records.

    shell     real processes, typed in a shell
    piped     a process per step, joined by pipes: what a shell starts, without the shell
    fused     clickpipe run -c: all steps in one process
    no_fuse   clickpipe run --no-fuse -c: a process per step, started by clickpipe
    arrow     a process per step, records travel as Arrow frames
    single    fused, and every record is a batch of its own
    workers   its steps by two workers, killed after a checkpoint if it can take some, and ended by three

`shell` and `no_fuse` start real interpreters. The others are forked from one that has its modules
imported and nothing run: they are the same program in a fresh process, without 0.3 s of imports.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clickpipe.batch import Batch
    from clickpipe.columns import Columns
    from clickpipe.core.loop import Stage
    from clickpipe.core.operator import Feed, Operator, Pull
    from clickpipe.plan.plan import Node
from clickpipe.cli.nursery import fork_steps
from clickpipe.core.meter import Ledger
from clickpipe.core.step import MergeStep, OperatorStep, PartitionStep, SourceStep, Step
from clickpipe.core.summarise import Summarise
from clickpipe.engine.group import verdict

FORMS = ("shell", "piped", "fused", "no_fuse", "arrow", "single", "workers")
INPUT = "stdin.ndjson"  # the stem is the name that a pipeline on standard input has
_STEP = re.compile(r"(^|\|)(\s*)clickpipe\s+")
_SECONDS = 120
_BATCHES = 8  # that an input is read in, where its pipeline is killed between two of them
_OUTPUT = "output.ndjson"


@dataclass(frozen=True)
class Pipeline:
    """Steps with `clickpipe` in front of each, as typed in a shell, and what they read."""

    command: str
    input: bytes | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)

    def steps(self) -> list[list[str]]:
        """The words of each step, `clickpipe` left out."""
        lexer = shlex.shlex(self.command, posix=True, punctuation_chars="|")
        lexer.whitespace_split, lexer.commenters = True, ""
        steps: list[list[str]] = [[]]
        for word in lexer:
            if word == "|":
                steps.append([])
            else:
                steps[-1].append(word)
        return [words[1:] for words in steps]

    def text(self) -> str:
        """As a recipe has it."""
        return _STEP.sub(r"\1\2", self.command).strip()

    def text_one_by_one(self) -> str:
        """The same with a batch per record. Standard input becomes a file: live input batches what is there."""
        text, count = re.subn(r"\bingest\s+-(?=\s|$)", f"ingest {INPUT} --batch-bytes 1", self.text())
        return text if count else re.sub(r"\bingest\s", "ingest --batch-bytes 1 ", text, count=1)

    def text_divided(self, workers: int) -> str | None:
        """The same with a partition, by a column that all steps in it have in common, or, where aggregates have no key, by the
        first of the input; None where there is none."""
        from clickpipe.errors import PlanError
        from clickpipe.plan.parse import parse

        text = self.text()
        try:
            nodes = parse(text).nodes
        except PlanError:
            return None
        steps = list(dropwhile(lambda node: isinstance(node.step, SourceStep), nodes))
        steps = list(takewhile(lambda node: node.written.text == text and _is_divisible(node.step), steps))
        keyed = [set(by) for node in steps if (by := getattr(node.step, "by", ()))]
        made = {name for name in set().union(*keyed) if re.search(rf"(?i)\bAS\s+{re.escape(name)}\b", text)}
        common = sorted(set.intersection(*keyed) - made) if keyed else self._first_field(steps)
        if not common:
            return None
        begin, end = steps[0].written.start, steps[-1].written.end
        block = text[begin:end].rstrip()
        return f"{text[:begin]}partition --by {common[0]} --workers {workers} | {block} | merge {text[end:]}"

    def _first_field(self, steps: Sequence[Node]) -> list[str]:
        """Of the first record, where it is written down, and what comes of them all is one result."""
        is_whole = any(isinstance(node.step, Summarise) for node in steps)
        is_counted = any(getattr(node.step, "kind", "") == "count" for node in steps)
        declared = re.findall(r"--columns '?(\w+):", self.text())
        found = declared or re.findall(r'^{"(\w+)":', (self.input or b"").decode("utf-8", "replace"))
        return found[:1] if is_whole and not is_counted else []

    def can(self, form: str) -> bool:
        """Whether there is such a form of this pipeline."""
        if form == "workers":
            return self.text_divided(2) is not None
        return form != "single" or "ingest" in self.text()


@dataclass(frozen=True)
class Result:
    """What became of a pipeline in one form. `home` is its CLICKPIPE_HOME."""

    form: str
    pipeline: Pipeline
    directory: Path
    exit: int
    stdout: bytes
    stderr: str

    def side(self, name: str) -> list[dict[str, Any]]:
        """The records of a side stream, `late` or `dead`."""
        paths = sorted((self.directory / ".home").glob(f"**/{name}.ndjson"))
        return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]

    def accounts(self) -> list[str]:
        """The summary lines."""
        return re.findall(r"^clickpipe: ((?:read|results) .*)$", self.stderr, re.MULTILINE)

    def __str__(self) -> str:
        shown = (self.pipeline.input or b"")[:4096].decode("utf-8", "backslashreplace")
        out = self.stdout[:8192].decode("utf-8", "backslashreplace")
        parts = {"command": self.pipeline.command, "input": shown, "standard output": out, "standard error": self.stderr}
        return f"form {self.form}, exit {self.exit}\n" + "\n".join(f"--- {title}\n{text}" for title, text in parts.items())


def run(pipeline: Pipeline, form: str, directory: Path) -> Result:
    """Run it in an empty directory of its own."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in pipeline.files.items():
        (directory / name).write_bytes(data)
    (directory / INPUT).write_bytes(pipeline.input or b"")
    code, stdout, stderr = _FORMS[form](pipeline, directory)
    return Result(form, pipeline, directory, code, stdout, stderr.decode("utf-8", "replace"))


def environment(directory: Path, **more: str) -> dict[str, str]:
    """Of a process that must leave nothing outside `directory`."""
    programs = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    return {**os.environ, "PATH": programs, "CLICKPIPE_HOME": str(directory / ".home"), "COLUMNS": "100", **more}


_Ran = tuple[int, bytes, bytes]


def _shell(pipeline: Pipeline, directory: Path) -> _Ran:
    script = f"{pipeline.command.strip()}\necho ${{PIPESTATUS[@]}} > .codes"
    done = _started(["bash", "-c", script], directory)
    return verdict([int(code) for code in (directory / ".codes").read_text().split()]), done.stdout, done.stderr


def _no_fuse(pipeline: Pipeline, directory: Path) -> _Ran:
    words = [sys.executable, "-m", "clickpipe", "run", "--no-fuse", "-c", pipeline.text()]
    done = _started(words, directory)
    return done.returncode, done.stdout, done.stderr


def _started(words: list[str], directory: Path) -> subprocess.CompletedProcess[bytes]:
    with open(directory / INPUT, "rb") as stdin:
        return subprocess.run(
            words, stdin=stdin, capture_output=True, cwd=directory, env=environment(directory), timeout=_SECONDS, check=False
        )


def _piped(pipeline: Pipeline, directory: Path) -> _Ran:
    return _forked(pipeline.steps(), directory)


def _fused(pipeline: Pipeline, directory: Path) -> _Ran:
    return _forked([["run", "-c", pipeline.text()]], directory)


def _single(pipeline: Pipeline, directory: Path) -> _Ran:
    return _forked([["run", "-c", pipeline.text_one_by_one()]], directory)


def _arrow(pipeline: Pipeline, directory: Path) -> _Ran:
    return _forked(pipeline.steps(), directory, CLICKPIPE_CODEC="arrow")


def _workers(pipeline: Pipeline, directory: Path) -> _Ran:
    """Where it reads standard input and writes standard output: both are files, and the first life ends in its midst."""
    saved = f"ingest {INPUT} --batch-bytes {max(1, len(pipeline.input or b'') // _BATCHES)} --checkpoint 1ms"
    lives = [re.sub(r"\bingest\s+-(?=\s|$)", saved, pipeline.text_divided(workers) or "") for workers in (2, 3)]
    if saved not in lives[0] or not lives[0].rstrip().endswith("| sink -"):
        return _forked([["run", "-c", pipeline.text_divided(2) or ""]], directory)
    words = [["run", "--restart=no", "-c", f"{life.rstrip()[:-1]}{_OUTPUT}"] for life in lives]
    code = verdict(run_steps(words[:1], directory, kill={0: "after-commit:2"}))
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        code = verdict(run_steps(words[1:], directory))
    output = directory / _OUTPUT
    return code, output.read_bytes() if output.exists() else b"", (directory / ".stderr").read_bytes()


def _is_divisible(step: Step) -> bool:
    """Whether workers can run it, as far as can be told without its columns."""
    is_one = isinstance(step, (PartitionStep, MergeStep)) or type(step).__name__ in ("Limit", "Sort")
    return isinstance(step, OperatorStep) and not is_one


_FORMS: Mapping[str, Callable[[Pipeline, Path], _Ran]] = {
    "shell": _shell,
    "piped": _piped,
    "fused": _fused,
    "no_fuse": _no_fuse,
    "arrow": _arrow,
    "single": _single,
    "workers": _workers,
}


@dataclass
class Collected:
    """What a pipeline gave in this process, without a sink."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    late: list[dict[str, Any]] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    accounts: list[Ledger] = field(default_factory=list)


def collect(text: str, resumed_every: int = 0, ends_after: int | None = None) -> Collected:
    """Run a pipeline that begins with a source and has no sink, in this process; for tests of many small inputs.

    `resumed_every`: after so many pulls all operators are opened anew, from what they have saved.
    `ends_after`: of files that are followed, how many records there are.
    """
    from clickpipe.core.loop import Asides, Loop, Tail
    from clickpipe.core.step import SourceStep
    from clickpipe.engine.opening import open_stages
    from clickpipe.plan.parse import parse

    collected = Collected()
    plan = parse(text)
    source = plan.nodes[0].step
    assert isinstance(source, SourceStep)
    feed = source.open()
    if ends_after is not None:
        feed.pulls = partial(_pulls_until, ends_after, feed, feed.pulls)  # type: ignore[method-assign]  # the same, with an end
    stages, columns = open_stages(plan, feed.columns)
    feed.want(None, True)
    written = Ledger()
    if resumed_every:
        feed.pulls = partial(_resuming, feed.pulls, stages, resumed_every)  # type: ignore[method-assign]  # of this feed

    def write(batch: Batch) -> None:
        collected.rows += batch.frame.select(columns.names()).to_dicts()
        written.written += batch.height

    asides = Asides(lambda late: collected.late.extend(late.batch.frame.to_dicts()), lambda dead: collected.dead.extend(dead.raw))
    loop = Loop(feed, stages, Tail(write, lambda _, __: None, ()), asides, feed.floats)
    loop.run()
    loop.accounts[-1].written += written.written
    collected.accounts = loop.accounts
    return collected


def _resuming(pulls: Callable[[], Iterator[Pull]], stages: list[Stage], every: int) -> Iterator[Pull]:
    """The same pulls; now and then, between two, the operators stop and go on."""
    for number, pull in enumerate(pulls(), 1):
        yield pull
        if number % every:
            continue
        for stage in stages:
            assert isinstance(stage.step, OperatorStep)
            stage.operator = reopened(stage.step, stage.given, stage.operator)


def reopened(step: OperatorStep, given: Columns, operator: Operator) -> Operator:
    """The operator of another process that goes on, from the bytes that this one has saved."""
    from clickpipe.state import snapshot

    return step.open(given, snapshot.from_bytes(snapshot.to_bytes("test", operator.snapshot())))


def _pulls_until(records: int, feed: Feed, pulls: Callable[[], Iterator[Pull]]) -> Iterator[Pull]:
    if not records:
        feed.stop(drain=True)
    for pull in pulls():
        records -= pull.read
        if records <= 0:
            feed.stop(drain=True)
        yield pull


# The interpreter that forks.


def _forked(steps: list[list[str]], directory: Path, **more: str) -> _Ran:
    codes = run_steps(steps, directory, None, None, **more)
    return verdict(codes), (directory / ".stdout").read_bytes(), (directory / ".stderr").read_bytes()


def run_steps(
    steps: list[list[str]],
    directory: Path,
    kill: Mapping[int, str] | None = None,
    fail: Mapping[int, str] | None = None,
    **more: str,
) -> list[int]:
    """A process per step, joined by pipes; their exit codes.

    `kill`, `fail`: kill points and failing calls (clickpipe/faults.py) by step number.
    """
    (directory / INPUT).touch()
    faults = {"CLICKPIPE_KILL_POINT": kill or {}, "CLICKPIPE_FAIL": fail or {}}
    wanted = [{name: by_step.get(number, "") for name, by_step in faults.items()} for number in range(len(steps))]
    return fork_steps(steps, directory, INPUT, environment(directory, **more), wanted)
