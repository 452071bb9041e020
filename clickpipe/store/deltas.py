"""Tables of Delta Lake, written through the library deltalake, whose commits do not survive a power loss by themselves.

    clicks/part-c-9f86d081-000000000041-1.parquet     ours, durable before the log names it: readers look there first
    clicks/_delta_log/00000000000000000042.json       names it, with the lineage and the checkpoint; we sync it

Whether a checkpoint is in the table is asked of the handle that then commits it: the library records such numbers and enforces
nothing, but a handle behind which somebody else has committed the same lineage fails.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from clickpipe.errors import OutsideError, PlanError, StateError, Unsupported
from clickpipe.faults import kill_point
from clickpipe.state.files import make_folder, outside, sync_file, sync_folder, sync_way

KINDS = {"long": "int", "double": "float", "boolean": "bool", "string": "str", "timestamp": "time"}
_NAMES = {kind: name for name, kind in KINDS.items()} | {"json": "string", "sketch": "string"}
_CHECKPOINT = 100  # versions after which the log is put together
_TRIES = 20  # of a commit that others come before
_ENTRY = re.compile(r"(\d{20})\.json")


@dataclass(frozen=True)
class DeltaFile:
    """One Parquet file. `stats`: as the log has them, JSON in text."""

    path: str  # below the table's folder
    bytes: int
    stats: str


@dataclass(frozen=True)
class Commit:
    """What one checkpoint adds. `replaces`: files whose names match this go, and were written before the pipeline began anew."""

    files: Sequence[DeltaFile]
    app: str
    epoch: int
    replaces: str = ""


class DeltaTableFolder:
    """One table. Raises PlanError where the library is not installed, and for an address that is no path."""

    def __init__(self, path: str) -> None:
        if re.match(r"[a-z][a-z0-9+]*://", path):
            raise Unsupported("notimpl", f"delta:{path}", "tables in folders of this machine are written", word=path)
        _library()
        self.path = os.path.abspath(path)
        self._log = os.path.join(self.path, "_delta_log")

    def prepare(self, types: Mapping[str, str]) -> dict[str, str]:
        """The table is there and has these columns. The type of each in the table. Raises StateError, DiskError, Unsupported."""
        deltalake = _library()
        if not os.path.isdir(self._log):
            make_folder(self.path)
            fields = [deltalake.Field(name, _NAMES[kind]) for name, kind in types.items()]
            self._called(lambda: deltalake.DeltaTable.create(self.path, deltalake.Schema(fields), mode="ignore"))
            sync_way(self._log)
        table = self._open()
        there = self._types(table)
        new = [deltalake.Field(name, _NAMES[kind]) for name, kind in types.items() if name not in there]
        if new:
            self._called(lambda: table.alter.add_columns(new))
        self._sync(0)
        return self._types(self._open())

    def epoch(self, app: str) -> int | None:
        """The newest checkpoint of a lineage that is in the table."""
        known: int | None = self._open().transaction_version(app) if os.path.isdir(self._log) else None
        return known

    def commit(self, said: Commit) -> None:
        """Its files belong to the table from here on. Repeating it is harmless. Raises StateError, OutsideError, DiskError."""
        for _ in range(_TRIES):
            table = self._open()
            version = table.version()
            known = table.transaction_version(said.app)
            if known is not None and known >= said.epoch:
                return self._sync(max(0, version - _CHECKPOINT))  # whoever committed it may have died behind that
            if self._is_committed(table, said):
                kill_point("after-delta-commit")
                return self._settled(version)
        raise OutsideError(f"{self.path}: others commit all the time")

    def _is_committed(self, table: Any, said: Commit) -> bool:
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import CommitProperties, PostCommitHookProperties, Transaction

        actions = [*self._removed(table, said), *self._added(said)]
        properties = CommitProperties(app_transactions=[Transaction(said.app, said.epoch)])
        hooks = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)  # they would not be synced
        try:
            self._called(
                lambda: table.create_write_transaction(
                    actions, "append", table.schema(), commit_properties=properties, post_commithook_properties=hooks
                ),
                CommitFailedError,
            )
        except CommitFailedError:
            return False
        return True

    def _added(self, said: Commit) -> Iterator[Any]:
        from deltalake.transaction import AddAction

        for file in said.files:
            path = os.path.join(self.path, file.path)
            if not os.path.exists(path) or os.stat(path).st_size != file.bytes:
                raise StateError(f"{path} was to be committed, and is gone or changed")
            yield AddAction(file.path, file.bytes, {}, int(time.time() * 1_000), True, file.stats)

    def _removed(self, table: Any, said: Commit) -> Iterator[Any]:
        from deltalake.transaction import RemoveAction

        ours = {file.path for file in said.files}
        for path in (os.path.basename(uri) for uri in table.file_uris()) if said.replaces else ():
            if re.fullmatch(said.replaces, path) and path not in ours:
                yield RemoveAction(path, True, int(time.time() * 1_000))

    def _settled(self, before: int) -> None:
        """What was committed survives; now and then the log is put together."""
        self._sync(before + 1)
        table = self._open()
        if table.version() // _CHECKPOINT > before // _CHECKPOINT:
            self._called(table.create_checkpoint)
            for name in os.listdir(self._log):
                if name == "_last_checkpoint" or (".checkpoint." in name and int(name[:20]) >= before):
                    sync_file(os.path.join(self._log, name))
            sync_folder(self._log)

    def _sync(self, first: int) -> None:
        """Entries of the log from this number on."""
        for number, name in self._entries():
            if number >= first:
                sync_file(os.path.join(self._log, name))
        sync_folder(self._log)

    def _entries(self) -> list[tuple[int, str]]:
        found = [match for name in os.listdir(self._log) if (match := _ENTRY.fullmatch(name))]
        return sorted((int(match[1]), match[0]) for match in found)

    def _open(self) -> Any:
        """A handle of the newest version. Raises StateError."""
        self._check_newest()
        return self._called(lambda: _library().DeltaTable(self.path))

    def _check_newest(self) -> None:
        """An entry that a power loss has left empty would be read as if it said nothing."""
        for _, name in self._entries()[-1:]:
            path = os.path.join(self._log, name)
            with open(path, "rb") as file:
                lines = file.read().splitlines()
            try:
                is_whole = bool([orjson.loads(line) for line in lines])
            except orjson.JSONDecodeError:
                is_whole = False
            if not is_whole:
                notes = ["a power loss leaves such a one: take it away, and run the same line again"]
                raise StateError(f"{path}, the newest entry of the table's log, is torn", notes=notes)

    def _types(self, table: Any) -> dict[str, str]:
        """Raises Unsupported for a table that asks more of a writer."""
        if table.metadata().partition_columns:
            raise Unsupported("notimpl", f"delta:{self.path}", "it is partitioned; tables without partitions are written")
        if table.protocol().min_writer_version > 2:
            raise Unsupported("notimpl", f"delta:{self.path}", "it has rules for its rows, which clickpipe does not check")
        types = {}
        for field in table.schema().fields:
            kind = KINDS.get(getattr(field.type, "type", ""))
            if kind is None or not field.nullable:
                what = f"{field.type}" if field.nullable else f"{field.type}, never null"
                raise Unsupported(
                    "notimpl", f"delta:{self.path}", f'column "{field.name}" is {what}; there are {", ".join(KINDS)}'
                )
            types[field.name] = kind
        return types

    def _called(self, call: Any, *but: type[Exception]) -> Any:
        """What the library gives; its errors as ours."""
        from deltalake.exceptions import DeltaError

        try:
            return call()
        except but:
            raise
        except DeltaError as error:
            raise StateError(f"{self.path}: {str(error).splitlines()[0]}") from None
        except OSError as error:
            raise outside(error, self.path) if error.errno else OutsideError(f"{self.path}: {error}") from None


def _library() -> Any:
    try:
        import deltalake
    except ImportError:
        raise PlanError("delta: needs the library deltalake", hint="pip install 'clickpipe[delta]'") from None
    return deltalake
