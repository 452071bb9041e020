"""Writes the sketches of this folder, with the public libraries whose they are: python tests/golden/make.py

Not run by tests: what stands here is what these libraries wrote once (datasketches 5.2, datasketch 2.0, ddsketch 3.0).
"""

from __future__ import annotations

from pathlib import Path

import mmh3
from datasketch import HyperLogLogPlusPlus
from datasketches import hll_sketch, tgt_hll_type, update_theta_sketch
from ddsketch import DDSketch
from ddsketch.pb.proto import DDSketchProto

FOLDER = Path(__file__).parent
SIZES = (0, 1, 6, 20, 1_000)
PRECISION, K, ACCURACY = 9, 32, 0.02
_SEED = 9001


def texts(n: int) -> list[str]:
    """What the sketches have seen."""
    return [f"user-{number}" for number in range(n)]


def numbers() -> list[float]:
    """The same without chance: of ten powers of ten, of both signs, and zeros."""
    return [0.0] * 5 + [sign * 1.07**step for step in range(340) for sign in (1, 1, -1)]


def low_and_high(precision: int, data: bytes) -> int:
    """The hash by which datasketch has the registers that Apache and clickpipe have."""
    hashed, below = mmh3.hash128(data, _SEED, signed=False), 2**precision - 1
    return (hashed >> 64) & ~below | hashed & below


def theta(n: int) -> bytes:
    sketch = update_theta_sketch(lg_k=K.bit_length() - 1)
    for text in texts(n):
        sketch.update(text)
    sketch.trim()
    return bytes(sketch.compact().serialize())


def hll(n: int, kind: tgt_hll_type) -> bytes:
    sketch = hll_sketch(PRECISION, kind)
    for text in texts(n):
        sketch.update(text)
    return bytes(sketch.serialize_compact())


def plus_plus(n: int, precision: int = PRECISION) -> bytes:
    sketch = HyperLogLogPlusPlus(precision, hashfunc=lambda data: low_and_high(precision, data))
    for text in texts(n):
        sketch.update(text.encode())
    image = bytearray(sketch.bytesize())
    sketch.serialize(image)
    return bytes(image)


def quantiles() -> bytes:
    sketch = DDSketch(ACCURACY)
    for number in numbers():
        sketch.add(number)
    return bytes(DDSketchProto.to_proto(sketch).SerializeToString())


def main() -> None:
    for n in SIZES:
        (FOLDER / f"theta_{n}.bin").write_bytes(theta(n))
        for kind in (tgt_hll_type.HLL_4, tgt_hll_type.HLL_6, tgt_hll_type.HLL_8):
            (FOLDER / f"{kind.name.lower()}_{n}.bin").write_bytes(hll(n, kind))
        (FOLDER / f"plus_plus_{n}.bin").write_bytes(plus_plus(n))
    (FOLDER / "ddsketch.bin").write_bytes(quantiles())


if __name__ == "__main__":
    main()
