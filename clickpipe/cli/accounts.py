"""The summary at the end of a run, on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clickpipe.cli.words import say
from clickpipe.core.bywindow import NAMES
from clickpipe.core.meter import Ledger, describe
from clickpipe.core.time import instant_text

if TYPE_CHECKING:
    from clickpipe.engine.local import Outcome


def report(outcome: Outcome) -> None:
    """What became of every record, and where those are that left."""
    if not outcome.has_sink:
        return
    words = ["read", *["results"] * (len(outcome.accounts) - 1)]
    for ledger, word in zip(outcome.accounts, words, strict=True):
        if not ledger.pieces:
            _tell(ledger, word)
    if any(ledger.late for ledger in outcome.accounts) and outcome.late_path:
        say(f"late records: {outcome.late_path}", late_path=outcome.late_path)
    if any(ledger.dead for ledger in outcome.accounts) and outcome.dead_path:
        say(f"dead letters: {outcome.dead_path}", dead_path=outcome.dead_path)
    if outcome.stopped_at is not None:
        text = f"stopped at checkpoint {outcome.stopped_at}; the next run goes on from there"
        say(text, checkpoint=outcome.stopped_at)


def _tell(ledger: Ledger, word: str) -> None:
    """The account, and those of its windows where they were asked for."""
    say(describe(ledger, word), account=word, counts=_counts(ledger))
    rows = ledger.windows.rows()
    names = [name for name in NAMES if rows]
    before = Ledger(**{name: getattr(ledger, name) - sum(counts[name] for _, counts in rows) for name in names})
    if before.read:
        say(f"  before windows: {describe(before)}", account=word, windows="before", counts=_counts(before))
    for start, counts in rows:
        name = "earlier windows" if start is None else instant_text(start)
        said = {"windows": "earlier"} if start is None else {"window_start": name}
        say(f"  {name}: {describe(Ledger.from_json(counts))}", account=word, **said, counts=_counts(Ledger.from_json(counts)))


def _counts(ledger: Ledger) -> dict[str, int]:
    """Those that are not 0, and how many were read."""
    return {name: count for name, count in ledger.to_json().items() if name != "windows"}
