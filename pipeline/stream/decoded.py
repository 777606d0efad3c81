"""What a topic's records became: on its way from the decoder's connection to that on which deltas are made.

A batch is decoded on a connection of its own, which yields Arrow tables; `receive` gives the other one their samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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


def receive(con: duckdb.DuckDBPyConnection, event: EventType, samples: pa.Table) -> None:
    """Make `batch_{view}` of `samples`, as they are: to copy them costs more than to scan them where they lie.

    Its columns are those of `Decoded.samples` but the dimensions, which follow from `series`.
    """
    con.register(_batch(event), samples.drop_columns([d.name for d in event.dimensions]))


def forget(con: duckdb.DuckDBPyConnection, event: EventType) -> None:
    """Take away what `receive` has made: the samples are large."""
    con.unregister(_batch(event))


def _batch(event: EventType) -> str:
    return f"batch_{event.view}"


def whole_measures(event: EventType, samples: pa.Table) -> frozenset[str]:
    """The measures that no sample lacks."""
    names = (m.name for m in (*event.numbers, *event.texts))
    return frozenset(name for name in names if not samples[name].null_count)


def met_series(decoded: Decoded) -> pa.Table:
    """The series that were met first (series, dimensions), some of them perhaps several times."""
    texts = ((d.name, pa.string()) for d in decoded.event.dimensions)
    schema = pa.schema([("series", pa.uint64()), *texts])
    found = [met.select(schema.names).cast(schema) for met in decoded.met]
    return pa.concat_tables(found) if found else schema.empty_table()


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
