"""The most frequent values with their counts: approx_top_k(page, 20); 10 without a number. Nulls are not counted.

A list of {"value", "count", "error"}, the most frequent first: a value came from count to count + error times.
Where none stands out: one without a value, since none came more than `error` times.
Error: 0 for a group of up to 1,000 different values (10 times the number asked for, if that is more); else at most a
thousandth of its records. Memory: as many rows per group.
Source: Misra-Gries, see core/counters.py.
"""

from __future__ import annotations

from clickpipe.core.counters import Counters


class ApproxTopK(Counters):
    sketched = "top_k"
