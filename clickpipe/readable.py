"""What no parser of expressions takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError

from clickpipe.errors import PlanError


@contextmanager
def readable(text: str) -> Iterator[None]:
    """Raises PlanError for text that is not UTF-8, and where what is done with it finds it nested too deep."""
    if not text.isprintable() and any("\ud800" <= c <= "\udfff" for c in text):
        raise PlanError(f"the expression {text!r} is not UTF-8", word=text)
    try:
        yield
    except (RecursionError, JSONDecodeError):  # the latter of an expression's tree, which Polars gives as JSON
        raise PlanError("the expression is nested too deep, or too long", word=text) from None
