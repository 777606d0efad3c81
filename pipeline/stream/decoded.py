"""What a topic's records became: on its way from the decoder's connection to that of the ledger.

A batch is decoded on a connection of its own, which yields Arrow tables; `receive` puts them into temporary tables of
the ledger's connection, replaced by the next batch.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb
import pyarrow as pa
from aiokafka.structs import ConsumerRecord

from pipeline.catalog import EventType
from pipeline.stream.inspect import Outcome

BEYOND = pa.schema(
    [
        ("row", pa.int32()),
        ("idx", pa.int32()),
        ("measure", pa.string()),
        ("least", pa.float64()),
        ("n", pa.int64()),
    ]
)
"""`n` values of a sample's list, each given as `least`, are greater than that: above the last bound of a source."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A sample, or a whole message, that is not aggregated: `position` is the record's place in the batch.

    `record_time`: naive UTC, never later than the broker's clock.
    """

    position: int
    record: ConsumerRecord
    outcome: Outcome
    record_time: datetime

    @property
    def place(self) -> tuple[int, datetime]:
        """Partition and minute, by which fates are counted."""
        return self.record.partition, self.record_time.replace(second=0, microsecond=0)


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a topic's records became.

    `samples` has the columns row, idx, part, record_time, source, id, time, interval, identity, series and the event type's own,
    its dimensions as dictionaries; `met` the series that were met first, or may have been (series, dimensions).
    """

    event: EventType
    samples: pa.Table
    met: Sequence[pa.Table]
    refusals: Sequence[Refusal]
    aside: pa.Table
    """The measures that `samples` lack, as `aside.ASIDE` has them."""
    arrived: Counter[tuple[int, datetime]]
    """Events that came in by (partition, minute), counted where they are opened: what their fates must add up to."""
    beyond: pa.Table | None = None
    """Of values of histograms those that are only known to be greater, as `BEYOND` has them."""


def receive(con: duckdb.DuckDBPyConnection, decoded: Decoded) -> None:
    """Make `delta_samples_{view}` of what was decoded, and add new series to `known_series_{view}`.

    The samples' columns are those of `Decoded.samples` but the dimensions, which follow from `series`.
    """
    event, view = decoded.event, decoded.event.view
    for met in decoded.met:
        with registered(con, "met", met):
            con.execute(
                f"INSERT INTO known_series_{view} SELECT DISTINCT series, {dimensions_sql(event)} FROM met "
                f"WHERE series NOT IN (SELECT series FROM known_series_{view})"
            )
    with registered(con, "samples", decoded.samples):
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE delta_samples_{view} AS "
            f"SELECT * EXCLUDE ({dimensions_sql(event)}) FROM samples"
        )


def make_tables(con: duckdb.DuckDBPyConnection, event: EventType) -> None:
    """The table of a connection that `receive` adds to."""
    dimensions = ", ".join(f"{d.name} VARCHAR" for d in event.dimensions)
    con.execute(f"CREATE OR REPLACE TEMP TABLE known_series_{event.view}(series UBIGINT, {dimensions})")


def identity_sql(event: EventType) -> str:
    """64 bits of what makes a sample the same sample when it is sent again; a row of two deliveries is two charges."""
    alone = "hash(source, id, idx)"
    if event.delivery is None or event.closes:
        return f"{alone} AS identity"
    return f"if({event.delivery} IS NULL, {alone}, hash(source, id, idx, {event.delivery})) AS identity"


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
