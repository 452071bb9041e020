"""What a person may have meant by a source that is not there: a log, an archive or a view whose name is like it."""

from __future__ import annotations

from difflib import get_close_matches

from clickpipe.core.source import SOURCES
from clickpipe.store import archives, logmeta, views


def meant(address: str) -> str:
    """A hint, or nothing."""
    scheme, colon, name = address.partition(":")
    if scheme == "view" and (close := get_close_matches(name, views.names(), n=1)):
        return f'a view is read by SQL: clickpipe query "SELECT * FROM {close[0]}"'
    if scheme == "view":
        return _like(name) or "a view is read by SQL: clickpipe query"
    if colon and (close := get_close_matches(scheme, SOURCES.names(), n=1)):
        return f'did you mean "{close[0]}:{name}"?'
    return _like(address)


def _like(name: str) -> str:
    """Of what is stored and can be read as a source."""
    known = {one: f"log:{one}" for one in logmeta.names()} | {one: f"archive:{one}" for one in archives.names()}
    close = get_close_matches(name, known, n=1)
    return f'did you mean "{known[close[0]]}"?' if close else ""
