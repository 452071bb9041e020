"""Value of the record that is greatest by another column: arg_max(page, latency_ms); of equals the first that arrived.

Records where either is null are skipped. In windows that overlap equals are of the earliest slide, and of it the first.
"""

from __future__ import annotations

from clickpipe.core.chosen import Chosen


class ArgMax(Chosen):
    ordered_by = "argument"
    greatest = True
