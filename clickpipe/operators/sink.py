"""Write the records: to standard output, a file, a log, a view or an archive; with --pass, hand them on as well.

Shape: as given; times of ours as RFC 3339, in an archive as instants. Order: as given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from clickpipe.columns import Columns
from clickpipe.core.address import part_of
from clickpipe.core.catalog import Catalog
from clickpipe.core.guarantee import Guarantee
from clickpipe.core.lint import Advice, Situation
from clickpipe.core.operator import Writer
from clickpipe.core.option import Duration, Names, argument, option, options
from clickpipe.core.sink import Commits, Destination, Form
from clickpipe.core.spread import check_windows, window_columns
from clickpipe.core.step import SinkStep
from clickpipe.errors import PlanError
from clickpipe.state.directory import StateDirectory

SINKS = Catalog("clickpipe.sinks", "sink")
_OF_SOME = ("key", "keep", "partition_by", "partitions", "by")  # options that only some destinations take


@dataclass(frozen=True)
class Sink(SinkStep):
    destination: str = argument(
        "- for standard output, FILE.ndjson, FILE.csv, either with .zst or .gz, log:NAME, view:NAME, archive:NAME, delta:FOLDER",
        metavar="DEST",
    )
    format: str | None = option(
        "how records are written; by default what the name says, else ndjson", default=None, choices=("ndjson", "csv", "table")
    )
    time_format: str = option("how times are written", default="rfc3339", choices=("rfc3339", "ms"))
    key: Names = option(
        "view: rows equal in these are one row; by default the window and what was grouped by", default=(), metavar="COL,…"
    )
    keep: Duration | None = option(
        "view: let rows go whose window ended so long before that of the newest", default=None, example="7d"
    )
    partition_by: Names = option(
        "archive: a folder for each day, hour, or value of these columns, or none; by default day",
        default=(),
        metavar="COL,…|day|hour|none",
    )
    partitions: int | None = option(
        "log: so many, for its whole life; readers take them side by side; by default 1", default=None, metavar="N", example="4"
    )
    by: Names = option("log: records equal in these go to the same partition", default=(), metavar="COL,…")
    rows: int = option("rows that a table shows; of more, the first and the last", default=20, metavar="N")

    pass_: bool = option("hand the records on to the next step, like tee", default=False)

    harmless = frozenset({"pass_"})
    later = {
        "--mode": "a view keeps the latest row of a key, and files keep all",
    }
    epilog = """\
Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst | clickpipe limit 3 | clickpipe sink -
  clickpipe ingest sample_data/clicks.ndjson.zst | clickpipe limit 3 | clickpipe sink - --format table
  clickpipe ingest sample_data/clicks.ndjson.zst | clickpipe select page country | clickpipe sink /tmp/pages.csv.zst
  clickpipe ingest sample_data/clicks.ndjson.zst | clickpipe sink /tmp/clicks.csv.gz --pass |
    clickpipe aggregate --by country n='count(*)' | clickpipe sink -
  clickpipe run -q -c "ingest sample_data/clicks.ndjson.zst --time ts | sink archive:clicks --partition-by hour" &&
    clickpipe query "SELECT event, count(*) AS n FROM clicks GROUP BY event ORDER BY n DESC"
  clickpipe run -q -c "ingest sample_data/clicks.ndjson.zst | sink log:divided --partitions 2 --by user_id" &&
    clickpipe log ls

A file appears under its name when it is complete; a run that fails leaves none. A view is a table of SQLite that
holds the latest row of each key: clickpipe view show NAME. A log is a durable queue that other pipelines read: clickpipe
ingest log:NAME --follow. An archive keeps history as Parquet, which any program reads; a record with a value that does
not fit its column there is a dead letter. delta:FOLDER is a table of Delta Lake (pip install 'clickpipe[delta]'). SQL over
views, archives and logs: clickpipe query.

With --pass a sink stands in the middle: … | sink archive.ndjson.zst --pass | window tumble 1m | … It is given every
record, whoever reads on: a limit behind it, or | head, does not cut it short. With ingest --checkpoint what all sinks
of a pipeline have written becomes visible at once, when the sink at its end completes a checkpoint; a pipeline whose
last reader has left (| head) stops, and the same line goes on from there."""

    def columns(self, given: Columns) -> Columns:
        check_windows(given)
        if self.pass_:
            self._part().check_middle()
        return given

    def is_middle(self) -> bool:
        return self.pass_

    def destination_kind(self) -> str:
        return part_of(self.destination, SINKS, "stdout")[0]

    def place(self) -> str:
        return f"{self.destination_kind()}:{self._part().place()}"

    def open(self, given: Columns) -> Writer:
        return self._part().open(given)

    def open_staged(self, given: Columns, restored: int, saved: Mapping[str, Any] | None, directory: StateDirectory) -> Writer:
        return self._part().open_staged(given, restored, saved, directory)

    def open_replacing(self, given: Columns, span: tuple[int, int] | None) -> Writer:
        return self._part().open_replacing(given, span)

    def needs(self, given: Columns) -> tuple[str, ...]:
        check_windows(given)
        return tuple(dict.fromkeys((*window_columns(given), *self._part().needs(given))))

    def guarantee(self, *, has_checkpoints: bool) -> Guarantee:
        return self._part().guarantee(has_checkpoints=has_checkpoints)

    def describe(self, given: Columns) -> str:
        check_windows(given)
        return self.destination

    def advice(self, where: Situation) -> Iterable[Advice]:
        scheme, colon, rest = self.destination.partition(":")
        if (
            colon
            and scheme.isalpha()
            and self.destination_kind() == "file"
            and (close := get_close_matches(scheme, SINKS.names(), n=1))
        ):
            what = f"nothing is called {scheme}: the rows go to a file of the name {self.destination}"
            yield Advice("sink-name", what, f"sink {close[0]}:{rest}")
        if where.given is not None:
            yield from self._part().advice(where.given)

    def _part(self) -> Destination:
        part, rest = part_of(self.destination, SINKS, "stdout")
        destination: Destination = SINKS.find(part, Destination)(
            rest,
            Form(
                self.format,
                self.time_format == "rfc3339",
                self.rows,
                self.key,
                self.keep,
                self.partition_by,
                self.partitions,
                self.by,
            ),
        )
        for one in options(type(self)):
            if one.name in _OF_SOME and one.name not in destination.takes and getattr(self, one.name) != one.default:
                raise PlanError(f"{one.flag} is not for {self.destination}", word=one.flag)
        return destination


def commits_of(kind: str, directory: StateDirectory) -> Commits:
    """What makes visible what a sink of this kind has staged."""
    destination: type[Destination] = SINKS.find(kind, Destination)
    return destination.commits(directory)
