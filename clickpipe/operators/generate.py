"""Synthetic clicks with a known answer.

Shape: raw NDJSON of nine fields: ts (epoch ms), event_id, user_id, event, page, country, referrer,
device, latency_ms. Order: of arrival. A pure function of --seed and the record's number.
Memory: one block of 65,536 records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import orjson
import polars as pl

from clickpipe.core.chance import Chance, Choice
from clickpipe.core.option import Duration, option
from clickpipe.core.step import RawStep
from clickpipe.core.time import parse_instant
from clickpipe.errors import PlanError, failed_call
from clickpipe.text import split_lines, write_ndjson

BLOCK = 65_536
_EVENTS = {"view": 55, "click": 35, "purchase": 4, "scroll": 6}
_COUNTRIES = {"US": 24, "DE": 16, "GB": 11, "FR": 9, "IN": 9, "BR": 7, "JP": 6, "ES": 5, "NL": 4, "SE": 3, "PL": 3, "KE": 3}
_DEVICES = {
    "mobile; iOS 19.2; Safari": 34,
    "mobile; Android 16; Chrome": 30,
    "desktop; Windows 11; Chrome": 18,
    "desktop; macOS 16; Safari": 9,
    "desktop; Linux; Firefox": 5,
    "tablet; iPadOS 19.2; Safari": 4,
}
_SITES = (
    "https://www.example.com/search?q=",
    "https://news.example.org/story/",
    "https://mail.example.net/m/",
    "https://example.edu/l/",
)
# Purposes of random numbers: each gets a stream of its own.
_TIME, _USER, _EVENT, _PAGE, _COUNTRY, _SITE, _QUERY, _DEVICE, _LATENCY, _TAIL, _LATE, _LATER, _TWICE, _BAD = range(14)


@dataclass(frozen=True)
class Generate(RawStep):
    count: int = option("how many records", default=1_000, metavar="N")
    rate: float = option("records per second of event time", default=1.0, metavar="X")
    seed: int = option("the same seed gives the same bytes", default=1, metavar="N")
    users: int = option("how many users", default=10_000, metavar="N")
    pages: int = option("how many pages", default=1_000, metavar="N")
    skew: float = option("popularity of the n-th page is 1 / n ** skew", default=1.1, metavar="X")
    disorder: Duration = option("a time is up to this much earlier than its place says", default=Duration(0), example="5s")
    late: float = option("share of records that are later by one to ten minutes more", default=0.0, metavar="P")
    duplicates: float = option("share of records that come twice", default=0.0, metavar="P")
    bad: float = option("share of lines that are bad", default=0.0, metavar="P")
    start: str = option("event time of the first record", default="2026-03-01T00:00:00Z", metavar="TIME")
    answers: str | None = option("write what a right pipeline must find to this file", default=None, metavar="FILE")

    epilog = """\
Examples:
  clickpipe generate --count 3
  clickpipe generate --count 100000 --rate 1000 --disorder 5s |
    clickpipe ingest - --time ts --max-out-of-orderness 5s | clickpipe window tumble 1m |
    clickpipe aggregate n='count(*)' | clickpipe sink -"""

    def raw(self, block: int = BLOCK) -> Iterator[bytes]:
        """Blocks of whole lines. Raises PlanError for options that cannot be."""
        start = self._checked()
        maker, answers = _Maker(self, start), _Answers()
        for first in range(0, self.count, block):
            frame = maker.frame(first, min(block, self.count - first))
            if self.answers:
                answers.add(frame)
            yield maker.lines(frame)
        if self.answers:
            answers.write(self.answers)

    def _checked(self) -> int:
        for name in ("late", "duplicates", "bad"):
            if not 0 <= getattr(self, name) <= 1:
                raise PlanError(f"--{name} is a share: from 0 to 1", word=f"--{name}")
        for name in ("rate", "users", "pages"):
            if not 0 < getattr(self, name) <= 10_000_000:
                raise PlanError(f"--{name} must be greater than 0 and at most 10,000,000", word=f"--{name}")
        if self.count < 0 or not 0 <= self.skew <= 10:
            raise PlanError("--count must not be negative, and --skew must be from 0 to 10")
        try:
            return parse_instant(self.start)
        except ValueError as error:
            raise PlanError(f"--start: {error}", word=self.start) from None


class _Maker:
    """Records by their numbers."""

    def __init__(self, step: Generate, start: int) -> None:
        self._step, self._start, self._chance = step, start, Chance(step.seed)
        pages = range(1, step.pages + 1)
        self._pages = Choice([f"/p/{page}" for page in pages], [1 / page**step.skew for page in pages])
        self._choices = {
            "event": (_EVENT, Choice(list(_EVENTS), list(_EVENTS.values()))),
            "page": (_PAGE, self._pages),
            "country": (_COUNTRY, Choice(list(_COUNTRIES), list(_COUNTRIES.values()))),
            "site": (_SITE, Choice(_SITES, [6, 2, 1, 1])),
            "device": (_DEVICE, Choice(list(_DEVICES), list(_DEVICES.values()))),
        }

    def frame(self, first: int, count: int) -> pl.DataFrame:
        """The records, and for each whether it comes twice and whether its line is bad."""
        number, chance = pl.col("number"), self._chance
        numbers = pl.DataFrame({"number": pl.Series(range(first, first + count), dtype=pl.Int64)})
        picked = [
            choice.pick(numbers.select(chance.bits(number, purpose)).to_series()).alias(name)
            for name, (purpose, choice) in self._choices.items()
        ]
        return numbers.with_columns(*picked).select(
            self._time(number).alias("ts"),
            pl.format("e{}", number.cast(pl.String).str.zfill(15)).alias("event_id"),
            pl.format("u{}", chance.below(number, _USER, self._step.users)).alias("user_id"),
            "event",
            "page",
            "country",
            pl.concat_str("site", chance.bits(number, _QUERY).cast(pl.String)).alias("referrer"),
            "device",
            self._latency(number).alias("latency_ms"),
            chance.happens(number, _TWICE, self._step.duplicates).alias("is_twice"),
            chance.happens(number, _BAD, self._step.bad).alias("is_bad"),
        )

    def _time(self, number: pl.Expr) -> pl.Expr:
        step, chance = self._step, self._chance
        # Whole microseconds per record: a product of doubles could round differently elsewhere.
        due = self._start + number * round(1_000_000_000 / step.rate) // 1_000_000
        early = chance.below(number, _TIME, int(step.disorder) + 1)
        late = pl.when(chance.happens(number, _LATE, step.late)).then(60_000 + chance.below(number, _LATER, 540_000)).otherwise(0)
        return due - early - late

    def _latency(self, number: pl.Expr) -> pl.Expr:
        """Most are quick, one in sixteen is slow: the product of two uniform numbers leans to the left."""
        quick = 5 + self._chance.below(number, _LATENCY, 40) * self._chance.below(number, _TAIL, 40) // 4
        slow = pl.when(self._chance.below(number, _TAIL, 16) == 0).then(self._chance.below(number, _LATENCY, 19_000))
        return quick + slow.fill_null(0)

    def lines(self, frame: pl.DataFrame) -> bytes:
        records = frame.drop("is_twice", "is_bad")
        block = write_ndjson(records)
        if not (frame["is_twice"].any() or frame["is_bad"].any()):
            return block
        lines = split_lines(block).to_list()
        for row in frame["is_bad"].arg_true():
            lines[row] = _spoilt(lines[row])
        for row in frame["is_twice"].arg_true():
            lines[row] += "\n" + lines[row]
        return ("\n".join(lines) + "\n").encode()


def _spoilt(line: str) -> str:
    """The line, bad in one of five ways."""
    head, latency = line.rsplit(":", 1)
    ways = [
        line[: len(line) // 2],
        "GET /p/1 HTTP/1.1",
        f'{head}:"{latency[:-1]} ms"}}',
        "{" + line.split(",", 1)[1],
        f"{head}:NaN}}",
    ]
    number = int(line.split('"event_id":"e')[1][:15])
    return ways[number % len(ways)]


class _Answers:
    """What a right pipeline must find, duplicates included. Lines that are bad count as bad only."""

    def __init__(self) -> None:
        self._parts: list[pl.DataFrame] = []
        self._bad = self._twice = 0

    def add(self, frame: pl.DataFrame) -> None:
        times = 1 + frame["is_twice"].cast(pl.Int64)
        self._bad += int((times * frame["is_bad"].cast(pl.Int64)).sum())
        self._twice += int(frame["is_twice"].sum())
        good = frame.with_columns(times.alias("times")).filter(~pl.col("is_bad"))
        self._parts.append(good.select("ts", "user_id", "event", "page", "latency_ms", "times"))

    def write(self, path: str) -> None:
        good = pl.concat(self._parts) if self._parts else pl.DataFrame(schema={"ts": pl.Int64})
        answer: dict[str, object] = {"bad": self._bad, "duplicates": self._twice}
        if good.height:
            events = good.group_by("event").agg(pl.col("times").sum()).sort("event")
            answer |= {
                "records": good["times"].sum(),
                "users": good["user_id"].n_unique(),
                "pages": good["page"].n_unique(),
                "latency_ms_sum": (good["latency_ms"] * good["times"]).sum(),
                "events": dict(events.iter_rows()),
                "first_ts": good["ts"].min(),
                "last_ts": good["ts"].max(),
            }
        try:
            with open(path, "wb") as file:
                file.write(orjson.dumps(answer) + b"\n")
        except OSError as error:
            raise failed_call(path, error) from None
