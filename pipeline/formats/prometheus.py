"""Prometheus text: what an exporter answers to a scrape, version 0.0.4, and OpenMetrics 1.0.

The parser is our own, and compared with prometheus_client's by a test: that one gives values as floats, and whether
dcgm-exporter printed `1` or `1.000000` is all that tells a percentage from a ratio.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from pipeline.formats.point import Kind, Point, Undecodable, bounded, from_epoch

NAME = "prometheus"
_LABEL = re.compile(
    r'\s*(?P<name>[^\s"=,{}]+|"(?:[^"\\]|\\.)*")\s*=\s*"(?P<value>(?:[^"\\\n]|\\.)*)"\s*(?P<end>,|(?=\}))'
)
_LINE = re.compile(r"(?P<name>[^\s{}#\"]*)\s*(?P<open>\{)?")
_VALUE = re.compile(r"\s*(?P<value>\S+)(?:[ \t]+(?P<time>-?[0-9.eE+]+))?\s*(?:#.*)?")
_QUOTED = re.compile(r'\s*"(?P<name>(?:[^"\\]|\\.)*)"\s*(?:,|(?=\}))')
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "\\": "\\", '"': '"'}
_KINDS: dict[str, Kind] = {"gauge": "gauge", "counter": "counter", "histogram": "histogram"}


def points(raw: bytes) -> Iterator[Point]:
    """The points of a scrape.  Raises Undecodable with the line that is not of this format."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Undecodable("not_utf8") from error
    yield from bounded(_series(text))


def _series(text: str) -> Iterator[Point]:
    lines = text.split("\n")
    seconds = any(
        line.rstrip() == "# EOF" for line in lines[-3:]
    )  # OpenMetrics counts seconds, 0.0.4 milliseconds
    kinds: dict[str, Kind] = {}
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            words = line.split(None, 3)
            if len(words) == 4 and words[1] == "TYPE" and words[3] in _KINDS:
                kinds[words[2]] = _KINDS[words[3]]
            continue
        yield _point(line, number, kinds, seconds)


def _point(line: str, number: int, kinds: dict[str, Kind], seconds: bool) -> Point:
    name, labels, rest = _named(line, number)
    found = _VALUE.fullmatch(rest)
    value = None if found is None else read_number(found["value"])
    if found is None or value is None:
        raise Undecodable(
            "not_prometheus_text", f"line {number}", repr(rest.strip()[:60]), "a number after the name"
        )
    time = None
    if found["time"]:
        time = _time(found["time"], seconds, number)
    kind = kinds.get(name) or kinds.get(name.removesuffix("_total"), "")
    return Point(name, labels, None if math.isnan(value) else value, time, kind, found["value"])


def _time(text: str, seconds: bool, number: int) -> int | None:
    try:
        return round(float(text) * 1_000_000) if seconds or "." in text else from_epoch(int(text))
    except (ValueError, OverflowError) as error:
        raise Undecodable("not_prometheus_text", f"line {number}", repr(text), "a timestamp") from error


def _named(line: str, number: int) -> tuple[str, dict[str, str], str]:
    """(name, labels, the rest of the line); Prometheus 3 writes names of any letters in quotes, inside the braces."""
    head = _LINE.match(line)
    assert head is not None  # it may match nothing
    name, labels, at = head["name"], dict[str, str](), head.end()
    if head["open"]:
        if not name and (quoted := _QUOTED.match(line, at)):
            name, at = _unescaped(quoted["name"]), quoted.end()
        while found := _LABEL.match(line, at):
            labels[_unquoted(found["name"])] = _unescaped(found["value"])
            at = found.end()
        closing = re.compile(r"\s*\}").match(line, at)
        if not closing:
            raise Undecodable(
                "not_prometheus_text", f"line {number}", repr(line[at : at + 60]), 'a label="…" or }'
            )
        at = closing.end()
    if not name:
        raise Undecodable("not_prometheus_text", f"line {number}", repr(line[:60]), "a metric's name")
    return name, labels, line[at:]


def _unquoted(name: str) -> str:
    return _unescaped(name[1:-1]) if name.startswith('"') else name


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[0]), text) if "\\" in text else text


def read_number(text: str) -> float | int | None:
    """The number that Go prints: `+Inf` and `NaN` too; a whole number keeps all its digits.  None for anything else.

    >>> read_number("88410233125"), read_number("0.81"), read_number("+Inf"), read_number("0x"), read_number("1_0")
    (88410233125, 0.81, inf, None, None)
    """
    try:
        return (
            None
            if "_" in text
            else int(text)
            if len(text) < 20 and text.lstrip("+-").isdigit()
            else float(text)
        )
    except ValueError:
        return None
