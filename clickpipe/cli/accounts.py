"""The summary at the end of a run, on standard error."""

from __future__ import annotations

from collections.abc import Iterator

from clickpipe.cli.words import say
from clickpipe.core.bywindow import NAMES
from clickpipe.core.meter import Ledger, describe
from clickpipe.core.time import instant_text
from clickpipe.engine.local import Outcome


def report(outcome: Outcome) -> None:
    """What became of every record, and where those are that left."""
    if not outcome.has_sink:
        return
    words = ["read", *["results"] * (len(outcome.accounts) - 1)]
    said = zip(outcome.accounts, words, strict=True)
    lines = [line for ledger, word in said if not ledger.pieces for line in _lines(ledger, word)]
    if any(ledger.late for ledger in outcome.accounts) and outcome.late_path:
        lines.append(f"late records: {outcome.late_path}")
    if any(ledger.dead for ledger in outcome.accounts) and outcome.dead_path:
        lines.append(f"dead letters: {outcome.dead_path}")
    if outcome.stopped_at is not None:
        lines.append(f"stopped at checkpoint {outcome.stopped_at}; the next run goes on from there")
    for line in lines:
        say(line)


def _lines(ledger: Ledger, word: str) -> Iterator[str]:
    """The account, and those of its windows where they were asked for."""
    yield describe(ledger, word)
    rows = ledger.windows.rows()
    names = [name for name in NAMES if rows]
    before = Ledger(**{name: getattr(ledger, name) - sum(counts[name] for _, counts in rows) for name in names})
    if before.read:
        yield f"  before windows: {describe(before)}"
    for start, counts in rows:
        yield f"  {'earlier windows' if start is None else instant_text(start)}: {describe(Ledger.from_json(counts))}"
