"""SQLite, in which views are kept: its version, and its write-ahead log, by which a view is read while it is written."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass

from clickpipe.cli.doctor.trial import trial
from clickpipe.cli.doctor.verdict import Verdict, bad, ok

_OLDEST = (3, 24)  # INSERT … ON CONFLICT


@dataclass(frozen=True)
class Found:
    """`journal`: what it has where WAL was asked for. `trouble`: why a second connection does not read what was written."""

    version: tuple[int, ...]
    journal: str
    trouble: str


def look(home: str) -> Found:
    with trial(home) as folder:
        return Found(sqlite3.sqlite_version_info, *_tried(os.path.join(folder, "view.sqlite")))


def _tried(path: str) -> tuple[str, str]:
    journal = ""
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:
            (journal,) = writer.execute("PRAGMA journal_mode=WAL").fetchone()
            writer.execute("PRAGMA synchronous=FULL")
            writer.execute("CREATE TABLE rows (n INTEGER)")
            writer.execute("BEGIN")
            writer.execute("INSERT INTO rows VALUES (1)")
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1)) as reader:
                reader.execute("SELECT count(*) FROM rows").fetchone()
            writer.execute("COMMIT")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":  # which says nothing of the log
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
        return journal, str(error)
    return journal, ""


def verdict(found: Found) -> Verdict:
    text = ".".join(map(str, found.version))
    if found.version < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        return bad(f"{text}, which is too old for sink view:NAME", f"a Python with SQLite {oldest} or newer")
    if found.trouble or found.journal != "wal":
        why = found.trouble or f"it has {found.journal}"
        return bad(f"{text}: no write-ahead log on this file system: {why}", "CLICKPIPE_HOME names another place for views")
    return ok(f"{text}, and its write-ahead log works there")
