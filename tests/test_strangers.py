"""What a stranger's stream may not do, who may have a token and is not this user: reach files, forge records, take all memory."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from clickpipe.columns import WindowInfo
from clickpipe.engine.feeds import open_stream
from clickpipe.engine.merged import open_merged
from clickpipe.errors import ClickpipeError, DataError, StateError
from clickpipe.state.directory import StateDirectory
from clickpipe.wire import hello
from clickpipe.wire.arrow import to_arrow
from clickpipe.wire.frames import End
from clickpipe.wire.pump import Arriving
from clickpipe.wire.stream import StreamReader

LINE: dict[str, Any] = {"@": "stream", "v": 1, "pipeline": "clicks", "hop": 1, "run": 3, "columns": {"x": "int"}}
TRAP = {"hop": 9, "sink": "file", "staged": {"to": "/trap", "epoch": 1, "rows": False, "begun": False, "ended": True, "parts": 0}}


class Bytes(Arriving):
    """What has come already."""

    is_trusted = False

    def __init__(self, data: bytes, *, is_trusted: bool = False) -> None:
        super().__init__("a test")
        self._chunks = [data, b""]
        self.is_trusted = is_trusted

    def get(self, timeout: float | None = None) -> bytes | None:
        if self._held:
            held, self._held = self._held, b""
            return held
        return self._chunks.pop(0) if self._chunks else b""


def signal(**said: Any) -> bytes:
    return b"\t" + json.dumps({"@": said.pop("kind"), **said}).encode() + b"\n"


def line(**more: Any) -> bytes:
    return b"\t" + json.dumps({**LINE, **more}).encode() + b"\n"


END = signal(kind="end", rows=0, accounts=[{"read": 0}], epoch=5, state=[TRAP])


def arrow(frame: pl.DataFrame, rows: int, seq: int = 0, **more: Any) -> bytes:
    data = to_arrow(frame)
    return signal(kind="arrow", seq=seq, rows=rows, bytes=len(data), **more) + data


def pulled(data: bytes, *, is_trusted: bool = False) -> list[dict[str, Any]]:
    feed = open_stream(Bytes(data, is_trusted=is_trusted))
    feed.want(None, True)
    return [row for pull in feed.pulls() for batch in pull.batches for row in batch.frame.to_dicts()]


def test_a_stranger_takes_no_part_in_checkpoints() -> None:
    """Neither by a barrier nor by the end: what they name would be committed."""
    barrier = signal(kind="barrier", epoch=1, accounts=[], state=[TRAP])
    reader = StreamReader(Bytes(line() + barrier + END))
    assert reader.line is not None
    assert list(reader.frames(reader.line.columns)) == [End(0, ({"read": 0},))]
    trusted = StreamReader(Bytes(line() + barrier + END, is_trusted=True))
    assert [event.state for event in trusted.frames(reader.line.columns)] == [(TRAP,), (TRAP,)]  # type: ignore[union-attr]


def test_a_stranger_is_not_merged_with_a_pipeline_that_takes_checkpoints() -> None:
    ours = Bytes(line(state="/home/x/pipelines/clicks", restore=0) + END, is_trusted=True)
    with pytest.raises(DataError, match="not of one run"):
        open_merged([ours, Bytes(line() + END)])


def test_a_checkpoint_holds_its_own_files_only(tmp_path: Path) -> None:
    directory = StateDirectory(str(tmp_path / "pipelines" / "c"))
    for name in ("../7/x", "/etc/passwd", "..", ""):
        with pytest.raises(StateError, match="names a file"):
            directory.path_of(7, name)


def test_its_dead_letters_are_those_of_no_pipeline_of_ours() -> None:
    assert open_stream(Bytes(line() + END)).pipeline == "remote-clicks"
    assert open_stream(Bytes(line(pipeline="remote-clicks") + END)).pipeline == "remote-clicks"
    assert open_stream(Bytes(line() + END, is_trusted=True)).pipeline == "clicks"


X = pl.DataFrame({"x": [1, 2]})
JSON = {"x": "int", "j": "json"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (line() + arrow(X, 2, watermark=9) + arrow(X, 2, seq=1, watermark=5), "takes the watermark back from 9 to 5"),
        (line() + arrow(X, 2, watermark=1 << 63), "no integer that can be a time"),
        (line() + arrow(X, 1 << 40), "says it has 1099511627776 records"),
        (line(columns={}) + arrow(pl.DataFrame({"y": [None] * 9}), 9), "records without columns"),
        (line() + arrow(pl.DataFrame({"x": pl.Series([1 << 63], dtype=pl.UInt64)}), 1), "values of type UInt64"),
        (line() + arrow(X.with_columns(_mark=pl.lit("x")), 2, late=2), "notes of ours"),
        (line(columns=JSON) + arrow(X.with_columns(j=pl.lit('1}\n{"x":666')), 2), "no JSON"),
        (line() + b"\x1b[31mred\n" + signal(kind="frame", seq=0, rows=1), "no JSON"),
        (line() + b"[1]\n" + signal(kind="frame", seq=0, rows=1), "no JSON object"),
        (line() + signal(kind="columns", columns={"y": "int"}), 'loses its column "x"'),
        (line() + signal(kind="columns", columns=[1]), "a signal line is damaged"),
        (line() + signal(kind="end", rows=0, accounts=[5]), "a signal line is damaged"),
        (line() + signal(kind="end", rows=0, accounts=[{"read": 1 << 60}]), "a signal line is damaged"),
        (line(pipeline=json.loads("[" * 900 + "]" * 900)), "a signal line is damaged"),
        (line() + b'{"x":1,"_mark":"x"}\n' + signal(kind="frame", seq=0, rows=1, late=1), "a mark that is none"),
        *(
            (line(columns={"x": "int"}, window={"kind": "hop", "size": 9, "slide": 3} | wrong), "the stream line is damaged")
            for wrong in (
                {"size": 0},
                {"slide": 0},
                {"size": 1 << 63},
                {"size": 10**12},
                {"kind": "zzz"},
                {"offset": 1 << 63},
                {"zone": "No/Where"},
                {"zone": "../../etc/passwd"},
                {"lateness": -1},
            )
        ),
    ],
)
def test_what_no_honest_stream_has_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ClickpipeError, match=words):
        pulled(data + signal(kind="end", rows=4, accounts=[{"read": 4}]))


def test_columns_that_nobody_has_declared_are_left_out() -> None:
    """Those that would stand for notes of ours too."""
    frame = X.with_columns(pl.lit("late").alias("\0wrong:x"), y=pl.lit(7))
    data = line() + arrow(frame, 2) + signal(kind="end", rows=2, accounts=[{"read": 2}])
    assert pulled(data) == [{"x": 1}, {"x": 2}]


def test_a_frame_with_more_rows_than_it_says_is_not_unpacked() -> None:
    """A bomb: 100 million rows in a kilobyte."""
    out = io.BytesIO()
    pl.DataFrame({"x": pl.Series([0]).new_from_index(0, 20_000_000)}).write_ipc_stream(out, compression="zstd")
    data = line() + signal(kind="arrow", seq=0, rows=5, bytes=len(out.getvalue())) + out.getvalue()
    with pytest.raises(DataError, match="says it has 5 records and holds 6"):
        pulled(data)


def test_a_hello_is_understood_or_not_and_writes_one_line() -> None:
    nested = "[" * 1_010 + "]" * 1_010
    for said in (f'{{"@":"refused","why":{nested}}}', f'{{"@":"ready","proof":{nested}}}', '{"@":"refused","why":7}'):
        with pytest.raises(hello.NotUnderstood):
            hello.decode(said.encode())
    refused = hello.decode(b'{"@":"refused","why":"x\\nclickpipe: all is well\\u001b[31m"}')
    assert refused == hello.Refused("x\\x0aclickpipe: all is well\\x1b[31m")


def test_windows_of_ours_are_understood() -> None:
    info = WindowInfo("hop", 3_600_000, 60_000, -5, "Europe/Berlin", 10, ("a",), None)
    assert WindowInfo.from_json(json.loads(json.dumps(info.to_json()))) == info
