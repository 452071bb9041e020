"""Quantile of a numeric column, within 1 % of what quantile(x, q) gives: approx_quantile(latency_ms, 0.99).

With a list, as in approx_quantile(x, [0.5, 0.99]), a list. approx_quantile(x, 0.99, 0.001) is within 0.1 %.
Negative values are as good as positive ones. Nulls are skipped; null when there was no value.
Error: `accuracy`, of the value, at every quantile, and of every group however small.
Memory: one row per group and bucket: some hundred where values span a few powers of ten; calls over one column share them.
Source: DDSketch, see core/buckets.py.
"""

from __future__ import annotations

from clickpipe.core.buckets import Buckets


class ApproxQuantile(Buckets):
    pass
