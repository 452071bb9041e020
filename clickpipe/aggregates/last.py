"""Value of the latest record by event time; of two at the same instant the one that arrived last.

Nulls are skipped. Without event time: by arrival alone.
"""

from __future__ import annotations

from clickpipe.core.chosen import Chosen


class Last(Chosen):
    rolled_up = "last"
    ordered_by = "time"
    greatest = True
    newest = True
