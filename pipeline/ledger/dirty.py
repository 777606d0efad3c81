"""Marks of what has changed since it was published: the minutes of each published table, in the table `dirty`.

They are made in the transaction that changes the rows, and taken away by the one that writes the files anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType
from pipeline.ledger.deliveries import by_itself
from pipeline.rollup.quoting import quoted


def dirty_sql(view: str, rows: str) -> str:
    """An INSERT that marks what `rows` touch; to be run in the transaction that appends them.

    `view` is an event type's, and `rows` has the delta's window starts of any width up to a minute.
    """
    return f"INSERT INTO dirty SELECT DISTINCT '{view}', time_bucket(INTERVAL 1 MINUTE, window_start) FROM {rows}"


def charges_dirty_sql(event_type: EventType, rows: str) -> str:
    """The same for charges: also the windows that earlier revisions of the same charges counted in.

    Those of a delivery change nothing before it is whole (deliveries.py).  `rows` has the new charges' source, id, idx and
    window column; run it after they were appended.
    """
    column = quoted(event_type.window_time or "time")
    return (
        f"INSERT INTO dirty SELECT DISTINCT '{event_type.view}', time_bucket(INTERVAL 1 MINUTE, {column}) "
        f"FROM charges SEMI JOIN (SELECT source, id, idx FROM {rows} WHERE {by_itself(event_type)}) USING (source, id, idx)"
    )


def mark_dirty(con: DuckDBPyConnection, table: str, times: Iterable[datetime | None]) -> None:
    """The same for rows of these times (naive UTC), at hand; None marks a table of one file."""
    if found := list(set(times)):
        con.execute(
            "INSERT INTO dirty SELECT DISTINCT ?, time_bucket(INTERVAL 1 MINUTE, unnest(?::TIMESTAMP[]))",
            [table, found],
        )
