"""Reports of what is measured for a time more than once, and what a delta's change of the roll-ups.

`revised_{view}` has every report.  It is only appended to; which of them counts is worked out by `rollup/revised.py`.
"""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType
from pipeline.ledger.registered import executed
from pipeline.rollup.revised import difference_sql, reports_columns


def revised_table(event: EventType) -> str:
    """The table of the reports of an event type."""
    columns = ", ".join(f'"{name}" {kind}' for name, kind in reports_columns(event))
    return f"revised_{event.view}({columns}, known_from TIMESTAMP)"


def note_reports(con: DuckDBPyConnection, event: EventType, known_from: datetime) -> pa.Table:
    """For the apply transaction: keeps the delta's reports in `added_reports`, and returns what they add as partial rows."""
    table = f"revised_{event.view}"
    names = ", ".join(f'"{name}"' for name, _ in reports_columns(event))
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE reports_before AS SELECT {names} FROM {table} SEMI JOIN added_reports USING (reading)"
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE reports_after AS FROM reports_before UNION ALL SELECT {names} FROM added_reports"
    )
    con.execute(
        f"INSERT INTO {table} BY NAME SELECT *, TIMESTAMP '{known_from}' AS known_from FROM added_reports"
    )
    return executed(con, difference_sql(event, "reports_before", "reports_after"))
