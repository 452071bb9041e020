"""clickpipe: real-time analytics for click and event streams, made of Unix commands.

import clickpipe
clickpipe.scan("archive:clicks").filter(…).collect()        a Polars LazyFrame, see `scan`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

__version__ = "0.1.0"
RELEASED = "2026-11-24"


def scan(address: str) -> pl.LazyFrame:
    """A table as a Polars LazyFrame: `archive:NAME`, `view:NAME`, `log:NAME`, or a name as in `clickpipe query`.

    It reads what is asked of it: columns, and of an archive those files whose times may meet the filter. Times are instants in
    UTC. Raises clickpipe.errors.PlanError, with the nearest name, where there is none, and StateError for one that is damaged.
    """
    from clickpipe.query import tables

    return tables.scan(tables.find(address))
