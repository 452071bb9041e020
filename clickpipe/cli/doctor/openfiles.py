"""How many files a process may have open: one for each client and each file that is followed."""

from __future__ import annotations

import resource
from dataclasses import dataclass

from clickpipe.cli.doctor.verdict import Verdict, bad, note, ok
from clickpipe.engine.limits import FILES

_MANY, _ENOUGH = 1_024, 8_192


@dataclass(frozen=True)
class Found:
    """None: as many as it likes."""

    soft: int | None
    hard: int | None


def look(_: str) -> Found:
    soft, hard = (None if one == resource.RLIM_INFINITY else one for one in resource.getrlimit(resource.RLIMIT_NOFILE))
    return Found(soft, hard)


def verdict(found: Found) -> Verdict:
    if found.soft is None:
        return ok("as many as a process likes")
    text = f"{found.soft:,} for each process, which raises that to " + (
        "what it likes" if found.hard is None else f"{found.hard:,}"
    )
    if found.hard is None or found.hard >= _MANY:
        return ok(text)
    remedy = f"as root: ulimit -Hn {_ENOUGH} in the shell, LimitNOFILE={_ENOUGH} in a unit of systemd"
    if found.hard < FILES:
        return bad(f"{text}: no step can begin", remedy)
    return note(f"{text}: enough for some {found.hard - FILES:,} clients or followed files", remedy)
