"""--until: the moment up to which input is taken, where more may come."""

from __future__ import annotations

from clickpipe.core.time import parse_instant
from clickpipe.errors import PlanError, Unsupported

NOW = "now"
Span = tuple[int | None, int | None]  # milliseconds, the second exclusive


def before(until: str | None, within: Span | None) -> Span | None:
    """Rows of this time only, and none from that moment on. `now`: what is there. Raises PlanError for what is no time."""
    if until in (None, NOW):
        return within
    first, end = within or (None, None)
    instant = _instant(str(until))
    return first, instant if end is None else min(end, instant)


def refuse_time(until: str) -> None:
    """Raises PlanError unless it is now. Where records are out of order, one that is to be left may stand before one that is to
    be taken; a position, which is where the next run goes on, cannot say both."""
    if until == NOW:
        return
    _instant(until)
    raise Unsupported(
        "notimpl",
        f"--until {until}",
        "records that are left would have to be kept for the next run, where they stand between others",
        hint="--until now; by event time: | filter",
        word=until,
    )


def _instant(text: str) -> int:
    try:
        return parse_instant(text)
    except ValueError as error:
        raise PlanError(f"--until: {error}", hint="now, or a time", word=text) from None
