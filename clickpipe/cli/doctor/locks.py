"""What keeps two runs apart and makes a checkpoint whole: locks, and renaming over a file that is there."""

from __future__ import annotations

import os
from dataclasses import dataclass

from clickpipe.cli.doctor.trial import trial
from clickpipe.cli.doctor.verdict import Verdict, bad, note, ok
from clickpipe.errors import ClickpipeError, OutsideError
from clickpipe.state.files import hold, rename
from clickpipe.state.holders import holders
from clickpipe.state.trust import ELSEWHERE


@dataclass(frozen=True)
class Found:
    """`excludes`: a lock can be held once. `is_told`: the kernel says which process holds it. `replaces`: a file takes another's
    place by being renamed."""

    excludes: bool
    is_told: bool
    replaces: bool


def look(home: str) -> Found:
    with trial(home) as folder:
        path = os.path.join(folder, "lock")
        held = hold(path)
        try:
            return Found(_is_refused(path), holders(path) == [os.getpid()], _replaces(folder))
        finally:
            os.close(held)


def _is_refused(path: str) -> bool:
    try:
        os.close(hold(path))
    except OutsideError:
        return True
    return False


def _replaces(folder: str) -> bool:
    old, new = os.path.join(folder, "old"), os.path.join(folder, "new")
    for path in (old, new):
        with open(path, "w", encoding="ascii") as file:
            file.write(os.path.basename(path))
    try:
        rename(new, old)
    except ClickpipeError:
        return False
    with open(old, encoding="ascii") as file:
        return file.read() == "new"


def verdict(found: Found) -> Verdict:
    if not found.excludes:
        return bad("a lock can be held twice: two runs of one pipeline would write beside each other", ELSEWHERE)
    if not found.replaces:
        return bad("a file cannot take another's place by being renamed: no checkpoint would be whole", ELSEWHERE)
    if not found.is_told:
        return note(
            "locks and renaming work, but /proc/locks does not say who holds a lock",
            "clickpipe status and stop do not see what runs here: ask the processes themselves, with kill -TERM",
        )
    return ok("flock and rename do what they should")
