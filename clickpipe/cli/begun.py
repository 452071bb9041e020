"""What the beginning of a plan's input says, before anything runs."""

from __future__ import annotations

import dataclasses
from contextlib import closing

from clickpipe.columns import Columns
from clickpipe.core.intake import IngestFeed
from clickpipe.core.lint import Input
from clickpipe.core.operator import Feed
from clickpipe.errors import NothingYet, PlanError
from clickpipe.operators.ingest import Ingest
from clickpipe.plan.blocks import lowered
from clickpipe.plan.explain import tell, wanted
from clickpipe.plan.lint import input_of
from clickpipe.plan.names import meant
from clickpipe.plan.parse import located
from clickpipe.plan.plan import Plan


def check(plan: Plan) -> None:
    """Raises what is wrong with a plan, as `explain` does."""
    columns, _, _ = begun(plan)
    tell(plan if columns is None else lowered(plan, columns), columns)


def begun(plan: Plan) -> tuple[Columns | None, list[str] | None, Input]:
    """Its columns, those that are made of it, and what is known of its records. None: known only when the stream comes.

    Raises what is wrong with it.
    """
    node = plan.source
    if node is None or not isinstance(node.step, Ingest):
        return None, None, input_of(plan)
    with located(node.written):
        known = input_of(plan)
        if not node.step.is_replayable:
            return node.step.declared(), None, known
        feed = _opened(node.step)
    if feed is None:
        return None, None, known
    with closing(feed):
        feed.want(*wanted(plan, feed.columns))
        if isinstance(feed, IngestFeed):
            known = dataclasses.replace(known, disorder=feed.disorder())
        return feed.columns, feed.parsed(), known


def _opened(step: Ingest) -> Feed | None:
    """None of files that are followed and have not come yet: nothing is waited for."""
    try:
        feed = step.beginning()
    except PlanError as error:
        if (step.until and isinstance(error, NothingYet)) or (step.follow and not any(map(_is_stored, step.source))):
            return None
        error.hint = error.hint or next(filter(None, map(meant, step.source)), "")
        raise
    has_records = step.columns or not step.follow or not set(feed.columns.types) <= {step.time}
    return feed if has_records else None


def _is_stored(address: str) -> bool:
    """Whether it names what does not come by itself."""
    return address.startswith(("log:", "archive:"))
