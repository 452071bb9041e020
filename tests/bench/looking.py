"""What it costs to be looked at, and to look: samples of a running pipeline, the dashboard. Printed as JSON, for bench.py.

python tests/bench/looking.py FILE      FILE: clicks
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = HERE / "data" / "looking"
STEPS = "window tumble 5s | aggregate --by page n='count(*)' mean='avg(latency_ms)' | sink data/out.ndjson"
TRIES, COPIES = 7, 5
PIPELINES = 50
# Processor time of the thread that writes samples, in a run that goes on for some seconds, and of the whole process.
SAMPLED = """
import json, sys, threading, time
from clickpipe.state import samples
spent, write = [], samples._write
def timed(*words):
    begun = time.thread_time()
    write(*words)
    spent.append(time.thread_time() - begun)
samples._write = timed
made = samples._Going.next
def next(self):
    begun = time.thread_time()
    try:
        return made(self)
    finally:
        spent.append(time.thread_time() - begun)
samples._Going.next = next
from clickpipe.engine.local import run
from clickpipe.plan.parse import parse
begun = time.monotonic()
run(parse(sys.argv[1]), lambda _: None)
print(json.dumps([sum(spent), time.monotonic() - begun]))
"""


def measured(file: Path | str) -> dict[str, float]:
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    return {**sampled(str(file)), **watched()}


def sampled(file: str) -> dict[str, float]:
    """The share of a core that samples take, and a run with them beside one without, in turn."""
    line = f"ingest {file} --time ts --max-out-of-orderness 5s --name a | {STEPS}"
    done = subprocess.run(
        [sys.executable, "-c", SAMPLED, line], check=True, capture_output=True, text=True, env=environment(), cwd=HERE
    )
    spent, whole = json.loads(done.stdout)
    longer = HOME / "longer.ndjson"
    with longer.open("wb") as copies:  # a run of some seconds: what a thread costs at its beginning and its end is no throughput
        for _ in range(COPIES):
            with open(HERE / file, "rb") as once:
                shutil.copyfileobj(once, copies)
    line = f"ingest {longer} --name a | aggregate --by page n='count(*)' mean='avg(latency_ms)' | sink data/out.ndjson"
    taken: dict[str, list[float]] = {"on": [], "off": []}
    for _ in range(TRIES):
        for switch, times in taken.items():
            begun = time.monotonic()
            words = [sys.executable, "-m", "clickpipe", "run", "--quiet", "-c", line]
            subprocess.run(words, check=True, env={**environment(), "CLICKPIPE_METRICS": switch}, cwd=HERE)
            times.append(time.monotonic() - begun)
    longer.unlink()
    return {"samples": spent / whole, "with samples / without": statistics.median(taken["on"]) / statistics.median(taken["off"])}


def watched() -> dict[str, float]:
    """The share of a core that the dashboard takes with many pipelines that change, once a second."""
    os.environ["CLICKPIPE_HOME"] = str(HOME)
    from clickpipe.state import samples
    from clickpipe.state.samples import Before, Sample, StepSample
    from clickpipe.top.feed import look
    from clickpipe.top.screen import Top

    born = samples.born(os.getpid()) or 0

    def say(number: int) -> None:
        for pipeline in range(PIPELINES):
            steps = tuple(
                StepSample(hop, name, "", number, number, number) for hop, name in enumerate(("ingest", "window", "sink"))
            )
            now = time.monotonic()
            before = Before(now - 1, 0, 0.0, 0.0, 0, 0, ((0, 0, 0.0),) * 3)
            told = Sample(
                os.getpid(), 0, None, number * (pipeline + 1), now, 1.0, 0.0, 0.0, born, f"{pipeline}-1", when=time.time()
            )
            samples.write(f"p{pipeline}", replace(told, steps=steps, before=before))

    async def work() -> float:
        spent = 0.0
        app = Top(lambda: look(), 3_600)
        async with app.run_test(size=(120, 40)) as pilot:
            for number in range(20):
                say(number)
                begun = time.process_time()
                app._again()
                await pilot.pause()
                spent += time.process_time() - begun
        return spent / 20

    return {"top": asyncio.run(work())}


def environment() -> dict[str, str]:
    return {**os.environ, "CLICKPIPE_HOME": str(HOME)}


if __name__ == "__main__":
    print(json.dumps(measured(*sys.argv[1:])))
