"""Stop and drain: where ingest's input ends when somebody wants it to."""

from __future__ import annotations

import json
import os
import threading
import time
from itertools import count
from pathlib import Path

import pytest
from growing import LOG, Run, append, numbers

from clickpipe.core.intake import IngestFeed
from clickpipe.core.option import Duration, Size
from clickpipe.engine.feeds import RawSplit
from clickpipe.operators.ingest import Ingest
from clickpipe.plan.parse import parse
from clickpipe.wire.pump import Inbox


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_stop_saves_where_it_is() -> None:
    """Soon, also while nothing comes; the splits stay open, and a later run goes on."""
    run = _stopped_while_waiting(drain=False)
    assert run.feed is not None
    assert run.feed.is_stopped
    assert run.feed.last is not None
    run.saved = json.loads(json.dumps(run.feed.last.state[0]["source"]))
    assert run.saved is not None
    assert [split["done"] for split in run.saved["splits"]] == [False]
    run.kill()
    append("app.log", rest=": 3}\n")
    run.read()
    assert run.committed == [3]


def test_drain_ends_the_input() -> None:
    """A line without its newline stays unread, and this is said."""
    run = _stopped_while_waiting(drain=True)
    assert run.feed is not None
    assert not run.feed.is_stopped
    assert run.feed.last is not None
    assert run.notes == ["app.log ends with 4 bytes of a line without its newline, which is left unread"]


def _stopped_while_waiting(*, drain: bool) -> Run:
    append("app.log", 1, 2, rest='{"n"')
    run = Run(LOG)
    run.start()
    assert run.feed is not None
    run.feed.epochs = count(1)
    for pull in run.feed.pulls():
        run.handed += [number for batch in pull.batches for number in numbers(batch)]
        threading.Timer(0.3, run.feed.stop, kwargs={"drain": drain}).start()
    assert run.handed == [1, 2]
    return run


@pytest.mark.parametrize("drain", [False, True])
def test_stop_of_files_at_rest(drain: bool) -> None:
    """In the middle of a file; the rest is read by a later run."""
    append("app.log", *range(500))
    append("web.log", *range(500, 1_000))
    step = parse(f"ingest {LOG} web.log --batch-bytes 1KiB").nodes[0].step
    assert isinstance(step, Ingest)
    first = step.open()
    first.epochs = count(1)
    read = _numbers_until_stopped(first, drain=drain)
    assert 0 < len(read) < 500
    assert first.is_stopped is not drain
    assert first.last is not None
    second = step.open(json.loads(json.dumps(first.last.state[0]["source"])))
    assert read + _numbers_until_stopped(second, drain=None) == [*range(1_000)]
    assert not second.is_stopped


@pytest.mark.parametrize("drain", [False, True])
def test_stop_of_live_standard_input(drain: bool) -> None:
    """While it waits for more; a line that has begun is no record."""
    reader, writer = os.pipe()
    os.write(writer, b'{"n": 1}\n{"n": 2}\n{"n"')
    feed = Ingest(("-",), checkpoint=Duration(60_000)).feed([RawSplit(Inbox(reader, "standard input"))])
    feed.epochs = count(1)
    timer = threading.Timer(0.5, feed.stop, kwargs={"drain": drain})
    timer.start()
    assert _numbers_until_stopped(feed, drain=None) == [1, 2]
    assert feed.is_stopped is not drain
    assert feed.last is not None
    assert [split["done"] for split in feed.last.state[0]["source"]["splits"]] == [False]
    os.close(writer)


def test_what_was_read_ahead_of_live_input_is_not_lost_by_a_stop() -> None:
    reader, writer = os.pipe()
    inbox = Inbox(reader, "standard input")
    for number in (1, 2, 3):
        os.write(writer, b'{"n": %d}\n' % number)
        while inbox._queue.qsize() < number:
            time.sleep(0.01)
    feed = Ingest(("-",), columns="n:int", batch_bytes=Size(1)).feed([RawSplit(inbox)])
    assert _numbers_until_stopped(feed, drain=False) == [1, 2, 3]
    os.close(writer)


def _numbers_until_stopped(feed: IngestFeed, *, drain: bool | None) -> list[int]:
    """`drain` None: nobody stops it here."""
    feed.want(["n"], True)
    found: list[int] = []
    for pull in feed.pulls():
        found += [row["n"] for batch in pull.batches for row in batch.frame.select("n").to_dicts()]
        assert not pull.dead
        if drain is not None and found:
            feed.stop(drain=drain)
    return found
