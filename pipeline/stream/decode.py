"""From records to samples: the vectorised decoder, with the slow path for what it doubts."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from aiokafka.structs import ConsumerRecord

from pipeline.catalog import EventType
from pipeline.catalog.arrow_types import arrow_schema
from pipeline.formats.aside_sql import aside_sql, mend_sql
from pipeline.formats.event_format import ATTRIBUTES, INTERVAL
from pipeline.formats.registry import event_formats
from pipeline.ledger.registered import executed, registered
from pipeline.stream.aside import ASIDE, aside_of, with_offsets
from pipeline.stream.batch import TopicRecords
from pipeline.stream.decoded import (
    Decoded,
    Refusal,
    dimensions_sql,
    identity_sql,
    series_sql,
)
from pipeline.stream.identity import Spelling
from pipeline.stream.inspect import Outcome, inspect
from pipeline.stream.series import NO_SERIES, MetSeries

MUCH = 32_000_000
"""Beyond so many bytes of records `executed` is told `much`."""
CAREFUL_FOR = 100
"""Batches that are not taken on trust after one in which a value was no JSON."""
_WHOLE = "(starts_with(value, '{') OR starts_with(value, '[')) AND (ends_with(value, '}') OR ends_with(value, ']'))"
_NO_JSON = ("", f"CASE WHEN {_WHOLE} THEN false ELSE NOT json_valid(value) END", "NOT json_valid(value)")
"""Which values are looked for as no JSON, with ever more care: none, those cut off or of another kind, all.
Of what AND joins both sides are worked out; CASE asks json_valid, 0.3 µs an event, only about what is left."""


class Decoder:
    """Decodes batches of one event type; remembers the series it has met (quoted dimensions → series).

    It knows nothing of the ledger, so batches are decoded on a connection and a thread of their own, while those
    before them are taken in; but in their order, for a series is met once.
    """

    def __init__(
        self, con: duckdb.DuckDBPyConnection, event: EventType, max_bytes: int, max_met: int = 200_000
    ) -> None:
        self._con = con
        self._event = event
        self._max_bytes = max_bytes
        self._formats = {each.name: each for each in event_formats()}
        self._sql = {name: sql for name, each in self._formats.items() if (sql := each.decode(event))}
        self._spelling = Spelling(con, event)
        self._mend, self._aside = mend_sql(event), aside_sql(event)
        self._care = self._careful_for = 0
        con.execute("SET TimeZone = 'UTC'")  # a cursor does not have it from the ledger's connection
        self._met = MetSeries(event, max_met)

    def decode(self, topic: TopicRecords) -> Decoded:
        """Decode the records of one topic."""
        with contextlib.ExitStack() as stack:
            counts = self._registered(topic, stack)
            much = sum(table["value"].nbytes for table in topic.tables.values()) > MUCH
            parsed, aside = self._mended(self._parse(counts, much))
            parsed = self._spelling.mend(parsed)
            self._met.make_room()
            places = self._met.places(parsed["quoted"])
            if met := self._meet_series(parsed, places, topic, list(counts)):
                places = self._met.places(parsed["quoted"])
        series = self._met.series(places)
        certain = pc.and_kleene(parsed["ok"], _is_named(series))  # no series where `ok` is false
        parsed = parsed.append_column("series", series).append_column("certain", certain)
        with registered(self._con, "parsed", parsed):
            arrived = Counter(self._arrived("true"))
            doubtful = self._doubtful(len(topic.all))
            refusals, rows, late = (
                self._open_one_by_one(topic, doubtful, arrived) if doubtful else ([], [], [])
            )
            if doubtful and aside.num_rows:
                aside = self._certain_of(aside)
        samples = parsed.drop_columns(["ok", "certain", "quoted"])
        for name, column in self._met.dimensions(places).items():
            samples = samples.append_column(name, column)
        if doubtful:
            samples = samples.filter(certain)
        if rows:
            slow = self._with_series(_arrow(rows, self._event.columns()))
            met.append(slow)
            samples = pa.concat_tables([samples, slow.select(samples.column_names).cast(samples.schema)])
        aside = pa.concat_tables([with_offsets(aside, topic.all), pa.Table.from_pylist(late, ASIDE)])
        return Decoded(self._event, samples, met, refusals, aside, arrived)

    def _registered(self, topic: TopicRecords, stack: contextlib.ExitStack) -> dict[str, int]:
        """Gives SQL the records of each format that has a fast path; how many there are of each."""
        counts = {}
        for name, table in topic.tables.items():
            if name not in self._sql:
                continue
            if unpack := self._sql[name].unpack:
                rows = table["row"].to_pylist()
                samples = unpack(rows, [topic.all[row].value for row in rows])
                if samples is None:
                    continue
                table = table.drop_columns(["value"])
                stack.enter_context(registered(self._con, f"samples_{name}", samples))
            stack.enter_context(registered(self._con, f"records_{name}", table))
            counts[name] = table.num_rows
        return counts

    def _mended(self, parsed: pa.Table) -> tuple[pa.Table, pa.Table]:
        """The rows with NULL for each measure that is set aside, and what was set aside, without its offsets."""
        fine = parsed["doubt"].is_null()
        doubted = parsed.filter(pc.invert(fine)) if parsed["doubt"].null_count < parsed.num_rows else None
        columns = [name for name in parsed.column_names if name != "doubt"]
        if doubted is None:
            return parsed.select(columns), _NONE_ASIDE
        with registered(self._con, "doubted", doubted):
            mended = executed(self._con, self._mend)
        with registered(self._con, "mended", mended):
            aside = executed(self._con, self._aside)
        kept = parsed.filter(fine).select(columns)
        return pa.concat_tables([kept, mended.select(columns).cast(kept.schema)]), aside

    def _certain_of(self, aside: pa.Table) -> pa.Table:
        """Of what was set aside, that of the samples that the slow path does not open."""
        with registered(self._con, "aside", aside):
            return executed(
                self._con, "FROM aside SEMI JOIN (SELECT row, idx FROM parsed WHERE certain) USING (row, idx)"
            )

    def _open_one_by_one(
        self, topic: TopicRecords, doubtful: Mapping[int, set[int]], arrived: Counter[tuple[int, datetime]]
    ) -> tuple[list[Refusal], list[dict[str, Any]], list[dict[str, Any]]]:
        """What the fast path doubts: what is refused, the rows of what is not, and what these lack.

        `doubtful`: position → the samples that it does not doubt; `arrived` is corrected by what is found.
        """
        arrived.subtract(self._arrived("row IN (SELECT unnest($rows))", {"rows": list(doubtful)}))
        refusals: list[Refusal] = []
        rows: list[dict[str, Any]] = []
        aside: list[dict[str, Any]] = []
        for position, certain in doubtful.items():
            record, stamp = topic.all[position], topic.stamp(position)
            outcomes = list(self._inspect(topic, position, certain))
            arrived[record.partition, stamp.replace(second=0, microsecond=0)] += len(outcomes) + len(certain)
            for outcome in outcomes:
                if outcome.fate == "aggregated":
                    rows.append(self._row(position, record, stamp, outcome))
                    aside += aside_of(position, record, stamp, outcome)
                else:
                    refusals.append(Refusal(position, record, outcome, stamp))
        return refusals, rows, aside

    def _with_series(self, rows: pa.Table) -> pa.Table:
        with registered(self._con, "slow", rows):
            return executed(
                self._con,
                f"SELECT *, {identity_sql(self._event)}, {series_sql(self._event)} AS series FROM slow",
            )

    def _parse(self, present: Mapping[str, int], much: bool) -> pa.Table:
        """What the decoder makes of the records of each format; `present`: how many there are of each, `much` as in `executed`.

        Whether a value is JSON at all costs a parse of its own, so it is not asked until one was not.
        """
        self._careful_for = max(0, self._careful_for - 1)
        self._care = self._care if self._careful_for else 0
        while True:
            try:
                return self._parsed(present, self._but_no_json(present), much)
            except (duckdb.InvalidInputException, UnicodeDecodeError):
                # its message quotes the value, at times cut in the middle of a letter
                if self._care + 1 == len(_NO_JSON):
                    raise
                self._care, self._careful_for = self._care + 1, CAREFUL_FOR

    def _but_no_json(self, present: Iterable[str]) -> Sequence[str]:
        """The conditions that keep from the decoder what it cannot read.

        It is found first, by a question for its rows alone: in front of the decoder it costs twice as much.
        """
        asked = [name for name in present if self._formats[name].json]
        if not (no_json := _NO_JSON[self._care]) or not asked:
            return ()
        found = " UNION ALL ".join(f"SELECT row FROM records_{name} WHERE {no_json}" for name in asked)
        self._con.execute(f"CREATE OR REPLACE TEMP TABLE no_json AS {found}")
        return ("row NOT IN (FROM no_json)",)

    def _parsed(self, present: Mapping[str, int], where: Sequence[str], much: bool) -> pa.Table:
        selects = [s for name, count in present.items() for s in self._selects(name, count, where)]
        union = " UNION ALL ".join(selects or [self._nothing()])
        return executed(self._con, f"SELECT *, {identity_sql(self._event)} FROM ({union})", much=much)

    def _selects(self, name: str, count: int, where: Sequence[str]) -> list[str]:
        """The SELECTs for `count` records of one format: mostly all are alike, and then they are read once."""
        sql, records = self._sql[name], f"records_{name}"
        where = where if self._formats[name].json else ()
        if not sql.looks_array:
            return [_over(name, sql.single, where)]
        ((arrays,),) = self._con.execute(f"SELECT count(*) FROM {records} WHERE {sql.looks_array}").fetchall()
        if arrays in (0, count):
            return [_over(name, sql.array if arrays else sql.single, where)]
        return [
            _over(name, sql.single, [f"NOT {sql.looks_array}", *where]),
            _over(name, sql.array, [sql.looks_array, *where]),
        ]

    def _arrived(self, where: str, params: dict[str, Any] | None = None) -> dict[tuple[int, datetime], int]:
        rows = self._con.execute(
            "SELECT part, date_trunc('minute', record_time) AS minute, count(*) "
            f"FROM parsed WHERE {where} GROUP BY ALL",
            params or {},
        ).fetchall()
        return {(part, minute): n for part, minute, n in rows}

    def _nothing(self) -> str:
        """The decoder over no record, for a batch in which none is of a format that it may try."""
        columns = "0 AS row, 0 AS part, NULL::TIMESTAMP AS record_time, ''::VARCHAR AS value"
        headers = ", ".join(f"NULL::BLOB AS ce_{name}" for name in ATTRIBUTES)
        sql = next(sql for name, sql in self._sql.items() if self._formats[name].json)
        return sql.single.replace("{records}", f"(SELECT {columns}, {headers} WHERE false)")

    def _meet_series(
        self,
        parsed: pa.Table,
        places: pa.Int32Array,
        topic: TopicRecords,
        present: Sequence[str],
    ) -> list[pa.Table]:
        """Give every new combination of quoted dimensions its series; NO_SERIES where the slow path refuses it."""
        unmet = pc.and_(parsed["ok"], places.is_null())
        unmet = parsed.select(["quoted", "row", "idx"]).filter(unmet)
        if not unmet.num_rows:
            return []
        with registered(self._con, "unmet", unmet):
            wanted = executed(
                self._con,
                "SELECT quoted, met.row AS row, met.idx AS idx "
                "FROM (SELECT quoted, min({'row': row, 'idx': idx}) AS met FROM unmet GROUP BY quoted)",
            )
        with registered(self._con, "wanted", wanted):
            selects = [_over(name, self._sql[name].names) for name in present]
            names = executed(self._con, " UNION ALL ".join(selects))
        names = self._named_with_care(names, wanted, topic)
        with registered(self._con, "names", names):
            met = executed(
                self._con,
                f"SELECT quoted, CASE WHEN good THEN {series_sql(self._event)} ELSE {NO_SERIES} END AS series, "
                f"{dimensions_sql(self._event)} FROM names",
            )
        self._met.add(met)
        return [met.filter(_is_named(met["series"]))]

    def _named_with_care(self, names: pa.Table, wanted: pa.Table, topic: TopicRecords) -> pa.Table:
        """The same names, where they are in doubt those that the slow path finds, if it accepts the sample."""
        doubted = set(pc.filter(names["quoted"], pc.invert(names["good"])).to_pylist())
        if not doubted:
            return names
        found = []
        for one in (one for one in wanted.to_pylist() if one["quoted"] in doubted):
            outcome = next((o for o in self._inspect(topic, one["row"]) if o.idx == one["idx"]), None)
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
        positions = self._con.execute(
            f"SELECT row::INTEGER FROM range({count}) t(row) ANTI JOIN parsed USING (row) "
            "UNION SELECT row FROM parsed WHERE NOT certain ORDER BY ALL"
        ).fetchall()
        doubtful: dict[int, set[int]] = {position: set() for (position,) in positions}
        if doubtful:
            certain = "SELECT row, idx FROM parsed WHERE certain AND row IN (SELECT unnest(?))"
            for position, idx in self._con.execute(certain, [list(doubtful)]).fetchall():
                doubtful[position].add(idx)
        return doubtful

    def _inspect(self, topic: TopicRecords, position: int, certain: Container[int] = ()) -> Iterable[Outcome]:
        record, ahead = topic.all[position], position in topic.ahead
        return inspect(
            self._event, record.value, record.headers, topic.stamp(position), self._max_bytes, ahead, certain
        )

    def _row(
        self, position: int, record: ConsumerRecord, stamp: datetime, outcome: Outcome
    ) -> dict[str, Any]:
        names = [name for name, _ in self._event.columns()]
        return {
            "row": position,
            "idx": outcome.idx,
            "part": record.partition,
            "record_time": stamp,
            "source": outcome.source,
            "id": outcome.id,
            "time": outcome.time,
            INTERVAL: outcome.row.get(INTERVAL),
            **{name: outcome.row.get(name) for name in names},
        }


def _is_named(series: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.not_equal(series, pa.scalar(NO_SERIES, pa.uint64()))


def _over(name: str, select: str, where: Sequence[str] = ()) -> str:
    """A SELECT of a format over its records, or over those for which all of `where` holds."""
    records = f"(FROM records_{name} WHERE {' AND '.join(where)})" if where else f"records_{name}"
    return select.replace("{records}", records).replace("{samples}", f"samples_{name}")


_NONE_ASIDE = ASIDE.remove(ASIDE.get_field_index("record_offset")).empty_table()
_HEAD = (
    *(("row", "INTEGER"), ("idx", "INTEGER"), ("part", "INTEGER"), ("record_time", "TIMESTAMP")),
    *(("source", "VARCHAR"), ("id", "VARCHAR"), ("time", "TIMESTAMP"), (INTERVAL, "INTEGER")),
)
"""The columns of `Decoded.samples` that do not depend on the event type, as the decoder makes them."""


def _arrow(rows: Sequence[dict[str, Any]], own: Sequence[tuple[str, str]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=arrow_schema([*_HEAD, *own]))
