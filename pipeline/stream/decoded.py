"""What a topic's records became: on its way from the decoder's connection to that of the ledger.

A batch is decoded on a connection of its own, which yields Arrow tables; `receive` puts them into temporary tables of
the ledger's connection, replaced by the next batch.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import duckdb
import pyarrow as pa
from aiokafka.structs import ConsumerRecord

from pipeline.catalog import EventType
from pipeline.stream.inspect import Outcome

IDENTITY = "hash(source, id, idx) AS identity"
"""64 bits of what makes a sample the same sample when it is sent again."""
NO_SERIES = 0
"""In place of a series: these dimensions are not what the schema says."""
DOUBTFUL = f"NOT ok OR series = {NO_SERIES}"
SERIES_MAP = "quoted UBIGINT, series UBIGINT"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A sample, or a whole message, that is not aggregated: `position` is the record's place in the batch."""

    position: int
    record: ConsumerRecord
    outcome: Outcome


@dataclass(slots=True)
class Decoded:
    """What a topic's records became, until `receive` puts it into the tables of the ledger's connection.

    `parsed` is what the fast path read, the doubtful rows among it marked; `slow` what the slow path accepted in
    their place; `met` the series that no batch before had (quoted, series, dimensions).
    """

    event: EventType
    parsed: pa.Table
    met: pa.Table | None = None
    slow: pa.Table | None = None
    refusals: list[Refusal] = field(default_factory=list)
    arrived: Counter[tuple[int, datetime]] = field(default_factory=Counter)
    """Events that came in by (partition, minute), counted where they are opened: what their fates must add up to."""


def receive(con: duckdb.DuckDBPyConnection, decoded: Decoded) -> None:
    """Make `delta_samples_{view}` of what was decoded, and add new series to `known_series_{view}`.

    The samples' columns: row, idx, part, record_time, source, id, time, identity, series, the event type's columns
    but the dimensions, which follow from `series`.
    """
    event, view = decoded.event, decoded.event.view
    if decoded.met is not None:
        remember(con, view, decoded.met)
        _name_series(con, event, decoded.met, f"series <> {NO_SERIES}")
    with registered(con, "parsed", decoded.parsed):
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE delta_samples_{view} AS SELECT * EXCLUDE (ok, quoted) FROM parsed "
            f"JOIN series_map_{view} USING (quoted) WHERE NOT ({DOUBTFUL})"
        )
    if decoded.slow is None:
        return
    _name_series(con, event, decoded.slow)
    with registered(con, "slow", decoded.slow):
        con.execute(
            f"INSERT INTO delta_samples_{view} BY NAME SELECT * EXCLUDE ({dimensions_sql(event)}), "
            f"{IDENTITY}, {series_sql(event)} AS series FROM slow"
        )


def make_tables(con: duckdb.DuckDBPyConnection, event: EventType) -> None:
    """The tables of a connection that `receive` adds to."""
    dimensions = ", ".join(f"{d.name} VARCHAR" for d in event.dimensions)
    con.execute(f"CREATE OR REPLACE TEMP TABLE series_map_{event.view}({SERIES_MAP})")
    con.execute(f"CREATE OR REPLACE TEMP TABLE known_series_{event.view}(series UBIGINT, {dimensions})")


def remember(con: duckdb.DuckDBPyConnection, view: str, met: pa.Table) -> None:
    with registered(con, "met", met):
        con.execute(f"INSERT INTO series_map_{view} SELECT quoted, series FROM met")


def _name_series(
    con: duckdb.DuckDBPyConnection, event: EventType, rows: pa.Table, where: str = "true"
) -> None:
    """Remember the dimensions of every series in `rows`: a series is a 64-bit hash of them."""
    with registered(con, "named", rows):
        con.execute(
            f"INSERT INTO known_series_{event.view} SELECT DISTINCT {series_sql(event)} AS name, "
            f"{dimensions_sql(event)} FROM named WHERE {where} "
            f"AND name NOT IN (SELECT series FROM known_series_{event.view})"
        )


def series_sql(event: EventType) -> str:
    return f"hash({dimensions_sql(event)})"


def dimensions_sql(event: EventType) -> str:
    return ", ".join(d.name for d in event.dimensions)


@contextlib.contextmanager
def registered(con: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> Iterator[None]:
    con.register(name, table)
    try:
        yield
    finally:
        con.unregister(name)
