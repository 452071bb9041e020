"""What `explain` shows of a plan: the tree, the same for programs, and as a graph."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from explaining import explain, explained, records

from clickpipe.core.intake import IngestFeed
from clickpipe.errors import PlanError
from clickpipe.testing import environment

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
DIVIDED = (
    "ingest in.ndjson --time ts --max-out-of-orderness 5s | partition --by who --workers 2 | window tumble 1m"
    " | aggregate --by page n='count(DISTINCT ms)' | merge | select page n 'n * 2 AS twice' | sink out.ndjson"
)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path / ".home"))
    records(tmp_path / "in.ndjson", *range(300))


# The tree.


def test_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """The source, what changes at each step, the workers' steps as a branch, and all columns at the last one."""
    assert explain(monkeypatch, "-c", DIVIDED) == (0, EXPECTED)


EXPECTED = """\
ingest: in.ndjson; event time ts, 5s out of order
│  parses     all columns
│  columns    ts int, who str, page str, ms int
│  memory     about five batches of 8 MiB
│  guarantee  whole or not there: files can be read again; without --checkpoint
│             a run that died starts from the beginning of what is there
├─ partition: by who, 2 workers
│  │  reads      who
│  │  keys       who
│  │  memory     one batch
│  ├─ window: tumble 1m by ts
│  │     reads      ts
│  │     columns    + window_start time, + window_end time
│  │     window     1m each, adjoining
│  │     memory     one batch
│  └─ aggregate: pieces of n=count(DISTINCT ms) per window, page
│        reads      window_start, window_end, page, ms
│        columns    table str, floats str, pieces sketch
│        keys       page
│        state      one row per page and open window of 1m, and one row per
│                   different ms in each; handed on with each watermark
│        memory     one row per window and key that has come since the last
│                   watermark
├─ merge: as they come
│     memory     one batch
├─ aggregate: n=count(DISTINCT ms) per window, page
│     reads      table, floats, pieces
│     columns    window_start time, window_end time, page str, n int
│     keys       page
│     state      one row per page and open window of 1m, and one row per
│                different ms in each; let go when the watermark passes its end
│     memory     one row per open window and key
├─ select: page, n, n * 2 AS twice
│     reads      page, n
│     columns    page str, n int, twice int
│     memory     one batch
└─ sink: out.ndjson
      columns    page str, n int, twice int
      memory     one batch
      guarantee  whole or not there: the file gets its name at the end; a killed
                 run is run again from the start
"""


def test_a_stream_that_comes_and_goes_has_two_more_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is told although no column is known."""
    _, tree = explain(monkeypatch, "-c", "window tumble 1h | aggregate --by page n='count(*)'")
    assert tree.startswith("standard input: a stream\n│  guarantee  at most once")
    assert "state      one row per page and open window of 1h; let go when the" in tree
    assert "\n└─ standard output: a stream\n" in tree


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_told_in_80_columns_and_without_advice(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    code, tree = explain(monkeypatch, "--strict", str(path))
    assert code == 0
    assert "advice" not in tree
    assert max(map(len, tree.splitlines())) <= 80


@pytest.mark.parametrize(("variable", "is_plain"), [({"NO_COLOR": "1"}, True), ({"TERM": "dumb"}, True), ({}, False)])
def test_a_terminal_shows_what_a_pipe_carries(variable: dict[str, str], is_plain: bool, tmp_path: Path) -> None:
    """Names stand out there, unless nobody wants that."""
    words = [sys.executable, "-m", "clickpipe", "explain", "-c", DIVIDED]
    env = {**environment(tmp_path), "COLUMNS": "80", "TERM": "xterm", **variable}
    ours, theirs = pty.openpty()
    with subprocess.Popen(words, stdout=theirs, cwd=tmp_path, env=env):
        os.close(theirs)
        shown = _read(ours).replace("\r\n", "\n")
    assert ("\x1b[1mpartition\x1b[0m: by who" in shown) is not is_plain
    assert re.sub(r"\x1b\[[01]m", "", shown) == EXPECTED


def _read(terminal: int) -> str:
    data = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # its last writer has gone
            piece = b""
        if not piece:
            os.close(terminal)
            return data.decode()
        data += piece


def test_without_unicode_the_guides_are_of_ascii(tmp_path: Path) -> None:
    env = {**environment(tmp_path), "PYTHONIOENCODING": "ascii"}
    words = [sys.executable, "-m", "clickpipe", "explain", "-c", "ingest in.ndjson | filter 'ms > 1' | sink 'ä.csv'"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, check=True)
    assert b"\n+- filter: keep where ms > 1\n|     reads" in done.stdout
    assert b"\n`- sink: \\xe4.csv\n" in done.stdout


def test_of_very_many_columns_the_last_step_has_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wide.ndjson").write_text(json.dumps({f"c{number}": number for number in range(99)}) + "\n")
    tree = explain(monkeypatch, "-c", "ingest wide.ndjson | filter 'c1 > 0' | sink -")[1]
    source, sink = tree.split("filter: ")
    assert "c59 int" in source
    assert "c60 int" not in source
    assert "… 39 more\n" in source
    assert [f"c{number} int" in sink for number in range(99)] == [True] * 99


def test_what_is_made_of_the_input_is_none_of_its_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`_time` is no column that could be parsed."""
    (tmp_path / "in.csv").write_text("t,x\n2026-01-01T00:00:00Z,1\n")
    tree = explain(monkeypatch, "-c", "ingest in.csv --time t | sink -")[1]
    assert "│  parses     all columns\n│  columns    t str, x int, _time int\n" in tree


# For programs.


def test_every_field_is_there_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    said = explained(monkeypatch, DIVIDED + " --pass | sink view:v --key page")
    assert list(said) == ["pipeline", "steps", "parsed", "guarantees", "advice"]
    names = "number step words does inside reads columns added dropped keys window keeps memory guarantee"
    assert [list(step) for step in said["steps"]] == [names.split()] * 9
    assert [(step["number"], step["inside"]) for step in said["steps"] if step["inside"]] == [(3, 2), (4, 2)]
    last = said["steps"][5]
    assert last["keys"] == ["page"]
    assert last["window"] == {"kind": "tumble", "size": 60_000, "slide": 60_000}
    assert last["keeps"]["until"] == "let go when the watermark passes its end"
    assert said["steps"][6]["added"] == {"twice": "int"}
    assert said["steps"][6]["dropped"] == ["window_start", "window_end"]
    assert [one["part"] for one in said["guarantees"]] == ["source", "sink out.ndjson --pass", "sink"]


def test_columns_are_null_until_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a socket are, where a person declares them or the format has them."""
    pipeline = "ingest tcp://127.0.0.1:1 --time ts {} | window tumble 1m | aggregate --by page n='count(*)' | sink -"
    unknown = explained(monkeypatch, pipeline.format(""))
    assert {json.dumps(step["columns"]) for step in unknown["steps"]} == {"null"}
    assert unknown["parsed"] is None
    assert unknown["steps"][2]["keeps"]["what"] == "one row per page and open window of 1m"
    known = explained(monkeypatch, pipeline.format("--columns ts:int,page:str"))
    assert known["steps"][-1]["columns"] == {
        "window_start": "time",
        "window_end": "time",
        "page": "str",
        "n": "int",
        "closed_by": "str",
    }
    access = explained(monkeypatch, "ingest - --format combined | filter 'status = 500' | sink -")
    assert access["steps"][1]["reads"] == ["status"]
    others = explained(monkeypatch, "ingest - --format combined --columns status:str,foo:int | sink -")["steps"][0]["columns"]
    assert (others["status"], "foo" in others) == ("str", False)  # as a run has it


@pytest.mark.parametrize(("options", "has_one"), [("", True), ("--idle-timeout 0s", False), ("--on-idle hold", False)])
def test_rows_of_followed_files_say_what_closed_them(options: str, has_one: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the clock may do it."""
    pipeline = f"ingest in.ndjson --follow --time ts {options} | window tumble 1m | aggregate n='count(*)' | sink -"
    assert ("closed_by" in explained(monkeypatch, pipeline)["steps"][-1]["columns"]) is has_one


@pytest.mark.parametrize(
    "steps",
    [
        "filter 'ms > 3'",
        "select page 'ms / 2 AS half' | filter 'half > 1'",
        "window tumble 1m | aggregate --by page n='count(*)' most='max(ms)'",
        "partition --by who --workers 2 | window session 1m --by who | aggregate n='count(*)' | merge",
        "partition --by page --workers 2 | window tumble 1m | aggregate n='count(*)' | merge | rollup 1h",
        "dedup --by who --within 2s | sessionize --by who --gap 3s",
        "window tumble 1m --allowed-lateness 1m | aggregate --by page n='count(*)' --emit update",
    ],
)
def test_columns_are_those_of_the_stream(steps: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its first line says them, in a run."""
    pipeline = f"ingest in.ndjson --time ts | {steps}"
    words = [sys.executable, "-m", "clickpipe", "run", "-c", pipeline]
    done = subprocess.run(words, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=True)
    told = explained(monkeypatch, pipeline)["steps"][-1]["columns"]
    assert list(told.items()) == list(json.loads(done.stdout.splitlines()[0])["columns"].items())


@pytest.mark.parametrize(
    ("steps", "parsed"),
    [
        ("filter 'ms > 3' | sink out.ndjson", ["ts", "ms"]),
        ("filter 'ms > 3' | sink out.csv", ["ts", "who", "page", "ms"]),
        ("sink all.ndjson --pass | aggregate --by page n='count(*)' | sink out.ndjson", ["ts", "page"]),
        ("select page | sink out.ndjson", ["ts", "page"]),
        ("select 'ms AS page' | filter 'page > 1' | sink out.ndjson", ["ts", "ms"]),
        ("limit 5 | sink out.ndjson", ["ts"]),
    ],
)
def test_what_is_parsed_is_what_a_run_asks_for(steps: str, parsed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    want = IngestFeed.want

    def noted(feed: IngestFeed, names: list[str] | None, text: bool) -> None:
        want(feed, names, text)
        asked.append(feed.parsed())

    monkeypatch.setattr(IngestFeed, "want", noted)
    pipeline = f"ingest in.ndjson --time ts | {steps}"
    assert explained(monkeypatch, pipeline)["parsed"] == parsed
    from clickpipe.engine.local import run
    from clickpipe.plan.parse import parse

    run(parse(pipeline), lambda _: None)
    assert asked == [parsed, parsed]


# As a graph.


HOSTILE = [
    "page = '\"]; end %%{init: 1}%% #quot; <b>&amp;</b> `x` *y* _z_ ~a~ | s9[[x]]'",
    "page = '\\\\N \\\\\\\\ {a|b} --> \\\\l'",
    "page =\n  'two\nlines\tand \x1b[31m\u202e'",
    "page = 'style: #x;'",
]


@pytest.mark.parametrize("expression", HOSTILE)
def test_mermaid_is_given_nothing_that_it_could_take_for_its_own(expression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are boxes, arrows and the branch of the workers; a label, its numbers put back, is the text."""
    quoted = expression.replace("\\", "\\\\").replace('"', '\\"')
    graph = explain(monkeypatch, "-c", f'ingest in.ndjson | filter "{quoted}" | sink -', "--format", "mermaid")[1]
    first, *lines = graph.splitlines()
    assert first == "flowchart TD"
    boxes = [match for line in lines if (match := re.fullmatch(r'  s(\d)\["([^"]*)"\]', line))]
    assert lines[len(boxes) :] == ["  s1 --> s2", "  s2 --> s3"]
    label = boxes[1][2]
    assert re.fullmatch(r"(<br>|#\d+;|[\w .,()/+='-])*", label)
    _check_label(re.sub(r"#(\d+);", lambda match: chr(int(match[1])), label.replace("<br>", "\n")), expression)


@pytest.mark.parametrize("expression", HOSTILE)
def test_graphviz_reads_its_strings_to_their_ends(expression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quoted = expression.replace("\\", "\\\\").replace('"', '\\"')
    graph = explain(monkeypatch, "-c", f'ingest in.ndjson | filter "{quoted}" | sink -', "--format", "dot")[1]
    boxes = re.findall(r'^  s\d \[label="((?:[^"\\\n]|\\.)*)"\];$', graph, re.MULTILINE)
    assert len(boxes) == 3
    assert not re.search(r"&(?!amp;)", boxes[1])
    text = re.sub(r"\\(.)", lambda match: {"l": "\n"}.get(match[1], match[1]), boxes[1])
    assert re.findall(r"\\(.)", boxes[1].replace("\\\\", "").replace('\\"', "")) == ["l"] * text.count("\n")
    _check_label(text.replace("&amp;", "&"), expression)
    if draw := shutil.which("dot"):
        subprocess.run([draw, "-Tsvg"], input=graph, text=True, capture_output=True, check=True)


def _check_label(label: str, expression: str) -> None:
    """White space and line breaks apart."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(expression.split()))
    assert "".join(label.split()) == "".join(f"filter keep where {shown}".split())


@pytest.mark.parametrize(
    ("form", "begin", "end", "arrow"),
    [
        ("mermaid", '  subgraph w2["workers"]', "  end", "  s{} --> s{}"),
        ("dot", "  subgraph cluster_2 {", "  }", "  s{} -> s{};"),
    ],
)
def test_workers_have_a_box_around_them(form: str, begin: str, end: str, arrow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = explain(monkeypatch, "-c", DIVIDED, "--format", form)[1].splitlines()
    inside = lines[lines.index(begin) : lines.index(end)]
    assert [match[1] for line in inside if (match := re.match(r"    s(\d)", line))] == ["3", "4"]
    assert [line for line in lines if re.match(r"  s\d -", line)] == [arrow.format(*pair) for pair in pairwise(range(1, 9))]


# What cannot be.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--json", "--format", "dot", "-c", "ingest in.ndjson | sink -"], "--json is --format json"),
        (["--live", "x", "--format", "mermaid"], "--live NAME is told as text or json"),
        (["--live", "x", "--strict"], "no recipe beside it"),
        (["-c", "ingest in.ndjson --format clf | sink -"], 'no format "clf"'),
        (["-c", "ingest in.ndjson | sink - --key ms"], "sink: --key is not for -"),
        (["-c", "ingest tcp://:1 | aggregate n='cuont(*)' | sink -"], 'aggregate: no aggregate "cuont"'),
    ],
)
def test_words_that_do_not_go_together(words: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        explain(monkeypatch, *words)


def test_names_are_harmless_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of fields and of files, also where they are no UTF-8."""
    (tmp_path / "in.ndjson").write_text(json.dumps({'a"\x1b[31m\n': 1, "b\u202e": "x"}) + "\n")
    pipeline = f"ingest in.ndjson | sink '{os.fsdecode(bytes([255]))}.csv'"
    tree = explain(monkeypatch, "-c", pipeline)[1]
    assert all(c.isprintable() or c == "\n" for c in tree)
    assert 'columns    a"\\x1b[31m int, b\\u202e str' in tree
    said: dict[str, Any] = json.loads(explain(monkeypatch, "-c", pipeline, "--json")[1])
    assert said["steps"][0]["columns"] == {'a"\x1b[31m\n': "int", "b\u202e": "str"}
    assert said["steps"][1]["words"] == "\udcff.csv"
