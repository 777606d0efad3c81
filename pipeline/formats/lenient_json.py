"""JSON as the vectorised decoder reads it, which is a little wider than RFC 8259.

A comma before a closing bracket is overlooked, `nan` and `inf` may be written in any case (C prints them so), of a
repeated key the first counts, and undeclared properties may hold anything, however large or deep.
"""

from __future__ import annotations

import json
import re
from typing import Any

_MAX_INTEGER_DIGITS = 400
"""A longer integer is beyond every DOUBLE, and Python takes quadratic time to read it."""
_MAX_DEPTH = 200
TOO_DEEP = "gigawatch: nested too deep"
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_BEGINS = re.compile(r'[ \t\r\n]*[{\["\-0-9tfniNI]')
"""How any value begins, also one that only the vectorised decoder reads."""
_LENIENCE = re.compile(
    r'("(?:[^"\\]|\\.)*")|,(?=[ \t\r\n]*[\]}])|(-?)\b(?:(nan)|inf(?:inity)?)\b', re.DOTALL | re.IGNORECASE
)


def read_json(text: str) -> Any:
    """The value; a number with a fraction or an exponent has its digits in `text`.  Raises ValueError."""
    text = _shallow(text)
    try:
        return _READER.decode(text)
    except ValueError:
        pass
    if not _BEGINS.match(text):  # to look for what may be overlooked costs more than all else
        raise ValueError("no JSON")
    return _READER.decode(_LENIENCE.sub(_strictly, text))


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
                kept.append(f'"{TOO_DEEP}"')
                done = token.end()
    return "".join(kept) + text[done:] if depth <= _MAX_DEPTH else ""  # never closed: no JSON


class _Float(float):
    """A JSON number that remembers its digits, so that money never passes through binary."""

    def __init__(self, text: str) -> None:
        self.text = text


def _integer(text: str) -> int | float:
    return int(text) if len(text) <= _MAX_INTEGER_DIGITS else _Float(text)


def _first(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a repeated key the first counts, as in the vectorised decoder."""
    found = dict(pairs)
    if len(found) < len(pairs):
        found.update(reversed(pairs))
    return found


_READER = json.JSONDecoder(
    parse_int=_integer, parse_float=_Float, parse_constant=float, object_pairs_hook=_first
)
"""Made once: `json.loads` with hooks makes one for every text, at a quarter of the price of reading it."""
