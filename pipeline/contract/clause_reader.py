"""The clauses of a contract file: read by the shape of their section, then asked whether they can mean what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from pipeline.contract.build import (
    Scope,
    read_about,
    read_duration,
    read_money_at_risk,
    read_route,
    read_severity,
    read_window_name,
)
from pipeline.contract.cursor import Cursor
from pipeline.contract.faults import did_you_mean, one_of
from pipeline.contract.fields import read_terms
from pipeline.contract.fragments import clause_shape, shared_shapes
from pipeline.contract.model import Clause, Severity
from pipeline.contract.section import C, Section


def read_clauses(scope: Scope, root: Cursor, sections: Sequence[Section[Any]]) -> tuple[Clause, ...]:
    """Every clause of the file, in the order of the sections."""
    found = []
    for section in sections:
        place = root
        for key in section.keys:
            place = place.at(key)
        found += [_clause(section, scope, item) for item in (place.each() if place.present else ())]
    return tuple(found)


def _clause(section: Section[C], scope: Scope, place: Cursor) -> C:
    """The clause at `place`; worthless when the document has faults."""
    shapes = clause_shape(section)["properties"]
    own = {name: shape for name, shape in shapes.items() if name not in shared_shapes()}
    common = _common(scope, place, _dimensions(section, scope), _severity(section))
    clause = section.clause(**common, **read_terms(scope, place, own, section.clause))
    section.check(place, clause, scope)
    return clause


def _dimensions(section: Section[Any], scope: Scope) -> Sequence[str]:
    """What `match` and `by` may name: the dimensions that all event types have which its clauses read."""
    first, *others = (scope.dimensions.get(view, ()) for view in section.of) if section.of else ((),)
    return [name for name in first if all(name in other for other in others)]


def _severity(section: Section[Any]) -> Severity:
    """What is in force where a clause of it says nothing."""
    default: Any = next(f.default for f in fields(section.clause) if f.name == "severity")
    found: Severity = default
    return found


def _common(scope: Scope, cursor: Cursor, dimensions: Sequence[str], severity: Severity) -> dict[str, Any]:
    """What every clause has, as keyword arguments."""
    by = cursor.at("by").texts() if cursor.at("by").present else ()
    for i, name in enumerate(by):
        _check_dimension(Cursor(scope.document, (*cursor.path, "by", i), name), name, dimensions)
    return {
        "id": _id(scope, cursor.at("id")),
        "match": _match(cursor.at("match"), dimensions),
        "by": by,
        "severity": read_severity(cursor.at("severity"), severity),
        "severity_in_window": _severity_in_window(scope, cursor.at("severity_in_window"), severity),
        "for_seconds": read_duration(cursor.at("for"), 0),
        "keep_firing_for_seconds": read_duration(cursor.at("keep_firing_for"), 0),
        "route": read_route(scope, cursor.at("route"), dimensions),
        "money_at_risk": read_money_at_risk(scope, cursor.at("money_at_risk")),
        **read_about(cursor),
    }


def _id(scope: Scope, cursor: Cursor) -> str:
    found = cursor.text() or ""
    if found in scope.ids:
        cursor.fault(repr(found), f"an id of its own (line {scope.ids[found]} has this one)")
    elif found:
        scope.ids[found] = scope.document.place(cursor.path)[0]
    return found


def _match(cursor: Cursor, dimensions: Sequence[str]) -> dict[str, tuple[str, ...]]:
    found = {}
    for name, item in cursor.entries() if cursor.present else ():
        _check_dimension(item, name, dimensions, key=True)
        found[name] = item.texts()
    return found


def _check_dimension(cursor: Cursor, name: str, dimensions: Sequence[str], key: bool = False) -> None:
    if name not in dimensions:
        hint = did_you_mean(name, dimensions)
        cursor.fault(f"the unknown dimension {name!r}", one_of(dimensions), hint, key=key)


def _severity_in_window(scope: Scope, cursor: Cursor, default: Severity) -> dict[str, Severity]:
    found = {}
    for name, item in cursor.entries() if cursor.present else ():
        read_window_name(scope, item, name)
        found[name] = read_severity(item, default)
    return found
