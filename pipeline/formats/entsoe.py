"""ENTSO-E's market documents (XML): day-ahead prices (A44) and other series of positions in a period.

A point says the position and the value; its time is the start of the period and so many steps of its resolution.  In
curve type A03 a position that is left out repeats the one before, to the end of the period ("variable sized block").
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from xml.etree import ElementTree

from pipeline.formats.point import Point, Undecodable, bounded, micros_of
from pipeline.formats.prometheus import read_number
from pipeline.formats.times import read_time

NAME = "entsoe"
REPEATED = "A03"
_STEP = re.compile(r"P(?:(?P<days>\d{1,2})D)?(?:T(?:(?P<hours>\d{1,3})H)?(?:(?P<minutes>\d{1,4})M)?)?")
_MAX_STEPS = 100_000


def points(raw: bytes) -> Iterator[Point]:
    """The points of a document.  Raises Undecodable where it is none, or declares entities of its own."""
    if b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:  # entities that unfold into a billion
        raise Undecodable("not_entsoe", "", "a document type of its own", "a market document")
    try:
        root = ElementTree.fromstring(raw)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise Undecodable("not_xml", "", str(error)[:80], "XML") from error
    if not _name(root).endswith("_MarketDocument"):
        raise Undecodable("not_entsoe", _name(root)[:80], "another document", "a …_MarketDocument")
    yield from bounded(_points(root))


def _points(root: ElementTree.Element) -> Iterator[Point]:
    document = _texts(root)
    for series in _children(root, "TimeSeries"):
        labels = {**document, **_texts(series)}
        for period in _children(series, "Period"):
            yield from _period(period, {**labels, **_texts(period)}, labels.get("curveType") == REPEATED)


def _period(period: ElementTree.Element, labels: Mapping[str, str], repeated: bool) -> Iterator[Point]:
    start, end, step = _span(period, labels)
    steps = (end - start) // step
    if not 0 < steps <= _MAX_STEPS:
        raise Undecodable("not_entsoe", "Period", f"{steps} steps", f"1 to {_MAX_STEPS:,}")
    given: dict[int, dict[str, str]] = {}
    for each in _children(period, "Point"):
        texts = _texts(each)
        position = read_number(texts.pop("position", ""))
        if not isinstance(position, int) or not 1 <= position <= steps:
            raise Undecodable(
                "not_entsoe", "Point", f"position {position}", f"a whole number from 1 to {steps}"
            )
        given[position] = texts
    before: dict[str, str] = {}
    for position in range(1, steps + 1):
        before = given.get(position, before if repeated else {})
        for name, text in before.items():
            value = read_number(text)
            if value is None:
                raise Undecodable("not_entsoe", f"position {position}", repr(text)[:60], "a number")
            yield Point(name, labels, value, start + (position - 1) * step, "gauge")


def _span(period: ElementTree.Element, labels: Mapping[str, str]) -> tuple[int, int, int]:
    """(start, end, step) in microseconds."""
    found = [_texts(each) for each in _children(period, "timeInterval")]
    times = [read_time(found[0].get(name, "")) for name in ("start", "end")] if found else []
    step = _STEP.fullmatch(labels.get("resolution", ""))
    if (
        len(times) != 2
        or not isinstance(times[0], datetime)
        or not isinstance(times[1], datetime)
        or not step
    ):
        raise Undecodable(
            "not_entsoe", "Period", "no span", "timeInterval with start and end, and resolution as PT15M"
        )
    days, hours, minutes = (int(step[part] or 0) for part in ("days", "hours", "minutes"))
    return micros_of(times[0]), micros_of(times[1]), max(1, ((days * 24 + hours) * 60 + minutes) * 60_000_000)


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _children(of: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (each for each in of if _name(each) == name)


def _texts(of: ElementTree.Element) -> dict[str, str]:
    """The elements that hold nothing but text."""
    return {_name(each): (each.text or "").strip() for each in of if len(each) == 0}
