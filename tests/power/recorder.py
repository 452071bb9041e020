"""From system calls to what they did to a disk: descriptors, offsets and paths are followed, as the kernel does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from power.calls import Call
from power.disk import ROOT, Disk, Length, Name, NoName, Sync, Tree, Write

_IGNORED = ("-shm",)  # SQLite's index of its log, in shared memory: built anew by whoever opens the database first


@dataclass
class Opened:
    """An open file; descriptors that were duplicated share it."""

    node: int
    path: str
    offset: int = 0
    appends: bool = False


class Recorder:
    """Follows the processes of a pipeline below one folder. Raises ValueError for what it does not know."""

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self.disk = Disk()
        self._nodes: dict[str, int] = {"": ROOT}
        self._lengths: dict[int, int] = {}
        self._newest = ROOT
        self._opened: dict[tuple[int, int], Opened] = {}  # by process and descriptor
        self._syncs: dict[int, Sync] = {}  # that have begun

    def start(self, tree: Tree) -> None:
        """What is there, and safe."""
        for path in sorted(tree):
            node = self._new(path, is_folder=tree[path] is None)
            if data := tree[path]:
                self._write(node, 0, data)
        for node in self._nodes.values():
            self.disk.log.append(Sync(node, len(self.disk.log)))

    def follow(self, calls: Iterable[Call]) -> None:
        """The calls of processes that ran together. They are over afterwards."""
        acts = self._acts()
        moments: list[tuple[float, int, Call, Callable[[Call], None]]] = []
        for number, call in enumerate(calls):
            if call.name in ("fsync", "fdatasync"):
                moments.append((call.begun, number, call, self._sync_begins))
                moments.append((call.ended, number, call, self._sync_ends))
            elif call.name in ("open", "openat", "creat"):
                moments.append((call.ended, number, call, self._open))
            else:
                moments.append((call.begun, number, call, acts.get(call.name, self._unknown)))
        for _, _, call, act in sorted(moments, key=lambda moment: moment[:2]):
            act(call)
        self._opened.clear()

    def _acts(self) -> dict[str, Callable[[Call], None]]:
        return {
            "close": self._close,
            "fcntl": self._fcntl,
            "lseek": self._lseek,
            "ftruncate": self._ftruncate,
            "pwrite64": self._write_at,
            **dict.fromkeys(["dup", "dup2", "dup3"], self._dup),
            **dict.fromkeys(["write", "writev"], self._write_on),
            **dict.fromkeys(["mkdir", "mkdirat"], self._mkdir),
            **dict.fromkeys(["unlink", "unlinkat", "rmdir"], self._unlink),
            **dict.fromkeys(["rename", "renameat", "renameat2"], self._rename),
        }

    # Descriptors.

    def _open(self, call: Call) -> None:
        path = self._path(call, 0)
        self._opened.pop((call.process, call.result), None)
        if path is None or path.endswith(_IGNORED):
            return
        node = self._nodes.get(path)
        if node is None:
            node = self._new(path, is_folder=False)
        elif "O_TRUNC" in call.rest:
            self._set_length(node, 0)
        self._opened[call.process, call.result] = Opened(node, path, appends="O_APPEND" in call.rest)

    def _close(self, call: Call) -> None:
        self._opened.pop((call.process, call.number(0)), None)

    def _dup(self, call: Call) -> None:
        self._opened.pop((call.process, call.result), None)
        if opened := self._of(call):
            self._opened[call.process, call.result] = opened

    def _fcntl(self, call: Call) -> None:
        if "F_DUPFD" in call.rest:
            self._dup(call)

    def _lseek(self, call: Call) -> None:
        if opened := self._of(call):
            opened.offset = call.result

    def _of(self, call: Call) -> Opened | None:
        return self._opened.get((call.process, call.number(0)))

    # Data.

    def _write_on(self, call: Call) -> None:
        if opened := self._of(call):
            at = self._lengths.get(opened.node, 0) if opened.appends else opened.offset
            self._write(opened.node, at, b"".join(call.words)[: call.result])
            opened.offset = at + call.result

    def _write_at(self, call: Call) -> None:
        if opened := self._of(call):
            self._write(opened.node, call.number(3), call.words[0][: call.result])

    def _ftruncate(self, call: Call) -> None:
        if opened := self._of(call):
            self._set_length(opened.node, call.number(1))

    def _write(self, node: int, at: int, data: bytes) -> None:
        self.disk.log.append(Write(node, at, data))
        self._lengths[node] = max(self._lengths.get(node, 0), at + len(data))

    def _set_length(self, node: int, length: int) -> None:
        self.disk.log.append(Length(node, length))
        self._lengths[node] = length

    def _sync_begins(self, call: Call) -> None:
        if opened := self._of(call):
            self._syncs[id(call)] = Sync(opened.node, len(self.disk.log))

    def _sync_ends(self, call: Call) -> None:
        if sync := self._syncs.get(id(call)):
            self.disk.log.append(sync)

    # Names.

    def _mkdir(self, call: Call) -> None:
        if (path := self._path(call, 0)) is not None:
            self._new(path, is_folder=True)

    def _unlink(self, call: Call) -> None:
        path = self._path(call, 0)
        node = None if path is None or path.endswith(_IGNORED) else self._nodes.pop(path, None)
        if path is not None and node is not None:  # one of no node was made by a call that a kill has cut short
            self.disk.log.append(NoName(*self._place(path), node))

    def _rename(self, call: Call) -> None:
        path, to = self._path(call, 0), self._path(call, 1)
        if path is None or to is None:
            return
        node = self._nodes[path]
        self._nodes = {
            to + known[len(path) :] if known == path or known.startswith(f"{path}/") else known: number
            for known, number in self._nodes.items()
            if known != to
        }
        self.disk.log.append(Name(*self._place(to), node))

    def _unknown(self, call: Call) -> None:
        words = [self._below(os.fsdecode(word)) for word in call.words]
        if any(words) or (call.rest[:1].isdigit() and self._of(call)):
            raise ValueError(f"no model of {call.name}({call.rest})")

    def _new(self, path: str, *, is_folder: bool) -> int:
        self._newest += 1
        node = self._nodes[path] = self._newest
        if is_folder:
            self.disk.folders.add(node)
        self.disk.log.append(Name(*self._place(path), node))
        return node

    def _place(self, path: str) -> tuple[int, str]:
        folder, _, name = path.rpartition("/")
        return self._nodes[folder], name

    def _path(self, call: Call, at: int) -> str | None:
        """A path below the root, from where the call starts; None for one elsewhere."""
        path = os.fsdecode(call.words[at])
        starts = [part for part in call.rest.split(", ") if part != '""']
        if not path.startswith("/") and call.name.endswith("at") and starts[0].isdigit():
            opened = self._opened.get((call.process, int(starts[0])))
            return None if opened is None else f"{opened.path}/{path}".lstrip("/")
        return self._below(path)

    def _below(self, path: str) -> str | None:
        whole = os.path.normpath(os.path.join(self._root, path))
        if whole == self._root:
            return ""
        return whole[len(self._root) + 1 :] if whole.startswith(f"{self._root}/") else None
