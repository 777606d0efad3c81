"""From records to samples: the vectorised decoder, with the slow path for what it doubts.

The work of one batch stands in temporary tables of the connection, replaced by the next batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
from aiokafka.structs import ConsumerRecord

from pipeline.catalog import EventType
from pipeline.stream.batch import Records, TopicRecords
from pipeline.stream.decode_sql import decode_sql
from pipeline.stream.inspect import Outcome, inspect

_EPOCH = datetime(1970, 1, 1)
_IDENTITY = "hash(source, id, idx) AS identity"
"""64 bits of what makes a sample the same sample when it is sent again."""
_NO_SERIES = 0
"""In place of a series: these dimensions are not what the schema says."""
_DOUBTFUL = f"NOT ok OR series = {_NO_SERIES}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A sample, or a whole message, that is not aggregated: `position` is the record's place in the batch."""

    position: int
    outcome: Outcome


@dataclass(slots=True)
class Decoded:
    """What a topic's records became.  The good samples stand in the temporary table `delta_samples_{view}`.

    Its columns: row, idx, part, record_time, source, id, time, identity, series, the event type's columns
    but the dimensions, which follow from `series` through `known_series_{view}`.
    """

    event: EventType
    records: Records
    refusals: list[Refusal] = field(default_factory=list)
    arrived: Counter[tuple[int, datetime]] = field(default_factory=Counter)
    """Events that came in by (partition, minute), counted where they are opened: what their fates must add up to."""


class Decoder:
    """Decodes batches of one event type; remembers the series it has met (quoted dimensions → series)."""

    def __init__(self, con: duckdb.DuckDBPyConnection, event: EventType, max_bytes: int) -> None:
        self._con = con
        self._event = event
        self._max_bytes = max_bytes
        self._sql = decode_sql(event)
        self._dimensions = tuple(d.name for d in event.dimensions)
        self._series = f"hash({', '.join(self._dimensions)})"
        dimensions = ", ".join(f"{name} VARCHAR" for name in self._dimensions)
        con.execute(f"CREATE OR REPLACE TEMP TABLE series_map_{event.view}(quoted UBIGINT, series UBIGINT)")
        con.execute(f"CREATE OR REPLACE TEMP TABLE known_series_{event.view}(series UBIGINT, {dimensions})")

    def decode(self, topic: TopicRecords) -> Decoded:
        """Decode the records of one topic into `delta_samples_{view}`."""
        found = Decoded(self._event, topic.all)
        self._parse(topic)
        found.arrived.update(self._arrived("true"))
        self._meet_series(topic.all)
        doubtful = self._doubtful(len(topic.all))
        if not doubtful:
            return found
        found.arrived.subtract(self._arrived("row IN (SELECT unnest($rows))", {"rows": list(doubtful)}))
        rows: list[dict[str, Any]] = []
        for position, certain in doubtful.items():
            outcomes = list(self._inspect(topic.all[position]))
            found.arrived[place_of(topic.all[position])] += len(outcomes)
            for outcome in outcomes:
                if outcome.idx in certain:
                    continue
                if outcome.fate == "aggregated":
                    rows.append(self._row(position, topic.all[position], outcome))
                else:
                    found.refusals.append(Refusal(position, outcome))
        self._replace_doubtful(rows)
        return found

    def _parse(self, topic: TopicRecords) -> None:
        """Run the decoder over each content mode that occurs, into `delta_samples_{view}`."""
        con, view = self._con, self._event.view
        parts = []
        for name, table, statements in (
            ("structured", topic.structured, (self._sql.structured_single, self._sql.structured_array)),
            ("binary", topic.binary, (self._sql.binary_single, self._sql.binary_array)),
        ):
            if table is not None:
                con.register(f"records_{name}", table)
                parts += [s.replace("FROM records ", f"FROM records_{name} ") for s in statements]
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE delta_samples_{view} AS SELECT parsed.*, {_IDENTITY}, series "
            f"FROM ({' UNION ALL '.join(parts) or self._nothing()}) parsed "
            f"LEFT JOIN series_map_{view} USING (quoted)"
        )
        for name in ("structured", "binary"):
            con.unregister(f"records_{name}")

    def _arrived(self, where: str, params: dict[str, Any] | None = None) -> dict[tuple[int, datetime], int]:
        rows = self._con.execute(
            "SELECT part, date_trunc('minute', record_time) AS minute, count(*) "
            f"FROM delta_samples_{self._event.view} WHERE {where} GROUP BY ALL",
            params or {},
        ).fetchall()
        return {(part, minute): n for part, minute, n in rows}

    def _nothing(self) -> str:
        """The decoder over no record, for a batch in which no value is even text."""
        none = (
            "(SELECT 0 AS row, 0 AS part, NULL::TIMESTAMP AS record_time, ''::VARCHAR AS value WHERE false)"
        )
        return self._sql.structured_single.replace("FROM records ", f"FROM {none} ")

    def _meet_series(self, records: Records) -> None:
        """Give every new combination of quoted dimensions its series; 0 where the slow path refuses it."""
        view = self._event.view
        new = self._con.execute(
            f"SELECT quoted, min(row), arg_min(idx, row) FROM delta_samples_{view} "
            "WHERE ok AND series IS NULL GROUP BY quoted"
        ).fetchall()
        if not new:
            return
        met = []
        for quoted, position, idx in new:
            found = {o.idx: o.row for o in self._inspect(records[position]) if o.fate == "aggregated"}
            row = found.get(idx, {})
            met.append({"quoted": quoted, "good": idx in found, **{d: row.get(d) for d in self._dimensions}})
        schema = pa.schema([("quoted", pa.uint64()), ("good", pa.bool_()), *_texts(self._dimensions)])
        self._con.register("met", pa.Table.from_pylist(met, schema=schema))
        self._name_series("met WHERE good")
        self._con.execute(
            f"INSERT INTO series_map_{view} SELECT quoted, CASE WHEN good THEN {self._series} ELSE {_NO_SERIES} END "
            "FROM met"
        )
        self._con.unregister("met")
        self._con.execute(
            f"UPDATE delta_samples_{view} AS s SET series = m.series FROM series_map_{view} m "
            "WHERE s.quoted = m.quoted AND s.series IS NULL"
        )

    def _name_series(self, rows: str) -> None:
        """Remember the dimensions of every series in `rows`: a series is a 64-bit hash of them."""
        view, dimensions = self._event.view, ", ".join(self._dimensions)
        self._con.execute(
            f"INSERT INTO known_series_{view} SELECT DISTINCT {self._series} AS series, {dimensions} FROM {rows} "
        )
        self._con.execute(
            f"CREATE OR REPLACE TEMP TABLE known_series_{view} AS SELECT DISTINCT * FROM known_series_{view}"
        )

    def _doubtful(self, count: int) -> dict[int, set[int]]:
        """Positions of messages that need the slow path → the indices of their samples that do not.

        It is asked about the whole message: what the fast path took for one sample may be an array of many.
        """
        samples = f"delta_samples_{self._event.view}"
        positions = self._con.execute(
            f"SELECT row::INTEGER FROM range({count}) t(row) ANTI JOIN {samples} USING (row) "
            f"UNION SELECT row FROM {samples} WHERE {_DOUBTFUL} ORDER BY ALL"
        ).fetchall()
        doubtful: dict[int, set[int]] = {position: set() for (position,) in positions}
        if doubtful:
            certain = f"SELECT row, idx FROM {samples} WHERE NOT ({_DOUBTFUL}) AND row IN (SELECT unnest(?))"
            for position, idx in self._con.execute(certain, [list(doubtful)]).fetchall():
                doubtful[position].add(idx)
        return doubtful

    def _inspect(self, record: ConsumerRecord) -> Iterable[Outcome]:
        return inspect(self._event, record.value, record.headers, record_time(record), self._max_bytes)

    def _row(self, position: int, record: ConsumerRecord, outcome: Outcome) -> dict[str, Any]:
        names = [name for name, _ in self._event.columns()]
        return {
            "row": position,
            "idx": outcome.idx,
            "part": record.partition,
            "record_time": record_time(record),
            "source": outcome.source,
            "id": outcome.id,
            "time": outcome.time,
            **{name: outcome.row.get(name) for name in names},
        }

    def _replace_doubtful(self, rows: Sequence[dict[str, Any]]) -> None:
        """Put what the slow path accepted in the place of what the fast path doubted."""
        con, view = self._con, self._event.view
        con.execute(f"DELETE FROM delta_samples_{view} WHERE {_DOUBTFUL}")
        if not rows:
            return
        con.register("slow_rows", _arrow(rows, self._event.columns()))
        self._name_series("slow_rows")
        con.execute(
            f"INSERT INTO delta_samples_{view} BY NAME SELECT * EXCLUDE ({', '.join(self._dimensions)}), "
            f"{_IDENTITY}, {self._series} AS series FROM slow_rows"
        )
        con.unregister("slow_rows")


_ARROW: dict[str, Callable[[], pa.DataType]] = {
    "VARCHAR": pa.string,
    "DOUBLE": pa.float64,
    "BIGINT": pa.int64,
    "TIMESTAMP": lambda: pa.timestamp("us"),
    "DOUBLE[]": lambda: pa.list_(pa.float64()),
    "DECIMAL(38,10)": lambda: pa.decimal128(38, 10),
}


def _arrow(rows: Sequence[dict[str, Any]], own: Sequence[tuple[str, str]]) -> pa.Table:
    head = [
        ("row", pa.int32()),
        ("idx", pa.int32()),
        ("part", pa.int32()),
        ("record_time", pa.timestamp("us")),
    ]
    head += [*_texts(("source", "id")), ("time", pa.timestamp("us"))]
    schema = pa.schema(head + [(name, _ARROW[sql]()) for name, sql in own])
    return pa.Table.from_pylist(list(rows), schema=schema)


def _texts(names: Iterable[str]) -> list[tuple[str, pa.DataType]]:
    return [(name, pa.string()) for name in names]


def record_time(record: ConsumerRecord) -> datetime:
    """The Kafka timestamp of a record as naive UTC."""
    return _EPOCH + timedelta(milliseconds=record.timestamp)


def place_of(record: ConsumerRecord) -> tuple[int, datetime]:
    """Partition and minute, by which fates are counted."""
    return record.partition, record_time(record).replace(second=0, microsecond=0)
