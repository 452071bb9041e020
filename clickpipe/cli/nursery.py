"""Processes of `clickpipe`, forked from one that has its modules imported and nothing run.

    ours      a job goes out as a line of JSON, its exit codes come back as one
    other     python -m clickpipe.cli.nursery: for each job a process per step, joined by pipes

What is forked is the same program in a fresh process, without 0.3 s of imports. Its standard error is .stderr and its standard
output .stdout in the job's directory.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, NoReturn

from clickpipe.errors import OutsideError

_FOLDERS = ("operators", "sources", "formats", "aggregates", "sketches", "functions", "sinks")
_SECONDS = 120  # after which a process is ended by SIGALRM
_started: list[subprocess.Popen[bytes]] = []


def fork_steps(
    steps: Sequence[Sequence[str]],
    directory: Path,
    stdin: str,
    environment: Mapping[str, str],
    more: Sequence[Mapping[str, str]] = (),
) -> list[int]:
    """A process per step, joined by pipes; their exit codes. `stdin`: a file; `more`: the environment of each, besides."""
    job = {"steps": steps, "directory": str(directory), "stdin": stdin, "environment": dict(environment)}
    return _nursery().run(job | {"more": list(more) or [{}] * len(steps)})


def end_all() -> None:
    """At once, the processes of a pipeline that is running too. May be called in a signal handler."""
    for process in _started:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@cache
def _nursery() -> _Nursery:
    return _Nursery()


class _Nursery:
    def __init__(self) -> None:
        words = [sys.executable, "-m", "clickpipe.cli.nursery"]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
        _started.append(self._process)

    def run(self, job: dict[str, Any]) -> list[int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise OutsideError("the process that starts those of the pipeline has died")
        codes: list[int] = json.loads(answer)
        return codes


# The other end.


def _serve() -> None:
    _import_everything()
    gc.freeze()  # what is there already is not copied into each child by looking for garbage
    jobs, answers = os.fdopen(os.dup(0), "rb"), os.dup(1)
    os.set_inheritable(answers, False)
    for line in jobs:
        codes = _fork_steps(json.loads(line))
        with suppress(BrokenPipeError):  # whoever asked has died
            os.write(answers, json.dumps(codes).encode() + b"\n")


def _import_everything() -> None:
    """All that a run imports. Nothing is computed: a fork would lose the threads that Polars computes with."""
    for name in ("commands.run", "main", "step", "supervised"):
        import_module(f"clickpipe.cli.{name}")
    for name in ("local", "supervisor"):
        import_module(f"clickpipe.engine.{name}")
    for folder in _FOLDERS:
        package = import_module(f"clickpipe.{folder}")
        for module in iter_modules(package.__path__):
            import_module(f"clickpipe.{folder}.{module.name}")


def _fork_steps(job: dict[str, Any]) -> list[int]:
    directory = Path(job["directory"])
    source = os.open(directory / job["stdin"], os.O_RDONLY)
    errors = os.open(directory / ".stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    children = []
    for number, words in enumerate(job["steps"]):
        if number == len(job["steps"]) - 1:
            following, sink = -1, os.open(directory / ".stdout", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        else:
            following, sink = os.pipe()
        job_here = job | {"environment": job["environment"] | job["more"][number]}
        children.append(_fork(words, job_here, (source, sink, errors)))
        os.close(source)
        os.close(sink)
        source = following
    os.close(errors)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _fork(words: list[str], job: dict[str, Any], descriptors: tuple[int, int, int]) -> int:
    child = os.fork()
    if not child:
        _become(words, job, descriptors)
    return child


def _become(words: list[str], job: dict[str, Any], descriptors: tuple[int, int, int]) -> NoReturn:
    from clickpipe.cli.main import main

    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.closerange(3, 64)
    signal.alarm(_SECONDS)
    os.chdir(job["directory"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.argv = ["clickpipe", *words]
    main()


if __name__ == "__main__":
    _serve()
