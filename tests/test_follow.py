"""Files that grow: each whole line takes effect once, through rotation, truncation, new files and restarts.

The feed is driven round by round, and nothing is waited for. A kill is a feed that is dropped: what it had handed on
since its last barrier does not count.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from growing import LOG, Run, append, rotate, wait_for_nothing

from clickpipe.core import generation, tail
from clickpipe.errors import DataError, PlanError, StateError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory, and nothing is waited for."""
    monkeypatch.chdir(tmp_path)
    wait_for_nothing(monkeypatch)
    return tmp_path


def test_growth_and_a_partial_last_line() -> None:
    """The beginning of a line is no record; a restart reads the line from its beginning."""
    append("app.log", 1, 2, rest='{"n"')
    run = Run(LOG)
    run.read()
    assert run.committed == [1, 2]
    run.read(rounds=3)
    assert run.committed == [1, 2]
    run.kill()
    append("app.log", rest=": 3")
    run.read(rounds=3)
    assert run.committed == [1, 2]
    append("app.log", rest="}\n")
    run.read()
    assert run.committed == [1, 2, 3]
    assert run.dead == []


def test_a_line_longer_than_what_is_read_at_once() -> None:
    run = Run(f"{LOG} --batch-bytes 64")
    Path("app.log").write_text(json.dumps({"n": 1, "text": "x" * 1000}) + "\n" + json.dumps({"n": 2}) + "\n")
    run.read(rounds=40)
    assert run.committed == [1, 2]


def test_rotation_by_renaming() -> None:
    """The old file is read to its end, also what its writer adds after the renaming; then the new one."""
    append("app.log", 1)
    run = Run(LOG)
    run.read()
    os.rename("app.log", "app.log.1")
    append("app.log.1", 2)
    run.read(rounds=2)
    assert run.committed == [1, 2]
    append("app.log.1", 3)  # nobody has taken its place yet
    run.read(rounds=2)
    append("app.log.1", 4)
    append("app.log", 5)
    run.read(rounds=3)
    assert run.committed == [1, 2, 3, 4, 5]


def test_a_file_is_left_only_after_a_while_without_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "QUIET", 3600.0)
    append("app.log", 1)
    run = Run(LOG)
    run.read()
    os.rename("app.log", "app.log.1")
    append("app.log", 3)
    run.read(rounds=3)
    append("app.log.1", 2)
    run.read(rounds=3)
    assert run.committed == [1, 2]
    monkeypatch.setattr(tail, "QUIET", 0.0)
    run.read(rounds=2)
    assert run.committed == [1, 2, 3]


@pytest.mark.parametrize("is_killed", [False, True])
def test_several_rotations_between_two_looks(is_killed: bool) -> None:
    """Files that came and were renamed meanwhile are found beside the path; older ones are left alone."""
    append("app.log.1", -1)
    append("app.log.bak", -2)
    append("app.log", 1)
    run = Run(LOG)
    run.read()
    if is_killed:
        run.kill()
    for number in (2, 4, 6):
        append("app.log", number)
        rotate("app.log")
        append("app.log", number + 1)
    run.read(rounds=6)
    assert run.committed == [1, 2, 3, 4, 5, 6, 7]


def test_rotation_while_nobody_reads() -> None:
    append("app.log", 1, 2)
    run = Run(LOG)
    run.read()
    run.kill()
    append("app.log", 3)
    rotate("app.log")
    append("app.log", 4)
    run.read(rounds=3)
    assert run.committed == [1, 2, 3, 4]
    run.kill()
    run.read(rounds=3)
    assert run.committed == [1, 2, 3, 4]


@pytest.mark.parametrize("is_killed", [False, True])
def test_copy_and_truncate(is_killed: bool) -> None:
    """What had not been read is found in the copy. It is said once that something may be lost."""
    append("app.log", 1, 2)
    run = Run(LOG)
    run.read()
    for number in (3, 6):
        if is_killed:
            run.kill()
        append("app.log", number)
        for older in (2, 1):
            if os.path.exists(f"app.log.{older}"):
                os.rename(f"app.log.{older}", f"app.log.{older + 1}")
        shutil.copy("app.log", "app.log.1")
        os.truncate("app.log", 0)
        append("app.log", number + 1, number + 2)
        run.read(rounds=3)
    assert run.committed == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [note for note in run.notes if "was truncated" in note][1:] == ([run.notes[0]] if is_killed else [])


@pytest.mark.parametrize("is_killed", [False, True])
def test_copied_and_truncated_twice_between_two_looks(is_killed: bool) -> None:
    append("app.log", 1)
    run = Run(LOG)
    run.read()
    if is_killed:
        run.kill()
    for number in (2, 4):
        append("app.log", number)
        if number == 4:
            os.rename("app.log.1", "app.log.2")
        shutil.copy("app.log", "app.log.1")
        os.truncate("app.log", 0)
        append("app.log", number + 1)
    run.read(rounds=4)
    assert run.committed == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("is_killed", [False, True])
def test_truncation_without_a_copy(is_killed: bool) -> None:
    """Also when the file has grown beyond where reading was."""
    append("app.log", 1, 2)
    run = Run(LOG)
    run.read()
    if is_killed:
        run.kill()
    os.truncate("app.log", 0)
    append("app.log", 3, 4, 5, 6)
    run.read(rounds=2)
    assert run.committed == [1, 2, 3, 4, 5, 6]
    assert len([note for note in run.notes if "was truncated" in note]) == 1


def test_a_new_file_that_a_glob_matches() -> None:
    run = Run("'*.log' --format ndjson --columns n:int")
    run.read()
    assert run.notes == ["waiting for a file that matches *.log"]
    append("a.log", 1)
    run.read()
    run.kill()
    append("b.log", 2)
    run.read(rounds=2)
    append("a.log", 3)
    run.read(rounds=2)
    assert run.committed == [1, 2, 3]


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_file_renamed_inside_the_glob_is_not_read_again(is_killed: bool) -> None:
    run = Run("'app.log*' --format ndjson --columns n:int")
    append("app.log.1", 1)
    append("app.log", 2)
    run.read(rounds=2)
    for number in (3, 5, 7):
        if is_killed:
            run.kill()
        append("app.log", number)
        rotate("app.log")
        append("app.log", number + 1)
        run.read(rounds=4)
    assert sorted(run.committed) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_copy_inside_the_glob_is_not_read_again() -> None:
    run = Run("'app.log*' --format ndjson --columns n:int")
    append("app.log", 1)
    run.read()
    append("app.log", 2)
    shutil.copy("app.log", "app.log.1")
    run.read(rounds=2)
    os.truncate("app.log", 0)
    append("app.log", 3)
    run.read(rounds=3)
    assert run.committed == [1, 2, 3]


def test_a_removed_file_is_read_to_its_end() -> None:
    """If its path appears again, that is the same split; one that is gone holds nothing back."""
    run = Run(LOG)
    append("app.log", 1)
    run.read()
    with open("app.log", "a") as file:
        os.remove("app.log")
        file.write('{"n": 2}\n')
    run.read(rounds=3)
    assert run.committed == [1, 2]
    assert run.saved is not None
    assert [split["done"] for split in run.saved["splits"]] == [True]
    run.kill()
    run.read(rounds=2)
    append("app.log", 3)
    run.read(rounds=2)
    assert run.committed == [1, 2, 3]


def test_files_that_come_later() -> None:
    run = Run(f"web.log {LOG}")
    run.read()
    run.read(rounds=2)
    assert run.notes == ["waiting for web.log", "waiting for app.log"]
    append("web.log", 1)
    run.read()
    assert run.committed == [1]


def test_columns_are_inferred_from_the_first_records() -> None:
    """Which are waited for."""
    run = Run("app.log")
    waiting = threading.Thread(target=run.start, daemon=True)
    waiting.start()
    while not run.notes:
        time.sleep(0.01)
    append("app.log", 1, 2)
    waiting.join(60)
    assert run.feed is not None
    assert dict(run.feed.columns.types) == {"n": "int"}
    run.read()
    assert run.committed == [1, 2]


def test_what_cannot_be_followed() -> None:
    Path("packed.log").write_bytes(b"\x1f\x8b\x08\x00abc")
    Path("folder").mkdir()
    os.mkfifo("pipe")
    for source, reason in {
        "packed.log": "packed.log is packed",
        "folder": "folder is a directory",
        "pipe": "pipe is a pipe",
        "/dev/null": "/dev/null is a pipe or a device",
        "-": "--follow is for files that grow: - is none",
        "app.log app.log": "app.log is named twice",
    }.items():
        with pytest.raises(PlanError, match=reason):
            Run(f"{source} --columns n:int").start()


def test_in_a_glob_it_is_passed_over() -> None:
    """With one note. Also when it comes later, and when it has the path after a rotation."""
    Path("old.log").write_bytes(b"\x1f\x8b\x08\x00abc")
    run = Run("'*.log' --format ndjson --columns n:int")
    run.read(rounds=2)
    os.mkfifo("pipe.log")
    Path("new.log").write_bytes(b"\x1f")
    run.read(rounds=2)
    Path("new.log").write_bytes(b"\x1f\x8b\x08\x00abc")
    append("app.log", 1)
    run.read(rounds=3)
    assert run.committed == [1]
    assert run.dead == []
    assert len([note for note in run.notes if note.startswith("old.log is packed")]) == 1
    assert len([note for note in run.notes if note.startswith("new.log is packed")]) == 1
    assert len([note for note in run.notes if note.startswith("pipe.log is a pipe")]) == 1


def test_what_cannot_be_found_any_more_stops_the_run(here: Path) -> None:
    append("app.log", 1, 2)
    run = Run(LOG)
    run.read()
    run.kill()
    append("app.log", 3)
    os.rename("app.log", "elsewhere")
    shutil.move("elsewhere", here.parent / f"{here.name}-elsewhere")
    append("app.log", 4)
    with pytest.raises(StateError) as caught:
        run.start()
    assert "app.log: the file that was being read is not beside it any more; 18 bytes of it had been read" in str(caught.value)
    assert "put it back" in str(caught.value)
    assert "--reset" in str(caught.value)
    shutil.copy(here.parent / f"{here.name}-elsewhere", "app.log.1")  # another inode, as when it is unpacked
    run.read(rounds=3)
    assert run.committed == [1, 2, 3, 4]


def test_each_file_has_its_header_line() -> None:
    run = Run("app.csv --columns n:int")
    Path("app.csv").write_text("n,m\n1,2\n")
    run.read()
    run.kill()
    os.rename("app.csv", "app.csv.1")
    Path("app.csv").write_text("n,m\n3,4\n")
    run.read(rounds=3)
    assert run.committed == [1, 3]
    os.rename("app.csv", "app.csv.2")
    Path("app.csv").write_text("m,n\n5,6\n")
    with pytest.raises(DataError, match=r"app.csv: this file has the columns m, n; the first file has n, m"):
        run.read(rounds=3)


@pytest.mark.parametrize("is_killed", [False, True])
def test_files_that_begin_with_the_same_header_line_are_no_copies(is_killed: bool) -> None:
    """A file of which only the header line was read is renamed, and two more have come and gone."""
    run = Run("app.csv --columns n:int")
    Path("app.csv").write_text("n,m\n1,0\n")
    run.read()
    rotate("app.csv")
    Path("app.csv").write_text("n,m\n")
    run.read(rounds=3)
    if is_killed:
        run.kill()
    for number in (2, 3, 4):
        rotate("app.csv")
        Path("app.csv").write_text(f"n,m\n{number},0\n")
    run.read(rounds=6)
    assert run.committed == [1, 2, 3, 4]


def test_a_file_with_only_a_header_line_that_is_truncated() -> None:
    """Older files begin with the same line, and are no copies of it."""
    run = Run("app.csv --columns n:int")
    Path("app.csv").write_text("n,m\n1,0\n")
    run.read()
    rotate("app.csv")
    Path("app.csv").write_text("n,m\n")
    run.read(rounds=3)
    os.truncate("app.csv", 0)
    run.read()
    Path("app.csv").write_text("n,m\n2,0\n")
    run.read(rounds=3)
    assert run.committed == [1, 2]


def test_a_file_that_came_and_was_renamed_while_none_took_its_place() -> None:
    append("app.log", 1)
    run = Run(LOG)
    run.read()
    rotate("app.log")
    append("app.log", 2)
    rotate("app.log")
    run.read(rounds=3)
    assert run.committed == [1, 2]


def test_a_short_file_is_known_by_its_time_too() -> None:
    """A new one may get the inode of one that is gone, and begin with the same header line."""
    Path("app.csv").write_text("n,m\n")
    with open("app.csv") as file:
        marked = generation.mark(file.fileno())
        assert generation.has_mark(file.fileno(), marked)
        os.utime("app.csv", (1, 1))
        assert not generation.has_mark(file.fileno(), marked)


def test_that_a_file_was_left_is_saved() -> None:
    """Though the next one is empty: the old one may be packed from now on."""
    append("app.log", 1)
    run = Run(LOG)
    run.read()
    rotate("app.log")
    append("app.log")
    run.read(rounds=3)
    run.kill()
    os.remove("app.log.1")
    append("app.log", 2)
    run.read()
    assert run.committed == [1, 2]


@pytest.mark.parametrize("is_read", [False, True])
def test_a_removed_file_that_was_read_to_its_end_is_not_missed(is_read: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill in the second in which its writer might have gone on. Bytes that were not read are missed."""
    monkeypatch.setattr(tail, "QUIET", 3600.0)
    append("app.log", 1)
    append("web.log", 2)
    run = Run(f"web.log {LOG}")
    run.read()
    append("app.log", 3)
    if is_read:
        run.read()
    os.remove("app.log")
    append("web.log", 4)
    if is_read:
        run.read()
    run.kill()
    if is_read:
        run.read()
        assert sorted(run.committed) == [1, 2, 3, 4]
    else:
        with pytest.raises(StateError):
            run.start()


def test_a_link_that_is_set_to_another_file() -> None:
    """As daily files have it."""
    append("app-1.txt", 1)
    os.symlink("app-1.txt", "app.log")
    run = Run(LOG)
    run.read()
    run.kill()
    append("app-1.txt", 2)
    run.read()
    run.kill()
    append("app-1.txt", 3)
    append("app-2.txt", 4)
    os.remove("app.log")
    os.symlink("app-2.txt", "app.log")
    run.read(rounds=3)
    assert run.committed == [1, 2, 3, 4]


def test_the_last_line_of_a_file_that_is_left() -> None:
    """Nobody will complete it: without its newline it is a record all the same, or a dead letter."""
    append("app.log", 1, rest='{"n": 2}')
    run = Run(LOG)
    run.read(rounds=3)
    assert run.committed == [1]
    rotate("app.log")
    append("app.log", 3, rest="oops")
    run.read(rounds=3)
    rotate("app.log")
    append("app.log", 4)
    run.read(rounds=3)
    assert run.committed == [1, 2, 3, 4]
    assert run.dead == ["oops"]


def test_the_watermark_is_the_least_and_never_goes_back() -> None:
    """Of the files that have given records; one that is gone does not count, one that comes late is late."""
    run = Run("'*.log' --format ndjson --columns n:int --time n --time-unit ms")
    append("a.log", 5_000)
    append("b.log", 3_000)
    run.read()
    assert run.watermarks[-1] == 3_000
    append("a.log", 9_000)
    run.read()
    assert run.watermarks[-1] == 3_000
    os.remove("b.log")
    run.read(rounds=3)
    assert run.watermarks[-1] == 9_000
    append("c.log", 1_000)
    run.read(rounds=2)
    assert run.watermarks[-1] == 9_000
    assert run.feed is not None
    (late,) = [one for one in run.feed._watch.tails if one.name == "c.log"]
    assert late.clock.watermark == 9_000
    seen = [mark for mark in run.watermarks if mark is not None]
    assert seen == sorted(seen)


@pytest.mark.parametrize("is_at_once", [False, True])
@pytest.mark.parametrize("is_killed", [False, True])
def test_the_watermark_goes_on_over_a_restart(is_killed: bool, is_at_once: bool) -> None:
    """A file that is silent holds it back then too, and it does not go back for one that has come since."""
    run = Run("'*.log' --format ndjson --columns n:int --time n --time-unit ms")
    append("a.log", 5_000)
    append("b.log", 3_000)
    run.read()
    if is_killed:
        run.kill()
    append("a.log", 9_000)
    if not is_at_once:
        run.read()
        assert run.watermarks[-1] == 3_000
    append("c.log", 1_000)
    run.read(rounds=3)
    assert run.watermarks[-1] == 3_000
    assert run.feed is not None
    (late,) = [one for one in run.feed._watch.tails if one.name == "c.log"]
    assert late.clock.watermark == 3_000
    assert run.committed == [5_000, 3_000, 9_000, 1_000]


def test_a_barrier_covers_what_was_handed_on() -> None:
    """It comes behind the last file of a round, since what comes behind it is read again by nobody."""
    run = Run("a.log b.log c.log --format ndjson --columns n:int --batch-bytes 32")
    for number in range(30):
        append("abc"[number % 3] + ".log", number)
    for _ in range(30):
        run.read_until_saved()
        run.kill()
    assert sorted(run.committed) == [*range(30)]


def test_the_clock_of_a_path_goes_on_over_a_rotation_and_a_restart() -> None:
    run = Run(f"{LOG} --time n --time-unit ms --max-out-of-orderness 1s")
    append("app.log", 9_000)
    run.read()
    run.kill()
    rotate("app.log")
    append("app.log", 8_500, 10_000)
    run.start()
    assert run.feed is not None
    assert run.feed._watch.tails[0].clock.watermark == 8_000
    run.read(rounds=3)
    assert run.watermarks[-1] == 9_000
    assert run.committed == [9_000, 8_500, 10_000]
