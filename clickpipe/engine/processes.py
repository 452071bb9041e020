"""A plan as one process per step, joined by pipes: what a shell does with the same line."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

from clickpipe.core.step import SinkStep, SourceStep
from clickpipe.plan.plan import Node, Plan
from clickpipe.stopping import on_stop


def run_processes(plan: Plan, codec: str, quiet: bool) -> int:
    """The exit code: the first step's that failed by itself, rather than because another one did."""
    processes: list[subprocess.Popen[bytes]] = []
    on_stop(lambda: _stop(processes))
    try:
        for number, node in enumerate(plan.nodes):
            is_last = number == len(plan.nodes) - 1
            before = processes[-1].stdout if processes else None
            processes.append(
                subprocess.Popen(
                    _words(node, plan, quiet), stdin=before, stdout=None if is_last else subprocess.PIPE, env=_environment(codec)
                )
            )
            if before:
                before.close()  # or the step before would never hear that its reader is gone
        return _verdict([process.wait() for process in processes])
    except BaseException:
        _stop(processes)
        raise


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        with suppress(OSError):
            process.terminate()
    for process in processes:
        process.wait()


def _words(node: Node, plan: Plan, quiet: bool) -> list[str]:
    words = [sys.executable, "-m", "clickpipe", node.written.name, *node.written.words]
    if isinstance(node.step, SourceStep) and plan.name and getattr(node.step, "name", "") is None:
        words += ["--name", plan.name]
    if isinstance(node.step, SinkStep) and quiet:
        words.append("--quiet")
    return words


def _environment(codec: str) -> dict[str, str]:
    return {**os.environ, "CLICKPIPE_CODEC": codec}


def _verdict(codes: list[int]) -> int:
    """75 says that the step before failed; any other code says more."""
    failed = [128 - code if code < 0 else code for code in codes if code]
    return next((code for code in failed if code != 75), failed[0] if failed else 0)
