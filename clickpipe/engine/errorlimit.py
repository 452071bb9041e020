"""`--max-errors N|P%`: how many bad records are too many."""

from __future__ import annotations

from clickpipe.core.meter import Ledger
from clickpipe.errors import DataError, PlanError

_ENOUGH_FOR_PERCENT = 1_000


class ErrorLimit:
    """Judges how many records were bad so far.

    A number is judged at each bad record, and a percentage at the end, so that batch sizes do not matter. Live input,
    which may have no end, is judged by a percentage as it comes, from 1,000 records on.
    """

    def __init__(self, text: str | None, *, is_live: bool = False) -> None:
        self.text, self._is_live = text, is_live
        try:
            self._most = None if text is None else float(text.removesuffix("%"))
        except ValueError:
            raise PlanError(f'--max-errors "{text}" is neither a number nor a percentage', word=text or "") from None

    def check(self, ledger: Ledger, *, final: bool) -> None:
        """Raises DataError."""
        if self._most is None or self.text is None:
            return
        if not self.text.endswith("%"):
            too_many = ledger.dead > self._most
        elif final or (self._is_live and ledger.read >= _ENOUGH_FOR_PERCENT):
            too_many = ledger.dead * 100 > self._most * ledger.read
        else:
            return
        if too_many:
            raise DataError(f"{ledger.dead:,} of {ledger.read:,} records are bad, more than --max-errors {self.text} allows")
