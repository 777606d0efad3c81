"""The terms of a clause, by what its schema says of each: one reader for each kind of value, and how it is written.

A property that is a `$ref` to a definition of `schemas/contract.frame.json` is read by the reader of that name; one
that is described in place is a word, a number, a list, or a mapping of such.  The attribute of the clause is called as
the field is, with the unit behind it: `lead` is `lead_seconds`, `from` is `from_t`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache, partial
from typing import Any, NamedTuple, get_args, get_type_hints

from pipeline.contract import values
from pipeline.contract.build import Scope, read_ramp, read_span, read_window_name
from pipeline.contract.cursor import Cursor
from pipeline.contract.fragments import Shape, definitions
from pipeline.contract.model import Clause, Ramp
from pipeline.contract.money import money_text


class TermReader(NamedTuple):
    """`read`: the value in a file, None where it cannot be read; the file has a fault then.

    `suffix`: what the attribute's name has behind the field's.  `blank`: stands for a required term that cannot be
    read, so that the other terms of the clause can still be looked at.
    """

    read: Callable[[Scope, Cursor], Any]
    blank: Any
    suffix: str = ""


def _text(scope: Scope, place: Cursor) -> str | None:
    return place.text()


def _number(scope: Scope, place: Cursor) -> float | None:
    return place.number()


def _duration(scope: Scope, place: Cursor) -> int | None:
    found = place.parse(values.duration)
    return None if found is None else found.exact


def _date(scope: Scope, place: Cursor) -> int | None:
    return place.parse(partial(values.instant, local=scope.zone))


def _money(scope: Scope, place: Cursor) -> Decimal | None:
    return place.read(values.money, place.value)


_TEXT = TermReader(_text, "")
_NUMBER = TermReader(_number, 0.0)
READERS: Mapping[str, TermReader] = {
    "ramp": TermReader(read_ramp, Ramp(((0, 0.0),))),
    "duration": TermReader(_duration, 0, "_seconds"),
    "span": TermReader(read_span, 0, "_seconds"),
    "date": TermReader(_date, 0, "_t"),
    "money": TermReader(_money, Decimal(0)),
    **dict.fromkeys(("text", "name", "currency"), _TEXT),
    **dict.fromkeys(("count", "positive"), _NUMBER),
}
"""By the name of the definition that a `$ref` leads to."""


def read_terms(scope: Scope, place: Cursor, shapes: Mapping[str, Shape], target: type) -> dict[str, Any]:
    """What the mapping at `place` says of the properties `shapes`, as keyword arguments for the dataclass `target`.

    A term that is not there keeps its default; a required one that cannot be read is blank.
    """
    found = {}
    hints, required = get_type_hints(target), _required(target)
    for name, shape in shapes.items():
        attribute = name + _reader(shape).suffix
        item = place.at(name)
        value = _read(scope, item, shape, hints[attribute]) if item.present else None
        if value is not None and _is_writable(item, value):
            found[attribute] = value
        elif attribute in required:
            found[attribute] = _reader(shape).blank
    return found


def _is_writable(place: Cursor, value: object) -> bool:
    """A term that the ledger cannot keep is a fault here: there it would end a running pipeline."""
    try:
        written(value)
    except Unwritable as error:
        expected = (
            "one that the ledger can write: text, a number, money, a ramp, or lists and mappings of these"
        )
        place.fault(str(error), expected, "take it out: this version of Gigawatch cannot keep it")
        return False
    return True


@cache
def _required(target: type) -> frozenset[str]:
    return frozenset(f.name for f in fields(target) if f.default is MISSING and f.default_factory is MISSING)


def _reader(shape: Shape) -> TermReader:
    """How a property is read that holds one value."""
    if "$ref" in shape:
        return READERS[str(shape["$ref"]).rpartition("/")[2]]
    numeric = "anyOf" in shape or shape.get("type") in ("number", "integer")
    return _NUMBER if numeric else _TEXT


def _read(scope: Scope, place: Cursor, shape: Shape, hint: Any) -> Any:
    """The value at `place`, as the attribute's type `hint` has it; None where it cannot be read."""
    if "anyOf" in shape:
        meant = next((each for each in shape["anyOf"] if _admits(each, place.value)), None)
        found = None if meant is None else _read(scope, place, meant, hint)
    elif "enum" in shape:
        found = place.value if place.value in shape["enum"] else None
    elif shape.get("type") == "array":
        items = [_read(scope, item, shape["items"], hint) for item in place.each()]
        found = tuple(item for item in items if item is not None)
    elif "properties" in shape:
        found = hint(**read_terms(scope, place, shape["properties"], hint))
    elif isinstance(shape.get("additionalProperties"), Mapping):
        found = _read_mapping(scope, place, shape, get_args(hint)[1])
    else:
        found = _reader(shape).read(scope, place)
    return float(found) if hint is float and isinstance(found, int) else found


def _read_mapping(scope: Scope, place: Cursor, shape: Shape, hint: Any) -> dict[str, Any]:
    """Name → value; the names are those of windows of the contract where the schema says so (`x-keys`)."""
    found = {}
    for name, item in place.entries():
        if shape.get("x-keys") == "windows":
            read_window_name(scope, item, name)
        value = _read(scope, item, shape["additionalProperties"], hint)
        if value is not None:
            found[name] = value
    return found


def _admits(shape: Shape, value: object) -> bool:
    """Whether `value` has the type, and the form, of a definition: of alternatives, which one was meant."""
    definition = definitions()[str(shape["$ref"]).rpartition("/")[2]]
    if definition["type"] == "string":
        return isinstance(value, str) and re.search(definition["pattern"], value) is not None
    return isinstance(value, int | Decimal) and not isinstance(value, bool)


class Unwritable(TypeError):
    """A term that has no form in JSON, in which the ledger keeps terms: `type` is its Python type."""

    def __init__(self, value: object) -> None:
        self.type = type(value).__name__
        super().__init__(f"a term of type {self.type}")


def terms_of(clause: Clause) -> dict[str, Any]:
    """What only a clause of its kind says, by attribute, as JSON has it.  Raises Unwritable."""
    return {
        f.name: written(getattr(clause, f.name)) for f in fields(clause) if f.name not in _every_clause_has()
    }


@cache
def _every_clause_has() -> frozenset[str]:
    return frozenset(f.name for f in fields(Clause))


def written(value: Any) -> Any:
    """A term as JSON has it: instants of a ramp as RFC 3339, money as text, so that nothing is rounded.

    Raises Unwritable.

    >>> written({"peak": Ramp(((0, 8.0),)), "at_most": Decimal("1.50")})
    {'peak': [{'from': '1970-01-01T00:00:00Z', 'value': 8.0}], 'at_most': '1.50'}
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Decimal):
        return money_text(value)
    if isinstance(value, Ramp):
        return [
            {"from": f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}", "value": step}
            for at, step in value.steps
        ]
    if isinstance(value, Mapping):
        return {str(name): written(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [written(each) for each in value]
    if is_dataclass(value):
        return {f.name: written(getattr(value, f.name)) for f in fields(value)}
    raise Unwritable(value)
