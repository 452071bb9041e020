"""Values that are refused one by one, each with a reason: of many records those become dead letters, and no others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import orjson
import polars as pl

from clickpipe.errors import DataError


@cache
def _refused() -> type[DataError]:
    """The error Refused, made when it is needed: it is one of Polars' errors too, which hands on its class and its text, and
    nothing else. Its first line is why the first value is refused, its second has them all."""
    return type("Refused", (DataError, pl.exceptions.ComputeError), {})


def reasons_of(error: BaseException) -> pl.Series | None:
    """Why each value of a column is refused, null of those that are not; None: the error does not say."""
    if not isinstance(error, _refused()):
        return None
    said = orjson.loads(str(error).split("\n")[1])
    nothing = pl.repeat(None, said["of"], dtype=pl.String, eager=True)
    return nothing.scatter(said["at"], pl.Series(said["why"], dtype=pl.String))


class Damaged(DataError):
    """Of the payloads of sketches these cannot be. `places`: which."""

    def __init__(self, why: str, places: pl.Series) -> None:
        super().__init__(f"a sketch is damaged: {why}")
        self.places = places


class Refusals:
    """What is found against the values of a column, of so many."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._found: list[pl.DataFrame] = []

    def add(self, places: pl.Series | Sequence[int], why: object) -> None:
        """`why`: one reason for all of these places, or a series of theirs."""
        reasons = why if isinstance(why, pl.Series) else pl.lit(str(why).split("\n", 1)[0], pl.String)
        at = pl.Series("at", places, dtype=pl.UInt32)
        self._found.append(at.to_frame().with_columns(reasons.alias("why")))

    def check(self) -> None:
        """Raises Refused if there is one."""
        found = pl.concat(self._found) if self._found else pl.DataFrame()
        if found.height:
            said = {"of": self._count, "at": found["at"].to_list(), "why": found["why"].to_list()}
            raise _refused()(f"{found['why'][0]}\n{orjson.dumps(said).decode()}")


def refuse(owners: pl.Series, is_bad: pl.Series, why: str) -> None:
    """Raises Damaged if a row is bad. `owners`: of each row, which payload it is of."""
    if is_bad.any():
        raise Damaged(why, owners.filter(is_bad).unique())
