"""Telegraf: what `outputs.kafka` writes, as JSON or as line protocol (its default), one metric or many to a message.

A metric is a name, tags and fields.  The Prometheus input has two versions of it: in the first the name is the metric
and the field `gauge`, `counter` or `value`; in the second the name is `prometheus` and the fields are metrics.  A field
of any other plugin is the point `name_field`.  A metric without fields is no point: JSON has no NaN, so Telegraf leaves
such a field out and sends the rest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from pipeline.formats.histograms import buckets_of
from pipeline.formats.otlp_json import json_value
from pipeline.formats.point import MAX_LABELS, Kind, Point, SharedLabels, Undecodable, bounded, from_epoch
from pipeline.formats.prometheus import read_number

NAME = "telegraf"
SECOND_VERSION = "prometheus"
_VALUES: dict[str, Kind] = {"gauge": "gauge", "counter": "counter", "value": ""}


class _Message(msgspec.Struct):
    """A metric as JSON; its tags stay as they are until they are met."""

    name: str
    fields: dict[str, int | float | str | bool | None]
    timestamp: int | float | None = None
    tags: msgspec.Raw = msgspec.Raw(b"{}")


_DECODER = msgspec.json.Decoder(_Message)
MAX_KEPT = 200_000
_KEPT: dict[bytes, SharedLabels] = {}
"""Tags as they stand in a message → labels."""


def points(raw: bytes) -> list[Point]:
    """The points of a message.  Raises Undecodable where it is neither JSON nor line protocol."""
    try:
        message = _DECODER.decode(raw)
        key = bytes(message.tags)
        labels = _KEPT.get(key) or _keep(key)
        time = from_epoch(message.timestamp) if message.timestamp is not None else None
        fields = {name: value for name, value in message.fields.items() if value is not None}
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return list(carefully(raw))
    found = list(_of(message.name, labels, fields, time))
    return found if len(found) < MAX_LABELS else list(bounded(iter(found)))


def _keep(tags: bytes) -> SharedLabels:
    """The labels of tags that were not met yet, checked as those of any point."""
    found = msgspec.json.decode(tags, type=dict[str, str])
    labels = SharedLabels(found)
    list(bounded(iter([Point("", labels, None)])))
    if len(_KEPT) >= MAX_KEPT:
        _KEPT.clear()
    _KEPT[tags] = labels
    return labels


def carefully(raw: bytes) -> Iterator[Point]:
    """The same, a point at a time."""
    found = _json_metrics(raw) if raw.lstrip()[:1] in (b"{", b"[") else _lines(raw)
    yield from bounded(point for name, tags, fields, time in found for point in _of(name, tags, fields, time))


_Metric = tuple[str, Mapping[str, str], Mapping[str, Any], int | None]


def _of(name: str, tags: Mapping[str, str], fields: Mapping[str, Any], time: int | None) -> Iterator[Point]:
    if "+Inf" in fields and "count" in fields:  # a histogram of the first version: its bounds are fields
        upto = {le: n for text, n in fields.items() if (le := read_number(text)) is not None}
        yield Point(name, tags, buckets_of(upto), time, "histogram")
        return
    for field, found in fields.items():
        value = found if found == found else None  # lenient JSON has NaN
        if name == SECOND_VERSION:
            yield Point(field, tags, value, time)
        elif field in _VALUES:
            yield Point(name, tags, value, time, _VALUES[field])
        else:
            yield Point(f"{name}_{field}", tags, value, time)


def _json_metrics(raw: bytes) -> Iterator[_Metric]:
    found = json_value(raw)
    if isinstance(found, dict) and isinstance(found.get("metrics"), list):
        found = found["metrics"]
    for metric in found if isinstance(found, list) else [found]:
        if not isinstance(metric, dict) or not isinstance(metric.get("fields"), dict) or "name" not in metric:
            raise Undecodable("not_telegraf", "", "another value", "name, tags, fields and timestamp")
        tags, stamp = metric.get("tags") or {}, metric.get("timestamp")
        if not isinstance(tags, dict):
            raise Undecodable("not_telegraf", "tags", "another value", "an object")
        time = from_epoch(stamp) if isinstance(stamp, int | float) else None
        fields = {
            name: value for name, value in metric["fields"].items() if isinstance(value, int | float | str)
        }
        yield str(metric["name"]), {k: str(v) for k, v in tags.items()}, fields, time


_MEASUREMENT = re.compile(r"((?:[^\\, ]|\\.)+)")
_TAG = re.compile(r",((?:[^\\,= ]|\\.)+)=((?:[^\\,= ]|\\.)*)")
_FIELD = re.compile(r'((?:[^\\,= ]|\\.)+)=("(?:[^"\\]|\\.)*"|[^\s,"]+)(,|(?=\s|$))')
_STAMP = re.compile(r"\s+(-?\d+)\s*$|\s*$")
_ESCAPE = re.compile(r"\\([, =\\\"])")


def _lines(raw: bytes) -> Iterator[_Metric]:
    """Line protocol: `name,tag=value field=1i,other="text" nanoseconds`."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Undecodable("not_utf8") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield _line(line.strip(), number)


def _line(line: str, number: int) -> _Metric:
    head = _MEASUREMENT.match(line)
    if not head:
        raise Undecodable("not_line_protocol", f"line {number}", repr(line[:60]), "a measurement's name")
    tags, fields, at = dict[str, str](), dict[str, Any](), head.end()
    while found := _TAG.match(line, at):
        tags[_plain(found[1])] = _plain(found[2])
        at = found.end()
    at += 1 if line[at : at + 1] == " " else 0
    while found := _FIELD.match(line, at):
        fields[_plain(found[1])] = _value(found[2], number)
        at = found.end()
    stamp = _STAMP.match(line, at)
    if not fields or not stamp:
        raise Undecodable(
            "not_line_protocol", f"line {number}", repr(line[at : at + 60]), "field=value, then a time"
        )
    return _plain(head[1]), tags, fields, from_epoch(int(stamp[1])) if stamp[1] else None


def _value(text: str, number: int) -> int | float | str:
    if text.startswith('"'):
        return _plain(text[1:-1])
    if text in ("t", "T", "true", "True", "TRUE", "f", "F", "false", "False", "FALSE"):
        return int(text[0] in "tT")
    found = read_number(text[:-1] if text[-1:] in "iu" else text)
    if found is None:
        raise Undecodable(
            "not_line_protocol", f"line {number}", repr(text[:60]), "a number or a text in quotes"
        )
    return found


def _plain(text: str) -> str:
    return _ESCAPE.sub(r"\1", text) if "\\" in text else text
