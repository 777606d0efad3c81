"""Any JSON document: Redfish, carbon intensity, what an API answers.

Each number is a point, named by its path without the places in lists: `PowerControl.PowerConsumedWatts`.  The texts and
truth values of its object, and of the objects around it, are its labels.  null is the value "": asked for, and not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.formats.otlp_json import json_value
from pipeline.formats.point import UNKNOWN, Point, bounded

NAME = "json"


def points(raw: bytes) -> Iterator[Point]:
    """The numbers of a document.  Raises Undecodable where it is no JSON."""
    yield from bounded(_walk(json_value(raw), "", {}))


def _walk(value: Any, path: str, labels: Mapping[str, str]) -> Iterator[Point]:
    """`read_json` has bounded how deep this goes."""
    if isinstance(value, list):
        for each in value:
            yield from _walk(each, path, labels)
    elif isinstance(value, dict):
        inside = {
            **labels,
            **{name: _text(each) for name, each in value.items() if isinstance(each, str | bool)},
        }
        for name, each in value.items():
            yield from _walk(each, f"{path}.{name}" if path else name, inside)
    elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield Point(
            path, labels, UNKNOWN if value is None else value if value == value else None, None, "gauge"
        )


def _text(value: str | bool) -> str:
    return value if isinstance(value, str) else "true" if value else "false"
