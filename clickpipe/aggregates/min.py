"""Least value; text is compared by code point; null when there was no value."""

from __future__ import annotations

from clickpipe.core.extreme import Least


class Min(Least):
    rolled_up = "min"
