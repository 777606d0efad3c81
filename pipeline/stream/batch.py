"""A batch of Kafka records as columns."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from operator import attrgetter

import pyarrow as pa
import pyarrow.compute as pc
from aiokafka.structs import ConsumerRecord

from pipeline.formats.event_format import ATTRIBUTES, MAX_CLOCK_AHEAD, EventFormat, Headers, content_types
from pipeline.formats.registry import formats_declared
from pipeline.rollup.delta import Place
from pipeline.stream.clocks import NO_CLOCK

Records = Sequence[ConsumerRecord]
_EPOCH = datetime(1970, 1, 1)
LOG_APPEND_TIME = 1
"""A record's `timestamp_type` where the broker has stamped it."""
LATEST_MS = 253_402_300_799_000
"""The last second of the year 9999: a timestamp may be any 64 bits, and no later one is a date."""
CHUNK_BYTES = 2**19
"""Bytes of values in one chunk of a table.  DuckDB opens all arrays of a chunk at once: what it makes of half a
megabyte stays in the processor's cache, and large ones would fill its memory.  And it gives each of its threads,
where it has several, a chunk at a time."""
FEW = 4
"""Where no more values than this fill a chunk, each is a chunk of its own and is not copied."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one fetch, by topic and partition, each list in offset order without a gap.

    `clock` is the broker's when they were fetched (epoch seconds): a record that is later has a wrong timestamp.

    `ranges` holds `[lo, hi)` per partition: `hi` is where the next fetch begins, which lies beyond the last
    record when the log has control records; a partition that has nothing else has a range and no records.
    """

    records: Mapping[Place, Records]
    ranges: Mapping[Place, tuple[int, int]]
    clock: float = NO_CLOCK

    def __len__(self) -> int:
        return sum(len(r) for r in self.records.values())

    def of_topic(self, topic: str) -> list[tuple[int, Records]]:
        """(partition, records) of one topic, by partition."""
        return sorted((part, r) for (name, part), r in self.records.items() if name == topic and r)

    def apart(self, topics: Collection[str]) -> Iterator[Batch]:
        """The same records in a batch for each of `topics`, and one for all others.

        The events of a source's topic are of a type whose own topic may be in the batch too: what a delta adds to an
        event type comes from one topic.
        """
        for own in (None, *topics):
            mine = {
                place: r
                for place, r in self.ranges.items()
                if (place[0] if place[0] in topics else None) == own
            }
            if mine:
                yield Batch(
                    {place: r for place, r in self.records.items() if place in mine}, mine, self.clock
                )

    def pieces(self, most: int) -> Iterator[Batch]:
        """The same records, in batches of at most `most` bytes of values (or of one record).

        A few megabytes of a compressed log may become thousands: then one fetch is too much for one delta.
        """
        records: dict[Place, Records] = {}
        ranges = {place: moved for place, moved in self.ranges.items() if place not in self.records}
        size = 0
        for place, found in self.records.items():
            low, high = self.ranges[place]
            start = 0
            for at, record in enumerate(found):
                if size and size + record.serialized_value_size > most:
                    if at > start:
                        records[place], ranges[place] = found[start:at], (low, record.offset)
                        low = record.offset
                    yield Batch(records, ranges, self.clock)
                    records, ranges, size, start = {}, {}, 0, at
                size += max(0, record.serialized_value_size)
            records[place], ranges[place] = found[start:], (low, high)
        yield Batch(records, ranges, self.clock)


@dataclass(frozen=True, slots=True)
class TopicRecords:
    """The records of one topic: `tables` holds, by the name of their format, those that a decoder may try.

    Columns: row INTEGER (position in `all`), part INTEGER, record_time TIMESTAMP, value VARCHAR (BLOB where the format is
    not JSON), and where attributes are headers a BLOB for each, ce_id and so on.  Values that are null, too large or, of
    JSON, no UTF-8 are in none, nor are records `ahead` (positions): later than the broker's clock by more than a minute.
    Of a record that is not the broker's stamp, `stamps` (epoch ms) has the lesser of its timestamp and that clock.
    """

    all: Records
    stamps: pa.Int64Array
    ahead: frozenset[int]
    tables: Mapping[str, pa.Table]

    def stamp(self, position: int) -> datetime:
        """The record time of one record, as naive UTC."""
        return stamp_of(self.stamps[position].as_py())


def stamp_of(milliseconds: int) -> datetime:
    """A Kafka timestamp as naive UTC; of one that is no date, the nearest."""
    return _EPOCH + timedelta(milliseconds=min(max(milliseconds, -1), LATEST_MS))


def topic_records(
    parts: Sequence[tuple[int, Records]], max_bytes: int, clock: float = NO_CLOCK
) -> TopicRecords:
    """Columns of the records of one topic, without a Python step per record where all are alike.

    `clock`: the broker's when they were fetched, epoch seconds.
    """
    stamps, ahead = _stamps([records for _, records in parts], clock)
    records: Records = parts[0][1] if len(parts) == 1 else list(chain.from_iterable(r for _, r in parts))
    columns = {
        "row": pa.array(range(len(records)), pa.int32()),
        "part": pa.concat_arrays([pa.repeat(pa.scalar(p, pa.int32()), len(r)) for p, r in parts]),
        "record_time": stamps,
        "value": _values(list(map(attrgetter("value"), records))),
    }
    table = pa.table(columns)
    table = table.set_column(
        2, "record_time", pc.multiply(table["record_time"], 1000).cast(pa.timestamp("us"))
    )
    headers = list(map(attrgetter("headers"), records))
    tables = {}
    for wire, chosen in _told_apart(table["value"], headers, _usable(table, max_bytes, ahead)):
        own = _only(table, chosen)
        if wire.attributes_in_headers:
            own = _with_attributes(own, headers)
        if wire.json:
            own = _text(own)
        if own.num_rows:
            tables[wire.name] = own
    return TopicRecords(records, stamps, ahead, tables)


def _told_apart(
    values: pa.ChunkedArray, headers: Sequence[Headers], usable: pa.Array
) -> Iterator[tuple[EventFormat, pa.Array]]:
    """The formats that there are, and which of the usable records are of each: as `registry.format_of`, but all at once."""
    declared, place_of = _declared(headers)
    found: dict[EventFormat, pa.Array] = {}
    for place, formats in enumerate(declared):
        rest = usable if place_of is None else pc.and_(usable, pc.equal(place_of, place))
        for wire in formats:
            mine = rest
            if wire.begins:
                mine = pc.and_(rest, pc.fill_null(pc.starts_with(values, wire.begins), False))
                rest = pc.and_not(rest, mine)
            found[wire] = pc.or_(found[wire], mine) if wire in found else mine
            if not wire.begins:
                break
    yield from found.items()


def _declared(headers: Sequence[Headers]) -> tuple[list[tuple[EventFormat, ...]], pa.Array | None]:
    """The formats that headers declare, and which of these each record has; None where all are alike."""
    if headers.count(headers[0]) == len(headers):  # compared in C: the usual case costs next to nothing
        return [formats_declared(headers[0])], None
    places: dict[tuple[EventFormat, ...], int] = {}
    seen: dict[object, int] = {}
    found = []
    for each in headers:
        key = each[0] if len(each) == 1 else content_types(each)
        if key not in seen:
            seen[key] = places.setdefault(formats_declared(each), len(places))
        found.append(seen[key])
    return list(places), pa.array(found, pa.int32())


def _stamps(parts: Sequence[Records], clock: float) -> tuple[pa.Int64Array, frozenset[int]]:
    """The timestamps, and the positions of those too far ahead of `clock`; what the broker stamped is its clock."""
    latest = int(min(clock * 1000, LATEST_MS))
    found, ahead, before = [], set[int](), 0
    for records in parts:
        stamps = pa.array(list(map(attrgetter("timestamp"), records)), pa.int64())
        if pc.max(stamps).as_py() > (LATEST_MS if _by_the_broker(records) else latest):
            far = latest + MAX_CLOCK_AHEAD // timedelta(milliseconds=1)
            ahead |= {before + n for n, stamp in enumerate(stamps.to_pylist()) if stamp > far}
            stamps = pc.min_element_wise(stamps, pa.scalar(latest, pa.int64()))
        found.append(stamps)
        before += len(records)
    return pa.concat_arrays(found), frozenset(ahead)


def _by_the_broker(records: Records) -> bool:
    """Whether the topic has LogAppendTime, and had it when the first of them was written."""
    return {records[0].timestamp_type, records[-1].timestamp_type} == {LOG_APPEND_TIME}


def _values(values: Sequence[bytes | None]) -> pa.ChunkedArray:
    """The values in pieces of about CHUNK_BYTES: in between other threads have the interpreter.

    The pieces go by the median: by the mean, one value of a megabyte would make them all short.  Large values
    are not copied.
    """
    sizes = sorted(len(value) for value in values[:: 1 + len(values) // 100] if value)
    rows = max(1, CHUNK_BYTES // sizes[len(sizes) // 2]) if sizes else len(values)
    if rows <= FEW:
        return pa.chunked_array(list(map(_uncopied, values)), pa.large_binary())
    pieces = (values[at : at + rows] for at in range(0, len(values), rows))
    return pa.chunked_array([pa.array(piece, pa.large_binary()) for piece in pieces], pa.large_binary())


def _uncopied(value: bytes | None) -> pa.Array:
    """An array of one value, which lies where it lay."""
    if value is None:
        return pa.nulls(1, pa.large_binary())
    buffers = [None, pa.py_buffer(struct.pack("<qq", 0, len(value))), pa.py_buffer(value)]
    return pa.Array.from_buffers(pa.large_binary(), 1, buffers)


def _only(table: pa.Table, chosen: pa.Array) -> pa.Table:
    """`filter`, without a copy where all are chosen."""
    return table if pc.all(chosen).as_py() else table.filter(chosen)


def _with_attributes(table: pa.Table, headers: Sequence[Headers]) -> pa.Table:
    if table.num_rows < len(headers):
        headers = [headers[row] for row in table["row"].to_pylist()]
    found: list[dict[str, bytes | None]] = list(map(dict, headers))  # of a header given twice the last counts
    for name in ATTRIBUTES:
        values = [attributes.get(f"ce_{name}") for attributes in found]
        table = table.append_column(f"ce_{name}", pa.array(values, pa.binary()))
    return table


def _usable(table: pa.Table, max_bytes: int, ahead: frozenset[int]) -> pa.Array:
    length = pc.binary_length(table["value"])
    usable = pc.fill_null(pc.less_equal(length, max_bytes), False)
    return pc.and_not(usable, pc.is_in(table["row"], pa.array(ahead, pa.int32()))) if ahead else usable


def _text(table: pa.Table) -> pa.Table:
    """The table with `value` as text; rows that are not UTF-8 are left out (the slow path names them)."""
    at = table.schema.get_field_index("value")
    try:
        texts = table["value"].cast(pa.large_string())
    except pa.ArrowInvalid:
        texts = pa.array([_utf8(v) for v in table["value"].to_pylist()], pa.large_string())
    table = table.set_column(at, "value", texts)
    return _chunked(table.filter(texts.is_valid()) if texts.null_count else table)


def _chunked(table: pa.Table) -> pa.Table:
    """The same rows; chunks that came out twice as large as meant, for the sample was of small ones, are cut."""
    rows = 2 * table.num_rows * CHUNK_BYTES // max(1, table["value"].nbytes)
    return pa.Table.from_batches(table.to_batches(max_chunksize=max(1, rows)), table.schema)


def _utf8(value: bytes) -> str | None:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return None
