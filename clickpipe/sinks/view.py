"""A view: the latest row of each key, in a file of SQLite that any program can read.

Guarantee: exactly once with checkpoints; without, one run's rows take the place of the last one's at its end.
Memory: the rows between two checkpoints; without checkpoints all rows.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import polars as pl

from clickpipe.batch import Batch
from clickpipe.columns import Columns
from clickpipe.core.guarantee import EXACTLY_ONCE, WHOLE, Guarantee
from clickpipe.core.lint import Advice
from clickpipe.core.meter import Ledger
from clickpipe.core.operator import Staged, Writer
from clickpipe.core.render import as_table
from clickpipe.core.sink import Commits, Destination
from clickpipe.errors import PlanError, StateError
from clickpipe.state import snapshot
from clickpipe.state.directory import StateDirectory
from clickpipe.state.manifest import digest
from clickpipe.state.space import NO_PATIENCE, Patience
from clickpipe.store.views import Marker, View


class ViewSink(Destination):
    takes: ClassVar[frozenset[str]] = frozenset({"key", "keep"})

    def needs(self, given: Columns) -> tuple[str, ...]:
        return tuple(given.types)

    def open(self, given: Columns) -> Writer:
        return ViewWriter(self._view(given, NO_PATIENCE), self.form.spell_times)

    def open_staged(self, given: Columns, restored: int, saved: Mapping[str, Any] | None, directory: StateDirectory) -> Writer:
        view = self._view(given, directory.patience(f"view {self.address}"))
        lineage = saved["lineage"] if saved else secrets.token_hex(8)
        # The last process may be committing the restored checkpoint again at this moment: the marker may be of the one
        # before it, or, where that commit is the view's first, another pipeline's.
        known = view.marker()
        view.close()
        is_ahead = known and (known.epoch > restored if known.lineage == lineage else bool(saved and not saved["anew"]))
        if is_ahead:
            raise StateError(
                f"view {self.address} holds results that checkpoint {restored} of {directory.name} does not know of",
                notes=["another pipeline writes to it, or newer checkpoints are gone", "--reset at ingest begins anew"],
            )
        if saved and not saved["anew"] and (known is None or known.epoch < saved.get("after", 0)):
            raise _behind(self.address, known, saved, restored)
        after = saved["epoch"] if saved else 0
        return StagedViewWriter(view, self.form.spell_times, lineage, directory, after)

    def open_replacing(self, given: Columns, span: tuple[int, int] | None) -> Writer:
        return ReplacingViewWriter(self._view(given, NO_PATIENCE), self.form.spell_times, span)

    @classmethod
    def commits(cls, directory: StateDirectory) -> Commits:
        return ViewCommits(directory)

    def guarantee(self, *, has_checkpoints: bool) -> Guarantee:
        if has_checkpoints:
            return Guarantee(EXACTLY_ONCE, "rows and the checkpoint's number change in one transaction")
        return Guarantee(WHOLE, "the view changes at the end, in one transaction")

    def advice(self, given: Columns) -> Iterable[Advice]:
        if not (self.form.key or given.key):
            what = "a view keeps the latest row of each key, and these rows have none: a run is refused"
            yield Advice("sink-key", what, "--key COL,…; rows of aggregate --by have one")

    def _view(self, given: Columns, patience: Patience) -> View:
        keys = self.form.key or given.key
        if not keys:
            raise PlanError("a view keeps the latest row of each key: which columns are it?", hint="--key COL,…")
        given.need(keys, " for --key")
        if self.form.keep is not None and given.types.get("window_end") != "time":
            raise PlanError("--keep counts from the end of a row's window, and these rows have none", word="--keep")
        return View(self.address, given.types, keys, patience, revised=given.is_revised, keep=self.form.keep)


def _behind(name: str, known: Marker | None, saved: Mapping[str, Any], restored: int) -> StateError:
    """Going on from there would leave rows out, and nobody would see it."""
    has = f"holds results up to checkpoint {known.epoch} only" if known else "is empty or was deleted"
    return StateError(
        f"view {name} {has}, and those up to checkpoint {saved.get('after', restored)} had been given",
        notes=["either put its file back from a copy,", "or start anew with --reset at ingest"],
    )


class ViewWriter(Writer):
    """One run's rows, in one transaction at its end."""

    def __init__(self, view: View, spell_times: bool) -> None:
        self._view, self._spell_times = view, spell_times
        self._frames: list[pl.DataFrame] = []

    def write(self, batch: Batch) -> None:
        self._frames.append(as_table(batch, self._spell_times))

    def _taken(self) -> pl.DataFrame | None:
        frames, self._frames = self._frames, []
        return pl.concat(frames, how="vertical_relaxed") if frames else None

    def close(self, accounts: list[Ledger]) -> None:
        rows = self._taken()
        self._view.apply(pl.DataFrame() if rows is None else rows, Marker(secrets.token_hex(8), 0), anew=True)
        self._view.close()


class ReplacingViewWriter(ViewWriter):
    """The rows of some windows, in place of those that the view has of them."""

    def __init__(self, view: View, spell_times: bool, span: tuple[int, int] | None) -> None:
        super().__init__(view, spell_times)
        self._span = span

    def close(self, accounts: list[Ledger]) -> None:
        rows = self._taken()
        self._view.replace(pl.DataFrame() if rows is None else rows, self._span)
        self._view.close()


class StagedViewWriter(ViewWriter):
    """The rows between two checkpoints: in a file of the second, then in one transaction with its number.

    `after`: the checkpoint before the first one to come, 0 for none.
    """

    def __init__(self, view: View, spell_times: bool, lineage: str, directory: StateDirectory, after: int) -> None:
        super().__init__(view, spell_times)
        self._file, self._lineage, self._directory, self._after = f"view-{view.name}.rows", lineage, directory, after

    def prepare(self, epoch: int, *, ended: bool) -> Staged:
        rows = self._taken()
        data = b"" if rows is None else snapshot.to_bytes("sink", {"rows": rows})
        file = {"file": self._file, "bytes": len(data), "hash": digest(data)}
        said = {"lineage": self._lineage, "epoch": epoch, "after": self._after, "anew": not self._after}
        said |= {"view": self._view.name, "types": self._view.types, "keys": self._view.keys, "revised": self._view.revised}
        said |= {"keep": self._view.keep, "rows": file if data else None}
        self._after = epoch
        if not data:
            return Staged(said, lambda: None)
        return Staged(said, lambda: self._directory.save(epoch, self._file, data), self._directory.path_of(epoch, self._file))

    def close(self, accounts: list[Ledger]) -> None:
        """The rows are with the checkpoints."""


class ViewCommits(Commits):
    _view: View | None = None

    def commit(self, said: Mapping[str, Any]) -> None:
        patience = self._directory.patience(f"view {said['view']}")
        revised = said.get("revised", False)
        keep = said.get("keep")
        self._view = self._view or View(said["view"], said["types"], said["keys"], patience, revised=revised, keep=keep)
        rows = pl.DataFrame()
        if said["rows"]:
            rows = snapshot.from_bytes(self._directory.read(said["epoch"], said["rows"]))["rows"]
        self._view.apply(rows, Marker(said["lineage"], said["epoch"]), anew=said["anew"])

    def check_rewind(self, said: Mapping[str, Any]) -> None:
        view = View(said["view"], said["types"], said["keys"])
        known = view.marker()
        view.close()
        if known is None or known.lineage != said["lineage"] or known.epoch < said["epoch"]:
            raise StateError(f"view {said['view']} is not the one that checkpoint {said['epoch']} wrote to")

    def rewind(self, said: Mapping[str, Any]) -> str:
        view = View(said["view"], said["types"], said["keys"])
        view.rewind(Marker(said["lineage"], said["epoch"]))
        view.close()
        return f"view {said['view']} keeps the rows that it has until they are given again"

    def close(self) -> None:
        if self._view:
            self._view.close()
