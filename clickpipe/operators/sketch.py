"""Summarise records as mergeable sketches, per window and key.

Shape, order: as aggregate; the named columns are sketches, text in NDJSON, bytes in Arrow frames.
A sketch is a value to keep: those of minutes make that of an hour (aggregate merge(s), rollup), those of two pages tell how
many visitors they have in common (select intersect(a, b)). It says what it is: unlike ones cannot be merged by mistake.
Memory: what aggregate's estimates take: rows per open window and key, as each kind says.
"""

from __future__ import annotations

from dataclasses import dataclass

from clickpipe.core.option import argument
from clickpipe.core.sketch import SKETCHES
from clickpipe.core.summarise import Summarise


@dataclass(frozen=True)
class Sketch(Summarise):
    functions = SKETCHES

    calls: tuple[str, ...] = argument("sketches with names", metavar="NAME=EXPR", example="users='distinct(user_id)'")

    epilog = """\
Sketches: distinct(x), set(x), quantiles(x), top_k(x, k), frequency(x), similarity(x), sample(x, id, k, weight).
Each takes expressions, and FILTER (WHERE …). What they tell, in select, filter and aggregate: estimate(s), estimate_lo(s),
estimate_hi(s) of distinct and set; quantile_of(s, q), where a list gives a list; top_of(s); frequency_of(s, 'value');
sample_of(s); similarity(a, b) of similarity and set; intersect(a, b) and difference(a, b) of set; union(a, b, …) of all.
For other programs: export(s, 'apache'), sketch_from(text, 'apache'); see clickpipe-sketch(5).

Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts | clickpipe window tumble 1d |
    clickpipe sketch --by page users='distinct(user_id)' ms='quantiles(latency_ms)' |
    clickpipe select page window_start 'estimate(users) AS users' 'quantile_of(ms, 0.99) AS p99' | clickpipe sink -"""
