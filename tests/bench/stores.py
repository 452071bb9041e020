"""What stores cost: logs, views, archives, and queries over them. Printed as JSON, for bench.py.

python tests/bench/stores.py FILE BIG      FILE: clicks, BIG: ten times as many
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = HERE / "data" / "stores"
CLICKPIPE = [sys.executable, "-m", "clickpipe"]
TRIES = 5
GROUPED = "SELECT page, count(*) AS n, avg(latency_ms) AS mean, max(latency_ms) AS slowest FROM {} GROUP BY page ORDER BY page"
# What a user would write without us.
POLARS = """
import sys, polars as pl
rows = pl.scan_parquet(sys.argv[1], hive_partitioning=False)
found = pl.SQLContext({"t": rows}).execute(sys.argv[2].format("t")).collect(engine="streaming")
sys.stdout.buffer.write(found.write_ndjson().encode())
"""
# How many bytes of an archive a query has read, as the kernel counts them.
READ = """
import sys
from clickpipe.query.answer import query
from clickpipe.query.statement import prepared
def read():
    return int(open("/proc/self/io").read().split("rchar: ")[1].split()[0])
asked = query(prepared(sys.argv[1]))
begun = read()
asked.frame(1 << 34)
print(read() - begun)
"""
POINT = """
import sys, time
from clickpipe.query.answer import query
from clickpipe.query.statement import prepared
taken = []
for _ in range(12):
    begun = time.perf_counter()
    assert query(prepared(sys.argv[1])).frame(1 << 34).height == 1
    taken.append(time.perf_counter() - begun)
print(sorted(taken)[len(taken) // 2])
"""


def measured(file: Path | str, big: Path | str) -> dict[str, float]:
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True)
    return {**logs(str(file)), **point(), **archived(str(big)), **pruned()}


def seconds(words: list[str]) -> float:
    begun = time.monotonic()
    subprocess.run(words, check=True, env=environment(), cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - begun


def environment() -> dict[str, str]:
    return {**os.environ, "CLICKPIPE_HOME": str(HOME)}


def median(work: Callable[[], float], tries: int = TRIES) -> float:
    return statistics.median(work() for _ in range(tries))


def run(line: str) -> list[str]:
    return [*CLICKPIPE, "run", "--quiet", "-c", line]


def said(script: str, *words: str) -> float:
    done = subprocess.run([sys.executable, "-c", script, *words], check=True, env=environment(), capture_output=True, text=True)
    return float(done.stdout)


def logs(file: str) -> dict[str, float]:
    """Records appended a second, over what it costs to read them; and what reading the log costs beside reading the file."""
    with open(file, "rb") as source:
        count = sum(chunk.count(b"\n") for chunk in iter(lambda: source.read(1 << 24), b""))
    steps = "window tumble 5s | aggregate --by page n='count(*)' | sink data/out.ndjson"

    def append() -> float:
        shutil.rmtree(HOME / "logs", ignore_errors=True)
        return seconds(run(f"ingest {shlex.quote(file)} | sink log:raw"))

    appended, nothing = median(append, 3), median(lambda: seconds(run("ingest data/nothing.ndjson | sink /dev/null")), 3)
    plain = median(lambda: seconds(run(f"ingest {shlex.quote(file)} --time ts --max-out-of-orderness 5s | {steps}")))
    read = median(lambda: seconds(run(f"ingest log:raw --time ts --max-out-of-orderness 5s | {steps}")))
    return {"appended": count / (appended - nothing), "plain / log": plain / read}


def point() -> dict[str, float]:
    """A row of a view of a million rows, found by its key, and a cached answer. Unit: seconds."""
    made = (
        "import polars as pl\nfrom clickpipe.store import views\n"
        "n = pl.Series('n', range(1_000_000))\n"
        "view = views.View('million', {'page': 'str', 'n': 'int'}, ['page'])\n"
        "view.apply(pl.DataFrame({'page': n.cast(pl.String), 'n': n}), views.Marker('a', 1), anew=True)\nprint(0)"
    )
    said(made)
    sql = "SELECT count(*) AS n FROM million WHERE n > 10"
    words = [*CLICKPIPE, "query", sql]
    seconds(words)
    cached, nothing = median(lambda: seconds(words), 9), median(lambda: seconds([*CLICKPIPE, "--help"]), 9)
    return {"point": said(POINT, "SELECT * FROM million WHERE page = '777777'"), "cached": cached - nothing}


def archived(big: str) -> dict[str, float]:
    """A group-by over an archive beside bare Polars on the same files, whole processes; rows archived a second."""
    begun = time.monotonic()
    subprocess.run(
        run(f"ingest {shlex.quote(big)} --time ts --max-out-of-orderness 5s | sink archive:clicks"), check=True, env=environment()
    )
    taken = time.monotonic() - begun
    before = time.monotonic()
    subprocess.run([*CLICKPIPE, "archive", "compact", "clicks"], check=True, env=environment(), stderr=subprocess.DEVNULL)
    compacted = time.monotonic() - before
    files = str(HOME / "archives" / "clicks" / "**" / "*.parquet")
    ours, theirs = [], []
    for _ in range(TRIES):  # in turn, since the machine is noisy
        ours.append(seconds([*CLICKPIPE, "query", "--no-cache", GROUPED.format("clicks")]))
        theirs.append(seconds([sys.executable, "-c", POLARS, files, GROUPED]))
    ratio = statistics.median(ours) / statistics.median(theirs)
    return {"query": statistics.median(ours), "query / polars": ratio, "archived": 20_000_000 / taken, "compacted": compacted}


def pruned() -> dict[str, float]:
    """The share of an archive of thirty days that a query of one hour reads."""
    made = (
        "import polars as pl\nfrom clickpipe.batch import Batch\nfrom clickpipe.columns import Columns, TimeColumn\n"
        "from clickpipe.operators.sink import Sink\n"
        "types = {'ts': 'int', 'page': 'str', 'user_id': 'str', 'latency_ms': 'int'}\n"
        "given = Columns(types, time=TimeColumn('ts'))\nwriter = Sink('archive:month').open(given)\n"
        "for day in range(30):\n"
        "    n = pl.Series('ts', range(240_000))\n"
        "    time, page = 1_767_225_600_000 + day * 86_400_000 + n * 360, '/p/' + (n % 97).cast(pl.String)\n"
        "    rows = pl.DataFrame({'ts': time, 'page': page,\n"
        "        'user_id': 'u' + (n * 7919 % 50_021).cast(pl.String), 'latency_ms': n * 31 % 1_009})\n"
        "    writer.write(Batch(rows, given))\nwriter.close([])\nprint(0)"
    )
    said(made)
    subprocess.run([*CLICKPIPE, "archive", "compact", "month"], check=True, env=environment(), stderr=subprocess.DEVNULL)
    where = "ts >= ms('2026-01-15T07:00:00Z') AND ts < ms('2026-01-15T08:00:00Z')"
    read = said(READ, f"SELECT page, count(*), avg(latency_ms), count(DISTINCT user_id) FROM month WHERE {where} GROUP BY page")
    whole = sum(path.stat().st_size for path in (HOME / "archives" / "month").rglob("*.parquet") if not path.name.startswith("."))
    return {"pruned": read / whole}


if __name__ == "__main__":
    print(json.dumps(measured(*sys.argv[1:])))
