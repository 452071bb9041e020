"""What a pipeline has given, held against what a batch computes from its raw records.

Only closed windows are compared: those that ended before the watermark of the newest checkpoint; all of them where the input has
ended, or there are no checkpoints. Exact functions must agree to the last digit, and so must estimates, since a sketch does not
depend on the order of its records; with `exactly` estimates are held against the exact values instead, within their bound.
Memory: the rows of the results.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl

from clickpipe.batch import Batch
from clickpipe.columns import Columns
from clickpipe.core.operator import FOREVER, Writer
from clickpipe.core.render import as_table
from clickpipe.engine.local import run
from clickpipe.engine.recompute import again, results_of
from clickpipe.errors import PlanError, Unsupported
from clickpipe.operators.aggregate import Aggregate
from clickpipe.operators.ingest import Ingest
from clickpipe.operators.sink import Sink
from clickpipe.operators.window import Window
from clickpipe.plan.plan import Node, Plan
from clickpipe.state.epochs import Epochs
from clickpipe.state.home import pipeline_directory
from clickpipe.store import stored

_OURS = ("rev", "final", "closed_by", "deleted")  # columns that say how a row came about
_EXACT = ((r"\bapprox_distinct\s*\(", "count(DISTINCT "), (r"\bapprox_quantile\s*\((?=[^\[]*\))", "quantile_disc("))
_SIDE, _SAME = "\0stored:", "\0same:"
_HAS = "\0has"
_BOUND_DISTINCT, _BOUND_QUANTILE = 5 * 1.04 / 64, 0.0101  # five standard deviations of 4,096 registers; half a bucket


@dataclass(frozen=True)
class Compared:
    """One window of one sink. `agreed`: rows that are the same; `differing`: keys with, of each column, what is there and what it
    should be; `missing` and `too_many`: keys."""

    sink: str
    window: int | None
    agreed: int
    differing: Sequence[tuple[Mapping[str, object], Mapping[str, tuple[object, object]]]] = ()
    missing: Sequence[Mapping[str, object]] = ()
    too_many: Sequence[Mapping[str, object]] = ()

    @property
    def is_right(self) -> bool:
        return not (self.differing or self.missing or self.too_many)


@dataclass(frozen=True)
class Audit:
    """`sample`: so many windows by chance, None for all; `seed`: which."""

    plan: Plan
    inputs: tuple[str, ...] = ()
    sample: int | None = None
    seed: int | None = None
    exactly: bool = False

    def compared(self, say: Callable[[str], None]) -> Iterator[Compared]:
        """Window by window. Raises PlanError where there is nothing to compare."""
        if not results_of(self.plan):
            raise PlanError("nothing to audit: the pipeline has no sink")
        closed = self._closed()
        kept: list[tuple[Sink, _Kept]] = []

        def opened(sink: Sink, given: Columns) -> Writer:
            kept.append((sink, _Kept(given)))
            return kept[-1][1]

        run(self._exact(_silent(again(self.plan, "audit", self.inputs, opened))), say)
        for sink, rows in kept:
            yield from self._of(sink, rows, closed)

    def _exact(self, plan: Plan) -> Plan:
        """The plan with exact functions in place of estimates."""
        if not self.exactly:
            return plan
        nodes = [Node(_exactly(node.step), node.written) if isinstance(node.step, Aggregate) else node for node in plan.nodes]
        return replace(plan, nodes=tuple(nodes))

    def _closed(self) -> int:
        """What a closed window has ended by. Unit: milliseconds."""
        ingest = self.plan.nodes[0].step
        assert isinstance(ingest, Ingest)
        manifest = next(Epochs(pipeline_directory(ingest.pipeline(self.plan.name))).manifests(), None)
        if manifest is None or manifest.ended:
            return FOREVER
        reached = manifest.entry(0, "source")["reached"]
        return int(reached) if reached is not None else -FOREVER

    def _of(self, sink: Sink, kept: _Kept, closed: int) -> Iterator[Compared]:
        given = kept.given
        keys = list(sink.key or given.key)
        if not keys:
            raise Unsupported("notimpl", f"audit of {sink.destination}", "its rows have no key by which to compare them")
        there, types = _rows_of(sink)
        columns = [name for name in given.types if name in types and name not in (*keys, *_OURS)]
        should = _closed_rows(kept.rows(), closed).select(*keys, *columns)
        has = _closed_rows(there, closed) if there.width else should.clear()
        both = _paired(should, has.select(*keys, *columns), keys)
        yield from self._windows(sink, both, keys, columns)

    def _windows(self, sink: Sink, both: pl.DataFrame, keys: list[str], columns: list[str]) -> Iterator[Compared]:
        if "window_start" not in keys:
            yield self._window(sink, None, both, keys, columns)
            return
        starts = both["window_start"].unique().sort().to_list()
        if self.sample is not None and self.sample < len(starts):
            starts = sorted(random.Random(self.seed).sample(starts, self.sample))
        for (start,), rows in both.filter(pl.col("window_start").is_in(starts)).group_by("window_start", maintain_order=True):
            yield self._window(sink, start, rows, keys, columns)

    def _window(self, sink: Sink, start: object, rows: pl.DataFrame, keys: list[str], columns: list[str]) -> Compared:
        missing, too_many = rows.filter(pl.col(_SIDE + _HAS).is_null()), rows.filter(pl.col(_HAS).is_null())
        matched = rows.filter(pl.col(_HAS).is_not_null() & pl.col(_SIDE + _HAS).is_not_null())
        judged = matched.with_columns(self._is_same(name).alias(_SAME + name) for name in columns)
        wrong = judged.filter(~pl.all_horizontal(_SAME + name for name in columns)) if columns else judged.clear()
        differing = [
            (
                {name: row[name] for name in keys},
                {name: (row[_SIDE + name], row[name]) for name in columns if not row[_SAME + name]},
            )
            for row in wrong.iter_rows(named=True)
        ]
        window = int(start) if isinstance(start, int) else None
        rest = (missing.select(keys).to_dicts(), too_many.select(keys).to_dicts())
        return Compared(sink.destination, window, matched.height - wrong.height, differing, *rest)

    def _is_same(self, name: str) -> pl.Expr:
        should, there = pl.col(name), pl.col(_SIDE + name)
        bound = self._bounds().get(name)
        if bound is None:
            return should.eq_missing(there)
        near = (should.cast(pl.Float64) - there.cast(pl.Float64)).abs() <= bound * should.cast(pl.Float64).abs()
        return should.eq_missing(there) | near.fill_null(False)

    def _bounds(self) -> dict[str, float]:
        """Of columns that are estimates, how far they may be from the exact value, as a share of it."""
        calls = [call for node in self.plan.nodes if isinstance(node.step, Aggregate) for call in node.step.calls]
        bounds = {}
        for call in calls if self.exactly else ():
            name, _, text = call.partition("=")
            if re.search(_EXACT[0][0], text):
                bounds[name.strip()] = _BOUND_DISTINCT
            elif re.search(_EXACT[1][0], text):
                bounds[name.strip()] = _BOUND_QUANTILE
        return bounds


class _Kept(Writer):
    """Keeps the rows that come, of each key the last."""

    def __init__(self, given: Columns) -> None:
        self.given = given
        self._frames: list[pl.DataFrame] = []

    def write(self, batch: Batch) -> None:
        self._frames.append(as_table(batch, spell_times=False))

    def rows(self) -> pl.DataFrame:
        if not self._frames:
            return pl.DataFrame(schema=self.given.schema())
        rows = pl.concat(self._frames, how="vertical_relaxed")
        return rows.unique(list(self.given.key), keep="last", maintain_order=True) if self.given.is_revised else rows


def _silent(plan: Plan) -> Plan:
    """The plan, whose late records and dead letters nobody wants once more."""
    nodes = []
    for node in plan.nodes:
        step = node.step
        step = replace(step, dead_letter=os.devnull) if isinstance(step, Ingest) else step
        step = replace(step, late=os.devnull) if isinstance(step, Window) else step
        nodes.append(Node(step, node.written))
    return replace(plan, nodes=tuple(nodes))


def _exactly(step: Aggregate) -> Aggregate:
    calls = step.calls
    for pattern, instead in _EXACT:
        calls = tuple(re.sub(pattern, instead, call) for call in calls)
    return replace(step, calls=calls, bounds=False)


def _rows_of(sink: Sink) -> tuple[pl.DataFrame, Mapping[str, str]]:
    kind, name = sink.destination_kind(), sink.destination.partition(":")[2]
    if kind == "view":
        return stored.of_view(name)
    if kind == "archive":
        return stored.of_archive(name)
    raise Unsupported("notimpl", f"audit of {sink.destination}", "views and archives are audited")


def _closed_rows(rows: pl.DataFrame, closed: int) -> pl.DataFrame:
    return rows.filter(pl.col("window_end") <= closed) if "window_end" in rows.columns else rows


def _paired(should: pl.DataFrame, has: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """The rows of both by their keys; those of `has` under names of their own, null where there is none."""
    unlike = [name for name in has.columns if {has.schema[name], should.schema[name]} == {pl.Int64(), pl.Float64()}]
    should, has = (rows.with_columns(pl.col(unlike).cast(pl.Float64)) for rows in (should, has))
    there = has.cast({name: should.schema[name] for name in has.columns})
    there = there.rename({name: _SIDE + name for name in has.columns if name not in keys})
    both = should.with_columns(pl.lit(True).alias(_HAS)).join(
        there.with_columns(pl.lit(True).alias(_SIDE + _HAS)), on=keys, how="full", coalesce=True, nulls_equal=True
    )
    return both.sort(keys)
