"""Sources: where raw bytes come from, split by split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from clickpipe.core.address import part_of
from clickpipe.core.catalog import Catalog
from clickpipe.core.operator import Feed
from clickpipe.errors import PlanError
from clickpipe.lines import Block
from clickpipe.wire.pump import Arriving

if TYPE_CHECKING:
    from clickpipe.core.eventtime import EventTime
    from clickpipe.core.format import Format
    from clickpipe.core.watched import Watched

SOURCES = Catalog("clickpipe.sources", "source")


@dataclass(frozen=True)
class Admission:
    """Who may connect to a source, and how long they may be silent in the middle of a line. Unit: seconds."""

    silence: float = 30.0
    most: int = 1_000
    cert: str | None = None
    key: str | None = None
    ca: str | None = None
    is_open: bool = False  # to everybody, from everywhere: a person wants it


@dataclass(frozen=True)
class Arrived:
    """A piece of a split that arrived at one time. `end`: where it ends, in bytes; `arrival`: epoch milliseconds."""

    end: int
    arrival: int


class Split:
    """An independent, ordered part of a source. `name` stands in messages and dead letters."""

    name: str
    noun = "file"  # what it is
    keeps_arrivals = False  # when its records arrived is known, also long after
    begin = 0  # where reading begins, in bytes
    goes_on = False  # it ends where it was bounded, and a last line without its newline is left for another time
    can_be_read_again = False
    is_shared = False  # many write to it, each an input of its own; whole records of theirs come, without their header lines

    def listen(
        self,
        admission: Admission,
        whole: Callable[[bytes], int],
        begin: Callable[[Block], Block],
        say: Callable[[str], None],
    ) -> None:
        """Where others connect to it: from now on they can. Raises PlanError or OutsideError.

        `whole` and `begin`: of its format. `say`: what a person should know.
        """

    def end(self) -> None:
        """One that would never end by itself ends with what has arrived. May be called in a signal handler."""

    def inbox(self) -> Arriving | None:
        """A live split: more may come at any time, and the inbox can wait for it."""
        return None

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """A split at rest: its bytes from `offset` on, some MiB at a time. Raises OutsideError or DataError."""
        return iter(())

    def peeked(self, offset: int) -> Iterator[bytes]:
        """The same as `chunks`, in small pieces, of one that can be read again."""
        return self.chunks(offset)

    def hold(self) -> None:
        """What it is now is what will be read, whatever has its name by then."""

    def let_go(self) -> None:
        """Nothing of it is open, until it is read: by then it must be what it is now."""

    def extent(self, position: int) -> tuple[int, int] | None:
        """How much of it was read, and how much it has in all, in one unit. `position`: bytes of text that were handed on. None:
        it cannot be told. Another thread may ask."""
        return None

    def bound(self) -> None:
        """From here on it ends where it ends now, whatever is added to it meanwhile. Raises PlanError where that is unknown."""

    def left(self, offset: int) -> int:
        """Of one that was bounded: bytes behind `offset` that another run has to read."""
        return 0

    def silence(self) -> float | None:
        """For how many seconds nothing has been added to it; None: nobody knows."""
        return None

    def arrived(self, block: Block) -> Sequence[Arrived]:
        """When the pieces of a block that `chunks` gave had arrived, in order. Empty: nobody knows."""
        return ()

    def identity(self, offset: int) -> Mapping[str, Any]:
        """What tells these bytes, up to `offset`, from others of the same name. Empty: they cannot be read again."""
        return {}

    def close(self) -> None:
        """It was read to its end, or nobody wants the rest, and nobody asks for its identity any more."""

    @property
    def is_live(self) -> bool:
        return self.inbox() is not None

    @property
    def can_pause(self) -> bool:
        """Whether it may give nothing for a while, and is not at its end."""
        inbox = self.inbox()
        return inbox is not None and inbox.can_pause


@dataclass(frozen=True)
class Directly:
    """What is asked of a source that gives columns. `within`: rows of this time only; milliseconds, the second exclusive;
    `is_exact`: and of no other, where that is event time."""

    pipeline: str
    time: str | None = None
    within: tuple[int | None, int | None] | None = None
    is_exact: bool = False


@dataclass(frozen=True)
class Source:
    """What an address names. Subclasses say how its splits are found."""

    address: str
    is_shared: ClassVar[bool] = False  # others connect to it: it never ends, and cannot be replayed

    def splits(self) -> list[Split]:
        """At least one. Raises PlanError or OutsideError when there is nothing."""
        raise NotImplementedError

    def feed(self, asked: Directly) -> Feed | None:
        """Its records, where they are no text; None: they are. Raises PlanError, StateError."""
        return None

    def starting(self, where: str) -> Source:
        """The same, from elsewhere on: `earliest`, `latest`, an offset or a time. Raises PlanError where it cannot."""
        if where == "earliest":
            return self
        raise PlanError(f"--from is for logs: {self.address} is read from its beginning", word="--from")

    @property
    def is_divided(self) -> bool:
        """Whether its splits go side by side in time, so that none may be read to its end before the others."""
        return False

    def watched(self, form: Format, time: EventTime, say: Callable[[str], None], *, is_bounded: bool) -> Watched | None:
        """What is there and what will come, where it is no file; `is_bounded`: no more than what is there now."""
        return None

    def followed(self) -> str:
        """The path or glob whose files may grow. Raises PlanError where there are none."""
        raise PlanError(f"--follow is for files that grow: {self.address} is none", word="--follow")


def splits_of(addresses: tuple[str, ...], start: str | None = None) -> list[Split]:
    """All that the addresses name, in order. Raises PlanError or OutsideError."""
    if not addresses:
        raise PlanError("no source", hint="a file, a glob, or - for standard input")
    sources = [_started(address, start) for address in addresses]
    for address, source in zip(addresses, sources, strict=True):
        if source.is_shared and len(sources) > 1:
            raise PlanError(f"{address} never ends: it must be the only source", word=address)
    found = [split for source in sources for split in source.splits()]
    names = [split.name for split in found]
    for name, count in Counter(names).items():
        if count > 1:
            raise PlanError(f"{name} is named twice", word=name)
    return found


def direct(addresses: tuple[str, ...], asked: Directly) -> Feed | None:
    """What gives the records of a source that are no text. Raises PlanError, StateError."""
    return _source(addresses[0]).feed(asked) if len(addresses) == 1 else None


def is_direct(addresses: tuple[str, ...]) -> bool:
    """Whether its records are no text."""
    with suppress(PlanError):
        return len(addresses) == 1 and type(_source(addresses[0])).feed is not Source.feed
    return False


def is_shared(address: str) -> bool:
    """Whether others connect to what this names. What is wrong with it is heard when it is opened."""
    with suppress(PlanError):
        return _source(address).is_shared
    return False


def followed(addresses: tuple[str, ...]) -> tuple[str, ...]:
    """Paths and globs that are followed. Raises PlanError."""
    if not addresses:
        raise PlanError("no source", hint="a file or a glob")
    for address in addresses:
        if addresses.count(address) > 1:
            raise PlanError(f"{address} is named twice", word=address)
    return tuple(_source(address).followed() for address in addresses)


def source_of(addresses: tuple[str, ...], start: str | None = None) -> Source | None:
    """The only source that they name, where it is one. Raises PlanError."""
    return _started(addresses[0], start) if len(addresses) == 1 else None


def _started(address: str, start: str | None) -> Source:
    source = _source(address)
    return source if start is None else source.starting(start)


def _source(address: str) -> Source:
    part, rest = part_of(address, SOURCES, "stdin")
    source: Source = SOURCES.find(part, Source)(rest)
    return source
