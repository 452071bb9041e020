"""Other libraries read our sketches, and we read theirs: tests/golden has what they wrote, and they are asked themselves."""

from __future__ import annotations

import base64
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from datasketch import HyperLogLogPlusPlus
from datasketches import (
    compact_theta_sketch,
    hll_sketch,
    hll_union,
    tgt_hll_type,
    theta_a_not_b,
    theta_intersection,
    theta_union,
    update_theta_sketch,
)
from ddsketch.pb import ddsketch_pb2 as pb
from ddsketch.pb.proto import DDSketchProto
from examples import examples
from golden.make import ACCURACY, FOLDER, PRECISION, SIZES, K, low_and_high, numbers, plus_plus, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from clickpipe.core.aggregate import SUB_KEY
from clickpipe.core.asked import answered, combined, union
from clickpipe.core.exchange import exported, form_names, imported
from clickpipe.core.sketch import kinds, opened
from clickpipe.core.summary import Call, Summary
from clickpipe.errors import DataError, PlanError

KINDS = {kind.name(): kind for kind in kinds().values()}
HLLS = ["hll_4", "hll_6", "hll_8"]


def _sketch(kind: str, parameter: float, values: list[Any], type_: str = "str") -> pl.Series:
    """A column of the one sketch of these values."""
    sketch: Any = KINDS[kind]
    call = Call("v", sketch(type_, parameter), pl.col("x"))
    summary = Summary([], [call], {})
    frame = pl.DataFrame({"x": values}, schema={"x": pl.String if type_ == "str" else pl.Float64})
    summary.add(frame.select(call.inputs()), pl.lit(0))
    return summary.values(lambda rows: rows)["v"]


def _golden(name: str) -> bytes:
    return (FOLDER / f"{name}.bin").read_bytes()


def _read(data: bytes, form: str, k: int | None = None) -> pl.Series:
    return imported(pl.Series([base64.b64encode(data).decode()]), form, k)


def _written(sketch: pl.Series, form: str) -> bytes:
    return base64.b64decode(exported(sketch, form).item())


def _estimate(sketch: pl.Series) -> int:
    return int(answered(sketch, "estimates", pl.Int64(), nothing=0).item())


@pytest.mark.parametrize("n", SIZES)
def test_theta_sketches_are_byte_for_byte_those_of_apache(n: int) -> None:
    ours = _sketch("set", K, texts(n))
    assert _written(ours, "apache") == _golden(f"theta_{n}")
    assert _read(_golden(f"theta_{n}"), "apache", K).equals(ours)
    assert _estimate(ours) == round(compact_theta_sketch.deserialize(_written(ours, "apache")).get_estimate())


def test_large_theta_sketches_and_what_apache_makes_of_them() -> None:
    """4,096 hashes of 30,000 and 20,000 values, with 10,000 in common."""
    mine, others = texts(30_000), texts(40_000)[20_000:]
    ours = [_sketch("set", 4096, values) for values in (mine, others)]
    theirs = [compact_theta_sketch.deserialize(_written(one, "apache")) for one in ours]
    native = update_theta_sketch(lg_k=12)
    for text in mine:
        native.update(text)
    native.trim()
    assert native.compact().serialize() == _written(ours[0], "apache")
    both = theta_union(lg_k=12)
    both.update(theirs[0])
    both.update(theirs[1])
    assert _written(union(*ours), "apache") == both.get_result().serialize()
    common = theta_intersection()
    common.update(theirs[0])
    common.update(theirs[1])
    assert _written(combined(*ours, "intersection"), "apache") == common.get_result().serialize()
    rest = theta_a_not_b().compute(theirs[0], theirs[1])
    assert _written(combined(*ours, "difference"), "apache") == rest.serialize()
    assert common.get_result().get_lower_bound(3) <= 10_000 <= common.get_result().get_upper_bound(3)


def test_a_theta_sketch_that_is_not_trimmed_or_not_in_order_is_read() -> None:
    """Apache keeps up to twice as many hashes for a while; how many it would keep it does not say."""
    native = update_theta_sketch(lg_k=5)
    for text in texts(50):
        native.update(text)
    image = native.compact(ordered=False).serialize()
    assert native.num_retained > K
    assert _estimate(_read(image, "apache")) == 50
    assert _read(image, "apache", K).equals(_sketch("set", K, texts(50)))
    assert "k 8192" in str(opened(_read(_written(_sketch("set", 8192, texts(9_000)), "apache"), "apache"))[0].sketch)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", HLLS)
def test_hll_sketches_of_apache_have_our_registers(kind: str, n: int) -> None:
    """In each of its three encodings, and as a list, a set and registers."""
    assert _read(_golden(f"{kind}_{n}"), "apache").equals(_sketch("distinct", PRECISION, texts(n)))


@pytest.mark.parametrize("precision", [4, 8, 12])
@pytest.mark.parametrize("n", [0, 3, 25, 1_000, 30_000])
def test_every_image_of_an_hll_sketch_is_read(precision: int, n: int) -> None:
    """Also updatable ones, with empty places, and HLL_4 with exceptions."""
    ours = _sketch("distinct", precision, texts(n))
    for kind in (tgt_hll_type.HLL_4, tgt_hll_type.HLL_6, tgt_hll_type.HLL_8):
        native = hll_sketch(precision, kind)
        for text in texts(n):
            native.update(text)
        for image in (native.serialize_compact(), native.serialize_updatable()):
            assert _read(image, "apache").equals(ours), (kind, len(image))


def test_ranks_beyond_those_of_our_hash_are_the_last_of_ours() -> None:
    """Apache counts the zeros of all 64 bits, we those that the register's number leaves: both mean that all were zeros."""
    image = bytearray(_golden("hll_8_1000"))
    image[-1] = 63
    ranks = opened(_read(bytes(image), "apache"))[0].rows
    assert ranks.filter(pl.col(SUB_KEY) == 2**PRECISION - 1)["rank"].item() == 65 - PRECISION


@pytest.mark.parametrize("n", [0, 1, 100, 5_000, 100_000])
def test_apache_reads_our_hll_sketches(n: int) -> None:
    ours = _sketch("distinct", 12, texts(n))
    native = hll_sketch.deserialize(_written(ours, "apache"))
    assert native.tgt_type == tgt_hll_type.HLL_8
    assert native.get_lower_bound(3) <= n <= native.get_upper_bound(3)
    assert native.get_estimate() == pytest.approx(n, rel=3 * 0.0163, abs=0.5)
    # What it merges of ours and of its own is what we have of all.
    more = hll_sketch(12, tgt_hll_type.HLL_8)
    for text in texts(n + 2_000)[n:]:
        more.update(text)
    whole = hll_union(12)
    whole.update(native)
    whole.update(more)
    image = whole.get_result(tgt_hll_type.HLL_8).serialize_compact()
    assert _read(image, "apache").equals(_sketch("distinct", 12, texts(n + 2_000)))


@pytest.mark.parametrize("n", SIZES)
def test_datasketch_has_the_same_bytes(n: int) -> None:
    ours = _sketch("distinct", PRECISION, texts(n))
    assert _written(ours, "datasketch") == _golden(f"plus_plus_{n}")
    assert _read(_golden(f"plus_plus_{n}"), "datasketch").equals(ours)


@pytest.mark.parametrize("n", [0, 10, 2_000, 50_000])
def test_datasketch_reads_ours_and_counts_on(n: int) -> None:
    """Its registers are signed: with unsigned ones it would count less than nothing."""
    theirs = HyperLogLogPlusPlus.deserialize(_written(_sketch("distinct", 12, texts(n)), "datasketch"))
    assert theirs.reg.dtype == "int8"
    assert theirs.count() == pytest.approx(n, rel=0.06, abs=0.5)
    theirs.hashfunc = lambda data: low_and_high(12, data)
    for text in texts(n + 500)[n:]:
        theirs.update(text.encode())
    image = bytearray(theirs.bytesize())
    theirs.serialize(image)
    assert _read(bytes(image), "datasketch").equals(_sketch("distinct", 12, texts(n + 500)))


def test_ddsketch_has_our_buckets() -> None:
    ours = _sketch("quantiles", ACCURACY, numbers(), "float")
    assert _read(_golden("ddsketch"), "ddsketch").equals(ours)
    proto = pb.DDSketch.FromString(_written(ours, "ddsketch"))
    assert proto.mapping.gamma == pytest.approx(1.02 / 0.98, abs=1e-15)
    assert proto.SerializeToString() == _written(ours, "ddsketch")
    theirs = DDSketchProto.from_proto(proto)
    n = len(numbers())
    for rank in range(0, n, 32):  # of q the library takes the rank q (n - 1), and we the least that is not below q
        mine = answered(ours, "quantiles", pl.Float64(), (rank + 1) / n).item()
        assert theirs.get_quantile_value(rank / (n - 1)) == pytest.approx(mine, rel=1e-9), rank


@pytest.mark.parametrize("values", [[], [0.0], [5.0], [-5.0, -5.0, 1e-300, 3e5]], ids=str)
def test_small_ddsketches(values: list[float]) -> None:
    ours = _sketch("quantiles", 0.01, values, "float")
    theirs = DDSketchProto.from_proto(pb.DDSketch.FromString(_written(ours, "ddsketch")))
    assert _read(DDSketchProto.to_proto(theirs).SerializeToString(), "ddsketch").equals(ours)
    median = answered(ours, "quantiles", pl.Float64(), 0.5).item()
    assert theirs.get_quantile_value(0.5) == (None if median is None else pytest.approx(median))


def test_a_ddsketch_may_have_its_counts_by_index() -> None:
    """As other languages write them; and with an offset of indexes."""
    ours = _sketch("quantiles", 0.01, [1.0, 50.0, 50.0, -2.0], "float")
    proto = pb.DDSketch.FromString(_written(ours, "ddsketch"))
    for store in (proto.positiveValues, proto.negativeValues):
        first = store.contiguousBinIndexOffset
        counts = {first + place + 7: count for place, count in enumerate(store.contiguousBinCounts) if count}
        store.Clear()
        store.binCounts.update(counts)
    proto.mapping.indexOffset = 7.0
    assert _read(proto.SerializeToString(), "ddsketch").equals(ours)


def test_a_ddsketch_may_come_in_parts() -> None:
    """Protocol buffers allow it: what is given twice is put together, and of one index the last count counts."""
    ours = _sketch("quantiles", 0.01, [1.0, 50.0, 50.0, -2.0], "float")
    data = _written(ours, "ddsketch")
    positive = _written(_sketch("quantiles", 0.01, [1e5] * 3, "float"), "ddsketch")
    both = _sketch("quantiles", 0.01, [1.0, 50.0, 50.0, -2.0, 1e5, 1e5, 1e5], "float")
    indexed = pb.DDSketch.FromString(positive)
    counts = {indexed.positiveValues.contiguousBinIndexOffset: 3.0}
    indexed.positiveValues.Clear()
    indexed.positiveValues.binCounts.update(counts)
    assert pb.DDSketch.FromString(data + indexed.SerializeToString()).positiveValues.contiguousBinCounts
    assert _read(data + indexed.SerializeToString(), "ddsketch").equals(both)
    assert _read(data + indexed.SerializeToString() * 2, "ddsketch").equals(both)


@given(st.floats(0.0001, 0.2).map(lambda accuracy: float(f"{accuracy:.13g}")))
@settings(max_examples=examples(100), deadline=None)
def test_an_accuracy_comes_back(accuracy: float) -> None:
    ours = _sketch("quantiles", accuracy, [1.0, 2.0], "float")
    assert _read(_written(ours, "ddsketch"), "ddsketch").equals(ours)


def test_a_ddsketch_of_too_long_a_row_is_not_written() -> None:
    with pytest.raises(DataError, match="over 90,000"):
        _written(_sketch("quantiles", 0.0001, [1e-300, 1e300], "float"), "ddsketch")
    _written(_sketch("quantiles", 0.01, [5e-324, 1.7e308], "float"), "ddsketch")


def _proto(**more: Any) -> bytes:
    mapping = pb.IndexMapping(**{"gamma": 1.02 / 0.98, **more.pop("mapping", {})})
    return bytes(pb.DDSketch(mapping=mapping, **more).SerializeToString())


def _changed(data: bytes, place: int, byte: int) -> bytes:
    return data[:place] + bytes([byte]) + data[place + 1 :]


def _exceptional() -> bytes:
    """HLL_4 with an exception that needs to be none: rank 3, where the least is 0."""
    ranks = bytes([0xF0]) + bytes(2**PRECISION // 2 - 1)
    head = bytes([10, 1, 7, PRECISION, 0, 8 | 16, 0, 2])
    return head + bytes(24) + struct.pack("<II", 2**PRECISION - 1, 1) + ranks + struct.pack("<I", 3 << 26 | 1)


ROW = {"contiguousBinCounts": [1.0], "contiguousBinIndexOffset": 5}
REFUSED = {
    "theta of another seed": ("apache", _changed(_golden("theta_20"), 6, 0), "another seed"),
    "theta, compressed": ("apache", _changed(_golden("theta_20"), 1, 4), "serial version 4"),
    "theta, updatable": ("apache", _changed(_golden("theta_20"), 2, 2), "none of the sketches of form apache"),
    "theta, cut": ("apache", _golden("theta_1000")[:-1], "damaged theta"),
    "theta, cut to 8 bytes": ("apache", _golden("theta_1000")[:8], "damaged theta"),
    "theta, cut in its theta": ("apache", _golden("theta_1000")[:20], "damaged theta"),
    "theta, empty and not": ("apache", _changed(_golden("theta_20"), 5, 0x1E), "damaged theta"),
    "theta, one twice": ("apache", _golden("theta_20")[:-8] + _golden("theta_20")[-16:-8], "not those of a set"),
    "theta, beyond theta": ("apache", _golden("theta_1000")[:-8] + b"\xff" * 8, "not those of a set"),
    "hll of version 2": ("apache", _changed(_golden("hll_8_1000"), 1, 2), "serial version 2"),
    "hll, too precise": ("apache", _changed(_golden("hll_8_0"), 3, 21), "lg k 21"),
    "hll, cut": ("apache", _golden("hll_8_1000")[:-1], "damaged Apache HLL"),
    "hll, list cut": ("apache", _golden("hll_8_6")[:-4], "damaged Apache HLL"),
    "hll, empty and not": ("apache", _changed(_golden("hll_8_1000"), 5, 12), "damaged Apache HLL"),
    "hll, least beyond": ("apache", _changed(_golden("hll_4_1000"), 6, 250), "damaged Apache HLL"),
    "hll, exception that is none": ("apache", _exceptional(), "damaged Apache HLL"),
    "hll, no such mode": ("apache", _changed(_golden("hll_8_1000"), 7, 0b1011), "damaged Apache HLL"),
    "datasketch, cut": ("datasketch", _golden("plus_plus_20")[:-1], "none of the sketches of form datasketch"),
    "datasketch, beyond": ("datasketch", _golden("plus_plus_20")[:-1] + b"\x80", "no hash can have set"),
    "ddsketch, interpolated": ("ddsketch", _proto(mapping={"interpolation": 1}), "interpolated"),
    "ddsketch of half values": ("ddsketch", _proto(zeroCount=1.5), "count of 1.5"),
    "ddsketch of less than none": ("ddsketch", _proto(zeroCount=-1.0), "count of -1"),
    "ddsketch, too exact": ("ddsketch", _proto(mapping={"gamma": 1.0000001}), "accuracy is from"),
    "ddsketch, no gamma": ("ddsketch", _proto(mapping={"gamma": 0.0}), "damaged|gamma"),
    "ddsketch, half an offset": ("ddsketch", _proto(mapping={"indexOffset": 0.5}), "index offset 0.5"),
    "ddsketch, too many": ("ddsketch", _proto(positiveValues={"binCounts": {5: 2.0**53}, **ROW}), "beyond 2"),
    "ddsketch, far out": ("ddsketch", _proto(positiveValues={"binCounts": {10**9: 1}}), "beyond all numbers"),
    "nothing": ("ddsketch", b"", "nothing is none of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    form, data, why = REFUSED[case]
    with pytest.raises(DataError, match=why):
        _read(data, form)


@pytest.mark.parametrize("path", [*sorted(FOLDER.glob("*_6.bin")), FOLDER / "ddsketch.bin"], ids=lambda path: path.stem)
@given(chance=st.data())
@settings(max_examples=examples(60), deadline=None)
def test_foreign_bytes_that_are_damaged_are_refused_or_another_sketch(path: Path, chance: st.DataObject) -> None:
    """They have no check of their own. Whatever is read is a whole sketch of ours, and nothing else is raised."""
    data = bytearray(path.read_bytes())
    for _ in range(chance.draw(st.integers(1, 3))):
        data[chance.draw(st.integers(0, len(data) - 1))] = chance.draw(st.integers(0, 255))
    data = data[: chance.draw(st.integers(0, len(data)) | st.just(len(data)))]
    for form in form_names():
        try:
            found = _read(bytes(data), form)
        except DataError:
            continue
        with suppress(DataError):  # of a DDSketch with few values far apart
            assert _read(_written(found, form), form).equals(found)


def test_what_has_no_such_form() -> None:
    with pytest.raises(DataError, match="a sketch of kind quantiles has no form apache: it has ddsketch"):
        exported(_sketch("quantiles", 0.01, [1.0], "float"), "apache")
    with pytest.raises(DataError, match="datasketch has no precision beyond 16"):
        exported(_sketch("distinct", 17, ["a"]), "datasketch")
    with pytest.raises(DataError, match="is not base64"):
        imported(pl.Series(["nonsense!"]), "apache", None)
    function: Any = __import__("clickpipe.functions.export", fromlist=["Export"]).Export
    with pytest.raises(PlanError, match="no form 'apche'"):
        function("apche")


def test_nulls_stay_nulls() -> None:
    column = pl.concat([_sketch("set", 32, ["a"]), pl.Series("v", [None], dtype=pl.String)])
    assert exported(column, "apache").is_null().to_list() == [False, True]
    assert imported(exported(column, "apache"), "apache", 32).equals(column)


def test_the_golden_files_are_what_the_libraries_write_today() -> None:
    """Of one of them: so that a change of a library is seen, and make.py runs."""
    assert plus_plus(20) == _golden("plus_plus_20")
