"""Accounts: every record that is read ends in exactly one other column of its ledger.

An aggregate ends one ledger and begins the next, for the rows that it makes. One in two phases has a ledger
between them, of the pieces; it must balance, and people are not shown it. Processes hand
their ledgers on in the end signal, so the last one sees the accounts of the whole pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from clickpipe.core.bywindow import ByWindow
from clickpipe.errors import DataError, OursError


@dataclass
class Ledger:
    """Unit: records. A record that stands in several windows is one record."""

    read: int = 0
    aggregated: int = 0
    filtered: int = 0
    duplicate: int = 0
    late: int = 0
    dead: int = 0
    written: int = 0
    partly_late: int = 0  # a note, not an outcome: some of its hopping windows were gone
    held: int = 0  # a step keeps it back until the watermark has passed it …
    released: int = 0  # … and has handed it on since. Both only grow, so they add up over processes and runs
    pieces: int = 0  # not 0: what is counted here are pieces of results, between the two phases of an aggregate
    windows: ByWindow = field(default_factory=ByWindow)  # with --accounts windows: the same, window by window

    def left(self) -> int:
        """Records whose end is not known yet: they went on to the next step or process."""
        outcomes: list[int] = [getattr(self, name) for name in OUTCOMES]
        return self.read - sum(outcomes) - self.held + self.released

    def to_json(self) -> dict[str, Any]:
        counts = {name: count for name in NUMBERS if (count := getattr(self, name)) or name == "read"}
        return counts | ({"windows": self.windows.to_json()} if self.windows else {})

    @staticmethod
    def from_json(said: dict[str, Any]) -> Ledger:
        """Raises DataError for accounts that are none."""
        counts = {name: count for name, count in said.items() if name in NUMBERS}
        try:
            return Ledger(**counts, windows=ByWindow.from_json(said["windows"]) if "windows" in said else ByWindow())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"the accounts in the stream are damaged: {error!r}") from None


NUMBERS = tuple(f.name for f in fields(Ledger) if f.name != "windows")
OUTCOMES = tuple(name for name in NUMBERS if name not in ("read", "partly_late", "held", "released", "pieces"))


def added(one: Ledger, other: Ledger) -> Ledger:
    """The accounts of two stretches of one stream."""
    return Ledger(**{field.name: getattr(one, field.name) + getattr(other, field.name) for field in fields(Ledger)})


def joined(inherited: list[Ledger], own: list[Ledger]) -> list[Ledger]:
    """The accounts of the steps before, and ours: our first ledger goes on where their last one stopped."""
    if not inherited:
        return own
    last, first = inherited[-1], own[0]
    if last.left() != first.read:
        raise DataError(f"the steps before handed on {last.left()} records and {first.read} came")
    for name in (*NUMBERS[1:], "windows"):
        setattr(last, name, getattr(last, name) + getattr(first, name))
    return [*inherited, *own[1:]]


def check(accounts: list[Ledger]) -> None:
    """Raises OursError unless every ledger balances."""
    for ledger in accounts:
        if ledger.left() or min(getattr(ledger, name) for name in OUTCOMES) < 0:
            raise OursError(f"the accounts do not balance: {ledger.left()} records unaccounted for: {describe(ledger)}")
        if ledger.windows.left() or ledger.windows.is_overdrawn():
            raise OursError(f"the accounts per window do not balance: {ledger.windows.left()} records unaccounted for")


def describe(ledger: Ledger, word: str = "read") -> str:
    """`read 10 = aggregated 7 + late 2 + dead letter 1`"""
    spoken = {"dead": "dead letter"}
    parts = [f"{spoken.get(name, name)} {count:,}" for name in OUTCOMES if (count := getattr(ledger, name))]
    if ledger.held > ledger.released:  # the run was stopped, and the next one goes on with them
        parts.append(f"held back {ledger.held - ledger.released:,}")
    note = f" ({ledger.partly_late:,} in some of their windows only)" if ledger.partly_late else ""
    return f"{word} {ledger.read:,} = {' + '.join(parts) or '0'}{note}"
