"""sort gives every record that is not late, in the order of event time, however it came and whenever it was stopped."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
from examples import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from resuming import driven, pulled

from clickpipe.batch import Batch
from clickpipe.columns import Columns, TimeColumn
from clickpipe.core.held import Held
from clickpipe.core.meter import check
from clickpipe.core.operator import FOREVER
from clickpipe.testing import collect
from clickpipe.text import Text

BEGIN = 1_700_000_000_000
_SETTINGS = settings(max_examples=examples(80), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_TIMES = st.lists(st.integers(0, 30).map(lambda step: BEGIN + step), min_size=1, max_size=80)


@given(times=_TIMES, delay=st.integers(0, 12), batch=st.sampled_from([1, 100, 300, 1 << 20]))
@_SETTINGS
def test_the_rule(times: list[int], delay: int, batch: int, tmp_path: Path) -> None:
    """What is behind the watermark just before it is late; of the others, ties stay as they came."""
    path = _written([{"ts": time} for time in times], tmp_path)
    seen = collect(f"{_ingest(path, delay, batch)} | sort")
    late, kept, greatest = [], [], None
    for n, time in enumerate(times):
        (late if greatest is not None and time < greatest - delay else kept).append(n)
        greatest = time if greatest is None else max(greatest, time)
    assert [row["n"] for row in seen.rows] == sorted(kept, key=lambda n: times[n])
    assert [row["n"] for row in seen.late] == late
    check(seen.accounts)
    assert seen.accounts[0].written == len(kept)


@given(
    times=st.lists(st.integers(0, 300), min_size=1, max_size=60, unique=True), seed=st.integers(), batch=st.sampled_from([1, 200])
)
@_SETTINGS
def test_any_order_within_the_bound_gives_the_same(times: list[int], seed: int, batch: int, tmp_path: Path) -> None:
    shuffled = [*times]
    random.Random(seed).shuffle(shuffled)
    path = tmp_path / "input.ndjson"
    path.write_text("".join(json.dumps({"ts": BEGIN + time}) + "\n" for time in shuffled))
    seen = collect(f"ingest {path} --time ts --max-out-of-orderness 300ms --batch-bytes {batch} | sort")
    assert [row["ts"] - BEGIN for row in seen.rows] == sorted(times)
    assert not seen.late


@given(times=_TIMES, delay=st.integers(0, 12), batch=st.sampled_from([1, 100, 300]), data=st.data())
@_SETTINGS
def test_stopped_and_resumed_at_any_point(times: list[int], delay: int, batch: int, data: st.DataObject, tmp_path: Path) -> None:
    """Byte by byte what a run gives that was never disturbed: the records' own text, with its white space."""
    path = tmp_path / "input.ndjson"
    path.write_text("".join(f'{{ "n": {n},  "ts":{time}, "other":"é\\u00e9"}}\n' for n, time in enumerate(times)))
    step, columns, pulls = pulled(f"{_ingest(path, delay, batch)} | sort")
    stops = data.draw(st.sets(st.integers(0, len(pulls)), max_size=4))
    assert driven(step, columns, pulls, sorted(stops)) == driven(step, columns, pulls, ())


COLUMNS = Columns({"ts": "int", "a": "int", "s": "str"}, time=TimeColumn("ts"))
_FORMS = st.sampled_from(["text", "parsed", "columns", "added", "aside"])


@given(
    parts=st.lists(st.tuples(_FORMS, st.lists(st.integers(0, 40), min_size=1, max_size=6)), min_size=1, max_size=8),
    data=st.data(),
)
@_SETTINGS
def test_records_are_what_came_in_whatever_form(parts: list[tuple[str, list[int]]], data: st.DataObject) -> None:
    """As text, as columns, parsed or not, with columns added: all mixed, and saved in between."""
    held, given_out, number, came = Held({}), [], 0, []
    for at, (form, times) in enumerate(parts):
        records = [{"ts": time, "a": number + place, "s": f"s{time}"} for place, time in enumerate(times)]
        number += len(times)
        came += records
        held.add(_formed(form, records), pl.Series(times))
        if data.draw(st.booleans()):
            held = Held(held.snapshot())
        if at % 3 == 2:
            given_out += list(held.release(20))
    given_out += list(held.release(FOREVER))
    lines = [json.loads(line) for batch in given_out for line in batch.with_text().to_ndjson().splitlines()]
    assert sorted(lines, key=lambda record: int(record["a"])) == came
    for batch in given_out:
        whole, dead = batch.with_text().need(["a", "s"], set())
        assert dead is None
        texts = [json.loads(line) for line in whole.to_ndjson().splitlines()]
        assert whole.frame.select("a", "s").to_dicts() == [{"a": record["a"], "s": record["s"]} for record in texts]


def test_dead_letters_keep_their_file() -> None:
    """Two files meet in one batch; a record that leaves later still says where it came from."""
    batches = [Batch(pl.DataFrame({"ts": [t], "a": [t], "s": ["x"]}), COLUMNS, source=f"f{t}") for t in (2, 1)]
    held = Held({})
    for batch in batches:
        held.add(batch, batch.frame["ts"])
    held = Held(held.snapshot())
    (out,) = held.release(FOREVER)
    dead = out.as_dead(pl.Series(["bad", "bad"]))
    assert dead.sources == ["f1", "f2"]
    assert [json.loads(raw)["ts"] for raw in dead.raw] == [1, 2]


def test_what_is_given_out_lets_go_of_the_rest() -> None:
    """Some records of each batch that stay behind do not keep the text of the others: 400 MB here."""
    held, before = Held({}), _resident_mib()
    text = pl.select(pl.concat_str(pl.lit("x" * 120), pl.int_range(80_000).cast(pl.String)))
    for _ in range(40):
        frame = pl.DataFrame({"ts": [*range(75_000), *[100_000] * 5_000]})
        lines = text.select(pl.concat_str(pl.first(), pl.lit("y"))).to_series()
        held.add(Batch(frame, COLUMNS, Text(lines=lines), frozenset(COLUMNS.types)), frame["ts"])
        assert sum(batch.height for batch in held.release(75_000)) == 75_000
    assert held.snapshot()["held"].height == 40 * 5_000
    assert _resident_mib() - before < 200


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) / 256


def _formed(form: str, records: list[dict[str, Any]]) -> Batch:
    frame = pl.DataFrame(records)
    text = Text(block=frame.write_ndjson().encode())
    every = frozenset(COLUMNS.types)
    if form == "columns":
        return Batch(frame, COLUMNS, source="x")
    if form == "added":
        short = Text(block=frame.drop("a").write_ndjson().encode())
        return Batch(frame.select("ts", "a"), COLUMNS, short, every - {"a"})
    if form == "aside":
        numbered = frame.with_columns(pl.int_range(pl.len(), dtype=pl.UInt32).alias("\0row"))
        return Batch(numbered, COLUMNS, origin=text, in_origin=every)
    return Batch(frame if form == "parsed" else frame.select("ts"), COLUMNS, text, every)


def _written(records: list[dict[str, Any]], folder: Path) -> Path:
    path = folder / "input.ndjson"
    path.write_text("".join(json.dumps({"n": n, **record}) + "\n" for n, record in enumerate(records)))
    return path


def _ingest(path: Path, delay: int, batch: int) -> str:
    return f"ingest {path} --time ts --max-out-of-orderness {delay}ms --batch-bytes {batch}"
