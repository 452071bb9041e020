"""The same work in what a user would take instead: python peers.py polars-a|polars-c|duckdb-a|duckdb-b INPUT OUTPUT."""

import sys

work, source, target = sys.argv[1:]

if work == "polars-a":
    import polars as pl

    columns = {"ts": pl.Int64, "page": pl.String, "latency_ms": pl.Int64}
    lazy = pl.scan_ndjson(source, schema=columns).with_columns(w=pl.col("ts") // 5000 * 5000)
    latency = pl.col("latency_ms")
    groups = lazy.group_by("w", "page").agg(n=pl.len(), mean=latency.mean(), slowest=latency.max())
    groups.collect().sort("w", "page").write_ndjson(target)
elif work == "polars-c":
    import polars as pl

    columns = {"event_id": pl.String, "page": pl.String, "country": pl.String, "event": pl.String}
    chosen = pl.scan_ndjson(source, schema=columns).filter(pl.col("event") == "purchase")
    chosen.select("event_id", "page", "country").collect().write_ndjson(target)
elif work == "duckdb-a":
    import duckdb

    duckdb.sql(f"""
        COPY (SELECT ts // 5000 * 5000 AS w, page, count(*) AS n, avg(latency_ms) AS mean, max(latency_ms) AS slowest
              FROM read_ndjson('{source}', columns = {{ts: 'BIGINT', page: 'VARCHAR', latency_ms: 'BIGINT'}})
              GROUP BY ALL ORDER BY ALL) TO '{target}' (FORMAT json)
    """)
elif work == "duckdb-b":
    import duckdb

    duckdb.sql(f"""
        COPY (SELECT ts // 5000 * 5000 AS w, page, count(*) AS n, avg(latency_ms) AS mean, max(latency_ms) AS slowest,
                     approx_quantile(latency_ms, 0.5) AS p50, approx_quantile(latency_ms, 0.99) AS p99,
                     approx_count_distinct(user_id) AS users
              FROM read_ndjson('{source}', columns = {{ts: 'BIGINT', page: 'VARCHAR', latency_ms: 'BIGINT', user_id: 'VARCHAR'}})
              GROUP BY ALL ORDER BY ALL) TO '{target}' (FORMAT json)
    """)
