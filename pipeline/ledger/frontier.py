"""How far the watermarks have come, and how far the clauses were evaluated."""

from __future__ import annotations

from duckdb import DuckDBPyConnection


def newest_watermark(con: DuckDBPyConnection) -> int | None:
    """The greatest watermark in epoch seconds; None before the first event."""
    row = con.execute("SELECT epoch(max(watermark))::BIGINT FROM frontier").fetchone()
    return row[0] if row else None


def least_evaluated(con: DuckDBPyConnection, topic: str) -> int | None:
    """The last instant (epoch seconds) that every group of clauses reading `topic` has passed; None without any.

    0 while a group waits for the first records of another topic.
    """
    rows = con.execute('SELECT "group", epoch(instant)::BIGINT FROM evaluated').fetchall()
    return min((at for group, at in rows if topic in group.split("+")), default=None)
