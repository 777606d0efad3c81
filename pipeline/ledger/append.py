"""What a delta adds to the tables of one event type, in its apply transaction.

The delta's Arrow tables are registered as `added_{name}`; what is worked out from them here, bits among it, stands in
temporary tables that this file and those that it calls make and read.  Partial rows, which ten statements read, are
copied into one, `delta_partials`: to bind fifty columns of Arrow takes half a millisecond each time.
"""

from __future__ import annotations

import contextlib
from datetime import datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import EventType
from pipeline.ledger.deliveries import note_delivered
from pipeline.ledger.dirty import charges_dirty_sql, dirty_sql
from pipeline.ledger.pulses import note_pulses
from pipeline.ledger.registered import registered
from pipeline.ledger.revisions import note_reports
from pipeline.ledger.seen import note_seen
from pipeline.ledger.sightings import note_sightings, share
from pipeline.rollup.aggregate import bits_sql, merge_bits_sql, merge_sql
from pipeline.rollup.delta import Addition
from pipeline.rollup.grid import GRID, WIDTHS, floor_sql
from pipeline.rollup.histogram import BUCKET_KEY, MERGE_BUCKET


def append_rows(
    con: duckdb.DuckDBPyConnection, event: EventType, added: Addition, known_from: datetime
) -> None:
    """Append what `added` has; `known_from` is the topic's first instant not yet evaluated, naive UTC."""
    tables = added.tables
    with contextlib.ExitStack() as stack:
        for name, table in tables.items():
            stack.enter_context(registered(con, f"added_{name}", table))
        if "series" in tables:
            _append_series(con, event)
        if "charges" in tables:
            _append_charges(con, event, known_from)
        if "reports" in tables:
            tables = {**tables, "partials": _with_revised(con, event, tables, known_from)}
            stack.enter_context(registered(con, "added_partials", tables["partials"]))
        if "partials" in tables:
            _append_rollups(con, event, tables, known_from)


def _with_revised(
    con: duckdb.DuckDBPyConnection, event: EventType, tables: dict[str, pa.Table], known_from: datetime
) -> pa.Table:
    """The delta's partial rows, with those that its reports add."""
    revised = note_reports(con, event, known_from)
    if (partials := tables.get("partials")) is None:
        return revised
    return pa.concat_tables([partials, revised.select(partials.schema.names).cast(partials.schema)])


def _append_series(con: duckdb.DuckDBPyConnection, event: EventType) -> None:
    view = event.view
    con.execute(
        f"INSERT INTO series_{view} SELECT DISTINCT * FROM added_series "
        f"WHERE series NOT IN (SELECT series FROM series_{view})"
    )


def _append_rollups(
    con: duckdb.DuckDBPyConnection, event: EventType, tables: dict[str, pa.Table], known_from: datetime
) -> None:
    view = event.view
    known = f"greatest(TIMESTAMP '{known_from}', window_start + INTERVAL {GRID} SECOND)"
    starts = _starts(tables["partials"])
    con.execute("CREATE OR REPLACE TEMP TABLE delta_partials AS FROM added_partials")
    _append(con, f"partials_{view}", "delta_partials", known, starts, "series", merge_sql(event))
    if "histogram" in tables:
        _append(con, f"hist_{view}", "added_histogram", known, starts, BUCKET_KEY, MERGE_BUCKET)
    con.execute(dirty_sql(view, "delta_partials"))
    note_seen(con, event, known_from)
    if "entities" in tables:
        new = _index_entities(con, event)
        con.execute(f"CREATE OR REPLACE TEMP TABLE indexed_bits AS {bits_sql(event, f'indexed_{view}')}")
        _append(con, f"bits_{view}", "indexed_bits", known, starts, "series, block", merge_bits_sql(event))
        note_sightings(con, event, known_from)
        if new:
            share(con, event, f"new_entities_{view}", known_from, min(starts))
    if "pulses" in tables:
        note_pulses(con, event, known_from)


def _starts(partials: pa.Table) -> frozenset[int]:
    """Where the delta's windows start, in epoch seconds."""
    seconds = pc.unique(partials["window_start"]).cast(pa.timestamp("s")).cast(pa.int64())
    return frozenset(seconds.to_pylist())


def _append(
    con: duckdb.DuckDBPyConnection,
    table: str,
    rows: str,
    known: str,
    starts: frozenset[int],
    key: str,
    merge: str,
) -> None:
    """The 10 s `rows` as they are, the wider ones merged from narrower ones.

    They are merged only where windows meet: to plan it costs more than the work, and most deltas lie within a minute.
    """
    merged = f"merged_{table}"
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


def _entity_id(name: str) -> str:
    """An entity of a series as 64 bits, as series are."""
    return f"hash(series, {name})"


_IDENTIFIED = f"SELECT *, {_entity_id('entity')} AS entity_id FROM added_entities"
"""The delta's entities with their ids."""


def _index_entities(con: duckdb.DuckDBPyConnection, event: EventType) -> bool:
    """Make `indexed_{view}(series, window_start, entity_id, entity_idx, <marks>)` of the delta's entities.

    True when entities are new to their series: `new_entities_{view}`.

    `entity_bits_{view}` is what entities are found by: joining 600,000 by their names was a tenth of a batch's work.
    By `name` those of other series with the same name are found (sightings.py).
    """
    view, marks = event.view, "".join(f", {mark.name}" for mark in event.marks)
    con.execute(
        f"CREATE TEMP TABLE IF NOT EXISTS entity_bits_{view} AS "
        f"SELECT {_entity_id('entity')} AS entity_id, idx AS entity_idx, hash(entity) AS name FROM entities_{view}"
    )
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE indexed_{view} AS SELECT series, window_start, entity_id, entity_idx{marks} "
        f"FROM ({_IDENTIFIED}) LEFT JOIN (SELECT entity_id, entity_idx FROM entity_bits_{view}) USING (entity_id)"
    )
    new = bool(con.execute(f"SELECT 1 FROM indexed_{view} WHERE entity_idx IS NULL LIMIT 1").fetchall())
    if new:
        _add_entities(con, event)
    return new


def _add_entities(con: duckdb.DuckDBPyConnection, event: EventType) -> None:
    """Give every new entity of a series the next free bit, in an order that is always the same, here and in `indexed_{view}`."""
    view = event.view
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE new_entities_{view} AS SELECT series, entity, entity_id, "
        "hash(entity) AS name, coalesce(taken, 0) + row_number() OVER (PARTITION BY series ORDER BY entity_id) - 1 AS idx "
        "FROM (SELECT entity_id, any_value(series) AS series, any_value(entity) AS entity "
        f"FROM ({_IDENTIFIED}) SEMI JOIN (FROM indexed_{view} WHERE entity_idx IS NULL) USING (entity_id) "
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


def _append_charges(con: duckdb.DuckDBPyConnection, event: EventType, known_from: datetime) -> None:
    con.execute(
        f"INSERT INTO {event.kept} BY NAME SELECT *, TIMESTAMP '{known_from}' AS known_from FROM added_charges"
    )
    if not event.closes:
        note_delivered(con, event, known_from)
        con.execute(charges_dirty_sql(event, "added_charges"))
