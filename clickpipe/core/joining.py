"""Which session each record joins, record by record: for the few keys where the order of arrival decides.

It does when a late record finds a session that has ended by its mark: whoever comes before it may still join that one, and it
may not. All other records are put together by columns (core/sessions.py), with the same results.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import polars as pl

from clickpipe.columns import HIDDEN

ROW = HIDDEN + "row"  # the number of a record, or of what was known
LABEL = HIDDEN + "label"  # the number of a session
FROM, TO = HIDDEN + "from", HIDDEN + "to"
IS_OVER, WAITS = HIDDEN + "is over", HIDDEN + "waits"  # nothing joins it any more; records may come before it


@dataclass(frozen=True)
class Joined:
    """Shape: `records` and `parts`: ROW and the LABEL of its session; `sessions`: LABEL, FROM, TO, IS_OVER, WAITS.

    `late`, `corrections`: numbers of records; the latter joined a session that had ended before.
    """

    records: pl.DataFrame
    parts: pl.DataFrame
    sessions: pl.DataFrame
    late: list[int]
    corrections: list[int]


def joined(
    known: Iterable[tuple[int, int, int, int, bool]],
    records: Iterable[tuple[int, int, int, int | None]],
    gap: int,
    lateness: int,
    longest: int | None,
) -> Joined:
    """`known`: key, number, start, end, whether it waits; `records`, in the order of arrival: key, number, time, mark."""
    keys: dict[int, Joining] = {}

    def of(key: int) -> Joining:
        return keys.setdefault(key, Joining(gap, lateness, longest))

    for key, number, start, end, waits in known:
        of(key).know(number, start, end, is_waiting=waits)
    for key, number, time, mark in records:
        of(key).take(number, time, mark)
    found = [(session, waits) for one in keys.values() for waits in (False, True) for session in one.held(waiting=waits)]
    schema = {LABEL: pl.Int64, FROM: pl.Int64, TO: pl.Int64, IS_OVER: pl.Boolean, WAITS: pl.Boolean}
    rows = [(number, one.start, one.end, one.is_over, waits) for number, (one, waits) in enumerate(found)]
    return Joined(
        _labels([one.records for one, _ in found]),
        _labels([one.parts for one, _ in found]),
        pl.DataFrame(rows, schema=schema, orient="row"),
        [number for one in keys.values() for number in one.late],
        [number for one in keys.values() for number in one.corrections],
    )


def _labels(numbers: list[list[int]]) -> pl.DataFrame:
    """Which of the numbered lists each number stands in."""
    rows = [(number, label) for label, some in enumerate(numbers) for number in some]
    return pl.DataFrame(rows, schema={ROW: pl.UInt32, LABEL: pl.Int64}, orient="row")


@dataclass
class Session:
    """Unit: milliseconds. `parts`: numbers of what was known before; `records`: of those that joined."""

    start: int
    end: int
    parts: list[int] = field(default_factory=list)
    records: list[int] = field(default_factory=list)
    is_over: bool = False  # nothing joins it any more


class Joining:
    """The sessions of one key. `longest`: none lasts longer; then records join in the order of their times."""

    def __init__(self, gap: int, lateness: int, longest: int | None) -> None:
        self._gap, self._lateness, self._longest = gap, lateness, longest
        self.sessions: list[Session] = []
        self._waiting: list[tuple[int, int, Session]] = []  # of which earlier records may still come
        self.late: list[int] = []
        self.corrections: list[int] = []  # records that joined a session which had ended before

    def know(self, number: int, start: int, end: int, *, is_waiting: bool) -> None:
        """A session of before, or a record that waits for earlier ones."""
        self._hold(Session(start, end, [number])) if is_waiting else self.sessions.append(Session(start, end, [number]))

    def take(self, number: int, time: int, mark: int | None) -> None:
        """A record, in the order of arrival."""
        one = Session(time, time + self._gap, records=[number])
        if mark is not None:
            self._take_late(one, mark)
        elif self._longest is not None:
            self._hold(one)
        else:
            self._join(one, self._around(one))

    def _take_late(self, one: Session, mark: int) -> None:
        self._settle(mark)
        for session in self.sessions:
            session.is_over |= session.end + self._lateness <= mark
        around = self._around(one)
        joined = around if self._longest is None else self._fitting(one, around, self._longest)
        if not joined and (around or one.end + self._lateness <= mark):
            self.late += one.records
            return
        if any(session.end <= mark for session in joined or [one]):
            self.corrections += one.records
        self._join(one, joined)

    def _settle(self, upto: int) -> None:
        """No record on time comes any more that is older."""
        while self._waiting and self._waiting[0][0] < upto:
            one = self._waiting.pop(0)[2]
            self._join(one, [session for session in self._around(one) if session.start <= one.start][:1])

    def _around(self, one: Session) -> list[Session]:
        """The sessions that it overlaps, the earliest first."""
        found = [s for s in self.sessions if not s.is_over and s.start < one.end and one.start < s.end]
        return sorted(found, key=lambda s: s.start)

    def _fitting(self, one: Session, around: Sequence[Session], longest: int) -> Sequence[Session]:
        """Those that it can join without one that lasts too long: all, the one that it stands in, or the next one."""
        if around and self._is_short([one, *around], longest):
            return around
        if around and (around[0].start <= one.start or self._is_short([one, around[0]], longest)):
            return around[:1]
        return ()

    def _is_short(self, sessions: Sequence[Session], longest: int) -> bool:
        return max(s.end for s in sessions) - min(s.start for s in sessions) <= longest

    def _join(self, one: Session, joined: Sequence[Session]) -> None:
        self.sessions = [session for session in self.sessions if all(session is not other for other in joined)]
        for session in joined:
            one.start, one.end = min(one.start, session.start), max(one.end, session.end)
            one.parts, one.records = session.parts + one.parts, session.records + one.records
        if self._longest is not None:
            nexts = [s.start for s in self.sessions if not s.is_over and s.start > one.start]
            one.end = min(one.end, one.start + self._longest, *nexts)
        self.sessions.append(one)

    def _hold(self, one: Session) -> None:
        insort(self._waiting, (one.start, len(self._waiting), one), key=lambda held: held[0])

    def held(self, *, waiting: bool) -> list[Session]:
        return [one for *_, one in self._waiting] if waiting else self.sessions
