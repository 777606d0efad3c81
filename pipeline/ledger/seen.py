"""The narrow tables of what was last seen, from which `readings.silence` reads who is silent.

`seen_{view}(series, measure, last_time, reach, interval, known_from)` gets one row for each series, and one for each
measure or mark that it reported, and `known_from` of a delta: `last_time` is that of the newest sample, or of the
newest one that has the measure; `measure` is '' for the series as a whole.  `flow_{view}(last_time, reach, known_from)`
gets one for the topic.  `reach` is when the next report was due: by the schema's interval, or by the one that the
source declared, if that is longer: `interval` has that, and is NULL otherwise.

Folding (housekeeping) leaves of everything evaluated a few rows for each series, so a tick scans thousands of narrow
rows instead of a day of partials.
"""

from __future__ import annotations

from datetime import datetime

from duckdb import DuckDBPyConnection

from pipeline.catalog import EventType
from pipeline.readings.reading import EXPECTED, GRID, GRID_US
from pipeline.readings.silence import SERIES, until_sql
from pipeline.rollup.quoting import timestamp


def seen_ddl(view: str) -> tuple[str, ...]:
    """Statements that create the two tables of an event type; append only, no index."""
    return (
        f"CREATE TABLE IF NOT EXISTS seen_{view}(series UBIGINT, measure VARCHAR, last_time TIMESTAMP, "
        "reach TIMESTAMP, interval INTEGER, known_from TIMESTAMP)",
        f"CREATE TABLE IF NOT EXISTS flow_{view}(last_time TIMESTAMP, reach TIMESTAMP, known_from TIMESTAMP)",
    )


def seen_migration(event_type: EventType) -> tuple[str, ...]:
    """Statements that lead from the tables of version 4, which knew of no measures and no intervals, to those of 5."""
    view = event_type.view
    due = f"last_time + INTERVAL {event_type.interval} SECOND"
    recent = (
        f"SELECT {_noted(event_type)}, known_from FROM partials_{view}_10s WHERE last_time >= "
        f"(SELECT max(last_time) FROM partials_{view}_10s) - INTERVAL {EXPECTED} SECOND"
    )
    return (
        f"ALTER TABLE seen_{view} ADD COLUMN IF NOT EXISTS measure VARCHAR DEFAULT '{SERIES}'",
        f"ALTER TABLE seen_{view} ADD COLUMN IF NOT EXISTS reach TIMESTAMP",
        f"ALTER TABLE seen_{view} ADD COLUMN IF NOT EXISTS interval INTEGER",
        f"ALTER TABLE flow_{view} ADD COLUMN IF NOT EXISTS reach TIMESTAMP",
        f"UPDATE seen_{view} SET reach = {due}",
        f"UPDATE flow_{view} SET reach = {due}",
        f"INSERT INTO seen_{view} BY NAME SELECT series, measure, max(last_time) AS last_time, max(reach) AS reach, "
        f"max(interval) AS interval, max(known_from) AS known_from FROM ({_each(event_type, recent)}) "
        f"WHERE measure <> '{SERIES}' GROUP BY ALL",
    )


def note_seen(con: DuckDBPyConnection, event_type: EventType, known_from: datetime) -> None:
    """For the apply transaction: notes what the delta in `delta_partials` has seen.

    `known_from`: the topic's first instant not yet evaluated, naive UTC.
    """
    view = event_type.view
    known = f"greatest($known_from::TIMESTAMP, window_start + INTERVAL {GRID} SECOND) AS known_from"
    rows = f"SELECT {_noted(event_type)}, {known} FROM delta_partials"
    con.execute(
        f"INSERT INTO seen_{view} BY NAME SELECT series, measure, max(last_time) AS last_time, max(reach) AS reach, "
        f"interval, known_from FROM ({_each(event_type, rows)}) GROUP BY series, measure, interval, known_from",
        {"known_from": known_from},
    )
    con.execute(
        f"INSERT INTO flow_{view} BY NAME SELECT max(last_time) AS last_time, "
        f"max({_reach(event_type, 'last_time')}) AS reach, known_from FROM "
        f"(SELECT window_start, last_time, {_longer(event_type)}, {known} FROM delta_partials) GROUP BY known_from",
        {"known_from": known_from},
    )


def _noted(event_type: EventType) -> str:
    """Select list of what is noted of a partial row, its `known_from` apart."""
    times = [f"""{{'measure': '{SERIES}', 'time': last_time}}"""]
    said = {m.name: (m.name,) for m in event_type.numbers} | {mark.name: mark.of for mark in event_type.marks}
    for name, of in said.items():
        newest = ", ".join(f'{measure}_last."time"' for measure in of)
        times.append(f"{{'measure': '{name}', 'time': greatest({newest})}}")
    return f"series, window_start, last_time, {_longer(event_type)}, [{', '.join(times)}] AS noted"


def _longer(event_type: EventType) -> str:
    """The declared interval, where it is longer than that of the type."""
    return f"CASE WHEN interval > {event_type.interval} THEN interval END AS interval"


def _each(event_type: EventType, rows: str) -> str:
    """SELECT of a row for each series and each measure that it has, from `rows` with `_noted`."""
    return (
        f"SELECT series, measure, time AS last_time, {_reach(event_type, 'time')} AS reach, interval, known_from FROM "
        f"(SELECT * EXCLUDE (noted, last_time), unnest(noted, recursive := true) FROM ({rows})) WHERE time IS NOT NULL"
    )


def _reach(event_type: EventType, time: str) -> str:
    """When the next report is due.

    A declared interval counts from its window's end, so that it does not matter which rows of a window came together.
    """
    return (
        f"greatest({time} + INTERVAL {event_type.interval} SECOND, "
        f"window_start + to_seconds({GRID} + interval))"
    )


def fold_seen(con: DuckDBPyConnection, event_type: EventType, evaluated: int) -> None:
    """Housekeeping: forgets what no instant after `evaluated` (epoch seconds) can ask for any more.

    `evaluated` must be the least last-evaluated instant of the groups that read the topic.  Of each series, measure and
    declared interval the row with the latest sample stays, and the one that kept it from silence longest; what is no
    longer expected goes.  Flow is kept for a day, which bounds `silence_is_loss_after`, and its latest row, by which it is
    known when the topic was last heard.
    """
    seen, until = f"seen_{event_type.view}", until_sql(event_type)
    known = f"epoch_us(known_from) // {GRID_US}"
    old = f"{known} <= {evaluated // GRID}"
    kept = f"[arg_max(rowid, last_time), coalesce(arg_max(rowid, {until}) FILTER ({until} >= {known}), -1)]"
    con.execute(
        f"DELETE FROM {seen} WHERE {old} AND rowid NOT IN "
        f"(SELECT unnest({kept}) FROM {seen} WHERE {old} GROUP BY series, measure, interval)"
    )
    con.execute(f"DELETE FROM {seen} WHERE {old} AND last_time < {timestamp(evaluated - EXPECTED)}")
    flow, old = f"flow_{event_type.view}", f"known_from < {timestamp(evaluated - EXPECTED)}"
    con.execute(
        f"DELETE FROM {flow} WHERE {old} AND rowid <> (SELECT arg_max(rowid, last_time) FROM {flow} WHERE {old})"
    )
