"""What a delta adds to the tables of one event type, in its apply transaction."""

from __future__ import annotations

from datetime import datetime

import duckdb

from pipeline.catalog import EventType
from pipeline.ledger.deliveries import note_delivered
from pipeline.ledger.pulses import note_pulses
from pipeline.ledger.sightings import note_sightings, share
from pipeline.rollup.aggregate import bits_sql, content_sql, marks_sql, merge_bits_sql, merge_sql
from pipeline.rollup.grid import GRID, WIDTHS, floor_sql
from pipeline.rollup.histogram import BUCKET_KEY, MERGE_BUCKET


def append_rows(con: duckdb.DuckDBPyConnection, event: EventType, known_from: datetime) -> None:
    """Append what stands in the `delta_…_{view}` tables; `known_from` is the first unevaluated instant."""
    view = event.view
    con.execute(
        f"INSERT INTO series_{view} SELECT * FROM known_series_{view} "
        f"WHERE series NOT IN (SELECT series FROM series_{view})"
    )
    if event.retained:
        return _append_retained(con, event, known_from)
    known = f"greatest(TIMESTAMP '{known_from}', window_start + INTERVAL {GRID} SECOND)"
    starts = _starts(con, f"delta_partials_{view}")
    _append(con, f"partials_{view}", known, starts, "series", merge_sql(event))
    if event.histograms:
        _append(con, f"hist_{view}", known, starts, BUCKET_KEY, MERGE_BUCKET)
    if event.entity:
        new = _index_entities(con, event)
        con.execute(f"CREATE OR REPLACE TEMP TABLE delta_bits_{view} AS {bits_sql(event, f'indexed_{view}')}")
        _append(con, f"bits_{view}", known, starts, "series, block", merge_bits_sql(event))
        note_sightings(con, event, known_from)
        note_pulses(con, event, known_from)
        if new:
            share(con, event, f"new_entities_{view}", known_from, min(starts))


def _starts(con: duckdb.DuckDBPyConnection, delta: str) -> frozenset[int]:
    """Where the delta's windows start, in epoch seconds."""
    rows = con.execute(f"SELECT DISTINCT epoch(window_start)::BIGINT FROM {delta}").fetchall()
    return frozenset(start for (start,) in rows)


def _append(
    con: duckdb.DuckDBPyConnection, table: str, known: str, starts: frozenset[int], key: str, merge: str
) -> None:
    """The 10 s rows of `delta_{table}` as they are, the wider ones merged from narrower ones.

    They are merged only where windows meet: to plan it costs more than the work, and most deltas lie within a minute.
    """
    rows, merged = f"delta_{table}", f"merged_{table}"
    con.execute(f"INSERT INTO {table}_{WIDTHS[0].name} BY NAME SELECT *, {known} AS known_from FROM {rows}")
    for width in WIDTHS[1:]:
        start = f"{floor_sql('window_start', width.seconds)} AS window_start"
        wider = frozenset(at // width.seconds for at in starts)
        if len(wider) < len(starts):
            con.execute(
                f"CREATE OR REPLACE TEMP TABLE {merged} AS SELECT {key}, {start}, {merge} FROM {rows} GROUP BY ALL"
            )
            rows, starts = merged, frozenset(at * width.seconds for at in wider)
        con.execute(f"INSERT INTO {table}_{width.name} BY NAME SELECT * REPLACE ({start}) FROM {rows}")


def _index_entities(con: duckdb.DuckDBPyConnection, event: EventType) -> bool:
    """Make `indexed_{view}(series, window_start, entity_id, entity_idx, <marks>)` of the delta's samples.

    True when entities are new to their series: `new_entities_{view}`.

    `entity_bits_{view}` is what entities are found by: joining 600,000 by their names was a tenth of a batch's work.
    By `name` those of other series with the same name are found (sightings.py).
    """
    view, marks = event.view, marks_sql(event)
    con.execute(
        f"CREATE TEMP TABLE IF NOT EXISTS entity_bits_{view} AS "
        f"SELECT {_entity_id('entity')} AS entity_id, idx AS entity_idx, hash(entity) AS name FROM entities_{view}"
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE indexed_{view} AS SELECT series, "
        f"{floor_sql('time', GRID)} AS window_start, entity_id, entity_idx{', ' + marks if marks else ''} "
        f"FROM ({_identified(event)}) LEFT JOIN (SELECT entity_id, entity_idx FROM entity_bits_{view}) USING (entity_id)"
    )
    new = bool(con.execute(f"SELECT 1 FROM indexed_{view} WHERE entity_idx IS NULL LIMIT 1").fetchall())
    if new:
        _add_entities(con, event)
    return new


def _add_entities(con: duckdb.DuckDBPyConnection, event: EventType) -> None:
    """Give every new entity of a series the next free bit, here and in `indexed_{view}`."""
    view = event.view
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE new_entities_{view} AS SELECT series, entity, entity_id, "
        "hash(entity) AS name, coalesce(taken, 0) + row_number() OVER (PARTITION BY series) - 1 AS idx "
        "FROM (SELECT entity_id, any_value(series) AS series, any_value(entity) AS entity "
        f"FROM ({_identified(event)}) SEMI JOIN (FROM indexed_{view} WHERE entity_idx IS NULL) USING (entity_id) "
        "GROUP BY entity_id) "
        f"LEFT JOIN (SELECT series, max(idx) + 1 AS taken FROM entities_{view} GROUP BY series) USING (series)"
    )
    con.execute(f"INSERT INTO entities_{view} SELECT series, entity, idx FROM new_entities_{view}")
    con.execute(f"INSERT INTO entity_bits_{view} SELECT entity_id, idx, name FROM new_entities_{view}")
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE indexed_{view} AS "
        f"SELECT indexed_{view}.* REPLACE (coalesce(entity_idx, idx) AS entity_idx) "
        f"FROM indexed_{view} LEFT JOIN (SELECT entity_id, idx FROM new_entities_{view}) USING (entity_id)"
    )


def _identified(event: EventType) -> str:
    """The delta's samples with their entity and its id."""
    assert event.entity
    name = event.entity.name
    measures = "".join(f", {of}" for of in dict.fromkeys(of for mark in event.marks for of in mark.of))
    return (
        f"SELECT series, time, {name} AS entity, {_entity_id(name)} AS entity_id{measures} "
        f"FROM delta_samples_{event.view}"
    )


def _entity_id(name: str) -> str:
    """An entity of a series as 64 bits, as series are."""
    return f"hash(series, {name})"


def _append_retained(con: duckdb.DuckDBPyConnection, event: EventType, known_from: datetime) -> None:
    own = ", ".join(f'"{name}"' for name, _ in event.columns())
    con.execute(
        f'INSERT INTO {event.kept} BY NAME SELECT identity, {content_sql(event)} AS content, "time", source, id, idx, '
        f"TIMESTAMP '{known_from}' AS known_from, {own} "
        f"FROM delta_samples_{event.view} JOIN known_series_{event.view} USING (series)"
    )
    if not event.closes:
        note_delivered(con, event, known_from)
