"""`dead` and `late`: what they show is what left a pipeline, and what they give back is what came."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickpipe.store import sides
from clickpipe.store.giveback import given_back
from clickpipe.store.sides import DEAD, LATE, Side, Some
from clickpipe.store.tally import Tally, kind_of_reason
from clickpipe.testing import environment

START = 1_767_225_600_000  # 2026-01-01T00:00:00Z
STEPS = (
    "ingest in.ndjson --time ts --name one",
    "window tumble 1m",
    "aggregate --by page n='count(*)' s='sum(ms)'",
    "sink one.ndjson",
)
CLICKPIPE = f"{sys.executable} -m clickpipe"


def _shell(folder: Path, line: str, code: int = 0) -> tuple[str, str]:
    words = ["bash", "-c", f"set -o pipefail; {line.replace('clickpipe ', f'{CLICKPIPE} ')}"]
    done = subprocess.run(words, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def _spell_time(milliseconds: int, style: str) -> object:
    return milliseconds if style == "int" else f"2026-01-01T00:{milliseconds // 60_000 % 60:02}:{milliseconds // 1000 % 60:02}Z"


def _input(style: str) -> list[str]:
    """25 minutes of records, of which every seventh is four minutes late, and a bad line of each kind."""
    lines = []
    for number in range(300):
        time = START + number * 5_000 - (240_000 if number % 7 == 6 and number > 100 else 0)
        lines.append(json.dumps({"ts": _spell_time(time, style), "page": f"/p/{number % 3}", "ms": number, "nest": {"_time": 5}}))
    bad = [
        "oops",
        '{"ts":"never","page":"/p/0"}',
        '["ts"]',
        json.dumps({"ts": _spell_time(START + 1_495_000, style), "ms": "slow"}),
    ]
    return lines + bad


@pytest.mark.parametrize("style", ["int", "text"])
@pytest.mark.parametrize("form", ["shell", "fused"])
def test_what_left_comes_back_and_counts_add_up(tmp_path: Path, style: str, form: str) -> None:
    """Late records are given back byte for byte, and with them the results are those of all good records."""
    lines = _input(style)
    (tmp_path / "in.ndjson").write_text("\n".join(lines) + "\n")
    if form == "shell":
        _shell(tmp_path, " | ".join(f"clickpipe {step}" for step in STEPS))
    else:
        _shell(tmp_path, f'clickpipe run -c "{" | ".join(STEPS)}"')
    back, told = _shell(tmp_path, "clickpipe late reprocess one")
    assert set(back.splitlines()) <= set(lines)
    assert len(set(back.splitlines())) == len(back.splitlines()) > 20
    assert f"{len(back.splitlines())} late records given back" in told
    again = "clickpipe ingest - --time ts --max-out-of-orderness 1d --name two | clickpipe window tumble 1m"
    rows, _ = _shell(
        tmp_path,
        f"clickpipe late reprocess one | {again} | clickpipe aggregate --by page n='count(*)' s='sum(ms)' | clickpipe sink -",
    )
    found = [json.loads(row) for row in [*(tmp_path / "one.ndjson").read_text().splitlines(), *rows.splitlines()]]
    assert sum(row["n"] for row in found) == 300
    assert sum(row["s"] for row in found) == sum(range(300))

    dead, _ = _shell(tmp_path, "clickpipe dead reprocess one")
    assert Counter(dead.splitlines()) == Counter(lines[300:])


def test_a_look_at_them(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text("\n".join(_input("int")) + "\n\x1b[31mred\n")
    steps = "window tumble 1m | aggregate s='sum(ms)' | sink -"
    _shell(tmp_path, f'clickpipe run -c "ingest in.ndjson --time ts --name one --checkpoint 1s | {steps}"')
    shown, _ = _shell(tmp_path, "clickpipe dead show one --rows 2")
    lines = shown.splitlines()
    assert lines[0] == f"one: 5 dead letters in {tmp_path}/.home/pipelines/one/dead.ndjson"
    assert "         2  not JSON" in lines
    assert '         1  column "ms" is not a 64-bit integer' in lines
    assert sum(line.startswith("    in.ndjson:") for line in lines) == 2
    whole, _ = _shell(tmp_path, "clickpipe dead show one")
    assert r"\u001b[31mred" in whole
    assert "\x1b" not in whole
    told = json.loads(_shell(tmp_path, "clickpipe dead show one --json --reason 'not JSON' --rows 1")[0])
    assert (told["records"], told["reasons"], len(told["newest"])) == (2, {"not JSON": 2}, 1)

    records = [json.loads(line) for line in (tmp_path / ".home/pipelines/one/late.ndjson").read_text().splitlines()]
    told = json.loads(_shell(tmp_path, "clickpipe late show one --json")[0])
    delays = sorted(record["_late_by"] for record in records)
    assert told["records"] == len(records)
    assert (told["late_by"]["least"], told["late_by"]["most"]) == (delays[0], delays[-1])
    windows = Counter(record["window_start"] for record in records)
    assert {one["window_start"]: one["records"] for one in told["windows"]}.items() <= windows.items()
    assert told["newest"] == records[-10:]
    listed = [json.loads(line) for line in _shell(tmp_path, "clickpipe late ls --json")[0].splitlines()]
    assert [(one["pipeline"], one["records"], one["newest"]) for one in listed] == [("one", len(records), records[-1])]


def test_files_that_a_person_chose_are_found_by_the_checkpoints_or_by_their_path(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text("\n".join(_input("int")) + "\n")
    line = (
        "ingest in.ndjson --time ts --name one --checkpoint 1s --dead-letter bad.out | window tumble 1m --late slow.out | sink -"
    )
    _shell(tmp_path, f'clickpipe run -c "{line}"')
    assert f"in {tmp_path}/bad.out" in _shell(tmp_path, "clickpipe dead show one")[0]
    assert f"{tmp_path}/slow.out" in _shell(tmp_path, "clickpipe late ls")[0]
    assert _shell(tmp_path, "clickpipe late reprocess slow.out")[0] == _shell(tmp_path, "clickpipe late reprocess one")[0]


def test_to_a_file_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text("\n".join(_input("int")) + "\n")
    _shell(tmp_path, "clickpipe run -c 'ingest in.ndjson --time ts --name one | window tumble 1m | sink -'")
    out, told = _shell(tmp_path, "clickpipe late reprocess one --to back.ndjson")
    assert out == ""
    assert "given back, in back.ndjson" in told
    assert (tmp_path / "back.ndjson").read_text() == _shell(tmp_path, "clickpipe late reprocess one")[0]
    _, told = _shell(tmp_path, "clickpipe late reprocess one --to .home/pipelines/one/late.ndjson", code=2)
    assert "is the file that is read" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("dead show clikcs", 'did you mean "clicks"?'),
        ("late reprocess ./nothing", "./nothing: no such file"),
        ("dead show", "dead show needs a pipeline"),
        ("late ls --to x", "--to is for reprocess"),
    ],
)
def test_mistakes(tmp_path: Path, words: str, said: str) -> None:
    (tmp_path / ".home/pipelines/clicks").mkdir(parents=True)
    assert said in _shell(tmp_path, f"clickpipe {words}", code=2)[1]


def test_nothing_has_left(tmp_path: Path) -> None:
    (tmp_path / ".home/pipelines/clicks").mkdir(parents=True)
    assert _shell(tmp_path, "clickpipe dead show clicks")[0] == "clicks has no dead letters\n"
    assert _shell(tmp_path, "clickpipe late ls")[0] == "no late records\n"


def _letter(raw: str, error: str = "not JSON: x") -> str:
    return json.dumps({"raw": raw, "error": error, "source": "in", "offset": 0, "time": None})


def test_what_is_not_whole_is_left_out_and_counted(tmp_path: Path) -> None:
    """Cut, escaped and overlong lines; damaged ones; one that is still being written."""
    letters = [
        _letter("a"),
        _letter("x" * (64 << 10)),
        _letter(r"\xff", "not UTF-8"),
        _letter("y", "longer than 1048576 bytes: 2"),
    ]
    text = "\n".join([*letters, "torn{", '{"raw":1}', _letter("b")]) + "\n" + _letter("c")[:-4]
    (tmp_path / "dead.out").write_text(text)
    out, told = _shell(tmp_path, "clickpipe dead reprocess dead.out")
    assert out == "a\nb\n"
    assert "dead.out: 2 dead letters given back" in told
    assert "dead.out: 3 dead letters left out" in told
    assert "dead.out: 2 damaged lines left out" in told


def test_lines_of_a_checkpoint_that_is_not_complete_are_not_there_yet(tmp_path: Path) -> None:
    (tmp_path / "in.ndjson").write_text("\n".join(_input("int")) + "\n")
    _shell(
        tmp_path,
        "clickpipe run -c 'ingest in.ndjson --time ts --name one --checkpoint 1s | filter \"ms >= 0\" | sink -'",
    )
    with (tmp_path / ".home/pipelines/one/dead.ndjson").open("a") as file:
        file.write(_letter("of a checkpoint that was cut short") + "\n")
    assert "cut short" not in _shell(tmp_path, "clickpipe dead reprocess one")[0]
    assert len(_shell(tmp_path, "clickpipe dead reprocess one")[0].splitlines()) == 4


def test_kinds_of_reasons() -> None:
    reasons = {
        "\"ts\" is no instant: 'a: b'": '"ts" is no instant',
        'column "a: b" is not a number': 'column "a: b" is not a number',
        "not JSON: unexpected character": "not JSON",
        "late": "late",
        ": odd": ": odd",
    }
    frame = pl.DataFrame({"why": list(reasons)})
    assert frame.select(kind_of_reason("why")).to_series().to_list() == list(reasons.values())


# The same with any records.

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text('ab"\\{}é\u2028', max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "_time", "_mark", "window_start"]), inner, max_size=2)
    ),
    max_leaves=4,
)
RECORDS = st.dictionaries(st.sampled_from(["a", "_time", "é", "_tim", "b c", ""]), VALUES, max_size=4)


def _parsed(lines: list[str], folder: Path) -> Some:
    path = folder / "side.ndjson"
    path.write_text("".join(f"{line}\n" for line in lines))
    return next(sides.read(Side(LATE, "", str(path))))


@given(
    st.lists(
        st.tuples(
            RECORDS, st.integers(0, 2**45), st.integers(0, 2**40), st.booleans(), st.sampled_from(["", "_time", "_time,x"])
        ),
        min_size=1,
    ),
)
def test_a_late_record_is_given_back_as_it_came(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[dict[str, object], int, int, bool, str]]
) -> None:
    """Whatever it holds, and whichever fields were added to it; `x` is a field that a step has added before the window."""
    came, lines = [], []
    for record, time, late_by, has_window, added in records:
        if added:
            record.pop("_time", None)
        elif record.get("_time") == time:  # nobody could tell it from ours
            record["_time"] = None
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        ours = {"_time": f'"_time":{time}', "_time,x": f'"_time":{time},"x":1'}.get(added, "")
        window = f'"window_start":{time},"window_end":{time + 5}' if has_window else ""
        fields = [text[1:-1], ours, window, f'"_mark":{time + late_by},"_late_by":{late_by},"_reason":"late"']
        lines.append("{" + ",".join(filter(None, fields)) + "}")
        came.append("{" + ",".join(filter(None, [text[1:-1], '"x":1' if added == "_time,x" else ""])) + "}")
    back, left = given_back(LATE, _parsed(lines, tmp_path_factory.getbasetemp()))
    assert (back.to_list(), left) == (came, 0)


def test_a_late_record_that_a_tool_has_rewritten_keeps_its_values(tmp_path: Path) -> None:
    line = '{ "_reason": "late", "a": 18446744073709551617, "_time": 5, "_mark": 9, "_late_by": 4, "b": {"_mark": 1} }'
    assert given_back(LATE, _parsed([line], tmp_path))[0].to_list() == ['{"a":18446744073709551617,"b":{"_mark":1}}']


@given(st.lists(st.text("ab", max_size=9)), st.integers(1, 12), st.none() | st.integers(0, 99), st.booleans())
def test_blocks_are_whole_lines_however_they_are_cut(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], size: int, end: int | None, is_ended: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "blocks"
    data = ("\n".join(lines) + ("\n" if is_ended and lines else "")).encode()
    path.write_bytes(data)
    seen = data if end is None else data[:end]
    expected = [line for line in seen.split(b"\n")[:-1] if len(line) <= size]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sides, "_BLOCK", size)
        blocks = [*sides._blocks(str(path), end)]
    found = b"".join(blocks).split(b"\n")[:-1]
    assert all(block.endswith(b"\n") for block in blocks)
    assert [line for line in found if line and len(line) <= size] == [line for line in expected if line]
    assert max(map(len, blocks), default=0) <= 2 * size + 1


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=50), st.integers(1, 7))
def test_the_tally_does_not_depend_on_blocks(delays: list[int], size: int) -> None:
    frame = pl.DataFrame(
        {
            "_reason": ["late"] * len(delays),
            "_mark": delays,
            "_late_by": delays,
            "window_start": [d // 100 for d in delays],
            "window_end": delays,
        }
    ).with_columns(pl.lit("{}").alias(sides.LINE))
    tally = Tally(LATE, 3)
    for part in frame.iter_slices(size):
        tally.add(Some(part))
    half = sorted(delays)[(len(delays) - 1) // 2]
    assert (tally.least, tally.most, tally.reasons()) == (min(delays), max(delays), [("late", len(delays))])
    told = tally.half()
    assert told is not None
    assert half * 0.99 <= told <= half
    assert dict(tally.windows()) == Counter(d // 100 for d in delays)
    assert tally.newest is not None
    assert tally.newest["_late_by"].to_list() == delays[-3:]


def test_a_dead_letter_is_not_taken_for_a_late_record() -> None:
    assert DEAD.is_line(_letter("a").encode())
    assert not LATE.is_line(_letter("a").encode())
    assert not DEAD.is_line(b"[1]")
