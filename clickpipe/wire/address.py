"""Where streams meet that are not on one pipe: `unix:PATH` or `tcp://HOST:PORT`.

unix:/run/clicks.sock      tcp://10.0.0.2:7001      tcp://[::1]:7001      tcp://:7001 (this machine only)
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass

from clickpipe.errors import PlanError

_TCP = re.compile(r"tcp://(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^\[\]:/@\s]*)):(?P<port>[0-9]{1,5})/?")
LOOPBACK = "127.0.0.1"
_LONGEST_PATH = 107  # bytes: what the kernel has room for

Place = tuple[socket.AddressFamily, str | tuple[str, int] | tuple[str, int, int, int]]


@dataclass(frozen=True)
class Address:
    """A Unix socket, if there is a path, or a host and a port."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_unix(self) -> bool:
        return bool(self.path)

    def __str__(self) -> str:
        if self.is_unix:
            return f"unix:{self.path}"
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"

    def places(self) -> list[Place]:
        """What the kernel calls it; a name may stand for several. Raises OSError where a name is not known."""
        if self.is_unix:
            return [(socket.AF_UNIX, self.path)]
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        return [(family, place) for family, _, _, _, place in found if family in (socket.AF_INET, socket.AF_INET6)]  # type: ignore[misc]  # of these two families, a host comes first


def parse_address(text: str) -> Address:
    """Raises PlanError for what is no address of a socket."""
    if text.startswith("unix:"):
        return _unix(text, text.removeprefix("unix:"))
    match = _TCP.fullmatch(text)
    if match is None:
        raise PlanError(f'"{text}" is no address of a socket', hint="tcp://HOST:PORT or unix:PATH", word=text)
    port = int(match["port"])
    if port > 65535:
        raise PlanError(f"{text}: a port is at most 65535", word=text)
    return Address(match["six"] or match["host"] or LOOPBACK, port)


def _unix(text: str, path: str) -> Address:
    if not path or "\0" in path:
        raise PlanError(f'"{text}" names no path', hint="unix:PATH", word=text)
    if (length := len(os.fsencode(path))) > _LONGEST_PATH:
        raise PlanError(f"{text}: the path of a socket has at most {_LONGEST_PATH} bytes, and this one {length}", word=text)
    return Address(path=path)


def is_loopback(place: Place) -> bool:
    """Whether nobody outside this machine can come there."""
    family, where = place
    if family == socket.AF_UNIX:
        return True
    plain = ipaddress.ip_address(str(where[0]).split("%")[0])
    return (getattr(plain, "ipv4_mapped", None) or plain).is_loopback
