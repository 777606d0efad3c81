"""Arrow IPC streams: many samples as columns, in a CloudEvent whose attributes are headers (binary mode).

The columns are the properties of the schema, `content-type: application/vnd.apache.arrow.stream`.
https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format

The fast path checks them as columns, and no sample becomes a Python object.  It takes the messages whose columns have the
types of the schema: text as text (plain or dictionary), numbers as integers or floats.  A message that has anything else is
left to the slow path, and so is a sample of which any value is not fine: a label that is too long, a NaN, a ratio of
4294967295.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import EventType, Field, Measure
from pipeline.catalog.arrow_types import ARROW_TYPES
from pipeline.formats.aside_sql import bounds_sql
from pipeline.formats.cloudevents_binary import attributes_of, header_envelope_sql
from pipeline.formats.event_format import DecodeSql, EventFormat, Headers
from pipeline.formats.gpu_uuid import identifies_sql
from pipeline.formats.measures import Unfit
from pipeline.formats.point import Undecodable
from pipeline.rollup.quoting import literal

Column = Field | Measure
MOST_NUMBER = 10**9
"""Beyond it a whole number is no label."""

CONTENT_TYPE = b"application/vnd.apache.arrow.stream"
BEGINS = b"\xff\xff\xff\xff"
"""How every message of a stream begins."""
MAX_ROWS = 100_000
MAX_BYTES = 64 << 20
"""Bytes of all columns, once they are unpacked."""
_TOGETHER = 50
"""Samples that the slow path opens at once."""
_FRAMES = (0xFD2FB528, 0x184D2204)
"""How a compressed buffer begins, after its length, as a little-endian word: zstd (RFC 8878, 3.1.1), LZ4's frame format."""


class Rows(Sequence[dict[str, Any]]):
    """The samples of a stream, each without what is null; a value that Python cannot hold is told by its type.

    They are opened a few at a time, as they are asked for: one bad sample of a thousand is not the price of all.
    """

    def __init__(self, samples: pa.Table) -> None:
        self._samples = samples
        self._block, self._opened = -1, list[dict[str, Any]]()

    def __len__(self) -> int:
        return int(self._samples.num_rows)

    def __getitem__(self, place: Any) -> Any:
        if not 0 <= place < len(self):
            raise IndexError(place)
        block = place // _TOGETHER
        if block != self._block:
            self._block = block
            self._opened = _opened_rows(self._samples.slice(block * _TOGETHER, _TOGETHER))
        row = self._opened[place % _TOGETHER]
        return {name: _plain(value) for name, value in row.items() if value is not None}


def _opened_rows(samples: pa.Table) -> list[dict[str, Any]]:
    """The rows as Python has them; a value that Python cannot hold stays an Arrow scalar."""
    try:
        found: list[dict[str, Any]] = samples.to_pylist()
        return found
    except (pa.ArrowException, ValueError, OverflowError):
        names, columns = samples.column_names, [list(map(_value, column)) for column in samples.columns]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (pa.ArrowException, ValueError, OverflowError):
        return scalar


def _plain(value: Any) -> Any:
    """The value as JSON could say it: exact decimals as text, and of what JSON has no word for, its type."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {str(name): _plain(each) for name, each in value.items()}
    return {"arrow": type(value).__name__}


def table(raw: bytes) -> pa.Table:
    """The samples of a stream as columns.  Raises Undecodable."""
    batches: list[pa.RecordBatch] = []
    count = 0
    try:
        if _unpacked(raw) > MAX_BYTES:
            raise Undecodable(
                "arrow_too_large", "", "buffers that unpack to more", f"at most {MAX_BYTES:,} bytes"
            )
        with pa.ipc.open_stream(raw) as reader:
            _ = reader.schema.names  # raises for one that is no UTF-8, which nothing else looks at
            for batch in reader:
                batch.validate(full=True)
                count += batch.num_rows
                if count > MAX_ROWS or batch.nbytes > MAX_BYTES:
                    raise Undecodable("arrow_too_large", "", "more rows", f"at most {MAX_ROWS:,}")
                batches.append(batch)
            return pa.Table.from_batches(batches, reader.schema)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, Undecodable):
            raise
        raise Undecodable("not_arrow") from error


def _unpacked(raw: bytes) -> int:
    """What the compressed buffers say that they unpack to: a length of eight bytes stands before each frame.

    Buffers begin at multiples of eight bytes of their message's body, or Arrow refuses them.
    """
    size = 0
    for message in pa.ipc.MessageReader.open_stream(raw):
        if body := message.body:  # a schema has none
            halves = np.frombuffer(body, "<u4", body.size // 4)
            size += sum(_told(halves, frame) for frame in _FRAMES)
    return size


def _told(halves: Any, frame: int) -> int:
    """The sum of the lengths before each `frame` in a body of words of four bytes."""
    found = halves == frame
    if not found.any():  # nearly always; to compare all words is faster than every other one
        return 0
    (places,) = np.nonzero(found[2::2])
    lengths = halves[2 * places].astype("<u8") | halves[2 * places + 1].astype("<u8") << np.uint64(32)
    return int(lengths[(lengths > 0) & (lengths < 1 << 40)].sum())


def _decode(event: EventType) -> DecodeSql | None:
    """The fast path of an event type; None for one whose samples the slow path reads: bills, with their nested columns."""
    columns: tuple[Column, ...] = (*event.fields, *event.measures)
    if event.retained or event.nulls or any(column.aliases for column in columns):
        return None
    if any(field.kind == "json" or (field.kind == "time" and not field.optional) for field in event.fields):
        return None
    dimensions = event.dimensions
    checks = ["sound", "(said IS NULL OR interval IS NOT NULL)"]
    checks += [_check(column) for column in columns[len(dimensions) :]]
    named = " AND ".join(_check(d) for d in dimensions)
    own = ", ".join(f's."{column.name}"' for column in columns[len(dimensions) :])
    # samples of JSON hash the text in which their dimensions stand; the number keeps these hashes apart from those
    quoted = ", ".join([*(f's."{d.name}"' for d in dimensions), "1"])
    texts = ", ".join(f's."{d.name}"' for d in dimensions)
    return DecodeSql(
        f"SELECT row, s.idx AS idx, coalesce({' AND '.join(checks)}, false) AS ok, NULL::VARCHAR[] AS doubt, part, "
        f"record_time, source, id, time, interval, hash({quoted}) AS quoted, {own} "
        f"FROM {header_envelope_sql(event)} e JOIN {{samples}} s USING (row)",
        f"SELECT quoted, coalesce({named}, false) AS good, {texts} FROM {{samples}} s JOIN wanted USING (row, idx)",
        unpack=ArrowColumns(event).samples,
    )


def _check(column: Column) -> str:
    """True for a value that is surely what the schema says."""
    value = f's."{column.name}"'
    if isinstance(column, Measure):
        good = _measure_check(column, value)
    elif column.enum:
        good = f"{value} IN ({_literals(column.enum)})"
    elif column.kind == "time":
        good = "false"  # read value by value: the fast path takes the samples without one
    else:  # bytes are never fewer than characters, and four of them may be one
        fewest = column.min_length if column.min_length <= 1 else column.min_length * 4
        good = f"strlen({value}) BETWEEN {fewest} AND {column.max_length or 1024}"
    if isinstance(column, Field) and column.form:
        as_json = value + " || '\"'"
        good = f"({good} AND {identifies_sql(as_json)})"
    return f"({value} IS NULL OR {good})" if column.optional else f"({good})"


def _measure_check(measure: Measure, value: str) -> str:
    if measure.kind == "text":
        return f"{value} IN ({_literals(measure.enum)})"
    if measure.kind != "number":
        return "false"
    low, high = bounds_sql(measure)
    return f"{value} BETWEEN {low} AND {high}"


def _literals(values: Sequence[str]) -> str:
    return ", ".join(map(literal, values))


class ArrowColumns:
    """The samples of Arrow messages of one event type, as columns with the schema's names and types."""

    def __init__(self, event: EventType) -> None:
        self._columns: tuple[Column, ...] = (*event.fields, *event.measures)

    def samples(self, rows: Sequence[int], values: Sequence[bytes]) -> pa.Table | None:
        """`row, idx` and a column for each field and measure, of the messages that the fast path takes."""
        alike: dict[pa.Schema, list[tuple[int, pa.Table]]] = defaultdict(list)
        for row, value in zip(rows, values, strict=True):
            with contextlib.suppress(Undecodable):
                found = table(value)
                alike[found.schema].append((row, found))
        typed = [samples for some in alike.values() if (samples := self._typed(some)) is not None]
        return pa.concat_tables(typed) if typed else None

    def _typed(self, messages: Sequence[tuple[int, pa.Table]]) -> pa.Table | None:
        """Messages of one schema; None where a column is of another type than the fast path reads."""
        whole = pa.concat_tables([table for _, table in messages]).combine_chunks()
        if len(set(whole.column_names)) < len(whole.column_names):
            return None
        counts = [table.num_rows for _, table in messages]
        columns = {
            "row": pa.array(np.repeat(np.array([row for row, _ in messages], np.int32), counts)),
            "idx": pa.array(np.concatenate([np.arange(n, dtype=np.int32) for n in counts])),
        }
        for column in self._columns:
            given = whole[column.name] if column.name in whole.column_names else None
            typed = _as_declared(column, given, whole.num_rows)
            if typed is None:
                return None
            columns[column.name] = typed
        return pa.table(columns)


def _as_declared(
    column: Column, given: pa.ChunkedArray | None, count: int
) -> pa.ChunkedArray | pa.Array | None:
    """The values in the type of the schema, as the slow path would read them; None where that cannot be said of all."""
    wanted = ARROW_TYPES[column.sql_type]
    if given is None or pa.types.is_null(given.type):
        return pa.nulls(count, wanted)
    kind = given.type.value_type if pa.types.is_dictionary(given.type) else given.type
    try:
        if wanted in (pa.int64(), pa.float64()) and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            found = given.cast(wanted)  # checked: a fraction, a NaN or an overflow raises
            return pc.add(found, 0.0) if wanted == pa.float64() else found  # makes -0.0 what it equals
        if isinstance(column, Field) and column.whole and pa.types.is_integer(kind):
            bounds = pc.min_max(given).as_py()
            few = bounds["min"] is None or (bounds["min"] >= 0 and bounds["max"] < MOST_NUMBER)
            return given.cast(wanted) if few else None
        if wanted == pa.string() and (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return given.cast(wanted)
    except pa.ArrowException:
        return None
    return None


def _opened(value: bytes, headers: Headers) -> tuple[Mapping[str, Any], Any]:
    attributes = attributes_of(value, headers)
    try:
        return attributes, Rows(table(value))
    except Undecodable as error:
        too_large = error.reason == "arrow_too_large"
        raise Unfit("dead_lettered", "arrow_too_large" if too_large else "not_arrow") from error


FORMAT = EventFormat(
    "arrow",
    "an Arrow IPC stream, its columns the properties of the schema, with the attributes of a CloudEvent in the headers",
    "arrow",
    _opened,
    _decode,
    content_type=CONTENT_TYPE,
    begins=BEGINS,
    json=False,
    attributes_in_headers=True,
)
