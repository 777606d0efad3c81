"""The law of formats of points that have a fast way of their own: it gives what the careful one gives, and refuses the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.formats.point import Point, Undecodable
from pipeline.formats.registry import format_named, point_formats

_POINT = {
    "attributes": [{"key": "UUID", "value": {"stringValue": "GPU-1"}}],
    "timeUnixNano": "1795461960250000000",
    "asDouble": 1.5,
    "flags": 0,
}
_METRIC = {"name": "m", "gauge": {"dataPoints": [_POINT, {**_POINT, "asDouble": 2}]}}
_RESOURCE = {"attributes": [{"key": "k8s.node.name", "value": {"stringValue": "n"}}]}
OTLP = {"resourceMetrics": [{"resource": _RESOURCE, "scopeMetrics": [{"metrics": [_METRIC]}]}]}
TELEGRAF = (
    b'{"name": "cpu", "tags": {"host": "a"}, "fields": {"gauge": 81, "x": 1.5}, "timestamp": 1795461960}'
)
MESSAGES: dict[str, tuple[bytes, list[tuple[bytes, bytes]]]] = {
    "otlp_json": (
        json.dumps(OTLP).encode(),
        [
            (b'"asDouble"', b'"asInt"'),
            (b"1.5", b'"NaN"'),
            (b"1.5", b'"7"'),
            (b"1.5", b"null"),
            (b"1.5", b"true"),
            (b"1.5", b"[]"),
            (b'"timeUnixNano": "1', b'"timeUnixNano": "x1'),
            (b'"flags": 0', b'"flags": 1'),
            (b'"flags": 0', b'"flags": "1"'),
            (b'"gauge"', b'"sum"'),
            (b'"gauge"', b'"histogram"'),
            (b'"gauge"', b'"summary"'),
            (b'"stringValue"', b'"intValue"'),
            (b'"attributes"', b'"attribute"'),
            (b'"resource"', b'"resauce"'),
            (b"}", b"]"),
            (b'{"name"', b'{"nome"'),
        ],
    ),
    "telegraf": (
        TELEGRAF,
        [
            (b"81", b'"81"'),
            (b"81", b"null"),
            (b"81", b"true"),
            (b"81", b"[1]"),
            (b"81", b"NaN"),
            (b'"host"', b'"le"'),
            (b'"a"', b"3"),
            (b'"tags"', b'"tag"'),
            (b'"timestamp"', b'"time"'),
            (b"1795461960", b'"1795461960"'),
            (b"}", b""),
        ],
    ),
}
"""Format → a good message, and what may be odd about it."""


def read(points: Callable[[bytes], Iterable[Point]], raw: bytes) -> Any:
    """What a reader makes of a message, or why it refuses it."""
    try:
        return [
            (p.name, dict(p.labels), p.value, p.time, p.kind, p.digits, p.cumulative) for p in points(raw)
        ]
    except Undecodable as error:
        return error.reason


@pytest.mark.parametrize("wire", [each.name for each in point_formats() if each.carefully])
@given(draw=st.data())
def test_the_fast_reader_agrees_with_the_careful_one(wire: str, draw: st.DataObject) -> None:
    found = format_named(wire)
    raw, changes = MESSAGES[wire]
    for old, new in draw.draw(st.lists(st.sampled_from(changes), max_size=3)):
        raw = raw.replace(old, new, 1)
    assert found.carefully is not None
    assert read(found.points, raw) == read(found.carefully, raw)
