"""Make the sample data again, byte for byte: python sample_data/make.py"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import zstandard

from clickpipe.core.units import parse_duration
from clickpipe.operators.generate import Generate

HERE = Path(__file__).parent
DAYS = 3
CLICKS = 200_000


def clicks() -> bytes:
    step = Generate(
        count=CLICKS,
        rate=CLICKS / (DAYS * 86_400),
        seed=7,
        users=5_000,
        pages=40,
        disorder=parse_duration("5s"),  # type: ignore[arg-type]  # a Duration is an int
        late=0.002,
        duplicates=0.002,
        bad=0.0001,
    )
    return b"".join(step.raw())


def access_log(lines: int = 3_000) -> bytes:
    """Four hours of a small web server; in the third, the shop fails for ten minutes."""
    paths = ("/", "/p/1", "/p/2", "/cart", "/checkout", "/static/app.js", "/robots.txt", "/search?q=shoes")
    hosts = ("192.0.2.17", "198.51.100.4", "203.0.113.99", "2001:db8::7", "192.0.2.201", "2001:db8:1::15")
    agents = (
        "Mozilla/5.0 (X11; Linux x86_64) Firefox/148.0",
        "Mozilla/5.0 (iPhone) Safari/605.1",
        "ExampleBot/2.1 (+https://example.com/bot)",
    )
    out, state = [], 20260301
    for number in range(lines):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        dice = state >> 33
        second = number * 14_400 // lines
        path = paths[dice % 97 % len(paths)]
        failing = 9_000 <= second < 9_600 and path in ("/cart", "/checkout")
        status = 503 if failing else (200, 200, 200, 200, 200, 200, 304, 301, 404, 500)[dice // 97 % (10 if dice % 5 == 0 else 8)]
        when = datetime.fromtimestamp(1_772_348_400 + second, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
        size = "-" if status == 304 else str(200 + dice % 40_000)
        referrer = "-" if dice % 3 else "https://www.example.com/"
        out.append(
            f"{hosts[dice // 11 % len(hosts)]} - - [{when}] "
            f'"GET {path} HTTP/1.1" {status} {size} "{referrer}" "{agents[dice // 7 % 3]}"'
        )
    out[700] = "-- log rotated --"
    out[1500] = out[1500].replace("[", "", 1)
    out[2200] = out[2200][:40]
    return ("\n".join(out) + "\n").encode()


if __name__ == "__main__":
    (HERE / "clicks.ndjson.zst").write_bytes(zstandard.ZstdCompressor(level=19).compress(clicks()))
    (HERE / "access.log").write_bytes(access_log())
