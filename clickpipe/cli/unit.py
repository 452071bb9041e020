"""Unit files of systemd, as text. Nothing that a person has named can add a line, a word or a variable to them.

Source: systemd.service(5), systemd.exec(5), systemd.timer(5), and systemd.syntax(7) for what must be quoted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from clickpipe.errors import PlanError

MARK = "# Written by clickpipe systemd."
_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "%": "%%"}

_COMMON = """\
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
"""
# A manager of a user cannot have these everywhere: they take namespaces.
_OF_THE_SYSTEM = """\
CapabilityBoundingSet=
PrivateDevices=yes
PrivateTmp=yes
PrivateUsers=yes
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RemoveIPC=yes
"""


@dataclass(frozen=True)
class Unit:
    """`reads`, `writes`: folders and files that it needs although they are hidden from services; `written`: folders that it
    writes to besides; `groups`: who may read its input; `hides_homes`: nothing below /home is needed; `memory`: as systemd has
    it.
    """

    name: str
    command: Sequence[str]
    folder: str = "/"
    memory: str = "2G"
    is_periodic: bool = False
    is_of_user: bool = False
    home: str | None = None
    has_network: bool = False
    reads: Sequence[str] = ()
    writes: Sequence[str] = ()
    written: Sequence[str] = ()
    groups: Sequence[str] = ()
    hides_homes: bool = True


def service(unit: Unit) -> str:
    """Raises PlanError for a path that no unit file can hold."""
    blocks = [_head(unit), "[Service]\n" + _running(unit), _state(unit), _limits(unit), _sandbox(unit)]
    if not unit.is_periodic:
        blocks.append(f"[Install]\nWantedBy={'default' if unit.is_of_user else 'multi-user'}.target\n")
    return "\n".join(blocks)


def timer(unit: Unit, calendar: str) -> str:
    """`calendar`: checked already."""
    return f"""\
{MARK}
[Unit]
Description=Catch-up of clickpipe pipeline {unit.name}

[Timer]
OnCalendar={calendar}
Persistent=true
AccuracySec=1s

[Install]
WantedBy=timers.target
"""


def _head(unit: Unit) -> str:
    network = "Wants=network-online.target\nAfter=network-online.target\n" if unit.has_network and not unit.is_of_user else ""
    return f"{MARK}\n[Unit]\nDescription=clickpipe pipeline {unit.name}\n{network}"


def _running(unit: Unit) -> str:
    how = (
        """\
Type=oneshot
"""
        if unit.is_periodic
        else """\
Type=notify
NotifyAccess=main
WatchdogSec=30
TimeoutStartSec=10min
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=2 64 65 78
"""
    )
    return f"""\
{how}ExecStart={" ".join([_program(unit.command[0]), *map(word, unit.command[1:])])}
WorkingDirectory={path(unit.folder)}
KillMode=mixed
TimeoutStopSec=90
SuccessExitStatus=143
"""


def _state(unit: Unit) -> str:
    home = unit.home if unit.is_of_user else f"%S/clickpipe/{unit.name}"
    mine = f"DynamicUser=yes\nStateDirectory=clickpipe/{unit.name}\nStateDirectoryMode=0700\n" if not unit.is_of_user else ""
    groups = f"SupplementaryGroups={' '.join(unit.groups)}\n" if unit.groups and not unit.is_of_user else ""
    named = f'Environment="CLICKPIPE_HOME={home if not unit.is_of_user else _quoted(home or "")}"\n' if home else ""
    # Polars asks the processor what it can by code that it writes into memory; nothing else does that.
    return f"{mine}{groups}{named}Environment=PYTHONSAFEPATH=1 POLARS_SKIP_CPU_CHECK=1\n"


def _limits(unit: Unit) -> str:
    return f"""\
MemoryHigh={_share(unit.memory)}
MemoryMax={unit.memory}
OOMPolicy=continue
TasksMax=4096
LimitNOFILE=65536
"""


def _share(memory: str) -> str:
    """Four fifths: where it is slowed down, before it is killed."""
    return f"{(int(memory[:-1]) << 10 * ('KMGT'.index(memory[-1]))) * 4 // 5}K"


def _sandbox(unit: Unit) -> str:
    families = "AF_UNIX AF_INET AF_INET6" if unit.has_network else "AF_UNIX"
    mask = "0022" if unit.writes or unit.written else "0077"  # what stands outside the state is for others
    lines = f"RestrictAddressFamilies={families}\n{_COMMON}UMask={mask}\n"
    if unit.is_of_user:
        return lines
    lines += _OF_THE_SYSTEM + ("" if unit.has_network else "PrivateNetwork=yes\n")
    lines += f"ProtectHome={'yes' if unit.hides_homes else 'tmpfs'}\n"
    lines += "".join(f"BindReadOnlyPaths={_bound(one)}\n" for one in unit.reads)
    lines += "".join(f"BindPaths={_bound(one)}\n" for one in unit.writes)
    return lines + "".join(f"ReadWritePaths={listed(one)}\n" for one in unit.written)


# What a person has named.


def word(text: str) -> str:
    """One word of a command: no specifier, no variable, no quote of its own counts."""
    return listed(text).replace("$", "$$")


def listed(text: str) -> str:
    """One of several values of a line."""
    return text if _PLAIN.fullmatch(text) else f'"{_quoted(text)}"'


def path(text: str) -> str:
    """The only value of a line, where nothing can be quoted. Raises PlanError."""
    if not text.isprintable() or text != text.strip() or text.endswith("\\"):
        raise PlanError(f"{text!r} cannot stand in a unit file", word=text)
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    return "".join(_ESCAPES.get(c) or (c if c.isprintable() else _coded(c)) for c in text)


def _coded(character: str) -> str:
    code = ord(character)
    if 0xD800 <= code < 0xE000:
        raise PlanError("a name that is not UTF-8 cannot stand in a unit file")
    return f"\\x{code:02x}" if code < 0x80 else f"\\U{code:08x}"


def _program(text: str) -> str:
    """Variables do not count in it, and cannot be told from dollars either."""
    if "$" in text:
        raise PlanError(f"{text} cannot be started by a unit: its path has a $", word=text)
    return word(text)


def _bound(text: str) -> str:
    if ":" in text:
        raise PlanError(f"{text} is hidden from services, and a path with a colon cannot be shown to them", word=text)
    return listed(text)
