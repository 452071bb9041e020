"""Destinations: where records end up, and in which form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import polars as pl

from clickpipe.batch import Batch
from clickpipe.columns import Columns
from clickpipe.core.guarantee import Guarantee
from clickpipe.core.lint import Advice
from clickpipe.core.operator import Writer
from clickpipe.core.render import as_csv, as_ndjson
from clickpipe.errors import StateError, Unsupported
from clickpipe.state.directory import StateDirectory

_OTHER = re.compile(r"\.(parquet|arrow|feather|ipc|avro|orc|xlsx|tsv|xml|yaml|db|sqlite|duckdb)$")
_SUFFIX = re.compile(r"\.(csv)(\.zst|\.gz)?$")


@dataclass(frozen=True)
class Form:
    """How records are written. `format` None: what the destination's name says."""

    format: str | None
    spell_times: bool
    rows: int
    key: tuple[str, ...] = ()
    keep: int | None = None  # milliseconds: view
    partition_by: tuple[str, ...] = ()  # archive
    partitions: int | None = None  # log
    by: tuple[str, ...] = ()  # log


@dataclass(frozen=True)
class Destination:
    """What an address names."""

    address: str
    form: Form
    takes: ClassVar[frozenset[str]] = frozenset()  # options of sink that are for some destinations only
    shows_all: ClassVar[bool] = False  # of a row that comes again its readers see each form, as rows of its own

    def format(self) -> str:
        if self.form.format is None and (other := _OTHER.search(self.address)):
            reason = "files are written as NDJSON or CSV"
            raise Unsupported(
                "notimpl", f"sink {self.address}", reason, hint=f"--format ndjson writes it as .{other[1]} all the same"
            )
        return self.form.format or ("csv" if _SUFFIX.search(self.address) else "ndjson")

    def needs(self, given: Columns) -> tuple[str, ...]:
        return () if self.format() == "ndjson" else tuple(given.types)

    def open(self, given: Columns) -> Writer:
        raise NotImplementedError

    def open_staged(self, given: Columns, restored: int, saved: Mapping[str, Any] | None, directory: StateDirectory) -> Writer:
        """See SinkStep.open_staged."""
        return self.open(given)

    def open_replacing(self, given: Columns, span: tuple[int, int] | None) -> Writer:
        """A writer whose rows take, at its end and at once, the place of those whose window began in `span`, in milliseconds; of
        all where that is None."""
        if span is None:
            return self.open(given)
        raise Unsupported("notimpl", f"sink {self.address}: replacing a part", "views and archives are replaced in part")

    @classmethod
    def commits(cls, directory: StateDirectory) -> Commits:
        """What makes visible what a writer of this kind has staged, in whatever process."""
        return Commits(directory)

    def advice(self, given: Columns) -> Iterable[Advice]:
        """What is wrong with records of these columns, though they can be written, or cannot."""
        if self.shows_all and given.is_revised:
            what = "rows that come again when they change are all kept: who adds them up counts them again"
            yield Advice("sink-revisions", what, "sink view:NAME keeps the latest of each; or take that with the highest rev")

    def check_middle(self) -> None:
        """Raises PlanError where records cannot be written and passed on."""

    def place(self) -> str:
        """Where it is, in one spelling."""
        return self.address

    def guarantee(self, *, has_checkpoints: bool) -> Guarantee:
        """What a reader may rely on, and why it is not more."""
        raise NotImplementedError


def check_belongs(what: str, known: int | None, restored: int, saved: Mapping[str, Any] | None, pipeline: str) -> None:
    """Raises StateError where rows and checkpoint do not belong together. `known`: the newest checkpoint whose rows `what` holds;
    `restored`: the one to go on from, 0 for none, and `saved` what it says of this sink, with `before`, the newest that was
    committed when it was made."""
    if known is not None and known > restored:
        raise StateError(
            f"{what} holds rows that checkpoint {restored} of {pipeline} does not know of",
            notes=["newer checkpoints are gone", "--reset at ingest begins anew"],
        )
    if saved and saved["before"] is not None and (known is None or known < saved["before"]):
        has = "is empty or was deleted" if known is None else f"holds rows up to checkpoint {known} only"
        raise StateError(
            f"{what} {has}, and those up to checkpoint {saved['before']} had been given",
            notes=["either put it back from a copy,", "or start anew with --reset at ingest"],
        )


class Commits:
    """Makes visible what one sink has staged, from nothing but what the manifest says of it.

    `directory`: where the pipeline's checkpoints are.
    """

    def __init__(self, directory: StateDirectory) -> None:
        self._directory = directory

    def commit(self, said: Mapping[str, Any]) -> None:
        """To be seen from here on. Repeating it is harmless. Raises StateError when it cannot be done."""

    def check_rewind(self, said: Mapping[str, Any]) -> None:
        """Raises StateError when what was committed after this cannot be taken back."""

    def rewind(self, said: Mapping[str, Any]) -> str:
        """Take back what was committed after this. What a person should know of it."""
        return ""

    def close(self) -> None:
        """No more commits will come."""


class Renderer:
    """Batches -> bytes of one output: the header of a CSV comes once."""

    def __init__(self, form: Form, format_: str, given: Columns, *, goes_on: bool = False) -> None:
        self._form, self._format, self._given = form, format_, given
        self.is_first = not goes_on

    def rest(self) -> bytes:
        """What is still to be written at the end: the header of a CSV without records."""
        if self._format == "csv" and self.is_first:
            return self.bytes(Batch(pl.DataFrame(schema=self._given.schema()), self._given))
        return b""

    def bytes(self, batch: Batch) -> bytes:
        if self._format == "ndjson":
            return as_ndjson(batch, self._form.spell_times)
        first, self.is_first = self.is_first, False
        return as_csv(batch, self._form.spell_times, header=first)
