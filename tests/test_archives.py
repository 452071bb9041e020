"""An archive is what its versions say, whole and each row once, whoever writes, compacts and reads it at the same time."""

from __future__ import annotations

import os
import re
import shutil
import threading
from pathlib import Path

import orjson
import polars as pl
import pytest
from filling import DAY, LINEAGE, START, TYPES, Filler, numbers, read, rows, seen
from hypothesis import given
from hypothesis import strategies as st

from clickpipe.errors import ClickpipeError, PlanError, StateError
from clickpipe.state.manifest import sealed
from clickpipe.store import archives, compaction, partitioning, versions
from clickpipe.store.archiveruns import Run
from clickpipe.store.archives import Archive, Snapshot, scan
from clickpipe.store.compaction import compact, replace_rows, retain
from clickpipe.store.partitioning import Partitioning
from clickpipe.store.versions import File


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLICKPIPE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def _folder(home: Path, name: str = "clicks") -> Path:
    return home / "archives" / name


def _versions(home: Path) -> list[Path]:
    return sorted((_folder(home) / "_versions").iterdir())


# What is written, and who sees it.


def test_rows_stand_in_a_folder_per_day_for_every_reader(home: Path) -> None:
    """In UTC. Only what is committed is seen by whoever looks for *.parquet."""
    filler = Filler()
    filler.add(rows(0, 10, DAY // 4))
    staged = filler.staged(rows(10, 5))
    assert sorted(path.name for path in _folder(home).glob("day=*")) == ["day=2026-03-01", "day=2026-03-02", "day=2026-03-03"]
    assert numbers() == list(range(10))
    assert seen(home) == [(n,) for n in range(10)]
    assert seen(home, "DISTINCT day::VARCHAR")[0] == ("2026-03-01",)
    filler.commit(staged)
    assert numbers() == list(range(15))
    assert len(seen(home)) == 15


def test_a_commit_that_is_repeated_changes_nothing() -> None:
    filler = Filler()
    files = filler.add(rows(0, 10))
    number = filler.archive.version()
    filler.archive.commit(files, filler.shape, {LINEAGE: 1})
    assert filler.archive.version() == number
    assert numbers() == list(range(10))


def test_a_staged_file_that_is_gone_is_not_passed_over(home: Path) -> None:
    filler = Filler()
    files = filler.staged(rows(0, 10))
    next(_folder(home).glob("day=*/.*")).unlink()
    with pytest.raises(StateError, match="was to be committed, and is gone"):
        filler.commit(files)


def test_names_that_lead_elsewhere_are_refused() -> None:
    for name in ("../x", "a/b", "", ".", "-x", "x.y", "a" * 200, "a\0b"):
        with pytest.raises(PlanError, match="cannot be called"):
            Archive(name, is_new=True)


def test_an_unknown_archive_is_answered_with_those_there_are() -> None:
    Filler().add(rows(0, 1))
    with pytest.raises(PlanError) as caught:
        Archive("click")
    assert "clicks" in str(caught.value.hint)
    assert [*caught.value.notes] == ["there are: clicks"]


# Versions.


def test_every_flipped_byte_of_a_version_is_detected(home: Path) -> None:
    filler = Filler()
    for number in range(3):
        filler.add(rows(number, 1))
    for path in _versions(home):
        whole = path.read_bytes()
        for at in range(len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
            with pytest.raises(StateError, match=path.name):
                Archive("clicks").snapshot()
        for length in range(0, len(whole), 7):
            path.write_bytes(whole[:length])
            with pytest.raises(StateError, match=path.name):
                Archive("clicks").snapshot()
        path.write_bytes(whole)
    assert numbers() == [0, 1, 2]


def test_a_version_that_is_missing_or_another_one_is_named(home: Path) -> None:
    filler = Filler()
    for number in range(3):
        filler.add(rows(number, 1))
    first, second, third = _versions(home)
    shutil.copy(first, third)
    with pytest.raises(StateError, match="is version 1 of an archive"):
        Archive("clicks").snapshot()
    third.write_bytes(b"")
    second.unlink()
    with pytest.raises(StateError, match=f"{second.name} is gone"):
        Archive("clicks").snapshot()


def test_an_archive_of_a_later_format_is_left_alone(home: Path) -> None:
    Filler().add(rows(0, 1))
    path = _versions(home)[0]
    said = orjson.loads(path.read_bytes().partition(b"\n")[0])
    path.write_bytes(sealed(orjson.dumps(said | {"v": 2}) + b"\n"))
    with pytest.raises(StateError, match=r"written by a newer clickpipe \(format 2; this one knows 1\)"):
        Archive("clicks").snapshot()


def test_versions_are_put_together_and_old_ones_go(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_SNAPSHOTS", 8)
    filler = Filler()
    early = Archive("clicks", is_new=True)
    for number in range(50):
        filler.add(rows(number, 1))
        if number == 3:
            assert len(early.snapshot().files) == 4
    assert len(_versions(home)) <= 8 * 2 + 2
    assert numbers() == list(range(50))
    assert len(early.snapshot().files) == 50  # it knew version 4, which is gone
    assert early.newest() == Archive("clicks").newest() == filler.archive.newest()


def test_a_snapshot_of_many_files_is_written_less_often(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_SNAPSHOTS", 4)
    monkeypatch.setattr(versions, "_SHARE", 2)
    filler = Filler()
    for number in range(60):
        filler.add(rows(number, 1))
    snapshots = [int(path.name[:12]) for path in _versions(home) if "snapshot" in path.name]
    assert snapshots == [28, 56] or snapshots[-1] - snapshots[-2] > 4


def test_two_writers_and_a_reader_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each commit is there; the reader sees them come, in order, and never part of one."""
    monkeypatch.setattr(versions, "_SNAPSHOTS", 5)
    count, is_over, trouble = 60, threading.Event(), []

    def write(lineage: str, first: int) -> None:
        filler = Filler(lineage=lineage)
        for number in range(count):
            filler.add(rows(first + 2 * number, 2))

    def look() -> None:
        before = 0
        while not is_over.is_set():
            found = sum(file.rows for file in Archive("clicks", is_new=True).snapshot().files)
            if found < before or found % 2:
                trouble.append((before, found))
            before = found

    writers = [threading.Thread(target=write, args=(f"{n}" * 16, n * 1_000)) for n in (1, 2)]
    reader = threading.Thread(target=look)
    for thread in (*writers, reader):
        thread.start()
    for thread in writers:
        thread.join()
    is_over.set()
    reader.join()
    assert not trouble
    assert numbers() == [*range(1_000, 1_000 + 2 * count), *range(2_000, 2_000 + 2 * count)]


# Columns.


def test_a_new_column_is_null_in_older_rows_and_an_int_becomes_a_float() -> None:
    Filler().add(rows(0, 2))
    later = rows(2, 2).with_columns(pl.col("n") + 0.5, more=pl.lit("x"))
    Filler(lineage="b" * 16, types=TYPES | {"n": "float", "more": "str"}).add(later)
    found = read().sort("n")
    assert found["n"].to_list() == [0.0, 1.0, 2.5, 3.5]
    assert found["more"].to_list() == [None, None, "x", "x"]
    history = Archive("clicks").snapshot().history
    assert [(one.column, one.before, one.kind) for one in history[3:]] == [("n", "int", "float"), ("more", "", "str")]


def test_two_types_with_nothing_in_common_are_no_column() -> None:
    Filler().add(rows(0, 2))
    with pytest.raises(StateError, match='column "n" is int in the archive, and str in what is added'):
        Filler(lineage="b" * 16, types=TYPES | {"n": "str"}).add(rows(2, 2).with_columns(pl.col("n").cast(pl.String)))
    assert numbers() == [0, 1]


@pytest.mark.parametrize("unit", ["ms", "s", "auto"])
def test_files_are_passed_over_by_time_whatever_its_unit(unit: str) -> None:
    per = {"s": 1_000}.get(unit, 1)
    filler = Filler(unit=unit)
    for day in range(4):
        filler.add(rows(day * 10, 10).with_columns((pl.col("ts") + day * DAY) // per))
    Filler("clicks", "b" * 16, {"at": "int", "n": "int"}, time="at").add(pl.DataFrame({"at": [START], "n": [99]}))
    begin, end = (START + DAY) // per, (START + 2 * DAY) // per
    asked = scan(Archive("clicks").snapshot()).filter((pl.col("ts") >= begin) & (pl.col("ts") < end))
    assert asked.collect()["n"].to_list() == list(range(10, 20))
    assert sum(f"day=2026-03-0{day}" in asked.explain() for day in (1, 2, 3, 4)) == 2  # its own, and one that has no such times


def test_a_cut_file_is_not_read_as_if_it_were_whole(home: Path) -> None:
    Filler().add(rows(0, 1_000))
    path = next(_folder(home).glob("day=*/*.parquet"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StateError, match=r"bytes, and [\d,]+ were written"):
        read()
    path.unlink()
    with pytest.raises(StateError, match="is gone"):
        read()


# Folders.

_PATHS = ["..", ".", "", "../../x", "a/b", "a\0b", "a\nb", "%2e", "%2F", "=", "\\", "C:", "~", "é", "a b", "#", "-", "_"]
_NULLS = ["__HIVE_DEFAULT_PARTITION__", "%5F_HIVE_DEFAULT_PARTITION__", "null", "NULL"]
_HOSTILE = [*_PATHS, *_NULLS, "x" * 300, "x" * 5_000, "y" * 301]


def _placed(values: list[str | None]) -> dict[str, list[str | None]]:
    """Values by the folder that they are in."""
    table = pl.DataFrame({"key": pl.Series(values, dtype=pl.String)})
    return {inner: part["key"].unique().to_list() for inner, part, _, _ in Partitioning(("key",)).parts(table, None)}


@given(st.lists(st.none() | st.sampled_from(_HOSTILE) | st.text(max_size=20).filter(lambda text: text.isprintable() or True)))
def test_a_folder_has_one_value_and_is_below_the_archive(values: list[str | None]) -> None:
    values = [value for value in values if value is None or value.encode("utf-8", "ignore").decode() == value]
    found = _placed(values)
    assert sum(map(len, found.values())) == len(set(values))
    for inner, here in found.items():
        assert len(here) == 1
        assert re.fullmatch(r"key=[A-Za-z0-9_%-]{0,200}", inner)


def test_others_read_the_values_back_from_the_folders(home: Path) -> None:
    """All but those that are too long for a name; the column in the file has these too."""
    keys: list[str | None] = [key for key in _HOSTILE if len(key) < 100 and "\0" not in key]
    table = pl.DataFrame({"key": [*keys, None], "n": range(len(keys) + 1)})
    Filler("clicks", types={"key": "str", "n": "int"}, by=("key",), time=None).add(table)
    found = dict(seen(home, "n, key"))
    assert {keys[n] if n < len(keys) else None: key for n, key in found.items()} == {key: key for key in (*keys, None)}
    assert dict(read()["n", "key"].iter_rows()) == found


def test_times_of_strangers_do_not_make_folders_without_end(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitioning, "MOST_TIMES", 5)
    days = [0, 0, 0, 1, 1, *range(10, 40)]
    Filler().add(pl.DataFrame({"ts": [START + day * DAY for day in days], "page": "/", "n": range(len(days))}))
    assert len(list(_folder(home).glob("day=*"))) == 5
    assert (_folder(home) / "day=2026-03-01").exists()
    assert numbers() == list(range(len(days)))
    late = scan(Archive("clicks").snapshot()).filter(pl.col("ts") >= START + 30 * DAY).collect()
    assert sorted(late["n"]) == [n for n, day in enumerate(days) if day >= 30]


def test_too_many_folders_by_a_column_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitioning, "MOST", 5)
    with pytest.raises(ClickpipeError, match="7 folders of an archive"):
        Filler(by=("page",)).add(rows(0, 70))


@pytest.mark.parametrize("by", ["day", "hour"])
def test_a_column_that_is_called_like_the_folders_is_refused(by: str) -> None:
    with pytest.raises(PlanError, match='a column is called "Day"'):
        Partitioning((by,)).check({"Day": "str"})
    Partitioning(("none",)).check({"day": "str"})


def test_a_pipeline_whose_name_begins_with_an_underscore_is_read_by_hive_readers() -> None:
    from clickpipe.store.archivefiles import Origin, staged_by

    stem = Origin.of_pipeline("_x", LINEAGE).stem
    assert stem[0] not in "_."
    assert staged_by("_x").fullmatch(f"{stem}000000000001-1.parquet.staged")
    assert not staged_by("x").fullmatch(f"{stem}000000000001-1.parquet.staged")


# Compaction.


def _filled(commits: int = 30, each: int = 100) -> Filler:
    filler = Filler()
    for number in range(commits):
        filler.add(rows(number * each, each, DAY // each // 10))
    return filler


def test_small_files_become_few_and_no_row_is_lost(home: Path) -> None:
    _filled()
    before, late = read(), Archive("clicks").snapshot()
    assert compact(Archive("clicks"), 128 << 20) == (30, 3)
    assert read().sort("n").equals(before.sort("n"))
    assert seen(home) == [(n,) for n in range(3_000)]
    assert scan(late).collect().sort("n").equals(before.sort("n"))  # who has the old version reads it still
    assert compact(Archive("clicks"), 128 << 20) == (3, 3)
    assert sum(file.bytes for file in Archive("clicks").snapshot().files) < sum(file.bytes for file in late.files)


def test_compacted_files_are_about_as_large_as_asked() -> None:
    filler = _filled()
    least = min(file.bytes for file in filler.archive.snapshot().files)
    compact(Archive("clicks"), 5 * least)
    sizes = [file.rows for file in Archive("clicks").snapshot().files]
    assert max(sizes) <= 500
    assert len(sizes) < 15


def test_what_was_removed_goes_when_nobody_can_read_it_any_more(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filler = _filled()
    compact(Archive("clicks"), 128 << 20)
    assert len(list(_folder(home).rglob("*.removed"))) == 30
    monkeypatch.setattr(archives, "GRACE", -1)
    filler.add(rows(9_000, 1))
    assert not list(_folder(home).rglob("*.removed"))
    filler.add(rows(9_001, 1))
    assert not filler.archive.newest().removed


def test_rows_that_come_while_it_is_compacted_stay(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And whoever changes the same files meanwhile is not undone."""
    filler, merged, told = _filled(), compaction._merged, []

    def late(*given: object) -> object:
        made = merged(*given)  # type: ignore[arg-type]  # as it is called
        number = len(filler.archive.newest().files)
        filler.add(rows(10_000 + number, 1))
        if not told:
            told.append(retain(Archive("clicks"), 0, START + DAY))
        return made

    monkeypatch.setattr(compaction, "_merged", late)
    said: list[str] = []
    compact(Archive("clicks"), 128 << 20, said.append)
    assert len(told[0]) == 10 + 1
    assert said == ["day=2026-03-01: changed meanwhile, and left as it is"]
    kept = [n for n in numbers() if n < 10_000]
    assert kept == list(range(1_000, 3_000))
    assert len(numbers()) == 2_000 + 2
    assert [(n,) for n in numbers()] == seen(home)


def _bytes(snapshot: Snapshot, file: File) -> bytes:
    """It may be called otherwise from one moment to the next, and then no more."""
    try:
        return Path(snapshot.path_of(file)).read_bytes()
    except FileNotFoundError:
        return Path(snapshot.path_of(file)).read_bytes()


def test_a_reader_that_reads_all_the_time_is_not_disturbed() -> None:
    filler, is_over, trouble, reads = _filled(60, 20), threading.Event(), [], []

    def look() -> None:
        while not is_over.is_set():
            snapshot = Archive("clicks").snapshot()
            for file in snapshot.files:  # as ingest does: file by file
                if len(_bytes(snapshot, file)) != file.bytes:
                    trouble.append(file)
            reads.append(sum(file.rows for file in snapshot.files))

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(8):
        compact(Archive("clicks"), 128 << 20)
        filler.add(rows(2_000 + number, 1))
    is_over.set()
    reader.join()
    assert not trouble
    assert len(reads) > 1
    assert set(reads) <= set(range(1_200, 1_209))


# Rows that are taken back.


def test_rewound_to_a_checkpoint_later_rows_go_and_can_come_again(home: Path) -> None:
    filler = Filler()
    for number in range(4):
        filler.add(rows(number, 1))
    filler.archive.rewind(LINEAGE, 2)
    assert numbers() == [0, 1]
    assert seen(home) == [(0,), (1,)]
    filler.epoch = 2
    filler.add(rows(7, 3))  # the same name
    assert numbers() == [0, 1, 7, 8, 9]
    filler.archive.tidy()
    assert numbers() == [0, 1, 7, 8, 9]
    assert seen(home) == [(n,) for n in numbers()]


def test_what_was_compacted_of_both_sides_cannot_be_rewound() -> None:
    filler = Filler()
    for number in range(4):
        filler.add(rows(number, 1))
    compact(Archive("clicks"), 1 << 20)
    with pytest.raises(StateError, match="was compacted of rows before and behind checkpoint 2"):
        filler.archive.rewind(LINEAGE, 2)
    filler.archive.rewind(LINEAGE, 4)
    filler.archive.rewind(LINEAGE, 0)
    assert numbers() == []


_WINDOWS = {"window_start": "time", "n": "int"}


def _hours(first: int, count: int, add: int = 0) -> pl.DataFrame:
    hours = pl.int_range(first, first + count, eager=True)
    return pl.DataFrame({"window_start": START + hours * 3_600_000, "n": hours + add})


def test_a_stretch_of_time_is_replaced_in_one_version(home: Path) -> None:
    """Files that lie across its ends keep their other rows."""
    filler = Filler(types=_WINDOWS, time="window_start")
    for first in range(0, 48, 8):
        filler.add(_hours(first, 8))
    version = filler.archive.version()
    run = Run(filler.archive, "backfill")
    other = Filler(types=_WINDOWS, time="window_start")
    other.staging = type(other.staging)(other.archive, run.origin, Partitioning(), _WINDOWS, "window_start")
    files = other.staged(_hours(10, 20, 1_000))
    replace_rows(filler.archive, files, other.shape, (START + 10 * 3_600_000, START + 30 * 3_600_000), run)
    run.end()
    expected = [*range(10), *range(30, 48), *range(1_010, 1_030)]
    assert filler.archive.version() == version + 1
    assert numbers() == expected
    assert seen(home) == [(n,) for n in expected]
    assert {file.writer for file in Archive("clicks").snapshot().files} == {"p"}
    assert not [path for path in _folder(home).rglob(".*") if not path.name.endswith(".removed")]


def test_old_files_are_let_go(home: Path) -> None:
    _filled()
    now = START + 3 * DAY
    archive = Archive("clicks")
    assert len(retain(archive, 2 * DAY, now, is_dry=True)) == 10
    assert len(numbers()) == 3_000
    assert len(retain(archive, 2 * DAY, now)) == 10
    assert numbers() == list(range(1_000, 3_000))
    assert len(seen(home)) == 2_000


# What processes leave behind that died.


def test_what_a_dead_run_left_is_taken_away_and_what_a_live_one_stages_is_not(home: Path) -> None:
    filler = _filled(2)
    dead, live = Run(filler.archive, "shell"), Run(filler.archive, "shell")
    for run in (dead, live):
        staging = type(filler.staging)(filler.archive, run.origin, Partitioning(), TYPES, "ts")
        staging.add(rows(50_000, 5), rows(50_000, 5)["ts"])
        files = staging.taken()
        if run is dead:
            filler.archive.show(files)  # it died behind this
            os.close(dead._lock)
    assert len(seen(home)) == 205
    Run(filler.archive, "shell").end()
    assert len(seen(home)) == 200
    filler.archive.commit(files, filler.shape, {})
    live.end()
    assert len(numbers()) == 205
    assert not list(_folder(home).glob(".*.run"))


def test_a_death_between_version_and_tidying_is_mended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _filled(3)
    archive = Archive("clicks")
    monkeypatch.setattr(Archive, "_tidy", lambda *_: None)
    compact(archive, 1 << 20)
    assert len(numbers()) == 300
    assert len(seen(home)) == 600  # for others only, and not for long:
    monkeypatch.undo()
    os.environ["CLICKPIPE_HOME"] = str(home)
    archive.tidy()
    assert len(seen(home)) == 300


def test_staged_files_of_earlier_lives_go_and_those_of_the_checkpoint_stay(home: Path) -> None:
    from clickpipe.store.archivefiles import staged_by

    filler = Filler()
    kept = filler.staged(rows(0, 3))
    filler.epoch = 1
    filler.staged(rows(3, 3))
    filler.archive.clear(staged_by("other"), [])
    assert len(list(_folder(home).glob("day=*/.*"))) == 2
    filler.archive.clear(staged_by("p"), [file.path for file in kept])
    assert [path.name[1:] for path in _folder(home).glob("day=*/.*")] == [f"{os.path.basename(kept[0].path)}.staged"]
    filler.epoch = 0
    filler.commit(kept)
    assert numbers() == [0, 1, 2]
