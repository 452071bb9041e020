"""Packed files, told by their first bytes."""

from __future__ import annotations

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
UNPACK = {GZIP: "zcat", ZSTD: "zstdcat"}
MAGIC_BYTES = len(ZSTD)


def is_packed(beginning: bytes) -> bool:
    return beginning.startswith((GZIP, ZSTD))


def may_be_packed(beginning: bytes) -> bool:
    """Whether so little has been written that it cannot be told yet."""
    return any(len(beginning) < len(magic) and magic.startswith(beginning) for magic in (GZIP, ZSTD))
