"""Value of the earliest record by event time; of two at the same instant the one that arrived first.

Nulls are skipped. Without event time: by arrival alone. Also written any_value(x).
"""

from __future__ import annotations

from clickpipe.core.chosen import Chosen


class First(Chosen):
    rolled_up = "first"
    ordered_by = "time"
