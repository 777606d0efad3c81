"""An event format: a record that holds whole samples with their envelope, not points that a mapping must gather.

Each has two ways to the same samples.  `opened` opens one record with care, and is the specification.  `decode` is the
fast path: SELECTs over a batch, which leave to `opened` whatever is not beyond doubt.  A law says that both agree
(`tests/stream/test_formats_law.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa

from pipeline.catalog import EventType
from pipeline.formats.lenient_json import read_json
from pipeline.formats.measures import Unfit
from pipeline.rollup.grid import DAY

Headers = Sequence[tuple[str, bytes | None]]

CLOUDEVENTS = "cloudevents"
"""Settings call both content modes by one name."""
ENVELOPE = ("specversion", "id", "source", "type", "time")
"""The required attributes of a CloudEvent, all of which Gigawatch reads."""
INTERVAL = "interval"
"""An optional extension attribute: the seconds between two reports of its source, where they are not the schema's."""
ATTRIBUTES = (*ENVELOPE, INTERVAL)
MAX_INTERVAL = DAY
MAX_CLOCK_AHEAD = timedelta(seconds=60)
"""An event later than its record by more is quarantined: one bad clock must not make honest rows late."""


@dataclass(frozen=True, slots=True)
class DecodeSql:
    """SELECTs over `(row, part, record_time, value, …)` in place of `{records}`, for one event type.

    Each yields `row, idx, ok, doubt, part, record_time, source, id, time, interval, quoted`, then the columns of the event
    type but its dimensions.  Those of JSON raise duckdb.InvalidInputException for a value that is none.

    `array` is for the records for which `looks_array` holds, `single` for the others; it may be wrong, and then the slow
    path judges.  Without `looks_array`, `single` is for all.
    `names` is a SELECT of `quoted, good, <dimensions>` for the samples in `wanted(quoted, row, idx)`.
    `unpack`: (rows, values) → the samples as a table, in place of `{samples}`, for values that SQL cannot open; None where
    it takes none of them.
    """

    single: str
    names: str
    array: str = ""
    looks_array: str = ""
    unpack: Callable[[Sequence[int], Sequence[bytes]], pa.Table | None] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class EventFormat:
    """One format of events on a topic of Gigawatch's own.

    A record is of the first format in `FORMATS` that recognises it: by what its header `content-type` begins with, in
    small letters, and by how its value begins.

    `opened`: (value, headers) → attributes and data, the data of one sample or a list; raises Unfit.
    `decode`: the fast path of an event type; None where each record is opened.
    `json`: the value is JSON text, and `{records}` has it as VARCHAR; otherwise as BLOB.
    `attributes_in_headers`: `{records}` has a BLOB for each attribute: ce_id and so on.
    `family`: how settings call it for a topic of another name; each record says which of them it is.
    """

    name: str
    says: str
    family: str
    opened: Callable[[bytes, Headers], tuple[Mapping[str, Any], Any]]
    decode: Callable[[EventType], DecodeSql | None]
    content_type: bytes = b""
    begins: bytes = b""
    json: bool = True
    attributes_in_headers: bool = False

    def recognises(self, headers: Headers, value: bytes) -> bool:
        """Whether a record with these headers and this value is of this format."""
        return self.declared_by(content_types(headers)) and value.startswith(self.begins)

    def declared_by(self, types: Sequence[bytes]) -> bool:
        """Whether one of these content types is that of this format."""
        return not self.content_type or any(each.startswith(self.content_type) for each in types)


def content_types(headers: Headers) -> tuple[bytes, ...]:
    """What a record's headers say that its value is: one type, or several where a header is given twice."""
    return tuple([value.lower() for name, value in headers if value and name.lower() == "content-type"])


def text_of(content: bytes) -> str:
    """A value or header as text: UTF-8 as it is (the Kafka binding has no percent-encoding, unlike that of HTTP)."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unfit("dead_lettered", "not_utf8") from error


def json_of(value: bytes) -> Any:
    """A value as JSON.  Raises Unfit."""
    text = text_of(value)
    try:
        return read_json(text)
    except ValueError as error:
        raise Unfit("dead_lettered", "not_json") from error
