"""From records to samples: the vectorised decoder, with the slow path for what it doubts.

A batch is decoded on a connection of its own, which yields Arrow tables; `receive` puts them into temporary tables of
the ledger's connection, replaced by the next batch.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
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
CAREFUL_FOR = 100
"""Batches that are not taken on trust after one in which a value was no JSON."""
_DOUBTFUL = f"NOT ok OR series = {_NO_SERIES}"
_SERIES_MAP = "quoted UBIGINT, series UBIGINT"


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


class Decoder:
    """Decodes batches of one event type; remembers the series it has met (quoted dimensions → series).

    It knows nothing of the ledger, so batches are decoded on a connection and a thread of their own, while those
    before them are taken in; but in their order, for a series is met once.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, event: EventType, max_bytes: int) -> None:
        self._con = con
        self._event = event
        self._max_bytes = max_bytes
        self._sql = decode_sql(event)
        self._careful = 0
        con.execute(f"CREATE OR REPLACE TEMP TABLE series_map_{event.view}({_SERIES_MAP})")

    def decode(self, topic: TopicRecords) -> Decoded:
        """Decode the records of one topic."""
        tables = {"structured": topic.structured, "binary": topic.binary}
        present = {name: table for name, table in tables.items() if table is not None}
        with contextlib.ExitStack() as registered:
            for name, table in present.items():
                registered.enter_context(_registered(self._con, f"records_{name}", table))
            found = Decoded(self._event, self._parse({n: t.num_rows for n, t in present.items()}))
            registered.enter_context(_registered(self._con, "parsed", found.parsed))
            found.arrived.update(self._arrived("true"))
            found.met = self._meet_series(topic.all, list(present))
            if doubtful := self._doubtful(len(topic.all)):
                self._open_one_by_one(found, topic.all, doubtful)
        return found

    def _open_one_by_one(self, found: Decoded, records: Records, doubtful: Mapping[int, set[int]]) -> None:
        """The fates of what the fast path doubts; `doubtful`: position → the samples that it does not."""
        found.arrived.subtract(self._arrived("row IN (SELECT unnest($rows))", {"rows": list(doubtful)}))
        rows: list[dict[str, Any]] = []
        for position, certain in doubtful.items():
            record = records[position]
            outcomes = list(self._inspect(record))
            found.arrived[place_of(record)] += len(outcomes)
            for outcome in outcomes:
                if outcome.idx in certain:
                    continue
                if outcome.fate == "aggregated":
                    rows.append(self._row(position, record, outcome))
                else:
                    found.refusals.append(Refusal(position, record, outcome))
        if rows:
            found.slow = _arrow(rows, self._event.columns())

    def _parse(self, present: Mapping[str, int]) -> pa.Table:
        """What the decoder makes of the records of each content mode; `present`: how many there are of each.

        Whether a value is JSON at all costs a parse of its own, so it is not asked until one was not.
        """
        if not self._careful:
            try:
                return self._parsed(present, ())
            except (duckdb.InvalidInputException, UnicodeDecodeError):
                # its message quotes the value, at times cut in the middle of a letter
                self._careful = CAREFUL_FOR
        self._careful -= 1
        return self._parsed(present, ("json_valid(value)",))

    def _parsed(self, present: Mapping[str, int], where: Sequence[str]) -> pa.Table:
        selects = [s for name, count in present.items() for s in self._selects(name, count, where)]
        union = " UNION ALL ".join(selects or [self._nothing()])
        return self._con.sql(f"SELECT *, {_IDENTITY} FROM ({union})").to_arrow_table()

    def _selects(self, name: str, count: int, where: Sequence[str]) -> list[str]:
        """The SELECTs for `count` records of one content mode: mostly all are alike, and then they are read once."""
        sql, records = self._sql[name], f"records_{name}"
        # as a filter, in which one search is made only where the one before it found something
        ((arrays,),) = self._con.execute(f"SELECT count(*) FROM {records} WHERE {sql.looks_array}").fetchall()
        if arrays in (0, count):
            return [_over(_only(records, *where), sql.array if arrays else sql.single)]
        return [
            _over(_only(records, f"NOT {sql.looks_array}", *where), sql.single),
            _over(_only(records, sql.looks_array, *where), sql.array),
        ]

    def _arrived(self, where: str, params: dict[str, Any] | None = None) -> dict[tuple[int, datetime], int]:
        rows = self._con.execute(
            "SELECT part, date_trunc('minute', record_time) AS minute, count(*) "
            f"FROM parsed WHERE {where} GROUP BY ALL",
            params or {},
        ).fetchall()
        return {(part, minute): n for part, minute, n in rows}

    def _nothing(self) -> str:
        """The decoder over no record, for a batch in which no value is even text."""
        none = (
            "(SELECT 0 AS row, 0 AS part, NULL::TIMESTAMP AS record_time, ''::VARCHAR AS value WHERE false)"
        )
        return _over(none, self._sql["structured"].single)

    def _meet_series(self, records: Records, present: Sequence[str]) -> pa.Table | None:
        """Give every new combination of quoted dimensions its series; 0 where the slow path refuses it."""
        view = self._event.view
        wanted = self._con.sql(
            "SELECT quoted, met.row AS row, met.idx AS idx FROM (SELECT quoted, min({'row': row, 'idx': idx}) AS met "
            f"FROM parsed ANTI JOIN series_map_{view} USING (quoted) WHERE ok GROUP BY quoted)"
        ).to_arrow_table()
        if not wanted.num_rows:
            return None
        with _registered(self._con, "wanted", wanted):
            selects = [_over(f"records_{name}", self._sql[name].names) for name in present]
            names = self._con.sql(" UNION ALL ".join(selects)).to_arrow_table()
        names = self._named_with_care(names, wanted, records)
        with _registered(self._con, "names", names):
            met = self._con.sql(
                f"SELECT quoted, CASE WHEN good THEN {series_sql(self._event)} ELSE {_NO_SERIES} END AS series, "
                f"{_dimensions(self._event)} FROM names"
            ).to_arrow_table()
        _remember(self._con, view, met)
        return met

    def _named_with_care(self, names: pa.Table, wanted: pa.Table, records: Records) -> pa.Table:
        """The same names, where they are in doubt those that the slow path finds, if it accepts the sample."""
        doubted = set(pc.filter(names["quoted"], pc.invert(names["good"])).to_pylist())
        if not doubted:
            return names
        found = []
        for one in (one for one in wanted.to_pylist() if one["quoted"] in doubted):
            outcome = next((o for o in self._inspect(records[one["row"]]) if o.idx == one["idx"]), None)
            row = outcome.row if outcome and outcome.fate == "aggregated" else {}
            dimensions = {d.name: row.get(d.name) for d in self._event.dimensions}
            found.append({"quoted": one["quoted"], "good": bool(row), **dimensions})
        return pa.concat_tables(
            [names.filter(names["good"]), pa.Table.from_pylist(found, schema=names.schema)]
        )

    def _doubtful(self, count: int) -> dict[int, set[int]]:
        """Positions of messages that need the slow path → the indices of their samples that do not.

        It is asked about the whole message: what the fast path took for one sample may be an array of many.
        """
        joined = f"parsed LEFT JOIN series_map_{self._event.view} USING (quoted)"
        positions = self._con.execute(
            f"SELECT row::INTEGER FROM range({count}) t(row) ANTI JOIN parsed USING (row) "
            f"UNION SELECT row FROM {joined} WHERE {_DOUBTFUL} ORDER BY ALL"
        ).fetchall()
        doubtful: dict[int, set[int]] = {position: set() for (position,) in positions}
        if doubtful:
            certain = f"SELECT row, idx FROM {joined} WHERE NOT ({_DOUBTFUL}) AND row IN (SELECT unnest(?))"
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


@contextlib.contextmanager
def _registered(con: duckdb.DuckDBPyConnection, name: str, table: pa.Table) -> Iterator[None]:
    con.register(name, table)
    try:
        yield
    finally:
        con.unregister(name)


def _only(records: str, *where: str) -> str:
    return f"(FROM {records} WHERE {' AND '.join(where)})" if where else records


def _over(records: str, select: str) -> str:
    return select.replace("{records}", records)


def receive(con: duckdb.DuckDBPyConnection, decoded: Decoded) -> None:
    """Make `delta_samples_{view}` of what was decoded, and add new series to `known_series_{view}`.

    The samples' columns: row, idx, part, record_time, source, id, time, identity, series, the event type's columns
    but the dimensions, which follow from `series`.
    """
    event, view = decoded.event, decoded.event.view
    if decoded.met is not None:
        _remember(con, view, decoded.met)
        _name_series(con, event, decoded.met, f"series <> {_NO_SERIES}")
    with _registered(con, "parsed", decoded.parsed):
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE delta_samples_{view} AS SELECT * EXCLUDE (ok, quoted) FROM parsed "
            f"JOIN series_map_{view} USING (quoted) WHERE NOT ({_DOUBTFUL})"
        )
    if decoded.slow is None:
        return
    _name_series(con, event, decoded.slow)
    with _registered(con, "slow", decoded.slow):
        con.execute(
            f"INSERT INTO delta_samples_{view} BY NAME SELECT * EXCLUDE ({_dimensions(event)}), "
            f"{_IDENTITY}, {series_sql(event)} AS series FROM slow"
        )


def make_tables(con: duckdb.DuckDBPyConnection, event: EventType) -> None:
    """The tables of a connection that `receive` adds to."""
    dimensions = ", ".join(f"{d.name} VARCHAR" for d in event.dimensions)
    con.execute(f"CREATE OR REPLACE TEMP TABLE series_map_{event.view}({_SERIES_MAP})")
    con.execute(f"CREATE OR REPLACE TEMP TABLE known_series_{event.view}(series UBIGINT, {dimensions})")


def _remember(con: duckdb.DuckDBPyConnection, view: str, met: pa.Table) -> None:
    with _registered(con, "met", met):
        con.execute(f"INSERT INTO series_map_{view} SELECT quoted, series FROM met")


def _name_series(
    con: duckdb.DuckDBPyConnection, event: EventType, rows: pa.Table, where: str = "true"
) -> None:
    """Remember the dimensions of every series in `rows`: a series is a 64-bit hash of them."""
    with _registered(con, "named", rows):
        con.execute(
            f"INSERT INTO known_series_{event.view} SELECT DISTINCT {series_sql(event)} AS name, "
            f"{_dimensions(event)} FROM named WHERE {where} "
            f"AND name NOT IN (SELECT series FROM known_series_{event.view})"
        )


def series_sql(event: EventType) -> str:
    return f"hash({_dimensions(event)})"


def _dimensions(event: EventType) -> str:
    return ", ".join(d.name for d in event.dimensions)


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
