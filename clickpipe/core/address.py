"""Addresses of sources and destinations: a path, `-`, `NAME:…`."""

from __future__ import annotations

import os
import re

from clickpipe.core.catalog import Catalog
from clickpipe.errors import PlanError, Unsupported

_SCHEME = re.compile(r"([a-z][a-z0-9]*)(\+[a-z]+)?:(.+)", re.DOTALL)
_PLANNED = {
    "kafka": "Kafka",
    "redis": "Redis",
    "postgresql": "PostgreSQL",
    "influx": "InfluxDB",
    "http": "HTTP",
    "https": "HTTP",
    "tcp": "sockets",
    "unix": "sockets",
}


def part_of(address: str, parts: Catalog, plain: str) -> tuple[str, str]:
    """The name of the part that handles an address, and what is left for it. `plain`: the part for `-`.

    Raises Unsupported for an address that this version cannot handle.
    """
    if not address:
        raise PlanError("an empty address")
    if address == "-":
        return plain, "-"
    match = _SCHEME.fullmatch(address)
    if not match or os.path.exists(address):
        return "file", address
    scheme = match[1]
    if parts.has(scheme):
        return scheme, match[3]
    if scheme in _PLANNED:
        raise Unsupported("notimpl", address, f"{_PLANNED[scheme]} is not in this version", word=address)
    return "file", address
