"""The slow path: one Kafka record, opened with care, and the fate of each of its samples with the reason.

The vectorised decoder hands over only what it is not sure of.  This module is the specification that the
decoder must agree with: what it accepts here is aggregated, with the same values.

JSON is read as the vectorised decoder reads it, which is a little wider than RFC 8259: a comma before a closing
bracket is overlooked, `nan` and `inf` may be written in any case (C prints them so), of a repeated key the first
counts, and undeclared properties may hold anything, however large or deep.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from pipeline.catalog import EventType, Field, Measure
from pipeline.stream.amounts import amount_of
from pipeline.stream.inside import found, tidied
from pipeline.stream.times import read_time

Fate = Literal["aggregated", "duplicate", "quarantined", "dead_lettered"]
Headers = Sequence[tuple[str, bytes]]

ENVELOPE = ("specversion", "id", "source", "type", "time")
"""The required attributes of a CloudEvent, all of which Gigawatch reads."""
INTERVAL = "interval"
"""An optional extension attribute: the seconds between two reports of its source, where they are not the schema's."""
ATTRIBUTES = (*ENVELOPE, INTERVAL)
MAX_INTERVAL = 86_400
_STRUCTURED = b"application/cloudevents"

MAX_CLOCK_AHEAD = timedelta(seconds=60)
_WHOLE_SECONDS = re.compile(r"[0-9]{1,5}", re.ASCII)
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_INTEGER_DIGITS = 400
"""A longer integer is beyond every DOUBLE, and Python takes quadratic time to read it."""
_MAX_DEPTH = 200
_TOO_DEEP = "gigawatch: nested too deep"
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_BEGINS = re.compile(r'[ \t\r\n]*[{\["\-0-9tfniNI]')
"""How any value begins, also one that only the vectorised decoder reads."""
_LENIENCE = re.compile(
    r'("(?:[^"\\]|\\.)*")|,(?=[ \t\r\n]*[\]}])|(-?)\b(?:(nan)|inf(?:inity)?)\b', re.DOTALL | re.IGNORECASE
)


class Refused(Exception):
    """The sample or message has a fate other than aggregated; `reason` is a short, countable phrase."""

    def __init__(self, fate: Fate, reason: str) -> None:
        super().__init__(reason)
        self.fate: Fate = fate
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Outcome:
    """The fate of sample `idx` of a message; `row` holds the column values when it is aggregated.

    `sample` is the JSON value as found (None for a message that could not be opened), and `time`, `source`
    and `id` are set as far as they could be read.
    """

    idx: int
    fate: Fate
    reason: str
    row: Mapping[str, Any] = field(default_factory=dict)
    sample: Any = None
    time: datetime | None = None
    source: str | None = None
    id: str | None = None


def inspect(
    event: EventType,
    value: bytes | None,
    headers: Headers,
    record_time: datetime,
    max_bytes: int,
    ahead: bool = False,
) -> Iterator[Outcome]:
    """Open one record of `event`'s topic; yields an outcome for each sample, or one for the message.

    `record_time` is the Kafka timestamp, naive UTC, or the broker's clock if that is less; `ahead`: the timestamp is
    later than that clock by more than MAX_CLOCK_AHEAD.  `max_bytes` bounds the value.
    """
    try:
        attributes, data = _open(value, headers, max_bytes)
        source, ident, moment = _envelope(event, attributes)
        interval = _interval(attributes.get(INTERVAL))
    except Refused as refused:
        yield Outcome(0, refused.fate, refused.reason)
        return
    samples = data if isinstance(data, list) else [data]
    if not samples:
        yield Outcome(0, "dead_lettered", "data_empty_array", source=source, id=ident, time=moment)
    for idx, sample in enumerate(samples):
        try:
            if ahead:
                raise Refused("quarantined", "record_time_in_future")
            if moment > record_time + MAX_CLOCK_AHEAD:
                raise Refused("quarantined", "time_in_future")
            row = {**_row(event, sample), INTERVAL: interval}
            yield Outcome(idx, "aggregated", "", row, sample, moment, source, ident)
        except Refused as refused:
            yield Outcome(idx, refused.fate, refused.reason, {}, sample, moment, source, ident)


def _open(value: bytes | None, headers: Headers, max_bytes: int) -> tuple[Mapping[str, Any], Any]:
    """Attributes and data of a CloudEvent in either content mode of the Kafka binding."""
    if value is None:
        raise Refused("dead_lettered", "null_value")
    if len(value) > max_bytes:
        raise Refused("dead_lettered", "too_large")
    if value[:1] == b"\x00":
        raise Refused("dead_lettered", "confluent_wire_format")
    if value[:2] == _GZIP_MAGIC:
        raise Refused("dead_lettered", "compressed_value")
    if declares_structured(headers):
        return _structured(_json(value))
    # a name in the binding's own spelling counts before another spelling of it
    named = {name.lower(): content for name, content in headers if name != name.lower()}
    named |= {name: content for name, content in headers if name == name.lower()}
    if "ce_specversion" not in named and "ce_type" not in named:
        _json(value)
        raise Refused("dead_lettered", "not_a_cloudevent")
    attributes = {
        name: _utf8(content) for name in ATTRIBUTES if (content := named.get(f"ce_{name}")) is not None
    }
    return attributes, _json(value)


def declares_structured(headers: Headers) -> bool:
    """Whether a record's headers declare the structured content mode (Kafka protocol binding, 3)."""
    return any(
        name.lower() == "content-type" and (value or b"").lower().startswith(_STRUCTURED)
        for name, value in headers
    )


def _structured(message: Any) -> tuple[Mapping[str, Any], Any]:
    if not isinstance(message, dict) or "specversion" not in message:
        raise Refused("dead_lettered", "not_a_cloudevent")
    if "data" not in message:
        raise Refused("dead_lettered", "data_missing")
    return message, message["data"]


def _utf8(content: bytes) -> str:
    """A header value: UTF-8 as it is (the Kafka binding has no percent-encoding, unlike that of HTTP)."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused("dead_lettered", "not_utf8") from error


def _json(value: bytes) -> Any:
    text = _shallow(_utf8(value))
    try:
        return _READER.decode(text)
    except ValueError:
        pass
    if not _BEGINS.match(text):  # to look for what may be overlooked costs more than all else
        raise Refused("dead_lettered", "not_json")
    try:
        return _READER.decode(_LENIENCE.sub(_strictly, text))
    except ValueError as error:
        raise Refused("dead_lettered", "not_json") from error


def _strictly(found: re.Match[str]) -> str:
    """What Python's reader understands in the place of what only the vectorised decoder does."""
    string, sign, nan = found.groups()
    if string is not None:
        return string
    if found[0] == ",":
        return ""
    return "NaN" if nan else f"{sign}Infinity"


def _shallow(text: str) -> str:
    """The text with everything below `_MAX_DEPTH` levels replaced by a mark: deeper, Python's reader gives up."""
    if text.count("[") + text.count("{") <= _MAX_DEPTH:
        return text
    kept, depth, done = [], 0, 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth == _MAX_DEPTH + 1:
                kept.append(text[done : token.start()])
        elif token[0] in "]}":
            depth -= 1
            if depth == _MAX_DEPTH:
                kept.append(f'"{_TOO_DEEP}"')
                done = token.end()
    return "".join(kept) + text[done:] if depth <= _MAX_DEPTH else ""  # never closed: no JSON


class _Float(float):
    """A JSON number that remembers its digits, so that money never passes through binary."""

    text: str


def _number(text: str) -> _Float:
    number = _Float(text)
    number.text = text
    return number


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= _MAX_INTEGER_DIGITS else _number(text)


def _first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a repeated key the first counts, as in the vectorised decoder."""
    found = dict(pairs)
    if len(found) < len(pairs):
        found.update(reversed(pairs))
    return found


_READER = json.JSONDecoder(
    parse_int=_integer, parse_float=_number, parse_constant=float, object_pairs_hook=_first
)
"""Made once: `json.loads` with hooks makes one for every text, at a quarter of the price of reading it."""


def _envelope(event: EventType, attributes: Mapping[str, Any]) -> tuple[str, str, datetime]:
    for name in ("specversion", "type", "source", "id", "time"):
        value = attributes.get(name)
        if value is None:
            raise Refused("dead_lettered", "not_a_cloudevent" if name == "specversion" else f"{name}_missing")
        if not isinstance(value, str):
            raise Refused("dead_lettered", f"{name}_mistyped")
    if attributes["specversion"] != "1.0":
        raise Refused("dead_lettered", "not_a_cloudevent")
    if attributes["type"] != event.type:
        raise Refused("dead_lettered", "unknown_type")
    for name in ("source", "id"):
        if _has_surrogate(attributes[name]):
            raise Refused("dead_lettered", f"{name}_not_unicode")
        if not 1 <= len(attributes[name].encode()) <= 1024:
            raise Refused("dead_lettered", f"{name}_length")
    return attributes["source"], attributes["id"], _time("time", attributes["time"])


def _interval(value: Any) -> int | None:
    """The seconds that a source declares, as a JSON number or string; None where it says none, or nothing sensible."""
    text = value if isinstance(value, str) else getattr(value, "text", str(value))
    if not _WHOLE_SECONDS.fullmatch(text):
        return None
    return int(text) if 1 <= int(text) <= MAX_INTERVAL else None


def _time(name: str, text: Any, zone: str | None = None) -> datetime:
    """The time as naive UTC; `zone` is that of a time that names none."""
    if not isinstance(text, str):
        raise Refused("dead_lettered", f"{name}_mistyped")
    found = read_time(text, zone)
    if isinstance(found, str):
        without = found == "without_zone"
        raise Refused("dead_lettered", f"{name}_without_zone" if without else f"{name}_malformed")
    return found


def _row(event: EventType, sample: Any) -> dict[str, Any]:
    """The typed columns of one sample.  A fault of form dead-letters before a doubt of credence quarantines."""
    if not isinstance(sample, dict):
        raise Refused("dead_lettered", "sample_not_an_object")
    row: dict[str, Any] = {
        f.name: _field(f, found(f, sample, event.nulls), event.nulls) for f in event.fields
    }
    doubts: list[str] = []
    for measure in event.measures:
        row[measure.name], doubt = _measure(measure, found(measure, sample, event.nulls))
        if doubt:
            doubts.append(doubt)
    if doubts:
        raise Refused("quarantined", doubts[0])
    custom = {key: value for key, value in sample.items() if key.startswith("x_")}
    if event.retained:
        row["x_columns"] = json.dumps(custom, sort_keys=True) if custom else None
    return row


def _field(column: Field, value: Any, nulls: Sequence[str]) -> Any:
    if value is None:
        if column.optional:
            return None
        raise Refused("dead_lettered", f"{column.name}_missing")
    if column.kind == "json":
        value = _object(value)
        if value is None:
            raise Refused("dead_lettered", f"{column.name}_mistyped")
        text = json.dumps(_tidied(column, value, nulls), separators=(",", ":"), ensure_ascii=False)
        if _TOO_DEEP in text:
            raise Refused("dead_lettered", f"{column.name}_nested_too_deep")
        if _has_surrogate(text):
            raise Refused("dead_lettered", f"{column.name}_not_unicode")
        return text
    if column.kind == "time":
        return _time(column.name, value, column.zone)
    if not isinstance(value, str):
        raise Refused("dead_lettered", f"{column.name}_mistyped")
    if column.enum and value not in column.enum:
        raise Refused("quarantined", f"{column.name}_not_in_enum")
    if not column.min_length <= len(value) <= (column.max_length or 1024):
        raise Refused("dead_lettered", f"{column.name}_length")
    if _has_surrogate(value):
        raise Refused("dead_lettered", f"{column.name}_not_unicode")
    return value


def _object(value: Any) -> dict[str, Any] | None:
    """A JSON object, or the one that a text holds: files have such columns as text.  None for anything else."""
    if isinstance(value, str):
        try:
            value = _json(value.encode())
        except (Refused, UnicodeEncodeError):
            return None
    return value if isinstance(value, dict) else None


def _tidied(column: Field, value: dict[str, Any], nulls: Sequence[str]) -> Any:
    return tidied(column.inside, value, nulls, _amount) if column.inside else value


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _measure(measure: Measure, value: Any) -> tuple[Any, str | None]:
    """The typed value, and the reason to doubt it, if any.  An absent measure is None."""
    if value is None:
        if measure.optional:
            return None, None
        raise Refused("dead_lettered", f"{measure.name}_missing")
    if measure.kind == "money":
        return _amount(measure.name, value), None
    if measure.kind == "text":
        if not isinstance(value, str):
            raise Refused("dead_lettered", f"{measure.name}_mistyped")
        return value, None if value in measure.enum else f"{measure.name}_not_in_enum"
    if measure.kind == "histogram":
        return _list(measure, value)
    number = _plain_number(measure, value)
    return number, _doubt(measure, number)


def _list(measure: Measure, value: Any) -> tuple[list[float], str | None]:
    if not isinstance(value, list):
        raise Refused("dead_lettered", f"{measure.name}_mistyped")
    numbers = [float(_plain_number(measure, v)) for v in value]
    if measure.max_items is not None and len(numbers) > measure.max_items:
        return numbers, f"{measure.name}_too_many"
    return numbers, next((d for d in (_doubt(measure, n) for n in numbers) if d), None)


def _plain_number(measure: Measure, value: Any) -> float | int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused("dead_lettered", f"{measure.name}_mistyped")
    if measure.integer and isinstance(value, float) and math.isfinite(value):
        if value != int(value):
            raise Refused("dead_lettered", f"{measure.name}_mistyped")
        return int(value)
    if measure.integer:
        return value
    try:
        return float(value) + 0.0  # -0.0 equals 0.0, but which of the two is the least depends on the order
    except OverflowError:
        return math.inf


def _doubt(measure: Measure, number: float | int) -> str | None:
    if isinstance(number, float) and math.isnan(number):
        return f"{measure.name}_nan"
    if measure.minimum is not None and number < measure.minimum:
        return f"{measure.name}_negative" if number < 0 <= measure.minimum else f"{measure.name}_out_of_range"
    if measure.maximum is not None and number > measure.maximum:
        return f"{measure.name}_out_of_range"
    return None


def _amount(name: str, value: Any) -> Decimal:
    """The exact amount; what a column of money cannot keep to the last digit is refused."""
    found = amount_of(value)
    if found == "mistyped":
        raise Refused("dead_lettered", f"{name}_mistyped")
    if found == "too_precise":
        raise Refused("quarantined", f"{name}_too_precise")
    if found == "out_of_range":
        raise Refused("quarantined", f"{name}_out_of_range")
    assert isinstance(found, Decimal)
    return found
