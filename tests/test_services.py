"""Pipelines as services: what their manager hears through the notify socket, and the units that start them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import PIPELINE, Start, children_of, errors, until

from clickpipe.cli import service
from clickpipe.cli.unit import MARK, listed, word
from clickpipe.engine.notify import Manager, manager, unmanaged
from clickpipe.errors import PlanError
from clickpipe.testing import environment
from clickpipe.top.model import Pipeline, standstill

ANALYZE = shutil.which("systemd-analyze")
FOLLOWED = PIPELINE.replace("{file}", "in.ndjson --follow").format(name="c")


class Heard:
    """A manager that keeps what it is told."""

    def __init__(self, address: str) -> None:
        self.address, self.said = address, list[str]()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def listen(self) -> list[str]:
        while True:
            try:
                self.said.append(self._socket.recv(1 << 16).decode())
            except BlockingIOError:
                return self.said

    def until(self, is_so: Callable[[], object], what: str) -> None:
        try:
            until(lambda: self.listen() is not None and is_so(), what)
        except AssertionError:
            raise AssertionError(f"{what}: {self.said}") from None

    def until_told(self, text: str, *, after: int = 0) -> int:
        """The number of the message that says so."""
        self.until(lambda: any(text in one for one in self.said[after:]), text)
        return next(number for number, one in enumerate(self.said) if number >= after and text in one)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def heard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Heard]:
    is_abstract = getattr(request, "param", "") == "abstract"
    made = Heard(f"@clickpipe-{os.getpid()}-{tmp_path.name}" if is_abstract else str(tmp_path / "notify"))
    yield made
    made.close()


def _watched(heard: Heard, seconds: float = 2.0) -> dict[str, str]:
    return {"NOTIFY_SOCKET": heard.address, "WATCHDOG_USEC": str(round(seconds * 1_000_000))}


@pytest.mark.parametrize("heard", ["path", "abstract"], indirect=True)
def test_a_service_from_its_start_to_its_end(heard: Heard, folder: Path, start: Start) -> None:
    """Ready once, after the start; then a status, and food for the watchdog while records come; and that it stops."""
    process = start("run", "-c", FOLLOWED, **_watched(heard))
    ready = heard.until_told("READY=1")
    status = heard.until_told("STATUS=c: ", after=ready)
    assert re.search(
        r"records/s, [\d,]+ in all, .* behind, checkpoint \d+", heard.said[heard.until_told("checkpoint", after=status)]
    )
    heard.until_told("WATCHDOG=1", after=status)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, errors(folder)
    heard.listen()
    assert [heard.said.count(once) for once in ("READY=1", "STOPPING=1")] == [1, 1]


def test_it_is_ready_when_it_has_gone_on_from_its_checkpoint(heard: Heard, folder: Path, start: Start) -> None:
    """A start that cannot restore is none."""
    assert start("run", "--until", "now", "-c", FOLLOWED).wait(60) == 0
    (folder / "in.ndjson").unlink()
    assert start("run", "-c", FOLLOWED, **_watched(heard)).wait(60) == 78, errors(folder)
    assert "READY=1" not in heard.listen()


@pytest.mark.parametrize("source", ["nothing.ndjson --follow --checkpoint 1s", "tcp://127.0.0.1:0"])
def test_who_waits_for_the_first_record_is_ready(source: str, heard: Heard, start: Start) -> None:
    """And is watched: whoever sends it may wait for it to be ready."""
    process = start(
        "run",
        "-c",
        f"ingest {source} --time ts --name w | window tumble 1s | aggregate n='count(*)' | sink view:w",
        **_watched(heard),
    )
    heard.until_told("WATCHDOG=1", after=heard.until_told("READY=1"))
    children = children_of(process.pid)
    assert len(children) == 1
    assert "NOTIFY_SOCKET" not in Path(f"/proc/{children[0]}/environ").read_text()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0  # there was nothing to save
    assert "STOPPING=1" in heard.listen()


def test_nothing_feeds_the_watchdog_of_one_that_stands_still(heard: Heard, start: Start) -> None:
    """One of its processes is stopped; it is fed again when that goes on."""
    process = start("run", "--no-fuse", "-c", FOLLOWED, **_watched(heard, 0.4))
    heard.until_told("WATCHDOG=1", after=heard.until_told("READY=1"))
    heard.until(lambda: len(children_of(process.pid)) == 4, "four processes")
    child = children_of(process.pid)[2]
    os.kill(child, signal.SIGSTOP)
    stuck = heard.until_told("its processes have said nothing for")
    heard.until_told("its processes have said nothing for", after=stuck + 1)
    assert "WATCHDOG=1" not in heard.said[stuck:]
    os.kill(child, signal.SIGCONT)
    heard.until_told("WATCHDOG=1", after=stuck)


def test_what_dies_and_is_started_again_is_no_standstill(heard: Heard, folder: Path, start: Start) -> None:
    process = start("run", "-c", FOLLOWED, **_watched(heard))
    ready = heard.until_told("checkpoint", after=heard.until_told("READY=1"))
    for child in children_of(process.pid):
        os.kill(child, signal.SIGKILL)
    until(lambda: "killed by SIGKILL" in errors(folder), "it is not seen")
    heard.until_told("WATCHDOG=1", after=len(heard.listen()))
    assert heard.said[ready:].count("READY=1") == 0
    assert not [one for one in heard.said if "nothing for" in one]


@pytest.mark.parametrize("more", ["", " --checkpoint 1s"])
def test_what_ends_at_once_had_begun(more: str, heard: Heard, folder: Path, start: Start) -> None:
    """Or its manager would take it for one that has failed. Also without checkpoints."""
    line = f"ingest in.ndjson --name c{more} | limit 1 | sink -"
    assert start("run", "-c", line, **_watched(heard)).wait(60) == 0, errors(folder)
    assert [one for one in heard.listen() if one in ("READY=1", "STOPPING=1")] == ["READY=1", "STOPPING=1"]


def test_clients_are_heard_out_when_a_service_without_checkpoints_is_stopped(heard: Heard, folder: Path, start: Start) -> None:
    """As `clickpipe run` without a supervisor does it: what has arrived counts, and windows close."""
    line = "ingest tcp://127.0.0.1:0 --columns n:int --name c | aggregate n='sum(n)' | sink out.ndjson"
    process = start("run", "-c", line, **_watched(heard))
    until(lambda: "listening on" in errors(folder), "it does not listen")
    port = int(re.findall(r"listening on \S*:(\d+)", errors(folder))[0])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b'{"n":1}\n{"n":41}\n')
    heard.until_told("2 in all")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, errors(folder)
    assert (folder / "out.ndjson").read_text() == '{"n":42}\n'


@pytest.mark.parametrize("is_full", [False, True])
def test_a_full_disk_is_waited_for(is_full: bool, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """On it nobody can say anything, and being started again makes no space."""
    monkeypatch.setattr(service, "look", lambda **_: [Pipeline("c", "", "silent", processes=(1,))])
    monkeypatch.setattr(service, "_is_full", lambda _: is_full)
    service.Service(Manager(heard.address, 30.0), {}).look(time.monotonic(), ["c"])
    assert ("WATCHDOG=1" in heard.listen()) is is_full
    assert ("STATUS=c: its disk is full" in heard.listen()) is is_full


def test_a_value_adds_no_line(heard: Heard) -> None:
    Manager(heard.address, None).tell("STATUS", "bad\nREADY=1\0")
    assert heard.listen() == ["STATUS=bad READY=1 "]


def test_whose_watchdog_it_is() -> None:
    """Of this process only, and none without a time; a socket that is neither a path nor abstract is not ours to speak to."""
    told = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "3000000", "A": "b"}
    found = [manager(told), manager({**told, "WATCHDOG_PID": str(os.getpid())}), manager({**told, "WATCHDOG_PID": "1"})]
    assert [one and one.watchdog for one in found] == [3.0, 3.0, None]
    assert [manager({"NOTIFY_SOCKET": text}) for text in ("", "vsock:2:1234")] == [None, None]
    assert unmanaged(told) == {"A": "b"}


@pytest.mark.parametrize(
    ("state", "moved", "age", "is_stuck"),
    [
        ("running", 0.0, 0.0, False),
        ("running", 100.0, 0.0, False),
        ("running", 0.0, 100.0, False),
        ("running", 100.0, 100.0, True),
        ("silent", 0.0, 0.0, True),
    ],
)
def test_either_watermark_or_checkpoints_must_move(state: str, moved: float, age: float, is_stuck: bool) -> None:
    """While records come. A file that is waited for may hold the watermark for long, and all is well."""
    one = Pipeline("c", "", state, rate=10.0, moved=1_000 - moved, checkpoint_age=age, interval=1.0, processes=(1,))
    assert bool(standstill(one, 1_000.0, 30.0)) is (is_stuck or (moved == 0.0 and age == 100.0))


# Units.


def _systemd(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "clickpipe", "systemd", *words]
    return subprocess.run(command, cwd=folder, env=environment(folder, **more), capture_output=True, text=True, check=False)


def _recipe(folder: Path, text: str, name: str = "clicks.toml") -> str:
    (folder / name).write_text(f"pipeline = '''\n{text}\n'''\n[set]\npage = 'x'\n")
    return name


PLAIN = 'ingest in.ndjson --time ts --follow --checkpoint 1s | window tumble 1m | aggregate n="count(*)" | sink view:c'


def _values(text: str, name: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}=")]


def test_the_unit_of_a_service(folder: Path) -> None:
    done = _systemd(folder, _recipe(folder, PLAIN), "--memory", "512M")
    assert (done.returncode, done.stderr) == (0, "")
    for line in (
        "Type=notify",
        "WatchdogSec=30",
        "Restart=on-failure",
        "RestartPreventExitStatus=2 64 65 78",
        "KillMode=mixed",
        "DynamicUser=yes",
        "StateDirectory=clickpipe/clicks",
        'Environment="CLICKPIPE_HOME=%S/clickpipe/clicks"',
        "MemoryHigh=419430K",
        "MemoryMax=512M",
        "PrivateNetwork=yes",
        "ProtectSystem=strict",
        "MemoryDenyWriteExecute=yes",
        "WantedBy=multi-user.target",
    ):
        assert line in done.stdout.splitlines(), line
    (command,) = _values(done.stdout, "ExecStart")
    assert re.fullmatch(rf"/\S+ (-m clickpipe )?run -- {re.escape(str(folder))}/clicks.toml", command)
    assert _values(done.stdout, "WorkingDirectory") == [str(folder)]


def test_the_units_of_a_timer(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "units"
    out.mkdir()
    done = _systemd(folder, _recipe(folder, PLAIN), "--timer", "*:0/5", "--name", "web", "--output", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("systemctl enable --now clickpipe-web.timer\n")
    assert sorted(path.name for path in out.iterdir()) == ["clickpipe-web.service", "clickpipe-web.timer"]
    service, timer = ((out / f"clickpipe-web.{kind}").read_text() for kind in ("service", "timer"))
    assert "Type=oneshot\n" in service
    assert " run --until now -- " in _values(service, "ExecStart")[0]
    assert "WatchdogSec" not in service
    assert "[Install]" not in service
    assert _values(timer, "OnCalendar") == ["*:0/5"]
    assert _values(timer, "Persistent") == ["yes"] or _values(timer, "Persistent") == ["true"]


@pytest.mark.parametrize("more", [[], ["--timer", "*:0/5"], ["--user"], ["--user", "--timer", "daily"]], ids=" ".join)
@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_them(more: list[str], folder: Path, tmp_path: Path) -> None:
    """And finds a service of the system hardly exposed."""
    assert ANALYZE is not None
    out = tmp_path / "units"
    out.mkdir()
    (folder / "o u%t").mkdir()
    text = "ingest tcp://127.0.0.1:9 --time ts --checkpoint 1s | sink 'o u%t/x.ndjson'" if not more else PLAIN
    assert _systemd(folder, _recipe(folder, text), "--output", str(out), *more).returncode == 0
    units = sorted(map(str, out.iterdir()))
    mode = ["--user"] if "--user" in more else []
    done = subprocess.run(
        [ANALYZE, "verify", *mode, *units],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert (done.returncode, _said_of(done.stderr, units)) == (0, [])
    if not mode:
        words = [ANALYZE, "security", "--offline=yes", "--threshold=20", next(one for one in units if one.endswith(".service"))]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def _said_of(text: str, units: list[str]) -> list[str]:
    """Not of other units of this machine."""
    return [line for line in text.splitlines() if any(os.path.basename(unit) in line for unit in units)]


HOSTILE = [
    "a\nExecStart=/bin/evil",
    "%n %%",
    "$HOME ${PATH}",
    'q" ; "',
    "\\",
    "'",
    "tab\there",
    "\x01",
    "é",
    "; ",
    "[Service]",
    " x ",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_what_a_person_names_adds_nothing(value: str, folder: Path) -> None:
    """As a value, and as the folder of the recipe: it comes to the command as it is."""
    place = folder / f"in {value}"
    place.mkdir(parents=True)
    recipe = _recipe(place, "ingest in.ndjson --time ts --checkpoint 1s | filter \"page <> '${page}'\" | sink view:c")
    given = "page=" + re.sub(r"[\"'\\]", "", value)  # which would end the text that it is put into
    done = _systemd(folder, f"in {value}/{recipe}", "--set", given)
    assert done.returncode == 0, done.stderr
    keys = [line.partition("=")[0] for line in done.stdout.splitlines() if line and not line.startswith(("#", "["))]
    assert keys.count("ExecStart") == 1
    assert all(re.fullmatch(r"[A-Za-z]+", key) for key in keys), keys
    assert done.stdout.count("[Service]\n") == 1
    words = _read_back(_values(done.stdout, "ExecStart")[0])
    assert words[-3:] == [f"--set={given}", "--", f"{folder}/in {value}/{recipe}"]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_a_word_is_read_back_as_it_was(text: str) -> None:
    assert _read_back(f"{word(text)} x") == [text, "x"]
    assert "\n" not in word(text)
    assert "\n" not in listed(text)


def _read_back(line: str) -> list[str]:
    """As systemd.syntax(7) and systemd.service(5) have it: quotes and escapes, then specifiers, then variables."""
    words = re.findall(r'"((?:[^"\\]|\\.)*)"|([^\s"]+)', line)
    return [_plain(quoted or bare) for quoted, bare in words]


def _plain(text: str) -> str:
    assert not re.search(r"(?<!%)(%%)*%(?!%)", text), "a specifier"
    assert not re.search(r"(?<!\$)(\$\$)*\$(?!\$)", text), "a variable"
    known = {"n": "\n", "t": "\t", "\\": "\\", '"': '"'}
    return re.sub(
        r"\\(?:x(..)|U(.{8})|(.))",
        lambda found: known[found[3]] if found[3] else chr(int(found[1] or found[2], 16)),
        text.replace("%%", "%").replace("$$", "$"),
    )


def test_a_name_that_no_unit_can_hold() -> None:
    with pytest.raises(PlanError, match="not UTF-8"):
        word("a\udc80")


def test_a_bad_recipe_is_refused_as_explain_does(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "units"
    out.mkdir()
    recipe = _recipe(folder, PLAIN.replace("tumble 1m", "tumble 1m --tz Nowhere/X").replace("--follow ", ""))
    done = _systemd(folder, recipe, "--output", str(out))
    words = [sys.executable, "-m", "clickpipe", "explain", recipe]
    explained = subprocess.run(words, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (explained.returncode, explained.stderr)
    assert done.returncode == 2
    assert not list(out.iterdir())


def test_a_file_of_somebody_else_is_left_alone(folder: Path, tmp_path: Path) -> None:
    """Both files or none. What was written here before is replaced."""
    out = tmp_path / "units"
    out.mkdir()
    (out / "clickpipe-clicks.timer").write_text("[Timer]\n")
    words = [_recipe(folder, PLAIN), "--timer", "daily", "--output", str(out)]
    done = _systemd(folder, *words)
    assert done.returncode == 2
    assert "clickpipe-clicks.timer was not written by clickpipe systemd\n    --force replaces it" in done.stderr
    assert [path.name for path in out.iterdir()] == ["clickpipe-clicks.timer"]
    assert _systemd(folder, *words, "--force").returncode == 0
    assert _systemd(folder, *words).returncode == 0
    assert (out / "clickpipe-clicks.timer").read_text().startswith(MARK)


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("ingest - | sink -", [], "standard input: a service has none"),
        ("filter 'a = 1' | sink -", [], "a service has none"),
        ("ingest tcp://:9 | sink -", ["--timer", "daily"], "never: --until"),
        (PLAIN, ["--memory", "2"], "sizes look like 512M, 2G"),
        (PLAIN, ["--name", "../x"], "a service cannot be called"),
        (PLAIN, ["--timer", "x\nOnBootSec=1"], "no time that systemd knows"),
        (PLAIN, ["--output", "nowhere"], "nowhere is no directory"),
    ],
)
def test_mistakes(text: str, words: list[str], said: str, folder: Path) -> None:
    done = _systemd(folder, _recipe(folder, text), *words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not done.stdout


def test_what_a_service_must_see(folder: Path) -> None:
    """Of what is hidden from services, the folder of the input, not the file, which may be renamed; results can be written."""
    (folder / "logs").mkdir()
    (folder / "logs" / "in.ndjson").write_text('{"ts":1}\n')
    recipe = _recipe(folder, f"ingest '{folder}/logs/*.ndjson' --time ts --checkpoint 1s | sink {folder}/out/x.ndjson")
    done = _systemd(folder, recipe)
    assert done.returncode == 0
    reads, writes = _values(done.stdout, "BindReadOnlyPaths"), _values(done.stdout, "BindPaths")
    if str(folder).startswith("/tmp/"):
        assert {f"{folder}/logs", f"{folder}/clicks.toml"} <= set(reads)
        assert writes == [f"{folder}/out"]
    else:
        assert _values(done.stdout, "ReadWritePaths") == [f"{folder}/out"]
    assert _values(done.stdout, "WorkingDirectory") == ["/"]
    assert _values(done.stdout, "UMask") == ["0022"]
    assert f"{folder}/out must be there, and writable" in done.stderr


def test_a_unit_of_a_user(folder: Path) -> None:
    """Runs as that user, and keeps state where theirs is."""
    done = _systemd(folder, _recipe(folder, PLAIN), "--user")
    assert "DynamicUser" not in done.stdout
    assert f'Environment="CLICKPIPE_HOME={folder}/.home"' in done.stdout
    assert "WantedBy=default.target" in done.stdout
