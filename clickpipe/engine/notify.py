"""What a manager of services hears of this process: datagrams to the socket that it has named. Source: sd_notify(3).

READY=1     it has begun            STATUS=…      for people
STOPPING=1  it is about to end      WATCHDOG=1    it makes progress: not heard for WATCHDOG_USEC, the manager kills it
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress

_PATIENCE = 1.0  # seconds that a full socket is waited for
_OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Manager:
    """Unit of `watchdog`: seconds; None: nobody watches."""

    def __init__(self, address: str, watchdog: float | None) -> None:
        self._address, self.watchdog = address, watchdog

    def tell(self, name: str, value: str = "1") -> None:
        """That nobody hears it is no reason to stop. A value must not become another line."""
        text = "".join(c if c.isprintable() else " " for c in value)
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as ours:
            ours.settimeout(_PATIENCE)
            ours.sendto(f"{name}={text}".encode("utf-8", "replace"), self._address)


def manager(environment: Mapping[str, str]) -> Manager | None:
    """Of this process, if it has one."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return None
    micros, of = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    is_watched = micros.isdecimal() and int(micros) > 0 and of in ("", str(os.getpid()))
    name = "\0" + address[1:] if address.startswith("@") else address
    return Manager(name, int(micros) / 1_000_000 if is_watched else None)


def unmanaged(environment: Mapping[str, str]) -> dict[str, str]:
    """For processes of ours, of which a manager hears nothing."""
    return {name: value for name, value in environment.items() if name not in _OURS}
