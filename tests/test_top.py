"""The dashboard: its screens, driven without a terminal and in a real one, and what it prints once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from running import Start, until
from textual.pilot import Pilot

from clickpipe.state.samples import CheckpointSample, SplitSample
from clickpipe.testing import environment
from clickpipe.top import cells, screen
from clickpipe.top.model import Bottleneck, Pipeline, Spending, Step
from clickpipe.top.rows import Rows
from clickpipe.top.screen import Top

SNAPSHOTS = Path(__file__).parent / "golden" / "top"
SIZES = ((80, 24), (120, 40), (46, 12))
HOSTILE = "\x1b]52;c;cm0gLXJm\x07\x1b]0;title\x07\x9b2J\u202eevil\u2066\r\n\tend"
Drive = Callable[[Top, Pilot[None]], Awaitable[None]]


def step(hop: int, name: str, busy: float, held: float, **more: object) -> Step:
    spending = Spending(busy, 1_000 - busy - held, held)
    made = Step(hop, name, "", 1, 12_000 * (5 - hop), 12_000, 10, 400.0 * (5 - hop), 400.0, busy, spending, 0, 0, (100 + hop,))
    return replace(made, **more)  # type: ignore[arg-type]  # fields of a step


def shown(name: str = "clicks", state: str = "running", **more: object) -> Pipeline:
    steps = (
        step(0, "ingest", 400, 500),
        step(1, "window", 300, 600),
        step(2, "aggregate", 950, 0, state_rows=12_345, state_bytes=3 << 20, workers=2),
        step(3, "sink", 20, 0, says="view:pages"),
    )
    splits = (SplitSample("app-1.ndjson", 4 << 20, 1_772_355_600_000), SplitSample("app-2.ndjson", 5 << 20, 1_772_355_660_000))
    told = Pipeline(
        name,
        "1-1",
        state,
        run=7,
        records=60_000,
        rate=2_000.0,
        rates=(0, 100, 900, 2_000, 1_500),
        bytes_in=13 << 20,
        watermark=1_772_355_600_000,
        lag=65_000,
        outcomes={"aggregated": 59_000, "late": 40, "dead": 2},
        state_rows=12_345,
        state_bytes=3 << 20,
        checkpoint=CheckpointSample(41, 0.0, 0.2, 1 << 20),
        checkpoint_age=0.8,
        interval=1.0,
        restarts=3,
        steps=steps,
        splits=splits,
        splits_in_all=2,
        bottleneck=Bottleneck("aggregate", 2, "the steps before it wait for it"),
        processes=(101,),
    )
    return replace(told, **more)  # type: ignore[arg-type]  # fields of a pipeline


def some() -> list[Pipeline]:
    ended = {"processes": (), "rate": 0.0, "restarts": 0, "checkpoint": None, "checkpoint_age": None}
    return [shown(), shown("sessions", rate=15.5, life="2-2", state_bytes=700), shown("nightly", "ended", **ended, life="3-3")]


def drive(drives: Drive, found: list[Pipeline], size: tuple[int, int] = (80, 24)) -> None:
    async def work() -> None:
        app = Top(lambda: found, 0.05)
        async with app.run_test(size=size) as pilot:
            await pilot.pause(0.1)
            await drives(app, pilot)

    asyncio.run(work())


def text(app: Top) -> str:
    """What stands on the screen."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips) + "\n"


async def seen(pilot: Pilot[None], is_so: Callable[[], bool]) -> None:
    """Waits until it is, or for long."""
    for _ in range(200):
        if is_so():
            return
        await pilot.pause(0.02)


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "clock", lambda: "12:00:00")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize(("name", "keys"), [("all", ()), ("one", ("enter",)), ("help", ("question_mark",))])
def test_each_screen_looks_as_it_did(
    name: str, keys: tuple[str, ...], size: tuple[int, int], request: pytest.FixtureRequest
) -> None:
    """--record draws them anew; the diff is the review."""
    path = SNAPSHOTS / f"{name}-{size[0]}x{size[1]}.txt"

    async def drives(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press(*keys)
        await pilot.pause(0.3)
        if request.config.getoption("--record"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text(app))
        await seen(pilot, lambda: text(app) == path.read_text())
        assert text(app) == path.read_text()

    drive(drives, some(), size)


@pytest.fixture
def kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a pipeline has left: a view, a late record, a dead letter."""
    records = [{"ts": 1_767_225_600_000 + 1_000 * n, "page": f"/p/{n % 3}"} for n in range(60)]
    lines = [*map(json.dumps, records), "oops", json.dumps({"ts": 1_767_225_600_000, "page": "/late"})]
    (folder / "in.ndjson").write_text("\n".join(lines) + "\n")
    line = "ingest in.ndjson --time ts --name clicks | window tumble 10s | aggregate --by page n='count(*)' | sink view:pages"
    subprocess.run([sys.executable, "-m", "clickpipe", "run", "-q", "-c", line], cwd=folder, env=environment(folder), check=True)
    monkeypatch.setenv("CLICKPIPE_HOME", str(folder / ".home"))
    return folder


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize(("name", "key", "part"), [("view", "v", "18 rows"), ("late", "l", "1 late"), ("dead", "d", "1 dead")])
def test_what_a_pipeline_leaves_looks_as_it_did(
    name: str, key: str, part: str, size: tuple[int, int], request: pytest.FixtureRequest
) -> None:
    path = SNAPSHOTS / f"{name}-{size[0]}x{size[1]}.txt"

    async def drives(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await seen(pilot, lambda: "clicks run 7" in text(app) or "STEP" in text(app))
        await pilot.press(key)
        await says(app, pilot, part)
        await pilot.pause(0.3)
        if request.config.getoption("--record"):
            path.write_text(text(app))
        await seen(pilot, lambda: text(app) == path.read_text())
        assert text(app) == path.read_text()

    drive(drives, some(), size)


def test_what_changes_is_shown_and_the_cursor_stays() -> None:
    found = some()

    async def drives(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("down")
        found[1] = replace(found[1], rate=77_700.0)
        await says(app, pilot, "77.7k")
        found.insert(0, shown("another", life="9-9"))
        await says(app, pilot, "another")
        assert app.screen.query_one(Rows).cursor == 2, "the cursor is on what it was on"
        await pilot.press("enter")
        await says(app, pilot, "sessions run 7: running")

    drive(drives, found)


def test_keys_sort_filter_and_go_back() -> None:
    async def drives(app: Top, pilot: Pilot[None]) -> None:
        async def press(keys: tuple[str, ...], names: list[str]) -> None:
            await pilot.press(*keys)
            await seen(pilot, lambda: listed(app) == names)
            assert listed(app) == names

        await press((), ["clicks", "sessions", "nightly"])
        await press(("greater_than_sign",), ["clicks", "nightly", "sessions"])
        await press(("r",), ["sessions", "nightly", "clicks"])
        await press(("less_than_sign", "r", "slash", *"ses"), ["sessions"])
        await pilot.press("enter", "enter")
        await says(app, pilot, "sessions run 7: running")
        await pilot.press("escape")
        await press(("escape",), ["clicks", "sessions", "nightly"])
        await pilot.press("p")
        assert app.is_paused
        await pilot.resize_terminal(40, 8)
        await says(app, pilot, "clicks")
        await pilot.press("q")

    drive(drives, some())


def listed(app: Top) -> list[str]:
    """The names in the table of the screen on top."""
    return [key.split()[0] for key in app.screen.query_one(Rows).keys]


async def says(app: Top, pilot: Pilot[None], part: str) -> None:
    await seen(pilot, lambda: part in text(app))
    assert part in text(app)


def test_no_value_reaches_the_terminal_as_it_is() -> None:
    """Names of files and pipelines, reasons, words of steps: escapes, titles, marks that turn text round."""
    one = shown(
        HOSTILE, reason=HOSTILE, splits=(SplitSample(HOSTILE, 1, 1), SplitSample("b", 1, 2)), steps=(step(0, HOSTILE, 1, 1),)
    )

    async def drives(app: Top, pilot: Pilot[None]) -> None:
        await says(app, pilot, "u001b")
        told = text(app)
        await pilot.press("enter")
        await says(app, pilot, "evil")
        told += text(app)
        assert not set(told) & set("\x1b\x07\x9b\u202e\u2066\r\t")

    drive(drives, [one], (160, 24))


def test_fifty_are_shown() -> None:
    async def drives(app: Top, pilot: Pilot[None]) -> None:
        await says(app, pilot, "50 running")
        assert len(listed(app)) == 50
        await pilot.press("end")
        await says(app, pilot, "p49")

    drive(drives, [shown(f"p{number:02}", life=f"{number}-1") for number in range(50)])


def test_the_view_the_late_and_the_dead_of_a_pipeline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With hostile values in them."""
    records = [{"ts": 1_767_225_600_000 + 1_000 * n, "page": HOSTILE if n % 2 else "/a"} for n in range(100)]
    lines = [
        *map(json.dumps, records),
        "oops" + HOSTILE.replace("\r\n", ""),
        json.dumps({"ts": 1_767_225_600_000, "page": "/late"}),
    ]
    (folder / "in.ndjson").write_text("\n".join(lines) + "\n")
    line = "ingest in.ndjson --time ts --name c | window tumble 10s | aggregate --by page n='count(*)' | sink view:pages"
    subprocess.run([sys.executable, "-m", "clickpipe", "run", "-q", "-c", line], cwd=folder, env=environment(folder), check=True)
    monkeypatch.setenv("CLICKPIPE_HOME", str(folder / ".home"))

    async def drives(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await says(app, pilot, "STEP")
        await pilot.press("v")
        await says(app, pilot, "view pages: 20 rows")
        await says(app, pilot, "2026-01-01T00:01:30Z")
        told = text(app)
        for key, count in (("l", "1 late record"), ("d", "1 dead letter")):
            await pilot.press("escape", key)
            await says(app, pilot, f"c: {count}")
            told += text(app)
        assert not set(told) & set("\x1b\x07\x9b\u202e\u2066\r\t")

    drive(drives, [shown("c")])


# Once, as text.


def top(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clickpipe", "top", *words]
    return subprocess.run(command, cwd=folder, env=environment(folder, **more), capture_output=True, text=True, check=False)


def test_once_is_plain_text(folder: Path, start: Start) -> None:
    assert top(folder, "--once").stdout == "nothing runs\n"
    start(
        "run",
        "-c",
        "ingest in.ndjson --follow --time ts --name c --checkpoint 1s | window tumble 5s | aggregate n='count(*)' | sink view:c",
    )
    until(lambda: "running" in top(folder, "--once").stdout, "it is not shown")
    until(lambda: "checkpoint" in top(folder, "--once", "c").stdout, "no checkpoint is shown")
    said = top(folder, "--once", "c").stdout
    assert "\x1b" not in said
    for part in ("c run 1: running", "read 6,000 records", "ingest", "window", "aggregate", "sink", "in.ndjson"):
        assert part in said, said
    done = top(folder, "--once", "cc")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, 'clickpipe: nothing is known of a pipeline "cc"')
    assert 'did you mean "c"?' in done.stderr


@pytest.mark.parametrize("more", [{}, {"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_without_a_terminal_it_says_so_and_writes_nothing(folder: Path, more: dict[str, str]) -> None:
    done = top(folder, **more)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "clickpipe: top needs a terminal\n    --once prints it as text, --json for programs\n"


# In a real terminal.


@pytest.fixture
def terminal(folder: Path) -> Iterator[Callable[..., str]]:
    """tmux, which is told keys and asked what stands on the screen."""
    if not shutil.which("tmux"):
        pytest.skip("tmux is not installed")
    socket = f"top-{os.getpid()}"

    def tmux(*words: str) -> str:
        return subprocess.run(["tmux", "-L", socket, *words], capture_output=True, text=True, cwd=folder, check=False).stdout

    yield tmux
    tmux("kill-server")


def test_in_a_real_terminal(folder: Path, start: Start, terminal: Callable[..., str]) -> None:
    start(
        "run",
        "-c",
        "ingest in.ndjson --follow --time ts --name seen | window tumble 5s | aggregate n='count(*)' | sink /dev/null",
    )
    home = environment(folder)["CLICKPIPE_HOME"]
    line = f"CLICKPIPE_HOME={home} {sys.executable} -m clickpipe top; echo left with $?; sleep 60"
    terminal("new-session", "-d", "-x", "80", "-y", "24", line)

    def seen() -> str:
        return terminal("capture-pane", "-p")

    until(lambda: "seen" in seen() and "running" in seen(), "it is not shown")
    terminal("send-keys", "Enter")
    until(lambda: "ingest" in seen() and "aggregate" in seen(), "its steps are not shown")
    terminal("resize-window", "-x", "100", "-y", "30")
    until(lambda: len(seen().splitlines()) == 30 and "Quit" in seen().splitlines()[-1], "it is not drawn anew")
    terminal("send-keys", "?")
    until(lambda: "sort by another column" in seen(), "no help is shown")
    terminal("send-keys", "Escape")
    until(lambda: "ingest" in seen(), "the help stays")
    terminal("send-keys", "q")
    until(lambda: "left with 0" in seen(), "it is not left")


# How numbers are spelled.


@pytest.mark.parametrize(
    ("value", "said"), [(0, "0"), (0.5, "0.5"), (7, "7"), (9_999, "9,999"), (12_345, "12.3k"), (4_500_000, "4.5M"), (2e9, "2G")]
)
def test_counts(value: float, said: str) -> None:
    assert cells.count(value) == said


@pytest.mark.parametrize(
    ("value", "said"), [(None, "-"), (0.04, "0.0s"), (1.25, "1.2s"), (75, "75s"), (150, "2m"), (-30, "-30s"), (1e6, "12d")]
)
def test_spans(value: float | None, said: str) -> None:
    assert cells.span(value) == said


def test_a_bar_adds_up() -> None:
    for busy in range(0, 1_001, 50):
        for held in range(0, 1_001 - busy, 50):
            assert len(cells.bar(step(0, "x", busy, held))) == cells.BAR


def test_a_sparkline_shows_what_is_little() -> None:
    assert cells.sparkline([0, 1, 1_000], 5) == "   ▁█"
