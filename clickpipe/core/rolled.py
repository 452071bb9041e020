"""Rows of fine windows that come again when they change -> rows of coarse ones that do the same.

    row of a child --> newest row of each child --settled--> pieces of the parent
                                     \\____________________________/ merged --> a row, each time that they have changed

A child's row takes the place of its row before, so it is kept apart until no correction can come any more, `lateness` after the
child's end; then it is merged. The parent's `rev` is the sum of its children's: the number of records that came when their
fine window had been given out. So its last row does not depend on how records were batched.

Memory: one row per child that can still change, and one per key of an open parent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from clickpipe.batch import Batch
from clickpipe.columns import HIDDEN
from clickpipe.core.aggregate import Exprs
from clickpipe.core.groups import REV, Grouping, Groups
from clickpipe.core.operator import FOREVER, Late
from clickpipe.core.summary import Call, Select, Summary, Table, stacked
from clickpipe.core.total import Total
from clickpipe.core.windows import WINDOW

CHILD, CHILD_END = HIDDEN + "child", HIDDEN + "child end"  # the bounds of the fine window, beside those of the coarse one


class Rolled(Groups):
    def __init__(self, grouping: Grouping, saved: Mapping[str, pl.DataFrame], whole: Sequence[str]) -> None:
        """`whole`: by which columns the children's rows are, where the parents' are by fewer."""
        assert grouping.window is not None
        self._lateness, self._whole = grouping.window.lateness, list(whole)
        self._keys = [*WINDOW, *(name for name in grouping.by if name not in WINDOW)]
        self._calls = [*grouping.calls, Call(REV, _Revisions("int"), pl.col(REV))]
        self._settled = Summary(self._keys, self._calls, saved)
        self._children = Newest([CHILD, *self._whole], REV, saved.get("children"))
        # Groups that children have changed since they were given out.
        self._changed = Table(self._keys, [], saved.get("late"))
        self._fired = int(saved["fired"].item()) if "fired" in saved else -FOREVER
        self._next = -FOREVER if saved else FOREVER  # nothing is due before

    def add(self, batch: Batch, frame: pl.DataFrame, time: pl.Expr) -> Iterator[Late]:
        rows = frame.with_columns(batch.frame.select(CHILD, CHILD_END, REV)).with_columns(pl.col(REV).alias(HIDDEN + REV))
        behind = rows[CHILD_END] + self._lateness <= self._fired
        if behind.any():  # no stream of ours has any: a tool moved them past their watermark
            yield Late(batch.keep(behind), "behind")
            rows = rows.filter(~behind)
        if not rows.height:
            return
        self._children.add(rows)
        given_out = rows.filter(pl.col("window_end") <= self._fired)
        if given_out.height:
            self._changed.add(given_out, pl.lit(0))
        self._next = min([self._next, *_least(rows, "window_end", 0), *_least(rows, CHILD_END, self._lateness)])

    def widen(self, name: str) -> None:
        self._settled.widen(name)
        self._calls = [call.wide() if call.name == name else call for call in self._calls]

    def fire(self, time: int) -> Iterator[pl.DataFrame]:
        before, self._fired = self._fired, time
        changed = self._changed.take()
        if changed.height:
            yield self._values(lambda rows: rows.join(changed, on=self._keys, how="semi", nulls_equal=True))
        if time >= self._next:
            yield self._values(lambda rows: rows.filter(pl.col("window_end") > before, pl.col("window_end") <= time))
            self._settle(time)

    def _values(self, select: Select) -> pl.DataFrame:
        """The rows of the parents that `select` leaves: of what has settled, and of the other children as they are now."""
        settled = {name: select(rows) for name, rows in self._settled.snapshot().items()}
        both = Summary(self._keys, self._calls, settled)
        children = self._children.rows()
        children = select(children) if children.width else children
        if children.height:
            both.add(children, pl.col(CHILD))
        return both.values(lambda rows: rows)

    def _settle(self, time: int) -> None:
        """Merge what changes no more, let go of parents that change no more; and see when there is something to do again."""
        done = self._children.take(pl.col(CHILD_END) + self._lateness <= time)
        if done.height:
            self._settled.add(done, pl.col(CHILD))
        self._settled.keep(lambda rows: rows.filter(pl.col("window_end") + self._lateness > time))
        children, parents = self._children.rows(), self._settled.groups()
        coming = [
            *_least(children, CHILD_END, self._lateness),
            *_least(parents, "window_end", self._lateness),
            *(at for rows in (children, parents) for at in _least(rows, "window_end", 0, above=time)),
        ]
        self._next = min(coming, default=FOREVER)

    def snapshot(self) -> Mapping[str, pl.DataFrame]:
        kept = {"children": self._children.rows(), "late": self._changed.rows()}
        fired = {} if self._fired == -FOREVER else {"fired": pl.DataFrame({"fired": [self._fired]})}
        return {**self._settled.snapshot(), **{name: rows for name, rows in kept.items() if rows.width}, **fired}


class Newest:
    """Rows of which, among those of one key, the one that is greatest in `order` counts."""

    def __init__(self, keys: Sequence[str], order: str, saved: pl.DataFrame | None = None) -> None:
        self._keys, self._order = list(keys), order
        self._parts = [] if saved is None else [saved]

    def add(self, rows: pl.DataFrame) -> None:
        self._parts.append(self._newest(rows))

    def rows(self) -> pl.DataFrame:
        if len(self._parts) > 1:
            self._parts = [self._newest(stacked(self._parts))]
        return self._parts[0] if self._parts else pl.DataFrame()

    def take(self, which: pl.Expr) -> pl.DataFrame:
        """These rows; they are gone then."""
        rows = self.rows()
        if not rows.width:
            return rows
        self._parts = [rows.filter(~which)]
        return rows.filter(which)

    def _newest(self, rows: pl.DataFrame) -> pl.DataFrame:
        return rows.sort(self._order, maintain_order=True).unique(self._keys, keep="last", maintain_order=True)


class _Revisions(Total):
    """The sum of the children's."""

    def final(self, piece: Exprs) -> pl.Expr:
        return piece["whole"].cast(pl.Int64)


def _least(rows: pl.DataFrame, name: str, later: int, above: int = -FOREVER) -> list[int]:
    """The least value in a column that is greater than `above`, and so much later; none where there is no row."""
    if not rows.height:
        return []
    least = rows[name].filter(rows[name] > above).min()
    return [least + later] if isinstance(least, int) else []
