"""make bench: what clickpipe costs beside its peers. Prints one table and keeps the raw numbers."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import checkpoints
import looking
import stores

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
RUNS = HERE / "runs"
CLICKPIPE = f"{shlex.quote(sys.executable)} -m clickpipe"
PEER = f"{shlex.quote(sys.executable)} {shlex.quote(str(HERE / 'peers.py'))}"
SCRIPT = f"{shlex.quote(sys.executable)} {shlex.quote(str(HERE / 'peer_script.py'))}"
OUT = DATA / "out.ndjson"

INGEST = "ingest {file} --time ts --max-out-of-orderness 5s"
STEPS_A = ["window tumble 5s", "aggregate --by page n='count(*)' mean='avg(latency_ms)' slowest='max(latency_ms)'"]
CALLS_A = STEPS_A[1].removeprefix("aggregate --by page ")
CALLS_B = (
    "n='count(*)' mean='avg(latency_ms)' slowest='max(latency_ms)' p50='approx_quantile(latency_ms, 0.5)' "
    "p99='approx_quantile(latency_ms, 0.99)' users='approx_distinct(user_id)'"
)
STEPS_B = ["window tumble 5s", f"aggregate --by page {CALLS_B}"]
STEPS_FEW = ["window tumble 1h", f"aggregate --by page {CALLS_B}"]
STEPS_MANY = ["window tumble 1h", f"aggregate --by user_id {CALLS_B}"]
STEPS_HOUR = ["window tumble 1h", STEPS_A[1]]
STEPS_HOP = ["window hop 1h --slide 10s", STEPS_A[1]]
STEPS_SESSIONS = ["window session 30s --by user_id", f"aggregate {CALLS_A}"]
PARTITION = "partition --by user_id --workers 2"
SPREAD = ["partition --by page --workers 2", *STEPS_A, "merge"]
# Of 1,000 pages: all alike, or one with 30 % of all records.
PAGES = {"uniform": "--pages 1000 --skew 0", "zipf": "--pages 1000 --skew 1.33"}
DEDUP = "dedup --by event_id --within 10m"
DEDUP_SHORT = "dedup --by event_id --within 5s"  # what is remembered is far less than the input
SETS = (("clicks", ""), ("users", "--users 200000"))
STEPS_C = ["filter \"event = 'purchase'\"", "select event_id page country"]


def fused(steps: list[str]) -> str:
    return f"{CLICKPIPE} run --quiet -c {shlex.quote(' | '.join([*steps, f'sink {OUT}']))}"


def shell(steps: list[str]) -> str:
    return " | ".join(f"{CLICKPIPE} {step}" for step in [*steps, f"sink --quiet {OUT}"])


def exchange(stream: Path) -> str:
    """Records to two workers and back, with nothing done to them."""
    return f"{CLICKPIPE} {PARTITION} merge --codec arrow < {stream} > /dev/null"


def works(file: Path, users: Path, groups: Path, dirty: dict[str, Path], stream: Path, count: int) -> dict[str, str]:
    ingest = INGEST.format(file=file)
    found = {
        "A polars batch": f"{PEER} polars-a {file} {OUT}",
        "A duckdb": f"{PEER} duckdb-a {file} {OUT}",
        "A script": f"{SCRIPT} {file} {OUT}",
        "A fused": fused([ingest, *STEPS_A]),
        "A fused, 100 files": fused([INGEST.format(file=spread(file, 100)), *STEPS_A]),
        "A shell": shell([ingest, *STEPS_A]),
        "A shell arrow": f"export CLICKPIPE_CODEC=arrow; {shell([ingest, *STEPS_A])}",
        "A view": checkpoints.view_run(file, "--reset"),
        "A view, checkpoints": checkpoints.view_run(file, "--reset --checkpoint 1s"),
        "tumble 1h": fused([ingest, *STEPS_HOUR]),
        "hop 1h / 10s": fused([ingest, *STEPS_HOP]),
        "sessions": fused([INGEST.format(file=users), *STEPS_SESSIONS]),
        "sessions, 2 workers": fused([INGEST.format(file=users), PARTITION, *STEPS_SESSIONS, "merge"]),
        "exchange": exchange(stream),
        "exchange of nothing": exchange(DATA / "nothing.stream"),
        **{f"by page, {name}": fused([INGEST.format(file=DATA / f"{name}-{count}.ndjson"), *SPREAD]) for name in PAGES},
        "dedup": fused([ingest, DEDUP]),
        "B duckdb": f"{PEER} duckdb-b {file} {OUT}",
        "B fused": fused([ingest, *STEPS_B]),
        "B 500 groups": fused([INGEST.format(file=groups), *STEPS_FEW]),
        "B 100,000 groups": fused([INGEST.format(file=groups), *STEPS_MANY]),
        "C polars batch": f"{PEER} polars-c {file} {OUT}",
        "C fused": fused([f"ingest {file}", *STEPS_C]),
        "import polars": f"{shlex.quote(sys.executable)} -c 'import polars'",
        "--help": f"{CLICKPIPE} --help >/dev/null",
        "one filter": f"printf '{{\"a\":1}}\\n' | {CLICKPIPE} filter 'a = 1' >/dev/null",
    }
    return found | {f"A fused, {share} bad": fused([INGEST.format(file=path), *STEPS_A]) for share, path in dirty.items()}


def seconds(command: str) -> float:
    begun = time.perf_counter()
    subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], check=True, env=environment())
    return time.perf_counter() - begun


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONDONTWRITEBYTECODE", "CLICKPIPE_CODEC")}
    return {**kept, "CLICKPIPE_HOME": str(DATA / "home")}


def make(count: int, name: str, more: str = "") -> Path:
    path = DATA / name
    if not path.exists():
        command = f"{CLICKPIPE} generate --count {count} --rate 50000 --disorder 5s {more} > {path}.new && mv {path}.new {path}"
        subprocess.run(["bash", "-c", command], check=True, env=environment())
    return path


def streamed(file: Path, name: str) -> Path:
    """The records as a stream of Arrow frames."""
    path = DATA / name
    if not path.exists():
        command = f"{CLICKPIPE} {INGEST.format(file=file)} --codec arrow > {path}.new && mv {path}.new {path}"
        subprocess.run(["bash", "-c", command], check=True, env=environment())
    return path


def spread(file: Path, files: int) -> Path:
    """A glob of the same records in so many files."""
    folder = DATA / f"{file.stem}-in-{files}"
    if not folder.exists():
        folder.mkdir()
        words = ["split", "-n", f"l/{files}", "-d", "-a", "4", "--additional-suffix=.ndjson", str(file), f"{folder}/"]
        subprocess.run(words, check=True)
    return folder / "*.ndjson"


def over_tcp() -> float:
    """Seconds that ten million records take, in Arrow frames as they are, between two processes."""
    words = [sys.executable, str(HERE / "sockets.py"), "10"]
    return 10 / float(json.loads(subprocess.check_output(words, env=environment()))["millions"])


def peak_mib(file: Path, steps: list[str]) -> float:
    """The greatest memory of a fused run, as the kernel saw it."""
    script = "import resource,subprocess,sys; subprocess.run(['bash','-c',sys.argv[1]],check=True); "
    script += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    command = fused([INGEST.format(file=file), *steps])
    done = subprocess.run([sys.executable, "-c", script, command], check=True, capture_output=True, text=True, env=environment())
    return int(done.stdout) / 1024


def peaks(size: str, clicks: Path, users: Path) -> dict[str, float]:
    """Of what must not grow with the input."""
    return {
        size: peak_mib(clicks, STEPS_A),
        f"sessions, {size}": peak_mib(users, STEPS_SESSIONS),
        f"dedup 5s, {size}": peak_mib(clicks, [DEDUP_SHORT]),
    }


def record_latency(tries: int) -> list[float]:
    """Seconds that one record takes down an idle shell pipeline of four steps."""
    steps = ["ingest - --time ts --columns ts:int,a:int", "filter 'a > 0'", "select ts a", "sink - --quiet"]
    line = " | ".join(f"{CLICKPIPE} {step}" for step in steps)
    process = subprocess.Popen(["bash", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
    assert process.stdin is not None
    assert process.stdout is not None
    taken = []
    for number in range(tries + 1):
        time.sleep(0.3)
        begun = time.perf_counter()
        process.stdin.write(b'{"ts":%d,"a":1}\n' % (int(time.time() * 1000) + number))
        process.stdin.flush()
        process.stdout.readline()
        taken.append(time.perf_counter() - begun)
    process.stdin.close()
    process.wait()
    return taken[1:]  # the first one waited for four processes to start


def stored(kept: dict[str, float]) -> list[tuple[str, str, str, str]]:
    """Of logs, views, archives and queries, see stores.py; of being looked at, see looking.py."""

    def at_most(name: str, value: float, most: float, unit: str) -> tuple[str, str, str, str]:
        return name, f"{value:.2f} {unit}".rstrip(), f"<= {most:g}", "holds" if value <= most else "falls short"

    def at_least(name: str, value: float, least: float, unit: str) -> tuple[str, str, str, str]:
        return name, f"{value:.2f} {unit}".rstrip(), f">= {least:g}", "holds" if value >= least else "falls short"

    return [
        at_least("log, records appended a second", kept["appended"] / 1e6, 1, "M"),
        at_least("A from the file / A from a log", kept["plain / log"], 0.8, ""),
        at_most("query of 20 M archived / bare polars", kept["query / polars"], 1.2, ""),
        at_most("a cached answer, beyond start-up", kept["cached"] * 1000, 30, "ms"),
        at_most("a row of a view of 1 M rows", kept["point"] * 1000, 5, "ms"),
        at_most("one hour of 30 days, bytes read", kept["pruned"] * 100, 2, "%"),
        at_most("samples, of a core", kept["samples"] * 100, 0.5, "%"),
        at_most("A with samples / without", kept["with samples / without"], 1.005, ""),
        at_most("top over 50 pipelines, of a core", kept["top"] * 100, 2, "%"),
    ]


def rows(
    median: dict[str, float], memory: dict[str, float], saved: dict[str, list[float]], kept: dict[str, float], count: int
) -> list[tuple[str, str, str, str]]:
    """What is compared, the number, and what it must hold. `count`: of records."""

    def ratio(of: str, to: str, most: float) -> tuple[str, str, str, str]:
        value = median[of] / median[to]
        return f"{of} / {to}", f"{value:.2f}", f"<= {most:g}", "holds" if value <= most else "falls short"

    def plain(name: str, value: float, most: float, unit: str) -> tuple[str, str, str, str]:
        return name, f"{value:.0f} {unit}", f"<= {most:.0f} {unit}", "holds" if value <= most else "falls short"

    def at_least(name: str, value: float, least: float, unit: str) -> tuple[str, str, str, str]:
        return name, f"{value:.2f} {unit}".rstrip(), f">= {least:g}", "holds" if value >= least else "falls short"

    exchanged = count / 1e6 / (median["exchange"] - median["exchange of nothing"])
    listed = [
        ratio("A fused", "A polars batch", 1.2),
        ratio("A fused", "A duckdb", 2.4),
        ratio("A fused, 100 files", "A fused", 1.2),
        ratio("A shell", "A fused", 2.5),
        ratio("A shell", "A script", 1.0),
        ratio("A shell arrow", "A fused", 1.8),
        ratio("hop 1h / 10s", "tumble 1h", 1.5),
        ratio("sessions", "A fused", 2.5),
        at_least("sessions / with 2 workers", median["sessions"] / median["sessions, 2 workers"], 1.3, ""),
        at_least("exchange, records a second", exchanged, 2, "M"),
        at_least("over TCP, records a second", 10 / median["10 M records over TCP"], 2, "M"),
        ratio("by page, zipf", "by page, uniform", 1.2),
        ratio("dedup", "A fused", 2.0),
        ratio("B fused", "A fused", 1.8),
        ratio("B fused", "B duckdb", 2.5),
        ratio("B 100,000 groups", "B 500 groups", 3.0),
        ratio("C fused", "C polars batch", 1.3),
        *(ratio(name, "A fused", 1.2 if "0.01" in name else 2.5) for name in median if "bad" in name),
        ratio("A view, checkpoints", "A view", 1 / 0.95),
        plain(f"checkpoint of {saved['MiB'][0]:.0f} MiB: longest stall", max(saved["stall"]) * 1000, 150, "ms"),
        plain("manifest's commit, p99", checkpoints.at(0.99, saved["commit"]) * 1000, 10, "ms"),
        plain("from death to next checkpoint", statistics.median(saved["restart"]) * 1000, 2000, "ms"),
        plain("the same, slowest", max(saved["restart"]) * 1000, 4000, "ms"),
        *stored(kept),
        plain("--help", median["--help"] * 1000, 120, "ms"),
        plain("one filter - import polars", (median["one filter"] - median["import polars"]) * 1000, 150, "ms"),
        plain("one record, four idle steps", median["record latency"] * 1000, 150, "ms"),
    ]
    if memory:
        listed.append(plain("peak memory, 2 M", memory["2 M"], 400, "MiB"))
        listed.append(plain("peak memory, the same in 100 files", memory["100 files"], 1.2 * memory["2 M"], "MiB"))
        listed.append(plain("peak memory, dedup of 2 M", memory["dedup, 2 M"], 700, "MiB"))
        listed.append(plain("peak memory, sessions of 1 M users", memory["1 M users"], 1_500, "MiB"))
        listed.append(plain("peak memory, B of 100,000 groups", memory["100,000 groups"], 1_024, "MiB"))
    if "20 M" in memory:
        for part in ("", "sessions, ", "dedup 5s, "):
            most = (1.3 if part else 1.1) * memory[f"{part}2 M"]
            listed.append(plain(f"peak memory, {part}20 M", memory[f"{part}20 M"], most, "MiB"))
    return listed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--count", type=int, default=2_000_000)
    parser.add_argument("--without-20m", action="store_true", help="leave the run over 4.4 GB out")
    said = parser.parse_args()
    DATA.mkdir(exist_ok=True)
    RUNS.mkdir(exist_ok=True)
    file = make(said.count, f"clicks-{said.count}.ndjson")
    users = make(said.count, f"users-{said.count}.ndjson", "--users 200000")
    groups = make(said.count, f"groups-{said.count}.ndjson", "--users 100000 --pages 500")
    dirty = {
        "0.01 %": make(said.count, f"clicks-{said.count}-bad-001.ndjson", "--bad 0.0001"),
        "1 %": make(said.count, f"clicks-{said.count}-bad-1.ndjson", "--bad 0.01"),
    }
    for name, more in PAGES.items():
        make(said.count, f"{name}-{said.count}.ndjson", more)
    few = DATA / "nothing.ndjson"
    with file.open() as lines:
        few.write_text(lines.readline())
    streamed(few, "nothing.stream")
    stream = streamed(file, f"clicks-{said.count}.stream")
    raw: dict[str, list[float]] = {}
    for number in range(said.tries + 1):  # the first round only warms the caches
        for name, command in works(file, users, groups, dirty, stream, said.count).items():
            taken = seconds(command)
            if number:
                raw.setdefault(name, []).append(taken)
    raw["record latency"] = record_latency(max(5, said.tries))
    raw["10 M records over TCP"] = [over_tcp() for _ in range(said.tries)]
    million = make(said.count, f"million-{said.count}.ndjson", "--users 1000000")
    memory = {"100 files": peak_mib(spread(file, 100), STEPS_A)}
    memory |= {"dedup, 2 M": peak_mib(file, [DEDUP]), "1 M users": peak_mib(million, STEPS_SESSIONS)}
    memory |= peaks("2 M", file, users) | {"100,000 groups": peak_mib(groups, STEPS_MANY)}
    if not said.without_20m:
        memory |= peaks("20 M", *(make(10 * said.count, f"{name}-{10 * said.count}.ndjson", more) for name, more in SETS))
    saved = checkpoints.parts(file, DATA, environment())
    saved["restart"] = checkpoints.restarts(file, 4 * said.tries, environment())
    kept = stores.measured(file, make(10 * said.count, f"clicks-{10 * said.count}.ndjson")) | looking.measured(file)
    median = {name: statistics.median(values) for name, values in raw.items()}
    report(raw, median, memory, saved, kept, said.count)


def report(
    raw: dict[str, list[float]],
    median: dict[str, float],
    memory: dict[str, float],
    saved: dict[str, list[float]],
    stored_: dict[str, float],
    count: int,
) -> None:
    for name, value in median.items():
        print(f"{name:32} {value:8.3f} s")
    print()
    table = rows(median, memory, saved, stored_, count)
    for what, value, must, verdict in table:
        print(f"{what:38} {value:>10}   {must:<12} {verdict}")
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H%MZ")
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    kept = {
        "when": when,
        "machine": machine,
        "seconds": raw,
        "peak_mib": memory,
        "checkpoints": saved,
        "stores": stored_,
        "table": table,
    }
    (RUNS / f"{when}.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
