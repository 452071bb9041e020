"""Into which folders the rows of an archive go: hive style, `day=2026-03-01/country=DE`.

A value is part of a name, so it is spelled in letters, digits, _ and - alone, everything else as %XX of its UTF-8; a null is
__HIVE_DEFAULT_PARTITION__, and a text that says that is spelled another way. What is very long is known by its hash. The value
itself always stands in the file too. Of very many days those with the fewest rows share the folder of null: who sends us times
cannot make folders without end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b

import polars as pl

from clickpipe.errors import DataError, PlanError

TIMES = {"day": ("day=%Y-%m-%d", "day"), "hour": ("day=%Y-%m-%d/hour=%H", "hour")}
MOST = 2_000  # folders that the rows of one file's worth may go to
MOST_TIMES = 500  # of days or hours
NULL = "__HIVE_DEFAULT_PARTITION__"
_LONGEST = 150  # bytes of a spelled value
_PLAIN = re.compile(r"[A-Za-z0-9_-]*")
_TIME = "\0time"  # of each row, in epoch milliseconds
_PLACE = "\0place"


@dataclass(frozen=True)
class Partitioning:
    """`by`: day, hour, none, or columns."""

    by: tuple[str, ...] = ("day",)

    @property
    def is_by_time(self) -> bool:
        return self.by in (("day",), ("hour",))

    @property
    def columns(self) -> tuple[str, ...]:
        return () if self.is_by_time or self.by == ("none",) else self.by

    def check(self, types: Mapping[str, str]) -> None:
        """Raises PlanError where the folders cannot be told."""
        clash = [name for name in types if name.lower() in ("day", "hour")] if self.is_by_time else []
        if clash:
            name = min(clash)
            raise PlanError(
                f'a column is called "{name}", and so are the folders of an archive by {self.by[0]}',
                hint=f"--partition-by none, or another name for it: select --add '{name} AS event_{name}' --drop {name}",
            )
        for name in self.columns:
            if name not in types:
                raise PlanError(f'no column "{name}" for --partition-by', notes=[f"there are: {', '.join(types)}"], word=name)
            if types[name] not in ("str", "int", "bool"):
                raise PlanError(f"--partition-by {name}: it is {types[name]}, which makes no folders", word=name)

    def parts(self, rows: pl.DataFrame, times: pl.Series | None) -> Iterator[tuple[str, pl.DataFrame, int | None, int | None]]:
        """Folder, the rows that go there in their order, their least and greatest time. `times`: in epoch milliseconds.

        Raises DataError where there are too many.
        """
        places = self._places(rows, times)
        if self.is_by_time and times is not None:
            places = _fewer(places, _spelled_null(self.by[0]))
        table = rows.with_columns((times if times is not None else pl.lit(None, pl.Int64)).alias(_TIME), places)
        parts = table.partition_by(_PLACE, maintain_order=True)
        if len(parts) > MOST:
            raise DataError(
                f"{len(parts):,} folders of an archive for the rows of one checkpoint: more than {MOST:,}",
                hint="--partition-by a column with fewer values, or day",
            )
        for part in parts:
            least, greatest = part[_TIME].min(), part[_TIME].max()
            has_all = not part[_TIME].null_count()
            bounds = (
                (int(least), int(greatest)) if has_all and isinstance(least, int) and isinstance(greatest, int) else (None, None)
            )
            yield part[_PLACE][0], part.drop(_TIME, _PLACE), *bounds

    def _places(self, rows: pl.DataFrame, times: pl.Series | None) -> pl.Series:
        if self.is_by_time and times is not None:
            form, _ = TIMES[self.by[0]]
            instants = pl.from_epoch(pl.Series("time", times), "ms")
            return instants.dt.strftime(form).fill_null(_spelled_null(self.by[0])).alias(_PLACE)
        if not self.columns:
            return pl.Series(_PLACE, [""] * rows.height, dtype=pl.String)
        values = rows.select(self.columns).unique()
        names = {row: "/".join(map(_folder, self.columns, row)) for row in values.iter_rows()}
        return pl.Series(_PLACE, [names[row] for row in rows.select(self.columns).iter_rows()], dtype=pl.String)


def _fewer(places: pl.Series, rest: str) -> pl.Series:
    """The same, at most so many: the others are all `rest`."""
    if places.n_unique() <= MOST_TIMES:
        return places
    kept = places.value_counts(sort=True, name="\0rows")[_PLACE].head(MOST_TIMES - 1)
    return (
        places.to_frame()
        .select(pl.when(pl.col(_PLACE).is_in(kept.implode())).then(_PLACE).otherwise(pl.lit(rest)).alias(_PLACE))
        .to_series()
    )


def _spelled_null(by: str) -> str:
    return f"day={NULL}" + (f"/hour={NULL}" if by == "hour" else "")


def _folder(column: str, value: object) -> str:
    return f"{_spelled(column)}={_spelled_value(value)}"


def _spelled_value(value: object) -> str:
    if value is None:
        return NULL
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"%{ord(NULL[0]):02X}{NULL[1:]}" if text == NULL else _spelled(text)


def _spelled(text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")
    spelled = text if _PLAIN.fullmatch(text) and text.isascii() else "".join(map(_letter, data))
    if len(spelled) > _LONGEST:
        return f"%23{blake2b(data, digest_size=16).hexdigest()}"  # no text that is short begins with a # and is spelled so long
    return spelled


def _letter(byte: int) -> str:
    letter = chr(byte)
    return letter if _PLAIN.fullmatch(letter) else f"%{byte:02X}"
