"""Aggregation by sessions: stretches of activity of a key, apart by a gap.

    record at t -> [t, t + gap) -> those of a key that overlap are one session -> given out when the watermark passes its end

Each batch is reduced to its own sessions, which are appended, and merged with all others now and then, those that may have
ended each time. What ends first lies first, so that giving some out costs what they are, and not what is open.

A late record joins a session that is open by its mark (or was given out less than `lateness` before), or begins one that is;
else it is late. Where a session has been given out under a start that is not its own any more, that row is given again with
`deleted`.

Memory: one row per open session; with `longest` also one per key and instant that the watermark has not passed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from clickpipe.batch import Batch
from clickpipe.columns import HIDDEN
from clickpipe.core.apart import ID, Apart
from clickpipe.core.groups import DELETED, REV, Grouping, Groups
from clickpipe.core.joining import FROM, IS_OVER, LABEL, ROW, TO, WAITS, joined
from clickpipe.core.keys import number
from clickpipe.core.operator import FOREVER, Late
from clickpipe.core.summary import Pieces, apart, stacked
from clickpipe.core.tally import tally, tally_piece
from clickpipe.core.windows import WINDOW
from clickpipe.text import owned

_SHOWN = HIDDEN + "shown"  # the starts under which it has been given out
_FRESH = HIDDEN + "fresh"  # it has changed since
_KEY = HIDDEN + "key"  # its number in this process
_IS_ONE = HIDDEN + "is one"
_WORTH_MERGING = 50_000  # rows


class Sessions(Groups):
    def __init__(self, grouping: Grouping, saved: Mapping[str, pl.DataFrame]) -> None:
        info = grouping.window
        assert info is not None
        self._gap, self._lateness, self._longest, self._by = info.size, info.lateness, info.longest, list(info.by)
        self._finer = [name for name in grouping.by if name not in (*self._by, *WINDOW)]
        self._emit, self._is_shown_again = grouping.emit, info.lateness > 0 or not grouping.emit.is_once
        self._is_ordered = grouping.is_ordered
        calls = [*grouping.calls, *([tally(REV, "bool")] if self._lateness else [])]
        plain, shared = ([], [calls]) if self._finer else apart(calls)
        fine = [call for some in shared for call in some]
        self._order = [call.name for call in calls]
        self._pieces = Pieces(plain)
        self._apart = Apart(self._finer, fine, saved, is_ordered=grouping.is_ordered) if fine else None
        self._open: pl.DataFrame | None = None  # the first end first
        self._recent: list[pl.DataFrame] = []
        self._recent_rows, self._recent_end = 0, FOREVER
        self._number = number(self._by).alias(_KEY)
        self._given = saved["given"].with_columns(self._number) if "given" in saved else None  # and may be corrected
        # Those that nothing joins any more, and that have not been given out yet.
        self._over: list[pl.DataFrame] = [saved["over"].with_columns(self._number)] if "over" in saved else []
        self._gone: list[pl.DataFrame] = [saved["gone"]] if "gone" in saved else []  # rows to be taken back
        self._reached = int(saved["reached"].item()) if "reached" in saved else -FOREVER
        if "sessions" in saved:
            self._append(saved["sessions"].with_columns(self._number))

    def widen(self, name: str) -> None:
        if self._apart:
            self._apart.widen(name)
        if wide := self._pieces.widen(name):
            self._open = None if self._open is None else self._open.with_columns(*wide)
            self._given = None if self._given is None else self._given.with_columns(*wide)
            self._recent = [part.with_columns(*wide) for part in self._recent]
            self._over = [part.with_columns(*wide) for part in self._over]

    # Records.

    def add(self, batch: Batch, frame: pl.DataFrame, time: pl.Expr) -> Iterator[Late]:
        frame = frame.with_columns(self._number)
        if self._lateness:
            frame = frame.with_columns(pl.lit(None, pl.Boolean).alias(HIDDEN + REV))
        doubtful = self._doubtful(frame)
        if doubtful is None:
            self._add(frame, time)
            return
        frame = frame.with_row_index(ROW)
        some = frame.join(doubtful, on=_KEY, how="semi", maintain_order="left")
        self._add(frame.join(doubtful, on=_KEY, how="anti", maintain_order="left"), time)
        late = self._joined(some, doubtful, time)
        if late:
            rows = pl.Series(range(batch.height), dtype=pl.UInt32)
            yield Late(batch.keep(rows.is_in(late)))

    def _add(self, frame: pl.DataFrame, time: pl.Expr) -> None:
        """Records that join whatever they overlap."""
        if not frame.height:
            return
        keys = [_KEY]
        if self._longest is not None:
            keys += ["window_start"]
        elif self._spans_gap(frame):
            label = (_start().diff() >= self._gap).fill_null(value=True).cum_sum().over(_KEY).alias(LABEL)
            frame = frame.sort("window_start", maintain_order=True).with_columns(label)
            keys += [LABEL]
        self._append(self._reduced(frame, keys, time).drop(LABEL, strict=False))

    def _spans_gap(self, frame: pl.DataFrame) -> bool:
        first, last = frame["window_start"].min(), frame["window_start"].max()
        return isinstance(first, int) and isinstance(last, int) and last - first >= self._gap

    def _reduced(self, frame: pl.DataFrame, keys: list[str], time: pl.Expr) -> pl.DataFrame:
        """Records equal in these are of one session."""
        bounds = [expr for name, expr in (("window_start", _start().min()), ("window_end", _end().max())) if name not in keys]
        named = [pl.col(name).first() for name in (_KEY, *self._by) if name not in keys]
        part = frame.group_by(keys).agg(*named, *bounds, *self._pieces.partials(time))
        if self._is_shown_again:
            part = part.with_columns(pl.lit([], pl.List(pl.Int64)).alias(_SHOWN), pl.lit(value=True).alias(_FRESH))
        return self._apart.add(frame, part, keys, time) if self._apart else part

    def _append(self, part: pl.DataFrame) -> None:
        if not part.height:
            return
        self._recent.append(part)
        self._recent_rows += part.height
        end = part["window_end"].min()
        assert isinstance(end, int)
        self._recent_end = min(self._recent_end, end)
        if self._longest is None and self._recent_rows > max(_WORTH_MERGING, 0 if self._open is None else 2 * self._open.height):
            self._merge_all()

    # Merging.

    def _merge_all(self) -> None:
        self._open = self._sorted(self._united(self._stacked([self._open, *self._take_recent()])))

    def _sorted(self, rows: pl.DataFrame) -> pl.DataFrame | None:
        """What ends first comes first. A session may be open for long, and must not keep the text of its first batch."""
        return owned(rows).sort("window_end", maintain_order=True) if rows.height else None

    def _take_recent(self) -> list[pl.DataFrame]:
        taken, self._recent, self._recent_rows, self._recent_end = self._recent, [], 0, FOREVER
        return taken

    def _stacked(self, parts: list[pl.DataFrame | None]) -> pl.DataFrame:
        some = [part for part in parts if part is not None and part.height]
        return stacked(some) if some else pl.DataFrame()

    def _united(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Those of a key that overlap are one. Where all of them have an instant in common, no order is needed."""
        if not rows.height:
            return rows
        if self._longest is not None:
            return self._chained(rows, self._longest)
        is_one = (_start().max() < _end().min()).alias(_IS_ONE)
        merged = self._combined(rows, [_KEY], is_one)
        if not merged[_IS_ONE].all():
            several = merged.filter(~pl.col(_IS_ONE)).select(_KEY)
            rest = rows.join(several, on=_KEY, how="semi", maintain_order="left")
            rest = self._combined(self._labelled(rest), [_KEY, LABEL], pl.lit(value=True).alias(_IS_ONE)).drop(LABEL)
            merged = pl.concat([merged.filter(_IS_ONE), rest.select(merged.columns)], how="vertical_relaxed")
        return self._noted(merged.drop(_IS_ONE))

    def _labelled(self, rows: pl.DataFrame) -> pl.DataFrame:
        """With the number of the session among those of its key. The order stays: of two records the first came first."""
        begins = (_end().cum_max().shift(1).over(_KEY) <= _start()).fill_null(value=True)
        rows = rows.with_row_index(ROW).sort("window_start").with_columns(begins.cum_sum().over(_KEY).alias(LABEL))
        return (rows.sort(ROW) if self._is_ordered else rows).drop(ROW)

    def _chained(self, rows: pl.DataFrame, longest: int) -> pl.DataFrame:
        """In the order of time; what would make a session too long begins the next one. A round for each of a key."""
        found: list[pl.DataFrame] = []
        limit = _start().min().over(_KEY, LABEL) + longest
        while rows.height:
            rows = self._labelled(rows).with_columns((limit > _start()).alias(_IS_ONE))
            merged = self._combined(rows.filter(_IS_ONE), [_KEY, LABEL])
            found.append(merged.drop(LABEL).with_columns(pl.min_horizontal(_end(), _start() + longest).alias("window_end")))
            rows = rows.filter(~pl.col(_IS_ONE)).drop(LABEL, _IS_ONE)
        return self._noted(self._stacked([*found]))

    def _combined(self, rows: pl.DataFrame, keys: list[str], *more: pl.Expr) -> pl.DataFrame:
        """Rows equal in these are one."""
        named = [pl.col(name).first() for name in (_KEY, *self._by) if name not in keys]
        again = [pl.col(_SHOWN).list.explode(keep_nulls=False, empty_as_null=False), pl.col(_FRESH).any()]
        ids = [pl.col(ID)] if self._apart else []
        exprs = [
            *named,
            _start().min(),
            _end().max(),
            *(again if self._is_shown_again else []),
            *ids,
            *self._pieces.merges(),
            *more,
        ]
        return rows.group_by(keys).agg(*exprs)

    def _noted(self, rows: pl.DataFrame) -> pl.DataFrame:
        """What has come together keeps one number, and one of the rows that were given out for it."""
        if self._apart:
            rows = self._apart.merged(rows)
        if self._is_shown_again:
            wrong = rows.filter(pl.col(_SHOWN).list.len() > 0).explode(_SHOWN).filter(pl.col(_SHOWN) != _start())
            if wrong.height:
                self._take_back(wrong)
            own = pl.when(pl.col(_SHOWN).list.contains(_start())).then(pl.concat_list("window_start"))
            rows = rows.with_columns(own.otherwise(pl.lit([], pl.List(pl.Int64))).alias(_SHOWN))
        return rows

    def _take_back(self, wrong: pl.DataFrame) -> None:
        rev = [(pl.col(tally_piece(REV)) + 1).alias(REV)] if self._lateness else []
        self._gone.append(wrong.select(pl.col(_SHOWN).alias("window_start"), *self._by, *rev))

    # Late records.

    def _doubtful(self, frame: pl.DataFrame) -> pl.DataFrame | None:
        """The keys of late records for which it matters in which order records come.

        For all others every session of the key, by what was known and by this batch, is open by the latest mark.
        """
        if "_mark" not in frame.columns or frame["_mark"].null_count() == frame.height:
            return None
        late = frame.filter(pl.col("_mark").is_not_null()).group_by(_KEY).agg(pl.col("_mark").max())
        if self._longest is not None:
            return late.select(_KEY)
        mine = frame.join(late.select(_KEY), on=_KEY, how="semi")
        ends = mine.group_by(_KEY).agg(_end().min())
        ends = self._stacked([self._ended(late["_mark"].max()), ends])  # type: ignore[arg-type]  # an integer
        found = ends.join(late, on=_KEY).filter(pl.col("_mark") >= _end()).select(_KEY).unique()
        return found if found.height else None

    def _ended(self, mark: int) -> pl.DataFrame:
        """All that is known of sessions that have ended by this mark, or would have if nothing had come since."""
        parts = [self._given, self._first_open(mark), *(self._recent if self._recent_end <= mark else [])]
        rows = [part.select(_KEY, "window_end").filter(mark >= _end()) for part in parts if part is not None]
        return self._stacked([*rows])

    def _first_open(self, upto: int) -> pl.DataFrame | None:
        return None if self._open is None else self._open.head(self._open["window_end"].search_sorted(upto, side="right"))

    def _joined(self, frame: pl.DataFrame, keys: pl.DataFrame, time: pl.Expr) -> list[int]:
        """All that is known of these keys, and these records, one by one. The numbers of the late ones."""
        known = self._pulled(keys)
        rows = known.select(_KEY, ROW, *WINDOW, WAITS).iter_rows() if known.height else ()
        records = frame.select(_KEY, ROW, "window_start", "_mark").iter_rows()
        found = joined(rows, records, self._gap, self._lateness, self._longest)
        if self._lateness:
            corrects = pl.when(pl.col(ROW).is_in(found.corrections)).then(pl.lit(value=True))
            frame = frame.with_columns(corrects.alias(HIDDEN + REV))
        parts: list[pl.DataFrame] = []
        if known.height:
            parts.append(known.join(found.parts, on=ROW, maintain_order="left").drop(ROW, WAITS))
        if found.records.height:
            parts.append(self._reduced(frame.join(found.records, on=ROW, maintain_order="left"), [LABEL], time))
        if parts:
            merged = self._combined(self._stacked([*parts]), [LABEL]).join(found.sessions, on=LABEL)
            merged = merged.with_columns(pl.col(FROM).alias("window_start"), pl.col(TO).alias("window_end"))
            self._put_back(self._noted(merged.drop(FROM, TO, LABEL)))
        return found.late

    def _put_back(self, merged: pl.DataFrame) -> None:
        flags = IS_OVER, WAITS
        over = merged.filter(IS_OVER).drop(flags)
        waits = merged.filter(~pl.col(IS_OVER) & pl.col(WAITS)).drop(flags)
        settled = merged.filter(~pl.col(IS_OVER) & ~pl.col(WAITS)).drop(flags)
        is_given = self._is_given()
        self._over.append(over.filter(~is_given))
        self._forget(over.filter(is_given))
        self._append(waits)
        self._keep(settled)

    def _keep(self, rows: pl.DataFrame) -> None:
        """Sessions that had been taken out."""
        is_given = self._is_given()
        given = self._stacked([self._given, rows.filter(is_given)])
        self._given, rows = given if given.height else None, rows.filter(~is_given)
        if self._longest is None:
            self._append(rows)
        else:
            self._open = self._sorted(self._stacked([self._open, rows]))

    def _is_given(self) -> pl.Expr:
        """It has been given out, and nothing has joined it since."""
        if not self._lateness:
            return pl.lit(value=False)
        return ~pl.col(_FRESH) & (_end() <= self._reached)

    def _pulled(self, keys: pl.DataFrame) -> pl.DataFrame:
        """All rows of these keys, taken out, with ROW and WAITS."""
        self._open, opened = self._split(self._open, keys)
        self._given, given = self._split(self._given, keys)
        new = self._recent_of(keys)
        if self._longest is None:
            rows = self._united(self._stacked([given, opened, new])).with_columns(pl.lit(value=False).alias(WAITS))
        else:
            parts = [
                part.with_columns(pl.lit(value=part is new).alias(WAITS)) for part in (given, opened, new) if part is not None
            ]
            rows = self._stacked([*parts])
        return rows.with_row_index(ROW)

    def _recent_of(self, keys: pl.DataFrame) -> pl.DataFrame | None:
        """What has come of these keys since the last merge, taken out."""
        others, mine = self._split(self._stacked([*self._take_recent()]), keys)
        if others is not None:
            self._append(others)
        return mine

    def _split(self, rows: pl.DataFrame | None, keys: pl.DataFrame) -> tuple[pl.DataFrame | None, pl.DataFrame | None]:
        """Those of other keys, and those of these."""
        if rows is None or not rows.height:
            return rows, None
        mine = pl.lit(value=True).alias(LABEL)
        rows = rows.join(keys.with_columns(mine), on=_KEY, how="left", maintain_order="left")
        return rows.filter(pl.col(LABEL).is_null()).drop(LABEL), rows.filter(LABEL).drop(LABEL)

    # What is given out.

    def fire(self, time: int) -> Iterator[pl.DataFrame]:
        before, self._reached = self._reached, time
        over, self._over = self._over, []
        ended = self._stacked([*over, self._take_ended(time)])
        yield from self._taken_back(final=True)
        if ended.height:
            yield self._emit.told(self._values(ended), final=True)
        self._let_go(ended, time)
        if self._emit.is_due(before if before > -FOREVER else None, time):
            yield from self.update()

    def _take_ended(self, time: int) -> pl.DataFrame:
        self._settle(time)
        ended = self._first_open(time)
        if ended is None or not ended.height:
            return pl.DataFrame()
        assert self._open is not None
        self._open = self._open.slice(ended.height)
        if self._longest is not None or not self._recent:
            return ended
        new = self._recent_of(ended.select(_KEY).unique())
        if new is None or not new.height:
            return ended
        merged = self._united(self._stacked([ended, new]))
        self._append(merged.filter(time < _end()))
        return merged.filter(time >= _end())

    def _settle(self, time: int) -> None:
        """What may have ended stands among the open ones, and they are merged with all that may make them longer."""
        is_due = self._recent_end <= time
        if self._longest is None:
            if is_due:
                self._merge_all()
            return
        opened = self._first_open(time)
        if not is_due and not (opened is not None and opened.height):
            return
        recent = self._stacked([*self._take_recent()])
        if not recent.height:
            return
        self._append(recent.filter(time <= _start()))
        settled = recent.filter(time > _start())
        self._open, mine = self._split(self._open, settled.select(_KEY).unique())
        self._open = self._sorted(self._stacked([self._open, self._united(self._stacked([mine, settled]))]))

    def _let_go(self, ended: pl.DataFrame, time: int) -> None:
        """What has been given out stays for corrections, until there can be none."""
        if self._lateness:
            shown = [pl.concat_list("window_start").alias(_SHOWN), pl.lit(value=False).alias(_FRESH)]
            given = self._stacked([self._given, ended.with_columns(*shown) if ended.height else None])
            if not given.height:
                return
            is_past = _end() + self._lateness <= time
            self._given, ended = given.filter(~is_past), given.filter(is_past)
        self._forget(ended)

    def _forget(self, rows: pl.DataFrame) -> None:
        """Their pieces, where they are kept apart."""
        if self._apart and rows.height:
            self._apart.forget(rows)

    def _values(self, rows: pl.DataFrame) -> pl.DataFrame:
        kept = rows.select(*WINDOW, *self._by, *([ID] if self._apart else []), *self._pieces.finals())
        if self._apart:
            kept = kept.join(self._apart.values(rows), on=ID)
        return kept.select(*WINDOW, *self._by, *self._finer, *self._order)

    def update(self) -> Iterator[pl.DataFrame]:
        is_open = pl.col(_FRESH) & (_end() > self._reached)
        # Merging may have put what is fresh among the open ones.
        changed = [part.filter(is_open).select(_KEY) for part in (self._open, *self._recent) if part is not None]
        keys = pl.concat(changed).unique() if changed else pl.DataFrame()
        if not keys.height:
            return
        rows = self._pulled(keys).drop(ROW, WAITS)
        yield from self._taken_back(final=False)
        fresh = rows.filter(is_open)
        if fresh.height:
            yield self._emit.told(self._values(fresh), final=False)
        self._keep(rows.filter(~is_open))
        self._keep(fresh.with_columns(pl.concat_list("window_start").alias(_SHOWN), pl.lit(value=False).alias(_FRESH)))

    def _taken_back(self, *, final: bool) -> Iterator[pl.DataFrame]:
        gone, self._gone = self._gone, []
        if gone:
            yield self._emit.told(pl.concat(gone).with_columns(pl.lit(value=True).alias(DELETED)), final=final)

    def snapshot(self) -> Mapping[str, pl.DataFrame]:
        """As it is: merging could take longer than a checkpoint may hold up the stream."""
        tables = {
            "sessions": self._stacked([self._open, *self._recent]),
            "given": self._given,
            "over": self._stacked([*self._over]),
            "gone": pl.concat(self._gone) if self._gone else None,
            "reached": pl.DataFrame({"reached": [self._reached]}),
        }
        tables |= self._apart.snapshot() if self._apart else {}
        return {name: table.drop(_KEY, strict=False) for name, table in tables.items() if table is not None and table.height}


def _start() -> pl.Expr:
    return pl.col("window_start")


def _end() -> pl.Expr:
    return pl.col("window_end")
