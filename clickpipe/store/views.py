"""Views: the latest rows by key, for dashboards and scripts, in SQLite.

    $CLICKPIPE_HOME/views/trending.sqlite
        trending    the columns of the rows, and _rev, how often a row of that key was given
        _about      which types the columns have, which are the key, and whether rows are revised, as JSON
        _marker     lineage and epoch: which pipeline's rows these are, up to which of its checkpoints

Rows and marker change in one transaction, in WAL mode with synchronous=FULL: it survives a power failure, and a
reader sees the rows of whole checkpoints only, without waiting for the writer.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import orjson
import polars as pl

from clickpipe.errors import DiskError, OutsideError, PlanError, StateError, near
from clickpipe.faults import kill_point
from clickpipe.state.files import make_folder, outside, remove, sync_folder, sync_way
from clickpipe.state.home import home
from clickpipe.state.space import NO_PATIENCE, Patience
from clickpipe.state.trust import link_refused
from clickpipe.store.latest import DELETED, REV

T = TypeVar("T")

WAYS_OUT = (
    "either put the file back from a copy that is as new as the last checkpoint,",
    "or move it away and start anew with --reset at ingest",
)
PATIENCE = 10.0  # seconds that a writer waits for another's transaction
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_TYPES = {"int": "INTEGER", "float": "REAL", "bool": "INTEGER", "time": "TEXT", "str": "TEXT", "json": "TEXT", "sketch": "TEXT"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OURS = ("_marker", "_about")
_MARKER = "CREATE TABLE IF NOT EXISTS _marker (one INTEGER PRIMARY KEY CHECK (one = 1), lineage TEXT, epoch INTEGER)"


@dataclass(frozen=True)
class Marker:
    """Whose rows a view holds, and up to which checkpoint."""

    lineage: str
    epoch: int


class View:
    """One view, open for writing. `types`: as the stream line spells them; `keys`: rows equal in these are one row.

    `revised`: of rows of one key the one with the greatest `rev` counts, where they have it, the last of several; one that
    is `deleted` takes the row away. `keep`: rows whose window ended more than these milliseconds before the newest go.
    """

    def __init__(
        self,
        name: str,
        types: Mapping[str, str],
        keys: Sequence[str],
        patience: Patience = NO_PATIENCE,
        *,
        revised: bool = False,
        keep: int | None = None,
    ) -> None:
        self.name, self.types, self.keys, self._patience, self.revised = name, dict(types), list(keys), patience, revised
        self.keep = keep
        self._shown = {name: kind for name, kind in self.types.items() if not (revised and name == DELETED)}
        make_folder(folder(), patience)
        sync_way(folder())
        self._path = path_of(name)
        if os.path.islink(self._path):
            raise link_refused(self._path)
        self._connection = self._waiting(self._open)
        self._inode = os.stat(self._path).st_ino

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", _MARKER):
                connection.execute(statement)
        except BaseException:
            connection.close()
            raise
        return connection

    def _waiting(self, work: Callable[[], T]) -> T:
        """What `work` gives, once there is space for it. Raises SQLite's errors as ours."""

        def attempt() -> T:
            with told(self._path):
                return work()

        try:
            return self._patience(self._path, attempt)
        except OSError as error:
            raise outside(error, self._path) from None

    def marker(self) -> Marker | None:
        with told(self._path):
            row = self._connection.execute("SELECT lineage, epoch FROM _marker").fetchone()
        return Marker(*row) if row else None

    def apply(self, rows: pl.DataFrame, marker: Marker, *, anew: bool) -> None:
        """These rows and the marker, as one transaction. `anew`: in place of all that was there. Repeating it is harmless."""
        known = self.marker()
        if known and known.lineage == marker.lineage and known.epoch >= marker.epoch:
            return
        if known and known.lineage != marker.lineage and not anew:
            raise StateError(f"{self._path} has been taken over by another pipeline", notes=WAYS_OUT)
        self._check_there()
        self._waiting(lambda: self._transact(rows, marker, anew=anew))
        kill_point("after-view-commit")

    def replace(self, rows: pl.DataFrame, span: tuple[int, int] | None) -> None:
        """These rows in place of those whose window began in `span`, of all if it is None, as one transaction. The marker stays:
        the pipeline goes on. Unit: milliseconds."""
        self._check_there()
        self._waiting(lambda: self._exchange(rows, span))

    def rewind(self, marker: Marker) -> None:
        """The rows are taken for those of an earlier checkpoint: later ones will be given again."""
        with told(self._path):
            self._connection.execute("INSERT OR REPLACE INTO _marker VALUES (1, ?, ?)", (marker.lineage, marker.epoch))

    def _check_there(self) -> None:
        """SQLite writes on into a file that has no name any more, and nobody would ever see those rows."""
        try:
            if os.stat(self._path).st_ino == self._inode:
                return
        except FileNotFoundError:
            pass
        raise StateError(f"{self._path} was taken away while it was written to", notes=WAYS_OUT)

    def _transact(self, rows: pl.DataFrame, marker: Marker, *, anew: bool) -> None:
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            if anew:
                run(f"DROP TABLE IF EXISTS {quoted(self.name)}")
            run(self._table())
            if rows.height:
                self._put(rows)
            self._tell()
            if self.keep is not None:
                self._retain(self.keep)
            run("INSERT OR REPLACE INTO _marker VALUES (1, ?, ?)", (marker.lineage, marker.epoch))
            kill_point("before-view-commit")
            run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite may have rolled back by itself
                run("ROLLBACK")
            raise

    def _exchange(self, rows: pl.DataFrame, span: tuple[int, int] | None) -> None:
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            run(self._table())
            (changes,) = run("PRAGMA user_version").fetchone()
            run(f"PRAGMA user_version = {changes % (1 << 30) + 1}")  # for who asks whether anything has changed
            if span is None:
                run(f"DELETE FROM {quoted(self.name)}")
            else:
                inside = [(key,) for key, start in self._starts() if span[0] <= instant(start) < span[1]]
                self._connection.executemany(f"DELETE FROM {quoted(self.name)} WHERE _key = ?", inside)
            if rows.height:
                self._put(rows)
            self._tell()
            kill_point("before-view-exchange")
            run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                run("ROLLBACK")
            raise

    def _starts(self) -> list[tuple[str, str]]:
        """The keys of all rows, and when their windows began."""
        found = f"SELECT _key, window_start FROM {quoted(self.name)} WHERE window_start NOTNULL"
        return self._connection.execute(found).fetchall()

    def _put(self, rows: pl.DataFrame) -> None:
        """In the order in which they were given."""
        if not self.revised or DELETED not in rows.columns:
            self._connection.executemany(self._upsert(), self._values(rows))
            return
        for part in rows.with_columns(pl.col(DELETED).rle_id().alias("\0part")).partition_by("\0part", maintain_order=True):
            if part[DELETED][0]:
                self._connection.executemany(self._delete(), self._deleted(part))
            else:
                self._connection.executemany(self._upsert(), self._values(part))

    def _tell(self) -> None:
        said = {"types": self._shown, "keys": self.keys, "revised": self.revised}
        self._connection.execute("CREATE TABLE IF NOT EXISTS _about (one INTEGER PRIMARY KEY CHECK (one = 1), said TEXT)")
        self._connection.execute("INSERT OR REPLACE INTO _about VALUES (1, ?)", [orjson.dumps(said).decode()])

    def _retain(self, keep: int) -> None:
        """Texts of times are compared by their seconds: a row may stay for one second more."""
        run, table = self._connection.execute, quoted(self.name)
        run(f"CREATE INDEX IF NOT EXISTS _by_window_end ON {table} (window_end)")
        (newest,) = run(f"SELECT max(window_end) FROM {table}").fetchone()
        if newest is not None:
            run(f"DELETE FROM {table} WHERE window_end < ?", [before(newest, keep)])

    def close(self) -> None:
        self._connection.close()

    def _table(self) -> str:
        columns = "".join(f"{quoted(name)} {_TYPES[kind]}, " for name, kind in self._shown.items())
        return f"CREATE TABLE IF NOT EXISTS {quoted(self.name)} ({columns}_rev INTEGER NOT NULL, _key TEXT PRIMARY KEY)"

    def _upsert(self) -> str:
        names = [quoted(name) for name in self._shown]
        sets = ", ".join(f"{name} = excluded.{name}" for name in names)
        return (
            f"INSERT INTO {quoted(self.name)} ({', '.join(names)}, _rev, _key) VALUES ({', '.join('?' * len(names))}, 0, ?) "
            f"ON CONFLICT (_key) DO UPDATE SET {sets}, _rev = _rev + 1{' WHERE excluded.rev >= rev' if self._counts_revs else ''}"
        )

    @property
    def _counts_revs(self) -> bool:
        return self.revised and REV in self.types

    def _delete(self) -> str:
        return f"DELETE FROM {quoted(self.name)} WHERE _key = ?{' AND rev <= ?' if self._counts_revs else ''}"

    def _deleted(self, rows: pl.DataFrame) -> list[tuple[object, ...]]:
        keys = self._keys_of(rows)
        return list(zip(keys, rows[REV], strict=True)) if self._counts_revs else [(key,) for key in keys]

    def _values(self, rows: pl.DataFrame) -> list[tuple[object, ...]]:
        return [(*row, key) for row, key in zip(rows.select(list(self._shown)).rows(), self._keys_of(rows), strict=True)]

    def _keys_of(self, rows: pl.DataFrame) -> list[str]:
        """A key may be null, and in SQL no null equals another: its JSON does."""
        return [orjson.dumps(key).decode() for key in rows.select(self.keys).rows()]


def folder() -> str:
    return os.path.join(home(), "views")


def path_of(name: str) -> str:
    """Raises PlanError for a name that could lead elsewhere, or that SQLite keeps for itself."""
    if not _NAME.fullmatch(name) or name.startswith((*OURS, "_by_window_end", "sqlite_")):
        raise PlanError(f"a view cannot be called {name!r}", hint="letters, digits, _ and -", word=name)
    return os.path.join(folder(), f"{name}.sqlite")


def names() -> list[str]:
    """All views there are."""
    return sorted(file.removesuffix(".sqlite") for file in _files() if file.endswith(".sqlite"))


def instant(text: str) -> int:
    """A time as a view has it. Unit: epoch milliseconds."""
    return int(text) if "T" not in text else (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)


def before(text: str, milliseconds: int) -> str:
    """A time as a view has it -> what is less than all times that are no more than so much before it."""
    if "T" not in text:
        return str(int(text) - milliseconds)
    return (datetime.fromisoformat(text) - timedelta(milliseconds=milliseconds)).isoformat()[:19]


def drop(name: str) -> None:
    """Raises PlanError for one that is not there, OutsideError for one that somebody writes to."""
    check_there(name)
    path = path_of(name)
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=DELETE")  # fails while anybody else has it open
    except sqlite3.OperationalError:
        raise OutsideError(f"view {name} is in use", hint="stop the pipeline that writes to it, and who reads it") from None
    except sqlite3.DatabaseError:
        pass  # what is damaged can be dropped too
    finally:
        connection.close()
    for left in ("", "-wal", "-shm"):
        remove(path + left)
    sync_folder(folder())


def check_there(name: str) -> None:
    """Raises PlanError unless there is such a view."""
    if not os.path.exists(path_of(name)):
        known = names()
        raise PlanError(
            f'no view "{name}"', hint=near(name, known), notes=[f"there are: {', '.join(known) or 'none'}"], word=name
        )


def _files() -> list[str]:
    return os.listdir(folder()) if os.path.isdir(folder()) else []


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def told(path: str) -> Iterator[None]:
    """SQLite's errors as ours; a full disk as the OSError that it is."""
    try:
        yield
    except sqlite3.Error as error:
        word = str(error)
        if "locked" in word or "busy" in word:
            raise OutsideError(
                f"{path}: another process has held it for {PATIENCE:.0f} s", hint="it must end its transaction"
            ) from None
        if "full" in word:
            raise OSError(errno.ENOSPC, word) from None
        if "I/O" in word:
            raise DiskError(f"{path}: {word}") from None
        if "readonly" in word or "unable to open" in word:
            raise PlanError(f"{path}: {word}") from None
        raise StateError(f"{path}: {word}", notes=WAYS_OUT) from None
