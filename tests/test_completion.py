"""What TAB offers, in bash, zsh and fish: through the protocol of their scripts, and typed into the shells themselves."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clickpipe.cli import catalog
from clickpipe.cli.completing.typed import typed
from clickpipe.testing import environment

ROOT = Path(__file__).parent.parent
SHELLS = ("bash", "zsh", "fish")
PATIENCE = {"_CLICKPIPE_COMPLETE_MOMENT": "20"}  # what a busy machine may need
RECORD = {"ts": 1, "page": "/a", "pa ge": 2, "user_id": 3, "it's": 4, "x;touch PWNED": 5, "$(touch PWNED)": 6}
HOSTILE = (
    "a b.ndjson",
    "it's.ndjson",
    'dou"ble.ndjson',
    "q$(touch PWNED).ndjson",
    "back`touch PWNED`tick",
    "semi;touch PWNED",
    "amp&touch PWNED&",
    "pipe|touch PWNED",
    "redirect>PWNED",
    "glob*[a]?",
    "${HOME}",
    "~root",
    "back\\slash",
    "#comment",
    "comma,colon:equals=",
    "ümläut — 日本",
    "(sub)",
    "{a,b}",
)
UNSHOWN = ("new\nline", "tab\there", "esc\x1b[31m", "bell\x07", "carriage\rreturn", "\u202eturned", os.fsdecode(b"\xff\xfe"))


def _answer(line: str, folder: Path, shell: str = "bash", **more: str) -> subprocess.CompletedProcess[str]:
    asked = {"COMP_LINE": line, "_CLICKPIPE_COMPLETE": f"{shell}_complete", **PATIENCE, **more}
    said = environment(folder, **asked)
    command = [sys.executable, "-m", "clickpipe"]
    return subprocess.run(command, cwd=folder, env=said, capture_output=True, text=True, errors="surrogateescape", check=False)


def _told(line: str, folder: Path, shell: str = "bash", **more: str) -> list[str]:
    """The words that are offered, as the shell is told them."""
    done = _answer(line, folder, shell, **more)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    if shell == "zsh":
        return lines[1::3]
    return [one.partition("\t")[0] if shell == "fish" else one.partition(",")[2] for one in lines]


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """With records, a recipe, and stores of each kind, some of them by their folders only."""
    (tmp_path / "in.ndjson").write_text(json.dumps(RECORD) + "\n")
    (tmp_path / "hot.toml").write_text("pipeline = 'ingest in.ndjson | limit ${most} | sink -'\n[set]\nleast = '1'\n")
    home = tmp_path / ".home"
    for name in ("pipelines/clicks/epochs", "pipelines/clicks/savepoints/monday", "logs/queue", "archives/cold", "views"):
        (home / name).mkdir(parents=True)
    (home / "views" / "pages.sqlite").touch()
    return tmp_path


# What there is to offer


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("clickpipe aggr", ["aggregate"]),
        ("clickpipe ", catalog.names()),
        ("clickpipe --log-format ", ["text", "json"]),
        ("clickpipe window t", ["tumble"]),
        ("clickpipe sink --time-format ", ["rfc3339", "ms"]),
        ("clickpipe ingest in.ndjson --on-idle ", ["advance", "hold"]),
        ("clickpipe filter --log", ["--log-format"]),
        ("clickpipe partition --workers ", ["auto"]),
        ("clickpipe window tumble 1d --tz Europe/Berl", ["Europe/Berlin"]),
        ("clickpipe run h", ["hot.toml"]),
        ("clickpipe run hot.toml --set ", ["least=", "most="]),
        ("clickpipe status c", ["clicks"]),
        ("clickpipe stop ", ["clicks"]),
        ("clickpipe checkpoint ", ["ls", "show", "verify"]),
        ("clickpipe checkpoint show ", ["clicks"]),
        ("clickpipe savepoint restore clicks ", ["monday"]),
        ("clickpipe view show ", ["pages"]),
        ("clickpipe log show ", ["queue"]),
        ("clickpipe archive show ", ["cold"]),
        ("clickpipe tables ", ["cold", "pages", "queue"]),
        ("clickpipe help aggr", ["aggregate"]),
        ("clickpipe explain --live ", ["clicks"]),
        ("clickpipe ingest arch", ["archive:"]),
        ("clickpipe ingest in", ["in.ndjson"]),
        ("clickpipe sink vi", ["view:"]),
        ("clickpipe ingest - --spool ", ["log:"]),
        ("clickpipe aggregate n=count_", ["n=count_distinct("]),
        ("clickpipe sketch n=quan", ["n=quantiles("]),
        ("echo | sudo LANG=C clickpipe aggr", ["aggregate"]),
        ("ls; clickpipe aggr", ["aggregate"]),
        ("{ /opt/bin/clickpipe aggr", ["aggregate"]),
    ],
)
def test_words_that_are_offered(line: str, words: list[str], shell: str, some: Path) -> None:
    told = _told(line, some, shell)
    if "=" in line and shell == "bash":  # it begins a word behind =
        words = [word.partition("=")[2] for word in words] if "aggregate" in line or "sketch" in line else words
    if shell in ("bash", "zsh"):
        told = [word.replace("'", "") for word in told]
    assert told == words


@pytest.mark.parametrize(("kind", "name"), [("log", "queue"), ("archive", "cold")])
def test_names_behind_a_kind_of_source(kind: str, name: str, some: Path) -> None:
    assert _told(f"clickpipe ingest {kind}:", some, "fish") == [f"{kind}:{name}"]
    assert _told(f"clickpipe ingest {kind}:", some, "bash") == [name]  # bash begins a word behind the colon
    assert _told(f"clickpipe ingest {kind}:", some, "bash", COMP_WORDBREAKS=" \t\n") == [f"{kind}:{name}"]
    assert _told(f"clickpipe sink {kind}:x", some) == []


def test_a_name_of_a_view_behind_the_kind_of_a_sink(some: Path) -> None:
    assert _told("clickpipe sink view:", some, "zsh") == ["view:pages"]


def test_when_no_argument_is_missing_options_are_offered(some: Path) -> None:
    assert "--codec" in _told("clickpipe limit 3 ", some, "fish")


def test_each_command_and_option_is_explained_where_the_shell_can_show_it(some: Path) -> None:
    assert "aggregate\tSummarise records per window and key.\n" in _answer("clickpipe aggr", some, "fish").stdout
    assert _answer("clickpipe aggr", some, "zsh").stdout == "plain\naggregate\nSummarise records per window and key.\n"


@pytest.mark.parametrize(
    ("line", "kind"),
    [("clickpipe aggr", "plain"), ("clickpipe ingest lo", "open"), ("clickpipe run hot.toml --set le", "open")],
)
def test_a_space_follows_where_a_word_is_complete(line: str, kind: str, some: Path) -> None:
    assert _answer(line, some).stdout.startswith(f"{kind},")
    assert _answer(line, some, "zsh").stdout.startswith(f"{kind}\n")


def test_a_folder_goes_on(some: Path) -> None:
    (some / "folder").mkdir()
    assert _answer("clickpipe ingest fo", some).stdout == "open,folder/\n"


def test_a_file_that_looks_like_an_option_is_offered_as_a_path(some: Path) -> None:
    (some / "-rf").touch()
    assert "./-rf" in _told("clickpipe ingest ", some, "fish")


@pytest.mark.parametrize(
    "line", ["clickpipe nothing ", "clickpipe window nothing x y z ", "clickpipe view show --rows ", "", "ls "]
)
def test_where_nothing_is_known_nothing_is_offered(line: str, some: Path) -> None:
    done = _answer(line, some)
    assert done.stderr == ""
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("asked", ["bash", "bash_", "tcsh_complete", "_", "bash_complete_"])
def test_a_question_that_no_script_asks_gives_nothing(asked: str, some: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "clickpipe"],
        env=environment(some, _CLICKPIPE_COMPLETE=asked),
        capture_output=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (b"", b"")
    assert done.returncode == 2


# Columns


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("clickpipe ingest in.ndjson --time t", ["ts"]),
        ("clickpipe ingest --time ts in.ndjson | clickpipe aggregate --by pag", ["page"]),
        ("clickpipe ingest in.ndjson | clickpipe aggregate --by page,us", ["page,user_id"]),
        ("clickpipe ingest in.ndjson | clickpipe aggregate --by=page,us", ["--by=page,user_id"]),
        ("clickpipe ingest in.ndjson | clickpipe dedup --by us", ["user_id"]),
        ("clickpipe ingest in.ndjson | clickpipe select us", ["user_id"]),
        ("clickpipe ingest in.ndjson | clickpipe select page | clickpipe dedup --by ", ["page"]),
        (
            "clickpipe ingest in.ndjson --time ts | clickpipe window tumble 1h | clickpipe sink - --key win",
            ["window_start", "window_end"],
        ),
        (
            "clickpipe ingest in.ndjson --codec arrow | clickpipe aggregate --by page n='count(*)' | clickpipe sink x --key ",
            ["page", "n"],
        ),
        ("cat in.ndjson | clickpipe dedup --by us", ["user_id"]),
        ("cat in.ndjson | grep x | clickpipe ingest - --time ts | clickpipe dedup --by us", ["user_id"]),
        ("clickpipe ingest in.ndjson | clickpipe aggregate n='sum(us", ["n=sum(user_id)"]),
        ("clickpipe ingest in.ndjson | clickpipe aggregate n='sum(us' | clickpipe sink x --key ", []),
        ("clickpipe ingest in.ndjson && clickpipe dedup --by us", []),
        ("clickpipe dedup --by us", []),
        ("clickpipe ingest nothing.ndjson | clickpipe dedup --by us", []),
        ("clickpipe generate | clickpipe ingest - | clickpipe dedup --by us", []),
        ("clickpipe ingest tcp://127.0.0.1:1 | clickpipe dedup --by us", []),
    ],
)
def test_columns_are_those_that_the_steps_before_make(line: str, words: list[str], some: Path) -> None:
    assert _told(line, some, "fish") == words


def test_input_that_gives_nothing_is_not_waited_for(some: Path) -> None:
    """Nobody ever writes to the pipe: without a bound this would hang."""
    os.mkfifo(some / "pipe.ndjson")
    assert _told("clickpipe ingest pipe.ndjson --time ", some, _CLICKPIPE_COMPLETE_MOMENT="0.2") == []


@pytest.mark.parametrize(
    "line",
    [
        "clickpipe ",
        "clickpipe aggregate --",
        "clickpipe ingest in",
        "clickpipe view show ",
        "clickpipe status ",
        "clickpipe run ",
        "clickpipe aggregate n=co",
    ],
)
def test_polars_is_not_loaded_where_no_columns_are_wanted(line: str, some: Path) -> None:
    script = (
        "import os, sys; sys.argv = ['clickpipe']; real = os._exit\n"
        "def leave(code):\n"
        "    print('LOADED', 'polars._plr' in sys.modules, code, file=sys.stderr); real(0)\n"
        "os._exit = leave\n"
        "from clickpipe.cli.main import main; main()"
    )
    env = environment(some, COMP_LINE=line, _CLICKPIPE_COMPLETE="bash_complete", **PATIENCE)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=some, env=env, check=False)
    assert done.stderr.splitlines()[-1] == "LOADED False 0", done.stderr
    assert done.stdout


# What was typed


@pytest.mark.parametrize(
    ("text", "before", "words", "value"),
    [
        ('clickpipe a \'b c\' d\\ e "f\\"g" h', [], ["a", "b c", "d e", 'f"g'], "h"),
        ("clickpipe a ", [], ["a"], ""),
        ("clickpipe a 'b | c", [], ["a"], "b | c"),
        ("clickpipe a | clickpipe b | clickpipe c d", [["a"], ["b"]], ["c"], "d"),
        ("x || clickpipe a", [], [], "a"),
        ("x & clickpipe a |& clickpipe b", [["a"]], [], "b"),
        ("clickpipe a # | b\nclickpipe c", [], [], "c"),
        ("echo $(clickpipe a", [], [], "a"),
        ("clickpipe a \\\n b", [], ["a", ""], "b"),
        ("clickpipe a\\", [], [], "a"),
        ("FOO=bar time clickpipe a b", [], ["a"], "b"),
        ("clickpipe a <b 2>c >>'d e' &>f g h", [], ["a", "g"], "h"),
        ("clickpipe a>b | clickpipe c", [["a"]], [], "c"),
    ],
)
def test_a_line_is_read_as_a_shell_reads_it(text: str, before: list[list[str]], words: list[str], value: str) -> None:
    line = typed(text)
    assert (line.before, [word for word in line.words if word], line.value) == (before, [word for word in words if word], value)


@pytest.mark.parametrize(
    "text", ["'", '"', "\\", "clickpipe '", "|", "||||", "((((", "\0", "clickpipe \ud800", "#", "&>x", "\n\n|\n"]
)
def test_every_text_is_a_line(text: str) -> None:
    for end in range(len(text) + 1):
        typed(text[:end])


# Hostile names


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    for name in (*HOSTILE, *UNSHOWN):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("quote", ["", "'", '"'])
@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_put_into_the_line_of_bash_is_the_name_and_runs_nothing(name: str, quote: str, hostile: Path) -> None:
    """The word as it then stands is given to a bash: it is the name, and nothing has happened."""
    for typed_so_far in (quote, quote + name[0]) if name[0].isalpha() else (quote,):
        offered = _told(f"clickpipe ingest {typed_so_far}", hostile)
        lines = [f"{quote}{word}{quote}" for word in offered]
        assert any(_said(line, hostile) == name for line in lines)
        assert not (hostile / "PWNED").exists()


def _said(word: str, folder: Path) -> str:
    script = f"printf %s {word}"
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, env=environment(folder), check=False)
    return os.fsdecode(done.stdout)


@pytest.mark.parametrize("shell", SHELLS)
def test_names_that_do_not_print_are_not_offered(shell: str, hostile: Path) -> None:
    done = _answer("clickpipe ingest ", hostile, shell)
    assert all(part.isprintable() for line in done.stdout.split("\n") for part in line.split("\t"))
    assert len(_told("clickpipe ingest ", hostile, shell)) == len(HOSTILE) + 4  # and kinds of sources


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_shells_that_quote_themselves_are_told_names_as_they_are(shell: str, hostile: Path) -> None:
    assert set(HOSTILE) <= set(_told("clickpipe ingest ", hostile, shell))


def test_columns_are_quoted_too(some: Path) -> None:
    offered = _told("clickpipe ingest in.ndjson --time ", some)
    assert [_said(word, some) for word in offered] == list(RECORD)
    assert not (some / "PWNED").exists()


def test_a_hostile_line_runs_nothing(hostile: Path) -> None:
    for line in (
        "clickpipe ingest $(touch PWNED) ",
        "clickpipe ingest `touch PWNED` --time ",
        "clickpipe run '$(touch PWNED)' --set ",
    ):
        _answer(line, hostile)
    assert not (hostile / "PWNED").exists()


# The scripts


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_says_how_it_is_installed(shell: str, some: Path) -> None:
    command = [sys.executable, "-m", "clickpipe", "completion", shell]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(some), check=True)
    assert f"clickpipe completion {shell}" in done.stdout
    asked = environment(some, _CLICKPIPE_COMPLETE=f"{shell}_source")
    same = subprocess.run(command[:3], capture_output=True, text=True, env=asked, check=True)
    assert same.stdout == done.stdout
    if found := shutil.which(shell):
        check = ["--no-execute"] if shell == "fish" else ["-n"]
        subprocess.run([found, *check], input=done.stdout, text=True, check=True)


def test_a_shell_that_is_not_known_is_said(some: Path) -> None:
    command = [sys.executable, "-m", "clickpipe", "completion", "tcsh"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(some), check=False)
    assert done.returncode == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in done.stderr


def test_the_function_of_bash_fills_compreply(some: Path) -> None:
    """As bash calls it, with a program of the name in the path."""
    (some / "a b.ndjson").touch()
    script = """
        eval "$(clickpipe completion bash)"
        COMP_LINE='clickpipe ingest a\\ b' COMP_POINT=${#COMP_LINE} COMP_WORDS=(clickpipe ingest 'a\\ b') COMP_CWORD=2
        COMP_POINT=${#COMP_LINE}
        _clickpipe_completion clickpipe 'a b' ingest
        printf '%s\\n' "${#COMPREPLY[@]}" "${COMPREPLY[@]}"
        COMP_LINE='clickpipe aggr --emit' COMP_POINT=14
        _clickpipe_completion clickpipe aggr clickpipe
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(["bash", "-c", script], cwd=some, capture_output=True, text=True, env=environment(some), check=True)
    assert done.stdout.splitlines() == ["1", "a\\ b.ndjson", "aggregate"]


# Typed into the shells themselves

STARTS = {
    "bash": (["--norc", "--noprofile", "-i"], 'eval "$(clickpipe completion bash)"'),
    "zsh": (["-f", "-i"], 'autoload -Uz compinit; compinit -u -D; eval "$(clickpipe completion zsh)"'),
    "fish": (["--no-config", "-i"], "clickpipe completion fish | source"),
}


@pytest.fixture
def typing(some: Path) -> Iterator[Callable[[str, str], None]]:
    """Starts a shell on a terminal of its own, types, and waits until it shows what it must."""
    started: list[int] = []

    def start(shell: str) -> Callable[[str, bytes], None]:
        if not shutil.which(shell):
            pytest.skip(f"{shell} is not installed")
        words, setup = STARTS[shell]
        process, terminal = pty.fork()
        if not process:
            os.chdir(some)
            os.execvpe(shell, [shell, *words], environment(some, TERM="dumb", HOME=str(some), PS1="$ "))
        started.append(process)

        def send(text: str, wanted: bytes) -> None:
            os.write(terminal, text.encode())
            _until_shown(terminal, wanted)

        send(f"{setup}; echo re''ady\r", b"ready")
        return send

    yield start
    for process in started:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def _until_shown(terminal: int, wanted: bytes) -> None:
    shown, deadline = b"", time.monotonic() + 30
    while wanted not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 65_536)


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_and_quotes_in_the_shell_itself(shell: str, typing: Callable[..., Callable[..., None]], some: Path) -> None:
    (some / "q$(touch PWNED).json").touch()
    send = typing(shell)
    send("clickpipe aggr\t", b"egate " if shell == "bash" else b"aggregate ")
    send("\x15echo done\r", b"done")
    send("clickpipe completion zs\t>out; echo fin''ished\r", b"finished")
    assert (some / "out").read_text().startswith("#compdef")
    send("clickpipe ingest --quoted q\t", b"PWNED")
    send("\x15clickpipe ingest q\t --time x; echo o''ver\r", b"over")
    assert not (some / "PWNED").exists()
