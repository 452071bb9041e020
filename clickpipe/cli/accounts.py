"""The summary at the end of a run, on standard error."""

from __future__ import annotations

from clickpipe.cli.words import say
from clickpipe.core.meter import describe
from clickpipe.engine.local import Outcome


def report(outcome: Outcome) -> None:
    """What became of every record, and where those are that left."""
    if not outcome.has_sink:
        return
    words = ["read", *["results"] * (len(outcome.accounts) - 1)]
    lines = [describe(ledger, word) for ledger, word in zip(outcome.accounts, words, strict=True)]
    if any(ledger.late for ledger in outcome.accounts) and outcome.late_path:
        lines.append(f"late records: {outcome.late_path}")
    if any(ledger.dead for ledger in outcome.accounts) and outcome.dead_path:
        lines.append(f"dead letters: {outcome.dead_path}")
    if outcome.stopped_at is not None:
        lines.append(f"stopped at checkpoint {outcome.stopped_at}; the next run goes on from there")
    for line in lines:
        say(line)
