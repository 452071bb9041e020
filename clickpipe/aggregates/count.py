"""Records: count(*); values that are not null: count(x); different ones, exactly: count(DISTINCT x).

Memory: one number per group; with DISTINCT one row per group and value.
"""

from __future__ import annotations

from clickpipe.core.tally import Tally


class Count(Tally):
    rolled_up = "sum"
    takes_star = True
