"""Whoever writes waits for space: it is said once, other failures pass, and the stream is held up in the end."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from clickpipe.engine import checkpoints, commit
from clickpipe.engine.checkpoints import Checkpoints
from clickpipe.engine.commit import Committer
from clickpipe.errors import DiskError, OutsideError
from clickpipe.state.directory import StateDirectory
from clickpipe.state.files import StagedFile, write_whole
from clickpipe.state.space import Patience, Space


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Disk:
    """Full until `space` is set; writes two bytes at a time."""

    def __init__(self, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.space, self.code = threading.Event(), code
        self._write = os.write
        monkeypatch.setattr("clickpipe.state.files.os.write", self.write)

    def write(self, descriptor: int, data: bytes) -> int:
        if not self.space.is_set():
            raise OSError(self.code, os.strerror(self.code))
        return self._write(descriptor, data[:2])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_two_that_wait_for_one_disk_say_it_once(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, said = Disk(code, monkeypatch), list[str]()
    space = Space(said.append)
    staged = StagedFile(str(tmp_path / "part"), Patience("rows", space))
    whole = str(tmp_path / "whole")
    threads = [
        threading.Thread(target=staged.write, args=(b"abcde",)),
        threading.Thread(target=write_whole, args=(whole, b"12345", "x", Patience("checkpoint 4", space))),
    ]
    for thread in threads:
        thread.start()
    _until(lambda: sum(space._waiting.values()) == 2)
    assert len(said) == 1
    assert said[0].endswith(os.strerror(code))
    assert not os.path.exists(whole)
    disk.space.set()
    for thread in threads:
        thread.join(30)
    staged.publish(str(tmp_path / "staged"), "x")
    assert (tmp_path / "staged").read_bytes() == b"abcde"
    assert (tmp_path / "whole").read_bytes() == b"12345"
    assert len(said) == 2
    assert said[1].startswith("there is space on ")
    assert said[1].endswith(" goes on")


def test_what_is_no_full_disk_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Disk(errno.EIO, monkeypatch)
    with pytest.raises(DiskError, match="Input/output error"):
        write_whole(str(tmp_path / "x"), b"1", "x", Patience("x", Space(lambda _: None)))
    assert not list(tmp_path.iterdir())


def test_a_run_that_has_failed_waits_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Disk(errno.ENOSPC, monkeypatch)
    said = list[str]()
    space = Space(said.append)
    threading.Thread(target=lambda: (_until(lambda: bool(said)), space.give_up())).start()
    with pytest.raises(DiskError, match="No space left"):
        write_whole(str(tmp_path / "x"), b"1", "x", Patience("x", space))
    with pytest.raises(DiskError, match="No space left"):
        write_whole(str(tmp_path / "x"), b"1", "x", Patience("x", space))
    assert len(said) == 1


def test_a_disk_that_stays_full_holds_the_stream_up(tmp_path: Path) -> None:
    """Some checkpoints may be on their way; then who makes them waits too."""
    space, begun = threading.Event(), list[int]()
    one = Checkpoints(StateDirectory(str(tmp_path)), 1, None)

    def stream() -> None:
        for number in range(20):
            one.in_background(lambda: bool(space.wait(30)) or None)
            begun.append(number)

    thread = threading.Thread(target=stream)
    thread.start()
    _until(lambda: len(begun) > checkpoints._MOST_SAVING)
    assert len(begun) == checkpoints._MOST_SAVING + 1
    assert one.is_saving
    space.set()
    thread.join(30)
    one.close()
    assert len(begun) == 20


def _committer(say: Callable[[str], None]) -> Committer:
    committer = object.__new__(Committer)
    committer._checkpoints = SimpleNamespace(check=lambda: None, is_saving=False)  # type: ignore[assignment]
    committer._say, committer._inputs = say, (0,)
    return committer


def test_the_last_process_is_patient_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step that it waits for may wait for space."""
    monkeypatch.setattr(commit, "_USUAL", -1.0)
    monkeypatch.setattr(commit, "_are_gone", lambda _: False)
    answers, said = iter([False] * 20 + [True]), list[str]()
    _committer(said.append)._wait_for(4, "2-aggregate.state", lambda: next(answers) or None)
    assert said == ["checkpoint 4 waits for 2-aggregate.state: its step writes slowly, or waits for space itself"]


def test_the_last_process_does_not_wait_for_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "_GRACE", 0.01)
    monkeypatch.setattr(commit, "_are_gone", lambda _: True)
    with pytest.raises(OutsideError, match=r"2-aggregate\.state did not come"):
        _committer(lambda _: None)._wait_for(4, "2-aggregate.state", lambda: None)
