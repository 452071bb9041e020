"""Ask in SQL: views, archives and logs by name.

    clickpipe query 'SELECT page, sum(clicks) AS n FROM trending GROUP BY page ORDER BY n DESC LIMIT 10'

A name stands for its archive and its view as one table, or for the log; "view:NAME", "archive:NAME" and "log:NAME" in double
quotes for one of them. What there is is listed by clickpipe tables. The answer is a table on a terminal and NDJSON on a pipe.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING

import click

from clickpipe.cli.text import described
from clickpipe.cli.words import say
from clickpipe.core.terminal import standard_output
from clickpipe.errors import PlanError
from clickpipe.plan.flags import DURATION, SIZE
from clickpipe.query import cache
from clickpipe.query.cache import Kept
from clickpipe.query.statement import Statement, mentioned, prepared

if TYPE_CHECKING:
    from clickpipe.query.answer import Query

_FORMS = ("table", "ndjson", "json", "csv", "parquet")
_WIDTH = 240  # characters, where no terminal has one
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"
_EPILOG = """\
Examples:
  clickpipe run -c "ingest sample_data/clicks.ndjson.zst --time ts | window tumble 1d |
    aggregate --by page clicks='count(*)' | sink archive:daily" &&
    clickpipe query "SELECT page, sum(clicks) AS clicks FROM daily GROUP BY page ORDER BY clicks DESC LIMIT 3"
  clickpipe run -c "ingest sample_data/clicks.ndjson.zst | aggregate --by country n='count(*)' | sink view:lands" &&
    clickpipe query --plot "SELECT country, n FROM lands ORDER BY n DESC" && clickpipe query --explain "FROM lands"

Times are instants in UTC: window_start >= '2026-03-01', or > now() - INTERVAL '1 hour'. Conditions on them keep files from
being opened; --explain says how many are. Event time that came as a number is compared with ms('2026-03-01').
Functions of sketches work: estimate(union(visitors)) of the rows of a group, quantile_of(union(latency), 0.99).

An answer is kept, and given again at once while nothing has changed in its tables. With --follow it is given anew whenever
something has: on a terminal in its place, on a pipe behind the last one."""


@described("query", __doc__, _EPILOG)
@click.argument("sql", metavar="SQL", help="one SELECT; - reads it from standard input")
@click.option("--format", "form", type=click.Choice(_FORMS), help="by default a table on a terminal, else ndjson")
@click.option("--plot", is_flag=True, help="a chart: of the first column, and the numbers behind it")
@click.option("--rows", type=click.IntRange(1), default=1_000, metavar="N", help="rows that a table shows  [default 1000]")
@click.option("--explain", is_flag=True, help="do not compute it: say how it would be, and which files it would read")
@click.option("--follow", is_flag=True, help="answer again whenever the data has changed")
@click.option("--every", type=DURATION, default=1_000, metavar="DURATION", help="--follow: look this often  [default 1s]")
@click.option("--no-cache", is_flag=True, help="compute it, whatever is kept")
@click.option("--memory", type=SIZE, metavar="SIZE", help="give up a query that needs more  [default half of what there is]")
def command(
    sql: str,
    form: str | None,
    plot: bool,
    rows: int,
    explain: bool,
    follow: bool,
    every: int,
    no_cache: bool,
    memory: int | None,
) -> None:
    typed = sys.stdin.read() if sql == "-" else sql
    is_terminal = sys.stdout.isatty()
    if plot and form:
        raise PlanError("--plot draws a chart: not with --format", word="--plot")
    if form == "parquet" and is_terminal:
        raise PlanError("Parquet is for programs: put it in a file, with > FILE.parquet")
    look = _Look(
        "plot" if plot else form or ("table" if is_terminal else "ndjson"),
        rows,
        shutil.get_terminal_size((_WIDTH, 24)).columns if is_terminal else (100 if plot else _WIDTH),
        memory or _half(),
    )
    if explain:
        _explain(prepared(typed))
    elif follow:
        _follow(typed, look, every / 1_000, is_terminal)
    else:
        _show(_answer(typed, look, is_kept=not no_cache))


class _Look:
    """How an answer is to look, and what it may cost. Unit: characters, bytes."""

    def __init__(self, form: str, rows: int, width: int, memory: int) -> None:
        self.form, self.rows, self.width, self.memory = form, rows, width, memory

    def key(self, sql: str) -> str:
        return cache.key_of(sql, self.form, self.rows, self.width)


def _answer(typed: str, look: _Look, *, is_kept: bool) -> Kept:
    key = look.key(typed)
    if is_kept and (kept := cache.kept(key)):
        return kept
    statement = prepared(typed)
    tables = mentioned(statement)
    versions = cache.versions_of(tables)
    answer = _computed(statement, look)
    if statement.is_fixed:
        cache.keep(key, versions, answer)
    return answer


def _computed(statement: Statement, look: _Look) -> Kept:
    from clickpipe.query.answer import query
    from clickpipe.query.shown import shown

    asked = query(statement)
    frame = asked.frame(look.memory)
    return Kept(shown(frame, look.form, rows=look.rows, width=look.width), asked.notes)


def _show(answer: Kept) -> None:
    for note in answer.notes:
        say(note)
    outbox = standard_output()
    outbox.put(answer.shown)
    outbox.close()


def _follow(typed: str, look: _Look, every: float, is_terminal: bool) -> None:
    """Until somebody ends it, or the reader goes."""
    if look.form == "parquet":
        raise PlanError("--follow gives one answer after the other: not as Parquet", word="--follow")
    outbox = standard_output()
    seen: object = None
    while True:
        versions = cache.versions_of(mentioned(prepared(typed)))
        if versions != seen:
            seen = versions
            answer = _computed(prepared(typed), look)
            if is_terminal:
                os.write(sys.stdout.fileno(), _CLEAR.encode())
            outbox.put(answer.shown)
            outbox.flush()
        time.sleep(every)


def _explain(statement: Statement) -> None:
    from clickpipe.query.answer import files_read, query
    from clickpipe.store import archives

    asked: Query = query(statement)
    plan = asked.plan()
    sys.stdout.write(plan.rstrip() + "\n")
    if any("archive" in table.kinds for table in asked.tables):
        there = sum(len(archives.Archive(table.of).snapshot().files) for table in asked.tables if "archive" in table.kinds)
        sys.stdout.write(f"reads {files_read(plan):,} of {there:,} files of archives\n")


def _half() -> int:
    """Half of the machine's memory. Unit: bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
