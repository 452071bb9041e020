"""Durations and sizes as people write them: 500ms 5s 1m 1h 1d 1w, 64KiB 8MiB."""

from __future__ import annotations

import re

_MILLISECONDS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_PART = re.compile(r"([0-9]{1,15})(ms|[wdhms])")
_BYTES = {
    "": 1,
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "k": 10**3,
    "K": 10**3,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
}
LONGEST = 100_000 * 365 * _MILLISECONDS["d"] // 1_000  # a hundred years: more is a slip of the pen


def parse_duration(text: str) -> int:
    """Milliseconds. `1h30m` is fine; a bare number, a sign, a fraction and a month are not. Raises ValueError."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f'"{text}" is not a duration; durations look like 500ms, 5s, 1m, 1h30m, 1d')
    units = [_MILLISECONDS[unit] for _, unit in parts]
    if units != sorted(set(units), reverse=True):
        raise ValueError(f'"{text}" is not a duration: larger units come first, each once, as in 1h30m')
    total = sum(int(number) * unit for (number, _), unit in zip(parts, units, strict=True))
    if total > LONGEST:
        raise ValueError(f'"{text}" is longer than a hundred years')
    return total


def format_duration(milliseconds: int) -> str:
    """The shortest text that `parse_duration` reads back."""
    text = ""
    for unit, length in _MILLISECONDS.items():
        count, milliseconds = divmod(milliseconds, length)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def parse_size(text: str) -> int:
    """Bytes. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,15})([A-Za-z]*)", text)
    if not match or match[2] not in _BYTES:
        raise ValueError(f'"{text}" is not a size; sizes look like 65536, 64KiB, 8MiB')
    return int(match[1]) * _BYTES[match[2]]
