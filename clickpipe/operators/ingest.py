"""Raw input -> stream: event time, watermarks, bad lines.

Shape: the input's fields, and `_time` where the time field is not epoch milliseconds or another
epoch integer, and `_mark` on late records. Order: as in the input; several files one after the
other, by the time of their first record; with --follow in turn, as they grow. Memory: some blocks of
--batch-bytes; with --follow one, and a descriptor per file; with sockets 64 MiB more for lines that have begun.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from clickpipe.columns import Columns, declared_types
from clickpipe.core.eventtime import EventTime, streamed
from clickpipe.core.following import Following
from clickpipe.core.format import FORMATS, Format
from clickpipe.core.guarantee import AT_MOST_ONCE, EXACTLY_ONCE, WHOLE, Guarantee
from clickpipe.core.idle import IdleRule
from clickpipe.core.inorder import InOrder
from clickpipe.core.intake import IngestFeed, Pace, Taking
from clickpipe.core.lint import Input
from clickpipe.core.operator import Feed
from clickpipe.core.option import Duration, Size, argument, option, options
from clickpipe.core.reading import blocks
from clickpipe.core.source import (
    Admission,
    Directly,
    Source,
    Split,
    direct,
    followed,
    is_direct,
    is_shared,
    source_of,
    splits_of,
)
from clickpipe.core.step import SourceStep
from clickpipe.core.time import UNITS
from clickpipe.core.units import format_duration
from clickpipe.core.until import NOW, before, refuse_time
from clickpipe.core.watch import Watch
from clickpipe.core.watched import Watched
from clickpipe.core.zone import check_zone
from clickpipe.errors import PlanError, Unsupported
from clickpipe.state.directory import StateDirectory
from clickpipe.state.space import NO_PATIENCE
from clickpipe.store.spool import Spool

_ROTATED = (
    ", as long as a rotated file stays unpacked in its directory until it has been read; "
    "what is written between copying and truncating may be lost"
)
_IDLE = 30_000  # milliseconds
SPOOLED = 1 << 20  # bytes of input that are made durable together
_OF_CLIENTS = ("client_timeout", "max_clients", "tls_cert", "tls_key", "tls_ca", "insecure")
_OF_TEXT = ("follow", "format", "columns", "strict", "checkpoint", "idle_timeout", "on_idle", *_OF_CLIENTS)
_CSV = re.compile(r"\.csv(\.gz|\.zst)?$")


@dataclass(frozen=True)
class Ingest(SourceStep):
    source: tuple[str, ...] = argument(
        "files, globs, - for standard input, log:NAME, archive:NAME, or tcp://HOST:PORT or unix:PATH, where others connect and "
        "send lines",
        metavar="SOURCE",
    )
    follow: bool = option(
        "read on as the files grow, through rotation and truncation, and take in new ones; a file may come later; "
        "the watermark waits for each file that has given records, until it is idle",
        default=False,
    )
    time: str | None = option("field that holds event time", default=None, example="ts", metavar="FIELD")
    time_unit: str = option(
        "unit of a numeric time; auto tells them apart by magnitude", default="auto", choices=("auto", *UNITS)
    )
    time_zone: str = option("zone of times without one", default="UTC", example="Europe/Berlin")
    max_out_of_orderness: Duration = option(
        "how far a record may be behind the newest before it is late",
        default=Duration(0),
        example="5s",
        aliases=("--watermark-delay",),
    )
    max_future_skew: Duration | None = option(
        "a time further ahead than this is a dead letter; files: off, live and --follow: 1h", default=None, example="1h"
    )
    idle_timeout: Duration | None = option(
        "live input and --follow: what has given nothing for this long is idle, and the watermark waits for it no longer; "
        "by default 30s; 0s: it always waits",
        default=None,
        example="30s",
    )
    on_idle: str | None = option(
        "when all input is idle, the watermark stays (hold), or goes on with the wall clock, so that windows close (advance, "
        "the default)",
        default=None,
        choices=("advance", "hold"),
    )
    format: str | None = option("format of the input; by default csv for *.csv, else ndjson", default=None, metavar="FORMAT")
    columns: str | None = option(
        "take these columns and no others, instead of inferring them from the first 1,000 records",
        default=None,
        example="ts:int,page:str",
    )
    strict: bool = option("judge the types of all columns here, not where one is first used", default=False)
    from_: str | None = option(
        "logs: where the first run begins: earliest, latest, a record's number, or a time of arrival; by default earliest",
        default=None,
        metavar="WHERE",
        example="2026-03-01T09:00:00Z",
    )
    until: str | None = option(
        "now: take what is there when the run begins, and end; with --checkpoint the next run goes on from there, and open "
        "windows stay open; archives also: a time, before which their rows are",
        default=None,
        metavar="now|TIME",
        example="now",
    )
    drain: bool = option("with --until and --checkpoint: the input is over, and all windows close", default=False)
    name: str | None = option("name of the pipeline; its state lives under it", default=None)
    dead_letter: str | None = option(
        "file for bad records, instead of dead.ndjson in the state directory", default=None, metavar="FILE"
    )
    max_errors: str | None = option(
        "stop with exit code 65 after more bad records than N or P%", default=None, example="100", metavar="N|P%"
    )
    checkpoint: Duration | None = option(
        "save the pipeline's state this often, so that a killed run goes on from there", default=None, example="1s"
    )
    reset: bool = option("begin anew; what earlier runs saved is put aside", default=False)
    allow_fs: bool = option(
        "keep state on a network file system too, which is refused otherwise: its locks and its fsync promise less", default=False
    )
    client_timeout: Duration | None = option(
        "sockets: a client that sends nothing for this long in the middle of a line is cut off; by default 30s",
        default=None,
        example="10s",
    )
    max_clients: int | None = option("sockets: more at once are refused; by default 1,000", default=None, example="100")
    tls_cert: str | None = option(
        "tcp: speak TLS with this certificate and those that have signed it, in PEM", default=None, metavar="FILE"
    )
    tls_key: str | None = option("tcp: the private key of --tls-cert", default=None, metavar="FILE")
    tls_ca: str | None = option(
        "tcp: a client must show a certificate that one of these has signed", default=None, metavar="FILE"
    )
    insecure: bool = option("tcp: listen to other machines too, although everybody there may send records", default=False)
    spool: str | None = option(
        "write standard input, or what clients send, to this log first, and read it there, so that nothing is lost in a crash",
        default=None,
        metavar="log:NAME",
    )
    batch_bytes: Size = option("a batch is about this large", default=Size(8 << 20), example="8MiB")
    max_latency: Duration = option("never wait longer than this for a batch to fill", default=Duration(50), example="50ms")
    within: tuple[int | None, int | None] | None = None  # not for people: records of this time only, where that is quick

    harmless = frozenset(
        "within from_ until drain checkpoint reset allow_fs batch_bytes max_latency max_errors dead_letter name "
        "client_timeout max_clients tls_cert tls_key tls_ca insecure".split()
    )
    epilog = """\
Examples:
  clickpipe ingest sample_data/clicks.ndjson.zst --time ts --max-out-of-orderness 5s | clickpipe limit 3
  cat sample_data/access.log | clickpipe ingest - --format combined | clickpipe filter "status >= 500" | clickpipe sink -
  clickpipe ingest 'sample_data/access*' --format combined | clickpipe limit 2 | clickpipe sink -
  clickpipe run -c "ingest sample_data/access.log --follow --format combined | limit 2 | sink -"
  clickpipe run -q -c "ingest sample_data/clicks.ndjson.zst --time ts | sink log:queue" &&
    clickpipe ingest log:queue --from 200000 | clickpipe aggregate n='count(*)' | clickpipe sink -
  cat sample_data/access.log | clickpipe run -c "ingest - --spool log:access --format combined --name web | limit 2 | sink -"
  clickpipe run -q -c "ingest tcp://127.0.0.1:9018 --format combined | limit 2 | sink -" &
    until head -2 sample_data/access.log > /dev/tcp/127.0.0.1/9018; do sleep 0.2; done; wait

A line that is bad never takes its neighbours with it: it becomes a dead letter and is counted.

Windows wait for the slowest file, or split: the watermark is the least of theirs. Live input that has given no record
for --idle-timeout is waited for no longer. When it wakes up, what it gives from before the watermark is late. When
all input is silent the watermark goes on as fast as the wall clock, so that the last windows close too. Which
--max-out-of-orderness would lose how many records is told by clickpipe explain --live NAME.

With --checkpoint a full disk does not end the run: it pauses, says what waits for space, and goes on by itself.

With --follow a last line waits for its newline. A file that is renamed is read to its end, and left for the
next one when it has given nothing for a second; what its writer adds after that is not read. A file that came
and was renamed between two looks is found by its name (app.log.1, app.log-20260301, app.log.old). After copying
and truncation, as logrotate's copytruncate has it, the rest of the old lines is read from the copy; what was
written between the two is lost by whoever truncates. Rotated files must stay unpacked in their directory until
they are read: leave one rotation between (delaycompress); else a run that goes on stops with exit code 78.
Packed files, pipes and devices cannot be followed.

--until now ends the run with what is there when it begins: for cron, and timers of systemd (clickpipe systemd --timer). What is
added meanwhile, a line that has no newline yet, and new files that a glob matches are left for the next run. With --checkpoint
it stops as clickpipe stop does, with windows left open, and the next run goes on; nothing is closed early for having caught
up, and the wall clock moves no watermark. --drain closes the windows all the same, and then the input is over. Without --follow
files are read one after the other, packed ones too, and must keep their names; with it as they grow, through rotation.

log:NAME reads a log to its present end, with --follow as it grows; each partition is a split. Where the first run begins is
said by --from; then the checkpoint knows. A number that the log has is a record's, a larger one an epoch time. The offset
of a dead letter counts bytes of the partition's text: clickpipe log show NAME --bytes. archive:NAME reads what is there,
oldest first, and marks as late what was late when it came; options for text and --checkpoint are not for it. With --spool,
what cannot be read again is durable in a log before it counts, a line that is too long with its beginning only.

tcp://HOST:PORT and unix:PATH listen: any client may connect and send lines (with csv, a header line first, the same
for all). tcp://:PORT and tcp://localhost:PORT are this machine only, and port 0 is one that is free. A last line may lack its
newline, unless the connection broke. SIGTERM and Ctrl-C end the input: nobody is let in any more, what has arrived is
read, windows close. With --checkpoint they stop it instead, with windows left open; what had come since the last
checkpoint of a killed run is lost. Without --columns the columns are those of the first client that sends a record.
When the half lines of all clients together have more than 64 MiB, the longest is cut off, with its client."""

    def open(self, saved: Mapping[str, Any] | None = None, *, say: Callable[[str], None] = lambda _: None) -> Feed:
        """The records; what is no text comes as it is. Raises StateError, see `begun`."""
        if is_direct(self.source):
            self._check_direct()
            within, is_exact = before(self.until, self.within), self.until not in (None, NOW)
            found = direct(self.source, Directly(self.pipeline(), self.time, within, is_exact))
            assert found is not None
            return found
        return self.begun(saved, say)

    def begun(
        self,
        saved: Mapping[str, Any] | None = None,
        say: Callable[[str], None] = lambda _: None,
        directory: StateDirectory | None = None,
    ) -> IngestFeed:
        """`saved`: the position of an earlier run, where this one goes on. Raises StateError if the input is another."""
        self._check()
        feed = self._watching(saved, say, directory) or self.feed(splits_of(self.source, self.from_), saved, say)
        feed.check_reserved()
        return feed

    def _watching(
        self, saved: Mapping[str, Any] | None, say: Callable[[str], None], directory: StateDirectory | None
    ) -> IngestFeed | None:
        """What grows, and splits that go side by side; None: splits that end, one after the other."""
        spool = self._spooled(say, saved, directory) if self.spool else None
        start = str(spool.first) if spool else self.from_
        source = source_of((self.spool,) if self.spool else self.source, start)
        is_bounded = bool(self.until) or not (self.follow or spool)
        if source is not None and (not is_bounded or source.is_divided) and type(source).watched is not Source.watched:

            def watched(form: Format, time: EventTime, say: Callable[[str], None]) -> Watched:
                found = source.watched(form, time, say, is_bounded=is_bounded)
                assert found is not None
                if spool:
                    found.has_ended = spool.has_ended
                return found

            first = splits_of(self.source)[0].name if spool else source.address
            feed = Following(self._taking(first, can_pause=self.follow or bool(spool)), watched, say, saved)
            if spool:
                feed.when_closed(spool.close)
            return feed
        if not self.follow:
            return None
        if self.from_ not in (None, "earliest"):
            raise PlanError("--from is for logs: files are read from their beginning", word="--from")
        addresses = followed(self.source)
        watch = partial(Watch, addresses, is_bounded=bool(self.until))
        return Following(self._taking(addresses[0], can_pause=True), watch, say, saved)

    def _spooled(self, say: Callable[[str], None], saved: Mapping[str, Any] | None, directory: StateDirectory | None) -> Spool:
        """What cannot be read again goes into a log. Raises PlanError, OutsideError."""
        assert self.spool is not None
        kind, _, name = self.spool.partition(":")
        taking = self._taking(name, can_pause=True)
        if kind != "log":
            raise PlanError(f"--spool {self.spool}: input is spooled to a log", hint="--spool log:NAME", word="--spool")
        if self.is_replayable:
            raise PlanError(f"--spool is for input that cannot be read again: {self.source[0]} can", word="--spool")
        if taking.format == "csv":
            raise PlanError("--spool keeps lines, and a header line would stand between them: not with csv", word="--spool")
        (split,) = splits_of(self.source)
        form: Format = FORMATS.find(taking.format, Format)()
        split.listen(self._admission(), form.cut, form.begin, say)
        whole = len if split.is_shared else form.cut
        pace = self.max_latency / 1_000
        patience = directory.patience(f"log {name}") if directory else NO_PATIENCE
        spool = Spool(name, lambda: blocks(split, whole, SPOOLED, pace), split.end, patience)
        if directory and saved is None:
            spool.first = directory.spooled(spool.id, spool.first)
        spool.begin()
        return spool

    def feed(
        self, splits: list[Split], saved: Mapping[str, Any] | None = None, say: Callable[[str], None] = lambda _: None
    ) -> IngestFeed:
        """The same for these splits, whose records may come from a step of ours."""
        if self.follow:
            raise PlanError(f"--follow is for files that grow: {splits[0].name} is none", word="--follow")
        self.check_until()
        can_pause = any(split.is_shared or split.can_pause for split in splits)
        return InOrder(self._taking(splits[0].name, can_pause=can_pause), splits, saved, say)

    @property
    def reads_standard_input(self) -> bool:
        return "-" in self.source

    @property
    def has_clients(self) -> bool:
        """Whether others connect to its source."""
        return any(map(is_shared, self.source))

    @property
    def is_replayable(self) -> bool:
        """Whether what it has read can be read again."""
        return not self.reads_standard_input and not self.has_clients

    def pipeline(self, plan: str = "") -> str:
        """The pipeline's name, by which its state is kept. `plan`: what the recipe is called."""
        if _is_stored(self.source):
            return self.name or plan or _pipeline_name(self.source[0])
        return self.name or plan or _pipeline_name(followed(self.source)[0] if self.follow else splits_of(self.source)[0].name)

    def taking(self, first: str) -> Taking:
        """How it takes raw input whose first split has this name."""
        return self._taking(first, can_pause=False)

    @property
    def takes_checkpoints(self) -> bool:
        return self.checkpoint is not None

    @property
    def event_time(self) -> str | None:
        """The field that holds it: one that a person names, or that the format has it in."""
        return self.time or (FORMATS.find(self.format, Format).time if self.format else None)

    def input(self) -> Input:
        return Input(
            ends=not (self.follow or self.has_clients),
            has_time=self.event_time is not None or is_direct(self.source),
            idle_timeout=self.idle_timeout or 0,
            is_held=self.on_idle == "hold",
            out_of_orderness=int(self.max_out_of_orderness),
            takes_checkpoints=self.takes_checkpoints,
        )

    def beginning(self) -> Feed:
        """What is there now, without waiting for more, and with the columns of a run. Raises PlanError."""
        if not self.follow:
            return self.open()
        feed = replace(self, follow=False, idle_timeout=None, on_idle=None).open()
        feed.columns = self._idling(feed.columns)
        return feed

    def declared(self) -> Columns | None:
        """The columns of live input before anything has come, where they are known. Raises PlanError."""
        taking = self._taking(self.source[0] if self.source else "", can_pause=True)
        form: Format = FORMATS.find(taking.format, Format)()
        types = declared_types(self.columns) if self.columns else {}
        if not form.has_text:
            types = {name: types.get(name, kind) for name, kind in form.types.items()}
        if not types:
            return None
        columns = Columns(types, frozenset(types))
        return self._idling(streamed(taking.event_time(form).found_in(columns)))

    def _idling(self, columns: Columns) -> Columns:
        return replace(columns, idles=self._idle_rule().moves_by_clock and columns.time is not None)

    def guarantee(self) -> Guarantee:
        if self.spool and self.takes_checkpoints:
            return Guarantee(EXACTLY_ONCE, f"from {self.spool} on, where it is durable before anybody computes with it")
        if self.reads_standard_input:
            why = "standard input cannot be replayed; --spool log:NAME makes it exactly once from there on"
            return Guarantee(AT_MOST_ONCE, why)
        if self.has_clients:
            why = "what clients have sent cannot be replayed; --spool log:NAME makes it exactly once from there on"
            return Guarantee(AT_MOST_ONCE, why)
        if not self.takes_checkpoints:
            read = "files are followed" if self.follow else "files can be read again"
            return Guarantee(WHOLE, f"{read}; without --checkpoint a run that died starts from the beginning of what is there")
        why = "files are read on from the position of the last checkpoint"
        return Guarantee(EXACTLY_ONCE, why + (_ROTATED if self.follow else ""))

    def describe(self, given: Columns) -> str:
        delay = (
            f", {format_duration(self.max_out_of_orderness)} out of order"
            if self.max_out_of_orderness
            else ", taken to be in order"
        )
        how = ", followed" if self.follow else ""
        how += f", until {self.until}" if self.until else ""
        time = self.event_time or (given.time.name if given.time else None)
        when = f"event time {time}{'' if is_direct(self.source) else delay}" if time else "no event time"
        return f"{' '.join(self.source)}{how}; {when}"

    def memory(self) -> str:
        begun = ", and 64 MiB for lines that clients have begun" if self.has_clients else ""
        return f"about five batches of {self.batch_bytes >> 20} MiB{begun}"

    def _check(self) -> None:
        if self.dead_letter and os.path.realpath(self.dead_letter) in {os.path.realpath(path) for path in self.source}:
            raise PlanError(f"--dead-letter {self.dead_letter} is the input itself", word=self.dead_letter)
        if self.checkpoint is not None and self.checkpoint <= 0:
            raise PlanError("--checkpoint must be longer than 0s", word="--checkpoint")
        self._check_idle()
        self._check_clients()
        self.check_until()
        check_zone(self.time_zone)

    def check_checkpoint(self) -> None:
        """Raises PlanError where no position can be saved."""
        if is_direct(self.source):
            self._check_direct()

    def check_until(self) -> None:
        """Raises PlanError where nobody can tell what is there now."""
        if self.drain and not self.until:
            hint = "clickpipe drain NAME is for a pipeline that runs"
            raise PlanError("--drain says how --until ends", hint=hint, word="--drain")
        if self.until and not self.is_replayable:
            what = "standard input" if self.reads_standard_input else self.source[0]
            why = f"what {what} will give is not there yet, and what is not taken now is lost"
            raise Unsupported("never", "--until", why, hint="spool it to a log, and read that: log:NAME", word="--until")
        if self.until and not is_direct(self.source):
            refuse_time(self.until)

    def _check_direct(self) -> None:
        """Raises PlanError for options that say how text is read, or how often a position is saved."""
        for one in options(type(self)):
            if one.name in _OF_TEXT and getattr(self, one.name) != one.default:
                raise PlanError(f"{one.flag} is not for {self.source[0]}, which is read as a whole and as it is", word=one.flag)
        self.check_until()

    def _check_idle(self) -> None:
        word = "--idle-timeout" if self.idle_timeout is not None else "--on-idle" if self.on_idle else ""
        if word and not self.follow and self.is_replayable:
            raise PlanError(
                f"{word} is for live input: standard input, sockets and --follow; files are read to their end", word=word
            )
        if self.on_idle and self.idle_timeout == 0:
            raise PlanError(
                "--on-idle says what happens when all is idle; with --idle-timeout 0s nothing ever is", word="--on-idle"
            )

    def _check_clients(self) -> None:
        given = [option.flag for option in options(type(self)) if option.name in _OF_CLIENTS and getattr(self, option.name)]
        if given and not self.has_clients:
            raise PlanError(f"{given[0]} is for sockets that others connect to: tcp://HOST:PORT, unix:PATH", word=given[0])
        of_tcp = [word for word in given if word.startswith("--tls") or word == "--insecure"]
        if of_tcp and self.source[0].startswith("unix:"):
            raise PlanError(f"{of_tcp[0]} is for tcp://HOST:PORT: only this user can reach unix:PATH", word=of_tcp[0])
        if self.client_timeout is not None and self.client_timeout <= 0:
            raise PlanError("--client-timeout must be longer than 0s", word="--client-timeout")
        if self.max_clients is not None and self.max_clients <= 0:
            raise PlanError("--max-clients must be at least 1", word="--max-clients")

    def _admission(self) -> Admission:
        return Admission(
            Admission.silence if self.client_timeout is None else self.client_timeout / 1_000,
            self.max_clients or Admission.most,
            self.tls_cert,
            self.tls_key,
            self.tls_ca,
            self.insecure,
        )

    def _idle_rule(self) -> IdleRule:
        timeout = _IDLE if self.idle_timeout is None else int(self.idle_timeout)
        return IdleRule(timeout, advances=self.on_idle != "hold" and not self.until)

    def _taking(self, first: str, *, can_pause: bool) -> Taking:
        """`first`: the name of the first split. `can_pause`: some split may give nothing for a while."""
        return Taking(
            self.name or _pipeline_name(first),
            self.format or ("csv" if _CSV.search(first) else "ndjson"),
            EventTime(self.time, self.time_unit, self.time_zone, self.max_out_of_orderness, self.max_future_skew),
            Pace(self.batch_bytes, self.max_latency / 1_000, (self.checkpoint or 0) / 1_000),
            self.columns,
            self.strict,
            self._idle_rule() if can_pause else IdleRule(),
            self._admission(),
            bounded=bool(self.until),
            stays_open=bool(self.until and self.checkpoint and not self.drain),
        )


def _is_stored(addresses: tuple[str, ...]) -> bool:
    """Whether its records are in an archive or a log."""
    return len(addresses) == 1 and addresses[0].startswith(("archive:", "log:"))


def _pipeline_name(split: str) -> str:
    """`data/clicks.ndjson.zst` -> `clicks`, `tcp://127.0.0.1:9000` -> `tcp-9000`"""
    if split.startswith("tcp://"):
        return f"tcp-{split.rsplit(':', 1)[-1].rstrip('/')}"
    stem = split.removeprefix("log:").removeprefix("archive:").rsplit("/", 1)[-1].split(".", 1)[0]
    return "stdin" if split == "standard input" else re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:100] or "unnamed"
